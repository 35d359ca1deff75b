import { expect, test } from 'vitest'
import { pageOf } from './dashboards-page.ts'
import { alertsTitle, measureBoards } from './dashboards-run.ts'

test('bench dashboards: at smoke size every panel is asked, and none is empty', async () => {
  const measured = await measureBoards({
    calls: 20_000,
    tenants: 100,
    rounds: 1,
    over: ['as opened'],
    say: () => undefined,
  })
  expect(measured.length).toBeGreaterThan(100)
  const empty = measured.filter(({ board, rows }) => rows === 0 && board !== alertsTitle)
  expect(empty.map(({ board, title }) => `${board}: ${title}`)).toEqual([])
  expect(pageOf(measured, { calls: 20_000, tenants: 100, rounds: 1 })).toMatch(/\| Slowest calls \(42\) +\| +100 \|/)
})
