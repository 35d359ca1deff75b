// The books of the journal: what became of every OTLP record since the journal was made. They are written whole, to a new
// file that replaces the old one, before a segment is removed; what a crash leaves unwritten is found in the segments.
//
//   accepted = stored + in journal + quarantined + duplicate
import { join } from 'node:path'
import { z } from 'zod'
import type { JournalFiles } from './files.ts'
import { type BySignal, noneBySignal, type Totals } from './frame.ts'

export type Books = {
  /** Commits up to this one are durable, also when no segment is left to prove it. */
  commit: number
  /** The highest number that a segment has had: never used again. */
  sequence: number
  accepted: BySignal
  duplicate: BySignal
  stored: BySignal
  quarantined: BySignal
  /** What is done of segments that are still there. */
  done: Record<number, DoneOfSegment>
}

export type DoneOfSegment = {
  /** Parts (`table:day`), and corrupt frames (`corrupt:at`). */
  parts: string[]
  /** Their records: no longer in the journal, though the segment is. */
  gone: BySignal
}

export function openBooks(): Books {
  return {
    commit: 0,
    sequence: 0,
    accepted: noneBySignal(),
    duplicate: noneBySignal(),
    stored: noneBySignal(),
    quarantined: noneBySignal(),
    done: {},
  }
}

const fileName = 'books.json'

const count = z.int().min(0)
const bySignal = z.strictObject({ traces: count, metrics: count, logs: count })
/** Strict, as what is not known here would be gone when they are written again. */
const booksSchema = z.strictObject({
  commit: count,
  sequence: count,
  accepted: bySignal,
  duplicate: bySignal,
  stored: bySignal,
  quarantined: bySignal,
  done: z.record(z.string().regex(/^\d+$/), z.strictObject({ parts: z.array(z.string()), gone: bySignal })),
})

/** Undefined when there are none. Books of another shape refuse the start: read as if they were empty, all that was ever stored
 *  would be counted as lost, and numbers of segments be used again. */
export async function readBooks(files: JournalFiles, directory: string): Promise<Books | undefined> {
  const path = join(directory, fileName)
  const text = await readWhole(files, directory, fileName)
  if (text === undefined) return undefined
  const advice =
    'restore it; or remove it, and the collector goes on with what the segments say, which it logs as books_gone'
  let json: unknown
  try {
    json = JSON.parse(text)
  } catch (cause) {
    throw new Error(`${path} does not hold the books of a journal: it is not JSON; ${advice}`, { cause })
  }
  const parsed = booksSchema.safeParse(json)
  if (parsed.success) return parsed.data
  const wrong = parsed.error.issues.map(({ path: place, message }) => `${place.join('.') || 'the file'}: ${message}`)
  throw new Error(`${path} does not hold the books of a journal: ${wrong.slice(0, 3).join('; ')}; ${advice}`)
}

/** The text of a small file of the journal; undefined when there is none. */
export async function readWhole(files: JournalFiles, directory: string, name: string): Promise<string | undefined> {
  if (!(await files.list(directory)).includes(name)) return undefined
  const file = await files.open(join(directory, name), 'read')
  try {
    const bytes = Buffer.alloc(await file.size())
    await file.read(bytes, 0)
    return bytes.toString()
  } finally {
    await file.close()
  }
}

export async function writeBooks(files: JournalFiles, directory: string, books: Books): Promise<void> {
  await writeWhole(files, directory, fileName, Buffer.from(JSON.stringify(books)))
}

/** Replaces a file so that a crash leaves the old one or the new one, never half of either. */
export async function writeWhole(files: JournalFiles, directory: string, name: string, bytes: Buffer): Promise<void> {
  const next = join(directory, `${name}.next`)
  if ((await files.list(directory)).includes(`${name}.next`)) await files.remove(next)
  const file = await files.open(next, 'create')
  try {
    await file.write([bytes], 0)
  } finally {
    await file.close()
  }
  await files.rename(next, join(directory, name))
  await files.syncDirectory(directory)
}

/** The totals of the newest commit, be it in the books or in a frame. */
export function takeTotals(books: Books, commit: number, totals: Totals): void {
  if (commit <= books.commit) return
  books.commit = commit
  books.accepted = { ...totals.accepted }
  books.duplicate = { ...totals.duplicate }
}

export function addSignals(to: BySignal, added: BySignal): void {
  to.traces += added.traces
  to.metrics += added.metrics
  to.logs += added.logs
}

export function subtractSignals(from: BySignal, taken: BySignal): void {
  from.traces -= taken.traces
  from.metrics -= taken.metrics
  from.logs -= taken.logs
}

export function sumOfSignals(a: BySignal, b: BySignal): BySignal {
  return { traces: a.traces + b.traces, metrics: a.metrics + b.metrics, logs: a.logs + b.logs }
}
