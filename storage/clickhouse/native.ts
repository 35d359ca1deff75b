// A finished block in ClickHouse's Native format, revision 0: what HTTP without `client_protocol_version`, files and chdb
// read. The columns already are what Native wants, so this writes the few bytes between them. `TraceId`s are hex text.
import { type AnyBlock, type Column, elementsOf } from './block.ts'
import type { ColumnDefinition } from './tables.ts'

/** A buffer is handed out whole above this; smaller ones are joined, so that a block is tens of writes and not hundreds. */
const joinBytesMax = 16 * 1024
const joinedBytes = 256 * 1024

const lowCardinalityVersion = 1
/** UInt16 indexes | additional keys | update dictionary. */
const lowCardinalityFlags = 0x1 | 0x200 | 0x400

/** Yields the block as buffers that stay valid while the block does. `columns` may be fewer than the block has: a reader's
 *  own table may lack ours. `segmentName` fills the column of that name. */
export function* nativeBlock(
  block: AnyBlock,
  columns: readonly ColumnDefinition[],
  segmentName: string,
): Generator<Buffer, void, undefined> {
  let joined: Buffer[] = []
  let joinedSize = 0
  for (const piece of pieces(block, columns, segmentName)) {
    if (piece.length === 0) continue
    if (piece.length >= joinBytesMax || joinedSize + piece.length > joinedBytes) {
      if (joinedSize > 0) yield Buffer.concat(joined, joinedSize)
      joined = []
      joinedSize = 0
    }
    if (piece.length >= joinBytesMax) {
      yield piece
    } else {
      joined.push(piece)
      joinedSize += piece.length
    }
  }
  if (joinedSize > 0) yield Buffer.concat(joined, joinedSize)
}

function* pieces(block: AnyBlock, columns: readonly ColumnDefinition[], segmentName: string): Generator<Buffer> {
  yield Buffer.concat([varint(columns.length), varint(block.rows)])
  for (const [name, type] of columns) {
    const column = block.columns[name]
    if (column === undefined) throw new Error(`the block of ${block.table.name} has no column ${name}`)
    yield Buffer.concat([text(name), text(type)])
    yield* prefix(column)
    yield* body(column, block.rows, segmentName)
  }
}

function* prefix(column: Column): Generator<Buffer> {
  switch (column.kind) {
    case 'lowCardinality':
    case 'map':
    case 'segmentName':
      yield uint64(lowCardinalityVersion)
      return
    case 'array':
      yield* prefix(column.of)
      return
    case 'fixed':
    case 'nullable':
    case 'string':
      return
    default:
      return column satisfies never
  }
}

function* body(column: Column, rows: number, segmentName: string): Generator<Buffer> {
  switch (column.kind) {
    case 'fixed':
    case 'string':
      yield column.data.bytes.subarray(0, column.data.length)
      return
    case 'nullable':
      yield column.nulls.bytes.subarray(0, column.nulls.length)
      yield* body(column.of, rows, segmentName)
      return
    case 'lowCardinality':
      yield* lowCardinality(
        column.dictionary.count,
        column.dictionary.entries.bytes.subarray(0, column.dictionary.entries.length),
        column.indexes.bytes.subarray(0, column.indexes.length),
      )
      return
    case 'map':
      yield column.ends.bytes.subarray(0, column.ends.length)
      yield* body(column.keys, elementsOf(column.ends), segmentName)
      yield* body(column.values, elementsOf(column.ends), segmentName)
      return
    case 'array':
      yield column.ends.bytes.subarray(0, column.ends.length)
      yield* body(column.of, elementsOf(column.ends), segmentName)
      return
    case 'segmentName':
      yield* lowCardinality(
        2,
        Buffer.concat([text(''), text(segmentName)]),
        Buffer.alloc(rows * 2, Buffer.from([1, 0])),
      )
      return
    default:
      return column satisfies never
  }
}

function* lowCardinality(entries: number, dictionary: Buffer, indexes: Buffer): Generator<Buffer> {
  // With no rows Native leaves the body out altogether; an empty dictionary there would be read as the next column.
  if (indexes.length === 0) return
  yield Buffer.concat([uint64(lowCardinalityFlags), uint64(entries)])
  yield dictionary
  yield uint64(indexes.length / 2)
  yield indexes
}

function uint64(value: number): Buffer {
  const bytes = Buffer.alloc(8)
  bytes.writeBigUInt64LE(BigInt(value))
  return bytes
}

function varint(value: number): Buffer {
  const bytes: number[] = []
  while (value >= 0x80) {
    bytes.push((value % 0x80) | 0x80)
    value = Math.floor(value / 0x80)
  }
  bytes.push(value)
  return Buffer.from(bytes)
}

function text(value: string): Buffer {
  const bytes = Buffer.from(value)
  return Buffer.concat([varint(bytes.length), bytes])
}
