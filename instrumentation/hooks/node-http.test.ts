import { AsyncLocalStorage } from 'node:async_hooks'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import http, { request as namedRequest } from 'node:http'
import { Readable } from 'node:stream'
import { buffer } from 'node:stream/consumers'
import { setImmediate as turn } from 'node:timers/promises'
import zlib from 'node:zlib'
import { afterEach, describe, expect, test, vi } from 'vitest'
import { limits } from '../limits.ts'
import { listening } from './fixtures/listening.ts'
import { type Answer, type Provider, startProvider } from './fixtures/provider.ts'
import { openRecorder, type Recorder } from './fixtures/recorder.ts'
import { hookNodeHttp } from './node-http.ts'

const recorded = readFileSync(new URL('../providers/fixtures/openai-chat.sse', import.meta.url))
const usage = { inputTokens: 1200, outputTokens: 300 }
const sse = { 'content-type': 'text/event-stream' }
const unhooked = http.request
const asking = '{"model":"gpt-4o","stream":true,"stream_options":{"include_usage":true}}'

let stack = new AsyncDisposableStack()
afterEach(async () => {
  await stack.disposeAsync()
  stack = new AsyncDisposableStack()
})

async function setUp(
  answer: Answer,
  options: Parameters<typeof openRecorder>[1] = {},
): Promise<{ readonly provider: Provider; readonly recorder: Recorder; readonly url: string }> {
  const provider = stack.use(await startProvider(answer))
  const recorder = openRecorder(provider.url, options)
  stack.defer(hookNodeHttp(recorder.watch))
  return { provider, recorder, url: `${provider.url}/v1/chat/completions` }
}

async function responseOf(request: http.ClientRequest): Promise<http.IncomingMessage> {
  const [response] = (await once(request, 'response')) as [http.IncomingMessage]
  return response
}

async function post(url: string, body: string, options: http.RequestOptions = {}): Promise<http.IncomingMessage> {
  return responseOf(http.request(url, { method: 'POST', ...options }).end(body))
}

describe('node:http', () => {
  test('every way to write a body and name an address is one call, and sends what it would have sent', async () => {
    const { provider, recorder, url } = await setUp({ headers: sse, pieces: [recorded] })
    const { hostname, port, pathname: path } = new URL(url)
    const address = { hostname, port, path, method: 'POST' }
    const ways: readonly (() => http.ClientRequest)[] = [
      () => http.request(url, { method: 'POST' }).end(asking),
      () => http.request(new URL(url), { method: 'post' }).end(Buffer.from(asking)),
      () => namedRequest(address).end(asking, 'utf8'),
      () => {
        const request = http.request({ ...address, headers: { 'Content-Length': asking.length } })
        request.write(asking.slice(0, 20))
        request.write(Buffer.from(asking.slice(20)))
        return request.end()
      },
      () => Readable.from([asking.slice(0, 5), asking.slice(5)]).pipe(http.request(address)),
    ]
    for (const way of ways) expect(await buffer(await responseOf(way()))).toEqual(recorded)
    expect(provider.bodies).toEqual(Array(5).fill(asking))
    const ends = await recorder.ended(5)
    expect(ends).toHaveLength(5)
    for (const end of ends) expect(end).toMatchObject({ ending: 'complete', status: 200, reply: { usage } })
    expect(recorder.calls.every(({ begun, ends }) => begun === 1 && ends === 1)).toBe(true)
    expect(recorder.unmetered).toEqual([])
    expect(recorder.failures).toEqual([])
  })

  test('a call by way of an HTTP proxy is one', async () => {
    const { provider, recorder, url } = await setUp({ headers: sse, pieces: [recorded] })
    const proxy = await listening(stack, (request, response) => {
      const { method, headers } = request
      const forwarded = http.request(request.url ?? '', { method, headers }, (reply) => {
        response.writeHead(reply.statusCode ?? 0, reply.headers)
        reply.pipe(response)
      })
      request.pipe(forwarded)
    })
    // As clients write it by hand, axios for one, and as Node does for `HTTP_PROXY`.
    const headers = { host: new URL(provider.url).host }
    const agent = new http.Agent({ proxyEnv: { HTTP_PROXY: proxy } })
    for (const request of [
      http.request(proxy, { method: 'POST', path: url, headers }),
      http.request(url, { method: 'POST', agent }),
    ])
      expect(await buffer(await responseOf(request.end(asking)))).toEqual(recorded)
    // The proxy's own requests, which are made in this process here, are seen as well.
    expect(recorder.calls.map(({ start }) => start.url.href)).toEqual(Array(4).fill(url))
    for (const end of await recorder.ended(4))
      expect(end).toMatchObject({ ending: 'complete', status: 200, reply: { usage } })
    expect(recorder.unmetered).toEqual([])
  })

  test('callbacks of writes and of the end are called as they would have been', async () => {
    const { url } = await setUp({ pieces: ['{}'] })
    const called: string[] = []
    const request = http.request(url, { method: 'POST' })
    request.on('finish', () => called.push('finish'))
    request.write('{', () => called.push('write'))
    request.end('}', () => called.push('end'))
    await buffer(await responseOf(request))
    expect(called.toSorted()).toEqual(['end', 'finish', 'write'])
  })

  test('a writer that waits for each piece to be taken is not left waiting', async () => {
    const { provider, url } = await setUp({ headers: sse, pieces: [recorded] })
    const request = http.request(url, { method: 'POST' })
    for (const piece of [asking.slice(0, 9), asking.slice(9)])
      await new Promise<void>((taken) => request.write(piece, () => taken()))
    expect(await buffer(await responseOf(request.end()))).toEqual(recorded)
    expect(provider.bodies).toEqual([asking])
  })

  test('a writer that fills the same memory anew once a piece was taken sends each piece', async () => {
    const { provider, url } = await setUp({ pieces: ['{}'] })
    const request = http.request(url, { method: 'POST' })
    const memory = Buffer.alloc(2)
    for (const piece of ['{"', 'a"', ':1', '} ']) {
      memory.write(piece)
      await new Promise<void>((taken) => request.write(memory, () => taken()))
    }
    await buffer(await responseOf(request.end()))
    expect(provider.bodies).toEqual(['{"a":1} '])
  })

  test('what cannot be written fails its request behind the gate, not the process; a head that is out keeps its body', async () => {
    const { provider, recorder, url } = await setUp({ headers: sse, pieces: [recorded] }, { admitted: () => turn() })
    const broken = http.request(url, { method: 'POST' })
    const failed = once(broken, 'response')
    broken.write(5 as unknown as string)
    broken.end()
    await expect(failed).rejects.toMatchObject({ code: 'ERR_INVALID_ARG_TYPE' })
    expect(await recorder.ended()).toMatchObject([{ ending: 'cut', status: 0 }])

    const body = '{"stream":true}'
    const request = http.request(url, { method: 'POST', headers: { 'content-length': body.length } }).end(body)
    request.flushHeaders()
    expect(await buffer(await responseOf(request))).toEqual(recorded)
    expect(provider.bodies).toEqual([body])
  })

  test('usage is asked for and hidden, with the length that the new body has', async () => {
    const { provider, recorder, url } = await setUp({ headers: sse, pieces: [recorded] })
    const body = '{"stream":true,"model":"é"}'
    const text = (
      await buffer(await post(url, body, { headers: { 'content-length': Buffer.byteLength(body) } }))
    ).toString()
    expect(provider.bodies).toEqual(['{"stream_options":{"include_usage":true},"stream":true,"model":"é"}'])
    expect(text).not.toContain('"choices":[]')
    expect(text.endsWith('data: [DONE]\n\n')).toBe(true)
    expect(await recorder.ended()).toMatchObject([{ reply: { usage } }])
  })

  test('compressed replies reach the caller compressed, and are read', async () => {
    const packed: readonly (readonly [string, Buffer])[] = [
      ['gzip', zlib.gzipSync(recorded)],
      ['br', zlib.brotliCompressSync(recorded)],
      ['deflate', zlib.deflateSync(recorded)],
      ['zstd', zlib.zstdCompressSync(recorded)],
    ]
    for (const [encoding, bytes] of packed) {
      const { recorder, url } = await setUp({ headers: { ...sse, 'content-encoding': encoding }, pieces: [bytes] })
      const response = await post(url, '{"stream":true}', { headers: { 'accept-encoding': encoding } })
      expect(await buffer(response)).toEqual(bytes)
      expect(await recorder.ended()).toMatchObject([{ ending: 'complete', reply: { usage } }])
    }
    const { recorder, url } = await setUp({ headers: { ...sse, 'content-encoding': 'gzip' }, pieces: ['no gzip'] })
    expect((await buffer(await post(url, asking))).toString()).toBe('no gzip')
    expect(await recorder.ended()).toMatchObject([{ ending: 'complete', reply: { usage: undefined } }])
  })

  test('a stream left, cut, or aborted ends its call, and the caller gets the error it would have got', async () => {
    const cut = await setUp({ headers: sse, pieces: [recorded.subarray(0, 900)], after: 'cut' })
    await expect(buffer(await post(cut.url, asking))).rejects.toThrow('aborted')
    expect(await cut.recorder.ended()).toMatchObject([{ ending: 'cut' }])

    const waiting = await setUp({ headers: sse, pieces: [recorded.subarray(0, 900)], after: 'wait' })
    const left = await post(waiting.url, asking)
    await once(left, 'data')
    left.destroy()
    expect(await waiting.recorder.ended()).toMatchObject([{ ending: 'left' }])
    await waiting.provider.closed()

    const abort = new AbortController()
    const aborted = await post(waiting.url, asking, { signal: abort.signal })
    abort.abort()
    await expect(buffer(aborted)).rejects.toThrow(expect.objectContaining({ message: 'aborted', code: 'ECONNRESET' }))
    expect(await waiting.recorder.ended(2)).toMatchObject([{ ending: 'left' }, { ending: 'aborted' }])
  })

  test('a caller that leaves the loop over its reply, or ends the request without a reason, has left; the network cut nothing', async () => {
    const { url, recorder } = await setUp({ headers: sse, pieces: [recorded.subarray(0, 900)], after: 'wait' })
    for await (const _ of await post(url, asking)) break
    const canceled = Object.assign(new Error('canceled'), { name: 'CanceledError', code: 'ERR_CANCELED' })
    for (const reason of [undefined, canceled]) {
      const request = http.request(url, { method: 'POST' }).end(asking)
      request.on('error', () => undefined)
      const reply = await responseOf(request)
      const failed = once(reply, 'error')
      request.destroy(reason)
      await failed
    }
    const unanswered = await setUp({ pieces: [], after: 'wait' }, { admitted: () => new Promise(() => undefined) })
    const request = http.request(unanswered.url, { method: 'POST' }).end(asking)
    const failed = once(request, 'error')
    request.destroy()
    await failed
    const ends = (await recorder.ended(3)).map(({ ending }) => ending)
    expect(ends).toEqual(['left', 'left', 'aborted'])
    expect(await unanswered.recorder.ended()).toMatchObject([{ ending: 'aborted', status: 0 }])
  })

  test('a listener that destroys the request when its reply was cut does not make it a reply that was left', async () => {
    const { url, recorder } = await setUp({ headers: sse, pieces: [recorded.subarray(0, 900)], after: 'cut' })
    const request = http.request(url, { method: 'POST' }).end(asking)
    const reply = await responseOf(request)
    reply.on('error', () => request.destroy()).resume()
    expect(await recorder.ended()).toMatchObject([{ ending: 'cut' }])
  })

  test('a body that is ended when its request is gone already is no call, which would never have an end', async () => {
    const { url, recorder, provider } = await setUp({ pieces: ['{}'] })
    const request = http.request(url, { method: 'POST' })
    const failed = once(request, 'error')
    request.destroy()
    await failed
    request.end(asking)
    await turn()
    expect(recorder.calls).toEqual([])
    expect(provider.bodies).toEqual([])
  })

  test('a refused connection and a request thrown away end; one without a listener for errors still fails the process', async () => {
    const { recorder, provider, url } = await setUp({ pieces: [] })
    await provider[Symbol.asyncDispose]()
    const request = http.request(url, { method: 'POST' }).end(asking)
    await expect(once(request, 'response')).rejects.toThrow('ECONNREFUSED')
    expect(await recorder.ended()).toMatchObject([{ ending: 'cut', status: 0, error: { code: 'ECONNREFUSED' } }])
    expect(request.listenerCount('error')).toBe(0)
    expect(request.listenerCount('response')).toBe(0)
    const thrown = http.request(url, { method: 'POST' })
    thrown.write('{')
    const failed = once(thrown, 'error')
    thrown.destroy()
    await failed
    expect(recorder.calls).toHaveLength(1)
  })

  test('a reply without a reader is thrown away as before, and was a call', async () => {
    const { recorder, url } = await setUp({ headers: sse, pieces: [recorded] })
    const request = http.request(url, { method: 'POST' }).end(asking)
    await once(request, 'close')
    expect(await recorder.ended()).toMatchObject([{ ending: 'unread' }])
  })

  test('a denied call sends nothing and fails with the error of the gate; a slow gate is waited for', async () => {
    const refusal = new Error('no more')
    const denied = await setUp({ pieces: [] }, { admitted: () => Promise.reject(refusal) })
    await expect(post(denied.url, asking)).rejects.toBe(refusal)
    expect(denied.provider.bodies).toEqual([])
    expect(await denied.recorder.ended()).toMatchObject([{ ending: 'denied' }])

    const gate = Promise.withResolvers<void>()
    const slow = await setUp({ headers: sse, pieces: [recorded] }, { admitted: () => gate.promise })
    const reply = post(slow.url, asking)
    await turn()
    expect(slow.provider.bodies).toEqual([])
    gate.resolve()
    expect(await buffer(await reply)).toEqual(recorded)
    expect(await slow.recorder.ended()).toMatchObject([{ isHeldBack: false }])

    const left = await setUp({ pieces: [] }, { admitted: () => gate.promise.then(() => turn()) })
    const request = http.request(left.url, { method: 'POST' }).end(asking)
    request.on('error', () => undefined)
    request.destroy()
    expect(await left.recorder.ended()).toMatchObject([{ ending: 'aborted', isHeldBack: true }])
    await turn()
    await turn()
    expect(left.provider.bodies).toEqual([])
  })

  test('a request past the hook is told of as unmetered, once per request; others are nobody’s business', async () => {
    const { recorder, url, provider } = await setUp({ pieces: ['{}'] })
    await buffer(await responseOf(unhooked(url, { method: 'POST' }).end(asking)))
    await buffer(await responseOf(unhooked(`${provider.url}/v1/models`).end()))
    await buffer(await responseOf(http.get(provider.url)))
    await buffer(await post(`${provider.url}/v1/images/generations`, '{}'))
    expect(recorder.unmetered).toEqual(['transport 127.0.0.1', 'api 127.0.0.1'])
    expect(recorder.calls).toEqual([])
  })

  test('a body that is piped from another request is the call of whoever made its own', async () => {
    const provider = stack.use(await startProvider({ pieces: ['{}'] }))
    const { watch } = openRecorder(provider.url)
    const users = new AsyncLocalStorage<string>()
    const told: unknown[] = []
    const startCall: typeof watch.startCall = (start) => {
      told.push([start.request.model, users.getStore()])
      return watch.startCall(start)
    }
    stack.defer(hookNodeHttp({ ...watch, startCall }))
    const service = await listening(stack, (incoming, outgoing) =>
      users.run('ada', () => {
        const options = { method: 'POST' }
        const up = http.request(`${provider.url}/v1/chat/completions`, options, (reply) => reply.pipe(outgoing))
        incoming.pipe(up)
      }),
    )
    expect(await (await fetch(service, { method: 'POST', body: '{"model":"gpt-4o"}' })).text()).toBe('{}')
    expect(told).toEqual([['gpt-4o', 'ada']])
  })

  test('a reply that nobody reads ends its call when it has brought nothing for long, and can be read all the same; one that is waited for is not ended', async () => {
    vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval'] })
    stack.defer(() => void vi.useRealTimers())
    const rest = Promise.withResolvers<void>()
    const { recorder, url } = await setUp({ headers: sse, pieces: [recorded], until: rest.promise })
    const kept = await post(url, asking)
    const read = await post(url, asking)
    const [first] = (await once(read, 'data')) as [Buffer]
    for (let look = 0; look < 3; look++) vi.advanceTimersByTime(limits.replyIdleMs)
    expect(recorder.calls[0]).toMatchObject({ ends: 1, end: { ending: expect.stringMatching(/left|complete/) } })
    expect(recorder.calls[1]?.ends).toBe(0)
    rest.resolve()
    expect(Buffer.concat([first, await buffer(read)])).toEqual(recorded)
    expect(await buffer(kept)).toEqual(recorded)
    expect(recorder.calls).toMatchObject([{ ends: 1 }, { ends: 1, end: { ending: 'complete', reply: { usage } } }])
  })
})
