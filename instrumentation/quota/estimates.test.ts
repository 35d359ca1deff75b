import { expect, test } from 'vitest'
import { limits } from '../limits.ts'
import type { CallRequest, Endpoint } from '../providers/call.ts'
import { readRequest } from '../providers/request.ts'
import { openEstimates } from './estimates.ts'

const endpoint: Endpoint = {
  api: 'openai.chat',
  provider: 'openai',
  model: '',
  isStream: false,
  takesUsageOption: false,
}

function requestOf(body: object): { readonly request: CallRequest; readonly bytes: number } {
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
