// Which spans are calls, and which only repeat one. Two records are one call when one stands inside the other with no tool
// between (the innermost meters), when provider and response id are equal and their times overlap, or when two instrumentations
// tell the same of one time (`twins.ts`). What a call's records know beside the numbers is put together.
import { isConsistent, isEmpty, type Usage, type UsageSource } from '@tallylight/instrumentation/usage/usage.ts'
import type { CallSays, Estimate, Failure, MessageFact } from '../fact.ts'
import type { NanoUsd, PriceOf } from '../price.ts'
import { longest, type Messages, messagesOfNode, ownMessages } from './node-messages.ts'
import { byStart, endOf, type Node, richest, startOf, type Trace } from './trace.ts'
import { findTwins } from './twins.ts'

export type Call = {
  /** The span that is the call: its times, its id. */
  readonly node: Node
  readonly says: CallSays
  /** From all records of the call, each value from the first that has it. */
  readonly provider: string
  readonly requestModel: string
  readonly model: string
  readonly responseId: string
  readonly finishReason: string
  readonly callId: string
  readonly attempt: number
  readonly timeToFirstTokenNano: number | undefined
  readonly isStreaming: boolean
  readonly usage: Usage
  readonly usageSource: UsageSource
  /** The collector has counted its texts already. */
  readonly isCounted: boolean
  readonly failure: Failure | undefined
  readonly input: readonly MessageFact[]
  readonly output: readonly MessageFact[]
  /** The records whose lists these are. */
  readonly inputOf: Node
  readonly outputOf: Node
  /** The length of the longest list of messages that an earlier generation may have taken for the call's. */
  readonly longestInput: number
  readonly longestOutput: number
}

export type Calls = {
  readonly calls: readonly Call[]
  readonly embeddings: readonly Call[]
  /** Spans that say that they are a call and are none: wrappers, repetitions, probes. */
  readonly repeated: readonly Node[]
}

function saysOf(node: Node): CallSays {
  return node.span?.says as CallSays
}

function isCall(node: Node): boolean {
  const kind = node.span?.says.kind
  return kind === 'call' || kind === 'embedding'
}

export function findCalls(trace: Trace): Calls {
  const spans = trace.nodes.filter(isCall)
  const outer = new Set(spans.map((node) => node.outerCall))
  const leaves = spans.filter((node) => !outer.has(node)).sort(byStart)
  const groups = groupLeaves(leaves.filter((leaf) => !leaf.isProbe))
  const callsInside = countCalls([...groups, ...leaves.filter((leaf) => leaf.isProbe).map((probe) => [probe])])
  const calls = groups.map((group) => callOf(group, callsInside)).sort((a, b) => byStart(a.node, b.node))
  const real = new Set(calls.map((call) => call.node))
  const numbered = numberAttempts(calls)
  return {
    calls: numbered.filter((call) => call.says.kind === 'call'),
    embeddings: numbered.filter((call) => call.says.kind === 'embedding'),
    repeated: spans.filter((node) => !real.has(node)),
  }
}

/** For every record that has calls inside: how many those are. */
function countCalls(groups: readonly (readonly Node[])[]): ReadonlyMap<Node, number> {
  const counts = new Map<Node, number>()
  for (const group of groups)
    for (const around of new Set(group.flatMap(callsAround))) counts.set(around, (counts.get(around) ?? 0) + 1)
  return counts
}

function callsAround(node: Node): readonly Node[] {
  const around: Node[] = []
  for (let at = node.outerCall; at !== undefined; at = at.outerCall) around.push(at)
  return around
}

/** Innermost calls that are one: sets joined pair by pair. */
function groupLeaves(leaves: readonly Node[]): readonly (readonly Node[])[] {
  const rootOf = new Map<Node, Node>(leaves.map((leaf) => [leaf, leaf]))
  const find = (node: Node): Node => {
    let at = node
    while (rootOf.get(at) !== at) at = rootOf.get(at) as Node
    return at
  }
  const join = (a: Node, b: Node) => rootOf.set(find(b), find(a))
  const sameResponse = Map.groupBy(leaves, responseKey)
  sameResponse.delete('')
  for (const same of sameResponse.values()) joinOverlapping(same, join)
  for (const [one, other] of findTwins(leaves)) join(one, other)
  return [...Map.groupBy(leaves, find).values()]
}

function responseKey(leaf: Node): string {
  const { kind, provider, responseId } = saysOf(leaf)
  return responseId === '' ? '' : `${kind} ${provider} ${responseId}`
}

/** Sorted by start, so one that begins before the latest end so far overlaps one before it. */
function joinOverlapping(leaves: readonly Node[], join: (a: Node, b: Node) => void): void {
  let last = leaves[0] as Node
  for (const leaf of leaves.slice(1)) {
    if (startOf(leaf) < endOf(last)) join(last, leaf)
    if (endOf(leaf) > endOf(last)) last = leaf
  }
}

const sourceRanks: Readonly<Record<UsageSource, number>> = {
  provider: 0,
  recovered: 1,
  partial: 2,
  estimated: 3,
  none: 4,
}

function callOf(group: readonly Node[], callsInside: ReadonlyMap<Node, number>): Call {
  const [only] = group
  if (group.length === 1 && only?.outerCall === undefined && only?.others.length === 0) return callOfOne(only)
  return callOfRecords(group, callsInside)
}

/** Most calls have one record, and nothing has to be put together. */
function callOfOne(node: Node): Call {
  const says = saysOf(node)
  const { input, output } = messagesOfNode(node)
  const own = [node]
  return {
    node,
    says,
    provider: says.provider,
    requestModel: says.requestModel,
    model: says.model,
    responseId: says.responseId,
    finishReason: says.finishReason,
    callId: says.callId,
    attempt: says.attempt,
    timeToFirstTokenNano: says.timeToFirstTokenNano,
    isStreaming: says.isStreaming,
    ...usageOfRecords(own),
    isCounted: false,
    failure: node.failure,
    input,
    output,
    inputOf: node,
    outputOf: node,
    longestInput: input.length,
    longestOutput: output.length,
  }
}

function callOfRecords(group: readonly Node[], callsInside: ReadonlyMap<Node, number>): Call {
  const leaves = group.toSorted(byTrust)
  // A client's own span may stand outside the agent that calls it.
  const node = leaves.find((leaf) => leaf.turn !== undefined) ?? (leaves[0] as Node)
  const around = [...new Set(leaves.flatMap(callsAround))]
  // What stands around several calls belongs to none of them.
  const own = [...leaves, ...around.filter((outer) => callsInside.get(outer) === 1)]
  const says = saysOf(node)
  // Who knows only what was asked for, or what answered, has it twice.
  const models = leaves.map(saysOf).find((one) => one.requestModel !== one.model)
  const first = (pick: (says: CallSays) => string) =>
    own.map((one) => pick(saysOf(one))).find((text) => text !== '') ?? ''
  const said = own.map(messagesOfNode)
  const lists = [...said, ...around.filter((outer) => !own.includes(outer)).map(messagesOfNode)]
  const input = longest(said.map((one) => one.input))
  const output = longest(said.map((one) => one.output))
  const ownerOf = (list: readonly MessageFact[], direction: MessageFact['direction']) =>
    own[said.findIndex((one) => one[direction] === list)] ?? node
  const { usage, usageSource } = usageOfRecords(own)
  const failure = node.failure === undefined && isEndKnown(says) ? undefined : richest(own.map((one) => one.failure))
  return {
    node,
    says,
    provider: first((one) => one.provider),
    requestModel: models?.requestModel || first((one) => one.requestModel),
    model: models?.model || first((one) => one.model),
    responseId: first((one) => one.responseId),
    finishReason: first((one) => one.finishReason) || reasonInLists(lists, failure),
    callId: first((one) => one.callId),
    attempt: own.map((one) => saysOf(one).attempt).find((attempt) => attempt > 0) ?? 0,
    timeToFirstTokenNano: own.map((one) => saysOf(one).timeToFirstTokenNano).find((nano) => nano !== undefined),
    isStreaming: own.some((one) => saysOf(one).isStreaming),
    usage,
    usageSource,
    isCounted: own.some((one) => one.others.some((fact) => fact.says.kind === 'estimate')),
    failure,
    input,
    output,
    inputOf: ownerOf(input, 'input'),
    outputOf: ownerOf(output, 'output'),
    longestInput: longest(lists.map((one) => one.input)).length,
    longestOutput: longest(lists.map((one) => one.output)).length,
  }
}

/** What goes wrong around a call that ended well is no failure of the call. */
function isEndKnown({ usageSource, finishReason }: CallSays): boolean {
  return usageSource !== 'none' || finishReason !== ''
}

/** That it failed is said by the error: as a reason to finish, "error" tells nothing more. */
function reasonInLists(lists: readonly Messages[], failure: Failure | undefined): string {
  const reasons = lists.map((one) => one.finishReason)
  return reasons.find((reason) => reason !== '' && (reason !== 'error' || failure === undefined)) ?? ''
}

/** Of several innermost records the one whose numbers are best is the call: of those from the provider what its own SDK says,
 *  and then the one with the most. */
function byTrust(a: Node, b: Node): number {
  const rank = (node: Node) =>
    2 * sourceRanks[saysOf(node).usageSource] + (node.span?.dialect === 'anthropic-sdk' ? 0 : 1)
  const known = (node: Node) => Object.keys(saysOf(node).usage).length
  return rank(a) - rank(b) || known(b) - known(a) || byStart(b, a)
}

/** The innermost that knows any; what the collector counted itself fills what nobody knows. */
function usageOfRecords(own: readonly Node[]): { readonly usage: Usage; readonly usageSource: UsageSource } {
  const best = own
    .map(saysOf)
    .toSorted((a, b) => sourceRanks[a.usageSource] - sourceRanks[b.usageSource])
    .find((says) => says.usageSource !== 'none')
  const counted = own.flatMap((node) => node.others.map((fact) => fact.says)).find((says) => says.kind === 'estimate')
  const usage = best?.usage ?? {}
  const isCut = best !== undefined && isCutStream(own, best)
  const isComplete = usage.inputTokens !== undefined && usage.outputTokens !== undefined && !isCut
  if (counted === undefined || isComplete) {
    if (best === undefined) return { usage, usageSource: 'none' }
    const isGuess = counted !== undefined && best.isDoubtful === true && isCountOfTexts(usage, counted)
    return {
      usage,
      usageSource: isGuess ? 'estimated' : isCut && best.usageSource === 'provider' ? 'partial' : best.usageSource,
    }
  }
  const outputTokens = Math.max(usage.outputTokens ?? 0, counted.usage.outputTokens ?? 0)
  return { usage: { ...counted.usage, ...usage, outputTokens }, usageSource: 'estimated' }
}

/** What a provider bills for a chat is always more than its texts. */
function isCountOfTexts(usage: Usage, counted: Estimate): boolean {
  return usage.inputTokens === counted.inputTextTokens && usage.outputTokens === counted.usage.outputTokens
}

/** What a stream told before it broke, or before nobody read on, is a lower bound. */
function isCutStream(own: readonly Node[], { usage, usageSource, finishReason }: CallSays): boolean {
  const hasNoEnd = usage.outputTokens === undefined || (usageSource === 'partial' && finishReason === '')
  return (own[0]?.failure !== undefined || hasNoEnd) && own.some((node) => saysOf(node).isStreaming)
}

export type MessagesBeside = Pick<Messages, 'input' | 'output'> & { readonly node: Node }

/** Messages that are no call's: of turns, agents and wrappers, of records that repeat a call and hold something that it does
 *  not, of spans that are not known. So everything that a fact holds is in some row. */
export function findMessagesBeside(trace: Trace, calls: readonly Call[]): readonly MessagesBeside[] {
  const inputsOf = new Set(calls.map((call) => call.inputOf))
  const outputsOf = new Set(calls.map((call) => call.outputOf))
  const beside: MessagesBeside[] = []
  let shown: ReadonlySet<string> | undefined
  for (const node of trace.nodes) {
    const isShown = inputsOf.has(node) && outputsOf.has(node)
    if ((isShown && node.others.length === 0) || !hasMessages(node)) continue
    const { input, output, more } = messagesOfNode(node)
    const moreOf = (direction: MessageFact['direction']) => more.filter((message) => message.direction === direction)
    const rest = {
      input: [...(inputsOf.has(node) ? [] : input), ...moreOf('input')],
      output: [...(outputsOf.has(node) ? [] : output), ...moreOf('output')],
    }
    const both = [...rest.input, ...rest.output]
    if (isCall(node)) shown ??= hashesOf(calls)
    if (both.some(({ content }) => !isCall(node) || shown?.has(content.hash) === false)) beside.push({ node, ...rest })
  }
  return beside
}

function hashesOf(calls: readonly Call[]): ReadonlySet<string> {
  return new Set(calls.flatMap(({ input, output }) => [...input, ...output].map(({ content }) => content.hash)))
}

function hasMessages(node: Node): boolean {
  return ownMessages(node).length > 0 || node.others.some((fact) => fact.says.kind === 'messages')
}

/** A call that follows a failed one with the same input under the same parent is another attempt at it. */
function numberAttempts(calls: readonly Call[]): readonly Call[] {
  if (calls.every((call) => call.failure === undefined))
    return calls.map((call) => (call.attempt > 0 ? call : { ...call, attempt: 1 }))
  const numbered = new Map<Call, number>()
  for (const same of Map.groupBy(calls, attemptKey).values()) {
    let attempt = 1
    let hasFailed = false
    for (const call of same.toSorted((a, b) => byStart(a.node, b.node))) {
      attempt = call.attempt > 0 ? call.attempt : hasFailed ? attempt + 1 : 1
      numbered.set(call, attempt)
      hasFailed = call.failure !== undefined
    }
  }
  return calls.map((call) => ({ ...call, attempt: numbered.get(call) ?? 1 }))
}

function attemptKey(call: Call): string {
  if (call.callId !== '') return `id ${call.callId}`
  const hashes = call.input.map((message) => message.content.hash)
  // Without content nothing tells two attempts from two calls.
  if (hashes.length === 0 || hashes.includes('')) return `span ${call.node.spanId}`
  return JSON.stringify([call.says.kind, call.node.span?.parentSpanId, call.requestModel, hashes])
}

export type Cost = { readonly costNanoUsd: NanoUsd | null; readonly priceVersion: string }
const unpriced: Cost = { costNanoUsd: null, priceVersion: '' }

/** By the model that answered, else by the one that was asked: a deployment may have a name of its own. */
export function costOf(call: Call, priceOf: PriceOf): Cost {
  const { usage } = call
  if (isEmpty(usage) || !isConsistent(usage)) return unpriced
  const known = { ...usage, inputTokens: usage.inputTokens ?? 0, outputTokens: usage.outputTokens ?? 0 }
  const atUnixMs = Number(endOf(call.node) / 1_000_000n)
  const provider = call.provider === '' ? undefined : call.provider
  for (const model of new Set([call.model, call.requestModel])) {
    if (model === '') continue
    const priced = priceOf({ provider, model, atUnixMs }, known)
    if (priced.kind === 'priced') return { costNanoUsd: priced.costNanoUsd, priceVersion: priced.priceVersion }
  }
  return unpriced
}
