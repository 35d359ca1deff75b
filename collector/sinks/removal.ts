// A segment is removed from the journal when every sink has said that it needs it no more.
import type { Journal } from '../journal/journal.ts'
import type { SealedSegment } from '../journal/sealed-segments.ts'

export type RemoveSegment = (segment: SealedSegment) => Promise<void>

/** Gives each sink its own way of saying so. */
export function openRemovals<Sink extends string>(
  journal: () => Pick<Journal, 'remove'>,
  sinks: readonly Sink[],
): (sink: Sink) => RemoveSegment {
  const doneBy = new Map<number, Set<Sink>>()
  return (sink) => async (segment) => {
    const done = doneBy.get(segment.sequence) ?? new Set<Sink>()
    doneBy.set(segment.sequence, done.add(sink))
    if (done.size < sinks.length) return
    await journal().remove(segment)
    doneBy.delete(segment.sequence)
  }
}
