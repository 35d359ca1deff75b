// `npm run bench:dashboards`: every query of every board over a week of ten million calls of a hundred tenants, on the embedded
// engines, as Grafana asks it: everything chosen, over the range that the board opens with, or `--hours N`. A line per panel
// with its rows and times, the slowest first, then one with the worst; `--calls`, `--rounds`.
import { parseArgs } from 'node:util'
import { measureBoards } from './dashboards-run.ts'

const { values } = parseArgs({
  options: {
    calls: { type: 'string', default: '10000000' },
    tenants: { type: 'string', default: '100' },
    rounds: { type: 'string', default: '10' },
    hours: { type: 'string' },
  },
})
const measured = await measureBoards({
  calls: Number(values.calls),
  tenants: Number(values.tenants),
  rounds: Number(values.rounds),
  hours: values.hours === undefined ? undefined : Number(values.hours),
  say: (what) => console.error(what),
})
for (const { board, panelId, title, rows, p50Ms, p95Ms } of measured.toSorted((a, b) => b.p95Ms - a.p95Ms))
  console.log(JSON.stringify({ board, panelId, title, rows, p50Ms, p95Ms }))
const worst = Math.max(...measured.map(({ p95Ms }) => p95Ms))
console.log(
  JSON.stringify({
    panels: measured.length,
    empty: measured.filter(({ rows }) => rows === 0).length,
    worstP95Ms: worst,
  }),
)
