-- $1: accounts by their numbers, as lock-accounts.sql has them. The rule is looked up for each row, and not joined, so that rows
-- are locked in the order of their numbers whatever the plan.
select a.id, a.tenant, a.limit_id, a.subject, a.window_end,
       (select quota_slide_ms(rule.span) from quota_limit_rules rule where rule.tenant = a.tenant and rule.id = a.limit_id)
         as slide_ms,
       a.granted, a.held, a.spent, a.free, a.debt, a.thresholds_fired, a.bucket_at, a.bucket_spent,
       a.window_start <= quota_now() and (a.window_end is null or quota_now() < a.window_end) as is_open
from quota_accounts a
where a.id = any ($1::bigint[])
order by a.id
for no key update
