// A client and a server of the official SDK, over HTTP in this process, and over stdio with the server in a process of its own.
import type { IncomingMessage, ServerResponse } from 'node:http'
import { json } from 'node:stream/consumers'
import { fileURLToPath } from 'node:url'
import { createGunzip } from 'node:zlib'
import { Client } from '@modelcontextprotocol/sdk/client/index.js'
import { StdioClientTransport } from '@modelcontextprotocol/sdk/client/stdio.js'
import {
  StreamableHTTPClientTransport,
  type StreamableHTTPClientTransportOptions,
} from '@modelcontextprotocol/sdk/client/streamableHttp.js'
import { InMemoryTransport } from '@modelcontextprotocol/sdk/inMemory.js'
import { McpServer } from '@modelcontextprotocol/sdk/server/mcp.js'
import { StreamableHTTPServerTransport } from '@modelcontextprotocol/sdk/server/streamableHttp.js'
import type { OAuthTokens } from '@modelcontextprotocol/sdk/shared/auth.js'
import { context, propagation, SpanKind, trace } from '@opentelemetry/api'
import { AsyncLocalStorageContextManager } from '@opentelemetry/context-async-hooks'
import { W3CTraceContextPropagator } from '@opentelemetry/core'
import { InMemorySpanExporter, type ReadableSpan, SimpleSpanProcessor, TracerProvider } from '@opentelemetry/sdk-trace'
import { afterAll, afterEach, beforeAll, expect, test, vi } from 'vitest'
import { listening } from '../hooks/fixtures/listening.ts'
import { instrument, type McpOptions, observeMcp, turn } from '../index.ts'
import { addTools } from './fixtures/tools.ts'

const exporter = new InMemorySpanExporter()
const suite = new AsyncDisposableStack()
let stack = new AsyncDisposableStack()
let redact = (text: string): string => text

beforeAll(() => {
  context.setGlobalContextManager(new AsyncLocalStorageContextManager().enable())
  propagation.setGlobalPropagator(new W3CTraceContextPropagator())
  trace.setGlobalTracerProvider(new TracerProvider({ spanProcessors: [new SimpleSpanProcessor({ exporter })] }))
  const instrumentation = instrument({ environment: {}, content: 'full', redact: (text) => redact(text) })
  suite.defer(() => instrumentation.shutdown())
})
afterAll(() => suite.disposeAsync())
afterEach(async () => {
  await stack.disposeAsync()
  stack = new AsyncDisposableStack()
  redact = (text) => text
  exporter.reset()
})

type Http = { readonly client: Client; readonly headers: Readonly<Record<string, unknown>>[] }

type Around = (handle: () => Promise<void>, request: IncomingMessage, response: ServerResponse) => Promise<void>

async function connectHttp(
  options: McpOptions = {},
  around: Around = (handle) => handle(),
  ofTransport: StreamableHTTPClientTransportOptions = {},
): Promise<Http> {
  const headers: Readonly<Record<string, unknown>>[] = []
  const url = await listening(stack, async (request, response) => {
    headers.push(request.headers)
    const server = observeMcp(new McpServer({ name: 'files', version: '1.0.0' }), options)
    addTools(server)
    const transport = new StreamableHTTPServerTransport({})
    response.once('close', () => transport.close())
    await server.connect(transport)
    await around(() => transport.handleRequest(request, response), request, response)
  })
  const client = observeMcp(new Client({ name: 'test', version: '1.0.0' }))
  await client.connect(new StreamableHTTPClientTransport(new URL(`${url}/mcp`), ofTransport))
  stack.defer(() => client.close())
  return { client, headers }
}

const spanOf = (kind: SpanKind, name: string): ReadableSpan | undefined =>
  exporter.getFinishedSpans().find((span) => span.kind === kind && span.name === name)

test('mcp: a tool call over HTTP is a client span around a server span, with the trace in the message and in the headers', async () => {
  const { client, headers } = await connectHttp()
  const result = await turn({ conversation: 'c1' }, () => client.callTool({ name: 'add', arguments: { a: 1, b: 2 } }))
  expect(result.content).toEqual([{ type: 'text', text: '3' }])
  const called = spanOf(SpanKind.CLIENT, 'tools/call add')
  const served = spanOf(SpanKind.SERVER, 'tools/call add')
  expect(called?.attributes).toMatchObject({
    'mcp.method.name': 'tools/call',
    'gen_ai.operation.name': 'execute_tool',
    'gen_ai.tool.name': 'add',
    'gen_ai.tool.call.arguments': '{"a":1,"b":2}',
    'gen_ai.tool.call.result': '{"content":[{"type":"text","text":"3"}]}',
    'gen_ai.conversation.id': 'c1',
    'mcp.server.name': 'files',
    'network.transport': 'tcp',
    'server.address': '127.0.0.1',
  })
  expect(called?.attributes['mcp.protocol.version']).toMatch(/^20\d\d-/)
  expect(served?.parentSpanContext?.spanId).toBe(called?.spanContext().spanId)
  const inside = exporter.getFinishedSpans().find(({ name }) => name === 'inside')
  expect(inside?.parentSpanContext?.spanId).toBe(served?.spanContext().spanId)
  expect(headers.at(-1)?.traceparent).toContain(called?.spanContext().traceId)
})

test('mcp: what a tool gets and gives passes the service’s redaction', async () => {
  redact = (text) => text.replaceAll(/\d/g, '#')
  const { client } = await connectHttp()
  await client.callTool({ name: 'add', arguments: { a: 1, b: 2 } })
  for (const kind of [SpanKind.CLIENT, SpanKind.SERVER])
    expect(spanOf(kind, 'tools/call add')?.attributes).toMatchObject({
      'gen_ai.tool.call.arguments': '{"a":#,"b":#}',
      'gen_ai.tool.call.result': '{"content":[{"type":"text","text":"#"}]}',
    })
})

test('mcp: an untrusted trace is linked to, and not the parent', async () => {
  const { client } = await connectHttp({ incoming: 'link' })
  await client.callTool({ name: 'add', arguments: { a: 1, b: 2 } })
  const called = spanOf(SpanKind.CLIENT, 'tools/call add')
  const served = spanOf(SpanKind.SERVER, 'tools/call add')
  expect(served?.spanContext().traceId).not.toBe(called?.spanContext().traceId)
  expect(served?.links[0]?.context.spanId).toBe(called?.spanContext().spanId)
})

test('mcp: where a trace is linked to, a tool stays in the turn that its service has opened around it', async () => {
  const { client } = await connectHttp({ incoming: 'link' }, (handle) => turn({ user: 'ada' }, handle))
  await client.callTool({ name: 'add', arguments: { a: 1, b: 2 } })
  const inside = exporter.getFinishedSpans().find(({ name }) => name === 'inside')
  expect(inside?.attributes['user.id']).toBe('ada')
})

test('mcp: a request that brings no trace is below the span of its own service, also where others are linked to', async () => {
  const [near, far] = InMemoryTransport.createLinkedPair()
  const server = observeMcp(new McpServer({ name: 'files', version: '1.0.0' }), { incoming: 'link' })
  addTools(server)
  await server.connect(far)
  await near.start()
  const around = trace.getTracer('http').startSpan('POST /mcp')
  const inside = trace.setSpan(context.active(), around)
  await context.with(inside, () => near.send({ jsonrpc: '2.0', id: 1, method: 'ping' }))
  await vi.waitFor(() => expect(spanOf(SpanKind.SERVER, 'ping')).toBeDefined())
  expect(spanOf(SpanKind.SERVER, 'ping')).toMatchObject({ links: [], parentSpanContext: around.spanContext() })
  await near.close()
})

test('mcp: a request that the SDK sends again with a renewed token is one', async () => {
  let token = 'first'
  let known: OAuthTokens = { access_token: token, token_type: 'Bearer', refresh_token: 'again' }
  const { client } = await connectHttp(
    {},
    async (handle, { url, headers }, response) => {
      if (url === '/token')
        response.setHeader('content-type', 'application/json').end(JSON.stringify({ ...known, access_token: token }))
      else if (url !== '/mcp') response.writeHead(404).end()
      else if (headers.authorization !== `Bearer ${token}`) response.writeHead(401).end()
      else await handle()
    },
    {
      authProvider: {
        redirectUrl: 'http://localhost/',
        clientMetadata: { redirect_uris: [] },
        clientInformation: () => ({ client_id: 'test' }),
        tokens: () => known,
        saveTokens: (tokens) => {
          known = tokens
        },
        redirectToAuthorization: () => undefined,
        saveCodeVerifier: () => undefined,
        codeVerifier: () => '',
      },
    },
  )
  token = 'second'
  const result = await client.callTool({ name: 'add', arguments: { a: 1, b: 2 } })
  expect(result.content).toEqual([{ type: 'text', text: '3' }])
  const called = exporter
    .getFinishedSpans()
    .filter((span) => span.kind === SpanKind.CLIENT && span.name.endsWith('add'))
  expect(called.map(({ attributes }) => attributes['error.type'])).toEqual([undefined])
  const served = spanOf(SpanKind.SERVER, 'tools/call add')
  expect(served?.parentSpanContext?.spanId).toBe(called[0]?.spanContext().spanId)
})

test('mcp: a tool that fails, a method that is none, a call that is given up, and a connection that ends', async () => {
  const { client } = await connectHttp()
  expect((await client.callTool({ name: 'fail' })).isError).toBe(true)
  await expect(client.getPrompt({ name: 'none' })).rejects.toThrow()
  await expect(client.callTool({ name: 'hang' }, undefined, { timeout: 50 })).rejects.toThrow('timed out')
  const hanging = client.callTool({ name: 'hang' })
  const failed = expect(hanging).rejects.toThrow()
  await client.close()
  await failed
  const errorOf = (name: string): unknown[] =>
    exporter
      .getFinishedSpans()
      .filter((span) => span.kind === SpanKind.CLIENT && span.name === name)
      .map(({ attributes }) => attributes['error.type'])
  expect(errorOf('tools/call fail')).toEqual(['tool_error'])
  expect(errorOf('prompts/get none')).toEqual(['-32601'])
  expect(errorOf('tools/call hang')).toEqual(['cancelled', 'connection_closed'])
})

test('mcp: requests that come with one id leave no span open', async () => {
  const [near, far] = InMemoryTransport.createLinkedPair()
  const server = observeMcp(new McpServer({ name: 'files', version: '1.0.0' }))
  addTools(server)
  await server.connect(far)
  await near.start()
  for (let sent = 0; sent < 3; sent++)
    await near.send({ jsonrpc: '2.0', id: 1, method: 'tools/call', params: { name: 'hang' } })
  await near.close()
  const spans = exporter.getFinishedSpans().filter(({ name }) => name === 'tools/call hang')
  expect(spans.map(({ attributes }) => attributes['error.type'])).toEqual(['lost', 'lost', 'connection_closed'])
})

type Received = {
  readonly name: string
  readonly traceId: string
  readonly links?: readonly { readonly traceId: string }[]
}

test.each(['parent', 'link'] as const)(
  'mcp: over stdio a server that says nothing of it has spans, with its client’s as %s',
  async (mode) => {
    const received: Received[] = []
    const url = await listening(stack, async (request, response) => {
      const body = (await json(request.pipe(createGunzip()))) as {
        readonly resourceSpans?: readonly { readonly scopeSpans: readonly { readonly spans: typeof received }[] }[]
      }
      for (const { scopeSpans } of body.resourceSpans ?? []) for (const { spans } of scopeSpans) received.push(...spans)
      response.setHeader('content-type', 'application/json').end('{}')
    })
    const register = fileURLToPath(new URL('../register.ts', import.meta.url))
    const program = fileURLToPath(new URL('fixtures/tool-server.ts', import.meta.url))
    const client = observeMcp(new Client({ name: 'test', version: '1.0.0' }))
    const transport = new StdioClientTransport({
      command: process.execPath,
      args: ['--disable-warning=ExperimentalWarning', '--import', register, program],
      env: { OTEL_EXPORTER_OTLP_ENDPOINT: url, OTEL_EXPORTER_OTLP_PROTOCOL: 'http/json', TALLYLIGHT_MCP: mode },
      stderr: 'ignore',
    })
    await client.connect(transport)
    await client.callTool({ name: 'add', arguments: { a: 1, b: 2 } })
    const called = spanOf(SpanKind.CLIENT, 'tools/call add')
    expect(called?.attributes['network.transport']).toBe('pipe')
    await client.close()
    await vi.waitFor(() => expect(received.map(({ name }) => name)).toContain('tools/call add'), { timeout: 20_000 })
    const served = received.find(({ name }) => name === 'tools/call add')
    const { traceId } = called?.spanContext() ?? {}
    expect(served?.traceId === traceId).toBe(mode === 'parent')
    expect(served?.links?.map((link) => link.traceId) ?? []).toEqual(mode === 'link' ? [traceId] : [])
  },
)
