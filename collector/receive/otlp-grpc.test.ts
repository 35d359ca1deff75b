import { type ClientHttp2Session, type ClientHttp2Stream, connect, constants } from 'node:http2'
import { connect as connectTcp } from 'node:net'
import { gunzipSync } from 'node:zlib'
import { Client, credentials, Metadata, type ServiceError } from '@grpc/grpc-js'
import { afterEach, expect, test } from 'vitest'
import { openTestReceiver, type TestOptions, type TestReceiver } from './fixtures/receiver.ts'
import type { ExportOutcome } from './request.ts'

const methods = {
  traces: '/opentelemetry.proto.collector.trace.v1.TraceService/Export',
  metrics: '/opentelemetry.proto.collector.metrics.v1.MetricsService/Export',
  logs: '/opentelemetry.proto.collector.logs.v1.LogsService/Export',
} as const
const opened: { stop(): unknown }[] = []
afterEach(async () => {
  for (const one of opened.splice(0).reverse()) await one.stop()
})

async function openPort(options: TestOptions = {}): Promise<TestReceiver> {
  const receiver = await openTestReceiver('grpc', options)
  opened.push({ stop: () => receiver.stop(0) })
  return receiver
}

const asIs = (bytes: Buffer) => bytes
type Unary = { readonly error: ServiceError | null; readonly message: Buffer | undefined }

/** @grpc/grpc-js, as services have it. */
function openGrpcJs({ port }: TestReceiver, options: Record<string, number> = {}) {
  const client = new Client(`127.0.0.1:${port}`, credentials.createInsecure(), {
    'grpc.max_send_message_length': -1,
    ...options,
  })
  opened.push({ stop: () => client.close() })
  return (method: string, body: Buffer, { key = 'Bearer acme', deadlineMs = 10_000 } = {}) =>
    new Promise<Unary>((resolve) => {
      const metadata = new Metadata()
      if (key !== '') metadata.set('authorization', key)
      const deadline = Date.now() + deadlineMs
      client.makeUnaryRequest(method, asIs, asIs, body, metadata, { deadline }, (error, message) =>
        resolve({ error, message }),
      )
    })
}

function openSession({ port }: TestReceiver): ClientHttp2Session {
  const session = connect(`http://127.0.0.1:${port}`)
  session.on('error', () => session.destroy())
  opened.push({ stop: () => session.destroy() })
  return session
}

function frameOf(body: Buffer | string, { flag = 0, length = Buffer.byteLength(body) } = {}): Buffer {
  const head = Buffer.alloc(5)
  head[0] = flag
  head.writeUInt32BE(length, 1)
  return Buffer.concat([head, Buffer.from(body)])
}

function open(session: ClientHttp2Session, headers: Record<string, string> = {}): ClientHttp2Stream {
  return session.request({
    ':method': 'POST',
    ':path': methods.traces,
    'content-type': 'application/grpc',
    te: 'trailers',
    authorization: 'Bearer acme',
    ...headers,
  })
}

type Status = {
  readonly http: number
  readonly code: string
  readonly text: string
  readonly headers: Record<string, unknown>
}

/** What a call got, from its headers alone or from its trailers. */
function statusOf(stream: ClientHttp2Stream): Promise<Status> {
  return new Promise((resolve, reject) => {
    let headers: Record<string, unknown> = {}
    stream.on('response', (first) => {
      headers = { ...first }
    })
    stream.on('trailers', (trailers) => {
      headers = { ...headers, ...trailers }
    })
    stream.on('error', reject)
    stream.on('close', () => {
      const { ':status': http, 'grpc-status': code, 'grpc-message': text = '' } = headers
      resolve({ http: Number(http), code: String(code), text: decodeURIComponent(String(text)), headers })
    })
    stream.resume()
  })
}

function retryInfoOf(headers: Record<string, unknown>): boolean {
  return Buffer.from(String(headers['grpc-status-details-bin']), 'base64').includes('google.rpc.RetryInfo')
}

async function seen(isThere: () => boolean): Promise<void> {
  while (!isThere()) await new Promise((resolve) => setImmediate(resolve))
}

for (const [signal, method] of Object.entries(methods)) {
  test(`grpc: Export of ${signal} from @grpc/grpc-js is accepted as it was sent`, async () => {
    const receiver = await openPort()
    const body = Buffer.alloc(200_000, 'spans')
    const { error, message } = await openGrpcJs(receiver)(method, body)
    expect(error).toBeNull()
    expect(message).toHaveLength(0)
    expect(receiver.accepted[0]).toMatchObject({ signal, encoding: 'protobuf', contentEncoding: 'identity' })
    expect(receiver.accepted[0]?.body.equals(body)).toBe(true)
    expect(receiver.bodies.heldBytes()).toBe(0)
  })
}

test('grpc: a message that @grpc/grpc-js compressed is handed on compressed', async () => {
  const receiver = await openPort()
  const body = Buffer.alloc(100_000, 'spans')
  const { error } = await openGrpcJs(receiver, { 'grpc.default_compression_algorithm': 2 })(methods.traces, body)
  expect(error).toBeNull()
  const [request] = receiver.accepted
  expect(request?.contentEncoding).toBe('gzip')
  expect(gunzipSync(request?.body ?? Buffer.alloc(0)).equals(body)).toBe(true)
})

test('grpc: an empty message is a message', async () => {
  const receiver = await openPort()
  expect((await openGrpcJs(receiver)(methods.logs, Buffer.alloc(0))).error).toBeNull()
  expect(receiver.accepted[0]?.body).toHaveLength(0)
})

test('grpc: partial success carries the count and the reason', async () => {
  const receiver = await openPort({ accept: async () => ({ kind: 'accepted', rejected: 300, message: 'old' }) })
  const { message } = await openGrpcJs(receiver)(methods.traces, Buffer.from('x'))
  expect(message?.toString('hex')).toBe('0a0808ac0212036f6c64')
})

test.each([
  ['OTLP over HTTP', 'POST /v1/traces HTTP/1.1\r\nHost: localhost\r\n\r\n'],
  ['TLS', '\x16\x03\x01\x02\x00\x01'],
])(
  'grpc: %s, sent to this port, is counted, and the log says which port and scheme are right',
  async (_what, bytes) => {
    const receiver = await openPort()
    const socket = connectTcp(receiver.port, '127.0.0.1')
    opened.push({ stop: () => socket.destroy() })
    socket.on('error', () => socket.destroy()).end(bytes.padEnd(24, '\0'), 'latin1')
    await receiver.refusals(1)
    expect(receiver.refused).toEqual([['unknown', 'malformed']])
    expect(receiver.logged).toEqual([expect.stringMatching(/not HTTP\/2.*4318.*http:\/\//)])
  },
)

const refusals = [
  ['no key', { key: '' }, methods.traces, 16, 'a key is needed'],
  ['a wrong key', { key: 'Bearer wrong' }, methods.traces, 16, 'not known'],
  ['a key that may only read', { key: 'Bearer reader' }, methods.traces, 7, 'role ingest'],
  ['another method', {}, '/opentelemetry.proto.collector.profiles.v1.ProfilesService/Export', 12, 'ProfilesService'],
] as const
for (const [what, call, method, code, text] of refusals) {
  test(`grpc: ${what} gets ${code} while 5 MiB are still on their way`, async () => {
    const receiver = await openPort()
    const unary = openGrpcJs(receiver)
    const { error } = await unary(method, Buffer.alloc(5 << 20), call)
    expect(error?.code).toBe(code)
    expect(error?.details).toContain(text)
    expect(receiver.accepted).toEqual([])
    expect((await unary(methods.traces, Buffer.from('the connection goes on'))).error).toBeNull()
  })
}

const outcomes: readonly (readonly [ExportOutcome, number, detail: string, isRetried: boolean])[] = [
  [{ kind: 'malformed', reason: 'byte 7 – no tag' }, 3, 'google.rpc.BadRequest', false],
  [{ kind: 'too_large', reason: 'inflates to more' }, 8, '', false],
  [{ kind: 'throttled', reason: 'slower', retryAfterMs: 1500 }, 14, 'google.rpc.RetryInfo', true],
  [{ kind: 'unavailable', reason: 'the disk is full', retryAfterMs: 1000 }, 14, 'google.rpc.RetryInfo', true],
]
for (const [outcome, code, detail, isRetried] of outcomes) {
  test(`grpc: ${outcome.kind} becomes ${code} ${isRetried ? 'with' : 'without'} RetryInfo`, async () => {
    const receiver = await openPort({ accept: async () => outcome })
    const { error } = await openGrpcJs(receiver)(methods.traces, Buffer.from('x'))
    expect(error?.code).toBe(code)
    expect(error?.details).toBe('reason' in outcome ? outcome.reason : undefined)
    const details = String(error?.metadata.get('grpc-status-details-bin')[0])
    expect(details).toContain(detail)
    expect(details.includes('RetryInfo')).toBe(isRetried)
    expect(receiver.refused).toEqual([['traces', outcome.kind]])
  })
}

test('grpc: a long message in several scripts fits into the trailers', async () => {
  const receiver = await openPort({
    accept: async () => ({ kind: 'malformed', reason: '100% ünï\n🦜'.repeat(10_000) }),
  })
  const { error } = await openGrpcJs(receiver)(methods.traces, Buffer.from('x'))
  expect(error?.code).toBe(3)
  expect(error?.details).toMatch(/^100% ünï\n🦜.*…$/su)
})

test('grpc: what goes wrong inside is UNAVAILABLE with RetryInfo, and in the log', async () => {
  const receiver = await openPort({
    accept: async () => {
      throw new Error('EIO at /secret/path')
    },
  })
  const { error } = await openGrpcJs(receiver)(methods.traces, Buffer.from('x'))
  expect(error?.code).toBe(14)
  expect(error?.details).not.toContain('secret')
  expect(receiver.logged).toEqual(['could not accept traces sent over gRPC'])
})

test('grpc: 2 GiB declared and 5 bytes sent get RESOURCE_EXHAUSTED at once and hold nothing', async () => {
  const receiver = await openPort()
  const stream = open(openSession(receiver))
  stream.write(frameOf('', { length: 2 ** 31 }))
  const { code, headers } = await statusOf(stream)
  expect(code).toBe('8')
  expect(retryInfoOf(headers)).toBe(false)
  expect(receiver.bodies.heldBytes()).toBe(0)
  expect(receiver.refused).toEqual([['traces', 'too_large']])
})

const hostile = [
  ['a compressed flag of 2', {}, frameOf('x', { flag: 2 }), 200, 13, 'malformed'],
  ['a compressed message and no grpc-encoding', {}, frameOf('x', { flag: 1 }), 200, 13, 'malformed'],
  ['snappy', { 'grpc-encoding': 'snappy' }, frameOf('x'), 200, 12, 'unsupported_encoding'],
  ['two messages', {}, Buffer.concat([frameOf('x'), frameOf('y')]), 200, 3, 'malformed'],
  ['half a message', {}, frameOf('x', { length: 10 }), 200, 1, 'aborted'],
  ['half a head', {}, Buffer.from([0, 0]), 200, 1, 'aborted'],
  ['no message', {}, Buffer.alloc(0), 200, 1, 'aborted'],
  ['gRPC in JSON', { 'content-type': 'application/grpc+json' }, frameOf('{}'), 415, 3, 'unsupported_media_type'],
  ['no gRPC', { 'content-type': 'application/x-protobuf' }, Buffer.from('x'), 415, 3, 'unsupported_media_type'],
] as const
for (const [what, headers, bytes, http, code, reason] of hostile) {
  test(`grpc: ${what} gets ${code}, and nothing of it is accepted`, async () => {
    const receiver = await openPort()
    const stream = open(openSession(receiver), headers)
    stream.end(bytes)
    expect(await statusOf(stream)).toMatchObject({ http, code: String(code) })
    expect(receiver.accepted).toEqual([])
    expect(receiver.refused.map(([, why]) => why)).toEqual([reason])
    expect(receiver.bodies.heldBytes()).toBe(0)
  })
}

test('grpc: the answer to an unknown compression names the known ones', async () => {
  const stream = open(openSession(await openPort()), { 'grpc-encoding': 'snappy' })
  stream.end(frameOf('x'))
  expect((await statusOf(stream)).headers['grpc-accept-encoding']).toBe('identity,gzip,deflate,zstd')
})

test('grpc: a message that comes byte by byte is whole', async () => {
  const receiver = await openPort()
  const stream = open(openSession(receiver), { 'content-type': 'application/grpc+proto' })
  for (const byte of frameOf('byte by byte')) {
    await new Promise((resolve) => stream.write(Buffer.from([byte]), resolve))
  }
  stream.end()
  expect((await statusOf(stream)).code).toBe('0')
  expect(receiver.accepted[0]?.body.toString()).toBe('byte by byte')
})

test('grpc: an uncompressed message is identity, whatever grpc-encoding announces', async () => {
  const receiver = await openPort()
  const stream = open(openSession(receiver), { 'grpc-encoding': 'gzip' })
  stream.end(frameOf('plain'))
  expect((await statusOf(stream)).code).toBe('0')
  expect(receiver.accepted[0]?.contentEncoding).toBe('identity')
})

test('grpc: 200 calls in flight on one connection are answered in any order', async () => {
  const waiting: (() => void)[] = []
  const receiver = await openPort({
    accept: ({ body }) =>
      new Promise((resolve) => {
        waiting.push(() => resolve({ kind: 'accepted', rejected: 1, message: body.toString('latin1', 0, 3) }))
        if (waiting.length === 200) for (const answer of waiting.reverse()) answer()
      }),
  })
  const unary = openGrpcJs(receiver)
  const bodies = Array.from({ length: 200 }, (_, i) => Buffer.from(String(i + 100).padEnd(50_000)))
  const answers = await Promise.all(bodies.map((body) => unary(methods.logs, body)))
  expect(answers.map(({ message }) => message?.toString('latin1', 6))).toEqual(
    bodies.map((body) => body.toString('latin1', 0, 3)),
  )
})

test('grpc: a client that resets calls without end is disconnected, others are served', async () => {
  const receiver = await openPort()
  const flood = openSession(receiver)
  const ended = new Promise((resolve) => flood.on('close', resolve))
  let isEnded = false
  ended.then(() => {
    isEnded = true
  })
  while (!isEnded) {
    for (let i = 0; i < 100 && !flood.closed && !flood.destroyed; i++) {
      const stream = open(flood)
      stream.on('error', () => stream.destroy())
      stream.close(constants.NGHTTP2_CANCEL)
    }
    await new Promise((resolve) => setImmediate(resolve))
  }
  expect((await openGrpcJs(receiver)(methods.traces, Buffer.from('x'))).error).toBeNull()
  expect(receiver.bodies.heldBytes()).toBe(0)
})

test('grpc: a call cancelled in the midst of its message is counted, and its memory is free again', async () => {
  const receiver = await openPort()
  const stream = open(openSession(receiver))
  stream.write(frameOf('x', { length: 100_000 }))
  await seen(() => receiver.bodies.heldBytes() === 100_000)
  stream.close(constants.NGHTTP2_CANCEL)
  await receiver.refusals(1)
  expect(receiver.refused).toEqual([['traces', 'aborted']])
  expect(receiver.bodies.heldBytes()).toBe(0)
})

test('grpc: a call cancelled while it is stored holds its memory until it is stored', async () => {
  let store = (_: ExportOutcome) => {}
  const receiver = await openPort({ accept: () => new Promise((resolve) => (store = resolve)) })
  const session = openSession(receiver)
  const stream = open(session)
  stream.end(frameOf('x'))
  await seen(() => receiver.accepted.length === 1)
  stream.close(constants.NGHTTP2_CANCEL)
  await new Promise<void>((resolve, reject) => session.ping((error) => (error ? reject(error) : resolve())))
  expect(receiver.bodies.heldBytes()).toBe(1)
  store({ kind: 'accepted', rejected: 0, message: '' })
  await seen(() => receiver.bodies.heldBytes() === 0)
  expect(receiver.refused).toEqual([])
})

test('grpc: a message that never ends gets UNAVAILABLE', async () => {
  const receiver = await openPort({ bounds: { requestMs: 100 } })
  const stream = open(openSession(receiver))
  stream.write(frameOf('x', { length: 1000 }))
  const { code, headers } = await statusOf(stream)
  expect(code).toBe('14')
  expect(retryInfoOf(headers)).toBe(true)
  expect(receiver.refused).toEqual([['traces', 'timed_out']])
  expect(receiver.bodies.heldBytes()).toBe(0)
})

test('grpc: a message whose grpc-timeout is over is not worked on', async () => {
  const receiver = await openPort()
  const stream = open(openSession(receiver), { 'grpc-timeout': '1n' })
  stream.end(frameOf('x'))
  expect((await statusOf(stream)).code).toBe('4')
  expect(receiver.accepted).toEqual([])
})

test('grpc: a flood over the rate gets UNAVAILABLE with RetryInfo before its bytes are read', async () => {
  const receiver = await openPort({ rates: { default: { bytesPerSecond: 1000 } } })
  const session = openSession(receiver)
  const first = open(session)
  first.end(frameOf('x'.repeat(2000)))
  expect((await statusOf(first)).code).toBe('0')
  const second = open(session)
  second.write(frameOf('x', { length: 2000 }))
  const { code, headers } = await statusOf(second)
  expect(code).toBe('14')
  expect(retryInfoOf(headers)).toBe(true)
  expect(receiver.refused).toEqual([['traces', 'throttled']])
})

test('grpc: who is over the rate waits for the refusal, other calls of the connection do not; a stop answers at once', async () => {
  const rates = { tenants: { acme: { bytesPerSecond: 1000 } } }
  const receiver = await openPort({ rates, bounds: { throttledAnswerMs: 600_000 } })
  const session = openSession(receiver)
  const send = (headers = {}) => {
    const stream = open(session, headers)
    stream.end(frameOf('x'.repeat(2000)))
    return stream
  }
  expect((await statusOf(send())).code).toBe('0')
  const flood = send()
  const gone = send()
  for (let count = 0; count < 3; count++)
    expect((await statusOf(send({ authorization: 'Bearer other' }))).code).toBe('0')
  expect(receiver.refused).toEqual([])
  gone.close(constants.NGHTTP2_CANCEL)
  await receiver.refusals(1)
  expect(receiver.refused).toEqual([['traces', 'aborted']])
  const stopped = receiver.stop(0)
  expect((await statusOf(flood)).code).toBe('14')
  await stopped
})

test('grpc health: SERVING without a key, NOT_FOUND for a service that is not ours', async () => {
  const unary = openGrpcJs(await openPort())
  const whole = await unary('/grpc.health.v1.Health/Check', Buffer.alloc(0), { key: '' })
  expect(whole.message?.toString('hex')).toBe('0801')
  const name = Buffer.from('opentelemetry.proto.collector.trace.v1.TraceService')
  const ours = await unary('/grpc.health.v1.Health/Check', Buffer.concat([Buffer.from([10, name.length]), name]))
  expect(ours.message?.toString('hex')).toBe('0801')
  const other = await unary('/grpc.health.v1.Health/Check', Buffer.from('\n\x03foo'))
  expect(other.error?.code).toBe(5)
})

test('grpc stop: the connection is told to go away, what is under way is answered, then it ends', async () => {
  let store = (_: ExportOutcome) => {}
  const receiver = await openPort({ accept: () => new Promise((resolve) => (store = resolve)) })
  const session = openSession(receiver)
  const gone = new Promise<number>((resolve) => session.on('goaway', resolve))
  const stream = open(session)
  stream.end(frameOf('x'))
  await seen(() => receiver.accepted.length === 1)
  const stopped = receiver.stop(10_000)
  expect(await gone).toBe(constants.NGHTTP2_NO_ERROR)
  store({ kind: 'accepted', rejected: 0, message: '' })
  expect((await statusOf(stream)).code).toBe('0')
  await stopped
})

test('grpc stop: at the deadline what is not stored gets UNAVAILABLE with RetryInfo, and stop is over', async () => {
  const receiver = await openPort({ accept: () => new Promise(() => {}) })
  const session = openSession(receiver)
  const storing = open(session)
  storing.end(frameOf('x'))
  const sending = open(session)
  sending.write(frameOf('x', { length: 10 }))
  await seen(() => receiver.accepted.length === 1 && receiver.bodies.heldBytes() === 11)
  const statuses = Promise.all([storing, sending].map(statusOf))
  await receiver.stop(50)
  for (const { code, headers } of await statuses) {
    expect(code).toBe('14')
    expect(retryInfoOf(headers)).toBe(true)
  }
})

test('grpc: HTTP/1.1 on the gRPC port ends the connection and nothing else', async () => {
  const receiver = await openPort()
  await expect(fetch(`http://127.0.0.1:${receiver.port}/v1/traces`, { method: 'POST', body: 'x' })).rejects.toThrow()
  expect((await openGrpcJs(receiver)(methods.traces, Buffer.from('x'))).error).toBeNull()
})
