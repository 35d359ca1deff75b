-- Tenants and their keys. A key's text is shown once and never stored: `hash` is the SHA-256 of all of it. Secrets have
-- 256 random bits, so a slow hash would protect nothing and cost every request.
create table tenants (
  id text primary key check (id <> ''),
  created_at timestamptz not null default now()
);

create table keys (
  id text primary key,
  hash text not null unique check (hash ~ '^[0-9a-f]{64}$'),
  tenant text not null references tenants (id),
  roles text[] not null check (roles <@ array['ingest', 'query', 'quota', 'admin'] and cardinality(roles) > 0),
  many_tenants boolean not null default false,
  name text not null default '',
  created_at timestamptz not null default now(),
  revoked_at timestamptz
);
