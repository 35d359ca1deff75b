// All facts of one trace as a tree of spans, with what each span inherits. One pass from the roots down, so that a trace of
// ten thousand spans costs ten thousand steps. Nothing here depends on the order in which facts came: they are sorted first.
import assert from 'node:assert/strict'
import { encodeFact, type Fact, type Failure, type Says, type Scene } from '../fact.ts'

export type Node = {
  readonly spanId: string
  /** The span itself; a span of which only log records came has none. */
  readonly span: Fact | undefined
  /** What else is known of the span: log records, estimates. */
  readonly others: readonly Fact[]
  readonly parent: Node | undefined
  readonly depth: number
  /** Own, else of the nearest ancestor. */
  readonly scene: Scene
  /** Of the span's own operation, told by the span or by a log record. */
  readonly failure: Failure | undefined
  /** The health check that this is or stands under. */
  readonly isProbe: boolean
  /** Of those around it, itself included: our turn span if there is one, else the agent or wrapper; of several the outermost. */
  readonly turn: Node | undefined
  /** The nearest call around it with no tool between: this is then inside that call. */
  readonly outerCall: Node | undefined
  /** The nearest tool around it with no call and no agent between. */
  readonly outerTool: Node | undefined
}

export type Trace = {
  readonly facts: readonly Fact[]
  /** How many more came of spans and log records that had told something else of themselves before. */
  readonly retold: number
  /** Parents before children, else by start. */
  readonly nodes: readonly Node[]
  readonly nodeOf: ReadonlyMap<string, Node>
  readonly placeOf: (node: Node) => Place
  /** Whether any fact says something of this kind: what none speaks of is not looked for. */
  readonly has: (kind: Says['kind']) => boolean
}

export type Place = {
  readonly conversationId: string
  readonly userId: string
  readonly tenantLabel: string
}

export function openTrace(facts: Iterable<Fact>): Trace {
  const { sorted, retold } = uniqueFacts(facts)
  for (const fact of sorted)
    assert(
      fact.tenantId === sorted[0]?.tenantId && fact.traceId === sorted[0]?.traceId,
      'facts of two traces cannot be resolved as one',
    )
  const bySpan = Map.groupBy(sorted, (fact) => fact.spanId)
  const nodeOf = new Map<string, Node>()
  for (const spanId of bySpan.keys()) placeWithAncestors(spanId, bySpan, nodeOf)
  const nodes = [...nodeOf.values()].sort((a, b) => a.depth - b.depth || byStart(a, b))
  const kinds = new Set(sorted.map(({ says }) => says.kind))
  return { facts: sorted, retold, nodes, nodeOf, placeOf: openPlaces(sorted), has: (kind) => kinds.has(kind) }
}

/** A fact delivered twice counts once. Should the two differ, the same one wins in every order: not the one that was made of a
 *  span whose own fact was not stored yet. */
function uniqueFacts(facts: Iterable<Fact>): { readonly sorted: readonly Fact[]; readonly retold: number } {
  const unique = new Map<string, Fact>()
  const tellings = new Map<string, Set<string>>()
  for (const fact of facts) {
    const key = `${fact.spanId} ${fact.id}`
    const known = unique.get(key)
    if (known === undefined || saysMore(fact, known)) unique.set(key, fact)
    if (known === undefined || isLink(known) || isLink(fact)) continue
    const told = tellings.get(key) ?? new Set([encodeFact(known)])
    tellings.set(key, told.add(encodeFact(fact)))
  }
  return {
    sorted: [...unique.values()].sort(
      (a, b) => compare(a.startUnixNano, b.startUnixNano) || compare(a.spanId, b.spanId) || compare(a.id, b.id),
    ),
    retold: [...tellings.values()].reduce((sum, { size }) => sum + size - 1, 0),
  }
}

function saysMore(fact: Fact, known: Fact): boolean {
  if (isLink(fact) !== isLink(known)) return isLink(known)
  return encodeFact(fact) > encodeFact(known)
}

export function isLink({ says }: Fact): boolean {
  return says.kind === 'link'
}

export function compare<Value extends bigint | string | number>(a: Value, b: Value): number {
  return a < b ? -1 : a > b ? 1 : 0
}

export function byStart(a: Node, b: Node): number {
  return compare(startOf(a), startOf(b)) || compare(a.spanId, b.spanId)
}

export function startOf(node: Node): bigint {
  return (node.span ?? (node.others[0] as Fact)).startUnixNano
}

export function endOf(node: Node): bigint {
  return node.span?.endUnixNano ?? startOf(node)
}

/** Goes up to the first ancestor that is placed already, or is not known, or would close a circle, and places downwards. */
function placeWithAncestors(
  spanId: string,
  bySpan: ReadonlyMap<string, readonly Fact[]>,
  nodeOf: Map<string, Node>,
): void {
  const path: string[] = []
  const onPath = new Set<string>()
  let at = spanId
  while (bySpan.has(at) && !nodeOf.has(at) && !onPath.has(at)) {
    path.push(at)
    onPath.add(at)
    at = spanFactOf(bySpan.get(at) as readonly Fact[])?.parentSpanId ?? ''
  }
  let parent = onPath.has(at) ? undefined : nodeOf.get(at)
  for (const id of path.reverse()) {
    parent = placeNode(id, bySpan.get(id) as readonly Fact[], parent)
    nodeOf.set(id, parent)
  }
}

function spanFactOf(facts: readonly Fact[]): Fact | undefined {
  return facts.find((fact) => fact.id === 'span')
}

const none: readonly Fact[] = []

function placeNode(spanId: string, facts: readonly Fact[], parent: Node | undefined): Node {
  const span = spanFactOf(facts)
  const others = facts.length === 1 && span !== undefined ? none : facts.filter((fact) => fact !== span)
  const kind = span?.says.kind
  const isCall = kind === 'call' || kind === 'embedding'
  const node = {
    spanId,
    span,
    others,
    parent,
    depth: parent === undefined ? 0 : parent.depth + 1,
    scene: inherit(span, others, parent?.scene),
    failure: failureOfNode(span, others),
    isProbe: parent?.isProbe === true || kind === 'health' || facts.some((fact) => fact.scene.isProbe === true),
    turn: parent?.turn,
    outerCall: callAround(parent),
    outerTool: toolAround(parent),
  }
  if (kind === 'turn' && parent?.turn?.span?.says.kind !== 'turn') node.turn = node
  if ((kind === 'agent' || kind === 'wrapper') && node.turn === undefined) node.turn = node
  // A call inside an embedding, or the other way round, is none of its kind.
  if (isCall && node.outerCall?.span?.says.kind !== kind) node.outerCall = undefined
  return node
}

function callAround(parent: Node | undefined): Node | undefined {
  const kind = parent?.span?.says.kind
  if (kind === 'call' || kind === 'embedding') return parent
  return kind === 'tool' ? undefined : parent?.outerCall
}

function toolAround(parent: Node | undefined): Node | undefined {
  const kind = parent?.span?.says.kind
  if (kind === 'tool') return parent
  return kind === 'call' || kind === 'agent' ? undefined : parent?.outerTool
}

/** The span's own word counts before a log record's, and both before an ancestor's. */
function inherit(span: Fact | undefined, others: readonly Fact[], around: Scene | undefined): Scene {
  if (around === undefined && others.length === 0) return span?.scene ?? {}
  return Object.assign({}, around, ...others.toReversed().map((fact) => fact.scene), span?.scene) as Scene
}

function failureOfNode(span: Fact | undefined, others: readonly Fact[]): Failure | undefined {
  if (others.length === 0) return span?.failure
  const told = others.filter((fact) => fact.says.kind === 'error' && fact.says.of === 'operation')
  return richest([span?.failure, ...told.map((fact) => fact.failure)])
}

/** The first that says something about itself, and the first at all if none does. */
export function richest(failures: readonly (Failure | undefined)[]): Failure | undefined {
  const known = failures.filter((failure) => failure !== undefined)
  return known.find((failure) => failure.message !== '' || failure.stack !== '') ?? known[0]
}

/** What is said nowhere on the way up is taken from the rest of the trace, if that agrees on it. */
function openPlaces(facts: readonly Fact[]): Trace['placeOf'] {
  const found = new Map<PlaceField, string | undefined>()
  const anywhere = (field: PlaceField): string | undefined => {
    if (!found.has(field)) found.set(field, onlyValue(facts, field))
    return found.get(field)
  }
  return ({ scene }) => ({
    conversationId:
      scene.conversationId ?? scene.sessionId ?? anywhere('conversationId') ?? anywhere('sessionId') ?? '',
    userId: scene.userId ?? anywhere('userId') ?? '',
    tenantLabel: scene.tenantLabel ?? anywhere('tenantLabel') ?? '',
  })
}

type PlaceField = Exclude<keyof Scene, 'isProbe'>

function onlyValue(facts: readonly Fact[], field: PlaceField): string | undefined {
  const values = new Set<string>()
  for (const fact of facts) if (fact.scene[field] !== undefined) values.add(fact.scene[field])
  return values.size === 1 ? [...values][0] : undefined
}

/** The identity of the turn that a span belongs to. */
export function turnIdOf(node: Node): string {
  const { turn, scene } = node
  if (turn?.span?.says.kind === 'turn') return turn.scene.turnId ?? turn.spanId
  return scene.turnId ?? turn?.spanId ?? (node.span ?? (node.others[0] as Fact)).traceId
}
