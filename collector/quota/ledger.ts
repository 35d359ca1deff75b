// The ledger as a service: steps that arrive together are booked in one transaction, each tenant's in the order in which
// they came. What is told as granted is committed first; when it is not known whether a commit happened, the step is
// `unavailable`, and asking again with the same call id gives the first answer. Records of calls come in groups of their
// own, with the cursor of the journal that they come from. One transaction runs at a time, so that a collector never waits
// for its own locks.
import { withConnection } from '@tallylight/storage/postgres/connection.ts'
import {
  type Cursor,
  isBooked,
  lockEvents,
  makeAccounts,
  moveCursor,
  refuseEvent,
  selectExpired,
  selectRules,
  writeChanges,
} from '@tallylight/storage/postgres/quota/statements.ts'
import type pg from 'pg'
import type { Log } from '../receive/admission.ts'
import { type Batch, callIdsOf, expire, openBatch, take } from './batch.ts'
import { openLimits } from './limits.ts'
import { openLine } from './line.ts'
import { type AlsoLocked, type MissingAccounts, openLocking } from './locking.ts'
import { pause } from './pause.ts'
import { changesOf, eventOfRow, limitOfRow, reservationOfRow } from './rows.ts'
import type { RecordCall, Step, StepOutcome } from './step.ts'

export type Ledger = {
  run(step: Step): Promise<StepOutcome>
  /** Books the records of a segment and moves the cursor: once, whoever asks how often. Of a segment that is booked, and without
   *  one, they are what became known later; then their generations alone tell what is new, and one of which it is
   *  forgotten what is booked is a repeat. */
  record(source: RecordSource | undefined, records: readonly RecordCall[]): Promise<Recorded>
  /** Ends holds whose time is over; how many. */
  sweep(): Promise<number>
  /** Sweeps every second until the signal, and says how many calls were never settled. */
  watch(signal: AbortSignal, onExpired: (count: number) => void): Promise<void>
  /** Names that it remembers. */
  forget(): void
  status(): { readonly waiting: number; readonly batches: number; readonly steps: number; readonly failures: number }
}

export type RecordSource = Cursor & { readonly name: string }

export type Recorded = ({ readonly kind: 'recorded' } & Counts) | { readonly kind: 'unavailable' }
type Counts = { readonly booked: number; readonly repeated: number; readonly refused: number }

/** Writes that are under way may be left to the commit. */
type Worked<Result> = { readonly kind: 'worked'; readonly result: Result; readonly writes: readonly Promise<unknown>[] }
/** Where accounts are missing, nothing is written yet. */
type Work<Result> = (client: pg.PoolClient) => Promise<Worked<Result> | MissingAccounts>
type Waiting = { readonly step: Step; readonly resolve: (outcome: StepOutcome) => void }

/** A server that has lost us must not keep our locks. Every row is found by its key: a planner that takes a table for small
 *  reads all of it for each batch, and planning anew costs as much as the work. Small it may have been, and then no setting
 *  keeps it from being read whole: plans are made anew when the steps booked have doubled since. */
const sessionSettings = `set idle_in_transaction_session_timeout = '10s';
  set plan_cache_mode = force_generic_plan;
  set enable_seqscan = off; set enable_hashjoin = off; set enable_mergejoin = off`
const stepsPerBatchMax = 256
const sweptPerBatchMax = 500
const stepsReplannedMin = 100
const sweepMs = 1_000
const triesMax = 4
/** Steps in line, two seconds' worth, of which a tenant alone has half; who finds no room is told at once. */
const stepsWaitingMax = 20_000
/** A connection that was lost while it was idle, with a server that is back, fails at once. */
const againMsMax = 250
/** A call whose service has a clock that is ahead is booked before it ends, by that clock. */
const endedAheadMsMax = 86_400_000
/** Two collectors met: a serialization failure, a deadlock, the same call id at once. Nothing was written, so it is run again. */
const collisionCodes: ReadonlySet<string> = new Set(['40001', '40P01', '23505'])
/** Classes of SQLSTATE that say that a value cannot be taken and never will: data, constraints, limits of Postgres. */
const valueClasses: ReadonlySet<string> = new Set(['22', '23', '54'])

export type LedgerOptions = {
  /** Its own: who reads elsewhere must not keep it waiting. With `pipeline`, so that statements share round trips, and a
   *  `query_timeout`, after which a step is answered though Postgres is not. */
  readonly database: pg.Pool
  readonly log: Pick<Log, 'warn'>
  /** How long it is known what is booked of an event; for ever, unless it is said. */
  readonly eventsKeptMs?: number
  /** The first batch was booked after some that could not be; or, after the line was full, the first that left nobody in it. */
  readonly onRecovered?: () => void
}

export function openLedger(options: LedgerOptions): Ledger {
  const { database, log, eventsKeptMs = Number.POSITIVE_INFINITY } = options
  /** Somebody was told that the ledger is not available. */
  let isAway = false
  /** And that because the line was full, which it is until one batch takes all who wait. */
  let isFull = false
  /** Of the outage under way: what was said of it, and how many steps were answered without the ledger. */
  const said = new Set<string>()
  let unanswered = 0
  const locking = openLocking()
  let limits = openLimits('', [])
  const waiting = openLine<Waiting>(stepsWaitingMax)
  const groups: (() => Promise<void>)[] = []
  let isRunning = false
  let batches = 0
  let stepsDone = 0
  let failures = 0
  /** Of a connection: how many steps are booked when its statements are planned anew. */
  const plannedUntil = new WeakMap<pg.PoolClient, number>()

  function run(step: Step): Promise<StepOutcome> {
    const { promise, resolve } = Promise.withResolvers<StepOutcome>()
    if (!waiting.push(step.tenant, { step, resolve })) {
      isAway = true
      isFull = true
      unanswered++
      return Promise.resolve(unavailable)
    }
    startRunning()
    return promise
  }

  function startRunning(): void {
    if (isRunning) return
    isRunning = true
    // Steps whose bytes arrived in the same turn of the event loop share a transaction.
    setImmediate(runAll)
  }

  async function runAll(): Promise<void> {
    while (waiting.count() > 0 || groups.length > 0) {
      const taken = waiting.take(stepsPerBatchMax)
      if (waiting.count() === 0) isFull = false
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
      const outcomes = await tryTransaction(steps.length, (client) => book(client, steps))
      if (isAway && !isFull) {
        isAway = false
        options.onRecovered?.()
        if (said.size > 0) log.warn({ unavailable: unanswered }, 'quota steps are booked again')
        said.clear()
        unanswered = 0
      }
      return outcomes
    } catch (error) {
      if (isOfValue(error)) {
        if (steps.length === 1) return [{ kind: 'refused', reason: 'an amount is more than the books can hold' }]
        // One of them cannot be taken: it is looked for, so that the others are booked.
        const middle = steps.length >> 1
        return [...(await runBatch(steps.slice(0, middle))), ...(await runBatch(steps.slice(middle)))]
      }
      isAway = true
      isFull = false
      // A line per batch would be one per call of every service, and fill a disk while Postgres refuses quickly.
      const reason = codeOf(error) || String(error)
      if (!said.has(reason)) log.warn({ err: error, steps: steps.length }, couldNotBook)
      said.add(reason)
      unanswered += steps.length + waiting.count()
      // Those who came meanwhile would wait for the same, each batch as long as this one.
      for (const { resolve } of waiting.take(stepsWaitingMax)) resolve(unavailable)
      return steps.map(() => unavailable)
    }
  }

  async function tryTransaction<Result>(steps: number, work: Work<Result>): Promise<Result> {
    const startedMs = performance.now()
    for (let tries = 1; ; tries++) {
      try {
        const result = await inTransaction(work)
        batches++
        stepsDone += steps
        return result
      } catch (error) {
        // Every step may be booked twice and counts once, so one of which nobody knows is simply booked again.
        const isLost = isConnectionLost(error) && performance.now() - startedMs < againMsMax
        if ((collisionCodes.has(codeOf(error)) || isLost) && tries < triesMax) continue
        failures++
        throw error
      }
    }
  }

  /** Done anew once the accounts that are missing are made. They are missing again when their window ended meanwhile. */
  async function inTransaction<Result>(work: Work<Result>): Promise<Result> {
    return withConnection(database, async (client) => {
      for (let tries = 1; tries <= triesMax; tries++) {
        const done = await workOnce(client, work)
        if (done.kind === 'worked') return done.result
        await makeAccounts(client, done.wanted)
      }
      throw new Error('accounts are missing that were made a moment ago')
    })
  }

  async function workOnce<Result>(
    client: pg.PoolClient,
    work: Work<Result>,
  ): Promise<Worked<Result> | MissingAccounts> {
    // Sent with the first statement.
    const begun = [...prepare(client), client.query('begin')]
    for (const each of begun) each.catch(() => undefined)
    try {
      const done = await work(client)
      if (done.kind === 'missing') {
        await client.query('rollback')
        return done
      }
      // One trip for what is written and the commit: behind a write that failed, that is a rollback.
      for (const sent of await Promise.allSettled([...begun, ...done.writes, client.query('commit')]))
        if (sent.status === 'rejected') throw sent.reason
      return done
    } catch (error) {
      // A connection that is gone has rolled back; what it was lost for is the error to tell.
      await client.query('rollback').catch(() => undefined)
      throw error
    }
  }

  /** A connection that failed is not used again, so what is sent here was done. */
  function prepare(client: pg.PoolClient): readonly Promise<unknown>[] {
    const until = plannedUntil.get(client)
    if (until !== undefined && stepsDone < until) return []
    plannedUntil.set(client, Math.max(stepsReplannedMin, stepsDone * 2))
    return [client.query(until === undefined ? sessionSettings : 'discard plans')]
  }

  function record(source: RecordSource | undefined, records: readonly RecordCall[]): Promise<Recorded> {
    return new Promise((resolve) => {
      let sum: Counts = { booked: 0, repeated: 0, refused: 0 }
      const runFrom = async (from: number): Promise<void> => {
        const until = from + stepsPerBatchMax
        try {
          sum = add(sum, await bookRecords(source, records.slice(from, until), until >= records.length))
        } catch (error) {
          log.warn({ err: error, segment: source?.name }, 'records of calls could not be booked yet')
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
  async function bookRecords(
    source: RecordSource | undefined,
    records: readonly RecordCall[],
    isLast: boolean,
  ): Promise<Counts> {
    try {
      return await tryTransaction(records.length, async (client) => {
        // A segment that comes again, after a restart, may say more than was known when it was booked.
        const isAgain = source === undefined || (await isBooked(client, source))
        const done = await book(client, records, isAgain)
        if (done.kind === 'missing') return done
        const { result: outcomes, writes } = done
        const repeated = outcomes.filter((outcome) => outcome.kind === 'done' && outcome.isRepeat).length
        return {
          kind: 'worked',
          result: { booked: records.length - repeated, repeated, refused: 0 },
          writes: isLast && !isAgain ? [...writes, moveCursor(client, source)] : writes,
        }
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

  async function refuse(
    source: RecordSource | undefined,
    record: RecordCall,
    code: string,
    isLast: boolean,
  ): Promise<Counts> {
    // By its code alone: what Postgres says of a value quotes it.
    const reason = `SQLSTATE ${code}`
    log.warn({ tenant: record.tenant, event: record.eventKey, reason }, 'the record of a call cannot be booked')
    return inTransaction(async (client) => ({
      kind: 'worked',
      result: { booked: 0, repeated: 0, refused: 1 },
      writes: [
        refuseEvent(client, { ...record, segment: source?.name ?? '', reason }),
        ...(isLast && source !== undefined ? [moveCursor(client, source)] : []),
      ],
    }))
  }

  async function book(
    client: pg.PoolClient,
    steps: readonly Step[],
    areSaidAgain = false,
  ): Promise<Worked<readonly StepOutcome[]> | MissingAccounts> {
    const ofEvents = steps.filter((step) => step.kind === 'charge' || step.kind === 'record')
    const events = ofEvents.length === 0 ? [] : await lockEvents(client, ofEvents)
    const also = {
      numbers: events.flatMap((event) => event.account_ids),
      reservations: [
        ...steps.flatMap((step) => ('id' in step ? [step.id] : [])),
        ...events.flatMap(({ reservation }) => reservation ?? []),
      ],
      told: steps.flatMap((step) => (step.kind === 'reserve' ? [{ tenant: step.tenant, callId: step.callId }] : [])),
      settled: steps.flatMap((step) =>
        step.kind === 'record' ? callIdsOf(step).map((callId) => ({ tenant: step.tenant, callId })) : [],
      ),
    }
    // By the rules as they were a moment ago: they hardly ever change.
    let locked = await locking.lock(client, limits, steps, also)
    if (locked.kind === 'locked' && locked.version !== limits.version) {
      await readLimits(client)
      locked = await locking.lock(client, limits, steps, also)
    }
    if (locked.kind === 'missing') return locked
    const { nowMs, accounts, matched, rows } = locked
    const forgottenUntilMs = areSaidAgain ? nowMs - eventsKeptMs + endedAheadMsMax : undefined
    const reservations = rows.map(reservationOfRow)
    const batch = openBatch(nowMs, limits, accounts, reservations, events.map(eventOfRow), forgottenUntilMs)
    const result = steps.map((step, at) => take(batch, step, matched[at] ?? []))
    locking.note(batch)
    return { kind: 'worked', result, writes: writesOf(client, batch) }
  }

  async function readLimits(client: Pick<pg.ClientBase, 'query'>): Promise<void> {
    const { version, rows } = await selectRules(client)
    limits = openLimits(version, rows.map(limitOfRow))
    locking.forget()
  }

  async function sweep(): Promise<number> {
    return inTransaction(async (client) => {
      const ids = await selectExpired(client, sweptPerBatchMax)
      if (ids.length === 0) return { kind: 'worked', result: 0, writes: [] }
      if (limits.version === '') await readLimits(client)
      const locked = await locking.lock(client, limits, [], { ...nothingElse, reservations: ids })
      if (locked.kind === 'missing') return locked
      const { nowMs, accounts, rows } = locked
      const batch = openBatch(nowMs, limits, accounts, rows.map(reservationOfRow), [])
      for (const reservation of batch.reservations.values()) {
        // Settled, extended or swept by others before it was locked, it is no longer to be ended.
        if (reservation.state === 'held' && reservation.expiresUnixMs <= nowMs) expire(batch, reservation)
      }
      locking.note(batch)
      return { kind: 'worked', result: batch.changed.size, writes: writesOf(client, batch) }
    })
  }

  async function watch(signal: AbortSignal, onExpired: (count: number) => void): Promise<void> {
    let told = ''
    while (!signal.aborted) {
      let swept = 0
      try {
        swept = await sweep()
        told = ''
      } catch (error) {
        const reason = codeOf(error) || String(error)
        // It is tried each second.
        if (reason !== told) log.warn({ err: error }, 'holds whose time is over cannot be looked for yet')
        told = reason
      }
      if (swept > 0) onExpired(swept)
      if (swept < sweptPerBatchMax) await pause(sweepMs, signal)
    }
  }

  return {
    run,
    record,
    sweep,
    watch,
    forget: locking.forget,
    status: () => ({ waiting: waiting.count(), batches, steps: stepsDone, failures }),
  }
}

const nothingElse: AlsoLocked = { numbers: [], reservations: [], told: [], settled: [] }
const couldNotBook =
  'a batch of quota steps could not be booked; said once for each reason, until they are booked again'
const unavailable: StepOutcome = { kind: 'unavailable', reason: 'the ledger did not answer' }

function writesOf(client: pg.PoolClient, batch: Batch): readonly Promise<unknown>[] {
  const changes = changesOf(batch)
  return changes === undefined ? [] : writeChanges(client, changes)
}

function add(a: Counts, b: Counts): Counts {
  return { booked: a.booked + b.booked, repeated: a.repeated + b.repeated, refused: a.refused + b.refused }
}

function isOfValue(error: unknown): boolean {
  const code = codeOf(error)
  return valueClasses.has(code.slice(0, 2)) && !collisionCodes.has(code)
}

/** Not what the server says of a statement, but its end: a network error, or a shutdown (class 57). */
function isConnectionLost(error: unknown): boolean {
  return !/^[0-9FHPX][0-9A-Z]{4}$/.test(codeOf(error)) || codeOf(error).startsWith('57')
}

function codeOf(error: unknown): string {
  return String((error as { readonly code?: unknown }).code ?? '')
}
