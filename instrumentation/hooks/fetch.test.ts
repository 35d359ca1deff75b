import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { Readable } from 'node:stream'
import * as consumers from 'node:stream/consumers'
import { setTimeout as delay } from 'node:timers/promises'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { afterEach, describe, expect, test, vi } from 'vitest'
import { limits } from '../limits.ts'
import { hookFetch } from './fetch.ts'
import { type Provider, startProvider } from './fixtures/provider.ts'
import { openRecorder, type Recorder } from './fixtures/recorder.ts'
import { hookUndici } from './undici.ts'

const recorded = readFileSync(new URL('../providers/fixtures/openai-chat.sse', import.meta.url))
const usage = { inputTokens: 1200, outputTokens: 300 }
const sse = { 'content-type': 'text/event-stream' }
const unhooked = globalThis.fetch
const asking = '{"model":"gpt-4o","stream":true,"stream_options":{"include_usage":true}}'

let stack = new AsyncDisposableStack()
afterEach(async () => {
  await stack.disposeAsync()
  stack = new AsyncDisposableStack()
})

/** `connection`: with the hook on undici, as `register` sets them. `response`: as where undici cannot be seen. */
const places = ['connection', 'response'] as const
type Place = (typeof places)[number]

async function setUp(
  place: Place,
  answer: Parameters<typeof startProvider>[0],
  options: Parameters<typeof openRecorder>[1] = {},
): Promise<{ readonly provider: Provider; readonly recorder: Recorder; readonly url: string }> {
  const provider = stack.use(await startProvider(answer))
  const recorder = openRecorder(provider.url, options)
  stack.defer(hookFetch(recorder.watch))
  if (place === 'connection') stack.defer(hookUndici(recorder.watch))
  return { provider, recorder, url: `${provider.url}/v1/chat/completions` }
}

const post = (url: string, body: string, init: RequestInit = {}): Promise<Response> =>
  fetch(url, { method: 'POST', body, ...init })

function sizedPieces(bytes: Uint8Array, size: number): readonly Uint8Array[] {
  return Array.from({ length: Math.ceil(bytes.length / size) }, (_, at) => bytes.subarray(at * size, (at + 1) * size))
}

describe.each(places)('fetch, read at the %s', (place) => {
  test('a stream reaches the caller byte by byte as it was sent, is one call, and ends with its usage', async () => {
    const { recorder, url } = await setUp(place, { headers: sse, pieces: sizedPieces(recorded, 100) })
    const response = await post(url, asking, { headers: { 'X-Stainless-Retry-Count': '2' } })
    expect(await response.bytes()).toEqual(new Uint8Array(recorded))
    const [end] = await recorder.ended()
    expect(end).toMatchObject({ ending: 'complete', status: 200, reply: { usage, usageSource: 'provider' } })
    expect(recorder.calls).toHaveLength(1)
    expect(recorder.calls[0]).toMatchObject({
      start: { attempt: 3, transport: 'fetch', request: { model: 'gpt-4o', isStream: true } },
      begun: 1,
      ends: 1,
    })
    expect(recorder.failures).toEqual([])
  })

  test('usage is asked for where the caller did not, and it reads the stream without it', async () => {
    const { provider, recorder, url } = await setUp(place, { headers: sse, pieces: sizedPieces(recorded, 7) })
    const text = await (await post(url, '{"stream":true,"model":"m"}', { headers: { 'content-length': '27' } })).text()
    expect(provider.bodies).toEqual(['{"stream_options":{"include_usage":true},"stream":true,"model":"m"}'])
    expect(text).not.toContain('"choices":[]')
    expect(text.length).toBeGreaterThan(2_000)
    expect(text.endsWith('data: [DONE]\n\n')).toBe(true)
    expect(await recorder.ended()).toMatchObject([{ ending: 'complete', reply: { usage } }])
  })

  test('a connection that is lost after a host refused the option is told of, and not that refusal', async () => {
    const { recorder, url } = await setUp(place, (body, request) => {
      if (!body.includes('include_usage')) request.socket.destroy()
      return { status: 400, pieces: ['{"error":{"code":"extra"}}'] }
    })
    await expect(post(url, '{"stream":true}')).rejects.toThrow('fetch failed')
    expect(await recorder.ended()).toMatchObject([{ ending: 'cut', status: 0, reply: undefined }])
  })

  test('a host that refuses the option gets the request as the caller wrote it, and is not asked again', async () => {
    const { provider, recorder, url } = await setUp(place, (body) =>
      body.includes('stream_options')
        ? { status: 400, pieces: ['{"error":{"message":"extra inputs are not permitted"}}'] }
        : { headers: sse, pieces: [recorded] },
    )
    const body = '{"stream":true,"model":"m"}'
    for (let call = 0; call < 2; call++) expect(await (await post(url, body)).text()).toBe(recorded.toString())
    expect(provider.bodies).toEqual([`{"stream_options":{"include_usage":true},${body.slice(1)}`, body, body])
    expect(await recorder.ended(2)).toMatchObject([
      { ending: 'complete', status: 200 },
      { ending: 'complete', status: 200 },
    ])
    expect(recorder.calls).toHaveLength(2)
  })

  test('a request that is refused with and without the option says nothing of it: the host is asked on', async () => {
    const { provider, recorder, url } = await setUp(place, (body) =>
      body.includes('too long')
        ? { status: 400, pieces: ['{"error":{"code":"context_length_exceeded"}}'] }
        : { headers: sse, pieces: [recorded] },
    )
    const refused = await post(url, '{"stream":true,"model":"too long"}')
    expect([refused.status, await refused.text()]).toEqual([400, '{"error":{"code":"context_length_exceeded"}}'])
    await (await post(url, '{"stream":true,"model":"m"}')).text()
    expect(provider.bodies.map((body) => body.includes('include_usage'))).toEqual([true, false, true])
    expect(await recorder.ended(2)).toMatchObject([{ status: 400 }, { status: 200, reply: { usage } }])
  })

  test('headers of a Request stay its own where usage is asked for in a body beside it, unless others are beside it, too', async () => {
    const seen: unknown[] = []
    const { url } = await setUp(place, (_, { headers }) => {
      seen.push([headers.authorization, headers['content-type'], headers['x-own']])
      return { headers: sse, pieces: [recorded] }
    })
    const headers = { authorization: 'Bearer key', 'content-type': 'application/json' }
    for (const each of [unhooked, fetch])
      for (const init of [{}, { headers: { 'x-own': '1' } }]) {
        const request = new Request(url, { method: 'POST', headers })
        await (await each(request, { ...init, body: '{"stream":true}' })).text()
      }
    expect(seen.slice(2)).toEqual(seen.slice(0, 2))
    expect(seen[0]).toEqual(['Bearer key', 'application/json', undefined])
  })

  test('a Response is what it was: url, redirected, type, clone, status, headers, byte readers', async () => {
    const body = '{"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":1}}'
    const { recorder, url } = await setUp(place, {
      status: 201,
      headers: { 'content-type': 'application/json', 'x-request-id': 'r1', 'set-cookie': 'a=b' },
      pieces: [body],
    })
    const own = await unhooked(url, { method: 'POST', body: '{}' })
    await own.text()
    const response = await post(`${url}?q=1`, '{}')
    expect(response).toBeInstanceOf(Response)
    expect(response).toMatchObject({ url: `${url}?q=1`, redirected: false, type: own.type, status: 201, ok: true })
    expect(response.statusText).toBe(own.statusText)
    expect([...response.headers.keys()]).toEqual([...own.headers.keys()])
    const clone = response.clone().clone()
    expect(clone.url).toBe(`${url}?q=1`)
    expect(await clone.json()).toEqual(JSON.parse(body))
    const reader = response.body?.getReader({ mode: 'byob' })
    const first = await reader?.read(new Uint8Array(1024))
    expect(Buffer.from(first?.value ?? []).toString()).toBe(body)
    expect((await reader?.read(new Uint8Array(16)))?.done).toBe(true)
    expect(await recorder.ended(1, 'fetch')).toMatchObject([
      { ending: 'complete', reply: { usage: { inputTokens: 5 } } },
    ])
  })

  test('bodies as text, bytes, Blob and Request are read; a stream of the caller is left alone', async () => {
    const { provider, recorder, url } = await setUp(place, { pieces: ['{}'] })
    const body = '{"model":"gpt-4o"}'
    const bodies: readonly RequestInit[] = [
      { body },
      { body: Buffer.from(body) },
      { body: new TextEncoder().encode(body).buffer },
      { body: new Blob([body]) },
      { body: new Blob([body]).stream(), duplex: 'half' },
    ]
    for (const init of bodies) await (await fetch(url, { method: 'POST', ...init })).text()
    await (await fetch(new Request(url, { method: 'POST', body }))).text()
    await (await fetch(new URL(url), { method: 'post', body })).text()
    expect(provider.bodies).toEqual(Array(7).fill(body))
    const models = recorder.calls.map(({ start }) => start.request.model)
    expect(models).toEqual(['gpt-4o', 'gpt-4o', 'gpt-4o', 'gpt-4o', '', 'gpt-4o', 'gpt-4o'])
  })

  test('what is no call of a model passes untouched', async () => {
    const { recorder, provider } = await setUp(place, { pieces: ['{}'] })
    await (await fetch(`${provider.url}/v1/models`)).text()
    await (await post(`${provider.url}/v1/files`, '{}')).text()
    await expect(fetch('no url')).rejects.toThrow(TypeError)
    await expect(post('http://', '{}')).rejects.toThrow(TypeError)
    expect(recorder.calls).toEqual([])
    expect(recorder.unmetered).toEqual(place === 'connection' ? ['api 127.0.0.1'] : [])
    expect(recorder.failures).toEqual([])
  })
})

/** Each way in which a body can be read, as text. */
const ways: Readonly<Record<string, (response: Response) => Promise<string>>> = {
  text: (response) => response.text(),
  'a pipe': async (response) => {
    let text = ''
    for await (const piece of response.body?.pipeThrough(new TextDecoderStream()) ?? []) text += piece
    return text
  },
  'a stream of node': async (response) => await consumers.text(Readable.fromWeb(response.body as never)),
  'an iterator that stays': async (response) => {
    const body = response.body as ReadableStream<Uint8Array>
    const pieces: Uint8Array[] = []
    for await (const piece of body.values({ preventCancel: true })) {
      pieces.push(piece)
      if (pieces.length === 3) break
    }
    expect(body.locked).toBe(false)
    for await (const piece of body) pieces.push(piece)
    expect(body.locked).toBe(false)
    return Buffer.concat(pieces).toString()
  },
  'readers by turns': async ({ body }) => {
    const pieces: Uint8Array[] = []
    for (let isDone = false; !isDone; ) {
      const reader = body?.getReader() as ReadableStreamDefaultReader<Uint8Array>
      expect(() => body?.getReader()).toThrow(TypeError)
      const { done, value } = await reader.read()
      if (value !== undefined) pieces.push(value)
      reader.releaseLock()
      await expect(reader.read()).rejects.toThrow(TypeError)
      isDone = done
    }
    return Buffer.concat(pieces).toString()
  },
  'many reads at once': async ({ body }) => {
    const reader = body?.getReader() as ReadableStreamDefaultReader<Uint8Array>
    expect(reader).toBeInstanceOf(ReadableStreamDefaultReader)
    const pieces = await Promise.all(Array.from({ length: 60 }, async () => (await reader.read()).value ?? []))
    await reader.closed
    while (!(await reader.read()).done) pieces.push([])
    return Buffer.concat(pieces.map((piece) => Buffer.from(piece))).toString()
  },
  'a new Response': ({ body }) => new Response(body).text(),
  'two branches': async ({ body }) => {
    const [one, two] = body?.tee() ?? []
    const [first, second] = await Promise.all([new Response(one).text(), new Response(two).text()])
    expect(second).toBe(first)
    return first ?? ''
  },
  'a copy, and then itself': async (response) => {
    const copy = response.clone()
    const { url, status } = response
    expect([copy.url, copy.status, copy.bodyUsed]).toEqual([url, status, false])
    const text = await copy.text()
    expect(response.bodyUsed).toBe(false)
    const again = response.clone()
    expect(await response.text()).toBe(text)
    expect(() => response.clone()).toThrow(TypeError)
    await expect(response.text()).rejects.toThrow(TypeError)
    return await again.text()
  },
  'a reader with its own buffer': async ({ body }) => {
    const reader = body?.getReader({ mode: 'byob' })
    const pieces: Uint8Array[] = []
    for (;;) {
      const read = await reader?.read(new Uint8Array(50))
      if (read?.done !== false) break
      pieces.push(read.value)
    }
    return Buffer.concat(pieces).toString()
  },
}

describe.each(places)('fetch, read at the %s: a body is read by', (place) => {
  test.each(Object.keys(ways))('%s, in pieces of any size, with and without something taken out', async (way) => {
    const read = ways[way] as (response: Response) => Promise<string>
    const asked = recorded.toString()
    const unasked = asked
      .split('\n\n')
      .filter((event) => !event.includes('"choices":[]'))
      .join('\n\n')
      .replaceAll(',"usage":null', '')
    for (const size of [50, 61, 5_000])
      for (const body of [asking, '{"model":"gpt-4o","stream":true}']) {
        const { recorder, url } = await setUp(place, { headers: sse, pieces: sizedPieces(recorded, size) })
        const response = await post(url, body)
        expect(await read(response)).toBe(body === asking ? asked : unasked)
        expect(response.bodyUsed).toBe(true)
        expect(await recorder.ended(1, 'fetch')).toMatchObject([{ ending: 'complete', reply: { usage } }])
        expect(recorder.failures).toEqual([])
        await stack.disposeAsync()
        stack = new AsyncDisposableStack()
      }
  })
})

describe.each(places)('fetch, read at the %s: a stream that is not read to its end', (place) => {
  test('is left: the call ends, and the connection with it', async () => {
    const { provider, recorder, url } = await setUp(place, {
      headers: sse,
      pieces: [recorded.subarray(0, 600)],
      after: 'wait',
    })
    const response = await post(url, asking)
    for await (const _ of response.body ?? []) break
    expect(await recorder.ended()).toMatchObject([{ ending: 'left', reply: { usageSource: 'none' } }])
    await provider.closed()
  })

  test('is left behind its end mark: nothing is missing', async () => {
    const { recorder, url } = await setUp(place, { headers: sse, pieces: [recorded], after: 'wait' })
    const response = await post(url, asking)
    for await (const _ of response.body ?? []) break
    expect(await recorder.ended()).toMatchObject([{ ending: 'complete', reply: { usage } }])
  })

  test.each(['signal', 'time-out'])('is aborted by %s, before its head, between reads, and in a read', async (by) => {
    const { recorder, url } = await setUp(place, { headers: sse, pieces: [recorded.subarray(0, 900)], after: 'wait' })
    for (const at of ['between', 'read']) {
      const abort = new AbortController()
      const signal = by === 'signal' ? abort.signal : AbortSignal.timeout(400)
      const response = await post(url, asking, { signal })
      const reader = response.body?.getReader()
      await reader?.read()
      const reading = at === 'read' ? reader?.read() : undefined
      abort.abort()
      if (!signal.aborted) await once(signal, 'abort')
      const name = by === 'signal' ? 'AbortError' : 'TimeoutError'
      await expect(reading ?? reader?.read()).rejects.toThrow(expect.objectContaining({ name }))
    }
    expect(await recorder.ended(2)).toMatchObject([{ ending: 'aborted' }, { ending: 'aborted' }])
    await expect(post(url, asking, { signal: AbortSignal.abort() })).rejects.toThrow(
      expect.objectContaining({ name: 'AbortError' }),
    )
    expect(await recorder.ended(3)).toMatchObject([{}, {}, { ending: 'aborted', status: 0 }])
  })

  test('is cut after any number of bytes: the caller gets the same bytes and the same error', async () => {
    const cuts = [0, 1, 300, 1_000, 2_000, recorded.length - 15, recorded.length]
    for (const cut of cuts) {
      const { recorder, url } = await setUp(place, { headers: sse, pieces: [recorded.subarray(0, cut)], after: 'cut' })
      const outcomes: unknown[] = []
      for (const each of [unhooked, fetch]) {
        const read: Uint8Array[] = []
        try {
          const response = await each(url, { method: 'POST', body: asking })
          for await (const piece of response.body ?? []) read.push(piece)
          outcomes.push('end')
        } catch (error) {
          outcomes.push([(error as Error).name, (error as Error).message, Buffer.concat(read).length])
        }
      }
      expect(outcomes[0]).not.toBe('end')
      expect(outcomes[1]).toEqual(outcomes[0])
      // The platform's fetch, kept from before us, is seen one layer below.
      for (const transport of place === 'connection' ? (['fetch', 'undici'] as const) : (['fetch'] as const)) {
        const [end] = await recorder.ended(1, transport)
        expect(end?.ending).toBe('cut')
        expect(end?.reply?.usageSource).toBe(cut >= recorded.length - 15 ? 'provider' : 'none')
      }
    }
  })

  test('is never read: the call ends when nobody can read it any more, and the connection is given back', async () => {
    setFlagsFromString('--expose-gc')
    const gc = runInNewContext('gc') as () => void
    const { provider, recorder, url } = await setUp(place, {
      headers: sse,
      pieces: [recorded.subarray(0, 900)],
      after: 'wait',
    })
    const status = await post(url, asking).then((response) => response.status)
    expect(status).toBe(200)
    const ended = recorder.ended()
    const isEnded = ended.then(() => true)
    while (!(await Promise.race([isEnded, delay(10, false)]))) gc()
    expect(await ended).toMatchObject([{ ending: 'unread' }])
    await provider.closed()
  })

  test('is not ended while somebody waits for a piece of it, whatever else was forgotten', async () => {
    setFlagsFromString('--expose-gc')
    const gc = runInNewContext('gc') as () => void
    const { recorder, url } = await setUp(place, { headers: sse, pieces: [], after: 'wait' })
    const abort = new AbortController()
    const reading = post(url, asking, { signal: abort.signal }).then(({ body }) => body?.getReader().read())
    const settled = reading.then(() => true)
    for (let round = 0; round < 10; round++) {
      gc()
      expect(await Promise.race([settled, delay(10, false)])).toBe(false)
    }
    expect(recorder.calls[0]?.ends).toBe(0)
    abort.abort()
    await expect(reading).rejects.toThrow(expect.objectContaining({ name: 'AbortError' }))
    expect(await recorder.ended(1, 'fetch')).toMatchObject([{ ending: 'aborted' }])
  })

  test('is aborted before anybody read it: the call ends at once', async () => {
    const { recorder, url } = await setUp(place, { headers: sse, pieces: [recorded.subarray(0, 900)], after: 'wait' })
    const abort = new AbortController()
    const response = await post(url, asking, { signal: abort.signal })
    abort.abort()
    expect(recorder.calls[0]?.end).toMatchObject({ ending: 'aborted' })
    await expect(response.text()).rejects.toThrow(expect.objectContaining({ name: 'AbortError' }))
  })

  test('is not fetched ahead: a slow reader holds the provider back as it did', async () => {
    const piece = Buffer.alloc(64 * 1024, 'a')
    const { provider, url } = await setUp(place, {
      headers: sse,
      pieces: Array<Buffer>(1_000).fill(piece),
      after: 'wait',
    })
    const writtenBy = async (each: typeof fetch): Promise<number> => {
      const before = provider.written()
      const abort = new AbortController()
      const response = await each(url, { method: 'POST', body: asking, signal: abort.signal })
      const reader = response.body?.getReader()
      await reader?.read()
      let last = -1
      for (let now = provider.written(); now !== last; now = provider.written()) {
        last = now
        await delay(100)
      }
      abort.abort()
      return provider.written() - before
    }
    const plain = await writtenBy(unhooked)
    const hooked = await writtenBy(fetch)
    expect(hooked).toBeLessThan(32 * 1024 * 1024)
    expect(Math.abs(hooked - plain)).toBeLessThan(4 * 1024 * 1024)
  })
})

describe('fetch: a stream that is begun and forgotten', () => {
  test.each(['a reader', 'an iterator', 'a clone'])(
    'by %s, read at the response: the call ends as left when nobody can read it any more',
    async (by) => {
      setFlagsFromString('--expose-gc')
      const gc = runInNewContext('gc') as () => void
      const piece = recorded.subarray(0, 900)
      const { provider, recorder, url } = await setUp('response', { headers: sse, pieces: [piece], after: 'wait' })
      const begin = async (): Promise<void> => {
        const response = await post(url, asking)
        const body = (by === 'a clone' ? response.clone().body : response.body) as ReadableStream<Uint8Array>
        const { value } =
          by === 'an iterator' ? await body[Symbol.asyncIterator]().next() : await body.getReader().read()
        expect(value?.length).toBe(piece.length)
      }
      await begin()
      const ended = recorder.ended(1, 'fetch')
      const isEnded = ended.then(() => true)
      while (!(await Promise.race([isEnded, delay(10, false)]))) gc()
      expect(await ended).toMatchObject([{ ending: 'left' }])
      await provider.closed()
    },
  )

  test('read at the connection: the call ends as left when it has brought nothing for long, and the caller may go on', async () => {
    vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval'] })
    stack.defer(() => void vi.useRealTimers())
    const pieces = [recorded.subarray(0, 900)]
    const { recorder, url } = await setUp('connection', { headers: sse, pieces, after: 'wait' })
    const abort = new AbortController()
    const reader = (await post(url, asking, { signal: abort.signal })).body?.getReader()
    expect((await reader?.read())?.value?.length).toBe(900)
    vi.advanceTimersByTime(limits.replyIdleMs)
    expect(recorder.calls[0]?.ends).toBe(0)
    vi.advanceTimersByTime(limits.replyIdleMs)
    expect(recorder.calls[0]).toMatchObject({ ends: 1, end: { ending: 'left', reply: { usageSource: 'none' } } })
    const next = reader?.read()
    abort.abort()
    await expect(next).rejects.toThrow(expect.objectContaining({ name: 'AbortError' }))
    expect(recorder.calls[0]?.ends).toBe(1)
  })
})

describe.each(places)('fetch, read at the %s: the gate and our own failures', (place) => {
  test('a denied call is refused before a byte is sent, with the error of the gate', async () => {
    const refusal = new Error('no more')
    const { provider, recorder, url } = await setUp(place, { pieces: [] }, { admitted: () => Promise.reject(refusal) })
    await expect(post(url, asking)).rejects.toBe(refusal)
    expect(provider.bodies).toEqual([])
    expect(await recorder.ended()).toMatchObject([{ ending: 'denied', error: refusal }])
  })

  test('what the platform refuses to send was not sent; what it lost may have been', async () => {
    const { provider, recorder, url } = await setUp(place, { pieces: [], after: 'cut' })
    for (const headers of [{ authorization: 'Bearer ключ' }, { authorization: 'Bearer a\nb' }])
      for (const body of [asking, '{"stream":true}'])
        await expect(post(url, body, { headers })).rejects.toThrow(TypeError)
    expect(provider.bodies).toEqual([])
    const lost = post(url, asking).then((response) => response.text())
    await expect(lost).rejects.toThrow(TypeError)
    expect((await recorder.ended(5)).map(({ isHeldBack }) => isHeldBack)).toEqual([true, true, true, true, false])
  })

  test('what is sent is what its caller gave, who may use it again for the next request meanwhile', async () => {
    const gate = Promise.withResolvers<void>()
    const keys: unknown[] = []
    const { provider, url } = await setUp(
      place,
      (_, { headers, url: address }) => {
        keys.push(`${headers['idempotency-key']} ${address?.slice(-4)}`)
        return { pieces: ['{}'] }
      },
      { admitted: () => gate.promise },
    )
    const [address, headers, bytes] = [new URL(url), new Headers(), Buffer.from('{"model":"."}')]
    const init: RequestInit = { method: 'POST', headers }
    const replies = [1, 2, 3, 4].map((at) => {
      address.search = `?k=${at}`
      headers.set('idempotency-key', `key-${at}`)
      bytes.write(`${at}`, 10)
      init.body = at === 1 ? bytes : at === 2 ? new Blob([bytes]) : at === 3 ? bytes.toString() : bytes
      return fetch(address, init)
    })
    bytes.fill(0)
    init.body = 'nothing'
    headers.delete('idempotency-key')
    gate.resolve()
    await Promise.all(replies)
    expect(provider.bodies.toSorted()).toEqual([1, 2, 3, 4].map((at) => `{"model":"${at}"}`))
    expect(keys.toSorted()).toEqual([1, 2, 3, 4].map((at) => `key-${at} ?k=${at}`))
  })

  test('a caller that aborts does not wait for the gate', async () => {
    const { provider, recorder, url } = await setUp(
      place,
      { pieces: [] },
      { admitted: () => new Promise(() => undefined) },
    )
    await expect(post(url, asking, { signal: AbortSignal.timeout(20) })).rejects.toThrow(
      expect.objectContaining({ name: 'TimeoutError' }),
    )
    expect(provider.bodies).toEqual([])
    expect(await recorder.ended()).toMatchObject([{ ending: 'aborted', isHeldBack: true }])
  })

  test('a caller that aborts does not wait for the end of the stream that it sends, whose source ends, too', async () => {
    const { provider, recorder, url } = await setUp(place, { pieces: [] })
    const canceled = Promise.withResolvers<unknown>()
    const body = new ReadableStream({
      start: (controller) => controller.enqueue(Buffer.from('{"model":')),
      cancel: canceled.resolve,
    })
    const abort = new AbortController()
    const init = { method: 'POST', body, duplex: 'half', signal: abort.signal } as const
    const asked = fetch(new Request(url, init))
    abort.abort()
    await expect(asked).rejects.toThrow(expect.objectContaining({ name: 'AbortError' }))
    await canceled.promise
    expect(provider.bodies).toEqual([])
    expect(recorder.calls).toMatchObject([{ ends: 1, end: { ending: 'aborted', status: 0, isHeldBack: true } }])
  })

  test('what was aborted before it began has sent nothing, also where no gate was asked; null is no signal', async () => {
    const { provider, recorder, url } = await setUp(place, { pieces: ['{}'] })
    const signal = AbortSignal.abort()
    await expect(post(url, asking, { signal })).rejects.toThrow(expect.objectContaining({ name: 'AbortError' }))
    expect(await recorder.ended()).toMatchObject([{ ending: 'aborted', isHeldBack: true }])
    expect(provider.bodies).toEqual([])
    const request = new Request(url, { method: 'POST', body: asking, signal })
    expect(await (await fetch(request, { signal: null })).text()).toBe('{}')
    expect(await recorder.ended(2)).toMatchObject([{}, { ending: 'complete', isHeldBack: false }])
  })

  test('when whatever of ours throws, the caller sees what it would have seen', async () => {
    const { provider, recorder } = await setUp(place, { headers: sse, pieces: [recorded] })
    const broken = (): never => {
      throw new Error('ours')
    }
    const record = { admitted: undefined, inContext: <T>(work: () => T): T => work(), begun: broken, finish: broken }
    for (const watch of [
      { ...recorder.watch, endpointOf: broken },
      { ...recorder.watch, startCall: broken },
      { ...recorder.watch, startCall: () => record },
    ]) {
      const undo = hookFetch(watch)
      const text = await (await post(`${provider.url}/v1/chat/completions`, asking)).text()
      undo()
      expect(text).toBe(recorded.toString())
    }
    expect(recorder.failures.length).toBeGreaterThanOrEqual(3)
  })
})

test('fetch: pieces that a `fetch` of the service’s own makes, empty or out of Node’s pool, reach its reader as they are', async () => {
  const url = 'http://model.example/v1/chat/completions'
  const pieces = [Buffer.from('{"a":'), new Uint8Array(), Buffer.from('"Grüße"}')]
  const whole = Buffer.concat(pieces).toString()
  stack.defer(() => {
    globalThis.fetch = unhooked
  })
  globalThis.fetch = async () =>
    new Response(ReadableStream.from(pieces), { headers: { 'content-type': 'application/json' } })
  stack.defer(hookFetch(openRecorder('http://model.example').watch))
  const read = await post(url, asking)
  const copied = await post(url, asking)
  const copy = copied.clone()
  expect(await new Response(read.body?.pipeThrough(new TransformStream()) ?? null).text()).toBe(whole)
  expect([await copied.text(), await copy.text()]).toEqual([whole, whole])
})
