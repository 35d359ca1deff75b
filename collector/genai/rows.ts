// The resolved rows, with the columns of their tables. Unknown counts are null, unknown texts ''. A row is never changed: one
// with a higher `Generation` (facts seen) supersedes it.

import type { UsageSource } from '@tallylight/instrumentation/usage/usage.ts'
import type { TenantId } from '../receive/request.ts'
import type { ActionStatus, Content, ContentType, HealthStatus, TurnStatus } from './fact.ts'
import type { NanoUsd } from './price.ts'

export type Row = {
  readonly TenantId: TenantId
  readonly TraceId: string
  readonly Timestamp: bigint
  readonly Generation: number
}

type Tokens = {
  readonly InputTokens: number | null
  readonly CacheReadTokens: number | null
  readonly CacheWriteTokens: number | null
  readonly OutputTokens: number | null
  readonly ReasoningTokens: number | null
}

/** Key: TenantId, TraceId, SpanId. */
export type LlmCallRow = Row &
  Tokens & {
    readonly TenantLabel: string
    readonly ServiceName: string
    readonly SpanId: string
    readonly TurnId: string
    readonly CallId: string
    readonly Attempt: number
    readonly Provider: string
    readonly RequestModel: string
    readonly Model: string
    readonly ConversationId: string
    readonly UserId: string
    readonly ResponseId: string
    /** A time to first token is known. */
    readonly Streaming: boolean
    readonly UsageSource: UsageSource
    /** Null is unpriced; `PriceVersion` is then ''. */
    readonly CostNanoUsd: NanoUsd | null
    readonly PriceVersion: string
    readonly FinishReason: string
    readonly ErrorType: string
    readonly DurationNano: bigint
    readonly TimeToFirstTokenNano: bigint | null
  }

/** Key: TenantId, TraceId, SpanId. */
export type ToolCallRow = Row & {
  readonly TenantLabel: string
  readonly ServiceName: string
  readonly TurnId: string
  readonly SpanId: string
  readonly Name: string
  readonly CallId: string
  readonly Type: string
  readonly Provider: string
  readonly McpServer: string
  readonly Arguments: Content | null
  readonly Result: Content | null
  readonly Status: ActionStatus
  readonly ErrorType: string
  readonly DurationNano: bigint
  readonly ConversationId: string
  readonly UserId: string
}

/** Key: TenantId, TraceId, TurnId. */
export type TurnRow = Row &
  Tokens & {
    readonly TenantLabel: string
    readonly ServiceName: string
    readonly TurnId: string
    readonly ConversationId: string
    readonly UserId: string
    readonly Channel: string
    readonly QuestionPreview: string
    readonly AnswerPreview: string
    readonly Calls: number
    readonly ToolCalls: number
    readonly ToolsUsed: readonly string[]
    readonly McpServers: readonly string[]
    /** Of the calls with a price; null when none has one. */
    readonly CostNanoUsd: NanoUsd | null
    readonly DurationNano: bigint
    readonly TimeToFirstTokenNano: bigint | null
    readonly Status: TurnStatus
    readonly BlockReason: string
    readonly ClientAddress: string
    readonly UserAgent: string
  }

/** Key: TenantId, TraceId, SpanId, FactId. `FactId` is `span` for the failure of the span's own operation, which the span
 *  itself and log records may tell, and the id of the fact for an error that was recorded by itself. */
export type ErrorRow = Row & {
  readonly ServiceName: string
  readonly SpanId: string
  readonly FactId: string
  readonly TurnId: string
  readonly ConversationId: string
  readonly UserId: string
  readonly Type: string
  readonly Message: string
  readonly Stack: string
}

/** Key: TenantId, TraceId, SpanId, FactId. */
export type AuditEventRow = Row & {
  readonly SpanId: string
  readonly FactId: string
  readonly Actor: string
  readonly Action: string
  readonly ResourceType: string
  readonly ResourceId: string
  readonly Before: string
  readonly After: string
  readonly ClientAddress: string
  readonly UserAgent: string
}

/** Key: TenantId, TraceId, SpanId. */
export type EmbeddingRow = Row & {
  readonly ServiceName: string
  readonly SpanId: string
  /** For the ledger; its table has no column of it. */
  readonly CallId: string
  readonly Provider: string
  readonly RequestModel: string
  readonly Model: string
  readonly InputTokens: number | null
  readonly CostNanoUsd: NanoUsd | null
  readonly PriceVersion: string
  readonly ErrorType: string
  readonly DurationNano: bigint
  readonly ConversationId: string
  readonly UserId: string
}

/** Key: TenantId, TraceId, SpanId, Direction, Index. */
export type MessageRow = Row & {
  readonly SpanId: string
  readonly ConversationId: string
  readonly UserId: string
  readonly Direction: 'input' | 'output'
  readonly Index: number
  readonly Role: string
  readonly Content: Content
  readonly ContentType: ContentType
}

/** Key: TenantId, TraceId, SpanId, FactId. */
export type HealthCheckRow = Row & {
  readonly SpanId: string
  readonly FactId: string
  readonly Target: string
  readonly Status: HealthStatus
  readonly EventType: string
  readonly ResponseTimeNano: bigint
  readonly ErrorMessage: string
  readonly Metadata: Readonly<Record<string, string>>
}

/** Rows that an earlier generation may have written and that are none any more: a span that turned out to be a wrapper, a turn
 *  that turned out to stand inside another. To be written as deletions, if they ever were written. Of `wrapperMessages`, which
 *  nobody counts, none is named. */
export type Gone =
  | {
      readonly table: 'llm_calls' | 'tool_calls' | 'embeddings' | 'messages' | 'health_checks'
      readonly spanId: string
    }
  | { readonly table: 'turns'; readonly turnId: string }
  | { readonly table: 'errors'; readonly spanId: string; readonly factId: string }
  /** Indexes from `fromIndex` up to, not including, `toIndex`. */
  | {
      readonly table: 'messages'
      readonly spanId: string
      readonly direction: 'input' | 'output'
      readonly fromIndex: number
      readonly toIndex: number
    }

/** A stream that told no usage, or not all of it, while its texts are known: `estimateUsage` can count them. */
export type Estimable = {
  readonly spanId: string
  readonly model: string
  /** Hashes of texts, in order. */
  readonly input: readonly string[]
  readonly output: readonly string[]
}

export type Resolved = {
  readonly generation: number
  readonly llmCalls: readonly LlmCallRow[]
  readonly toolCalls: readonly ToolCallRow[]
  readonly messages: readonly MessageRow[]
  /** What turns, agents, wrappers and other records around or beside calls hold of messages. */
  readonly wrapperMessages: readonly MessageRow[]
  readonly turns: readonly TurnRow[]
  readonly embeddings: readonly EmbeddingRow[]
  readonly healthChecks: readonly HealthCheckRow[]
  readonly errors: readonly ErrorRow[]
  readonly auditEvents: readonly AuditEventRow[]
  readonly gone: readonly Gone[]
  readonly estimable: readonly Estimable[]
  /** Parents of facts that no fact stands for: a lookup of their spans may tell more (`linkOf`). */
  readonly missingParents: readonly string[]
}
