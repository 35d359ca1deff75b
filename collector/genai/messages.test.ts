import { expect, test } from 'vitest'
import { factsOf } from './lift.ts'
import { chatAttributes, messagesOf, sketchSpan } from './testing.ts'

test('messages: text that should be JSON and is none is kept as it came, and marked', () => {
  const broken = '[{"role":"user","parts":[{"type":"te'
  const { understood, malformed } = factsOf(
    sketchSpan({ attributes: { ...chatAttributes, 'gen_ai.input.messages': broken } }),
  )
  expect(messagesOf({ attributes: { ...chatAttributes, 'gen_ai.input.messages': broken } })).toEqual([
    ['input', 'user', 'malformed', broken],
  ])
  expect({ understood: understood.attributes, malformed }).toEqual({
    understood: ['gen_ai.input.messages'],
    malformed: 1,
  })
})

test('messages: nested deeper than anything can write again is kept as text', () => {
  const deep = `${'['.repeat(200_000)}${']'.repeat(200_000)}`
  const lifted = factsOf(
    sketchSpan({
      attributes: {
        ...chatAttributes,
        'gen_ai.input.messages': deep,
        'gen_ai.usage.input_tokens': 5,
        'gen_ai.usage.output_tokens': 1,
      },
    }),
  )
  expect(lifted.broken).toBeUndefined()
  expect(lifted.facts[0]?.says).toMatchObject({ kind: 'call', usage: { inputTokens: 5 } })
})

test('messages: 2 MiB go through byte for byte', () => {
  const text = 'é\u0000"\\\n漢'.repeat(220_000)
  const said = messagesOf({
    attributes: { ...chatAttributes, 'gen_ai.input.messages': JSON.stringify([{ role: 'user', content: text }]) },
  })
  expect(said[0]?.[3] === text).toBe(true)
})

test.each([
  [
    'OpenAI chat',
    [
      {
        role: 'assistant',
        content: null,
        tool_calls: [{ id: 'c', type: 'function', function: { name: 'f', arguments: '{"a":1}' } }],
      },
    ],
    [['assistant', 'tool_call', '{"id":"c","name":"f","arguments":"{\\"a\\":1}"}']],
  ],
  [
    'OpenAI’s result',
    [{ role: 'tool', tool_call_id: 'c', content: 'sunny' }],
    [['tool', 'tool_call_response', '{"id":"c","response":"sunny"}']],
  ],
  [
    'OpenAI Responses',
    [
      { type: 'function_call', call_id: 'c', name: 'f', arguments: '{}' },
      { type: 'function_call_output', call_id: 'c', output: 'ok' },
    ],
    [
      ['assistant', 'tool_call', '{"id":"c","name":"f","arguments":"{}"}'],
      ['tool', 'tool_call_response', '{"id":"c","response":"ok"}'],
    ],
  ],
  [
    'Anthropic',
    [
      {
        role: 'assistant',
        content: [
          { type: 'thinking', thinking: 'hm' },
          { type: 'tool_use', id: 'c', name: 'f', input: { a: 1 } },
        ],
      },
    ],
    [
      ['assistant', 'reasoning', 'hm'],
      ['assistant', 'tool_call', '{"id":"c","name":"f","arguments":{"a":1}}'],
    ],
  ],
  [
    'Anthropic’s result',
    [{ role: 'user', content: [{ type: 'tool_result', tool_use_id: 'c', content: 'ok' }] }],
    [['user', 'tool_call_response', '{"id":"c","response":"ok"}']],
  ],
  [
    'Bedrock',
    [{ role: 'assistant', content: [{ text: 'a' }, { toolUse: { toolUseId: 'c', name: 'f', input: {} } }] }],
    [
      ['assistant', 'text', 'a'],
      ['assistant', 'tool_call', '{"id":"c","name":"f","arguments":{}}'],
    ],
  ],
  [
    'Gemini',
    { contents: [{ role: 'model', parts: [{ text: 'a' }, { functionCall: { name: 'f', args: { a: 1 } } }] }] },
    [
      ['assistant', 'text', 'a'],
      ['assistant', 'tool_call', '{"name":"f","arguments":{"a":1}}'],
    ],
  ],
  [
    'the AI SDK',
    [{ role: 'assistant', content: [{ type: 'tool-call', toolCallId: 'c', toolName: 'f', input: { a: 1 } }] }],
    [['assistant', 'tool_call', '{"id":"c","name":"f","arguments":{"a":1}}']],
  ],
  [
    'Gemini in Python',
    [{ role: 'user', parts: [{ function_response: { name: 'f', response: { a: 1 } } }] }],
    [['user', 'tool_call_response', '{"name":"f","response":{"a":1}}']],
  ],
  [
    'Bedrock’s answer of a tool',
    [{ role: 'tool', tool_call_id: 'c', content: [{ text: 'sunny' }] }],
    [['tool', 'tool_call_response', '{"id":"c","response":"sunny"}']],
  ],
  [
    'what Mistral and Ollama thought',
    [
      { role: 'assistant', content: [{ type: 'thinking', thinking: [{ type: 'text', text: 'so' }] }] },
      { role: 'assistant', content: 'a', thinking: 'so' },
    ],
    [
      ['assistant', 'reasoning', 'so'],
      ['assistant', 'reasoning', 'so'],
      ['assistant', 'text', 'a'],
    ],
  ],
  [
    'tools of the provider',
    [
      {
        role: 'assistant',
        parts: [
          {
            type: 'server_tool_call',
            id: 'c',
            name: 'web_search',
            server_tool_call: { type: 'web_search', query: 'x' },
          },
          { type: 'server_tool_call_response', id: 'c', server_tool_call_response: { results: [1] } },
        ],
      },
    ],
    [
      ['assistant', 'tool_call', '{"id":"c","name":"web_search","arguments":{"type":"web_search","query":"x"}}'],
      ['assistant', 'tool_call_response', '{"id":"c","response":{"results":[1]}}'],
    ],
  ],
  [
    'media',
    [{ role: 'user', parts: [{ type: 'blob', modality: 'image', content: 'AAAA' }] }],
    [['user', 'json', '{"type":"blob","modality":"image","content":"AAAA"}']],
  ],
  ['a plain text', 'hello', [['user', 'text', 'hello']]],
] as const)('messages: %s is read', (_form, value, expected) => {
  const text = typeof value === 'string' ? value : JSON.stringify(value)
  const said = messagesOf({ attributes: { ...chatAttributes, 'gen_ai.input.messages': text } })
  expect(said.map(([_direction, ...rest]) => rest)).toEqual(expected)
})

test.each([
  { role: 'user', name: 'Bob', parts: [{ type: 'text', content: 'hi' }] },
  { role: 'assistant', parts: [{ type: 'tool_call', id: 'c', name: 'f', arguments: {}, note: 'why' }] },
  { role: 'tool', parts: [{ type: 'tool_call_response', id: 'c', response: 'sunny', artifact: 'map' }] },
  { role: 'assistant', content: 'a', tool_calls: [{ id: 'c', function: { name: 'f', arguments: '{}' }, note: 'why' }] },
  { role: 'assistant', content: 'a', reasoning_content: 'so', reasoning: 'or so' },
  { role: 'assistant', tool_calls: [{ id: 'c', function: { name: 'f' } }], function_call: { name: 'g' } },
])('messages: what a message says beyond what rows hold keeps its attribute in the raw span: %o', (message) => {
  const { understood, leftover } = factsOf(
    sketchSpan({ attributes: { ...chatAttributes, 'gen_ai.input.messages': JSON.stringify([message]) } }),
  )
  expect([understood.attributes, leftover.attributes]).toEqual([[], ['gen_ai.input.messages']])
})
