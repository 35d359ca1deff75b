import { expect, test } from 'vitest'
import { measureBoards } from './dashboards-run.ts'

test('bench dashboards: at smoke size every panel is asked, and none is empty but what a healthy week has nothing of', async () => {
  const measured = await measureBoards({
    calls: 20_000,
    tenants: 100,
    rounds: 1,
    hours: undefined,
    say: () => undefined,
  })
  expect(measured.length).toBeGreaterThan(100)
  const empty = measured.filter(({ rows }) => rows === 0).map(({ board, title }) => `${board}: ${title}`)
  const ofNewestTrace = ['Tool calls', 'Messages', 'Errors', 'Log records'].map((title) => `Trace: ${title}`)
  expect(empty.filter((name) => !ofNewestTrace.includes(name))).toEqual(['Collector: Quarantine'])
})
