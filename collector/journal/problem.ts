import type { BySignal } from './frame.ts'

/** What a journal tells of itself that somebody should know; counted by kind and logged. */
export type JournalProblem =
  | { readonly kind: 'write_failed' | 'close_failed'; readonly error: unknown }
  | { readonly kind: 'full'; readonly reason: string }
  /** Read all the same, because it is one that this program would have written. */
  | { readonly kind: 'corrupt_header'; readonly segment: string }
  | { readonly kind: 'corrupt_frame'; readonly segment: string; readonly bytes: number }
  | { readonly kind: 'torn_tail'; readonly segment: string; readonly bytes: number }
  /** Records that were answered and are in no file: booked as quarantined. A segment is missing, or cannot be read at all. */
  | ({ readonly kind: 'records_lost' } & Readonly<BySignal>)
  /** Records that are in no file, and nothing says any more what became of them: booked as stored. */
  | ({ readonly kind: 'books_gone' } & Readonly<BySignal>)
