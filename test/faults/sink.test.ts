// The sink alone, on a journal that can lose its power and a ClickHouse that can lose its rows: what it counts, what it
// brings again, and what it lets go.
import { rm } from 'node:fs/promises'
import { type Journal, openJournal } from '@tallylight/collector/journal/journal.ts'
import { type MemoryDisk, openMemoryDisk } from '@tallylight/collector/journal/memory-disk.ts'
import type { SealedSegment } from '@tallylight/collector/journal/sealed-segments.ts'
import { limits } from '@tallylight/collector/limits.ts'
import { openAccept } from '@tallylight/collector/receive/accept.ts'
import { openInflate } from '@tallylight/collector/receive/inflate.ts'
import { parseTenantId } from '@tallylight/collector/receive/request.ts'
import { openClickHouseSink, type SinkOptions, type SinkProblem } from '@tallylight/collector/sinks/clickhouse.ts'
import { countStatement } from '@tallylight/collector/sinks/counting.ts'
import { type ClickHouse, insertSettings } from '@tallylight/storage/clickhouse/client.ts'
import type { EmbeddedClickHouse } from '@tallylight/storage/clickhouse/embedded.ts'
import { migrateClickHouse } from '@tallylight/storage/clickhouse/migrate.ts'
import { verifySchema } from '@tallylight/storage/clickhouse/schema.ts'
import { tracesTable } from '@tallylight/storage/clickhouse/tables.ts'
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { spansRequest } from '../spans.ts'
import { countOf, openOwner, spans, startServer } from './own-server.ts'

const rows = 200
let stack: AsyncDisposableStack
let server: EmbeddedClickHouse
let owner: ClickHouse
beforeEach(async () => {
  stack = new AsyncDisposableStack()
  server = await startServer(stack)
  owner = openOwner(server, stack)
  await migrateClickHouse(owner)
})
afterEach(() => stack.disposeAsync())

type Run = {
  readonly journal: Journal
  readonly problems: readonly SinkProblem[]
  /** The answer to a request with these spans, the last so many of them of the day after tomorrow. */
  send(from: number, count: number, futureCount?: number, tenant?: string): Promise<string>
  stop(): Promise<void>
}

/** A collector without its ports: the journal on `disk`, the road into it, and the sink. */
async function run(
  disk: MemoryDisk,
  graceMs = 600_000,
  sinks: Partial<Pick<SinkOptions, 'clickhouse' | 'now' | 'clockMs' | 'onProblem' | 'onBroughtAgain'>> = {},
): Promise<Run> {
  const sealed: SealedSegment[] = []
  let take = (segment: SealedSegment): void => void sealed.push(segment)
  const journal = await openJournal({
    directory: '/journal',
    files: disk.files,
    now: Date.now,
    insertSettings,
    bounds: {
      ...limits,
      liveAgeMsMax: 20,
      lateAgeMsMax: 20,
      reserveBytes: () => 0,
      answeredMs: limits.duplicateWindowMs,
    },
    onSealed: (segment) => take(segment),
    onProblem: () => undefined,
  })
  const schema = await verifySchema(owner)
  if (schema.kind === 'deviates') throw new Error(schema.problems.join())
  const problems: SinkProblem[] = []
  const sink = openClickHouseSink({
    journal: () => journal,
    remove: (segment) => journal.remove(segment),
    clickhouse: owner,
    targets: () => schema.targets,
    derive: undefined,
    onBroughtAgain: async () => undefined,
    onMend: () => undefined,
    now: Date.now,
    clockMs: () => performance.now(),
    bounds: { retryMsMin: 20, retryMsMax: 200, graceMs, refusedRowsMax: limits.sinkRefusedRowsMax },
    onProblem: (problem) => problems.push(problem),
    onInsert: () => undefined,
    ...sinks,
  })
  for (const segment of sealed) sink.enqueue(segment)
  take = sink.enqueue
  const stopping = new AbortController()
  const running = sink.run(stopping.signal)
  const accept = openAccept({
    journal,
    inflate: openInflate({ concurrentMax: 1 }),
    inflatedBytesMax: limits.requestInflatedBytesMax,
    duplicates: undefined,
    ingestLimits: { charge: () => undefined },
    retentionDays: () => () => 30,
    mask: () => new Map(),
    now: Date.now,
    lifting: undefined,
    onMasked: () => undefined,
    onWalked: () => undefined,
  })
  return {
    journal,
    problems,
    send: async (from, count, futureCount = 0, name = 'default') => {
      const tenant = parseTenantId(name)
      if (tenant === undefined) throw new Error(`${name} is no tenant`)
      const identity = { tenant, roles: new Set(['ingest' as const]), manyTenants: false, keyId: '' }
      const twoDays = 172_800_000_000_000n
      const sent = spans(from + count, () => 'sink').slice(from)
      const future = sent
        .splice(count - futureCount)
        .map((span) => ({ ...span, startUnixNano: span.startUnixNano + twoDays }))
      const body = spansRequest([...sent, ...future])
      const request = { signal: 'traces', identity, encoding: 'protobuf', contentEncoding: 'identity', body } as const
      return (await accept(request)).kind
    },
    stop: async () => {
      await journal.stop()
      stopping.abort()
      await running
    },
  }
}

function books({ journal }: Run): Readonly<Record<string, number>> {
  const { accepted, stored, inJournal, quarantined, duplicate } = journal.status()
  expect(accepted.traces).toBe(stored.traces + inJournal.traces + quarantined.traces + duplicate.traces)
  return { stored: stored.traces, inJournal: inJournal.traces, quarantined: quarantined.traces }
}

const untilStored = (of: Run, count: number) =>
  vi.waitUntil(() => of.journal.status().stored.traces === count, { timeout: 20_000, interval: 10 })
const untilEmpty = ({ journal }: Run) =>
  vi.waitUntil(() => journal.status().inJournal.traces === 0 && journal.status().segments === 0, {
    timeout: 20_000,
    interval: 10,
  })

test('sink: counting an insert in doubt looks into the partition of its day alone', async () => {
  await owner.command(`
    INSERT INTO books.otel_traces (Segment, RetentionDays, Timestamp)
    SELECT 'j-000000000001', 3650, toDateTime64('2026-11-01 12:00:00', 9, 'UTC') + toIntervalDay(number % 30) FROM numbers(300)`)
  const day = Date.UTC(2026, 10, 7) / 1000
  const parameters = { name: 'j-000000000001', since: day, until: day + 86_400 }
  const statement = countStatement('books.otel_traces', tracesTable)
  expect(await owner.query(statement, parameters)).toEqual([{ whole: 10 }])
  const [estimate] = await owner.query<{ parts: string }>(`EXPLAIN ESTIMATE ${statement}`, parameters)
  expect(Number(estimate?.parts)).toBe(1)
})

/** The newest part of a table is gone from the disk, and the server starts anew. */
async function losePower(table: string): Promise<void> {
  const [part] = await owner.query<{ path: string }>(
    'SELECT path FROM system.parts WHERE active AND table = {table:String} ORDER BY min_block_number DESC LIMIT 1',
    { table },
  )
  await rm(part?.path ?? '', { recursive: true })
  process.kill(server.pid() ?? 0, 'SIGKILL')
}

const untilBack = () =>
  vi.waitUntil(
    async () =>
      owner.query('SELECT 1').then(
        () => true,
        () => false,
      ),
    { timeout: 20_000 },
  )

for (const { name, graceMs, isMet } of [
  { name: 'once the grace is over', graceMs: 3_000, isMet: false },
  { name: 'as soon as it is back, if it was missed', graceMs: 600_000, isMet: true },
]) {
  test(`sink: rows that a server without fsync lost with its power are brought again ${name}, though it still knows their tokens`, async () => {
    await owner.command('ALTER TABLE books.otel_traces MODIFY SETTING fsync_after_insert = 0')
    let told = 0
    const onBroughtAgain = async (): Promise<void> => void told++
    const collector = await run(openMemoryDisk(), graceMs, { onBroughtAgain })
    for (const at of [0, 1]) {
      expect(await collector.send(at * rows, rows)).toBe('accepted')
      await untilStored(collector, (at + 1) * rows)
    }
    expect(collector.journal.status().segments).toBe(2)
    await owner.command('SYSTEM STOP MERGES')
    await losePower('otel_traces')
    const sent = isMet ? 3 * rows : 2 * rows
    if (isMet) expect(await collector.send(2 * rows, rows)).toBe('accepted')
    await untilBack()
    if (!isMet) expect(await countOf(owner, 'otel_traces')).toEqual({ rows, ids: rows })
    await vi.waitUntil(async () => (await countOf(owner, 'otel_traces')).rows >= sent, { timeout: 20_000 })
    if (!isMet) await untilEmpty(collector)
    await collector.stop()
    expect(await countOf(owner, 'otel_traces')).toEqual({ rows: sent, ids: sent })
    expect(books(collector)).toEqual({ stored: sent, inJournal: 0, quarantined: 0 })
    // What was derived is lost as well, and has to be forgotten to be made again.
    expect(told).toBeGreaterThan(0)
  })
}

test('sink: an insert in doubt of which rows were deleted since is not made again, and holds nothing up', async () => {
  const disk = openMemoryDisk()
  const first = await run(disk)
  expect(await first.send(0, rows)).toBe('accepted')
  const answered = disk.powerCut()
  await untilEmpty(first)
  await first.stop()
  await owner.command(
    "ALTER TABLE books.otel_traces DELETE WHERE SpanId <= '0000000000000064' SETTINGS mutations_sync = 1",
  )
  const second = await run(answered)
  expect(await second.send(rows, rows)).toBe('accepted')
  await untilEmpty(second)
  await second.stop()
  expect(await countOf(owner, 'otel_traces')).toEqual({ rows: 2 * rows - 100, ids: 2 * rows - 100 })
  expect(second.problems.map(({ kind }) => kind)).toContain('partly_deleted')
  expect(books(second)).toEqual({ stored: 2 * rows, inJournal: 0, quarantined: 0 })
})

test('sink: a row that was refused is in quarantine once, also when nobody noted that it is there', async () => {
  await owner.command("ALTER TABLE books.otel_traces ADD CONSTRAINT polite CHECK SpanName != 'sink'")
  for (const count of [1, 3]) {
    const disk = openMemoryDisk()
    const first = await run(disk)
    expect(await first.send(0, count)).toBe('accepted')
    const answered = disk.powerCut()
    await untilEmpty(first)
    expect(books(first)).toEqual({ stored: 0, inJournal: 0, quarantined: count })
    await first.stop()
    const second = await run(answered)
    await untilEmpty(second)
    expect(books(second)).toEqual({ stored: 0, inJournal: 0, quarantined: count })
    await second.stop()
  }
  expect((await countOf(owner, 'quarantine')).rows).toBe(4)
})

test('sink: a row that was put aside is not taken for one that its segment itself brings to the quarantine', async () => {
  await owner.command("ALTER TABLE books.otel_traces ADD CONSTRAINT polite CHECK SpanName != 'sink'")
  const disk = openMemoryDisk()
  const first = await run(disk)
  expect(await first.send(0, 2, 1)).toBe('accepted')
  const answered = disk.powerCut()
  await untilEmpty(first)
  await first.stop()
  // As if the crash had come between the two.
  await owner.command("ALTER TABLE books.quarantine DELETE WHERE Reason = 'future_time' SETTINGS mutations_sync = 1")
  const second = await run(answered)
  await untilEmpty(second)
  expect(books(second)).toEqual({ stored: 0, inJournal: 0, quarantined: 2 })
  await second.stop()
  expect(
    await owner.query('SELECT Reason, count() AS rows FROM books.quarantine GROUP BY Reason ORDER BY Reason'),
  ).toEqual([
    { Reason: 'future_time', rows: 1 },
    { Reason: 'refused_by_table', rows: 1 },
  ])
})

/** Tables of the user's own in the place of ours. */
async function bringOwn(lacking: string, settings: string): Promise<void> {
  for (const [table, day] of [
    ['otel_traces', 'Timestamp'],
    ['otel_traces_trace_id_ts', 'Start'],
  ]) {
    await owner.command(
      `CREATE TABLE books.own ENGINE = MergeTree PARTITION BY toDate(${day}) ORDER BY ${day} SETTINGS ${settings}
       AS SELECT * EXCEPT (${lacking}) FROM books.${table} WHERE 0`,
    )
    await owner.command(`DROP TABLE books.${table} SYNC`)
    await owner.command(`RENAME TABLE books.own TO books.${table}`)
  }
}

for (const lacking of ['TenantId', 'TenantId, Segment']) {
  test(`sink: a table of the user’s own without ${lacking} gets the default tenant’s rows alone; those of others are put aside once, also after a crash`, async () => {
    await bringOwn(
      lacking,
      'non_replicated_deduplication_window = 1000, fsync_after_insert = 1, fsync_part_directory = 1, min_rows_to_fsync_after_merge = 1',
    )
    const disk = openMemoryDisk()
    const first = await run(disk)
    const sent = [0, 1, 2, 3].map((at) => first.send(at * rows, rows, 0, at % 2 === 0 ? 'default' : 'acme'))
    expect(await Promise.all(sent)).toEqual(['accepted', 'accepted', 'accepted', 'accepted'])
    expect(await first.send(4 * rows, 1, 0, 'tallylight')).toBe('accepted')
    const answered = disk.powerCut()
    await untilEmpty(first)
    await first.stop()
    const second = await run(answered)
    await untilEmpty(second)
    for (const each of [first, second])
      expect(books(each)).toEqual({ stored: 2 * rows + 1, inJournal: 0, quarantined: 2 * rows })
    await second.stop()
    expect(await countOf(owner, 'otel_traces')).toEqual({ rows: 2 * rows + 1, ids: 2 * rows + 1 })
    expect(await countOf(owner, 'quarantine')).toEqual({ rows: 2 * rows, ids: 2 * rows })
    expect(
      await owner.query(
        `SELECT TenantId, Signal, Reason, min(JSONExtractString(Record, 'SpanId')) AS first,
           max(JSONExtractString(Record, 'SpanId')) AS last FROM books.quarantine GROUP BY ALL`,
      ),
    ).toEqual([
      {
        TenantId: 'acme',
        Signal: 'traces',
        Reason: 'other_tenant',
        first: (rows + 1).toString(16).padStart(16, '0'),
        last: (4 * rows).toString(16).padStart(16, '0'),
      },
    ])
  })
}

test('sink: the exporter’s own tables, which know no repeats, get each row once, also when collector and server start anew', async () => {
  await bringOwn('TenantId, Segment, RetentionDays', 'ttl_only_drop_parts = 1')
  const disk = openMemoryDisk()
  const first = await run(disk)
  expect(await first.send(0, rows)).toBe('accepted')
  await untilStored(first, rows)
  await first.stop()
  // The grace is over in no time, so that it is seen that what is kept goes after all.
  const second = await run(disk, 100)
  expect(await second.send(rows, rows)).toBe('accepted')
  await untilStored(second, 2 * rows)
  await untilEmpty(second)
  await second.stop()
  const third = await run(disk)
  expect(await third.send(2 * rows, rows)).toBe('accepted')
  await untilStored(third, 3 * rows)
  process.kill(server.pid() ?? 0, 'SIGKILL')
  expect(await third.send(3 * rows, rows)).toBe('accepted')
  await untilBack()
  await untilStored(third, 4 * rows)
  await third.stop()
  expect(await countOf(owner, 'otel_traces')).toEqual({ rows: 4 * rows, ids: 4 * rows })
  expect(books(third)).toEqual({ stored: 4 * rows, inJournal: 0, quarantined: 0 })
})

test('sink: a short outage after a long one is not waited for as the long one was', async () => {
  let clockMs = 0
  let failures = 0
  let afterFailureMs = 0
  const awaySometimes: ClickHouse = {
    ...owner,
    insertNative: async (...args: Parameters<ClickHouse['insertNative']>) =>
      failures-- > 0 ? ({ kind: 'unreachable', message: 'away' } as const) : owner.insertNative(...args),
  }
  const sinkRun = await run(openMemoryDisk(), undefined, {
    clickhouse: awaySometimes,
    clockMs: () => clockMs,
    onProblem: () => {
      clockMs += afterFailureMs
    },
  })
  // Long: each pause, however far it has grown, passes at once.
  ;[failures, afterFailureMs] = [10, 1000]
  expect(await sinkRun.send(0, rows)).toBe('accepted')
  await untilStored(sinkRun, rows)
  // Short: the longest that a first pause of 20 ms can be.
  ;[failures, afterFailureMs] = [1, 25]
  expect(await sinkRun.send(rows, rows)).toBe('accepted')
  await untilStored(sinkRun, 2 * rows)
  await sinkRun.stop()
})

test('sink: a clock that is set back while ClickHouse is away holds nothing up', async () => {
  let setBackMs = 0
  let failures = 1
  const awayOnce: ClickHouse = {
    ...owner,
    insertNative: async (...args: Parameters<ClickHouse['insertNative']>) =>
      failures-- > 0 ? ({ kind: 'unreachable', message: 'away' } as const) : owner.insertNative(...args),
  }
  const sinkRun = await run(openMemoryDisk(), undefined, {
    clickhouse: awayOnce,
    now: () => Date.now() - setBackMs,
    onProblem: () => {
      setBackMs = 3_600_000
    },
  })
  expect(await sinkRun.send(0, rows)).toBe('accepted')
  await untilStored(sinkRun, rows)
  await untilEmpty(sinkRun)
  await sinkRun.stop()
})
