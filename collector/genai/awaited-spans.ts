// The parents of lifted spans, as far as they have not come: a span that says nothing of models is lifted all the same when it is
// one of these, because a session or a user may stand on it and nowhere else. Asked for every span, so it is a table of two places
// per slot, in which a newer id takes the place of the older: no ids are kept as text, nothing grows, and with a thousand new
// ones a second one of them lives for minutes. It is half a megabyte, so that it stays in the cache of a core (2 MiB cost 7 %
// of a span's CPU), and is not looked into before anything is awaited. So of an id 16 bits are kept beside its slot, and of a
// trace nothing: a span that is lifted for nothing is a link that nobody needs.

export type AwaitedSpans = {
  /** An id as 16 hex digits. */
  add(spanId: string): void
  /** An id as 8 bytes. */
  has(view: DataView, start: number): boolean
}

const slots = 2 ** 17
const marksPerSlot = 2

export function openAwaitedSpans(): AwaitedSpans {
  const marks = new Uint16Array(slots * marksPerSlot)
  let isAnyAwaited = false
  const placeOf = (low: number): number => (low & (slots - 1)) * marksPerSlot
  // 0 is an empty place.
  const markOf = (high: number): number => (high ^ (high >>> 16)) & 0xffff || 1
  return {
    add: (spanId) => {
      const mark = markOf(Number.parseInt(spanId.slice(0, 8), 16))
      const at = placeOf(Number.parseInt(spanId.slice(8), 16))
      if (marks[at] === mark) return
      marks[at + 1] = marks[at] ?? 0
      marks[at] = mark
      isAnyAwaited = true
    },
    has: (view, start) => {
      if (!isAnyAwaited) return false
      const mark = markOf(view.getUint32(start))
      const at = placeOf(view.getUint32(start + 4))
      return marks[at] === mark || marks[at + 1] === mark
    },
  }
}
