// The journal: makes rows durable before their request is answered, and keeps them until ClickHouse has them.
//
// Modes of a segment: open (its blocks grow) → closing (no more rows; its last growth is not synced yet) → sealed (never
// changes; the sink may take it) → removed. Two are open at a time: `live` for yesterday, today and tomorrow, sealed after
// a second, and `late` for older days, sealed after a minute, so that a backfill does not make a part per second and day.
//
// A commit writes one frame to each segment that grew and syncs each; the last frame carries the commit's record. Frames of
// a commit without a record were never answered and are left out after a crash. What arrives while a commit runs goes into
// the next. A commit that fails is cut out of the blocks and the files, and its requests are told to come again.
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { join } from 'node:path'
import {
  type AnyBlock,
  blockBytes,
  blockCapacity,
  cutToMark,
  cutToSynced,
  isBlockOf,
  markBlock,
  openBlock,
  reuseBlock,
} from '@tallylight/storage/clickhouse/block.ts'
import { SegmentFull } from '@tallylight/storage/clickhouse/dictionary.ts'
import {
  contentsTable,
  factsTable,
  journalTables,
  type TableDefinition,
} from '@tallylight/storage/clickhouse/tables.ts'
import type { OpenBlock } from '../otlp/walk.ts'
import type { Signal } from '../receive/request.ts'
import { addSignals, readBooks, subtractSignals, takeTotals, writeBooks, writeWhole } from './books.ts'
import type { JournalFile, JournalFiles } from './files.ts'
import { type BySignal, type CommittedRequest, encodeFrame, markSynced, noneBySignal, snapshotOf } from './frame.ts'
import { openGathering } from './gathering.ts'
import { keepBytes, recoverSegments } from './recover.ts'
import {
  corruptFileName,
  encodeSegmentHeader,
  type Lane,
  loadSegment,
  type SegmentHeader,
  segmentFileName,
  segmentName,
} from './segment.ts'

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

export type JournalBounds = {
  readonly segmentBytesMax: number
  /** A segment that reaches this is sealed before its time. */
  readonly segmentBytesSealed: number
  readonly segmentRowsMax: number
  readonly liveAgeMsMax: number
  readonly lateAgeMsMax: number
  readonly journalBytesMax: number
  /** Room that is left to the engines on the same volume. */
  readonly reserveBytes: (totalBytes: number) => number
  readonly spaceCheckMs: number
  /** How long small requests wait for each other, and from how many on: see gathering.ts. */
  readonly gatherMsMax: number
  readonly gatherRequestsMin: number
  /** Sealed blocks that stay in memory for the sink; beyond, they are read back from the file. */
  readonly sealedBytesMax: number
  readonly blocksPerSegmentMax: number
  /** How long the digests of answered requests outlive their segment. */
  readonly answeredMs: number
}

export type JournalProblem =
  | { readonly kind: 'write_failed'; readonly error: unknown }
  | { readonly kind: 'full'; readonly reason: string }
  /** Read all the same, because it is one that this program would have written. */
  | { readonly kind: 'corrupt_header'; readonly segment: string }
  | { readonly kind: 'corrupt_frame'; readonly segment: string; readonly bytes: number }
  | { readonly kind: 'torn_tail'; readonly segment: string; readonly bytes: number }

export type Appended = {
  readonly signal: Signal
  readonly digest: Buffer
  readonly kept: number
  readonly rejected: number
  readonly message: string
}

export type AppendOutcome =
  /** `durable` resolves true once the rows are on the disk, false when they could not be brought there. */
  | { readonly kind: 'appended'; readonly durable: Promise<boolean> }
  | { readonly kind: 'too_large'; readonly reason: string }
  | { readonly kind: 'unavailable'; readonly reason: string }

export type SegmentPart = {
  readonly table: number
  readonly day: number
  readonly rows: number
  readonly block: AnyBlock
}

export type SealedSegment = {
  readonly sequence: number
  readonly name: string
  readonly lane: Lane
  readonly bytes: number
  readonly createdUnixMs: number
  readonly records: BySignal
  /** False for what a run before left: its inserts are in doubt until ClickHouse was asked. */
  readonly isFresh: boolean
  /** Parts (`table:day`) that the books say are done. */
  readonly done: ReadonlySet<string>
}

export type LoadedSegment = {
  readonly header: SegmentHeader
  readonly parts: readonly SegmentPart[]
  /** Gives the blocks' memory back. */
  release(): void
}

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
  /** Runs `walk`, which appends rows through the blocks it is given. Throws what `walk` throws, with nothing appended. */
  append(walk: (openBlock: OpenBlock, rowBytesMax: number) => Appended): AppendOutcome
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

export type AnsweredRequest = CommittedRequest & { readonly unixMs: number }

type OpenSegment = {
  readonly sequence: number
  readonly lane: Lane
  readonly createdUnixMs: number
  readonly blocks: Map<string, { readonly table: number; readonly block: AnyBlock }>
  readonly requests: AnsweredRequest[]
  /** Records of rows that are appended and not yet in a frame, and of those that are. */
  pending: BySignal
  synced: BySignal
  state: 'open' | 'closing'
  file: JournalFile | undefined
  fileBytes: number
  timer: NodeJS.Timeout | undefined
}

type Waiter = { readonly appended: Appended; readonly resolve: (isDurable: boolean) => void }

/** The requests of a segment as they are kept beyond it: a frame without rows. A third of what they take as objects, of which
 *  minutes of small requests would be millions. */
type Answered = { readonly frame: Buffer; readonly unixMs: number }

type Entry = {
  readonly segment: SealedSegment
  /** Undefined where there are none, or they are too old to be sent again. */
  answered: Answered | undefined
  blocks: readonly { readonly table: number; readonly block: AnyBlock }[] | undefined
  blocksBytes: number
}

const tableNumbers = new Map<TableDefinition, number>(journalTables.map((table, number) => [table, number]))

export async function openJournal(options: JournalOptions): Promise<Journal> {
  const { directory, files, now, bounds } = options
  await files.makeDirectory(directory)
  const id = await readJournalId(files, directory)
  const books = await readBooks(files, directory)
  const headerOf = (sequence: number, lane: Lane, createdUnixMs: number): SegmentHeader => ({
    journal: id,
    sequence,
    lane,
    createdUnixMs,
    tables: journalTables,
    insertSettings: options.insertSettings,
  })
  const recovered = await recoverSegments({
    files,
    directory,
    books,
    headerOf: (sequence) => headerOf(sequence, 'live', now()),
    now: now(),
    answeredMs: bounds.answeredMs,
  })

  const entries = new Map<number, Entry>()
  const removed = new EventTarget()
  const lanes: Record<Lane, OpenSegment | undefined> = { live: undefined, late: undefined }
  const closing: OpenSegment[] = []
  const spare = new Map<string, AnyBlock[]>()
  const inJournal = noneBySignal()
  let sequence = Math.max(books.sequence, recovered.sequenceMax)
  let commit = Math.max(books.commit, recovered.commit)
  // A number that failed is not used again: what it left on a disk that will not be cut must never become valid.
  let commitTried = commit
  let walkNumber = 0
  let spareBytes = 0
  let bytes = 0
  let waiters: Waiter[] = []
  const gathering = openGathering({ waitMsMax: bounds.gatherMsMax, requestsMin: bounds.gatherRequestsMin })
  let duplicates = noneBySignal()
  let committing: Promise<void> | undefined
  let fullReason: string | undefined
  let spaceCheckedMs = 0
  let checkingSpace: Promise<void> | undefined
  let suspects: { readonly file: JournalFile; readonly bytes: number; readonly name: string }[] = []
  let isStopped = false
  const corrupt = new Set(recovered.corrupt)
  let booksWriting: Promise<void> = Promise.resolve()

  for (const found of recovered.problems) options.onProblem(found)
  if (recovered.totals !== undefined) takeTotals(books, recovered.commit, recovered.totals)
  addSignals(books.quarantined, recovered.lost)
  for (const found of recovered.segments) {
    const segment: SealedSegment = {
      sequence: found.sequence,
      name: segmentName(id, found.sequence),
      lane: found.lane,
      bytes: found.bytes,
      createdUnixMs: found.createdUnixMs,
      records: found.records,
      isFresh: false,
      done: new Set(books.done[found.sequence]?.parts),
    }
    const left = { ...found.records }
    subtractSignals(left, books.done[found.sequence]?.gone ?? noneBySignal())
    entries.set(found.sequence, {
      segment,
      answered: answeredBy(found.requests),
      blocks: undefined,
      blocksBytes: 0,
    })
    addSignals(inJournal, left)
    bytes += found.bytes
  }
  await refreshSpace()

  function laneOf(day: number): Lane {
    return day >= Math.floor(now() / 86_400_000) - 1 ? 'live' : 'late'
  }

  function openSegment(lane: Lane): OpenSegment {
    sequence++
    const segment: OpenSegment = {
      sequence,
      lane,
      createdUnixMs: now(),
      blocks: new Map(),
      requests: [],
      pending: noneBySignal(),
      synced: noneBySignal(),
      state: 'open',
      file: undefined,
      fileBytes: 0,
      timer: undefined,
    }
    const ageMs = lane === 'live' ? bounds.liveAgeMsMax : bounds.lateAgeMsMax
    segment.timer = setTimeout(() => close(segment), ageMs)
    lanes[lane] = segment
    return segment
  }

  function takeBlock(table: TableDefinition, day: number): AnyBlock {
    const block = spare.get(table.name)?.pop()
    if (block === undefined) return openBlock(table, day)
    spareBytes -= blockCapacity(block)
    reuseBlock(block, day)
    return block
  }

  function giveBack(block: AnyBlock): void {
    const kept = spare.get(block.table.name) ?? []
    const capacity = blockCapacity(block)
    // Memory that is given up and taken again every second costs more than what is written into it: page faults, and a full
    // garbage collection each time the engine sees that much of it come.
    if (spareBytes + capacity > spareBytesMax) return
    spareBytes += capacity
    kept.push(block)
    spare.set(block.table.name, kept)
  }

  function openBlockOf(
    table: TableDefinition,
    day: number,
  ): { readonly segment: OpenSegment; readonly block: AnyBlock } {
    const segment = lanes[laneOf(day)] ?? openSegment(laneOf(day))
    const number = tableNumbers.get(table) as number
    const key = `${number}:${day}`
    let entry = segment.blocks.get(key)
    if (entry === undefined) {
      if (segment.blocks.size >= bounds.blocksPerSegmentMax) {
        throw new SegmentFull(`a segment holds ${bounds.blocksPerSegmentMax} tables and days`)
      }
      entry = { table: number, block: takeBlock(table, day) }
      segment.blocks.set(key, entry)
    }
    return { segment, block: entry.block }
  }

  function append(walk: (openBlock: OpenBlock, rowBytesMax: number) => Appended): AppendOutcome {
    if (isStopped) return { kind: 'unavailable', reason: 'the collector is stopping' }
    if (fullReason !== undefined) {
      if (now() - spaceCheckedMs >= bounds.spaceCheckMs) void refreshSpace()
      return { kind: 'unavailable', reason: fullReason }
    }
    const hadRows = [...openOnes()].some((segment) => segment.blocks.size > 0)
    try {
      return appendOnce(walk)
    } catch (error) {
      if (!(error instanceof SegmentFull)) throw error
      // Full of what others sent: they are sealed and the request begins a segment. Full by itself: it is too large.
      if (!hadRows) return { kind: 'too_large', reason: `${error.message}; send it in smaller requests` }
      for (const segment of [...openOnes()]) close(segment)
    }
    try {
      return appendOnce(walk)
    } catch (error) {
      if (!(error instanceof SegmentFull)) throw error
      return { kind: 'too_large', reason: `${error.message}; send it in smaller requests` }
    }
  }

  function* openOnes(): Generator<OpenSegment> {
    if (lanes.live !== undefined) yield lanes.live
    if (lanes.late !== undefined) yield lanes.late
  }

  function appendOnce(walk: (openBlock: OpenBlock, rowBytesMax: number) => Appended): AppendOutcome {
    const number = ++walkNumber
    const touched = new Map<AnyBlock, OpenSegment>()
    let room = bounds.segmentBytesMax
    for (const segment of openOnes()) room = Math.min(room, bounds.segmentBytesMax - segmentBytes(segment))
    const open: OpenBlock = (table, day) => {
      const { segment, block } = openBlockOf(table, day)
      if (block.rows >= bounds.segmentRowsMax) throw new SegmentFull(`a block holds ${bounds.segmentRowsMax} rows`)
      markBlock(block, number)
      touched.set(block, segment)
      if (!isBlockOf(block, table)) throw new Error(`the block of ${table.name} is one of ${block.table.name}`)
      return block
    }
    let appended: Appended
    try {
      if (room <= 0) throw new SegmentFull('the segment is full')
      appended = walk(open, room)
      for (const block of touched.keys()) {
        if (block.rows > bounds.segmentRowsMax) throw new SegmentFull(`a block holds ${bounds.segmentRowsMax} rows`)
      }
    } catch (error) {
      for (const block of touched.keys()) cutToMark(block)
      throw error
    }
    for (const [block, segment] of touched) addRecords(segment.pending, block, block.rowsMark, appended.signal)
    for (const segment of new Set(touched.values())) {
      if (segment.state === 'open' && segmentBytes(segment) >= bounds.segmentBytesSealed) close(segment)
    }
    return { kind: 'appended', durable: new Promise((resolve) => enqueue({ appended, resolve })) }
  }

  function enqueue(waiter: Waiter): void {
    waiters.push(waiter)
    gathering.arrived()
    committing ??= Promise.resolve().then(commitAll)
  }

  /** Commits until nothing waits. One runs at a time. */
  async function commitAll(): Promise<void> {
    while (waiters.length > 0 || closing.length > 0) {
      await gathering.gather()
      let taken: readonly Waiter[] = []
      try {
        if (now() - spaceCheckedMs >= bounds.spaceCheckMs) await refreshSpace()
        await truncateSuspects()
        // Nothing is awaited from here to the snapshots: rows of a request whose digest is not in their commit would be stored
        // again by its repeat after a crash.
        taken = waiters
        waiters = []
        gathering.taken()
        await commitOnce(taken)
        for (const { resolve } of taken) resolve(true)
      } catch (error) {
        options.onProblem({ kind: 'write_failed', error })
        await undo()
        // Those who came meanwhile wrote behind rows that are gone now.
        const late = waiters
        waiters = []
        gathering.taken()
        for (const { resolve } of [...taken, ...late]) resolve(false)
        await refreshSpace()
      }
    }
    committing = undefined
  }

  async function commitOnce(taken: readonly Waiter[]): Promise<void> {
    const growing = [...closing, ...openOnes()].filter((segment) => hasGrown(segment))
    // The record goes last: into a live segment, where it is found first after a crash.
    growing.sort((a, b) => Number(a.lane === 'live') - Number(b.lane === 'live') || a.sequence - b.sequence)
    if (taken.length > 0 && growing.at(-1)?.lane !== 'live') growing.push(lanes.live ?? openSegment('live'))
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
    const frames = growing.map((segment) => {
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
    for (const { segment, snapshots, kept, bytes: written } of frames) {
      segment.fileBytes += written
      bytes += written
      for (const { snapshot } of snapshots) markSynced(snapshot)
      addSignals(segment.synced, kept)
      addSignals(inJournal, kept)
    }
    frames.at(-1)?.segment.requests.push(...requests)
    for (const segment of [...closing]) if (!hasGrown(segment)) await seal(segment)
  }

  /** Writes and syncs a frame behind what is durable, and returns how many bytes that took. */
  async function writeFrame(segment: OpenSegment, input: Parameters<typeof encodeFrame>[0]): Promise<number> {
    const frame = encodeFrame(input)
    if (segment.file === undefined) {
      const path = join(directory, segmentFileName(segment.sequence))
      const header = encodeSegmentHeader(headerOf(segment.sequence, segment.lane, segment.createdUnixMs))
      segment.file = await files.open(path, 'create')
      await segment.file.write([header, ...frame.buffers], 0)
      await files.syncDirectory(directory)
      return header.length + frame.bytes
    }
    await segment.file.write(frame.buffers, segment.fileBytes)
    return frame.bytes
  }

  /** Takes back everything that no commit made durable, in memory and in the files. */
  async function undo(): Promise<void> {
    for (const segment of [...closing, ...openOnes()]) {
      for (const { block } of segment.blocks.values()) cutToSynced(block)
      segment.pending = noneBySignal()
      if (segment.file !== undefined) {
        suspects.push({ file: segment.file, bytes: segment.fileBytes, name: segmentFileName(segment.sequence) })
      }
      // A sync that failed says nothing about what it was asked to write, nor will the next: such a file gets no more.
      if (segment.state === 'open') close(segment)
    }
    for (const segment of [...closing]) if (!hasGrown(segment)) await seal(segment)
  }

  async function truncateSuspects(): Promise<void> {
    while (suspects.length > 0) {
      const suspect = suspects[0] as (typeof suspects)[number]
      const file = await files.open(join(directory, suspect.name), 'change').catch(missingIsGone)
      if (file !== undefined) {
        try {
          await file.truncate(suspect.bytes)
        } finally {
          await file.close()
        }
      }
      suspects = suspects.slice(1)
    }
  }

  function close(segment: OpenSegment): void {
    clearTimeout(segment.timer)
    segment.state = 'closing'
    if (lanes[segment.lane] === segment) lanes[segment.lane] = undefined
    closing.push(segment)
    committing ??= Promise.resolve().then(commitAll)
  }

  async function seal(segment: OpenSegment): Promise<void> {
    closing.splice(closing.indexOf(segment), 1)
    await segment.file?.close()
    if (segment.fileBytes === 0) {
      for (const { block } of segment.blocks.values()) giveBack(block)
      return
    }
    const sealed: SealedSegment = {
      sequence: segment.sequence,
      name: segmentName(id, segment.sequence),
      lane: segment.lane,
      bytes: segment.fileBytes,
      createdUnixMs: segment.createdUnixMs,
      records: segment.synced,
      isFresh: true,
      done: new Set(),
    }
    const blocks = [...segment.blocks.values()].filter(({ block }) => block.rows > 0)
    const blocksBytes = segmentBytes(segment)
    const held = [...entries.values()].reduce((sum, entry) => sum + entry.blocksBytes, 0)
    const isKept = held + blocksBytes <= bounds.sealedBytesMax
    if (!isKept) for (const { block } of segment.blocks.values()) giveBack(block)
    for (const entry of entries.values()) if (!isYoung(entry.answered)) entry.answered = undefined
    entries.set(sealed.sequence, {
      segment: sealed,
      answered: answeredBy(segment.requests),
      blocks: isKept ? blocks : undefined,
      blocksBytes: isKept ? blocksBytes : 0,
    })
    options.onSealed(sealed)
  }

  async function refreshSpace(): Promise<void> {
    checkingSpace ??= (async () => {
      try {
        const space = await files.space(directory)
        const reserve = bounds.reserveBytes(space.totalBytes)
        const before = fullReason
        if (bytes >= bounds.journalBytesMax)
          fullReason = `the journal holds ${bytes} bytes of ${bounds.journalBytesMax}`
        else if (space.freeBytes < reserve) {
          fullReason = `the journal's volume has ${space.freeBytes} bytes free and ${reserve} are kept for the engines`
        } else fullReason = undefined
        if (fullReason !== undefined && before === undefined) options.onProblem({ kind: 'full', reason: fullReason })
      } finally {
        spaceCheckedMs = now()
        checkingSpace = undefined
      }
    })()
    await checkingSpace
  }

  async function load(segment: SealedSegment): Promise<LoadedSegment> {
    const entry = entries.get(segment.sequence)
    if (entry === undefined) throw new Error(`segment ${segment.name} is not in the journal`)
    const header = headerOf(segment.sequence, segment.lane, segment.createdUnixMs)
    if (entry.blocks !== undefined) {
      const { blocks } = entry
      // Whoever releases them gives their memory back: they are one sink's, and another reads the file.
      entry.blocks = undefined
      return loaded(entry, header, blocks)
    }
    const found = recovered.segments.find((each) => each.sequence === segment.sequence)
    const path = join(directory, segmentFileName(segment.sequence))
    const file = await files.open(path, 'read')
    try {
      const headerOfFile = found?.header ?? header
      const headerBytes = found?.headerBytes ?? encodeSegmentHeader(header).length
      // Blocks of an older layout are not those of the pool.
      const take = found === undefined ? takeBlock : openBlock
      const { blocks, corrupt } = await loadSegment(file, headerOfFile, headerBytes, commit, take)
      for (const frame of corrupt) await setAside(segment, file, frame)
      return loaded(entry, headerOfFile, blocks)
    } finally {
      await file.close()
    }
  }

  function loaded(
    entry: Entry,
    header: SegmentHeader,
    blocks: readonly { readonly table: number; readonly block: AnyBlock }[],
  ): LoadedSegment {
    return {
      header,
      parts: blocks.map(partOf),
      release: () => {
        entry.blocksBytes = 0
        for (const { table, block } of blocks) if (block.table === journalTables[table]) giveBack(block)
      },
    }
  }

  /** Keeps the bytes of a corrupt frame for whoever can read them, and books its records as quarantined. */
  async function setAside(
    segment: SealedSegment,
    file: JournalFile,
    frame: { readonly at: number; readonly bytes: number; readonly kept: BySignal | undefined },
  ): Promise<void> {
    const key = `corrupt:${frame.at}`
    if (books.done[segment.sequence]?.parts.includes(key)) return
    const name = corruptFileName(segment.sequence, frame.at)
    await keepBytes(files, directory, name, file, frame.at, frame.bytes)
    corrupt.add(name)
    settle(segment, key, noneBySignal(), frame.kept ?? noneBySignal())
    options.onProblem({ kind: 'corrupt_frame', segment: segment.name, bytes: frame.bytes })
  }

  function settle(segment: SealedSegment, part: string, stored: BySignal, quarantined: BySignal): void {
    addSignals(books.stored, stored)
    addSignals(books.quarantined, quarantined)
    const done = books.done[segment.sequence] ?? { parts: [], gone: noneBySignal() }
    books.done[segment.sequence] = done
    done.parts.push(part)
    for (const gone of [stored, quarantined]) {
      addSignals(done.gone, gone)
      subtractSignals(inJournal, gone)
    }
  }

  async function remove(segment: SealedSegment): Promise<void> {
    const entry = entries.get(segment.sequence)
    if (entry === undefined) return
    books.sequence = Math.max(books.sequence, segment.sequence)
    const { answered } = entry
    if (isYoung(answered)) await writeAnswered(segment.sequence, answered)
    await saveBooks()
    await files.remove(join(directory, segmentFileName(segment.sequence)))
    entries.delete(segment.sequence)
    removed.dispatchEvent(new Event('removed'))
    delete books.done[segment.sequence]
    bytes -= segment.bytes
    if (fullReason !== undefined) await refreshSpace()
  }

  function answeredBy(requests: readonly AnsweredRequest[]): Answered | undefined {
    const unixMs = requests.at(-1)?.unixMs
    if (unixMs === undefined) return undefined
    const record = { totals: { accepted: books.accepted, duplicate: books.duplicate }, requests }
    const { buffers } = encodeFrame({ commit: 0, unixMs, kept: noneBySignal(), record, snapshots: [] })
    return { frame: Buffer.concat(buffers), unixMs }
  }

  function isYoung(answered: Answered | undefined): answered is Answered {
    return answered !== undefined && now() - answered.unixMs < bounds.answeredMs
  }

  async function writeAnswered(number: number, { frame, unixMs }: Answered): Promise<void> {
    await writeWhole(files, directory, `${String(number).padStart(12, '0')}.answered`, frame)
    for (const name of await files.list(directory)) {
      const old = answeredAt.get(name)
      if (old !== undefined && now() - old > bounds.answeredMs) {
        answeredAt.delete(name)
        await files.remove(join(directory, name))
      }
    }
    answeredAt.set(`${String(number).padStart(12, '0')}.answered`, unixMs)
  }
  const answeredAt = new Map(recovered.answeredFiles)

  async function saveBooks(): Promise<void> {
    // One at a time, each with what the books say when its turn comes.
    booksWriting = booksWriting.catch(() => undefined).then(() => writeBooks(files, directory, books))
    await booksWriting
  }

  async function drain(signal: AbortSignal): Promise<void> {
    for (const segment of [...openOnes()]) close(segment)
    await committing
    const last = sequence
    while (!signal.aborted && [...entries.keys()].some((number) => number <= last))
      await once(removed, 'removed', { signal }).catch(() => undefined)
  }

  function status(): JournalStatus {
    let oldestUnixMs: number | undefined
    for (const { segment } of entries.values()) {
      oldestUnixMs = Math.min(oldestUnixMs ?? segment.createdUnixMs, segment.createdUnixMs)
    }
    return {
      journal: id,
      bytes,
      segments: entries.size,
      oldestUnixMs,
      isFull: fullReason !== undefined,
      corruptFrames: corrupt.size,
      commits: commit,
      accepted: sum(books.accepted, duplicates),
      duplicate: sum(books.duplicate, duplicates),
      stored: { ...books.stored },
      quarantined: { ...books.quarantined },
      inJournal: { ...inJournal },
    }
  }

  async function stop(): Promise<void> {
    isStopped = true
    for (const segment of [...openOnes()]) close(segment)
    await committing
    await saveBooks()
  }

  for (const entry of [...entries.values()]) options.onSealed(entry.segment)

  return {
    id,
    answered: recovered.answered,
    append,
    countDuplicate: (signal, records) => {
      duplicates[signal] += records
    },
    load,
    settle,
    remove,
    drain,
    status,
    stop,
    [Symbol.asyncDispose]: stop,
  }
}

const spareBytesMax = 96 * 1024 * 1024

function partOf({ table, block }: { readonly table: number; readonly block: AnyBlock }): SegmentPart {
  return { table, day: block.day, rows: block.rows, block }
}

function hasGrown(segment: OpenSegment): boolean {
  for (const { block } of segment.blocks.values()) if (block.rows > block.rowsSynced) return true
  return false
}

function segmentBytes(segment: OpenSegment): number {
  let total = 0
  for (const { block } of segment.blocks.values()) total += blockBytes(block)
  return total
}

/** Books the rows that a request added to a block. Its quarantine rows are of its signal too: one request has one. What was
 *  read out of a record stands beside the record's own row. */
function addRecords(to: BySignal, block: AnyBlock, rowsBefore: number, signal: Signal): void {
  if (!isBlockOf(block, factsTable) && !isBlockOf(block, contentsTable)) to[signal] += block.rows - rowsBefore
}

function sum(a: BySignal, b: BySignal): BySignal {
  return { traces: a.traces + b.traces, metrics: a.metrics + b.metrics, logs: a.logs + b.logs }
}

function missingIsGone(error: NodeJS.ErrnoException): undefined {
  if (error.code !== 'ENOENT') throw error
  return undefined
}

const idFileName = 'id'

/** The journal's own id, made with its directory: rows carry it, so two journals never take each other's for theirs. */
async function readJournalId(files: JournalFiles, directory: string): Promise<string> {
  if (!(await files.list(directory)).includes(idFileName)) {
    await writeWhole(files, directory, idFileName, Buffer.from(randomBytes(5).toString('hex')))
  }
  const file = await files.open(join(directory, idFileName), 'read')
  try {
    const bytes = Buffer.alloc(await file.size())
    await file.read(bytes, 0)
    return bytes.toString()
  } finally {
    await file.close()
  }
}
