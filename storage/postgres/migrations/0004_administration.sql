-- Tenants and keys as they are administered, legal holds, and the erasure of a user or a conversation.

-- A key that was rotated is valid until then.
alter table keys add column expires_at timestamptz;

-- When a key was last used, to the half minute. Not a column of `keys`: every change there makes all collectors read all keys.
create table key_uses (
  key text primary key references keys (id) on delete cascade,
  last_used_at timestamptz not null
) with (fillfactor = 70);

-- What is held is neither expired nor erased, until the last hold on it is released.
create table legal_holds (
  id uuid primary key default gen_random_uuid(),
  tenant text not null references tenants (id),
  kind text not null check (kind in ('tenant', 'user', 'conversation')),
  -- Of the user or conversation; '' holds all of the tenant.
  name text not null,
  reason text not null,
  placed_by text not null,
  placed_at timestamptz not null default now(),
  released_by text,
  released_at timestamptz,
  check ((kind = 'tenant') = (name = '')),
  check ((released_at is null) = (released_by is null))
);

-- An erasure under way, and then the proof that it was done: who asked for what, when, and what went from where. The name of
-- the user is known only while it runs; its hash with a salt of its own tells later whether it was this one.
create table erasures (
  id uuid primary key default gen_random_uuid(),
  tenant text not null,
  kind text not null check (kind in ('user', 'conversation')),
  name text,
  salt text not null,
  name_hash text not null,
  requested_by text not null,
  requested_at timestamptz not null default now(),
  -- Of the collector that carries it out, also after its restart.
  journal text not null,
  -- draining: every collector stores what it has accepted. forgetting: every collector forgets what it remembers.
  state text not null default 'draining' check (state in ('draining', 'forgetting', 'done', 'refused')),
  reason text not null default '',
  finished_at timestamptz,
  -- Rows by table.
  erased jsonb not null default '{}',
  -- Collectors that were not there to store what they may still hold.
  absent text[] not null default '{}',
  check ((name is null) = (state in ('done', 'refused'))),
  check ((finished_at is null) = (state in ('draining', 'forgetting')))
);
-- What is under way is looked for every few seconds.
create index erasure_under_way on erasures (requested_at) where finished_at is null;

-- Which collectors there are, and how far each has gone with an erasure.
create table collectors (
  journal text primary key,
  seen_at timestamptz not null
);
create table erasure_steps (
  erasure uuid not null references erasures (id) on delete cascade,
  journal text not null,
  state text not null,
  primary key (erasure, journal, state)
);

-- The audit is append-only, save that an erased name is replaced in it.
create or replace function quota_refuse_change() returns trigger language plpgsql as $$
begin
  if tg_op = 'UPDATE' and tg_table_name = 'quota_audit' and current_setting('tallylight.erasing', true) = 'yes' then
    return null;
  end if;
  raise exception '% is append-only', tg_table_name using errcode = 'restrict_violation';
end $$;

-- A document with a pseudonym where it names a user or conversation, or one of their accounts (which of a long name have but
-- the beginning). Postgres writes jsonb in one way, and a quote inside of a text with a backslash before it.
create function replace_name(document jsonb, kind text, name text, account text, pseudonym text) returns jsonb
language sql immutable as $$
  select replace(
    replace(document::text, to_jsonb(kind)::text || ': ' || to_jsonb(name)::text,
      to_jsonb(kind)::text || ': ' || to_jsonb(pseudonym)::text),
    '"subject": ' || to_jsonb(account)::text, '"subject": ' || to_jsonb(pseudonym)::text)::jsonb
$$;
