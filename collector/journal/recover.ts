// What a start finds in the journal's directory: which commits were made durable, what of each segment belongs to them,
// and which requests were answered in the last minutes. It reads the heads of frames, not their rows, so a backlog of
// gigabytes does not hold the start up. Once every file was read and understood, the tails that were never answered are
// cut off: left there, a later commit of the same number would make them valid.
import { join } from 'node:path'
import type { AnsweredRequest } from './answered.ts'
import type { Books } from './books.ts'
import { addSignals, subtractSignals, writeWhole } from './books.ts'
import type { JournalFile, JournalFiles } from './files.ts'
import { type BySignal, type FrameHead, noneBySignal, signals, type Totals } from './frame.ts'
import type { JournalProblem } from './problem.ts'
import {
  corruptFileName,
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
  /** Names of the files for what could not be read. */
  readonly corrupt: readonly string[]
  /** Answered records of which nothing is left that can be read: what the books miss. */
  readonly lost: BySignal
}

type Scanned = {
  readonly sequence: number
  readonly header: SegmentHeader
  readonly headerBytes: number
  readonly bytes: number
  readonly frames: readonly { readonly head: FrameHead; readonly end: number }[]
}

/** Bytes that may have been answered and cannot be read: behind the last frame of a segment, or all of one. */
type Unreadable = { readonly sequence: number; readonly at: number; readonly bytes: number }

export async function recoverSegments(input: {
  readonly files: JournalFiles
  readonly directory: string
  readonly books: Books
  /** There were none, though there is a journal: `books` says nothing of what was. */
  readonly areBooksGone: boolean
  readonly headerOf: (sequence: number) => SegmentHeader
  readonly now: number
  readonly answeredMs: number
}): Promise<Recovered> {
  const { files, directory, books } = input
  const names = [...(await files.list(directory))].sort()
  const problems: JournalProblem[] = []
  const scanned: Scanned[] = []
  const headless: { readonly sequence: number; readonly bytes: number }[] = []
  const corrupt = new Set(names.filter((name) => name.endsWith('.corrupt')))
  let sequenceMax = 0

  for (const name of names) {
    const sequence = sequenceOfFile(name)
    if (sequence === undefined) continue
    sequenceMax = Math.max(sequenceMax, sequence)
    const path = join(directory, name)
    const file = await files.open(path, 'read')
    try {
      const opened = await readSegmentHeader(file, path, input.headerOf(sequence))
      if (opened.kind === 'unreadable') {
        problems.push({ kind: 'torn_tail', segment: name, bytes: await file.size() })
        headless.push({ sequence, bytes: await file.size() })
        continue
      }
      if (opened.isRepaired) problems.push({ kind: 'corrupt_header', segment: name })
      const frames: { head: FrameHead; end: number }[] = []
      for await (const frame of scanFrames(file, opened.headerBytes)) {
        if (frame.kind === 'frame') frames.push({ head: frame.head, end: frame.dataAt + frame.header.dataBytes })
        else if (frame.kind === 'torn') problems.push({ kind: 'torn_tail', segment: name, bytes: frame.bytes })
        else {
          corrupt.add(corruptFileName(sequence, frame.at))
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
  const heads = scanned.flatMap((each) => each.frames).map(({ head }) => head)
  for (const head of heads) {
    if (head.record !== undefined && head.commit > commit) {
      commit = head.commit
      totals = head.record.totals
    }
  }
  // The record of a commit may have stood in a segment that is removed, and only the books would know: then what was answered
  // must not be cut off. What was not comes to stay with it, at most one commit.
  if (input.areBooksGone) for (const head of heads) commit = Math.max(commit, head.commit)

  const segments: RecoveredSegment[] = []
  const answered: AnsweredRequest[] = []
  const unreadable: Unreadable[] = headless.map(({ sequence, bytes }) => ({ sequence, at: 0, bytes }))
  for (const each of scanned) {
    const records = noneBySignal()
    const requests: AnsweredRequest[] = []
    let end = 0
    for (const { head, end: frameEnd } of each.frames) {
      if (head.commit > commit) continue
      end = frameEnd
      addSignals(records, head.kept)
      // A backlog of hours has millions of requests that nobody sends again.
      if (input.now - head.unixMs < input.answeredMs) requests.push(...requestsOf(head))
    }
    for (const request of requests) answered.push(request)
    if (end < each.bytes) unreadable.push({ sequence: each.sequence, at: end, bytes: each.bytes - end })
    if (end > 0) {
      const { sequence, header, headerBytes } = each
      const { lane, createdUnixMs } = header
      segments.push({ sequence, header, headerBytes, bytes: end, lane, createdUnixMs, records, requests })
    }
  }
  const lost = lostRecords(books, totals ?? books, segments)
  const isLost = lost.traces + lost.metrics + lost.logs > 0
  for (const { sequence, at, bytes } of unreadable) {
    const path = join(directory, segmentFileName(sequence))
    // A tail that a crash tore was never answered, and the books miss nothing.
    if (isLost || input.areBooksGone) {
      const name = corruptFileName(sequence, at)
      const file = await files.open(path, 'read')
      await keepBytes(files, directory, name, file, at, bytes).finally(() => file.close())
      corrupt.add(name)
      problems.push({ kind: 'corrupt_frame', segment: segmentFileName(sequence), bytes })
    }
    await cutTail(files, path, at)
  }

  if (isLost && !input.areBooksGone) problems.push({ kind: 'records_lost', ...lost })

  const answeredFiles = new Map<string, number>()
  for (const name of names.filter((each) => each.endsWith('.answered'))) {
    const found = await readAnswered(files, join(directory, name))
    const newest = found.at(-1)?.unixMs ?? 0
    answeredFiles.set(name, newest)
    for (const request of found) if (input.now - request.unixMs < input.answeredMs) answered.push(request)
  }

  return {
    segments,
    commit,
    totals,
    sequenceMax,
    answered,
    answeredFiles,
    problems,
    corrupt: [...corrupt],
    lost,
  }
}

/** accepted = stored + in journal + quarantined + duplicate: what is missing from the right side was in frames of which not
 *  even the head can be read. */
function lostRecords(
  books: Books,
  totals: Pick<Totals, 'accepted' | 'duplicate'>,
  segments: readonly RecoveredSegment[],
): BySignal {
  const lost = { ...totals.accepted }
  for (const found of [totals.duplicate, books.stored, books.quarantined]) subtractSignals(lost, found)
  for (const { sequence, records } of segments) {
    subtractSignals(lost, records)
    addSignals(lost, books.done[sequence]?.gone ?? noneBySignal())
  }
  for (const signal of signals) lost[signal] = Math.max(0, lost[signal])
  return lost
}

/** Copies bytes of a segment into a file of their own, for whoever can read them. */
export async function keepBytes(
  files: JournalFiles,
  directory: string,
  name: string,
  file: JournalFile,
  at: number,
  bytes: number,
): Promise<void> {
  if ((await files.list(directory)).includes(name)) return
  const content = Buffer.alloc(Math.min(bytes, keptBytesMax))
  await file.read(content, at)
  await writeWhole(files, directory, name, content)
}

/** The largest segment, and more than the largest frame. */
const keptBytesMax = 256 * 1024 * 1024

/** Cuts a segment behind its last frame that counts; one without any is removed. */
async function cutTail(files: JournalFiles, path: string, end: number): Promise<void> {
  if (end === 0) return files.remove(path)
  const file = await files.open(path, 'change')
  try {
    await file.truncate(end)
  } finally {
    await file.close()
  }
}

/** Copied out of the head, which would stay in memory for the sake of some digests. */
function requestsOf({ record, unixMs }: FrameHead): readonly AnsweredRequest[] {
  return (record?.requests ?? []).map((request) => ({ ...request, digest: Buffer.from(request.digest), unixMs }))
}

async function readAnswered(files: JournalFiles, path: string): Promise<readonly AnsweredRequest[]> {
  const file = await files.open(path, 'read')
  try {
    const requests: AnsweredRequest[] = []
    for await (const frame of scanFrames(file, 0)) {
      if (frame.kind !== 'frame') continue
      for (const request of requestsOf(frame.head)) requests.push(request)
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
