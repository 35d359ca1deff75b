// The gate of the instrumentation against the quota service of a collector: a service in this process calls a provider over
// real HTTP, and what the ledger says is compared with what the provider served.
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import http from 'node:http'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { context, trace } from '@opentelemetry/api'
import { AsyncLocalStorageContextManager } from '@opentelemetry/context-async-hooks'
import { InMemorySpanExporter, SimpleSpanProcessor, TracerProvider } from '@opentelemetry/sdk-trace'
import { type Provider, startProvider } from '@tallylight/instrumentation/hooks/fixtures/provider.ts'
import {
  type Instrumentation,
  type InstrumentOptions,
  instrument,
  openTurn,
  QuotaExceededError,
  quotaExceededIn,
  turn,
  withQuota,
} from '@tallylight/instrumentation/index.ts'
import { openQuotaClient } from '@tallylight/instrumentation/quota/quota-client.ts'
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from 'vitest'
import { type CollectorProcess, startCollector } from '../collector-process.ts'

const recorded = readFileSync(new URL('../../instrumentation/providers/fixtures/openai-chat.sse', import.meta.url))
/** What the recorded stream says it used. */
const tokensOfCall = 1_500
/** By the list: 176 tokens of input, 1,024 cached ones, 300 of output. */
const nanoUsdOfCall = 176 * 2_500 + 1_024 * 1_250 + 300 * 10_000

/** Nobody listens there any more. */
let nobodyUrl = ''
const exporter = new InMemorySpanExporter()

const suite = new AsyncDisposableStack()
let stack = new AsyncDisposableStack()
let collector: CollectorProcess
let provider: Provider
let requests: string[] = []
const looked = Promise.withResolvers<void>()

beforeAll(async () => {
  context.setGlobalContextManager(new AsyncLocalStorageContextManager().enable())
  trace.setGlobalTracerProvider(new TracerProvider({ spanProcessors: [new SimpleSpanProcessor({ exporter })] }))
  const gone = await startProvider({ pieces: [] })
  nobodyUrl = gone.url
  await gone[Symbol.asyncDispose]()
  collector = suite.use(await startCollector())
  provider = suite.use(
    await startProvider((body) => {
      requests.push(body)
      if (body.includes('fail')) return { status: 500, pieces: ['{"error":{"code":"server_error"}}'] }
      if (body.includes('plain'))
        return {
          headers: { 'content-type': 'application/json' },
          pieces: ['{"object":"chat.completion","usage":{"prompt_tokens":5,"completion_tokens":6}}'],
        }
      const headers = { 'content-type': 'text/event-stream' }
      if (body.includes('cut')) return { headers, pieces: [recorded.subarray(0, 900)], after: 'cut' }
      if (body.includes('open')) return { headers, pieces: [recorded], until: looked.promise }
      if (body.includes('wait')) return { headers, pieces: [recorded.subarray(0, 900)], after: 'wait' }
      return { headers, pieces: [recorded] }
    }),
  )
}, 60_000)
afterAll(() => suite.disposeAsync())
afterEach(async () => {
  await stack.disposeAsync()
  stack = new AsyncDisposableStack()
  requests = []
})

const apiUrl = (): string => `http://127.0.0.1:${collector.ports().api}`

function start(options: InstrumentOptions = {}): Instrumentation {
  const instrumentation = instrument({
    environment: { TALLYLIGHT_URL: apiUrl() },
    quota: 'enforce',
    baseUrls: [
      { url: provider.url, provider: 'openai', takesUsageOption: true },
      { url: nobodyUrl, provider: 'openai' },
    ],
    write: () => undefined,
    ...options,
  })
  stack.defer(() => instrumentation.shutdown())
  return instrumentation
}

async function limitOf(user: string, amount: number, id = user, measure = 'tokens'): Promise<void> {
  const put = await fetch(`${apiUrl()}/v1/quota/limits/${id}`, {
    method: 'PUT',
    headers: { authorization: `Bearer ${collector.adminKey}` },
    body: JSON.stringify({ subject: { user }, measure, amount, window: 'day', action: 'block' }),
  })
  expect(put.status).toBe(201)
}

type Account = { readonly held: number; readonly spent: number; readonly free: number; readonly debt: number }

async function accountOf(user: string): Promise<Account> {
  const reply = await fetch(`${apiUrl()}/v1/quota/usage?limit=${user}`)
  const { usage } = (await reply.json()) as { readonly usage: readonly Account[] }
  return usage[0] ?? { held: 0, spent: 0, free: 0, debt: 0 }
}

const bodyOf = (content: string, max = 400): string =>
  JSON.stringify({ model: 'gpt-4o', stream: true, max_tokens: max, messages: [{ role: 'user', content }] })

const post = (content: string, init: RequestInit = {}): Promise<Response> =>
  fetch(`${provider.url}/v1/chat/completions`, { method: 'POST', body: bodyOf(content), ...init })

/** As a user's turn, which the limit is for. */
const as = <T>(user: string, work: () => T): T => turn({ user }, work)

describe('gate', () => {
  test('a call holds what it may need, and settles what the provider said it used', async () => {
    await limitOf('ada', 10_000)
    const instrumentation = start()
    await as('ada', async () => {
      // A reply whose end has come is settled, whether it was read or not.
      const reply = await post('open')
      expect((await accountOf('ada')).held).toBeGreaterThan(400)
      looked.resolve()
      await reply.text()
    })
    await instrumentation.flush()
    expect(await accountOf('ada')).toMatchObject({ held: 0, spent: tokensOfCall, free: 10_000 - tokensOfCall, debt: 0 })
  })

  test('a denied call is told which limit and when, in fetch and in node:http, and never reaches the provider', async () => {
    await limitOf('bob', 300)
    const instrumentation = start()
    const denied = await as('bob', () => post('hello')).catch((error: unknown) => error)
    expect(denied).toBeInstanceOf(QuotaExceededError)
    expect(quotaExceededIn(new Error('wrapped', { cause: denied }))?.denial).toMatchObject({
      limitId: 'bob',
      measure: 'tokens',
      limit: 300n,
      free: 300n,
      resetsAt: expect.any(Date),
      retryAfterMs: expect.any(Number),
    })
    const request = as('bob', () => http.request(`${provider.url}/v1/chat/completions`, { method: 'POST' }))
    as('bob', () => request.end(bodyOf('hello')))
    const [error] = await once(request, 'close').catch((reason: unknown) => [reason])
    expect(error).toBeInstanceOf(QuotaExceededError)
    expect(requests).toEqual([])
    await instrumentation.flush()
    expect(await accountOf('bob')).toMatchObject({ held: 0, spent: 0 })
    expect(instrumentation.counters.read().denied).toBe(2)
  })

  test('a user that is a number, and a model whose name is too long, are asked for and settled as far as they can be', async () => {
    await limitOf('42', 10_000)
    const instrumentation = start({ quotaFailure: 'closed' })
    const body = JSON.stringify({ model: 'm'.repeat(600), messages: [{ role: 'user', content: 'plain' }] })
    // As a service in JavaScript has it.
    const user = JSON.parse('42') as string
    await as(user, async () => (await post('', { body })).text())
    await instrumentation.flush()
    expect(requests).toHaveLength(1)
    expect(await accountOf('42')).toMatchObject({ held: 0, spent: 11 })
    expect(instrumentation.counters.read()).toMatchObject({ failures: 0, settlementsFailed: 0, notGated: 0 })
  })

  test('whatever a service passes or its users send, no call goes unasked', async () => {
    await limitOf('odd', 0)
    const instrumentation = start({ quotaFailure: 'closed', content: 'full', redact: () => JSON.parse('{') as string })
    const textless = JSON.parse('{"toString":null}') as string
    const deep = `${'['.repeat(20_000)}${']'.repeat(20_000)}`
    const body = `{"model":"gpt-4o","tools":[{"parameters":${deep}}],"messages":[{"role":"user","content":"hello"}]}`
    await expect(turn({ user: 'odd', conversation: textless }, () => post('hello'))).rejects.toThrow(QuotaExceededError)
    await expect(as('odd', () => post('', { body }))).rejects.toThrow(QuotaExceededError)
    for (const tokens of [JSON.parse('null'), 10n, Symbol('ten'), Number.NaN, -1] as readonly number[]) {
      const estimate = { inputTokens: tokens, outputTokensMax: tokens }
      await expect(as('odd', () => withQuota({ estimate }, () => post('hello')))).rejects.toThrow(QuotaExceededError)
    }
    expect(requests).toEqual([])
    expect(instrumentation.counters.read()).toMatchObject({ failures: 0, notGated: 0, denied: 7 })
  })

  test('of parallel calls no more are granted than the limit has room for', async () => {
    const estimate = { inputTokens: 100, outputTokensMax: 1_400 }
    await limitOf('cid', 5 * tokensOfCall)
    const instrumentation = start()
    const outcomes = await Promise.allSettled(
      Array.from({ length: 20 }, () =>
        as('cid', () => withQuota({ estimate }, async () => (await post('hello')).text())),
      ),
    )
    expect(outcomes.filter(({ status }) => status === 'fulfilled')).toHaveLength(5)
    await instrumentation.flush()
    expect(await accountOf('cid')).toMatchObject({ held: 0, spent: 5 * tokensOfCall, free: 0, debt: 0 })
  })

  test('what fails is given back; what is left, aborted, cut or never read is settled by an estimate, and nothing stays held', async () => {
    await limitOf('dan', 1_000_000)
    const instrumentation = start()
    setFlagsFromString('--expose-gc')
    const gc = runInNewContext('gc') as () => void
    const spentBy = async (work: () => Promise<unknown>): Promise<number> => {
      const before = (await accountOf('dan')).spent
      await as('dan', work)
      for (let account = await accountOf('dan'); account.held > 0; account = await accountOf('dan')) gc()
      await instrumentation.flush()
      return (await accountOf('dan')).spent - before
    }
    expect(await spentBy(async () => (await post('fail')).text())).toBe(0)
    const refused = `${nobodyUrl}/v1/chat/completions`
    const calls = instrumentation.counters.read().spansMade
    expect(await spentBy(() => expect(fetch(refused, { method: 'POST', body: '{}' })).rejects.toThrow())).toBe(0)
    expect(instrumentation.counters.read().spansMade).toBe(calls + 1)
    expect(await spentBy(() => expect(post('cut').then((reply) => reply.text())).rejects.toThrow())).toBeGreaterThan(20)
    expect(
      await spentBy(async () => {
        for await (const _ of (await post('wait')).body ?? []) break
      }),
    ).toBeGreaterThan(20)
    expect(
      await spentBy(() =>
        expect(post('wait', { signal: AbortSignal.timeout(100) }).then((reply) => reply.text())).rejects.toThrow(),
      ),
    ).toBeGreaterThan(20)
    expect(await spentBy(() => post('wait').then(({ status }) => status))).toBeGreaterThan(20)
  })

  test('a caller that aborts while the gate is asked leaves nothing held', async () => {
    await limitOf('eve', 10_000)
    const instrumentation = start()
    const abort = new AbortController()
    const call = as('eve', () => post('hello', { signal: abort.signal }))
    abort.abort()
    await expect(call).rejects.toThrow(expect.objectContaining({ name: 'AbortError' }))
    // What a flush waits for is bounded by a time.
    await instrumentation.flush()
    await vi.waitFor(async () => expect(await accountOf('eve')).toMatchObject({ held: 0 }), { timeout: 20_000 })
    expect(requests).toEqual([])
  })

  test('a long stream extends what it holds', async () => {
    const client = openQuotaClient({ url: apiUrl(), key: '' })
    const estimate = { inputTokens: 1, outputTokensMax: 1 }
    const call = { callId: 'long', user: 'u', conversation: '', model: 'gpt-4o', provider: 'openai', estimate }
    const reserved = await client.reserve(call, true)
    expect(reserved.kind).toBe('granted')
    if (reserved.kind !== 'granted') return
    const expiresAt = async (): Promise<number> => {
      const state = await fetch(`${apiUrl()}/v1/quota/reservations/${reserved.id}`)
      return Date.parse(((await state.json()) as { readonly expiresAt: string }).expiresAt)
    }
    const before = await expiresAt()
    await new Promise((resolve) => setTimeout(resolve, 20))
    expect(await client.extend([reserved.id])).toEqual({ kind: 'done' })
    expect(await expiresAt()).toBeGreaterThan(before)
    expect(await client.release(reserved.id)).toEqual({ kind: 'done' })
  })

  test('calls on a hot path are granted out of leases, and the ledger has what they used, in tokens and in money', async () => {
    await limitOf('hal', 10_000_000)
    await limitOf('hal', 10_000_000_000, 'hal-cost', 'cost')
    const instrumentation = start()
    const asked = () => collector.metric('tallylight_quota_answers_total', { route: 'reservations' })
    const before = await asked()
    const calls = 150
    await as('hal', () =>
      withQuota({ lease: true, estimate: { inputTokens: 1_250 } }, async () => {
        for (let call = 0; call < calls; call++) await (await post('hello')).text()
      }),
    )
    const reservations = (await asked()) - before
    expect(reservations).toBeGreaterThan(0)
    expect(reservations).toBeLessThan(calls / 10)
    const { held } = await accountOf('hal')
    expect(held).toBeGreaterThan(0)
    await instrumentation.flush()
    expect(await accountOf('hal')).toMatchObject({ held: 0, spent: calls * tokensOfCall, debt: 0 })
    expect(await accountOf('hal-cost')).toMatchObject({ held: 0, spent: calls * nanoUsdOfCall, debt: 0 })
    expect(instrumentation.counters.read()).toMatchObject({ settlementsFailed: 0, notGated: 0, denied: 0 })
  })

  test('near a limit no lease is granted, one that holds what is missing is given back, and the limit is spent to its end and no further', async () => {
    await limitOf('ina', 20 * tokensOfCall)
    start()
    const estimate = { inputTokens: 1_000, outputTokensMax: 500 }
    const call = () => as('ina', () => withQuota({ lease: true, estimate }, async () => (await post('hello')).text()))
    for (let granted = 0; granted < 20; granted++) await call()
    await expect(call()).rejects.toThrow(QuotaExceededError)
    expect(await accountOf('ina')).toMatchObject({ free: 0, debt: 0 })
    expect(requests).toHaveLength(20)
  })

  test('observing denies nothing and counts; skipped calls are not asked for', async () => {
    await limitOf('fay', 300)
    const instrumentation = start({ quota: 'observe' })
    await as('fay', async () => (await post('hello')).text())
    await as('fay', () => withQuota({ skip: true }, async () => (await post('hello')).text()))
    await instrumentation.flush()
    expect(requests).toHaveLength(2)
    expect(instrumentation.counters.read()).toMatchObject({ denied: 1, spansMade: 2 })
  })

  test('a turn that is denied is blocked, by its limit', async () => {
    await limitOf('gus', 1)
    start()
    const opened = openTurn({ user: 'gus' })
    await expect(opened.run(() => post('hello'))).rejects.toThrow(QuotaExceededError)
    opened.end()
    const span = exporter.getFinishedSpans().findLast(({ name }) => name === 'turn')
    expect(span?.attributes).toMatchObject({
      'tallylight.turn.status': 'blocked',
      'tallylight.turn.block_reason': 'quota gus',
    })
  })

  test('a key that no header can carry is told of, and the policy decides', async () => {
    const said: string[] = []
    const environment = { TALLYLIGHT_URL: apiUrl(), TALLYLIGHT_KEY: 'tl_x\ny' }
    const instrumentation = start({ environment, write: (line) => said.push(line) })
    expect(await (await withQuota({ lease: true }, () => post('hello'))).text()).toContain('[DONE]')
    await instrumentation.flush()
    expect(said).toEqual([
      expect.stringMatching(/not available \(Invalid character in header content \["authorization"\]\)/),
    ])
  })

  test.each(['open', 'closed'] as const)(
    'with the quota service away, policy %s decides, without a time-out for each call',
    async (quotaFailure) => {
      const said: string[] = []
      const instrumentation = start({
        environment: { TALLYLIGHT_URL: nobodyUrl },
        quotaFailure,
        write: (line) => said.push(line),
      })
      for (let call = 0; call < 5; call++) {
        const reply = post('hello').then((response) => response.text())
        if (quotaFailure === 'open') expect(await reply).toContain('[DONE]')
        else
          await expect(reply).rejects.toThrow(
            expect.objectContaining({ denial: expect.objectContaining({ reason: 'away' }) }),
          )
      }
      expect(requests).toHaveLength(quotaFailure === 'open' ? 5 : 0)
      expect(instrumentation.counters.read().notGated).toBe(5)
      const span = exporter.getFinishedSpans().findLast(({ name }) => name === 'chat gpt-4o')
      expect(span?.attributes['tallylight.quota.policy']).toBe(quotaFailure)
      expect(said).toEqual([expect.stringContaining('the quota service is not available')])
    },
  )
})
