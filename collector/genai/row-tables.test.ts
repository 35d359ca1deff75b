import type { Column } from '@tallylight/storage/clickhouse/block.ts'
import { expect, test } from 'vitest'
import type { TenantId } from '../receive/request.ts'
import { type AnyRow, appendDeletion, rowTables } from './row-tables.ts'

/** A value for whichever of the columns is asked. */
const values: Readonly<Record<string, unknown>> = {
  TenantId: 'default' as TenantId,
  TraceId: 'trace',
  Timestamp: 5n,
  Generation: 1,
  Streaming: true,
  DurationNano: 7n,
  ResponseTimeNano: 7n,
  ToolsUsed: ['search'],
  McpServers: [],
  Metadata: { region: 'eu' },
  Arguments: null,
  Result: { hash: 'ab', bytes: 2, preview: 'ok' },
  Content: { hash: 'cd', bytes: 2, preview: 'hi' },
  ...Object.fromEntries(
    ['Attempt', 'Calls', 'ToolCalls', 'Index', 'InputTokens', 'OutputTokens'].map((name) => [name, 3]),
  ),
  ...Object.fromEntries(
    ['CostNanoUsd', 'TimeToFirstTokenNano', 'CacheReadTokens', 'CacheWriteTokens', 'ReasoningTokens'].map((name) => [
      name,
      null,
    ]),
  ),
}

test.each(rowTables)('rows: each column of $table.name has a value for each row and each deletion', (rowTable) => {
  const block = rowTable.openBlock()
  const row = new Proxy(values, { get: (known, name) => (name in known ? known[String(name)] : `the ${String(name)}`) })
  rowTable.append(block, row as unknown as AnyRow, 30)
  const key = { TenantId: 'default' as TenantId, hour: 0n, TraceId: 'trace', rest: rowTable.key.map((_, at) => at) }
  appendDeletion(rowTable, block, key, 2, 30)
  const counts = rowTable.table.columns.map(([name]) => [name, rowsIn(block.columns[name] as Column)])
  expect(Object.fromEntries(counts)).toEqual(Object.fromEntries(rowTable.table.columns.map(([name]) => [name, 2])))
})

function rowsIn(column: Column): number {
  switch (column.kind) {
    case 'fixed':
      return column.data.length / column.width
    case 'nullable':
      return column.nulls.length
    case 'lowCardinality':
      return column.indexes.length / 2
    case 'array':
    case 'map':
      return column.ends.length / 8
    case 'string': {
      // Texts of the test are short: the length of each is one byte.
      let rows = 0
      for (let at = 0; at < column.data.length; at += 1 + (column.data.bytes[at] as number)) rows++
      return rows
    }
    case 'segmentName':
      return 0
    default:
      return column satisfies never
  }
}
