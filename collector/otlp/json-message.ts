// One JSON object to one protobuf message, and all that is inside it: the loop that OTLP/JSON spends its time in. Names are
// guessed from what came last time and compared as words; attributes with short, unescaped texts, which are most of any
// telemetry, are recognised as a whole. Whatever is unusual falls through to the general code, which alone defines what is right.
// One file, because a shortcut is right only beside the code that it stands for.
import { type NumberRead, openNumberRead, readDouble, readInteger } from './json-number.ts'
import {
  BOOL,
  BYTES,
  DOUBLE,
  ENUM,
  FIXED32,
  FIXED64,
  type Field,
  ID,
  INT64,
  literalBytesMax,
  MESSAGE,
  MESSAGES,
  type Message,
  PACKED,
  SFIXED64,
  SINT32,
  STRING,
  UINT32,
  UINT64,
} from './json-schema.ts'
import {
  BACKSLASH,
  CLOSE_ARRAY,
  CLOSE_OBJECT,
  COLON,
  COMMA,
  checkDepth,
  fault,
  LETTER_N,
  OPEN_ARRAY,
  OPEN_OBJECT,
  QUOTE,
  type Source,
  scanText,
  skipSpace,
  skipText,
  skipValue,
  skipWord,
  unexpected,
} from './json-source.ts'
import { copyBytes, makeBase64Digits, makeHexPairs, putBase64, putId, putText, unescapedSource } from './json-text.ts'
import {
  closeLength,
  growWireOutput,
  putFixed64,
  putLength,
  putTag,
  putVarint,
  type WireOutput,
} from './wire-output.ts'

/** From this depth on, lengths get their four bytes at once: or a hostile nest would be moved as a whole at every level. */
const deepLevel = 16

/** Literals of an attribute, as little-endian words. */
const word = (text: string) => Buffer.from(text, 'latin1').readInt32LE()
const half = (text: string) => Buffer.from(text, 'latin1').readUInt16LE()
const keyStart = [word('{"ke'), word('y":"')] as const
const valueStart = [word('","v'), word('alue'), word('":{"')] as const
const stringValue = [word('stri'), word('ngVa'), word('lue"')] as const
const intValue = [word('intV'), word('alue')] as const
const colonQuote = half(':"')
const quoteColon = half('":')
const closings = half('}}')

/** Reads the object at `start` (its opening brace) as `message` into `output`; returns the position behind it. */
export type ReadMessage = (source: Source, output: WireOutput, message: Message, start: number, depth: number) => number

export function openMessageReader(): { readonly readMessage: ReadMessage; readonly readField: typeof readField } {
  const hexPairs = makeHexPairs()
  const base64Digits = makeBase64Digits()
  const number: NumberRead = openNumberRead()

  function readMessage(source: Source, output: WireOutput, message: Message, start: number, depth: number): number {
    const { bytes } = source
    if (bytes[start] !== OPEN_OBJECT) return unexpected(source, start, 'an object')
    checkDepth(source, start, depth)
    let at = start + 1
    if (bytes[at]! <= 0x20) at = skipSpace(source, at)
    if (bytes[at] === CLOSE_OBJECT) return at + 1
    const { fields, likely } = message
    let slot = 0
    for (;;) {
      let field: Field | undefined = fields[likely[slot]!]!
      if (isAt(source, at, field)) {
        at += field.literalLength
      } else {
        field = guessAgain(source, at, message, slot)
        at = skipName(source, at)
      }
      if (bytes[at]! <= 0x20) at = skipSpace(source, at)
      if (field) {
        at = readField(source, output, field, at, depth)
        slot = field.slot
      } else {
        at = skipValue(source, at, depth)
      }
      if (bytes[at]! <= 0x20) at = skipSpace(source, at)
      const byte = bytes[at]
      if (byte === COMMA) {
        at += 1
        if (bytes[at]! <= 0x20) at = skipSpace(source, at)
      } else if (byte === CLOSE_OBJECT) {
        return at + 1
      } else {
        return unexpected(source, at, '"," or "}"')
      }
    }
  }

  /** Reads the value at `start` and writes it with its tag; `null` writes nothing. */
  function readField(source: Source, output: WireOutput, field: Field, start: number, depth: number): number {
    if (source.bytes[start] === LETTER_N) return skipWord(source, start, 'null')
    if (output.at > output.roomEnd) growWireOutput(output, 0)
    switch (field.kind) {
      case STRING:
        if (source.bytes[start] !== QUOTE) return unexpected(source, start, 'a string')
        putTag(output, field.tag)
        return putText(source, start, output)
      case ID:
        if (source.bytes[start] !== QUOTE) return unexpected(source, start, 'an id in hex')
        putTag(output, field.tag)
        return putId(source, start, output, hexPairs)
      case BYTES:
        if (source.bytes[start] !== QUOTE) return unexpected(source, start, 'bytes in base64')
        putTag(output, field.tag)
        return putBase64(source, start, output, base64Digits)
      case BOOL:
        return readBool(source, output, field, start)
      case MESSAGE: {
        putTag(output, field.tag)
        return readInner(source, output, field.message, start, depth + 1)
      }
      case MESSAGES:
        return readMessages(source, output, field, start, depth + 1)
      case PACKED:
        return readPacked(source, output, field, start, depth + 1)
      default:
        putTag(output, field.tag)
        return readNumber(source, output, field.kind, start)
    }
  }

  function readInner(source: Source, output: WireOutput, message: Message, start: number, depth: number): number {
    const lengthAt = output.at
    const width = depth < deepLevel ? message.lengthBytes : 4
    output.at += width
    const end = readMessage(source, output, message, start, depth)
    if (output.at > output.roomEnd) growWireOutput(output, 0)
    closeLength(output, lengthAt, width)
    return end
  }

  function readMessages(source: Source, output: WireOutput, field: Field, start: number, depth: number): number {
    const { bytes } = source
    let at = openArray(source, start, depth)
    if (bytes[at] === CLOSE_ARRAY) return at + 1
    for (;;) {
      if (output.at > output.roomEnd) growWireOutput(output, 0)
      const behind = field.message.isKeyValue ? readAttribute(source, output, field.tag, at) : at
      if (behind === at) {
        putTag(output, field.tag)
        at = readInner(source, output, field.message, at, depth + 1)
      } else {
        at = behind
      }
      const byte = bytes[at]
      if (byte === COMMA && bytes[at + 1] === OPEN_OBJECT) {
        at += 1
      } else {
        at = nextElement(source, at)
        if (bytes[at - 1] === CLOSE_ARRAY) return at
      }
    }
  }

  /** Reads `{"key":"…","value":{"stringValue":"…"}}` or the same with intValue, as every exporter writes them: no space, no
   *  escape. Returns `start`, with nothing written, when it is anything else. */
  function readAttribute(source: Source, output: WireOutput, tag: number, start: number): number {
    const { bytes, view, end } = source
    if (start + 64 > end) return start
    if (view.getInt32(start, true) !== keyStart[0] || view.getInt32(start + 4, true) !== keyStart[1]) return start
    const key = start + 8
    const keyEnd = scanText(source, key)
    if (keyEnd + 48 > end) return start
    if (view.getInt32(keyEnd, true) !== valueStart[0]) return start
    if (view.getInt32(keyEnd + 4, true) !== valueStart[1]) return start
    if (view.getInt32(keyEnd + 8, true) !== valueStart[2]) return start
    const keyLength = keyEnd - key
    const name = keyEnd + 12
    const first = view.getInt32(name, true)
    if (first === stringValue[0]) {
      if (view.getInt32(name + 4, true) !== stringValue[1] || view.getInt32(name + 8, true) !== stringValue[2])
        return start
      if (view.getUint16(name + 12, true) !== colonQuote) return start
      const text = name + 14
      const textEnd = scanText(source, text)
      if (textEnd + 3 > end || bytes[textEnd] !== QUOTE || view.getUint16(textEnd + 1, true) !== closings) return start
      putAttribute(source, output, tag, key, keyLength, textEnd - text + lengthSize(textEnd - text) + 1)
      putStringValue(source, output, text, textEnd - text)
      return textEnd + 3
    }
    if (first !== intValue[0] || view.getInt32(name + 4, true) !== intValue[1]) return start
    if (view.getUint16(name + 8, true) !== quoteColon) return start
    const isQuoted = bytes[name + 10] === QUOTE
    let digits = isQuoted ? name + 11 : name + 10
    let value = 0
    const digitsStart = digits
    for (; digits < digitsStart + 9; digits += 1) {
      const digit = bytes[digits]! - 0x30
      if (digit < 0 || digit > 9) break
      value = value * 10 + digit
    }
    if (digits === digitsStart || (bytes[digitsStart] === 0x30 && digits > digitsStart + 1)) return start
    if (isQuoted) {
      if (bytes[digits] !== QUOTE) return start
      digits += 1
    }
    if (view.getUint16(digits, true) !== closings) return start
    putAttribute(source, output, tag, key, keyLength, lengthSize(value) + 1)
    output.bytes[output.at] = 0x18
    output.at += 1
    putLength(output, value)
    return digits + 2
  }

  function readBool(source: Source, output: WireOutput, field: Field, start: number): number {
    const isTrue = source.bytes[start] === 0x74
    if (!isTrue && source.bytes[start] !== 0x66) return unexpected(source, start, 'true or false')
    putTag(output, field.tag)
    output.bytes[output.at] = isTrue ? 1 : 0
    output.at += 1
    return skipWord(source, start, isTrue ? 'true' : 'false')
  }

  function readPacked(source: Source, output: WireOutput, field: Field, start: number, depth: number): number {
    const { bytes } = source
    let at = openArray(source, start, depth)
    if (bytes[at] === CLOSE_ARRAY) return at + 1
    putTag(output, field.tag)
    const lengthAt = output.at
    output.at += 2
    for (;;) {
      if (output.at > output.roomEnd) growWireOutput(output, 0)
      at = readNumber(source, output, field.elementKind, at)
      at = nextElement(source, at)
      if (bytes[at - 1] === CLOSE_ARRAY) break
    }
    closeLength(output, lengthAt, 2)
    return at
  }

  /** Reads a number, or a string that holds one, and writes it without a tag. */
  function readNumber(source: Source, output: WireOutput, kind: number, start: number): number {
    const { bytes } = source
    const isQuoted = bytes[start] === QUOTE
    if (isQuoted && kind === ENUM) return unexpected(source, start, 'an enum as an integer')
    const first = isQuoted ? start + 1 : start
    if (kind === DOUBLE) {
      const named = isQuoted ? readNamedDouble(source, start, number) : start
      if (named !== start) {
        putDouble(output, number.double)
        return named
      }
      if (!isNumberAt(source, first)) return readUnusualNumber(source, output, kind, start)
      const at = readDouble(source, first, number)
      putDouble(output, number.double)
      return isQuoted ? closeNumber(source, at) : at
    }
    if (!isNumberAt(source, first)) return readUnusualNumber(source, output, kind, start)
    const at = readInteger(source, first, number)
    putInteger(source, output, kind, start, number)
    return isQuoted ? closeNumber(source, at) : at
  }

  /** A number whose digits are escaped, or no number at all. */
  function readUnusualNumber(source: Source, output: WireOutput, kind: number, start: number): number {
    const wanted = kind === DOUBLE ? 'a number' : 'a decimal integer'
    if (source.bytes[start] !== QUOTE) return unexpected(source, start, wanted)
    const end = skipText(source, start + 1)
    if (source.bytes[start + 1] !== BACKSLASH) return fault(source, start, `expected ${wanted}, found another text`)
    const { inner } = unescapedSource(source, start)
    if (readNumber(inner, output, kind, 0) !== inner.end)
      return fault(inner, 0, `expected ${wanted}, found another text`)
    return end
  }

  return { readMessage, readField }
}

function isAt(source: Source, at: number, field: Field): boolean {
  const { view } = source
  if (at + literalBytesMax > source.end) return false
  const { words } = field
  for (let index = 0, place = at; index < words.length; index += 1, place += 4) {
    if (view.getInt32(place, true) !== words[index]) return false
  }
  return view.getInt32(at + field.literalLength - 4, true) === field.lastWord
}

/** The field at `at` where the first guess was wrong; the next guess is then this one. */
function guessAgain(source: Source, at: number, message: Message, slot: number): Field | undefined {
  const { fields, likely, second } = message
  const guess = fields[second[slot]!]!
  const field = isAt(source, at, guess) ? guess : findField(source, at, message)
  if (field) {
    second[slot] = likely[slot]!
    likely[slot] = field.slot - 1
  }
  return field
}

/** The field whose name stands at `at`, found the slow way; undefined when the message has no such field. */
export function findField(source: Source, at: number, message: Message): Field | undefined {
  const { bytes } = source
  if (bytes[at] !== QUOTE) return unexpected(source, at, 'a field name in quotes')
  const end = skipText(source, at + 1)
  const { fields } = message
  for (let index = 0; index < fields.length; index += 1) {
    const field = fields[index]!
    if (field.name.length === end - at - 2 && isNameAt(bytes, at + 1, field.name)) return field
  }
  // An escaped name is the same name. No exporter writes one, so it may cost a string.
  if (!bytes.subarray(at, end).includes(BACKSLASH)) return undefined
  const { inner } = unescapedSource(source, at)
  const name = inner.bytes.toString('latin1', 1, inner.end - 1)
  return fields.find((field) => field.name === name)
}

function isNameAt(bytes: Buffer, at: number, name: string): boolean {
  for (let index = 0; index < name.length; index += 1) {
    if (bytes[at + index] !== name.charCodeAt(index)) return false
  }
  return true
}

/** Steps over the name at `at` and its colon. */
export function skipName(source: Source, at: number): number {
  const colon = skipSpace(source, skipText(source, at + 1))
  return source.bytes[colon] === COLON ? colon + 1 : unexpected(source, colon, '":"')
}

function openArray(source: Source, start: number, depth: number): number {
  if (source.bytes[start] !== OPEN_ARRAY) return unexpected(source, start, 'an array')
  checkDepth(source, start, depth)
  return skipSpace(source, start + 1)
}

/** Behind an element: steps over the comma to the next one, or over the closing bracket, which is then the byte before. */
function nextElement(source: Source, start: number): number {
  const at = skipSpace(source, start)
  const byte = source.bytes[at]
  if (byte === CLOSE_ARRAY) return at + 1
  if (byte !== COMMA) return unexpected(source, at, '"," or "]"')
  const next = skipSpace(source, at + 1)
  return source.bytes[next] === CLOSE_ARRAY ? unexpected(source, next, 'a value') : next
}

function lengthSize(length: number): number {
  return length < 0x80 ? 1 : length < 0x4000 ? 2 : length < 0x20_0000 ? 3 : length < 0x1000_0000 ? 4 : 5
}

/** Writes a KeyValue up to where the `valueLength` bytes of its AnyValue begin. All lengths are known, so none is padded. */
function putAttribute(
  source: Source,
  output: WireOutput,
  tag: number,
  key: number,
  keyLength: number,
  valueLength: number,
): void {
  const length = 1 + lengthSize(keyLength) + keyLength + 1 + lengthSize(valueLength) + valueLength
  if (output.at + length > output.roomEnd) growWireOutput(output, length)
  output.bytes[output.at] = tag
  output.at += 1
  putLength(output, length)
  output.bytes[output.at] = 0x0a
  output.at += 1
  putLength(output, keyLength)
  copyBytes(source, key, keyLength, output)
  output.bytes[output.at] = 0x12
  output.at += 1
  putLength(output, valueLength)
}

function putStringValue(source: Source, output: WireOutput, text: number, length: number): void {
  output.bytes[output.at] = 0x0a
  output.at += 1
  putLength(output, length)
  copyBytes(source, text, length, output)
}

function isNumberAt(source: Source, at: number): boolean {
  const byte = source.bytes[at]
  return byte !== undefined && (byte === 0x2d || (byte >= 0x30 && byte <= 0x39))
}

function closeNumber(source: Source, at: number): number {
  return source.bytes[at] === QUOTE ? at + 1 : fault(source, at, 'a number in quotes holds something else behind it')
}

const namedDoubles = [
  ['"NaN"', Number.NaN],
  ['"Infinity"', Number.POSITIVE_INFINITY],
  ['"-Infinity"', Number.NEGATIVE_INFINITY],
] as const

function readNamedDouble(source: Source, start: number, into: NumberRead): number {
  for (const [text, value] of namedDoubles) {
    if (!isNameAt(source.bytes, start, text)) continue
    into.double = value
    return start + text.length
  }
  return start
}

function putDouble(output: WireOutput, value: number): void {
  output.view.setFloat64(output.at, value, true)
  output.at += 8
}

const integerRanges: Readonly<Record<number, string>> = {
  [FIXED64]: '0 to 2^64-1',
  [UINT64]: '0 to 2^64-1',
  [SFIXED64]: '-2^63 to 2^63-1',
  [INT64]: '-2^63 to 2^63-1',
  [UINT32]: '0 to 2^32-1',
  [FIXED32]: '0 to 2^32-1',
  [SINT32]: '-2^31 to 2^31-1',
  [ENUM]: '-2^31 to 2^31-1',
}

function fitsKind(kind: number, { low, high, isNegative }: NumberRead): boolean {
  const isZero = low === 0 && high === 0
  switch (kind) {
    case FIXED64:
    case UINT64:
      return !isNegative || isZero
    case SFIXED64:
    case INT64:
      // From 2^63 up the sign bit of `high` is set; -2^63 itself is the one such number that still fits.
      return high >= 0 || (isNegative && high === -0x8000_0000 && low === 0)
    case UINT32:
    case FIXED32:
      return high === 0 && (!isNegative || isZero)
    default:
      return high === 0 && (low >= 0 || (isNegative && low === -0x8000_0000))
  }
}

/** Writes the integer in `number` as `kind` has it, or refuses it when it does not fit. */
function putInteger(source: Source, output: WireOutput, kind: number, at: number, number: NumberRead): void {
  if (!fitsKind(kind, number)) fault(source, at, `the number is outside ${integerRanges[kind]}`)
  const { isNegative } = number
  const low = isNegative ? -number.low | 0 : number.low
  const high = isNegative ? (number.low === 0 ? -number.high | 0 : ~number.high) : number.high
  switch (kind) {
    case FIXED64:
    case SFIXED64:
      putFixed64(output, low, high)
      return
    case UINT64:
    case INT64:
      putVarint(output, low, high)
      return
    case UINT32:
      putVarint(output, low, 0)
      return
    case FIXED32:
      output.view.setInt32(output.at, low, true)
      output.at += 4
      return
    case SINT32:
      putVarint(output, (low << 1) ^ (low >> 31), 0)
      return
    default:
      putVarint(output, low, low >> 31)
  }
}
