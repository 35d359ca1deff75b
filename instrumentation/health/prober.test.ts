import { context, trace } from '@opentelemetry/api'
import { AsyncLocalStorageContextManager } from '@opentelemetry/context-async-hooks'
import { InMemorySpanExporter, SimpleSpanProcessor, TracerProvider } from '@opentelemetry/sdk-trace'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import { listening } from '../hooks/fixtures/listening.ts'
import { startProvider } from '../hooks/fixtures/provider.ts'
import { type HealthCheck, instrument, startProber, turn } from '../index.ts'

const exporter = new InMemorySpanExporter()
const suite = new AsyncDisposableStack()
let stack = new AsyncDisposableStack()
let modelUrl = ''

beforeAll(async () => {
  context.setGlobalContextManager(new AsyncLocalStorageContextManager().enable())
  trace.setGlobalTracerProvider(new TracerProvider({ spanProcessors: [new SimpleSpanProcessor({ exporter })] }))
  const model = suite.use(await startProvider({ pieces: ['{}'] }))
  modelUrl = `${model.url}/v1/chat/completions`
  // Whatever is asked of the quota service fails the call: nobody listens there.
  const instrumentation = instrument({
    environment: { TALLYLIGHT_URL: 'http://127.0.0.1:1' },
    quota: 'enforce',
    quotaFailure: 'closed',
    baseUrls: [{ url: model.url, provider: 'openai' }],
    write: () => undefined,
  })
  suite.defer(() => instrumentation.shutdown())
})
afterAll(() => suite.disposeAsync())
afterEach(async () => {
  await stack.disposeAsync()
  stack = new AsyncDisposableStack()
  exporter.reset()
})

async function serverOf(status: () => number): Promise<string> {
  const url = await listening(stack, (_request, response) => {
    const now = status()
    if (now !== 0) response.writeHead(now).end('x')
  })
  return `${url}/healthz`
}

/** Looks until `enough`, then stops; gives all of them with their times. */
async function looks(
  probe: Parameters<typeof startProber>[0][number],
  enough: number,
): Promise<readonly (HealthCheck & { readonly atMs: number })[]> {
  const checks: (HealthCheck & { readonly atMs: number })[] = []
  const reached = Promise.withResolvers<void>()
  const prober = startProber([probe], {
    onCheck: (check) => {
      checks.push({ ...check, atMs: performance.now() })
      if (checks.length === enough) reached.resolve()
    },
  })
  await reached.promise
  await prober[Symbol.asyncDispose]()
  return checks
}

test('prober: a server is looked at when it starts, in intervals, and at the end, as it is at that time', async () => {
  const statuses = [200, 503, 200, 404]
  const url = await serverOf(() => statuses.shift() ?? 200)
  const checks = await looks({ target: 'http:search', check: url, intervalMs: 5 }, 4)
  expect(checks.map(({ status, event }) => [event, status])).toEqual([
    ['startup', 'healthy'],
    ['interval', 'unhealthy'],
    ['interval', 'healthy'],
    ['interval', 'unhealthy'],
    ['shutdown', 'healthy'],
  ])
  expect(exporter.getFinishedSpans().map(({ attributes }) => attributes['tallylight.health.status'])).toEqual(
    checks.map(({ status }) => status),
  )
  expect(checks[0]?.metadata).toEqual({ status: 200 })
})

test('prober: a server that does not answer is a time-out, also to a check that heeds no signal', async () => {
  const url = await serverOf(() => 0)
  const silent = await looks({ target: 'http:slow', check: url, timeoutMs: 20, intervalMs: 1 }, 1)
  const deaf = await looks({ target: 'mcp:deaf', check: () => new Promise(() => undefined), timeoutMs: 20 }, 1)
  for (const check of [...silent, ...deaf]) {
    expect(check.status).toBe('timeout')
    expect(check.responseTimeMs).toBeGreaterThanOrEqual(15)
  }
})

test('prober: one that fails again and again is spared, and looked at as before when it is well', async () => {
  let isWell = false
  const check = async (): Promise<void> => {
    if (!isWell) throw new Error('dying')
  }
  const checks = await looks({ target: 'mcp:dying', check, intervalMs: 20 }, 6)
  const gaps = checks.slice(1, -1).map(({ atMs }, at) => atMs - (checks[at]?.atMs ?? 0))
  for (const [at, factor] of [1, 1, 2, 4, 8].entries()) expect(gaps[at]).toBeGreaterThanOrEqual(20 * factor - 2)
  isWell = true
  expect((await looks({ target: 'mcp:well', check, intervalMs: 1 }, 3)).map(({ status }) => status)).toEqual(
    Array(4).fill('healthy'),
  )
})

test('prober: its end waits for no look that hangs, and the last one is short', async () => {
  const url = await serverOf(() => 0)
  const checks: HealthCheck[] = []
  const begun = Promise.withResolvers<void>()
  const check = (signal: AbortSignal): Promise<unknown> => {
    begun.resolve()
    return fetch(url, { signal })
  }
  const prober = startProber([{ target: 'http:hung', check, timeoutMs: 60_000 }], {
    onCheck: (each) => checks.push(each),
  })
  await begun.promise
  await prober[Symbol.asyncDispose]()
  expect(checks.map(({ event, status }) => [event, status])).toEqual([['shutdown', 'timeout']])
})

test('prober: what a look does is part of no turn, is marked, and asks for no quota', async () => {
  const check = async (): Promise<object> => {
    const reply = await fetch(modelUrl, { method: 'POST', body: '{"model":"m"}' })
    await reply.text()
    return { status: reply.status, skipped: { nested: true } }
  }
  const checks = await turn({ user: 'ada' }, () => looks({ target: 'http:model', check, intervalMs: 1 }, 1))
  expect(checks[0]).toMatchObject({ status: 'healthy', metadata: { status: 200 } })
  const call = exporter.getFinishedSpans().find(({ name }) => name === 'chat m')
  expect(call?.attributes).toMatchObject({ 'tallylight.probe': true })
  expect(call?.attributes).not.toHaveProperty('user.id')
  const record = exporter.getFinishedSpans().find(({ name }) => name === 'health check')
  expect(record?.parentSpanContext).toBe(undefined)
})

test('prober: a listener that throws and a time that no timer takes end neither the looks nor the process', async () => {
  const seen: string[] = []
  const reached = Promise.withResolvers<void>()
  const prober = startProber(
    [
      { target: 'thrown', check: async () => undefined, intervalMs: 1 },
      { target: 'times', check: async () => undefined, intervalMs: -5, timeoutMs: Number.NaN },
      { target: 'parts', check: async () => undefined, intervalMs: 2 ** 31 - 1, timeoutMs: 1500.5 },
      { target: 'big', check: async () => undefined, intervalMs: 5n as unknown as number },
    ],
    {
      onCheck({ target, status }) {
        seen.push(`${target} ${status}`)
        if (seen.filter((each) => each === 'thrown healthy').length === 3) reached.resolve()
        throw new Error('the service’s own')
      },
    },
  )
  await reached.promise
  await prober[Symbol.asyncDispose]()
  const others = ['times healthy', 'parts healthy', 'big healthy']
  expect(seen.filter((each) => each !== 'thrown healthy')).toEqual([...others, ...others])
})
