// The same turn through every framework and transport, against a provider over real HTTP.
import { EventEmitter, once } from 'node:events'
import { readFileSync } from 'node:fs'
import type { AddressInfo } from 'node:net'
import { serve } from '@hono/node-server'
import { context, createContextKey, propagation, trace } from '@opentelemetry/api'
import { AsyncLocalStorageContextManager } from '@opentelemetry/context-async-hooks'
import { CompositePropagator, W3CBaggagePropagator, W3CTraceContextPropagator } from '@opentelemetry/core'
import { InMemorySpanExporter, type ReadableSpan, SimpleSpanProcessor, TracerProvider } from '@opentelemetry/sdk-trace'
import express from 'express'
import fastify, { type FastifyRequest } from 'fastify'
import { Hono } from 'hono'
import { streamSSE } from 'hono/streaming'
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from 'vitest'
import WebSocketOfWs, { WebSocketServer } from 'ws'
import { listening } from '../hooks/fixtures/listening.ts'
import { type Provider, startProvider } from '../hooks/fixtures/provider.ts'
import {
  downstreamHeaders,
  expressTurn,
  failTurn,
  fastifyTurn,
  honoTurn,
  type Instrumentation,
  instrument,
  openTurn,
  recordAudit,
  recordError,
  recordHealthCheck,
  recordToolCall,
  recordUsage,
  socketTurns,
  turn,
} from '../index.ts'

const recorded = readFileSync(new URL('../providers/fixtures/openai-chat.sse', import.meta.url))
const exporter = new InMemorySpanExporter()
const suite = new AsyncDisposableStack()
let stack = new AsyncDisposableStack()
let provider: Provider
let instrumentation: Instrumentation
let redact = (text: string): string => text

beforeAll(async () => {
  provider = suite.use(await startProvider({ headers: { 'content-type': 'text/event-stream' }, pieces: [recorded] }))
  const contexts = new AsyncLocalStorageContextManager().enable()
  context.setGlobalContextManager(contexts)
  propagation.setGlobalPropagator(
    new CompositePropagator({ propagators: [new W3CTraceContextPropagator(), new W3CBaggagePropagator()] }),
  )
  trace.setGlobalTracerProvider(new TracerProvider({ spanProcessors: [new SimpleSpanProcessor({ exporter })] }))
  instrumentation = instrument({
    environment: {},
    content: 'full',
    redact: (text) => redact(text),
    baseUrls: [{ url: provider.url, provider: 'openai', takesUsageOption: true }],
  })
  suite.defer(() => instrumentation.shutdown())
})
afterAll(() => suite.disposeAsync())
afterEach(async () => {
  await stack.disposeAsync()
  stack = new AsyncDisposableStack()
  redact = (text) => text
  exporter.reset()
})

/** What every handler does: a model call, read as a stream, and its tool. */
async function chat(onText: (text: string) => unknown): Promise<void> {
  const body = JSON.stringify({ model: 'gpt-4o', stream: true, messages: [{ role: 'user', content: 'Wie ist es?' }] })
  const reply = await fetch(`${provider.url}/v1/chat/completions`, { method: 'POST', body })
  for await (const piece of reply.body ?? []) await onText(Buffer.from(piece).toString())
  recordToolCall({ name: 'get_weather', id: 'call_w1', arguments: { city: 'Zürich' } }, () => ({ degrees: 21 }))
}

async function spansOnce(count: number): Promise<readonly ReadableSpan[]> {
  for (let tries = 0; exporter.getFinishedSpans().length < count && tries < 200; tries++)
    await new Promise((resolve) => setImmediate(resolve).ref())
  return exporter.getFinishedSpans()
}

/** One turn with one call and one tool call, whatever it came through. */
async function expectTurn(channel: string, scene: object = { 'gen_ai.conversation.id': 'c1', 'user.id': 'ada' }) {
  const spans = await spansOnce(3)
  const [turnSpan, ...others] = spans.filter(({ name }) => name === 'turn')
  expect(others).toEqual([])
  const id = turnSpan?.attributes['tallylight.turn.id']
  expect(turnSpan?.attributes).toMatchObject({
    ...scene,
    'tallylight.turn.channel': channel,
    'tallylight.turn.status': 'success',
    'tallylight.turn.calls': 1,
    'tallylight.turn.tools': ['get_weather', 'get_time'],
    'tallylight.turn.question': 'Wie ist es?',
    'tallylight.turn.answer': 'Grüße aus 東京 🗼',
  })
  for (const name of ['chat gpt-4o', 'execute_tool get_weather']) {
    const span = spans.find((each) => each.name === name)
    expect(span?.parentSpanContext?.spanId).toBe(turnSpan?.spanContext().spanId)
    expect(span?.attributes).toMatchObject({ ...scene, 'tallylight.turn.id': id })
    expect(span?.attributes).not.toHaveProperty('tallylight.turn.channel')
  }
  const call = spans.find(({ name }) => name === 'chat gpt-4o')
  expect(call?.attributes).toMatchObject({ 'gen_ai.usage.input_tokens': 1200, 'gen_ai.usage.output_tokens': 300 })
  return turnSpan
}

const scene = { conversation: 'c1', user: 'ada' }

describe('the same turn', () => {
  test.each(['rest', 'sse'])('through Express, %s', async (channel) => {
    const app = express()
    app.post(
      '/chat',
      expressTurn(() => ({ ...scene, channel })),
      async (_request, response) => {
        if (channel === 'sse') await chat((text) => response.write(text))
        else await chat(() => undefined)
        response.end('ok')
      },
    )
    const url = await listening(stack, app)
    await (await fetch(`${url}/chat`, { method: 'POST' })).text()
    await expectTurn(channel)
  })

  test.each(['rest', 'sse'])('through Fastify, %s', async (channel) => {
    const app = fastify()
    app.post(
      '/chat',
      { preHandler: fastifyTurn((_request: FastifyRequest) => ({ ...scene, channel })) },
      async (_request, reply) => {
        if (channel === 'rest') {
          await chat(() => undefined)
          return { ok: true }
        }
        reply.hijack()
        await chat((text) => reply.raw.write(text))
        reply.raw.end()
        return reply
      },
    )
    await app.listen({ port: 0, host: '127.0.0.1' })
    stack.defer(() => app.close())
    const { port } = app.server.address() as AddressInfo
    await (
      await fetch(`http://127.0.0.1:${port}/chat`, {
        method: 'POST',
        body: '{"a":1}',
        headers: { 'content-type': 'application/json' },
      })
    ).text()
    await expectTurn(channel)
  })

  test.each(['rest', 'sse'])('through Hono, %s', async (channel) => {
    const app = new Hono()
    app.use(
      '/chat',
      honoTurn(() => ({ ...scene, channel })),
    )
    app.post('/chat', async (context) => {
      if (channel === 'sse') return streamSSE(context, (stream) => chat((data) => stream.writeSSE({ data })))
      await chat(() => undefined)
      return context.text('ok')
    })
    const server = serve({ fetch: app.fetch, port: 0, hostname: '127.0.0.1' })
    await once(server, 'listening')
    stack.defer(async () => {
      server.close()
      await once(server, 'close')
    })
    const { port } = server.address() as AddressInfo
    await (await fetch(`http://127.0.0.1:${port}/chat`, { method: 'POST' })).text()
    await expectTurn(channel)
  })

  test('through a WebSocket, one trace per turn, linked to the connection', async () => {
    const server = new WebSocketServer({ port: 0, host: '127.0.0.1' })
    await once(server, 'listening')
    server.on('connection', (socket, request) => {
      const turns = socketTurns(socket, { user: 'ada' }, request.headers)
      socket.on('message', () =>
        turns.turn({ conversation: 'c1' }, async () => {
          await chat((text) => socket.send(text))
          socket.send('done')
        }),
      )
    })
    const client = new WebSocketOfWs(`ws://127.0.0.1:${(server.address() as AddressInfo).port}`)
    await once(client, 'open')
    client.send('Wie ist es?')
    await expectTurn('websocket')
    const [first] = exporter.getFinishedSpans().filter(({ name }) => name === 'turn')
    client.send('Und jetzt?')
    await spansOnce(6)
    client.close()
    server.close()
    await once(server, 'close')
    const spans = await spansOnce(7)
    const connection = spans.find(({ name }) => name === 'websocket connection')
    const turns = spans.filter(({ name }) => name === 'turn')
    expect(turns).toHaveLength(2)
    for (const span of turns) expect(span.links[0]?.context.spanId).toBe(connection?.spanContext().spanId)
    expect(new Set(turns.map((span) => span.spanContext().traceId)).size).toBe(2)
    expect(first?.spanContext().traceId).not.toBe(connection?.spanContext().traceId)
  })
})

test.each([
  ['failure', 'APIError'],
  ['timeout', 'TimeoutError'],
  ['blocked', 'QuotaExceededError'],
] as const)('a stream that tells of its end in an event is a turn with status %s', async (status, name) => {
  const app = express()
  app.post(
    '/chat',
    expressTurn(() => ({ ...scene, channel: 'sse' })),
    async (_request, response) => {
      response.writeHead(200, { 'content-type': 'text/event-stream' })
      response.write('data: Gr\n\n')
      await new Promise((resolve) => setImmediate(resolve))
      failTurn(Object.assign(new Error('the model went away'), { name }))
      response.end('event: error\ndata: {}\n\n')
    },
  )
  const url = await listening(stack, app)
  const reply = await fetch(`${url}/chat`, { method: 'POST' })
  expect(await reply.text()).toContain('event: error')
  const [span] = await spansOnce(1)
  expect(span?.attributes).toMatchObject({ 'tallylight.turn.status': status, 'error.type': name })
})

describe('turn', () => {
  test('in a turn belongs to the outer one; what it gives and throws is passed on', async () => {
    const given = await turn({ ...scene, channel: 'rest' }, async (outer) => {
      const inner = turn({ user: 'eve' }, (each) => each.id)
      expect(inner).toBe(outer.id)
      await chat(() => undefined)
      return 7
    })
    expect(given).toBe(7)
    await expectTurn('rest')
    exporter.reset()
    const late = new DOMException('late', 'TimeoutError')
    await expect(turn(scene, () => Promise.reject(late))).rejects.toBe(late)
    expect(() =>
      turn(scene, () => {
        throw new RangeError('no')
      }),
    ).toThrow('no')
    const blocked = openTurn(scene)
    blocked.block('injection')
    blocked.end()
    expect(
      exporter
        .getFinishedSpans()
        .map(({ attributes }) => [
          attributes['tallylight.turn.status'],
          attributes['error.type'],
          attributes['tallylight.turn.block_reason'],
        ]),
    ).toEqual([
      ['timeout', 'TimeoutError', undefined],
      ['failure', 'RangeError', undefined],
      ['blocked', undefined, 'injection'],
    ])
  })

  test('keeps what was asked and answered as the service’s redaction leaves it, and not at all where that fails', async () => {
    redact = (text) => text.replaceAll('Zürich', '***')
    turn({ question: 'Wie ist es in Zürich?' }, ({ answer }) => answer('In Zürich schneit es.'))
    redact = () => {
      throw new Error('redaction failed')
    }
    turn({ question: 'Wie ist es in Zürich?' }, () => undefined)
    const said = exporter.getFinishedSpans().map(({ attributes }) => attributes)
    expect(said[0]).toMatchObject({
      'tallylight.turn.question': 'Wie ist es in ***?',
      'tallylight.turn.answer': 'In *** schneit es.',
    })
    expect(said[1]).not.toHaveProperty(['tallylight.turn.question'])
  })

  test('is joined by a service that trusts its caller, and by no other', async () => {
    for (const joinsTurns of [true, false]) {
      exporter.reset()
      const app = express()
      app.post(
        '/tool',
        expressTurn(() => ({}), { joinsTurns }),
        async (_request, response) => {
          await chat(() => undefined)
          response.end()
        },
      )
      const url = await listening(stack, app)
      const id = await turn(scene, async (outer) => {
        await (await fetch(`${url}/tool`, { method: 'POST', headers: downstreamHeaders() })).text()
        return outer.id
      })
      const spans = await spansOnce(joinsTurns ? 3 : 4)
      expect(spans.filter(({ name }) => name === 'turn')).toHaveLength(joinsTurns ? 1 : 2)
      const call = spans.find(({ name }) => name === 'chat gpt-4o')
      const outer = spans.find(
        ({ attributes }) => attributes['tallylight.turn.id'] === id && attributes['user.id'] === 'ada',
      )
      expect(call?.spanContext().traceId).toBe(outer?.spanContext().traceId)
      expect(call?.attributes['user.id']).toBe(joinsTurns ? 'ada' : undefined)
      expect(call?.attributes['tallylight.turn.id'] === id).toBe(joinsTurns)
      await stack.disposeAsync()
      stack = new AsyncDisposableStack()
    }
  })

  test('ends when its reader goes away, and is a failure only when the server failed', async () => {
    const app = express()
    const held = Promise.withResolvers<void>()
    app.post(
      '/left',
      expressTurn(() => scene),
      (_request, response) => {
        response.write('a')
        held.promise.then(() => response.end())
      },
    )
    app.post(
      '/failed',
      expressTurn(() => scene),
      (_request, response) => {
        response.status(503).end()
      },
    )
    const url = await listening(stack, app)
    const abort = new AbortController()
    const reply = await fetch(`${url}/left`, { method: 'POST', signal: abort.signal })
    abort.abort()
    await expect(reply.text()).rejects.toThrow()
    await spansOnce(1)
    await (await fetch(`${url}/failed`, { method: 'POST' })).text()
    const spans = await spansOnce(2)
    held.resolve()
    expect(spans.map(({ attributes }) => attributes['tallylight.turn.status'])).toEqual(['success', 'failure'])
  })
})

test('records: tools, usage, errors, audits and health checks are spans of their turn, and throw nothing', async () => {
  const { read } = instrumentation.counters
  const { failures, contentDropped } = read()
  await turn(scene, async () => {
    expect(recordToolCall({ name: 'add', arguments: [1, 2] }, () => 3)).toBe(3)
    await expect(recordToolCall({ name: 'fail' }, () => Promise.reject(new TypeError('no')))).rejects.toThrow('no')
    const circular: { self?: unknown } = {}
    circular.self = circular
    expect(recordToolCall({ name: 'circle', arguments: circular }, () => 1)).toBe(1)
    recordUsage({ provider: 'openai', model: 'tts-1', usage: { inputTokens: 5, outputTokens: 0 } })
    recordError(new RangeError('seen'))
    recordAudit({ action: 'delete', resource: { type: 'chat', id: '7' }, before: { a: 1 }, after: circular })
  })
  recordHealthCheck({
    target: 'mcp:files',
    status: 'timeout',
    event: 'startup',
    responseTimeMs: 5_000,
    metadata: { tools: 3 },
  })
  const spans = exporter.getFinishedSpans()
  const named = (name: string): ReadableSpan | undefined => spans.find((span) => span.name === name)
  expect(named('execute_tool add')?.attributes).toMatchObject({
    'gen_ai.operation.name': 'execute_tool',
    'gen_ai.tool.name': 'add',
    'gen_ai.tool.call.arguments': '[1,2]',
    'gen_ai.tool.call.result': '3',
    'gen_ai.conversation.id': 'c1',
  })
  expect(named('execute_tool fail')).toMatchObject({ attributes: { 'error.type': 'TypeError' }, status: { code: 2 } })
  expect(named('execute_tool circle')?.attributes['gen_ai.tool.call.arguments']).toBe(undefined)
  expect(named('chat tts-1')?.attributes).toMatchObject({
    'gen_ai.usage.input_tokens': 5,
    'gen_ai.usage.output_tokens': 0,
  })
  expect(named('error')).toMatchObject({ attributes: { 'error.type': 'RangeError' }, status: { code: 2 } })
  expect(named('audit')?.events).toMatchObject([
    {
      name: 'tallylight.audit',
      attributes: {
        'tallylight.audit.action': 'delete',
        'tallylight.audit.actor': 'ada',
        'tallylight.audit.resource.id': '7',
        'tallylight.audit.before': '{"a":1}',
      },
    },
  ])
  expect(named('health check')).toMatchObject({
    parentSpanContext: undefined,
    attributes: {
      'tallylight.health.target': 'mcp:files',
      'tallylight.health.status': 'timeout',
      'tallylight.health.event': 'startup',
      'tallylight.health.response_time': 5,
      'tallylight.health.metadata.tools': 3,
      'tallylight.probe': true,
    },
  })
  expect(read().contentDropped - contentDropped).toBe(1)
  expect(read().failures - failures).toBe(1)
})

test('a connection of nobody, and a route with options that are none, are turns all the same', () => {
  const none = null as never
  const socket = new EventEmitter()
  expect(socketTurns(socket, none, none).turn(scene, () => 1)).toBe(1)
  socket.emit('close')
  const reply = Object.assign(new EventEmitter(), { statusCode: 200, closed: false })
  const next = vi.fn()
  expressTurn(() => scene, none)({ headers: {} }, reply, next)
  reply.emit('close')
  expect(next).toHaveBeenCalledTimes(1)
  const names = exporter.getFinishedSpans().map(({ name }) => name)
  expect(names).toEqual(['turn', 'websocket connection', 'turn'])
})

test.each([
  ['nothing', undefined],
  ['a socket that tells nothing of its close', { send: () => undefined, readyState: 1 }],
])('a connection of %s has its turns, and is not left open', (_, socket) => {
  expect(socketTurns(socket as never, scene).turn({}, () => 1)).toBe(1)
  const names = exporter.getFinishedSpans().map(({ name }) => name)
  expect(names).toEqual(['websocket connection', 'turn'])
})

test('a call that a service tells of by itself is one of its turn', () => {
  const usage = { inputTokens: 1, outputTokens: 2 }
  turn(scene, () => recordUsage({ provider: 'own', model: 'm', usage }))
  const told = exporter.getFinishedSpans().find(({ name }) => name === 'turn')
  expect(told?.attributes['tallylight.turn.calls']).toBe(1)
})

test('what a message leaves open is as its connection has it', () => {
  const socket = new EventEmitter()
  socketTurns(socket, { user: 'ada' }).turn({ user: undefined, channel: undefined, conversation: 'c1' }, () => 1)
  const [told] = exporter.getFinishedSpans()
  expect(told?.attributes).toMatchObject({
    'user.id': 'ada',
    'gen_ai.conversation.id': 'c1',
    'tallylight.turn.channel': 'websocket',
  })
  socket.emit('close')
})

test('a turn that is told what is no text keeps its outcome and its numbers', () => {
  const wrong = (told: unknown): never => told as never
  turn(scene, (opened) => opened.answer(wrong(5)))
  turn(scene, (opened) => opened.answer(wrong(undefined)))
  turn(scene, (opened) => opened.block(wrong({})))
  turn(scene, (opened) => opened.block(wrong(undefined)))
  const told = exporter.getFinishedSpans().map(({ attributes }) => attributes)
  expect(told.map((each) => each['tallylight.turn.status'])).toEqual(['success', 'success', 'blocked', 'blocked'])
  for (const each of told) expect(each['tallylight.turn.calls']).toBe(0)
})

test('below a span of this process a turn stays there, whatever trace its request came with', () => {
  const traceparent = '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01'
  const route = expressTurn(() => scene)
  const reply = Object.assign(new EventEmitter(), { statusCode: 200, closed: false })
  const tracer = trace.getTracer('http')
  const served = tracer.startSpan('POST /chat')
  context.with(trace.setSpan(context.active(), served), () =>
    route({ headers: { traceparent } }, reply, () =>
      // A route of a router that has the middleware, too.
      route({ headers: { traceparent } }, reply, () => tracer.startSpan('inside').end()),
    ),
  )
  reply.emit('close')
  served.end()
  const spanOf = (name: string) => exporter.getFinishedSpans().find((span) => span.name === name)
  expect(spanOf('turn')?.parentSpanContext?.spanId).toBe(served.spanContext().spanId)
  expect(spanOf('inside')?.parentSpanContext?.spanId).toBe(spanOf('turn')?.spanContext().spanId)
})

test('a request to which two have added the trace is below the one that sent it', () => {
  const [turnsOwn, sent] = ['b7ad6b7169203331', '00f067aa0ba902b7']
  const traceparent = [turnsOwn, sent].map((each) => `00-0af7651916cd43dd8448eb211c80319c-${each}-01`).join(', ')
  const reply = Object.assign(new EventEmitter(), { statusCode: 200, closed: false })
  expressTurn(() => scene)({ headers: { traceparent } }, reply, () => undefined)
  reply.emit('close')
  expect(exporter.getFinishedSpans()[0]?.parentSpanContext?.spanId).toBe(sent)
})

test('a turn on a socket is a trace of its own, and what else the service has in its context holds in it', () => {
  const key = createContextKey('of the service')
  const socket = new EventEmitter()
  const around = trace.getTracer('http').startSpan('around')
  const inside = trace.setSpan(context.active().setValue(key, 'kept'), around)
  const session = socketTurns(socket)
  expect(context.with(inside, () => session.turn(scene, () => context.active().getValue(key)))).toBe('kept')
  const told = exporter.getFinishedSpans().find(({ name }) => name === 'turn')
  expect(told?.parentSpanContext).toBeUndefined()
  expect(told?.spanContext().traceId).not.toBe(around.spanContext().traceId)
  socket.emit('close')
})
