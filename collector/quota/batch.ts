// The steps of one transaction, one after the other, on the rows that it has locked: each decides by the books, changes them
// in memory, and notes what is to be written. Nothing here waits or asks, so a batch that fails can simply be run again.
import assert from 'node:assert/strict'
import { randomUUIDv7 } from 'node:crypto'
import type { TenantId } from '../receive/request.ts'
import {
  type Account,
  addUntold,
  bookedOf,
  bookSpent,
  changeReservation,
  decide,
  fireThresholds,
  freesUnixMs,
  hold,
  type Line,
  type MatchedAccount,
  mergeLines,
  type Reservation,
  slide,
  spentOf,
  type Untold,
  untoldOf,
} from './books.ts'
import { amountJson, type Limit, type Limits } from './limits.ts'
import type { Charge, End, Extend, Rate, RecordCall, Reserve, Step, StepOutcome } from './step.ts'

/** What is booked of a charge or of the record of a call. */
export type BookedEvent = {
  readonly tenant: TenantId
  readonly eventKey: string
  readonly generation: number
  readonly bodyHash: string | undefined
  readonly answer: object | undefined
  readonly reservation: string | undefined
  readonly accountIds: readonly string[]
  readonly spent: readonly bigint[]
  /** Of a record that settled a reservation. */
  readonly untold: readonly Untold[] | undefined
  readonly costNanoUsd: bigint | undefined
  readonly isMetered: boolean
  readonly endedUnixMs: number
  /** Where a sliding window counts it: at its end, or when it was booked, where the clock of its service is ahead. */
  readonly bookedUnixMs: number
}

export type Booking = {
  readonly tenant: TenantId
  readonly kind: 'reserve' | 'settle' | 'release' | 'expire' | 'charge' | 'record' | 'slide'
  readonly reservation: string | undefined
  readonly eventKey: string | undefined
  readonly lines: readonly Line[]
}

export type Told = { readonly tenant: TenantId; readonly limit: Limit; readonly body: object }

/** State of one transaction: what was locked, and what is to be written. */
export type Batch = {
  readonly nowMs: number
  /** Of a call that ended before, it may be forgotten that it is booked; then a record that is not known is none that is new. */
  readonly forgottenUntilMs: number
  readonly limits: Limits
  readonly accounts: ReadonlyMap<string, Account>
  readonly reservations: Map<string, Reservation>
  readonly byCall: Map<string, Reservation>
  readonly events: Map<string, BookedEvent>
  /** Those that were there before. */
  readonly lockedEvents: ReadonlySet<string>
  readonly made: Set<Reservation>
  readonly changed: Set<Reservation>
  readonly changedEvents: Map<string, BookedEvent>
  readonly touched: Set<Account>
  readonly bookings: Booking[]
  readonly thresholds: Told[]
}

export function openBatch(
  nowMs: number,
  limits: Limits,
  accounts: ReadonlyMap<string, Account>,
  reservations: readonly Reservation[],
  events: readonly BookedEvent[],
  forgottenUntilMs = Number.NEGATIVE_INFINITY,
): Batch {
  const batch: Batch = {
    nowMs,
    forgottenUntilMs,
    limits,
    accounts,
    reservations: new Map(reservations.map((each) => [each.id, each])),
    byCall: new Map(reservations.map((each) => [keyOf(each.tenant, each.callId), each])),
    events: new Map(events.map((each) => [keyOf(each.tenant, each.eventKey), each])),
    lockedEvents: new Set(events.map((each) => keyOf(each.tenant, each.eventKey))),
    made: new Set(),
    changed: new Set(),
    changedEvents: new Map(),
    touched: new Set(),
    bookings: [],
    thresholds: [],
  }
  for (const account of accounts.values()) slideNow(batch, account)
  return batch
}

function slideNow(batch: Batch, account: Account): void {
  const line = slide(account, batch.nowMs)
  if (line === undefined) return
  batch.touched.add(account)
  const lines = [line]
  batch.bookings.push({ tenant: account.tenant, kind: 'slide', reservation: undefined, eventKey: undefined, lines })
}

function keyOf(tenant: TenantId, name: string): string {
  return `${tenant}\n${name}`
}

export function take(batch: Batch, step: Step, matched: readonly MatchedAccount[]): StepOutcome {
  switch (step.kind) {
    case 'reserve':
      return reserve(batch, step, matched)
    case 'settle':
    case 'release':
      return end(batch, step)
    case 'extend':
      return extend(batch, step)
    case 'charge':
      return charge(batch, step, matched)
    case 'record':
      return record(batch, step, matched)
    default:
      return step satisfies never
  }
}

function reserve(batch: Batch, step: Reserve, matched: readonly MatchedAccount[]): StepOutcome {
  const before = batch.byCall.get(keyOf(step.tenant, step.callId))
  if (before !== undefined && !step.isDry) {
    return before.bodyHash === step.bodyHash
      ? { kind: 'done', body: before.answer(), isRepeat: true, rates: ratesOf(batch, matched) }
      : {
          kind: 'conflict',
          detail: 'the call id was reserved before with another body',
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
  if (decision.kind === 'denied') return { ...decision, nowMs: batch.nowMs, rates: ratesOf(batch, matched) }
  // They ascend, so that those of today stand together in every index.
  const id = randomUUIDv7()
  const expiresUnixMs = batch.nowMs + step.ttlMs
  const body = {
    ...(step.isDry ? { allowed: true } : { id }),
    holds: decision.answer.holds.map(shownAmount),
    remaining: decision.answer.remaining.map(shownAmount),
    warnings: decision.answer.warnings,
    ...(step.isDry ? {} : { expiresAt: new Date(expiresUnixMs).toISOString() }),
  }
  if (step.isDry) return { kind: 'done', body, isRepeat: false, rates: ratesOf(batch, matched) }
  const reservation: Reservation = {
    id,
    tenant: step.tenant,
    callId: step.callId,
    bodyHash: step.bodyHash,
    subject: step.subject,
    holds: decision.holds,
    answer: () => body,
    isLease: step.isLease,
    heldUnixMs: batch.nowMs,
    state: 'held',
    expiresUnixMs,
    claimed: undefined,
    recorded: decision.holds.map(() => 0n),
    records: 0,
    untold: undefined,
    outcome: undefined,
  }
  batch.made.add(reservation)
  batch.reservations.set(id, reservation)
  batch.byCall.set(keyOf(step.tenant, step.callId), reservation)
  note(batch, step.tenant, 'reserve', hold(batch.accounts, decision.holds), id)
  return { kind: 'done', body, isRepeat: false, rates: ratesOf(batch, matched) }
}

function ratesOf({ nowMs }: Batch, matched: readonly MatchedAccount[]): readonly Rate[] {
  return matched.map(({ limit, account }) => {
    const freesMs = freesUnixMs(account, account.free + 1n)
    const freesInMs = freesMs === undefined ? undefined : freesMs - nowMs
    return { limitId: limit.id, window: limit.window, granted: account.granted, free: account.free, freesInMs }
  })
}

/** A client ends its reservation: once. What its records say counts more, whether they came before or come later. */
function end(batch: Batch, step: End): StepOutcome {
  const reservation = batch.reservations.get(step.id)
  if (reservation === undefined || reservation.tenant !== step.tenant) return { kind: 'unknown' }
  const { state, outcome } = reservation
  const ended = step.kind === 'settle' ? 'settled' : 'released'
  if (outcome !== undefined) {
    const isSame = outcome.bodyHash === step.bodyHash && outcome.kind === ended
    return isSame
      ? { kind: 'done', body: outcome.body, isRepeat: true }
      : { kind: 'conflict', detail: `the reservation was ${outcome.kind} before`, first: outcome.body }
  }
  if (step.kind === 'release' && state !== 'held') {
    return { kind: 'done', body: { id: step.id, state, booked: [] }, isRepeat: true }
  }
  const amounts = step.amountsOf?.(reservation.subject)
  const lines = changeReservation(batch.accounts, reservation, () => {
    reservation.state = ended
    if (amounts === undefined) return
    reservation.claimed = spentOf(reservation.holds, amounts, (at) => reservation.holds[at]?.amount ?? 0n)
  })
  note(batch, step.tenant, step.kind, lines, step.id)
  const body = { id: step.id, state: ended, booked: shownBooked(batch, reservation) }
  reservation.outcome = { kind: ended, bodyHash: step.bodyHash, body }
  batch.changed.add(reservation)
  return { kind: 'done', body, isRepeat: false }
}

export function expire(batch: Batch, reservation: Reservation): void {
  const lines = changeReservation(batch.accounts, reservation, () => {
    reservation.state = 'expired'
  })
  note(batch, reservation.tenant, 'expire', lines, reservation.id)
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
  const expiresUnixMs = batch.nowMs + step.ttlMs
  if (expiresUnixMs > reservation.expiresUnixMs) {
    reservation.expiresUnixMs = expiresUnixMs
    batch.changed.add(reservation)
  }
  const expiresAt = new Date(reservation.expiresUnixMs).toISOString()
  return { kind: 'done', body: { id: step.id, state: 'held', expiresAt }, isRepeat: false }
}

function charge(batch: Batch, step: Charge, matched: readonly MatchedAccount[]): StepOutcome {
  const { tenant, eventKey, bodyHash } = step
  const before = batch.events.get(keyOf(tenant, eventKey))
  if (before !== undefined) {
    return before.bodyHash === bodyHash
      ? { kind: 'done', body: before.answer ?? {}, isRepeat: true }
      : { kind: 'conflict', detail: 'the event was charged before with another body', first: before.answer }
  }
  const endedUnixMs = step.endedAt?.getTime() ?? batch.nowMs
  const bookedUnixMs = Math.min(endedUnixMs, batch.nowMs)
  const { accountIds, spent } = spentUnreserved(matched, step)
  note(batch, tenant, 'charge', bookSpent(batch.accounts, accountIds, spent, bookedUnixMs), undefined, eventKey)
  const booked = accountIds.map((id, at) => ({
    limitId: batch.accounts.get(id)?.limitId,
    amount: amountJson(spent[at] ?? 0n),
  }))
  const answer = { booked }
  putEvent(batch, {
    tenant,
    eventKey,
    generation: 0,
    bodyHash,
    answer,
    reservation: undefined,
    accountIds,
    spent,
    untold: undefined,
    costNanoUsd: step.amounts.cost,
    isMetered: true,
    endedUnixMs,
    bookedUnixMs,
  })
  return { kind: 'done', body: answer, isRepeat: false }
}

/** Books the difference to what is booked of this event. */
function record(batch: Batch, step: RecordCall, matched: readonly MatchedAccount[]): StepOutcome {
  const { tenant, eventKey, generation, isMetered } = step
  const before = batch.events.get(keyOf(tenant, eventKey))
  if (before !== undefined && before.generation >= generation) return { kind: 'done', body: {}, isRepeat: true }
  const endedUnixMs = step.endedAt.getTime()
  // What counts no more is noted all the same: its record may still come, in a segment that was left behind.
  if (before === undefined && isMetered && endedUnixMs < batch.forgottenUntilMs)
    return { kind: 'done', body: {}, isRepeat: true }
  const bookedUnixMs = Math.min(endedUnixMs, batch.nowMs)
  const undone = before === undefined ? [] : unbook(batch, before)
  const reservation = reservationOf(batch, step, before)
  let accountIds: readonly string[] = []
  let spent: readonly bigint[] = []
  let untold: readonly Untold[] | undefined
  let done: readonly Line[] = []
  if (!isMetered) {
    // Nothing of it counts, and nothing of a lower generation that comes later will.
  } else if (reservation === undefined) {
    ;({ accountIds, spent } = spentUnreserved(matched, step))
    done = bookSpent(batch.accounts, accountIds, spent, bookedUnixMs)
  } else {
    accountIds = reservation.holds.map((each) => each.accountId)
    spent = spentOf(reservation.holds, step.amounts, () => 0n)
    untold = untoldOf(reservation, step.amounts, step.isLowerBound)
    done = bookRecord(batch, reservation, { spent, untold }, 1)
  }
  // Also those where nothing changes in sum: what was spent may now be in another bucket of a sliding window.
  for (const { account } of [...undone, ...done]) batch.touched.add(account)
  const lines = mergeLines([...undone, ...done])
  if (lines.length > 0) note(batch, tenant, 'record', lines, reservation?.id, eventKey)
  putEvent(batch, {
    tenant,
    eventKey,
    generation,
    bodyHash: undefined,
    answer: undefined,
    reservation: isMetered ? reservation?.id : undefined,
    accountIds,
    spent,
    untold,
    costNanoUsd: step.amounts.cost,
    isMetered,
    endedUnixMs,
    bookedUnixMs,
  })
  return { kind: 'done', body: {}, isRepeat: false }
}

function reservationOf(batch: Batch, step: RecordCall, before: BookedEvent | undefined): Reservation | undefined {
  for (const callId of callIdsOf(step)) {
    const found = batch.byCall.get(keyOf(step.tenant, callId))
    if (found !== undefined && (found.isLease || callId === step.callId)) return found
  }
  return before?.reservation === undefined ? undefined : batch.reservations.get(before.reservation)
}

/** The call ids of which a record may settle the reservation: its own, or that of the lease that the call was made under. */
export function callIdsOf({ callId }: Pick<RecordCall, 'callId'>): readonly string[] {
  if (callId === undefined) return []
  const slash = callId.lastIndexOf('/')
  return slash <= 0 ? [callId] : [callId, callId.slice(0, slash)]
}

function unbook(batch: Batch, before: BookedEvent): readonly Line[] {
  const reservation = before.reservation === undefined ? undefined : batch.reservations.get(before.reservation)
  if (reservation !== undefined) return bookRecord(batch, reservation, before, -1)
  const undone = before.spent.map((each) => -each)
  return bookSpent(batch.accounts, before.accountIds, undone, before.bookedUnixMs)
}

function bookRecord(
  batch: Batch,
  reservation: Reservation,
  { spent, untold }: Pick<BookedEvent, 'spent' | 'untold'>,
  sign: 1 | -1,
): readonly Line[] {
  batch.changed.add(reservation)
  return changeReservation(batch.accounts, reservation, () => {
    reservation.recorded = reservation.recorded.map((sum, at) => sum + BigInt(sign) * (spent[at] ?? 0n))
    reservation.records += sign
    reservation.untold = addUntold(reservation.untold, untold, sign)
    if (!reservation.isLease) reservation.state = 'settled'
  })
}

function spentUnreserved(
  matched: readonly MatchedAccount[],
  { amounts }: Pick<Charge, 'amounts'>,
): { readonly accountIds: readonly string[]; readonly spent: readonly bigint[] } {
  const counted = matched.filter(({ limit }) => limit.measure !== 'concurrency')
  const holds = counted.map(({ limit, account }) => ({ accountId: account.id, measure: limit.measure, amount: 0n }))
  return { accountIds: holds.map((each) => each.accountId), spent: spentOf(holds, amounts, () => 0n) }
}

function putEvent(batch: Batch, event: BookedEvent): void {
  const key = keyOf(event.tenant, event.eventKey)
  batch.events.set(key, event)
  batch.changedEvents.set(key, event)
}

/** Notes a booking, and tells of the thresholds that it has passed. */
function note(
  batch: Batch,
  tenant: TenantId,
  kind: Booking['kind'],
  lines: readonly Line[],
  reservation?: string,
  eventKey?: string,
): void {
  batch.bookings.push({ tenant, kind, reservation, eventKey, lines })
  for (const { account, spent } of lines) {
    batch.touched.add(account)
    // What was booked to where a window has been leaves it at once: no call after it in this batch finds it, and what comes
    // late of many minutes never adds up to one.
    if (spent !== 0n) slideNow(batch, account)
    if (spent <= 0n) continue
    const limit = batch.limits.find(tenant, account.limitId)
    if (limit === undefined) continue
    for (const percent of fireThresholds(account, limit)) {
      batch.thresholds.push({ tenant, limit, body: thresholdBody(limit, account, percent) })
    }
  }
}

export function thresholdBody(
  limit: Limit,
  account: Pick<Account, 'subject' | 'spent' | 'granted' | 'windowEndUnixMs'>,
  percent: number,
): object {
  return {
    limitId: limit.id,
    subject: account.subject,
    measure: limit.measure,
    percent,
    spent: amountJson(account.spent),
    granted: amountJson(account.granted),
    windowEnd: account.windowEndUnixMs === undefined ? null : new Date(account.windowEndUnixMs).toISOString(),
  }
}

function shownAmount(each: { readonly limitId: string; readonly measure: string; readonly amount: bigint }): object {
  return { ...each, amount: amountJson(each.amount) }
}

function shownBooked(batch: Batch, reservation: Reservation): readonly object[] {
  const booked = bookedOf(reservation)
  return reservation.holds.map(({ accountId, measure }, at) => {
    const account = batch.accounts.get(accountId)
    assert(account !== undefined, `account ${accountId} was not locked`)
    return { limitId: account.limitId, measure, amount: amountJson(booked[at] ?? 0n) }
  })
}
