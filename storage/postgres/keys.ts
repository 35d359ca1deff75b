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

type Queryable = Pick<pg.Pool, 'query'>

export async function insertTenant(database: Queryable, tenant: string): Promise<void> {
  await database.query('insert into tenants (id) values ($1) on conflict do nothing', [tenant])
}

export async function insertKey(
  database: Queryable,
  key: Pick<KeyRow, 'id' | 'hash' | 'tenant' | 'roles' | 'many_tenants' | 'name'>,
): Promise<void> {
  await database.query(
    'insert into keys (id, hash, tenant, roles, many_tenants, name) values ($1, $2, $3, $4, $5, $6) on conflict (id) do nothing',
    [key.id, key.hash, key.tenant, key.roles, key.many_tenants, key.name],
  )
}

export async function selectKeys(database: Queryable): Promise<readonly KeyRow[]> {
  const { rows } = await database.query<KeyRow>(
    'select id, hash, tenant, roles, many_tenants, name, created_at, revoked_at from keys order by created_at, id',
  )
  return rows
}

export async function countTenants(database: Queryable): Promise<number> {
  const { rows } = await database.query<{ count: number }>('select count(*)::integer as count from tenants')
  return rows[0]?.count ?? 0
}

/** False when there is no such key, or it was revoked before. */
export async function revokeKey(database: Queryable, id: string): Promise<boolean> {
  const { rowCount } = await database.query('update keys set revoked_at = now() where id = $1 and revoked_at is null', [
    id,
  ])
  return rowCount === 1
}
