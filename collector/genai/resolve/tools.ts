// Which spans are tool calls: a tool that is called through MCP is seen by the agent, by the client and by the server. The
// outermost is the call; arguments and results come from outside in, the server's name and the error from inside out. One that
// was seen on the wire alone stands around nothing, though it was seen from the asking to the answer: a tool of the same id, or of
// the same name and begun in that time, is the same call.
import type { ActionStatus, Content, Failure, ToolSays } from '../fact.ts'
import { statusOf } from '../failure.ts'
import { endOf, type Node, richest, startOf, type Trace } from './trace.ts'

export type ToolCall = {
  readonly node: Node
  readonly name: string
  readonly callId: string
  readonly toolType: string
  readonly provider: string
  readonly mcpServer: string
  readonly arguments: Content | null
  readonly result: Content | null
  readonly status: ActionStatus
  readonly failure: Failure | undefined
}

export type ToolCalls = { readonly toolCalls: readonly ToolCall[]; readonly repeated: readonly Node[] }

function saysOf(node: Node): ToolSays {
  return node.span?.says as ToolSays
}

export function findToolCalls(trace: Trace): ToolCalls {
  if (!trace.has('tool')) return { toolCalls: [], repeated: [] }
  const spans = trace.nodes.filter((node) => node.span?.says.kind === 'tool' && !node.isProbe)
  const seen = spans.filter((node) => saysOf(node).isSeenOnWire === true)
  const told = spans.filter((node) => saysOf(node).isSeenOnWire !== true)
  const outerOf = joinInner(told)
  joinSeen(seen, told, outerOf)
  // What was told comes first in each group.
  const groups = Map.groupBy([...told, ...seen], (node) => outermost(node, outerOf))
  const serverOf = openServers(trace)
  const toolCalls = [...groups].map(([outer, members]) => toolCallOf(outer, members, serverOf))
  const probes = trace.nodes.filter((node) => node.span?.says.kind === 'tool' && node.isProbe)
  return { toolCalls, repeated: [...spans.filter((node) => outerOf.has(node)), ...probes] }
}

/** Tools inside a tool that are the same call. A tool of the same name, or the only one that is called through MCP, is; two
 *  different ones are calls that the tool makes. So is what another instrumentation tells of it. */
function joinInner(spans: readonly Node[]): Map<Node, Node> {
  const outerOf = new Map<Node, Node>()
  for (const [outer, inner] of Map.groupBy(spans, (node) => node.outerTool)) {
    if (outer === undefined) continue
    const viaMcp = inner.filter((node) => saysOf(node).mcp !== undefined)
    for (const node of inner) {
      const isOnly = viaMcp.length === 1 && viaMcp[0] === node
      const isToldAgain = inner.length === 1 && tellsAgain(outer, node)
      if (isToldAgain || isSameCall(saysOf(outer), saysOf(node), isOnly)) outerOf.set(node, outer)
    }
  }
  return outerOf
}

/** Of two instrumentations each tells what the framework, or the function itself, did. A tool that calls itself is told by one,
 *  and is given something else. */
function tellsAgain(outer: Node, inner: Node): boolean {
  const [one, other] = [saysOf(outer), saysOf(inner)]
  if (one.name !== other.name || (one.callId !== '' && other.callId !== '')) return false
  const isGivenSame = one.arguments !== undefined && isSameText(one.arguments, other.arguments)
  return outer.span?.dialect !== inner.span?.dialect || isGivenSame
}

function isSameText(one: Content, other: Content | undefined): boolean {
  return one.hash !== '' && one.hash === other?.hash
}

/** By their ids, also what two services saw of one; then each told one is what was seen once. */
function joinSeen(seen: readonly Node[], told: readonly Node[], outerOf: Map<Node, Node>): void {
  const outer = told.filter((node) => !outerOf.has(node))
  const taken = new Set<Node>()
  const ofId = new Map<string, Node>()
  for (const node of [...outer, ...seen]) {
    const { callId, isSeenOnWire } = saysOf(node)
    const first = ofId.get(callId)
    if (callId === '') continue
    if (first === undefined) ofId.set(callId, node)
    else if (isSeenOnWire === true) {
      outerOf.set(node, first)
      taken.add(first)
    }
  }
  for (const node of seen) {
    if (outerOf.has(node)) continue
    const same = outer.find((each) => !taken.has(each) && isSameUnnamed(node, each))
    if (same === undefined) continue
    outerOf.set(node, same)
    taken.add(same)
  }
}

/** Of the same name, begun in its time, and not both with an id. */
function isSameUnnamed(seen: Node, told: Node): boolean {
  const [one, other] = [saysOf(seen), saysOf(told)]
  return isSameName(one, other) && startsWithin(told, seen) && (one.callId === '' || other.callId === '')
}

/** An agent may call `get_weather` of a server by `weather_get_weather`. */
function isSameName(seen: ToolSays, told: ToolSays): boolean {
  if (told.name === seen.name) return true
  if (told.mcp === undefined || told.name === '' || !seen.name.endsWith(told.name)) return false
  return /[_./:-]/.test(seen.name[seen.name.length - told.name.length - 1] ?? '')
}

function startsWithin(node: Node, around: Node): boolean {
  return startOf(node) >= startOf(around) - clockNano && startOf(node) <= endOf(around) + clockNano
}

/** The wire is watched by a clock of milliseconds. */
const clockNano = 1_000_000n

function isSameCall(outer: ToolSays, inner: ToolSays, isOnly: boolean): boolean {
  if (outer.callId !== '' && outer.callId === inner.callId) return true
  if (inner.mcp === undefined) return false
  if (outer.mcp === 'client' && inner.mcp === 'server') return true
  return inner.name === '' || outer.name.endsWith(inner.name) || isOnly
}

function outermost(node: Node, outerOf: ReadonlyMap<Node, Node>): Node {
  let at = node
  for (let outer = outerOf.get(at); outer !== undefined; outer = outerOf.get(at)) at = outer
  return at
}

/** The name that another span of the same session told: one beside this, or beside one around it. */
function openServers(trace: Trace): (node: Node) => string {
  const namedUnder = new Map<string, string>()
  for (const fact of trace.facts) if (fact.says.kind === 'mcp-server') namedUnder.set(fact.parentSpanId, fact.says.name)
  return (node) => {
    for (let at: Node | undefined = node; at !== undefined && namedUnder.size > 0; at = at.parent) {
      const name = namedUnder.get(at.span?.parentSpanId ?? '')
      if (name !== undefined) return name
    }
    return ''
  }
}

function toolCallOf(outer: Node, members: readonly Node[], serverOf: (node: Node) => string): ToolCall {
  // Parents stand before children.
  const inward = members.map(saysOf)
  const inner = members.toReversed()
  const first = (pick: (says: ToolSays) => string) => inward.map(pick).find((text) => text !== '') ?? ''
  const server = inward.find((says) => says.mcp === 'server')?.mcpServer ?? ''
  const named = inward.map((says) => says.mcpServer).find((text) => text !== '') ?? ''
  const viaMcp = members.find((node) => saysOf(node).mcp !== undefined)
  const failure = richest(inner.map((node) => node.failure))
  const said = inward.find((says) => says.status === 'pending' || says.status === 'retry')?.status
  return {
    node: outer,
    name: first((says) => says.name),
    callId: first((says) => says.callId),
    toolType: first((says) => says.toolType),
    provider: first((says) => says.provider),
    mcpServer: server || named || (viaMcp === undefined ? '' : serverOf(viaMcp)),
    arguments: inward.map((says) => says.arguments).find((content) => content !== undefined) ?? null,
    result: inward.map((says) => says.result).find((content) => content !== undefined) ?? null,
    status: said ?? statusOf(failure),
    failure,
  }
}
