import { AsyncLocalStorage } from 'node:async_hooks'
import { once } from 'node:events'
import http2 from 'node:http2'
import { type AddressInfo, createServer } from 'node:net'
import { PassThrough } from 'node:stream'
import { buffer } from 'node:stream/consumers'
import { afterEach, expect, test, vi } from 'vitest'
import { limits } from '../limits.ts'
import { encodeEvent } from '../providers/fixtures/encode-event.ts'
import { openRecorder, type Recorder } from './fixtures/recorder.ts'
import { hookHttp2 } from './http2.ts'

const events = Buffer.concat([
  encodeEvent('messageStart', { role: 'assistant' }),
  encodeEvent('contentBlockDelta', { contentBlockIndex: 0, delta: { text: 'Grüß dich' } }),
  encodeEvent('messageStop', { stopReason: 'end_turn' }),
  encodeEvent('metadata', { usage: { inputTokens: 7, outputTokens: 3, totalTokens: 10 } }),
])
const body = '{"inferenceConfig":{"maxTokens":50},"messages":[]}'
const path = '/model/amazon.nova-lite-v1%3A0/converse-stream'

let stack = new AsyncDisposableStack()
afterEach(async () => {
  await stack.disposeAsync()
  stack = new AsyncDisposableStack()
})

type Bedrock = { readonly session: http2.ClientHttp2Session; readonly recorder: Recorder; readonly bodies: string[] }

async function setUp(after: 'end' | 'cut' | 'wait', admitted?: () => Promise<void>): Promise<Bedrock> {
  const bodies: string[] = []
  const server = http2.createServer()
  server.on('stream', async (stream) => {
    stream.on('error', () => undefined)
    bodies.push((await buffer(stream)).toString())
    stream.respond({ ':status': 200, 'content-type': 'application/vnd.amazon.eventstream', 'x-amzn-requestid': 'r1' })
    for (const byte of events.subarray(0, after === 'end' ? undefined : 200)) stream.write(Uint8Array.of(byte))
    if (after === 'end') stream.end()
    if (after === 'cut') stream.session?.destroy()
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  const recorder = openRecorder(url, admitted === undefined ? {} : { admitted })
  stack.defer(hookHttp2(recorder.watch))
  const session = http2.connect(url)
  session.on('error', () => undefined)
  stack.defer(async () => {
    session.destroy()
    server.close()
    await once(server, 'close')
  })
  return { session, recorder, bodies }
}

test('http2: a stream of events is one call, with its usage, and the bytes are the provider’s', async () => {
  const { session, recorder, bodies } = await setUp('end')
  const stream = session.request({ ':method': 'POST', ':path': path, 'amz-sdk-request': 'attempt=2; max=3' })
  stream.write(body.slice(0, 10))
  stream.end(body.slice(10))
  expect(await buffer(stream)).toEqual(events)
  expect(bodies).toEqual([body])
  expect(await recorder.ended()).toMatchObject([
    { ending: 'complete', reply: { id: 'r1', usage: { inputTokens: 7, outputTokens: 3 }, finishReasons: ['stop'] } },
  ])
  expect(recorder.calls).toMatchObject([
    {
      start: {
        attempt: 2,
        transport: 'http2',
        request: { model: 'amazon.nova-lite-v1:0', isStream: true, outputTokensMax: 50 },
      },
      begun: 1,
      ends: 1,
    },
  ])
  expect(recorder.failures).toEqual([])
})

test('http2: a stream left, cut, or denied ends its call; a denied body is never sent', async () => {
  const left = await setUp('wait')
  const leftStream = left.session.request({ ':method': 'POST', ':path': path }).end(body)
  await once(leftStream, 'data')
  leftStream.close()
  expect(await left.recorder.ended()).toMatchObject([{ ending: 'left' }])

  const cut = await setUp('cut')
  const cutStream = cut.session.request({ ':method': 'POST', ':path': path }).end(body)
  await buffer(cutStream)
  expect(await cut.recorder.ended()).toMatchObject([{ ending: 'cut' }])

  const refusal = new Error('no more')
  const denied = await setUp('end', () => Promise.reject(refusal))
  const deniedStream = denied.session.request({ ':method': 'POST', ':path': path })
  const failed = once(deniedStream, 'close').catch((reason: unknown) => reason)
  const told: string[] = []
  // Amazon's SDK fails with whichever of the two comes first, and the one has no reason.
  for (const event of ['aborted', 'error']) deniedStream.on(event, () => told.push(event))
  deniedStream.end(body)
  const error = await failed
  expect(error).toBe(refusal)
  expect(told).toEqual(['error'])
  expect(await denied.recorder.ended()).toMatchObject([{ ending: 'denied', error: refusal }])
  expect(denied.bodies).toEqual([])
})

test('http2: a stream that is given up before its reply is aborted; one that never got a body is no call', async () => {
  const { session, recorder, bodies } = await setUp('end', () => new Promise(() => undefined))
  const empty = session.request({ ':method': 'POST', ':path': path })
  empty.close()
  await once(empty, 'close')
  expect(recorder.calls).toEqual([])
  const stream = session.request({ ':method': 'POST', ':path': path }).end(body)
  stream.close(http2.constants.NGHTTP2_CANCEL)
  expect(await recorder.ended()).toMatchObject([{ ending: 'aborted', status: 0, isHeldBack: true }])
  expect(bodies).not.toContain(body)
  // As a service does that makes a client for each request.
  session.request({ ':method': 'POST', ':path': path }).end(body).close(http2.constants.NGHTTP2_CANCEL)
  session.destroy()
  expect((await recorder.ended(2))[1]).toMatchObject({ ending: 'aborted', status: 0 })
})

test('http2: a connection that is lost before the reply is no giving up', async () => {
  const server = createServer((socket) => socket.once('data', () => socket.destroy()).on('error', () => undefined))
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  stack.defer(() => void server.close())
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  const recorder = openRecorder(url)
  stack.defer(hookHttp2(recorder.watch))
  const session = http2.connect(url).on('error', () => undefined)
  const stream = session.request({ ':method': 'POST', ':path': path }).end(body)
  stream.on('error', () => undefined)
  expect(await recorder.ended()).toMatchObject([{ ending: 'cut', status: 0 }])
})

test('http2: a body that is piped is the call of whoever made its request', async () => {
  const users = new AsyncLocalStorage<string>()
  const told: unknown[] = []
  // Asked when the call begins.
  const { session } = await setUp('end', async () => void told.push(users.getStore()))
  const source = new PassThrough()
  const stream = users.run('ada', () => session.request({ ':method': 'POST', ':path': path }))
  source.pipe(stream)
  source.end(body)
  expect(await buffer(stream)).toEqual(events)
  expect(told).toEqual(['ada'])
})

test('http2: a reply that nobody reads ends its call when it has brought nothing for long', async () => {
  vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval'] })
  stack.defer(() => void vi.useRealTimers())
  const { session, recorder } = await setUp('wait')
  const stream = session.request({ ':method': 'POST', ':path': path }).end(body)
  await once(stream, 'response')
  for (let look = 0; look < 3; look++) vi.advanceTimersByTime(limits.replyIdleMs)
  expect(recorder.calls).toMatchObject([{ ends: 1, end: { ending: 'left' } }])
})
