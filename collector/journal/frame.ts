// A frame: what the open blocks of a segment grew by between two syncs, with everything needed to put it back.
//
//   0  magic  u32      'TLF1'
//   4  head   u32      bytes of the head
//   8  data   u64      bytes of the data
//  16  crc    u32      of the data
//  20  crc    u32      of bytes 0–20 and the head
//  24  head            numbers as varints, see `putHead`
//      data            per block, per stream: the bytes it grew by
//
// The head can be checked without the data, so a start reads a backlog of gigabytes in heads alone. It also says where each
// block and dictionary stood before, so that the frames behind a corrupt one can still be read.
import { crc32 } from 'node:zlib'
import type { AnyBlock } from '@tallylight/storage/clickhouse/block.ts'
import type { Signal } from '../receive/request.ts'

export const frameHeaderBytes = 24
const magic = 0x31464c54
/** A head names at most some thousand blocks and requests. */
export const headBytesMax = 64 * 1024 * 1024

export type BySignal = { traces: number; metrics: number; logs: number }
export const signals: readonly Signal[] = ['traces', 'metrics', 'logs']

export function noneBySignal(): BySignal {
  return { traces: 0, metrics: 0, logs: 0 }
}

/** A request that this commit makes durable: so that a retry of it, also after a crash, is answered and not stored again. */
export type CommittedRequest = {
  /** 16 bytes. */
  readonly digest: Buffer
  readonly signal: Signal
  readonly kept: number
  readonly rejected: number
  readonly message: string
}

/** OTLP records since the journal was made. */
export type Totals = { readonly accepted: BySignal; readonly duplicate: BySignal }

/** The commit's last frame carries its record; frames of a commit without one were never answered. */
export type CommitRecord = { readonly totals: Totals; readonly requests: readonly CommittedRequest[] }

export type BlockGrowth = {
  readonly table: number
  readonly day: number
  readonly rowsBefore: number
  readonly rows: number
  /** Per stream: bytes it grew by, and its entries or elements before (0 for others). */
  readonly growths: readonly number[]
  readonly bases: readonly number[]
}

export type FrameHead = {
  readonly commit: number
  readonly unixMs: number
  /** OTLP records whose rows are in this frame. */
  readonly kept: BySignal
  readonly record: CommitRecord | undefined
  readonly blocks: readonly BlockGrowth[]
}

/** A snapshot of where the streams of a block are, taken when a frame is made. */
export type Snapshot = {
  readonly block: AnyBlock
  readonly rows: number
  readonly lengths: readonly number[]
  readonly counts: readonly number[]
}

export function snapshotOf(block: AnyBlock): Snapshot {
  return {
    block,
    rows: block.rows,
    lengths: block.streams.map((stream) => stream.length),
    counts: block.dictionaries.map((dictionary) => dictionary.count),
  }
}

/** Notes that what the snapshot saw is durable. */
export function markSynced(snapshot: Snapshot): void {
  const { block } = snapshot
  block.rowsSynced = snapshot.rows
  for (const [at, stream] of block.streams.entries()) stream.synced = snapshot.lengths[at] as number
  for (const [at, dictionary] of block.dictionaries.entries()) dictionary.synced = snapshot.counts[at] as number
}

export type FrameInput = {
  readonly commit: number
  readonly unixMs: number
  readonly kept: BySignal
  readonly record: CommitRecord | undefined
  readonly snapshots: readonly { readonly table: number; readonly snapshot: Snapshot }[]
}

/** Slices shorter than this are copied next to each other: a writev of hundreds of tiny pieces costs more than the copy. */
const copiedBytesMax = 4096

/** The frame as buffers to write. Long slices are those of the blocks themselves, which only ever grow behind them. */
export function encodeFrame(input: FrameInput): { readonly buffers: readonly Buffer[]; readonly bytes: number } {
  const slices: Buffer[] = []
  const blocks: BlockGrowth[] = []
  for (const { table, snapshot } of input.snapshots) {
    const { block } = snapshot
    const growths: number[] = []
    const bases: number[] = []
    for (const [at, stream] of block.streams.entries()) {
      const end = snapshot.lengths[at] as number
      growths.push(end - stream.synced)
      bases.push(baseOf(block, at))
      if (end > stream.synced) slices.push(stream.bytes.subarray(stream.synced, end))
    }
    blocks.push({
      table,
      day: block.day,
      rowsBefore: block.rowsSynced,
      rows: snapshot.rows - block.rowsSynced,
      growths,
      bases,
    })
  }
  const head = putHead({ ...input, blocks })
  const data = joined(slices)
  let dataBytes = 0
  let dataCrc = 0
  for (const slice of data) {
    dataBytes += slice.length
    dataCrc = crc32(slice, dataCrc)
  }
  const header = Buffer.allocUnsafe(frameHeaderBytes)
  header.writeUInt32LE(magic, 0)
  header.writeUInt32LE(head.length, 4)
  header.writeBigUInt64LE(BigInt(dataBytes), 8)
  header.writeUInt32LE(dataCrc, 16)
  header.writeUInt32LE(crc32(head, crc32(header.subarray(0, 20))), 20)
  return { buffers: [header, head, ...data], bytes: frameHeaderBytes + head.length + dataBytes }
}

function baseOf(block: AnyBlock, at: number): number {
  const base = block.bases[at]
  const stream = block.streams[at]
  if (base === undefined || stream === undefined) return 0
  if (base.kind === 'entries') return base.dictionary.synced
  if (base.kind === 'ends') return stream.synced === 0 ? 0 : stream.view.getUint32(stream.synced - 8, true)
  return 0
}

function joined(slices: readonly Buffer[]): readonly Buffer[] {
  const out: Buffer[] = []
  let small: Buffer[] = []
  const flush = (): void => {
    if (small.length > 0) out.push(small.length === 1 ? (small[0] as Buffer) : Buffer.concat(small))
    small = []
  }
  for (const slice of slices) {
    if (slice.length <= copiedBytesMax) {
      small.push(slice)
    } else {
      flush()
      out.push(slice)
    }
  }
  flush()
  return out
}

export type FrameHeader = { readonly headBytes: number; readonly dataBytes: number; readonly dataCrc: number }

/** The header of a frame, or undefined when these bytes are none. */
export function readFrameHeader(bytes: Buffer): (FrameHeader & { readonly headCrc: number }) | undefined {
  if (bytes.length < frameHeaderBytes || bytes.readUInt32LE(0) !== magic) return undefined
  const headBytes = bytes.readUInt32LE(4)
  const dataBytes = Number(bytes.readBigUInt64LE(8))
  if (headBytes > headBytesMax || !Number.isSafeInteger(dataBytes)) return undefined
  return { headBytes, dataBytes, dataCrc: bytes.readUInt32LE(16), headCrc: bytes.readUInt32LE(20) }
}

/** The head, when its checksum over header and head holds. */
export function readFrameHead(header: Buffer, headCrc: number, head: Buffer): FrameHead | undefined {
  if (crc32(head, crc32(header.subarray(0, 20))) !== headCrc) return undefined
  return getHead(head)
}

export const frameMagic: Buffer = Buffer.from([0x54, 0x4c, 0x46, 0x31])

function putHead(input: FrameInput & { readonly blocks: readonly BlockGrowth[] }): Buffer {
  const head = Buffer.allocUnsafe(headBytesAtMost(input))
  let at = 0
  const put = (value: number): void => {
    let rest = value
    while (rest >= 0x80) {
      head[at++] = (rest % 0x80) | 0x80
      rest = Math.floor(rest / 0x80)
    }
    head[at++] = rest
  }
  const putSignals = (by: BySignal): void => {
    for (const signal of signals) put(by[signal])
  }
  put(input.commit)
  put(input.unixMs)
  putSignals(input.kept)
  put(input.record === undefined ? 0 : 1)
  if (input.record !== undefined) {
    putSignals(input.record.totals.accepted)
    putSignals(input.record.totals.duplicate)
    put(input.record.requests.length)
    for (const { digest, signal, kept, rejected, message } of input.record.requests) {
      put(digest.length)
      at += digest.copy(head, at)
      put(signals.indexOf(signal))
      put(kept)
      put(rejected)
      put(Buffer.byteLength(message))
      at += head.write(message, at)
    }
  }
  put(input.blocks.length)
  for (const block of input.blocks) {
    put(block.table)
    put(block.day)
    put(block.rowsBefore)
    put(block.rows)
    put(block.growths.length)
    for (const [index, growth] of block.growths.entries()) {
      put(growth)
      put(block.bases[index] as number)
    }
  }
  return head.subarray(0, at)
}

/** A number takes at most 8 bytes: it is below 2^53. */
const numberBytesMax = 8

/** Counted before it is written, since a head names thousands of requests: a buffer for each text, and their concatenation,
 *  took as long as all the rest of a commit. */
function headBytesAtMost({ record, blocks }: FrameInput & { readonly blocks: readonly BlockGrowth[] }): number {
  let numbers = 14
  let bytes = 0
  for (const { digest, message } of record?.requests ?? []) {
    numbers += 5
    // A character of UTF-16 takes at most three bytes.
    bytes += digest.length + message.length * 3
  }
  for (const { growths } of blocks) numbers += 5 + growths.length * 2
  return numbers * numberBytesMax + bytes
}

/** Reads what `putHead` wrote. Its checksum was right, so anything odd in it is a bug and throws. */
function getHead(head: Buffer): FrameHead {
  let at = 0
  const get = (): number => {
    let value = 0
    let scale = 1
    for (;;) {
      const byte = head.readUInt8(at++)
      value += (byte & 0x7f) * scale
      if (byte < 0x80) return value
      scale *= 0x80
    }
  }
  const getText = (): Buffer => {
    const length = get()
    at += length
    return head.subarray(at - length, at)
  }
  const getSignals = (): BySignal => ({ traces: get(), metrics: get(), logs: get() })
  const commit = get()
  const unixMs = get()
  const kept = getSignals()
  const record =
    get() === 0
      ? undefined
      : {
          totals: { accepted: getSignals(), duplicate: getSignals() },
          requests: Array.from({ length: get() }, () => ({
            digest: getText(),
            signal: signals[get()] as Signal,
            kept: get(),
            rejected: get(),
            message: getText().toString(),
          })),
        }
  const blocks = Array.from({ length: get() }, (): BlockGrowth => {
    const table = get()
    const day = get()
    const rowsBefore = get()
    const rows = get()
    const growths: number[] = []
    const bases: number[] = []
    for (let left = get(); left > 0; left--) {
      growths.push(get())
      bases.push(get())
    }
    return { table, day, rowsBefore, rows, growths, bases }
  })
  return { commit, unixMs, kept, record, blocks }
}
