// JSON strings to protobuf bytes: text with its escapes resolved, ids from hex, bytes from base64.
import {
  BACKSLASH,
  escapeLength,
  fault,
  faultInText,
  openSource,
  QUOTE,
  type Source,
  scanText,
  skipText,
  unexpected,
  unicodeEscape,
} from './json-source.ts'
import { closeLength, growWireOutput, putLength, type WireOutput } from './wire-output.ts'

/** From here on the native copy is cheaper than words, its call included. */
const nativeCopyBytes = 160
/** Escaped text is written before its length is known; four bytes hold the length of any text a request can hold. */
const escapedLengthBytes = 4

/** Writes length and bytes of the string whose opening quote is at `start`, and returns the position behind it. */
export function putText(source: Source, start: number, output: WireOutput): number {
  const first = start + 1
  const stop = scanText(source, first)
  const byte = source.bytes[stop]
  if (byte === QUOTE) {
    const length = stop - first
    if (output.at + length > output.roomEnd) growWireOutput(output, length)
    putLength(output, length)
    copyBytes(source, first, length, output)
    return stop + 1
  }
  if (byte !== BACKSLASH) return faultInText(source, stop)
  const lengthAt = output.at
  output.at += escapedLengthBytes
  const end = putEscapedText(source, first, stop, output)
  closeLength(output, lengthAt, escapedLengthBytes)
  return end
}

/** Copies `length` bytes, in words where that may read and write a few bytes too many: the next write covers them. The
 *  caller has made room. */
export function copyBytes(source: Source, from: number, length: number, output: WireOutput): void {
  const to = output.at
  output.at = to + length
  if (length >= nativeCopyBytes || from + length + 8 > source.end) {
    source.bytes.copy(output.bytes, to, from, from + length)
    return
  }
  const { view } = source
  const target = output.view
  for (let index = 0; index < length; index += 8) {
    target.setInt32(to + index, view.getInt32(from + index, true), true)
    target.setInt32(to + index + 4, view.getInt32(from + index + 4, true), true)
  }
}

/** Writes a text from `first` on, of which `stop` is the first backslash; returns the position behind its closing quote. */
function putEscapedText(source: Source, first: number, stop: number, output: WireOutput): number {
  const { bytes } = source
  let from = first
  let at = stop
  for (;;) {
    const length = at - from
    if (output.at + length > output.roomEnd) growWireOutput(output, length)
    copyBytes(source, from, length, output)
    if (bytes[at] === QUOTE) return at + 1
    if (bytes[at] !== BACKSLASH) return faultInText(source, at)
    from = putEscape(source, at, output)
    at = scanText(source, from)
  }
}

function putEscape(source: Source, at: number, output: WireOutput): number {
  if (escapeLength(source, at) === 2) {
    output.bytes[output.at] = escapedByte(source.bytes[at + 1]!)
    output.at += 1
    return at + 2
  }
  const unit = unicodeEscape(source, at)
  if (unit < 0xd800 || unit > 0xdfff) {
    putCodePoint(output, unit)
    return at + 6
  }
  // Half a pair has no UTF-8. Only a high half with a low half right behind it is a character; any other becomes U+FFFD
  // alone, so that what follows it is still read.
  const next = unit < 0xdc00 ? unicodeEscape(source, at + 6) : -1
  if (next >= 0xdc00 && next <= 0xdfff) {
    putCodePoint(output, 0x1_0000 + ((unit - 0xd800) << 10) + (next - 0xdc00))
    return at + 12
  }
  putCodePoint(output, 0xfffd)
  return at + 6
}

function escapedByte(code: number): number {
  switch (code) {
    case 0x62:
      return 0x08
    case 0x66:
      return 0x0c
    case 0x6e:
      return 0x0a
    case 0x72:
      return 0x0d
    case 0x74:
      return 0x09
    default:
      return code
  }
}

function putCodePoint(output: WireOutput, point: number): void {
  const { bytes } = output
  let at = output.at
  if (point < 0x80) {
    bytes[at++] = point
  } else {
    if (point < 0x800) {
      bytes[at++] = 0xc0 | (point >> 6)
    } else {
      if (point < 0x1_0000) {
        bytes[at++] = 0xe0 | (point >> 12)
      } else {
        bytes[at++] = 0xf0 | (point >> 18)
        bytes[at++] = 0x80 | ((point >> 12) & 0x3f)
      }
      bytes[at++] = 0x80 | ((point >> 6) & 0x3f)
    }
    bytes[at++] = 0x80 | (point & 0x3f)
  }
  output.at = at
}

/** The string at `start` with its escapes resolved, as a source of its own with the quotes around it again. Numbers, ids and
 *  names are hardly ever escaped (PHP escapes the "/" of base64), so this copy need not be fast. */
export function unescapedSource(source: Source, start: number): { readonly inner: Source; readonly end: number } {
  const end = skipText(source, start + 1)
  const inner = Buffer.allocUnsafe(end - start + 128)
  const view = new DataView(inner.buffer, inner.byteOffset, inner.length)
  const output: WireOutput = { bytes: inner, view, at: 1, roomEnd: end - start }
  putEscapedText(source, start + 1, scanText(source, start + 1), output)
  inner[0] = QUOTE
  inner[output.at] = QUOTE
  return { inner: openSource(inner.subarray(0, output.at + 1), source.origin ?? start), end }
}

/** Value of two hex digits, by the two bytes as a little-endian number; -1 where one is none. 64 KiB entries of which a
 *  few hundred are ever touched: one look-up per byte of an id instead of two and a shift. */
export function makeHexPairs(): Int16Array {
  const pairs = new Int16Array(0x1_0000).fill(-1)
  const digits = '0123456789abcdef0123456789ABCDEF'
  for (let high = 0; high < 32; high += 1) {
    for (let low = 0; low < 32; low += 1) {
      pairs[digits.charCodeAt(high) | (digits.charCodeAt(low) << 8)] = ((high & 15) << 4) | (low & 15)
    }
  }
  return pairs
}

/** Writes length and bytes of an id in hex, of any length: the walk refuses the record when it is the wrong one. */
export function putId(source: Source, start: number, output: WireOutput, pairs: Int16Array): number {
  const { view, end } = source
  const lengthAt = output.at
  output.at += 1
  let at = start + 1
  for (; at + 1 < end; at += 2) {
    const value = pairs[view.getUint16(at, true)]!
    if (value < 0) break
    if (output.at > output.roomEnd) growWireOutput(output, 64)
    output.bytes[output.at] = value
    output.at += 1
  }
  if (source.bytes[at] === QUOTE) {
    closeLength(output, lengthAt, 1)
    return at + 1
  }
  output.at = lengthAt
  return putUnusualId(source, start, output, pairs)
}

function putUnusualId(source: Source, start: number, output: WireOutput, pairs: Int16Array): number {
  const end = skipText(source, start + 1)
  const text = source.bytes.toString('latin1', start + 1, end - 1)
  if (text.includes('\\')) {
    const { inner } = unescapedSource(source, start)
    if (putId(inner, 0, output, pairs) !== inner.end) return unexpected(inner, 0, 'an id in hex')
    return end
  }
  if (/^[0-9A-Fa-f]*$/.test(text))
    return fault(source, start, `an id in hex has an even number of digits, this one has ${text.length}`)
  if (/^[\w+/-]{22}(==)?$|^[\w+/-]{11}=?$/.test(text)) {
    return fault(
      source,
      start,
      'the id looks like base64: OTLP/JSON writes ids in hex (32 digits for a trace, 16 for a span)',
    )
  }
  return fault(source, start, 'an id holds something other than hex digits')
}

/** Value of a base64 digit of either alphabet, by its byte; -1 where it is none. */
export function makeBase64Digits(): Int8Array {
  const digits = new Int8Array(256).fill(-1)
  const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/'
  for (let value = 0; value < 64; value += 1) digits[alphabet.charCodeAt(value)] = value
  digits['-'.charCodeAt(0)] = 62
  digits['_'.charCodeAt(0)] = 63
  return digits
}

/** Writes length and bytes of a base64 string, standard or url-safe, padded or not. */
export function putBase64(source: Source, start: number, output: WireOutput, digits: Int8Array): number {
  const { bytes } = source
  const first = start + 1
  const stop = scanText(source, first)
  if (bytes[stop] === BACKSLASH) {
    const { inner, end } = unescapedSource(source, start)
    if (putBase64(inner, 0, output, digits) !== inner.end) return unexpected(inner, 0, 'base64')
    return end
  }
  if (bytes[stop] !== QUOTE) return faultInText(source, stop)
  let last = stop
  if ((last - first) % 4 === 0 && last > first && bytes[last - 1] === 0x3d) last -= bytes[last - 2] === 0x3d ? 2 : 1
  const length = Math.floor(((last - first) * 3) / 4)
  if ((last - first) % 4 === 1) return fault(source, start, 'base64 ends in the middle of a byte')
  if (output.at + length > output.roomEnd) growWireOutput(output, length)
  putLength(output, length)
  let bits = 0
  let held = 0
  for (let at = first; at < last; at += 1) {
    const value = digits[bytes[at]!]!
    if (value < 0) return fault(source, at, 'bytes hold something other than base64')
    bits = ((bits << 6) | value) & 0xfff
    held += 6
    if (held >= 8) {
      held -= 8
      output.bytes[output.at] = bits >> held
      output.at += 1
    }
  }
  return stop + 1
}
