// The messages of OTLP 1.11 as JSON spells them: lowerCamelCase name, field number, type. One line per message is the whole
// knowledge that the JSON reader has of OTLP; a field that is not here is skipped, whatever it holds (entityRefs and the
// fields of the profiling signal are left out on purpose: no table has a place for them).
import type { Signal } from '../receive/request.ts'

const table = {
  TracesRequest: 'resourceSpans 1 ResourceSpans[]',
  ResourceSpans: 'resource 1 Resource, scopeSpans 2 ScopeSpans[], schemaUrl 3 string',
  ScopeSpans: 'scope 1 Scope, spans 2 Span[], schemaUrl 3 string',
  Span: `traceId 1 id, spanId 2 id, traceState 3 string, parentSpanId 4 id, flags 16 fixed32, name 5 string, kind 6 enum,
    startTimeUnixNano 7 fixed64, endTimeUnixNano 8 fixed64, attributes 9 KeyValue[], droppedAttributesCount 10 uint32,
    events 11 Event[], droppedEventsCount 12 uint32, links 13 Link[], droppedLinksCount 14 uint32, status 15 Status`,
  Event: 'timeUnixNano 1 fixed64, name 2 string, attributes 3 KeyValue[], droppedAttributesCount 4 uint32',
  Link: `traceId 1 id, spanId 2 id, traceState 3 string, attributes 4 KeyValue[], droppedAttributesCount 5 uint32,
    flags 6 fixed32`,
  Status: 'message 2 string, code 3 enum',

  LogsRequest: 'resourceLogs 1 ResourceLogs[]',
  ResourceLogs: 'resource 1 Resource, scopeLogs 2 ScopeLogs[], schemaUrl 3 string',
  ScopeLogs: 'scope 1 Scope, logRecords 2 LogRecord[], schemaUrl 3 string',
  LogRecord: `timeUnixNano 1 fixed64, observedTimeUnixNano 11 fixed64, severityNumber 2 enum, severityText 3 string,
    body 5 AnyValue, attributes 6 KeyValue[], droppedAttributesCount 7 uint32, flags 8 fixed32, traceId 9 id, spanId 10 id,
    eventName 12 string`,

  MetricsRequest: 'resourceMetrics 1 ResourceMetrics[]',
  ResourceMetrics: 'resource 1 Resource, scopeMetrics 2 ScopeMetrics[], schemaUrl 3 string',
  ScopeMetrics: 'scope 1 Scope, metrics 2 Metric[], schemaUrl 3 string',
  Metric: `name 1 string, description 2 string, unit 3 string, gauge 5 Gauge, sum 7 Sum, histogram 9 Histogram,
    exponentialHistogram 10 ExponentialHistogram, summary 11 Summary, metadata 12 KeyValue[]`,
  Gauge: 'dataPoints 1 NumberDataPoint[]',
  Sum: 'dataPoints 1 NumberDataPoint[], aggregationTemporality 2 enum, isMonotonic 3 bool',
  Histogram: 'dataPoints 1 HistogramDataPoint[], aggregationTemporality 2 enum',
  ExponentialHistogram: 'dataPoints 1 ExponentialHistogramDataPoint[], aggregationTemporality 2 enum',
  Summary: 'dataPoints 1 SummaryDataPoint[]',
  NumberDataPoint: `startTimeUnixNano 2 fixed64, timeUnixNano 3 fixed64, asDouble 4 double, exemplars 5 Exemplar[],
    asInt 6 sfixed64, attributes 7 KeyValue[], flags 8 uint32`,
  HistogramDataPoint: `startTimeUnixNano 2 fixed64, timeUnixNano 3 fixed64, count 4 fixed64, sum 5 double,
    bucketCounts 6 fixed64[], explicitBounds 7 double[], exemplars 8 Exemplar[], attributes 9 KeyValue[], flags 10 uint32,
    min 11 double, max 12 double`,
  ExponentialHistogramDataPoint: `attributes 1 KeyValue[], startTimeUnixNano 2 fixed64, timeUnixNano 3 fixed64,
    count 4 fixed64, sum 5 double, scale 6 sint32, zeroCount 7 fixed64, positive 8 Buckets, negative 9 Buckets,
    flags 10 uint32, exemplars 11 Exemplar[], min 12 double, max 13 double, zeroThreshold 14 double`,
  Buckets: 'offset 1 sint32, bucketCounts 2 uint64[]',
  SummaryDataPoint: `startTimeUnixNano 2 fixed64, timeUnixNano 3 fixed64, count 4 fixed64, sum 5 double,
    quantileValues 6 ValueAtQuantile[], attributes 7 KeyValue[], flags 8 uint32`,
  ValueAtQuantile: 'quantile 1 double, value 2 double',
  Exemplar: `timeUnixNano 2 fixed64, asDouble 3 double, spanId 4 id, traceId 5 id, asInt 6 sfixed64,
    filteredAttributes 7 KeyValue[]`,

  Resource: 'attributes 1 KeyValue[], droppedAttributesCount 2 uint32',
  Scope: 'name 1 string, version 2 string, attributes 3 KeyValue[], droppedAttributesCount 4 uint32',
  KeyValue: 'key 1 string, value 2 AnyValue',
  AnyValue: `stringValue 1 string, boolValue 2 bool, intValue 3 int64, doubleValue 4 double, arrayValue 5 ArrayValue,
    kvlistValue 6 KeyValueList, bytesValue 7 bytes`,
  ArrayValue: 'values 1 AnyValue[]',
  KeyValueList: 'values 1 KeyValue[]',
} as const

type MessageName = keyof typeof table

// Small integers, because the reader's switch over them becomes a jump table.
export const STRING = 0
export const ID = 1
export const BYTES = 2
export const BOOL = 3
export const ENUM = 4
export const SINT32 = 5
export const UINT32 = 6
export const FIXED32 = 7
export const INT64 = 8
export const UINT64 = 9
export const FIXED64 = 10
export const SFIXED64 = 11
export const DOUBLE = 12
export const MESSAGE = 13
export const MESSAGES = 14
export const PACKED = 15

const scalarKinds: Readonly<Record<string, number>> = {
  string: STRING,
  id: ID,
  bytes: BYTES,
  bool: BOOL,
  enum: ENUM,
  sint32: SINT32,
  uint32: UINT32,
  fixed32: FIXED32,
  int64: INT64,
  uint64: UINT64,
  fixed64: FIXED64,
  sfixed64: SFIXED64,
  double: DOUBLE,
}

export type Field = {
  readonly name: string
  /** Its place in the message, from 1: 0 stands for the opening brace in `likely` and `second`. */
  readonly slot: number
  readonly kind: number
  /** PACKED: the kind of its elements. */
  readonly elementKind: number
  /** One byte, or two with the second in bits 8–15: no OTLP field number is above 2047. */
  readonly tag: number
  /** MESSAGE and MESSAGES: what it holds. Other kinds never look at it. */
  readonly message: Message
  /** `"name":` as little-endian words, then the word that ends at its last byte (it overlaps the one before). */
  readonly words: Int32Array
  readonly lastWord: number
  readonly literalLength: number
}

/** `likely[slot]` and `second[slot]` are the two fields that last came after the one in `slot`, as indexes: an exporter writes
 *  every object of a kind in one order, so the next name is nearly always known before it is read, and comparing a few
 *  words replaces finding it. They are a guess only; a wrong one costs a look-up and nothing else. */
export type Message = {
  readonly name: string
  readonly fields: readonly Field[]
  readonly likely: Uint8Array
  readonly second: Uint8Array
  /** Bytes reserved for the length prefix: what a usual message of the kind needs, so that few are moved when they close. */
  readonly lengthBytes: number
  readonly isKeyValue: boolean
}

const roots: Readonly<Record<Signal, MessageName>> = {
  traces: 'TracesRequest',
  metrics: 'MetricsRequest',
  logs: 'LogsRequest',
}
/** The longest `"name":` is 25 bytes; a literal is compared only where this many bytes are left to read. */
export const literalBytesMax = 32

/** The request messages of the three signals, with all they lead to. */
export function compileSchema(): Readonly<Record<Signal, Message>> {
  const messages = new Map<string, Message>()
  const compile = (name: MessageName): Message => {
    const known = messages.get(name)
    if (known) return known
    const fields: Field[] = []
    const lines = table[name].split(',')
    const message: Message = {
      name,
      fields,
      likely: Uint8Array.from({ length: lines.length + 1 }, (_, slot) => slot % lines.length),
      second: new Uint8Array(lines.length + 1),
      lengthBytes: /^(Resource|Scope)./.test(name) ? 4 : 2,
      isKeyValue: name === 'KeyValue',
    }
    messages.set(name, message)
    for (const line of lines) {
      const [fieldName = '', number = '', type = ''] = line.trim().split(/\s+/)
      const elementType = type.replace('[]', '')
      const child = isMessageName(elementType) ? compile(elementType) : message
      fields.push(compileField(fieldName, fields.length + 1, Number(number), type, child))
    }
    return message
  }
  return { traces: compile(roots.traces), metrics: compile(roots.metrics), logs: compile(roots.logs) }
}

function isMessageName(type: string): type is MessageName {
  return Object.hasOwn(table, type)
}

function compileField(name: string, slot: number, number: number, type: string, message: Message): Field {
  const isRepeated = type.endsWith('[]')
  const elementKind = scalarKinds[type.replace('[]', '')] ?? MESSAGE
  const kind = !isRepeated ? elementKind : elementKind === MESSAGE ? MESSAGES : PACKED
  const key = (number << 3) | wireType(kind)
  const literal = Buffer.from(`"${name}":`, 'latin1')
  const words = new Int32Array(literal.length >> 2)
  for (let index = 0; index < words.length; index += 1) words[index] = literal.readInt32LE(index * 4)
  return {
    name,
    slot,
    kind,
    elementKind,
    tag: key < 128 ? key : (key & 0x7f) | 0x80 | ((key >> 7) << 8),
    message,
    words,
    lastWord: literal.readInt32LE(literal.length - 4),
    literalLength: literal.length,
  }
}

function wireType(kind: number): number {
  switch (kind) {
    case FIXED64:
    case SFIXED64:
    case DOUBLE:
      return 1
    case FIXED32:
      return 5
    case STRING:
    case ID:
    case BYTES:
    case MESSAGE:
    case MESSAGES:
    case PACKED:
      return 2
    default:
      return 0
  }
}
