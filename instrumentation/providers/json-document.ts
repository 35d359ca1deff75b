// One JSON text that arrives in pieces cut anywhere. A short one is parsed whole. A long one (embeddings, images, an answer
// of 100 MB) is skimmed while it passes: strings are cut at a length, values under keys nobody reads become null, and what
// is left is parsed at the end. So memory stays bounded, and usage at the end of a huge reply is still found.
import { limits } from '../limits.ts'

export type JsonRead =
  | { readonly kind: 'json'; readonly value: unknown; readonly isCut: boolean }
  /** No JSON: half of one, HTML, `[DONE]`. `text` is its beginning. */
  | { readonly kind: 'broken'; readonly text: string }
  | { readonly kind: 'empty' }

export type JsonDocument = {
  write(bytes: Uint8Array): void
  /** What was written since the last call; the document begins anew. */
  end(): JsonRead
}

/** Vectors and token probabilities: the two things in replies that are large without being text. */
const droppedKeys: ReadonlySet<string> = new Set([
  'data',
  'embedding',
  'embeddings',
  'logprobs',
  'logprobsResult',
  'b64_json',
])
/** Deeper than this a key is the model's own word: the arguments of a tool may have `data`. */
const droppedDepthMax = 3

export const endMark = '[DONE]'

const decoder = new TextDecoder()

export function openJsonDocument(wholeBytesMax: number = limits.jsonWholeBytesMax): JsonDocument {
  let pieces: Uint8Array[] = []
  let bytes = 0
  let skim: Skim | undefined

  function write(piece: Uint8Array): void {
    if (piece.length === 0) return
    if (skim === undefined && bytes + piece.length > wholeBytesMax) {
      skim = openSkim()
      for (const earlier of pieces) skim.write(earlier)
      pieces = []
    }
    bytes += piece.length
    if (skim !== undefined) skim.write(piece)
    // A copy: whoever the bytes are meant for may give their memory away before the document ends.
    else pieces.push(Buffer.from(piece))
  }

  function end(): JsonRead {
    if (bytes === 0) return { kind: 'empty' }
    const isCut = skim !== undefined
    const text = skim === undefined ? decoder.decode(joined(pieces, bytes)) : skim.text()
    pieces = []
    bytes = 0
    skim = undefined
    // What every stream of OpenAI's ends with is not worth an error and its stack.
    if (text === endMark) return { kind: 'broken', text }
    try {
      return { kind: 'json', value: JSON.parse(text), isCut }
    } catch {
      // Whatever is no JSON is the caller's to judge: the end mark of a stream is one such text.
      return { kind: 'broken', text: text.slice(0, limits.eventNameBytesMax) }
    }
  }

  return { write, end }
}

function joined(pieces: readonly Uint8Array[], bytes: number): Uint8Array {
  const [first] = pieces
  if (pieces.length === 1 && first !== undefined) return first
  const whole = new Uint8Array(bytes)
  let at = 0
  for (const piece of pieces) {
    whole.set(piece, at)
    at += piece.length
  }
  return whole
}

type Skim = { write(bytes: Uint8Array): void; text(): string }

const quote = 0x22
const backslash = 0x5c
const keyBytesMax = 32

/** Copies a JSON text without what is too long or of no use. Malformed text comes out malformed, and is judged at the end. */
function openSkim(): Skim {
  const kept = openBytes(limits.jsonSkimBytesMax)
  /** Per depth, whether it is an object: after a comma a key follows there. */
  const isObject: boolean[] = []
  let depth = 0
  let state: 'outside' | 'string' | 'escape' = 'outside'
  let isKeyNext = false
  let isKey = false
  let key = ''
  let stringBytes = 0
  let escapeLeft = 0
  let isEscapeKept = false
  /** The depth at which a value without use began; -1 where there is none. */
  let droppedAt = -1

  function write(bytes: Uint8Array): void {
    // Looked for again only when passed: neither short strings nor escapes may cost a search to the end for each of them.
    let nextQuote = bytes.indexOf(quote)
    let nextBackslash = bytes.indexOf(backslash)
    let at = 0
    while (at < bytes.length && !kept.isClosed()) {
      if (state === 'outside') outside(bytes[at++] as number)
      else if (state === 'escape') inEscape(bytes[at++] as number)
      else {
        if (nextBackslash !== -1 && nextBackslash < at) nextBackslash = bytes.indexOf(backslash, at)
        if (nextQuote !== -1 && nextQuote < at) nextQuote = bytes.indexOf(quote, at)
        at = inString(bytes, at, nextQuote, nextBackslash)
      }
    }
  }

  function outside(byte: number): void {
    // Space between values, by far the most frequent byte of indented replies that is worth nothing.
    if (byte === 0x20 || byte === 0x0a || byte === 0x0d || byte === 0x09) return
    if (droppedAt === depth && (byte === 0x2c || byte === 0x7d)) droppedAt = -1
    // Nothing long is a bare string or number: it is HTML, or no text at all.
    if (depth === 0 && byte !== 0x7b && byte !== 0x5b) kept.close()
    if (droppedAt < 0) kept.add(byte)
    if (byte === quote) {
      state = 'string'
      isKey = isKeyNext
      isKeyNext = false
      key = ''
      stringBytes = 0
    } else if (byte === 0x7b || byte === 0x5b) {
      depth++
      if (depth > limits.jsonSkimDepthMax) kept.close()
      else isObject[depth] = isKeyNext = byte === 0x7b
    } else if (byte === 0x7d || byte === 0x5d) depth--
    else if (byte === 0x2c) isKeyNext = isObject[depth] === true
    else if (byte === 0x3a && droppedAt < 0 && depth <= droppedDepthMax && droppedKeys.has(key)) {
      for (const each of nullBytes) kept.add(each)
      droppedAt = depth
    }
  }

  function inString(bytes: Uint8Array, at: number, nextQuote: number, nextBackslash: number): number {
    const end = Math.min(
      nextQuote === -1 ? bytes.length : nextQuote,
      nextBackslash === -1 ? bytes.length : nextBackslash,
    )
    if (isKey && key.length < keyBytesMax) key += decoder.decode(bytes.subarray(at, Math.min(end, at + keyBytesMax)))
    if (droppedAt < 0) kept.addAll(bytes.subarray(at, Math.min(end, at + stringRoom())))
    stringBytes += end - at
    if (end === nextQuote) {
      state = 'outside'
      if (droppedAt < 0) kept.add(quote)
      return end + 1
    }
    if (end === nextBackslash) {
      state = 'escape'
      escapeLeft = 2
      // Kept or left out whole: half an escape is no JSON.
      isEscapeKept = droppedAt < 0 && stringRoom() > 0
    }
    return end
  }

  function inEscape(byte: number): void {
    if (escapeLeft === 1 && byte === 0x75) escapeLeft = 5
    if (isEscapeKept) kept.add(byte)
    stringBytes++
    escapeLeft--
    // The four digits after \u are plain bytes, counted down like the letter itself.
    if (escapeLeft === 0) state = 'string'
  }

  /** A quarter is left to what is no text, so that many long strings do not take the room of the usage after them. */
  function stringRoom(): number {
    if (isKey) return limits.jsonSkimBytesMax
    const room = (limits.jsonSkimBytesMax * 3) / 4 - kept.length()
    return Math.max(0, Math.min(room, limits.jsonSkimStringBytesMax - stringBytes))
  }

  return { write, text: () => decoder.decode(kept.bytes()) }
}

const nullBytes = new TextEncoder().encode('null')

/** Bytes that grow up to a bound and are closed there. */
function openBytes(bytesMax: number) {
  let bytes = new Uint8Array(16 * 1024)
  let length = 0
  let isClosed = false

  function reserve(more: number): boolean {
    if (length + more > bytesMax) isClosed = true
    if (isClosed) return false
    if (length + more > bytes.length) {
      const larger = new Uint8Array(Math.min(bytesMax, Math.max(length + more, bytes.length * 2)))
      larger.set(bytes.subarray(0, length))
      bytes = larger
    }
    return true
  }

  return {
    add(byte: number): void {
      if (reserve(1)) bytes[length++] = byte
    },
    addAll(run: Uint8Array): void {
      if (!reserve(run.length)) return
      bytes.set(run, length)
      length += run.length
    },
    close(): void {
      isClosed = true
    },
    isClosed: () => isClosed,
    length: () => length,
    bytes: () => bytes.subarray(0, length),
  }
}
