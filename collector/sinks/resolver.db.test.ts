import type { ClickHouse } from '@tallylight/storage/clickhouse/client.ts'
import { migrateClickHouse } from '@tallylight/storage/clickhouse/migrate.ts'
import { verifySchema } from '@tallylight/storage/clickhouse/schema.ts'
import { startTestEngine, type TestEngine } from '@tallylight/storage/clickhouse/testing.ts'
import { afterAll, beforeAll, expect, test, vi } from 'vitest'
import { encodeFact, type Fact } from '../genai/fact.ts'
import { factsOf } from '../genai/lift.ts'
import { openPrices } from '../genai/price.ts'
import { revisionsMax } from '../genai/resolve/resolve.ts'
import { type SpanSketch, sketchSpan } from '../genai/testing.ts'
import type { StoredFact } from './known-facts.ts'
import { openResolver, type ResolvedTrace, type Resolver, type ResolverOptions } from './resolver.ts'

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

function storedOf(facts: readonly Fact[]): readonly StoredFact[] {
  return facts.map((fact) => ({ tenantId: fact.tenantId, traceId: fact.traceId, text: encodeFact(fact) }))
}

const timestamp = new Date(Number(startUnixNano / 1_000_000n)).toISOString().replace('T', ' ').replace('Z', '')

async function insert(clickhouse: ClickHouse, table: string, rows: readonly Record<string, unknown>[]): Promise<void> {
  const whole = rows.map((row) => ({ ...row, RetentionDays: 30, Timestamp: timestamp }))
  const lines = whole.map((row) => `${JSON.stringify(row)}\n`).join('')
  const outcome = await clickhouse.insertRows(`${clickhouse.database}.${table}`, Object.keys(whole[0] ?? {}), lines)
  expect(outcome.kind).toBe('inserted')
}

async function store(clickhouse: ClickHouse, facts: readonly Fact[]): Promise<void> {
  const rows = facts.map((fact) => ({
    TenantId: fact.tenantId,
    TraceId: fact.traceId,
    SpanId: fact.spanId,
    FactId: fact.id,
    Fact: encodeFact(fact),
  }))
  await insert(clickhouse, 'genai_facts', rows)
}

async function open(
  database: string,
  changed: Partial<ResolverOptions> = {},
  insertNative?: (made: ClickHouse['insertNative']) => ClickHouse['insertNative'],
): Promise<{ readonly clickhouse: ClickHouse; readonly resolver: Resolver }> {
  const clickhouse = await engine.open(database, false)
  await migrateClickHouse(clickhouse)
  const schema = await verifySchema(clickhouse)
  const targets = schema.kind === 'verified' ? schema.targets : undefined
  const resolver = openResolver({
    clickhouse:
      insertNative === undefined ? clickhouse : { ...clickhouse, insertNative: insertNative(clickhouse.insertNative) },
    targetOf: (table) => targets?.get(table),
    priceOf: openPrices([]),
    estimate: () => Promise.reject(new Error('nothing is to be estimated')),
    retentionDaysOf: () => 30,
    now: Date.now,
    bounds: { rememberedBytesMax: 8 * 1024 * 1024, quietMs: 0, checkMs: 20, looksMax: 50_000 },
    isShared: true,
    onMore: () => Promise.resolve(),
    onUnpriced: () => undefined,
    onMissing: () => undefined,
    onProblem: (message) => expect.fail(message),
    ...changed,
  })
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
  await store(clickhouse, [...mine, ...others])
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
  await store(clickhouse, before)
  // As one that was made with links that are not there any more.
  const theirs = 100 * revisionsMax
  await insert(
    clickhouse,
    'llm_call_rows',
    before.map(({ tenantId: TenantId, traceId: TraceId, spanId: SpanId }) => ({
      TenantId,
      TraceId,
      SpanId,
      Generation: theirs,
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
