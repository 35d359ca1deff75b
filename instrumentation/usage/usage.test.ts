import { expect, test } from 'vitest'
import { foldFinishReason, providerOf } from './names.ts'
import { countingOf, inclusive, isConsistent, isEmpty, readUsage } from './usage.ts'

const cached = { inputTokens: 100, cacheReadTokens: 2000, cacheWriteTokens: 300, outputTokens: 50 }

test('usage: cached tokens that exceed the input stand beside it, whoever says otherwise', () => {
  expect(readUsage(cached, inclusive)).toEqual({ kind: 'usage', usage: { ...cached, inputTokens: 2400 } })
})

test('usage: a total that is the sum of all parts proves that they stand side by side', () => {
  const usage = { inputTokens: 3000, cacheReadTokens: 2000, outputTokens: 50, reasoningTokens: 10 }
  const read = (totalTokens: number) => readUsage({ ...usage, totalTokens }, inclusive)
  expect(read(3050)).toMatchObject({ usage: { inputTokens: 3000, outputTokens: 50 } })
  expect(read(5050)).toMatchObject({ usage: { inputTokens: 5000, outputTokens: 50 } })
  expect(read(3060)).toMatchObject({ usage: { inputTokens: 3000, outputTokens: 60 } })
  expect(read(5060)).toMatchObject({ usage: { inputTokens: 5000, outputTokens: 60 } })
})

test('usage: what is additive is added once, and what is unknown stays unknown', () => {
  expect(readUsage({ ...cached, inputTokens: 5000 }, countingOf('anthropic'))).toMatchObject({
    usage: { inputTokens: 7300 },
  })
  expect(readUsage({ cacheReadTokens: 5, outputTokens: 1 }, countingOf('anthropic'))).toEqual({
    kind: 'usage',
    usage: { cacheReadTokens: 5, outputTokens: 1 },
  })
})

test('usage: parts within their whole are consistent, an unknown whole holds anything', () => {
  expect(isConsistent({ inputTokens: 10, cacheReadTokens: 6, cacheWriteTokens: 4 })).toBe(true)
  expect(isConsistent({ inputTokens: 10, cacheReadTokens: 6, cacheWriteTokens: 5 })).toBe(false)
  expect(isConsistent({ outputTokens: 1, reasoningTokens: 2 })).toBe(false)
  expect(isConsistent({ cacheReadTokens: 7 })).toBe(true)
  expect([isEmpty({ cacheReadTokens: 7 }), isEmpty({ outputTokens: 0 })]).toEqual([true, false])
})

test.each([
  ['openai.responses', '', 'openai'],
  ['google.generative-ai', '', 'gcp.gemini'],
  ['az.ai.openai', '', 'azure.ai.openai'],
  ['azure.ai.openai', '', 'azure.ai.openai'],
  ['Anthropic', '', 'anthropic'],
  ['AWS', '', 'aws.bedrock'],
  ['strands-agents', 'us.anthropic.claude-sonnet-4-5-20250929-v1:0', 'aws.bedrock'],
  ['langchain', 'gpt-4o-mini', 'openai'],
  ['', 'gemini-2.5-flash', 'gcp.gemini'],
  ['', 'my-own', ''],
  ['mistral_ai', '', 'mistral_ai'],
  ['new-provider', 'gpt-4o', 'new-provider'],
  ['constructor', '', 'constructor'],
])('names: the provider %s with the model %s is %s', (said, model, provider) => {
  expect(providerOf(said, model)).toBe(provider)
})

test.each([
  ['end_turn', 'stop'],
  ['tool-calls', 'tool_call'],
  ['MAX_TOKENS', 'length'],
  ['SAFETY', 'content_filter'],
  ['', ''],
  ['other', 'other'],
  ['__proto__', '__proto__'],
])('names: %s means %s', (said, folded) => {
  expect(foldFinishReason(said)).toBe(folded)
})
