// Which spans of a segment say what a call used, until the resolver of GenAI records decides that: those with
// `gen_ai.usage.*` below which no other span of the segment has any. Of a chat inside an agent inside a wrapper, each of
// which repeats the sum of what is in it, only the innermost counts.
import { type Block, isBlockOf } from '@tallylight/storage/clickhouse/block.ts'
import { mapsWith, namesOf, openTexts } from '@tallylight/storage/clickhouse/read-rows.ts'
import { tracesTable } from '@tallylight/storage/clickhouse/tables.ts'
import type { Priced, PricedUsage, PriceOf } from '../genai/price.ts'
import type { SegmentPart } from '../journal/journal.ts'
import { tenantOf } from '../quota/limits.ts'
import type { UsageEvent } from '../quota/usage-event.ts'

/** Names of today and of yesterday; the first that is there counts. */
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

const needed = new Set([...inputKeys, ...outputKeys])
const wanted = new Set([
  ...cacheReadKeys,
  ...cacheWriteKeys,
  ...requestModelKeys,
  ...responseModelKeys,
  ...providerKeys,
  ...userKeys,
  ...conversationKeys,
  ...callKeys,
])

type Traces = Block<typeof tracesTable>
type Place = Pick<UsageEvent, 'tenant' | 'traceId' | 'spanId' | 'parentSpanId'>

export function usageEventsOf(parts: readonly SegmentPart[], priceOf: PriceOf): readonly UsageEvent[] {
  const blocks = parts.map(({ block }) => block).filter((block) => isBlockOf(block, tracesTable))
  const events = blocks.flatMap((block) => [...eventsOf(block, priceOf)])
  if (events.length < 2) return events
  const wrappers = wrappersOf(blocks, events)
  return events.filter((event) => !wrappers.has(keyOf(event, event.spanId)))
}

function* eventsOf(block: Traces, priceOf: PriceOf): Generator<UsageEvent> {
  const placeOf = openPlaces(block)
  const { Timestamp, Duration, SpanAttributes } = block.columns
  for (const { row, values } of mapsWith(SpanAttributes, block.rows, needed, wanted)) {
    const first = (keys: readonly string[]): string =>
      values.get(keys.find((key) => values.get(key) !== undefined && values.get(key) !== '') ?? '') ?? ''
    const usage = usageOf(values)
    if (usage === undefined) continue
    const [requested, responded] = [first(requestModelKeys), first(responseModelKeys)]
    const provider = first(providerKeys)
    const endedUnixNano = Timestamp.data.view.getBigInt64(row * 8, true) + Duration.data.view.getBigInt64(row * 8, true)
    const endedUnixMs = Number(endedUnixNano / 1_000_000n)
    const priced = (model: string): Priced =>
      priceOf({ provider: provider || undefined, model, atUnixMs: endedUnixMs }, usage)
    yield {
      ...placeOf(row),
      generation: 0,
      callId: first(callKeys) || undefined,
      user: first(userKeys),
      conversation: first(conversationKeys),
      // Limits are for the model that was asked for; what answered is priced, and has a name of its own more often.
      model: requested || responded,
      provider,
      usage,
      cost: priced(responded).kind === 'priced' ? priced(responded) : priced(requested || responded),
      isMetered: true,
      endedUnixMs,
    }
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

function openPlaces({ columns }: Traces): (row: number) => Place {
  const tenant = namesOf(columns.TenantId)
  const traceId = openTexts(columns.TraceId)
  const spanId = openTexts(columns.SpanId)
  const parentSpanId = openTexts(columns.ParentSpanId)
  return (row) => ({
    tenant: tenantOf(tenant(row)),
    traceId: traceId(row),
    spanId: spanId(row),
    parentSpanId: parentSpanId(row),
  })
}

function keyOf({ tenant, traceId }: Pick<Place, 'tenant' | 'traceId'>, spanId: string): string {
  return `${tenant}\n${traceId}\n${spanId}`
}

/** The spans above an event, through whatever spans of the segment stand in between. */
function wrappersOf(blocks: readonly Traces[], events: readonly UsageEvent[]): ReadonlySet<string> {
  const wrappers = new Set<string>()
  const counts = new Map<string, number>()
  for (const event of events) counts.set(keyOf(event, ''), (counts.get(keyOf(event, '')) ?? 0) + 1)
  if ([...counts.values()].every((count) => count === 1)) return wrappers
  const parents = new Map<string, string>()
  for (const block of blocks) {
    const placeOf = openPlaces(block)
    for (let row = 0; row < block.rows; row++) {
      const place = placeOf(row)
      if (place.parentSpanId === '' || (counts.get(keyOf(place, '')) ?? 0) < 2) continue
      parents.set(keyOf(place, place.spanId), keyOf(place, place.parentSpanId))
    }
  }
  for (const event of events) {
    let above = parents.get(keyOf(event, event.spanId))
    // One that was seen before has been climbed from, also in a ring.
    for (; above !== undefined && !wrappers.has(above); above = parents.get(above)) wrappers.add(above)
  }
  return wrappers
}
