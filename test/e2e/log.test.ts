// What the log may say. Everything that can go wrong with a request is made to go wrong with a word in it that must not be
// found: what was sent, who sent it, and the secrets of both engines.
import { readFile } from 'node:fs/promises'
import { connect } from 'node:http2'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'
import { makeKey } from '@tallylight/collector/receive/keys.ts'
import { expect, test, vi } from 'vitest'
import { type CollectorProcess, startCollector } from '../collector-process.ts'
import { openOwner, spans, startServer, urlOf } from '../faults/own-server.ts'
import { spansRequest } from '../spans.ts'

const secret = 'WhatTheUserWroteInConfidence'

const now = (): bigint => BigInt(Date.now()) * 1_000_000n

async function post(
  collector: CollectorProcess,
  body: Buffer | string,
  headers: Readonly<Record<string, string>> = {},
  path = '/v1/traces',
): Promise<number> {
  const port = path.startsWith('/api') ? collector.ports().api : collector.ports().otlpHttp
  const response = await fetch(`http://127.0.0.1:${port}${path}`, {
    method: 'POST',
    body: typeof body === 'string' ? body : new Uint8Array(body),
    headers: { 'Content-Type': 'application/x-protobuf', ...headers },
  })
  await response.arrayBuffer()
  return response.status
}

/** One gRPC call with these bytes; the status that came. */
function call(collector: CollectorProcess, authorization: string, message: Buffer): Promise<unknown> {
  const session = connect(`http://127.0.0.1:${collector.ports().otlpGrpc}`)
  const stream = session.request({
    ':method': 'POST',
    ':path': '/opentelemetry.proto.collector.trace.v1.TraceService/Export',
    'content-type': 'application/grpc',
    te: 'trailers',
    authorization,
  })
  const frame = Buffer.alloc(5 + message.length)
  frame.writeUInt32BE(message.length, 1)
  message.copy(frame, 5)
  return new Promise((resolve, reject) => {
    stream.on('response', (headers) => headers['grpc-status'] !== undefined && resolve(headers['grpc-status']))
    stream.on('trailers', (trailers) => resolve(trailers['grpc-status']))
    stream.on('error', reject)
    stream.on('close', () => session.close())
    stream.resume()
    stream.end(frame)
  })
}

test('log: never holds what was sent, a key, or a password, whatever goes wrong', async () => {
  await using stack = new AsyncDisposableStack()
  const server = await startServer(stack)
  const owner = openOwner(server, stack)
  const collector = stack.use(await startCollector({ TALLYLIGHT_CLICKHOUSE_URL: urlOf(server) }))
  expect(await post(collector, spansRequest([{ id: 'f'.repeat(16), name: 'first', startUnixNano: now() }]))).toBe(200)
  await collector.drained()
  await owner.command(`ALTER TABLE books.otel_traces ADD CONSTRAINT quiet CHECK NOT startsWith(SpanName, '${secret}')`)

  // Stored, refused by its table, and sent again.
  const body = spansRequest(spans(50, (at) => (at % 10 === 0 ? `${secret} ${at}` : 'fine')))
  expect(await post(collector, body)).toBe(200)
  expect(await post(collector, body)).toBe(200)
  // Bytes and text that do not decode, each with the word in it.
  const malformed = [
    post(collector, Buffer.from(`\xff\xff${secret}`, 'latin1')),
    post(collector, Buffer.concat([body.subarray(0, -3), Buffer.from(secret)])),
    post(collector, gzipSync(secret).subarray(0, -4), { 'Content-Encoding': 'gzip' }),
    post(collector, `{"resourceSpans": "${secret}"}`, { 'Content-Type': 'application/json' }),
    post(collector, `{"${secret}`, { 'Content-Type': 'application/json' }),
  ]
  expect(await Promise.all(malformed)).toEqual([400, 400, 400, 400, 400])
  expect(await post(collector, body, { 'Content-Type': secret })).toBe(415)
  expect(await post(collector, body, {}, `/v1/${secret}`)).toBe(404)
  // Keys that are wrong, malformed, or good.
  const wrong = makeKey().key
  expect(await post(collector, body, { Authorization: `Bearer ${wrong}` })).toBe(401)
  expect(await post(collector, body, { Authorization: `Basic ${secret}` })).toBe(401)
  expect(await call(collector, `Bearer ${wrong}`, body)).toBe('16')
  expect(await call(collector, '', Buffer.from(`\xff\xff${secret}`, 'latin1'))).toBe('16')
  const admin = { Authorization: `Bearer ${collector.adminKey}`, 'Content-Type': 'application/json' }
  const wanted = JSON.stringify({ tenant: 'default', roles: ['ingest'], name: secret })
  expect(await post(collector, wanted, admin, '/api/v1/keys')).toBe(201)
  expect(await post(collector, `{"tenant": "${secret} ${secret}"}`, admin, '/api/v1/keys')).toBe(400)
  expect(await post(collector, `{"${secret}`, admin, '/api/v1/keys')).toBe(400)
  await collector.drained()
  expect(await collector.metric('tallylight_quarantined_records_total')).toBe(5)
  // Postgres and then ClickHouse go away, with requests under way.
  const pid = Number(
    (await readFile(join(collector.directory, 'postgres', 'cluster', 'postmaster.pid'), 'utf8')).split('\n')[0],
  )
  process.kill(pid, 'SIGKILL')
  await vi.waitUntil(() => collector.log().includes('the embedded Postgres ended'), { timeout: 20_000 })
  await post(collector, wanted, admin, '/api/v1/keys')
  process.kill(server.pid() ?? 0, 'SIGKILL')
  expect(await post(collector, spansRequest(spans(3, () => secret)))).toBe(200)
  await collector.kill('SIGTERM')

  const log = collector.log()
  const said = ['quarantined', 'VIOLATED_CONSTRAINT (469)', 'a connection to Postgres was lost']
  for (const text of said) expect(log).toContain(text)
  const ownerKey = (await readFile(join(collector.directory, 'postgres', 'owner.key'), 'utf8')).trim()
  for (const hidden of [secret, wrong.slice(-64), collector.adminKey.slice(-64), ownerKey, server.password])
    expect(log).not.toContain(hidden)
  // Every line is one JSON object, with a time and a level.
  for (const line of log.split('\n').filter(Boolean))
    expect(JSON.parse(line)).toMatchObject({ level: expect.any(Number), time: expect.any(String) })
})
