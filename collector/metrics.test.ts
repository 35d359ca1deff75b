import { expect, test } from 'vitest'
import { metricsOf } from './metric-export.ts'
import { readMetricExport } from './metric-export-settings.ts'
import { openMetrics, renderPrometheus, type Sample } from './metrics.ts'
import { processSamples } from './process-samples.ts'

function openSome() {
  const metrics = openMetrics()
  metrics.add('tallylight_refused_requests_total', { signal: 'traces', reason: 'throttled' }, 1)
  metrics.add('tallylight_refused_requests_total', { signal: 'traces', reason: 'throttled' }, 2)
  metrics.add('tallylight_journal_problems_total', { kind: 'odd "\\\n name' }, 1)
  for (const rows of [1, 20_000, 20_001, 5_000_000])
    metrics.observe('tallylight_insert_rows', { table: 'otel_traces' }, rows)
  const held: Sample = { name: 'tallylight_journal_bytes', type: 'gauge', help: 'Size.', labels: {}, value: 7 }
  const lasting: Sample = {
    name: 'tallylight_accepted_records_total',
    type: 'counter',
    isLasting: true,
    help: 'Accepted.',
    labels: { signal: 'logs' },
    value: 9,
  }
  metrics.onRead(() => [held, lasting])
  return metrics
}

test('metrics: Prometheus text has help and type once per name, buckets that add up, and labels that cannot break a line', () => {
  expect(renderPrometheus(openSome().read())).toBe(`\
# HELP tallylight_refused_requests_total Requests that were refused, by reason.
# TYPE tallylight_refused_requests_total counter
tallylight_refused_requests_total{signal="traces",reason="throttled"} 3
# HELP tallylight_journal_problems_total Writes that failed, a journal that was full, frames that were torn or corrupt, records or books that are gone, by kind.
# TYPE tallylight_journal_problems_total counter
tallylight_journal_problems_total{kind="odd \\"\\\\\\n name"} 1
# HELP tallylight_insert_rows Rows of one insert.
# TYPE tallylight_insert_rows histogram
tallylight_insert_rows_bucket{table="otel_traces",le="1"} 1
tallylight_insert_rows_bucket{table="otel_traces",le="10"} 1
tallylight_insert_rows_bucket{table="otel_traces",le="100"} 1
tallylight_insert_rows_bucket{table="otel_traces",le="1000"} 1
tallylight_insert_rows_bucket{table="otel_traces",le="5000"} 1
tallylight_insert_rows_bucket{table="otel_traces",le="20000"} 2
tallylight_insert_rows_bucket{table="otel_traces",le="50000"} 3
tallylight_insert_rows_bucket{table="otel_traces",le="100000"} 3
tallylight_insert_rows_bucket{table="otel_traces",le="250000"} 3
tallylight_insert_rows_bucket{table="otel_traces",le="1000000"} 3
tallylight_insert_rows_bucket{table="otel_traces",le="+Inf"} 4
tallylight_insert_rows_sum{table="otel_traces"} 5040002
tallylight_insert_rows_count{table="otel_traces"} 4
# HELP tallylight_journal_bytes Size.
# TYPE tallylight_journal_bytes gauge
tallylight_journal_bytes 7
# HELP tallylight_accepted_records_total Accepted.
# TYPE tallylight_accepted_records_total counter
tallylight_accepted_records_total{signal="logs"} 9
`)
})

test('metrics: over OTLP they have the same numbers, units for suffixes, and an unknown start when they are counted over restarts', () => {
  const found = new Map(
    metricsOf(openSome().read(), 1_700_000_000_123).map((metric) => [metric.descriptor.name, metric]),
  )
  expect([...found.keys()]).toEqual([
    'tallylight.refused_requests',
    'tallylight.journal_problems',
    'tallylight.insert_rows',
    'tallylight.journal',
    'tallylight.accepted_records',
  ])
  expect(found.get('tallylight.refused_requests')).toMatchObject({
    isMonotonic: true,
    descriptor: { unit: '{request}', description: 'Requests that were refused, by reason.' },
    dataPoints: [{ value: 3, attributes: { reason: 'throttled' }, endTime: [1_700_000_000, 123_000_000] }],
  })
  expect(found.get('tallylight.journal')).toMatchObject({ descriptor: { unit: 'By' }, dataPoints: [{ value: 7 }] })
  expect(found.get('tallylight.accepted_records')?.dataPoints[0]?.startTime).toEqual([0, 0])
  expect(found.get('tallylight.refused_requests')?.dataPoints[0]?.startTime).not.toEqual([0, 0])
  const { value } = found.get('tallylight.insert_rows')?.dataPoints[0] ?? {}
  expect(value).toMatchObject({ count: 4, sum: 5_040_002, buckets: { counts: [1, 0, 0, 0, 0, 1, 1, 0, 0, 0, 1] } })
})

test('metrics: what the process costs goes up, and says which version it is', () => {
  const read = () => new Map(processSamples('1.2.3').map((sample) => [sample.name, sample]))
  const before = read()
  while (process.cpuUsage().user / 1e6 <= Number(before.get('process_cpu_seconds_total')?.value)) Math.random()
  expect(Number(read().get('process_cpu_seconds_total')?.value)).toBeGreaterThan(
    Number(before.get('process_cpu_seconds_total')?.value),
  )
  expect(Number(before.get('process_resident_memory_bytes')?.value)).toBeGreaterThan(10_000_000)
  expect(before.get('tallylight_build_info')?.labels).toEqual({ version: '1.2.3' })
})

const endpoint = 'OTEL_EXPORTER_OTLP_ENDPOINT'
const metricsEndpoint = 'OTEL_EXPORTER_OTLP_METRICS_ENDPOINT'
for (const [what, environment, expected] of [
  ['nothing', {}, { kind: 'off', why: '' }],
  [
    'other names of OpenTelemetry',
    { OTEL_SERVICE_NAME: 'x', OTEL_EXPORTER_OTLP_HEADERS: 'a=b' },
    { kind: 'off', why: '' },
  ],
  [
    'an endpoint',
    { [endpoint]: 'https://otel.example/base/' },
    { kind: 'on', url: 'https://otel.example/base/v1/metrics', protocol: 'http/protobuf', intervalMs: 60_000 },
  ],
  [
    'an endpoint for metrics, which is taken as it is',
    { [endpoint]: 'ftp://x', [metricsEndpoint]: 'http://u:p@otel.example:9/m', OTEL_METRIC_EXPORT_INTERVAL: '500' },
    { kind: 'on', url: 'http://otel.example:9/m', protocol: 'http/protobuf', intervalMs: 500 },
  ],
  [
    'JSON for metrics alone',
    {
      [endpoint]: 'http://otel.example',
      OTEL_EXPORTER_OTLP_PROTOCOL: 'grpc',
      OTEL_EXPORTER_OTLP_METRICS_PROTOCOL: 'http/json',
    },
    { kind: 'on', url: 'http://otel.example/v1/metrics', protocol: 'http/json', intervalMs: 60_000 },
  ],
  [
    'our own endpoint',
    { [endpoint]: 'http://here:4318' },
    { kind: 'off', why: expect.stringContaining(metricsEndpoint) },
  ],
  [
    'our own endpoint over gRPC',
    { [endpoint]: 'http://here:4318', OTEL_EXPORTER_OTLP_PROTOCOL: 'grpc' },
    { kind: 'off' },
  ],
  ['our own endpoint, asked for', { [metricsEndpoint]: 'http://here:4318/v1/metrics' }, { kind: 'on' }],
  ['the SDK switched off', { [endpoint]: 'http://x', OTEL_SDK_DISABLED: 'TRUE' }, { kind: 'off' }],
  ['no metrics wanted', { [endpoint]: 'http://x', OTEL_METRICS_EXPORTER: 'none' }, { kind: 'off' }],
  [
    'no URL',
    { [endpoint]: 'u:secret@host' },
    { kind: 'refused', reason: `${endpoint} is not a URL that begins with http:// or https://` },
  ],
  [
    'gRPC',
    { [endpoint]: 'http://x', OTEL_EXPORTER_OTLP_PROTOCOL: 'grpc' },
    { kind: 'refused', reason: expect.stringContaining('not "grpc"') },
  ],
  [
    'no interval',
    { [endpoint]: 'http://x', OTEL_METRIC_EXPORT_INTERVAL: '1m' },
    { kind: 'refused', reason: expect.stringContaining('not "1m"') },
  ],
] as const)
  test(`metrics: with ${what} in the environment the export is ${expected.kind}`, () => {
    expect(readMetricExport(environment, (host, port) => host === 'here' && port === 4318)).toMatchObject(expected)
  })
