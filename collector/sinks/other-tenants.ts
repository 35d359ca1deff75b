// Tables of a user's own that lack the column TenantId hold the default tenant's rows: nobody could tell those of others apart,
// and an erasure for one tenant would take another's. What they are sent is taken apart here, the same way each time, so that
// a repeated insert is recognised. The collector's own rows are no customer's, and stay.
import { setImmediate } from 'node:timers/promises'
import { type AnyBlock, openBlock } from '@tallylight/storage/clickhouse/block.ts'
import { dictionaryEntries } from '@tallylight/storage/clickhouse/dictionary.ts'
import { type Rows, rowsOf, rowTexts, textsOf } from '@tallylight/storage/clickhouse/slice.ts'
import { quarantineTable } from '@tallylight/storage/clickhouse/tables.ts'
import { defaultTenant, reservedTenant } from '../receive/key-rules.ts'
import type { Signal } from '../receive/request.ts'
import { appendAside } from './aside.ts'

const untold: ReadonlySet<string> = new Set<string>([defaultTenant, reservedTenant])
const millisecondsPerDay = 86_400_000
/** In turns of the event loop, as requests wait for it. */
const rowsPerTurn = 1024

export type Apart = {
  /** Rows that a table without tenants takes. */
  readonly taken: AnyBlock
  /** Those of other tenants; undefined where there are none. */
  readonly others: AnyBlock | undefined
}

export function withoutOtherTenants(block: AnyBlock): Apart {
  const column = block.columns.TenantId
  if (column?.kind !== 'lowCardinality') return { taken: block, others: undefined }
  const isTaken = dictionaryEntries(column.dictionary).map((name) => untold.has(name.toString()))
  const taken: Rows[] = []
  const others: Rows[] = []
  for (let from = 0; from < block.rows; ) {
    const tenant = column.indexes.view.getUint16(from * 2, true)
    let to = from + 1
    while (to < block.rows && column.indexes.view.getUint16(to * 2, true) === tenant) to++
    ;(isTaken[tenant] === true ? taken : others).push({ from, to })
    from = to
  }
  if (others.length === 0) return { taken: block, others: undefined }
  return { taken: rowsOf(block, taken), others: rowsOf(block, others) }
}

/** Records that their table may not take, as rows of the quarantine. Their time is the segment's, also when they are brought
 *  again. */
export async function asideOf(records: AnyBlock, signal: Signal, createdUnixMs: number): Promise<AnyBlock> {
  const block = openBlock(quarantineTable, Math.floor(createdUnixMs / millisecondsPerDay))
  const message = `${records.table.name} has no column TenantId, and takes the records of ${defaultTenant} alone`
  for (let from = 0; from < records.rows; from += rowsPerTurn) {
    if (from > 0) await setImmediate()
    const some = rowsOf(records, [{ from, to: Math.min(from + rowsPerTurn, records.rows) }])
    const tenants = textsOf(some, 'TenantId')
    const days = some.columns.RetentionDays
    if (days?.kind !== 'fixed') throw new Error(`${records.table.name} has no days of retention`)
    for (const [row, record] of rowTexts(some).entries())
      appendAside(block, {
        tenant: tenants[row] as string,
        retentionDays: days.data.view.getUint16(row * 2, true),
        unixMs: createdUnixMs,
        signal,
        reason: 'other_tenant',
        message,
        record,
      })
  }
  return block
}
