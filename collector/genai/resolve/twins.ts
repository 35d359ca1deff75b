// Two instrumentations of one client, of which neither is active while the other works: Langfuse's wrapper beside OpenInference's
// or OpenTelemetry's span, Strands or a stream helper beside the Anthropic SDK's own. Their records stand side by side, with an
// id on one of them at most. They are one call when different senders tell the same model and the same usage or question, of
// one time, under one parent; each pairs with one of the other, the one that ended nearest, so two equal calls at once stay two.
import { isEmpty } from '@tallylight/instrumentation/usage/usage.ts'
import { limits } from '../../limits.ts'
import type { CallSays } from '../fact.ts'
import { byStart, compare, endOf, type Node, startOf } from './trace.ts'

/** Pairs of innermost calls that are one. `leaves` are sorted by start. */
export function findTwins(leaves: readonly Node[]): readonly (readonly [Node, Node])[] {
  if (new Set(leaves.map(dialectOf)).size < 2) return []
  const pairs: (readonly [Node, Node])[] = []
  // All that tell a call, by the first of them.
  const toldBy = new Map<Node, readonly Node[]>()
  const questions = new Map(leaves.map((leaf) => [leaf, questionsOf(leaf)]))
  let open: readonly Node[] = []
  for (const leaf of leaves) {
    open = open.filter((first) => endOf(first) + clockNano > startOf(leaf))
    const [twin] = open
      .filter((first) => toldBy.get(first)?.every((told) => mayTellSame(told, leaf)) && isTwin(first, leaf, questions))
      .toSorted((a, b) => compare(apart(a, leaf), apart(b, leaf)) || byStart(a, b))
    if (twin === undefined) {
      open = [...open.slice(1 - limits.openTwinsMax), leaf]
      toldBy.set(leaf, [leaf])
    } else {
      pairs.push([twin, leaf])
      toldBy.set(twin, [...(toldBy.get(twin) ?? []), leaf])
    }
  }
  return pairs
}

/** How far their ends are from each other. */
function apart(one: Node, other: Node): bigint {
  const nano = endOf(one) - endOf(other)
  return nano < 0n ? -nano : nano
}

function dialectOf(node: Node): string {
  return node.span?.dialect ?? ''
}

function saysOf(node: Node): CallSays {
  return node.span?.says as CallSays
}

/** Between the first line of one instrumentation and that of the other. */
const clockNano = 5_000_000n

/** A sender tells a call once, and a call has one response. */
function mayTellSame(one: Node, other: Node): boolean {
  const [a, b] = [saysOf(one).responseId, saysOf(other).responseId]
  return dialectOf(one) !== dialectOf(other) && (a === '' || b === '' || a === b)
}

type Questions = ReadonlyMap<Node, ReadonlySet<string>>

function isTwin(one: Node, other: Node, questions: Questions): boolean {
  const [a, b] = [saysOf(one), saysOf(other)]
  if (a.kind !== b.kind || a.provider !== b.provider || a.provider === '') return false
  if (a.responseId !== '' && b.responseId !== '') return false
  if (isTryBefore(one, other) || isTryBefore(other, one)) return false
  return isSameModel(a, b) && isWithin(one, other) && isBeside(one, other) && tellsSame(one, other, questions)
}

/** One sender tells each try of a client, the other what came of them all: the last try is its twin. */
function isTryBefore(one: Node, other: Node): boolean {
  const hasEndedWell = other.failure === undefined && !isEmpty(saysOf(other).usage)
  return one.failure !== undefined && hasEndedWell && endOf(one) + clockNano < endOf(other)
}

function isSameModel(a: CallSays, b: CallSays): boolean {
  return [a.model, a.requestModel].some((model) => model !== '' && (model === b.model || model === b.requestModel))
}

function isWithin(one: Node, other: Node): boolean {
  const lasts = (inner: Node, outer: Node) =>
    startOf(inner) + clockNano >= startOf(outer) && endOf(inner) <= endOf(outer) + clockNano
  return lasts(one, other) || lasts(other, one)
}

/** Whoever stood around one of them, and what else tells that call, when it began stands around both. */
function isBeside(one: Node, other: Node): boolean {
  const [a, b] = [outermost(one), outermost(other)]
  return hasAround(a, parentIdOf(b)) || hasAround(b, parentIdOf(a))
}

function outermost(node: Node): Node {
  let at = node
  while (at.outerCall !== undefined) at = at.outerCall
  return at
}

function hasAround(node: Node, spanId: string): boolean {
  if (spanId === '') return false
  for (let at: Node | undefined = node; at !== undefined; at = at.parent) {
    // What a tool asks of a model is no call of whoever called the tool.
    if (at.span?.says.kind === 'tool') return false
    if (parentIdOf(at) === spanId) return true
  }
  return false
}

function parentIdOf(node: Node): string {
  return node.span?.parentSpanId ?? ''
}

/** Numbers that differ prove two calls, save those that a sender has guessed. */
function tellsSame(one: Node, other: Node, questions: Questions): boolean {
  const [a, b] = [saysOf(one), saysOf(other)]
  const isGuess = a.isDoubtful === true || b.isDoubtful === true
  const counts = [apartBy(a.usage.inputTokens, b.usage.inputTokens, 0)]
  if (a.kind === 'call') counts.push(apartBy(a.usage.outputTokens, b.usage.outputTokens, startTokens))
  if (!isGuess && counts.includes('other')) return false
  const [asked, askedToo] = [questions.get(one), questions.get(other)]
  if (asked?.size && askedToo?.size) return isPartOf(asked, askedToo) || isPartOf(askedToo, asked)
  const haveFailed = one.failure !== undefined && other.failure !== undefined
  return haveFailed || counts.every((count) => count === 'same')
}

/** What a stream of Anthropic's says at its start, some add to what it says at its end. */
const startTokens = 1

function apartBy(one: number | undefined, other: number | undefined, tokens: number): 'same' | 'other' | 'unknown' {
  if (one === undefined || other === undefined) return 'unknown'
  return Math.abs(one - other) <= tokens ? 'same' : 'other'
}

function isPartOf(some: ReadonlySet<string>, all: ReadonlySet<string>): boolean {
  return [...some].every((hash) => all.has(hash))
}

/** By their hashes; of a sender that tells only what is new in a conversation, its last ones. */
function questionsOf({ span, others }: Node): ReadonlySet<string> {
  const told = [span, ...others].flatMap((fact) =>
    fact !== undefined && 'messages' in fact.says ? (fact.says.messages ?? []) : [],
  )
  const asked = told.filter(({ direction, role, type }) => direction === 'input' && role === 'user' && type === 'text')
  // Where no content is kept, no text has a hash.
  return new Set(asked.map(({ content }) => content.hash).filter((hash) => hash !== ''))
}
