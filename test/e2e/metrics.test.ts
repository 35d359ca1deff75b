// The collector's own metrics, pushed over OTLP: here to itself, as only the endpoint for metrics makes it do.
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { freePort } from '@tallylight/storage/free-port.ts'
import { expect, test, vi } from 'vitest'
import { startCollector } from '../collector-process.ts'
import { spansRequest } from '../spans.ts'

test('metrics: what is pushed over OTLP are the numbers of /metrics, and the books balance in each of them', async () => {
  const port = await freePort()
  await using collector = await startCollector({
    TALLYLIGHT_OTLP_HTTP_PORT: String(port),
    OTEL_EXPORTER_OTLP_METRICS_ENDPOINT: `http://127.0.0.1:${port}/v1/metrics`,
    OTEL_EXPORTER_OTLP_COMPRESSION: 'gzip',
    OTEL_METRIC_EXPORT_INTERVAL: '100',
    OTEL_RESOURCE_ATTRIBUTES: 'deployment.environment.name=test',
  })
  const body = spansRequest([{ id: 'a'.repeat(16), name: 'one', startUnixNano: BigInt(Date.now()) * 1_000_000n }])
  for (let times = 0; times < 2; times++) {
    const response = await fetch(`http://127.0.0.1:${port}/v1/traces`, {
      method: 'POST',
      body: new Uint8Array(body),
      headers: { 'Content-Type': 'application/x-protobuf' },
    })
    expect(response.status).toBe(200)
    await response.arrayBuffer()
  }
  const query = <Row>(sql: string) => collector.query<Row>(sql)
  await vi.waitUntil(
    async () =>
      (
        await query(`SELECT 1 FROM tallylight.otel_metrics_sum WHERE MetricName = 'tallylight.stored_records'
          AND Attributes['signal'] = 'traces' AND Value = 1`)
      ).length > 0,
    { timeout: 20_000, interval: 100 },
  )
  // Rows of one reading are in different tables and may come in different seconds: only whole readings are looked at.
  const columns = "TimeUnix, Attributes['signal'] AS signal, MetricName, Value"
  const books = await query<{ accepted: number; rest: number }>(`
    SELECT sumIf(Value, MetricName = 'tallylight.accepted_records') AS accepted,
      sumIf(Value, MetricName != 'tallylight.accepted_records') AS rest
    FROM (SELECT ${columns} FROM tallylight.otel_metrics_sum WHERE MetricName IN ('tallylight.accepted_records',
        'tallylight.stored_records', 'tallylight.quarantined_records', 'tallylight.duplicate_records')
      UNION ALL SELECT ${columns} FROM tallylight.otel_metrics_gauge WHERE MetricName = 'tallylight.journal_records')
    GROUP BY TimeUnix, signal HAVING uniqExact(MetricName) = 5`)
  expect(books.length).toBeGreaterThan(3)
  expect(books.filter(({ accepted, rest }) => accepted !== rest)).toEqual([])
  expect(books.some(({ accepted }) => accepted === 2)).toBe(true)

  const pushed = await query<{ name: string; unit: string }>(`
    SELECT DISTINCT MetricName AS name, MetricUnit AS unit FROM tallylight.otel_metrics_histogram ORDER BY 1`)
  expect(pushed).toEqual([
    { name: 'tallylight.insert', unit: 's' },
    { name: 'tallylight.insert_rows', unit: '{row}' },
    { name: 'tallylight.lag', unit: 's' },
  ])
  const [resource] = await query<{ keys: string[]; start: string }>(`
    SELECT mapKeys(ResourceAttributes) AS keys, toString(StartTimeUnix) AS start FROM tallylight.otel_metrics_sum
    WHERE MetricName = 'tallylight.accepted_records' AND ServiceName = 'tallylight' LIMIT 1`)
  expect(resource?.keys).toEqual([
    'deployment.environment.name',
    'service.instance.id',
    'service.name',
    'service.version',
  ])
  expect(resource?.start).toMatch(/^1970-01-01 00:00:00/)
  expect(await collector.metric('tallylight_metric_exports_total', { outcome: 'exported' })).toBeGreaterThan(0)
})

test('metrics: an endpoint that fails is counted, said once, and said when it is well again', async () => {
  let status = 500
  const server = createServer((request, response) => {
    request.resume().on('end', () => response.writeHead(status).end())
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  {
    await using collector = await startCollector({
      OTEL_EXPORTER_OTLP_ENDPOINT: `http://127.0.0.1:${port}`,
      OTEL_METRIC_EXPORT_INTERVAL: '100',
    })
    const failed = () => collector.metric('tallylight_metric_exports_total', { outcome: 'failed' })
    await vi.waitUntil(async () => (await failed()) >= 3, { timeout: 20_000, interval: 50 })
    expect(collector.log().match(/could not be exported/g)).toHaveLength(1)
    status = 200
    await vi.waitUntil(() => collector.log().includes('are exported again'), { timeout: 20_000, interval: 50 })
  }
  server.closeAllConnections()
  server.close()
})
