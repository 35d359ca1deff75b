// A Next.js service with one route that calls a model, built and started as its users do.
import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'

const route = `import OpenAI from 'openai'
export const dynamic = 'force-dynamic'
export async function GET() {
  const openai = new OpenAI({ apiKey: 'k' })
  const messages = [{ role: 'user', content: 'Hi' }]
  const reply = await openai.chat.completions.create({ model: 'gpt-4o', messages })
  return new Response(reply.choices[0].message.content)
}
`
const layout = 'export default ({ children }) => <html lang="en"><body>{children}</body></html>\n'
const programOf = (folder: string): string => join(folder, 'node_modules', 'next', 'dist', 'bin', 'next')

export function buildNext(node: string, folder: string, standInUrl: string): void {
  mkdirSync(join(folder, 'app', 'chat'), { recursive: true })
  writeFileSync(join(folder, 'app', 'chat', 'route.js'), route)
  writeFileSync(join(folder, 'app', 'layout.jsx'), layout)
  writeFileSync(join(folder, 'next.config.mjs'), `export default { turbopack: { root: ${JSON.stringify(folder)} } }\n`)
  const env = { PATH: process.env.PATH ?? '', NEXT_TELEMETRY_DISABLED: '1', OPENAI_BASE_URL: `${standInUrl}/v1` }
  execFileSync(node, [programOf(folder), 'build'], {
    cwd: folder,
    env: { ...env, NODE_ENV: 'production' },
    stdio: 'pipe',
  })
}

/** What the route gave, when its span was sent. */
export async function callNext(
  node: string,
  folder: string,
  environment: Readonly<Record<string, string>>,
  sent: () => Promise<unknown>,
): Promise<string> {
  const args = ['--import', '@tallylight/instrumentation/register', programOf(folder), 'start', '--port', '0']
  const child = spawn(node, args, {
    cwd: folder,
    env: { ...environment, NEXT_TELEMETRY_DISABLED: '1', NODE_ENV: 'production', OTEL_METRICS_EXPORTER: 'none' },
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const ended = once(child, 'exit')
  try {
    for await (const line of createInterface({ input: child.stdout })) {
      const url = /Local:\s+(http:\S+)/.exec(line)?.[1]
      if (url === undefined) continue
      const isSent = sent()
      const reply = await (await fetch(new URL('/chat', url))).text()
      await isSent
      return reply
    }
    return 'nothing: it ended before it listened'
  } finally {
    child.kill('SIGTERM')
    await ended
  }
}
