// `npm run test:faults -- --kills N --seed S`: a long run of kills. Prints one JSON line and fails when anything was lost,
// doubled, or not in the books.
import { parseArgs } from 'node:util'
import { runKills } from './kills.ts'

const { values } = parseArgs({ options: { kills: { type: 'string' }, seed: { type: 'string' } } })
const kills = Number(values.kills ?? 20)
const seed = Number(values.seed ?? Date.now())
if (!Number.isSafeInteger(kills) || kills < 1 || !Number.isSafeInteger(seed)) {
  console.error('usage: npm run test:faults -- --kills N --seed S (both whole numbers, kills at least 1)')
  process.exit(2)
}
const result = await runKills({ kills, seed, victims: ['collector', 'collector', 'clickhouse'] })
console.log(JSON.stringify({ seed, ...result }))
const isBalanced = result.accepted === result.stored + result.quarantined + result.duplicate
process.exit(result.lost === 0 && result.doubled === 0 && isBalanced ? 0 : 1)
