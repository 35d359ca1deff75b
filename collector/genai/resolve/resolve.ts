// From all facts of one trace to its rows. Pure: the same facts give the same rows in whatever order they came, after a restart,
// and in whichever collector. A row is superseded by the one of a higher generation (more facts seen, or the same with a newer
// price). `gone` names rows that a smaller set of facts may have made and this one does not: every call, and of messages those that
// one record alone would have told.
import type { Fact } from '../fact.ts'
import type { PriceOf } from '../price.ts'
import type { EmbeddingRow, Estimable, Gone, LlmCallRow, MessageRow, Resolved, ToolCallRow, TurnRow } from '../rows.ts'
import { type Call, costOf, findCalls, findMessagesBeside } from './calls.ts'
import { auditRows, errorRows, healthRows } from './events.ts'
import { findToolCalls, type ToolCall } from './tools.ts'
import { byStart, isLink, type Node, openTrace, startOf, type Trace, turnIdOf } from './trace.ts'
import { findAroundTurns, isTurn, possibleTurnIds, type TurnParts, turnRow } from './turns.ts'

/** A row with more facts supersedes every revision of one with fewer. 4 M facts of a trace fit into the column. */
export const revisionsMax = 512
/** Of what is said without what has to be looked up or counted: what is said with it supersedes it. */
export const previewRevision = -1
/** A link counts half: the fact of its span takes its place, and supersedes what was made with it. */
const weightOfLink = revisionsMax
const weightOfFact = 2 * revisionsMax

/** All facts must be of one tenant and trace. Facts without a trace are resolved one by one. `revision` counts how often
 *  the same facts were priced again. `generationMin` is what rows that are there have: they may have been made with links that
 *  are not needed any more, and are superseded all the same. */
export function resolve(facts: Iterable<Fact>, priceOf: PriceOf, revision = 0, generationMin = 0): Resolved {
  const trace = openTrace(facts)
  const seen = trace.facts.reduce((sum, fact) => sum + weightOf(fact), revision + trace.retold * weightOfFact)
  const generation = seen < generationMin ? generationMin + 1 : seen
  const { calls, embeddings, repeated } = findCalls(trace)
  const { toolCalls, repeated: repeatedTools } = findToolCalls(trace)
  const priced = calls.map((call) => ({ call, row: callRow(trace, call, priceOf, generation) }))
  const metered = [...calls, ...embeddings]
  const acts = [...metered, ...toolCalls]
  const errors = errorRows(trace, acts, new Set([...repeated, ...repeatedTools]), generation)
  const health = healthRows(trace, generation)
  const turns = turnRows(trace, priced, toolCalls, generation)
  return {
    generation,
    llmCalls: priced.map(({ row }) => row),
    toolCalls: toolCalls.toSorted(byNode).map((tool) => toolRow(trace, tool, generation)),
    messages: metered.flatMap((call) => messageRows(trace, call, generation)),
    wrapperMessages: findMessagesBeside(trace, metered).flatMap((beside) => messageRows(trace, beside, generation)),
    turns: turns.rows,
    embeddings: embeddings.map((call) => embeddingRow(trace, call, priceOf, generation)),
    healthChecks: health.rows,
    errors: errors.rows,
    auditEvents: auditRows(trace, generation),
    gone: [
      ...repeated.flatMap(goneCall),
      ...repeatedTools.map((node) => ({ table: 'tool_calls' as const, spanId: node.spanId })),
      ...metered.flatMap(goneMessages),
      ...errors.gone,
      ...health.gone,
      ...turns.gone,
    ],
    estimable: calls.flatMap(estimableOf),
    missingParents: missingParents(trace),
  }
}

/** What the collector counted itself follows from the facts, and may not be needed when there are more. */
function weightOf(fact: Fact): number {
  if (fact.says.kind === 'estimate') return 0
  return isLink(fact) ? weightOfLink : weightOfFact
}

function byNode(a: ToolCall, b: ToolCall): number {
  return byStart(a.node, b.node)
}

function rowOf(node: Node, generation: number) {
  const fact = node.span ?? (node.others[0] as Fact)
  return {
    TenantId: fact.tenantId,
    TraceId: fact.traceId,
    Timestamp: fact.startUnixNano,
    Generation: generation,
    SpanId: node.spanId,
  }
}

function placeOf(trace: Trace, node: Node) {
  const { conversationId, userId, tenantLabel } = trace.placeOf(node)
  return { ConversationId: conversationId, UserId: userId, TenantLabel: tenantLabel }
}

function durationOf(node: Node): bigint {
  return (node.span as Fact).endUnixNano - startOf(node)
}

function callRow(trace: Trace, call: Call, priceOf: PriceOf, generation: number): LlmCallRow {
  const { node, usage } = call
  const { costNanoUsd, priceVersion } = costOf(call, priceOf)
  return {
    ...rowOf(node, generation),
    ...placeOf(trace, node),
    ServiceName: node.span?.serviceName ?? '',
    TurnId: turnIdOf(node),
    CallId: call.callId,
    Attempt: call.attempt,
    Provider: call.provider,
    RequestModel: call.requestModel,
    Model: call.model,
    ResponseId: call.responseId,
    Streaming: call.timeToFirstTokenNano !== undefined,
    InputTokens: usage.inputTokens ?? null,
    CacheReadTokens: usage.cacheReadTokens ?? null,
    CacheWriteTokens: usage.cacheWriteTokens ?? null,
    OutputTokens: usage.outputTokens ?? null,
    ReasoningTokens: usage.reasoningTokens ?? null,
    UsageSource: call.usageSource,
    CostNanoUsd: costNanoUsd,
    PriceVersion: priceVersion,
    FinishReason: call.finishReason,
    ErrorType: call.failure?.type ?? '',
    DurationNano: durationOf(node),
    TimeToFirstTokenNano: call.timeToFirstTokenNano === undefined ? null : BigInt(call.timeToFirstTokenNano),
  }
}

function toolRow(trace: Trace, tool: ToolCall, generation: number): ToolCallRow {
  const { node } = tool
  return {
    ...rowOf(node, generation),
    ...placeOf(trace, node),
    ServiceName: node.span?.serviceName ?? '',
    TurnId: turnIdOf(node),
    Name: tool.name,
    CallId: tool.callId,
    Type: tool.toolType,
    Provider: tool.provider,
    McpServer: tool.mcpServer,
    Arguments: tool.arguments,
    Result: tool.result,
    Status: tool.status,
    ErrorType: tool.failure?.type ?? '',
    DurationNano: durationOf(node),
  }
}

function embeddingRow(trace: Trace, call: Call, priceOf: PriceOf, generation: number): EmbeddingRow {
  const { TenantLabel: _label, ...place } = placeOf(trace, call.node)
  const { costNanoUsd, priceVersion } = costOf(call, priceOf)
  return {
    ...rowOf(call.node, generation),
    ...place,
    ServiceName: call.node.span?.serviceName ?? '',
    CallId: call.callId,
    Provider: call.provider,
    RequestModel: call.requestModel,
    Model: call.model,
    InputTokens: call.usage.inputTokens ?? null,
    CostNanoUsd: costNanoUsd,
    PriceVersion: priceVersion,
    ErrorType: call.failure?.type ?? '',
    DurationNano: durationOf(call.node),
  }
}

function messageRows(
  trace: Trace,
  { node, input, output }: Pick<Call, 'node' | 'input' | 'output'>,
  generation: number,
): readonly MessageRow[] {
  if (input.length + output.length === 0) return []
  const { ConversationId, UserId } = placeOf(trace, node)
  return [input, output].flatMap((messages) =>
    messages.map((message, index) => ({
      ...rowOf(node, generation),
      ConversationId,
      UserId,
      Direction: message.direction,
      Index: index,
      Role: message.role,
      Content: message.content,
      ContentType: message.type,
    })),
  )
}

function turnRows(
  trace: Trace,
  calls: TurnParts['calls'],
  toolCalls: readonly ToolCall[],
  generation: number,
): { readonly rows: readonly TurnRow[]; readonly gone: readonly Gone[] } {
  const callsOf = Map.groupBy(calls, ({ call }) => turnIdOf(call.node))
  const toolsOf = Map.groupBy(toolCalls.toSorted(byNode), (tool) => turnIdOf(tool.node))
  const aroundTurns = findAroundTurns(trace)
  const rows: TurnRow[] = []
  for (const [turnId, nodes] of Map.groupBy(trace.nodes, turnIdOf)) {
    const parts = { nodes, calls: callsOf.get(turnId) ?? [], toolCalls: toolsOf.get(turnId) ?? [] }
    if (isTurn(parts, aroundTurns)) rows.push(turnRow(trace, turnId, parts, generation))
  }
  const real = new Set(rows.map((row) => row.TurnId))
  const gone = [...possibleTurnIds(trace)].filter((turnId) => !real.has(turnId))
  return { rows, gone: gone.map((turnId) => ({ table: 'turns', turnId })) }
}

function goneCall(node: Node): readonly Gone[] {
  const { spanId } = node
  const table = node.span?.says.kind === 'embedding' ? 'embeddings' : 'llm_calls'
  return [
    { table, spanId },
    { table: 'messages', spanId },
  ]
}

function goneMessages({ node, input, output, longestInput, longestOutput }: Call): readonly Gone[] {
  const { spanId } = node
  const range = (direction: 'input' | 'output', fromIndex: number, toIndex: number): readonly Gone[] =>
    toIndex > fromIndex ? [{ table: 'messages', spanId, direction, fromIndex, toIndex }] : []
  return [...range('input', input.length, longestInput), ...range('output', output.length, longestOutput)]
}

/** Streams that did not tell all, and calls of a sender that is doubted. A call that is no stream and tells no usage failed
 *  before it used any. */
function estimableOf(call: Call): readonly Estimable[] {
  const { usage, usageSource, says } = call
  const isComplete = usage.inputTokens !== undefined && usage.outputTokens !== undefined && usageSource !== 'partial'
  const isWorthIt = isComplete ? says.isDoubtful === true : call.isStreaming
  if (call.isCounted || !isWorthIt) return []
  const hashes = (messages: Call['input']) => messages.map(({ content }) => content.hash).filter((hash) => hash !== '')
  const input = hashes(call.input)
  const output = hashes(call.output)
  return output.length === 0 ? [] : [{ spanId: call.node.spanId, model: call.model, input, output }]
}

function missingParents(trace: Trace): readonly string[] {
  const missing = new Set<string>()
  for (const { span } of trace.nodes)
    if (span !== undefined && span.parentSpanId !== '' && !trace.nodeOf.has(span.parentSpanId))
      missing.add(span.parentSpanId)
  return [...missing].sort()
}
