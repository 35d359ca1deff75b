// The parents of lifted spans, as far as they have not come: a span that says nothing of models is lifted all the same when it is
// one of these, because a session or a user may stand on it and nowhere else. Asked for every span, so it is a table of two places
// per slot, in which a newer id takes the place of the older: no ids are kept as text, nothing grows, and with a thousand new
// ones a second one of them lives for minutes. Which trace an id is of is not asked: a span that is lifted for nothing is a
// link that nobody needs.

export type AwaitedSpans = {
  /** An id as 16 hex digits. */
  add(spanId: string): void
  /** An id as 8 bytes. */
  has(view: DataView, start: number): boolean
}

const slots = 2 ** 17
const wordsPerSlot = 4

export function openAwaitedSpans(): AwaitedSpans {
  const words = new Uint32Array(slots * wordsPerSlot)
  const placeOf = (low: number): number => (low & (slots - 1)) * wordsPerSlot
  const isAt = (at: number, high: number, low: number): boolean => words[at] === high && words[at + 1] === low
  return {
    add: (spanId) => {
      const high = Number.parseInt(spanId.slice(0, 8), 16)
      const low = Number.parseInt(spanId.slice(8), 16)
      const at = placeOf(low)
      if (isAt(at, high, low)) return
      words.copyWithin(at + 2, at, at + 2)
      words[at] = high
      words[at + 1] = low
    },
    has: (view, start) => {
      const high = view.getUint32(start)
      const low = view.getUint32(start + 4)
      const at = placeOf(low)
      return isAt(at, high, low) || isAt(at + 2, high, low)
    },
  }
}
