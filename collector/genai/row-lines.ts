// Resolved rows as lines of JSON for their tables, each under the key that the table sorts by. A line without its generation
// is what is compared: a row that says what it said before is not written again.
import {
  auditEventRows,
  embeddingRows,
  errorRows,
  healthCheckRows,
  llmCallRows,
  messageRows,
  toolCallRows,
  turnRows,
} from '@tallylight/storage/clickhouse/genai-tables.ts'
import type { TableDefinition } from '@tallylight/storage/clickhouse/tables.ts'
import type { RetentionClass } from '../config.ts'
import type { TenantId } from '../receive/request.ts'
import type { Content } from './fact.ts'
import type { Resolved } from './rows.ts'

export type RowTable = {
  readonly table: TableDefinition
  readonly retention: RetentionClass
  /** Of the sort key what stands behind tenant, hour and trace. */
  readonly key: readonly string[]
  readonly rowsOf: (resolved: Resolved) => readonly object[]
}

export const rowTables: readonly RowTable[] = [
  { table: llmCallRows, retention: 'chat', key: ['SpanId'], rowsOf: (resolved) => resolved.llmCalls },
  { table: toolCallRows, retention: 'tools', key: ['SpanId'], rowsOf: (resolved) => resolved.toolCalls },
  { table: turnRows, retention: 'chat', key: ['TurnId'], rowsOf: (resolved) => resolved.turns },
  {
    table: messageRows,
    retention: 'chat',
    key: ['SpanId', 'Direction', 'Index'],
    rowsOf: (resolved) => resolved.messages,
  },
  { table: embeddingRows, retention: 'chat', key: ['SpanId'], rowsOf: (resolved) => resolved.embeddings },
  {
    table: healthCheckRows,
    retention: 'chat',
    key: ['SpanId', 'FactId'],
    rowsOf: (resolved) => resolved.healthChecks,
  },
  { table: errorRows, retention: 'errors', key: ['SpanId', 'FactId'], rowsOf: (resolved) => resolved.errors },
  {
    table: auditEventRows,
    retention: 'audit',
    key: ['SpanId', 'FactId'],
    rowsOf: (resolved) => resolved.auditEvents,
  },
]

/** A row on its way: each part is made when it is asked for, since most rows are new and are compared with nothing. */
export type Line = {
  /** The JSON of the sort key's columns. */
  readonly key: () => string
  /** Everything but the generation, which says nothing of the row itself. */
  readonly said: () => string
  readonly text: () => string
  /** A call of which the tokens are known and the price is not. */
  readonly isUnpriced: boolean
}

type AnyRow = Readonly<Record<string, unknown>> & {
  readonly TenantId: TenantId
  readonly TraceId: string
  readonly Timestamp: bigint
}

const nanosecondsPerHour = 3_600_000_000_000n

export function linesOf(
  rowTable: RowTable,
  resolved: Resolved,
  retentionDaysOf: (tenant: TenantId, retention: RetentionClass) => number,
): readonly Line[] {
  return rowTable.rowsOf(resolved).map((each) => {
    const row = each as AnyRow
    const said = (): string => JSON.stringify(columnsOf(row, retentionDaysOf(row.TenantId, rowTable.retention)))
    return {
      key: () => keyOf(rowTable, row, row.Timestamp - (row.Timestamp % nanosecondsPerHour)),
      said,
      text: () => `${said().slice(0, -1)},"Generation":${resolved.generation}}\n`,
      isUnpriced: row.PriceVersion === '' && row.CostNanoUsd === null && hasTokens(row),
    }
  })
}

function hasTokens({ InputTokens = null, OutputTokens = null }: AnyRow): boolean {
  return InputTokens !== null || OutputTokens !== null
}

/** The JSON of a row's key, as `key` of its line. `hour` is its beginning. */
export function keyOf(rowTable: RowTable, row: Readonly<Record<string, unknown>>, hour: bigint): string {
  const key: Record<string, unknown> = {
    TenantId: row.TenantId,
    Timestamp: timeText(hour),
    TraceId: row.TraceId,
  }
  for (const name of rowTable.key) key[name] = row[name]
  return JSON.stringify(key)
}

/** Says that there is no row under a key any more. It is kept as long as the longest row could be. */
export function deletionOf(key: string, generation: number, retentionDays: number): string {
  return `${key.slice(0, -1)},"RetentionDays":${retentionDays},"Generation":${generation},"IsDeleted":1}\n`
}

function columnsOf(row: AnyRow, retentionDays: number): Record<string, unknown> {
  const columns: Record<string, unknown> = { RetentionDays: retentionDays }
  for (const [name, value] of Object.entries(row)) {
    if (name === 'Generation') continue
    if (typeof value === 'bigint') columns[name] = name === 'Timestamp' ? timeText(value) : `${value}`
    else if (isContent(value)) {
      columns[`${name}Hash`] = value.hash
      columns[`${name}Bytes`] = value.bytes
      columns[`${name}Preview`] = value.preview
    } else if (value !== null || !contentColumns.has(name)) columns[name] = value
  }
  return columns
}

/** Null there is no text at all: its columns keep their defaults. */
const contentColumns = new Set(['Arguments', 'Result', 'Content'])

function isContent(value: unknown): value is Content {
  return typeof value === 'object' && value !== null && 'hash' in value && 'preview' in value
}

/** Nanoseconds since 1970 as the decimal seconds that a DateTime64 reads. */
function timeText(unixNano: bigint): string {
  return `${unixNano / 1_000_000_000n}.${String(unixNano % 1_000_000_000n).padStart(9, '0')}`
}
