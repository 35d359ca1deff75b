// The measured process of the benchmark of the instrumentation: calls a model over one transport, as often as it is told to, and says
// what that cost it. CPU is that of all its threads, with the collection of garbage and the sending of what was recorded.
import http from 'node:http'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import {
  type Attributes,
  type Meter,
  type MeterProvider,
  metrics,
  SpanKind,
  type Tracer,
  type TracerProvider,
  trace,
} from '@opentelemetry/api'
import { openCallMetrics } from '@tallylight/instrumentation/calls/call-metrics.ts'
import { openCounters } from '@tallylight/instrumentation/counters.ts'
import { openExport } from '@tallylight/instrumentation/export.ts'
import { instrument } from '@tallylight/instrumentation/instrument.ts'
import { readSettings } from '@tallylight/instrumentation/settings.ts'
import type OpenAI from 'openai'
import { Agent, request } from 'undici'

/** `spans`: no hooks, and by hand one span and three points of metrics per call, sent as ours are: what OpenTelemetry alone costs. */
export type Variant = 'none' | 'tallylight' | 'spans' | 'opentelemetry' | 'openllmetry'
export type Transport = 'fetch' | 'undici' | 'http' | 'openai'
export type ServiceOptions = {
  readonly variant: Variant
  readonly transport: Transport
  readonly url: string
  readonly content: 'off' | 'metadata' | 'full'
  /** A directory with `openai` and the packages of others in its node_modules. */
  readonly rivals: string
}
export type Order = {
  readonly count: number
  readonly parallel: number
  readonly isStream: boolean
  readonly pace: 'event' | 'burst'
  readonly requestBytes: number
  /** Whether the caller asks for usage itself; else we do, and take it out of what it reads. */
  readonly asksForUsage: boolean
}
export type Done = {
  readonly cpuMicros: number
  readonly chunks: number
  readonly bytes: number
  readonly firstByteMs: readonly number[]
}

type Caller = (order: Order) => Promise<{ readonly chunks: number; readonly bytes: number; readonly firstMs: number }>
type Watching = { flush(): Promise<void>; around(work: () => Promise<void>): Promise<void> }

const options: ServiceOptions = JSON.parse(process.argv[2] ?? '{}')
const path = `${options.url}/v1/chat/completions`
const requireRival = createRequire(join(options.rivals || import.meta.dirname, 'node_modules', 'x'))

const watching = await watch(options)
const call = await callerOf(options.transport)
process.on('message', (order: Order) => {
  work(order).then(
    (done) => process.send?.(done),
    (error: unknown) => {
      console.error(error)
      process.exit(1)
    },
  )
})
process.once('disconnect', () => process.exit())
process.send?.('ready')

async function work(order: Order): Promise<Done> {
  const firstByteMs: number[] = []
  let left = order.count
  let chunks = 0
  let bytes = 0
  const before = process.cpuUsage()
  const one = async (): Promise<void> => {
    const read = await call(order)
    chunks += read.chunks
    bytes += read.bytes
    firstByteMs.push(read.firstMs)
  }
  const worker = async (): Promise<void> => {
    while (left-- > 0) await watching.around(one)
  }
  await Promise.all(Array.from({ length: order.parallel }, worker))
  await watching.flush()
  const { user, system } = process.cpuUsage(before)
  return { cpuMicros: user + system, chunks, bytes, firstByteMs }
}

async function watch({ variant, content, url }: ServiceOptions): Promise<Watching> {
  const plain: Watching = { flush: async () => undefined, around: (work) => work() }
  const environment = { OTEL_EXPORTER_OTLP_ENDPOINT: `${url}/otlp`, OPENAI_BASE_URL: `${url}/v1` }
  if (variant === 'none') return plain
  if (variant === 'tallylight') {
    const { flush } = instrument({
      environment,
      content,
      baseUrls: [{ url, provider: 'openai', takesUsageOption: true }],
    })
    return { ...plain, flush }
  }
  const counters = openCounters((line) => console.error(line))
  const exporter = openExport({ settings: readSettings(environment).settings, environment, counters })
  exporter.start()
  if (variant === 'spans')
    return { flush: exporter.flush, around: byHand(exporter.tracer(), exporter.meter(), new URL(url)) }
  enableRival(variant)
  return { ...plain, flush: exporter.flush }
}

function byHand(tracer: Tracer, meter: Meter, url: URL): Watching['around'] {
  const callMetrics = openCallMetrics(meter)
  const described: Attributes = {
    'gen_ai.operation.name': 'chat',
    'gen_ai.provider.name': 'openai',
    'gen_ai.request.model': 'gpt-4o',
    'server.address': url.hostname,
    'server.port': Number(url.port),
  }
  const usage = { inputTokens: 200, outputTokens: 200 }
  return async (work) => {
    const startedMs = performance.now()
    const request = { 'tallylight.attempt': 1, 'gen_ai.request.max_tokens': 256, 'gen_ai.request.temperature': 0.2 }
    const span = tracer.startSpan('chat gpt-4o', {
      kind: SpanKind.CLIENT,
      attributes: { ...described, ...request },
    })
    await work()
    span.setAttributes({
      'gen_ai.usage.input_tokens': 200,
      'gen_ai.usage.output_tokens': 200,
      'gen_ai.usage.cache_read.input_tokens': 0,
      'gen_ai.usage.reasoning.output_tokens': 0,
      'tallylight.usage.source': 'provider',
      'gen_ai.response.id': `chatcmpl-${startedMs}`,
      'gen_ai.response.model': 'gpt-4o-2024-08-06',
      'gen_ai.response.finish_reasons': ['stop'],
    })
    callMetrics.record(
      { ...described, 'gen_ai.response.model': 'gpt-4o-2024-08-06' },
      (performance.now() - startedMs) / 1000,
      usage,
    )
    span.end()
  }
}

type Rival = {
  setTracerProvider(provider: TracerProvider): void
  setMeterProvider(provider: MeterProvider): void
  enable(): void
}

/** With their usual settings, into the tracer provider that ours would use. */
function enableRival(variant: 'opentelemetry' | 'openllmetry'): void {
  const name =
    variant === 'opentelemetry' ? '@opentelemetry/instrumentation-openai' : '@traceloop/instrumentation-openai'
  const { OpenAIInstrumentation }: { readonly OpenAIInstrumentation: new () => Rival } = requireRival(name)
  const rival = new OpenAIInstrumentation()
  rival.setTracerProvider(trace.getTracerProvider())
  rival.setMeterProvider(metrics.getMeterProvider())
  rival.enable()
}

function bodyOf({ isStream, requestBytes, asksForUsage }: Order) {
  return {
    model: 'gpt-4o',
    max_tokens: 256,
    temperature: 0.2,
    ...(isStream ? { stream: true as const } : {}),
    ...(isStream && asksForUsage ? { stream_options: { include_usage: true } } : {}),
    messages: [
      { role: 'system' as const, content: 'You are a helpful assistant.' },
      ...Array.from({ length: Math.ceil(requestBytes / 512) }, (_, at) => ({
        role: at % 2 === 0 ? ('user' as const) : ('assistant' as const),
        content: `${at} ${'A sentence that was said before. '.repeat(14)}`,
      })),
    ],
  }
}

/** Written once: what a service does to make its request is no part of what is measured. */
const bodies = new Map<string, string>()
function textOf(order: Order): string {
  const key = `${order.isStream} ${order.asksForUsage} ${order.requestBytes}`
  const body = bodies.get(key) ?? JSON.stringify(bodyOf(order))
  bodies.set(key, body)
  return body
}

async function callerOf(transport: Transport): Promise<Caller> {
  switch (transport) {
    case 'fetch':
      return overFetch
    case 'undici':
      return overUndici(new Agent({ connections: 64 }))
    case 'http':
      return overHttp(new http.Agent({ keepAlive: true }))
    case 'openai': {
      const Client: typeof OpenAI =
        options.rivals === '' ? (await import('openai')).default : requireRival('openai').OpenAI
      return overSdk(new Client({ apiKey: 'none', baseURL: `${options.url}/v1` }))
    }
    default:
      return transport satisfies never
  }
}

const headersOf = (order: Order) => ({ 'content-type': 'application/json', 'x-bench-pace': order.pace })

async function overFetch(order: Order) {
  const startedMs = performance.now()
  const response = await fetch(path, { method: 'POST', headers: headersOf(order), body: textOf(order) })
  return await counted(response.body as AsyncIterable<Uint8Array>, startedMs)
}

function overUndici(dispatcher: Agent): Caller {
  return async (order) => {
    const startedMs = performance.now()
    const { body } = await request(path, { method: 'POST', headers: headersOf(order), body: textOf(order), dispatcher })
    return await counted(body, startedMs)
  }
}

function overHttp(agent: http.Agent): Caller {
  return async (order) => {
    const startedMs = performance.now()
    const { promise, resolve, reject } = Promise.withResolvers<http.IncomingMessage>()
    const sent = http.request(path, { method: 'POST', agent, headers: headersOf(order) }, resolve)
    sent.once('error', reject)
    sent.end(textOf(order))
    return await counted(await promise, startedMs)
  }
}

async function counted(body: AsyncIterable<Uint8Array>, startedMs: number) {
  let chunks = 0
  let bytes = 0
  let firstMs = 0
  for await (const piece of body) {
    if (chunks++ === 0) firstMs = performance.now() - startedMs
    bytes += piece.length
  }
  return { chunks, bytes, firstMs }
}

function overSdk(client: OpenAI): Caller {
  return async (order) => {
    const startedMs = performance.now()
    const headers = { 'x-bench-pace': order.pace }
    const body = bodyOf(order)
    if (body.stream === undefined) {
      const { choices } = await client.chat.completions.create({ ...body, stream: false }, { headers })
      return { chunks: 1, bytes: choices[0]?.message.content?.length ?? 0, firstMs: performance.now() - startedMs }
    }
    let chunks = 0
    let bytes = 0
    let firstMs = 0
    for await (const { choices } of await client.chat.completions.create({ ...body, stream: true }, { headers })) {
      if (chunks++ === 0) firstMs = performance.now() - startedMs
      bytes += choices[0]?.delta.content?.length ?? 0
    }
    return { chunks, bytes, firstMs }
  }
}
