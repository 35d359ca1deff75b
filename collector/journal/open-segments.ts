// The segments that take rows. Two at a time: `live` for yesterday, today and tomorrow, closed after a second, and `late` for
// older days, closed after a minute, so that a backfill does not make a part per second and day. One that is closed takes no
// more, and waits here until its last growth is synced.
import { type AnyBlock, blockBytes, cutToMark, isBlockOf, markBlock } from '@tallylight/storage/clickhouse/block.ts'
import { SegmentFull } from '@tallylight/storage/clickhouse/dictionary.ts'
import {
  contentsTable,
  factsTable,
  journalTables,
  type TableDefinition,
} from '@tallylight/storage/clickhouse/tables.ts'
import type { OpenBlock } from '../otlp/walk.ts'
import type { Signal } from '../receive/request.ts'
import type { AnsweredRequest } from './answered.ts'
import type { BlockPool } from './block-pool.ts'
import type { JournalFile } from './files.ts'
import { type BySignal, noneBySignal } from './frame.ts'
import type { Lane } from './segment.ts'

/** A block of a segment, with its table as the segment's header counts them. */
export type NumberedBlock = { readonly table: number; readonly block: AnyBlock }

export type OpenSegment = {
  readonly sequence: number
  readonly lane: Lane
  readonly createdUnixMs: number
  readonly blocks: Map<string, NumberedBlock>
  readonly requests: AnsweredRequest[]
  /** Records of rows that are appended and not yet in a frame, and of those that are. */
  pending: BySignal
  synced: BySignal
  state: 'open' | 'closing'
  file: JournalFile | undefined
  fileBytes: number
}

export type Appended = {
  readonly signal: Signal
  readonly digest: Buffer
  readonly kept: number
  readonly rejected: number
  readonly message: string
}

/** Appends the rows of a request through the blocks it is given, at most so many bytes. */
export type Walk = (openBlock: OpenBlock, rowBytesMax: number) => Appended

export type OpenSegmentsBounds = {
  readonly segmentBytesMax: number
  /** A segment that reaches this is closed before its time. */
  readonly segmentBytesSealed: number
  readonly segmentRowsMax: number
  readonly liveAgeMsMax: number
  readonly lateAgeMsMax: number
  readonly blocksPerSegmentMax: number
}

export type OpenSegments = {
  /** Those that take rows. */
  open(): readonly OpenSegment[]
  closing(): readonly OpenSegment[]
  /** Made where there is none. */
  live(): OpenSegment
  /** The number of the newest that was made. */
  lastSequence(): number
  /** Throws what `walk` throws, and `SegmentFull`, with nothing appended. */
  append(walk: Walk): Appended
  close(segment: OpenSegment): void
  closeAll(): void
  /** Of one that was closed and is sealed now. */
  forget(segment: OpenSegment): void
}

const tableNumbers = new Map<TableDefinition, number>(journalTables.map((table, number) => [table, number]))

export function openSegments(options: {
  readonly now: () => number
  readonly bounds: OpenSegmentsBounds
  readonly pool: BlockPool
  /** The highest number that a segment has had, as far as the directory knows: never used again. */
  readonly lastSequence: number
  readonly onClosing: () => void
}): OpenSegments {
  const { now, bounds, pool } = options
  const lanes = new Map<Lane, OpenSegment>()
  const closing: OpenSegment[] = []
  const timers = new Map<OpenSegment, NodeJS.Timeout>()
  let { lastSequence } = options
  let walkNumber = 0

  function segmentOf(lane: Lane): OpenSegment {
    const found = lanes.get(lane)
    if (found !== undefined) return found
    const createdUnixMs = now()
    // Not counted on from what the directory says alone: one that is put back from an older copy would give numbers again whose
    // segments ClickHouse has, which takes the new ones for repeats. Hundredths of a second, so that twelve digits last.
    lastSequence = Math.max(lastSequence + 1, Math.floor(createdUnixMs / 10))
    const segment: OpenSegment = {
      sequence: lastSequence,
      lane,
      createdUnixMs,
      blocks: new Map(),
      requests: [],
      pending: noneBySignal(),
      synced: noneBySignal(),
      state: 'open',
      file: undefined,
      fileBytes: 0,
    }
    const ageMs = lane === 'live' ? bounds.liveAgeMsMax : bounds.lateAgeMsMax
    timers.set(
      segment,
      setTimeout(() => close(segment), ageMs),
    )
    lanes.set(lane, segment)
    return segment
  }

  function blockOf(segment: OpenSegment, table: TableDefinition, day: number): AnyBlock {
    const number = tableNumbers.get(table) as number
    const key = `${number}:${day}`
    const found = segment.blocks.get(key)
    if (found !== undefined) return found.block
    if (segment.blocks.size >= bounds.blocksPerSegmentMax) {
      throw new SegmentFull(`a segment holds ${bounds.blocksPerSegmentMax} tables and days`)
    }
    const block = pool.take(table, day)
    segment.blocks.set(key, { table: number, block })
    return block
  }

  function append(walk: Walk): Appended {
    const number = ++walkNumber
    const touched = new Map<AnyBlock, OpenSegment>()
    let room = bounds.segmentBytesMax
    for (const segment of lanes.values()) room = Math.min(room, bounds.segmentBytesMax - segmentBytes(segment))
    const openBlock: OpenBlock = (table, day) => {
      const segment = segmentOf(day >= Math.floor(now() / 86_400_000) - 1 ? 'live' : 'late')
      const block = blockOf(segment, table, day)
      if (block.rows >= bounds.segmentRowsMax) throw new SegmentFull(`a block holds ${bounds.segmentRowsMax} rows`)
      markBlock(block, number)
      touched.set(block, segment)
      if (!isBlockOf(block, table)) throw new Error(`the block of ${table.name} is one of ${block.table.name}`)
      return block
    }
    let appended: Appended
    try {
      if (room <= 0) throw new SegmentFull('the segment is full')
      appended = walk(openBlock, room)
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
    return appended
  }

  function close(segment: OpenSegment): void {
    clearTimeout(timers.get(segment))
    timers.delete(segment)
    segment.state = 'closing'
    if (lanes.get(segment.lane) === segment) lanes.delete(segment.lane)
    closing.push(segment)
    options.onClosing()
  }

  return {
    open: () => [...lanes.values()],
    closing: () => [...closing],
    live: () => segmentOf('live'),
    lastSequence: () => lastSequence,
    append,
    close,
    closeAll: () => {
      for (const segment of [...lanes.values()]) close(segment)
    },
    forget: (segment) => {
      closing.splice(closing.indexOf(segment), 1)
    },
  }
}

/** Whether it has rows that are in no frame. */
export function hasGrown(segment: OpenSegment): boolean {
  for (const { block } of segment.blocks.values()) if (block.rows > block.rowsSynced) return true
  return false
}

export function segmentBytes(segment: OpenSegment): number {
  let total = 0
  for (const { block } of segment.blocks.values()) total += blockBytes(block)
  return total
}

/** Books the rows that a request added to a block. Its quarantine rows are of its signal too: one request has one. What was
 *  read out of a record stands beside the record's own row. */
function addRecords(to: BySignal, block: AnyBlock, rowsBefore: number, signal: Signal): void {
  if (!isBlockOf(block, factsTable) && !isBlockOf(block, contentsTable)) to[signal] += block.rows - rowsBefore
}
