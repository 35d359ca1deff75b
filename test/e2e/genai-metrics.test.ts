// One name for the metrics of every service, whether it sends them or not: read in the same way, and each call once, in whatever
// order points, calls and what supersedes them come, sent twice, and with a kill in between.
import { createHash } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { type CollectorProcess, startCollector } from '../collector-process.ts'

type Request = { readonly signal: 'traces' | 'metrics'; readonly body: object }
type Value = string | number
type Span = { readonly id: string; readonly parent?: string; readonly endsAtS: number; readonly more?: object }

/** Ten in the evening of yesterday, UTC: no test runs over a change of the day. */
const zero = (Math.floor(Date.now() / 86_400_000) * 86_400 - 7_200) * 1_000

function nano(seconds: number): string {
  return `${BigInt(zero + seconds * 1000) * 1_000_000n}`
}

function attributesOf(values: Readonly<Record<string, Value>>): readonly object[] {
  return Object.entries(values).map(([key, value]) => ({
    key,
    value: typeof value === 'number' ? { intValue: value } : { stringValue: value },
  }))
}

function spansOf(service: string, trace: string, spans: readonly Span[]): Request {
  const traceId = createHash('sha256').update(`${service} ${trace}`).digest('hex').slice(0, 32)
  const chat = {
    'gen_ai.operation.name': 'chat',
    'gen_ai.provider.name': 'openai',
    'gen_ai.request.model': 'gpt-4o-mini',
    'gen_ai.usage.input_tokens': 100,
    'gen_ai.usage.output_tokens': 10,
  }
  const sent = spans.map(({ id, parent = '', endsAtS, more }) => ({
    traceId,
    spanId: id.repeat(16),
    parentSpanId: parent.repeat(16),
    name: 'chat gpt-4o-mini',
    startTimeUnixNano: nano(endsAtS - 2),
    endTimeUnixNano: nano(endsAtS),
    attributes: attributesOf({ ...chat, ...more }),
  }))
  const resource = { attributes: attributesOf({ 'service.name': service }) }
  return { signal: 'traces', body: { resourceSpans: [{ resource, scopeSpans: [{ spans: sent }] }] } }
}

/** A cumulative histogram, as SDKs send it: everything since `fromS`, again with each export. */
function pointsOf(
  service: string,
  fromS: number,
  exports: readonly (readonly [atS: number, sum: number])[],
  more: Readonly<Record<string, string>> = {},
): Request[] {
  const resource = { attributes: attributesOf({ 'service.name': service }) }
  return exports.map(([atS, sum]) => {
    const point = {
      attributes: attributesOf({ 'gen_ai.operation.name': 'chat', 'gen_ai.token.type': 'input', ...more }),
      startTimeUnixNano: nano(fromS),
      timeUnixNano: nano(atS),
      count: `${sum / 100}`,
      sum,
      bucketCounts: [0, sum / 100],
      explicitBounds: [1],
    }
    const histogram = { aggregationTemporality: 2, dataPoints: [point] }
    const metrics = [{ name: 'gen_ai.client.token.usage', unit: '{token}', histogram }]
    return { signal: 'metrics', body: { resourceMetrics: [{ resource, scopeMetrics: [{ metrics }] }] } }
  })
}

/** What the services of one way send. */
function requestsOf(way: string): readonly Request[] {
  const embedding = { 'gen_ai.operation.name': 'embeddings', 'gen_ai.request.model': 'text-embedding-3-small' }
  return [
    // Sends none. The inner of two nested calls meters, whichever comes first.
    spansOf(`${way} quiet`, 'one', [{ id: 'b', parent: 'a', endsAtS: 100 }]),
    spansOf(`${way} quiet`, 'one', [{ id: 'a', endsAtS: 101 }]),
    spansOf(`${way} quiet`, 'two', [{ id: 'a', endsAtS: 200, more: embedding }]),
    // Sends all, from its start to its end.
    spansOf(`${way} sender`, 'one', [{ id: 'a', endsAtS: 100 }]),
    spansOf(`${way} sender`, 'two', [{ id: 'a', endsAtS: 150 }]),
    ...pointsOf(`${way} sender`, 50, [
      [120, 100],
      [180, 200],
    ]),
    // Begins to send after its first call, and ends before its last.
    spansOf(`${way} changing`, 'one', [{ id: 'a', endsAtS: 100 }]),
    spansOf(`${way} changing`, 'two', [{ id: 'a', endsAtS: 200 }]),
    spansOf(`${way} changing`, 'three', [{ id: 'a', endsAtS: 300 }]),
    ...pointsOf(`${way} changing`, 150, [
      [210, 100],
      [270, 100],
    ]),
  ]
}

let collector: CollectorProcess
async function send(requests: readonly Request[]): Promise<void> {
  for (const { signal, body } of requests) {
    const response = await fetch(`http://127.0.0.1:${collector.ports().otlpHttp}/v1/${signal}`, {
      method: 'POST',
      body: JSON.stringify(body),
      headers: { 'Content-Type': 'application/json' },
    })
    expect([response.status, await response.text()]).toEqual([200, '{}'])
  }
}

beforeAll(async () => {
  collector = await startCollector()
  await send(requestsOf('forwards'))
  await send(requestsOf('backwards').toReversed())
  const torn = requestsOf('torn')
  await send(torn.slice(0, 5))
  // Rows are there before what supersedes them comes.
  await collector.drained()
  await send(torn.slice(5, 9).toReversed())
  await collector.kill('SIGKILL')
  await collector.start()
  await send(torn.slice(9))
  // Of another request, so that it is not told from the bytes that it was there.
  await send([spansOf('torn quiet', 'one', [{ id: 'b', parent: 'a', endsAtS: 100, more: { again: 1 } }])])
  await collector.drained()
}, 120_000)
afterAll(() => collector?.[Symbol.asyncDispose]())

/** The query of docs/metrics.md, by service: cumulative points and deltas alike. */
const increase = `
  SELECT service, derived, sum(increase) AS tokens
  FROM (
    SELECT ServiceName AS service, Attributes['tallylight.metric.derived'] = 'true' AS derived,
      max(Sum) - greatest(maxIf(Sum, TimeUnix <= toDateTime(${zero / 1000})), if(StartTimeUnix < toDateTime(${zero / 1000}), min(Sum), 0)) AS increase
    FROM tallylight.genai_metrics
    WHERE MetricName = 'gen_ai.client.token.usage' AND Attributes['gen_ai.token.type'] = 'input'
      AND TimeUnix > toDateTime(${zero / 1000}) - INTERVAL 1 HOUR AND TimeUnix <= toDateTime(${zero / 1000 + 3600})
    GROUP BY TenantId, ServiceName, ResourceAttributes, Attributes, StartTimeUnix
  )
  GROUP BY service, derived ORDER BY service, derived`

test('metrics: the same query counts each call once, sent or derived, in every order', async () => {
  const rows = await collector.query<{ service: string; derived: number; tokens: number }>(increase)
  const expected = ['backwards', 'forwards', 'torn'].flatMap((way) => [
    { service: `${way} changing`, derived: 0, tokens: 100 },
    { service: `${way} changing`, derived: 1, tokens: 200 },
    { service: `${way} quiet`, derived: 1, tokens: 200 },
    { service: `${way} sender`, derived: 0, tokens: 200 },
  ])
  expect(rows).toEqual(expected)
})

test('metrics: of a service that ran before the window, the query of the page counts what came in it, from its first second', async () => {
  const more = { 'gen_ai.token.type': 'output', 'gen_ai.request.model': 'long-lived' }
  const exports = [
    [-90, 100],
    [-30, 200],
    [30, 500],
    [90, 600],
  ] as const
  await send(pointsOf('long-lived', -9_000, exports, more))
  await collector.drained()
  const page = await readFile(new URL('../../docs/metrics.md', import.meta.url), 'utf8')
  const asked = (/```sql\n([^`]+)```/.exec(page)?.[1] ?? '')
    .replaceAll('{from:DateTime}', `toDateTime(${zero / 1000})`)
    .replaceAll('{to:DateTime}', `toDateTime(${zero / 1000 + 3600})`)
  expect(await collector.query(asked)).toContainEqual({ model: 'long-lived', tokens: 400 })
})

test('metrics: what a service does not send is derived, also beside a metric that it sends', async () => {
  const rows = await collector.query(`
    SELECT ServiceName AS service, Attributes['gen_ai.operation.name'] AS operation, toUInt32(sum(Count)) AS count, sum(Sum) AS seconds
    FROM tallylight.genai_metrics WHERE MetricName = 'gen_ai.client.operation.duration' GROUP BY service, operation ORDER BY service, operation`)
  const expected = ['backwards', 'forwards', 'torn'].flatMap((way) => [
    { service: `${way} changing`, operation: 'chat', count: 3, seconds: 6 },
    { service: `${way} quiet`, operation: 'chat', count: 1, seconds: 2 },
    { service: `${way} quiet`, operation: 'embeddings', count: 1, seconds: 2 },
    { service: `${way} sender`, operation: 'chat', count: 2, seconds: 4 },
  ])
  expect(rows).toEqual(expected)
})
