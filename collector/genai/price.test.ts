import { calcPrice, findProvider } from '@pydantic/genai-prices'
import { expect, test } from 'vitest'
import { divideHalfEven, openPrices, type PricedUsage } from './price.ts'

const providers = [
  ...['openai', 'anthropic', 'google', 'mistral', 'deepseek', 'aws', 'azure', 'groq', 'x-ai', 'cohere', 'perplexity'],
  ...['openrouter', 'fireworks', 'together', 'moonshotai', 'cerebras', 'novita', 'avian', 'huggingface_together'],
]
const atUnixMs = Date.UTC(2026, 6, 1, 12)

test('price: every model of the list costs to the nano-dollar what the list says', () => {
  const priceOf = openPrices([])
  let priced = 0
  for (const providerId of providers) {
    const provider = findProvider({ providerId })
    expect(provider, providerId).toBeDefined()
    for (const { id: model } of provider?.models ?? []) {
      for (const usage of usages) {
        const ours = priceOf({ provider: providerId, model, atUnixMs }, usage)
        const theirs = listPrice(providerId, model, usage)
        expect(ours.kind === 'priced' ? ours.costNanoUsd : undefined, `${providerId} ${model}`).toBe(theirs)
        if (theirs !== undefined) priced++
      }
    }
  }
  expect(priced).toBeGreaterThan(1_000)
})

/** Small and large (the tiers begin at 128,000 and 200,000 tokens), with a cache and without. */
const usages: readonly PricedUsage[] = [
  { inputTokens: 0, outputTokens: 1 },
  { inputTokens: 1_357, outputTokens: 246 },
  { inputTokens: 8_191, outputTokens: 777, cacheReadTokens: 4_096 },
  { inputTokens: 8_191, outputTokens: 777, cacheReadTokens: 4_096, cacheWriteTokens: 1_111 },
  { inputTokens: 199_999, outputTokens: 3_333, reasoningTokens: 3_000 },
  { inputTokens: 200_001, outputTokens: 65_536, cacheReadTokens: 150_003 },
  { inputTokens: 1_048_575, outputTokens: 1, cacheWriteTokens: 7 },
]

function listPrice(providerId: string, model: string, usage: PricedUsage): bigint | undefined {
  const { cacheReadTokens = 0, cacheWriteTokens = 0, reasoningTokens = 0 } = usage
  const counts: Record<string, number> = { input_tokens: usage.inputTokens, output_tokens: usage.outputTokens }
  if (cacheReadTokens > 0) counts.cache_read_tokens = cacheReadTokens
  if (cacheWriteTokens > 0) counts.cache_write_tokens = cacheWriteTokens
  if (reasoningTokens > 0) counts.output_reasoning_tokens = reasoningTokens
  const price = calcPrice(counts, model, { providerId, timestamp: new Date(atUnixMs) })
  return price === null ? undefined : divideHalfEven(BigInt(Math.round(price.total_price * 1e13)), 10_000n)
}

test('price: a model with its provider before it costs what it costs without, and no other provider’s does', () => {
  const priceOf = openPrices([])
  const usage = { inputTokens: 8_191, outputTokens: 777, cacheWriteTokens: 100, cacheWrite1hTokens: 100 }
  const costOf = (provider: string, model: string) => priceOf({ provider, model, atUnixMs }, usage)
  for (const [provider, prefix, model] of [
    ['anthropic', 'anthropic', 'claude-sonnet-4-5'],
    ['openai', 'openai', 'gpt-4o-mini'],
    ['gcp.gemini', 'gemini', 'gemini-2.5-flash'],
  ] as const) {
    expect(costOf(provider, model).kind).toBe('priced')
    expect(costOf(provider, `${prefix}/${model}`)).toEqual(costOf(provider, model))
  }
  expect(costOf('openai', 'groq/gpt-4o-mini').kind).toBe('unpriced')
})
