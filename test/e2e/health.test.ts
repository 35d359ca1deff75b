// Health checks through the whole road: of servers that the configuration file names, which changes while the collector runs,
// and of the metrics of foreign probers, in parts, out of order, twice, and with a kill in between.
import { once } from 'node:events'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, expect, test, vi } from 'vitest'
import { type CollectorProcess, startCollector } from '../collector-process.ts'

const stack = new AsyncDisposableStack()
let collector: CollectorProcess
let configPath = ''
let isWell = true
let port = 0

const command = [
  process.execPath,
  fileURLToPath(new URL('../../collector/probes/fixtures/mcp-server.ts', import.meta.url)),
]

async function configure(targets: readonly string[]): Promise<void> {
  const headers = { Authorization: { environment: 'PROBE_TOKEN' } }
  const http = targets.map((target) => {
    const url = `http://127.0.0.1:${port}/${target}`
    return { tenant: 'acme', target, kind: 'http', url, headers, intervalMs: 200 }
  })
  const mcp = { target: 'mcp:files', kind: 'mcp', command, intervalMs: 60_000, timeoutMs: 20_000 }
  await writeFile(configPath, JSON.stringify({ probes: [...http, mcp] }))
}

const authorization = new Set<string>()

beforeAll(async () => {
  const server = createServer((request, response) => {
    authorization.add(request.headers.authorization ?? '')
    response.writeHead(isWell ? 200 : 503).end()
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  port = (server.address() as AddressInfo).port
  stack.defer(() => {
    server.closeAllConnections()
    server.close()
  })
  const directory = await mkdtemp(join(tmpdir(), 'tallylight-health-'))
  stack.defer(() => rm(directory, { recursive: true }))
  configPath = join(directory, 'tallylight.json')
  await configure(['stays', 'goes'])
  collector = stack.use(
    await startCollector({ TALLYLIGHT_CONFIG: configPath, PROBE_TOKEN: 'Bearer swordfish-of-the-probe' }),
  )
}, 60_000)
afterAll(() => stack.disposeAsync())

type Check = { readonly target: string; readonly status: string; readonly event: string; readonly error: string }

async function checksOf(tenant: string, target: string): Promise<readonly Check[]> {
  return collector.query<Check>(`
    SELECT Target AS target, Status AS status, EventType AS event, ErrorMessage AS error FROM tallylight.health_checks
    WHERE TenantId = '${tenant}' AND Target = '${target}' ORDER BY Timestamp`)
}

async function until(tenant: string, target: string, is: (checks: readonly Check[]) => boolean): Promise<void> {
  await vi.waitFor(async () => expect(await checksOf(tenant, target)).toSatisfy(is), { timeout: 30_000, interval: 100 })
}

test('health: configured servers are looked at as their tenant, as the file says, until it changes and to the end', async () => {
  await until('default', 'mcp:files', ([first]) => first?.event === 'startup' && first.status === 'healthy')
  await until('acme', 'stays', (checks) =>
    checks.some(({ event, status }) => event === 'interval' && status === 'healthy'),
  )
  isWell = false
  await until('acme', 'stays', (checks) => checks.at(-1)?.error === '503' && checks.at(-1)?.status === 'unhealthy')
  isWell = true
  await until('acme', 'stays', (checks) => checks.at(-1)?.status === 'healthy')
  await configure(['stays', 'comes'])
  await until('acme', 'goes', (checks) => checks.at(-1)?.event === 'shutdown')
  await until('acme', 'comes', (checks) => checks[0]?.event === 'startup')
  expect((await checksOf('acme', 'stays')).filter(({ event }) => event === 'startup')).toHaveLength(1)
  expect(
    await collector.metric('tallylight_probes_total', { tenant: 'acme', target: 'stays', status: 'unhealthy' }),
  ).toBeGreaterThan(0)
  expect(await collector.metric('tallylight_probe_seconds_count', { target: 'mcp:files' })).toBeGreaterThan(0)

  await collector.kill('SIGTERM')
  await collector.start()
  for (const target of ['stays', 'comes'])
    await until('acme', target, (checks) => checks.some(({ event }) => event === 'shutdown'))
  await until('default', 'mcp:files', (checks) => checks.filter(({ event }) => event === 'startup').length === 2)
  // A journal that is written to is never drained.
  await configure([])
}, 90_000)

test('health: a look is no call and no turn, costs nothing, and the values of its headers are nowhere', async () => {
  const counts = await collector.query(`
    SELECT (SELECT count() FROM tallylight.llm_calls) AS calls, (SELECT count() FROM tallylight.turns) AS turns,
      (SELECT count() FROM tallylight.errors) AS errors,
      (SELECT countIf(toString(tuple(*)) LIKE '%swordfish%') FROM tallylight.otel_traces) AS told`)
  expect(counts).toEqual([{ calls: 0, turns: 0, errors: 0, told: 0 }])
  expect(authorization).toEqual(new Set(['Bearer swordfish-of-the-probe']))
  expect(collector.log()).not.toContain('swordfish')
})

const nowMs = Date.now() - 60_000

/** What one look of the OpenTelemetry Collector's httpcheck receiver sends, one request per metric. */
function httpCheck(url: string, atMs: number, code: number): readonly object[] {
  const text = (key: string, stringValue: string): object => ({ key, value: { stringValue } })
  const point = (asInt: number, ...attributes: readonly object[]): object => ({
    timeUnixNano: `${BigInt(atMs) * 1_000_000n}`,
    asInt: `${asInt}`,
    attributes: [text('http.url', url), ...attributes],
  })
  const classes = [1, 2, 3, 4, 5].map((digit) => {
    const isThis = Math.floor(code / 100) === digit
    const said = [text('http.method', 'GET'), text('http.status_class', `${digit}xx`)]
    return point(isThis ? 1 : 0, ...said, ...(isThis ? [{ key: 'http.status_code', value: { intValue: code } }] : []))
  })
  const sum = (dataPoints: readonly object[]): object => ({ sum: { aggregationTemporality: 2, dataPoints } })
  const failed = point(1, text('error.message', 'context deadline exceeded'))
  return [
    { name: 'httpcheck.duration', unit: 'ms', gauge: { dataPoints: [point(25)] } },
    { name: 'httpcheck.status', unit: '1', ...sum(classes) },
    ...(code === 0 ? [{ name: 'httpcheck.error', unit: '{error}', ...sum([failed]) }] : []),
  ].map((metric) => ({ resourceMetrics: [{ scopeMetrics: [{ metrics: [metric] }] }] }))
}

async function send(bodies: readonly object[]): Promise<void> {
  for (const body of bodies) {
    const response = await fetch(`http://127.0.0.1:${collector.ports().otlpHttp}/v1/metrics`, {
      method: 'POST',
      body: JSON.stringify(body),
      headers: { 'Content-Type': 'application/json' },
    })
    expect([response.status, await response.text()]).toEqual([200, '{}'])
  }
}

test('health: looks of a foreign prober are a row each, in parts, backwards, twice and with a kill in between', async () => {
  const looks = ['https://a/', 'https://b/'].flatMap((url) => [
    httpCheck(url, nowMs, 200),
    httpCheck(url, nowMs + 1_000, 503),
    httpCheck(url, nowMs + 2_000, 0),
  ])
  await send(looks.slice(0, 3).flat())
  await collector.drained()
  await send(looks.slice(3).flat().toReversed().slice(0, 4))
  await collector.kill('SIGKILL')
  await collector.start()
  await send(looks.slice(3).flat().toReversed().slice(4))
  // Everything again, in requests of other bytes.
  const all = looks.flatMap((look) => look.flatMap((body) => (body as { resourceMetrics: object[] }).resourceMetrics))
  await send([{ resourceMetrics: all }])
  await collector.drained()
  const rows = await collector.query(`
    SELECT Target AS target, Status AS status, toUInt32(ResponseTimeNano / 1e6) AS ms, ErrorMessage AS error, Metadata['statusCode'] AS code
    FROM tallylight.health_checks WHERE EventType = 'httpcheck' ORDER BY target, Timestamp`)
  expect(rows).toEqual(
    ['https://a/', 'https://b/'].flatMap((target) => [
      { target, status: 'healthy', ms: 25, error: '', code: '200' },
      { target, status: 'unhealthy', ms: 25, error: 'HTTP 503', code: '503' },
      { target, status: 'timeout', ms: 25, error: 'context deadline exceeded', code: '' },
    ]),
  )
  const points = await collector.query(
    "SELECT count() AS points FROM tallylight.otel_metrics_sum WHERE MetricName LIKE 'httpcheck.%'",
  )
  expect(points).toEqual([{ points: 2 * (3 * 5 + 1) * 2 }])
}, 60_000)
