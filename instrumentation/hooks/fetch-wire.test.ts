import { readFileSync } from 'node:fs'
import zlib from 'node:zlib'
import { Agent, fetch as undiciFetch } from 'undici'
import { Agent as AgentOfUndici6, fetch as undici6Fetch } from 'undici-6'
import { afterEach, describe, expect, test } from 'vitest'
import { limits } from '../limits.ts'
import { hookFetch } from './fetch.ts'
import { type Answer, startProvider } from './fixtures/provider.ts'
import { openRecorder } from './fixtures/recorder.ts'
import { hookUndici } from './undici.ts'

const recorded = readFileSync(new URL('../providers/fixtures/openai-chat.sse', import.meta.url))
const usage = { inputTokens: 1200, outputTokens: 300 }
const sse = { 'content-type': 'text/event-stream' }
const asking = '{"model":"gpt-4o","stream":true,"stream_options":{"include_usage":true}}'
const unasked = '{"model":"gpt-4o","stream":true}'
const platform = globalThis.fetch
const fetches = { 'Node itself': platform, 'undici 8': undiciFetch, 'undici 6': undici6Fetch } as unknown as Readonly<
  Record<string, typeof platform>
>

let stack = new AsyncDisposableStack()
afterEach(async () => {
  await stack.disposeAsync()
  globalThis.fetch = platform
  stack = new AsyncDisposableStack()
})

async function setUp(of: string, answer: Parameters<typeof startProvider>[0]) {
  globalThis.fetch = fetches[of] ?? platform
  const provider = stack.use(await startProvider(answer))
  const recorder = openRecorder(provider.url)
  stack.defer(hookFetch(recorder.watch))
  stack.defer(hookUndici(recorder.watch))
  const url = `${provider.url}/v1/chat/completions`
  const post = (body: string, init: RequestInit = {}): Promise<Response> =>
    fetch(url, { method: 'POST', body, ...init })
  return { provider, recorder, post, url }
}

/** One that is watched itself shows a body of ours. */
const isUntouched = (response: Response): boolean => !Object.hasOwn(response, 'body')

const pieces = [recorded.subarray(0, 700), recorded.subarray(700)]

describe.each(Object.keys(fetches))('fetch of %s', (of) => {
  test('a stream is one call, read below a Response that nobody touched', async () => {
    const { recorder, post } = await setUp(of, { headers: sse, pieces })
    const response = await post(asking)
    expect(isUntouched(response)).toBe(true)
    expect(await response.text()).toBe(recorded.toString())
    expect(recorder.calls).toMatchObject([
      { begun: 1, ends: 1, end: { ending: 'complete', status: 200, reply: { usage } } },
    ])
    expect(recorder.failures).toEqual([])
  })

  test('usage that we asked for is taken out below it', async () => {
    const { recorder, post } = await setUp(of, { headers: sse, pieces })
    const response = await post(unasked)
    expect(isUntouched(response)).toBe(true)
    const text = await response.text()
    expect(text).not.toContain('"choices":[]')
    expect(text.endsWith('data: [DONE]\n\n')).toBe(true)
    expect(await recorder.ended()).toMatchObject([{ ending: 'complete', reply: { usage } }])
  })

  test('left with any reason, aborted and cut are told apart', async () => {
    const { recorder, post } = await setUp(of, (body) => ({
      headers: sse,
      pieces: [recorded.subarray(0, 900)],
      after: body.includes('"cut"') ? 'cut' : 'wait',
    }))
    // What a pipe cancels with, when the other side of it went away, looks like an error of the connection.
    for (const reason of [undefined, 'enough', Object.assign(new Error('gone'), { code: 'ECONNRESET' })]) {
      const response = await post(asking)
      await response.body?.cancel(reason)
    }
    const abort = new AbortController()
    const response = await post(asking, { signal: abort.signal })
    abort.abort()
    await expect(response.text()).rejects.toThrow(expect.objectContaining({ name: 'AbortError' }))
    await expect((await post('{"model":"cut"}')).text()).rejects.toThrow(TypeError)
    expect((await recorder.ended(5)).map(({ ending }) => ending)).toEqual(['left', 'left', 'left', 'aborted', 'cut'])
    for (const { ends } of recorder.calls) expect(ends).toBe(1)
  })

  test('a compressed stream is read at its Response, and loses what we asked for there', async () => {
    const headers = { ...sse, 'content-encoding': 'gzip' }
    const { recorder, post } = await setUp(of, { headers, pieces: [zlib.gzipSync(recorded)] })
    const response = await post(unasked)
    expect(isUntouched(response)).toBe(false)
    expect(await response.text()).not.toContain('"choices":[]')
    expect(recorder.calls).toMatchObject([{ ends: 1, end: { ending: 'complete', reply: { usage } } }])
  })

  test('compressed JSON is read below it: short, longer than is inflated at once, and cut', async () => {
    const usage = { prompt_tokens: 5, completion_tokens: 1 }
    const json = (content: string): string => JSON.stringify({ choices: [{ message: { content } }], usage })
    const gzip = { 'content-type': 'application/json', 'content-encoding': 'gzip' }
    const short = zlib.gzipSync(json('yes'))
    const noise = Buffer.from(Array.from({ length: 200_000 }, (_, at) => (at * at * 7919) % 251)).toString('base64')
    const cases: readonly (readonly [Answer, string])[] = [
      [{ headers: gzip, pieces: [short.subarray(0, 9), short.subarray(9)] }, 'complete 5'],
      [
        { headers: { ...gzip, 'content-encoding': 'br' }, pieces: [zlib.brotliCompressSync(json('yes'))] },
        'complete 5',
      ],
      [{ headers: gzip, pieces: [zlib.gzipSync(json('a'.repeat(2 * limits.inflatedAtOnceBytesMax)))] }, 'complete 5'],
      [{ headers: gzip, pieces: [zlib.gzipSync(json(noise))] }, 'complete 5'],
      [{ headers: gzip, pieces: [short.subarray(0, 30)], after: 'cut' }, 'cut undefined'],
    ]
    for (const [answer, expected] of cases) {
      const { recorder, post } = await setUp(of, answer)
      const response = await post('{"model":"gpt-4o"}')
      expect(isUntouched(response)).toBe(true)
      if (answer.after === 'cut') await expect(response.text()).rejects.toThrow(TypeError)
      else expect(await response.json()).toMatchObject({ usage })
      const [end] = await recorder.ended()
      expect(`${end?.ending} ${end?.reply?.usage?.inputTokens}`).toBe(expected)
      expect(recorder.failures).toEqual([])
    }
  })

  test('a redirect is followed: the call is what the last answer says', async () => {
    const headers = { location: '/elsewhere/v1/chat/completions', ...sse }
    const moved: Answer = { status: 307, headers, pieces: ['data: {"choices":[{"delta":{"content":"no"}}]}\n\n'] }
    const { recorder, post } = await setUp(of, (_, { url }) =>
      url?.startsWith('/elsewhere') ? { headers: sse, pieces } : moved,
    )
    const response = await post(asking)
    expect([response.redirected, isUntouched(response)]).toEqual([true, false])
    expect(await response.text()).toBe(recorded.toString())
    const given = await post(asking, { redirect: 'manual' })
    expect(given.status).toBe(307)
    await given.text()
    expect(recorder.calls).toMatchObject([
      { begun: 1, ends: 1, end: { ending: 'complete', status: 200, reply: { usage } } },
      { ends: 1, end: { ending: 'complete', status: 307 } },
    ])
  })

  test('a provider that cannot be reached is a call without a reply', async () => {
    const { provider, recorder, post } = await setUp(of, { pieces: [] })
    await provider[Symbol.asyncDispose]()
    await expect(post(asking)).rejects.toThrow(TypeError)
    expect(recorder.calls).toMatchObject([{ ends: 1, end: { ending: 'cut', status: 0 } }])
  })
})

test('fetch over one connection for many: each call has its own answer, whoever’s end let it go out', async () => {
  const { recorder, post } = await setUp('undici 8', (body) => ({
    pieces: [JSON.stringify({ choices: [], model: JSON.parse(body).model, usage: { prompt_tokens: 1 } })],
  }))
  const dispatcher = new Agent({ connections: 1 })
  stack.defer(() => dispatcher.close())
  const init: object = { dispatcher }
  const models = Array.from({ length: 20 }, (_, at) => `model-${at}`)
  await Promise.all(
    models.map(async (model) => {
      const response = await post(JSON.stringify({ model }), init)
      expect(await response.json()).toMatchObject({ model })
    }),
  )
  const said = recorder.calls.map(({ start, end, ends }) => [start.request.model, end?.reply?.model, end?.ending, ends])
  expect(said).toEqual(models.map((model) => [model, model, 'complete', 1]))
  expect(recorder.calls.filter(({ start }) => start.transport === 'undici')).toEqual([])
})

test('fetch over few connections: one that waited for another’s is not taken for it, when that has its answer', async () => {
  const packed = { ...sse, 'content-encoding': 'gzip' }
  const { recorder, post } = await setUp('undici 6', (body) =>
    body.includes('packed') ? { headers: packed, pieces: [zlib.gzipSync(recorded)] } : { headers: sse, pieces },
  )
  const dispatcher = new AgentOfUndici6({ connections: 2 })
  stack.defer(() => dispatcher.close())
  const init: object = { dispatcher }
  const packedOnes = [1, 2].map((at) => post(`{"model":"packed-${at}","stream":true}`, init))
  const waiting = [asking, unasked, asking, unasked].map((body) => post(body, init))
  const texts = await Promise.all([...packedOnes, ...waiting].map(async (response) => (await response).text()))
  expect(texts.map((text) => text.includes('"choices":[]'))).toEqual([false, false, true, false, true, false])
  expect(await recorder.ended()).toMatchObject(texts.map(() => ({ ending: 'complete', reply: { usage } })))
})

test('fetch over few connections: one that waits while another is sent again is not taken for it', async () => {
  const { recorder, post } = await setUp('undici 6', (body) => {
    if (body.includes('picky') && body.includes('stream_options')) return { status: 400, pieces: ['{}'] }
    return { headers: sse, pieces: [`data: {"model":"${JSON.parse(body).model}","choices":[]}\n\ndata: [DONE]\n\n`] }
  })
  const dispatcher = new AgentOfUndici6({ connections: 2 })
  stack.defer(() => dispatcher.close())
  const init: object = { dispatcher }
  const models = Array.from({ length: 12 }, (_, at) => (at % 3 === 0 ? `picky-${at}` : `model-${at}`))
  const answered = async (model: string) => (await post(`{"model":"${model}","stream":true}`, init)).text()
  const texts = await Promise.all(models.map(answered))
  expect(texts.map((text) => /"model":"(.*?)"/.exec(text)?.[1])).toEqual(models)
  const ends = await recorder.ended(models.length)
  expect(ends.map(({ reply }) => reply?.model)).toEqual(models)
})
