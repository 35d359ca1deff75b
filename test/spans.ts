// Requests of spans, made by hand and as small as they can be, for tests that count rows by id.
import { field } from '@tallylight/collector/otlp/envelope.ts'

export type TestSpan = {
  readonly id: string
  readonly name: string
  readonly startUnixNano: bigint
  readonly attributes?: Readonly<Record<string, string>>
}

/** An ExportTraceServiceRequest. `id` is 16 hex digits; the trace id is made of it. */
export function spansRequest(spans: readonly TestSpan[]): Buffer {
  return field(1, field(2, Buffer.concat(spans.map((span) => field(2, spanBytes(span))))))
}

function spanBytes({ id, name, startUnixNano, attributes = {} }: TestSpan): Buffer {
  const start = Buffer.alloc(9)
  start[0] = 0x39
  start.writeBigUInt64LE(startUnixNano, 1)
  const pairs = Object.entries(attributes).map(([key, value]) =>
    field(9, Buffer.concat([field(1, Buffer.from(key)), field(2, field(1, Buffer.from(value)))])),
  )
  return Buffer.concat([
    field(1, Buffer.from(id.padStart(32, 'a'), 'hex')),
    field(2, Buffer.from(id, 'hex')),
    field(5, Buffer.from(name)),
    start,
    ...pairs,
  ])
}
