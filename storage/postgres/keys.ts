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
}

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

/** Adds a key whose text is known already, unless it is there. One that was revoked stays so. */
export async function ensureKey(database: Queryable, key: NewKeyRow): Promise<'added' | 'present' | 'other_key'> {
  // With nothing to do the statement must change nothing: every change makes all collectors read all keys again.
  const { rows } = await database.query<{ hash: string }>('select hash from keys where id = $1', [key.id])
  if (rows[0] !== undefined) return rows[0].hash === key.hash ? 'present' : 'other_key'
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
    'select id, hash, tenant, roles, many_tenants, name, created_at, revoked_at from keys order by created_at, id',
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

export async function revokeKey(database: Queryable, id: string): Promise<Revoked> {
  const { rowCount } = await database.query('update keys set revoked_at = now() where id = $1 and revoked_at is null', [
    id,
  ])
  if (rowCount === 1) return 'revoked'
  const { rows } = await database.query('select 1 from keys where id = $1', [id])
  return rows.length === 1 ? 'revoked_before' : 'unknown'
}
