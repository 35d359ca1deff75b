// The rows that decoded OTLP must become in the OpenTelemetry exporter's tables, worked out the simple, slow way.
// A row is its columns by name: 64-bit integers and times (in nanoseconds) are bigint, maps are lists of [key, value] in
// order with equal keys kept, nested columns are lists. Sum, Min and Max that were not sent are NaN. Columns that do not
// come from the request (TenantId, Segment, RetentionDays) are not here.
import type { Signal } from './otlp-proto.ts'

/** A message as protobufjs decodes it; fields are read through the functions below, which know their defaults. */
export type Decoded = { readonly [name: string]: unknown }

export type Cell = string | number | bigint | boolean | readonly Cell[]
export type Row = { readonly [column: string]: Cell }

export type Clock = {
  readonly receivedUnixNano: bigint
  /** Older records are refused as too old, newer ones go to quarantine. */
  readonly oldestUnixNano: bigint
  readonly newestUnixNano: bigint
}

export type RowsOfRequest = {
  readonly tables: { readonly [table: string]: readonly Row[] }
  /** Records that became no row, by reason. An id of a wrong length is judged before the time. */
  readonly left: { readonly badId: number; readonly tooOld: number; readonly tooNew: number }
  readonly durationsClamped: number
  readonly timesReplaced: number
}

export function rowsFromOracle(signal: Signal, request: Decoded, clock: Clock): RowsOfRequest {
  const tables: { [table: string]: Row[] } = {}
  const counts = { badId: 0, tooOld: 0, tooNew: 0, durationsClamped: 0, timesReplaced: 0 }
  for (const record of recordsOf(signal, request)) {
    if (!record.ids.every(isValidId)) {
      counts.badId += 1
      continue
    }
    const time = record.times.find((candidate) => candidate !== 0n) ?? clock.receivedUnixNano
    if (time < clock.oldestUnixNano || time > clock.newestUnixNano) {
      if (time < clock.oldestUnixNano) counts.tooOld += 1
      else counts.tooNew += 1
      continue
    }
    if (record.times[0] === 0n) counts.timesReplaced += 1
    const { row, isClamped } = record.toRow(time)
    if (isClamped) counts.durationsClamped += 1
    const rows = tables[record.table] ?? []
    tables[record.table] = rows
    rows.push(row)
  }
  const { badId, tooOld, tooNew, durationsClamped, timesReplaced } = counts
  return { tables, left: { badId, tooOld, tooNew }, durationsClamped, timesReplaced }
}

/** A span must have ids; a log record or a parent may have none. Those of links and exemplars are stored as they are. */
type Id = { readonly bytes: Buffer; readonly length: number; readonly isRequired: boolean }

function isValidId({ bytes, length, isRequired }: Id): boolean {
  if (isRequired && bytes.every((byte) => byte === 0)) return false
  return bytes.length === length || (!isRequired && bytes.length === 0)
}

type RecordRead = {
  readonly table: string
  readonly ids: readonly Id[]
  /** The record's time and what stands for it when it is 0, in order. */
  readonly times: readonly bigint[]
  readonly toRow: (time: bigint) => { readonly row: Row; readonly isClamped: boolean }
}

function recordsOf(signal: Signal, request: Decoded): RecordRead[] {
  switch (signal) {
    case 'traces':
      return list(request, 'resourceSpans').flatMap((resource) =>
        list(resource, 'scopeSpans').flatMap((scope) =>
          list(scope, 'spans').map((span) => readSpan(resource, scope, span)),
        ),
      )
    case 'logs':
      return list(request, 'resourceLogs').flatMap((resource) =>
        list(resource, 'scopeLogs').flatMap((scope) =>
          list(scope, 'logRecords').map((log) => readLog(resource, scope, log)),
        ),
      )
    case 'metrics':
      return list(request, 'resourceMetrics').flatMap((resource) =>
        list(resource, 'scopeMetrics').flatMap((scope) =>
          list(scope, 'metrics').flatMap((metric) => readMetric(resource, scope, metric)),
        ),
      )
    default:
      return signal satisfies never
  }
}

const spanKinds = ['Unspecified', 'Internal', 'Server', 'Client', 'Producer', 'Consumer']
const statusCodes = ['Unset', 'Ok', 'Error']

function readSpan(resourceSpans: Decoded, scopeSpans: Decoded, span: Decoded): RecordRead {
  const events = list(span, 'events')
  const links = list(span, 'links')
  const status = child(span, 'status')
  const scope = child(scopeSpans, 'scope')
  const toRow = (time: bigint) => {
    const duration = big(span, 'endTimeUnixNano') - time
    const row = {
      Timestamp: time,
      TraceId: hex(span, 'traceId'),
      SpanId: hex(span, 'spanId'),
      ParentSpanId: hex(span, 'parentSpanId'),
      TraceState: text(span, 'traceState'),
      SpanName: text(span, 'name'),
      SpanKind: spanKinds[int(span, 'kind')] ?? '',
      ServiceName: serviceName(resourceSpans),
      ResourceAttributes: resourceMap(resourceSpans),
      ScopeName: text(scope, 'name'),
      ScopeVersion: text(scope, 'version'),
      SpanAttributes: map(span, 'attributes'),
      Duration: duration > 0n ? duration : 0n,
      StatusCode: statusCodes[int(status, 'code')] ?? '',
      StatusMessage: text(status, 'message'),
      'Events.Timestamp': events.map((event) => storedTime(event, 'timeUnixNano')),
      'Events.Name': events.map((event) => text(event, 'name')),
      'Events.Attributes': events.map((event) => map(event, 'attributes')),
      'Links.TraceId': links.map((link) => hex(link, 'traceId')),
      'Links.SpanId': links.map((link) => hex(link, 'spanId')),
      'Links.TraceState': links.map((link) => text(link, 'traceState')),
      'Links.Attributes': links.map((link) => map(link, 'attributes')),
    }
    return { row, isClamped: duration < 0n }
  }
  const ids = [...spanContextIds(span, true), id(span, 'parentSpanId', 8, false)]
  return { table: 'otel_traces', ids, times: [big(span, 'startTimeUnixNano')], toRow }
}

function readLog(resourceLogs: Decoded, scopeLogs: Decoded, log: Decoded): RecordRead {
  const scope = child(scopeLogs, 'scope')
  const severity = int(log, 'severityNumber')
  const toRow = (time: bigint) => {
    const row = {
      Timestamp: time,
      TraceId: hex(log, 'traceId'),
      SpanId: hex(log, 'spanId'),
      TraceFlags: int(log, 'flags') & 0xff,
      SeverityText: text(log, 'severityText'),
      SeverityNumber: severity >= 0 && severity <= 255 ? severity : 0,
      ServiceName: serviceName(resourceLogs),
      Body: valueText(child(log, 'body')),
      ResourceSchemaUrl: text(resourceLogs, 'schemaUrl'),
      ResourceAttributes: resourceMap(resourceLogs),
      ScopeSchemaUrl: text(scopeLogs, 'schemaUrl'),
      ScopeName: text(scope, 'name'),
      ScopeVersion: text(scope, 'version'),
      ScopeAttributes: map(scope, 'attributes'),
      LogAttributes: map(log, 'attributes'),
      EventName: text(log, 'eventName'),
    }
    return { row, isClamped: false }
  }
  const times = [big(log, 'timeUnixNano'), big(log, 'observedTimeUnixNano')]
  return { table: 'otel_logs', ids: spanContextIds(log, false), times, toRow }
}

function readMetric(resourceMetrics: Decoded, scopeMetrics: Decoded, metric: Decoded): RecordRead[] {
  const scope = child(scopeMetrics, 'scope')
  const head = {
    ResourceAttributes: resourceMap(resourceMetrics),
    ResourceSchemaUrl: text(resourceMetrics, 'schemaUrl'),
    ScopeName: text(scope, 'name'),
    ScopeVersion: text(scope, 'version'),
    ScopeAttributes: map(scope, 'attributes'),
    ScopeDroppedAttrCount: int(scope, 'droppedAttributesCount'),
    ScopeSchemaUrl: text(scopeMetrics, 'schemaUrl'),
    ServiceName: serviceName(resourceMetrics),
    MetricName: text(metric, 'name'),
    MetricDescription: text(metric, 'description'),
    MetricUnit: text(metric, 'unit'),
  }
  const kind = typeof metric.data === 'string' ? metric.data : ''
  const data = child(metric, kind)
  const readPoint = metricKinds[kind]
  if (!readPoint) return []
  return list(data, 'dataPoints').map((point) => {
    const exemplars = list(point, 'exemplars')
    const toRow = (time: bigint) => {
      const times = {
        Attributes: map(point, 'attributes'),
        StartTimeUnix: storedTime(point, 'startTimeUnixNano'),
        TimeUnix: time,
      }
      const row = { ...head, ...times, Flags: int(point, 'flags'), ...readPoint.columns(point, data) }
      return { row: readPoint.hasExemplars ? { ...row, ...exemplarColumns(exemplars) } : row, isClamped: false }
    }
    return { table: readPoint.table, ids: [], times: [big(point, 'timeUnixNano')], toRow }
  })
}

type MetricKind = {
  readonly table: string
  readonly hasExemplars: boolean
  readonly columns: (point: Decoded, data: Decoded) => Row
}

const temporality = (data: Decoded) => ({ AggregationTemporality: int(data, 'aggregationTemporality') })
const distribution = (point: Decoded) => ({
  Count: big(point, 'count'),
  Sum: double(point, 'sum', Number.NaN),
  Min: double(point, 'min', Number.NaN),
  Max: double(point, 'max', Number.NaN),
})

const metricKinds: { readonly [kind: string]: MetricKind } = {
  gauge: {
    table: 'otel_metrics_gauge',
    hasExemplars: true,
    columns: (point) => ({ Value: numberValue(point) }),
  },
  sum: {
    table: 'otel_metrics_sum',
    hasExemplars: true,
    columns: (point, data) => ({
      Value: numberValue(point),
      ...temporality(data),
      IsMonotonic: data.isMonotonic === true,
    }),
  },
  histogram: {
    table: 'otel_metrics_histogram',
    hasExemplars: true,
    columns: (point, data) => ({
      ...distribution(point),
      BucketCounts: bigs(point, 'bucketCounts'),
      ExplicitBounds: doubles(point, 'explicitBounds'),
      ...temporality(data),
    }),
  },
  exponentialHistogram: {
    table: 'otel_metrics_exp_histogram',
    hasExemplars: true,
    columns: (point, data) => ({
      ...distribution(point),
      Scale: int(point, 'scale'),
      ZeroCount: big(point, 'zeroCount'),
      ZeroThreshold: double(point, 'zeroThreshold', 0),
      PositiveOffset: int(child(point, 'positive'), 'offset'),
      PositiveBucketCounts: bigs(child(point, 'positive'), 'bucketCounts'),
      NegativeOffset: int(child(point, 'negative'), 'offset'),
      NegativeBucketCounts: bigs(child(point, 'negative'), 'bucketCounts'),
      ...temporality(data),
    }),
  },
  summary: {
    table: 'otel_metrics_summary',
    hasExemplars: false,
    columns: (point) => ({
      Count: big(point, 'count'),
      Sum: double(point, 'sum', 0),
      'ValueAtQuantiles.Quantile': list(point, 'quantileValues').map((entry) => double(entry, 'quantile', 0)),
      'ValueAtQuantiles.Value': list(point, 'quantileValues').map((entry) => double(entry, 'value', 0)),
    }),
  },
}

function exemplarColumns(exemplars: readonly Decoded[]): Row {
  return {
    'Exemplars.FilteredAttributes': exemplars.map((exemplar) => map(exemplar, 'filteredAttributes')),
    'Exemplars.TimeUnix': exemplars.map((exemplar) => storedTime(exemplar, 'timeUnixNano')),
    'Exemplars.Value': exemplars.map(numberValue),
    'Exemplars.SpanId': exemplars.map((exemplar) => hex(exemplar, 'spanId')),
    'Exemplars.TraceId': exemplars.map((exemplar) => hex(exemplar, 'traceId')),
  }
}

function numberValue(point: Decoded): number {
  if (point.value === 'asDouble') return double(point, 'asDouble', 0)
  return point.value === 'asInt' ? Number(big(point, 'asInt')) : 0
}

function spanContextIds(message: Decoded, isRequired: boolean): Id[] {
  return [id(message, 'traceId', 16, isRequired), id(message, 'spanId', 8, isRequired)]
}

function id(message: Decoded, name: string, length: number, isRequired: boolean): Id {
  return { bytes: bytesOf(message, name), length, isRequired }
}

/** '' for an id that is absent or all zero, which OTLP calls the same. */
function hex(message: Decoded, name: string): string {
  return bytesOf(message, name).toString('hex').replace(/^0*$/, '')
}

/** The first of several wins. */
function serviceName(envelope: Decoded): string {
  const attributes = list(child(envelope, 'resource'), 'attributes')
  const found = attributes.find((attribute) => text(attribute, 'key') === 'service.name')
  return found ? valueText(child(found, 'value')) : ''
}

function resourceMap(envelope: Decoded): Cell {
  return map(child(envelope, 'resource'), 'attributes')
}

function map(message: Decoded, name: string): readonly Cell[] {
  return sorted(list(message, name)).map((entry) => [text(entry, 'key'), valueText(child(entry, 'value'))])
}

/** By the bytes of the keys, as they are stored; equal keys stay in the order in which they came. */
function sorted(entries: readonly Decoded[]): readonly Decoded[] {
  return entries.toSorted((a, b) => Buffer.compare(Buffer.from(text(a, 'key')), Buffer.from(text(b, 'key'))))
}

/** A value as the text of a map's value or a log's body. */
function valueText(value: Decoded): string {
  switch (value.value) {
    case 'stringValue':
      return text(value, 'stringValue')
    case 'bytesValue':
      return bytesOf(value, 'bytesValue').toString('base64')
    case 'doubleValue':
      return doubleText(double(value, 'doubleValue', 0))
    case undefined:
      return ''
    default:
      return nestedText(value)
  }
}

/** A value inside an array or a map: JSON, in which what JSON cannot say is a string. */
function nestedText(value: Decoded): string {
  switch (value.value) {
    case 'stringValue':
    case 'bytesValue':
      return JSON.stringify(valueText(value))
    case 'boolValue':
      return String(value.boolValue)
    case 'intValue':
      return String(big(value, 'intValue'))
    case 'doubleValue': {
      const number = double(value, 'doubleValue', 0)
      return Number.isFinite(number) ? doubleText(number) : `"${number}"`
    }
    case 'arrayValue':
      return `[${list(child(value, 'arrayValue'), 'values').map(nestedText).join(',')}]`
    case 'kvlistValue': {
      const entries = sorted(list(child(value, 'kvlistValue'), 'values'))
      return `{${entries.map((entry) => `${JSON.stringify(text(entry, 'key'))}:${nestedText(child(entry, 'value'))}`).join(',')}}`
    }
    default:
      return 'null'
  }
}

function doubleText(value: number): string {
  return Object.is(value, -0) ? '-0' : String(value)
}

function list(message: Decoded, name: string): readonly Decoded[] {
  const value = message[name]
  return Array.isArray(value) ? value : []
}

function child(message: Decoded, name: string): Decoded {
  const value = message[name]
  return typeof value === 'object' && value !== null ? (value as Decoded) : {}
}

function text(message: Decoded, name: string): string {
  const value = message[name]
  return typeof value === 'string' ? value : ''
}

function bytesOf(message: Decoded, name: string): Buffer {
  const value = message[name]
  return value instanceof Uint8Array ? Buffer.from(value) : Buffer.alloc(0)
}

function int(message: Decoded, name: string): number {
  const value = message[name]
  return typeof value === 'number' ? value : 0
}

function double(message: Decoded, name: string, absent: number): number {
  const value = Object.hasOwn(message, name) ? message[name] : absent
  return typeof value === 'number' ? value : absent
}

function doubles(message: Decoded, name: string): readonly number[] {
  const value = message[name]
  return Array.isArray(value) ? value : []
}

function big(message: Decoded, name: string): bigint {
  return toBigint(message[name])
}

/** A time beside the row's own. One after 2262 is the last that a DateTime64(9) holds; 0 stays 0. */
function storedTime(message: Decoded, name: string): bigint {
  const time = big(message, name)
  return time < 2n ** 63n ? time : 2n ** 63n - 1n
}

function bigs(message: Decoded, name: string): readonly bigint[] {
  const value = message[name]
  return Array.isArray(value) ? value.map(toBigint) : []
}

/** protobufjs holds 64 bits as two halves. */
function toBigint(value: unknown): bigint {
  if (typeof value === 'number') return BigInt(value)
  if (typeof value !== 'object' || value === null || !('low' in value) || !('high' in value)) return 0n
  const bits = (BigInt(Number(value.high) >>> 0) << 32n) | BigInt(Number(value.low) >>> 0)
  return 'unsigned' in value && value.unsigned === true ? bits : BigInt.asIntN(64, bits)
}
