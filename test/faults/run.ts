// `npm run test:faults`: the long forms of what `npm test` does briefly. Each option asks for one run; without any, 20 kills.
// Prints one JSON line per run and fails when anything was lost, doubled, or not in the books.
//
//   --kills N [--seed S]     a collector, ClickHouse or Postgres killed N times under load, at random and at named steps
//   --rows N                 one bad row among N
//   --absent-seconds N       ClickHouse away that long, under load
import { parseArgs } from 'node:util'
import { runAbsence } from './absence.ts'
import { runBadRow } from './bad-row.ts'
import { runKills } from './kills.ts'

const { values } = parseArgs({
  options: {
    kills: { type: 'string' },
    seed: { type: 'string' },
    rows: { type: 'string' },
    'absent-seconds': { type: 'string' },
  },
})
const isAnyAsked = [values.kills, values.rows, values['absent-seconds']].some((asked) => asked !== undefined)
const kills = numberOf(values.kills) ?? (isAnyAsked ? undefined : 20)
const seed = numberOf(values.seed) ?? Date.now()
const rows = numberOf(values.rows)
const absentSeconds = numberOf(values['absent-seconds'])
let isRight = true

if (kills !== undefined) {
  const result = await runKills({ kills, seed, victims: ['collector', 'point', 'clickhouse', 'postgres'] })
  const isBalanced = result.accepted === result.stored + result.quarantined + result.duplicate
  tell({ seed, ...result }, result.lost === 0 && result.doubled === 0 && isBalanced)
}
if (rows !== undefined) {
  const result = await runBadRow(rows)
  const { inTable, inQuarantine } = result
  tell(result, inTable.rows === rows - 1 && inTable.ids === rows - 1 && inQuarantine.length === 1)
}
if (absentSeconds !== undefined) {
  const result = await runAbsence(absentSeconds)
  const { inTable, answered, refused } = result
  tell(result, inTable.rows === answered && inTable.ids === answered && refused === 0)
}
process.exit(isRight ? 0 : 1)

function tell(result: object, isGood: boolean): void {
  console.log(JSON.stringify(result))
  isRight &&= isGood
}

function numberOf(text: string | undefined): number | undefined {
  const value = Number(text)
  if (text === undefined) return undefined
  if (Number.isSafeInteger(value) && value >= 1) return value
  console.error('usage: npm run test:faults -- [--kills N] [--seed S] [--rows N] [--absent-seconds N] (whole numbers)')
  process.exit(2)
}
