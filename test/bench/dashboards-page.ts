// What `npm run bench:dashboards -- --page FILE` writes: a line per query, board by board.
import { availableParallelism } from 'node:os'
import type { MeasuredPanel } from './dashboards-run.ts'

export function pageOf(
  measured: readonly MeasuredPanel[],
  { calls, tenants, rounds }: { readonly calls: number; readonly tenants: number; readonly rounds: number },
): string {
  const opened = measured.filter(({ over }) => over === 'as opened')
  const ofDay = new Map(measured.filter(({ over }) => over === 'a day').map((panel) => [nameOf(panel), panel]))
  const lines = [
    '# Every panel over ten million calls',
    '',
    '`npm run bench:dashboards -- --day --page docs/dashboards-figures.md` wrote this:',
    `${calls.toLocaleString('en')} calls of ${tenants} tenants in a week, everything chosen, ${rounds} rounds, the embedded engines on`,
    `${availableParallelism()} cores. Milliseconds from the question until the whole answer is read. The slowest takes ${worstOf(opened)} ms (95th`,
    `percentile) over the range that its board opens with${ofDay.size > 0 ? `, and ${worstOf([...ofDay.values()])} ms over a day` : ''}.`,
  ]
  for (const [board, panels] of Map.groupBy(opened, (panel) => panel.board)) {
    const [{ hours } = { hours: undefined }] = panels
    const head = [hours === undefined ? 'alert' : `panel, over ${hours} h`, 'rows', 'p50', 'p95', 'p95 over a day']
    const rows = panels.map((panel) => {
      const { panelId, title, rows: count, p50Ms, p95Ms } = panel
      const shown = panelId === 0 ? title : `${title} (${panelId})`
      return [shown, count, p50Ms, p95Ms, ofDay.get(nameOf(panel))?.p95Ms ?? ''].map(String)
    })
    lines.push('', `## ${board}`, '', ...tableOf([head, ...rows]))
  }
  return `${lines.join('\n')}\n`
}

/** As the formatter has it: texts to the left, numbers to the right. */
function tableOf(rows: readonly (readonly string[])[]): readonly string[] {
  const [head = [], ...body] = rows
  const widths = head.map((_, column) => Math.max(...rows.map((row) => row[column]?.length ?? 0)))
  const lineOf = (cells: readonly string[]): string => `| ${cells.join(' | ')} |`
  const padded = (row: readonly string[]): string =>
    lineOf(row.map((cell, at) => (at === 0 ? cell.padEnd(widths[at] ?? 0) : cell.padStart(widths[at] ?? 0))))
  const rule = lineOf(widths.map((width, at) => (at === 0 ? '-'.repeat(width) : `${'-'.repeat(width - 1)}:`)))
  return [padded(head), rule, ...body.map(padded)]
}

function nameOf({ board, panelId, title }: MeasuredPanel): string {
  return `${board} ${panelId} ${title}`
}

function worstOf(panels: readonly MeasuredPanel[]): number {
  return Math.max(...panels.map(({ p95Ms }) => p95Ms))
}
