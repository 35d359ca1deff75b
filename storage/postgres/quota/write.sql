-- Everything that one batch has changed, in one statement. $1 is {accounts, made, ended, bookings, outbox, audit}; see
-- `Changes` in statements.ts. The accounts and reservations are locked by this transaction.
with accounts as (
  update quota_accounts a
  set held = c.held, spent = c.spent, free = c.free, debt = c.debt, thresholds_fired = c.fired
  from jsonb_to_recordset($1::jsonb -> 'accounts')
    as c (id bigint, held bigint, spent bigint, free bigint, debt bigint, fired integer[])
  where a.id = c.id
), made as (
  insert into quota_reservation_rows
    (id, tenant, call_id, body_hash, state, subject, account_ids, amounts, answer, expires_at)
  select m.id, m.tenant, m.call_id, m.body_hash, m.state, m.subject, m.account_ids, m.amounts, m.answer,
         to_timestamp(m.expires_ms / 1000)
  from jsonb_to_recordset($1::jsonb -> 'made')
    as m (id uuid, tenant text, call_id text, body_hash text, state text, subject jsonb, account_ids bigint[],
          amounts bigint[], answer jsonb, expires_ms double precision)
), ended as (
  update quota_reservation_rows r
  set state = e.state, outcome = e.outcome, expires_at = to_timestamp(e.expires_ms / 1000),
      ended_at = case when e.state = 'held' then null else coalesce(r.ended_at, now()) end
  from jsonb_to_recordset($1::jsonb -> 'ended')
    as e (id uuid, state text, outcome jsonb, expires_ms double precision)
  where r.id = e.id
), bookings as (
  insert into quota_bookings (tenant, kind, reservation, event_key, account_ids, granted, held, spent)
  select b.tenant, b.kind, b.reservation, b.event_key, b.account_ids, array_fill(0::bigint, array[cardinality(b.account_ids)]),
         b.held, b.spent
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
