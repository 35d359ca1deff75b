// `npm run test:quota -- --steps N --seed S --kill-every K`: as many random steps as one likes, in rounds of 500 with a seed each,
// on two servers, of which one is killed in the middle of one of K reservations (0: never).

import { parseArgs } from 'node:util'
import { startTestPostgres } from '@tallylight/storage/postgres/testing.ts'
import { compareRounds } from './model.ts'

const { values } = parseArgs({
  options: { steps: { type: 'string' }, seed: { type: 'string' }, 'kill-every': { type: 'string' } },
})
const steps = Number(values.steps ?? 50_000)
const seed = Number(values.seed ?? Date.now())
const killEvery = Number(values['kill-every'] ?? 2_000)
if (!Number.isSafeInteger(steps) || steps < 1 || !Number.isSafeInteger(seed) || !Number.isSafeInteger(killEvery)) {
  console.error('usage: npm run test:quota -- --steps N --seed S --kill-every K (whole numbers)')
  process.exit(2)
}
await using first = await startTestPostgres()
await using second = await startTestPostgres()
const servers = [first, second]
const onRound = (done: number): void => {
  if (done % 10_000 === 0) console.error(`${done} steps`)
}
await compareRounds(servers, seed, steps, { killEvery, onRound })
const kills = servers.reduce((sum, { engine }) => sum + engine.restarts(), 0)
console.log(JSON.stringify({ steps, seed, kills, differences: 0 }))
