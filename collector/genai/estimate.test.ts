import { expect, test } from 'vitest'
import { limits } from '../limits.ts'
import { estimateTokens, estimateUsage } from './estimate.ts'

test('estimate: texts are counted as OpenAI counts them, with what its chat format adds', () => {
  expect(estimateTokens('Paris is the capital of France.')).toBe(7)
  expect(estimateUsage({ input: ['What is the capital of France?'], output: ['Paris is the'] })).toEqual({
    usage: { inputTokens: 7 + 3 + 3, outputTokens: 3 },
    inputTextTokens: 7,
  })
  expect(estimateUsage({ input: [], output: [] })).toEqual({
    usage: { inputTokens: 3, outputTokens: 0 },
    inputTextTokens: 0,
  })
})

test('estimate: a text that looks like a special token is text', () => {
  expect(estimateTokens('<|endoftext|>')).toBeGreaterThan(3)
})

test.each([
  ['Chinese without a space', '漢字'.repeat(40_000)],
  ['one letter', 'a'.repeat(100_000)],
  ['spaces', ' '.repeat(100_000)],
  ['emoji, some cut in half', '👍'.repeat(30_000)],
  // As one word, these take a quarter of a minute and more.
])('estimate: %s, 60,000 characters and more, is counted in slices', { timeout: 10_000 }, (_case, text) => {
  expect(estimateTokens(text)).toBeGreaterThan(100)
})

test('estimate: beyond its bound it extrapolates', () => {
  const words = 'the quick brown fox '
  const once = estimateTokens(words.repeat(limits.estimatedCharsMax / 20))
  expect(estimateTokens(words.repeat((limits.estimatedCharsMax / 20) * 8)) / (once * 8)).toBeCloseTo(1, 2)
})
