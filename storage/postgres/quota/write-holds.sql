-- The holds, ends, accounts and bookings that a batch has changed, in one statement: $1 to $4 are accounts, made, ended and
-- bookings of `Changes` of statements.ts. What it changes is locked by this transaction; what it makes fails when another has
-- made it meanwhile. Each part is json and read once: jsonb was built, sorted by key and taken apart again for the same rows, a
-- quarter more work. What few batches have is written by statements of its own: preparing a table to be written costs more
-- than a row of it.
with accounts as (
  update quota_accounts a
  set held = c.held, spent = c.spent, free = c.free, debt = c.debt, thresholds_fired = c.fired, bucket_at = c.bucket_at,
      bucket_spent = c.bucket_spent
  from json_to_recordset($1::json)
    as c (id bigint, held bigint, spent bigint, free bigint, debt bigint, fired integer[], bucket_at bigint[],
          bucket_spent bigint[])
  where a.id = c.id
), made as (
  insert into quota_reservation_rows
    (id, tenant, call_id, body_hash, state, subject, account_ids, amounts, measures, answer, is_lease, recorded, created_at,
     expires_at)
  select m.id, m.tenant, m.call_id, m.body_hash, m.state, m.subject, m.account_ids, m.amounts, m.measures, m.answer,
         m.is_lease, m.recorded, to_timestamp(m.created_ms / 1000), to_timestamp(m.expires_ms / 1000)
  from json_to_recordset($2::json)
    as m (id uuid, tenant text, call_id text, body_hash text, state text, subject json, account_ids bigint[],
          amounts bigint[], measures text[], answer json, is_lease boolean, recorded bigint[], created_ms double precision,
          expires_ms double precision)
  returning id, expires_at
), ended_rows as materialized (
  select id, state, outcome, claimed, recorded, records, to_timestamp(expires_ms / 1000) as expires_at
  from json_to_recordset($3::json)
    as e (id uuid, state text, outcome json, claimed bigint[], recorded bigint[], records integer,
          expires_ms double precision)
), ended as (
  update quota_reservation_rows r
  set state = e.state, outcome = e.outcome, claimed = e.claimed, recorded = e.recorded, records = e.records,
      expires_at = e.expires_at,
      ended_at = case when e.state = 'held' then null else coalesce(r.ended_at, quota_now()) end
  from ended_rows e
  where r.id = e.id
), closed as (
  -- Read as they were before this statement: where the hold is found. `offset 0` keeps the planner from joining them as it
  -- likes: this table is full now and empty a moment later, and of a plan for the one all of it was read in the other.
  delete from quota_open_holds where ctid in (
    select found.ctid from ended_rows e
    cross join lateral (select r.expires_at from quota_reservation_rows r where r.id = e.id offset 0) was
    cross join lateral (
      select h.ctid from quota_open_holds h where h.expires_at = was.expires_at and h.reservation = e.id offset 0) found
    where e.state <> 'held' or was.expires_at <> e.expires_at)
), opened as (
  insert into quota_open_holds (expires_at, reservation)
  select expires_at, id from made
  union all
  select expires_at, id from ended_rows where state = 'held'
  on conflict do nothing
)
insert into quota_bookings (at, tenant, kind, reservation, event_key, account_ids, granted, held, spent)
select quota_now(), b.tenant, b.kind, b.reservation, b.event_key, b.account_ids,
       array_fill(0::bigint, array[cardinality(b.account_ids)]), b.held, b.spent
from json_to_recordset($4::json)
  as b (tenant text, kind text, reservation uuid, event_key text, account_ids bigint[], held bigint[], spent bigint[])
