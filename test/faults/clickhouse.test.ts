// A ClickHouse that is not there, or refuses rows: a server of the user's own, so that its tables can be changed under the
// collector.
import { expect, test, vi } from 'vitest'
import { startCollector } from '../collector-process.ts'
import { spansRequest, type TestSpan } from '../spans.ts'
import { runBadRow } from './bad-row.ts'
import { countOf, openOwner, send, spans, startServer, urlOf } from './own-server.ts'

test('clickhouse: one row of 20,000 that its table refuses is quarantined with its reason, and the rest is stored', async () => {
  const { seconds, ...result } = await runBadRow(20_000)
  expect(seconds).toBeGreaterThan(0)
  expect(result).toEqual({
    rows: 20_000,
    inTable: { rows: 19_999, ids: 19_999 },
    inQuarantine: [
      { TenantId: 'default', Signal: 'traces', Reason: 'refused_by_table', Format: 'json', name: 'rude', says: 1 },
    ],
    accepted: 20_000,
    stored: 19_999,
    quarantined: 1,
  })
})

test('clickhouse: while it is away, requests are answered and wait in the journal; back on its port, it gets each once', async () => {
  await using stack = new AsyncDisposableStack()
  const server = await startServer(stack)
  await server[Symbol.asyncDispose]()
  const collector = stack.use(await startCollector({ TALLYLIGHT_CLICKHOUSE_URL: urlOf(server) }))
  expect(await send(collector, spansRequest(spans(100, () => 'early')))).toBe(200)
  expect(await collector.metric('tallylight_journal_records')).toBe(100)
  expect(collector.log()).toMatch(/ClickHouse cannot be used yet/)
  const back = await server.startAgain()
  await collector.drained()
  const owner = openOwner(back, stack)
  expect(await countOf(owner, 'otel_traces')).toEqual({ rows: 100, ids: 100 })
  // Away once more, with tables that the collector knows.
  await back[Symbol.asyncDispose]()
  expect(
    await send(
      collector,
      spansRequest(spans(100, () => 'late').map((span) => ({ ...span, id: `a${span.id.slice(1)}` }))),
    ),
  ).toBe(200)
  expect(await collector.metric('tallylight_journal_records')).toBe(100)
  await back.startAgain()
  await collector.drained()
  expect(await countOf(owner, 'otel_traces')).toEqual({ rows: 200, ids: 200 })
  expect(await collector.metric('tallylight_stored_records_total')).toBe(200)
})

test('clickhouse: tables that change while the collector runs are looked at again: one that fits gets its rows, of one that does not it says why', async () => {
  await using stack = new AsyncDisposableStack()
  const server = await startServer(stack)
  const collector = stack.use(await startCollector({ TALLYLIGHT_CLICKHOUSE_URL: urlOf(server) }))
  const owner = openOwner(server, stack)
  const sendFrom = async (from: number): Promise<void> =>
    expect(await send(collector, spansRequest(spans(from + 10, () => 'changed').slice(from)))).toBe(200)
  const untilStored = (count: number) =>
    vi.waitUntil(async () => (await collector.metric('tallylight_stored_records_total')) === count, { timeout: 40_000 })
  await sendFrom(0)
  await untilStored(10)
  // As another exporter makes it: none of our columns.
  await owner.command(`CREATE TABLE books.other ENGINE = MergeTree ORDER BY Timestamp
    AS SELECT * EXCEPT (TenantId, Segment, RetentionDays) FROM books.otel_traces`)
  await owner.command('EXCHANGE TABLES books.otel_traces AND books.other')
  await sendFrom(10)
  await untilStored(20)
  expect(await countOf(owner, 'otel_traces')).toEqual({ rows: 20, ids: 20 })
  await owner.command('ALTER TABLE books.otel_traces RENAME COLUMN SpanName TO Name')
  await sendFrom(20)
  await vi.waitUntil(() => collector.log().includes('books.otel_traces has no column SpanName'), { timeout: 20_000 })
  await owner.command('ALTER TABLE books.otel_traces RENAME COLUMN Name TO SpanName')
  await untilStored(30)
  expect(await countOf(owner, 'otel_traces')).toEqual({ rows: 30, ids: 30 })
})

test('clickhouse: a request sent twice is stored once, and counted as a duplicate', async () => {
  await using stack = new AsyncDisposableStack()
  const collector = stack.use(await startCollector())
  const body = spansRequest(spans(10, () => 'twice'))
  expect(await send(collector, body)).toBe(200)
  expect(await send(collector, body)).toBe(200)
  await collector.drained()
  expect(await collector.query('SELECT toUInt32(count()) AS rows FROM tallylight.otel_traces')).toEqual([{ rows: 10 }])
  expect(await collector.metric('tallylight_duplicate_records_total', { signal: 'traces' })).toBe(10)
  expect(await collector.metric('tallylight_accepted_records_total', { signal: 'traces' })).toBe(20)
})

test('clickhouse: a record of tomorrow after next is quarantined, and one that is too old is rejected by name', async () => {
  await using stack = new AsyncDisposableStack()
  const collector = stack.use(await startCollector())
  const day = 86_400_000_000_000n
  const [base] = spans(1, () => 'now')
  const at = (id: string, days: bigint): TestSpan => ({
    id: id.repeat(16),
    name: id,
    startUnixNano: (base?.startUnixNano ?? 0n) + days * day,
  })
  const response = await fetch(`http://127.0.0.1:${collector.ports().otlpHttp}/v1/traces`, {
    method: 'POST',
    body: new Uint8Array(spansRequest([at('1', 0n), at('2', 2n), at('3', -31n)])),
    headers: { 'Content-Type': 'application/x-protobuf' },
  })
  const answer = Buffer.from(await response.arrayBuffer()).toString()
  expect(response.status).toBe(200)
  expect(answer).toContain('1 too_old (older than its retention of 30 days)')
  await collector.drained()
  expect(await collector.query('SELECT SpanName FROM tallylight.otel_traces')).toEqual([{ SpanName: '1' }])
  expect(await collector.query('SELECT Reason, Signal, Format FROM tallylight.quarantine')).toEqual([
    { Reason: 'future_time', Signal: 'traces', Format: 'otlp' },
  ])
})
