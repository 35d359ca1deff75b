import { describe, expect, test } from 'vitest'
import type { CallReply, Endpoint } from './call.ts'
import { encodeEvent } from './fixtures/encode-event.ts'
import { openReply } from './reply.ts'

const encoder = new TextEncoder()

type Sent = { readonly status?: number; readonly type?: string; readonly headers?: Readonly<Record<string, string>> }

function endpoint(api: Endpoint['api'], isStream?: boolean): Endpoint {
  return { api, provider: 'openai', model: '', isStream, takesUsageOption: false }
}

function read(
  api: Endpoint['api'],
  body: string | Uint8Array | object,
  sent: Sent = {},
  isStream?: boolean,
): CallReply {
  const headers: Readonly<Record<string, string>> = { 'content-type': sent.type ?? 'application/json', ...sent.headers }
  const head = { status: sent.status ?? 200, header: (name: string) => headers[name] ?? '' }
  const reply = openReply(endpoint(api, isStream), head, true)
  if (body instanceof Uint8Array) reply.write(body)
  else reply.write(encoder.encode(typeof body === 'string' ? body : JSON.stringify(body)))
  reply.end()
  return reply.known()
}

const sse: Sent = { type: 'text/event-stream' }
const delta = (content: string): string => `{"choices":[{"index":0,"delta":{"content":"${content}"}}]}`
const textOf = (reply: CallReply): string =>
  reply.messages.flatMap(({ parts }) => parts.map((part) => (part.type === 'text' ? part.content : ''))).join('')

describe('reply: whole', () => {
  test('chat completions: choices, refusal, tools, usage', () => {
    const reply = read('openai.chat', {
      id: 'c1',
      model: 'gpt-4o',
      choices: [
        { index: 0, message: { role: 'assistant', content: null, refusal: 'No.' }, finish_reason: 'stop' },
        {
          index: 1,
          message: {
            role: 'assistant',
            content: 'Yes',
            tool_calls: [{ id: 't', function: { name: 'f', arguments: '{no json' } }],
          },
          finish_reason: 'tool_calls',
        },
      ],
      usage: { prompt_tokens: 3, completion_tokens: 2, total_tokens: 5 },
    })
    expect(reply).toMatchObject({
      id: 'c1',
      usage: { inputTokens: 3, outputTokens: 2 },
      usageSource: 'provider',
      isComplete: true,
      finishReasons: ['stop', 'tool_call'],
      messages: [
        { parts: [{ type: 'text', content: 'No.' }] },
        { parts: [{ content: 'Yes' }, { type: 'tool_call', name: 'f', arguments: '{no json' }] },
      ],
    })
  })

  test('completions, responses, messages, generateContent, converse and embeddings', () => {
    expect(
      read('openai.completions', {
        choices: [{ index: 0, text: 'abc', finish_reason: 'length' }],
        usage: { prompt_tokens: 1, completion_tokens: 3 },
      }),
    ).toMatchObject({ finishReasons: ['length'], outputChars: 3, usage: { inputTokens: 1, outputTokens: 3 } })
    expect(
      read('openai.responses', {
        object: 'response',
        id: 'r1',
        status: 'incomplete',
        incomplete_details: { reason: 'max_output_tokens' },
        output: [{ type: 'web_search_call' }, { type: 'message', content: [{ type: 'output_text', text: 'half' }] }],
        usage: { input_tokens: 5, output_tokens: 4 },
      }),
    ).toMatchObject({ finishReasons: ['length'], isComplete: true, usage: { inputTokens: 5, outputTokens: 4 } })
    expect(
      read('anthropic.messages', {
        type: 'message',
        id: 'm1',
        content: [
          { type: 'text', text: 'a' },
          { type: 'tool_use', id: 't', name: 'f', input: { x: 1 } },
        ],
        stop_reason: 'tool_use',
        usage: { input_tokens: 10, cache_read_input_tokens: 5, output_tokens: 2 },
      }),
    ).toMatchObject({ usage: { inputTokens: 15, outputTokens: 2 }, toolCalls: [{ id: 't', name: 'f' }] })
    expect(
      read('gemini.generate', {
        promptFeedback: { blockReason: 'SAFETY' },
        usageMetadata: { promptTokenCount: 8, totalTokenCount: 8 },
      }),
    ).toMatchObject({ finishReasons: ['content_filter'], usage: { inputTokens: 8 }, usageSource: 'provider' })
    expect(
      read('bedrock.converse', {
        output: { message: { role: 'assistant', content: [{ text: 'ok' }] } },
        stopReason: 'end_turn',
        usage: { inputTokens: 1, outputTokens: 1, totalTokens: 2 },
      }),
    ).toMatchObject({ finishReasons: ['stop'], isComplete: true, usage: { inputTokens: 1, outputTokens: 1 } })
    expect(
      read('openai.embeddings', {
        model: 'text-embedding-3-small',
        data: [{ embedding: [0.5] }],
        usage: { prompt_tokens: 6, total_tokens: 6 },
      }),
    ).toMatchObject({ model: 'text-embedding-3-small', usage: { inputTokens: 6 }, isComplete: true })
  })

  test('a response that has only been queued is not complete', () => {
    expect(read('openai.responses', { object: 'response', id: 'r', status: 'queued', usage: null })).toMatchObject({
      id: 'r',
      isComplete: false,
      usageSource: 'none',
    })
  })
})

test('reply: a stream of Moonshot tells its usage in the choice that ends', () => {
  const usage = { prompt_tokens: 19, completion_tokens: 13, total_tokens: 32, cached_tokens: 8 }
  const end = JSON.stringify({ choices: [{ index: 0, delta: {}, finish_reason: 'stop', usage }] })
  expect(read('openai.chat', `data: ${delta('a')}\n\ndata: ${end}\n\ndata: [DONE]\n\n`, sse)).toMatchObject({
    usage: { inputTokens: 19, outputTokens: 13, cacheReadTokens: 8 },
    usageSource: 'provider',
  })
})

describe('reply: errors', () => {
  const failed = (status: number): Sent => ({ status })
  test('are named as the provider names them, else by their status', () => {
    const named: readonly (readonly [Endpoint['api'], object | string, Sent, string])[] = [
      [
        'openai.chat',
        { error: { message: 'm', type: 'rate_limit_error', code: 'rate_limit_exceeded' } },
        failed(429),
        'rate_limit_exceeded',
      ],
      [
        'openai.chat',
        { error: { message: 'm', type: 'invalid_request_error', code: null } },
        failed(400),
        'invalid_request_error',
      ],
      [
        'anthropic.messages',
        { type: 'error', error: { type: 'overloaded_error', message: 'm' } },
        failed(529),
        'overloaded_error',
      ],
      [
        'gemini.generate',
        { error: { code: 429, status: 'RESOURCE_EXHAUSTED', message: 'm' } },
        failed(429),
        'RESOURCE_EXHAUSTED',
      ],
      [
        'gemini.generate',
        [{ error: { code: 400, status: 'INVALID_ARGUMENT', message: 'm' } }],
        failed(400),
        'INVALID_ARGUMENT',
      ],
      [
        'bedrock.converse',
        { message: 'm' },
        { status: 400, headers: { 'x-amzn-errortype': 'ThrottlingException:http://x' } },
        'ThrottlingException',
      ],
      ['openai.chat', '', { status: 307 }, '307'],
      ['openai.chat', '<html>bad gateway</html>', { status: 502, type: 'text/html' }, '502'],
      ['openai.chat', '', failed(500), '500'],
      ['openai.chat', { error: 'model not found' }, failed(404), '404'],
    ]
    for (const [api, body, sent, type] of named)
      expect(read(api, body, sent).failure, JSON.stringify(body)).toMatchObject({ type })
  })

  test('in the middle of a stream are failures of a call that has an output', () => {
    const chat = read(
      'openai.chat',
      `data: ${delta('a')}\n\ndata: {"error":{"message":"m","code":"server_error"}}\n\n`,
      sse,
    )
    expect(chat).toMatchObject({ failure: { type: 'server_error' }, isComplete: false, outputChars: 1 })
    const anthropic = 'event: error\ndata: {"type":"error","error":{"type":"overloaded_error","message":"m"}}\n\n'
    expect(read('anthropic.messages', anthropic, sse).failure).toEqual({ type: 'overloaded_error', message: 'm' })
    const events: Sent = { type: 'application/vnd.amazon.eventstream' }
    const throttled = encodeEvent('throttlingException', { message: 'slow' }, 'exception')
    expect(read('bedrock.converse', throttled, events).failure).toEqual({
      type: 'throttlingException',
      message: 'slow',
    })
  })
})

describe('reply: bad input', () => {
  test('HTML where JSON was due is counted, and nothing is known', () => {
    expect(read('openai.chat', '<!doctype html><p>login', { type: 'text/html' })).toMatchObject({
      brokenEvents: 1,
      usage: undefined,
      isComplete: false,
      failure: undefined,
    })
  })

  test('broken lines of a stream are counted, and the rest is read', () => {
    const body = [
      '﻿: comment\n\n',
      `data:${delta('a')}\r\n\r\n`,
      'data: {"choices": [}\n\n',
      'dat: {}\n\nnothing\n\n:\n\ndata\n\n',
      'data: [1]\n\ndata: null\n\ndata: 3\n\n',
      'data: {"choices":{"0":1},"usage":[],"id":5}\n\n',
      `data: {"choices":[{"index":0,\ndata: "delta":{"content":"b"}}]}\r\r`,
      `id: 1\nretry: 3\nevent: x\ndata: ${delta('c')}\n\ndata: [DONE]\n\n`,
    ]
    const reply = read('openai.chat', body.join(''), sse)
    expect(textOf(reply)).toBe('abc')
    expect(reply.brokenEvents).toBe(4)
    expect(reply.isComplete).toBe(true)
  })

  test('counts that cannot be true are not taken', () => {
    for (const count of [-1, 1.5, 1e300, '12'])
      expect(read('openai.chat', { choices: [], usage: { prompt_tokens: count, completion_tokens: 1 } }).usage).toBe(
        undefined,
      )
  })

  test('event streams: a wrong checksum ends the reading, and garbage is no message', () => {
    const events: Sent = { type: 'application/vnd.amazon.eventstream' }
    const good = encodeEvent('contentBlockDelta', { contentBlockIndex: 0, delta: { text: 'a' } })
    const bad = Buffer.from(good)
    bad.writeUInt32BE(0xffffffff, 0)
    expect(read('bedrock.converse', Buffer.concat([good, bad, good]), events)).toMatchObject({
      outputChars: 1,
      brokenEvents: 1,
    })
    expect(read('bedrock.converse', Buffer.from('<html>502 Bad Gateway</html>'), events).brokenEvents).toBe(1)
  })

  const piece = Buffer.alloc(1024 * 1024, 'a')
  const huge: readonly (readonly [string, Endpoint['api'], string, string, string, boolean])[] = [
    [
      'JSON',
      'openai.chat',
      '{"choices":[{"index":0,"message":{"content":"',
      '"},"finish_reason":"stop"}],"usage":{"prompt_tokens":1,"completion_tokens":2}}',
      'application/json',
      true,
    ],
    [
      'one event',
      'openai.responses',
      'event: response.completed\ndata: {"type":"response.completed","response":{"status":"completed","x":"',
      '","usage":{"input_tokens":1,"output_tokens":2}}}\n\n',
      'text/event-stream',
      true,
    ],
    [
      'vectors',
      'openai.embeddings',
      '{"data":[{"embedding":"',
      '"}],"usage":{"prompt_tokens":1}}',
      'application/json',
      true,
    ],
    ['one line without an end', 'openai.chat', 'data', '', 'text/event-stream', false],
    ['HTML', 'openai.chat', '<html>', '', 'text/html', false],
  ]
  test.each(huge)(
    '100 MB of %s are read in a few MB, and usage behind them is found',
    (_, api, head, tail, type, hasUsage) => {
      const reply = openReply(
        endpoint(api),
        { status: 200, header: (name) => (name === 'content-type' ? type : '') },
        true,
      )
      const before = process.memoryUsage()
      reply.write(Buffer.from(head))
      for (let mib = 0; mib < 100; mib++) reply.write(piece)
      const after = process.memoryUsage()
      reply.write(Buffer.from(tail))
      reply.end()
      expect(reply.known().usage?.inputTokens).toBe(hasUsage ? 1 : undefined)
      const grown = after.arrayBuffers + after.heapUsed - before.arrayBuffers - before.heapUsed
      expect(grown).toBeLessThan(16 * 1024 * 1024)
    },
  )

  test('a stream of 100 MB of text keeps a bounded part of it, and counts all of it', () => {
    const reply = openReply(endpoint('openai.chat'), { status: 200, header: () => 'text/event-stream' }, true)
    const event = encoder.encode(`data: ${delta('b'.repeat(10_000))}\n\n`)
    for (let at = 0; at < 10_000; at++) reply.write(event)
    const known = reply.known()
    expect(known.outputChars).toBe(100_000_000)
    expect(known.isContentCut).toBe(true)
    expect(textOf(known).length).toBe(1024 * 1024)
  })
})
