import { expect, test } from 'vitest'
import { limits } from '../limits.ts'
import type { CallRequest, Endpoint } from '../providers/call.ts'
import { readRequest } from '../providers/request.ts'
import { openEstimates } from './estimates.ts'

function requestOf(
  body: object,
  api: Endpoint['api'] = 'openai.chat',
): { readonly request: CallRequest; readonly bytes: number } {
  const endpoint: Endpoint = { api, provider: '', model: 'a', isStream: false, takesUsageOption: false }
  const text = JSON.stringify(body)
  return { request: readRequest(endpoint, text).request, bytes: text.length }
}

test('estimates: input is bytes by a ratio that settled calls of the model teach, and no other model', () => {
  const estimates = openEstimates()
  const { request } = requestOf({ model: 'a' })
  expect(estimates.of(request, 3_000).inputTokens).toBe(3_000 / limits.bytesPerTokenUsual)
  for (let call = 0; call < 100; call++) estimates.learn(request, 3_000, { inputTokens: 500 })
  expect(estimates.of(request, 3_000).inputTokens).toBeLessThanOrEqual(501)
  expect(estimates.of(request, 3_000).inputTokens).toBeGreaterThanOrEqual(500)
  expect(estimates.of(requestOf({ model: 'b' }).request, 3_000).inputTokens).toBe(3_000 / limits.bytesPerTokenUsual)
  expect(estimates.tokensOf('a', 600)).toBe(101)
})

test('estimates: a provider that counts nonsense does not move the ratio out of its bounds', () => {
  const estimates = openEstimates()
  const { request } = requestOf({ model: 'a' })
  for (let call = 0; call < 100; call++) estimates.learn(request, 1_000_000_000, { inputTokens: 1 })
  expect(estimates.of(request, 4_000).inputTokens).toBeGreaterThanOrEqual(100)
  for (let call = 0; call < 100; call++) estimates.learn(request, 1, { inputTokens: 1_000_000 })
  expect(estimates.of(request, 4_000).inputTokens).toBeLessThanOrEqual(8_000)
  estimates.learn(request, 1_000, { inputTokens: 0, outputTokens: 0 })
  expect(estimates.of(request, 4_000).inputTokens).toBeLessThanOrEqual(8_000)
})

test('estimates: output is the bound of the request, else what 95 of 100 calls of the model wrote', () => {
  const estimates = openEstimates()
  const { request } = requestOf({ model: 'a' })
  expect(estimates.of(requestOf({ model: 'a', max_tokens: 7 }).request, 10).outputTokensMax).toBe(7)
  expect(estimates.of(request, 10).outputTokensMax).toBe(limits.outputTokensUsual)
  for (let call = 1; call < limits.estimatedOutputsMin; call++) estimates.learn(request, 10, { outputTokens: 5 })
  expect(estimates.of(request, 10).outputTokensMax).toBe(limits.outputTokensUsual)
  // The last 64 are 37 to 100: 61 of them are at most 97.
  for (let outputTokens = 1; outputTokens <= 100; outputTokens++) estimates.learn(request, 10, { outputTokens })
  expect(estimates.of(request, 10).outputTokensMax).toBe(97)
  expect(estimates.of(requestOf({ model: 'a', max_tokens: 7 }).request, 10).outputTokensMax).toBe(7)
})

test('estimates: pictures in a long request count as pictures, and teach nothing about text', () => {
  const estimates = openEstimates()
  const url = `data:image/png;base64,${'A'.repeat(400_000)}`
  const content = [
    { type: 'text', text: 'x'.repeat(300) },
    { type: 'image_url', image_url: { url } },
  ]
  const { request, bytes } = requestOf({ model: 'a', messages: [{ role: 'user', content }] })
  const { inputTokens } = estimates.of(request, bytes)
  expect(inputTokens).toBe(100 + limits.mediaTokensUsual)
  for (let call = 0; call < 100; call++) estimates.learn(request, bytes, { inputTokens: 9_000 })
  expect(estimates.of(request, bytes).inputTokens).toBe(inputTokens)
})

const shot = 'A'.repeat(400_000)

test.each([
  [
    'a picture by its address, in a short request',
    'openai.chat',
    {
      messages: [{ role: 'user', content: [{ type: 'image_url', image_url: { url: 'https://x/y.png' } }] }],
    },
  ],
  [
    'a screenshot that a tool gave, Anthropic',
    'anthropic.messages',
    {
      messages: [
        {
          role: 'user',
          content: [
            {
              type: 'tool_result',
              tool_use_id: 't',
              content: [{ type: 'image', source: { type: 'base64', media_type: 'image/png', data: shot } }],
            },
          ],
        },
      ],
    },
  ],
  [
    'a screenshot that a tool gave, Amazon',
    'bedrock.converse',
    {
      messages: [
        {
          role: 'user',
          content: [
            { toolResult: { toolUseId: 't', content: [{ image: { format: 'png', source: { bytes: shot } } }] } },
          ],
        },
      ],
    },
  ],
  [
    'a screenshot that a tool gave, Google',
    'gemini.generate',
    {
      contents: [
        {
          role: 'user',
          parts: [
            {
              functionResponse: {
                name: 'f',
                response: { seen: true },
                parts: [{ inlineData: { mimeType: 'image/png', data: shot } }],
              },
            },
          ],
        },
      ],
    },
  ],
  [
    'a screenshot that a function gave, OpenAI',
    'openai.responses',
    {
      input: [
        {
          type: 'function_call_output',
          call_id: 'c',
          output: [{ type: 'input_image', image_url: `data:image/png;base64,${shot}` }],
        },
      ],
    },
  ],
  [
    'a screenshot that a computer gave, OpenAI',
    'openai.responses',
    {
      input: [
        {
          type: 'computer_call_output',
          call_id: 'c',
          output: { type: 'computer_screenshot', image_url: `data:image/png;base64,${shot}` },
        },
      ],
    },
  ],
] as const)('estimates: %s counts as a picture, and teaches nothing about text', (_, api, body) => {
  const estimates = openEstimates()
  const { request, bytes } = requestOf(body, api)
  const { inputTokens } = estimates.of(request, bytes)
  expect(inputTokens).toBeGreaterThanOrEqual(limits.mediaTokensUsual)
  expect(inputTokens).toBeLessThan(limits.mediaTokensUsual + 100)
  for (let call = 0; call < 30; call++) estimates.learn(request, bytes, { inputTokens: 1_120 })
  expect(estimates.tokensOf('a', 3_000)).toBe(3_000 / limits.bytesPerTokenUsual)
})

test('estimates: beside a picture the definitions of tools count, which are text', () => {
  const estimates = openEstimates()
  const messages = [{ role: 'user', content: [{ type: 'image_url', image_url: { url: 'https://x/y.png' } }] }]
  const tools = [{ type: 'function', function: { name: 'f', description: 'x'.repeat(3_000) } }]
  const { request, bytes } = requestOf({ messages, tools })
  expect(estimates.of(request, bytes).inputTokens).toBeGreaterThanOrEqual(limits.mediaTokensUsual + 1_000)
})

test.each([
  ['a history that the provider keeps', 'openai.responses', { previous_response_id: 'r', input: 'And?' }],
  ['a conversation', 'openai.responses', { conversation: { id: 'c' }, input: 'And?' }],
  ['a prompt by its id', 'openai.responses', { prompt: { id: 'p' }, input: 'And?' }],
  ['cached contents', 'gemini.generate', { cachedContent: 'cachedContents/1', contents: [{ parts: [{ text: '?' }] }] }],
] as const)('estimates: %s is no text that was seen, and teaches only what is written', (_, api, body) => {
  const estimates = openEstimates()
  const { request, bytes } = requestOf(body, api)
  for (let call = 0; call < 30; call++) estimates.learn(request, bytes, { inputTokens: 9_000, outputTokens: 7 })
  expect(estimates.tokensOf('a', 3_000)).toBe(3_000 / limits.bytesPerTokenUsual)
  expect(estimates.of(request, bytes).outputTokensMax).toBe(7)
})

test('estimates: a body that passed unseen teaches nothing about text; one of the old completions, whose prompt is text, does', () => {
  const estimates = openEstimates()
  const { request, bytes } = requestOf({ model: 'a', prompt: 'x'.repeat(3_000) }, 'openai.completions')
  for (let call = 0; call < 30; call++) estimates.learn(request, 0, { inputTokens: 1_600 })
  expect(estimates.tokensOf('a', 3_000)).toBe(3_000 / limits.bytesPerTokenUsual)
  for (let call = 0; call < 30; call++) estimates.learn(request, bytes, { inputTokens: 500 })
  expect(estimates.tokensOf('a', 3_000)).toBeLessThan(600)
})

test('estimates: of models without end the least recently used are forgotten', () => {
  const estimates = openEstimates()
  const modelOf = (at: number): CallRequest => requestOf({ model: `m${at}` }).request
  for (let at = 0; at < limits.estimatedModelsMax; at++) estimates.learn(modelOf(at), 1_000, { inputTokens: 1_000 })
  const learnt = estimates.of(modelOf(0), 3_000).inputTokens
  expect(learnt).toBeGreaterThan(1_000)
  estimates.of(modelOf(limits.estimatedModelsMax), 1)
  expect(estimates.of(modelOf(0), 3_000).inputTokens).toBe(learnt)
  expect(estimates.of(modelOf(1), 3_000).inputTokens).toBe(1_000)
})
