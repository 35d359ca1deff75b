// Legal holds: what is held is neither expired nor erased. A hold is a row in Postgres; the rows of ClickHouse are held by a
// retention that does not end, given and taken back by `applyRetention` (retention.ts), so nothing has to be asked on the
// road of a record. Shared traces are held whole: more than was asked, never less.
import { inTransaction } from '@tallylight/storage/postgres/connection.ts'
import { selectErasing } from '@tallylight/storage/postgres/erasures.ts'
import { type HoldRow, hasHolds, insertHold, releaseHold, selectHolds } from '@tallylight/storage/postgres/holds.ts'
import { writeAudit } from '@tallylight/storage/postgres/quota/statements.ts'
import type pg from 'pg'
import { parseTenantId, type TenantId } from '../receive/request.ts'
import type { Selections } from './selection.ts'
import type { Subject } from './subject.ts'

export type Holds = {
  place(hold: NewHold, by: string): Promise<HoldRow>
  /** Erasures of the tenant that had begun when the hold was placed: asked after it, for they look at the holds before each
   *  step, and what they took before is gone. */
  erasing(hold: HoldRow): Promise<readonly string[]>
  release(id: string, by: string, tenant: TenantId | undefined): Promise<HoldRow | undefined>
  list(tenant: TenantId | undefined, isAll: boolean): Promise<readonly HoldRow[]>
  /** In force, or released within a day. */
  hasAny(): Promise<boolean>
  /** Why the subject itself may not be erased. */
  onSubject(subject: Subject): Promise<string | undefined>
  /** Why the selected traces may not: they are also those of somebody who is held. */
  onSelection(tenantId: TenantId, selection: string): Promise<string | undefined>
  /** Writes what the hold is on into a selection of this name; of a tenant there is nothing to write. */
  select(hold: HoldRow): Promise<string | undefined>
}

export type NewHold = {
  readonly tenantId: TenantId
  readonly kind: HoldRow['kind']
  readonly name: string
  readonly reason: string
}

export function openHolds(database: pg.Pool, selections: Selections): Holds {
  async function select(hold: HoldRow): Promise<string | undefined> {
    const subject = subjectOf(hold)
    if (subject === undefined) return undefined
    const selection = `hold:${hold.id}`
    await selections.select(selection, subject, 'traces')
    return selection
  }

  return {
    place: ({ tenantId, kind, name, reason }, by) =>
      inTransaction(database, async (client) => {
        const hold = await insertHold(client, { tenant: tenantId, kind, name, reason, placed_by: by })
        await writeAudit(client, auditOf(hold, by, 'hold.place'))
        return hold
      }),
    erasing: ({ tenant }) => selectErasing(database, tenant),
    release: (id, by, tenant) =>
      inTransaction(database, async (client) => {
        const hold = await releaseHold(client, id, by, tenant)
        if (hold !== undefined) await writeAudit(client, auditOf(hold, by, 'hold.release'))
        return hold
      }),
    hasAny: () => hasHolds(database),
    list: (tenant, isAll) => selectHolds(database, tenant, isAll),
    onSubject: async ({ tenantId, kind, name }) => {
      const holds = await selectHolds(database, tenantId)
      const hold = holds.find((each) => each.kind === 'tenant' || (each.kind === kind && each.name === name))
      return hold === undefined ? undefined : `legal hold ${hold.id} is on the ${hold.kind}`
    },
    onSelection: async (tenantId, selection) => {
      for (const hold of await selectHolds(database, tenantId)) {
        const held = await select(hold)
        if (held !== undefined && (await selections.countCommon(selection, held)) > 0)
          return `legal hold ${hold.id} is on a ${hold.kind} with whom it shares traces`
      }
      return undefined
    },
    select,
  }
}

export function subjectOf({ tenant, kind, name }: HoldRow): Subject | undefined {
  const tenantId = parseTenantId(tenant)
  return kind === 'tenant' || tenantId === undefined ? undefined : { tenantId, kind, name }
}

function auditOf(hold: HoldRow, actor: string, action: string): Parameters<typeof writeAudit>[1] {
  const { tenant, id, kind, name, reason } = hold
  return {
    tenant,
    actor,
    action,
    resource: `hold ${id}`,
    before: null,
    after: kind === 'tenant' ? { kind, reason } : { kind, [kind]: name, reason },
  }
}
