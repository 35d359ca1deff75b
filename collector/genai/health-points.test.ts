import { expect, test } from 'vitest'
import type { TenantId } from '../receive/request.ts'
import type { Fact } from './fact.ts'
import { factOfPoint } from './health-points.ts'
import { openPrices } from './price.ts'
import type { AnyValue, LiftedPoint } from './record.ts'
import { resolve } from './resolve/resolve.ts'
import type { HealthCheckRow } from './rows.ts'
import { healthMetrics, isHealthMetric } from './speaks.ts'

type Sent = readonly [metricName: string, value: number, attributes?: Readonly<Record<string, AnyValue>>]

const url = { 'http.url': 'https://search/healthz' }
const blackbox = { 'service.name': 'blackbox', 'service.instance.id': 'https://search/healthz' }

function factsOf(points: readonly Sent[], resource: Readonly<Record<string, string>> = {}, time = 5n): readonly Fact[] {
  return points.flatMap(([metricName, value, attributes = {}]) => {
    const point: LiftedPoint = {
      tenantId: 'acme' as TenantId,
      metricName,
      timeUnixNano: time,
      value,
      attributes: new Map(Object.entries(attributes)),
      resource: new Map(Object.entries(resource)),
    }
    return factOfPoint(point) ?? []
  })
}

function rowsOf(facts: readonly Fact[]): readonly HealthCheckRow[] {
  const { healthChecks, errors, turns, llmCalls } = resolve(facts, openPrices([]))
  expect([errors, turns, llmCalls]).toEqual([[], [], []])
  return healthChecks
}

type Expected = readonly [status: string, nano: bigint, message: string, metadata: Readonly<Record<string, string>>]

const statusOf = (code: number): readonly Sent[] =>
  [1, 2, 3, 4, 5].map((digit) => {
    const attributes = { ...url, 'http.method': 'GET', 'http.status_class': `${digit}xx` }
    const isThis = Math.floor(code / 100) === digit
    return ['httpcheck.status', isThis ? 1 : 0, isThis ? { ...attributes, 'http.status_code': code } : attributes]
  })

test.each<readonly [what: string, points: readonly Sent[], resource: Readonly<Record<string, string>>, Expected]>([
  [
    'httpcheck, well',
    [['httpcheck.duration', 12, url], ...statusOf(204)],
    {},
    ['healthy', 12_000_000n, '', { statusCode: '204', method: 'GET' }],
  ],
  [
    'httpcheck, refused by the server',
    [['httpcheck.duration', 3, url], ...statusOf(503)],
    {},
    ['unhealthy', 3_000_000n, 'HTTP 503', { statusCode: '503', method: 'GET' }],
  ],
  [
    'httpcheck, nobody there',
    [...statusOf(0), ['httpcheck.error', 1, { ...url, 'error.message': 'dial tcp: connection refused' }]],
    {},
    ['unhealthy', 0n, 'dial tcp: connection refused', {}],
  ],
  [
    'httpcheck, no answer in time',
    [['httpcheck.error', 1, { ...url, 'error.message': 'Get "https://search/healthz": context deadline exceeded' }]],
    {},
    ['timeout', 0n, 'Get "https://search/healthz": context deadline exceeded', {}],
  ],
  [
    'httpcheck, an answer that is not valid',
    [
      ...statusOf(200),
      ['httpcheck.validation.failed', 1, { ...url, 'validation.type': 'contains' }],
      ['httpcheck.validation.failed', 0, { ...url, 'validation.type': 'size' }],
    ],
    {},
    ['unhealthy', 0n, 'validation failed: contains', { statusCode: '200', method: 'GET' }],
  ],
  [
    'blackbox, well',
    [
      ['probe_success', 1],
      ['probe_duration_seconds', 0.25],
      ['probe_http_status_code', 200],
    ],
    blackbox,
    ['healthy', 250_000_000n, '', { statusCode: '200' }],
  ],
  [
    'blackbox, not well',
    [
      ['probe_duration_seconds', 9.5],
      ['probe_http_status_code', 0],
      ['probe_success', 0],
    ],
    blackbox,
    ['unhealthy', 9_500_000_000n, 'probe failed', {}],
  ],
  [
    'blackbox, a duration that cannot be',
    [
      ['probe_success', 1],
      ['probe_duration_seconds', -1],
    ],
    blackbox,
    ['healthy', 0n, '', {}],
  ],
])('health points: one look is one row, in every order: %s', (_what, points, resource, expected) => {
  const facts = factsOf(points, resource)
  const rows = rowsOf(facts)
  expect(
    rows.map((row) => [row.Target, row.Status, row.ResponseTimeNano, row.ErrorMessage, row.Metadata, row.Timestamp]),
  ).toEqual([['https://search/healthz', ...expected, 5n]])
  expect(rowsOf(facts.toReversed())).toEqual(rows)
  expect(rowsOf([...facts, ...facts])).toEqual(rows)
})

test('health points: what comes in parts is the same look, and is a row as soon as somebody says how it went', () => {
  const [duration, well] = factsOf([
    ['httpcheck.duration', 12, url],
    ['httpcheck.status', 1, { ...url, 'http.status_class': '2xx' }],
  ])
  expect(rowsOf([duration as Fact])).toEqual([])
  const [early] = rowsOf([well as Fact])
  const [whole] = rowsOf([well as Fact, duration as Fact])
  const keyOf = (row?: HealthCheckRow) => [row?.TenantId, row?.TraceId, row?.SpanId, row?.FactId, row?.Timestamp]
  expect(keyOf(whole)).toEqual(keyOf(early))
  expect(whole?.Generation).toBeGreaterThan(early?.Generation ?? Number.POSITIVE_INFINITY)
})

test('health points: another time, target or prober is another look', () => {
  const well: readonly Sent[] = [['httpcheck.status', 1, { ...url, 'http.status_class': '2xx' }]]
  const other: readonly Sent[] = [['httpcheck.status', 1, { 'http.url': 'b', 'http.status_class': '2xx' }]]
  const looks = [
    factsOf(well),
    factsOf(well, {}, 6n),
    factsOf(other),
    factsOf(well, { 'host.name': 'a' }),
    factsOf(well, { 'host.name': 'b' }),
  ]
  expect(new Set(looks.flat().map(({ traceId }) => traceId)).size).toBe(5)
  expect(factsOf([['probe_success', 1]]), 'a prober that does not say whom it asked').toEqual([])
})

test('health points: only the metrics of probers are lifted', () => {
  const isHealth = (name: string): boolean => isHealthMetric(Buffer.from(`x${name}y`), 1, 1 + Buffer.byteLength(name))
  for (const name of healthMetrics) expect(isHealth(name), name).toBe(true)
  for (const name of ['probe_successes', 'probe_', 'httpcheck.', 'http.server.request.duration', ''])
    expect(isHealth(name), name).toBe(false)
})
