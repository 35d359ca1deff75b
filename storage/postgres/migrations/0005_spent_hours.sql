-- What was spent, hour by hour: boards and alerts ask for the last three days, which are millions of bookings and some thousand
-- hours. Filled by the check, which reads each booking once anyway; what came since its last turn is read from the bookings.

-- Bookings come in the order of their time and are never changed, so a few bytes per stretch of pages find the last hour.
create index quota_booking_at on quota_bookings using brin (at) with (pages_per_range = 32, autosummarize = on);

-- Kept four days.
create table quota_spent_hours (
  hour timestamptz not null,
  account bigint not null references quota_accounts (id),
  spent numeric not null,
  primary key (hour, account)
) with (fillfactor = 70);

-- As in 0003, and the hours beside the sums.
create or replace function quota_check(out accounts bigint, out wrong bigint) language plpgsql as $$
declare
  since bigint;
  horizon bigint;
begin
  select h.xact into since from quota_check_horizon h for update;
  with snapshot as (
    select pg_snapshot_xmin(pg_current_snapshot())::text::bigint as xmin
  ), lines as (
    select line.account, line.granted, line.held, line.spent, b.xact < snapshot.xmin as is_complete,
      date_trunc('hour', b.at) as hour, b.kind in ('grant', 'slide') as is_of_the_window
    from quota_bookings b cross join snapshot
    cross join lateral unnest(b.account_ids, b.granted, b.held, b.spent) as line (account, granted, held, spent)
    where b.xact >= since
  ), sums as (
    select account, sum(granted) as granted, sum(held) as held, sum(spent) as spent,
      coalesce(sum(granted) filter (where is_complete), 0) as complete_granted,
      coalesce(sum(held) filter (where is_complete), 0) as complete_held,
      coalesce(sum(spent) filter (where is_complete), 0) as complete_spent
    from lines group by account
  ), compared as (
    select a.granted <> s.granted + coalesce(c.granted, 0) or a.held <> s.held + coalesce(c.held, 0)
        or a.spent <> s.spent + coalesce(c.spent, 0) as is_wrong
    from sums s join quota_accounts a on a.id = s.account left join quota_checked c on c.account = s.account
  ), moved as (
    insert into quota_checked as c (account, granted, held, spent)
    select account, complete_granted, complete_held, complete_spent from sums order by account
    on conflict (account) do update set granted = c.granted + excluded.granted, held = c.held + excluded.held,
      spent = c.spent + excluded.spent
  ), added as (
    insert into quota_spent_hours as h (hour, account, spent)
    select hour, account, sum(spent) from lines
    where is_complete and not is_of_the_window and hour > now() - interval '4 days'
    group by hour, account having sum(spent) <> 0 order by hour, account
    on conflict (hour, account) do update set spent = h.spent + excluded.spent
  )
  select (select count(*) from compared), (select count(*) from compared where is_wrong), snapshot.xmin
  into accounts, wrong, horizon from snapshot;
  update quota_check_horizon set xact = horizon;
  delete from quota_spent_hours where hour < now() - interval '4 days';
end $$;

create view quota_spending as
  select s.hour, a.tenant, a.limit_id, a.subject, s.spent
  from quota_spent_hours s join quota_accounts a on a.id = s.account
  union all
  select date_trunc('hour', b.at), a.tenant, a.limit_id, a.subject, line.spent
  from quota_bookings b
  cross join lateral unnest(b.account_ids, b.spent) as line (account, spent)
  join quota_accounts a on a.id = line.account
  where b.xact >= (select xact from quota_check_horizon) and b.kind not in ('grant', 'slide');
