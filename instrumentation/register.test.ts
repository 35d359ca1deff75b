// `register` as users run it: a process with `--import`, a provider and an OTLP receiver over real sockets.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { json, text } from 'node:stream/consumers'
import { fileURLToPath } from 'node:url'
import { createGunzip } from 'node:zlib'
import { afterEach, expect, test } from 'vitest'
import { listening } from './hooks/fixtures/listening.ts'
import { startProvider } from './hooks/fixtures/provider.ts'
import { limits } from './limits.ts'
import { version } from './version.ts'

const recorded = readFileSync(new URL('providers/fixtures/openai-chat.sse', import.meta.url))

let stack = new AsyncDisposableStack()
afterEach(async () => {
  await stack.disposeAsync()
  stack = new AsyncDisposableStack()
})

type Span = {
  readonly traceId: string
  readonly name: string
  readonly attributes: readonly { readonly key: string; readonly value: Readonly<Record<string, unknown>> }[]
}
type Received = { readonly url: string; readonly spans: Span[]; readonly metrics: string[]; readonly keys: Set<string> }

async function startReceiver(): Promise<Received> {
  const received = { spans: [] as Span[], metrics: [] as string[], keys: new Set<string>() }
  const url = await listening(stack, async (request, response) => {
    const body = (await json(request.pipe(createGunzip()))) as {
      readonly resourceSpans?: readonly { readonly scopeSpans: readonly { readonly spans: readonly Span[] }[] }[]
      readonly resourceMetrics?: readonly {
        readonly scopeMetrics: readonly { readonly metrics: readonly { readonly name: string }[] }[]
      }[]
    }
    received.keys.add(request.headers.authorization ?? '')
    for (const { scopeSpans } of body.resourceSpans ?? [])
      received.spans.push(...scopeSpans.flatMap(({ spans }) => spans))
    for (const { scopeMetrics } of body.resourceMetrics ?? [])
      received.metrics.push(...scopeMetrics.flatMap(({ metrics }) => metrics.map(({ name }) => name)))
    response.setHeader('content-type', 'application/json').end('{}')
  })
  return { ...received, url }
}

type Ran = {
  readonly code: unknown
  readonly said: readonly string[]
  readonly output: string
  readonly seconds: number
}

async function run(
  mode: string,
  provider: string,
  environment: Readonly<Record<string, string>>,
  isRead = true,
): Promise<Ran> {
  const register = fileURLToPath(new URL('register.ts', import.meta.url))
  const service = fileURLToPath(new URL('fixtures/service.ts', import.meta.url))
  const startedMs = performance.now()
  const child = spawn(process.execPath, ['--import', register, service, mode, `${provider}/v1`], {
    env: { PATH: process.env.PATH ?? '', OPENAI_BASE_URL: `${provider}/v1`, ...environment },
  })
  if (!isRead) child.stderr.destroy()
  const read = isRead ? text(child.stderr) : ''
  const [said, output, [code]] = await Promise.all([read, text(child.stdout), once(child, 'exit')])
  const lines = said.split('\n').filter((line) => line !== '' && !/Warning|node --trace/.test(line))
  return { code, said: lines, output, seconds: (performance.now() - startedMs) / 1000 }
}

function valuesOf(span: Span | undefined): Readonly<Record<string, unknown>> {
  const first = (value: Readonly<Record<string, unknown>>): unknown => Object.values(value)[0]
  return Object.fromEntries((span?.attributes ?? []).map(({ key, value }) => [key, first(value)]))
}

async function startModel(): Promise<string> {
  const provider = await startProvider((body) =>
    body.includes('"stream":true')
      ? { headers: { 'content-type': 'text/event-stream' }, pieces: [recorded] }
      : {
          headers: { 'content-type': 'application/json' },
          pieces: [
            '{"id":"c1","model":"gpt-4o","choices":[{"index":0,"message":{"content":"Hi"},"finish_reason":"stop"}],"usage":{"prompt_tokens":9,"completion_tokens":2}}',
          ],
        },
  )
  stack.use(provider)
  return provider.url
}

test('register: a service without a word about telemetry has a span per call, with usage, and its metrics', async () => {
  const receiver = await startReceiver()
  const provider = await startModel()
  const ran = await run('calls', provider, {
    OTEL_EXPORTER_OTLP_ENDPOINT: receiver.url,
    OTEL_EXPORTER_OTLP_PROTOCOL: 'http/json',
    TALLYLIGHT_KEY: 'tl_test',
    TALLYLIGHT_CONTENT: 'full',
  })
  expect(ran).toMatchObject({ code: 0, output: '' })
  expect(ran.said).toEqual([
    `tallylight: watching fetch, undici, node:http, http2 and WebSocket for calls of models; spans go to the service's own tracer provider, else to ${receiver.url}/v1/traces; content full, quota off`,
  ])
  expect(receiver.keys).toEqual(new Set(['Bearer tl_test']))
  expect(receiver.spans.map(({ name }) => name)).toEqual(['chat gpt-4o', 'chat gpt-4o'])
  const [whole, stream] = receiver.spans.map(valuesOf)
  expect(whole).toMatchObject({
    'gen_ai.operation.name': 'chat',
    'gen_ai.provider.name': 'openai',
    'gen_ai.request.model': 'gpt-4o',
    'gen_ai.request.max_tokens': 20,
    'gen_ai.response.id': 'c1',
    'gen_ai.usage.input_tokens': 9,
    'gen_ai.usage.output_tokens': 2,
    'gen_ai.input.messages': '[{"role":"user","parts":[{"type":"text","content":"Hi"}]}]',
    'gen_ai.output.messages': '[{"role":"assistant","parts":[{"type":"text","content":"Hi"}],"finish_reason":"stop"}]',
    'server.address': '127.0.0.1',
    'tallylight.attempt': 1,
    'tallylight.usage.source': 'provider',
  })
  expect(stream).toMatchObject({
    'gen_ai.request.stream': true,
    'gen_ai.usage.input_tokens': 1200,
    'gen_ai.usage.cache_read.input_tokens': 1024,
    'gen_ai.usage.output_tokens': 300,
    'gen_ai.usage.reasoning.output_tokens': 192,
  })
  expect(stream?.['gen_ai.response.time_to_first_chunk']).toBeGreaterThan(0)
  expect(receiver.metrics.toSorted()).toEqual(['gen_ai.client.operation.duration', 'gen_ai.client.token.usage'])
})

test.each(['worker', 'fork'])('register: works once per thread and process: %s', async (mode) => {
  const receiver = await startReceiver()
  const ran = await run(mode, await startModel(), {
    OTEL_EXPORTER_OTLP_ENDPOINT: receiver.url,
    OTEL_EXPORTER_OTLP_PROTOCOL: 'http/json',
  })
  expect(ran.code).toBe(0)
  expect(ran.said).toHaveLength(2)
  expect(receiver.spans).toHaveLength(3)
  const all = receiver.spans.map(valuesOf)
  expect(all.some((values) => 'gen_ai.input.messages' in values)).toBe(false)
})

test('register: the first request of a process is in the trace that it came with', async () => {
  const receiver = await startReceiver()
  const ran = await run('first', await startModel(), {
    OTEL_EXPORTER_OTLP_ENDPOINT: receiver.url,
    OTEL_EXPORTER_OTLP_PROTOCOL: 'http/json',
  })
  expect(ran.code).toBe(0)
  expect(receiver.spans.map(({ name }) => name)).toEqual(['chat gpt-4o', 'turn'])
  for (const span of receiver.spans) {
    expect(span.traceId).toBe('0af7651916cd43dd8448eb211c80319c')
    expect(valuesOf(span)).toMatchObject({ 'user.id': 'ada' })
  }
})

test('register: what a service calls when it was emptied out is sent, and its end comes all the same', async () => {
  const receiver = await startReceiver()
  const ran = await run('emptied', await startModel(), {
    OTEL_EXPORTER_OTLP_ENDPOINT: receiver.url,
    OTEL_EXPORTER_OTLP_PROTOCOL: 'http/json',
  })
  expect(ran.code).toBe(0)
  expect(receiver.spans).toHaveLength(2)
})

test('register: a call that waits for a lease to be given back keeps its process, which is not emptied out in the middle', async () => {
  const asked: string[] = []
  const quota = await listening(stack, async (request, response) => {
    const body = (await json(request)) as { readonly estimate?: { readonly outputTokensMax: number } }
    const isTooMuch = (body.estimate?.outputTokensMax ?? 0) > 1_000
    asked.push(`${request.url?.split('/').at(-1)}${isTooMuch ? ' too much' : ''}`)
    const granted = { id: 'r', holds: [], expiresAt: new Date(Date.now() + limits.quotaHoldMs).toISOString() }
    const answer = (): void => {
      response.writeHead(isTooMuch ? 429 : 201).end(JSON.stringify(isTooMuch ? { detail: 'no room' } : granted))
    }
    // Long enough for a process that nothing keeps to be emptied out.
    if (asked.at(-1) === 'settle') setTimeout(answer, 100)
    else answer()
  })
  const receiver = await startReceiver()
  const ran = await run('leased', await startModel(), {
    OTEL_EXPORTER_OTLP_ENDPOINT: receiver.url,
    OTEL_EXPORTER_OTLP_PROTOCOL: 'http/json',
    TALLYLIGHT_QUOTA: 'enforce',
    TALLYLIGHT_URL: quota,
  })
  expect(ran.code).toBe(0)
  expect(asked.filter((each) => each.endsWith('too much'))).toHaveLength(2)
  expect(ran.output).not.toContain('in the middle')
  expect(receiver.spans).toHaveLength(7)
})

test('register: a tracer provider that the service sets is joined, and no second one is started', async () => {
  const ran = await run('own', await startModel(), {})
  expect(ran.code).toBe(0)
  expect(JSON.parse(ran.output)).toEqual({
    names: ['@tallylight/instrumentation: chat gpt-4o'],
    meters: 'NoopMeterProvider',
  })
})

test('register: an unreachable collector costs the service one line, and not its end', async () => {
  const provider = await startModel()
  const plain = await run('calls', provider, { OTEL_SDK_DISABLED: 'true' })
  const ran = await run('calls', provider, {
    OTEL_EXPORTER_OTLP_ENDPOINT: 'http://127.0.0.1:9',
    TALLYLIGHT_CONTENT: 'all',
  })
  expect(ran.code).toBe(0)
  expect(ran.said).toHaveLength(3)
  expect(ran.said[0]).toMatch('TALLYLIGHT_CONTENT may be off, metadata, full')
  expect(ran.said[2]).toMatch('2 calls were seen, and none of 2 spans could be sent to http://127.0.0.1:9/v1/traces')
  // Tries go on for half a minute, and its end waits for none of them.
  expect(ran.seconds - plain.seconds).toBeLessThan(limits.exportTimeoutMs / 1000)
})

test('register: a quota service that is observed and hangs holds up the end no longer than what waits to be sent does', async () => {
  const held: Promise<number>[] = []
  const quota = await listening(stack, (_request, response) => {
    const cameMs = performance.now()
    held.push(once(response, 'close').then(() => performance.now() - cameMs))
  })
  const ran = await run('calls', await startModel(), {
    OTEL_SDK_DISABLED: 'true',
    TALLYLIGHT_QUOTA: 'observe',
    TALLYLIGHT_URL: quota,
  })
  expect(ran).toMatchObject({ code: 0, output: '' })
  expect(held).toHaveLength(2)
  // By its end, and not by the time-out of the request.
  expect(await held[1]).toBeLessThan(limits.quotaTimeoutMs - 100)
})

test('register: a key with the line break of its file is the key, and a batch of no size is of the usual one', async () => {
  const receiver = await startReceiver()
  const ran = await run('calls', await startModel(), {
    OTEL_EXPORTER_OTLP_ENDPOINT: receiver.url,
    OTEL_EXPORTER_OTLP_PROTOCOL: 'http/json',
    OTEL_BSP_MAX_EXPORT_BATCH_SIZE: '-1',
    TALLYLIGHT_KEY: 'tl_test\n',
  })
  expect(ran.code).toBe(0)
  expect(receiver.spans).toHaveLength(2)
  expect(receiver.keys).toEqual(new Set(['Bearer tl_test']))
})

test.each([
  ['an address without a scheme', { OTEL_EXPORTER_OTLP_ENDPOINT: 'localhost:4318' }],
  ['an address that none is', { OTEL_EXPORTER_OTLP_ENDPOINT: 'nowhere at all' }],
  ['a scheme that is not spoken', { OTEL_EXPORTER_OTLP_ENDPOINT: 'ftp://127.0.0.1' }],
  ['a header that no request can carry', { OTEL_EXPORTER_OTLP_HEADERS: 'x y=z' }],
  ['gRPC and no address', { OTEL_EXPORTER_OTLP_ENDPOINT: 'no where', OTEL_EXPORTER_OTLP_PROTOCOL: 'grpc' }],
  ['somebody else’s port', {}],
])('register: %s costs the service one line, and neither its calls nor its process', async (_, environment) => {
  const page = await startProvider({ headers: { 'content-type': 'text/html' }, pieces: ['<html>'] })
  stack.use(page)
  const ran = await run('calls', await startModel(), {
    OTEL_EXPORTER_OTLP_ENDPOINT: page.url,
    // Between two calls, when nothing waits for what becomes of it.
    OTEL_BSP_SCHEDULE_DELAY: '1',
    ...environment,
  })
  expect(ran).toMatchObject({ code: 0, output: '' })
  // Of gRPC it is found out when it is started. By ours: OpenTelemetry's exporters would keep the process for long.
  const why = 'OTEL_EXPORTER_OTLP_PROTOCOL' in environment ? 'nothing can' : 'spans could'
  expect(ran.said.map((line) => /(watching|nothing can|spans could) /.exec(line)?.[1])).toEqual(['watching', why])
})

test('register: a stderr that nobody reads is no reason to end', async () => {
  const ran = await run('calls', await startModel(), { OTEL_EXPORTER_OTLP_ENDPOINT: 'http://127.0.0.1:9' }, false)
  expect(ran).toMatchObject({ code: 0, output: '' })
})

test('register: on a Node too old for us a service runs as it would without us, and one line says why', async () => {
  const provider = await startModel()
  const older = `data:text/javascript,Object.defineProperty(process,'versions',{value:{...process.versions,node:'22.14.0'}})`
  const ran = await run('calls', provider, { NODE_OPTIONS: `--import=${older}` })
  expect(ran).toMatchObject({ code: 0, output: '' })
  expect(ran.said).toEqual([
    expect.stringMatching(/^tallylight: nothing is watched .* needs Node 22\.15 or newer, this is 22\.14\.0$/),
  ])
})

test('register: the version is that of the manifest', () => {
  const manifest = JSON.parse(readFileSync(new URL('package.json', import.meta.url), 'utf8'))
  expect(version).toBe(manifest.version)
})
