-- The ledger of quotas. A limit is a rule; an account is one limit for one subject in one window, and the row that is locked;
-- a booking is what one step did to its accounts, and is never changed. Amounts are nano-dollars, tokens or counts.

-- The ledger's only clock. A function of its own, so that tests can step it; collectors never send a time of theirs.
create function quota_now() returns timestamptz language sql stable as 'select now()';

create table quota_limit_rules (
  tenant text not null references tenants (id),
  id text not null check (id <> '' and length(id) <= 200),
  -- What must be equal in a request for the limit to apply: user, key, model, provider, conversation.
  subject jsonb not null default '{}',
  -- The dimension of which each value has an account of its own; '' when all share one.
  each text not null default '' check (each in ('', 'user', 'key', 'model', 'provider', 'conversation')),
  measure text not null check (measure in ('cost', 'tokens', 'input_tokens', 'output_tokens', 'requests', 'concurrency')),
  amount bigint not null check (amount >= 0),
  span text not null check (span in ('minute', 'hour', 'day', 'month', 'ever')),
  time_zone text not null default 'UTC',
  action text not null check (action in ('block', 'warn', 'observe')),
  thresholds integer[] not null default '{50,80,100}',
  overage text not null check (overage in ('refuse', 'allow_available', 'allow_debt')),
  -- 'config' limits are those of the configuration file, and are removed when it no longer names them.
  source text not null default 'api' check (source in ('api', 'config')),
  removed_at timestamptz,
  primary key (tenant, id)
);

-- Services keep the rules in memory. Each batch of requests sees this number in its transaction, and reads them again when
-- it is another one.
create table quota_rule_changes (
  only_row boolean primary key default true check (only_row),
  version bigint not null
);
insert into quota_rule_changes (version) values (1);
create function note_quota_rule_change() returns trigger language plpgsql as $$
begin
  update quota_rule_changes set version = version + 1;
  return null;
end $$;
create trigger quota_rules_changed after insert or update or delete or truncate on quota_limit_rules
  for each statement execute function note_quota_rule_change();

create table quota_accounts (
  id bigint generated always as identity primary key,
  tenant text not null,
  limit_id text not null,
  subject text not null,
  window_start timestamptz not null,
  window_end timestamptz,
  granted bigint not null,
  held bigint not null default 0 check (held >= 0),
  spent bigint not null default 0,
  free bigint not null check (free >= 0),
  debt bigint not null default 0 check (debt >= 0),
  thresholds_fired integer[] not null default '{}',
  -- Minute and hour slide: one account for ever, whose spending leaves it bucket by bucket. A bucket leaves when all of it is
  -- older than the window, so at no time does a window of this length hold more than was granted.
  bucket_at bigint[] not null default '{}',
  bucket_spent bigint[] not null default '{}',
  -- How a request finds its account.
  unique (tenant, limit_id, subject, window_start),
  foreign key (tenant, limit_id) references quota_limit_rules (tenant, id),
  constraint balanced check (granted + debt = spent + held + free),
  constraint free_or_in_debt check (free = 0 or debt = 0),
  constraint buckets_pair check (cardinality(bucket_at) = cardinality(bucket_spent))
) with (fillfactor = 70);

create table quota_reservation_rows (
  id uuid primary key,
  tenant text not null,
  call_id text not null,
  -- Of the request's body: the same call id with another body is a conflict.
  body_hash text not null,
  state text not null check (state in ('held', 'settled', 'released', 'expired')),
  -- Not jsonb: told again as it was told, and hardly ever looked into.
  subject json not null,
  -- A lease stays held while the records of its calls eat it up.
  is_lease boolean not null,
  account_ids bigint[] not null,
  measures text[] not null,
  -- Per account: what was held at first, what the client said it used (null until it settled), and what the records of the
  -- call add up to. `records` is how many of those count.
  amounts bigint[] not null,
  claimed bigint[],
  recorded bigint[] not null,
  records integer not null default 0,
  answer json not null,
  outcome json,
  created_at timestamptz not null,
  expires_at timestamptz not null,
  ended_at timestamptz,
  -- A call is reserved once.
  unique (tenant, call_id)
) with (fillfactor = 70);

-- Holds by the end of their time, for the sweep. A table and not an index on the reservations: an index on what a settlement
-- changes would make each settlement write every index of the row again.
create table quota_open_holds (
  expires_at timestamptz not null,
  reservation uuid not null,
  primary key (expires_at, reservation)
);

create table quota_bookings (
  id bigint generated always as identity primary key,
  at timestamptz not null,
  tenant text not null,
  kind text not null
    check (kind in ('grant', 'reserve', 'settle', 'release', 'expire', 'charge', 'record', 'slide')),
  reservation uuid,
  event_key text,
  account_ids bigint[] not null,
  granted bigint[] not null,
  held bigint[] not null,
  spent bigint[] not null,
  -- The transaction that wrote it, so that the check knows which bookings are complete.
  xact bigint not null default pg_current_xact_id()::text::bigint
);
-- The history of a reservation.
create index quota_booking_reservation on quota_bookings (reservation) where reservation is not null;
-- Holds that nobody ended, by when that was seen.
create index quota_booking_expiries on quota_bookings (at) where kind = 'expire';
-- The check reads what came since its last turn: one stretch at the table's end.
create index quota_booking_xact on quota_bookings using brin (xact) with (pages_per_range = 32, autosummarize = on);

-- What is booked of one event: a charge through the API, or the record of a call. Unique, so that it counts once whoever
-- brings it how often; a higher generation books the difference. Kept 40 days.
create table quota_events (
  tenant text not null,
  event_key text not null,
  generation integer not null,
  -- Of a charge, and what it was told.
  body_hash text,
  answer json,
  -- The reservation that it settled, or the accounts that it was booked to; `spent` is per account of either.
  reservation uuid,
  account_ids bigint[] not null,
  spent bigint[] not null,
  -- What the call cost; null when no price was known: a state, never 0.
  cost_nano_usd bigint,
  -- False when a later generation showed that another record meters the call.
  is_metered boolean not null,
  ended_at timestamptz not null,
  at timestamptz not null,
  primary key (tenant, event_key)
) with (fillfactor = 80);
-- The reconciler asks for a day, the pruning for what is old. Both read stretches of rows that came together.
create index quota_events_ended on quota_events using brin (ended_at) with (pages_per_range = 16, autosummarize = on);
create index quota_events_at on quota_events using brin (at) with (pages_per_range = 16, autosummarize = on);

-- How far the records of a journal are booked, per lane of its segments; written in the transaction that books the last of a
-- segment. The time tells a segment of a restored volume from the one that had its number before.
create table quota_cursors (
  journal text not null,
  lane text not null,
  segment bigint not null,
  created_at timestamptz not null,
  at timestamptz not null,
  primary key (journal, lane)
);

-- Events that the ledger cannot take, each with its reason: the others are booked without them.
create table quota_refused_events (
  tenant text not null,
  event_key text not null,
  segment text not null,
  reason text not null,
  at timestamptz not null,
  primary key (tenant, event_key)
);

-- What the reconciler found: per tenant and hour what the records of calls cost and what the ledger has settled of them, and
-- each call of which the two differ. Null is a call that one of them does not have, or has no price for.
create table quota_reconciled_hours (
  hour timestamptz not null,
  tenant text not null,
  recorded_calls bigint not null,
  recorded_nano_usd numeric not null,
  settled_calls bigint not null,
  settled_nano_usd numeric not null,
  at timestamptz not null,
  primary key (hour, tenant)
);
create table quota_differences (
  hour timestamptz not null,
  tenant text not null,
  event_key text not null,
  recorded_nano_usd numeric,
  settled_nano_usd numeric,
  at timestamptz not null,
  primary key (hour, tenant, event_key)
);

-- Sums of the entries of an account up to a horizon, so that the check adds only what came since.
create table quota_checked (
  account bigint primary key references quota_accounts (id),
  granted numeric not null,
  held numeric not null,
  spent numeric not null
) with (fillfactor = 70);
create table quota_check_horizon (
  only_row boolean primary key default true check (only_row),
  xact bigint not null
);
insert into quota_check_horizon (xact) values (0);

-- Told to webhooks, at least once each. Written with what it tells, or not at all.
create table quota_outbox (
  id uuid primary key default gen_random_uuid(),
  tenant text not null,
  kind text not null,
  body jsonb not null,
  created_at timestamptz not null default now(),
  delivered_at timestamptz,
  attempts integer not null default 0
);
create index quota_outbox_waiting on quota_outbox (created_at) where delivered_at is null;

create table quota_audit (
  id bigint generated always as identity primary key,
  at timestamptz not null default now(),
  tenant text not null,
  actor text not null,
  action text not null,
  resource text not null,
  before jsonb,
  after jsonb
);

create function quota_refuse_change() returns trigger language plpgsql as $$
begin
  raise exception '% is append-only', tg_table_name using errcode = 'restrict_violation';
end $$;
create trigger append_only before update or delete or truncate on quota_bookings
  for each statement execute function quota_refuse_change();
create trigger append_only before update or delete or truncate on quota_audit
  for each statement execute function quota_refuse_change();

-- The window of a limit that holds a moment; `ever`, and those that slide, have one.
create function quota_window(span text, time_zone text, at timestamptz)
returns table (starts timestamptz, ends timestamptz) language sql stable as $$
  select case when span in ('ever', 'minute', 'hour') then timestamptz '-infinity'
              else date_trunc(span, at at time zone time_zone) at time zone time_zone end,
         case when span in ('ever', 'minute', 'hour') then null
              else (date_trunc(span, at at time zone time_zone) + ('1 ' || span)::interval) at time zone time_zone end
$$;
-- Milliseconds of a sliding window; null for others.
create function quota_slide_ms(span text) returns bigint language sql immutable as
  $$ select case span when 'minute' then 60000 when 'hour' then 3600000 end $$;

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
    select a.granted <> s.granted + coalesce(c.granted, 0) or a.held <> s.held + coalesce(c.held, 0)
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
  update quota_check_horizon set xact = horizon;
end $$;

create view quota_limits as
  select tenant, id, subject, each, measure, amount, span as "window", time_zone, action, thresholds, overage, source
  from quota_limit_rules where removed_at is null;
-- A sliding account that nobody has asked for since still stores what has left its window: shown as it would be found.
-- A bucket is a twelfth of the window, and leaves when all of it is older.
create view quota_balances as
  select a.tenant, a.limit_id, a.subject, r.measure, r.action, r.span as "window", a.window_start, a.window_end,
         a.granted, a.held, a.spent - gone.spent as spent,
         greatest(a.granted - a.held - a.spent + gone.spent, 0) as free,
         greatest(a.held + a.spent - gone.spent - a.granted, 0) as debt
  from quota_accounts a
  join quota_limit_rules r on r.tenant = a.tenant and r.id = a.limit_id
  cross join lateral (
    select coalesce(sum(bucket.spent), 0)::bigint as spent
    from unnest(a.bucket_at, a.bucket_spent) as bucket (at, spent)
    where bucket.at + quota_slide_ms(r.span) / 12 + quota_slide_ms(r.span) <= extract(epoch from quota_now()) * 1000
  ) gone;
create view quota_entries as
  select b.id as booking, b.at, b.tenant, b.kind, b.reservation, b.event_key, line.account, a.limit_id, a.subject,
         line.granted, line.held, line.spent
  from quota_bookings b
  cross join lateral unnest(b.account_ids, b.granted, b.held, b.spent) as line (account, granted, held, spent)
  join quota_accounts a on a.id = line.account;
create view quota_reservations as
  select id, tenant, call_id, state, subject ->> 'user' as user_id, subject ->> 'conversation' as conversation_id,
         subject ->> 'model' as model, subject ->> 'provider' as provider, records, answer, outcome, created_at, expires_at,
         ended_at
  from quota_reservation_rows;
-- Holds whose time ran out and of whose call nothing came since: the client died, or its settlement and its record were lost.
create view quota_orphans as
  select r.id, r.tenant, r.call_id, r.subject ->> 'user' as user_id, r.subject ->> 'model' as model,
         r.subject ->> 'provider' as provider, r.answer -> 'holds' as holds, r.created_at, b.at as expired_at
  from quota_bookings b join quota_reservation_rows r on r.id = b.reservation
  where b.kind = 'expire' and r.state = 'expired' and not r.is_lease;
-- What leases that are open could still spend: the worst overspend, were all of their records lost.
create view quota_open_leases as
  select r.id, r.tenant, r.call_id, a.limit_id, a.subject, line.measure,
         greatest(line.amount - line.recorded, 0) as unspent, r.expires_at
  from quota_open_holds h
  join quota_reservation_rows r on r.id = h.reservation
  cross join lateral unnest(r.account_ids, r.measures, r.amounts, r.recorded) as line (account, measure, amount, recorded)
  join quota_accounts a on a.id = line.account
  where r.is_lease and line.measure <> 'concurrency';
-- Calls that a client settled and of which no record came: what it said is all that is known of them.
create view quota_unrecorded as
  select id, tenant, call_id, subject ->> 'user' as user_id, subject ->> 'model' as model, subject ->> 'provider' as provider,
         outcome -> 'body' -> 'booked' as booked, ended_at
  from quota_reservation_rows where state = 'settled' and records = 0;
create view quota_reconciliation as
  select tenant, (hour at time zone 'UTC')::date as day, sum(recorded_calls) as recorded_calls,
         sum(recorded_nano_usd) as recorded_nano_usd, sum(settled_calls) as settled_calls,
         sum(settled_nano_usd) as settled_nano_usd, sum(settled_nano_usd - recorded_nano_usd) as drift_nano_usd, max(at) as at
  from quota_reconciled_hours group by 1, 2;
-- Accounts that are not the sum of their entries: there are none.
create view quota_drift as
  select a.id, a.tenant, a.limit_id, a.subject, a.granted, a.held, a.spent,
         coalesce(sum(e.granted), 0) as entries_granted, coalesce(sum(e.held), 0) as entries_held,
         coalesce(sum(e.spent), 0) as entries_spent
  from quota_accounts a left join quota_entries e on e.account = a.id
  group by a.id
  having a.granted <> coalesce(sum(e.granted), 0) or a.held <> coalesce(sum(e.held), 0)
      or a.spent <> coalesce(sum(e.spent), 0);
