// OpenAI's streams carry usage only when it is asked for. We ask where the caller did not, and take the extra chunk out of
// what the caller reads: the one event without choices and with usage. Where asking makes the provider write `usage: null` into
// every other event, that goes, too. All other bytes pass as they came and at once; only an event that has begun and not ended
// is held, which no reader could have used yet.
import { limits } from '../limits.ts'
import { isJsonObject } from '../usage/provider-usage.ts'
import type { CallRequest } from './call.ts'

/** The body with usage asked for, or nothing where it cannot be written so without risk. A body that says nothing of stream
 *  options keeps its text and gets them in front, so that no number of it is written anew. `request` is what was read of
 *  the body, and saves reading it again. */
export function askForUsage(
  body: string,
  request?: Pick<CallRequest, 'isStream' | 'hasStreamOptions'>,
): string | undefined {
  if (request?.isStream === true && !request.hasStreamOptions) return inFront(body)
  let value: unknown
  try {
    value = JSON.parse(body)
  } catch {
    return undefined
  }
  if (!isJsonObject(value) || value.stream !== true) return undefined
  const options = value.stream_options
  if (options === undefined) return inFront(body)
  if (options !== null && !isJsonObject(options)) return undefined
  return JSON.stringify({ ...value, stream_options: { ...options, include_usage: true } })
}

function inFront(body: string): string {
  return body.replace('{', '{"stream_options":{"include_usage":true},')
}

export type UsageChunkFilter = {
  /** What the caller may have of these bytes and of those held. */
  write(bytes: Uint8Array): readonly Uint8Array[]
  /** What was still held, when the stream ended or was cut. */
  end(): readonly Uint8Array[]
}

const lineFeed = 0x0a
const carriageReturn = 0x0d
const space = 0x20

/** By their references OpenAI and Azure write it into each event of who asked, and of nobody else. Others may write it always. */
const writersOfNull: ReadonlySet<string> = new Set(['openai', 'azure.ai.openai'])

export function openUsageChunkFilter(provider: string): UsageChunkFilter {
  const kept = writersOfNull.has(provider) ? withoutNullUsage : (bytes: Uint8Array) => bytes
  let held: Uint8Array[] = []
  let heldBytes = 0
  /** The event under way is too long to be the chunk: it passes until it ends. */
  let isPassing = false
  /** How much of an empty line has been seen: 0 inside a line, 1 after its end. */
  let lineBytes = 0
  let isAfterReturn = false
  /** The line feed of the CRLF that ended a chunk we took out, still to come. */
  let isFeedOurs = false

  function hold(bytes: Uint8Array): void {
    if (bytes.length === 0) return
    held.push(bytes)
    heldBytes += bytes.length
  }

  function release(): readonly Uint8Array[] {
    const pieces = held
    held = []
    heldBytes = 0
    return pieces
  }

  function write(bytes: Uint8Array): readonly Uint8Array[] {
    const out: Uint8Array[] = []
    let from = 0
    for (let at = 0; at < bytes.length; at++) {
      const byte = bytes[at]
      const isEnd = byte === carriageReturn || (byte === lineFeed && !isAfterReturn)
      const isSecondHalf = byte === lineFeed && isAfterReturn
      isAfterReturn = byte === carriageReturn
      if (isSecondHalf && at === from && heldBytes === 0) {
        // It goes where the rest of its event went.
        if (!isFeedOurs) out.push(bytes.subarray(at, at + 1))
        from++
      }
      isFeedOurs = false
      if (isSecondHalf) continue
      if (!isEnd) {
        lineBytes++
        continue
      }
      if (lineBytes === 0) {
        // The line feed of a CRLF that is still to come belongs to this event, but an empty line it cannot become.
        const end = byte === carriageReturn && bytes[at + 1] === lineFeed ? at + 2 : at + 1
        hold(bytes.subarray(from, end))
        from = end
        const event = release()
        const whole = joined(event)
        if (isPassing) out.push(...event)
        else if (!isUsageChunk(whole)) {
          const less = kept(whole)
          // Pieces stay what they are where nothing is taken out: a copy of a few bytes holds all the memory that it is cut from.
          out.push(...(less === whole ? event : [less]))
        } else isFeedOurs = isAfterReturn && end === at + 1
        isPassing = false
      }
      lineBytes = 0
    }
    hold(bytes.subarray(from))
    if (isPassing || heldBytes > limits.usageEventBytesMax) {
      isPassing = heldBytes > 0 || isPassing
      out.push(...release())
    }
    return out
  }

  return {
    write: (bytes) => (isBetween() && areOthers(bytes) ? [kept(bytes)] : write(bytes)),
    end: release,
  }

  function isBetween(): boolean {
    return heldBytes + lineBytes === 0 && !isPassing && !isAfterReturn
  }
}

function joined(pieces: readonly Uint8Array[]): Uint8Array {
  const [only] = pieces
  return pieces.length === 1 && only !== undefined ? only : Buffer.concat(pieces)
}

const nullUsage = Buffer.from(',"usage":null')
const { indexOf } = Buffer.prototype

/** Within a text of JSON the quotes would be escaped: what is found is a key. */
function withoutNullUsage(bytes: Uint8Array): Uint8Array {
  // It asks nothing of its Buffer but to be bytes.
  const next = (from: number): number => indexOf.call(bytes as Buffer, nullUsage, from)
  let found = next(0)
  if (found === -1) return bytes
  const kept = Buffer.allocUnsafe(bytes.length)
  kept.set(bytes)
  let length = found
  while (found !== -1) {
    const from = found + nullUsage.length
    found = next(from)
    const to = found === -1 ? bytes.length : found
    kept.copyWithin(length, from, to)
    length += to - from
  }
  return kept.subarray(0, length)
}

const openBracket = 0x5b
const closeBracket = 0x5d

/** Whole events without an empty list, as nearly all are: none of them is the chunk, which has no choices. */
function areOthers(bytes: Uint8Array): boolean {
  const { length } = bytes
  if (bytes[length - 1] !== lineFeed || bytes[length - 2] !== lineFeed) return false
  for (let at = bytes.indexOf(openBracket); at !== -1; at = bytes.indexOf(openBracket, at)) {
    do at++
    while ((bytes[at] ?? closeBracket) <= space)
    if (bytes[at] === closeBracket) return false
  }
  return true
}

function isUsageChunk(event: Uint8Array): boolean {
  const text = Buffer.from(event.buffer, event.byteOffset, event.length).toString()
  // Cheap for the thousands that are not: only this one has no choices.
  if (!/"choices"\s*:\s*\[\s*\]/.test(text)) return false
  const data = text
    .split(/\r\n|\r|\n/)
    .flatMap((line) => (line.startsWith('data:') ? [line.slice('data:'.length)] : []))
    .join('\n')
  try {
    const value: unknown = JSON.parse(data)
    return (
      isJsonObject(value) && Array.isArray(value.choices) && value.choices.length === 0 && isJsonObject(value.usage)
    )
  } catch {
    return false
  }
}
