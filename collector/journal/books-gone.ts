// A journal whose books are gone: what the segments that are left can say takes their place. Which of the records that were
// removed were stored and which quarantined is not known any more. A segment is removed when all of it is, so they are booked as
// stored, and the problem tells how many.
import type { Books } from './books.ts'
import { addSignals } from './books.ts'
import { type BySignal, noneBySignal, signals } from './frame.ts'
import type { Recovered } from './recover.ts'

/** Makes the books balance again. Answers the records that were booked as stored. */
export function rebuildBooks(books: Books, recovered: Recovered): BySignal {
  const inJournal = noneBySignal()
  for (const { records } of recovered.segments) addSignals(inJournal, records)
  for (const signal of signals)
    books.accepted[signal] = Math.max(books.accepted[signal], books.duplicate[signal] + inJournal[signal])
  addSignals(books.stored, recovered.lost)
  return recovered.lost
}
