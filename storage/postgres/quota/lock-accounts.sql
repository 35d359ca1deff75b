-- $1–$4: tenants, limits, subjects and moments (null is now) of wanted accounts. Others: $5 by their numbers; $6, and $7 with $8,
-- those of reservations, by their ids and by tenant and call id. Which accounts a reservation has never changes, so it need not
-- be locked to be asked. No call has ended later than now, whatever the clock of its service says. One more row, without an id, has in `wanted` the numbers of the wanted ones, null where there is none.
--
-- Rows are locked by their numbers alone. A row that another transaction was waited for is looked at again as it is then, with
-- the other tables of its query as they were; behind a union that found nothing, and the account was missing in the answer.
with asked as materialized (
  select w.ordinal, (
    select a.id from quota_limit_rules rule
    cross join lateral quota_window(rule.span, rule.time_zone, least(w.at, quota_now())) span
    join quota_accounts a
      on a.tenant = w.tenant and a.limit_id = w.limit_id and a.subject = w.subject and a.window_start = span.starts
    where rule.tenant = w.tenant and rule.id = w.limit_id) as id
  from unnest($1::text[], $2::text[], $3::text[], $4::timestamptz[])
    with ordinality as w (tenant, limit_id, subject, at, ordinal)
), locked as materialized (
  select * from quota_accounts
  where id = any (array(
    select id from asked
    union
    select unnest($5::bigint[])
    union
    select unnest(r.account_ids) from unnest($6::uuid[]) as known (id) join quota_reservation_rows r on r.id = known.id
    union
    select unnest(r.account_ids) from unnest($7::text[], $8::text[]) as known (tenant, call_id)
      join quota_reservation_rows r on r.tenant = known.tenant and r.call_id = known.call_id))
  order by id
  for no key update
)
select a.id, a.tenant, a.limit_id, a.subject, a.window_end, quota_slide_ms(rule.span) as slide_ms, a.granted, a.held, a.spent,
       a.free, a.debt, a.thresholds_fired, a.bucket_at, a.bucket_spent,
       a.window_start <= quota_now() and (a.window_end is null or quota_now() < a.window_end) as is_open, null::bigint[] as wanted
from locked a
join quota_limit_rules rule on rule.tenant = a.tenant and rule.id = a.limit_id
union all
select null, null, null, null, null, null, null, null, null, null, null, null, null, null, null,
       (select array_agg(id order by ordinal) from asked)
