// Resolved rows in the columns of their tables, each under the key that the table sorts by.
import {
  type AnyBlock,
  type ArrayColumn,
  appendEnd,
  appendIndex,
  type Block,
  type Column,
  type LowCardinalityColumn,
  type NullableColumn,
  openBlock,
  type StringColumn,
} from '@tallylight/storage/clickhouse/block.ts'
import { internWord } from '@tallylight/storage/clickhouse/dictionary.ts'
import {
  auditEventRows,
  embeddingRows,
  errorRows,
  healthCheckRows,
  llmCallRows,
  messageRows,
  toolCallRows,
  turnRows,
  wrapperMessageRows,
} from '@tallylight/storage/clickhouse/genai-tables.ts'
import {
  appendBigInt64,
  appendEmptyString,
  appendUint8,
  appendUint16,
  appendUint32,
  appendWord,
  appendZeros,
} from '@tallylight/storage/clickhouse/stream.ts'
import type { TableDefinition } from '@tallylight/storage/clickhouse/tables.ts'
import type { RetentionClass } from '../config.ts'
import type { TenantId } from '../receive/request.ts'
import type { Content } from './fact.ts'
import type { MessageRow, Resolved, Row } from './rows.ts'

/** A row of any of the tables, for what is the same in all. */
export type AnyRow = Row & { readonly [column: string]: unknown }

/** What a table sorts by: tenant, hour, trace, and the columns behind them. */
export type RowKey = {
  readonly TenantId: TenantId
  /** Its beginning, in Unix nanoseconds, as the table reckons: `toStartOfHour(Timestamp)`. */
  readonly hour: bigint
  readonly TraceId: string
  readonly rest: readonly (string | number)[]
}

export type RowTable = {
  readonly table: TableDefinition
  readonly retention: RetentionClass
  /** Of the sort key what stands behind tenant, hour and trace. */
  readonly key: readonly string[]
  readonly rowsOf: (resolved: Resolved) => readonly AnyRow[]
  readonly openBlock: () => AnyBlock
  readonly append: (block: AnyBlock, row: AnyRow, retentionDays: number) => void
}

/** The columns that every table begins and ends with. */
type CommonColumns = Pick<
  Block<typeof errorRows>['columns'],
  'TenantId' | 'RetentionDays' | 'Timestamp' | 'TraceId' | 'Generation' | 'IsDeleted'
>
type TokenColumns = Pick<
  Block<typeof llmCallRows>['columns'],
  'InputTokens' | 'CacheReadTokens' | 'CacheWriteTokens' | 'OutputTokens' | 'ReasoningTokens'
>

type MessageColumns = Omit<Block<typeof messageRows>['columns'], keyof CommonColumns>

type RowsOf<List extends keyof Resolved> = Resolved[List] extends readonly (infer Each)[] ? Each : never

function rowTable<const Table extends TableDefinition, List extends keyof Resolved>(
  table: Table,
  retention: RetentionClass,
  key: readonly string[],
  list: List,
  append: (columns: Block<Table>['columns'], row: RowsOf<List>) => void,
): RowTable {
  return {
    table,
    retention,
    key,
    // Each list of `Resolved` has the rows of one table, and this is where both are said.
    rowsOf: (resolved) => resolved[list] as unknown as readonly AnyRow[],
    openBlock: () => openBlock(table, 0),
    append: (block, row, retentionDays) => {
      appendCommon(block.columns as unknown as CommonColumns, row, retentionDays)
      append(block.columns as Block<Table>['columns'], row as unknown as RowsOf<List>)
      block.rows++
    },
  }
}

function appendCommon(columns: CommonColumns, row: Row, retentionDays: number): void {
  word(columns.TenantId, row.TenantId)
  appendUint16(columns.RetentionDays.data, retentionDays)
  appendBigInt64(columns.Timestamp.data, row.Timestamp)
  appendWord(columns.TraceId.data, row.TraceId)
  appendUint32(columns.Generation.data, row.Generation)
  appendUint8(columns.IsDeleted.data, 0)
}

function appendMessage(columns: MessageColumns, row: MessageRow): void {
  appendWord(columns.SpanId.data, row.SpanId)
  appendWord(columns.ConversationId.data, row.ConversationId)
  appendWord(columns.UserId.data, row.UserId)
  word(columns.Direction, row.Direction)
  appendUint32(columns.Index.data, row.Index)
  word(columns.Role, row.Role)
  appendWord(columns.ContentHash.data, row.Content.hash)
  appendUint32(columns.ContentBytes.data, row.Content.bytes)
  appendWord(columns.ContentPreview.data, row.Content.preview)
  word(columns.ContentType, row.ContentType)
}

export const rowTables: readonly RowTable[] = [
  rowTable(llmCallRows, 'chat', ['SpanId'], 'llmCalls', (columns, row) => {
    word(columns.TenantLabel, row.TenantLabel)
    word(columns.ServiceName, row.ServiceName)
    appendWord(columns.SpanId.data, row.SpanId)
    appendWord(columns.TurnId.data, row.TurnId)
    appendWord(columns.CallId.data, row.CallId)
    appendUint32(columns.Attempt.data, row.Attempt)
    word(columns.Provider, row.Provider)
    word(columns.RequestModel, row.RequestModel)
    word(columns.Model, row.Model)
    appendWord(columns.ConversationId.data, row.ConversationId)
    appendWord(columns.UserId.data, row.UserId)
    appendWord(columns.ResponseId.data, row.ResponseId)
    appendUint8(columns.Streaming.data, row.Streaming ? 1 : 0)
    appendTokens(columns, row)
    word(columns.UsageSource, row.UsageSource)
    maybe(columns.CostNanoUsd, row.CostNanoUsd)
    word(columns.PriceVersion, row.PriceVersion)
    word(columns.FinishReason, row.FinishReason)
    word(columns.ErrorType, row.ErrorType)
    appendBigInt64(columns.DurationNano.data, row.DurationNano)
    maybe(columns.TimeToFirstTokenNano, row.TimeToFirstTokenNano)
    appendUint8(columns.IsProbe.data, 0)
  }),
  rowTable(toolCallRows, 'tools', ['SpanId'], 'toolCalls', (columns, row) => {
    word(columns.TenantLabel, row.TenantLabel)
    word(columns.ServiceName, row.ServiceName)
    appendWord(columns.TurnId.data, row.TurnId)
    appendWord(columns.SpanId.data, row.SpanId)
    word(columns.Name, row.Name)
    appendWord(columns.CallId.data, row.CallId)
    word(columns.Type, row.Type)
    word(columns.Provider, row.Provider)
    word(columns.McpServer, row.McpServer)
    const { Arguments: args = noContent, Result: result = noContent } = withoutNulls(row)
    appendWord(columns.ArgumentsHash.data, args.hash)
    appendUint32(columns.ArgumentsBytes.data, args.bytes)
    appendWord(columns.ArgumentsPreview.data, args.preview)
    appendWord(columns.ResultHash.data, result.hash)
    appendUint32(columns.ResultBytes.data, result.bytes)
    appendWord(columns.ResultPreview.data, result.preview)
    word(columns.Status, row.Status)
    word(columns.ErrorType, row.ErrorType)
    appendBigInt64(columns.DurationNano.data, row.DurationNano)
    appendWord(columns.ConversationId.data, row.ConversationId)
    appendWord(columns.UserId.data, row.UserId)
  }),
  rowTable(turnRows, 'chat', ['TurnId'], 'turns', (columns, row) => {
    word(columns.TenantLabel, row.TenantLabel)
    word(columns.ServiceName, row.ServiceName)
    appendWord(columns.TurnId.data, row.TurnId)
    appendWord(columns.ConversationId.data, row.ConversationId)
    appendWord(columns.UserId.data, row.UserId)
    word(columns.Channel, row.Channel)
    appendWord(columns.QuestionPreview.data, row.QuestionPreview)
    appendWord(columns.AnswerPreview.data, row.AnswerPreview)
    appendUint32(columns.Calls.data, row.Calls)
    appendUint32(columns.ToolCalls.data, row.ToolCalls)
    appendTexts(columns.ToolsUsed, row.ToolsUsed)
    appendTexts(columns.McpServers, row.McpServers)
    appendTokens(columns, row)
    maybe(columns.CostNanoUsd, row.CostNanoUsd)
    appendBigInt64(columns.DurationNano.data, row.DurationNano)
    maybe(columns.TimeToFirstTokenNano, row.TimeToFirstTokenNano)
    word(columns.Status, row.Status)
    appendWord(columns.BlockReason.data, row.BlockReason)
    appendWord(columns.ClientAddress.data, row.ClientAddress)
    appendWord(columns.UserAgent.data, row.UserAgent)
  }),
  rowTable(messageRows, 'chat', ['SpanId', 'Direction', 'Index'], 'messages', appendMessage),
  rowTable(wrapperMessageRows, 'chat', ['SpanId', 'Direction', 'Index'], 'wrapperMessages', appendMessage),
  rowTable(embeddingRows, 'chat', ['SpanId'], 'embeddings', (columns, row) => {
    word(columns.ServiceName, row.ServiceName)
    appendWord(columns.SpanId.data, row.SpanId)
    word(columns.Provider, row.Provider)
    word(columns.RequestModel, row.RequestModel)
    word(columns.Model, row.Model)
    maybe(columns.InputTokens, row.InputTokens)
    maybe(columns.CostNanoUsd, row.CostNanoUsd)
    word(columns.PriceVersion, row.PriceVersion)
    word(columns.ErrorType, row.ErrorType)
    maybe(columns.DurationNano, row.DurationNano)
    appendWord(columns.ConversationId.data, row.ConversationId)
    appendWord(columns.UserId.data, row.UserId)
  }),
  rowTable(healthCheckRows, 'chat', ['SpanId', 'FactId'], 'healthChecks', (columns, row) => {
    appendWord(columns.SpanId.data, row.SpanId)
    appendWord(columns.FactId.data, row.FactId)
    word(columns.Target, row.Target)
    word(columns.Status, row.Status)
    word(columns.EventType, row.EventType)
    appendBigInt64(columns.ResponseTimeNano.data, row.ResponseTimeNano)
    appendWord(columns.ErrorMessage.data, row.ErrorMessage)
    const pairs = Object.entries(row.Metadata)
    for (const [name, text] of pairs) {
      word(columns.Metadata.keys, name)
      appendWord(columns.Metadata.values.data, text)
    }
    appendEnd(columns.Metadata.ends, pairs.length)
  }),
  rowTable(errorRows, 'errors', ['SpanId', 'FactId'], 'errors', (columns, row) => {
    word(columns.ServiceName, row.ServiceName)
    appendWord(columns.SpanId.data, row.SpanId)
    appendWord(columns.FactId.data, row.FactId)
    appendWord(columns.TurnId.data, row.TurnId)
    appendWord(columns.ConversationId.data, row.ConversationId)
    appendWord(columns.UserId.data, row.UserId)
    word(columns.Type, row.Type)
    appendWord(columns.Message.data, row.Message)
    appendWord(columns.Stack.data, row.Stack)
  }),
  rowTable(auditEventRows, 'audit', ['SpanId', 'FactId'], 'auditEvents', (columns, row) => {
    appendWord(columns.SpanId.data, row.SpanId)
    appendWord(columns.FactId.data, row.FactId)
    appendWord(columns.Actor.data, row.Actor)
    word(columns.Action, row.Action)
    word(columns.ResourceType, row.ResourceType)
    appendWord(columns.ResourceId.data, row.ResourceId)
    appendWord(columns.Before.data, row.Before)
    appendWord(columns.After.data, row.After)
    appendWord(columns.ClientAddress.data, row.ClientAddress)
    appendWord(columns.UserAgent.data, row.UserAgent)
  }),
]

const noContent: Content = { hash: '', bytes: 0, preview: '' }

function withoutNulls({ Arguments, Result }: RowsOf<'toolCalls'>): { Arguments?: Content; Result?: Content } {
  return { ...(Arguments === null ? {} : { Arguments }), ...(Result === null ? {} : { Result }) }
}

function word(column: LowCardinalityColumn, text: string): void {
  appendIndex(column, internWord(column.dictionary, text))
}

function appendTexts({ ends, of }: ArrayColumn<StringColumn>, texts: readonly string[]): void {
  for (const text of texts) appendWord(of.data, text)
  appendEnd(ends, texts.length)
}

function maybe({ nulls, of }: NullableColumn, value: number | bigint | null): void {
  appendUint8(nulls, value === null ? 1 : 0)
  appendBigInt64(of.data, value === null ? 0n : BigInt(value))
}

function appendTokens(columns: TokenColumns, row: RowsOf<'llmCalls'> | RowsOf<'turns'>): void {
  maybe(columns.InputTokens, row.InputTokens)
  maybe(columns.CacheReadTokens, row.CacheReadTokens)
  maybe(columns.CacheWriteTokens, row.CacheWriteTokens)
  maybe(columns.OutputTokens, row.OutputTokens)
  maybe(columns.ReasoningTokens, row.ReasoningTokens)
}

/** Says that there is no row under a key any more: the key, and the defaults of all other columns. */
export function appendDeletion(
  { key }: RowTable,
  block: AnyBlock,
  gone: RowKey,
  generation: number,
  retentionDays: number,
): void {
  const values: Record<string, string | number | bigint> = {
    TenantId: gone.TenantId,
    Timestamp: gone.hour,
    TraceId: gone.TraceId,
    RetentionDays: retentionDays,
    Generation: generation,
    IsDeleted: 1,
  }
  key.forEach((name, at) => {
    values[name] = gone.rest[at] as string | number
  })
  for (const [name] of block.table.columns) appendAny(block.columns[name] as Column, values[name])
  block.rows++
}

/** A value, or where there is none the column's default. */
function appendAny(column: Column, value: string | number | bigint | undefined): void {
  switch (column.kind) {
    case 'fixed':
      if (value === undefined) appendZeros(column.data, column.width)
      else if (column.width === 8) appendBigInt64(column.data, BigInt(value))
      else if (column.width === 4) appendUint32(column.data, Number(value))
      else if (column.width === 2) appendUint16(column.data, Number(value))
      else appendUint8(column.data, Number(value))
      return
    case 'nullable':
      appendUint8(column.nulls, 1)
      appendZeros(column.of.data, column.of.width)
      return
    case 'string':
      if (value === undefined) appendEmptyString(column.data)
      else appendWord(column.data, String(value))
      return
    case 'lowCardinality':
      word(column, value === undefined ? '' : String(value))
      return
    case 'array':
    case 'map':
      appendEnd(column.ends, 0)
      return
    case 'segmentName':
      return
    default:
      column satisfies never
  }
}

const nanosecondsPerSecond = 1_000_000_000n
const nanosecondsPerHour = 3_600n * nanosecondsPerSecond

/** `hoursBegin`: of the table as it is on the server, in seconds past the full hour of UTC. With other hours than the server's
 *  a deletion would miss its row, and two rows that the server takes for one would be told apart. */
export function keyOf({ key }: RowTable, row: AnyRow, hoursBegin: number): RowKey {
  const past = (row.Timestamp - BigInt(hoursBegin) * nanosecondsPerSecond + nanosecondsPerHour) % nanosecondsPerHour
  return {
    TenantId: row.TenantId,
    hour: row.Timestamp - past,
    TraceId: row.TraceId,
    rest: key.map((name) => row[name] as string | number),
  }
}

/** Of keys of one table, trace and tenant. */
export function nameOfKey({ hour, rest }: RowKey): string {
  return `${hour}\0${rest.join('\0')}`
}

/** Whether two rows say the same. Their generations say nothing of the rows themselves. */
export function isSameRow(one: AnyRow, other: AnyRow): boolean {
  for (const name in one) if (name !== 'Generation' && !isSameValue(one[name], other[name])) return false
  return true
}

function isSameValue(one: unknown, other: unknown): boolean {
  if (one === other) return true
  if (typeof one !== 'object' || typeof other !== 'object' || one === null || other === null) return false
  const names = Object.keys(one)
  return (
    names.length === Object.keys(other).length &&
    names.every((name) => (one as Record<string, unknown>)[name] === (other as Record<string, unknown>)[name])
  )
}

/** A call of which the tokens are known and the price is not. */
export function isUnpriced(row: AnyRow): boolean {
  return row.PriceVersion === '' && row.CostNanoUsd === null && hasTokens(row)
}

function hasTokens({ InputTokens = null, OutputTokens = null }: AnyRow): boolean {
  return InputTokens !== null || OutputTokens !== null
}
