// `npm test`: every test, then one line with the counts.
import { startVitest } from 'vitest/node'

const filters = process.argv.slice(2)
const vitest = await startVitest('test', filters, { watch: false, run: true })
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
