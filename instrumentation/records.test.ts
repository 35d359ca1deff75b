// What is told by programs that nobody checked.
import { trace } from '@opentelemetry/api'
import { InMemorySpanExporter, SimpleSpanProcessor, TracerProvider } from '@opentelemetry/sdk-trace'
import { afterAll, beforeAll, expect, test } from 'vitest'
import {
  type Instrumentation,
  instrument,
  recordAudit,
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
  const times = exporter.getFinishedSpans().map(({ name, startTime }) => [name, startTime.every(Number.isSafeInteger)])
  expect(times).toEqual([
    ['chat tts-1', true],
    ['health check', true],
  ])
})
