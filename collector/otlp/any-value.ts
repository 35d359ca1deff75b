// OTLP's AnyValue as the text that the exporter's tables hold: strings as they are, numbers in their shortest decimal
// form, bytes in base64, arrays and maps as compact JSON with the keys in order. Source: pdata's Value.AsString.
import { isUtf8 } from 'node:buffer'
import { appendStringOf, appendText, putLength, reserve, type Stream } from '@tallylight/storage/clickhouse/stream.ts'
import type { AnyValue } from '../genai/record.ts'
import { type Cursor, fieldBits, readEnd, readFixed64, readTag, readVarint64, skip } from './wire.ts'

export const valueEmpty = 0
export const valueString = 1
export const valueBool = 2
export const valueInt = 3
export const valueDouble = 4
export const valueArray = 5
export const valueMap = 6
export const valueBytes = 7
/** A name and text of our own, in `literals`. */
export const valueLiteral = 8

/** Arrays and maps inside each other. Deeper is no telemetry; protobuf's own decoders stop at 100 messages. */
export const valueDepthMax = 64

const knownInValue = fieldBits(1, 2, 3, 4, 5, 6, 7)
const knownInList = fieldBits(1)
const knownInPair = fieldBits(1, 2)

/** Which value a message holds and where: a range for what has a length, the first byte for the others. */
export type ValuePlace = { kind: number; start: number; end: number }

/** Reads the AnyValue in `[cursor.at, end)`. The last of several wins, as protobuf says. */
export function placeValue(cursor: Cursor, end: number, place: ValuePlace): void {
  place.kind = valueEmpty
  while (cursor.at < end) {
    const tag = readTag(cursor, end)
    switch (tag) {
      case 0x0a:
      case 0x2a:
      case 0x32:
      case 0x3a: {
        const valueEnd = readEnd(cursor, end)
        // A value that a later one replaces must decode all the same.
        isShallow(cursor, place.kind, place.start, place.end)
        place.kind = tag >>> 3
        place.start = cursor.at
        place.end = valueEnd
        cursor.at = valueEnd
        break
      }
      case 0x10:
      case 0x18:
        isShallow(cursor, place.kind, place.start, place.end)
        place.kind = tag >>> 3
        place.start = cursor.at
        readVarint64(cursor, end)
        place.end = cursor.at
        break
      case 0x21:
        isShallow(cursor, place.kind, place.start, place.end)
        place.kind = valueDouble
        place.start = cursor.at
        readFixed64(cursor, end)
        place.end = cursor.at
        break
      default:
        skip(cursor, tag, end, 'AnyValue', knownInValue)
    }
  }
}

/** Checks the inside of an array or map: that it decodes, and that it is no deeper than we render. False is too deep. */
export function isShallow(cursor: Cursor, kind: number, start: number, end: number, depth = 1): boolean {
  if (kind !== valueArray && kind !== valueMap) return true
  if (depth > valueDepthMax) return false
  const here = cursor.at
  cursor.at = start
  let shallow = true
  const place: ValuePlace = { kind: valueEmpty, start: 0, end: 0 }
  while (cursor.at < end) {
    const tag = readTag(cursor, end)
    if (tag !== 0x0a) {
      skip(cursor, tag, end, kind === valueArray ? 'ArrayValue' : 'KeyValueList', knownInList)
      continue
    }
    const itemEnd = readEnd(cursor, end)
    cursor.items++
    if (kind === valueArray) placeValue(cursor, itemEnd, place)
    else placePair(cursor, itemEnd, place)
    cursor.at = itemEnd
    if (!isShallow(cursor, place.kind, place.start, place.end, depth + 1)) shallow = false
  }
  cursor.at = here
  return shallow
}

type PairPlace = ValuePlace & { keyStart?: number; keyEnd?: number }

/** Reads the KeyValue in `[cursor.at, end)`. */
function placePair(cursor: Cursor, end: number, place: PairPlace): void {
  place.kind = valueEmpty
  place.keyStart = 0
  place.keyEnd = 0
  while (cursor.at < end) {
    const tag = readTag(cursor, end)
    if (tag === 0x0a) {
      place.keyEnd = readEnd(cursor, end)
      place.keyStart = cursor.at
      cursor.at = place.keyEnd
    } else if (tag === 0x12) {
      const valueEnd = readEnd(cursor, end)
      placeValue(cursor, valueEnd, place)
      cursor.at = valueEnd
    } else {
      skip(cursor, tag, end, 'KeyValue', knownInPair)
    }
  }
}

/** Appends the value as text. Returns how many strings were not UTF-8 and had to be repaired. */
export function appendValue(stream: Stream, cursor: Cursor, kind: number, start: number, end: number): number {
  switch (kind) {
    case valueString:
      if (appendStringOf(stream, cursor.bytes, cursor.view, start, end)) return 0
      appendText(stream, repaired(cursor.bytes, start, end))
      return 1
    case valueInt:
      appendInteger(stream, cursor, start, end)
      return 0
    case valueEmpty:
      appendText(stream, nothing)
      return 0
    case valueBool:
      appendText(stream, readBool(cursor, start, end) ? trueText : falseText)
      return 0
    case valueDouble:
      appendText(stream, Buffer.from(doubleText(cursor.view.getFloat64(start, true)), 'latin1'))
      return 0
    case valueBytes:
      appendText(stream, Buffer.from(cursor.bytes.toString('base64', start, end), 'latin1'))
      return 0
    case valueArray:
    case valueMap: {
      const tally = { repaired: 0 }
      appendText(stream, Buffer.from(jsonText(cursor, kind, start, end, tally)))
      return tally.repaired
    }
    default:
      throw new Error(`AnyValue kind ${kind} has no text`)
  }
}

const nothing = Buffer.alloc(0)
const trueText = Buffer.from('true')
const falseText = Buffer.from('false')

export function repaired(bytes: Buffer, start: number, end: number): Buffer {
  // Decoding replaces each broken sequence by U+FFFD, as the WHATWG decoder does.
  return Buffer.from(bytes.toString('utf8', start, end))
}

function readBool(cursor: Cursor, start: number, end: number): boolean {
  const here = cursor.at
  cursor.at = start
  readVarint64(cursor, end)
  cursor.at = here
  return cursor.low !== 0 || cursor.high !== 0
}

function readInteger(cursor: Cursor, start: number, end: number): bigint {
  const here = cursor.at
  cursor.at = start
  readVarint64(cursor, end)
  cursor.at = here
  return BigInt.asIntN(64, (BigInt(cursor.high) << 32n) | BigInt(cursor.low))
}

/** Integers below 2³¹ are nearly all there are: their digits are written without a string in between. */
function appendInteger(stream: Stream, cursor: Cursor, start: number, end: number): void {
  const here = cursor.at
  cursor.at = start
  readVarint64(cursor, end)
  cursor.at = here
  const value = cursor.low
  if (cursor.high !== 0 || value > 0x7fff_ffff) {
    const wide = BigInt.asIntN(64, (BigInt(cursor.high) << 32n) | BigInt(value))
    appendText(stream, Buffer.from(String(wide), 'latin1'))
    return
  }
  let digits = 1
  for (let bound = 10; bound <= value; bound *= 10) digits++
  reserve(stream, digits + 1)
  putLength(stream, digits)
  let rest = value
  for (let at = stream.length + digits - 1; at >= stream.length; at--) {
    const next = (rest / 10) | 0
    stream.bytes[at] = 48 + rest - next * 10
    rest = next
  }
  stream.length += digits
}

export function doubleText(value: number): string {
  return Object.is(value, -0) ? '-0' : String(value)
}

/** The JSON text of a value. JSON has no NaN and no infinities: they become strings, so that the text stays readable. */
function jsonText(cursor: Cursor, kind: number, start: number, end: number, tally: { repaired: number }): string {
  switch (kind) {
    case valueEmpty:
      return 'null'
    case valueString:
      if (!isUtf8(cursor.bytes.subarray(start, end))) tally.repaired++
      return JSON.stringify(cursor.bytes.toString('utf8', start, end))
    case valueBool:
      return readBool(cursor, start, end) ? 'true' : 'false'
    case valueInt:
      return String(readInteger(cursor, start, end))
    case valueDouble: {
      const value = cursor.view.getFloat64(start, true)
      return Number.isFinite(value) ? doubleText(value) : JSON.stringify(String(value))
    }
    case valueBytes:
      return JSON.stringify(cursor.bytes.toString('base64', start, end))
    default:
      return nestedText(cursor, kind, start, end, tally)
  }
}

function nestedText(cursor: Cursor, kind: number, start: number, end: number, tally: { repaired: number }): string {
  const items: { readonly key: string; readonly text: string }[] = []
  readItems(cursor, kind, start, end, (place) => {
    if (kind === valueArray) {
      items.push({ key: '', text: jsonText(cursor, place.kind, place.start, place.end, tally) })
      return
    }
    const key = cursor.bytes.toString('utf8', place.keyStart, place.keyEnd)
    if (!isUtf8(cursor.bytes.subarray(place.keyStart, place.keyEnd))) tally.repaired++
    const text = jsonText(cursor, place.kind, place.start, place.end, tally)
    items.push({ key, text: `${JSON.stringify(key)}:${text}` })
  })
  if (kind === valueArray) return `[${items.map((item) => item.text).join(',')}]`
  // Equal maps must be equal text, in whatever order they were sent: rows that differ by nothing else compress to nothing.
  items.sort((a, b) => compareAsUtf8(a.key, b.key))
  return `{${items.map((item) => item.text).join(',')}}`
}

/** The order of their bytes in UTF-8, without making these for each comparison. UTF-16 has it but for one thing: what takes two
 *  units comes after all that takes one. */
function compareAsUtf8(a: string, b: string): number {
  const length = Math.min(a.length, b.length)
  for (let at = 0; at < length; at++) {
    const ofA = a.charCodeAt(at)
    const ofB = b.charCodeAt(at)
    if (ofA === ofB) continue
    const isPairA = ofA >= 0xd800 && ofA < 0xe000
    const isPairB = ofB >= 0xd800 && ofB < 0xe000
    return isPairA === isPairB ? ofA - ofB : isPairA ? 1 : -1
  }
  return a.length - b.length
}

/** Calls back with the place of each item of an array or map; one place for all of them. */
function readItems(cursor: Cursor, kind: number, start: number, end: number, take: (place: PairPlace) => void): void {
  const here = cursor.at
  cursor.at = start
  const place: PairPlace = { kind: valueEmpty, start: 0, end: 0 }
  while (cursor.at < end) {
    const tag = readTag(cursor, end)
    if (tag !== 0x0a) {
      skip(cursor, tag, end, kind === valueArray ? 'ArrayValue' : 'KeyValueList', knownInList)
      continue
    }
    const itemEnd = readEnd(cursor, end)
    if (kind === valueArray) placeValue(cursor, itemEnd, place)
    else placePair(cursor, itemEnd, place)
    cursor.at = itemEnd
    take(place)
  }
  cursor.at = here
}

/** Calls back with the place of each string in a value. */
export function visitStrings(
  cursor: Cursor,
  kind: number,
  start: number,
  end: number,
  visit: (start: number, end: number) => void,
): void {
  if (kind === valueString) visit(start, end)
  else if (kind === valueArray || kind === valueMap)
    readItems(cursor, kind, start, end, (place) => visitStrings(cursor, place.kind, place.start, place.end, visit))
}

/** The value as an object of ours, for records that are lifted out of the bytes. */
export function valueAt(cursor: Cursor, kind: number, start: number, end: number): AnyValue {
  switch (kind) {
    case valueString:
      return cursor.bytes.toString('utf8', start, end)
    case valueBool:
      return readBool(cursor, start, end)
    case valueInt: {
      const integer = readInteger(cursor, start, end)
      const number = Number(integer)
      return Number.isSafeInteger(number) ? number : integer
    }
    case valueDouble:
      return cursor.view.getFloat64(start, true)
    case valueBytes:
      return new Uint8Array(cursor.bytes.subarray(start, end))
    case valueArray: {
      const items: AnyValue[] = []
      readItems(cursor, kind, start, end, (place) => {
        items.push(valueAt(cursor, place.kind, place.start, place.end))
      })
      return items
    }
    case valueMap: {
      const map = new Map<string, AnyValue>()
      readItems(cursor, kind, start, end, (place) => {
        const key = cursor.bytes.toString('utf8', place.keyStart, place.keyEnd)
        map.set(key, valueAt(cursor, place.kind, place.start, place.end))
      })
      return map
    }
    default:
      return null
  }
}
