import type { ClickHouse } from '@tallylight/storage/clickhouse/client.ts'
import { migrateClickHouse } from '@tallylight/storage/clickhouse/migrate.ts'
import { verifySchema } from '@tallylight/storage/clickhouse/schema.ts'
import { startTestEngine, type TestEngine } from '@tallylight/storage/clickhouse/testing.ts'
import { afterAll, beforeAll, expect, test, vi } from 'vitest'
import { estimateUsage } from '../genai/estimate.ts'
import type { Fact } from '../genai/fact.ts'
import { factsOf } from '../genai/lift.ts'
import { openPrices } from '../genai/price.ts'
import { revisionsMax } from '../genai/resolve/resolve.ts'
import { chatAttributes, type SpanSketch, sketchLog, sketchSpan } from '../genai/testing.ts'
import type { ResolvedTrace, Resolver, ResolverOptions } from './resolver.ts'
import { insertLines, openTestResolver, storedOf, storeFacts } from './testing.ts'
import { usageEventsOf } from './usage-of-calls.ts'

let engine: TestEngine
beforeAll(async () => {
  engine = await startTestEngine()
})
afterAll(() => engine[Symbol.asyncDispose]())

const startUnixNano = BigInt(Date.now()) * 1_000_000n
const chat = {
  'gen_ai.operation.name': 'chat',
  'gen_ai.provider.name': 'openai',
  'gen_ai.request.model': 'gpt-4o-mini',
  'gen_ai.usage.input_tokens': 10,
  'gen_ai.usage.output_tokens': 1,
}

function factsOfSpan(sketch: SpanSketch): readonly Fact[] {
  return factsOf(sketchSpan({ startUnixNano, endUnixNano: startUnixNano, ...sketch })).facts
}

const timestamp = new Date(Number(startUnixNano / 1_000_000n)).toISOString().replace('T', ' ').replace('Z', '')

async function open(
  database: string,
  changed: Partial<ResolverOptions> = {},
  insertNative?: (made: ClickHouse['insertNative']) => ClickHouse['insertNative'],
): Promise<{ readonly clickhouse: ClickHouse; readonly resolver: Resolver }> {
  const clickhouse = await engine.open(database, false)
  await migrateClickHouse(clickhouse)
  const schema = await verifySchema(clickhouse)
  if (schema.kind !== 'verified') throw new Error(schema.problems.join('; '))
  const resolver = openTestResolver(
    insertNative === undefined ? clickhouse : { ...clickhouse, insertNative: insertNative(clickhouse.insertNative) },
    schema.targets,
    { isShared: true, ...changed },
  )
  return { clickhouse, resolver }
}

test('resolver: quiet traces are resolved in portions, of which one that fails waits alone', async () => {
  const resolved: number[] = []
  const problems: string[] = []
  let failures = 0
  const { clickhouse, resolver } = await open(
    'quiet',
    {
      onMore: async (more) => {
        resolved.push(more.length)
      },
      onProblem: (message) => problems.push(message),
    },
    (made) =>
      (...insertion) =>
        failures-- > 0 ? Promise.resolve({ kind: 'unreachable', message: 'away' }) : made(...insertion),
  )
  const traces = Array.from({ length: 600 }, (_, at) => at.toString(16).padStart(32, '0'))
  const mine = traces.flatMap((traceId) => factsOfSpan({ traceId, attributes: chat }))
  const others = traces.flatMap((traceId) => factsOfSpan({ traceId, spanId: '0000000000000002', attributes: chat }))
  await resolver.resolve(storedOf(mine), () => undefined)
  await storeFacts(clickhouse, [...mine, ...others])
  failures = 1
  const stop = new AbortController()
  const running = resolver.run(stop.signal)
  await vi.waitFor(() => expect(resolved).toEqual([250, 100, 250]), 10_000)
  stop.abort()
  await running
  expect(problems).toEqual([expect.stringContaining('away')])
  const [calls] = await clickhouse.query('SELECT toUInt32(count()) AS calls FROM quiet.llm_calls')
  expect(calls).toEqual({ calls: 1_200 })
})

test('resolver: what supersedes rows of more facts is superseded in turn, and said again under the same generation', async () => {
  const inserted: string[] = []
  const { clickhouse, resolver } = await open('superseded', {}, (made) => (table, ...insertion) => {
    inserted.push(table)
    return made(table, ...insertion)
  })
  const [before, inner, outer] = [
    factsOfSpan({ spanId: '0000000000000003', attributes: chat }),
    factsOfSpan({ spanId: '0000000000000002', parentSpanId: '0000000000000001', attributes: chat }),
    factsOfSpan({ attributes: { 'gen_ai.operation.name': 'invoke_agent', 'user.id': 'ada' } }),
  ]
  await storeFacts(clickhouse, before)
  // As one that was made with links that are not there any more.
  const theirs = 100 * revisionsMax
  await insertLines(
    clickhouse,
    'llm_call_rows',
    before.map(({ tenantId: TenantId, traceId: TraceId, spanId: SpanId }) => ({
      TenantId,
      TraceId,
      SpanId,
      Generation: theirs,
      RetentionDays: 30,
      Timestamp: timestamp,
    })),
  )
  const said: (readonly [generation: number, user: string | undefined])[] = []
  const take = ({ resolved }: ResolvedTrace): void => {
    const call = resolved.llmCalls.find(({ SpanId }) => SpanId === inner[0]?.spanId)
    said.push([resolved.generation, call?.UserId])
  }
  for (const facts of [inner, inner, outer]) await resolver.resolve(storedOf(facts), take)
  inserted.length = 0
  for (const facts of [outer, inner]) await resolver.resolve(storedOf(facts), take)
  const [first, last] = [theirs + 1, theirs + 2]
  expect(said).toEqual([
    [first, ''],
    [first, ''],
    [last, 'ada'],
    [last, 'ada'],
    [last, 'ada'],
  ])
  expect(inserted).toEqual([])
})

/** A reply that comes as one log record per item. */
function factsOfItem(text: string, ordinal: number): readonly Fact[] {
  const reply = [{ role: 'assistant', parts: [{ type: 'text', content: text }] }]
  return factsOf(
    sketchLog({
      eventName: 'gen_ai.client.inference.operation.details',
      timeUnixNano: startUnixNano + BigInt(ordinal),
      attributes: { 'gen_ai.output.messages': JSON.stringify(reply) },
    }),
  ).facts
}

test('resolver: a stream that told no usage is counted again as its texts come in, and is priced later as it was counted', async () => {
  let prices = openPrices([])
  const corrected: unknown[] = []
  const { clickhouse, resolver } = await open('counted', {
    estimate: (texts) => Promise.resolve(estimateUsage(texts)),
    priceOf: (model, usage) => prices(model, usage),
    onMore: async (more) => {
      corrected.push(...more.flatMap(usageEventsOf).map(({ cost }) => cost))
    },
  })
  const stream = { ...chatAttributes, 'gen_ai.request.model': 'house', 'gen_ai.request.stream': true }
  const span = factsOfSpan({ attributes: stream })
  const said: unknown[] = []
  for (const facts of [span, factsOfItem('one two three', 1), factsOfItem('four five six seven', 2)]) {
    await storeFacts(clickhouse, facts)
    await resolver.resolve(storedOf(facts), ({ resolved: { llmCalls } }) =>
      said.push([llmCalls[0]?.OutputTokens, llmCalls[0]?.UsageSource]),
    )
  }
  expect(said).toEqual([
    [null, 'none'],
    [3, 'estimated'],
    [7, 'estimated'],
  ])

  prices = openPrices([
    { model: 'house', fromUnixMs: 0, inputNanoUsdPerMillion: 0n, outputNanoUsdPerMillion: 1_000_000_000n },
  ])
  const { tenantId, traceId } = span[0] as Fact
  const times = { tenantId, traceId, fromUnixNano: startUnixNano, toUnixNano: startUnixNano }
  expect(await resolver.reprice([times], () => true)).toBe(1)
  expect(corrected).toEqual([expect.objectContaining({ kind: 'priced', costNanoUsd: 7_000n })])
  const rows = await clickhouse.query('SELECT OutputTokens AS output, CostNanoUsd AS cost FROM counted.llm_calls')
  expect(rows).toEqual([{ output: 7, cost: 7_000 }])
})

test('resolver: of plain spans that came before, those that no call stands under say no more than if they come after', async () => {
  const { clickhouse, resolver } = await open('beside')
  const parentSpanId = '0000000000000009'
  const facts = factsOfSpan({ parentSpanId, attributes: chat })
  const plain = (SpanId: string, ParentSpanId: string, SpanAttributes: Readonly<Record<string, string>>) => ({
    ...{ TenantId: facts[0]?.tenantId, TraceId: facts[0]?.traceId, SpanId, ParentSpanId, SpanAttributes },
    ...{ Timestamp: timestamp, Duration: 1, RetentionDays: 30 },
  })
  await storeFacts(clickhouse, facts)
  await insertLines(clickhouse, 'otel_traces', [
    plain('000000000000000a', parentSpanId, { 'user.id': 'who was looked up' }),
    plain(parentSpanId, '000000000000000b', {}),
    plain('000000000000000b', '', { 'session.id': 's1' }),
  ])
  const said: unknown[] = []
  await resolver.resolve(storedOf(facts), ({ resolved: { llmCalls } }) =>
    said.push(llmCalls.map(({ UserId, ConversationId }) => [UserId, ConversationId])),
  )
  expect(said).toEqual([[['', 's1']]])
})

test('resolver: what is priced while the ledger is away is priced when it is asked for again', async () => {
  let prices = openPrices([])
  let isAway = true
  const { clickhouse, resolver } = await open('away', {
    priceOf: (model, usage) => prices(model, usage),
    onMore: () => (isAway ? Promise.reject(new Error('the ledger cannot be reached')) : Promise.resolve()),
  })
  const facts = factsOfSpan({ attributes: { ...chat, 'gen_ai.request.model': 'house' } })
  await storeFacts(clickhouse, facts)
  await resolver.resolve(storedOf(facts), () => undefined)
  prices = openPrices([
    { model: 'house', fromUnixMs: 0, inputNanoUsdPerMillion: 0n, outputNanoUsdPerMillion: 1_000_000n },
  ])
  const { tenantId, traceId } = facts[0] as Fact
  const times = { tenantId, traceId, fromUnixNano: startUnixNano, toUnixNano: startUnixNano }
  const reprice = () => resolver.reprice([times], () => true)
  const cost = () => clickhouse.query('SELECT CostNanoUsd AS cost FROM away.llm_calls')
  await expect(reprice()).rejects.toThrow('the ledger cannot be reached')
  expect(await cost()).toEqual([{ cost: null }])
  isAway = false
  expect(await reprice()).toBe(1)
  expect(await cost()).toEqual([{ cost: 1 }])
})

test('resolver: a span that tells something else when it comes again supersedes itself, also when it was forgotten meanwhile', async () => {
  const { clickhouse, resolver } = await open('retold')
  const tellings = [1, 7].map((output) =>
    factsOfSpan({ attributes: { ...chat, 'gen_ai.usage.output_tokens': output } }),
  )
  const said: number[] = []
  for (const facts of [...tellings, ...tellings]) {
    await storeFacts(clickhouse, facts)
    await resolver.resolve(storedOf(facts), ({ resolved }) => said.push(resolved.generation))
    await resolver.forget()
  }
  const [first, second] = [2 * revisionsMax, 4 * revisionsMax]
  expect(said).toEqual([first, second, second, second])
})

test('resolver: a second look that was left by a run before is made by the next', async () => {
  const journal = 'bbbbbbbbbb'
  const missing: string[] = []
  const { clickhouse, resolver } = await open('unsettled', { journal: 'aaaaaaaaaa' })
  const spans = ['1', '2'].map((id) => id.padStart(16, '0'))
  const [calls, agent] = [
    spans.map((spanId) => factsOfSpan({ spanId, parentSpanId: '0000000000000009', attributes: chat })),
    factsOfSpan({
      spanId: '0000000000000009',
      parentSpanId: '000000000000000a',
      attributes: { 'gen_ai.operation.name': 'invoke_agent', 'user.id': 'ada' },
    }),
  ]
  const [first, second] = calls as [readonly Fact[], readonly Fact[]]
  await storeFacts(clickhouse, first, 'aaaaaaaaaa-000000000001')
  await resolver.resolve(storedOf(first), () => undefined)
  await storeFacts(clickhouse, agent, `${journal}-000000000001`)
  await storeFacts(clickhouse, second, 'aaaaaaaaaa-000000000002')
  await resolver.resolve(storedOf(second), () => undefined)
  const users = () => clickhouse.query('SELECT UserId AS user FROM unsettled.llm_calls ORDER BY SpanId')
  expect(await users()).toEqual([{ user: '' }, { user: '' }])

  const next = await open('unsettled', { journal: 'aaaaaaaaaa', onMissing: (_tenant, ids) => missing.push(...ids) })
  await next.resolver.recallLooks()
  const stop = new AbortController()
  const running = next.resolver.run(stop.signal)
  await vi.waitFor(async () => expect(await users()).toEqual([{ user: 'ada' }, { user: 'ada' }]), 10_000)
  stop.abort()
  await running
  expect(missing).toContain('000000000000000a')
})
