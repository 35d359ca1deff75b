// What one step does to the books: pure, so that the same steps in the same order give the same books in a test and in
// the service. The caller has locked the accounts and reservations that it hands over, and writes what has changed.
//
// For each account `granted + debt = spent + held + free`, and either `free` or `debt` is 0. A hold is never larger than what
// is free. A reservation is held → settled, released or expired; a settlement after its expiry still books.
import assert from 'node:assert/strict'
import type { Limit, Match, Measure, Subject } from './limits.ts'

export type Account = {
  readonly id: string
  readonly limitId: string
  readonly subject: string
  readonly windowEndUnixMs: number | undefined
  granted: bigint
  held: bigint
  spent: bigint
  free: bigint
  debt: bigint
  thresholdsFired: number[]
}

export type ReservationState = 'held' | 'settled' | 'released' | 'expired'

export type Hold = { readonly accountId: string; readonly measure: Measure; readonly amount: bigint }

export type Reservation = {
  readonly id: string
  readonly callId: string
  readonly bodyHash: string
  readonly subject: Subject
  readonly holds: readonly Hold[]
  /** As it was told, and is told again. */
  readonly answer: object
  state: ReservationState
  expiresUnixMs: number
  /** What ended it, and what was told then. */
  outcome: { readonly bodyHash: string; readonly body: object } | undefined
}

/** By measure: what a call is expected to take, or has taken. Undefined is not known. */
export type Amounts = { readonly cost: bigint | undefined; readonly tokens: bigint | undefined }

export type HoldAnswer = { readonly limitId: string; readonly measure: Measure; readonly amount: bigint }
export type ReservedAnswer = {
  readonly holds: readonly HoldAnswer[]
  readonly remaining: readonly HoldAnswer[]
  readonly warnings: readonly string[]
}
export type Denial = {
  readonly limitId: string
  readonly measure: Measure
  readonly subject: string
  readonly requested: bigint
  readonly limit: bigint
  readonly used: bigint
  readonly held: bigint
  readonly free: bigint
  readonly window: Limit['window']
  /** When the window ends; undefined where only settlements make room. */
  readonly freesUnixMs: number | undefined
}

export type Line = { readonly account: Account; readonly held: bigint; readonly spent: bigint }

/** A match with its account in the current window. */
export type MatchedAccount = Match & { readonly account: Account }

export function amountOf(measure: Measure, amounts: Amounts): bigint {
  switch (measure) {
    case 'requests':
    case 'concurrency':
      return 1n
    case 'cost':
      return amounts.cost ?? 0n
    case 'tokens':
      return amounts.tokens ?? 0n
    default:
      return measure satisfies never
  }
}

export type Decision =
  | { readonly kind: 'granted'; readonly holds: readonly Hold[]; readonly answer: ReservedAnswer }
  | { readonly kind: 'denied'; readonly denial: Denial }

/** Decides for all limits of a call, and changes nothing. */
export function decide(matched: readonly MatchedAccount[], amounts: Amounts): Decision {
  const holds: (Hold & { readonly limitId: string })[] = []
  const warnings: string[] = []
  for (const { limit, account } of matched) {
    const amount = amountOf(limit.measure, amounts)
    let held = amount
    if (amount > account.free) {
      held = account.free
      if (refuses(limit, held)) return { kind: 'denied', denial: denialOf(limit, account, amount) }
      if (limit.action !== 'observe') {
        warnings.push(`${limit.id}: ${amount} wanted of ${limit.measure}, ${account.free} free of ${account.granted}`)
      }
    }
    holds.push({ accountId: account.id, measure: limit.measure, amount: held, limitId: limit.id })
  }
  const remaining = matched.map(({ limit, account }, at) => ({
    limitId: limit.id,
    measure: limit.measure,
    amount: account.free - (holds[at]?.amount ?? 0n),
  }))
  return {
    kind: 'granted',
    holds: holds.map(({ limitId: _limitId, ...hold }) => hold),
    answer: { holds: holds.map(({ accountId: _accountId, ...hold }) => hold), remaining, warnings },
  }
}

function refuses(limit: Limit, held: bigint): boolean {
  if (limit.action !== 'block') return false
  if (limit.overage === 'allow_debt') return false
  // A place is there or not; a part of one is nothing.
  if (limit.measure === 'requests' || limit.measure === 'concurrency') return true
  return limit.overage === 'refuse' || held === 0n
}

function denialOf(limit: Limit, account: Account, requested: bigint): Denial {
  return {
    limitId: limit.id,
    measure: limit.measure,
    subject: account.subject,
    requested,
    limit: account.granted,
    used: account.spent,
    held: account.held,
    free: account.free,
    window: limit.window,
    freesUnixMs: account.windowEndUnixMs,
  }
}

/** Takes what was decided out of what is free. */
export function hold(accounts: ReadonlyMap<string, Account>, holds: readonly Hold[]): readonly Line[] {
  return holds.map(({ accountId, amount }) => {
    const account = accountIn(accounts, accountId)
    assert(amount <= account.free, `account ${accountId}: a hold of ${amount} where ${account.free} is free`)
    return change(account, amount, 0n)
  })
}

/** Ends a hold. `amounts` is what was used, undefined for nothing; what is not known of it is what was held. */
export function endHold(
  accounts: ReadonlyMap<string, Account>,
  reservation: Reservation,
  amounts: Amounts | undefined,
): readonly Line[] {
  const isHeld = reservation.state === 'held'
  return reservation.holds.map(({ accountId, measure, amount }) =>
    change(accountIn(accounts, accountId), isHeld ? -amount : 0n, spentOf(measure, amount, amounts)),
  )
}

function spentOf(measure: Measure, held: bigint, amounts: Amounts | undefined): bigint {
  if (amounts === undefined || measure === 'concurrency') return 0n
  if (measure === 'cost') return amounts.cost ?? held
  if (measure === 'tokens') return amounts.tokens ?? held
  return 1n
}

/** Books what was never held. */
export function charge(matched: readonly MatchedAccount[], amounts: Amounts): readonly Line[] {
  return matched
    .filter(({ limit }) => limit.measure !== 'concurrency')
    .map(({ limit, account }) => change(account, 0n, amountOf(limit.measure, amounts)))
}

function change(account: Account, held: bigint, spent: bigint): Line {
  account.held += held
  account.spent += spent
  balance(account)
  return { account, held, spent }
}

export function balance(account: Account): void {
  assert(account.held >= 0n, `account ${account.id} holds ${account.held}`)
  const left = account.granted - account.spent - account.held
  account.free = left > 0n ? left : 0n
  account.debt = left < 0n ? -left : 0n
}

function accountIn(accounts: ReadonlyMap<string, Account>, id: string): Account {
  const account = accounts.get(id)
  assert(account !== undefined, `account ${id} was not locked`)
  return account
}

/** The thresholds that the account has passed and that were not told yet; they count as told from now on. */
export function fireThresholds(account: Account, limit: Pick<Limit, 'thresholds'>): readonly number[] {
  if (account.granted === 0n) return []
  const fired = limit.thresholds.filter(
    (percent) =>
      account.spent * 100n >= account.granted * BigInt(percent) && !account.thresholdsFired.includes(percent),
  )
  account.thresholdsFired.push(...fired)
  return fired
}
