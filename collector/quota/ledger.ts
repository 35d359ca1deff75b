// The ledger as a service: steps that arrive together are booked in one transaction, in the order in which they came. What is
// told as granted is committed first; when it is not known whether a commit happened, the step is `unavailable`, and asking
// again with the same call id gives the first answer. Records of calls come in groups of their own, with the cursor of the
// journal that they come from. One transaction runs at a time, so that a collector never waits for its own locks.
import assert from 'node:assert/strict'
import { withConnection } from '@tallylight/storage/postgres/connection.ts'
import {
  type Cursor,
  isBooked,
  lockAccounts,
  lockEvents,
  lockExpired,
  lockReservations,
  moveCursor,
  refuseEvent,
  selectRules,
  writeChanges,
} from '@tallylight/storage/postgres/quota/statements.ts'
import type pg from 'pg'
import type { Log } from '../receive/admission.ts'
import { callIdsOf, expire, openBatch, take } from './batch.ts'
import type { MatchedAccount } from './books.ts'
import { type Match, openLimits } from './limits.ts'
import { pause } from './pause.ts'
import { accountOfRow, changesOf, eventOfRow, limitOfRow, reservationOfRow } from './rows.ts'
import type { RecordCall, Step, StepOutcome } from './step.ts'

export type Ledger = {
  run(step: Step): Promise<StepOutcome>
  /** Books the records of a segment and moves the cursor: once, whoever asks how often. */
  record(source: RecordSource, records: readonly RecordCall[]): Promise<Recorded>
  /** Ends holds whose time is over; how many. */
  sweep(): Promise<number>
  /** Sweeps every second until the signal, and says how many calls were never settled. */
  watch(signal: AbortSignal, onExpired: (count: number) => void): Promise<void>
  status(): { readonly waiting: number; readonly batches: number; readonly steps: number; readonly failures: number }
}

export type RecordSource = Cursor & { readonly name: string }

export type Recorded = ({ readonly kind: 'recorded' } & Counts) | { readonly kind: 'unavailable' }
type Counts = { readonly booked: number; readonly repeated: number; readonly refused: number }

type Waiting = { readonly step: Step; readonly resolve: (outcome: StepOutcome) => void }

const stepsPerBatchMax = 256
const sweptPerBatchMax = 500
const sweepMs = 1_000
const triesMax = 4
/** Two collectors met: a serialization failure, a deadlock, the same call id at once. Nothing was written, so it is run again. */
const collisionCodes: ReadonlySet<string> = new Set(['40001', '40P01', '23505'])
/** Classes of SQLSTATE that say that a value cannot be taken and never will: data, constraints, limits of Postgres. */
const valueClasses: ReadonlySet<string> = new Set(['22', '23', '54'])

export function openLedger(options: { readonly database: pg.Pool; readonly log: Pick<Log, 'warn'> }): Ledger {
  const { database, log } = options
  let limits = openLimits('', [])
  let waiting: Waiting[] = []
  const groups: (() => Promise<void>)[] = []
  let isRunning = false
  let batches = 0
  let stepsDone = 0
  let failures = 0

  function run(step: Step): Promise<StepOutcome> {
    return new Promise((resolve) => {
      waiting.push({ step, resolve })
      startRunning()
    })
  }

  function startRunning(): void {
    if (isRunning) return
    isRunning = true
    // Steps whose bytes arrived in the same turn of the event loop share a transaction.
    setImmediate(runAll)
  }

  async function runAll(): Promise<void> {
    while (waiting.length > 0 || groups.length > 0) {
      const taken = waiting.slice(0, stepsPerBatchMax)
      waiting = waiting.slice(stepsPerBatchMax)
      if (taken.length > 0) {
        const outcomes = await runBatch(taken.map(({ step }) => step))
        for (const [at, { resolve }] of taken.entries()) resolve(outcomes[at] as StepOutcome)
      }
      await groups.shift()?.()
    }
    isRunning = false
  }

  async function runBatch(steps: readonly Step[]): Promise<readonly StepOutcome[]> {
    try {
      return await tryTransaction(steps.length, (client) => book(client, steps))
    } catch (error) {
      if (isOfValue(error)) {
        if (steps.length === 1) return [{ kind: 'refused', reason: 'an amount is more than the books can hold' }]
        // One of them cannot be taken: it is looked for, so that the others are booked.
        const middle = steps.length >> 1
        return [...(await runBatch(steps.slice(0, middle))), ...(await runBatch(steps.slice(middle)))]
      }
      log.warn({ err: error, steps: steps.length }, 'a batch of quota steps could not be booked')
      return steps.map(() => ({ kind: 'unavailable', reason: 'the ledger did not answer' }))
    }
  }

  async function tryTransaction<Result>(
    steps: number,
    work: (client: pg.PoolClient) => Promise<Result>,
  ): Promise<Result> {
    for (let tries = 1; ; tries++) {
      try {
        const result = await inTransaction(work)
        batches++
        stepsDone += steps
        return result
      } catch (error) {
        if (collisionCodes.has(codeOf(error)) && tries < triesMax) continue
        failures++
        throw error
      }
    }
  }

  async function inTransaction<Result>(work: (client: pg.PoolClient) => Promise<Result>): Promise<Result> {
    return withConnection(database, async (client) => {
      await client.query('begin')
      try {
        const result = await work(client)
        await client.query('commit')
        return result
      } catch (error) {
        // A connection that is gone has rolled back; what it was lost for is the error to tell.
        await client.query('rollback').catch(() => undefined)
        throw error
      }
    })
  }

  function record(source: RecordSource, records: readonly RecordCall[]): Promise<Recorded> {
    return new Promise((resolve) => {
      let sum: Counts = { booked: 0, repeated: 0, refused: 0 }
      const runFrom = async (from: number): Promise<void> => {
        const until = from + stepsPerBatchMax
        try {
          sum = add(sum, await bookRecords(source, records.slice(from, until), until >= records.length))
        } catch (error) {
          log.warn({ err: error, segment: source.name }, 'records of calls could not be booked yet')
          return resolve({ kind: 'unavailable' })
        }
        if (until >= records.length) return resolve({ kind: 'recorded', ...sum })
        // Steps that came meanwhile go first: somebody waits for them.
        groups.push(() => runFrom(until))
      }
      groups.push(() => runFrom(0))
      startRunning()
    })
  }

  /** Some of a segment's records. The cursor moves with the last of them: those before are known by their keys. */
  async function bookRecords(source: RecordSource, records: readonly RecordCall[], isLast: boolean): Promise<Counts> {
    try {
      return await tryTransaction(records.length, async (client) => {
        if (await isBooked(client, source)) return { booked: 0, repeated: records.length, refused: 0 }
        const outcomes = await book(client, records)
        if (isLast) await moveCursor(client, source)
        const repeated = outcomes.filter((outcome) => outcome.kind === 'done' && outcome.isRepeat).length
        return { booked: records.length - repeated, repeated, refused: 0 }
      })
    } catch (error) {
      const [record, ...more] = records
      if (record === undefined || !isOfValue(error)) throw error
      if (more.length === 0) return refuse(source, record, codeOf(error), isLast)
    }
    const middle = records.length >> 1
    const first = await bookRecords(source, records.slice(0, middle), false)
    return add(first, await bookRecords(source, records.slice(middle), isLast))
  }

  async function refuse(source: RecordSource, record: RecordCall, code: string, isLast: boolean): Promise<Counts> {
    // By its code alone: what Postgres says of a value quotes it.
    const reason = `SQLSTATE ${code}`
    log.warn({ tenant: record.tenant, event: record.eventKey, reason }, 'the record of a call cannot be booked')
    await inTransaction(async (client) => {
      await refuseEvent(client, { ...record, segment: source.name, reason })
      if (isLast) await moveCursor(client, source)
    })
    return { booked: 0, repeated: 0, refused: 1 }
  }

  async function book(client: pg.PoolClient, steps: readonly Step[]): Promise<readonly StepOutcome[]> {
    const ofEvents = steps.filter((step) => step.kind === 'charge' || step.kind === 'record')
    const events = ofEvents.length === 0 ? [] : await lockEvents(client, ofEvents)
    const calls = steps.flatMap((step) => callsOf(step).map((callId) => ({ tenant: step.tenant, callId })))
    const { nowMs, version, rows } = await lockReservations(client, {
      tenants: calls.map((call) => call.tenant),
      callIds: calls.map((call) => call.callId),
      ids: [
        ...steps.flatMap((step) => ('id' in step ? [step.id] : [])),
        ...events.flatMap(({ reservation }) => reservation ?? []),
      ],
    })
    if (version !== limits.version) await readLimits(client)
    const { accounts, matched } = await lockMatched(client, steps, [
      ...rows.flatMap((row) => row.account_ids),
      ...events.flatMap((event) => event.account_ids),
    ])
    const batch = openBatch(nowMs, limits, accounts, rows.map(reservationOfRow), events.map(eventOfRow))
    const outcomes = steps.map((step, at) => take(batch, step, matched[at] ?? []))
    const changes = changesOf(batch)
    if (changes !== undefined) await writeChanges(client, changes)
    return outcomes
  }

  async function readLimits(client: Pick<pg.ClientBase, 'query'>): Promise<void> {
    const { version, rows } = await selectRules(client)
    limits = openLimits(version, rows.map(limitOfRow))
  }

  /** Locks the accounts that the steps may need, and tells which of them each step's limits count in. */
  async function lockMatched(
    client: pg.PoolClient,
    steps: readonly Step[],
    numbers: readonly string[],
  ): Promise<{
    readonly accounts: ReadonlyMap<string, MatchedAccount['account']>
    readonly matched: readonly (readonly MatchedAccount[])[]
  }> {
    // Many calls of a batch share their accounts: each is asked for once, and found again by its ordinal.
    const wanted = new Map<string, Parameters<typeof lockAccounts>[1][number] & { readonly ordinal: number }>()
    const asked = steps.map((step) =>
      matchesOf(step).map((match) => {
        const { tenant } = step
        const at = (step.kind === 'charge' || step.kind === 'record' ? step.endedAt : undefined) ?? null
        const key = `${tenant}\n${match.limit.id}\n${match.subject}\n${at?.getTime()}`
        const found = wanted.get(key)
        const ordinal = found?.ordinal ?? wanted.size + 1
        if (found === undefined) {
          wanted.set(key, { tenant, limitId: match.limit.id, subject: match.subject, at, ordinal })
        }
        return { ...match, ordinal }
      }),
    )
    if (wanted.size + numbers.length === 0) return { accounts: new Map(), matched: [] }
    const rows = await lockAccounts(client, [...wanted.values()], [...new Set(numbers)])
    const accounts = new Map(rows.map((row) => [row.id, accountOfRow(row)]))
    const byOrdinal = new Map(rows.flatMap((row) => row.wanted.map((ordinal) => [ordinal, row.id] as const)))
    const matched = asked.map((matches) =>
      matches.map(({ limit, subject, ordinal }) => {
        const account = accounts.get(byOrdinal.get(ordinal) ?? '')
        assert(account !== undefined, `limit ${limit.id} of ${limit.tenant} got no account`)
        return { limit, subject, account }
      }),
    )
    return { accounts, matched }
  }

  function matchesOf(step: Step): readonly Match[] {
    return 'subject' in step ? limits.match(step.tenant, step.subject) : []
  }

  async function sweep(): Promise<number> {
    return inTransaction(async (client) => {
      const { nowMs, rows } = await lockExpired(client, sweptPerBatchMax)
      if (rows.length === 0) return 0
      if (limits.version === '') await readLimits(client)
      const numbers = rows.flatMap((row) => row.account_ids)
      const { accounts } = await lockMatched(client, [], numbers)
      const batch = openBatch(nowMs, limits, accounts, rows.map(reservationOfRow), [])
      for (const reservation of batch.reservations.values()) expire(batch, reservation)
      const changes = changesOf(batch)
      if (changes !== undefined) await writeChanges(client, changes)
      return rows.length
    })
  }

  async function watch(signal: AbortSignal, onExpired: (count: number) => void): Promise<void> {
    while (!signal.aborted) {
      const swept = await sweep().catch((error: unknown) => {
        log.warn({ err: error }, 'holds whose time is over could not be looked for')
        return 0
      })
      if (swept > 0) onExpired(swept)
      if (swept < sweptPerBatchMax) await pause(sweepMs, signal)
    }
  }

  return {
    run,
    record,
    sweep,
    watch,
    status: () => ({ waiting: waiting.length, batches, steps: stepsDone, failures }),
  }
}

function callsOf(step: Step): readonly string[] {
  if (step.kind === 'reserve') return [step.callId]
  return step.kind === 'record' ? callIdsOf(step) : []
}

function add(a: Counts, b: Counts): Counts {
  return { booked: a.booked + b.booked, repeated: a.repeated + b.repeated, refused: a.refused + b.refused }
}

function isOfValue(error: unknown): boolean {
  const code = codeOf(error)
  return valueClasses.has(code.slice(0, 2)) && !collisionCodes.has(code)
}

function codeOf(error: unknown): string {
  return String((error as { readonly code?: unknown }).code ?? '')
}
