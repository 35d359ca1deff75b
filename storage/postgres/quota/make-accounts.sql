-- Makes those of the wanted accounts that are not there, each with a booking of what it grants.
with asked as (
  select distinct w.tenant, w.limit_id, w.subject, rule.amount, span.starts, span.ends
  from unnest($1::text[], $2::text[], $3::text[], $4::timestamptz[]) as w (tenant, limit_id, subject, at)
  join quota_limit_rules rule on rule.tenant = w.tenant and rule.id = w.limit_id
  cross join lateral quota_window(rule.span, rule.time_zone, least(w.at, quota_now())) span
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
