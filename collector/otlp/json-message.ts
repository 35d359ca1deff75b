// Reads the members of OTLP/JSON objects straight into protobuf: which field a name is, and what its value must be. Names
// are guessed from the one before, since an exporter writes all objects of a kind in one order; a right guess is a few
// words compared, a wrong one is looked up.
import { openNumberRead, readDouble, readInteger } from './json-number.ts'
import {
  BOOL,
  BYTES,
  DOUBLE,
  ENUM,
  type Field,
  FIXED32,
  FIXED64,
  ID,
  INT64,
  literalBytesMax,
  type Message,
  MESSAGE,
  MESSAGES,
  PACKED,
  SFIXED64,
  SINT32,
  STRING,
  UINT32,
  UINT64,
} from './json-schema.ts'
import {
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
import { makeBase64Digits, makeHexPairs, putBase64, putId, putText, unescapedSource } from './json-text.ts'
import { closeLength, growWireOutput, putFixed64, putTag, putVarint, type WireOutput } from './wire-output.ts'

/** Reads a field's value at `start` (not a space), writes it with its tag, and returns the position behind it. */
export type ReadField = (source: Source, output: WireOutput, field: Field, start: number, depth: number) => number

const LETTER_T = 0x74
/** Numbers in one array are written before their count is known; four bytes hold any length a request can have. */
const packedLengthBytes = 4

/** The field that the name at `start` (its opening quote) is, or undefined for one that OTLP does not know. */
export function findField(source: Source, start: number, message: Message): Field | undefined {
  if (source.bytes[start] !== QUOTE) return unexpected(source, start, 'a field name in quotes')
  const end = skipText(source, start + 1)
  const isPlain = scanText(source, start + 1) === end - 1
  const name = isPlain
    ? source.bytes.toString('latin1', start + 1, end - 1)
    : unescapedSource(source, start).inner.bytes.toString('latin1').slice(1, -1)
  return message.fields.find((field) => field.name === name)
}

/** The position behind the name at `start` and its colon. */
export function skipName(source: Source, start: number): number {
  const at = skipSpace(source, skipText(source, start + 1))
  return source.bytes[at] === COLON ? at + 1 : unexpected(source, at, '":"')
}

export function openMessageReader(): { readonly readField: ReadField } {
  const number = openNumberRead()
  const hexPairs = makeHexPairs()
  const base64Digits = makeBase64Digits()

  function readMembers(source: Source, output: WireOutput, message: Message, start: number, depth: number): number {
    const { bytes } = source
    checkDepth(source, start, depth)
    let at = skipSpace(source, start + 1)
    if (bytes[at] === CLOSE_OBJECT) return at + 1
    let slot = 0
    for (;;) {
      let field: Field | undefined = message.fields[message.likely[slot] as number]
      if (field !== undefined && isLiteral(source, at, field)) {
        at += field.literalLength
      } else {
        field = findField(source, at, message)
        at = skipName(source, at)
        if (field !== undefined) message.likely[slot] = field.slot - 1
      }
      at = skipSpace(source, at)
      if (field === undefined) {
        at = skipValue(source, at, depth)
      } else {
        slot = field.slot
        at = readField(source, output, field, at, depth)
      }
      at = skipSpace(source, at)
      if (bytes[at] === CLOSE_OBJECT) return at + 1
      if (bytes[at] !== COMMA) return unexpected(source, at, '"," or "}"')
      at = skipSpace(source, at + 1)
    }
  }

  function readField(source: Source, output: WireOutput, field: Field, start: number, depth: number): number {
    const { bytes } = source
    // null is absent, for every kind.
    if (bytes[start] === LETTER_N) return skipWord(source, start, 'null')
    if (output.at > output.roomEnd) growWireOutput(output, 0)
    switch (field.kind) {
      case MESSAGE:
        return readMessage(source, output, field, start, depth)
      case MESSAGES:
        return readElements(source, start, depth, (at) => readMessage(source, output, field, at, depth + 1))
      case PACKED:
        return readPacked(source, output, field, start, depth)
      default:
        putTag(output, field.tag)
        return readScalar(source, output, field.kind, start)
    }
  }

  function readMessage(source: Source, output: WireOutput, field: Field, start: number, depth: number): number {
    if (source.bytes[start] !== OPEN_OBJECT) return unexpected(source, start, 'an object')
    if (output.at > output.roomEnd) growWireOutput(output, 0)
    putTag(output, field.tag)
    const lengthAt = output.at
    output.at += field.message.lengthBytes
    const end = readMembers(source, output, field.message, start, depth + 1)
    if (output.at > output.roomEnd) growWireOutput(output, 0)
    closeLength(output, lengthAt, field.message.lengthBytes)
    return end
  }

  function readPacked(source: Source, output: WireOutput, field: Field, start: number, depth: number): number {
    putTag(output, field.tag)
    const lengthAt = output.at
    output.at += packedLengthBytes
    const end = readElements(source, start, depth, (at) => {
      if (output.at > output.roomEnd) growWireOutput(output, 0)
      return readScalar(source, output, field.elementKind, at)
    })
    closeLength(output, lengthAt, packedLengthBytes)
    return end
  }

  function readElements(source: Source, start: number, depth: number, readElement: (at: number) => number): number {
    const { bytes } = source
    if (bytes[start] !== OPEN_ARRAY) return unexpected(source, start, 'an array')
    checkDepth(source, start, depth + 1)
    let at = skipSpace(source, start + 1)
    if (bytes[at] === CLOSE_ARRAY) return at + 1
    for (;;) {
      at = skipSpace(source, readElement(at))
      if (bytes[at] === CLOSE_ARRAY) return at + 1
      if (bytes[at] !== COMMA) return unexpected(source, at, '"," or "]"')
      at = skipSpace(source, at + 1)
    }
  }

  function readScalar(source: Source, output: WireOutput, kind: number, start: number): number {
    switch (kind) {
      case STRING:
        if (source.bytes[start] !== QUOTE) return unexpected(source, start, 'a string')
        return putText(source, start, output)
      case ID:
        if (source.bytes[start] !== QUOTE) return unexpected(source, start, 'an id in hex, in quotes')
        return putId(source, start, output, hexPairs)
      case BYTES:
        if (source.bytes[start] !== QUOTE) return unexpected(source, start, 'bytes in base64, in quotes')
        return putBase64(source, start, output, base64Digits)
      case BOOL: {
        const isTrue = source.bytes[start] === LETTER_T
        putVarint(output, isTrue ? 1 : 0, 0)
        return skipWord(source, start, isTrue ? 'true' : 'false')
      }
      case DOUBLE:
        return readDoubleField(source, output, start)
      default:
        return readIntegerField(source, output, kind, start)
    }
  }

  function readDoubleField(source: Source, output: WireOutput, start: number): number {
    if (source.bytes[start] !== QUOTE) {
      const end = readDouble(source, start, number)
      output.view.setFloat64(output.at, number.double, true)
      output.at += 8
      return end
    }
    const end = skipText(source, start + 1)
    const text = source.bytes.toString('latin1', start + 1, end - 1)
    if (text === 'NaN' || text === 'Infinity' || text === '-Infinity') {
      output.view.setFloat64(output.at, Number(text), true)
    } else {
      if (readDouble(source, start + 1, number) !== end - 1) {
        return fault(source, start, 'expected a number, or one of "NaN", "Infinity" and "-Infinity"')
      }
      output.view.setFloat64(output.at, number.double, true)
    }
    output.at += 8
    return end
  }

  function readIntegerField(source: Source, output: WireOutput, kind: number, start: number): number {
    const { bytes } = source
    let end: number
    if (bytes[start] === QUOTE) {
      if (kind === ENUM) return unexpected(source, start, 'the number of an enum')
      const at = readInteger(source, start + 1, number)
      if (bytes[at] !== QUOTE) return unexpected(source, at, 'the end of a decimal integer')
      end = at + 1
    } else {
      if (bytes[start] === OPEN_OBJECT) return fault(source, start, 'a 64-bit integer is a number or a decimal string, not an object')
      end = readInteger(source, start, number)
    }
    putInteger(source, output, kind, start)
    return end
  }

  function putInteger(source: Source, output: WireOutput, kind: number, start: number): void {
    const { isNegative } = number
    const magnitudeLow = number.low >>> 0
    const magnitudeHigh = number.high >>> 0
    const isZero = magnitudeLow === 0 && magnitudeHigh === 0
    const low = isNegative ? -magnitudeLow | 0 : magnitudeLow | 0
    const high = isNegative ? (~magnitudeHigh + (magnitudeLow === 0 ? 1 : 0)) | 0 : magnitudeHigh | 0
    switch (kind) {
      case FIXED64:
      case UINT64:
        if (isNegative && !isZero) return fault(source, start, 'the number must not be negative')
        if (kind === UINT64) putVarint(output, low, high)
        else putFixed64(output, low, high)
        return
      case SFIXED64:
      case INT64: {
        const isTooLarge = magnitudeHigh > 0x8000_0000 || (magnitudeHigh === 0x8000_0000 && (magnitudeLow > 0 || !isNegative))
        if (magnitudeHigh >= 0x8000_0000 && isTooLarge) return fault(source, start, 'the number does not fit into 64 bits with a sign')
        if (kind === INT64) putVarint(output, low, high)
        else putFixed64(output, low, high)
        return
      }
      case UINT32:
      case FIXED32:
        if (magnitudeHigh !== 0 || (isNegative && !isZero)) return fault(source, start, 'the number does not fit into 32 bits')
        if (kind === UINT32) putVarint(output, low, 0)
        else {
          output.view.setInt32(output.at, low, true)
          output.at += 4
        }
        return
      default: {
        const fits = magnitudeHigh === 0 && magnitudeLow <= (isNegative ? 0x8000_0000 : 0x7fff_ffff)
        if (!fits) return fault(source, start, 'the number does not fit into 32 bits with a sign')
        if (kind === SINT32) putVarint(output, (low << 1) ^ (low >> 31), 0)
        else putVarint(output, low, isNegative ? -1 : 0)
      }
    }
  }

  return { readField }
}

function isLiteral(source: Source, at: number, field: Field): boolean {
  const { view, end } = source
  if (at + literalBytesMax > end) return false
  const { words } = field
  for (let index = 0; index < words.length; index += 1) {
    if (view.getInt32(at + index * 4, true) !== words[index]) return false
  }
  return view.getInt32(at + field.literalLength - 4, true) === field.lastWord
}
