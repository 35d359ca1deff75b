-- Events that a batch has booked or booked anew: $1 is the part `events` of `Changes` of statements.ts.
with event_rows as (
  select * from json_to_recordset($1::json)
    as v (is_new boolean, tenant text, event_key text, generation integer, body_hash text, answer json, reservation uuid,
          account_ids bigint[], spent bigint[], cost_nano_usd bigint, is_metered boolean, ended_ms double precision)
), new_events as (
  insert into quota_events
    (tenant, event_key, generation, body_hash, answer, reservation, account_ids, spent, cost_nano_usd, is_metered, ended_at, at)
  select v.tenant, v.event_key, v.generation, v.body_hash, v.answer, v.reservation, v.account_ids, v.spent, v.cost_nano_usd,
         v.is_metered, to_timestamp(v.ended_ms / 1000), quota_now()
  from event_rows v where v.is_new order by v.tenant, v.event_key
)
update quota_events e
set generation = v.generation, answer = v.answer, reservation = v.reservation, account_ids = v.account_ids, spent = v.spent,
    cost_nano_usd = v.cost_nano_usd, is_metered = v.is_metered, ended_at = to_timestamp(v.ended_ms / 1000), at = quota_now()
from event_rows v where not v.is_new and e.tenant = v.tenant and e.event_key = v.event_key
