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
  readonly answer: unknown
  readonly outcome: unknown
  readonly expires_ms: number
}

export type AccountRow = {
  readonly id: string
  readonly tenant: string
  readonly limit_id: string
  readonly subject: string
  readonly window_end: Date | null
  /** Which of the wanted accounts this is, counted from 1. */
  readonly wanted: readonly number[]
  readonly granted: string
  readonly held: string
  readonly spent: string
  readonly free: string
  readonly debt: string
  readonly thresholds_fired: readonly number[]
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

export type Changes = {
  readonly accounts: readonly {
    readonly id: string
    readonly held: string
    readonly spent: string
    readonly free: string
    readonly debt: string
    readonly fired: readonly number[]
  }[]
  readonly made: readonly {
    readonly id: string
    readonly tenant: string
    readonly call_id: string
    readonly body_hash: string
    readonly state: string
    readonly subject: object
    readonly account_ids: readonly string[]
    readonly amounts: readonly string[]
    readonly measures: readonly string[]
    readonly answer: object
    readonly expires_ms: number
  }[]
  readonly ended: readonly {
    readonly id: string
    readonly state: string
    readonly outcome: object | null
    readonly expires_ms: number
  }[]
  readonly bookings: readonly {
    readonly tenant: string
    readonly kind: string
    readonly reservation: string | null
    readonly event_key: string | null
    readonly account_ids: readonly string[]
    readonly held: readonly string[]
    readonly spent: readonly string[]
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

const writeStatement = readFileSync(new URL('./write.sql', import.meta.url), 'utf8')

const reservationColumns = `r.id, r.tenant, r.call_id, r.body_hash, r.state, r.subject, r.account_ids, r.amounts, r.measures,
  r.answer, r.outcome, (extract(epoch from r.expires_at) * 1000)::float8 as expires_ms`

/** The moment of the transaction, the version of the rules, and the reservations, locked in the order of their ids. */
export async function lockReservations(
  client: Queryable,
  wanted: { readonly tenants: readonly string[]; readonly callIds: readonly string[]; readonly ids: readonly string[] },
): Promise<{ readonly nowMs: number; readonly version: string; readonly rows: readonly ReservationRow[] }> {
  const { rows } = await client.query<ReservationRow & { now_ms: number; version: string }>({
    name: 'quota-lock-reservations',
    text: `select (extract(epoch from now()) * 1000)::float8 as now_ms, changes.version::text as version, locked.*
      from quota_rule_changes changes left join lateral (
        select ${reservationColumns} from quota_reservation_rows r
        where r.id in (
          select unnest($3::uuid[])
          union select known.id from unnest($1::text[], $2::text[]) as asked (tenant, call_id)
            join quota_reservation_rows known on known.tenant = asked.tenant and known.call_id = asked.call_id)
        order by r.id for update of r) locked on true`,
    values: [wanted.tenants, wanted.callIds, wanted.ids],
  })
  const [first] = rows
  if (first === undefined) throw new Error('quota_rule_changes has lost its row')
  return { nowMs: first.now_ms, version: first.version, rows: rows.filter((row) => row.id !== null) }
}

/** Holds whose time is over, which nobody else has locked. */
export async function lockExpired(client: Queryable, rowsMax: number): Promise<readonly ReservationRow[]> {
  const { rows } = await client.query<ReservationRow>(
    `select ${reservationColumns} from quota_reservation_rows r
     where r.state = 'held' and r.expires_at <= now() order by r.id limit $1 for update of r skip locked`,
    [rowsMax],
  )
  return rows
}

export async function lockAccounts(
  client: Queryable,
  wanted: readonly {
    readonly tenant: string
    readonly limitId: string
    readonly subject: string
    readonly at: Date | null
  }[],
  ids: readonly string[],
): Promise<readonly AccountRow[]> {
  const { rows } = await client.query<AccountRow>({
    name: 'quota-lock-accounts',
    text: 'select * from quota_lock_accounts($1, $2, $3, $4, $5)',
    values: [
      wanted.map((each) => each.tenant),
      wanted.map((each) => each.limitId),
      wanted.map((each) => each.subject),
      wanted.map((each) => each.at),
      ids,
    ],
  })
  return rows
}

export async function findEventKeys(
  client: Queryable,
  keys: readonly { readonly tenant: string; readonly eventKey: string }[],
): Promise<ReadonlySet<string>> {
  const { rows } = await client.query<{ tenant: string; event_key: string }>(
    'select tenant, event_key from quota_bookings where (tenant, event_key) in (select * from unnest($1::text[], $2::text[]))',
    [keys.map((key) => key.tenant), keys.map((key) => key.eventKey)],
  )
  return new Set(rows.map((row) => `${row.tenant}\n${row.event_key}`))
}

export async function writeChanges(client: Queryable, changes: Changes): Promise<void> {
  await client.query({ name: 'quota-write', text: writeStatement, values: [JSON.stringify(changes)] })
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

/** Makes the rule, or changes it and what its open windows grant. A limit below what is spent already is a debt. */
export async function putRule(client: Queryable, rule: RuleRow): Promise<{ readonly overspent: boolean }> {
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
  const { rows } = await client.query<{ debt: string }>(
    `with open as (
       select id, granted as before from quota_accounts
       where tenant = $1 and limit_id = $2 and (window_end is null or window_end > now()) and granted <> $3
       order by id for update
     ), booked as (
       insert into quota_bookings (tenant, kind, account_ids, granted, held, spent)
       select $1, 'grant', array[id], array[$3 - before], array[0], array[0] from open
     )
     update quota_accounts a
     set granted = $3, free = greatest($3 - a.spent - a.held, 0), debt = greatest(a.spent + a.held - $3, 0)
     from open where a.id = open.id
     returning a.debt`,
    [rule.tenant, rule.id, rule.amount],
  )
  return { overspent: rows.some((row) => row.debt !== '0') }
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

/** Accounts of the windows that are open now. */
export async function selectBalances(
  client: Queryable,
  filter: { readonly tenant: string; readonly limitId: string | null; readonly subject: string | null },
): Promise<readonly BalanceRow[]> {
  const { rows } = await client.query<BalanceRow>(
    `select limit_id, subject, measure, window_start, window_end, granted, held, spent, free, debt from quota_balances
     where tenant = $1 and ($2::text is null or limit_id = $2) and ($3::text is null or subject = $3)
       and (window_end is null or window_end > now())
     order by limit_id, subject limit 1000`,
    [filter.tenant, filter.limitId, filter.subject],
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

/** The oldest events that nobody has told yet, and nobody else is telling. */
export async function lockOutbox(client: Queryable, rowsMax: number): Promise<readonly OutboxRow[]> {
  const { rows } = await client.query<OutboxRow>(
    `select id, tenant, kind, body, created_at from quota_outbox where delivered_at is null
     order by created_at, id limit $1 for update skip locked`,
    [rowsMax],
  )
  return rows
}

export async function markOutbox(client: Queryable, id: string, isDelivered: boolean): Promise<void> {
  await client.query(
    'update quota_outbox set attempts = attempts + 1, delivered_at = case when $2 then now() end where id = $1',
    [id, isDelivered],
  )
}
