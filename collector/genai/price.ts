// What a call costs, in whole nano-dollars: from the bundled price list, or from prices of one's own, which win. An unknown
// price is a state and never 0. Rounded half to even, once per call. Prices have dates: a call costs what it cost then.
import {
  calcPrice,
  findProvider,
  type ModelInfo,
  type ModelPrice,
  type Provider,
  type TieredPrices,
} from '@pydantic/genai-prices'
import type { Usage } from '@tallylight/instrumentation/usage/usage.ts'
import { limits } from '../limits.ts'

declare const nanoUsd: unique symbol
export type NanoUsd = bigint & { readonly [nanoUsd]: true }

/** Tokens of one call. Input includes what was read from and written to a cache; output includes reasoning. */
export type PricedUsage = Usage & { readonly inputTokens: number; readonly outputTokens: number }

/** A price of one's own: for a contract, or a model that no list has. Nano-dollars per million tokens. */
export type OwnPrice = {
  readonly provider?: string
  readonly model: string
  /** Unix milliseconds; of several, the latest that has begun counts. */
  readonly fromUnixMs: number
  readonly inputNanoUsdPerMillion: bigint
  readonly outputNanoUsdPerMillion: bigint
  readonly cacheReadNanoUsdPerMillion?: bigint
  readonly cacheWriteNanoUsdPerMillion?: bigint
}

export type Priced =
  | { readonly kind: 'priced'; readonly costNanoUsd: NanoUsd; readonly priceVersion: string }
  | { readonly kind: 'unpriced'; readonly reason: string }

export type PricedCall = { readonly provider: string | undefined; readonly model: string; readonly atUnixMs: number }
export type PriceOf = (call: PricedCall, usage: PricedUsage) => Priced

/** The version of the bundled list, as `package.json` pins it. */
const listVersion = 'genai-prices 0.1.8'

/** OpenTelemetry's names of providers where the list has another. Without a line here `azure.ai.*` would be priced as
 *  OpenAI's, and `x_ai` not at all. */
const listProviders: ReadonlyMap<string, string> = new Map(
  Object.entries<string>({
    'aws.bedrock': 'aws',
    'azure.ai.inference': 'azure',
    'azure.ai.openai': 'azure',
    'gcp.gemini': 'google',
    'gcp.vertex_ai': 'google',
    'gcp.gen_ai': 'google',
    mistral_ai: 'mistral',
    moonshot_ai: 'moonshotai',
    together_ai: 'together',
    x_ai: 'x-ai',
    'x.ai': 'x-ai',
  }),
)

/** What the list knows of one provider and model, so that asking for the price of the next call does not match a name
 *  against 1,400 models again: the provider with this model alone, and its rates where they are plain. */
type Listed = { readonly provider: Provider; readonly model: string; readonly rates: Rates | undefined } | null

/** Dollars per million tokens. */
type Rates = { readonly input: Rate; readonly cacheRead: Rate; readonly cacheWrite: Rate; readonly output: Rate }
type Rate = number | TieredPrices

export function openPrices(own: readonly OwnPrice[]): PriceOf {
  const ownOfModels = Map.groupBy(
    own.toSorted((a, b) => b.fromUnixMs - a.fromUnixMs),
    (price) => price.model,
  )
  /** By provider, then by model. */
  const listed = new Map<string, Map<string, Listed>>()
  let pairs = 0

  function listedOf(call: PricedCall): Listed {
    const provider = call.provider ?? ''
    const known = listed.get(provider)?.get(call.model)
    if (known !== undefined) return known
    if (pairs >= limits.pricedModelsMax) {
      listed.clear()
      pairs = 0
    }
    const found = findListed(call)
    const ofProvider = listed.get(provider) ?? new Map<string, Listed>()
    listed.set(provider, ofProvider.set(call.model, found))
    pairs++
    return found
  }

  return (call, usage) => {
    const ownPrice = ownOfModels.get(call.model)?.find((price) => isInForce(price, call))
    return ownPrice === undefined ? priceByList(listedOf(call), call, usage) : priceByOwn(ownPrice, usage)
  }
}

function isInForce(price: OwnPrice, call: PricedCall): boolean {
  return price.fromUnixMs <= call.atUnixMs && (price.provider === undefined || price.provider === call.provider)
}

function priceByOwn(price: OwnPrice, usage: PricedUsage): Priced {
  const { inputTokens, outputTokens, cacheReadTokens = 0, cacheWriteTokens = 0 } = usage
  const plain = Math.max(0, inputTokens - cacheReadTokens - cacheWriteTokens)
  const sum =
    BigInt(plain) * price.inputNanoUsdPerMillion +
    BigInt(cacheReadTokens) * (price.cacheReadNanoUsdPerMillion ?? price.inputNanoUsdPerMillion) +
    BigInt(cacheWriteTokens) * (price.cacheWriteNanoUsdPerMillion ?? price.inputNanoUsdPerMillion) +
    BigInt(outputTokens) * price.outputNanoUsdPerMillion
  return {
    kind: 'priced',
    costNanoUsd: divideHalfEven(sum, 1_000_000n) as NanoUsd,
    priceVersion: `own ${new Date(price.fromUnixMs).toISOString().slice(0, 10)}`,
  }
}

function listProviderOf({ provider }: PricedCall): { readonly providerId?: string } {
  return provider === undefined || provider === '' ? {} : { providerId: listProviders.get(provider) ?? provider }
}

function findListed(call: PricedCall): Listed {
  const model = withoutProvider(call)
  return findNamed(call) ?? (model === undefined ? null : findNamed({ ...call, model }))
}

/** Gateways like LiteLLM put the provider before its model: `openai/gpt-4o`. */
function withoutProvider(call: PricedCall): string | undefined {
  const slash = call.model.indexOf('/')
  if (slash < 0 || call.provider === undefined) return undefined
  const prefix = findProvider({ providerId: call.model.slice(0, slash) })
  const isOwn = prefix !== undefined && prefix.id === findProvider(listProviderOf(call))?.id
  return isOwn ? call.model.slice(slash + 1) : undefined
}

function findNamed(call: PricedCall): Listed {
  // Asked for one token, the list answers with the provider and model that it would price by.
  const found = calcPrice({ input_tokens: 1 }, call.model, listProviderOf(call))
  if (found === null) return null
  // A model taken over from another provider's list has to be looked up there again.
  if (call.provider !== undefined && findProvider(listProviderOf(call))?.id !== found.provider.id) return null
  const provider = { ...found.provider, models: [found.model satisfies ModelInfo] }
  return { provider, model: call.model, rates: ratesOf(found.model) }
}

/** Prices that hold at any time and are of these kinds of tokens, as far as a usage is plain. */
function ratesOf({ prices }: ModelInfo): Rates | undefined {
  if (Array.isArray(prices)) return undefined
  const { input_mtok: input, output_mtok: output, cache_read_mtok, cache_write_mtok, ...others } = prices as ModelPrice
  if (input === undefined || output === undefined || Object.keys(others).some((key) => pricesOfPlain.has(key)))
    return undefined
  return { input, cacheRead: cache_read_mtok ?? input, cacheWrite: cache_write_mtok ?? input, output }
}

/** Prices that a plain usage has too: of the request itself, and of reasoning apart from the output it stands in. */
const pricesOfPlain: ReadonlySet<string> = new Set(['requests_kcount', 'output_reasoning_mtok'])

/** Nothing was used that the list may have a price of its own for. */
function isPlain(usage: PricedUsage): boolean {
  return (
    !usage.cacheWrite1hTokens &&
    !usage.inputAudioTokens &&
    !usage.cacheReadAudioTokens &&
    !usage.outputAudioTokens &&
    !usage.webSearches
  )
}

/** As the list adds it up: the tier of all input holds for each kind of token. */
function priceByRates({ input, cacheRead, cacheWrite, output }: Rates, usage: PricedUsage): NanoUsd | undefined {
  const { inputTokens, outputTokens, cacheReadTokens = 0, cacheWriteTokens = 0 } = usage
  const plain = inputTokens - cacheReadTokens - cacheWriteTokens
  if (plain < 0) return undefined
  const rate = (of: Rate): number => (typeof of === 'number' ? of : rateInTier(of, inputTokens))
  const microUsd =
    rate(input) * plain +
    rate(cacheRead) * cacheReadTokens +
    rate(cacheWrite) * cacheWriteTokens +
    rate(output) * outputTokens
  return nanoUsdOf(microUsd / 1e6)
}

function rateInTier({ base, tiers }: TieredPrices, inputTokens: number): number {
  let rate = base
  let from = -1
  for (const { start, price } of tiers)
    if (inputTokens > start && start > from) {
      rate = price
      from = start
    }
  return rate
}

function priceByList(listed: Listed, call: PricedCall, usage: PricedUsage): Priced {
  if (listed === null)
    return { kind: 'unpriced', reason: `no price is known for ${call.provider ?? 'any provider'}, ${call.model}` }
  const plainCost = listed.rates === undefined || !isPlain(usage) ? undefined : priceByRates(listed.rates, usage)
  if (plainCost !== undefined) return { kind: 'priced', costNanoUsd: plainCost, priceVersion: listVersion }
  try {
    const price = calcPrice(listUsage(usage), listed.model, {
      provider: listed.provider,
      timestamp: new Date(call.atUnixMs),
    })
    if (price === null) return { kind: 'unpriced', reason: `no price was in force for ${call.model} then` }
    return {
      kind: 'priced',
      costNanoUsd: nanoUsdOf(price.total_price),
      priceVersion: listVersion,
    }
  } catch (error) {
    // The list throws when a part is more than what it is part of: such counts have no price.
    return {
      kind: 'unpriced',
      reason: `the tokens contradict each other: ${error instanceof Error ? error.message : ''}`,
    }
  }
}

function listUsage(usage: PricedUsage): Record<string, number> {
  const parts = {
    cache_read_tokens: usage.cacheReadTokens,
    cache_write_tokens: usage.cacheWriteTokens,
    cache_write_1h_tokens: usage.cacheWrite1hTokens,
    input_audio_tokens: usage.inputAudioTokens,
    cache_audio_read_tokens: usage.cacheReadAudioTokens,
    output_reasoning_tokens: usage.reasoningTokens,
    output_audio_tokens: usage.outputAudioTokens,
    web_searches: usage.webSearches,
  }
  const known: Record<string, number> = { input_tokens: usage.inputTokens, output_tokens: usage.outputTokens }
  for (const [kind, count] of Object.entries(parts)) if (count !== undefined && count > 0) known[kind] = count
  return known
}

/** The list adds floats; what lies nearer to a half than they are exact is a half. */
function nanoUsdOf(usd: number): NanoUsd {
  return divideHalfEven(BigInt(Math.round(usd * 1e13)), 10_000n) as NanoUsd
}

export function divideHalfEven(dividend: bigint, divisor: bigint): bigint {
  const quotient = dividend / divisor
  const twice = (dividend % divisor) * 2n
  if (twice < divisor || (twice === divisor && quotient % 2n === 0n)) return quotient
  return quotient + 1n
}
