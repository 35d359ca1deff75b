// The segments that never change any more: handed to the sinks in order, read back from their files where their blocks are not
// in memory, and removed once every part is settled. `settle` and `remove` keep the journal's books.
import { once } from 'node:events'
import { join } from 'node:path'
import { isDeepStrictEqual } from 'node:util'
import { type AnyBlock, openBlock } from '@tallylight/storage/clickhouse/block.ts'
import { journalTables, type TableDefinition } from '@tallylight/storage/clickhouse/tables.ts'
import { type Answered, type AnsweredFiles, encodeAnswered } from './answered.ts'
import type { BlockPool } from './block-pool.ts'
import { addSignals, type Books, subtractSignals } from './books.ts'
import type { JournalFile, JournalFiles } from './files.ts'
import { type BySignal, noneBySignal, signals } from './frame.ts'
import type { NumberedBlock, OpenSegment } from './open-segments.ts'
import type { JournalProblem } from './problem.ts'
import { keepBytes, type Recovered, type RecoveredSegment } from './recover.ts'
import {
  corruptFileName,
  encodeSegmentHeader,
  type Lane,
  loadSegment,
  type SegmentHeader,
  segmentFileName,
  segmentName,
} from './segment.ts'

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

export type SegmentPart = {
  readonly table: number
  readonly day: number
  readonly rows: number
  readonly block: AnyBlock
}

export type LoadedSegment = {
  readonly header: SegmentHeader
  readonly parts: readonly SegmentPart[]
  /** Gives the blocks' memory back. */
  release(): void
}

export type SealedSegments = {
  /** Of a segment whose file is whole. */
  add(segment: OpenSegment): SealedSegment
  all(): readonly SealedSegment[]
  count(): number
  oldestUnixMs(): number | undefined
  load(segment: SealedSegment): Promise<LoadedSegment>
  settle(segment: SealedSegment, part: string, stored: BySignal, quarantined: BySignal): void
  remove(segment: SealedSegment): Promise<void>
  /** Resolves when none of those up to this number is left, or the signal aborts. */
  removedUntil(sequence: number, signal: AbortSignal): Promise<void>
  /** Stretches of segments that could not be read and were set aside. */
  corruptFrames(): number
}

/** What the journal holds, in open segments too: bytes of its files, and records that no sink has. */
export type Held = { bytes: number; readonly records: BySignal }

type Entry = {
  readonly segment: SealedSegment
  /** Undefined where there are none, or they are too old to be sent again. */
  answered: Answered | undefined
  blocks: readonly NumberedBlock[] | undefined
}

export function openSealedSegments(options: {
  readonly directory: string
  readonly files: JournalFiles
  readonly journal: string
  readonly recovered: Recovered
  readonly books: Books
  readonly saveBooks: () => Promise<void>
  readonly held: Held
  readonly answeredFiles: AnsweredFiles
  readonly pool: BlockPool
  /** While no more than this waits for the sink, blocks stay in memory for it. It takes the oldest first: behind more than this
   *  they would only lie there. */
  readonly sealedBytesMax: number
  readonly headerOf: (segment: Pick<SealedSegment, 'sequence' | 'lane' | 'createdUnixMs'>) => SegmentHeader
  /** The last commit that is durable. */
  readonly commit: () => number
  readonly onProblem: (problem: JournalProblem) => void
}): SealedSegments {
  const { directory, files, recovered, books, held, answeredFiles, pool } = options
  const entries = new Map<number, Entry>()
  const found = new Map<number, RecoveredSegment>()
  const corrupt = new Set(recovered.corrupt)
  const removed = new EventTarget()

  for (const left of recovered.segments) {
    const done = books.done[left.sequence]
    const segment = sealedOf(left, left.bytes, left.records, false, new Set(done?.parts))
    entries.set(left.sequence, { segment, answered: answeredBy(left.requests), blocks: undefined })
    found.set(left.sequence, left)
    addSignals(held.records, left.records)
    subtractSignals(held.records, done?.gone ?? noneBySignal())
    held.bytes += left.bytes
  }

  function sealedOf(
    { sequence, lane, createdUnixMs }: Pick<SealedSegment, 'sequence' | 'lane' | 'createdUnixMs'>,
    bytes: number,
    records: BySignal,
    isFresh: boolean,
    done: ReadonlySet<string>,
  ): SealedSegment {
    const name = segmentName(options.journal, sequence)
    return { sequence, name, lane, bytes, createdUnixMs, records, isFresh, done }
  }

  function answeredBy(requests: RecoveredSegment['requests']): Answered | undefined {
    return encodeAnswered(requests, { accepted: books.accepted, duplicate: books.duplicate })
  }

  function add(segment: OpenSegment): SealedSegment {
    const sealed = sealedOf(segment, segment.fileBytes, segment.synced, true, new Set())
    let waitingBytes = sealed.bytes
    for (const entry of entries.values()) {
      if (!isStored(entry.segment)) waitingBytes += entry.segment.bytes
      if (!answeredFiles.isYoung(entry.answered)) entry.answered = undefined
    }
    const isKept = waitingBytes <= options.sealedBytesMax
    const blocks = [...segment.blocks.values()]
    if (!isKept) for (const { block } of blocks) pool.giveBack(block)
    entries.set(sealed.sequence, {
      segment: sealed,
      answered: answeredBy(segment.requests),
      blocks: isKept ? blocks.filter(({ block }) => block.rows > 0) : undefined,
    })
    return sealed
  }

  function isStored({ sequence, records }: SealedSegment): boolean {
    const gone = books.done[sequence]?.gone
    return gone !== undefined && signals.every((signal) => gone[signal] >= records[signal])
  }

  async function load(segment: SealedSegment): Promise<LoadedSegment> {
    const entry = entries.get(segment.sequence)
    if (entry === undefined) throw new Error(`segment ${segment.name} is not in the journal`)
    const header = options.headerOf(segment)
    if (entry.blocks !== undefined) {
      const { blocks } = entry
      // Whoever releases them gives their memory back: they are one sink's, and another reads the file.
      entry.blocks = undefined
      return loaded(header, blocks)
    }
    const left = found.get(segment.sequence)
    const file = await files.open(join(directory, segmentFileName(segment.sequence)), 'read')
    try {
      const headerOfFile = left === undefined ? header : withTablesOfNow(left.header)
      const headerBytes = left?.headerBytes ?? encodeSegmentHeader(header).length
      const read = await loadSegment(file, headerOfFile, headerBytes, options.commit(), takeBlock)
      for (const frame of read.corrupt) await setAside(segment, file, frame)
      return loaded(headerOfFile, read.blocks)
    } finally {
      await file.close()
    }
  }

  /** Blocks of an older layout are not those of the pool. */
  function takeBlock(table: TableDefinition, day: number): AnyBlock {
    return journalTables.includes(table) ? pool.take(table, day) : openBlock(table, day)
  }

  function loaded(header: SegmentHeader, blocks: readonly NumberedBlock[]): LoadedSegment {
    return {
      header,
      parts: blocks.map(({ table, block }) => ({ table, day: block.day, rows: block.rows, block })),
      release: () => {
        for (const { table, block } of blocks) if (block.table === journalTables[table]) pool.giveBack(block)
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
      subtractSignals(held.records, gone)
    }
  }

  async function remove(segment: SealedSegment): Promise<void> {
    const entry = entries.get(segment.sequence)
    if (entry === undefined) return
    books.sequence = Math.max(books.sequence, segment.sequence)
    const { answered } = entry
    if (answeredFiles.isYoung(answered)) await answeredFiles.write(segment.sequence, answered)
    await options.saveBooks()
    await files.remove(join(directory, segmentFileName(segment.sequence)))
    entries.delete(segment.sequence)
    found.delete(segment.sequence)
    removed.dispatchEvent(new Event('removed'))
    delete books.done[segment.sequence]
    held.bytes -= segment.bytes
  }

  return {
    add,
    all: () => [...entries.values()].map(({ segment }) => segment),
    count: () => entries.size,
    oldestUnixMs: () => {
      let oldest: number | undefined
      for (const { segment } of entries.values())
        oldest = Math.min(oldest ?? segment.createdUnixMs, segment.createdUnixMs)
      return oldest
    },
    load,
    settle,
    remove,
    removedUntil: async (sequence, signal) => {
      while (!signal.aborted && [...entries.keys()].some((number) => number <= sequence))
        await once(removed, 'removed', { signal }).catch(() => undefined)
    },
    corruptFrames: () => corrupt.size,
  }
}

/** What a run before this one wrote has mostly the tables that are now: then they are the same, also to the pool. */
function withTablesOfNow(header: SegmentHeader): SegmentHeader {
  const tables = header.tables.map((table, number) => {
    const now = journalTables[number]
    return now !== undefined && isDeepStrictEqual(table, now) ? now : table
  })
  return { ...header, tables }
}
