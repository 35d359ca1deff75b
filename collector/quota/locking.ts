// What a batch of steps needs, locked in one trip: the accounts first, then the reservations as they are by then. Another
// collector that is asked for the same call wants the same accounts, so what it grants is seen here, and not taken for
// somebody else's who left no room.
//
// The numbers of accounts are remembered: to find one by its number costs Postgres a third of what its names and window cost.
// Whether it is still the right one is looked at when it is locked, for windows end, erasures rename, and another Postgres may
// have taken over. If one is not, all are locked by their names.
import assert from 'node:assert/strict'
import {
  type LockedReservations,
  lockAccounts,
  lockReservations,
  type WantedAccount,
} from '@tallylight/storage/postgres/quota/statements.ts'
import type pg from 'pg'
import type { Account, MatchedAccount, Reservation } from './books.ts'
import type { Limits, Match } from './limits.ts'
import { accountOfRow } from './rows.ts'
import type { Step } from './step.ts'

export type Locked = LockedReservations & {
  readonly kind: 'locked'
  readonly accounts: ReadonlyMap<string, Account>
  /** Those that each step's limits count in. */
  readonly matched: readonly (readonly MatchedAccount[])[]
}

/** Accounts that are not there yet. They are made by a transaction that holds no others: it waits for whoever changes their
 *  rules, who waits for accounts. */
export type MissingAccounts = { readonly kind: 'missing'; readonly wanted: readonly WantedAccount[] }

/** What is locked beside the accounts of the steps' limits. */
export type AlsoLocked = {
  /** Accounts. */
  readonly numbers: readonly string[]
  readonly reservations: readonly string[]
  /** Reservations by their calls. Of those that are only told again no account is touched. */
  readonly told: readonly Call[]
  readonly settled: readonly Call[]
}
type Call = { readonly tenant: string; readonly callId: string }

export type Locking = {
  lock(
    client: pg.PoolClient,
    limits: Limits,
    steps: readonly Step[],
    also: AlsoLocked,
  ): Promise<Locked | MissingAccounts>
  /** Whoever ends a reservation needs its accounts. */
  note(changes: { readonly made: Iterable<Reservation>; readonly changed: Iterable<Reservation> }): void
  /** After a change of the rules, and when somebody's name is to be forgotten. */
  forget(): void
}

/** Of accounts and of open reservations; 100 to 200 bytes each. */
const rememberedMax = 100_000

type Asked = {
  readonly wanted: ReadonlyMap<string, WantedAccount>
  readonly ofSteps: readonly (readonly AskedMatch[])[]
}
type AskedMatch = Match & { readonly key: string }

export function openLocking(): Locking {
  const numbers = new Map<string, string>()
  const numbersOfHolds = new Map<string, readonly string[]>()

  async function lock(
    client: pg.PoolClient,
    limits: Limits,
    steps: readonly Step[],
    also: AlsoLocked,
  ): Promise<Locked | MissingAccounts> {
    const asked = askedBy(limits, steps)
    const locked = await tryLock(client, asked, also)
    if (locked !== undefined) return locked
    forget()
    const again = await tryLock(client, asked, also)
    assert(again !== undefined, 'with nothing remembered, nothing remembered was wrong')
    return again
  }

  /** Undefined when what is remembered was wrong. */
  async function tryLock(
    client: pg.PoolClient,
    asked: Asked,
    also: AlsoLocked,
  ): Promise<Locked | MissingAccounts | undefined> {
    const known = new Map<string, string>()
    const unknown = new Map<string, WantedAccount>()
    for (const [key, wanted] of asked.wanted) {
      const number = numbers.get(key)
      if (number === undefined) unknown.set(key, wanted)
      else known.set(key, number)
    }
    const ofHolds = also.reservations.flatMap((id) => numbersOfHolds.get(id) ?? [])
    const unknownHolds = also.reservations.filter((id) => !numbersOfHolds.has(id))
    const byCalls = { ...namedBy([...also.told, ...also.settled]), ids: also.reservations }
    const locking = lockAccounts(
      client,
      [...unknown.values()],
      [...new Set([...also.numbers, ...known.values(), ...ofHolds])],
      { ...namedBy(also.settled), ids: unknownHolds },
    )
    const reserving = lockReservations(client, byCalls)
    reserving.catch(() => undefined)
    const locked = await locking
    const found = await reserving
    const rows = new Map(locked.rows.map((row) => [row.id, row]))
    for (const [key, number] of known) {
      const wanted = asked.wanted.get(key)
      const row = rows.get(number)
      const isOfNames = row?.tenant === wanted?.tenant && row?.limit_id === wanted?.limitId
      if (!isOfNames || row?.subject !== wanted?.subject || row?.is_open !== true) return undefined
    }
    const missing: WantedAccount[] = []
    for (const [place, [key, wanted]] of [...unknown].entries()) {
      const number = locked.wanted[place] ?? undefined
      if (number === undefined) {
        missing.push(wanted)
        continue
      }
      known.set(key, number)
      if (wanted.at === null) remember(numbers, key, number)
    }
    if (missing.length > 0) return { kind: 'missing', wanted: missing }
    const accounts = new Map(locked.rows.map((row) => [row.id, accountOfRow(row)]))
    const matched = asked.ofSteps.map((matches) =>
      matches.map(({ limit, subject, key }) => {
        const account = accounts.get(known.get(key) ?? '')
        assert(account !== undefined, `limit ${limit.id} of ${limit.tenant} got no account`)
        return { limit, subject, account }
      }),
    )
    return { kind: 'locked', accounts, matched, ...found }
  }

  function note({ made, changed }: Parameters<Locking['note']>[0]): void {
    for (const { id, holds } of made) {
      remember(
        numbersOfHolds,
        id,
        holds.map((each) => each.accountId),
      )
    }
    for (const { id, state } of changed) if (state !== 'held') numbersOfHolds.delete(id)
  }

  function forget(): void {
    numbers.clear()
    numbersOfHolds.clear()
  }

  return { lock, note, forget }
}

/** Many calls of a batch share their accounts: each is asked for once. */
function askedBy(limits: Limits, steps: readonly Step[]): Asked {
  const wanted = new Map<string, WantedAccount>()
  const ofSteps = steps.map((step) => {
    // Of what turned out to be metered by another record nothing counts, and nobody knows when it ended.
    if (!('subject' in step) || (step.kind === 'record' && !step.isMetered)) return []
    const { tenant } = step
    const at = (step.kind === 'charge' || step.kind === 'record' ? step.endedAt : undefined) ?? null
    return limits.match(tenant, step.subject).map(({ limit, subject }) => {
      const key = `${tenant}\n${limit.id}\n${subject}\n${at?.getTime() ?? ''}`
      if (!wanted.has(key)) wanted.set(key, { tenant, limitId: limit.id, subject, at })
      return { limit, subject, key }
    })
  })
  return { wanted, ofSteps }
}

function namedBy(calls: readonly Call[]): { readonly tenants: readonly string[]; readonly callIds: readonly string[] } {
  return { tenants: calls.map((call) => call.tenant), callIds: calls.map((call) => call.callId) }
}

/** The oldest gives way. */
function remember<Value>(map: Map<string, Value>, key: string, value: Value): void {
  const [oldest] = map.size < rememberedMax ? [] : map.keys()
  if (oldest !== undefined) map.delete(oldest)
  map.set(key, value)
}
