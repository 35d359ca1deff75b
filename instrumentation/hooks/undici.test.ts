import { AsyncLocalStorage } from 'node:async_hooks'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import http2 from 'node:http2'
import type { AddressInfo } from 'node:net'
import zlib from 'node:zlib'
import { context, createContextKey, ROOT_CONTEXT } from '@opentelemetry/api'
import { AsyncLocalStorageContextManager } from '@opentelemetry/context-async-hooks'
import { Agent, H2CClient, request, fetch as undiciFetch } from 'undici'
import { Pool as Pool6, RetryAgent as RetryAgent6, request as request6, fetch as undici6Fetch } from 'undici-6'
import { afterEach, expect, test, vi } from 'vitest'
import { limits } from '../limits.ts'
import { hookFetch } from './fetch.ts'
import { type Answer, startProvider } from './fixtures/provider.ts'
import { openRecorder } from './fixtures/recorder.ts'
import { hookHttp2 } from './http2.ts'
import { hookUndici } from './undici.ts'

const recorded = readFileSync(new URL('../providers/fixtures/openai-chat.sse', import.meta.url))
const usage = { inputTokens: 1200, outputTokens: 300 }
const sse = { 'content-type': 'text/event-stream' }
const body = '{"model":"gpt-4o","stream":true}'

let stack = new AsyncDisposableStack()
afterEach(async () => {
  await stack.disposeAsync()
  stack = new AsyncDisposableStack()
})

async function setUp(answer: Answer) {
  const provider = stack.use(await startProvider(answer))
  const recorder = openRecorder(provider.url)
  stack.defer(hookFetch(recorder.watch))
  stack.defer(hookUndici(recorder.watch))
  return { recorder, url: `${provider.url}/v1/chat/completions` }
}

test('undici: request, fetch, and an agent of one’s own are one call each, plain or compressed', async () => {
  const agent = new Agent()
  stack.defer(() => agent.close())
  for (const encoding of ['identity', 'gzip']) {
    const bytes = encoding === 'gzip' ? zlib.gzipSync(recorded) : recorded
    const { recorder, url } = await setUp({ headers: { ...sse, 'content-encoding': encoding }, pieces: [bytes] })
    const headers = { 'x-stainless-retry-count': '1' }
    const plain = await request(url, { method: 'POST', body, headers })
    expect(Buffer.from(await plain.body.arrayBuffer())).toEqual(bytes)
    const own = await request(url, { method: 'POST', body, headers, dispatcher: agent })
    expect(Buffer.from(await own.body.arrayBuffer())).toEqual(bytes)
    expect(await (await undiciFetch(url, { method: 'POST', body, headers })).text()).toBe(recorded.toString())
    const ends = await recorder.ended(3)
    expect(ends).toHaveLength(3)
    for (const end of ends) expect(end).toMatchObject({ ending: 'complete', status: 200, reply: { usage } })
    expect(recorder.calls).toMatchObject(
      Array(3).fill({ start: { transport: 'undici', attempt: 2, request: { model: 'gpt-4o' } }, ends: 1, begun: 1 }),
    )
    expect(recorder.failures).toEqual([])
  }
})

test('undici: a copy of an older version, which tells of no pieces, is one call each with its usage, too', async () => {
  const { recorder, url } = await setUp({ headers: sse, pieces: [recorded.subarray(0, 700), recorded.subarray(700)] })
  const plain = await request6(url, { method: 'POST', body })
  expect(Buffer.from(await plain.body.arrayBuffer())).toEqual(recorded)
  expect(await (await undici6Fetch(url, { method: 'POST', body })).text()).toBe(recorded.toString())
  const ends = await recorder.ended(2)
  for (const end of ends) expect(end).toMatchObject({ ending: 'complete', status: 200, reply: { usage } })
  for (const { start } of recorder.calls) expect(start.request).toMatchObject({ model: 'gpt-4o', isStream: true })
  expect(recorder.failures).toEqual([])
  expect(recorder.unmetered).toEqual([])
})

test('undici: a stream left, aborted or cut ends its call', async () => {
  const { recorder, url } = await setUp({ headers: sse, pieces: [recorded.subarray(0, 900)], after: 'wait' })
  const left = await request(url, { method: 'POST', body })
  left.body.on('error', () => undefined)
  left.body.destroy()
  await recorder.ended(1)
  const abort = new AbortController()
  const aborted = await request(url, { method: 'POST', body, signal: abort.signal })
  abort.abort()
  await expect(aborted.body.text()).rejects.toThrow(expect.objectContaining({ name: 'AbortError' }))
  expect(await recorder.ended(2)).toMatchObject([{}, { ending: 'aborted', reply: { usageSource: 'none' } }])
  const cut = await setUp({ headers: sse, pieces: [recorded.subarray(0, 900)], after: 'cut' })
  const reply = await request(cut.url, { method: 'POST', body })
  await expect(reply.body.text()).rejects.toThrow()
  expect(await cut.recorder.ended()).toMatchObject([{ ending: 'cut' }])
})

test('undici: over http2 a call is seen by one hook', async () => {
  const server = http2.createServer((_request, response) => response.writeHead(200, sse).end(recorded))
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  const recorder = openRecorder(url)
  stack.defer(hookUndici(recorder.watch))
  stack.defer(hookHttp2(recorder.watch))
  const client = new H2CClient(url)
  for (const path of ['/v1/chat/completions', '/v1/images/generations']) {
    const reply = await client.request({ path, method: 'POST', body })
    expect(Buffer.from(await reply.body.arrayBuffer())).toEqual(recorded)
  }
  await client.close()
  server.close()
  await once(server, 'close')
  expect(recorder.calls).toMatchObject([
    { start: { transport: 'undici' }, end: { ending: 'complete', reply: { usage } }, ends: 1 },
  ])
  expect(recorder.unmetered).toEqual(['api 127.0.0.1'])
})

test('undici before 8: a request that waited for a connection is its maker’s call, and one whose maker cannot be known is nobody’s', async () => {
  const user = createContextKey('user')
  const users = new AsyncLocalStorage<string>()
  context.setGlobalContextManager(new AsyncLocalStorageContextManager().enable())
  stack.defer(() => context.disable())
  const provider = stack.use(await startProvider({ pieces: ['{}'] }))
  const { watch } = openRecorder(provider.url)
  const told: unknown[] = []
  const startCall: typeof watch.startCall = (start) => {
    told.push([start.request.model, users.getStore(), context.active().getValue(user)])
    return watch.startCall(start)
  }
  stack.defer(hookUndici({ ...watch, startCall }))
  const pool = new Pool6(provider.url, { connections: 1 })
  stack.defer(() => pool.close())
  const retrying = new RetryAgent6(pool)
  const path = '/v1/chat/completions'
  const url = `${provider.url}${path}`
  const ways: readonly ((body: string) => Promise<unknown>)[] = [
    async (body) => (await pool.request({ path, method: 'POST', body })).body.text(),
    async (body) => (await request6(url, { method: 'POST', body, dispatcher: retrying })).body.text(),
    async (body) => (await undici6Fetch(url, { method: 'POST', body, dispatcher: pool })).text(),
  ]
  const names = ['ada', 'bea', 'cai']
  for (const ask of ways)
    await Promise.all(
      names.map((name) =>
        context.with(ROOT_CONTEXT.setValue(user, name), () => users.run(name, () => ask(`{"model":"${name}"}`))),
      ),
    )
  const known = names.map((name) => [name, name, name])
  expect(told.slice(0, 6)).toEqual([...known, ...known])
  expect(told.slice(6)).toEqual(names.map((name) => [name, expect.anything(), undefined]))
})

test('undici: a reply that nobody reads ends its call when it has brought nothing for long', async () => {
  vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval'] })
  stack.defer(() => void vi.useRealTimers())
  const { recorder, url } = await setUp({ headers: sse, pieces: [recorded.subarray(0, 900)], after: 'wait' })
  const replies = [await request(url, { method: 'POST', body }), await request6(url, { method: 'POST', body })]
  await Promise.all(replies.map(async (reply) => await once(reply.body, 'readable')))
  vi.advanceTimersByTime(limits.replyIdleMs)
  expect(recorder.calls).toMatchObject([{ ends: 0 }, { ends: 0 }])
  vi.advanceTimersByTime(limits.replyIdleMs)
  expect(recorder.calls).toMatchObject(Array(2).fill({ ends: 1, end: { ending: 'left', status: 200 } }))
  for (const reply of replies) reply.body.on('error', () => undefined).destroy()
})
