// `npm run bench:dashboards`: every query of every board and alert over a week of ten million calls of a hundred tenants, on the
// embedded engines, as Grafana asks it: everything chosen, over the range that the board opens with; `--day` over a day, too. A line
// per query with its rows and times, the slowest first, then one with the worst; `--page FILE` writes them down. Exit code 1 when
// one takes longer than half a second over what its board opens with, or a panel is empty; `--calls`, `--tenants`, `--rounds`.
import { writeFile } from 'node:fs/promises'
import { parseArgs } from 'node:util'
import { pageOf } from './dashboards-page.ts'
import { alertsTitle, measureBoards } from './dashboards-run.ts'

const p95MsMax = 500

const { values } = parseArgs({
  options: {
    calls: { type: 'string', default: '10000000' },
    tenants: { type: 'string', default: '100' },
    rounds: { type: 'string', default: '10' },
    day: { type: 'boolean', default: false },
    page: { type: 'string' },
  },
})
const size = { calls: Number(values.calls), tenants: Number(values.tenants), rounds: Number(values.rounds) }
const measured = await measureBoards({
  ...size,
  over: values.day ? ['as opened', 'a day'] : ['as opened'],
  say: (what) => console.error(what),
})
for (const each of measured.toSorted((a, b) => b.p95Ms - a.p95Ms)) console.log(JSON.stringify(each))
if (values.page !== undefined) await writeFile(values.page, pageOf(measured, size))
const opened = measured.filter(({ over }) => over === 'as opened')
const empty = opened.filter(({ board, rows }) => rows === 0 && board !== alertsTitle).length
const worstP95Ms = Math.max(...opened.map(({ p95Ms }) => p95Ms))
console.log(JSON.stringify({ queries: opened.length, empty, worstP95Ms }))
process.exitCode = empty > 0 || worstP95Ms > p95MsMax ? 1 : 0
