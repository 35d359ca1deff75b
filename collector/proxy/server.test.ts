// The proxy's port with a proxy behind it that only remembers; what that does is tested in test/e2e.
import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import { afterEach, expect, test } from 'vitest'
import { openMetrics } from '../metrics.ts'
import type { Receiver } from '../receive/receiver.ts'
import type { Role, TenantId } from '../receive/request.ts'
import type { ProviderProxy } from './proxy.ts'
import { openProxyServer } from './server.ts'
import { openUpstreams } from './upstreams.ts'

let stack = new AsyncDisposableStack()
afterEach(async () => {
  await stack.disposeAsync()
  stack = new AsyncDisposableStack()
})

function serverOver(load: () => Promise<ProviderProxy>): Promise<Receiver> {
  const roles = new Set<Role>(['ingest', 'quota'])
  const identity = { tenant: 'default' as TenantId, keyId: '', roles, manyTenants: false }
  return openProxyServer({
    host: '127.0.0.1',
    port: 0,
    tls: undefined,
    authenticate: () => ({ kind: 'identified', identity }),
    upstreams: openUpstreams({ configured: {}, withKnown: true }),
    load,
    metrics: openMetrics(),
    log: { info: () => undefined, warn: () => undefined, error: () => undefined },
  })
}

/** Sends a call, and gives both ends of its connection when the call has begun. */
async function sendCall(port: number): Promise<{ readonly client: Socket; readonly served: Socket }> {
  const channel = 'http.server.request.start'
  const { promise, resolve } = Promise.withResolvers<Socket>()
  const began = (message: unknown): void => resolve((message as { readonly socket: Socket }).socket)
  subscribe(channel, began)
  stack.defer(() => void unsubscribe(channel, began))
  const client = connect(port, '127.0.0.1')
  stack.defer(() => void client.destroy())
  client.write('POST /openai/v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}')
  return { client, served: await promise }
}

test('proxy: a client that leaves while the proxy is loaded is over, and does not hold up the stop', async () => {
  const mayLoad = Promise.withResolvers<void>()
  let taken = 0
  const server = await serverOver(async () => {
    await mayLoad.promise
    return {
      // As one whose request says nothing any more.
      take: () => {
        taken++
        return new Promise(() => undefined)
      },
      [Symbol.asyncDispose]: async () => undefined,
    }
  })
  const { client, served } = await sendCall(server.port)
  client.destroy()
  await once(served, 'close')
  mayLoad.resolve()
  await server.stop(60_000)
  expect(taken).toBe(0)
})

test('proxy: a request that never ends holds up the stop no longer than twice its deadline', async () => {
  const taken = Promise.withResolvers<void>()
  let isDisposed = false
  const server = await serverOver(async () => ({
    take: () => {
      taken.resolve()
      return new Promise(() => undefined)
    },
    [Symbol.asyncDispose]: async () => {
      isDisposed = true
    },
  }))
  await sendCall(server.port)
  await taken.promise
  await server.stop(10)
  expect(isDisposed).toBe(true)
})
