// Reading protobuf's wire format without making objects: a cursor, and functions that move it. Every length is checked
// against the message it lies in, so that no field can reach outside; what does not decode is `Malformed`, with the place.
import { viewOf } from '@tallylight/storage/clickhouse/stream.ts'

export type Cursor = {
  bytes: Buffer
  view: DataView
  at: number
  /** The halves of the 64-bit value that was read last. */
  low: number
  high: number
  /** Items of arrays and maps that were read inside of values and not yet charged for: see `chargeRow`. */
  items: number
}

export const wireVarint = 0
export const wireFixed64 = 1
export const wireBytes = 2
export const wireFixed32 = 5

/** The request does not decode; answered 400 with this message. */
export class Malformed extends Error {
  override readonly name = 'Malformed'
}

export function openCursor(bytes: Buffer): Cursor {
  return { bytes, view: viewOf(bytes), at: 0, low: 0, high: 0, items: 0 }
}

/** Reads a tag. `(field << 3) | wire type`, as the switches of the walks spell it. */
export function readTag(cursor: Cursor, end: number): number {
  const first = cursor.bytes[cursor.at] as number
  if (first < 0x80 && first >= 8) {
    cursor.at++
    return first
  }
  const tag = readVarint32(cursor, end)
  if (tag >>> 3 === 0) throw malformed(cursor, 'a field has the number 0')
  return tag
}

/** Reads a varint and keeps its low 32 bits, as protobuf prescribes for 32-bit fields. At most 10 bytes. */
export function readVarint32(cursor: Cursor, end: number): number {
  const first = cursor.bytes[cursor.at] as number
  if (first < 0x80 && cursor.at < end) {
    cursor.at++
    return first
  }
  readVarint64(cursor, end)
  return cursor.low
}

/** Reads a varint into `cursor.low` and `cursor.high`, both unsigned. */
export function readVarint64(cursor: Cursor, end: number): void {
  let low = 0
  let high = 0
  const { bytes } = cursor
  let at = cursor.at
  for (let shift = 0; shift < 70; shift += 7) {
    if (at >= end) throw malformed(cursor, 'a varint runs past the end of its message')
    const byte = bytes[at++] as number
    const bits = byte & 0x7f
    if (shift < 28) low |= bits << shift
    else if (shift === 28) {
      low |= bits << 28
      high = bits >>> 4
    } else if (shift < 63) high |= bits << (shift - 32)
    else high |= (bits & 1) << 31
    if (byte < 0x80) {
      cursor.at = at
      cursor.low = low >>> 0
      cursor.high = high >>> 0
      return
    }
  }
  throw malformed(cursor, 'a varint is longer than 10 bytes')
}

/** Reads a length and returns where the field that it opens ends; the cursor stands at its first byte. */
export function readEnd(cursor: Cursor, end: number): number {
  let length = cursor.bytes[cursor.at] as number
  if (length < 0x80 && cursor.at < end) {
    cursor.at++
  } else {
    readVarint64(cursor, end)
    if (cursor.high !== 0) throw malformed(cursor, 'a length is larger than any message')
    length = cursor.low
  }
  const fieldEnd = cursor.at + length
  if (fieldEnd > end) {
    throw malformed(cursor, `a field of ${length} bytes runs past the end of its message by ${fieldEnd - end}`)
  }
  return fieldEnd
}

/** Reads a fixed64 into `cursor.low` and `cursor.high`. */
export function readFixed64(cursor: Cursor, end: number): void {
  const at = cursor.at
  if (at + 8 > end) throw malformed(cursor, 'a 64-bit field runs past the end of its message')
  cursor.low = cursor.view.getUint32(at, true)
  cursor.high = cursor.view.getUint32(at + 4, true)
  cursor.at = at + 8
}

export function readDouble(cursor: Cursor, end: number): number {
  const at = cursor.at
  if (at + 8 > end) throw malformed(cursor, 'a 64-bit field runs past the end of its message')
  cursor.at = at + 8
  return cursor.view.getFloat64(at, true)
}

export function readFixed32(cursor: Cursor, end: number): number {
  const at = cursor.at
  if (at + 4 > end) throw malformed(cursor, 'a 32-bit field runs past the end of its message')
  cursor.at = at + 4
  return cursor.view.getUint32(at, true)
}

/** A zigzag varint of 32 bits. */
export function readSint32(cursor: Cursor, end: number): number {
  const value = readVarint32(cursor, end)
  return (value >>> 1) ^ -(value & 1)
}

/** Steps over a field that is not ours. `message` and `known` (numbers of fields that are) give a known field of another
 *  wire type its error: skipping it would lose what the sender meant. */
export function skip(cursor: Cursor, tag: number, end: number, message: string, known: number): void {
  const field = tag >>> 3
  if (field < 32 && (known & (1 << field)) !== 0) {
    throw malformed(cursor, `field ${field} of ${message} has wire type ${tag & 7}, which is not its own`)
  }
  switch (tag & 7) {
    case wireVarint:
      readVarint64(cursor, end)
      return
    case wireFixed64:
      readFixed64(cursor, end)
      return
    case wireBytes:
      cursor.at = readEnd(cursor, end)
      return
    case wireFixed32:
      readFixed32(cursor, end)
      return
    default:
      throw malformed(cursor, `field ${field} of ${message} has wire type ${tag & 7}, which OTLP does not use`)
  }
}

export function malformed(cursor: Cursor, what: string): Malformed {
  return new Malformed(`${what}, at byte ${cursor.at}`)
}

/** The bits of the field numbers that a walk reads, for `skip`. */
export function fieldBits(...fields: readonly number[]): number {
  let bits = 0
  for (const field of fields) bits |= 1 << field
  return bits
}
