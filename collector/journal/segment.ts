// A segment: a file that holds the rows of about a second as frames behind a header. The header pins what every insert of
// the segment must repeat to the letter, on this run or the next: the tables' columns and the insert settings.
import assert from 'node:assert/strict'
import { crc32 } from 'node:zlib'
import { type AnyBlock, elementsOf, openBlock } from '@tallylight/storage/clickhouse/block.ts'
import { appendUint64, reserve } from '@tallylight/storage/clickhouse/stream.ts'
import type { TableDefinition } from '@tallylight/storage/clickhouse/tables.ts'
import type { JournalFile } from './files.ts'
import {
  type BlockGrowth,
  type FrameHead,
  type FrameHeader,
  frameHeaderBytes,
  frameMagic,
  readFrameHead,
  readFrameHeader,
} from './frame.ts'

export type Lane = 'live' | 'late'

export type SegmentHeader = {
  readonly journal: string
  readonly sequence: number
  readonly lane: Lane
  readonly createdUnixMs: number
  readonly tables: readonly TableDefinition[]
  readonly insertSettings: Readonly<Record<string, string | number>>
}

/** Raised with every change that an older program would misread. */
export const formatVersion = 1
const magic = Buffer.from('TLSEG')
const headerFixedBytes = 16
const headerTextBytesMax = 1024 * 1024

/** A file of the journal that this program must not touch: of another format, or not a segment at all. */
export class UnknownFormat extends Error {
  override readonly name = 'UnknownFormat'
}

export function segmentFileName(sequence: number): string {
  return `${String(sequence).padStart(12, '0')}.segment`
}

/** Where the bytes of a segment that could not be read are kept. */
export function corruptFileName(sequence: number, at: number): string {
  return `${segmentFileName(sequence)}-${at}.corrupt`
}

export function sequenceOfFile(name: string): number | undefined {
  const digits = /^(\d{12})\.segment$/.exec(name)?.[1]
  return digits === undefined ? undefined : Number(digits)
}

/** The value of the `Segment` column: which journal, and which of its segments. */
export function segmentName(journal: string, sequence: number): string {
  return `${journal}-${String(sequence).padStart(12, '0')}`
}

export function encodeSegmentHeader(header: SegmentHeader): Buffer {
  const text = Buffer.from(JSON.stringify(header))
  const fixed = Buffer.alloc(headerFixedBytes)
  magic.copy(fixed)
  fixed.writeUInt16LE(formatVersion, 6)
  fixed.writeUInt32LE(text.length, 8)
  fixed.writeUInt32LE(crc32(text), 12)
  return Buffer.concat([fixed, text])
}

export type OpenedSegment =
  | {
      readonly kind: 'segment'
      readonly header: SegmentHeader
      readonly headerBytes: number
      readonly isRepaired: boolean
    }
  /** Broken, or the crash came before it was whole: then nothing in the file was ever answered. */
  | { readonly kind: 'unreadable' }

/** `own` is the header that this program would have written: if it is broken and a frame stands right behind where that
 *  would end, that is what it was. */
export async function readSegmentHeader(file: JournalFile, path: string, own: SegmentHeader): Promise<OpenedSegment> {
  const fixed = Buffer.alloc(headerFixedBytes)
  const isWhole = (await file.read(fixed, 0)) === headerFixedBytes
  const isOurs = fixed.subarray(0, magic.length).equals(magic)
  if (isWhole && isOurs) {
    const version = fixed.readUInt16LE(6)
    if (version !== formatVersion) {
      throw new UnknownFormat(
        `${path} has the journal format ${version}, and this collector knows ${formatVersion}: run the version that wrote it until the journal is empty`,
      )
    }
    const text = Buffer.alloc(Math.min(fixed.readUInt32LE(8), headerTextBytesMax))
    if ((await file.read(text, headerFixedBytes)) === text.length && crc32(text) === fixed.readUInt32LE(12)) {
      const header = JSON.parse(text.toString()) as SegmentHeader
      return { kind: 'segment', header, headerBytes: headerFixedBytes + text.length, isRepaired: false }
    }
  }
  const headerBytes = encodeSegmentHeader(own).length
  if ((await frameAt(file, headerBytes, await file.size())) !== undefined) {
    return { kind: 'segment', header: own, headerBytes, isRepaired: true }
  }
  if (isWhole && !isOurs && !fixed.every((byte) => byte === 0)) {
    throw new UnknownFormat(`${path} does not begin as a segment does; the journal holds only what the collector wrote`)
  }
  return { kind: 'unreadable' }
}

export type ScannedFrame =
  | {
      readonly kind: 'frame'
      readonly at: number
      readonly dataAt: number
      readonly header: FrameHeader
      readonly head: FrameHead
    }
  | { readonly kind: 'corrupt'; readonly at: number; readonly bytes: number }
  | { readonly kind: 'torn'; readonly at: number; readonly bytes: number }

/** Walks the heads of a segment's frames. Bytes that are no frame are skipped up to the next that is; behind the last one
 *  they are the torn tail of a crash. */
export async function* scanFrames(file: JournalFile, from: number): AsyncGenerator<ScannedFrame> {
  const size = await file.size()
  let at = from
  while (at < size) {
    const frame = await frameAt(file, at, size)
    if (frame !== undefined) {
      yield frame
      at = frame.dataAt + frame.header.dataBytes
      continue
    }
    const next = await findFrame(file, at + 1, size)
    yield { kind: next === undefined ? 'torn' : 'corrupt', at, bytes: (next ?? size) - at }
    at = next ?? size
  }
}

async function frameAt(
  file: JournalFile,
  at: number,
  size: number,
): Promise<Extract<ScannedFrame, { kind: 'frame' }> | undefined> {
  const header = Buffer.alloc(frameHeaderBytes)
  if ((await file.read(header, at)) < frameHeaderBytes) return undefined
  const fields = readFrameHeader(header)
  if (fields === undefined) return undefined
  const dataAt = at + frameHeaderBytes + fields.headBytes
  if (dataAt + fields.dataBytes > size) return undefined
  const bytes = Buffer.alloc(fields.headBytes)
  if ((await file.read(bytes, at + frameHeaderBytes)) < bytes.length) return undefined
  const head = readFrameHead(header, fields.headCrc, bytes)
  return head === undefined ? undefined : { kind: 'frame', at, dataAt, header: fields, head }
}

const searchBytes = 1024 * 1024

async function findFrame(file: JournalFile, from: number, size: number): Promise<number | undefined> {
  const window = Buffer.alloc(searchBytes + frameMagic.length - 1)
  for (let start = from; start < size; start += searchBytes) {
    const filled = await file.read(window, start)
    const bytes = window.subarray(0, filled)
    for (let hit = bytes.indexOf(frameMagic); hit >= 0; hit = bytes.indexOf(frameMagic, hit + 1)) {
      if ((await frameAt(file, start + hit, size)) !== undefined) return start + hit
    }
  }
  return undefined
}

export type LoadedBlocks = {
  readonly blocks: readonly { readonly table: number; readonly block: AnyBlock }[]
  readonly corrupt: readonly {
    readonly at: number
    readonly bytes: number
    readonly kept: FrameHead['kept'] | undefined
  }[]
}

/** Puts a segment's blocks back together from its frames, up to the commit `commitMax`. Frames whose data is corrupt are
 *  left out and reported; what stands behind them is kept. */
export async function loadSegment(
  file: JournalFile,
  header: SegmentHeader,
  headerBytes: number,
  commitMax: number,
  takeBlock: (table: TableDefinition, day: number) => AnyBlock = openBlock,
): Promise<LoadedBlocks> {
  const blocks = new Map<string, { readonly table: number; readonly block: AnyBlock }>()
  const corrupt: { at: number; bytes: number; kept: FrameHead['kept'] | undefined }[] = []
  let data = Buffer.alloc(0)
  for await (const frame of scanFrames(file, headerBytes)) {
    if (frame.kind !== 'frame') {
      if (frame.kind === 'corrupt') corrupt.push({ at: frame.at, bytes: frame.bytes, kept: undefined })
      continue
    }
    if (frame.head.commit > commitMax) continue
    const { dataBytes, dataCrc } = frame.header
    if (data.length < dataBytes) data = Buffer.allocUnsafeSlow(Math.max(dataBytes, data.length * 2))
    const bytes = data.subarray(0, dataBytes)
    if ((await file.read(bytes, frame.dataAt)) < dataBytes || crc32(bytes) !== dataCrc) {
      corrupt.push({ at: frame.at, bytes: frame.dataAt + dataBytes - frame.at, kept: frame.head.kept })
      continue
    }
    let at = 0
    for (const growth of frame.head.blocks) {
      const key = `${growth.table}:${growth.day}`
      let entry = blocks.get(key)
      if (entry === undefined) {
        const table = header.tables[growth.table]
        assert(table !== undefined, `segment ${header.sequence} has no table ${growth.table} in its header`)
        const block = takeBlock(table, growth.day)
        emptyBlock(block)
        entry = { table: growth.table, block }
        blocks.set(key, entry)
      }
      at = applyGrowth(entry.block, growth, bytes, at)
    }
    assert.equal(at, dataBytes, `segment ${header.sequence}: the frame at ${frame.at} has data that no stream takes`)
  }
  return { blocks: [...blocks.values()], corrupt }
}

/** A block as a frame expects it: even the empty string of its dictionaries comes from the first frame. */
function emptyBlock(block: AnyBlock): void {
  for (const stream of block.streams) stream.length = 0
  for (const dictionary of block.dictionaries) dictionary.count = 0
}

function applyGrowth(block: AnyBlock, growth: BlockGrowth, data: Buffer, from: number): number {
  let at = from
  for (const [index, stream] of block.streams.entries()) {
    const size = growth.growths[index] as number
    const base = block.bases[index]
    const before = growth.bases[index] as number
    const slice = data.subarray(at, at + size)
    at += size
    if (base?.kind === 'ends') {
      appendEnds(stream, slice, before)
      continue
    }
    if (base?.kind === 'entries') {
      // The names that a corrupt frame took with it: rows behind it still point to their numbers.
      while (base.dictionary.count < before) {
        reserve(stream, lostName.length)
        lostName.copy(stream.bytes, stream.length)
        stream.length += lostName.length
        base.dictionary.count++
      }
      base.dictionary.count += countStrings(slice)
    }
    reserve(stream, size)
    slice.copy(stream.bytes, stream.length)
    stream.length += size
  }
  block.rows += growth.rows
  return at
}

const lostName = Buffer.from([3, 0xef, 0xbf, 0xbd])

/** Ends are totals since the block began: behind a lost frame they are too high by what it held. */
function appendEnds(stream: AnyBlock['streams'][number], slice: Buffer, before: number): void {
  const lost = before - elementsOf(stream)
  if (lost === 0) {
    reserve(stream, slice.length)
    slice.copy(stream.bytes, stream.length)
    stream.length += slice.length
    return
  }
  for (let at = 0; at < slice.length; at += 8) appendUint64(stream, slice.readUInt32LE(at) - lost, 0)
}

function countStrings(bytes: Buffer): number {
  let count = 0
  let at = 0
  while (at < bytes.length) {
    let length = 0
    let scale = 1
    for (;;) {
      const byte = bytes[at++] as number
      length += (byte & 0x7f) * scale
      if (byte < 0x80) break
      scale *= 0x80
    }
    at += length
    count++
  }
  return count
}
