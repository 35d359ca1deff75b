-- $1–$4: tenants, limits, subjects and moments (null is now) of wanted accounts; `wanted` tells which of them an account is,
-- counted from 1. Others: $5 by their numbers; $6, and $7 with $8, those of reservations, by their ids and by tenant and call
-- id. Which accounts a reservation has never changes, so it need not be locked to be asked.
with asked as (
  select a.id, array_agg(w.ordinal::integer) as ordinals
  from unnest($1::text[], $2::text[], $3::text[], $4::timestamptz[])
    with ordinality as w (tenant, limit_id, subject, at, ordinal)
  join quota_limit_rules rule on rule.tenant = w.tenant and rule.id = w.limit_id
  cross join lateral quota_window(rule.span, rule.time_zone, coalesce(w.at, quota_now())) span
  join quota_accounts a
    on a.tenant = w.tenant and a.limit_id = w.limit_id and a.subject = w.subject and a.window_start = span.starts
  group by a.id
), named as (
  select id, ordinals from asked
  union all
  select number, '{}' from (
    select unnest($5::bigint[]) as number
    union
    select unnest(r.account_ids) from unnest($6::uuid[]) as known (id) join quota_reservation_rows r on r.id = known.id
    union
    select unnest(r.account_ids) from unnest($7::text[], $8::text[]) as known (tenant, call_id)
      join quota_reservation_rows r on r.tenant = known.tenant and r.call_id = known.call_id
  ) others
  where number not in (select id from asked)
)
select a.id, a.tenant, a.limit_id, a.subject, a.window_end, quota_slide_ms(rule.span) as slide_ms, named.ordinals as wanted,
       a.granted, a.held, a.spent, a.free, a.debt, a.thresholds_fired, a.bucket_at, a.bucket_spent
from named
join quota_accounts a on a.id = named.id
join quota_limit_rules rule on rule.tenant = a.tenant and rule.id = a.limit_id
order by a.id
for no key update of a
