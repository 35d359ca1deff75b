import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
import { setImmediate as turn } from 'node:timers/promises'
import { afterEach, expect, test, vi } from 'vitest'
import WebSocketOfWs, { WebSocketServer } from 'ws'
import { openRecorder, type Recorder } from './fixtures/recorder.ts'
import { hookNodeHttp } from './node-http.ts'
import { hookWebSocket, isWatchedSocket, watchRealtime } from './websocket.ts'

let stack = new AsyncDisposableStack()
afterEach(async () => {
  await stack.disposeAsync()
  stack = new AsyncDisposableStack()
})

type Realtime = { readonly url: string; readonly recorder: Recorder; readonly received: string[] }

/** Answers every `response.create`; by its instructions it hangs up in the middle (`hang up`), answers with an error (`refused {…}`), or
 *  not before the next was refused (`wait`). */
async function setUp(admitted?: () => Promise<void>): Promise<Realtime> {
  const received: string[] = []
  const server = new WebSocketServer({ port: 0, host: '127.0.0.1' })
  await once(server, 'listening')
  let responses = 0
  server.on('connection', (socket) => {
    const send = (event: object): void => socket.send(JSON.stringify(event))
    const refuse = (error: object): void =>
      send({ type: 'error', error: { type: 'invalid_request_error', message: 'no', event_id: null, ...error } })
    send({ type: 'session.created', session: { model: 'gpt-realtime', instructions: 'Be kind.' } })
    socket.on('message', (data) => {
      const event = JSON.parse(data.toString())
      received.push(event.type)
      if (event.type === 'response.cancel') {
        refuse({ code: 'response_cancel_not_active', param: 'response_id', event_id: event.event_id })
        return
      }
      if (event.type !== 'response.create') return
      const { instructions = '' } = event.response ?? {}
      if (instructions.startsWith('refused ')) {
        refuse(JSON.parse(instructions.slice('refused '.length)))
        waiting?.()
      } else if (instructions === 'wait') waiting = () => answer(instructions)
      else answer(instructions)
    })
    let waiting: (() => void) | undefined
    function answer(instructions: string): void {
      const id = `resp_${++responses}`
      send({ type: 'response.created', response: { id, status: 'in_progress', usage: null } })
      send({ type: 'response.output_audio.delta', response_id: id, delta: 'A'.repeat(100_000) })
      send({ type: 'response.output_audio_transcript.delta', response_id: id, output_index: 0, delta: 'Grüß ' })
      if (instructions === 'hang up') {
        socket.terminate()
        return
      }
      send({ type: 'response.output_audio_transcript.delta', response_id: id, output_index: 0, delta: 'dich' })
      const usage = {
        input_tokens: 120,
        output_tokens: 40,
        input_token_details: { cached_tokens: 64, audio_tokens: 100 },
        output_token_details: { audio_tokens: 30 },
      }
      send({
        type: 'response.done',
        response: { id, object: 'realtime.response', status: 'completed', usage, output: [] },
      })
    }
  })
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  const recorder = openRecorder(url, admitted === undefined ? {} : { admitted })
  stack.defer(hookWebSocket(recorder.watch))
  stack.defer(async () => {
    for (const client of server.clients) client.terminate()
    server.close()
    await once(server, 'close')
  })
  return { url: `${url.replace('http', 'ws')}/v1/realtime?model=gpt-realtime`, recorder, received }
}

test('realtime: each response is a call with its usage, on the platform’s socket and on one of ws', async () => {
  const { url, recorder, received } = await setUp()
  const platform = new WebSocket(url)
  expect(platform.constructor.name).toBe('WebSocket')
  await once(platform, 'open')
  platform.send('{"type":"input_audio_buffer.append","audio":"AAAA"}')
  platform.send('{"type":"response.create"}')
  platform.send('{"type":"response.create","response":{"max_output_tokens":50,"instructions":"Sing."}}')
  const own = new WebSocketOfWs(url)
  watchRealtime(recorder.watch, own)
  await once(own, 'open')
  own.send('{"type":"response.create"}')
  const ends = await recorder.ended(3)
  for (const end of ends) {
    expect(end).toMatchObject({
      ending: 'complete',
      reply: {
        usage: {
          inputTokens: 120,
          cacheReadTokens: 64,
          inputAudioTokens: 100,
          outputTokens: 40,
          outputAudioTokens: 30,
        },
        usageSource: 'provider',
        messages: [{ parts: [{ type: 'text', content: 'Grüß dich' }] }],
      },
    })
  }
  expect(received.toSorted()).toEqual([
    'input_audio_buffer.append',
    'response.create',
    'response.create',
    'response.create',
  ])
  expect(recorder.calls.map(({ start }) => start.request.outputTokensMax)).toContain(50)
  expect(recorder.failures).toEqual([])
})

test('realtime: a connection that ends in a response ends its call; one elsewhere is not looked at', async () => {
  const { url, recorder } = await setUp()
  const socket = new WebSocket(url)
  await once(socket, 'open')
  socket.send('{"type":"response.create","response":{"instructions":"hang up"}}')
  expect(await recorder.ended()).toMatchObject([{ ending: 'cut', reply: { outputChars: 5, usageSource: 'none' } }])
  const other = new WebSocket(url.replace('realtime', 'chat'))
  await once(other, 'open')
  other.send('{"type":"response.create"}')
  await once(other, 'message')
  other.close()
  expect(recorder.calls).toHaveLength(1)
})

test('realtime: a denied response is never sent and told of in the API’s way; what came after it is sent, in order', async () => {
  let asked = 0
  const { url, recorder, received } = await setUp(() =>
    ++asked === 1 ? Promise.reject(new Error('no more')) : Promise.resolve(),
  )
  const socket = new WebSocket(url)
  await once(socket, 'open')
  const refused = Promise.withResolvers<unknown>()
  socket.addEventListener('message', ({ data }) => {
    const event = JSON.parse(data)
    if (event.type === 'error') refused.resolve(event.error)
  })
  socket.send('{"type":"response.create"}')
  socket.send('{"type":"input_audio_buffer.commit"}')
  socket.send('{"type":"response.create"}')
  expect(await refused.promise).toEqual({ type: 'quota_exceeded', code: 'quota_exceeded', message: 'no more' })
  expect(await recorder.ended(2)).toMatchObject([{ ending: 'denied' }, { ending: 'complete' }])
  expect(received).toEqual(['input_audio_buffer.commit', 'response.create'])
})

test('realtime: a socket of `ws` that nobody watches is told of as unmetered, one that is watched is not; nor one to others', async () => {
  const { url, recorder } = await setUp()
  stack.defer(hookNodeHttp(recorder.watch))
  const elsewhere = await setUp()
  const open = async (address: string, isWatched: boolean): Promise<void> => {
    const socket = new WebSocketOfWs(address)
    await once(socket, 'open')
    if (isWatched) watchRealtime(recorder.watch, socket)
    await turn()
    await turn()
    socket.close()
    await once(socket, 'close')
  }
  await open(url, true)
  await open(elsewhere.url, false)
  expect(recorder.unmetered).toEqual([])
  await open(url.replace('realtime', 'live'), true)
  expect(recorder.unmetered).toEqual(['transport 127.0.0.1'])
  const other = new WebSocket(url.replace('realtime', 'live'))
  await new Promise((opened) => other.addEventListener('open', opened))
  other.close()
  expect(recorder.unmetered).toEqual(['transport 127.0.0.1', 'api 127.0.0.1'])
})

test('realtime: a socket watched twice is one; one whose listeners are all taken off is not kept when it has closed', async () => {
  const { url, recorder } = await setUp()
  const socket = new WebSocket(url)
  watchRealtime(recorder.watch, socket)
  await once(socket, 'open')
  socket.send('{"type":"response.create"}')
  await recorder.ended()
  expect(recorder.calls).toHaveLength(1)
  socket.close()
  await once(socket, 'close')
  const own = new WebSocketOfWs(url)
  watchRealtime(recorder.watch, own)
  await once(own, 'open')
  expect(isWatchedSocket(url)).toBe(true)
  own.removeAllListeners()
  const closed = once(own, 'close')
  own.terminate()
  await closed
  expect(isWatchedSocket(url)).toBe(false)
})

test('realtime: a response that waits for the gate when its socket closes has an end; on a closed socket none begins', async () => {
  const gate = Promise.withResolvers<void>()
  const { url, recorder, received } = await setUp(() => gate.promise)
  const socket = new WebSocket(url)
  await once(socket, 'open')
  socket.send('{"type":"response.create"}')
  socket.close()
  await once(socket, 'close')
  expect(await recorder.ended()).toMatchObject([{ ending: 'cut', isHeldBack: true }])
  gate.resolve()
  socket.send('{"type":"response.create"}')
  await turn()
  expect(recorder.calls).toMatchObject([{ ends: 1 }])
  expect(received).toEqual([])
})

test.each([
  ['as another is under way', {}, { code: 'conversation_already_has_active_response', param: null }],
  ['for its parameter', {}, { code: 'unknown_parameter', param: 'response.tools[0].name' }],
  ['by the id of its event', { event_id: 'mine' }, { code: 'server_error', param: null, event_id: 'mine' }],
])(
  'realtime: a response that the server refuses %s is a failed call, and no other stands for it',
  async (_, event, error) => {
    const { url, recorder } = await setUp()
    const socket = new WebSocket(url)
    await once(socket, 'open')
    const refused = { instructions: `refused ${JSON.stringify(error)}` }
    socket.send(JSON.stringify({ type: 'response.create', ...event, response: refused }))
    expect(await recorder.ended()).toMatchObject([
      { ending: 'complete', status: 400, reply: { failure: { type: error.code } } },
    ])
    socket.send('{"type":"response.create","response":{"max_output_tokens":50}}')
    expect(await recorder.ended(2)).toMatchObject([{}, { status: 200, reply: { usage: { outputTokens: 40 } } }])
    expect(recorder.calls).toMatchObject([{ ends: 1 }, { ends: 1, start: { request: { outputTokensMax: 50 } } }])
  },
)

test('realtime: of responses that wait the one that an error names ends; an error about another event ends none', async () => {
  const { url, recorder } = await setUp()
  const socket = new WebSocket(url)
  await once(socket, 'open')
  socket.send('{"type":"response.cancel","event_id":"c","response_id":"resp_7"}')
  socket.send('{"type":"response.create","event_id":"a","response":{"instructions":"wait"}}')
  const error = { code: 'invalid_value', param: 'response.tools', event_id: 'b' }
  const refused = { instructions: `refused ${JSON.stringify(error)}` }
  socket.send(JSON.stringify({ type: 'response.create', event_id: 'b', response: refused }))
  expect(await recorder.ended(2)).toMatchObject([{ status: 200 }, { status: 400 }])
})

test('realtime: who waits for a send of `ws` that is denied is told why', async () => {
  const denied = new Error('no more')
  const { url, recorder, received } = await setUp(() => Promise.reject(denied))
  const socket = new WebSocketOfWs(url)
  watchRealtime(recorder.watch, socket)
  await once(socket, 'open')
  const event = '{"type":"response.create"}'
  expect(await new Promise((resolve) => socket.send(event, resolve))).toBe(denied)
  expect(await new Promise((resolve) => socket.send(event, { binary: false }, resolve))).toBe(denied)
  expect(received).toEqual([])
})

test('realtime: a socket that one copy of this package watches is told of as unmetered by no other', async () => {
  const { url, recorder } = await setUp()
  vi.resetModules()
  const other = await import('./websocket.ts')
  expect(other.isWatchedSocket).not.toBe(isWatchedSocket)
  const socket = new WebSocketOfWs(url)
  other.watchRealtime(recorder.watch, socket)
  expect(isWatchedSocket(url)).toBe(true)
  watchRealtime(recorder.watch, socket)
  await once(socket, 'open')
  socket.send('{"type":"response.create"}')
  await recorder.ended()
  expect(recorder.calls).toHaveLength(1)
})
