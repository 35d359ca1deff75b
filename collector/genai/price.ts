// What a call costs, in whole nano-dollars: from the bundled price list, or from prices of one's own, which win. An unknown
// price is a state and never 0. Rounded half to even, once per call.
import { calcPrice } from '@pydantic/genai-prices'

declare const nanoUsd: unique symbol
export type NanoUsd = bigint & { readonly [nanoUsd]: true }

/** Tokens of one call. Input includes what was read from and written to a cache; output includes reasoning. */
export type PricedUsage = {
  readonly inputTokens: number
  readonly outputTokens: number
  readonly cacheReadTokens?: number
  readonly cacheWriteTokens?: number
}

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

export type PriceOf = (
  call: { readonly provider: string | undefined; readonly model: string; readonly atUnixMs: number },
  usage: PricedUsage,
) => Priced

/** The version of the bundled list, as `package.json` pins it. */
const listVersion = 'genai-prices 0.1.8'

/** OpenTelemetry's names of providers where the list has another. */
const listProviders: Readonly<Record<string, string>> = {
  'aws.bedrock': 'aws',
  'azure.ai.inference': 'azure',
  'azure.ai.openai': 'azure',
  'gcp.gemini': 'google',
  'gcp.vertex_ai': 'google',
  'gcp.gen_ai': 'google',
  mistral_ai: 'mistral',
  'x.ai': 'x-ai',
}

export function openPrices(own: readonly OwnPrice[]): PriceOf {
  return (call, usage) => ownPrice(own, call, usage) ?? listPrice(call, usage)
}

function ownPrice(
  own: readonly OwnPrice[],
  call: Parameters<PriceOf>[0],
  usage: PricedUsage,
): Extract<Priced, { kind: 'priced' }> | undefined {
  const price = own
    .filter(
      (each) =>
        each.model === call.model &&
        (each.provider === undefined || each.provider === call.provider) &&
        each.fromUnixMs <= call.atUnixMs,
    )
    .sort((a, b) => b.fromUnixMs - a.fromUnixMs)[0]
  if (price === undefined) return undefined
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

function listPrice({ provider, model, atUnixMs }: Parameters<PriceOf>[0], usage: PricedUsage): Priced {
  let listed: ReturnType<typeof calcPrice>
  try {
    listed = calcPrice(
      {
        input_tokens: usage.inputTokens,
        output_tokens: usage.outputTokens,
        ...(usage.cacheReadTokens === undefined ? {} : { cache_read_tokens: usage.cacheReadTokens }),
        ...(usage.cacheWriteTokens === undefined ? {} : { cache_write_tokens: usage.cacheWriteTokens }),
      },
      model,
      {
        timestamp: new Date(atUnixMs),
        ...(provider === undefined ? {} : { providerId: listProviders[provider] ?? provider }),
      },
    )
  } catch (error) {
    // Counts that contradict each other: more tokens read from a cache than were sent, say.
    return { kind: 'unpriced', reason: `the price list does not take this usage: ${(error as Error).message}` }
  }
  if (listed === null)
    return { kind: 'unpriced', reason: `no price is known for ${provider ?? 'any provider'}, ${model}` }
  return { kind: 'priced', costNanoUsd: roundHalfEven(listed.total_price * 1e9) as NanoUsd, priceVersion: listVersion }
}

export function divideHalfEven(dividend: bigint, divisor: bigint): bigint {
  const quotient = dividend / divisor
  const twice = (dividend % divisor) * 2n
  if (twice < divisor || (twice === divisor && quotient % 2n === 0n)) return quotient
  return quotient + 1n
}

function roundHalfEven(value: number): bigint {
  const floor = Math.floor(value)
  const rest = value - floor
  return BigInt(rest > 0.5 || (rest === 0.5 && floor % 2 === 1) ? floor + 1 : floor)
}
