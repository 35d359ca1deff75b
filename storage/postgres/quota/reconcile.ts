// What the reconciler asks of the ledger, and where it writes what it found.
import type pg from 'pg'

type Queryable = Pick<pg.ClientBase, 'query'>

export type SettledRow = { readonly tenant: string; readonly event_key: string; readonly cost_nano_usd: string | null }

/** Null is a call that one side does not have, or has no price for. */
export type DifferenceRow = {
  readonly tenant: string
  readonly event_key: string
  readonly recorded_nano_usd: string | null
  readonly settled_nano_usd: string | null
}

/** The records of calls that ended in this time, as they are booked. Charges are of calls that leave no record. */
export async function selectSettled(
  client: Queryable,
  fromUnixMs: number,
  untilUnixMs: number,
): Promise<readonly SettledRow[]> {
  const { rows } = await client.query<SettledRow>(
    `select tenant, event_key, cost_nano_usd from quota_events
     where ended_at >= to_timestamp($1::float8 / 1000) and ended_at < to_timestamp($2::float8 / 1000)
       and is_metered and event_key like 'span:%'`,
    [fromUnixMs, untilUnixMs],
  )
  return rows
}

/** What the calls of a tenant that ended in a minute add up to. Two stores that have the same calls at the same cost have the same
 *  sums, and others hardly ever: each call counts in the fingerprint with the first four bytes of a hash of both. */
export type MinuteSum = {
  readonly tenant: string
  /** Minutes since 1970. */
  readonly minute: string
  readonly calls: string
  readonly nano_usd: string
  readonly fingerprint: string
}

/** Of the calls that `selectSettled` has. */
export async function selectSettledSums(
  client: Queryable,
  fromUnixMs: number,
  untilUnixMs: number,
): Promise<readonly MinuteSum[]> {
  const { rows } = await client.query<MinuteSum>(
    `select tenant, floor(extract(epoch from ended_at) / 60)::bigint::text as minute, count(*)::text as calls,
       coalesce(sum(cost_nano_usd), 0)::text as nano_usd, sum(('x' || encode(substr(sha256(convert_to(
         concat(event_key, ' ', cost_nano_usd), 'UTF8')), 1, 4), 'hex'))::bit(32)::bigint)::text as fingerprint
     from quota_events
     where ended_at >= to_timestamp($1::float8 / 1000) and ended_at < to_timestamp($2::float8 / 1000)
       and is_metered and event_key like 'span:%'
     group by 1, 2`,
    [fromUnixMs, untilUnixMs],
  )
  return rows
}

export type ReconciledRow = {
  readonly tenant: string
  readonly recorded_calls: number
  readonly recorded_nano_usd: string
  readonly settled_calls: number
  readonly settled_nano_usd: string
}

/** Replaces what was found of the hour before. */
export async function writeReconciled(
  client: Queryable,
  hourUnixMs: number,
  sums: readonly ReconciledRow[],
  differences: readonly DifferenceRow[],
): Promise<void> {
  await client.query(
    `with sums as (
       insert into quota_reconciled_hours
         (hour, tenant, recorded_calls, recorded_nano_usd, settled_calls, settled_nano_usd, at)
       select to_timestamp($1::float8 / 1000), s.*, quota_now()
       from jsonb_to_recordset($2::jsonb) as s (tenant text, recorded_calls bigint, recorded_nano_usd numeric,
         settled_calls bigint, settled_nano_usd numeric)
       on conflict (hour, tenant) do update set recorded_calls = excluded.recorded_calls,
         recorded_nano_usd = excluded.recorded_nano_usd, settled_calls = excluded.settled_calls,
         settled_nano_usd = excluded.settled_nano_usd, at = excluded.at
     ), found as (
       select * from jsonb_to_recordset($3::jsonb)
         as d (tenant text, event_key text, recorded_nano_usd numeric, settled_nano_usd numeric)
     ), gone as (
       delete from quota_differences d where d.hour = to_timestamp($1::float8 / 1000)
         and not exists (select from found f where f.tenant = d.tenant and f.event_key = d.event_key)
     )
     insert into quota_differences (hour, tenant, event_key, recorded_nano_usd, settled_nano_usd, at)
     select to_timestamp($1::float8 / 1000), f.*, quota_now() from found f
     on conflict (hour, tenant, event_key) do update set recorded_nano_usd = excluded.recorded_nano_usd,
       settled_nano_usd = excluded.settled_nano_usd, at = excluded.at`,
    [hourUnixMs, JSON.stringify(sums), JSON.stringify(differences)],
  )
}

/** Of the hours since: how many calls differ, and by how much in all, regardless of sign. */
export async function selectDrift(
  client: Queryable,
  sinceUnixMs: number,
): Promise<{ readonly differences: number; readonly driftNanoUsd: number }> {
  const { rows } = await client.query<{ differences: number; drift: number }>(
    `select count(*)::int as differences,
       coalesce(sum(abs(coalesce(settled_nano_usd, 0) - coalesce(recorded_nano_usd, 0))), 0)::float8 as drift
     from quota_differences where hour >= to_timestamp($1::float8 / 1000)`,
    [sinceUnixMs],
  )
  return { differences: rows[0]?.differences ?? 0, driftNanoUsd: rows[0]?.drift ?? 0 }
}

/** One turn of the continuous check: accounts that changed since the last one, and how many are not the sum of their entries. */
export async function runCheck(client: Queryable): Promise<{ readonly accounts: number; readonly wrong: number }> {
  const { rows } = await client.query<{ accounts: string; wrong: string }>('select * from quota_check()')
  return { accounts: Number(rows[0]?.accounts), wrong: Number(rows[0]?.wrong) }
}

/** What open leases could still spend, per measure. */
export async function selectLeased(
  client: Queryable,
): Promise<readonly { readonly measure: string; readonly unspent: number }[]> {
  const { rows } = await client.query<{ measure: string; unspent: number }>(
    'select measure, sum(unspent)::float8 as unspent from quota_open_leases group by measure',
  )
  return rows
}

/** Forgets the keys of events that are older, and reservations that ended before: a call is some kilobytes of them, and its
 *  bookings, which stay. A stretch at a time, so that no lock is long. */
export async function prune(client: Queryable, keptMs: number): Promise<void> {
  const before = `quota_now() - $1::float8 * interval '1 ms'`
  // Their ids ascend with time, which no other index knows: what settlements change is in none.
  const earliestId = `(lpad(to_hex((extract(epoch from ${before}) * 1000)::bigint), 12, '0') || repeat('0', 20))::uuid`
  await pruneTable(client, keptMs, 'quota_events', `at < ${before}`)
  await pruneTable(client, keptMs, 'quota_reservation_rows', `id < ${earliestId} and ended_at < ${before}`)
}

async function pruneTable(client: Queryable, keptMs: number, table: string, isOver: string): Promise<void> {
  for (;;) {
    const { rowCount } = await client.query(
      `delete from ${table} where ctid = any(array(select ctid from ${table} where ${isOver} limit 10000))`,
      [keptMs],
    )
    if ((rowCount ?? 0) < 10_000) return
  }
}
