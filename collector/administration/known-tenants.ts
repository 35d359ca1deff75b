// Whether there is a tenant of a name: one that was made, or one that only records name, sent with a key for many tenants. To
// ask makes no tenant: as soon as there is a second, no request without a key is let in. Records that are in a journal only,
// in the second before they are stored, are not seen.
import type { ClickHouse } from '@tallylight/storage/clickhouse/client.ts'
import type { TargetTable } from '@tallylight/storage/clickhouse/schema.ts'
import { contentsTable } from '@tallylight/storage/clickhouse/tables.ts'
import { isTenantNamed } from '@tallylight/storage/postgres/keys.ts'
import type pg from 'pg'
import type { TenantId } from '../receive/request.ts'
import { isOfTenant, places, quarantinePlace } from './places.ts'

export type IsTenantKnown = (tenant: TenantId) => Promise<boolean>

const tables = [...places, quarantinePlace].map(({ table }) => table.name).concat(contentsTable.name)

export function openKnownTenants(options: {
  readonly clickhouse: ClickHouse
  readonly targetOf: (table: string) => TargetTable | undefined
  readonly database: pg.Pool
}): IsTenantKnown {
  /** The tenant is the first of every key of ours, so that a name that is nowhere is no reading of whole tables. */
  function firstRowOf(name: string, tenant: TenantId): string {
    const target = options.targetOf(name)
    if (target === undefined) throw new Error(`${name} is not known to be there`)
    return `SELECT 1 FROM ${target.name} WHERE ${isOfTenant(target, tenant)} LIMIT 1`
  }

  return async (tenant) => {
    if (await isTenantNamed(options.database, tenant)) return true
    const rows = tables.map((name) => `SELECT * FROM (${firstRowOf(name, tenant)})`)
    return (await options.clickhouse.query(`SELECT 1 FROM (${rows.join(' UNION ALL ')}) LIMIT 1`)).length > 0
  }
}
