// Requests of spans, made by hand and as small as they can be, for tests that count rows by id.
import { field } from '@tallylight/collector/otlp/envelope.ts'

export type TestSpan = {
  readonly id: string
  readonly name: string
  readonly startUnixNano: bigint
  readonly endUnixNano?: bigint
  /** 32 hex digits; made of the id unless it is given. */
  readonly traceId?: string
  readonly parentId?: string
  readonly attributes?: Readonly<Record<string, string | number>>
}

/** An ExportTraceServiceRequest. `id` is 16 hex digits. */
export function spansRequest(spans: readonly TestSpan[]): Buffer {
  return field(1, field(2, Buffer.concat(spans.map((span) => field(2, spanBytes(span))))))
}

function spanBytes({ id, traceId, parentId, name, startUnixNano, endUnixNano, attributes = {} }: TestSpan): Buffer {
  const pairs = Object.entries(attributes).map(([key, value]) =>
    field(9, Buffer.concat([field(1, Buffer.from(key)), field(2, valueBytes(value))])),
  )
  return Buffer.concat([
    field(1, Buffer.from(traceId ?? id.padStart(32, 'a'), 'hex')),
    field(2, Buffer.from(id, 'hex')),
    ...(parentId === undefined ? [] : [field(4, Buffer.from(parentId, 'hex'))]),
    field(5, Buffer.from(name)),
    timeBytes(0x39, startUnixNano),
    ...(endUnixNano === undefined ? [] : [timeBytes(0x41, endUnixNano)]),
    ...pairs,
  ])
}

/** A string, or an integer of up to 28 bits. */
function valueBytes(value: string | number): Buffer {
  if (typeof value === 'string') return field(1, Buffer.from(value))
  const bytes = [0x18]
  let left = value
  for (; left >= 0x80; left >>>= 7) bytes.push((left & 0x7f) | 0x80)
  return Buffer.from([...bytes, left])
}

function timeBytes(tag: number, unixNano: bigint): Buffer {
  const bytes = Buffer.alloc(9)
  bytes[0] = tag
  bytes.writeBigUInt64LE(unixNano, 1)
  return bytes
}
