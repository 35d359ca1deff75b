// Which spans say what a call used, until the resolver of GenAI records decides that: those with `gen_ai.usage.*` below which
// no other of the spans at hand has any. Of a chat inside an agent inside a wrapper, each of which repeats the sum of what is
// in it, only the innermost counts.
import type { Priced, PricedUsage, PriceOf } from '../genai/price.ts'
import type { UsageEvent } from '../quota/usage-event.ts'

/** Names of today and of yesterday; the first that has a value counts. */
const inputKeys = ['gen_ai.usage.input_tokens', 'gen_ai.usage.prompt_tokens']
const outputKeys = ['gen_ai.usage.output_tokens', 'gen_ai.usage.completion_tokens']
const cacheReadKeys = ['gen_ai.usage.cache_read.input_tokens', 'gen_ai.usage.cache_read_input_tokens']
const cacheWriteKeys = ['gen_ai.usage.cache_creation.input_tokens', 'gen_ai.usage.cache_creation_input_tokens']
const requestModelKeys = ['gen_ai.request.model']
const responseModelKeys = ['gen_ai.response.model']
const providerKeys = ['gen_ai.provider.name', 'gen_ai.system']
const userKeys = ['user.id', 'enduser.id']
const conversationKeys = ['gen_ai.conversation.id', 'session.id']
const callKeys = ['tallylight.call.id']

/** A span that has none of these is not asked further. */
export const usageKeys: ReadonlySet<string> = new Set([...inputKeys, ...outputKeys])
export const otherKeys: ReadonlySet<string> = new Set([
  ...cacheReadKeys,
  ...cacheWriteKeys,
  ...requestModelKeys,
  ...responseModelKeys,
  ...providerKeys,
  ...userKeys,
  ...conversationKeys,
  ...callKeys,
])

export type SpanPlace = Pick<UsageEvent, 'tenant' | 'traceId' | 'spanId' | 'parentSpanId'>

/** Undefined when the span says nothing that can be counted. */
export function usageEventOf(
  place: SpanPlace,
  values: ReadonlyMap<string, string>,
  endedUnixMs: number,
  priceOf: PriceOf,
): UsageEvent | undefined {
  const usage = usageOf(values)
  if (usage === undefined) return undefined
  const first = (keys: readonly string[]): string => keys.map((key) => values.get(key)).find(Boolean) ?? ''
  const [requested, responded, provider] = [first(requestModelKeys), first(responseModelKeys), first(providerKeys)]
  const priced = (model: string): Priced =>
    priceOf({ provider: provider || undefined, model, atUnixMs: endedUnixMs }, usage)
  return {
    ...place,
    generation: 0,
    callId: first(callKeys) || undefined,
    user: first(userKeys),
    conversation: first(conversationKeys),
    // Limits are for the model that was asked for; what is priced is the one that answered, where the list knows it.
    model: requested || responded,
    provider,
    usage,
    cost: priced(responded).kind === 'priced' ? priced(responded) : priced(requested || responded),
    isMetered: true,
    endedUnixMs,
  }
}

function usageOf(values: ReadonlyMap<string, string>): PricedUsage | undefined {
  const tokens = (keys: readonly string[]): number | undefined => {
    const digits = keys.map((key) => values.get(key)).find((value) => value !== undefined && /^\d{1,15}$/.test(value))
    return digits === undefined ? undefined : Number(digits)
  }
  const inputTokens = tokens(inputKeys)
  const outputTokens = tokens(outputKeys)
  if (inputTokens === undefined && outputTokens === undefined) return undefined
  const [cacheReadTokens, cacheWriteTokens] = [tokens(cacheReadKeys), tokens(cacheWriteKeys)]
  return {
    inputTokens: inputTokens ?? 0,
    outputTokens: outputTokens ?? 0,
    ...(cacheReadTokens === undefined ? {} : { cacheReadTokens }),
    ...(cacheWriteTokens === undefined ? {} : { cacheWriteTokens }),
  }
}

/** The events that count. `spans` are asked for only when one may be the wrapper of another: those between them, too. */
export function withoutWrappers(
  events: readonly UsageEvent[],
  spans: () => Iterable<SpanPlace>,
): readonly UsageEvent[] {
  const counts = new Map<string, number>()
  for (const event of events) counts.set(keyOf(event, ''), (counts.get(keyOf(event, '')) ?? 0) + 1)
  if ([...counts.values()].every((count) => count === 1)) return events
  const parents = new Map<string, string>()
  for (const span of spans()) {
    if (span.parentSpanId === '' || (counts.get(keyOf(span, '')) ?? 0) < 2) continue
    parents.set(keyOf(span, span.spanId), keyOf(span, span.parentSpanId))
  }
  const wrappers = new Set<string>()
  for (const event of events) {
    let above = parents.get(keyOf(event, event.spanId))
    // One that was seen before has been climbed from, also in a ring.
    for (; above !== undefined && !wrappers.has(above); above = parents.get(above)) wrappers.add(above)
  }
  return events.filter((event) => !wrappers.has(keyOf(event, event.spanId)))
}

function keyOf({ tenant, traceId }: Pick<SpanPlace, 'tenant' | 'traceId'>, spanId: string): string {
  return `${tenant}\n${traceId}\n${spanId}`
}
