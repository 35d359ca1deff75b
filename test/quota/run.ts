// `npm run test:quota -- --steps N --seed S`: as many random steps as one likes, in rounds of 500 with a seed each.
import { parseArgs } from 'node:util'
import { startTestPostgres } from '@tallylight/storage/postgres/testing.ts'
import { compareRounds } from './model.ts'

const { values } = parseArgs({ options: { steps: { type: 'string' }, seed: { type: 'string' } } })
const steps = Number(values.steps ?? 50_000)
const seed = Number(values.seed ?? Date.now())
if (!Number.isSafeInteger(steps) || steps < 1 || !Number.isSafeInteger(seed)) {
  console.error('usage: npm run test:quota -- --steps N --seed S (both whole numbers)')
  process.exit(2)
}
await using postgres = await startTestPostgres()
await compareRounds(postgres, seed, steps)
console.log(JSON.stringify({ steps, seed, differences: 0 }))
