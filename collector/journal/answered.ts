// The requests of a segment as they are kept beyond it, so that one that comes again within minutes is answered and not stored
// again, also after a crash: a frame without rows. That is a third of what they take as objects, of which minutes of small
// requests would be millions.
import { join } from 'node:path'
import { writeWhole } from './books.ts'
import type { JournalFiles } from './files.ts'
import { type CommittedRequest, encodeFrame, noneBySignal, type Totals } from './frame.ts'

export type AnsweredRequest = CommittedRequest & { readonly unixMs: number }

export type Answered = { readonly frame: Buffer; readonly unixMs: number }

export type AnsweredFiles = {
  /** Whether one of these requests may still come again. */
  isYoung(answered: Answered | undefined): answered is Answered
  /** Keeps those of a segment that is removed, and drops the files of which none can come again. */
  write(sequence: number, answered: Answered): Promise<void>
}

/** `written` are the files that are there, and when their last request was answered. */
export function openAnsweredFiles(options: {
  readonly directory: string
  readonly files: JournalFiles
  readonly now: () => number
  readonly keptMs: number
  readonly written: ReadonlyMap<string, number>
}): AnsweredFiles {
  const { directory, files, now, keptMs } = options
  const written = new Map(options.written)
  return {
    isYoung: (answered): answered is Answered => answered !== undefined && now() - answered.unixMs < keptMs,
    write: async (sequence, { frame, unixMs }) => {
      const name = `${String(sequence).padStart(12, '0')}.answered`
      await writeWhole(files, directory, name, frame)
      for (const known of await files.list(directory)) {
        const answeredMs = written.get(known)
        if (answeredMs === undefined || now() - answeredMs <= keptMs) continue
        written.delete(known)
        await files.remove(join(directory, known))
      }
      written.set(name, unixMs)
    },
  }
}

export function encodeAnswered(requests: readonly AnsweredRequest[], totals: Totals): Answered | undefined {
  const unixMs = requests.at(-1)?.unixMs
  if (unixMs === undefined) return undefined
  const record = { totals, requests }
  const { buffers } = encodeFrame({ commit: 0, unixMs, kept: noneBySignal(), record, snapshots: [] })
  return { frame: Buffer.concat(buffers), unixMs }
}
