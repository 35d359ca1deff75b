// What a request must become, by another decoder than ours. `expectedRows` is the question to ask about any bytes:
// - 'rows': exactly these rows, records left out and counts;
// - 'malformed': the request must be refused whole;
// - 'unclear': two right decoders may differ, so nothing may be concluded but that ours neither crashes nor hangs.
import { loadRequestTypes, type RequestTypes, type Signal } from './otlp-proto.ts'
import { type Clock, type Decoded, type RowsOfRequest, rowsFromOracle } from './rows.ts'
import { checkWire } from './wire-check.ts'

export type Expected =
  | ({ readonly kind: 'rows' } & RowsOfRequest)
  | { readonly kind: 'malformed'; readonly reason: string }
  | { readonly kind: 'unclear'; readonly reason: string }

export type Oracle = {
  readonly types: RequestTypes
  readonly expectedRows: (signal: Signal, wire: Buffer, clock: Clock) => Expected
  /** Plain objects, for comparing two encodings of one request; 64-bit integers as decimal strings, bytes as base64. */
  readonly plainObject: (signal: Signal, wire: Buffer) => unknown
}

export function openOracle(): Oracle {
  const types = loadRequestTypes()
  return {
    types,
    expectedRows: (signal, wire, clock) => {
      const verdict = checkWire(types[signal], wire)
      if (verdict.kind !== 'plain') return verdict
      const decoded = decode(types, signal, wire)
      if (decoded instanceof Error) return { kind: 'unclear', reason: `only protobufjs refuses it: ${decoded.message}` }
      return { kind: 'rows', ...rowsFromOracle(signal, decoded, clock) }
    },
    plainObject: (signal, wire) => {
      const type = types[signal]
      return type.toObject(type.decode(wire), { longs: String, bytes: String, oneofs: true })
    },
  }
}

function decode(types: RequestTypes, signal: Signal, wire: Buffer): Decoded | Error {
  try {
    return types[signal].decode(wire) as unknown as Decoded
  } catch (error) {
    if (error instanceof Error) return error
    throw error
  }
}
