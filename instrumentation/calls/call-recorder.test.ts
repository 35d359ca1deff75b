import { SpanStatusCode } from '@opentelemetry/api'
import {
  AggregationTemporality,
  InMemoryMetricExporter,
  MeterProvider,
  PeriodicExportingMetricReader,
} from '@opentelemetry/sdk-metrics'
import { InMemorySpanExporter, type ReadableSpan, SimpleSpanProcessor, TracerProvider } from '@opentelemetry/sdk-trace'
import { describe, expect, test } from 'vitest'
import { openCounters } from '../counters.ts'
import type { CallEnd, CallStart } from '../hooks/exchange.ts'
import { limits } from '../limits.ts'
import type { CallReply, Endpoint } from '../providers/call.ts'
import { readRequest } from '../providers/request.ts'
import type { ContentPolicy } from '../settings.ts'
import { openCallMetrics } from './call-metrics.ts'
import { openCallRecorder } from './call-recorder.ts'
import { openContentAttributes, type Redact } from './content-attributes.ts'

const endpoint: Endpoint = {
  api: 'openai.chat',
  provider: 'groq',
  model: '',
  isStream: undefined,
  takesUsageOption: true,
}
const body = {
  model: 'llama',
  stream: true,
  messages: [{ role: 'user', content: 'secret' }],
  tools: [{ type: 'function', function: { name: 'find', description: 'long' } }],
}
const reply: CallReply = {
  id: 'r1',
  model: 'llama-3',
  finishReasons: ['tool_call'],
  messages: [
    {
      role: 'assistant',
      parts: [{ type: 'tool_call', id: 't', name: 'find', arguments: { q: 'secret' } }],
      finish_reason: 'tool_call',
    },
  ],
  toolCalls: [{ id: 't', name: 'find' }],
  usage: { inputTokens: 10, cacheWriteTokens: 4, cacheWrite1hTokens: 1, webSearches: 2, outputTokens: 3 },
  usageSource: 'provider',
  outputChars: 12,
  failure: undefined,
  isComplete: true,
  isContentCut: false,
  brokenEvents: 0,
}

function setUp(
  policy: ContentPolicy = 'metadata',
  redact?: Redact,
  request: object = body,
  api: Endpoint['api'] = 'openai.chat',
) {
  const spans = new InMemorySpanExporter()
  const tracers = new TracerProvider({ spanProcessors: [new SimpleSpanProcessor({ exporter: spans })] })
  const exported = new InMemoryMetricExporter(AggregationTemporality.CUMULATIVE)
  const reader = new PeriodicExportingMetricReader({ exporter: exported, exportIntervalMillis: 3_600_000 })
  const meters = new MeterProvider({ readers: [reader] })
  const counters = openCounters(() => undefined)
  const metrics = openCallMetrics(meters.getMeter('test'))
  let nowMs = 1_000
  const recorder = openCallRecorder({
    tracer: () => tracers.getTracer('test'),
    metrics: () => metrics,
    content: openContentAttributes(policy, redact, counters),
    tools: undefined,
    counters,
    gate: undefined,
    keepsContent: policy === 'full',
    nowMs: () => nowMs,
  })
  const start: CallStart = {
    endpoint,
    request: readRequest({ ...endpoint, api }, JSON.stringify(request)).request,
    url: new URL('https://api.groq.com/openai/v1/chat/completions'),
    requestBytes: 100,
    attempt: 2,
    transport: 'fetch',
  }
  const call = recorder.startCall(start)
  return {
    counters,
    finished: () => spans.getFinishedSpans().length,
    end(end: Partial<CallEnd>): ReadableSpan {
      nowMs += 250
      call.begun()
      nowMs += 250
      call.finish({ ending: 'complete', status: 200, reply, error: undefined, ...end })
      const [span] = spans.getFinishedSpans()
      if (span === undefined) throw new Error('no span ended')
      return span
    },
    async metrics() {
      await reader.forceFlush()
      const points = exported.getMetrics().flatMap(({ scopeMetrics }) => scopeMetrics.flatMap((scope) => scope.metrics))
      await meters.shutdown()
      return points.map(({ descriptor, dataPoints }) => [descriptor.name, dataPoints] as const)
    },
  }
}

describe('call', () => {
  test('is a client span with what was asked, answered and counted, and two metrics', async () => {
    const { end, metrics } = setUp()
    const span = end({})
    expect(span.name).toBe('chat llama')
    expect(span.status.code).toBe(SpanStatusCode.UNSET)
    expect(span.attributes).toEqual({
      'gen_ai.operation.name': 'chat',
      'gen_ai.provider.name': 'groq',
      'gen_ai.request.model': 'llama',
      'gen_ai.request.stream': true,
      'gen_ai.response.id': 'r1',
      'gen_ai.response.model': 'llama-3',
      'gen_ai.response.finish_reasons': ['tool_call'],
      'gen_ai.response.time_to_first_chunk': 0.25,
      'gen_ai.usage.input_tokens': 10,
      'gen_ai.usage.cache_write.input_tokens': 4,
      'anthropic.usage.cache_creation.ephemeral_1h_input_tokens': 1,
      'gen_ai.usage.web_searches': 2,
      'gen_ai.usage.output_tokens': 3,
      'gen_ai.tool.definitions': '[{"type":"function","name":"find"}]',
      'gen_ai.output.messages':
        '[{"role":"assistant","parts":[{"type":"tool_call","id":"","name":"find"}],"finish_reason":"tool_call"}]',
      'server.address': 'api.groq.com',
      'server.port': 443,
      'tallylight.attempt': 2,
      'tallylight.usage.source': 'provider',
    })
    const [duration, tokens] = await metrics()
    const described = { 'gen_ai.provider.name': 'groq', 'gen_ai.response.model': 'llama-3' }
    expect(duration).toMatchObject([
      'gen_ai.client.operation.duration',
      [{ attributes: described, value: { sum: 0.5 } }],
    ])
    expect(tokens).toMatchObject([
      'gen_ai.client.token.usage',
      [
        { attributes: { ...described, 'gen_ai.token.type': 'input' }, value: { sum: 10 } },
        { attributes: { 'gen_ai.token.type': 'output' }, value: { sum: 3 } },
      ],
    ])
  })

  const timeout = new DOMException('late', 'TimeoutError')
  const refused = new TypeError('fetch failed', { cause: Object.assign(new Error('x'), { code: 'ECONNREFUSED' }) })
  const failure = { type: 'overloaded_error', message: 'said by the provider' }
  const endings: readonly (readonly [string, Partial<CallEnd>, string | undefined, string | undefined])[] = [
    ['left', { ending: 'left' }, undefined, 'left'],
    ['never read', { ending: 'unread' }, undefined, 'unread'],
    [
      'stopped by its caller',
      { ending: 'aborted', error: new DOMException('stop', 'AbortError') },
      undefined,
      'aborted',
    ],
    ['late', { ending: 'aborted', error: timeout }, 'TimeoutError', 'aborted'],
    ['never connected', { ending: 'cut', reply: undefined, status: 0, error: refused }, 'ECONNREFUSED', 'cut'],
    ['cut', { ending: 'cut', error: new TypeError('terminated') }, 'cut', 'cut'],
    ['failed by the provider', { reply: { ...reply, failure }, status: 529 }, 'overloaded_error', undefined],
    ['denied', { ending: 'denied', reply: undefined, status: 0, error: new Error('quota') }, 'denied', 'denied'],
  ]
  test.each(endings)('that is %s says so', (_, end, errorType, ending) => {
    const span = setUp().end(end)
    expect(span.attributes['error.type']).toBe(errorType)
    expect(span.attributes['tallylight.ending']).toBe(ending)
    expect(span.status.code).toBe(errorType === undefined ? SpanStatusCode.UNSET : SpanStatusCode.ERROR)
    expect(JSON.stringify(span.attributes)).not.toContain('said by')
  })

  test('says nothing of content by policy, and what redaction leaves', () => {
    expect(JSON.stringify(setUp('off').end({}).attributes)).not.toMatch(/secret|messages|definitions/)
    expect(JSON.stringify(setUp('metadata').end({}).attributes)).not.toContain('secret')
    const full = setUp('full').end({}).attributes
    expect(full['gen_ai.input.messages']).toContain('secret')
    expect(full['gen_ai.output.messages']).toContain('secret')
    const redacted = setUp('full', (text) => text.replaceAll('secret', '***')).end({}).attributes
    expect(JSON.stringify(redacted)).not.toContain('secret')
    expect(redacted['gen_ai.input.messages']).toContain('***')
  })

  test('in the background is counted as unmetered, but for one that streams', () => {
    const background = (stream: boolean): number => {
      const { counters } = setUp('off', undefined, { model: 'o', background: true, stream }, 'openai.responses')
      return counters.read().unmetered
    }
    expect([background(false), background(true)]).toEqual([1, 0])
  })

  test('content that is too long is left out whole and counted; numbers stay', () => {
    const content = 'x'.repeat(limits.contentAttributeCharsMax)
    const { end, counters } = setUp('full', undefined, { ...body, messages: [{ role: 'user', content }] })
    const { attributes } = end({})
    expect(attributes['gen_ai.input.messages']).toBe(undefined)
    expect(attributes['gen_ai.usage.input_tokens']).toBe(10)
    expect(counters.read().contentDropped).toBe(1)
  })

  test('content that the service’s redaction throws on, or makes no text of, is left out and counted; numbers stay', () => {
    const answers: readonly Redact[] = [
      () => {
        throw new Error('redaction failed')
      },
      () => JSON.parse('null') as string,
    ]
    for (const redact of answers) {
      const { end, counters } = setUp('full', redact)
      const { attributes } = end({})
      expect(attributes).not.toHaveProperty(['gen_ai.input.messages'])
      expect(attributes).not.toHaveProperty(['gen_ai.output.messages'])
      expect(attributes['gen_ai.usage.input_tokens']).toBe(10)
      expect(counters.read().contentDropped).toBeGreaterThan(1)
    }
  })

  test('ends its span also when a part of ours throws', () => {
    const { end, finished } = setUp('full')
    const broken: CallReply = {
      ...reply,
      get messages(): CallReply['messages'] {
        throw new Error('a part of ours')
      },
    }
    expect(() => end({ reply: broken })).toThrow('a part of ours')
    expect(finished()).toBe(1)
  })
})
