// Everything of one turn in one row, whichever of its parts are there already: our turn span, else the outermost agent or
// wrapper, else the trace.
import type { Content, Failure, TurnSays, TurnStatus } from '../fact.ts'
import { statusOf } from '../failure.ts'
import type { NanoUsd } from '../price.ts'
import type { LlmCallRow, TurnRow } from '../rows.ts'
import type { Call } from './calls.ts'
import type { ToolCall } from './tools.ts'
import { byStart, compare, type Node, startOf, type Trace, turnIdOf } from './trace.ts'

export type TurnParts = {
  readonly nodes: readonly Node[]
  readonly calls: readonly { readonly call: Call; readonly row: LlmCallRow }[]
  readonly toolCalls: readonly ToolCall[]
}

/** A trace of embeddings, of pings or of links alone is no turn, nor is an agent whose work was all done in our turns. */
export function isTurn({ nodes, calls, toolCalls }: TurnParts, aroundTurns: ReadonlySet<Node>): boolean {
  if (calls.length > 0 || toolCalls.length > 0) return true
  return nodes.some((node) => node.turn === node && !node.isProbe && !aroundTurns.has(node) && isTurnByItself(node))
}

function isTurnByItself(node: Node): boolean {
  const kind = node.span?.says.kind
  return kind === 'turn' || kind === 'agent'
}

/** Agents and wrappers that one of our turn spans stands in. */
export function findAroundTurns(trace: Trace): ReadonlySet<Node> {
  const around = new Set<Node>()
  for (const node of trace.nodes)
    if (node.turn === node && node.parent?.turn !== undefined) around.add(node.parent.turn)
  return around
}

export function turnRow(trace: Trace, turnId: string, parts: TurnParts, generation: number): TurnRow {
  const { calls, toolCalls } = parts
  const nodes = parts.nodes.toSorted(byStart)
  const owners = nodes.filter((node) => node.turn === node)
  const owner = owners.find((node) => node.span?.says.kind === 'turn') ?? owners[0]
  const says = owner?.span?.says as TurnSays | undefined
  const first = owner ?? (nodes[0] as Node)
  const startUnixNano = startOf(first)
  const failure = owner?.failure ?? failureOfCalls(calls.map(({ call }) => call))
  const place = trace.placeOf(owner ?? placedBest(nodes))
  const scene = sceneOf(first, nodes)
  const identity = {
    TenantId: (trace.facts[0] as Node['others'][number]).tenantId,
    TraceId: trace.facts[0]?.traceId ?? '',
  }
  return {
    ...identity,
    Timestamp: startUnixNano,
    Generation: generation,
    TenantLabel: place.tenantLabel || said(nodes, 'tenantLabel'),
    ServiceName: serviceOf(first),
    TurnId: turnId,
    ConversationId: place.conversationId || said(nodes, 'conversationId') || said(nodes, 'sessionId'),
    UserId: place.userId || said(nodes, 'userId'),
    Channel: scene('channel'),
    QuestionPreview: (says?.question ?? questionOf(calls.map(({ call }) => call)))?.preview ?? '',
    AnswerPreview: (says?.answer ?? answerOf(calls.map(({ call }) => call)))?.preview ?? '',
    Calls: calls.length,
    ToolCalls: toolCalls.length,
    ToolsUsed: [...new Set(toolCalls.map((tool) => tool.name))].filter((name) => name !== ''),
    McpServers: [...new Set(toolCalls.map((tool) => tool.mcpServer))].filter((name) => name !== ''),
    ...tokensOf(calls.map(({ row }) => row)),
    CostNanoUsd: costOf(calls.map(({ row }) => row)),
    DurationNano: (owner?.span?.endUnixNano ?? latestEnd(nodes)) - startUnixNano,
    TimeToFirstTokenNano: firstTokenOf(
      says,
      calls.map(({ call }) => call),
      startUnixNano,
    ),
    Status: statusOfTurn(owner, nodes, says, failure),
    BlockReason: says?.blockReason ?? '',
    ClientAddress: scene('clientAddress'),
    UserAgent: scene('userAgent'),
  }
}

/** Where no span owns the turn, one that knows more about its place stands for it. */
function placedBest(nodes: readonly Node[]): Node {
  const known = (node: Node) => Object.keys(node.scene).length
  return nodes.reduce((best, node) => (known(node) > known(best) ? node : best))
}

function said(nodes: readonly Node[], field: 'tenantLabel' | 'conversationId' | 'sessionId' | 'userId'): string {
  return nodes.map((node) => node.scene[field]).find((text) => text !== undefined) ?? ''
}

function sceneOf(first: Node, nodes: readonly Node[]): (field: 'channel' | 'clientAddress' | 'userAgent') => string {
  return (field) =>
    first.scene[field] ?? nodes.map((node) => node.scene[field]).find((text) => text !== undefined) ?? ''
}

function serviceOf(node: Node): string {
  return (node.span ?? node.others[0])?.serviceName ?? ''
}

function latestEnd(nodes: readonly Node[]): bigint {
  return nodes.reduce((latest, node) => {
    const end = node.span?.endUnixNano ?? startOf(node)
    return compare(end, latest) > 0 ? end : latest
  }, 0n)
}

/** A turn whose last call failed, and that nothing tells the outcome of, failed with it. */
function failureOfCalls(calls: readonly Call[]): Failure | undefined {
  return calls.at(-1)?.failure
}

function statusOfTurn(
  owner: Node | undefined,
  nodes: readonly Node[],
  says: TurnSays | undefined,
  failure: Failure | undefined,
): TurnStatus {
  if (says?.blockReason !== undefined) return 'blocked'
  if (says?.status !== undefined) return says.status
  // Somebody spoke of a turn whose span is still open.
  if (owner === undefined && nodes.some((node) => node.scene.turnId !== undefined)) return 'pending'
  return statusOf(failure)
}

function questionOf(calls: readonly Call[]): Content | undefined {
  for (const call of calls) {
    const asked = call.input.findLast((message) => message.role === 'user' && message.type === 'text')
    if (asked !== undefined) return asked.content
  }
  return undefined
}

function answerOf(calls: readonly Call[]): Content | undefined {
  return calls.at(-1)?.output.findLast((message) => message.type === 'text')?.content
}

function tokensOf(rows: readonly LlmCallRow[]) {
  const sum = (pick: (row: LlmCallRow) => number | null) =>
    rows.map(pick).reduce((total, count) => (count === null ? total : (total ?? 0) + count), null)
  return {
    InputTokens: sum((row) => row.InputTokens),
    CacheReadTokens: sum((row) => row.CacheReadTokens),
    CacheWriteTokens: sum((row) => row.CacheWriteTokens),
    OutputTokens: sum((row) => row.OutputTokens),
    ReasoningTokens: sum((row) => row.ReasoningTokens),
  }
}

function costOf(rows: readonly LlmCallRow[]): NanoUsd | null {
  return rows.reduce<NanoUsd | null>(
    (total, { CostNanoUsd: cost }) => (cost === null ? total : (((total ?? 0n) + cost) as NanoUsd)),
    null,
  )
}

function firstTokenOf(says: TurnSays | undefined, calls: readonly Call[], startUnixNano: bigint): bigint | null {
  if (says?.timeToFirstTokenNano !== undefined) return BigInt(says.timeToFirstTokenNano)
  const moments = calls.flatMap((call) =>
    call.timeToFirstTokenNano === undefined ? [] : [startOf(call.node) + BigInt(call.timeToFirstTokenNano)],
  )
  if (moments.length === 0) return null
  const first = moments.reduce((earliest, moment) => (compare(moment, earliest) < 0 ? moment : earliest))
  return first < startUnixNano ? 0n : first - startUnixNano
}

/** Every id under which facts seen so far may have made a turn. */
export function possibleTurnIds(trace: Trace): ReadonlySet<string> {
  const ids = new Set<string>([trace.facts[0]?.traceId ?? ''])
  for (const node of trace.nodes) {
    ids.add(turnIdOf(node))
    const kind = node.span?.says.kind
    if (kind === 'turn' || kind === 'agent' || kind === 'wrapper') ids.add(node.spanId)
    for (const fact of [node.span, ...node.others]) if (fact?.scene.turnId !== undefined) ids.add(fact.scene.turnId)
  }
  return ids
}
