// Settlement by record on a real Postgres: what comes twice, late, from elsewhere, or with more known.
import { withConnection } from '@tallylight/storage/postgres/connection.ts'
import { prune } from '@tallylight/storage/postgres/quota/reconcile.ts'
import { startTestPostgres, type TestPostgres } from '@tallylight/storage/postgres/testing.ts'
import type pg from 'pg'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { NanoUsd } from '../genai/price.ts'
import { limits } from '../limits.ts'
import { openLedger, type RecordSource } from './ledger.ts'
import { balanceOf, idOf, nobody, openClock, openTestLedger, reserve, settle, tenant } from './testing.ts'
import { recordOf, type UsageEvent } from './usage-event.ts'

let postgres: TestPostgres

beforeAll(async () => {
  postgres = await startTestPostgres()
}, 60_000)
afterAll(() => postgres[Symbol.asyncDispose]())

const budget = { id: 'budget', measure: 'cost', amount: 1_000 }

function event(spanId: string, costNanoUsd: number | undefined, more: Partial<UsageEvent> = {}): UsageEvent {
  return {
    tenant,
    traceId: 'trace',
    spanId,
    parentSpanId: '',
    generation: 0,
    callId: undefined,
    user: '',
    conversation: '',
    model: 'm',
    provider: '',
    usage: { inputTokens: 7, outputTokens: 2 },
    isLowerBound: false,
    cost:
      costNanoUsd === undefined
        ? { kind: 'unpriced', reason: 'nobody knows' }
        : { kind: 'priced', costNanoUsd: BigInt(costNanoUsd) as NanoUsd, priceVersion: 'test' },
    isMetered: true,
    endedUnixMs: Date.now(),
    ...more,
  }
}

function segment(number: number, more: Partial<RecordSource> = {}): RecordSource {
  return { journal: 'j', lane: 'live', segment: number, createdUnixMs: 1_000 + number, name: `j-${number}`, ...more }
}

async function expectNoDrift(pool: pg.Pool): Promise<void> {
  expect((await pool.query('select * from quota_drift')).rows).toEqual([])
}

test('records: one counts once, whichever segment, journal or collector brings it how often', async () => {
  const { ledger, pool } = await openTestLedger(postgres, 'repeats', [budget])
  const records = [recordOf(event('a', 10)), recordOf(event('b', 20))]
  expect(await ledger.record(segment(1), records)).toEqual({ kind: 'recorded', booked: 2, repeated: 0, refused: 0 })
  for (const source of [segment(1), segment(2), segment(1, { journal: 'another' }), segment(9, { lane: 'late' })]) {
    expect(await ledger.record(source, records)).toEqual({ kind: 'recorded', booked: 0, repeated: 2, refused: 0 })
  }
  expect(await balanceOf(pool, 'budget')).toMatchObject({ spent: 30, held: 0 })
  await expectNoDrift(pool)
})

test('records: two collectors that bring the same at once book it once', async () => {
  const { ledger, pool } = await openTestLedger(postgres, 'at_once', [budget])
  const other = openLedger({ database: pool, log: { warn: () => undefined } })
  const records = Array.from({ length: 50 }, (_, at) => recordOf(event(`${at}`, 1)))
  const outcomes = await Promise.all([
    ledger.record(segment(1), records),
    other.record(segment(1, { journal: 'another' }), records),
  ])
  expect(outcomes.map((outcome) => (outcome.kind === 'recorded' ? outcome.booked : -1)).sort()).toEqual([0, 50])
  expect(await balanceOf(pool, 'budget')).toMatchObject({ spent: 50 })
})

test('records: of a restored volume the old segments are known by their cursor, and new ones with old numbers are booked', async () => {
  const { ledger, pool } = await openTestLedger(postgres, 'restored', [budget])
  const clock = await openClock(pool, Date.now())
  await ledger.record(segment(5), [recordOf(event('a', 10))])
  // Only the cursor knows it still.
  await clock.move(41 * 86_400_000)
  await withConnection(pool, (client) => prune(client, limits.quotaEventsKeptMs))
  expect((await pool.query('select 1 from quota_events')).rows).toEqual([])
  expect(await ledger.record(segment(5), [recordOf(event('a', 10))])).toMatchObject({ booked: 0, repeated: 1 })
  expect(await ledger.record(segment(4, { createdUnixMs: 9_000 }), [recordOf(event('b', 1))])).toMatchObject({
    booked: 1,
  })
  expect(await balanceOf(pool, 'budget')).toMatchObject({ spent: 11 })
})

test('records: what a segment that is booked says better after a restart is booked as a difference', async () => {
  const tokens = { id: 'tokens', measure: 'tokens', amount: 1_000 }
  const { ledger, pool } = await openTestLedger(postgres, 'said_better', [budget, tokens])
  // As far as it could be said while ClickHouse was away: nothing of a stream that told no usage, nor of the second call.
  await ledger.record(segment(7), [recordOf(event('a', 1, { generation: 1 }))])
  const restarted = openLedger({ database: pool, log: { warn: () => undefined } })
  const better = [event('a', 25, { generation: 2 }), event('b', 4, { generation: 2 })].map(recordOf)
  expect(await restarted.record(segment(7), better)).toMatchObject({ booked: 2 })
  expect(await restarted.record(segment(7), better)).toMatchObject({ booked: 0, repeated: 2 })
  expect(await balanceOf(pool, 'budget')).toMatchObject({ spent: 29 })
  // The cursor stays where it is: those behind are new.
  expect(await restarted.record(segment(8), [recordOf(event('c', 1))])).toMatchObject({ booked: 1 })
  await expectNoDrift(pool)
})

const none = { usage: undefined } as const
test.each([
  ['told nothing, and was settled', none, 40, 40],
  ['told nothing, and was never settled', none, undefined, 100],
  ['told a part, and was settled for more', { usage: { inputTokens: 7, outputTokens: 0 }, isLowerBound: true }, 40, 40],
  [
    'told a part, and was settled for less',
    { usage: { inputTokens: 50, outputTokens: 5 }, isLowerBound: true },
    40,
    55,
  ],
  ['told all, and was settled for more', { usage: { inputTokens: 7, outputTokens: 0 } }, 40, 7],
])('records: a call that %s, is not free', async (name, more, settled, spent) => {
  const tokens = { id: 'tokens', measure: 'tokens', amount: 1_000 }
  const { ledger, pool } = await openTestLedger(postgres, `untold_${name.replaceAll(/\W+/g, '_')}`, [tokens])
  const id = idOf(await ledger.run(reserve('c', 100)))
  if (settled !== undefined) await ledger.run(settle(id, settled))
  await ledger.record(segment(1), [recordOf(event('a', undefined, { callId: 'c', ...more }))])
  expect(await balanceOf(pool, 'tokens')).toMatchObject({ spent, held: 0 })
  // Known after all.
  const better = event('a', undefined, { callId: 'c', generation: 1, usage: { inputTokens: 3, outputTokens: 1 } })
  await ledger.record(segment(2), [recordOf(better)])
  expect(await balanceOf(pool, 'tokens')).toMatchObject({ spent: 4, held: 0 })
  await expectNoDrift(pool)
})

test('records: a higher generation books the difference, also to another subject; a lower one that comes later nothing', async () => {
  const { ledger, pool } = await openTestLedger(postgres, 'generations', [{ ...budget, each: 'user' }])
  await ledger.record(segment(1), [recordOf(event('a', 10, { generation: 1, user: 'ada' }))])
  await ledger.record(segment(2), [recordOf(event('a', 25, { generation: 2, user: 'ada' }))])
  expect(await balanceOf(pool, 'budget', 'ada')).toMatchObject({ spent: 25 })
  await ledger.record(segment(3), [recordOf(event('a', 30, { generation: 4, user: 'bob' }))])
  await ledger.record(segment(4), [recordOf(event('a', 99, { generation: 3, user: 'ada' }))])
  expect(await balanceOf(pool, 'budget', 'ada')).toMatchObject({ spent: 0, free: 1_000 })
  expect(await balanceOf(pool, 'budget', 'bob')).toMatchObject({ spent: 30 })
  await ledger.record(segment(5), [recordOf(event('a', 30, { generation: 5, user: 'bob', isMetered: false }))])
  expect(await balanceOf(pool, 'budget', 'bob')).toMatchObject({ spent: 0 })
  await expectNoDrift(pool)
})

test('records: what is known later of calls whose booking is forgotten counts no second time, and what a segment brings counts', async () => {
  const tokens = { id: 'tokens', measure: 'tokens', amount: 1_000 }
  const { ledger, pool } = await openTestLedger(postgres, 'forgotten', [budget, tokens])
  const clock = await openClock(pool, Date.now())
  // Two calls of a trace, of which one gets its price 41 days later: then both are said again.
  await ledger.record(segment(1), [recordOf(event('a', 500)), recordOf(event('b', undefined))])
  await clock.move(41 * 86_400_000)
  await withConnection(pool, (client) => prune(client, limits.quotaEventsKeptMs))
  const later = [recordOf(event('a', 500, { generation: 1 })), recordOf(event('b', 70, { generation: 1 }))]
  expect(await ledger.record(undefined, later)).toEqual({ kind: 'recorded', booked: 0, repeated: 2, refused: 0 })
  expect(await balanceOf(pool, 'budget')).toMatchObject({ spent: 500 })
  expect(await balanceOf(pool, 'tokens')).toMatchObject({ spent: 18 })
  // One that counts no more, as the trace shows, is not booked by the segment that was left behind.
  const gone = recordOf(event('c', 0, { generation: 1, isMetered: false, endedUnixMs: 0 }))
  expect(await ledger.record(undefined, [gone])).toMatchObject({ booked: 1 })
  const leftBehind = [recordOf(event('c', 10)), recordOf(event('d', 3))]
  expect(await ledger.record(segment(2), leftBehind)).toMatchObject({ booked: 1, repeated: 1 })
  expect(await balanceOf(pool, 'budget')).toMatchObject({ spent: 503 })
  // Of a call that may still be known, what is new is new.
  const recent = recordOf(event('e', 4, { endedUnixMs: Date.now() + 3 * 86_400_000 }))
  expect(await ledger.record(undefined, [recent])).toMatchObject({ booked: 1 })
  expect(await balanceOf(pool, 'budget')).toMatchObject({ spent: 507 })
  await expectNoDrift(pool)
})

test('records: those of one call replace what its client said, before or after it', async () => {
  const { ledger, pool } = await openTestLedger(postgres, 'reconciled', [
    budget,
    { id: 'calls', measure: 'requests', amount: 100 },
  ])
  const early = idOf(await ledger.run(reserve('early', 100)))
  await ledger.run(settle(early, 80))
  // A retry under the same call: two attempts, both paid for.
  await ledger.record(segment(1), [
    recordOf(event('a', 30, { callId: 'early' })),
    recordOf(event('b', 40, { callId: 'early' })),
  ])
  expect(await balanceOf(pool, 'budget')).toMatchObject({ held: 0, spent: 70 })
  expect(await balanceOf(pool, 'calls')).toMatchObject({ held: 0, spent: 2 })
  const late = idOf(await ledger.run(reserve('late', 100)))
  await ledger.record(segment(2), [recordOf(event('c', 5, { callId: 'late' }))])
  expect(await ledger.run(settle(late, 90))).toMatchObject({
    kind: 'done',
    body: {
      state: 'settled',
      booked: [
        { limitId: 'budget', amount: 5 },
        { limitId: 'calls', amount: 1 },
      ],
    },
  })
  expect(await balanceOf(pool, 'budget')).toMatchObject({ held: 0, spent: 75 })
  await expectNoDrift(pool)
})

test('records: what one does not know, or knows a part of, is what its client settled, whichever came first', async () => {
  const { ledger, pool } = await openTestLedger(postgres, 'orders', [{ ...budget, each: 'user' }])
  const cases = [
    { name: 'part', cost: 40, more: { isLowerBound: true }, spent: 100 },
    { name: 'more than claimed', cost: 140, more: { isLowerBound: true }, spent: 140 },
    { name: 'unknown', cost: undefined, more: {}, spent: 100 },
  ] as const
  for (const { name, cost, more, spent } of cases)
    for (const isRecordFirst of [true, false]) {
      const user = `${name} ${isRecordFirst}`
      const id = idOf(await ledger.run(reserve(user, 200, { subject: { ...nobody, user } })))
      const record = (generation: number, costNanoUsd: number | undefined, isLowerBound: boolean) =>
        ledger.record(undefined, [
          recordOf(event(user, costNanoUsd, { ...more, isLowerBound, callId: user, generation })),
        ])
      const isLowerBound = 'isLowerBound' in more
      if (isRecordFirst) await record(1, cost, isLowerBound)
      await ledger.run(settle(id, 100))
      if (!isRecordFirst) await record(1, cost, isLowerBound)
      expect([user, await balanceOf(pool, 'budget', user)]).toEqual([user, expect.objectContaining({ held: 0, spent })])
      // All of it is known later, and then not at all again.
      await record(2, 70, false)
      expect(await balanceOf(pool, 'budget', user)).toMatchObject({ held: 0, spent: 70 })
      await record(3, undefined, false)
      expect(await balanceOf(pool, 'budget', user)).toMatchObject({ held: 0, spent: 100 })
    }
  await expectNoDrift(pool)
})

test('records: of a call that another record meters no account is made, as nobody knows of which window it would be', async () => {
  const { ledger, pool } = await openTestLedger(postgres, 'gone', [{ ...budget, window: 'day' }])
  const gone = recordOf(event('a', 0, { isMetered: false, endedUnixMs: 0 }))
  expect(await ledger.record(segment(1), [gone])).toMatchObject({ booked: 1 })
  expect((await pool.query('select window_start from quota_balances')).rows).toEqual([])
})

test('records: a call id that is learnt late moves what was charged to its reservation', async () => {
  const { ledger, pool } = await openTestLedger(postgres, 'learnt', [budget])
  await ledger.run(reserve('call', 100))
  await ledger.record(segment(1), [recordOf(event('a', 30))])
  expect(await balanceOf(pool, 'budget')).toMatchObject({ held: 100, spent: 30 })
  await ledger.record(segment(2), [recordOf(event('a', 30, { callId: 'call', generation: 1 }))])
  expect(await balanceOf(pool, 'budget')).toMatchObject({ held: 0, spent: 30 })
  await expectNoDrift(pool)
})

test('records: a call without a price is taken to cost what was held for it', async () => {
  const { ledger, pool } = await openTestLedger(postgres, 'unpriced', [
    budget,
    { id: 'tokens', measure: 'output_tokens', amount: 100 },
  ])
  await ledger.run(reserve('call', 60))
  await ledger.record(segment(1), [recordOf(event('a', undefined, { callId: 'call' }))])
  expect(await balanceOf(pool, 'budget')).toMatchObject({ held: 0, spent: 60 })
  expect(await balanceOf(pool, 'tokens')).toMatchObject({ held: 0, spent: 2 })
})

test('records: one that the books cannot hold is put aside with its reason, and the others are booked', async () => {
  const { ledger, pool } = await openTestLedger(postgres, 'poison', [budget])
  const huge = event('huge', 1, { cost: { kind: 'priced', costNanoUsd: (2n ** 70n) as NanoUsd, priceVersion: '' } })
  const events = [event('a', 1), event('b', 2), huge, event('c', 4)]
  expect(await ledger.record(segment(1), events.map(recordOf))).toEqual({
    kind: 'recorded',
    booked: 3,
    repeated: 0,
    refused: 1,
  })
  expect(await balanceOf(pool, 'budget')).toMatchObject({ spent: 7 })
  const { rows } = await pool.query('select event_key, segment, reason from quota_refused_events')
  expect(rows).toEqual([{ event_key: 'span:trace:huge', segment: 'j-1', reason: 'SQLSTATE 22003' }])
})

test('records: those of a lease eat up what it holds, and its end frees the rest', async () => {
  const { ledger, pool } = await openTestLedger(postgres, 'lease', [budget])
  const id = idOf(await ledger.run(reserve('lease', 500, { isLease: true })))
  await ledger.record(segment(1), [recordOf(event('a', 30, { callId: 'lease/1' }))])
  expect(await balanceOf(pool, 'budget')).toMatchObject({ held: 470, spent: 30, free: 500 })
  await ledger.run(settle(id, 50))
  expect(await balanceOf(pool, 'budget')).toMatchObject({ held: 0, spent: 50, free: 950 })
  await ledger.record(segment(2), [recordOf(event('b', 30, { callId: 'lease/2' }))])
  expect(await balanceOf(pool, 'budget')).toMatchObject({ held: 0, spent: 60 })
  await expectNoDrift(pool)
})

test('records: bookings and audit entries cannot be changed, removed or emptied', async () => {
  const { ledger, pool } = await openTestLedger(postgres, 'append_only', [budget])
  await ledger.run(reserve('a', 1, { subject: nobody }))
  for (const table of ['quota_bookings', 'quota_audit']) {
    for (const statement of [`update ${table} set tenant = 'x'`, `delete from ${table}`, `truncate ${table}`]) {
      await expect(pool.query(statement)).rejects.toThrow(`${table} is append-only`)
    }
  }
})
