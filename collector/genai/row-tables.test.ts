import { openBlock } from '@tallylight/storage/clickhouse/block.ts'
import { expect, test } from 'vitest'
import type { TenantId } from '../receive/request.ts'
import { type AnyRow, appendDeletion, rowTables } from './row-tables.ts'

/** A row that has nothing in any column. */
function emptyRow(types: ReadonlyMap<string, string>): AnyRow {
  const nothingIn = (type: string): unknown => {
    if (type === 'String' || type.startsWith('LowCardinality')) return ''
    if (type.startsWith('Nullable')) return null
    if (type.startsWith('Array')) return []
    if (type.startsWith('Map')) return {}
    return /64/.test(type) ? 0n : 0
  }
  const columns = Object.fromEntries([...types].map(([name, type]) => [name, nothingIn(type)]))
  return { ...columns, Content: { hash: '', bytes: 0, preview: '' } } as unknown as AnyRow
}

for (const rowTable of rowTables) {
  // A column that a row does not reach shifts the values of all rows after it, or makes ClickHouse refuse the block.
  test(`rows of ${rowTable.table.name}: each column gets a value`, () => {
    const written = rowTable.openBlock()
    rowTable.append(written, emptyRow(new Map(rowTable.table.columns.map(([name, type]) => [name, type]))), 0)
    const whole = openBlock(rowTable.table, 0)
    const rest = rowTable.key.map(() => '')
    appendDeletion(rowTable, whole, { TenantId: '' as TenantId, hour: 0n, TraceId: '', rest }, 0, 0)
    const lengths = (block: typeof whole): readonly number[] => block.streams.map(({ length }) => length)
    expect(lengths(written as typeof whole)).toEqual(lengths(whole))
  })
}
