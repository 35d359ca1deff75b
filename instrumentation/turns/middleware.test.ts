// Replies that frameworks, handlers and readers treat otherwise than most: none may differ for us, and none leave a turn open.
import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { serve } from '@hono/node-server'
import { context, trace } from '@opentelemetry/api'
import { AsyncLocalStorageContextManager } from '@opentelemetry/context-async-hooks'
import { InMemorySpanExporter, SimpleSpanProcessor, TracerProvider } from '@opentelemetry/sdk-trace'
import express from 'express'
import fastify from 'fastify'
import { Hono } from 'hono'
import { compress } from 'hono/compress'
import { afterAll, afterEach, beforeAll, expect, test, vi } from 'vitest'
import WebSocketOfWs, { WebSocketServer } from 'ws'
import { expressTurn, fastifyTurn, honoTurn, instrument, socketTurns } from '../index.ts'

const exporter = new InMemorySpanExporter()
const suite = new AsyncDisposableStack()
let stack = new AsyncDisposableStack()

beforeAll(() => {
  context.setGlobalContextManager(new AsyncLocalStorageContextManager().enable())
  trace.setGlobalTracerProvider(new TracerProvider({ spanProcessors: [new SimpleSpanProcessor({ exporter })] }))
  const instrumentation = instrument({ environment: {} })
  suite.defer(() => instrumentation.shutdown())
})
afterAll(() => suite.disposeAsync())
afterEach(async () => {
  await stack.disposeAsync()
  stack = new AsyncDisposableStack()
  exporter.reset()
})

const urlOf = (address: unknown): string => `http://127.0.0.1:${(address as AddressInfo).port}`

function ended(names: readonly string[]): Promise<void> {
  return vi.waitFor(() => expect(exporter.getFinishedSpans().map(({ name }) => name)).toEqual(names))
}

async function servedByHono(pieces: readonly Uint8Array[]): Promise<string> {
  const app = new Hono()
  app.use(honoTurn(() => ({})))
  app.get('/chat', () => {
    const left = pieces.values()
    const pull = (controller: ReadableStreamDefaultController<Uint8Array>): void => {
      const { done, value } = left.next()
      if (done === true) controller.close()
      else controller.enqueue(value)
    }
    return new Response(new ReadableStream({ pull }))
  })
  return `${await served(app)}/chat`
}

async function served(app: Hono): Promise<string> {
  const server = serve({ fetch: app.fetch, port: 0, hostname: '127.0.0.1' })
  await once(server, 'listening')
  stack.defer(async () => {
    server.close()
    await once(server, 'close')
  })
  return urlOf(server.address())
}

const ping = new TextEncoder().encode(': ping\n\n')
test.each([
  ['sent again', [ping, ping, ping]],
  ['out of Node’s pool', ['Grüße', ' aus ', '東京'].map((text) => Buffer.from(text))],
  ['empty', [Buffer.from('a'), new Uint8Array(), Buffer.from('b')]],
])('hono: a piece that is %s reaches the reader as without a turn', async (_, pieces) => {
  const reply = await fetch(await servedByHono(pieces))
  expect(await reply.text()).toBe(Buffer.concat(pieces).toString())
  await ended(['turn'])
})

test('hono: a reply that says no type of its own is the same to what stands before the turn, which compresses it', async () => {
  const servedWith = async (isTurn: boolean) => {
    const app = new Hono()
    app.use(compress())
    if (isTurn) app.use(honoTurn(() => ({})))
    app.get('/', (to) => to.body(new Blob(['x'.repeat(3000)]).stream()))
    const reply = await fetch(await served(app))
    const { headers } = reply
    expect(await reply.text()).toHaveLength(3000)
    return ['content-type', 'content-encoding', 'vary'].map((name) => headers.get(name))
  }
  const plain = await servedWith(false)
  expect(plain).toEqual(['text/plain; charset=UTF-8', 'gzip', 'Accept-Encoding'])
  expect(await servedWith(true)).toEqual(plain)
})

test('hono: the answer to HEAD, whose body nobody reads, ends the turn', async () => {
  const reply = await fetch(await servedByHono([ping]), { method: 'HEAD' })
  expect(reply.status).toBe(200)
  await ended(['turn'])
})

/** A request whose client leaves while what stands before the turn is at work. */
async function leave(url: string, entered: Promise<void>): Promise<void> {
  const abort = new AbortController()
  const left = expect(fetch(url, { signal: abort.signal })).rejects.toThrow()
  await entered
  abort.abort()
  await left
}

test('express: a turn whose client has left before it begins ends', async () => {
  const entered = Promise.withResolvers<void>()
  const app = express()
  app.use((_request, response, next) => {
    response.once('close', () => setImmediate(next))
    entered.resolve()
  })
  app.get(
    '/chat',
    expressTurn(() => ({})),
    (_request, response) => void response.end('late'),
  )
  const server = createServer(app).listen(0, '127.0.0.1')
  await once(server, 'listening')
  stack.defer(async () => {
    server.close()
    await once(server, 'close')
  })
  await leave(`${urlOf(server.address())}/chat`, entered.promise)
  await ended(['turn'])
})

test('fastify: a turn whose client has left before it begins ends', async () => {
  const entered = Promise.withResolvers<void>()
  const app = fastify()
  app.addHook('onRequest', async (_request, { raw }) => {
    entered.resolve()
    await once(raw, 'close')
  })
  app.addHook(
    'preHandler',
    fastifyTurn(() => ({})),
  )
  app.get('/chat', () => 'late')
  await app.listen({ port: 0, host: '127.0.0.1' })
  stack.defer(() => app.close())
  await leave(`${urlOf(app.server.address())}/chat`, entered.promise)
  await ended(['turn'])
})

test('socket: a connection that has closed before it is told of ends, and so does a turn that is opened on it', async () => {
  const server = new WebSocketServer({ port: 0, host: '127.0.0.1' })
  await once(server, 'listening')
  stack.defer(async () => {
    server.close()
    await once(server, 'close')
  })
  const accepted = once(server, 'connection')
  const client = new WebSocketOfWs(urlOf(server.address()).replace('http', 'ws'))
  const [socket] = (await accepted) as [WebSocketOfWs]
  await once(client, 'open')
  const closed = once(socket, 'close')
  client.close()
  await closed
  socketTurns(socket).openTurn({})
  await ended(['websocket connection', 'turn'])
  socketTurns({ once: () => undefined, ...{ disconnected: true } })
  await ended(['websocket connection', 'turn', 'websocket connection'])
})

test('whose turn it is may be told by numbers and worse; a promise tells nothing, and nor does what throws', async () => {
  const told = [
    () => ({ user: 42, conversation: JSON.parse('{"toString":null}'), tenant: null }),
    async () => ({ user: 'ada' }),
    () => {
      throw new TypeError('nobody is logged in')
    },
  ] as unknown as readonly Parameters<typeof honoTurn>[0][]
  for (const sceneOf of told) {
    const app = new Hono()
    app.use(honoTurn(sceneOf))
    app.get('/', ({ text }) => text('hello'))
    expect(await (await app.request('/')).text()).toBe('hello')
  }
  await ended(['turn', 'turn', 'turn'])
  const [numbers, promised, thrown] = exporter.getFinishedSpans()
  expect(numbers?.attributes).toMatchObject({ 'user.id': '42', 'gen_ai.conversation.id': '[object]' })
  for (const nobody of [promised, thrown]) expect(nobody?.attributes).not.toHaveProperty(['user.id'])
})
