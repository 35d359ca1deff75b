// Who is let through the proxy, where to, and what of a request goes where: no open relay, keys with no more rights than needed,
// and no key of anybody, ours or a provider's, in anything that is kept or said.
import { once } from 'node:events'
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { type IncomingMessage, request } from 'node:http'
import { get as getOverTls } from 'node:https'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { json } from 'node:stream/consumers'
import { makeCertificate } from '@tallylight/collector/receive/fixtures/certificate.ts'
import OpenAI from 'openai'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { startCollector } from '../collector-process.ts'
import { providerKey, startWorld, type World } from './proxied.ts'

let world: World
beforeAll(async () => {
  world = await startWorld()
}, 60_000)
afterAll(() => world[Symbol.asyncDispose]())

const call = '{"model":"gpt-4o","messages":[{"role":"user","content":"hello"}]}'

function post(url: string, headers: Record<string, string> = {}, body = call): Promise<Response> {
  return fetch(url, { method: 'POST', headers: { 'content-type': 'application/json', ...headers }, body })
}

async function reasonOf(response: Response): Promise<string> {
  const { tallylight } = (await response.json()) as { readonly tallylight: { readonly reason: string } }
  return `${response.status} ${tallylight.reason}`
}

const head = (line: string, host = 'localhost'): string => `${line} HTTP/1.1\r\nHost: ${host}\r\nConnection: close\r\n`

test.each([
  ['an absolute target', head('GET http://169.254.169.254/latest/meta-data'), 400],
  ['an absolute target of an upstream', head('GET http://localhost/openai/v1/models'), 400],
  ['a host after two slashes', head('GET //evil.example/v1'), 400],
  ['a host after an upstream and two slashes', head('GET /openai//evil.example/v1'), 400],
  ['dots', head('GET /team/../../admin'), 400],
  ['dots, escaped', head('GET /team/%2e%2E/admin'), 400],
  ['dots, escaped twice', head('GET /team/%252e%252e/admin'), 400],
  ['dots behind an escaped slash', head('GET /team/x%2f..%2f..%2fadmin'), 400],
  ['dots before a semicolon', head('GET /team/..;x/admin'), 400],
  ['a backslash', head('GET /team/..\\admin'), 400],
  ['a backslash, escaped', head('GET /team/x%5c..%5cadmin'), 400],
  ['an asterisk', head('OPTIONS *'), 400],
  ['a user before a host', head('GET @evil.example/v1'), 400],
  ['an upstream that is not configured', head('GET /evil.example/v1'), 404],
  ['an upstream by a name of Object', head('GET /__proto__/v1'), 404],
  ['a tunnel', head('CONNECT evil.example:443', 'evil.example:443'), 405],
  ['an upgrade', `${head('GET /openai/v1/realtime').replace('close', 'Upgrade')}Upgrade: websocket\r\n`, 405],
  ['TRACE', head('TRACE /openai/v1/models'), 405],
] as const)('no open relay: %s is refused and goes nowhere', async (_, bytes, status) => {
  const before = world.told.length
  const answer = await world.sendRaw(`${bytes}\r\n`)
  expect(answer).toMatch(new RegExp(`^HTTP/1.1 ${status} `))
  expect(answer).toMatch(/\r\nX-Tallylight-Refused: \w+\r\n/)
  expect(world.told).toHaveLength(before)
})

test('no open relay: the Host header chooses nothing', async () => {
  const before = world.told.length
  const answer = await world.sendRaw(`${head('GET /team/v1/models', '127.0.0.1:1')}\r\n`)
  expect(answer).toMatch(/^HTTP\/1.1 200 /)
  expect(world.told.slice(before).map(({ url, headers }) => [url, headers.host])).toEqual([
    ['/team/llm/v1/models', new URL(world.provider.url).host],
  ])
})

test('what belongs to a connection, to us or to a trace stays here; everything else goes on as it came', async () => {
  const { promise, resolve } = Promise.withResolvers<IncomingMessage>()
  const sent = request(`${world.url('openai')}/v1/models?limit=2&after=a%2Fb`, {
    headers: {
      authorization: `Bearer ${providerKey}`,
      'X-Custom': 'Käse',
      connection: 'close, x-named',
      'x-named': '1',
      te: 'trailers',
      'proxy-authorization': 'Basic eDp5',
      traceparent: '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01',
      baggage: 'user.id=ada',
      'x-tallylight-user': 'ada',
    },
  })
  sent.on('response', resolve).end()
  const response = await promise
  expect(await json(response)).toEqual({ data: [] })
  expect(response.headers['set-cookie']).toEqual(['a=b'])
  expect(response.headers['x-hop']).toBe(undefined)
  const told = world.told.at(-1)
  expect(told?.url).toBe('/v1/models?limit=2&after=a%2Fb')
  expect(told?.headers).toEqual({
    authorization: `Bearer ${providerKey}`,
    connection: 'keep-alive',
    host: new URL(world.provider.url).host,
    'x-custom': 'Käse',
  })
})

const callRaw = (fields: string): string =>
  `${head('POST /wild/v1/chat/completions').replace('close', fields)}Content-Length: ${call.length}\r\n\r\n${call}`
const answered = '{"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":3,"total_tokens":10}}'

test('a head in no alphabet of ours passes byte for byte, and one that Node would not write ends neither call nor collector', async () => {
  const bytes = Buffer.from('過負荷 é').toString('latin1')
  const fields = `Content-Type: application/json\r\nContent-Length: ${answered.length}\r\n`
  world.wildSays(`HTTP/1.1 200 ${bytes}\r\nX-Said: ${bytes}\xe9\r\n${fields}\r\n${answered}`)
  const answer = await world.sendRaw(callRaw('close'))
  expect(answer.startsWith(`HTTP/1.1 200 ${bytes}\r\nX-Said: ${bytes}\xe9\r\n`)).toBe(true)
  expect(answer.endsWith(`\r\n\r\n${answered}`)).toBe(true)
  world.wildSays(`HTTP/1.1 200 O\x01K\x02\r\n${fields}\r\n${answered}`)
  expect(await world.sendRaw(callRaw('close'))).toMatch(/^HTTP\/1.1 200 OK\r\n/)
  world.wildSays('SSH-2.0-OpenSSH_10.0\r\n')
  expect(await world.sendRaw(callRaw('close'))).toMatch(/^HTTP\/1.1 502 .+what is not HTTP\/1.1/s)
  const labels = { upstream: 'wild', kind: 'malformed' }
  expect(await world.collector.metric('tallylight_proxy_upstream_errors_total', labels)).toBe(1)
})

test('HTTP/2 that a client offers with its call is not taken up, and the call goes', async () => {
  world.wildSays(`HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n${answered}`)
  const offer =
    'close, Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA'
  const answer = await world.sendRaw(callRaw(offer))
  expect(answer).toMatch(/^HTTP\/1.1 200 OK\r\n/)
  expect(answer).toContain(answered)
})

test('a server of one’s own that asked for it goes on with the trace, below the call’s span', async () => {
  const traceId = '1af7651916cd43dd8448eb211c80319c'
  const headers = { traceparent: `00-${traceId}-b7ad6b7169203331-01`, baggage: 'user.id=gil' }
  await (await post(`${world.url('team')}/v1/chat/completions`, headers)).text()
  const { traceparent, baggage } = world.told.at(-1)?.headers ?? {}
  expect(baggage).toBe(undefined)
  await world.collector.drained()
  const spans = await world.collector.query<{ readonly TraceId: string; readonly SpanId: string }>(
    "SELECT TraceId, SpanId FROM tallylight.otel_traces WHERE SpanAttributes['user.id'] = 'gil'",
  )
  expect(spans.map(({ TraceId, SpanId }) => `00-${TraceId}-${SpanId}-01`)).toEqual([traceparent])
  expect(spans[0]?.TraceId).toBe(traceId)
})

test('a request that is no model call passes and is counted; one whose head says it cannot be read is refused', async () => {
  const uploaded = await post(`${world.url('openai')}/v1/files`, {}, 'x'.repeat(200_000))
  expect(uploaded.status).toBe(200)
  expect(world.told.at(-1)?.body).toHaveLength(200_000)
  const labels = { upstream: 'openai', ending: 'unmetered' }
  expect(await world.collector.metric('tallylight_proxy_requests_total', labels)).toBe(1)
  const url = `${world.url('openai')}/v1/chat/completions`
  expect(await reasonOf(await post(url, { 'content-encoding': 'gzip' }))).toBe('415 unsupported_encoding')
  expect(await reasonOf(await post(url, {}, 'x'.repeat(33 * 1024 * 1024)))).toBe('413 too_large')
  const signed = { authorization: 'AWS4-HMAC-SHA256 Credential=A/20261121/eu-central-1/bedrock/aws4_request' }
  expect(await reasonOf(await post(`${world.url('bedrock')}/model/m/converse`, signed))).toBe('400 signed_host')
})

test('keys: in a header, in the path, or where the provider’s would be; and none is in anything that is kept or said', async () => {
  // A second tenant ends requests without a key, also for the tests after this one.
  const url = `${world.url('openai')}/v1/chat/completions`
  const inPath = (key: string): string => world.url(`k/${key}/openai`)
  const narrow = await world.keyOf(['quota', 'ingest'], 'acme')
  const wide = await world.keyOf(['quota', 'ingest', 'query'], 'acme')
  const short = await world.keyOf(['quota'], 'acme')
  const unknown = `tl_aaaaaaaa_${'0'.repeat(64)}`
  const refusals: readonly (readonly [Promise<Response>, string])[] = [
    [post(url), '401 unauthenticated'],
    [post(url, { 'x-tallylight-key': unknown }), '401 unauthenticated'],
    [post(`${inPath(unknown)}/v1/chat/completions`), '401 unauthenticated'],
    [post(`${inPath('')}/v1/chat/completions`), '400 bad_request'],
    [post(url, { 'x-tallylight-key': short }), '403 forbidden'],
    [post(url, { 'x-tallylight-key': world.collector.adminKey }), '403 forbidden'],
    [post(`${inPath(wide)}/v1/chat/completions`), '403 forbidden'],
    [post(`${inPath(world.collector.adminKey)}/v1/chat/completions`), '403 forbidden'],
    [post(`${inPath(narrow)}/v1/chat/completions`, { 'x-tallylight-key': wide }), '400 bad_request'],
    [post(`${world.url(`k/${narrow}/nowhere`)}/v1`), '404 unknown_upstream'],
    [post(world.url(`openai/k/${narrow}/v1/chat/completions`), { 'x-tallylight-key': narrow }), '400 bad_request'],
    [post(`${url}?key=${narrow}`, { 'x-tallylight-key': narrow }), '400 bad_request'],
  ]
  const before = world.told.length
  for (const [response, reason] of refusals) {
    const answer = await (await response).clone().text()
    expect(await reasonOf(await response)).toBe(reason)
    expect(answer).not.toMatch(/tl_\w{8}/)
  }
  expect(world.told).toHaveLength(before)

  const client = new OpenAI({ apiKey: providerKey, baseURL: `${inPath(narrow)}/v1`, maxRetries: 0 })
  const defaultHeaders = { 'x-tallylight-user': 'kim' }
  const stream = await client
    .withOptions({ defaultHeaders })
    .chat.completions.create({ ...JSON.parse(call), stream: true })
  expect((await Array.fromAsync(stream as unknown as AsyncIterable<unknown>)).length).toBeGreaterThan(1)
  await (await post(url, { 'x-tallylight-key': wide, 'x-tallylight-user': 'kim' })).text()
  await (await post(url, { authorization: `Bearer ${narrow}`, 'x-tallylight-user': 'kim' })).text()
  const told = world.told.slice(before)
  expect(told.map(({ headers }) => headers.authorization)).toEqual([`Bearer ${providerKey}`, undefined, undefined])
  expect(told.every((each) => !/tl_\w{8}_/.test(JSON.stringify(each)))).toBe(true)

  await world.collector.drained()
  const rows = await world.collector.query<{ readonly TenantId: string }>(
    "SELECT TenantId FROM tallylight.llm_calls WHERE UserId = 'kim'",
  )
  expect(rows.map(({ TenantId }) => TenantId)).toEqual(['acme', 'acme', 'acme'])
  const tables = ['otel_traces', 'llm_calls', 'turns', 'messages', 'errors', 'audit_events', 'quarantine']
  const stored = await Promise.all(
    tables.map(async (table) => JSON.stringify(await world.collector.query(`SELECT * FROM tallylight.${table}`))),
  )
  const secrets = [narrow, wide, short, unknown].map((key) => key.slice(12)).concat(providerKey.slice(8))
  await world.collector.kill('SIGTERM')
  const kept = [world.collector.log(), ...stored, ...filesIn(world.collector.directory)]
  expect(kept.length).toBeGreaterThan(20)
  for (const secret of secrets) expect(kept.filter((each) => each.includes(secret))).toEqual([])
})

test('the port speaks TLS when the collector has a certificate, and asks for keys where it is told to', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'tallylight-tls-'))
  const { certPem, keyPem } = makeCertificate('localhost')
  const [TALLYLIGHT_TLS_CERT, TALLYLIGHT_TLS_KEY] = [join(directory, 'cert.pem'), join(directory, 'key.pem')]
  writeFileSync(TALLYLIGHT_TLS_CERT, certPem)
  writeFileSync(TALLYLIGHT_TLS_KEY, keyPem)
  await using collector = await startCollector({
    TALLYLIGHT_TLS_CERT,
    TALLYLIGHT_TLS_KEY,
    TALLYLIGHT_REQUIRE_KEYS: '1',
  })
  const address = `localhost:${collector.ports().proxy}/openai/v1/models`
  const [answer] = (await once(getOverTls(`https://${address}`, { ca: certPem, agent: false }), 'response')) as [
    IncomingMessage,
  ]
  expect(answer.statusCode).toBe(401)
  expect(await json(answer)).toMatchObject({ tallylight: { reason: 'unauthenticated' } })
  await expect(fetch(`http://${address}`)).rejects.toThrow()
  rmSync(directory, { recursive: true })
})

/** Every byte of the data directory: journal, both engines' files, caches. */
function filesIn(directory: string): readonly string[] {
  return readdirSync(directory, { recursive: true, withFileTypes: true }).flatMap((entry) =>
    entry.isFile() ? [readFileSync(join(entry.parentPath, entry.name), 'latin1')] : [],
  )
}
