// What is told by programs that nobody checked.
import { trace } from '@opentelemetry/api'
import { InMemorySpanExporter, SimpleSpanProcessor, TracerProvider } from '@opentelemetry/sdk-trace'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import {
  type Instrumentation,
  instrument,
  recordAudit,
  recordError,
  recordHealthCheck,
  recordToolCall,
  recordUsage,
  turn,
} from './index.ts'

const exporter = new InMemorySpanExporter()
let instrumentation: Instrumentation
beforeAll(() => {
  trace.setGlobalTracerProvider(new TracerProvider({ spanProcessors: [new SimpleSpanProcessor({ exporter })] }))
  instrumentation = instrument({ environment: {} })
})
afterEach(() => exporter.reset())
afterAll(() => instrumentation.shutdown())

test('records: what a program without types tells wrongly throws nothing, ends every span, and keeps no other from its export', async () => {
  const wrong = (told: unknown): never => told as never
  const usage = { inputTokens: 5, outputTokens: 0 }
  recordAudit(wrong({ action: 'delete' }))
  recordUsage(wrong(undefined))
  recordHealthCheck(wrong(undefined))
  expect(recordToolCall(wrong(undefined), () => 3)).toBe(3)
  expect(turn(wrong(undefined), () => 4)).toBe(4)
  expect(exporter.getFinishedSpans()).toEqual([])
  expect(instrumentation.counters.read().failures).toBe(5)
  recordUsage({ provider: 'openai', model: 'tts-1', usage, startedAt: new Date('soon') })
  recordHealthCheck({ target: 'mcp:files', status: 'healthy', responseTimeMs: Number.NaN, metadata: wrong(null) })
  for (const startedAt of [new Date(-1), new Date(8.64e15)])
    recordUsage({ provider: 'openai', model: 'tts-1', usage, startedAt })
  for (const responseTimeMs of [1e300, -1e300])
    recordHealthCheck({ target: 'mcp:files', status: 'healthy', responseTimeMs })
  const nowSeconds = Date.now() / 1000
  const spans = exporter.getFinishedSpans()
  expect(spans.map(({ name }) => name)).toEqual([
    'chat tts-1',
    'health check',
    'chat tts-1',
    'chat tts-1',
    'health check',
    'health check',
  ])
  for (const { startTime } of spans) expect(Math.abs(startTime[0] - nowSeconds)).toBeLessThan(60)
})

test('records: what throws when it is looked at keeps no tool from its work and no span open', () => {
  const bad = {
    get arguments() {
      throw new Error('nobody may look')
    },
  }
  const unreadable = Object.defineProperties({ name: 'add' }, Object.getOwnPropertyDescriptors(bad))
  expect(recordToolCall(unreadable, () => 3)).toBe(3)
  const error = new Error('hidden')
  Object.defineProperty(error, 'message', Object.getOwnPropertyDescriptor(bad, 'arguments') ?? {})
  recordError(error)
  expect(exporter.getFinishedSpans().map(({ name }) => name)).toEqual(['error'])
})

/** As SDKs of models have them. */
class Lazy<T> extends Promise<T> {
  asResponse(): string {
    return '200'
  }
}

test.each([
  ['turn', 'tallylight.turn.status', (work: () => Lazy<number>) => turn({}, work)],
  ['execute_tool add', 'error.type', (work: () => Lazy<number>) => recordToolCall({ name: 'add' }, work)],
])('%s: the promise of an SDK comes out as it is, and its end is the end', async (name, attribute, run) => {
  const { promise, resolve } = Promise.withResolvers<number>()
  const given = new Lazy<number>((settle) => settle(promise))
  const passed = run(() => given)
  expect(passed).toBe(given)
  expect(passed.asResponse()).toBe('200')
  expect(exporter.getFinishedSpans()).toEqual([])
  resolve(7)
  expect(await passed).toBe(7)
  const failed = Lazy.reject(new RangeError('no')) as Lazy<number>
  await expect(run(() => failed)).rejects.toThrow('no')
  const spans = exporter.getFinishedSpans()
  expect(spans.map((span) => span.name)).toEqual([name, name])
  expect(spans[1]?.attributes[attribute]).toMatch(/failure|RangeError/)
})

test('turn: nothing at all is thrown through it, and it is a failure', async () => {
  await expect(turn({}, () => Promise.reject())).rejects.toBe(undefined)
  expect(exporter.getFinishedSpans()[0]?.attributes['tallylight.turn.status']).toBe('failure')
})
