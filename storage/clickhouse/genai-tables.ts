// The resolved rows of GenAI records, column by column: what the views llm_calls, tool_calls, turns, messages,
// wrapper_messages, embeddings, health_checks, errors and audit_events read. A row is never changed: one with a higher `Generation` supersedes it, also by
// saying that it is none any more (`IsDeleted`), so writing a row twice changes nothing.
import type { TableDefinition } from './tables.ts'

const key = [
  ['TenantId', 'LowCardinality(String)'],
  ['RetentionDays', 'UInt16'],
  ['Timestamp', 'DateTime64(9)'],
  ['TraceId', 'String'],
] as const
const who = [
  ['ConversationId', 'String'],
  ['UserId', 'String'],
] as const
const tokens = [
  ['InputTokens', 'Nullable(UInt64)'],
  ['CacheReadTokens', 'Nullable(UInt64)'],
  ['CacheWriteTokens', 'Nullable(UInt64)'],
  ['OutputTokens', 'Nullable(UInt64)'],
  ['ReasoningTokens', 'Nullable(UInt64)'],
] as const
const generation = [
  ['Generation', 'UInt32'],
  ['IsDeleted', 'UInt8'],
] as const

export const llmCallRows = {
  name: 'llm_call_rows',
  dayColumn: 'Timestamp',
  columns: [
    ...key,
    ['TenantLabel', 'LowCardinality(String)'],
    ['ServiceName', 'LowCardinality(String)'],
    ['SpanId', 'String'],
    ['TurnId', 'String'],
    ['CallId', 'String'],
    ['Attempt', 'UInt32'],
    ['Provider', 'LowCardinality(String)'],
    ['RequestModel', 'LowCardinality(String)'],
    ['Model', 'LowCardinality(String)'],
    ...who,
    ['ResponseId', 'String'],
    ['Streaming', 'Bool'],
    ...tokens,
    ['UsageSource', 'LowCardinality(String)'],
    ['CostNanoUsd', 'Nullable(Int64)'],
    ['PriceVersion', 'LowCardinality(String)'],
    ['FinishReason', 'LowCardinality(String)'],
    ['ErrorType', 'LowCardinality(String)'],
    ['DurationNano', 'UInt64'],
    ['TimeToFirstTokenNano', 'Nullable(UInt64)'],
    ['IsProbe', 'Bool'],
    ...generation,
  ],
} as const satisfies TableDefinition

export const toolCallRows = {
  name: 'tool_call_rows',
  dayColumn: 'Timestamp',
  columns: [
    ...key,
    ['TenantLabel', 'LowCardinality(String)'],
    ['ServiceName', 'LowCardinality(String)'],
    ['TurnId', 'String'],
    ['SpanId', 'String'],
    ['Name', 'LowCardinality(String)'],
    ['CallId', 'String'],
    ['Type', 'LowCardinality(String)'],
    ['Provider', 'LowCardinality(String)'],
    ['McpServer', 'LowCardinality(String)'],
    ['ArgumentsHash', 'String'],
    ['ArgumentsBytes', 'UInt32'],
    ['ArgumentsPreview', 'String'],
    ['ResultHash', 'String'],
    ['ResultBytes', 'UInt32'],
    ['ResultPreview', 'String'],
    ['Status', 'LowCardinality(String)'],
    ['ErrorType', 'LowCardinality(String)'],
    ['DurationNano', 'UInt64'],
    ...who,
    ...generation,
  ],
} as const satisfies TableDefinition

export const turnRows = {
  name: 'turn_rows',
  dayColumn: 'Timestamp',
  columns: [
    ...key,
    ['TenantLabel', 'LowCardinality(String)'],
    ['ServiceName', 'LowCardinality(String)'],
    ['TurnId', 'String'],
    ...who,
    ['Channel', 'LowCardinality(String)'],
    ['QuestionPreview', 'String'],
    ['AnswerPreview', 'String'],
    ['Calls', 'UInt32'],
    ['ToolCalls', 'UInt32'],
    // The tables hold few distinct names, but one turn may bring more than a dictionary of ours has room for.
    ['ToolsUsed', 'Array(String)'],
    ['McpServers', 'Array(String)'],
    ...tokens,
    ['CostNanoUsd', 'Nullable(Int64)'],
    ['DurationNano', 'UInt64'],
    ['TimeToFirstTokenNano', 'Nullable(UInt64)'],
    ['Status', 'LowCardinality(String)'],
    ['BlockReason', 'String'],
    ['ClientAddress', 'String'],
    ['UserAgent', 'String'],
    ...generation,
  ],
} as const satisfies TableDefinition

export const messageRows = {
  name: 'message_rows',
  dayColumn: 'Timestamp',
  columns: [
    ...key,
    ['SpanId', 'String'],
    ...who,
    ['Direction', 'LowCardinality(String)'],
    ['Index', 'UInt32'],
    ['Role', 'LowCardinality(String)'],
    ['ContentHash', 'String'],
    ['ContentBytes', 'UInt32'],
    ['ContentPreview', 'String'],
    ['ContentType', 'LowCardinality(String)'],
    ...generation,
  ],
} as const satisfies TableDefinition

/** Of what stands around or beside calls: in a table of its own, so that nobody who reads or counts messages has them twice. */
export const wrapperMessageRows = {
  ...messageRows,
  name: 'wrapper_message_rows',
} as const satisfies TableDefinition

export const embeddingRows = {
  name: 'embedding_rows',
  dayColumn: 'Timestamp',
  columns: [
    ...key,
    ['ServiceName', 'LowCardinality(String)'],
    ['SpanId', 'String'],
    ['Provider', 'LowCardinality(String)'],
    ['RequestModel', 'LowCardinality(String)'],
    ['Model', 'LowCardinality(String)'],
    ['InputTokens', 'Nullable(UInt64)'],
    ['CostNanoUsd', 'Nullable(Int64)'],
    ['PriceVersion', 'LowCardinality(String)'],
    ['ErrorType', 'LowCardinality(String)'],
    ['DurationNano', 'Nullable(UInt64)'],
    ...who,
    ...generation,
  ],
} as const satisfies TableDefinition

export const healthCheckRows = {
  name: 'health_check_rows',
  dayColumn: 'Timestamp',
  columns: [
    ...key,
    ['SpanId', 'String'],
    ['FactId', 'String'],
    ['Target', 'LowCardinality(String)'],
    ['Status', 'LowCardinality(String)'],
    ['EventType', 'LowCardinality(String)'],
    ['ResponseTimeNano', 'UInt64'],
    ['ErrorMessage', 'String'],
    ['Metadata', 'Map(LowCardinality(String), String)'],
    ...generation,
  ],
} as const satisfies TableDefinition

export const errorRows = {
  name: 'error_rows',
  dayColumn: 'Timestamp',
  columns: [
    ...key,
    ['ServiceName', 'LowCardinality(String)'],
    ['SpanId', 'String'],
    ['FactId', 'String'],
    ['TurnId', 'String'],
    ...who,
    ['Type', 'LowCardinality(String)'],
    ['Message', 'String'],
    ['Stack', 'String'],
    ...generation,
  ],
} as const satisfies TableDefinition

export const auditEventRows = {
  name: 'audit_event_rows',
  dayColumn: 'Timestamp',
  columns: [
    ...key,
    ['SpanId', 'String'],
    ['FactId', 'String'],
    ['Actor', 'String'],
    ['Action', 'LowCardinality(String)'],
    ['ResourceType', 'LowCardinality(String)'],
    ['ResourceId', 'String'],
    ['Before', 'String'],
    ['After', 'String'],
    ['ClientAddress', 'String'],
    ['UserAgent', 'String'],
    ...generation,
  ],
} as const satisfies TableDefinition

export const resolvedTables: readonly TableDefinition[] = [
  llmCallRows,
  toolCallRows,
  turnRows,
  messageRows,
  wrapperMessageRows,
  embeddingRows,
  healthCheckRows,
  errorRows,
  auditEventRows,
]
