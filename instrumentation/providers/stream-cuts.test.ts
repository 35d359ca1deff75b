// Every stream is cut at every byte boundary, in two ways: the rest comes in a second piece, and the rest never comes.
import { readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import type { CallReply, Endpoint, OutputMessage } from './call.ts'
import { encodeEvent } from './fixtures/encode-event.ts'
import { openReply, type ReplyHead } from './reply.ts'

type Stream = {
  readonly name: string
  readonly endpoint: Endpoint
  readonly contentType: string
  readonly bytes: Uint8Array
  readonly expected: Partial<CallReply>
}

const fixture = (name: string): Uint8Array => readFileSync(new URL(`fixtures/${name}`, import.meta.url))

const endpoint = (api: Endpoint['api'], provider: string): Endpoint => ({
  api,
  provider,
  model: '',
  isStream: true,
  takesUsageOption: true,
})

const weather = { type: 'tool_call', id: 'call_w1', name: 'get_weather', arguments: { city: 'Zürich' } } as const
const gemini: Partial<CallReply> = {
  id: 'gR7x',
  model: 'gemini-2.5-flash',
  usage: { inputTokens: 1200, cacheReadTokens: 1024, outputTokens: 300, reasoningTokens: 192 },
  finishReasons: ['stop'],
  messages: [
    {
      role: 'assistant',
      parts: [
        { type: 'reasoning', content: 'Denke nach… ' },
        { type: 'text', content: 'Hallo Welt 🌍' },
        { type: 'tool_call', id: '', name: 'lookup', arguments: { begriff: 'Straße' } },
      ],
      finish_reason: 'stop',
    },
  ],
}

const streams: readonly Stream[] = [
  {
    name: 'openai chat',
    endpoint: endpoint('openai.chat', 'openai'),
    contentType: 'text/event-stream; charset=utf-8',
    bytes: fixture('openai-chat.sse'),
    expected: {
      id: 'chatcmpl-CZ4kQ7',
      model: 'gpt-4o-2024-08-06',
      usage: {
        inputTokens: 1200,
        cacheReadTokens: 1024,
        inputAudioTokens: 0,
        outputTokens: 300,
        reasoningTokens: 192,
        outputAudioTokens: 0,
      },
      finishReasons: ['tool_call'],
      toolCalls: [
        { id: 'call_w1', name: 'get_weather' },
        { id: 'call_w2', name: 'get_time' },
      ],
      messages: [
        {
          role: 'assistant',
          parts: [
            { type: 'text', content: 'Grüße aus 東京 🗼' },
            weather,
            { type: 'tool_call', id: 'call_w2', name: 'get_time', arguments: {} },
          ],
          finish_reason: 'tool_call',
        },
      ],
    },
  },
  {
    name: 'groq chat',
    endpoint: endpoint('openai.chat', 'groq'),
    contentType: 'text/event-stream',
    bytes: fixture('groq-chat.sse'),
    expected: {
      usage: { inputTokens: 42, outputTokens: 9 },
      finishReasons: ['stop'],
      messages: [
        {
          role: 'assistant',
          parts: [
            { type: 'reasoning', content: 'Hm — ' },
            { type: 'text', content: 'Yes' },
          ],
          finish_reason: 'stop',
        },
      ],
    },
  },
  {
    name: 'openai responses',
    endpoint: endpoint('openai.responses', 'openai'),
    contentType: 'text/event-stream; charset=utf-8',
    bytes: fixture('openai-responses.sse'),
    expected: {
      id: 'resp_68a1',
      model: 'o4-mini-2025-04-16',
      usage: { inputTokens: 1200, cacheReadTokens: 1024, outputTokens: 300, reasoningTokens: 192 },
      finishReasons: ['tool_call'],
      messages: [
        {
          role: 'assistant',
          parts: [
            { type: 'reasoning', content: 'Überlegt' },
            { type: 'text', content: 'Ich suche 🔎' },
            { type: 'tool_call', id: 'call_r1', name: 'search', arguments: { q: 'Käse' } },
          ],
          finish_reason: 'tool_call',
        },
      ],
    },
  },
  {
    name: 'anthropic messages',
    endpoint: endpoint('anthropic.messages', 'anthropic'),
    contentType: 'text/event-stream; charset=utf-8',
    bytes: fixture('anthropic-messages.sse'),
    expected: {
      id: 'msg_01XF',
      model: 'claude-sonnet-4-5-20250929',
      usage: {
        inputTokens: 2400,
        cacheReadTokens: 2000,
        cacheWriteTokens: 300,
        cacheWrite1hTokens: 100,
        outputTokens: 50,
      },
      finishReasons: ['tool_call'],
      messages: [
        {
          role: 'assistant',
          parts: [
            { type: 'reasoning', content: 'Das Wetter… ' },
            { type: 'text', content: 'Ich sehe nach 🌦️.' },
            { ...weather, id: 'toolu_01' },
          ],
          finish_reason: 'tool_call',
        },
      ],
    },
  },
  {
    name: 'gemini events',
    endpoint: endpoint('gemini.generate', 'gcp.gemini'),
    contentType: 'text/event-stream',
    bytes: fixture('gemini-generate.sse'),
    expected: gemini,
  },
  {
    name: 'gemini array',
    endpoint: endpoint('gemini.generate', 'gcp.gemini'),
    contentType: 'application/json; charset=UTF-8',
    bytes: fixture('gemini-generate.json'),
    expected: gemini,
  },
  {
    name: 'bedrock converse',
    endpoint: endpoint('bedrock.converse', 'aws.bedrock'),
    contentType: 'application/vnd.amazon.eventstream',
    bytes: Buffer.concat([
      encodeEvent('messageStart', { role: 'assistant', p: 'abcd' }),
      encodeEvent('contentBlockDelta', { contentBlockIndex: 0, delta: { reasoningContent: { text: 'Hm. ' } } }),
      encodeEvent('contentBlockDelta', { contentBlockIndex: 0, delta: { reasoningContent: { signature: 'x' } } }),
      encodeEvent('contentBlockStop', { contentBlockIndex: 0 }),
      encodeEvent('contentBlockDelta', { contentBlockIndex: 1, delta: { text: 'Grüß ' } }),
      encodeEvent('contentBlockDelta', { contentBlockIndex: 1, delta: { text: 'dich 👋' } }),
      encodeEvent('contentBlockStart', {
        contentBlockIndex: 2,
        start: { toolUse: { toolUseId: 't1', name: 'get_weather' } },
      }),
      encodeEvent('contentBlockDelta', { contentBlockIndex: 2, delta: { toolUse: { input: '{"city":' } } }),
      encodeEvent('contentBlockDelta', { contentBlockIndex: 2, delta: { toolUse: { input: '"Zürich"}' } } }),
      encodeEvent('messageStop', { stopReason: 'tool_use' }),
      encodeEvent('metadata', {
        usage: {
          inputTokens: 100,
          outputTokens: 50,
          totalTokens: 2450,
          cacheReadInputTokens: 2000,
          cacheWriteInputTokens: 300,
        },
        metrics: { latencyMs: 700 },
      }),
    ]),
    expected: {
      id: 'aws-1',
      usage: { inputTokens: 2400, cacheReadTokens: 2000, cacheWriteTokens: 300, outputTokens: 50 },
      finishReasons: ['tool_call'],
      messages: [
        {
          role: 'assistant',
          parts: [
            { type: 'reasoning', content: 'Hm. ' },
            { type: 'text', content: 'Grüß dich 👋' },
            { ...weather, id: 't1' },
          ],
          finish_reason: 'tool_call',
        },
      ],
    },
  },
]

function headOf(stream: Stream): ReplyHead {
  const headers: Readonly<Record<string, string>> = {
    'content-type': stream.contentType,
    'x-amzn-requestid': 'aws-1',
  }
  return { status: 200, header: (name) => headers[name] ?? '' }
}

function read(stream: Stream, pieces: readonly Uint8Array[], keepsContent = true): CallReply {
  const reply = openReply(stream.endpoint, headOf(stream), keepsContent)
  for (const piece of pieces) reply.write(piece)
  reply.end()
  return reply.known()
}

const textsOf = (messages: readonly OutputMessage[]): string =>
  messages
    .flatMap(({ parts }) => parts)
    .flatMap((part) => (part.type === 'text' || part.type === 'reasoning' ? [part.content] : []))
    .join('')

describe.each(streams)('$name', (stream) => {
  const whole = read(stream, [stream.bytes])

  test('a whole stream gives its text, tool calls, usage, finish reason and id', () => {
    expect(whole).toMatchObject({
      ...stream.expected,
      usageSource: 'provider',
      isComplete: true,
      isContentCut: false,
      failure: undefined,
      brokenEvents: 0,
    })
  })

  test('cut at any byte into two pieces, or into single bytes, it gives the same', () => {
    for (let at = 0; at <= stream.bytes.length; at++)
      expect(read(stream, [stream.bytes.subarray(0, at), stream.bytes.subarray(at)])).toEqual(whole)
    expect(
      read(
        stream,
        [...stream.bytes].map((byte) => Uint8Array.of(byte)),
      ),
    ).toEqual(whole)
  })

  test('ended at any byte, it gives what passed, never more, and says whether usage is the last word', () => {
    const text = textsOf(whole.messages)
    for (let at = 0; at < stream.bytes.length; at++) {
      const known = read(stream, [stream.bytes.subarray(0, at)])
      expect(text.startsWith(textsOf(known.messages))).toBe(true)
      expect(known.outputChars).toBeLessThanOrEqual(whole.outputChars)
      expect(known.usage?.outputTokens ?? 0).toBeLessThanOrEqual(whole.usage?.outputTokens ?? 0)
      if (known.usageSource === 'provider') expect(known.usage).toEqual(whole.usage)
      expect(known.usageSource === 'none').toBe(known.usage === undefined)
      expect(known.brokenEvents).toBeLessThanOrEqual(1)
    }
  })

  test('without content it gives the same numbers and names, and no text', () => {
    const { messages, ...numbers } = whole
    expect(messages).not.toEqual([])
    expect(read(stream, [stream.bytes], false)).toEqual({ ...numbers, messages: [] })
  })
})
