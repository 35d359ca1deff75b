import { readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import type { CallReply, Endpoint } from './call.ts'
import { openReply } from './reply.ts'

const encoder = new TextEncoder()
const head = { status: 200, header: () => 'text/event-stream' }
const endpointOf = (api: Endpoint['api']): Endpoint => ({
  api,
  provider: api.split('.')[0] as string,
  model: '',
  isStream: true,
  takesUsageOption: true,
})

type Event = { readonly name?: string; readonly value: object }
const chunk = (delta: object, more: object = {}, index = 0): Event => ({
  value: {
    id: 'c',
    model: 'm',
    choices: [{ index, delta, logprobs: null, finish_reason: null }],
    usage: null,
    ...more,
  },
})
const anthropic = (value: { readonly type: string }): Event => ({ name: value.type, value })

/** Letters that a parser reads otherwise than they are written, and some that look like structure. */
const letters = [
  'a',
  ' the',
  '"',
  '\\',
  '\n',
  '\u0001',
  '/',
  'é',
  '東',
  '🗼',
  '\ud83d',
  '{',
  '}',
  '":"',
  '[DONE]',
  'data: ',
  '',
]
const texts = Array.from(
  { length: 200 },
  (_, at) => letters.slice(at % 7, (at % 7) + (at % 5)).join('') + (letters[at % 17] ?? ''),
)
const each = (make: (text: string, at: number) => Event): readonly Event[] => texts.map(make)

const streams: Readonly<Record<string, readonly [Endpoint['api'], readonly Event[]]>> = {
  'one text': ['openai.chat', each((content) => chunk({ content }))],
  'padding of any length': [
    'openai.chat',
    each((content, at) =>
      chunk({ content }, { obfuscation: 'x'.repeat(at % 9), created: 1_000 + Math.floor(at / 60) }),
    ),
  ],
  'a role that comes with each piece': ['openai.chat', each((content) => chunk({ role: 'assistant', content }))],
  'two choices by turns': ['openai.chat', each((content, at) => chunk({ content }, {}, at % 2))],
  'reasoning, text and arguments by turns': [
    'openai.chat',
    each((text, at) =>
      at % 3 === 0
        ? chunk({ reasoning_content: text })
        : at % 3 === 1
          ? chunk({ content: text })
          : chunk({ tool_calls: [{ index: at % 2, function: { arguments: text } }] }),
    ),
  ],
  'tools by name in between': [
    'openai.chat',
    each((text, at) =>
      chunk(
        at % 10 === 5 ? { tool_calls: [{ index: at, id: `t${at}`, function: { name: `f${at}` } }] } : { content: text },
      ),
    ),
  ],
  'usage in every event': [
    'openai.chat',
    each((content, at) => chunk({ content }, { usage: { prompt_tokens: 5, completion_tokens: at } })),
  ],
  'an end in the middle': [
    'openai.chat',
    each((content, at) =>
      at === 100
        ? { value: { id: 'c', model: 'm', choices: [{ index: 0, delta: {}, finish_reason: 'length' }] } }
        : chunk({ content }),
    ),
  ],
  'a failure in the middle': [
    'openai.chat',
    each((content, at) =>
      at === 100 ? { value: { error: { code: 'overloaded', message: content } } } : chunk({ content }),
    ),
  ],
  'the same letters in two places': [
    'openai.chat',
    each((content) => chunk({ content }, { system_fingerprint: content })),
  ],
  'blocks of Anthropic': [
    'anthropic.messages',
    each((text, at) => {
      const index = Math.floor(at / 40)
      if (at % 40 === 0)
        return anthropic({ type: 'content_block_start', index, content_block: { type: 'text', text: '' } } as never)
      const delta = index % 2 === 0 ? { type: 'text_delta', text } : { type: 'input_json_delta', partial_json: text }
      return anthropic({ type: 'content_block_delta', index, delta } as never)
    }),
  ],
  'deltas of responses, numbered': [
    'openai.responses',
    each((delta, at) => ({
      name: 'response.output_text.delta',
      value: {
        type: 'response.output_text.delta',
        sequence_number: at,
        output_index: 0,
        content_index: at % 2,
        delta,
        logprobs: [],
      },
    })),
  ],
  'deltas of Gemini by turns': [
    'gemini.generate',
    each((text, at) => ({ value: { candidates: [{ content: { parts: [{ text, thought: at % 4 === 0 }] } }] } })),
  ],
}

function encoded({ name, value }: Event): string {
  return `${name === undefined ? '' : `event: ${name}\n`}data: ${JSON.stringify(value)}\n\n`
}

function read(api: Endpoint['api'], pieces: readonly Uint8Array[], keepsContent: boolean) {
  const reply = openReply(endpointOf(api), head, keepsContent)
  const plain = pieces.filter((piece) => reply.write(piece)).length
  reply.end()
  return { known: reply.known(), plain }
}

/** Byte by byte, no event is ever seen whole, and each is parsed. */
function parsed(api: Endpoint['api'], bytes: Uint8Array, keepsContent: boolean): CallReply {
  return read(
    api,
    Array.from(bytes, (byte) => Uint8Array.of(byte)),
    keepsContent,
  ).known
}

describe('plain events', () => {
  test.each(Object.entries(streams))('%s: known is the same as if every event had been parsed', (_, [api, events]) => {
    const pieces = events.map((event) => encoder.encode(encoded(event)))
    const bytes = Buffer.concat(pieces)
    for (const keepsContent of [true, false]) {
      const expected = parsed(api, bytes, keepsContent)
      expect(expected.outputChars).toBeGreaterThan(100)
      expect(read(api, pieces, keepsContent).known).toEqual(expected)
      expect(read(api, [bytes], keepsContent).known).toEqual(expected)
      for (const size of [97, 1_000]) {
        const cut = Array.from({ length: Math.ceil(bytes.length / size) }, (_, at) =>
          bytes.subarray(at * size, (at + 1) * size),
        )
        expect(read(api, cut, keepsContent).known).toEqual(expected)
      }
    }
  })

  test.each([
    'one text',
    'padding of any length',
    'two choices by turns',
    'blocks of Anthropic',
    'deltas of responses, numbered',
  ])('%s: nearly all are recognised by their bytes', (name) => {
    const [api, events] = streams[name] as (typeof streams)[string]
    const pieces = events.map((event) => encoder.encode(encoded(event)))
    expect(read(api, pieces, false).plain).toBeGreaterThan(150)
  })

  test('what is no JSON is not taken for an event that is', () => {
    const good = encoded(chunk({ content: 'Hello' }))
    for (const bad of ['a\\x', 'a\\u12g4', 'a\u0000', 'a\\', 'a"b'])
      for (const keepsContent of [true, false]) {
        const pieces = [good, good, good.replace('Hello', bad), good].map((text) => encoder.encode(text))
        const expected = parsed('openai.chat', Buffer.concat(pieces), keepsContent)
        expect(expected.brokenEvents).toBe(1)
        expect(read('openai.chat', pieces, keepsContent).known).toEqual(expected)
      }
  })

  test('recordings of providers say the same whichever way they are read', () => {
    const recordings = [
      ['openai.chat', 'openai-chat.sse'],
      ['openai.chat', 'groq-chat.sse'],
      ['openai.responses', 'openai-responses.sse'],
      ['anthropic.messages', 'anthropic-messages.sse'],
      ['gemini.generate', 'gemini-generate.sse'],
    ] as const
    for (const [api, name] of recordings) {
      const bytes = readFileSync(new URL(`fixtures/${name}`, import.meta.url))
      for (const keepsContent of [true, false])
        expect(read(api, [bytes], keepsContent).known).toEqual(parsed(api, bytes, keepsContent))
    }
  })
})
