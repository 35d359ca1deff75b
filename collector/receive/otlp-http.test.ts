import { request as httpRequest } from 'node:http'
import { connect } from 'node:net'
import { gzipSync } from 'node:zlib'
import { afterEach, expect, test } from 'vitest'
import { type Answer, openRawHttp, type RawHttp, requestOf } from './fixtures/raw-http.ts'
import { openTestReceiver, type TestOptions, type TestReceiver, tenantOf } from './fixtures/receiver.ts'
import type { ExportOutcome, ExportRequest } from './request.ts'

const opened: { stop(): Promise<void> }[] = []
afterEach(async () => {
  await Promise.all(opened.splice(0).map((one) => one.stop()))
})

async function openPort(options: TestOptions = {}): Promise<TestReceiver> {
  const receiver = await openTestReceiver('http', options)
  opened.push({ stop: () => receiver.stop(0) })
  return receiver
}

async function openClient({ port }: TestReceiver): Promise<RawHttp> {
  const client = await openRawHttp(port)
  opened.push({ stop: async () => client.destroy() })
  return client
}

async function exchange(receiver: TestReceiver, bytes: Buffer): Promise<Answer> {
  const client = await openClient(receiver)
  client.send(bytes)
  return client.answer()
}

/** The first field 1 of a google.rpc.Status, and its text. */
function statusOf({ headers, body }: Answer): { readonly code: number; readonly text: string } {
  if (headers['content-type'] === 'application/json') {
    const { code, message } = JSON.parse(body.toString()) as { code: number; message: string }
    return { code, text: message }
  }
  expect(body[0]).toBe(0x08)
  return { code: body[1] ?? -1, text: body.toString() }
}

for (const [path, signal] of [
  ['/v1/traces', 'traces'],
  ['/v1/metrics', 'metrics'],
  ['/v1/logs?from=here', 'logs'],
] as const) {
  test(`http: ${path} in protobuf is answered with an empty message, its body handed on as it came`, async () => {
    const receiver = await openPort()
    const body = gzipSync('not for the receiver to look into')
    const first = `POST ${path} HTTP/1.1`
    const answer = await exchange(receiver, requestOf({ first, body, lines: ['Content-Encoding: gzip'] }))
    expect(answer).toMatchObject({
      status: 200,
      headers: { 'content-type': 'application/x-protobuf', 'content-length': '0' },
    })
    const [request] = receiver.accepted
    expect(request).toMatchObject({ signal, encoding: 'protobuf', contentEncoding: 'gzip' })
    expect(request?.body.equals(body)).toBe(true)
    expect(request?.identity.tenant).toBe('acme')
    expect(receiver.bodies.heldBytes()).toBe(0)
  })
}

test('http: JSON with parameters in any case is answered with {} in JSON', async () => {
  const receiver = await openPort()
  const type = 'Application/JSON ; charset=UTF-8'
  const answer = await exchange(receiver, requestOf({ type, body: Buffer.from('{}') }))
  expect(answer.headers).toMatchObject({ 'content-type': 'application/json', 'content-length': '2' })
  expect(answer.body.toString()).toBe('{}')
  expect(receiver.accepted[0]?.encoding).toBe('json')
})

const refusedHeads = [
  ['no key', { key: '' }, 401, 16, 'unauthenticated', 'a key is needed'],
  ['a wrong key', { key: 'Bearer wrong' }, 401, 16, 'unauthenticated', 'not known'],
  ['a revoked key', { key: 'Bearer old' }, 401, 16, 'unauthenticated', 'revoked'],
  ['a key that may only read', { key: 'Bearer reader' }, 403, 7, 'forbidden', 'role ingest'],
  ['another path', { first: 'POST /v1/spans HTTP/1.1' }, 404, 12, 'unknown_path', '/v1/spans'],
  ['a path of the API', { first: 'POST /v1/quota/check HTTP/1.1' }, 404, 12, 'unknown_path', 'TALLYLIGHT_API_PORT'],
  ['a path of the proxy', { first: 'POST /openai/v1 HTTP/1.1' }, 404, 12, 'unknown_path', 'TALLYLIGHT_PROXY_PORT'],
  ['a path below', { first: 'POST /v1/traces/ HTTP/1.1' }, 404, 12, 'unknown_path', '/v1/traces/'],
  ['GET', { first: 'GET /v1/traces HTTP/1.1' }, 405, 12, 'method_not_allowed', 'GET'],
  ['PUT', { first: 'PUT /v1/traces HTTP/1.1' }, 405, 12, 'method_not_allowed', 'PUT'],
  ['no content type', { type: '' }, 415, 3, 'unsupported_media_type', 'none came'],
  ['text', { type: 'text/plain' }, 415, 3, 'unsupported_media_type', 'text/plain'],
  ['brotli', { lines: ['Content-Encoding: br'] }, 415, 12, 'unsupported_encoding', 'br'],
  ['two encodings', { lines: ['Content-Encoding: gzip, gzip'] }, 415, 12, 'unsupported_encoding', 'gzip, gzip'],
  [
    'two headers of encoding',
    { lines: ['Content-Encoding: gzip', 'Content-Encoding: zstd'] },
    415,
    12,
    'unsupported_encoding',
    'gzip, zstd',
  ],
  ['70 MB announced', { lines: ['Content-Length: 70000000'] }, 413, 8, 'too_large', '70000000'],
] as const

for (const [what, head, status, code, reason, text] of refusedHeads) {
  test(`http: ${what} gets ${status} before any of its body is there`, async () => {
    const receiver = await openPort()
    const lines = 'lines' in head ? head.lines : []
    const length = lines.some((line) => line.startsWith('Content-Length')) ? [] : ['Content-Length: 1000000']
    const answer = await exchange(receiver, requestOf({ ...head, lines: [...lines, ...length] }))
    expect(answer.status).toBe(status)
    const said = statusOf(answer)
    expect(said.code).toBe(code)
    expect(said.text).toContain(text)
    expect(receiver.refused.map(([, why]) => why)).toEqual([reason])
    expect(receiver.accepted).toEqual([])
    expect(receiver.bodies.heldBytes()).toBe(0)
    expect(answer.headers['www-authenticate']).toBe(status === 401 ? 'Bearer' : undefined)
    expect(answer.headers.allow).toBe(status === 405 ? 'POST' : undefined)
    expect(answer.headers['retry-after']).toBeUndefined()
  })
}

const outcomes: readonly (readonly [ExportOutcome, number, Readonly<Record<string, unknown>>, string | undefined])[] = [
  [
    { kind: 'accepted', rejected: 3, message: 'too old' },
    200,
    { partialSuccess: { rejectedDataPoints: '3', errorMessage: 'too old' } },
    undefined,
  ],
  [
    { kind: 'accepted', rejected: 0, message: 'a warning' },
    200,
    { partialSuccess: { errorMessage: 'a warning' } },
    undefined,
  ],
  [
    { kind: 'malformed', reason: 'byte 7 is no tag' },
    400,
    {
      code: 3,
      message: 'byte 7 is no tag',
      details: [
        {
          '@type': 'type.googleapis.com/google.rpc.BadRequest',
          fieldViolations: [{ field: 'body', description: 'byte 7 is no tag' }],
        },
      ],
    },
    undefined,
  ],
  [
    { kind: 'too_large', reason: 'inflates to more' },
    413,
    { code: 8, message: 'inflates to more', details: [] },
    undefined,
  ],
  [
    { kind: 'throttled', reason: 'slower', retryAfterMs: 1500 },
    429,
    {
      code: 14,
      message: 'slower',
      details: [{ '@type': 'type.googleapis.com/google.rpc.RetryInfo', retryDelay: '1.500s' }],
    },
    '2',
  ],
  [
    { kind: 'unavailable', reason: 'the disk is full', retryAfterMs: 0 },
    503,
    {
      code: 14,
      message: 'the disk is full',
      details: [{ '@type': 'type.googleapis.com/google.rpc.RetryInfo', retryDelay: '0.000s' }],
    },
    '1',
  ],
]
for (const [outcome, status, json, retryAfter] of outcomes) {
  test(`http: ${outcome.kind} ${JSON.stringify(outcome).length} becomes ${status} in JSON`, async () => {
    const receiver = await openPort({ accept: async () => outcome })
    const first = 'POST /v1/metrics HTTP/1.1'
    const answer = await exchange(receiver, requestOf({ first, type: 'application/json', body: Buffer.from('{}') }))
    expect(answer.status).toBe(status)
    expect(JSON.parse(answer.body.toString())).toEqual(json)
    expect(answer.headers['retry-after']).toBe(retryAfter)
    expect(receiver.refused.map(([, reason]) => reason)).toEqual(outcome.kind === 'accepted' ? [] : [outcome.kind])
  })
}

test('http: an answer stays small whatever there is to say, and is cut between characters', async () => {
  const receiver = await openPort({ accept: async () => ({ kind: 'malformed', reason: '🦜'.repeat(100_000) }) })
  const answer = await exchange(receiver, requestOf({ type: 'application/json', body: Buffer.from('{}') }))
  const { message } = JSON.parse(answer.body.toString()) as { message: string }
  expect(Buffer.byteLength(message)).toBeLessThanOrEqual(1024)
  expect(message).toMatch(/^(🦜)+…$/u)
})

test('http: what goes wrong inside is 503 and in the log, never 500', async () => {
  const receiver = await openPort({
    accept: async () => {
      throw new Error('EIO: a broken disk at /secret/path')
    },
  })
  const answer = await exchange(receiver, requestOf({ body: Buffer.from('x') }))
  expect(answer.status).toBe(503)
  expect(answer.headers['retry-after']).toBe('1')
  expect(answer.body.toString()).not.toContain('secret')
  expect(receiver.logged).toEqual(['could not accept traces sent over HTTP'])
  expect(receiver.bodies.heldBytes()).toBe(0)
})

test('http: 100 Continue comes after the key was checked, and not at all for a wrong one', async () => {
  const receiver = await openPort()
  const lines = ['Expect: 100-continue', 'Content-Length: 5']
  const good = await openClient(receiver)
  good.send(requestOf({ lines }))
  expect((await good.answer()).status).toBe(100)
  good.send('hello')
  expect((await good.answer()).status).toBe(200)
  expect(receiver.accepted[0]?.body.toString()).toBe('hello')
  const bad = await openClient(receiver)
  bad.send(requestOf({ key: 'Bearer wrong', lines }))
  expect(await bad.answer()).toMatchObject({ status: 401, headers: { connection: 'close' } })
})

test('http: requests in one packet are answered in their order, though stored in another', async () => {
  const stored: string[] = []
  let storeFirst = () => {}
  const receiver = await openPort({
    accept: async ({ body }) => {
      if (body.toString() === 'a') await new Promise<void>((resolve) => (storeFirst = resolve))
      stored.push(body.toString())
      if (body.toString() === 'c') storeFirst()
      return { kind: 'accepted', rejected: 1, message: body.toString() }
    },
  })
  const client = await openClient(receiver)
  client.send(...['a', 'b', 'c'].map((text) => requestOf({ type: 'application/json', body: Buffer.from(text) })))
  const said: string[] = []
  for (let i = 0; i < 3; i++) said.push((await client.answer()).body.toString())
  expect(said.map((text) => JSON.parse(text).partialSuccess.errorMessage)).toEqual(['a', 'b', 'c'])
  expect(stored).toEqual(['b', 'c', 'a'])
})

test('http: garbage behind a good request does not take its answer away', async () => {
  let store = (_: ExportOutcome) => {}
  const receiver = await openPort({ accept: () => new Promise((resolve) => (store = resolve)) })
  const client = await openClient(receiver)
  client.send(requestOf({ body: Buffer.from('good') }), 'this is no HTTP\r\n\r\n')
  await new Promise<void>((resolve) =>
    setImmediate(function look() {
      if (receiver.accepted.length === 1) resolve()
      else setImmediate(look)
    }),
  )
  store({ kind: 'accepted', rejected: 0, message: '' })
  expect(await client.answer()).toMatchObject({ status: 200, headers: { connection: 'close' } })
  await client.closed
})

for (const [what, bytes, status] of [
  ['garbage', 'HELLO\r\n\r\n', 400],
  ['both Content-Length and chunked', requestOf({ lines: ['Content-Length: 5', 'Transfer-Encoding: chunked'] }), 400],
  ['two lengths', requestOf({ lines: ['Content-Length: 5', 'Content-Length: 6'] }), 400],
  ['a negative length', requestOf({ lines: ['Content-Length: -1'] }), 400],
  [
    'a chunk of no length',
    Buffer.concat([requestOf({ lines: ['Transfer-Encoding: chunked'] }), Buffer.from('zz\r\n')]),
    400,
  ],
  ['20 KB of headers', requestOf({ lines: [`X-Long: ${'x'.repeat(20_000)}`] }), 431],
] as const) {
  test(`http: ${what} gets ${status} and the connection ends`, async () => {
    const receiver = await openPort({ bounds: { refusedBodyMs: 50 } })
    const client = await openClient(receiver)
    client.send(bytes)
    const answer = await client.answer()
    expect(answer.status).toBe(status)
    await client.closed
    expect(receiver.accepted).toEqual([])
    expect(receiver.refused).toHaveLength(1)
    expect(receiver.bodies.heldBytes()).toBe(0)
  })
}

test('http: a chunked body is whole, also in chunks of one byte', async () => {
  const receiver = await openPort()
  const text = 'every byte comes by itself, and none is lost'.repeat(20)
  const chunks = [...text].map((byte) => `1\r\n${byte}\r\n`).join('')
  const answer = await exchange(
    receiver,
    Buffer.concat([requestOf({ lines: ['Transfer-Encoding: chunked'] }), Buffer.from(`${chunks}0\r\n\r\n`)]),
  )
  expect(answer.status).toBe(200)
  expect(receiver.accepted[0]?.body.toString()).toBe(text)
})

test('http: a chunked body without end gets 413 at the limit', async () => {
  const receiver = await openPort({ bounds: { requestBytesMax: 100_000 } })
  const client = await openClient(receiver)
  client.send(requestOf({ lines: ['Transfer-Encoding: chunked'] }))
  const chunk = Buffer.concat([Buffer.from('4000\r\n'), Buffer.alloc(0x4000, 'x'), Buffer.from('\r\n')])
  for (let i = 0; i < 10; i++) client.send(chunk)
  expect(await client.answer()).toMatchObject({ status: 413, headers: { connection: 'close' } })
  expect(receiver.accepted).toEqual([])
  expect(receiver.bodies.heldBytes()).toBe(0)
})

test('http: a client that sends 4 MiB before it reads gets its refusal, not a reset', async () => {
  const receiver = await openPort({ bounds: { refusedBodyBytesMax: 8 << 20 } })
  const status = await new Promise<number | undefined>((resolve, reject) => {
    const headers = {
      authorization: 'Bearer wrong',
      'content-type': 'application/x-protobuf',
      'content-length': 4 << 20,
    }
    const request = httpRequest({ port: receiver.port, path: '/v1/traces', method: 'POST', headers })
    request.on('response', (response) => response.resume().on('end', () => resolve(response.statusCode)))
    request.on('error', reject)
    request.end(Buffer.alloc(4 << 20))
  })
  expect(status).toBe(401)
})

test('http: a connection whose refused body was small goes on', async () => {
  const receiver = await openPort()
  const client = await openClient(receiver)
  client.send(requestOf({ key: 'Bearer wrong', body: Buffer.alloc(5000) }))
  expect((await client.answer()).status).toBe(401)
  client.send(requestOf({ body: Buffer.from('again') }))
  expect((await client.answer()).status).toBe(200)
})

test('http: headers that never end get 408, and the connection is closed', async () => {
  const receiver = await openPort({ bounds: { requestHeadersMs: 100 } })
  const client = await openClient(receiver)
  client.send('POST /v1/traces HTTP/1.1\r\nHost: a\r\n')
  expect((await client.answer()).status).toBe(408)
  await client.closed
  expect(receiver.refused).toEqual([['unknown', 'timed_out']])
})

test('http: a body that never ends gets 503, so that a slow network loses nothing, and holds no memory after it', async () => {
  const receiver = await openPort({ bounds: { requestMs: 100, refusedBodyMs: 20 } })
  const client = await openClient(receiver)
  client.send(requestOf({ lines: ['Content-Length: 1000'] }), 'just this')
  expect(await client.answer()).toMatchObject({ status: 503, headers: { 'retry-after': '1', connection: 'close' } })
  await client.closed
  expect(receiver.refused).toEqual([['traces', 'timed_out']])
  expect(receiver.bodies.heldBytes()).toBe(0)
})

test('http: a client that leaves in the middle of its body is counted, and its memory is free again', async () => {
  const receiver = await openPort()
  const client = await openClient(receiver)
  client.send(requestOf({ lines: ['Content-Length: 100000'] }), Buffer.alloc(50_000))
  client.destroy()
  await receiver.refusals(1)
  expect(receiver.refused).toEqual([['traces', 'aborted']])
  expect(receiver.bodies.heldBytes()).toBe(0)
})

test('http: a tenant that fills its share of the memory is refused, another is not', async () => {
  const receiver = await openPort({ bounds: { requestBytesMax: 1000 }, bodiesBytesMax: 2000 })
  const holder = await openClient(receiver)
  holder.send(requestOf({ lines: ['Content-Length: 900'] }), 'x')
  const second = await openClient(receiver)
  second.send(requestOf({ lines: ['Content-Length: 900'] }))
  expect(await second.answer()).toMatchObject({ status: 503, headers: { 'retry-after': '1' } })
  const answer = await exchange(receiver, requestOf({ key: 'Bearer other', body: Buffer.alloc(900) }))
  expect(answer.status).toBe(200)
  expect(receiver.refused).toEqual([['traces', 'unavailable']])
})

test('http: a flood over the rate gets 429 by its Content-Length alone, another tenant is served', async () => {
  const receiver = await openPort({ rates: { tenants: { acme: { bytesPerSecond: 1000 } } } })
  expect((await exchange(receiver, requestOf({ body: Buffer.alloc(2000) }))).status).toBe(200)
  const answer = await exchange(receiver, requestOf({ lines: ['Content-Length: 2000'] }))
  expect(answer.status).toBe(429)
  expect(answer.headers['retry-after']).toBe('2')
  expect((await exchange(receiver, requestOf({ key: 'Bearer other', body: Buffer.alloc(2000) }))).status).toBe(200)
  expect(receiver.refused).toEqual([['traces', 'throttled']])
})

test('http: who is over the rate waits for the refusal, nobody else does; a stop answers at once, a client that left is counted', async () => {
  const rates = { tenants: { acme: { bytesPerSecond: 1000 } } }
  const receiver = await openPort({ rates, bounds: { throttledAnswerMs: 600_000 } })
  await exchange(receiver, requestOf({ body: Buffer.alloc(2000) }))
  const flood = await openClient(receiver)
  flood.send(requestOf({ body: Buffer.alloc(2000) }))
  const gone = await openClient(receiver)
  gone.send(requestOf({ lines: ['Content-Length: 2000'] }))
  for (let count = 0; count < 3; count++)
    expect((await exchange(receiver, requestOf({ key: 'Bearer other', body: Buffer.alloc(2000) }))).status).toBe(200)
  expect(receiver.refused).toEqual([])
  gone.destroy()
  await receiver.refusals(1)
  expect(receiver.refused).toEqual([['traces', 'aborted']])
  const stopped = receiver.stop(0)
  expect((await flood.answer()).status).toBe(503)
  await stopped
  expect(receiver.bodies.heldBytes()).toBe(0)
})

test('http: bytes of a chunked body count against the rate of the next', async () => {
  const receiver = await openPort({ rates: { default: { bytesPerSecond: 10 } } })
  const body = Buffer.from(`64\r\n${'x'.repeat(100)}\r\n0\r\n\r\n`)
  const chunked = Buffer.concat([requestOf({ lines: ['Transfer-Encoding: chunked'] }), body])
  expect((await exchange(receiver, chunked)).status).toBe(200)
  expect((await exchange(receiver, chunked)).status).toBe(429)
})

test('http: what a local proxy brings is not local', async () => {
  const receiver = await openPort()
  await exchange(receiver, requestOf({}))
  await exchange(receiver, requestOf({ lines: ['X-Forwarded-For: 203.0.113.9'] }))
  await exchange(receiver, requestOf({ lines: ['Forwarded: for=203.0.113.9'] }))
  expect(receiver.asked.map(({ localBoundToLoopback }) => localBoundToLoopback)).toEqual([true, false, false])
  expect(receiver.asked[0]).toMatchObject({
    peerAddress: '127.0.0.1',
    hostHeader: '127.0.0.1',
    originHeader: undefined,
    authorization: 'Bearer acme',
  })
})

test('http stop: what is under way is answered 200, idle connections end, new ones are refused', async () => {
  let store = (_: ExportOutcome) => {}
  const begun = Promise.withResolvers<ExportRequest>()
  const receiver = await openPort({
    accept: (request) => {
      begun.resolve(request)
      return new Promise((resolve) => (store = resolve))
    },
  })
  const idle = await openClient(receiver)
  idle.send(requestOf({ key: 'Bearer wrong' }))
  expect((await idle.answer()).status).toBe(401)
  const busy = await openClient(receiver)
  busy.send(requestOf({ body: Buffer.from('x') }))
  await begun.promise
  const stopped = receiver.stop(10_000)
  await idle.closed
  const refused = await new Promise<string | undefined>((resolve) =>
    connect(receiver.port, '127.0.0.1').on('error', (error: NodeJS.ErrnoException) => resolve(error.code)),
  )
  expect(refused).toBe('ECONNREFUSED')
  store({ kind: 'accepted', rejected: 0, message: '' })
  expect(await busy.answer()).toMatchObject({ status: 200, headers: { connection: 'close' } })
  await stopped
})

test('http stop: at the deadline what is not stored gets 503, half a request its end, and stop is over', async () => {
  const receiver = await openPort({ accept: () => new Promise(() => {}) })
  const storing = await openClient(receiver)
  storing.send(requestOf({ body: Buffer.from('x') }))
  const sending = await openClient(receiver)
  sending.send(requestOf({ key: 'Bearer other', lines: ['Content-Length: 10'] }), 'x')
  const silent = await openClient(receiver)
  silent.send('POST /v1/tra')
  await new Promise<void>((resolve) =>
    setImmediate(function look() {
      if (receiver.asked.length === 2) resolve()
      else setImmediate(look)
    }),
  )
  await receiver.stop(100)
  expect(await storing.answer()).toMatchObject({ status: 503, headers: { 'retry-after': '1', connection: 'close' } })
  expect((await sending.answer()).status).toBe(503)
  await silent.closed
})

test('http: a taken port is named, with the reason as the cause', async () => {
  const { port } = await openPort()
  const second = import('./otlp-http.ts').then(({ openOtlpHttp }) =>
    openOtlpHttp({
      host: '127.0.0.1',
      port,
      authenticate: () => ({ kind: 'missing' }),
      accept: async () => ({ kind: 'accepted', rejected: 0, message: '' }),
      ingestLimits: { take: () => ({ kind: 'granted' }), chargeBytes: () => {}, charge: () => {}, end: () => {} },
      bodies: { open: () => undefined, heldBytes: () => 0 },
      log: { info: () => {}, warn: () => {}, error: () => {} },
      count: () => {},
    }),
  )
  await expect(second).rejects.toMatchObject({
    message: expect.stringMatching(
      new RegExp(`^port ${port} on 127.0.0.1 is taken( by process ${process.pid} \\(node\\))?$`),
    ),
    cause: expect.objectContaining({ code: 'EADDRINUSE' }),
  })
})

test('http: connections beyond the bound are closed and counted', async () => {
  const receiver = await openPort({ bounds: { connectionsMax: 1 } })
  const first = await openClient(receiver)
  const second = await openClient(receiver)
  await second.closed
  first.send(requestOf({}))
  expect((await first.answer()).status).toBe(200)
  expect(receiver.refused).toEqual([['unknown', 'unavailable']])
  expect(tenantOf('acme')).toBe(receiver.accepted[0]?.identity.tenant)
})
