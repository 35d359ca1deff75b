// `npm run check`: format, types, our own rules, and the tests that need no engine. Under a minute, for every save.
import { spawnSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('..', import.meta.url))
const steps: readonly (readonly [name: string, command: string, args: readonly string[]])[] = [
  ['format', 'node_modules/.bin/biome', ['check', '--error-on-warnings', '.']],
  ['types', 'node_modules/.bin/tsc', ['-p', '.']],
  ['tests', process.execPath, ['test/run.ts', '--fast']],
]

for (const [name, command, args] of steps) {
  const startedMs = performance.now()
  const done = spawnSync(command, args, { cwd: root, stdio: 'inherit' })
  console.log(
    `check: ${name} ${done.status === 0 ? 'passed' : 'failed'} in ${((performance.now() - startedMs) / 1000).toFixed(1)} s`,
  )
  if (done.status !== 0) process.exit(1)
}
