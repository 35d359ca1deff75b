// The reconciler beside a ledger: what it reads of an hour, and what it finds.
import { createHash } from 'node:crypto'
import type { MinuteSum } from '@tallylight/storage/postgres/quota/reconcile.ts'
import { startTestPostgres, type TestPostgres } from '@tallylight/storage/postgres/testing.ts'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { openReconciler, type RecordedCall } from './reconcile.ts'
import { nobody, openTestLedger, tenant } from './testing.ts'

let postgres: TestPostgres

beforeAll(async () => {
  postgres = await startTestPostgres()
}, 60_000)
afterAll(() => postgres[Symbol.asyncDispose]())

type Call = RecordedCall & { readonly endedUnixMs: number }

function sumsOf(calls: readonly Call[]): readonly MinuteSum[] {
  const byMinute = Map.groupBy(calls, ({ endedUnixMs }) => Math.floor(endedUnixMs / 60_000))
  return [...byMinute].map(([minute, of]) => ({
    tenant,
    minute: String(minute),
    calls: String(of.length),
    nano_usd: String(of.reduce((sum, { costNanoUsd }) => sum + (costNanoUsd ?? 0n), 0n)),
    fingerprint: String(
      of.reduce((sum, { eventKey, costNanoUsd }) => {
        const digest = createHash('sha256')
          .update(`${eventKey} ${costNanoUsd ?? ''}`)
          .digest()
        return sum + digest.readUInt32BE(0)
      }, 0),
    ),
  }))
}

test('reconciler: of an hour that is the same on both sides no call is read; of a minute that is not, also with the same sum, its calls are', async () => {
  const { ledger, pool } = await openTestLedger(postgres, 'minutes', [])
  const hourUnixMs = Date.UTC(2026, 10, 21, 12)
  const call = (name: string, costNanoUsd: bigint | undefined, minute: number): Call => ({
    tenant,
    eventKey: `span:${name}`,
    costNanoUsd,
    endedUnixMs: hourUnixMs + minute * 60_000 + 59_999,
  })
  const recorded = [call('a', 10n, 0), call('b', 20n, 7), call('c', 30n, 7), call('d', undefined, 59)]
  const source = { journal: 'j', lane: 'live', segment: 1, createdUnixMs: 1, name: 'j-1' }
  const steps = recorded.map(({ eventKey, costNanoUsd, endedUnixMs }) => ({
    kind: 'record' as const,
    tenant,
    eventKey,
    generation: 1,
    callId: undefined,
    subject: nobody,
    amounts: { cost: costNanoUsd, tokens: undefined },
    isLowerBound: false,
    isMetered: true,
    endedAt: new Date(endedUnixMs),
  }))
  expect(await ledger.record(source, steps)).toMatchObject({ booked: 4 })

  let said: readonly Call[] = recorded
  const read: number[] = []
  const within = (from: number, until: number): readonly Call[] =>
    said.filter(({ endedUnixMs }) => endedUnixMs >= from && endedUnixMs < until)
  const reconciler = openReconciler({
    database: pool,
    recordedSums: async (from, until) => sumsOf(within(from, until)),
    recordedCalls: async (from, until) => {
      read.push((from - hourUnixMs) / 60_000, (until - hourUnixMs) / 60_000)
      return within(from, until)
    },
    now: () => hourUnixMs + 7_200_000,
    bounds: { checkMs: 0, reconcileMs: 0, settlingMs: 0, confirmMs: 0, eventsKeptMs: 0, differencesMax: 100 },
    log: { warn: () => undefined },
  })
  const reconcile = () => reconciler.reconcile(hourUnixMs, AbortSignal.timeout(10_000))
  const sums = `select recorded_calls::int, recorded_nano_usd::int, settled_calls::int, settled_nano_usd::int from quota_reconciled_hours`
  const same = { recorded_calls: 4, recorded_nano_usd: 60, settled_calls: 4, settled_nano_usd: 60 }
  await reconcile()
  expect(read).toEqual([])
  expect(reconciler.status()).toMatchObject({ differences: 0 })
  expect((await pool.query(sums)).rows).toEqual([same])

  said = [call('a', 10n, 0), call('b', 30n, 7), call('c', 20n, 7), call('d', undefined, 59)]
  await reconcile()
  // Looked at again after a while, as always.
  expect(read).toEqual([7, 8, 7, 8])
  expect((await pool.query(sums)).rows).toEqual([same])
  expect((await pool.query('select event_key from quota_differences order by 1')).rows).toEqual([
    { event_key: 'span:b' },
    { event_key: 'span:c' },
  ])
})
