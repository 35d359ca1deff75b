-- Everything that one batch has changed, in one statement. $1 is `Changes` of statements.ts. What it changes is locked by this
-- transaction; what it makes fails when another has made it meanwhile.
with accounts as (
  update quota_accounts a
  set held = c.held, spent = c.spent, free = c.free, debt = c.debt, thresholds_fired = c.fired, bucket_at = c.bucket_at,
      bucket_spent = c.bucket_spent
  from jsonb_to_recordset($1::jsonb -> 'accounts')
    as c (id bigint, held bigint, spent bigint, free bigint, debt bigint, fired integer[], bucket_at bigint[],
          bucket_spent bigint[])
  where a.id = c.id
), made as (
  insert into quota_reservation_rows
    (id, tenant, call_id, body_hash, state, subject, account_ids, amounts, measures, answer, is_lease, recorded, created_at,
     expires_at)
  select m.id, m.tenant, m.call_id, m.body_hash, m.state, m.subject::json, m.account_ids, m.amounts, m.measures, m.answer::json,
         m.is_lease, m.recorded, to_timestamp(m.created_ms / 1000), to_timestamp(m.expires_ms / 1000)
  from jsonb_to_recordset($1::jsonb -> 'made')
    as m (id uuid, tenant text, call_id text, body_hash text, state text, subject text, account_ids bigint[],
          amounts bigint[], measures text[], answer text, is_lease boolean, recorded bigint[], created_ms double precision,
          expires_ms double precision)
  returning id, expires_at
), ended as (
  update quota_reservation_rows r
  set state = e.state, outcome = e.outcome::json, claimed = e.claimed, recorded = e.recorded, records = e.records,
      expires_at = to_timestamp(e.expires_ms / 1000),
      ended_at = case when e.state = 'held' then null else coalesce(r.ended_at, quota_now()) end
  from jsonb_to_recordset($1::jsonb -> 'ended')
    as e (id uuid, state text, outcome text, claimed bigint[], recorded bigint[], records integer,
          expires_ms double precision)
  where r.id = e.id
), closed as (
  -- Read as they were before this statement: where the hold is found.
  delete from quota_open_holds h
  using jsonb_to_recordset($1::jsonb -> 'ended') as e (id uuid, state text, expires_ms double precision)
    join quota_reservation_rows r on r.id = e.id
  where h.expires_at = r.expires_at and h.reservation = r.id
    and (e.state <> 'held' or r.expires_at <> to_timestamp(e.expires_ms / 1000))
), opened as (
  insert into quota_open_holds (expires_at, reservation)
  select expires_at, id from made
  union all
  select to_timestamp(e.expires_ms / 1000), e.id
  from jsonb_to_recordset($1::jsonb -> 'ended') as e (id uuid, state text, expires_ms double precision)
  where e.state = 'held'
  on conflict do nothing
), event_rows as (
  select * from jsonb_to_recordset($1::jsonb -> 'events')
    as v (is_new boolean, tenant text, event_key text, generation integer, body_hash text, answer text, reservation uuid,
          account_ids bigint[], spent bigint[], cost_nano_usd bigint, is_metered boolean, ended_ms double precision)
), new_events as (
  insert into quota_events
    (tenant, event_key, generation, body_hash, answer, reservation, account_ids, spent, cost_nano_usd, is_metered, ended_at, at)
  select v.tenant, v.event_key, v.generation, v.body_hash, v.answer::json, v.reservation, v.account_ids, v.spent, v.cost_nano_usd,
         v.is_metered, to_timestamp(v.ended_ms / 1000), quota_now()
  from event_rows v where v.is_new order by v.tenant, v.event_key
), next_generations as (
  update quota_events e
  set generation = v.generation, reservation = v.reservation, account_ids = v.account_ids, spent = v.spent,
      cost_nano_usd = v.cost_nano_usd, is_metered = v.is_metered, ended_at = to_timestamp(v.ended_ms / 1000), at = quota_now()
  from event_rows v where not v.is_new and e.tenant = v.tenant and e.event_key = v.event_key
), bookings as (
  insert into quota_bookings (at, tenant, kind, reservation, event_key, account_ids, granted, held, spent)
  select quota_now(), b.tenant, b.kind, b.reservation, b.event_key, b.account_ids,
         array_fill(0::bigint, array[cardinality(b.account_ids)]), b.held, b.spent
  from jsonb_to_recordset($1::jsonb -> 'bookings')
    as b (tenant text, kind text, reservation uuid, event_key text, account_ids bigint[], held bigint[], spent bigint[])
), outbox as (
  insert into quota_outbox (tenant, kind, body)
  select o.tenant, o.kind, o.body from jsonb_to_recordset($1::jsonb -> 'outbox') as o (tenant text, kind text, body jsonb)
)
insert into quota_audit (tenant, actor, action, resource, before, after)
select u.tenant, u.actor, u.action, u.resource, u.before, u.after
from jsonb_to_recordset($1::jsonb -> 'audit')
  as u (tenant text, actor text, action text, resource text, before jsonb, after jsonb)
