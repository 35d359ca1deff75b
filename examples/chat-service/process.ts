// The chat service as a process, instrumented by one flag.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'

export type Service = AsyncDisposable & { readonly url: string }

export async function startService(environment: Readonly<Record<string, string>>): Promise<Service> {
  const register = fileURLToPath(import.meta.resolve('@tallylight/instrumentation/register.ts'))
  const program = fileURLToPath(new URL('app.ts', import.meta.url))
  const child = spawn(process.execPath, ['--disable-warning=ExperimentalWarning', '--import', register, program], {
    env: { ...process.env, ...environment },
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const ended = once(child, 'exit')
  const lines = createInterface({ input: child.stdout })
  const [line] = await Promise.race([
    once(lines, 'line'),
    ended.then(([code]) => {
      throw new Error(`the chat service ended with ${code} before it listened`)
    }),
  ])
  const { port } = JSON.parse(String(line)) as { readonly port: number }
  return {
    url: `http://127.0.0.1:${port}`,
    async [Symbol.asyncDispose]() {
      child.kill('SIGTERM')
      await ended
    },
  }
}
