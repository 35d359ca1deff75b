// Tokens of one call, by kind. One convention inside: input includes what was read from and written to a cache, output
// includes reasoning; what is unknown is absent and never 0.

/** Where the numbers come from. `recovered`: out of raw provider JSON on the record. `partial`: a lower bound. */
export type UsageSource = 'provider' | 'recovered' | 'partial' | 'estimated' | 'none'

export type Usage = {
  readonly inputTokens?: number
  readonly cacheReadTokens?: number
  readonly cacheWriteTokens?: number
  /** The part of the cache writes that is kept for an hour and costs more. */
  readonly cacheWrite1hTokens?: number
  readonly inputAudioTokens?: number
  readonly cacheReadAudioTokens?: number
  readonly outputTokens?: number
  readonly reasoningTokens?: number
  readonly outputAudioTokens?: number
  /** Searches that the provider ran on its side and bills by the piece. */
  readonly webSearches?: number
}
