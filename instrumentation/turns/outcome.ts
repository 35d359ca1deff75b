// How something of a service's own ended. What it gives and throws is passed on, at the same time and as the same thing.

export type Outcome = { readonly gave: unknown } | { readonly threw: unknown }

/** Runs `work` and tells of its end: now, or when the promise that it gave is settled. */
export function followed<T>(work: () => T, over: (outcome: Outcome) => void): T {
  let result: T
  try {
    result = work()
  } catch (error) {
    over({ threw: error })
    throw error
  }
  if (!(result instanceof Promise)) {
    over({ gave: result })
    return result
  }
  const gave = (value: unknown): unknown => {
    over({ gave: value })
    return value
  }
  const threw = (error: unknown): void => over({ threw: error })
  if (result.constructor !== Promise) {
    // The promise of an SDK can do more than `then`: what that makes is another one.
    result.then(gave, threw)
    return result
  }
  return result.then(gave, (error: unknown) => {
    threw(error)
    throw error
  }) as T
}
