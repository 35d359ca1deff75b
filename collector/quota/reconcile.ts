// The reconciler: proves, per tenant and hour, that what the ledger has settled is what the records of calls cost, and lists
// each call of which that is not so. An hour is compared when it has settled, and again a day later, for what came late.
//
// A record is in one store a moment before it is in the other. What differs is therefore looked at again after a while, and
// counts only if it still does.
import { withConnection } from '@tallylight/storage/postgres/connection.ts'
import {
  type DifferenceRow,
  type MinuteSum,
  prune,
  type ReconciledRow,
  runCheck,
  selectDrift,
  selectLeased,
  selectSettled,
  selectSettledSums,
  writeReconciled,
} from '@tallylight/storage/postgres/quota/reconcile.ts'
import type pg from 'pg'
import type { Log } from '../receive/admission.ts'
import type { TenantId } from '../receive/request.ts'
import { pause } from './pause.ts'

export type RecordedCall = {
  readonly tenant: TenantId
  readonly eventKey: string
  /** Undefined: no price is known. */
  readonly costNanoUsd: bigint | undefined
}

export type ReconcilerOptions = {
  readonly database: pg.Pool
  /** What the calls that ended in this time add up to, by their records, per tenant and minute; and the calls of one. */
  readonly recordedSums: (fromUnixMs: number, untilUnixMs: number) => Promise<readonly MinuteSum[]>
  readonly recordedCalls: (fromUnixMs: number, untilUnixMs: number) => Promise<readonly RecordedCall[]>
  readonly now: () => number
  readonly bounds: {
    readonly checkMs: number
    readonly reconcileMs: number
    /** Calls that ended within this are still on their way. */
    readonly settlingMs: number
    readonly confirmMs: number
    readonly eventsKeptMs: number
    readonly differencesMax: number
  }
  readonly log: Pick<Log, 'warn'>
}

export type Reconciler = {
  /** The hour that begins then, as far as it has settled. */
  reconcile(hourUnixMs: number, signal: AbortSignal): Promise<void>
  status(): {
    /** Accounts compared with their entries, and those that were not their sum. */
    readonly checkedAccounts: number
    readonly wrongAccounts: number
    /** Of the last two days: how many calls differ, and by how much in all, regardless of sign. */
    readonly differences: number
    readonly driftNanoUsd: number
    readonly reconciledUnixMs: number | undefined
    /** What open leases could still spend, by measure, when it was last looked at. */
    readonly leased: readonly { readonly measure: string; readonly unspent: number }[]
  }
  /** Checks, reconciles and prunes until the signal. */
  run(signal: AbortSignal): Promise<void>
}

const minuteMs = 60_000
const hourMs = 3_600_000
const dayMs = 86_400_000
/** Which hours are compared each time, by how many ago they began. */
const hoursAgo = [0, 1, 2, 25]

export function openReconciler(options: ReconcilerOptions): Reconciler {
  const { database, now, bounds, log } = options
  let checkedAccounts = 0
  let wrongAccounts = 0
  let drift = { differences: 0, driftNanoUsd: 0 }
  let reconciledUnixMs: number | undefined
  let leased: Awaited<ReturnType<typeof selectLeased>> = []

  async function run(signal: AbortSignal): Promise<void> {
    let dueMs = now() + bounds.settlingMs
    while (!signal.aborted) {
      await check().catch((error: unknown) => log.warn({ err: error }, 'the ledger could not be checked'))
      if (now() >= dueMs) {
        dueMs = now() + bounds.reconcileMs
        await reconcileLately(signal).catch((error: unknown) => {
          log.warn({ err: error }, 'what is settled could not be compared with what is recorded')
        })
      }
      await pause(bounds.checkMs, signal)
    }
  }

  async function check(): Promise<void> {
    leased = await withConnection(database, selectLeased)
    const { accounts, wrong } = await withConnection(database, runCheck)
    checkedAccounts += accounts
    wrongAccounts += wrong
    if (wrong > 0) log.warn({ accounts: wrong }, 'accounts are not the sum of their entries; quota_drift lists them')
  }

  async function reconcileLately(signal: AbortSignal): Promise<void> {
    const thisHour = Math.floor(now() / hourMs) * hourMs
    for (const ago of hoursAgo) if (!signal.aborted) await reconcile(thisHour - ago * hourMs, signal)
    await withConnection(database, (client) => prune(client, bounds.eventsKeptMs))
  }

  async function reconcile(hour: number, signal: AbortSignal): Promise<void> {
    const until = Math.min(hour + hourMs, Math.floor((now() - bounds.settlingMs) / 1000) * 1000)
    if (until <= hour) return
    let found = await compare(hour, until)
    if (found.differences.length > 0) {
      await pause(bounds.confirmMs, signal)
      if (signal.aborted) return
      found = await compare(hour, until)
    }
    drift = await withConnection(database, async (client) => {
      await writeReconciled(client, hour, found.sums, found.differences.slice(0, bounds.differencesMax))
      return selectDrift(client, now() - 2 * dayMs)
    })
    reconciledUnixMs = now()
  }

  /** An hour may be millions of calls: read one by one they would fill the memory and hold up every other answer for seconds. So both
   *  databases add up, and of minutes that differ alone the calls are read. */
  async function compare(
    from: number,
    until: number,
  ): Promise<{ readonly sums: readonly ReconciledRow[]; readonly differences: readonly DifferenceRow[] }> {
    const recorded = await options.recordedSums(from, until)
    const settled = await withConnection(database, (client) => selectSettledSums(client, from, until))
    const sums = new Map<string, Sums>()
    for (const { tenant, calls, nano_usd } of recorded) {
      const sum = sumsOf(sums, tenant)
      sum.recordedCalls += Number(calls)
      sum.recordedNanoUsd += BigInt(nano_usd)
    }
    for (const { tenant, calls, nano_usd } of settled) {
      const sum = sumsOf(sums, tenant)
      sum.settledCalls += Number(calls)
      sum.settledNanoUsd += BigInt(nano_usd)
    }
    const differences: DifferenceRow[] = []
    for (const minute of minutesThatDiffer(recorded, settled)) {
      const [begins, ends] = [Math.max(from, minute * minuteMs), Math.min(until, (minute + 1) * minuteMs)]
      differences.push(...(await compareCalls(begins, ends)))
      if (differences.length >= bounds.differencesMax) break
    }
    return { sums: [...sums].map(([tenant, sum]) => rowOf(tenant, sum)), differences }
  }

  async function compareCalls(from: number, until: number): Promise<readonly DifferenceRow[]> {
    const recorded = await options.recordedCalls(from, until)
    const settled = await withConnection(database, (client) => selectSettled(client, from, until))
    const left = new Map(settled.map((row) => [`${row.tenant}\n${row.event_key}`, row]))
    const differences: DifferenceRow[] = []
    for (const { tenant, eventKey, costNanoUsd } of recorded) {
      const booked = left.get(`${tenant}\n${eventKey}`)
      left.delete(`${tenant}\n${eventKey}`)
      const cost = costNanoUsd === undefined ? null : String(costNanoUsd)
      if (booked !== undefined && booked.cost_nano_usd === cost) continue
      const settledCost = booked?.cost_nano_usd ?? null
      differences.push({ tenant, event_key: eventKey, recorded_nano_usd: cost, settled_nano_usd: settledCost })
    }
    for (const { tenant, event_key, cost_nano_usd } of left.values())
      differences.push({ tenant, event_key, recorded_nano_usd: null, settled_nano_usd: cost_nano_usd })
    return differences
  }

  return {
    reconcile,
    status: () => ({ checkedAccounts, wrongAccounts, leased, ...drift, reconciledUnixMs }),
    run,
  }
}

/** Each once, whichever tenants it differs for, in the order of time. */
function minutesThatDiffer(recorded: readonly MinuteSum[], settled: readonly MinuteSum[]): readonly number[] {
  const textOf = ({ tenant, minute, calls, nano_usd, fingerprint }: MinuteSum): string =>
    [minute, tenant, calls, nano_usd, fingerprint].join('\n')
  const inOne = new Map<string, string>()
  for (const sum of [...recorded, ...settled]) {
    const text = textOf(sum)
    if (!inOne.delete(text)) inOne.set(text, sum.minute)
  }
  return [...new Set([...inOne.values()].map(Number))].sort((a, b) => a - b)
}

type Sums = { recordedCalls: number; recordedNanoUsd: bigint; settledCalls: number; settledNanoUsd: bigint }

function sumsOf(sums: Map<string, Sums>, tenant: string): Sums {
  const sum = sums.get(tenant) ?? { recordedCalls: 0, recordedNanoUsd: 0n, settledCalls: 0, settledNanoUsd: 0n }
  sums.set(tenant, sum)
  return sum
}

function rowOf(tenant: string, sum: Sums): ReconciledRow {
  return {
    tenant,
    recorded_calls: sum.recordedCalls,
    recorded_nano_usd: String(sum.recordedNanoUsd),
    settled_calls: sum.settledCalls,
    settled_nano_usd: String(sum.settledNanoUsd),
  }
}
