// Nearly every event of a stream says one thing: a few more letters. Such events are alike but for the letters, so one that was
// parsed and did nothing else teaches how the next are written, and those are recognised by their bytes and never parsed: a
// tenth of the CPU. Whatever differs in any other byte, is cut, or is not surely JSON is left to the parser.
import { limits } from '../limits.ts'
import type { Piece } from './output.ts'

export type PlainEvents = {
  /** Takes the plain event that begins there and gives its end; -1 where none does. */
  read(bytes: Uint8Array, at: number): number
  /** An event, from its first byte to the empty line behind it, that was parsed and did nothing but add this piece. */
  learn(event: Uint8Array, piece: Piece): void
}

/** Gets the letters as they stand in the JSON, and how many UTF-16 units they are. */
export type OnPiece = (piece: Piece, chars: number, json: () => string) => void

/** What stands between the bytes that are always the same. `padding` and `count` mean nothing and are passed over. */
type Slot = 'text' | 'padding' | 'count' | 'end'
type Pattern = { readonly piece: Piece; readonly steps: readonly Step[] }
type Step = { readonly bytes: Uint8Array; readonly slot: Slot }

/** Random letters that hide how long a word was, and numbers that grow. */
const paddingKeys: ReadonlySet<string> = new Set(['obfuscation', 'p'])
const countKeys: ReadonlySet<string> = new Set(['sequence_number'])

export function openPlainEvents(onPiece: OnPiece): PlainEvents {
  let patterns: Pattern[] = []
  let lessons = 0
  let hits = 0

  function read(bytes: Uint8Array, at: number): number {
    for (const { steps, piece } of patterns) {
      const end = match(bytes, at, steps)
      if (end === -1) continue
      hits++
      const { textFrom, textTo, chars } = found
      onPiece(piece, chars, () => textIn(bytes, textFrom, textTo))
      return end
    }
    return -1
  }

  return {
    read,
    learn(event, piece) {
      // A stream whose events are never alike is not worth the lessons.
      if (event.length > limits.plainEventBytesMax || lessons > limits.plainLessonsMax + hits / 8) return
      lessons++
      const steps = stepsOf(event, piece.content)
      if (steps !== undefined) patterns = [{ piece, steps }, ...patterns.slice(0, limits.plainPatternsMax - 1)]
    },
  }
}

/** Of the last match: one for all, for it is read before the next begins. */
const found = { textFrom: 0, textTo: 0, chars: 0 }

function match(bytes: Uint8Array, from: number, steps: readonly Step[]): number {
  let at = from
  for (const { bytes: same, slot } of steps) {
    if (at + same.length > bytes.length || !isSame(bytes, at, same)) return -1
    at += same.length
    if (slot === 'text') {
      const end = stringEnd(bytes, at)
      if (end === -1) return -1
      found.textFrom = at
      found.textTo = at = end
    } else if (slot === 'padding') at = bytes.indexOf(quote, at)
    else if (slot === 'count') at = digitsEnd(bytes, at)
    if (at === -1) return -1
  }
  return at
}

const { compare } = Buffer.prototype

/** Of this many bytes the platform compares as fast as a loop, of more four times as fast. */
const compareBytesMin = 48

function isSame(bytes: Uint8Array, at: number, same: Uint8Array): boolean {
  if (same.length < compareBytesMin) {
    for (let each = 0; each < same.length; each++) if (bytes[at + each] !== same[each]) return false
    return true
  }
  // It asks nothing of its Buffer but to be bytes.
  return compare.call(bytes as Buffer, same, 0, same.length, at, at + same.length) === 0
}

const quote = 0x22
const backslash = 0x5c
const letterU = 0x75
/** What may stand behind a backslash, beside `u`: " \ / b f n r t. */
const escaped = new Set([quote, backslash, 0x2f, 0x62, 0x66, 0x6e, 0x72, 0x74])

/** The end of the JSON string whose letters begin there, as `found.chars` counts them; -1 where a parser has to judge. */
function stringEnd(bytes: Uint8Array, from: number): number {
  let chars = 0
  for (let at = from; at < bytes.length; at++) {
    const byte = bytes[at] as number
    if (byte === quote) {
      found.chars = chars
      return at
    }
    if (byte < 0x20) return -1
    if (byte === backslash) {
      const next = bytes[++at] ?? 0
      if (next === letterU) {
        for (const last = at + 4; at < last; ) if (!isHex(bytes[++at] ?? 0)) return -1
      } else if (!escaped.has(next)) return -1
      chars++
    } else if (byte < 0x80) chars++
    // The first byte of a letter counts for all of it; four bytes are two units.
    else if (byte >= 0xc0) chars += byte >= 0xf0 ? 2 : 1
  }
  return -1
}

function isHex(byte: number): boolean {
  const lower = byte | 0x20
  return (byte >= 0x30 && byte <= 0x39) || (lower >= 0x61 && lower <= 0x66)
}

function digitsEnd(bytes: Uint8Array, from: number): number {
  let at = from
  while (at < bytes.length && isDigit(bytes[at] as number)) at++
  return at === from ? -1 : at
}

function isDigit(byte: number): boolean {
  return byte >= 0x30 && byte <= 0x39
}

function textIn(bytes: Uint8Array, from: number, to: number): string {
  const text = Buffer.from(bytes.buffer, bytes.byteOffset + from, to - from).toString()
  return text.includes('\\') ? (JSON.parse(`"${text}"`) as string) : text
}

/** How an event is written: nothing where `content` is not told from the rest, or the event is more than one line of JSON. */
function stepsOf(event: Uint8Array, content: string): readonly Step[] | undefined {
  const json = event.indexOf(0x7b)
  const end = event.lastIndexOf(0x7d) + 1
  const isOneLine = json !== -1 && event.indexOf(0x0a, json) === end && end === event.length - 2
  if (!isOneLine || event.includes(0x0d)) return undefined
  const steps: Step[] = []
  let key = ''
  let sameFrom = 0
  let texts = 0

  function slot(kind: Slot, from: number, to: number): void {
    steps.push({ bytes: event.slice(sameFrom, from), slot: kind })
    sameFrom = to
  }

  for (let at = json; at < end; at++) {
    const byte = event[at] as number
    if (byte === quote) {
      const to = stringEnd(event, at + 1)
      if (to === -1) return undefined
      if (event[to + 1] === 0x3a) key = textIn(event, at + 1, to)
      else if (paddingKeys.has(key)) slot('padding', at + 1, to)
      else if (textIn(event, at + 1, to) === content) {
        slot('text', at + 1, to)
        texts++
      }
      at = to
    } else if (isDigit(byte)) {
      const to = digitsEnd(event, at)
      if (countKeys.has(key)) slot('count', at, to)
      at = to - 1
    }
  }
  slot('end', event.length, event.length)
  return texts === 1 ? steps : undefined
}
