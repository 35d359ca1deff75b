import { once } from 'node:events'
import type { ServerResponse } from 'node:http'
import { afterEach, expect, test, vi } from 'vitest'
import { listening } from '../hooks/fixtures/listening.ts'
import { limits } from '../limits.ts'
import { openQuotaClient } from './quota-client.ts'

let stack = new AsyncDisposableStack()
afterEach(async () => {
  vi.useRealTimers()
  await stack.disposeAsync()
  stack = new AsyncDisposableStack()
})

const request = {
  callId: 'c',
  user: '',
  conversation: '',
  model: 'm',
  provider: 'openai',
  estimate: { inputTokens: 1, outputTokensMax: 1 },
}

test('quota client: an answer that comes in dribbles is waited for no longer than one that does not come', async () => {
  const { promise: begun, resolve } = Promise.withResolvers<ServerResponse>()
  const url = await listening(stack, (_request, response) => {
    response.writeHead(201).write('{"id":')
    resolve(response)
  })
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] })
  const reserving = openQuotaClient({ url, key: '' }).reserve(request, true)
  const response = await begun
  const closed = once(response, 'close')
  vi.advanceTimersByTime(limits.quotaTimeoutMs)
  response.end('"r1"}')
  expect(await reserving).toEqual({ kind: 'unavailable', reason: `no answer in ${limits.quotaTimeoutMs} ms` })
  await closed
})

test('quota client: an answer in time leaves no timer', async () => {
  const url = await listening(stack, (_request, response) => response.writeHead(201).end('{"id":"r1"}'))
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] })
  expect(await openQuotaClient({ url, key: '' }).reserve(request, true)).toMatchObject({ kind: 'granted', id: 'r1' })
  expect(vi.getTimerCount()).toBe(0)
})
