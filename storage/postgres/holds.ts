// The statements of the table `legal_holds`.
import type { Queryable } from './keys.ts'

export type HoldRow = {
  readonly id: string
  readonly tenant: string
  readonly kind: 'tenant' | 'user' | 'conversation'
  /** '' of a tenant. */
  readonly name: string
  readonly reason: string
  readonly placed_by: string
  readonly placed_at: Date
  readonly released_by: string | null
  readonly released_at: Date | null
}

const columns = 'id, tenant, kind, name, reason, placed_by, placed_at, released_by, released_at'

export async function insertHold(
  database: Queryable,
  hold: Pick<HoldRow, 'tenant' | 'kind' | 'name' | 'reason' | 'placed_by'>,
): Promise<HoldRow> {
  const { rows } = await database.query<HoldRow>(
    `insert into legal_holds (tenant, kind, name, reason, placed_by) values ($1, $2, $3, $4, $5) returning ${columns}`,
    [hold.tenant, hold.kind, hold.name, hold.reason, hold.placed_by],
  )
  return rows[0] as HoldRow
}

/** Undefined when there is no such hold in force, or it is another tenant's than the one that is asked for. */
export async function releaseHold(
  database: Queryable,
  id: string,
  by: string,
  tenant: string | undefined,
): Promise<HoldRow | undefined> {
  const { rows } = await database.query<HoldRow>(
    `update legal_holds set released_by = $2, released_at = now()
     where id = $1 and released_at is null and ($3::text is null or tenant = $3) returning ${columns}`,
    [id, by, tenant ?? null],
  )
  return rows[0]
}

/** Those in force, and with `isAll` those that were released. */
export async function selectHolds(
  database: Queryable,
  tenant: string | undefined,
  isAll = false,
): Promise<readonly HoldRow[]> {
  const { rows } = await database.query<HoldRow>(
    `select ${columns} from legal_holds where ($1::text is null or tenant = $1) and ($2 or released_at is null)
     order by placed_at, id`,
    [tenant ?? null, isAll],
  )
  return rows
}

/** In force, or released within a day. */
export async function hasHolds(database: Queryable): Promise<boolean> {
  const { rows } = await database.query(
    `select from legal_holds where released_at is null or released_at > now() - interval '1 day' limit 1`,
  )
  return rows.length > 0
}
