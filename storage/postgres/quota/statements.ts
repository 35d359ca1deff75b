// The statements of the quota ledger. Amounts are whole numbers as text, since a bigint of Postgres is none of JSON's numbers.
import { readFileSync } from 'node:fs'
import type pg from 'pg'

type Queryable = Pick<pg.ClientBase, 'query'>

export type ReservationRow = {
  readonly id: string
  readonly tenant: string
  readonly call_id: string
  readonly body_hash: string
  readonly state: 'held' | 'settled' | 'released' | 'expired'
  readonly subject: Readonly<Record<string, string>>
  readonly account_ids: readonly string[]
  readonly amounts: readonly string[]
  readonly measures: readonly string[]
  /** JSON, read only when it is told again. */
  readonly answer: string
  readonly outcome: unknown
  readonly is_lease: boolean
  readonly claimed: readonly string[] | null
  readonly recorded: readonly string[]
  readonly records: number
  readonly created_ms: number
  readonly expires_ms: number
}

export type EventRow = {
  readonly tenant: string
  readonly event_key: string
  readonly generation: number
  readonly body_hash: string | null
  readonly answer: object | null
  readonly reservation: string | null
  readonly account_ids: readonly string[]
  readonly spent: readonly string[]
  readonly cost_nano_usd: string | null
  readonly is_metered: boolean
  readonly ended_ms: number
  readonly booked_ms: number
}

/** How far a journal's records are booked: the last segment of a lane. */
export type Cursor = {
  readonly journal: string
  readonly lane: string
  readonly segment: number
  readonly createdUnixMs: number
}

export type AccountRow = {
  readonly id: string
  readonly tenant: string
  readonly limit_id: string
  readonly subject: string
  readonly window_end: Date | null
  readonly slide_ms: string | null
  readonly granted: string
  readonly held: string
  readonly spent: string
  readonly free: string
  readonly debt: string
  readonly thresholds_fired: readonly number[]
  readonly bucket_at: readonly string[]
  readonly bucket_spent: readonly string[]
  /** Whether now is in its window. */
  readonly is_open: boolean
}

export type RuleRow = {
  readonly tenant: string
  readonly id: string
  readonly subject: Readonly<Record<string, string>>
  readonly each: string
  readonly measure: string
  readonly amount: string
  readonly window: string
  readonly time_zone: string
  readonly action: string
  readonly thresholds: readonly number[]
  readonly overage: string
  readonly source: string
}

/** What a batch writes. Arrays are text in it, as Postgres spells them. */
export type Changes = {
  readonly accounts: readonly {
    readonly id: string
    readonly held: string
    readonly spent: string
    readonly free: string
    readonly debt: string
    readonly fired: string
    readonly bucket_at: string
    readonly bucket_spent: string
  }[]
  readonly made: readonly {
    readonly id: string
    readonly tenant: string
    readonly call_id: string
    readonly body_hash: string
    readonly state: string
    readonly subject: object
    readonly account_ids: string
    readonly amounts: string
    readonly measures: string
    readonly answer: object
    readonly is_lease: boolean
    readonly recorded: string
    readonly created_ms: number
    readonly expires_ms: number
  }[]
  readonly ended: readonly {
    readonly id: string
    readonly state: string
    readonly outcome: object | null
    readonly claimed: string | null
    readonly recorded: string
    readonly records: number
    readonly expires_ms: number
  }[]
  readonly events: readonly (Omit<EventRow, 'account_ids' | 'spent' | 'booked_ms'> & {
    readonly is_new: boolean
    readonly account_ids: string
    readonly spent: string
  })[]
  readonly bookings: readonly {
    readonly tenant: string
    readonly kind: string
    readonly reservation: string | null
    readonly event_key: string | null
    readonly account_ids: string
    readonly held: string
    readonly spent: string
  }[]
  readonly outbox: readonly { readonly tenant: string; readonly kind: string; readonly body: object }[]
  readonly audit: readonly {
    readonly tenant: string
    readonly actor: string
    readonly action: string
    readonly resource: string
    readonly before: object | null
    readonly after: object | null
  }[]
}

const writeStatements = {
  holds: readFileSync(new URL('./write-holds.sql', import.meta.url), 'utf8'),
  events: readFileSync(new URL('./write-events.sql', import.meta.url), 'utf8'),
  thresholds: readFileSync(new URL('./write-thresholds.sql', import.meta.url), 'utf8'),
}

const reservationColumns = `r.id, r.tenant, r.call_id, r.body_hash, r.state, r.subject, r.account_ids, r.amounts, r.measures,
  r.answer::text as answer, r.outcome, r.is_lease, r.claimed, r.recorded, r.records,
  (extract(epoch from r.created_at) * 1000)::float8 as created_ms, (extract(epoch from r.expires_at) * 1000)::float8 as expires_ms`
const nowMs = 'floor(extract(epoch from quota_now()) * 1000)::float8 as now_ms'

/** Reservations by their calls, of which each has a tenant, and by their ids. */
export type NamedReservations = {
  readonly tenants: readonly string[]
  readonly callIds: readonly string[]
  readonly ids: readonly string[]
}

export type LockedReservations = {
  readonly nowMs: number
  readonly version: string
  readonly rows: readonly ReservationRow[]
}

/** The moment of the transaction, the version of the rules, and the reservations, locked in the order of their ids. */
export async function lockReservations(client: Queryable, wanted: NamedReservations): Promise<LockedReservations> {
  const { rows } = await client.query<ReservationRow & { now_ms: number; version: string }>({
    name: 'quota-lock-reservations',
    text: `select ${nowMs}, changes.version::text as version, locked.*
      from quota_rule_changes changes left join lateral (
        select ${reservationColumns} from quota_reservation_rows r
        where r.id = any (array(
          select unnest($3::uuid[])
          union select known.id from unnest($1::text[], $2::text[]) as asked (tenant, call_id)
            join quota_reservation_rows known on known.tenant = asked.tenant and known.call_id = asked.call_id))
        order by r.id for update of r) locked on true`,
    values: [wanted.tenants, wanted.callIds, wanted.ids],
  })
  const [first] = rows
  if (first === undefined) throw new Error('quota_rule_changes has lost its row')
  return { nowMs: first.now_ms, version: first.version, rows: rows.filter((row) => row.id !== null) }
}

/** Holds whose time is over, by when it was. Not locked: that is done behind their accounts, as everywhere. */
export async function selectExpired(client: Queryable, rowsMax: number): Promise<readonly string[]> {
  const { rows } = await client.query<{ reservation: string }>(
    'select reservation from quota_open_holds where expires_at <= quota_now() order by expires_at limit $1',
    [rowsMax],
  )
  return rows.map(({ reservation }) => reservation)
}

export type WantedAccount = {
  readonly tenant: string
  readonly limitId: string
  readonly subject: string
  /** The moment whose window it is; null is now. */
  readonly at: Date | null
}

const lockAccountsStatement = readFileSync(new URL('./lock-accounts.sql', import.meta.url), 'utf8')
const lockNumberedAccountsStatement = readFileSync(new URL('./lock-numbered-accounts.sql', import.meta.url), 'utf8')
const makeAccountsStatement = readFileSync(new URL('./make-accounts.sql', import.meta.url), 'utf8')

/** What was locked, and the numbers of the wanted accounts in the order in which they were wanted; null where there is none. */
export type LockedAccounts = { readonly rows: readonly AccountRow[]; readonly wanted: readonly (string | null)[] }

/** Locks the accounts of limits and subjects, and others by their numbers or of reservations, all in the order of their
 *  numbers, so that two transactions hardly ever wait for each other. Where all are known by their numbers, that is a third of
 *  the work. */
export async function lockAccounts(
  client: Queryable,
  wanted: readonly WantedAccount[],
  numbers: readonly string[],
  reservations: NamedReservations,
): Promise<LockedAccounts> {
  const { ids, tenants, callIds } = reservations
  if (wanted.length + ids.length + callIds.length === 0) {
    const { rows } = await client.query<AccountRow>({
      name: 'quota-lock-numbered-accounts',
      text: lockNumberedAccountsStatement,
      values: [numbers],
    })
    return { rows, wanted: [] }
  }
  const { rows } = await client.query<AccountRow | WantedRow>({
    name: 'quota-lock-accounts',
    text: lockAccountsStatement,
    values: [...columnsOf(wanted), numbers, ids, tenants, callIds],
  })
  return {
    rows: rows.flatMap((row) => (row.id === null ? [] : row)),
    wanted: rows.flatMap((row) => (row.id === null ? (row.wanted ?? []) : [])),
  }
}

/** In a transaction of its own, which waits for whoever changes the rules of these accounts. He waits for accounts in turn, so
 *  whoever holds some must not be here. It need not be durable by itself: what is booked to the accounts is written behind it. */
export async function makeAccounts(client: Queryable, wanted: readonly WantedAccount[]): Promise<void> {
  const sent = [
    client.query('begin; set local synchronous_commit = off'),
    client.query({ name: 'quota-make-accounts', text: makeAccountsStatement, values: columnsOf(wanted) }),
    // Behind a statement that failed, that is a rollback.
    client.query('commit'),
  ]
  for (const done of await Promise.allSettled(sent)) if (done.status === 'rejected') throw done.reason
}

function columnsOf(wanted: readonly WantedAccount[]): unknown[][] {
  return [
    wanted.map((each) => each.tenant),
    wanted.map((each) => each.limitId),
    wanted.map((each) => each.subject),
    wanted.map((each) => each.at),
  ]
}
type WantedRow = { readonly id: null; readonly wanted: readonly (string | null)[] | null }

/** What is booked of these events already. */
export async function lockEvents(
  client: Queryable,
  keys: readonly { readonly tenant: string; readonly eventKey: string }[],
): Promise<readonly EventRow[]> {
  const { rows } = await client.query<EventRow>({
    name: 'quota-lock-events',
    text: `select e.tenant, e.event_key, e.generation, e.body_hash, e.answer, e.reservation, e.account_ids, e.spent,
        e.cost_nano_usd, e.is_metered, (extract(epoch from e.ended_at) * 1000)::float8 as ended_ms,
        (extract(epoch from least(e.ended_at, e.at)) * 1000)::float8 as booked_ms
      from quota_events e join unnest($1::text[], $2::text[]) as asked (tenant, event_key)
        on asked.tenant = e.tenant and asked.event_key = e.event_key
      order by e.tenant, e.event_key for update of e`,
    values: [keys.map((key) => key.tenant), keys.map((key) => key.eventKey)],
  })
  return rows
}

/** Whether the segment is booked. Locks the cursor, so that two collectors with copies of one journal take turns. */
export async function isBooked(client: Queryable, { journal, lane, segment, createdUnixMs }: Cursor): Promise<boolean> {
  const { rows } = await client.query<{ segment: string; created_ms: number }>(
    `select segment, (extract(epoch from created_at) * 1000)::float8 as created_ms
     from quota_cursors where journal = $1 and lane = $2 for update`,
    [journal, lane],
  )
  const [cursor] = rows
  // In a volume that was restored numbers begin again where the copy was made, and times do not.
  return cursor !== undefined && segment <= Number(cursor.segment) && createdUnixMs <= cursor.created_ms
}

export async function moveCursor(client: Queryable, { journal, lane, segment, createdUnixMs }: Cursor): Promise<void> {
  await client.query(
    `insert into quota_cursors (journal, lane, segment, created_at, at)
     values ($1, $2, $3, to_timestamp($4::float8 / 1000), quota_now())
     on conflict (journal, lane) do update set segment = excluded.segment, created_at = excluded.created_at, at = excluded.at`,
    [journal, lane, segment, createdUnixMs],
  )
}

export async function refuseEvent(
  client: Queryable,
  event: { readonly tenant: string; readonly eventKey: string; readonly segment: string; readonly reason: string },
): Promise<void> {
  await client.query(
    `insert into quota_refused_events (tenant, event_key, segment, reason, at) values ($1, $2, $3, $4, quota_now())
     on conflict (tenant, event_key) do update set segment = excluded.segment, reason = excluded.reason, at = excluded.at`,
    [event.tenant, event.eventKey, event.segment, event.reason],
  )
}

/** Sent at once; the first that fails fails the transaction. */
export function writeChanges(client: Queryable, changes: Changes): readonly Promise<unknown>[] {
  const { accounts, made, ended, events, bookings } = changes
  return [
    ...write(client, 'holds', [accounts, made, ended, bookings]),
    ...write(client, 'events', [events]),
    ...writeThresholds(client, changes),
  ]
}

export function writeThresholds(
  client: Queryable,
  { outbox, audit }: Pick<Changes, 'outbox' | 'audit'>,
): readonly Promise<unknown>[] {
  return write(client, 'thresholds', [outbox, audit])
}

function write(
  client: Queryable,
  name: keyof typeof writeStatements,
  parts: readonly (readonly object[])[],
): readonly Promise<unknown>[] {
  if (parts.every((part) => part.length === 0)) return []
  const values = parts.map((part) => JSON.stringify(part))
  return [client.query({ name: `quota-write-${name}`, text: writeStatements[name], values })]
}

export async function selectRules(
  client: Queryable,
): Promise<{ readonly version: string; readonly rows: readonly RuleRow[] }> {
  const versions = await client.query<{ version: string }>('select version::text as version from quota_rule_changes')
  const { rows } = await client.query<RuleRow>('select * from quota_limits order by tenant, id')
  return { version: versions.rows[0]?.version ?? '', rows }
}

/** The rule of this id, also one that was removed: its accounts still stand. */
export async function selectRule(
  client: Queryable,
  tenant: string,
  id: string,
): Promise<(RuleRow & { readonly is_removed: boolean }) | undefined> {
  const { rows } = await client.query<RuleRow & { readonly is_removed: boolean }>(
    `select tenant, id, subject, each, measure, amount, span as "window", time_zone, action, thresholds, overage, source,
       removed_at is not null as is_removed
     from quota_limit_rules where tenant = $1 and id = $2 for update`,
    [tenant, id],
  )
  return rows[0]
}

/** Not inside of a transaction, which a name that is none would end. */
export async function knowsTimeZone(client: Queryable, name: string): Promise<boolean> {
  try {
    await client.query('select now() at time zone $1::text', [name])
    return true
  } catch (error) {
    if ((error as { readonly code?: unknown }).code === '22023') return false
    throw error
  }
}

/** An account that a smaller amount has put past these thresholds. */
export type PassedRow = {
  readonly subject: string
  readonly spent: string
  readonly window_end: Date | null
  readonly percents: readonly number[]
}

/** Makes the rule, or changes it and what the first accounts of its open windows grant. */
export async function putRule(client: Queryable, rule: RuleRow): Promise<Regranted> {
  await client.query('insert into tenants (id) values ($1) on conflict do nothing', [rule.tenant])
  await client.query(
    `insert into quota_limit_rules
       (tenant, id, subject, each, measure, amount, span, time_zone, action, thresholds, overage, source)
     values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
     on conflict (tenant, id) do update set
       subject = excluded.subject, each = excluded.each, amount = excluded.amount, action = excluded.action,
       thresholds = excluded.thresholds, overage = excluded.overage, source = excluded.source, removed_at = null`,
    [
      rule.tenant,
      rule.id,
      rule.subject,
      rule.each,
      rule.measure,
      rule.amount,
      rule.window,
      rule.time_zone,
      rule.action,
      rule.thresholds,
      rule.overage,
      rule.source,
    ],
  )
  return regrant(client, rule, '0')
}

export type Regranted = {
  readonly passed: readonly PassedRow[]
  /** The last of this stretch of accounts, where there may be more. */
  readonly until: string | undefined
}

/** Calls of these accounts wait as long for a change of their limit: 35 µs each. */
const regrantedMax = 5_000

/** Gives the accounts behind this one what their rule grants, as far as they have something else: a stretch of them, in the order of
 *  their numbers. A limit below what is spent already is a debt. */
export async function regrant(client: Queryable, rule: RuleRow, after: string): Promise<Regranted> {
  // What a window that slides has spent is known when its next call is booked: what is here may have left it. Of nothing there
  // is no percent.
  const isTold = rule.window !== 'minute' && rule.window !== 'hour' && rule.amount !== '0'
  const { rows } = await client.query<{ count: number; until: string | null; passed: readonly PassedJson[] }>(
    `with open as materialized (
       select id, granted as before, thresholds_fired as fired from quota_accounts
       where tenant = $1 and limit_id = $2 and (window_end is null or window_end > quota_now()) and granted <> $3 and id > $5
       order by id limit $6 for update
     ), booked as (
       insert into quota_bookings (at, tenant, kind, account_ids, granted, held, spent)
       select quota_now(), $1, 'grant', array[id], array[$3 - before], array[0], array[0] from open
     ), changed as (
       update quota_accounts a
       set granted = $3, free = greatest($3 - a.spent - a.held, 0), debt = greatest(a.spent + a.held - $3, 0),
           thresholds_fired = array(
             select distinct percent from unnest(a.thresholds_fired || $4::integer[]) percent
             where a.spent::numeric * 100 >= $3::numeric * percent)
       from open where a.id = open.id
       returning a.subject, a.spent::text, a.window_end, a.thresholds_fired, open.fired
     ), passed as (
       select subject, spent, window_end,
              array(select unnest(thresholds_fired) except select unnest(fired) order by 1) as percents
       from changed
     )
     select count(*)::int as count, max(id)::text as until,
            (select coalesce(json_agg(passed), '[]') from passed where percents <> '{}') as passed
     from open`,
    [rule.tenant, rule.id, rule.amount, isTold ? rule.thresholds : [], after, regrantedMax],
  )
  const { count = 0, until, passed = [] } = rows[0] ?? {}
  return {
    passed: passed.map((row) => ({ ...row, window_end: row.window_end === null ? null : new Date(row.window_end) })),
    until: count < regrantedMax ? undefined : (until ?? undefined),
  }
}
type PassedJson = Omit<PassedRow, 'window_end'> & { readonly window_end: string | null }

/** Limits of which a change was cut short: some accounts of open windows have what it granted before. Reads all accounts. */
export async function selectHalfChanged(
  client: Queryable,
): Promise<readonly { readonly tenant: string; readonly id: string }[]> {
  const { rows } = await client.query<{ tenant: string; id: string }>(
    `select distinct r.tenant, r.id from quota_limit_rules r join quota_accounts a on a.tenant = r.tenant and a.limit_id = r.id
     where a.granted <> r.amount and (a.window_end is null or a.window_end > quota_now())`,
  )
  return rows
}

/** As it is shown: what an account of a sliding window still has may have left it. */
export async function isOverspent(client: Queryable, tenant: string, id: string): Promise<boolean> {
  const { rows } = await client.query(
    `select from quota_accounts a join quota_balances b using (tenant, limit_id, subject, window_start)
     where a.tenant = $1 and a.limit_id = $2 and a.debt > 0 and b.debt > 0
       and (a.window_end is null or a.window_end > quota_now())
     limit 1`,
    [tenant, id],
  )
  return rows.length > 0
}

export async function removeRule(client: Queryable, tenant: string, id: string): Promise<boolean> {
  const { rowCount } = await client.query(
    'update quota_limit_rules set removed_at = now() where tenant = $1 and id = $2 and removed_at is null',
    [tenant, id],
  )
  return rowCount === 1
}

export async function writeAudit(client: Queryable, entry: Changes['audit'][number]): Promise<void> {
  await client.query(
    'insert into quota_audit (tenant, actor, action, resource, before, after) values ($1, $2, $3, $4, $5, $6)',
    [entry.tenant, entry.actor, entry.action, entry.resource, entry.before, entry.after],
  )
}

export type BalanceRow = {
  readonly limit_id: string
  readonly subject: string
  readonly measure: string
  readonly window_start: Date | number
  readonly window_end: Date | null
  readonly granted: string
  readonly held: string
  readonly spent: string
  readonly free: string
  readonly debt: string
}

const balanceColumns = 'limit_id, subject, measure, window_start, window_end, granted, held, spent, free, debt'
const isOpen = '(window_end is null or window_end > quota_now())'

/** Accounts of the windows that are open now. */
export async function selectBalances(
  client: Queryable,
  filter: { readonly tenant: string; readonly limitId: string | undefined; readonly account: string | undefined },
  rowsMax: number,
): Promise<readonly BalanceRow[]> {
  const { rows } = await client.query<BalanceRow>(
    `select ${balanceColumns} from quota_balances
     where tenant = $1 and ($2::text is null or limit_id = $2) and ($3::text is null or subject = $3) and ${isOpen}
     order by limit_id, subject limit $4`,
    [filter.tenant, filter.limitId, filter.account, rowsMax],
  )
  return rows
}

/** Of those, the accounts that the calls of a user count in and nobody else's: the user's own under a limit for each, and those
 *  of limits for this user. Limit by limit, so that each is found by its key. */
export async function selectBalancesOfUser(
  client: Queryable,
  filter: {
    readonly tenant: string
    readonly limitId: string | undefined
    readonly user: string
    readonly account: string
  },
  rowsMax: number,
): Promise<readonly BalanceRow[]> {
  const { rows } = await client.query<BalanceRow>(
    `select own.* from quota_limit_rules r cross join lateral (
       select ${balanceColumns} from quota_balances b
       where b.tenant = r.tenant and b.limit_id = r.id and r.each = 'user' and b.subject = $4 and ${isOpen}
       union all
       select ${balanceColumns} from quota_balances b
       where b.tenant = r.tenant and b.limit_id = r.id and r.each <> 'user' and r.subject ->> 'user' = $3 and ${isOpen}
     ) own
     where r.tenant = $1 and ($2::text is null or r.id = $2)
     order by own.limit_id, own.subject limit $5`,
    [filter.tenant, filter.limitId, filter.user, filter.account, rowsMax],
  )
  return rows
}

export type OutboxRow = {
  readonly id: string
  readonly tenant: string
  readonly kind: string
  readonly body: object
  readonly created_at: Date
}

/** For the session of this connection, unless another has it. */
export async function lockOutbox(client: Queryable): Promise<boolean> {
  const { rows } = await client.query<{ got: boolean }>(
    `select pg_try_advisory_lock(hashtextextended('tallylight outbox', 0)) as got`,
  )
  return rows[0]?.got === true
}

export async function unlockOutbox(client: Queryable): Promise<void> {
  await client.query(`select pg_advisory_unlock(hashtextextended('tallylight outbox', 0))`)
}

/** The oldest events that nobody has told yet. Those of one transaction have one time: what one call
 *  has passed is told as it was passed. Those that were not taken so often go behind all others, and take turns. */
export async function readOutbox(
  client: Queryable,
  { rowsMax, attemptsMax }: { readonly rowsMax: number; readonly attemptsMax: number },
): Promise<readonly OutboxRow[]> {
  const { rows } = await client.query<OutboxRow>(
    `select id, tenant, kind, body, created_at from quota_outbox where delivered_at is null
     order by greatest(attempts, $2 - 1), created_at, (body ->> 'percent')::integer, id limit $1`,
    [rowsMax, attemptsMax],
  )
  return rows
}

export async function markOutbox(client: Queryable, id: string, isDelivered: boolean): Promise<void> {
  await client.query(
    'update quota_outbox set attempts = attempts + 1, delivered_at = case when $2 then now() end where id = $1',
    [id, isDelivered],
  )
}
