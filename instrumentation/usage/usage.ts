// Tokens of one call, by kind. One convention inside: input includes what was read from and written to a cache, output
// includes reasoning; what is unknown is absent and never 0. Providers and emitters count in other ways: `Counting` says
// what a number contains, and arithmetic proves it where nobody says.

/** Where the numbers come from. `recovered`: out of raw provider JSON on the record. `partial`: a lower bound. */
export type UsageSource = 'provider' | 'recovered' | 'partial' | 'estimated' | 'none'

const kinds = [
  'inputTokens',
  'cacheReadTokens',
  'cacheWriteTokens',
  /** The part of the cache writes that is kept for an hour and costs more. */
  'cacheWrite1hTokens',
  'inputAudioTokens',
  'cacheReadAudioTokens',
  'outputTokens',
  'reasoningTokens',
  'outputAudioTokens',
  /** Searches that the provider ran on its side and bills by the piece. */
  'webSearches',
] as const

export type UsageKind = (typeof kinds)[number]
export type Usage = { readonly [kind in UsageKind]?: number }

/** Counts as they came, by the kind their name speaks of, and the total that some senders add. */
export type RawUsage = { readonly [kind in UsageKind]?: unknown } & { readonly totalTokens?: unknown }

/** What a number contains. `additive`: the cached tokens, or the reasoning, stand beside the number and not inside it. */
export type Counting = { readonly cache: 'inside' | 'additive'; readonly reasoning: 'inside' | 'additive' }

export const inclusive: Counting = { cache: 'inside', reasoning: 'inside' }

/** How a provider's own usage object counts. Who is not named counts as OpenAI does, as OpenTelemetry demands. */
const countingOfProviders: ReadonlyMap<string, Counting> = new Map(
  Object.entries<Counting>({
    anthropic: { cache: 'additive', reasoning: 'inside' },
    'aws.bedrock': { cache: 'additive', reasoning: 'inside' },
    'gcp.gemini': { cache: 'inside', reasoning: 'additive' },
    'gcp.vertex_ai': { cache: 'inside', reasoning: 'additive' },
    x_ai: { cache: 'inside', reasoning: 'additive' },
  }),
)

export function countingOf(provider: string): Counting {
  return countingOfProviders.get(provider) ?? inclusive
}

export type UsageRead =
  | { readonly kind: 'usage'; readonly usage: Usage }
  | { readonly kind: 'none' }
  /** A negative, broken, textual or impossibly large count: none of the record's numbers can be trusted. */
  | { readonly kind: 'absurd' }

export function readUsage(raw: RawUsage, counting: Counting): UsageRead {
  const usage: { -readonly [kind in UsageKind]?: number } = {}
  let known = 0
  for (const kind of kinds) {
    const count = raw[kind]
    if (count === undefined || count === null) continue
    if (typeof count !== 'number' || !Number.isSafeInteger(count) || count < 0) return { kind: 'absurd' }
    usage[kind] = count
    known++
  }
  if (known === 0) return { kind: 'none' }
  return { kind: 'usage', usage: toInclusive(usage, raw.totalTokens, counting) }
}

function toInclusive(usage: Usage, total: unknown, counting: Counting): Usage {
  const { inputTokens, outputTokens, reasoningTokens = 0 } = usage
  const cached = (usage.cacheReadTokens ?? 0) + (usage.cacheWriteTokens ?? 0)
  const sum = (inputTokens ?? 0) + (outputTokens ?? 0)
  const isBesideInput =
    cached > 0 &&
    inputTokens !== undefined &&
    (counting.cache === 'additive' ||
      cached > inputTokens ||
      total === sum + cached ||
      (reasoningTokens > 0 && total === sum + cached + reasoningTokens))
  const isBesideOutput =
    reasoningTokens > 0 &&
    outputTokens !== undefined &&
    (counting.reasoning === 'additive' ||
      reasoningTokens > outputTokens ||
      total === sum + reasoningTokens ||
      (cached > 0 && total === sum + cached + reasoningTokens))
  return {
    ...usage,
    ...(isBesideInput ? { inputTokens: inputTokens + cached } : {}),
    ...(isBesideOutput ? { outputTokens: outputTokens + reasoningTokens } : {}),
  }
}

/** Parts that exceed what they are part of: kept as they are, and not priced. */
export function isConsistent(usage: Usage): boolean {
  const { inputTokens, outputTokens, cacheReadTokens = 0, cacheWriteTokens = 0, reasoningTokens = 0 } = usage
  return (
    (inputTokens === undefined || cacheReadTokens + cacheWriteTokens <= inputTokens) &&
    (outputTokens === undefined || reasoningTokens <= outputTokens)
  )
}

export function isEmpty(usage: Usage): boolean {
  return usage.inputTokens === undefined && usage.outputTokens === undefined
}
