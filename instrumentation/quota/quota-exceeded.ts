// The one error that the instrumentation throws into a service, on purpose: a limit does not let the call through.

export type Denial = {
  /** `limit`: one has no room. `price`: none is known, and a limit on cost blocks. `away`: the quota service does not answer, and
   *  the tenant's policy refuses. */
  readonly reason: 'limit' | 'price' | 'away'
  /** '' where no limit is the reason, and what follows is then 0 or unknown. */
  readonly limitId: string
  readonly measure: string
  /** Nano-dollars, tokens or calls, by the measure: what the call may need, what the limit grants, and what of it is left. */
  readonly requested: bigint
  readonly limit: bigint
  readonly used: bigint
  readonly held: bigint
  readonly free: bigint
  /** When the window ends; undefined where only settlements make room. */
  readonly resetsAt: Date | undefined
  readonly retryAfterMs: number | undefined
}

export class QuotaExceededError extends Error {
  override readonly name = 'QuotaExceededError'
  readonly denial: Denial

  constructor(message: string, denial: Denial) {
    super(message)
    this.denial = denial
  }
}

const causesMax = 8

/** SDKs wrap what `fetch` throws in errors of their own: this finds it in whatever reached the service. */
export function quotaExceededIn(error: unknown): QuotaExceededError | undefined {
  let each = error
  for (let depth = 0; depth < causesMax && each instanceof Error; depth++) {
    // By its name, since two copies of this package have two classes.
    if (each.name === 'QuotaExceededError' && 'denial' in each) return each as QuotaExceededError
    each = each.cause ?? lastOf(each)
  }
  return undefined
}

/** Who tries again tells all that went wrong, and the last is what ended it: `AggregateError`, `RetryError` of the AI SDK. */
function lastOf(error: Error): unknown {
  const { errors } = error as { readonly errors?: unknown }
  return Array.isArray(errors) ? errors.at(-1) : undefined
}

/** Refused because nobody could be asked. */
export function refusedWhileAway(why: string): QuotaExceededError {
  const unknown = { limitId: '', measure: '', requested: 0n, limit: 0n, used: 0n, held: 0n, free: 0n }
  const denial: Denial = { reason: 'away', ...unknown, resetsAt: undefined, retryAfterMs: undefined }
  return new QuotaExceededError(`the quota service is not available (${why}), and the tenant's policy refuses`, denial)
}
