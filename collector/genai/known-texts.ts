// Texts that were written not long ago: a history that is resent with every call is not stored with every call. Forgetting one
// costs a second copy, which ClickHouse drops; so this is small and in memory.

export type KnownTexts = {
  has(text: string): boolean
  add(texts: ReadonlySet<string>): void
  /** Nothing is known until the function that it answers is called, and then only what came since. */
  pause(): () => void
}

export type KnownTextsBounds = {
  readonly entriesMax: number
  /** Nobody relies on a text for longer: it may have been erased meanwhile, through another collector. */
  readonly windowMs: number
}

export function openKnownTexts({ entriesMax, windowMs }: KnownTextsBounds, now: () => number): KnownTexts {
  let young = new Set<string>()
  let old = new Set<string>()
  let youngSinceMs = now()
  let pauses = 0

  function turn(): void {
    if (young.size < entriesMax / 2 && now() - youngSinceMs < windowMs / 2) return
    // After a pause even the younger half is too old.
    old = now() - youngSinceMs < windowMs ? young : new Set()
    young = new Set()
    youngSinceMs = now()
  }

  return {
    has: (text) => {
      turn()
      return pauses === 0 && (young.has(text) || old.has(text))
    },
    add: (texts) => {
      turn()
      for (const text of texts) young.add(text)
    },
    pause: () => {
      pauses++
      return () => {
        pauses--
        young = new Set()
        old = new Set()
      }
    },
  }
}
