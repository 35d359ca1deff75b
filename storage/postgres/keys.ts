// The statements of the tables `tenants` and `keys`.
import type pg from 'pg'

export type KeyRow = {
  readonly id: string
  readonly hash: string
  readonly tenant: string
  readonly roles: readonly string[]
  readonly many_tenants: boolean
  readonly name: string
  readonly created_at: Date
  readonly revoked_at: Date | null
  /** It was rotated, and is good until then. */
  readonly expires_at: Date | null
  readonly last_used_at: Date | null
}

export type TenantRow = { readonly id: string; readonly created_at: Date; readonly keys: number }

export type NewKeyRow = Pick<KeyRow, 'id' | 'hash' | 'tenant' | 'roles' | 'many_tenants' | 'name'>

export type Revoked = 'revoked' | 'revoked_before' | 'unknown'

/** What is needed to judge every key. */
export type KeySnapshot = {
  readonly version: number
  readonly tenants: number
  readonly keys: readonly KeyRow[]
}

export type Queryable = Pick<pg.ClientBase, 'query'> | Pick<pg.Pool, 'query'>

/** The channel on which a change of keys or tenants is told. */
export const keysChannel = 'tallylight_keys'

/** Adds the key, and its tenant when it is new. Throws when there is a key with this id or hash. */
export async function insertKey(database: Queryable, key: NewKeyRow): Promise<void> {
  await database.query(
    `with tenant as (insert into tenants (id) values ($3) on conflict do nothing)
     insert into keys (id, hash, tenant, roles, many_tenants, name) values ($1, $2, $3, $4, $5, $6)`,
    [key.id, key.hash, key.tenant, key.roles, key.many_tenants, key.name],
  )
}

/** Adds a key whose text is known already, unless it is there. One that was revoked, or rotated and past its time, stays so:
 *  `over`. */
export async function ensureKey(
  database: Queryable,
  key: NewKeyRow,
): Promise<'added' | 'present' | 'over' | 'other_key'> {
  // With nothing to do the statement must change nothing: every change makes all collectors read all keys again.
  const { rows } = await database.query<{ hash: string; is_over: boolean }>(
    'select hash, revoked_at is not null or coalesce(expires_at <= now(), false) as is_over from keys where id = $1',
    [key.id],
  )
  const [found] = rows
  if (found !== undefined) {
    if (found.hash !== key.hash) return 'other_key'
    return found.is_over ? 'over' : 'present'
  }
  const { rowCount } = await database.query(
    `with tenant as (insert into tenants (id) values ($3) on conflict do nothing)
     insert into keys (id, hash, tenant, roles, many_tenants, name) values ($1, $2, $3, $4, $5, $6)
     on conflict (id) do nothing`,
    [key.id, key.hash, key.tenant, key.roles, key.many_tenants, key.name],
  )
  return rowCount === 1 ? 'added' : ensureKey(database, key)
}

export async function listKeys(database: Queryable): Promise<readonly KeyRow[]> {
  const { rows } = await database.query<KeyRow>(
    `select id, hash, tenant, roles, many_tenants, name, created_at, revoked_at, expires_at, last_used_at
     from keys left join key_uses on key = id order by created_at, id`,
  )
  return rows
}

/** A number that is higher after every change of keys or tenants. */
export async function selectKeysVersion(database: Queryable): Promise<number> {
  const { rows } = await database.query<{ version: string }>('select version from key_changes')
  if (rows[0] === undefined) throw new Error('cannot follow the keys: the table key_changes lost its row')
  return Number(rows[0].version)
}

/** The version first: a change between the statements makes the rows newer than it, and the next look finds that. */
export async function selectKeySnapshot(database: Queryable): Promise<KeySnapshot> {
  const version = await selectKeysVersion(database)
  const { rows } = await database.query<{ tenants: number }>('select count(*)::integer as tenants from tenants')
  return { version, tenants: rows[0]?.tenants ?? 0, keys: await listKeys(database) }
}

/** Keys that administer all tenants and do not end by themselves. Nobody else revokes or rotates one until the transaction
 *  ends: two who each revoke another would leave none. */
export async function lockLastingAdmins(client: pg.ClientBase): Promise<readonly string[]> {
  const { rows } = await client.query<{ id: string }>(
    `select id from keys where 'admin' = any(roles) and many_tenants and revoked_at is null and expires_at is null
     order by id for update`,
  )
  return rows.map(({ id }) => id)
}

/** With `tenant` a key of another one, or one for many, is unknown. */
export async function revokeKey(database: Queryable, id: string, tenant?: string): Promise<Revoked> {
  const { rowCount } = await database.query(
    `update keys set revoked_at = now()
     where id = $1 and revoked_at is null and ($2::text is null or tenant = $2 and not many_tenants)`,
    [id, tenant ?? null],
  )
  if (rowCount === 1) return 'revoked'
  const { rows } = await database.query(
    'select from keys where id = $1 and revoked_at is not null and ($2::text is null or tenant = $2)',
    [id, tenant ?? null],
  )
  return rows.length === 1 ? 'revoked_before' : 'unknown'
}

/** Adds a key that may do what the old one may, which is good for a time of grace and then over. A key is rotated once:
 *  undefined for one that was, is revoked, unknown, or with `tenant` another tenant's. */
export async function rotateKey(
  database: Queryable,
  id: string,
  next: Pick<KeyRow, 'id' | 'hash'>,
  graceSeconds: number,
  tenant: string | undefined,
): Promise<Pick<KeyRow, 'tenant' | 'roles' | 'expires_at'> | undefined> {
  const { rows } = await database.query<Pick<KeyRow, 'tenant' | 'roles' | 'expires_at'>>(
    `with old as (
       update keys set expires_at = now() + $4 * interval '1 second'
       where id = $1 and revoked_at is null and expires_at is null and ($5::text is null or tenant = $5 and not many_tenants)
       returning tenant, roles, many_tenants, name, expires_at
     ), next as (
       insert into keys (id, hash, tenant, roles, many_tenants, name)
       select $2, $3, tenant, roles, many_tenants, name from old
     )
     select tenant, roles, expires_at from old`,
    [id, next.id, next.hash, graceSeconds, tenant ?? null],
  )
  return rows[0]
}

/** Keys that were taken out meanwhile are left out. */
export async function noteKeyUses(database: Queryable, uses: ReadonlyMap<string, number>): Promise<void> {
  await database.query(
    `insert into key_uses (key, last_used_at)
     select use.key, to_timestamp(use.unix_ms / 1000.0) from unnest($1::text[], $2::double precision[]) as use (key, unix_ms)
     where exists (select from keys where id = use.key)
     on conflict (key) do update set last_used_at = greatest(key_uses.last_used_at, excluded.last_used_at)`,
    [[...uses.keys()], [...uses.values()]],
  )
}

export async function insertTenant(database: Queryable, id: string): Promise<'added' | 'present'> {
  const { rowCount } = await database.query('insert into tenants (id) values ($1) on conflict do nothing', [id])
  return rowCount === 1 ? 'added' : 'present'
}

/** Whether it was made, or the ledger has booked calls of it: records may name one that was not. */
export async function isTenantNamed(database: Queryable, id: string): Promise<boolean> {
  const { rows } = await database.query<{ is_named: boolean }>(
    `select exists (select from tenants where id = $1) or exists (select from quota_reservation_rows where tenant = $1)
       or exists (select from quota_events where tenant = $1) as is_named`,
    [id],
  )
  return rows[0]?.is_named === true
}

/** With how many keys each has that were not revoked. */
export async function listTenants(database: Queryable): Promise<readonly TenantRow[]> {
  const { rows } = await database.query<TenantRow>(
    `select t.id, t.created_at, count(k.id)::integer as keys
     from tenants t left join keys k on k.tenant = t.id and k.revoked_at is null
     group by t.id order by t.created_at, t.id`,
  )
  return rows
}
