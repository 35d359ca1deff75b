// OTLP/JSON to OTLP protobuf, in one pass over the bytes, so that there is one walk for both. It makes no object per span, no
// string per attribute and does not use JSON.parse. It is strict where a laxer reader would invent data (grammar, ids,
// integers, enums), and leaves to the walk what the walk must judge anyway: id lengths, UTF-8, which records are kept.
// Of a name that occurs twice the later wins; messages under the same name merge, as on the wire.
import type { Signal } from '../receive/request.ts'
import { limits } from '../limits.ts'
import { openNumberRead, readDouble, readInteger } from './json-number.ts'
import { memberNames, pathAt } from './json-path.ts'
import {
  BOOL,
  BYTES,
  compileSchema,
  DOUBLE,
  ENUM,
  type Field,
  FIXED32,
  FIXED64,
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
  JsonFault,
  LETTER_N,
  OPEN_ARRAY,
  OPEN_OBJECT,
  openSource,
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
  openWireOutput,
  putFixed64,
  putLength,
  putTag,
  putVarint,
  type WireOutput,
} from './wire-output.ts'

export type WireFromJson =
  | { readonly kind: 'wire'; readonly bytes: Buffer }
  | { readonly kind: 'malformed'; readonly reason: string }

let translator: ReturnType<typeof openTranslator> | undefined

/** The protobuf form of an OTLP/JSON request. The bytes are the caller's: nothing writes to them later. */
export function wireFromJson(signal: Signal, json: Buffer): WireFromJson {
  translator ??= openTranslator()
  return translator(signal, json)
}
