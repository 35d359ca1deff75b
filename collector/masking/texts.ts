// Finds the strings in a request's wire bytes, by the same table of OTLP's messages that reads JSON. What is no message and
// has a length is a string here: bytes values, because their content is stored too (in base64), ids that are none by their
// length, and fields that are not ours, because a record that is set aside keeps them.
//
// Masking writes over a string and leaves its length, so every length around it stays right, and the walk that follows reads
// a request as it was sent.
import {
  BYTES,
  compileSchema,
  ID,
  type Message as JsonMessage,
  MESSAGE,
  MESSAGES,
  PACKED,
  STRING,
} from '../otlp/json-schema.ts'
import { type Cursor, Malformed, openCursor, readEnd, readTag, skip, wireBytes } from '../otlp/wire.ts'
import type { Signal } from '../receive/request.ts'

export type TextVisitor = {
  /** Whether there is anything to look for in these bytes: what is not wanted is stepped over whole. */
  wants(start: number, end: number): boolean
  /** Not bytes values: among random bytes there is something that looks like anything short. */
  readonly skipsBytes: boolean
  /** A string. `pairEnd` is where the attribute ends whose key it is, 0 when it is no key. `isUnknown` says that nobody knows
   *  what the bytes are: they may hold strings with their tags and lengths. */
  visit(start: number, end: number, pairEnd: number, isUnknown: boolean): void
}

/** By field number, what is in it when it has a length. */
type Message = {
  readonly fields: (Message | 'text' | 'bytes' | 'id' | 'numbers' | undefined)[]
  readonly isPair: boolean
}

/** A value is two messages deep, and the walk renders 64 of them; what is deeper is refused there, and one string here. */
const depthMax = 200

export type Texts = (signal: Signal, bytes: Buffer, visitor: TextVisitor) => void

export function openTexts(): Texts {
  const known = new Map<JsonMessage, Message>()
  const requests = compileSchema()

  function compile(from: JsonMessage): Message {
    const found = known.get(from)
    if (found !== undefined) return found
    const message: Message = { fields: [], isPair: from.isKeyValue }
    known.set(from, message)
    for (const { tag, kind, message: inner } of from.fields) {
      const number = tag < 0x80 ? tag >> 3 : ((tag & 0x7f) | ((tag >> 8) << 7)) >> 3
      if (kind === MESSAGE || kind === MESSAGES) message.fields[number] = compile(inner)
      else if (kind === PACKED) message.fields[number] = 'numbers'
      else if (kind === ID) message.fields[number] = 'id'
      else if (kind === BYTES) message.fields[number] = 'bytes'
      else if (kind === STRING) message.fields[number] = 'text'
    }
    return message
  }

  const messages = {
    traces: compile(requests.traces),
    metrics: compile(requests.metrics),
    logs: compile(requests.logs),
  }

  return (signal, bytes, visitor) => {
    try {
      readMessage(openCursor(bytes), messages[signal], bytes.length, 0, visitor)
    } catch (error) {
      // The walk will say so in its own words. Were it to take the request all the same, nothing must stand in it.
      if (!(error instanceof Malformed)) throw error
      visitor.visit(0, bytes.length, 0, true)
    }
  }
}

function readMessage(cursor: Cursor, message: Message, end: number, depth: number, visitor: TextVisitor): void {
  while (cursor.at < end && visitor.wants(cursor.at, end)) {
    const tag = readTag(cursor, end)
    if ((tag & 7) !== wireBytes) {
      skip(cursor, tag, end, '', 0)
      continue
    }
    const fieldEnd = readEnd(cursor, end)
    const start = cursor.at
    const field = message.fields[tag >>> 3]
    if (!isSkipped(field, fieldEnd - start, visitor) && visitor.wants(start, fieldEnd)) {
      if (typeof field === 'object' && depth < depthMax) readMessage(cursor, field, fieldEnd, depth + 1, visitor)
      else visitor.visit(start, fieldEnd, message.isPair ? end : 0, typeof field !== 'string')
    }
    cursor.at = fieldEnd
  }
}

function isSkipped(field: Message['fields'][number], size: number, visitor: TextVisitor): boolean {
  return field === 'numbers' || (field === 'id' && size <= 16) || (field === 'bytes' && visitor.skipsBytes)
}
