// OTLP/JSON to OTLP protobuf, in one pass over the bytes, so that there is one walk for both. It makes no object per span, no
// string per attribute and does not use JSON.parse. It is strict where a laxer reader would invent data (grammar, ids,
// integers, enums), and leaves to the walk what the walk must judge anyway: id lengths, UTF-8, which records are kept.
// Of a name that occurs twice the later wins; arrays and messages under the same name add up, as on the wire.
import { limits } from '../limits.ts'
import type { Signal } from '../receive/request.ts'
import { findField, openMessageReader, skipName } from './json-message.ts'
import { memberNames, pathAt } from './json-path.ts'
import { compileSchema } from './json-schema.ts'
import {
  CLOSE_OBJECT,
  COMMA,
  fault,
  JsonFault,
  OPEN_OBJECT,
  openSource,
  type Source,
  skipSpace,
  skipValue,
  unexpected,
} from './json-source.ts'
import { openWireOutput, type WireOutput, WireOverflow } from './wire-output.ts'

export type WireFromJson =
  | { readonly kind: 'wire'; readonly bytes: Buffer }
  | { readonly kind: 'malformed'; readonly reason: string }

/** Outputs up to this are written into one buffer that stays, and are copied out: a new buffer per request costs its page
 *  faults, which is more than the copy. */
const keptOutputBytes = 4 * 1024 * 1024

let translate: ReturnType<typeof openTranslator> | undefined

/** The protobuf form of an OTLP/JSON request. The bytes are the caller's: nothing writes to them later. */
export function wireFromJson(signal: Signal, json: Buffer): WireFromJson {
  translate ??= openTranslator()
  return translate(signal, json)
}

function openTranslator(): (signal: Signal, json: Buffer) => WireFromJson {
  const requests = compileSchema()
  const { readField } = openMessageReader()
  const kept = openWireOutput(keptOutputBytes)

  return (signal, json) => {
    const source = openSource(json)
    const fits = json.length <= keptOutputBytes
    // Growing replaces the buffer in the object, so what is kept is handed out as a copy of the object.
    const output = fits ? { ...kept, at: 0 } : openWireOutput(Math.min(json.length, limits.jsonWireBytesMax))
    try {
      readRequest(source, output, signal)
    } catch (error) {
      return { kind: 'malformed', reason: describeFault(error, source, signal) }
    }
    const written = output.bytes.subarray(0, output.at)
    return { kind: 'wire', bytes: output.bytes === kept.bytes ? Buffer.from(written) : written }
  }

  function readRequest(source: Source, output: WireOutput, signal: Signal): void {
    const { bytes } = source
    const message = requests[signal]
    const objectAt = skipSpace(source, byteOrderMarkLength(bytes))
    if (bytes[objectAt] !== OPEN_OBJECT) unexpected(source, objectAt, `an object with ${message.fields[0]!.name}`)
    let at = skipSpace(source, objectAt + 1)
    const isEmpty = bytes[at] === CLOSE_OBJECT
    let isOurs = isEmpty
    while (!isEmpty) {
      const field = findField(source, at, message)
      at = skipSpace(source, skipName(source, at))
      at = skipSpace(source, field ? readField(source, output, field, at, 1) : skipValue(source, at, 1))
      isOurs ||= field !== undefined
      if (bytes[at] === CLOSE_OBJECT) break
      if (bytes[at] !== COMMA) unexpected(source, at, '"," or "}"')
      at = skipSpace(source, at + 1)
    }
    at = skipSpace(source, at + 1)
    if (at < source.end) unexpected(source, at, 'the end of the body')
    if (!isOurs) refuseMembers(source, objectAt, signal)
  }

  /** An object of other things is not an empty request: answering 200 to it would lose the sender's data without a word. */
  function refuseMembers(source: Source, objectAt: number, signal: Signal): never {
    const expected = requests[signal].fields[0]!.name
    const names = memberNames(source, objectAt, 16)
    for (const other of Object.values(requests)) {
      const name = other.fields[0]!.name
      if (names.includes(name)) {
        return fault(source, objectAt, `wrong signal: /v1/${signal} takes ${expected}, the body has ${name}`)
      }
    }
    return fault(source, objectAt, `expected ${expected}, found only ${names.join(', ')}`)
  }
}

/** RFC 8259 lets a reader ignore the mark; some Windows exporters write it, and nothing is gained by losing their spans. */
function byteOrderMarkLength(bytes: Buffer): number {
  return bytes.length >= 3 && bytes[0] === 0xef && bytes[1] === 0xbb && bytes[2] === 0xbf ? 3 : 0
}

function describeFault(error: unknown, source: Source, signal: Signal): string {
  if (error instanceof WireOverflow) {
    return `cannot take the JSON of ${signal}: as protobuf it is larger than ${limits.jsonWireBytesMax} bytes`
  }
  if (!(error instanceof JsonFault)) throw error
  const path = pathAt(source, error.at)
  return `cannot read the JSON of ${signal}: ${path === '' ? '' : `${path}: `}${error.message}, at byte ${error.at}`
}
