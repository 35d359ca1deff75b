// What one span or log record says about calls, tool calls, messages, turns, health, errors and audit. Facts are the truth
// from which rows are resolved: stored as `encodeFact` writes them, read back after a restart. They hold what `resolve`
// needs and no text of content: that is stored once beside them, under its hash.

import type { Usage, UsageSource } from '@tallylight/instrumentation/usage/usage.ts'
import type { TenantId } from '../receive/request.ts'

export type Dialect =
  | 'tallylight'
  | 'otel'
  | 'mcp'
  | 'openinference'
  | 'openllmetry'
  | 'vercel-ai'
  | 'langfuse'
  | 'openlit'
  | 'pydantic-ai'
  | 'strands'
  | 'langsmith'
  | 'azure-ai'
  | 'anthropic-sdk'

/** A text that is kept whole elsewhere. `preview` is its beginning, or all of it when `bytes` says so. */
export type Content = { readonly hash: string; readonly bytes: number; readonly preview: string }

export type ContentType =
  | 'text'
  | 'reasoning'
  | 'tool_call'
  | 'tool_call_response'
  /** Media, files and whatever else a part may be: its JSON. */
  | 'json'
  /** Should have been JSON and is not: the text as it came. */
  | 'malformed'

export type MessageFact = {
  readonly direction: 'input' | 'output'
  /** Counts parts per direction from 0; messages keep their order. */
  readonly index: number
  readonly role: string
  readonly type: ContentType
  readonly content: Content
  /** The tool that a `tool_call` asks for. */
  readonly toolName?: string
}

/** Where the record stands: often said only on an ancestor, and then inherited. */
export type Scene = {
  readonly conversationId?: string
  readonly userId?: string
  readonly tenantLabel?: string
  readonly turnId?: string
  readonly channel?: string
  readonly clientAddress?: string
  readonly userAgent?: string
  readonly isProbe?: true
}

export type Failure = { readonly type: string; readonly message: string; readonly stack: string }

export type ActionStatus = 'pending' | 'success' | 'failure' | 'timeout' | 'retry'

export type CallSays = {
  readonly kind: 'call' | 'embedding'
  readonly provider: string
  readonly requestModel: string
  readonly model: string
  readonly responseId: string
  readonly isStreaming: boolean
  readonly usage: Usage
  readonly usageSource: UsageSource
  readonly finishReason: string
  readonly timeToFirstTokenNano?: number
  /** Of our instrumentation: names the reservation that this call settles. */
  readonly callId: string
  readonly attempt: number
  /** Equal for records that speak of one call without being related (Logfire's streams). */
  readonly mergeKey?: string
  readonly messages: readonly MessageFact[]
}

export type ToolSays = {
  readonly kind: 'tool'
  readonly name: string
  readonly callId: string
  readonly toolType: string
  readonly provider: string
  readonly mcp?: 'client' | 'server'
  readonly mcpServer: string
  readonly arguments?: Content
  readonly result?: Content
  readonly status: ActionStatus
}

export type TurnSays = {
  /** Our turn span is the turn; an agent or wrapper is one where nothing outside it is. */
  readonly kind: 'turn' | 'agent' | 'wrapper'
  readonly name: string
  readonly question?: Content
  readonly answer?: Content
  readonly status?: string
  readonly blockReason?: string
  readonly timeToFirstTokenNano?: number
}

export type Says =
  | CallSays
  | ToolSays
  | TurnSays
  /** A log record's messages (and no numbers: they repeat the span's) for the span it belongs to. */
  | { readonly kind: 'messages'; readonly messages: readonly MessageFact[]; readonly finishReason: string }
  /** The name of the MCP server that this record's siblings speak to. */
  | { readonly kind: 'mcp-server'; readonly name: string }
  | {
      readonly kind: 'health'
      readonly target: string
      readonly eventType: string
      readonly status: 'healthy' | 'unhealthy' | 'timeout'
      readonly metadata: Readonly<Record<string, string>>
    }
  | {
      readonly kind: 'audit'
      readonly actor: string
      readonly action: string
      readonly resourceType: string
      readonly resourceId: string
      readonly before: string
      readonly after: string
    }
  /** Tokens counted by the collector for a stream that told none (`estimate.ts`). */
  | { readonly kind: 'estimate'; readonly usage: Usage }
  /** Says nothing of its own, but is an ancestor, or carries a scene or a failure. */
  | { readonly kind: 'link' }

export type Fact = {
  /** Unique within (tenant, trace, span): `span` for the span itself, a digest for a log record, `estimate`. */
  readonly id: string
  readonly tenantId: TenantId
  readonly traceId: string
  readonly spanId: string
  readonly parentSpanId: string
  readonly serviceName: string
  readonly dialect: Dialect | ''
  readonly startUnixNano: bigint
  /** Never before the start. */
  readonly endUnixNano: bigint
  readonly scene: Scene
  readonly failure?: Failure
  readonly says: Says
}

/** One line of JSON; times are decimal strings. The same fact gives the same text. */
export function encodeFact(fact: Fact): string {
  return JSON.stringify({ ...fact, startUnixNano: `${fact.startUnixNano}`, endUnixNano: `${fact.endUnixNano}` })
}

/** Of what `encodeFact` wrote, and of nothing else: stored facts are ours and are not judged again. */
export function decodeFact(text: string): Fact {
  const fact = JSON.parse(text) as Omit<Fact, 'startUnixNano' | 'endUnixNano'> & {
    readonly startUnixNano: string
    readonly endUnixNano: string
  }
  return { ...fact, startUnixNano: BigInt(fact.startUnixNano), endUnixNano: BigInt(fact.endUnixNano) }
}
