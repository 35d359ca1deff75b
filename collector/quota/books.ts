// What one step does to the books: pure, so that the same steps in the same order give the same books in a test and in
// the service. The caller has locked the accounts and reservations that it hands over, and writes what has changed.
//
// For each account `granted + debt = spent + held + free`, and either `free` or `debt` is 0. A hold is never larger than what
// is free. A reservation is held → settled, released or expired; a settlement after its expiry still books. What a call's
// records add up to replaces what its client claimed. A lease stays held while the records of its calls eat it up.
import assert from 'node:assert/strict'
import type { TenantId } from '../receive/request.ts'
import type { Limit, Match, Measure, Subject } from './limits.ts'

export type Account = {
  readonly id: string
  readonly tenant: TenantId
  readonly limitId: string
  readonly subject: string
  readonly windowEndUnixMs: number | undefined
  /** The length of a sliding window; undefined where the window is fixed. */
  readonly slideMs: number | undefined
  /** What was spent, by the start of its bucket, where the window slides. */
  readonly buckets: Map<number, bigint>
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
  readonly tenant: TenantId
  readonly callId: string
  readonly bodyHash: string
  readonly subject: Subject
  readonly holds: readonly Hold[]
  /** As it was told, and is told again. */
  readonly answer: () => object
  readonly isLease: boolean
  /** Where a sliding window counts what the call spends. */
  readonly heldUnixMs: number
  state: ReservationState
  expiresUnixMs: number
  /** Per hold: what the client said it used, and what its records add up to. */
  claimed: readonly bigint[] | undefined
  recorded: readonly bigint[]
  /** Records that count. */
  records: number
  /** Per hold: how many of those do not know it, and how many know a part. Undefined where all know all. */
  untold: readonly Untold[] | undefined
  /** How its client ended it, and what was told then. */
  outcome: { readonly kind: 'settled' | 'released'; readonly bodyHash: string; readonly body: object } | undefined
}

export type Untold = { readonly unknown: number; readonly part: number }

/** By measure: what a call is expected to take, or has taken. Undefined is not known; one request where that is left out. */
export type Amounts = {
  readonly cost: bigint | undefined
  readonly tokens: bigint | undefined
  readonly inputTokens?: bigint
  readonly outputTokens?: bigint
  readonly requests?: bigint
}

export function tokensOf(usage: {
  readonly inputTokens: number
  readonly outputTokens: number
}): Omit<Amounts, 'cost'> {
  const [inputTokens, outputTokens] = [BigInt(usage.inputTokens), BigInt(usage.outputTokens)]
  return { tokens: inputTokens + outputTokens, inputTokens, outputTokens }
}

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
  readonly freesUnixMs: number | undefined
}

export type Line = { readonly account: Account; readonly held: bigint; readonly spent: bigint }

/** A match with its account in the current window. */
export type MatchedAccount = Match & { readonly account: Account }

/** Undefined is not known. */
export function amountOf(measure: Measure, amounts: Amounts): bigint | undefined {
  switch (measure) {
    case 'requests':
      return amounts.requests ?? 1n
    case 'concurrency':
      return 1n
    case 'cost':
      return amounts.cost
    case 'tokens':
      return amounts.tokens
    case 'input_tokens':
      return amounts.inputTokens
    case 'output_tokens':
      return amounts.outputTokens
    default:
      return measure satisfies never
  }
}

export type Decision =
  | { readonly kind: 'granted'; readonly holds: readonly Hold[]; readonly answer: ReservedAnswer }
  | { readonly kind: 'denied'; readonly denial: Denial }

/** Decides for all limits of a call, and changes nothing. What is not known holds nothing, and is refused where nothing is
 *  left: or leaving out a number would be the way round a limit. */
export function decide(matched: readonly MatchedAccount[], amounts: Amounts): Decision {
  const holds: (Hold & { readonly limitId: string })[] = []
  const warnings: string[] = []
  let denial: Denial | undefined
  let refusedUntilMs = Number.NEGATIVE_INFINITY
  for (const { limit, account } of matched) {
    const known = amountOf(limit.measure, amounts)
    const amount = known ?? 0n
    let held = amount
    if (amount > account.free || (known === undefined && account.free === 0n)) {
      held = account.free
      if (refuses(limit, held)) {
        // Of several the one that does so longest is told: who comes again when it frees is refused by none of them.
        const untilMs = refusesUntilMs(limit, account, amount)
        if (untilMs > refusedUntilMs) denial = denialOf(limit, account, amount)
        refusedUntilMs = Math.max(untilMs, refusedUntilMs)
        continue
      }
      if (limit.action !== 'observe') {
        warnings.push(`${limit.id}: ${amount} wanted of ${limit.measure}, ${account.free} free of ${account.granted}`)
      }
    }
    holds.push({ accountId: account.id, measure: limit.measure, amount: held, limitId: limit.id })
  }
  if (denial !== undefined) return { kind: 'denied', denial }
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
  return !takesPart(limit) || held === 0n
}

/** A call may hold what is left. A place is there or not; a part of one is nothing. */
function takesPart({ overage, measure }: Limit): boolean {
  return overage === 'allow_available' && measure !== 'requests' && measure !== 'concurrency'
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
    freesUnixMs: freesUnixMs(account, neededOf(limit, requested)),
  }
}

/** What must be free for a call not to be refused. */
function neededOf(limit: Limit, requested: bigint): bigint {
  return takesPart(limit) ? 1n : requested
}

/** As far as it is known: what only waits for holds to end may be free at once, what was spent for ever is not. */
function refusesUntilMs(limit: Limit, account: Account, requested: bigint): number {
  const needed = neededOf(limit, requested)
  const spent = account.slideMs === undefined ? account.spent : 0n
  return freesUnixMs(account, needed) ?? (spent + needed > account.granted ? Number.POSITIVE_INFINITY : 0)
}

/** When the window ends or enough has slid out of it; undefined where only settlements make room. */
export function freesUnixMs(account: Account, requested: bigint): number | undefined {
  return account.slideMs === undefined ? account.windowEndUnixMs : slidesFree(account, requested)
}

/** When enough has slid out of the window; undefined when what is held stands in the way. */
function slidesFree(account: Account, requested: bigint): number | undefined {
  let free = account.granted - account.spent - account.held
  for (const [at, spent] of [...account.buckets].sort(([a], [b]) => a - b)) {
    free += spent
    if (free >= requested && free > 0n) return leavesUnixMs(account, at)
  }
  return undefined
}

/** Takes what was decided out of what is free. */
export function hold(accounts: ReadonlyMap<string, Account>, holds: readonly Hold[]): readonly Line[] {
  return holds.map(({ accountId, amount }) => {
    const account = accountIn(accounts, accountId)
    assert(amount <= account.free, `account ${accountId}: a hold of ${amount} where ${account.free} is free`)
    return change(account, amount, 0n, 0)
  })
}

/** What is still held for each of its holds. */
function heldOf(reservation: Reservation): readonly bigint[] {
  return reservation.holds.map(({ measure, amount }, at) => {
    if (reservation.state !== 'held') return 0n
    if (!reservation.isLease || measure === 'concurrency') return amount
    const left = amount - (reservation.recorded[at] ?? 0n)
    return left > 0n ? left : 0n
  })
}

/** What is booked as spent for each of its holds. What records do not know (the tokens of a stream that was left, the cost of a call
 *  that has no price) is what its client settled, else what was held: a call that was made is not free. */
export function bookedOf({ holds, claimed, recorded, records, isLease, untold }: Reservation): readonly bigint[] {
  return holds.map(({ amount }, at) => {
    const said = claimed?.[at]
    if (records === 0) return said ?? 0n
    const proven = recorded[at] ?? 0n
    const { unknown, part } = untold?.[at] ?? toldAll
    const least = unknown > 0 ? (said ?? amount) : isLease || part > 0 ? (said ?? 0n) : 0n
    return least > proven ? least : proven
  })
}

const toldAll: Untold = { unknown: 0, part: 0 }

/** Changes a reservation, and books the difference that this makes. */
export function changeReservation(
  accounts: ReadonlyMap<string, Account>,
  reservation: Reservation,
  alter: () => void,
): readonly Line[] {
  const [heldBefore, bookedBefore] = [heldOf(reservation), bookedOf(reservation)]
  alter()
  const [heldAfter, bookedAfter] = [heldOf(reservation), bookedOf(reservation)]
  return reservation.holds.map(({ accountId }, at) =>
    change(
      accountIn(accounts, accountId),
      (heldAfter[at] ?? 0n) - (heldBefore[at] ?? 0n),
      (bookedAfter[at] ?? 0n) - (bookedBefore[at] ?? 0n),
      reservation.heldUnixMs,
    ),
  )
}

/** What `amounts` means for each hold; what is not known of it is `unknown`. */
export function spentOf(holds: readonly Hold[], amounts: Amounts, unknown: (at: number) => bigint): readonly bigint[] {
  return holds.map(({ measure }, at) => (measure === 'concurrency' ? 0n : (amountOf(measure, amounts) ?? unknown(at))))
}

/** What a record leaves open for each hold. Those of a lease say what they know: it was granted for many. */
export function untoldOf(
  { holds, isLease }: Pick<Reservation, 'holds' | 'isLease'>,
  amounts: Amounts,
  isLowerBound: boolean,
): readonly Untold[] | undefined {
  if (isLease) return undefined
  const untold = holds.map(({ measure }) => {
    const isUnknown = amountOf(measure, amounts) === undefined
    return { unknown: Number(isUnknown), part: Number(isLowerBound && !isUnknown) }
  })
  return withoutTold(untold)
}

export function addUntold(
  sum: readonly Untold[] | undefined,
  more: readonly Untold[] | undefined,
  sign: 1 | -1,
): readonly Untold[] | undefined {
  if (more === undefined) return sum
  return withoutTold(
    more.map(({ unknown, part }, at) => {
      const before = sum?.[at] ?? toldAll
      return { unknown: before.unknown + sign * unknown, part: before.part + sign * part }
    }),
  )
}

function withoutTold(untold: readonly Untold[]): readonly Untold[] | undefined {
  return untold.some(({ unknown, part }) => unknown + part > 0) ? untold : undefined
}

/** Books what was never held. */
export function bookSpent(
  accounts: ReadonlyMap<string, Account>,
  accountIds: readonly string[],
  spent: readonly bigint[],
  atUnixMs: number,
): readonly Line[] {
  return accountIds.map((id, at) => change(accountIn(accounts, id), 0n, spent[at] ?? 0n, atUnixMs))
}

/** One line per account, without those that change nothing. */
export function mergeLines(lines: readonly Line[]): readonly Line[] {
  const merged = new Map<string, Line>()
  for (const { account, held, spent } of lines) {
    const before = merged.get(account.id) ?? { held: 0n, spent: 0n }
    merged.set(account.id, { account, held: before.held + held, spent: before.spent + spent })
  }
  return [...merged.values()].filter(({ held, spent }) => held !== 0n || spent !== 0n)
}

function change(account: Account, held: bigint, spent: bigint, atUnixMs: number): Line {
  account.held += held
  account.spent += spent
  if (account.slideMs !== undefined && spent !== 0n) {
    const width = account.slideMs / bucketsPerWindow
    const bucket = Math.floor(atUnixMs / width) * width
    account.buckets.set(bucket, (account.buckets.get(bucket) ?? 0n) + spent)
  }
  balance(account)
  return { account, held, spent }
}

/** As `quota_balances` has it, too. */
const bucketsPerWindow = 12

/** When the whole bucket is older than the window, so that no window of this length ever holds more than was granted. */
function leavesUnixMs(account: Account, bucket: number): number {
  const slideMs = account.slideMs ?? 0
  return bucket + slideMs / bucketsPerWindow + slideMs
}

/** Takes out of a sliding window what is older than it. Thresholds that are no longer reached may be told again. */
export function slide(account: Account, nowMs: number): Line | undefined {
  let gone = 0n
  for (const [bucket, spent] of account.buckets) {
    if (leavesUnixMs(account, bucket) > nowMs) continue
    gone += spent
    account.buckets.delete(bucket)
  }
  if (gone === 0n) return undefined
  account.spent -= gone
  balance(account)
  account.thresholdsFired = account.thresholdsFired.filter((percent) => isReached(account, percent))
  return { account, held: 0n, spent: -gone }
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
    (percent) => isReached(account, percent) && !account.thresholdsFired.includes(percent),
  )
  account.thresholdsFired.push(...fired)
  return fired
}

function isReached(account: Account, percent: number): boolean {
  return account.spent * 100n >= account.granted * BigInt(percent)
}
