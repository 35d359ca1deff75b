// What one span or log record says about calls, tool calls, messages, turns, health, errors and audit. Facts are the truth
// from which rows are resolved: stored as `encodeFact` writes them, read back after a restart. They hold what `resolve`
// needs and no text of content: that is stored once beside them, under its hash.
import assert from 'node:assert/strict'
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
  | 'http'

/** A text that is kept whole elsewhere. `preview` is its beginning. A tenant whose policy is metadata only has '' for both
 *  `hash` and `preview`: a hash of a short text can be guessed. */
export type Content = { readonly hash: string; readonly bytes: number; readonly preview: string }

export type ContentType =
  | 'text'
  | 'reasoning'
  /** JSON: `{id, name, arguments}`. */
  | 'tool_call'
  /** JSON: `{id, name, response}`, or the text of the result alone where nothing more was said. */
  | 'tool_call_response'
  /** Media, files and whatever else a part may be: its JSON. */
  | 'json'
  /** Should have been JSON and is not: the text as it came. */
  | 'malformed'

export type MessageFact = {
  readonly direction: 'input' | 'output'
  readonly role: string
  readonly type: ContentType
  readonly content: Content
  /** The tool that a `tool_call` asks for. */
  readonly toolName?: string
}

/** Where the record stands: often said only on an ancestor, and then inherited. */
export type Scene = {
  readonly conversationId?: string
  /** May be the session of a browser: counts only where nobody on the way up names a conversation. */
  readonly sessionId?: string
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
export type TurnStatus = ActionStatus | 'blocked'

export type CallSays = {
  readonly kind: 'call' | 'embedding'
  readonly provider: string
  readonly requestModel: string
  readonly model: string
  readonly responseId: string
  /** Asked for as a stream, as far as the record says. */
  readonly isStreaming: boolean
  readonly usage: Usage
  readonly usageSource: UsageSource
  /** The sender counts streams with a tokenizer, and does not tell which calls are streams. */
  readonly isDoubtful?: true
  readonly finishReason: string
  readonly timeToFirstTokenNano?: number
  /** Of our instrumentation: names the reservation that this call settles. */
  readonly callId: string
  /** Counts from 1; 0 where the record does not say. */
  readonly attempt: number
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
  /** Seen between two calls only: it includes whatever was done there, and gives way to a span of the tool itself. */
  readonly isSeenOnWire?: true
}

export type TurnSays = {
  /** Our turn span is the turn; an agent or wrapper is one where nothing outside it is. */
  readonly kind: 'turn' | 'agent' | 'wrapper'
  readonly name: string
  readonly question?: Content
  readonly answer?: Content
  readonly status?: TurnStatus
  readonly blockReason?: string
  readonly timeToFirstTokenNano?: number
}

/** A log record's messages (and no numbers: they repeat the span's) for the span it belongs to. */
export type MessagesSays = {
  readonly kind: 'messages'
  /** A whole list, or one message of a list that came as one record per message. */
  readonly extent: 'list' | 'one'
  readonly ordinal: number
  readonly messages: readonly MessageFact[]
  readonly finishReason: string
}

export type HealthStatus = 'healthy' | 'unhealthy' | 'timeout'

/** Tokens counted by the collector (`estimate.ts`), for a stream that told none or a sender that is doubted. */
export type Estimate = {
  readonly usage: Usage
  /** Of the texts of the input alone, without what a provider's format adds. */
  readonly inputTextTokens: number
}

export type Says =
  | CallSays
  | ToolSays
  | TurnSays
  | MessagesSays
  /** The name of the MCP server that this record's siblings speak to. */
  | { readonly kind: 'mcp-server'; readonly name: string }
  | {
      readonly kind: 'health'
      readonly target: string
      readonly eventType: string
      readonly status: HealthStatus
      readonly responseTimeNano?: number
      readonly metadata: Readonly<Record<string, string>>
    }
  /** What one point of a prober's metrics says of a look at a server; together they are the look. */
  | {
      readonly kind: 'health-reading'
      readonly target: string
      readonly prober: string
      readonly status?: HealthStatus
      readonly message: string
      readonly responseTimeNano?: number
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
  /** The fact's failure: of the span's own operation, told in a log record, or one that was recorded by itself. */
  | { readonly kind: 'error'; readonly of: 'operation' | 'itself' }
  | ({ readonly kind: 'estimate' } & Estimate)
  /** Says nothing of its own, but is an ancestor, or carries a scene or a failure. */
  | { readonly kind: 'link' }

export type Fact = {
  /** Unique within (tenant, trace, span): `span` for the span itself, a digest for a log record or metric point, `estimate`. */
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

/** What the collector counted for the call of a span. */
export function estimateFact(span: Fact, estimate: Estimate): Fact {
  const { failure: _failure, ...fact } = span
  return { ...fact, id: 'estimate', parentSpanId: '', dialect: '', scene: {}, says: { kind: 'estimate', ...estimate } }
}

/** A span that says nothing of its own, and may say whose its children are. The same whether it was seen as it came or is
 *  read back: rows must not depend on which. */
export function linkFact(span: Omit<Fact, 'id' | 'serviceName' | 'dialect' | 'failure' | 'says'>): Fact {
  const { spanId, parentSpanId, startUnixNano, endUnixNano } = span
  const endsBefore = endUnixNano < startUnixNano
  return {
    ...span,
    id: 'span',
    parentSpanId: parentSpanId === spanId ? '' : parentSpanId,
    serviceName: '',
    dialect: '',
    endUnixNano: endsBefore ? startUnixNano : endUnixNano,
    says: { kind: 'link' },
  }
}

const version = 1

/** One line of JSON; times are decimal strings. The same fact gives the same text. */
export function encodeFact(fact: Fact): string {
  return JSON.stringify({
    version,
    ...fact,
    startUnixNano: `${fact.startUnixNano}`,
    endUnixNano: `${fact.endUnixNano}`,
  })
}

/** Of what `encodeFact` wrote, and of nothing else: stored facts are ours and are not judged again. */
export function decodeFact(text: string): Fact {
  const { version: written, ...fact } = JSON.parse(text) as Omit<Fact, 'startUnixNano' | 'endUnixNano'> & {
    readonly version: number
    readonly startUnixNano: string
    readonly endUnixNano: string
  }
  assert.equal(written, version, `a stored fact has version ${written}, this collector reads ${version}`)
  return { ...fact, startUnixNano: BigInt(fact.startUnixNano), endUnixNano: BigInt(fact.endUnixNano) }
}
