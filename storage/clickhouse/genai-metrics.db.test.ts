import { afterAll, beforeAll, expect, test } from 'vitest'
import type { ClickHouse } from './client.ts'
import { migrateClickHouse } from './migrate.ts'
import { startTestEngine, type TestEngine } from './testing.ts'

let engine: TestEngine
let client: ClickHouse
beforeAll(async () => {
  engine = await startTestEngine()
  client = await engine.open('metrics', false)
  await migrateClickHouse(client)
})
afterAll(() => engine[Symbol.asyncDispose]())

type Point = { readonly from: string; readonly to: string; readonly table?: string }

/** Points that a tenant's service sent. */
async function send(tenant: string, points: readonly Point[]): Promise<void> {
  for (const { from, to, table = 'otel_metrics_histogram' } of points)
    await client.command(
      `INSERT INTO metrics.${table} (TenantId, RetentionDays, ServiceName, MetricName, StartTimeUnix, TimeUnix, Count, Sum, AggregationTemporality)
       VALUES ('${tenant}', 90, 'chat', 'gen_ai.client.operation.duration', '${from}', '${to}', 1, 1, 2)`,
    )
}

/** Calls of two seconds that ended at these times. */
async function call(tenant: string, ended: readonly string[]): Promise<void> {
  await client.command(
    `INSERT INTO metrics.llm_call_rows (TenantId, RetentionDays, Timestamp, TraceId, SpanId, ServiceName, Provider, RequestModel, Model, InputTokens, DurationNano, Generation)
     SELECT {tenant:String}, 90, toDateTime64(ended, 9) - toIntervalSecond(2), ended, 'a', 'chat', 'openai', 'gpt', 'gpt-1', 100, 2000000000, 1024
     FROM (SELECT arrayJoin({ended:Array(String)}) AS ended)`,
    { tenant, ended: [...ended] },
  )
}

async function derivedMinutes(tenant: string): Promise<readonly string[]> {
  const rows = await client.query<{ minute: string }>(
    `SELECT formatDateTime(StartTimeUnix, '%H:%i') AS minute FROM metrics.genai_metrics
     WHERE TenantId = {tenant:String} AND MetricName = 'gen_ai.client.operation.duration'
       AND Attributes['tallylight.metric.derived'] = 'true' ORDER BY minute`,
    { tenant },
  )
  return rows.map(({ minute }) => minute)
}

const day = '2026-11-20'
const ends = ['09:00:30', '10:00:30', '11:00:30', '12:00:30'].map((time) => `${day} ${time}`)
const allMinutes = ['09:00', '10:00', '11:00', '12:00']

test.each<readonly [name: string, points: readonly Point[], derived: readonly string[]]>([
  ['no points', [], allMinutes],
  ['points of before and after', [{ from: '10:30:00', to: '10:45:00' }], allMinutes],
  ['one that begins between calls', [{ from: '09:30:00', to: '23:00:00' }], ['09:00']],
  ['one that ended', [{ from: '08:00:00', to: '10:30:00' }], ['11:00', '12:00']],
  [
    'a short one inside a long one',
    [
      { from: '08:00:00', to: '11:30:00' },
      { from: '09:10:00', to: '09:20:00' },
    ],
    ['12:00'],
  ],
  [
    'deltas with a hole',
    [
      { from: '09:00:00', to: '09:01:00' },
      { from: '11:00:00', to: '11:01:00' },
    ],
    ['10:00', '12:00'],
  ],
  ['the end of a call, not its start', [{ from: '10:00:29', to: '10:00:31' }], ['09:00', '11:00', '12:00']],
  ['exponential ones', [{ from: '09:30:00', to: '23:00:00', table: 'otel_metrics_exp_histogram' }], ['09:00']],
])('derived metrics: calls that sent points cover are not derived: %s', async (name, points, derived) => {
  await send(
    name,
    points.map((point) => ({ ...point, from: `${day} ${point.from}`, to: `${day} ${point.to}` })),
  )
  await call(name, ends)
  await call(`not ${name}`, ends)
  expect(await derivedMinutes(name)).toEqual(derived)
  expect(await derivedMinutes(`not ${name}`), 'another tenant’s service of the same name').toEqual(allMinutes)
})

test('derived metrics: a point that does not say when it began speaks for its day until then', async () => {
  await send('beginless', [{ from: '1970-01-01 00:00:00', to: `${day} 10:30:00` }])
  await call('beginless', ['2026-11-19 10:00:30', ...ends])
  expect(await derivedMinutes('beginless')).toEqual(['10:00', '11:00', '12:00'])
})

test('derived metrics: values fall into the buckets of the conventions, the upper bound inside', async () => {
  await client.command(
    `INSERT INTO metrics.llm_call_rows (TenantId, RetentionDays, Timestamp, TraceId, SpanId, ServiceName, Provider, RequestModel, Model, InputTokens, OutputTokens, ErrorType, DurationNano, TimeToFirstTokenNano, Generation)
     SELECT 'buckets', 90, '${day} 10:00:00', toString(tokens), 'a', 'chat', 'openai', 'gpt', 'gpt-1', tokens, NULL, if(tokens = 0, 'timeout', ''), 100000000000, 10000000, 1024
     FROM (SELECT arrayJoin([0, 1, 2, 4, 5, 67108864, 67108865]) AS tokens)`,
  )
  const points = await client.query(
    `SELECT MetricName AS name, MetricUnit AS unit, Attributes AS attributes, toUInt32(Count) AS count, Sum AS sum, Min AS min, Max AS max,
       arrayMap(each -> toUInt32(each), BucketCounts) AS counts, ExplicitBounds AS bounds, AggregationTemporality AS temporality
     FROM metrics.genai_metrics WHERE TenantId = 'buckets' ORDER BY name, count`,
  )
  const seconds = [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92]
  const tokens = Array.from({ length: 14 }, (_, power) => 4 ** power)
  const described = {
    'gen_ai.operation.name': 'chat',
    'gen_ai.provider.name': 'openai',
    'gen_ai.request.model': 'gpt',
    'gen_ai.response.model': 'gpt-1',
    'tallylight.metric.derived': 'true',
  }
  const bucket = (...counted: readonly (readonly [at: number, count: number])[]): readonly number[] => {
    const counts = new Array<number>(15).fill(0)
    for (const [at, count] of counted) counts[at] = count
    return counts
  }
  expect(points).toEqual([
    {
      name: 'gen_ai.client.operation.duration',
      unit: 's',
      attributes: { 'error.type': 'timeout', ...described },
      ...{ count: 1, sum: 100, min: 100, max: 100, counts: bucket([14, 1]), bounds: seconds, temporality: 1 },
    },
    {
      name: 'gen_ai.client.operation.duration',
      unit: 's',
      attributes: described,
      ...{ count: 6, sum: 600, min: 100, max: 100, counts: bucket([14, 6]), bounds: seconds, temporality: 1 },
    },
    {
      name: 'gen_ai.client.operation.time_to_first_chunk',
      unit: 's',
      attributes: described,
      ...{ count: 7, sum: 0.07, min: 0.01, max: 0.01, counts: bucket([0, 7]), bounds: seconds, temporality: 1 },
    },
    {
      name: 'gen_ai.client.token.usage',
      unit: '{token}',
      attributes: { ...described, 'gen_ai.token.type': 'input' },
      ...{ count: 7, sum: 134217741, min: 0, max: 67108865, temporality: 1 },
      ...{ counts: bucket([0, 2], [1, 2], [2, 1], [13, 1], [14, 1]), bounds: tokens },
    },
  ])
})

test('derived metrics: exponential points are shown with the bounds of their buckets', async () => {
  await client.command(
    `INSERT INTO metrics.otel_metrics_exp_histogram (TenantId, RetentionDays, ServiceName, MetricName, TimeUnix, Count, Sum, Scale, ZeroCount, PositiveOffset, PositiveBucketCounts)
     VALUES ('exponential', 90, 'chat', 'gen_ai.client.token.usage', '${day} 10:00:00', 6, 30, 1, 1, 2, [3, 0, 2])`,
  )
  const [point] = await client.query<{ counts: number[]; bounds: number[] }>(
    `SELECT arrayMap(each -> toUInt32(each), BucketCounts) AS counts, ExplicitBounds AS bounds FROM metrics.genai_metrics
     WHERE TenantId = 'exponential'`,
  )
  expect(point?.counts).toEqual([1, 3, 0, 2, 0])
  for (const [at, bound] of [2, 2 ** 1.5, 4, 2 ** 2.5].entries()) expect(point?.bounds[at]).toBeCloseTo(bound, 12)
})
