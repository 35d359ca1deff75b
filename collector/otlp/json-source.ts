// What the JSON reader reads from: bytes, four at a time where it can. Nothing here makes a string or an object per value.
// Positions are plain numbers; each function takes the position where its piece starts and returns the one behind it, or
// throws a JsonFault, which `wireFromJson` alone catches.
import { limits } from '../limits.ts'

export type Source = {
  readonly bytes: Buffer
  readonly view: DataView
  readonly end: number
  /** Set when these bytes are an unescaped copy of a text: the place in the request that a message should name. */
  readonly origin: number | undefined
}

/** What is wrong with the JSON, and at which byte. It never holds what the bytes say: they may be a prompt or a key. */
export class JsonFault extends Error {
  readonly at: number
  constructor(at: number, message: string) {
    super(message)
    this.at = at
  }
}

export const QUOTE = 0x22
export const COMMA = 0x2c
export const COLON = 0x3a
export const BACKSLASH = 0x5c
export const OPEN_OBJECT = 0x7b
export const CLOSE_OBJECT = 0x7d
export const OPEN_ARRAY = 0x5b
export const CLOSE_ARRAY = 0x5d
export const LETTER_N = 0x6e
const LETTER_T = 0x74
const LETTER_F = 0x66
const LETTER_U = 0x75
const SPACE = 0x20

export function openSource(bytes: Buffer, origin?: number): Source {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
  return { bytes, view, end: bytes.length, origin }
}

export function fault(source: Source, at: number, message: string): never {
  throw new JsonFault(source.origin ?? at, message)
}

/** Says what was wanted and what stands there instead, by its kind: never the text itself. */
export function unexpected(source: Source, at: number, wanted: string): never {
  return fault(source, at, `expected ${wanted}, found ${describe(source, at)}`)
}

function describe(source: Source, at: number): string {
  if (at >= source.end) return 'the end of the body'
  const byte = source.bytes[at]!
  if (byte === QUOTE) return 'a string'
  if (byte === OPEN_OBJECT) return 'an object'
  if (byte === OPEN_ARRAY) return 'an array'
  if (byte === 0x2d || (byte >= 0x30 && byte <= 0x39)) return 'a number'
  for (const word of ['true', 'false', 'null', 'NaN', 'Infinity']) {
    if (source.bytes.toString('latin1', at, at + word.length) === word) return word
  }
  return byte > SPACE && byte < 0x7f ? `"${String.fromCharCode(byte)}"` : `byte 0x${byte.toString(16).padStart(2, '0')}`
}

export function skipSpace(source: Source, start: number): number {
  const { bytes, end } = source
  let at = start
  while (at < end) {
    const byte = bytes[at]!
    if (byte !== SPACE && byte !== 0x0a && byte !== 0x0d && byte !== 0x09) break
    at += 1
  }
  return at
}

/** The first byte from `start` on that ends or interrupts a string: a quote, a backslash, a control character, or the end.
 *  Four bytes are tested at once: `x - 0x01010101` sets the high bit of every byte that was 0, so after an exclusive or the
 *  high bits mark the bytes that are equal; a borrow reaches only bytes behind the first mark, which is the one taken.
 *  Bytes from 0x80 up are masked out: they are UTF-8, right or wrong, and the walk's business. */
export function scanText(source: Source, start: number): number {
  const { bytes, view, end } = source
  let at = start
  for (const last = end - 4; at <= last; at += 4) {
    const word = view.getInt32(at, true)
    const marks =
      (((word ^ 0x22222222) - 0x01010101) | ((word ^ 0x5c5c5c5c) - 0x01010101) | (word - 0x20202020)) &
      ~word &
      -0x7f7f7f80
    if (marks !== 0) return at + ((31 - Math.clz32(marks & -marks)) >> 3)
  }
  while (at < end) {
    const byte = bytes[at]!
    if (byte === QUOTE || byte === BACKSLASH || byte < SPACE) return at
    at += 1
  }
  return at
}

/** Throws for what stopped `scanText` when it is neither the closing quote nor an escape. */
export function faultInText(source: Source, at: number): never {
  if (at >= source.end) return fault(source, at, 'the body ends inside a string')
  return fault(source, at, `a string holds the control character 0x${source.bytes[at]!.toString(16).padStart(2, '0')}`)
}

/** The length of the escape at `at` (a backslash): 2, or 6 for \uXXXX. */
export function escapeLength(source: Source, at: number): number {
  const code = source.bytes[at + 1]
  switch (code) {
    case QUOTE:
    case BACKSLASH:
    case 0x2f: // "/"
    case 0x62: // "b"
    case LETTER_F:
    case LETTER_N:
    case 0x72: // "r"
    case LETTER_T:
      return 2
    case LETTER_U:
      if (unicodeEscape(source, at) >= 0) return 6
  }
  return fault(source, at, 'a string holds an escape that JSON does not have')
}

/** The code unit of the \uXXXX at `at`, or -1. */
export function unicodeEscape(source: Source, at: number): number {
  const { bytes, end } = source
  if (at + 6 > end || bytes[at] !== BACKSLASH || bytes[at + 1] !== LETTER_U) return -1
  let unit = 0
  for (let index = at + 2; index < at + 6; index += 1) {
    const digit = hexDigit(bytes[index]!)
    if (digit < 0) return -1
    unit = (unit << 4) | digit
  }
  return unit
}

function hexDigit(byte: number): number {
  if (byte >= 0x30 && byte <= 0x39) return byte - 0x30
  const lower = byte | 0x20
  return lower >= 0x61 && lower <= 0x66 ? lower - 0x57 : -1
}

/** Skips a string, checked as strictly as one that is kept. `start` is behind the opening quote. */
export function skipText(source: Source, start: number): number {
  let at = start
  for (;;) {
    at = scanText(source, at)
    const byte = source.bytes[at]
    if (byte === QUOTE) return at + 1
    if (byte !== BACKSLASH) return faultInText(source, at)
    at += escapeLength(source, at)
  }
}

/** Skips `true`, `false` or `null`. */
export function skipWord(source: Source, start: number, word: string): number {
  const { bytes, end } = source
  for (let index = 0; index < word.length; index += 1) {
    if (start + index >= end || bytes[start + index] !== word.charCodeAt(index))
      return unexpected(source, start, 'a JSON value')
  }
  return start + word.length
}

/** Skips a number, by JSON's grammar: no leading zero or plus, no bare dot. */
export function skipNumber(source: Source, start: number): number {
  const { bytes } = source
  let at = start
  if (bytes[at] === 0x2d) at += 1
  if (bytes[at] === 0x30) at += 1
  else at = skipDigits(source, at)
  if (bytes[at] === 0x2e) at = skipDigits(source, at + 1)
  if (bytes[at] === 0x65 || bytes[at] === 0x45) {
    at += 1
    if (bytes[at] === 0x2b || bytes[at] === 0x2d) at += 1
    at = skipDigits(source, at)
  }
  return at
}

function skipDigits(source: Source, start: number): number {
  const { bytes, end } = source
  let at = start
  while (at < end && bytes[at]! >= 0x30 && bytes[at]! <= 0x39) at += 1
  return at > start ? at : unexpected(source, at, 'a digit')
}

/** Skips any JSON value, strictly and to a bounded depth: an unknown field may hold anything, but not anything malformed. */
export function skipValue(source: Source, start: number, depth: number): number {
  const byte = source.bytes[start]
  switch (byte) {
    case QUOTE:
      return skipText(source, start + 1)
    case OPEN_OBJECT:
      return skipMembers(source, start, depth + 1, true, CLOSE_OBJECT)
    case OPEN_ARRAY:
      return skipMembers(source, start, depth + 1, false, CLOSE_ARRAY)
    case LETTER_T:
      return skipWord(source, start, 'true')
    case LETTER_F:
      return skipWord(source, start, 'false')
    case LETTER_N:
      return skipWord(source, start, 'null')
  }
  if (byte !== undefined && (byte === 0x2d || (byte >= 0x30 && byte <= 0x39))) return skipNumber(source, start)
  return unexpected(source, start, 'a JSON value')
}

function skipMembers(source: Source, start: number, depth: number, hasNames: boolean, close: number): number {
  const { bytes } = source
  checkDepth(source, start, depth)
  let at = skipSpace(source, start + 1)
  if (bytes[at] === close) return at + 1
  for (;;) {
    if (hasNames) {
      if (bytes[at] !== QUOTE) return unexpected(source, at, 'a field name in quotes')
      at = skipSpace(source, skipText(source, at + 1))
      if (bytes[at] !== COLON) return unexpected(source, at, '":"')
      at = skipSpace(source, at + 1)
    }
    at = skipSpace(source, skipValue(source, at, depth))
    if (bytes[at] === close) return at + 1
    if (bytes[at] !== COMMA) return unexpected(source, at, hasNames ? '"," or "}"' : '"," or "]"')
    at = skipSpace(source, at + 1)
  }
}

export function checkDepth(source: Source, at: number, depth: number): void {
  if (depth > limits.jsonDepthMax)
    fault(source, at, `more than ${limits.jsonDepthMax} objects and arrays inside each other`)
}
