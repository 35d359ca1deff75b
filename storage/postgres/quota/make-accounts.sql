-- Makes those of the wanted accounts that are not there, each with a booking of what it grants.
--
-- Whoever changes a rule holds it for update, sees no account that is not committed, and gives those that it sees the new
-- amount. So what a rule grants is read behind a lock that waits for him, and he waits for this transaction in turn; read
-- without one, the account had the old amount for as long as its window lasts.
with ruled as materialized (
  select w.tenant, w.limit_id, w.subject, w.at, rule.amount, rule.span, rule.time_zone
  from unnest($1::text[], $2::text[], $3::text[], $4::timestamptz[]) as w (tenant, limit_id, subject, at)
  join quota_limit_rules rule on rule.tenant = w.tenant and rule.id = w.limit_id
  -- As the limits of the configuration file are changed.
  order by w.tenant collate "C", w.limit_id collate "C"
  for key share of rule
), asked as (
  select distinct ruled.tenant, ruled.limit_id, ruled.subject, ruled.amount, span.starts, span.ends
  from ruled cross join lateral quota_window(ruled.span, ruled.time_zone, least(ruled.at, quota_now())) span
), made as (
  insert into quota_accounts (tenant, limit_id, subject, window_start, window_end, granted, free)
  select asked.tenant, asked.limit_id, asked.subject, asked.starts, asked.ends, asked.amount, asked.amount from asked
  -- In an order that all have, or two who make the same would wait for each other.
  order by asked.tenant, asked.limit_id, asked.subject, asked.starts
  on conflict do nothing
  returning id, tenant, granted
)
insert into quota_bookings (at, tenant, kind, account_ids, granted, held, spent)
select quota_now(), made.tenant, 'grant', array[made.id], array[made.granted], array[0], array[0] from made
