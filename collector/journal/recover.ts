// What a start finds in the journal's directory: which commits were made durable, what of each segment belongs to them,
// and which requests were answered in the last minutes. It reads the heads of frames, not their rows, so a backlog of
// gigabytes does not hold the start up. Once every file was read and understood, the tails that were never answered are
// cut off: left there, a later commit of the same number would make them valid.
import { join } from 'node:path'
import type { Books } from './books.ts'
import { addSignals } from './books.ts'
import type { JournalFiles } from './files.ts'
import { type BySignal, type FrameHead, noneBySignal, type Totals } from './frame.ts'
import type { AnsweredRequest, JournalProblem } from './journal.ts'
import {
  type Lane,
  readSegmentHeader,
  type SegmentHeader,
  scanFrames,
  segmentFileName,
  sequenceOfFile,
} from './segment.ts'

export type RecoveredSegment = {
  readonly sequence: number
  readonly lane: Lane
  readonly createdUnixMs: number
  readonly bytes: number
  readonly header: SegmentHeader
  readonly headerBytes: number
  readonly records: BySignal
  readonly requests: readonly AnsweredRequest[]
}

export type Recovered = {
  readonly segments: readonly RecoveredSegment[]
  readonly commit: number
  readonly totals: Totals | undefined
  readonly sequenceMax: number
  readonly answered: readonly AnsweredRequest[]
  readonly answeredFiles: ReadonlyMap<string, number>
  readonly problems: readonly JournalProblem[]
  readonly corruptFrames: number
  /** The records of a part that is done, by the rows of its table. */
  recordsOfPart(sequence: number, key: string): BySignal
}

type Scanned = {
  readonly sequence: number
  readonly header: SegmentHeader
  readonly headerBytes: number
  readonly bytes: number
  readonly frames: readonly { readonly head: FrameHead; readonly end: number }[]
}

export async function recoverSegments(input: {
  readonly files: JournalFiles
  readonly directory: string
  readonly books: Books
  readonly now: number
  readonly answeredMs: number
}): Promise<Recovered> {
  const { files, directory, books } = input
  const names = [...(await files.list(directory))].sort()
  const problems: JournalProblem[] = []
  const scanned: Scanned[] = []
  const headless: string[] = []
  let sequenceMax = 0
  let corruptFrames = names.filter((name) => name.endsWith('.corrupt')).length

  for (const name of names) {
    const sequence = sequenceOfFile(name)
    if (sequence === undefined) continue
    sequenceMax = Math.max(sequenceMax, sequence)
    const path = join(directory, name)
    const file = await files.open(path, 'read')
    try {
      const opened = await readSegmentHeader(file, path)
      if (opened.kind === 'torn') {
        problems.push({ kind: 'torn_tail', segment: name, bytes: await file.size() })
        headless.push(path)
        continue
      }
      const frames: { head: FrameHead; end: number }[] = []
      for await (const frame of scanFrames(file, opened.headerBytes)) {
        if (frame.kind === 'frame') frames.push({ head: frame.head, end: frame.dataAt + frame.header.dataBytes })
        else if (frame.kind === 'torn') problems.push({ kind: 'torn_tail', segment: name, bytes: frame.bytes })
        else {
          corruptFrames++
          problems.push({ kind: 'corrupt_frame', segment: name, bytes: frame.bytes })
        }
      }
      scanned.push({
        sequence,
        header: opened.header,
        headerBytes: opened.headerBytes,
        bytes: await file.size(),
        frames,
      })
    } finally {
      await file.close()
    }
  }

  let commit = books.commit
  let totals: Totals | undefined
  for (const { head } of scanned.flatMap((each) => each.frames)) {
    if (head.record !== undefined && head.commit > commit) {
      commit = head.commit
      totals = head.record.totals
    }
  }

  const segments: RecoveredSegment[] = []
  const answered: AnsweredRequest[] = []
  for (const each of scanned) {
    const records = noneBySignal()
    const requests: AnsweredRequest[] = []
    let end = 0
    for (const { head, end: frameEnd } of each.frames) {
      if (head.commit > commit) continue
      end = frameEnd
      addSignals(records, head.kept)
      for (const request of head.record?.requests ?? []) requests.push({ ...request, unixMs: head.unixMs })
    }
    answered.push(...requests)
    await cutTail(files, join(directory, segmentFileName(each.sequence)), each.bytes, end)
    if (end > 0) {
      const { lane, createdUnixMs } = each.header
      segments.push({ ...each, bytes: end, lane, createdUnixMs, records, requests })
    }
  }
  for (const path of headless) await files.remove(path)

  const answeredFiles = new Map<string, number>()
  for (const name of names.filter((each) => each.endsWith('.answered'))) {
    const found = await readAnswered(files, join(directory, name))
    const newest = found.at(-1)?.unixMs ?? 0
    answeredFiles.set(name, newest)
    answered.push(...found)
  }

  return {
    segments,
    commit,
    totals,
    sequenceMax,
    answered: answered.filter((request) => input.now - request.unixMs < input.answeredMs),
    answeredFiles,
    problems,
    corruptFrames,
    recordsOfPart: (sequence, key) => recordsOfPart(scanned, commit, sequence, key),
  }
}

/** Cuts a segment behind its last frame that counts; one without any is removed. */
async function cutTail(files: JournalFiles, path: string, bytes: number, end: number): Promise<void> {
  if (end === bytes) return
  if (end === 0) return files.remove(path)
  const file = await files.open(path, 'change')
  try {
    await file.truncate(end)
  } finally {
    await file.close()
  }
}

async function readAnswered(files: JournalFiles, path: string): Promise<readonly AnsweredRequest[]> {
  const file = await files.open(path, 'read')
  try {
    const requests: AnsweredRequest[] = []
    for await (const frame of scanFrames(file, 0)) {
      if (frame.kind !== 'frame') continue
      for (const request of frame.head.record?.requests ?? []) requests.push({ ...request, unixMs: frame.head.unixMs })
    }
    return requests
  } finally {
    await file.close()
  }
}

const metricTablesFrom = 2
const metricTablesTo = 6

/** Which signal a table's rows are of, by its number in the journal; the quarantine's are of any. */
export function signalOfTable(table: number): keyof BySignal | undefined {
  if (table === 0) return 'traces'
  if (table === 1) return 'logs'
  if (table >= metricTablesFrom && table <= metricTablesTo) return 'metrics'
  return undefined
}

function recordsOfPart(scanned: readonly Scanned[], commit: number, sequence: number, key: string): BySignal {
  const gone = noneBySignal()
  const [table, day] = key.split(':').map(Number)
  const segment = scanned.find((each) => each.sequence === sequence)
  for (const { head } of segment?.frames ?? []) {
    if (head.commit > commit) continue
    for (const block of head.blocks) {
      if (block.table !== table || block.day !== day) continue
      const signal = signalOfTable(block.table)
      if (signal !== undefined) gone[signal] += block.rows
      else for (const each of ['traces', 'metrics', 'logs'] as const) gone[each] += quarantinedOf(head, each)
    }
  }
  return gone
}

/** A frame's records of a signal that are in no table of that signal are in its quarantine rows. */
function quarantinedOf(head: FrameHead, signal: keyof BySignal): number {
  let rows = 0
  for (const block of head.blocks) if (signalOfTable(block.table) === signal) rows += block.rows
  return head.kept[signal] - rows
}
