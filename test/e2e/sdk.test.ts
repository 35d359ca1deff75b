// Three programs with the unmodified OpenTelemetry SDK, one per exporter, against a collector as a user starts it. Each
// value is looked for in ClickHouse exactly as it was sent.
import { spawn } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { type CollectorProcess, startCollector } from '../collector-process.ts'
import { largeText, oddAttributes } from './values.ts'

let collector: CollectorProcess
beforeAll(async () => {
  collector = await startCollector()
})
afterAll(async () => {
  await collector[Symbol.asyncDispose]()
})

async function send(kind: string): Promise<void> {
  const { otlpGrpc, otlpHttp } = collector.ports()
  const endpoint = `http://127.0.0.1:${kind === 'grpc' ? otlpGrpc : otlpHttp}`
  const sender = spawn(process.execPath, [fileURLToPath(new URL('./sender.ts', import.meta.url)), kind, endpoint], {
    stdio: ['ignore', 'ignore', 'pipe'],
    env: { PATH: process.env.PATH ?? '' },
  })
  let said = ''
  sender.stderr.setEncoding('utf8').on('data', (text: string) => {
    said += text
  })
  const code = await new Promise((resolve) => sender.once('close', resolve))
  expect({ code, said }).toEqual({ code: 0, said: '' })
  await collector.drained()
}

for (const kind of ['proto', 'http', 'grpc']) {
  test(`sdk: everything that the ${kind} exporters send is found exactly as sent`, async () => {
    await send(kind)
    const service = `ServiceName = 'sender-${kind}'`
    const [span] = await collector.query<Record<string, unknown>>(
      `SELECT *, toUnixTimestamp64Nano(Timestamp) > 0 AS isTimed FROM tallylight.otel_traces WHERE ${service}`,
    )
    expect(span).toMatchObject({
      TenantId: 'default',
      SpanName: 'GET /ünïcode 🚦',
      SpanKind: 'Client',
      StatusCode: 'Error',
      StatusMessage: 'nö',
      ScopeName: 'sender',
      ScopeVersion: '1.2.3',
      ParentSpanId: '',
      'Events.Name': ['first token', 'done'],
      'Events.Attributes': [{ 'chunk.index': '0' }, { text: 'fin \u0000 ok' }],
      'Links.TraceId': ['0af7651916cd43dd8448eb211c80319c'],
      'Links.SpanId': ['b7ad6b7169203331'],
      'Links.Attributes': [{ why: 'because' }],
    })
    expect(span?.ResourceAttributes).toMatchObject({ 'host.name': 'häuschen', 'service.name': `sender-${kind}` })
    expect(span?.SpanAttributes).toEqual({
      ...Object.fromEntries(
        Object.entries(oddAttributes).map(([name, value]) => [
          name,
          Array.isArray(value) ? JSON.stringify(value) : String(value),
        ]),
      ),
      large: largeText,
    })
    const traces = await collector.query<{ rows: string }>(
      `SELECT count() AS rows FROM tallylight.otel_traces_trace_id_ts AS t INNER JOIN (SELECT TraceId, Timestamp FROM tallylight.otel_traces WHERE ${service}) AS s ON t.TraceId = s.TraceId WHERE t.Start <= s.Timestamp AND t.End + 1 >= s.Timestamp`,
    )
    expect(Number(traces[0]?.rows)).toBe(1)

    const logs = await collector.query<Record<string, unknown>>(
      `SELECT * FROM tallylight.otel_logs WHERE ${service} ORDER BY Body`,
    )
    expect(logs).toHaveLength(2)
    expect(logs[0]).toMatchObject({
      Body: 'brökén',
      SeverityText: 'ERROR',
      SeverityNumber: 17,
      EventName: 'it.broke',
      LogAttributes: { code: '7' },
    })
    expect(JSON.parse(String(logs[1]?.Body))).toEqual({ nested: [1, 'two', { three: true }] })

    const [sum] = await collector.query(
      `SELECT MetricName, MetricUnit, MetricDescription, Value, IsMonotonic, Attributes FROM tallylight.otel_metrics_sum WHERE ${service} AND MetricName = 'calls'`,
    )
    expect(sum).toEqual({
      MetricName: 'calls',
      MetricUnit: '{call}',
      MetricDescription: 'how often',
      Value: 3,
      IsMonotonic: true,
      Attributes: { model: 'gpt' },
    })
    const [open] = await collector.query(
      `SELECT Value, IsMonotonic FROM tallylight.otel_metrics_sum WHERE ${service} AND MetricName = 'open'`,
    )
    expect(open).toEqual({ Value: -2, IsMonotonic: false })
    const [gauge] = await collector.query(`SELECT Value FROM tallylight.otel_metrics_gauge WHERE ${service}`)
    expect(gauge).toEqual({ Value: 21.5 })
    const [histogram] = await collector.query(
      `SELECT Count, Sum, BucketCounts, ExplicitBounds, Min, Max FROM tallylight.otel_metrics_histogram WHERE ${service}`,
    )
    expect(histogram).toEqual({
      Count: 4,
      Sum: 55.55,
      BucketCounts: [1, 1, 1, 1],
      ExplicitBounds: [0.1, 1, 10],
      Min: 0.05,
      Max: 50,
    })
    const [exponential] = await collector.query(
      `SELECT Count, Sum, arraySum(PositiveBucketCounts) AS positive, Min, Max FROM tallylight.otel_metrics_exp_histogram WHERE ${service}`,
    )
    expect(exponential).toEqual({ Count: 4, Sum: 15, positive: 4, Min: 1, Max: 8 })
  })
}

test('sdk: the books are balanced after everything was stored', async () => {
  for (const signal of ['traces', 'metrics', 'logs']) {
    const accepted = await collector.metric('tallylight_accepted_records_total', { signal })
    const stored = await collector.metric('tallylight_stored_records_total', { signal })
    expect(accepted).toBeGreaterThan(0)
    expect(stored).toBe(accepted)
  }
})
