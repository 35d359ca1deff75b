// `npm run fuzz -- --cases N --seed S`: N cases from seed S on. Ends with how many passed, or with the first that failed.
import { parseArgs } from 'node:util'
import { checkJson, makeCase } from './cases.ts'
import { openOracle } from './oracle.ts'
import { checkWalk } from './walk.ts'

const { values } = parseArgs({ options: { cases: { type: 'string' }, seed: { type: 'string' } } })
const cases = Number(values.cases ?? 100_000)
const firstSeed = Number(values.seed ?? Date.now())
if (!Number.isSafeInteger(cases) || !Number.isSafeInteger(firstSeed) || cases < 1 || firstSeed < 0) {
  console.error('usage: npm run fuzz -- --cases N --seed S (both whole numbers, cases at least 1)')
  process.exit(2)
}
console.log(`fuzz: ${cases} cases from seed ${firstSeed}`)
const oracle = openOracle()
const started = performance.now()
let wireBytes = 0
let jsonBytes = 0
for (let index = 0; index < cases; index += 1) {
  const fuzzCase = makeCase(oracle, firstSeed + index, index % 2 === 0)
  checkJson(oracle, fuzzCase)
  checkWalk(oracle, fuzzCase)
  wireBytes += fuzzCase.wire.length
  jsonBytes += fuzzCase.json.length
  if (index % 10_000 === 9_999) console.log(`fuzz: ${index + 1} passed, ${Math.round(performance.now() - started)} ms`)
}
console.log(`fuzz: ${cases} passed, 0 failed, ${wireBytes} bytes of protobuf, ${jsonBytes} bytes of JSON`)
