// The journal: makes rows durable before their request is answered, and keeps them until ClickHouse has them.
//
// Modes of a segment: open (its blocks grow; open-segments.ts) → closing (no more rows; its last growth is not synced yet) →
// sealed (never changes; the sinks may take it; sealed-segments.ts) → removed.
//
// A commit writes one frame to each segment that grew and syncs each; the last frame carries the commit's record. Frames of
// a commit without a record were never answered and are left out after a crash. What arrives while a commit runs goes into
// the next. A commit that fails is cut out of the blocks and the files, and its requests are told to come again. What a commit
// takes, writes, seals and undoes is one file, since each relies on what the others have left.
import { join } from 'node:path'
import { cutToSynced } from '@tallylight/storage/clickhouse/block.ts'
import { SegmentFull } from '@tallylight/storage/clickhouse/dictionary.ts'
import { journalTables } from '@tallylight/storage/clickhouse/tables.ts'
import type { Signal } from '../receive/request.ts'
import { type AnsweredRequest, openAnsweredFiles } from './answered.ts'
import { openBlockPool } from './block-pool.ts'
import { addSignals, openBooks, readBooks, sumOfSignals, takeTotals, writeBooks } from './books.ts'
import { rebuildBooks } from './books-gone.ts'
import type { JournalFile, JournalFiles } from './files.ts'
import { type BySignal, encodeFrame, markSynced, noneBySignal, snapshotOf } from './frame.ts'
import { openGathering } from './gathering.ts'
import { readJournalId } from './journal-id.ts'
import {
  type Appended,
  hasGrown,
  type OpenSegment,
  type OpenSegmentsBounds,
  openSegments,
  type Walk,
} from './open-segments.ts'
import type { JournalProblem } from './problem.ts'
import { recoverSegments } from './recover.ts'
import { openRoom, type RoomBounds } from './room.ts'
import { type Held, type LoadedSegment, openSealedSegments, type SealedSegment } from './sealed-segments.ts'
import { encodeSegmentHeader, type SegmentHeader, segmentFileName } from './segment.ts'

export type JournalOptions = {
  readonly directory: string
  readonly files: JournalFiles
  readonly now: () => number
  readonly insertSettings: Readonly<Record<string, string | number>>
  readonly bounds: JournalBounds
  /** Called with each segment that is sealed, in order, and at the start with those that a run before left. */
  readonly onSealed: (segment: SealedSegment) => void
  readonly onProblem: (problem: JournalProblem) => void
}

export type JournalBounds = OpenSegmentsBounds &
  RoomBounds & {
    /** How long small requests wait for each other, and from how many on: see gathering.ts. */
    readonly gatherMsMax: number
    readonly gatherRequestsMin: number
    /** While no more than this waits for the sink, sealed blocks stay in memory for it. */
    readonly sealedBytesMax: number
    /** How long the digests of answered requests outlive their segment. */
    readonly answeredMs: number
  }

export type AppendOutcome =
  /** `durable` resolves true once the rows are on the disk, false when they could not be brought there. */
  | { readonly kind: 'appended'; readonly durable: Promise<boolean> }
  | { readonly kind: 'too_large'; readonly reason: string }
  | { readonly kind: 'unavailable'; readonly reason: string }

export type JournalStatus = {
  readonly journal: string
  readonly bytes: number
  readonly segments: number
  readonly oldestUnixMs: number | undefined
  readonly isFull: boolean
  /** Stretches of segments that could not be read and were set aside. */
  readonly corruptFrames: number
  readonly commits: number
  readonly accepted: BySignal
  readonly duplicate: BySignal
  readonly stored: BySignal
  readonly quarantined: BySignal
  readonly inJournal: BySignal
}

export type Journal = {
  readonly id: string
  /** Digests that the journal remembers from before: requests answered in the last minutes. */
  readonly answered: readonly AnsweredRequest[]
  /** Throws what `walk` throws, with nothing appended. */
  append(walk: Walk): AppendOutcome
  /** A request that was answered before came again. */
  countDuplicate(signal: Signal, records: number): void
  load(segment: SealedSegment): Promise<LoadedSegment>
  /** Notes that the rows of a part (`table:day`) are in ClickHouse (or in its quarantine). */
  settle(segment: SealedSegment, part: string, stored: BySignal, quarantined: BySignal): void
  /** Removes a segment of which every part is settled and durable. */
  remove(segment: SealedSegment): Promise<void>
  /** Resolves when all that was appended before is stored and removed, or the signal aborts. */
  drain(signal: AbortSignal): Promise<void>
  status(): JournalStatus
  /** Syncs and seals what is open, and refuses what comes after. */
  stop(): Promise<void>
  [Symbol.asyncDispose](): Promise<void>
}

type Waiter = { readonly appended: Appended; readonly resolve: (isDurable: boolean) => void }

export async function openJournal(options: JournalOptions): Promise<Journal> {
  const { directory, files, now, bounds, onProblem } = options
  await files.makeDirectory(directory)
  const id = await readJournalId(files, directory)
  const known = await readBooks(files, directory)
  const areBooksGone = known === undefined
  const books = known ?? openBooks()
  const headerOf = ({
    sequence,
    lane,
    createdUnixMs,
  }: Pick<SegmentHeader, 'sequence' | 'lane' | 'createdUnixMs'>): SegmentHeader => {
    const { insertSettings } = options
    return { journal: id, sequence, lane, createdUnixMs, tables: journalTables, insertSettings }
  }
  const recovered = await recoverSegments({
    files,
    directory,
    books,
    areBooksGone,
    headerOf: (sequence) => headerOf({ sequence, lane: 'live', createdUnixMs: now() }),
    now: now(),
    answeredMs: bounds.answeredMs,
  })
  for (const found of recovered.problems) onProblem(found)
  if (recovered.totals !== undefined) takeTotals(books, recovered.commit, recovered.totals)
  if (areBooksGone) {
    onProblem({ kind: 'books_gone', ...rebuildBooks(books, recovered) })
    await writeBooks(files, directory, books)
  } else addSignals(books.quarantined, recovered.lost)

  let commit = Math.max(books.commit, recovered.commit)
  // A number that failed is not used again: what it left on a disk that will not be cut must never become valid.
  let commitTried = commit
  let committing: Promise<void> | undefined
  let waiters: Waiter[] = []
  let duplicates = noneBySignal()
  let suspects: { readonly bytes: number; readonly name: string }[] = []
  let booksWriting: Promise<void> = Promise.resolve()
  let isStopped = false
  const held: Held = { bytes: 0, records: noneBySignal() }
  const gathering = openGathering({ waitMsMax: bounds.gatherMsMax, requestsMin: bounds.gatherRequestsMin })
  const pool = openBlockPool()
  const written = recovered.answeredFiles
  const answeredFiles = openAnsweredFiles({ directory, files, now, keptMs: bounds.answeredMs, written })
  const room = openRoom({
    directory,
    files,
    now,
    bounds,
    bytes: () => held.bytes,
    onFull: (reason) => onProblem({ kind: 'full', reason }),
  })
  const sealed = openSealedSegments({
    directory,
    files,
    journal: id,
    recovered,
    books,
    saveBooks,
    held,
    answeredFiles,
    pool,
    sealedBytesMax: bounds.sealedBytesMax,
    headerOf,
    commit: () => commit,
    onProblem,
  })
  const growing = openSegments({
    now,
    bounds,
    pool,
    lastSequence: Math.max(books.sequence, recovered.sequenceMax),
    onClosing: startCommitting,
  })
  await room.look()

  function append(walk: Walk): AppendOutcome {
    if (isStopped) return { kind: 'unavailable', reason: 'the collector is stopping' }
    const missing = room.missing()
    if (missing !== undefined) {
      void room.lookWhenDue()
      return { kind: 'unavailable', reason: missing }
    }
    for (let hadRows = growing.open().some((segment) => segment.blocks.size > 0); ; hadRows = false) {
      try {
        return appendOnce(walk)
      } catch (error) {
        if (!(error instanceof SegmentFull)) throw error
        // Full of what others sent: they are sealed and the request begins a segment. Full by itself: it is too large.
        if (!hadRows) return { kind: 'too_large', reason: `${error.message}; send it in smaller requests` }
        growing.closeAll()
      }
    }
  }

  function appendOnce(walk: Walk): AppendOutcome {
    const appended = growing.append(walk)
    const durable = new Promise<boolean>((resolve) => waiters.push({ appended, resolve }))
    gathering.arrived()
    startCommitting()
    return { kind: 'appended', durable }
  }

  function startCommitting(): void {
    committing ??= Promise.resolve().then(commitAll)
  }

  /** Commits until nothing waits. One runs at a time. */
  async function commitAll(): Promise<void> {
    while (waiters.length > 0 || growing.closing().length > 0) {
      await gathering.gather()
      let taken: readonly Waiter[] = []
      try {
        await room.lookWhenDue()
        await truncateSuspects()
        // Nothing is awaited from here to the snapshots: rows of a request whose digest is not in their commit would be stored
        // again by its repeat after a crash.
        taken = waiters
        waiters = []
        gathering.taken()
        await commitOnce(taken)
        for (const { resolve } of taken) resolve(true)
      } catch (error) {
        onProblem({ kind: 'write_failed', error })
        // Those who came until now wrote behind rows that will be gone; those who come while files are closed, into new segments.
        const late = waiters
        waiters = []
        gathering.taken()
        await undo()
        for (const { resolve } of [...taken, ...late]) resolve(false)
        await room.look()
      }
    }
    committing = undefined
  }

  async function commitOnce(taken: readonly Waiter[]): Promise<void> {
    const segments = [...growing.closing(), ...growing.open()].filter((segment) => hasGrown(segment))
    // The record goes last: into a live segment, where it is found first after a crash.
    segments.sort((a, b) => Number(a.lane === 'live') - Number(b.lane === 'live') || a.sequence - b.sequence)
    if (taken.length > 0 && segments.at(-1)?.lane !== 'live') segments.push(growing.live())
    const number = ++commitTried
    const unixMs = now()
    const accepted = { ...books.accepted }
    const duplicate = { ...books.duplicate }
    const counted = duplicates
    duplicates = noneBySignal()
    for (const { appended } of taken) accepted[appended.signal] += appended.kept
    addSignals(accepted, counted)
    addSignals(duplicate, counted)
    const requests = taken.map(({ appended: { digest, signal, kept, rejected, message } }) => {
      return { digest, signal, kept, rejected, message, unixMs }
    })
    // Snapshots first, all at once: rows that are appended while the frames are written belong to the next commit.
    const frames = segments.map((segment) => {
      const snapshots = [...segment.blocks.values()]
        .filter(({ block }) => block.rows > block.rowsSynced)
        .map(({ table, block }) => ({ table, snapshot: snapshotOf(block) }))
      const kept = segment.pending
      segment.pending = noneBySignal()
      return { segment, snapshots, kept, bytes: 0 }
    })
    try {
      for (const frame of frames) {
        const isLast = frame === frames.at(-1)
        const record = isLast ? { totals: { accepted, duplicate }, requests } : undefined
        const input = { commit: number, unixMs, kept: frame.kept, record, snapshots: frame.snapshots }
        frame.bytes = await writeFrame(frame.segment, input)
      }
    } catch (error) {
      addSignals(duplicates, counted)
      throw error
    }
    commit = number
    takeTotals(books, number, { accepted, duplicate })
    for (const { segment, snapshots, kept, bytes } of frames) {
      segment.fileBytes += bytes
      held.bytes += bytes
      for (const { snapshot } of snapshots) markSynced(snapshot)
      addSignals(segment.synced, kept)
      addSignals(held.records, kept)
    }
    const last = frames.at(-1)
    if (last !== undefined) for (const request of requests) last.segment.requests.push(request)
    await sealClosed()
  }

  /** Writes and syncs a frame behind what is durable, and returns how many bytes that took. */
  async function writeFrame(segment: OpenSegment, input: Parameters<typeof encodeFrame>[0]): Promise<number> {
    const frame = encodeFrame(input)
    if (segment.file === undefined) {
      const header = encodeSegmentHeader(headerOf(segment))
      segment.file = await files.open(join(directory, segmentFileName(segment.sequence)), 'create')
      await segment.file.write([header, ...frame.buffers], 0)
      await files.syncDirectory(directory)
      return header.length + frame.bytes
    }
    await segment.file.write(frame.buffers, segment.fileBytes)
    return frame.bytes
  }

  /** Takes back everything that no commit made durable, in memory and in the files. */
  async function undo(): Promise<void> {
    for (const segment of [...growing.closing(), ...growing.open()]) {
      for (const { block } of segment.blocks.values()) cutToSynced(block)
      segment.pending = noneBySignal()
      if (segment.file !== undefined) {
        suspects.push({ bytes: segment.fileBytes, name: segmentFileName(segment.sequence) })
      }
      // A sync that failed says nothing about what it was asked to write, nor will the next: such a file gets no more.
      if (segment.state === 'open') growing.close(segment)
    }
    await sealClosed()
  }

  async function truncateSuspects(): Promise<void> {
    while (suspects.length > 0) {
      const suspect = suspects[0] as (typeof suspects)[number]
      const file = await openIfPresent(join(directory, suspect.name))
      try {
        await file?.truncate(suspect.bytes)
      } finally {
        await file?.close()
      }
      suspects = suspects.slice(1)
    }
  }

  async function openIfPresent(path: string): Promise<JournalFile | undefined> {
    return files.open(path, 'change').catch((error: NodeJS.ErrnoException) => {
      if (error.code !== 'ENOENT') throw error
      return undefined
    })
  }

  /** Those that closed and whose last growth is synced. */
  async function sealClosed(): Promise<void> {
    for (const segment of growing.closing()) {
      if (hasGrown(segment)) continue
      growing.forget(segment)
      // All of it was synced: whoever sent it is not told otherwise.
      await segment.file?.close().catch((error: unknown) => onProblem({ kind: 'close_failed', error }))
      if (segment.fileBytes > 0) options.onSealed(sealed.add(segment))
      else for (const { block } of segment.blocks.values()) pool.giveBack(block)
    }
  }

  async function remove(segment: SealedSegment): Promise<void> {
    await sealed.remove(segment)
    if (room.missing() !== undefined) await room.look()
  }

  async function saveBooks(): Promise<void> {
    // One at a time, each with what the books say when its turn comes.
    booksWriting = booksWriting.catch(() => undefined).then(() => writeBooks(files, directory, books))
    await booksWriting
  }

  async function drain(signal: AbortSignal): Promise<void> {
    growing.closeAll()
    await committing
    await sealed.removedUntil(growing.lastSequence(), signal)
  }

  function status(): JournalStatus {
    return {
      journal: id,
      bytes: held.bytes,
      segments: sealed.count(),
      oldestUnixMs: sealed.oldestUnixMs(),
      isFull: room.missing() !== undefined,
      corruptFrames: sealed.corruptFrames(),
      commits: commit,
      accepted: sumOfSignals(books.accepted, duplicates),
      duplicate: sumOfSignals(books.duplicate, duplicates),
      stored: { ...books.stored },
      quarantined: { ...books.quarantined },
      inJournal: { ...held.records },
    }
  }

  async function stop(): Promise<void> {
    isStopped = true
    growing.closeAll()
    await committing
    await saveBooks()
  }

  for (const segment of sealed.all()) options.onSealed(segment)

  return {
    id,
    answered: recovered.answered,
    append,
    countDuplicate: (signal, records) => {
      duplicates[signal] += records
    },
    load: sealed.load,
    settle: sealed.settle,
    remove,
    drain,
    status,
    stop,
    [Symbol.asyncDispose]: stop,
  }
}
