// An append-only run of bytes: what every column of an open block is made of. Nothing before `length` ever changes, so a
// journal frame may hold on to a slice while more is appended, and undoing is setting `length` back.
//
// Hot: these functions run several times per attribute. They stay small, so that the engine inlines them, and work on
// plain numbers: a string or a view per value would cost more than all the rest.
import { isAscii, isUtf8 } from 'node:buffer'

export type Stream = {
  bytes: Buffer
  view: DataView
  length: number
  /** How much of it is in the journal for good. */
  synced: number
  /** Where the request that is being walked found it. */
  mark: number
}

const streamBytesInitial = 1024
const doubledBytesMax = 4 * 1024 * 1024

/** Below this, copying words in JavaScript beats the call into the engine's own copy. Measured: the two meet at about 100 bytes. */
const wordCopyBytesMax = 96

export function openStream(): Stream {
  const bytes = Buffer.allocUnsafeSlow(streamBytesInitial)
  return { bytes, view: viewOf(bytes), length: 0, synced: 0, mark: 0 }
}

export function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
}

/** Makes room for `more` bytes. The old buffer is left as it was, because a write of it may be under way. */
export function reserve(stream: Stream, more: number): void {
  if (stream.length + more > stream.bytes.length) grow(stream, more)
}

function grow(stream: Stream, more: number): void {
  const { length } = stream.bytes
  // Long columns are few and are used again by the next block: doubling them would hold megabytes that nobody fills.
  const next = length < doubledBytesMax ? length * 2 : length + length / 4
  const grown = Buffer.allocUnsafeSlow(Math.max(next, stream.length + more))
  stream.bytes.copy(grown, 0, 0, stream.length)
  stream.bytes = grown
  stream.view = viewOf(grown)
}

export function appendUint8(stream: Stream, value: number): void {
  reserve(stream, 1)
  stream.bytes[stream.length++] = value
}

export function appendUint16(stream: Stream, value: number): void {
  reserve(stream, 2)
  stream.view.setUint16(stream.length, value, true)
  stream.length += 2
}

export function appendUint32(stream: Stream, value: number): void {
  reserve(stream, 4)
  stream.view.setUint32(stream.length, value, true)
  stream.length += 4
}

/** A 64-bit value as its two halves: BigInt allocates, and a double loses the last digits of a nanosecond. */
export function appendUint64(stream: Stream, low: number, high: number): void {
  reserve(stream, 8)
  stream.view.setUint32(stream.length, low, true)
  stream.view.setUint32(stream.length + 4, high, true)
  stream.length += 8
}

/** Signed or not: the bytes are the same. */
export function appendBigInt64(stream: Stream, value: bigint): void {
  reserve(stream, 8)
  stream.view.setBigInt64(stream.length, value, true)
  stream.length += 8
}

export function appendZeros(stream: Stream, count: number): void {
  reserve(stream, count)
  stream.bytes.fill(0, stream.length, stream.length + count)
  stream.length += count
}

export function appendFloat64(stream: Stream, value: number): void {
  reserve(stream, 8)
  stream.view.setFloat64(stream.length, value, true)
  stream.length += 8
}

/** Writes a length as ClickHouse and protobuf both spell it. The caller has reserved 5 bytes. */
export function putLength(stream: Stream, value: number): void {
  const bytes = stream.bytes
  let at = stream.length
  while (value >= 0x80) {
    bytes[at++] = (value & 0x7f) | 0x80
    value >>>= 7
  }
  bytes[at++] = value
  stream.length = at
}

export function appendEmptyString(stream: Stream): void {
  appendUint8(stream, 0)
}

/** Appends bytes that are known to be valid UTF-8. */
export function appendText(stream: Stream, text: Buffer): void {
  reserve(stream, text.length + 5)
  putLength(stream, text.length)
  text.copy(stream.bytes, stream.length)
  stream.length += text.length
}

/** Below this, a loop over the characters beats the call into the engine's own encoder. */
const wordCharsMax = 48

/** Appends a string of JavaScript's as UTF-8. Half a surrogate pair becomes a replacement character. */
export function appendWord(stream: Stream, text: string): void {
  const { length } = text
  if (length <= wordCharsMax) {
    reserve(stream, length + 1)
    const { bytes } = stream
    let at = stream.length
    bytes[at++] = length
    let seen = 0
    for (let i = 0; i < length; i++) {
      const code = text.charCodeAt(i)
      seen |= code
      bytes[at++] = code
    }
    if (seen < 0x80) {
      stream.length = at
      return
    }
  }
  const size = Buffer.byteLength(text)
  reserve(stream, size + 5)
  putLength(stream, size)
  // As many bytes as characters: all of them are ASCII, and need no encoding.
  stream.bytes.write(text, stream.length, size, size === length ? 'latin1' : 'utf8')
  stream.length += size
}

/** Appends `source[start, end)` as a string. Returns false, having appended nothing, when it is not valid UTF-8. */
export function appendStringOf(stream: Stream, source: Buffer, view: DataView, start: number, end: number): boolean {
  const size = end - start
  reserve(stream, size + 5)
  const before = stream.length
  putLength(stream, size)
  const at = stream.length
  let isPlain: boolean
  if (size <= wordCopyBytesMax) {
    isPlain = copyWords(stream.bytes, stream.view, at, source, view, start, size)
  } else {
    source.copy(stream.bytes, at, start, end)
    isPlain = isAscii(source.subarray(start, end))
  }
  if (!isPlain && !isUtf8(source.subarray(start, end))) {
    stream.length = before
    return false
  }
  stream.length = at + size
  return true
}

/** Copies `size` bytes and tells whether all of them are ASCII. */
function copyWords(
  target: Buffer,
  targetView: DataView,
  at: number,
  source: Buffer,
  sourceView: DataView,
  start: number,
  size: number,
): boolean {
  let seen = 0
  if (size >= 4) {
    const last = size - 4
    for (let i = 0; i < last; i += 4) {
      const word = sourceView.getUint32(start + i, true)
      seen |= word
      targetView.setUint32(at + i, word, true)
    }
    const word = sourceView.getUint32(start + last, true)
    seen |= word
    targetView.setUint32(at + last, word, true)
    return (seen & 0x80808080) === 0
  }
  for (let i = 0; i < size; i++) {
    const byte = source[start + i] as number
    seen |= byte
    target[at + i] = byte
  }
  return (seen & 0x80) === 0
}

const hexPairs = new Uint16Array(256)
for (let byte = 0; byte < 256; byte++) {
  const text = byte.toString(16).padStart(2, '0')
  hexPairs[byte] = text.charCodeAt(0) | (text.charCodeAt(1) << 8)
}

/** Appends `source[start, end)` as a string of lower-case hex digits. */
export function appendHex(stream: Stream, source: Buffer, start: number, end: number): void {
  reserve(stream, (end - start) * 2 + 5)
  putLength(stream, (end - start) * 2)
  let at = stream.length
  const view = stream.view
  for (let i = start; i < end; i++) {
    view.setUint16(at, hexPairs[source[i] as number] as number, true)
    at += 2
  }
  stream.length = at
}

/** Appends again what the stream already holds at `[start, end)`: how a resource's attributes reach each of its rows. */
export function appendAgain(stream: Stream, start: number, end: number): void {
  const size = end - start
  reserve(stream, size)
  const at = stream.length
  if (size <= wordCopyBytesMax) copyWords(stream.bytes, stream.view, at, stream.bytes, stream.view, start, size)
  else stream.bytes.copy(stream.bytes, at, start, end)
  stream.length = at + size
}
