import { migrateClickHouse } from '@tallylight/storage/clickhouse/migrate.ts'
import { startTestEngine, type TestEngine } from '@tallylight/storage/clickhouse/testing.ts'
import { afterAll, beforeAll, expect, test, vi } from 'vitest'
import type { TenantId } from '../receive/request.ts'
import { openAwaitedElsewhere } from './awaited-elsewhere.ts'

let engine: TestEngine
beforeAll(async () => {
  engine = await startTestEngine()
})
afterAll(() => engine[Symbol.asyncDispose]())

const heardMax = 10_000
const idOf = (at: number): string => at.toString(16).padStart(16, '0')

test('awaited elsewhere: what one waits for is heard by all, also what was told while the tables were away, the newest of too much', async () => {
  const clickhouse = await engine.open('told', false)
  const heard = [new Set<string>(), new Set<string>()]
  const problems: string[] = []
  const stop = new AbortController()
  const [one, other] = heard.map((ids) =>
    openAwaitedElsewhere({
      clickhouse,
      onAwaited: (spanId) => ids.add(spanId),
      now: Date.now,
      bounds: { exchangeMs: 20, waitingMax: 1_000, overlapMs: 10_000, heardMsMax: 60_000, heardMax },
      onProblem: (message) => problems.push(message),
    }),
  )
  const running = [one, other].map((each) => each?.run(stop.signal))
  one?.tell(
    'acme' as TenantId,
    Array.from({ length: 1_500 }, (_, at) => idOf(at)),
  )
  await vi.waitUntil(() => problems.length === 2)
  await migrateClickHouse(clickhouse)
  other?.tell('globex' as TenantId, [idOf(7_000)])
  await vi.waitFor(() => expect(heard.map((ids) => ids.size)).toEqual([1_001, 1_001]), 10_000)
  const wanted = new Set([...Array.from({ length: 1_000 }, (_, at) => idOf(500 + at)), idOf(7_000)])
  expect(heard).toEqual([wanted, wanted])
  stop.abort()
  await Promise.all(running)
})

test('awaited elsewhere: of more than an answer holds, the newest are heard', async () => {
  const clickhouse = await engine.open('many', false)
  await migrateClickHouse(clickhouse)
  await clickhouse.command(
    `INSERT INTO many.awaited_spans (TenantId, ToldAt, SpanId)
     SELECT 'acme', now64(3) - toIntervalSecond(number < 100 ? 5 : 1), leftPad(lower(hex(number)), ${idOf(0).length}, '0')
     FROM numbers(${heardMax + 100})`,
  )
  const heard = new Set<string>()
  const stop = new AbortController()
  const listener = openAwaitedElsewhere({
    clickhouse,
    onAwaited: (spanId) => heard.add(spanId),
    now: Date.now,
    bounds: { exchangeMs: 20, waitingMax: 1_000, overlapMs: 60_000, heardMsMax: 60_000, heardMax },
    onProblem: (message) => expect.fail(message),
  })
  const running = listener.run(stop.signal)
  await vi.waitUntil(() => heard.size > 0)
  stop.abort()
  await running
  expect([heard.size, heard.has(idOf(99)), heard.has(idOf(100))]).toEqual([heardMax, false, true])
})
