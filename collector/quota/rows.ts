// Between the rows of the ledger's tables and the books: amounts are digits there and bigint here.
import type {
  AccountRow,
  Changes,
  EventRow,
  ReservationRow,
  RuleRow,
} from '@tallylight/storage/postgres/quota/statements.ts'
import type { Batch, BookedEvent, Booking, Told } from './batch.ts'
import type { Account, Reservation } from './books.ts'
import { type Limit, type Subject, tenantOf } from './limits.ts'

export function accountOfRow(row: AccountRow): Account {
  return {
    id: row.id,
    tenant: tenantOf(row.tenant),
    limitId: row.limit_id,
    subject: row.subject,
    windowEndUnixMs: row.window_end?.getTime(),
    slideMs: row.slide_ms === null ? undefined : Number(row.slide_ms),
    buckets: new Map(row.bucket_at.map((at, index) => [Number(at), BigInt(row.bucket_spent[index] ?? 0)])),
    granted: BigInt(row.granted),
    held: BigInt(row.held),
    spent: BigInt(row.spent),
    free: BigInt(row.free),
    debt: BigInt(row.debt),
    thresholdsFired: [...row.thresholds_fired],
  }
}

export function reservationOfRow(row: ReservationRow): Reservation {
  return {
    id: row.id,
    tenant: tenantOf(row.tenant),
    callId: row.call_id,
    bodyHash: row.body_hash,
    subject: row.subject as Subject,
    holds: row.account_ids.map((accountId, at) => ({
      accountId,
      measure: row.measures[at] as Limit['measure'],
      amount: BigInt(row.amounts[at] ?? 0),
    })),
    answer: () => JSON.parse(row.answer) as object,
    isLease: row.is_lease,
    heldUnixMs: row.created_ms,
    state: row.state,
    expiresUnixMs: row.expires_ms,
    claimed: row.claimed?.map(BigInt),
    recorded: row.recorded.map(BigInt),
    records: row.records,
    ...outcomeOf(row),
  }
}

/** How its client ended it, and what its records leave open, stand in one column. */
function outcomeOf(row: ReservationRow): Pick<Reservation, 'outcome' | 'untold'> {
  const { untold, ...ended } = (row.outcome ?? {}) as Partial<NonNullable<Reservation['outcome']>> &
    Partial<Pick<Reservation, 'untold'>>
  return { untold, outcome: ended.kind === undefined ? undefined : (ended as Reservation['outcome']) }
}

function outcomeJson({ outcome, untold }: Reservation): object | null {
  return untold === undefined ? (outcome ?? null) : { ...outcome, untold }
}

export function eventOfRow(row: EventRow): BookedEvent {
  return {
    tenant: tenantOf(row.tenant),
    eventKey: row.event_key,
    generation: row.generation,
    bodyHash: row.body_hash ?? undefined,
    answer: row.body_hash === null ? undefined : (row.answer ?? undefined),
    untold: row.body_hash === null ? (row.answer as Pick<BookedEvent, 'untold'> | null)?.untold : undefined,
    reservation: row.reservation ?? undefined,
    accountIds: row.account_ids,
    spent: row.spent.map(BigInt),
    costNanoUsd: row.cost_nano_usd === null ? undefined : BigInt(row.cost_nano_usd),
    isMetered: row.is_metered,
    endedUnixMs: row.ended_ms,
    bookedUnixMs: row.booked_ms,
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

/** What the batch has to write; undefined when it changed nothing. */
export function changesOf(batch: Batch): Changes | undefined {
  const { bookings, changed, changedEvents } = batch
  if (bookings.length === 0 && changed.size === 0 && changedEvents.size === 0) return undefined
  return {
    accounts: [...batch.touched].map(accountChange),
    made: [...batch.made].map((reservation) => ({
      id: reservation.id,
      tenant: reservation.tenant,
      call_id: reservation.callId,
      body_hash: reservation.bodyHash,
      state: reservation.state,
      subject: reservation.subject,
      account_ids: arrayText(reservation.holds.map((each) => each.accountId)),
      amounts: arrayText(reservation.holds.map((each) => each.amount)),
      measures: arrayText(reservation.holds.map((each) => each.measure)),
      answer: reservation.answer(),
      is_lease: reservation.isLease,
      recorded: arrayText(reservation.recorded),
      created_ms: reservation.heldUnixMs,
      expires_ms: reservation.expiresUnixMs,
    })),
    ended: [...changed].map((reservation) => ({
      id: reservation.id,
      state: reservation.state,
      outcome: outcomeJson(reservation),
      claimed: reservation.claimed === undefined ? null : arrayText(reservation.claimed),
      recorded: arrayText(reservation.recorded),
      records: reservation.records,
      expires_ms: reservation.expiresUnixMs,
    })),
    events: [...changedEvents].map(([key, event]) => eventChange(event, !batch.lockedEvents.has(key))),
    bookings: bookings.map(bookingChange),
    ...thresholdChanges(batch.thresholds),
  }
}

export function thresholdChanges(told: readonly Told[]): Pick<Changes, 'outbox' | 'audit'> {
  return {
    outbox: told.map(({ tenant, body }) => ({ tenant, kind: 'quota.threshold', body })),
    audit: told.map(({ tenant, limit, body }) => ({
      tenant,
      actor: 'quota',
      action: 'quota.threshold',
      resource: `limit ${limit.id}`,
      before: null,
      after: body,
    })),
  }
}

/** As Postgres spells an array of numbers or plain words: a piece of text is read faster than an array of JSON. */
function arrayText(values: readonly (string | number | bigint)[]): string {
  return `{${values.join(',')}}`
}

function accountChange(account: Account): Changes['accounts'][number] {
  return {
    id: account.id,
    held: String(account.held),
    spent: String(account.spent),
    free: String(account.free),
    debt: String(account.debt),
    fired: arrayText(account.thresholdsFired),
    bucket_at: arrayText([...account.buckets.keys()]),
    bucket_spent: arrayText([...account.buckets.values()]),
  }
}

function eventChange(event: BookedEvent, isNew: boolean): Changes['events'][number] {
  return {
    is_new: isNew,
    tenant: event.tenant,
    event_key: event.eventKey,
    generation: event.generation,
    body_hash: event.bodyHash ?? null,
    // Of a record nobody was told anything: there it has what the record leaves open.
    answer: event.untold === undefined ? (event.answer ?? null) : { untold: event.untold },
    reservation: event.reservation ?? null,
    account_ids: arrayText(event.accountIds),
    spent: arrayText(event.spent),
    cost_nano_usd: event.costNanoUsd === undefined ? null : String(event.costNanoUsd),
    is_metered: event.isMetered,
    ended_ms: event.endedUnixMs,
  }
}

function bookingChange({ tenant, kind, reservation, eventKey, lines }: Booking): Changes['bookings'][number] {
  return {
    tenant,
    kind,
    reservation: reservation ?? null,
    event_key: eventKey ?? null,
    account_ids: arrayText(lines.map(({ account }) => account.id)),
    held: arrayText(lines.map(({ held }) => held)),
    spent: arrayText(lines.map(({ spent }) => spent)),
  }
}
