// The ledger as a service: steps that arrive together are booked in one transaction, in the order in which they came. What is
// told as granted is committed first; when it is not known whether a commit happened, the step is `unavailable`, and asking
// again with the same call id gives the first answer.
import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { withConnection } from '@tallylight/storage/postgres/connection.ts'
import {
  type AccountRow,
  type Changes,
  findEventKeys,
  lockAccounts,
  lockExpired,
  lockReservations,
  type ReservationRow,
  type RuleRow,
  selectRules,
  writeChanges,
} from '@tallylight/storage/postgres/quota/statements.ts'
import type pg from 'pg'
import type { Log } from '../receive/admission.ts'
import type { TenantId } from '../receive/request.ts'
import {
  type Account,
  type Amounts,
  charge,
  type Denial,
  decide,
  endHold,
  fireThresholds,
  hold,
  type Line,
  type MatchedAccount,
  type Reservation,
  type ReservationState,
} from './books.ts'
import { amountJson, type Limit, type Limits, type Match, openLimits, type Subject, tenantOf } from './limits.ts'

export type Reserve = {
  readonly kind: 'reserve'
  readonly tenant: TenantId
  readonly callId: string
  readonly bodyHash: string
  readonly subject: Subject
  readonly amounts: Amounts
  readonly ttlMs: number
  /** Why the amount of a cost is not known: refused where a limit on cost blocks. */
  readonly unpriced: string | undefined
  /** Only asks what the answer would be. */
  readonly isDry: boolean
}
export type End = {
  readonly kind: 'settle' | 'release'
  readonly tenant: TenantId
  readonly id: string
  readonly bodyHash: string
  /** What was used by the call that was reserved; undefined for a release. */
  readonly amountsOf: ((subject: Subject) => Amounts) | undefined
}
export type Extend = { readonly kind: 'extend'; readonly tenant: TenantId; readonly id: string; readonly ttlMs: number }
export type Charge = {
  readonly kind: 'charge'
  readonly tenant: TenantId
  readonly eventKey: string
  readonly subject: Subject
  readonly amounts: Amounts
  /** When the call ended: the window that is charged, closed or not. Undefined is now. */
  readonly endedAt: Date | undefined
}
export type Step = Reserve | End | Extend | Charge

export type StepOutcome =
  /** `body` is what is told, also to whoever asks the same again. */
  | { readonly kind: 'done'; readonly body: object; readonly isRepeat: boolean }
  | { readonly kind: 'denied'; readonly denial: Denial; readonly nowMs: number }
  | { readonly kind: 'unpriced'; readonly reason: string }
  | { readonly kind: 'unknown' }
  | { readonly kind: 'conflict'; readonly detail: string; readonly first: object | undefined }
  | { readonly kind: 'unavailable'; readonly reason: string }

export type Ledger = {
  run(step: Step): Promise<StepOutcome>
  limits(): Limits
  /** Ends holds whose time is over; how many. */
  sweep(): Promise<number>
  /** Sweeps every second until the signal, and says how many calls were never settled. */
  watch(signal: AbortSignal, onExpired: (count: number) => void): Promise<void>
  status(): { readonly waiting: number; readonly batches: number; readonly steps: number; readonly failures: number }
}

type Waiting = { readonly step: Step; readonly resolve: (outcome: StepOutcome) => void }

/** State of one transaction: what was locked, and what is to be written. */
type Batch = {
  readonly nowMs: number
  readonly limits: Limits
  readonly accounts: Map<string, Account & { readonly tenant: string }>
  readonly matched: readonly (readonly MatchedAccount[])[]
  readonly reservations: Map<string, Reservation & { readonly tenant: string }>
  readonly byCall: Map<string, Reservation>
  readonly eventKeys: Set<string>
  readonly made: Set<Reservation & { readonly tenant: string }>
  readonly changed: Set<Reservation>
  readonly bookings: { -readonly [Part in keyof Changes['bookings'][number]]: Changes['bookings'][number][Part] }[]
  readonly touched: Set<Account & { readonly tenant: string }>
  readonly outbox: Changes['outbox'][number][]
  readonly audit: Changes['audit'][number][]
}

const stepsPerBatchMax = 256
const sweptPerBatchMax = 500
const sweepMs = 1_000
const triesMax = 4
/** Two collectors met: a serialization failure, a deadlock, the same call id at once. Nothing was written, so it is run again. */
const collisionCodes: ReadonlySet<string> = new Set(['40001', '40P01', '23505'])

export function openLedger(options: { readonly database: pg.Pool; readonly log: Pick<Log, 'warn'> }): Ledger {
  const { database, log } = options
  let limits = openLimits('', [])
  let waiting: Waiting[] = []
  let isRunning = false
  let batches = 0
  let stepsDone = 0
  let failures = 0

  function run(step: Step): Promise<StepOutcome> {
    return new Promise((resolve) => {
      waiting.push({ step, resolve })
      if (isRunning) return
      isRunning = true
      // Steps whose bytes arrived in the same turn of the event loop share a transaction.
      setImmediate(runAll)
    })
  }

  async function runAll(): Promise<void> {
    while (waiting.length > 0) {
      const taken = waiting.slice(0, stepsPerBatchMax)
      waiting = waiting.slice(stepsPerBatchMax)
      const outcomes = await runBatch(taken.map(({ step }) => step))
      for (const [at, { resolve }] of taken.entries()) resolve(outcomes[at] as StepOutcome)
    }
    isRunning = false
  }

  async function runBatch(steps: readonly Step[]): Promise<readonly StepOutcome[]> {
    for (let tries = 1; ; tries++) {
      try {
        const outcomes = await inTransaction((client) => book(client, steps))
        batches++
        stepsDone += steps.length
        return outcomes
      } catch (error) {
        const code = (error as { readonly code?: string }).code
        if (code !== undefined && collisionCodes.has(code) && tries < triesMax) continue
        failures++
        log.warn({ err: error, steps: steps.length }, 'a batch of quota steps could not be booked')
        return steps.map(() => ({ kind: 'unavailable', reason: 'the ledger did not answer' }))
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

  async function book(client: pg.PoolClient, steps: readonly Step[]): Promise<readonly StepOutcome[]> {
    const reserves = steps.filter((step) => step.kind === 'reserve')
    const { nowMs, version, rows } = await lockReservations(client, {
      tenants: reserves.map((step) => step.tenant),
      callIds: reserves.map((step) => step.callId),
      ids: steps.flatMap((step) => ('id' in step ? [step.id] : [])),
    })
    if (version !== limits.version) await readLimits(client)
    const matches = steps.map((step): readonly Match[] =>
      'subject' in step ? limits.match(step.tenant, step.subject) : [],
    )
    const batch = await openBatch(client, nowMs, steps, matches, rows)
    const outcomes = steps.map((step, at) => take(batch, step, batch.matched[at] ?? []))
    await write(client, batch)
    return outcomes
  }

  async function readLimits(client: Pick<pg.ClientBase, 'query'>): Promise<void> {
    const { version, rows } = await selectRules(client)
    limits = openLimits(version, rows.map(limitOfRow))
  }

  async function openBatch(
    client: pg.PoolClient,
    nowMs: number,
    steps: readonly Step[],
    matches: readonly (readonly Match[])[],
    rows: readonly ReservationRow[],
  ): Promise<Batch> {
    // Many calls of a batch share their accounts: each is asked for once, and found again by its ordinal.
    const wanted = new Map<
      string,
      { readonly ordinal: number; readonly account: Parameters<typeof lockAccounts>[1][number] }
    >()
    const ordinals = matches.map((each, at) => {
      const step = steps[at] as Step
      const moment = step.kind === 'charge' ? (step.endedAt ?? null) : null
      return each.map(({ limit, subject }) => {
        const key = JSON.stringify([step.tenant, limit.id, subject, moment])
        const known = wanted.get(key)
        if (known !== undefined) return known.ordinal
        const ordinal = wanted.size + 1
        wanted.set(key, { ordinal, account: { tenant: step.tenant, limitId: limit.id, subject, at: moment } })
        return ordinal
      })
    })
    const numbers = [...new Set(rows.flatMap((row) => row.account_ids))]
    const accountRows =
      wanted.size + numbers.length === 0
        ? []
        : await lockAccounts(
            client,
            [...wanted.values()].map(({ account }) => account),
            numbers,
          )
    const accounts = new Map(accountRows.map((row) => [row.id, accountOfRow(row)]))
    const byOrdinal = new Map(accountRows.flatMap((row) => row.wanted.map((ordinal) => [ordinal, row.id] as const)))
    const matched = matches.map((each, at) =>
      each.map((match, place) => {
        const account = accounts.get(byOrdinal.get(ordinals[at]?.[place] ?? 0) ?? '')
        assert(account !== undefined, `limit ${match.limit.id} of ${match.limit.tenant} got no account`)
        return { ...match, account }
      }),
    )
    const charges = steps.filter((step) => step.kind === 'charge')
    const reservations = new Map(rows.map((row) => [row.id, reservationOfRow(row)]))
    return {
      nowMs,
      limits,
      accounts,
      matched,
      reservations,
      byCall: new Map([...reservations.values()].map((each) => [`${each.tenant}\n${each.callId}`, each])),
      eventKeys: new Set(charges.length === 0 ? [] : await findEventKeys(client, charges)),
      made: new Set(),
      changed: new Set(),
      bookings: [],
      touched: new Set(),
      outbox: [],
      audit: [],
    }
  }

  async function sweep(): Promise<number> {
    return inTransaction(async (client) => {
      const rows = await lockExpired(client, sweptPerBatchMax)
      if (rows.length === 0) return 0
      if (limits.version === '') await readLimits(client)
      const batch = await openBatch(client, Date.now(), [], [], rows)
      for (const reservation of batch.reservations.values()) expire(batch, reservation)
      await write(client, batch)
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
      if (swept === sweptPerBatchMax) continue
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, sweepMs)
        signal.addEventListener('abort', () => resolve(), { once: true })
        timer.unref()
      })
    }
  }

  return {
    run,
    limits: () => limits,
    sweep,
    watch,
    status: () => ({ waiting: waiting.length, batches, steps: stepsDone, failures }),
  }
}

function take(batch: Batch, step: Step, matched: readonly MatchedAccount[]): StepOutcome {
  switch (step.kind) {
    case 'reserve':
      return reserve(batch, step, matched)
    case 'settle':
    case 'release':
      return end(batch, step)
    case 'extend':
      return extend(batch, step)
    case 'charge':
      return chargeNow(batch, step, matched)
    default:
      return step satisfies never
  }
}

function reserve(batch: Batch, step: Reserve, matched: readonly MatchedAccount[]): StepOutcome {
  const before = batch.byCall.get(`${step.tenant}\n${step.callId}`)
  if (before !== undefined && !step.isDry) {
    return before.bodyHash === step.bodyHash
      ? { kind: 'done', body: before.answer, isRepeat: true }
      : {
          kind: 'conflict',
          detail: `the call id was reserved before with another body`,
          first: { id: before.id, state: before.state },
        }
  }
  if (
    step.unpriced !== undefined &&
    matched.some(({ limit }) => limit.measure === 'cost' && limit.action === 'block')
  ) {
    return { kind: 'unpriced', reason: step.unpriced }
  }
  const decision = decide(matched, step.amounts)
  if (decision.kind === 'denied') return { kind: 'denied', denial: decision.denial, nowMs: batch.nowMs }
  const id = randomUUID()
  const expiresUnixMs = batch.nowMs + step.ttlMs
  const body = {
    ...(step.isDry ? { allowed: true } : { id }),
    holds: decision.answer.holds.map(shownAmount),
    remaining: decision.answer.remaining.map(shownAmount),
    warnings: decision.answer.warnings,
    ...(step.isDry ? {} : { expiresAt: new Date(expiresUnixMs).toISOString() }),
  }
  if (step.isDry) return { kind: 'done', body, isRepeat: false }
  const reservation = {
    id,
    tenant: step.tenant,
    callId: step.callId,
    bodyHash: step.bodyHash,
    subject: step.subject,
    holds: decision.holds,
    answer: body,
    state: 'held' as ReservationState,
    expiresUnixMs,
    outcome: undefined,
  }
  batch.made.add(reservation)
  batch.reservations.set(id, reservation)
  batch.byCall.set(`${step.tenant}\n${step.callId}`, reservation)
  note(batch, step.tenant, 'reserve', hold(batch.accounts, decision.holds), id, null)
  return { kind: 'done', body, isRepeat: false }
}

function end(batch: Batch, step: End): StepOutcome {
  const reservation = batch.reservations.get(step.id)
  if (reservation === undefined || reservation.tenant !== step.tenant) return { kind: 'unknown' }
  const { state, outcome } = reservation
  if (state === 'settled' || state === 'released') {
    const isSame = outcome?.bodyHash === step.bodyHash && (state === 'settled') === (step.kind === 'settle')
    return isSame
      ? { kind: 'done', body: outcome.body, isRepeat: true }
      : { kind: 'conflict', detail: `the reservation was ${state} before`, first: outcome?.body }
  }
  if (state === 'expired' && step.kind === 'release') {
    return { kind: 'done', body: { id: step.id, state: 'expired', booked: [] }, isRepeat: true }
  }
  const lines = endHold(batch.accounts, reservation, step.amountsOf?.(reservation.subject))
  note(batch, step.tenant, step.kind, lines, step.id, null)
  const ended = step.kind === 'settle' ? 'settled' : 'released'
  const body = { id: step.id, state: ended, booked: bookedOf(reservation, lines) }
  reservation.state = ended
  reservation.outcome = { bodyHash: step.bodyHash, body }
  batch.changed.add(reservation)
  return { kind: 'done', body, isRepeat: false }
}

function expire(batch: Batch, reservation: Reservation & { readonly tenant: string }): void {
  note(batch, reservation.tenant, 'expire', endHold(batch.accounts, reservation, undefined), reservation.id, null)
  reservation.state = 'expired'
  batch.changed.add(reservation)
}

function extend(batch: Batch, step: Extend): StepOutcome {
  const reservation = batch.reservations.get(step.id)
  if (reservation === undefined || reservation.tenant !== step.tenant) return { kind: 'unknown' }
  if (reservation.state !== 'held') {
    return {
      kind: 'conflict',
      detail: `the reservation is ${reservation.state}, so there is nothing to extend`,
      first: reservation.outcome?.body,
    }
  }
  // Never shortened: two extensions that overtake each other mean the later end.
  reservation.expiresUnixMs = Math.max(reservation.expiresUnixMs, batch.nowMs + step.ttlMs)
  batch.changed.add(reservation)
  const expiresAt = new Date(reservation.expiresUnixMs).toISOString()
  return { kind: 'done', body: { id: step.id, state: 'held', expiresAt }, isRepeat: false }
}

function chargeNow(batch: Batch, step: Charge, matched: readonly MatchedAccount[]): StepOutcome {
  const key = `${step.tenant}\n${step.eventKey}`
  if (batch.eventKeys.has(key))
    return { kind: 'done', body: { eventKey: step.eventKey, isRepeat: true }, isRepeat: true }
  batch.eventKeys.add(key)
  const lines = charge(matched, step.amounts)
  note(batch, step.tenant, 'charge', lines, null, step.eventKey)
  const booked = lines.map(({ account, spent }) => ({ limitId: account.limitId, amount: amountJson(spent) }))
  return { kind: 'done', body: { eventKey: step.eventKey, booked }, isRepeat: false }
}

/** Notes a booking, and tells of the thresholds that it has passed. */
function note(
  batch: Batch,
  tenant: string,
  kind: string,
  lines: readonly Line[],
  reservation: string | null,
  eventKey: string | null,
): void {
  batch.bookings.push({
    tenant,
    kind,
    reservation,
    event_key: eventKey,
    account_ids: lines.map(({ account }) => account.id),
    held: lines.map(({ held }) => String(held)),
    spent: lines.map(({ spent }) => String(spent)),
  })
  for (const { account, spent } of lines) {
    const locked = batch.accounts.get(account.id)
    if (locked === undefined) continue
    batch.touched.add(locked)
    const limit = batch.limits.of(tenantOf(tenant)).find((each) => each.id === account.limitId)
    if (spent === 0n || limit === undefined) continue
    for (const percent of fireThresholds(account, limit)) tellThreshold(batch, tenant, limit, account, percent)
  }
}

function tellThreshold(batch: Batch, tenant: string, limit: Limit, account: Account, percent: number): void {
  const body = {
    limitId: limit.id,
    subject: account.subject,
    measure: limit.measure,
    percent,
    spent: amountJson(account.spent),
    granted: amountJson(account.granted),
    windowEnd: account.windowEndUnixMs === undefined ? null : new Date(account.windowEndUnixMs).toISOString(),
  }
  batch.outbox.push({ tenant, kind: 'quota.threshold', body })
  batch.audit.push({
    tenant,
    actor: 'quota',
    action: 'quota.threshold',
    resource: `limit ${limit.id}`,
    before: null,
    after: body,
  })
}

async function write(client: pg.PoolClient, batch: Batch): Promise<void> {
  if (batch.bookings.length === 0 && batch.changed.size === 0) return
  await writeChanges(client, {
    accounts: [...batch.touched].map((account) => ({
      id: account.id,
      held: String(account.held),
      spent: String(account.spent),
      free: String(account.free),
      debt: String(account.debt),
      fired: account.thresholdsFired,
    })),
    made: [...batch.made].map((reservation) => ({
      id: reservation.id,
      tenant: reservation.tenant,
      call_id: reservation.callId,
      body_hash: reservation.bodyHash,
      state: reservation.state,
      subject: reservation.subject,
      account_ids: reservation.holds.map((each) => each.accountId),
      amounts: reservation.holds.map((each) => String(each.amount)),
      measures: reservation.holds.map((each) => each.measure),
      answer: reservation.answer,
      expires_ms: reservation.expiresUnixMs,
    })),
    ended: [...batch.changed].map((reservation) => ({
      id: reservation.id,
      state: reservation.state,
      outcome: reservation.outcome ?? null,
      expires_ms: reservation.expiresUnixMs,
    })),
    bookings: batch.bookings,
    outbox: batch.outbox,
    audit: batch.audit,
  })
}

function shownAmount(each: { readonly limitId: string; readonly measure: string; readonly amount: bigint }): object {
  return { ...each, amount: amountJson(each.amount) }
}

function bookedOf(reservation: Reservation, lines: readonly Line[]): readonly object[] {
  return lines.map(({ account, spent }, at) => ({
    limitId: account.limitId,
    measure: reservation.holds[at]?.measure,
    amount: amountJson(spent),
  }))
}

function accountOfRow(row: AccountRow): Account & { readonly tenant: string } {
  return {
    id: row.id,
    tenant: row.tenant,
    limitId: row.limit_id,
    subject: row.subject,
    windowEndUnixMs: row.window_end?.getTime(),
    granted: BigInt(row.granted),
    held: BigInt(row.held),
    spent: BigInt(row.spent),
    free: BigInt(row.free),
    debt: BigInt(row.debt),
    thresholdsFired: [...row.thresholds_fired],
  }
}

function reservationOfRow(row: ReservationRow): Reservation & { readonly tenant: string } {
  return {
    id: row.id,
    tenant: row.tenant,
    callId: row.call_id,
    bodyHash: row.body_hash,
    subject: row.subject as Subject,
    holds: row.account_ids.map((accountId, at) => ({
      accountId,
      measure: row.measures[at] as Limit['measure'],
      amount: BigInt(row.amounts[at] ?? 0),
    })),
    answer: row.answer as object,
    state: row.state,
    expiresUnixMs: row.expires_ms,
    outcome: (row.outcome ?? undefined) as Reservation['outcome'],
  }
}

export function limitOfRow(row: RuleRow): Limit {
  return {
    tenant: tenantOf(row.tenant),
    id: row.id,
    subject: row.subject,
    each: row.each === '' ? undefined : (row.each as NonNullable<Limit['each']>),
    measure: row.measure as Limit['measure'],
    amount: BigInt(row.amount),
    window: row.window as Limit['window'],
    timeZone: row.time_zone,
    action: row.action as Limit['action'],
    thresholds: row.thresholds,
    overage: row.overage as Limit['overage'],
    source: row.source as Limit['source'],
  }
}
