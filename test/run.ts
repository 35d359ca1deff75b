// `npm test`: every test, then one line with the counts. `--fast` leaves out what starts an engine or a collector.
import { startVitest } from 'vitest/node'

const named = process.argv.slice(2)
const isFast = named.includes('--fast')
const vitest = await startVitest(
  'test',
  named.filter((name) => name !== '--fast'),
  {
    watch: false,
    run: true,
    ...(isFast ? { include: ['{collector,dashboards,instrumentation,storage}/**/*.test.ts', 'test/*.test.ts'] } : {}),
    ...(isFast ? { exclude: ['**/node_modules/**', '**/*.db.test.ts'] } : {}),
  },
)
const modules = vitest.state.getTestModules()
let passed = 0
let failed = 0
for (const module of modules) {
  for (const test of module.children.allTests()) {
    if (test.result().state === 'passed') passed++
    else failed++
  }
  // A file that could not be loaded has no tests to fail.
  if (module.state() === 'failed' && [...module.children.allTests()].length === 0) failed++
}
failed += vitest.state.getUnhandledErrors().length
await vitest.close()
console.log(`${passed} passed, ${failed} failed`)
process.exit(failed === 0 && passed > 0 ? 0 : 1)
