-- Settlement by record, sliding windows, leases, and what proves the ledger while it runs.

-- The ledger's only clock. A function of its own, so that tests can step it; collectors never send a time of theirs.
create function quota_now() returns timestamptz language sql stable as 'select now()';

alter table quota_limit_rules drop constraint quota_limit_rules_measure_check;
alter table quota_limit_rules add constraint quota_limit_rules_measure_check
  check (measure in ('cost', 'tokens', 'input_tokens', 'output_tokens', 'requests', 'concurrency'));

-- Minute and hour slide: one account for ever, whose spending leaves it bucket by bucket. A bucket is dropped when all of it
-- is older than the window, so at no time does a window of this length hold more than was granted.
alter table quota_accounts
  add column bucket_at bigint[] not null default '{}',
  add column bucket_spent bigint[] not null default '{}',
  add constraint buckets_pair check (cardinality(bucket_at) = cardinality(bucket_spent));

alter table quota_reservation_rows
  add column is_lease boolean not null default false,
  -- Per account: what the client said it used; null until it settled.
  add column claimed bigint[],
  -- Per account: what the records of the call add up to, and how many of them count.
  add column recorded bigint[],
  add column records integer not null default 0;

-- Holds by the end of their time, for the sweep. A table and not an index on the reservations: an index on what a settlement
-- changes would make each settlement write every index of the row again.
create table quota_open_holds (
  expires_at timestamptz not null,
  reservation uuid not null,
  primary key (expires_at, reservation)
);
insert into quota_open_holds select expires_at, id from quota_reservation_rows where state = 'held';
drop index quota_reservation_expiry;

-- Holds that nobody ended: the client died, or its settlement was lost.
create table quota_orphan_rows (
  reservation uuid primary key references quota_reservation_rows (id),
  at timestamptz not null
);
create index quota_orphan_rows_at on quota_orphan_rows (at);

-- What is booked of one event: a charge through the API, or the record of a call. Unique, so that it counts once whoever
-- brings it how often; a higher generation books the difference. Kept 40 days: older ones are judged by the cursor.
create table quota_events (
  tenant text not null,
  event_key text not null,
  -- -1 for a charge, which any record of the same call replaces.
  generation integer not null,
  body_hash text,
  answer jsonb,
  reservation uuid,
  subject jsonb not null,
  ended_at timestamptz not null,
  account_ids bigint[] not null,
  spent bigint[] not null,
  -- Null when no price was known: a state, never 0.
  cost_nano_usd bigint,
  -- False when a later record showed that this one is a wrapper of another call.
  is_metered boolean not null,
  at timestamptz not null,
  primary key (tenant, event_key)
) with (fillfactor = 80);
-- The reconciler asks for a day of a tenant, the pruning for what is old. Both read ranges of rows that came together.
create index quota_events_ended on quota_events using brin (ended_at) with (pages_per_range = 16, autosummarize = on);
create index quota_events_at on quota_events using brin (at) with (pages_per_range = 16, autosummarize = on);
insert into quota_events (tenant, event_key, generation, subject, ended_at, account_ids, spent, is_metered, at)
  select tenant, event_key, -1, '{}', at, account_ids, spent, true, at from quota_bookings where event_key is not null;
alter table quota_bookings drop constraint quota_bookings_tenant_event_key_key;

-- How far the records of a journal are booked; written in the transaction that books them.
create table quota_cursors (
  journal text primary key,
  segment bigint not null,
  events integer not null,
  at timestamptz not null
);

alter table quota_bookings drop constraint quota_bookings_kind_check;
alter table quota_bookings add constraint quota_bookings_kind_check
  check (kind in ('grant', 'reserve', 'settle', 'release', 'expire', 'charge', 'record', 'slide'));
-- The transaction that wrote it, so that the check knows which bookings are complete. Numbers ascend with the table.
alter table quota_bookings add column xact bigint not null default pg_current_xact_id()::text::bigint;
create index quota_bookings_xact on quota_bookings using brin (xact) with (pages_per_range = 32, autosummarize = on);

create function quota_refuse_change() returns trigger language plpgsql as $$
begin
  raise exception '% is append-only', tg_table_name using errcode = 'restrict_violation';
end $$;
create trigger append_only before update or delete or truncate on quota_bookings
  for each statement execute function quota_refuse_change();
create trigger append_only before update or delete or truncate on quota_audit
  for each statement execute function quota_refuse_change();

alter table quota_outbox add column next_attempt_at timestamptz not null default now();
drop index quota_outbox_waiting;
create index quota_outbox_waiting on quota_outbox (next_attempt_at) where delivered_at is null;

-- Sums of the entries up to a horizon, so that the check adds only what came since.
create table quota_checked (
  account bigint primary key references quota_accounts (id),
  granted numeric not null,
  held numeric not null,
  spent numeric not null
) with (fillfactor = 70);
create table quota_check_horizon (
  only_row boolean primary key default true check (only_row),
  xact bigint not null,
  checked_at timestamptz not null,
  -- Accounts found that are not the sum of their entries.
  wrong bigint not null
);
insert into quota_check_horizon (xact, checked_at, wrong) values (0, now(), 0);

-- Compares the accounts that changed since the last turn with the sum of their entries, and moves the horizon. One snapshot
-- for all of it: what is complete in it is added to the sums, what is only visible counts for this comparison.
create function quota_check(out accounts bigint, out wrong bigint) language plpgsql as $$
declare
  since bigint;
  horizon bigint;
begin
  select h.xact into since from quota_check_horizon h for update;
  with snapshot as (
    select pg_snapshot_xmin(pg_current_snapshot())::text::bigint as xmin
  ), lines as (
    select line.account, line.granted, line.held, line.spent, b.xact < snapshot.xmin as is_complete
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
    select a.id, a.granted <> s.granted + coalesce(c.granted, 0) or a.held <> s.held + coalesce(c.held, 0)
        or a.spent <> s.spent + coalesce(c.spent, 0) as is_wrong
    from sums s join quota_accounts a on a.id = s.account left join quota_checked c on c.account = s.account
  ), moved as (
    insert into quota_checked as c (account, granted, held, spent)
    select account, complete_granted, complete_held, complete_spent from sums order by account
    on conflict (account) do update set granted = c.granted + excluded.granted, held = c.held + excluded.held,
      spent = c.spent + excluded.spent
  )
  select (select count(*) from compared), (select count(*) from compared where is_wrong), snapshot.xmin
  into accounts, wrong, horizon from snapshot;
  update quota_check_horizon h set xact = horizon, checked_at = now(), wrong = h.wrong + quota_check.wrong;
end $$;

create or replace function quota_window(span text, time_zone text, at timestamptz, out starts timestamptz, out ends timestamptz)
language sql stable as $$
  select case when span in ('ever', 'minute', 'hour') then timestamptz '-infinity'
              else date_trunc(span, at at time zone time_zone) at time zone time_zone end,
         case when span in ('ever', 'minute', 'hour') then null
              else (date_trunc(span, at at time zone time_zone) + ('1 ' || span)::interval) at time zone time_zone end
$$;

drop function quota_lock_accounts;
-- Locks the accounts of some limits and subjects, now, and others by their number, in the order of their numbers: so two
-- transactions never wait for each other. Those that are not there yet are made, with a booking of what they grant.
-- `wanted` tells which of the asked ones an account is; `ats` null is now.
create function quota_lock_accounts(tenants text[], limit_ids text[], subjects text[], ats timestamptz[], numbers bigint[])
returns table (id bigint, tenant text, limit_id text, subject text, window_end timestamptz, wanted integer[],
  granted bigint, held bigint, spent bigint, free bigint, debt bigint, thresholds_fired integer[],
  bucket_at bigint[], bucket_spent bigint[], span text)
language plpgsql as $$
#variable_conflict use_column
begin
  with asked as (
    select distinct w.tenant, w.limit_id, w.subject, rule.amount, span.starts, span.ends
    from unnest(tenants, limit_ids, subjects, ats) as w (tenant, limit_id, subject, at)
    join quota_limit_rules rule on rule.tenant = w.tenant and rule.id = w.limit_id
    cross join lateral quota_window(rule.span, rule.time_zone, coalesce(w.at, quota_now())) span
    where not exists (
      select from quota_accounts a
      where a.tenant = w.tenant and a.limit_id = w.limit_id and a.subject = w.subject and a.window_start = span.starts)
  ), made as (
    insert into quota_accounts (tenant, limit_id, subject, window_start, window_end, granted, free)
    select asked.tenant, asked.limit_id, asked.subject, asked.starts, asked.ends, asked.amount, asked.amount from asked
    order by asked.tenant, asked.limit_id, asked.subject, asked.starts
    on conflict do nothing
    returning id, tenant, granted
  )
  insert into quota_bookings (tenant, kind, account_ids, granted, held, spent)
  select made.tenant, 'grant', array[made.id], array[made.granted], array[0], array[0] from made;

  return query
    with asked as (
      select a.id, array_agg(w.ordinal::integer) as ordinals
      from unnest(tenants, limit_ids, subjects, ats) with ordinality as w (tenant, limit_id, subject, at, ordinal)
      join quota_limit_rules rule on rule.tenant = w.tenant and rule.id = w.limit_id
      cross join lateral quota_window(rule.span, rule.time_zone, coalesce(w.at, quota_now())) span
      join quota_accounts a
        on a.tenant = w.tenant and a.limit_id = w.limit_id and a.subject = w.subject and a.window_start = span.starts
      group by a.id
    ), locked as (
      select a.* from quota_accounts a
      -- Not an OR of the two: that would read every account there is.
      where a.id in (select unnest(numbers) union select asked.id from asked)
      order by a.id
      for update
    )
    select a.id, a.tenant, a.limit_id, a.subject, a.window_end, coalesce(asked.ordinals, '{}'),
           a.granted, a.held, a.spent, a.free, a.debt, a.thresholds_fired, a.bucket_at, a.bucket_spent, rule.span
    from locked a
    join quota_limit_rules rule on rule.tenant = a.tenant and rule.id = a.limit_id
    left join asked on asked.id = a.id;
end $$;

-- Milliseconds of a sliding window and of its buckets, a twelfth.
create function quota_slide_ms(span text) returns bigint language sql immutable as
  $$ select case span when 'minute' then 60000 when 'hour' then 3600000 end $$;

-- A sliding account that nobody has asked for since still stores what has left its window: shown as it would be found.
create or replace view quota_balances as
  select a.tenant, a.limit_id, a.subject, r.measure, r.action, a.window_start, a.window_end,
         a.granted, a.held, a.spent - gone.spent as spent,
         greatest(a.granted - a.held - a.spent + gone.spent, 0) as free,
         greatest(a.held + a.spent - gone.spent - a.granted, 0) as debt, r.span as "window"
  from quota_accounts a
  join quota_limit_rules r on r.tenant = a.tenant and r.id = a.limit_id
  cross join lateral (
    select coalesce(sum(bucket.spent), 0)::bigint as spent
    from unnest(a.bucket_at, a.bucket_spent) as bucket (at, spent)
    where bucket.at + quota_slide_ms(r.span) / 12 + quota_slide_ms(r.span) <= extract(epoch from quota_now()) * 1000
  ) gone;
create view quota_orphans as
  select r.id, r.tenant, r.call_id, r.subject ->> 'user' as user_id, r.subject ->> 'model' as model,
         r.subject ->> 'provider' as provider, r.account_ids, r.amounts, r.measures, r.created_at, o.at as expired_at
  from quota_orphan_rows o join quota_reservation_rows r on r.id = o.reservation
  where r.state = 'expired' and r.records = 0 and not r.is_lease;
-- What leases that are open could still spend: the worst overspend, were all of their records lost.
create view quota_open_leases as
  select r.id, r.tenant, a.limit_id, a.subject, line.measure,
         greatest(line.amount - coalesce(line.recorded, 0), 0) as unspent, r.expires_at
  from quota_open_holds h
  join quota_reservation_rows r on r.id = h.reservation
  cross join lateral unnest(r.account_ids, r.measures, r.amounts, r.recorded) as line (account, measure, amount, recorded)
  join quota_accounts a on a.id = line.account
  where r.is_lease and r.state = 'held';
