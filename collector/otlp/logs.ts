// Log records: from the bytes of an ExportLogsServiceRequest to rows of otel_logs, in one pass. A body that is not a
// string is stored as the text of its value, as attributes are.
import { appendIndex, type Block } from '@tallylight/storage/clickhouse/block.ts'
import { appendUint8, appendUint16, appendUint64 } from '@tallylight/storage/clickhouse/stream.ts'
import { logsTable } from '@tallylight/storage/clickhouse/tables.ts'
import type { LiftedLog } from '../genai/record.ts'
import { isSpeakingEvent } from '../genai/speaks.ts'
import type { TenantId } from '../receive/request.ts'
import { appendValue, isShallow, placeValue, type ValuePlace, valueAt, valueEmpty } from './any-value.ts'
import {
  appendRepeatedMap,
  appendShaped,
  clearAttributes,
  judgeAttributes,
  namesOf,
  readAttribute,
  type Speech,
  shapeOf,
  speaks,
  speechOf,
  withoutKeys,
} from './attributes.ts'
import {
  clearRange,
  type Envelope,
  internRepeated,
  internService,
  openRange,
  type Range,
  readRange,
  requestOf,
  walkEnvelopes,
} from './envelope.ts'
import {
  appendLifted,
  attributesOf,
  idAt,
  type Mask,
  maskAttributes,
  maskOfAside,
  maskOfRows,
  maskValue,
  surroundingsOf,
  textAt,
  unixNano,
} from './lift.ts'
import {
  appendId,
  appendString,
  chargeRow,
  internTenant,
  internText,
  judgeTenant,
  judgeTime,
  quarantine,
  type RejectReason,
  reject,
  type Walk,
} from './walk.ts'
import { fieldBits, readEnd, readFixed32, readFixed64, readTag, readVarint32, skip } from './wire.ts'

const knownInRecord = fieldBits(1, 2, 3, 5, 6, 7, 8, 9, 10, 11, 12)

type LogPlaces = {
  readonly traceId: Range
  readonly spanId: Range
  readonly severityText: Range
  readonly eventName: Range
  readonly body: ValuePlace
  severity: number
  flags: number
  timeLow: number
  timeHigh: number
  observedLow: number
  observedHigh: number
}

type LogsBlock = Block<typeof logsTable>

export function walkLogs(walk: Walk): void {
  const log: LogPlaces = {
    traceId: openRange(),
    spanId: openRange(),
    severityText: openRange(),
    eventName: openRange(),
    body: { kind: valueEmpty, start: 0, end: 0 },
    severity: 0,
    flags: 0,
    timeLow: 0,
    timeHigh: 0,
    observedLow: 0,
    observedHigh: 0,
  }
  let block: LogsBlock | undefined
  walkEnvelopes(walk, (envelope, end) => {
    walk.tally.records++
    const start = walk.cursor.at
    readLog(walk, log, end)
    const refusal = judgeLog(walk, envelope, log)
    if (refusal !== null) {
      reject(walk, refusal)
      return
    }
    markMissingTime(walk, log)
    const verdict = judgeTime(walk, log.timeLow, log.timeHigh)
    if (verdict === 'too_old') {
      reject(walk, 'too_old')
    } else if (verdict === 'future') {
      if (speaksAsLog(walk, log, speechOf(walk, walk.scratch.record)))
        maskLog(walk, log, maskOfAside(walk), namesOf(walk, walk.scratch.record, undefined))
      const record = requestOf(walk, envelope, walk.cursor.bytes.subarray(start, end))
      quarantine(walk, 'future_time', 'the log record is of more than 24 h after it was received', record)
    } else {
      if (block === undefined || block.day !== walk.day) block = walk.openBlock(logsTable, walk.day)
      chargeRow(walk, end - start + envelope.resource.end - envelope.resource.start)
      appendLog(walk, envelope, log, block)
    }
  })
}

function readLog(walk: Walk, log: LogPlaces, end: number): void {
  const { cursor, scratch } = walk
  clearAttributes(scratch.record)
  clearRange(log.traceId)
  clearRange(log.spanId)
  clearRange(log.severityText)
  clearRange(log.eventName)
  log.body.kind = valueEmpty
  log.severity = 0
  log.flags = 0
  log.timeLow = 0
  log.timeHigh = 0
  log.observedLow = 0
  log.observedHigh = 0
  while (cursor.at < end) {
    const tag = readTag(cursor, end)
    switch (tag) {
      case 0x09:
        readFixed64(cursor, end)
        log.timeLow = cursor.low
        log.timeHigh = cursor.high
        break
      case 0x59:
        readFixed64(cursor, end)
        log.observedLow = cursor.low
        log.observedHigh = cursor.high
        break
      case 0x10:
        log.severity = readVarint32(cursor, end)
        break
      case 0x1a:
        readRange(walk, end, log.severityText)
        break
      case 0x2a:
        readBody(walk, log, end)
        break
      case 0x32:
        readAttribute(walk, end, scratch.record)
        break
      case 0x38:
        readVarint32(cursor, end)
        break
      case 0x45:
        log.flags = readFixed32(cursor, end)
        break
      case 0x4a:
        readRange(walk, end, log.traceId)
        break
      case 0x52:
        readRange(walk, end, log.spanId)
        break
      case 0x62:
        readRange(walk, end, log.eventName)
        break
      default:
        skip(cursor, tag, end, 'LogRecord', knownInRecord)
    }
  }
}

function readBody(walk: Walk, log: LogPlaces, end: number): void {
  const { cursor, scratch } = walk
  placeValue(cursor, readEnd(cursor, end), log.body)
  if (!isShallow(cursor, log.body.kind, log.body.start, log.body.end)) scratch.record.isTooDeep = true
}

function judgeLog(walk: Walk, envelope: Envelope, log: LogPlaces): RejectReason | null {
  const traceIdSize = log.traceId.end - log.traceId.start
  if (traceIdSize !== 0 && traceIdSize !== 16) return 'invalid_trace_id'
  const spanIdSize = log.spanId.end - log.spanId.start
  if (spanIdSize !== 0 && spanIdSize !== 8) return 'invalid_span_id'
  if (envelope.refusal !== null) return envelope.refusal
  if (!judgeTenant(walk, walk.scratch.record)) return 'invalid_tenant'
  return judgeAttributes(walk.scratch.record)
}

function markMissingTime(walk: Walk, log: LogPlaces): void {
  if (log.timeLow !== 0 || log.timeHigh !== 0) return
  const isObserved = log.observedLow !== 0 || log.observedHigh !== 0
  walk.tally.timesReplaced++
  walk.scratch.record.timeMark = isObserved ? 'observed' : 'received'
  log.timeLow = isObserved ? log.observedLow : walk.receivedLow
  log.timeHigh = isObserved ? log.observedHigh : walk.receivedHigh
}

function appendLog(walk: Walk, envelope: Envelope, log: LogPlaces, block: LogsBlock): void {
  const { columns } = block
  const { bytes } = walk.cursor
  const { record } = walk.scratch
  let shape = shapeOf(walk, columns.LogAttributes, record)
  if (walk.lifting !== undefined && speaksAsLog(walk, log, shape)) {
    const names = namesOf(walk, record, shape)
    const lifted = liftLog(walk, envelope, log, names)
    const leftOut = appendLifted(walk, walk.lifting, lifted, log.timeLow, log.timeHigh)
    if (leftOut.attributes.length > 0) {
      withoutKeys(walk, record, names, leftOut.attributes)
      shape = shapeOf(walk, columns.LogAttributes, record)
    }
    if (leftOut.body) log.body.kind = valueEmpty
  }
  appendIndex(columns.TenantId, internTenant(walk, columns.TenantId))
  appendUint16(columns.RetentionDays.data, walk.retentionDaysNow)
  appendUint64(columns.Timestamp.data, log.timeLow, log.timeHigh)
  appendId(columns.TraceId, bytes, log.traceId.start, log.traceId.end)
  appendId(columns.SpanId, bytes, log.spanId.start, log.spanId.end)
  appendUint8(columns.TraceFlags.data, log.flags & 0xff)
  appendIndex(
    columns.SeverityText,
    internText(walk, columns.SeverityText, log.severityText.start, log.severityText.end),
  )
  // OTLP's severities end at 24; a number that the column cannot hold says nothing.
  appendUint8(columns.SeverityNumber.data, log.severity <= 0xff ? log.severity : 0)
  appendIndex(columns.ServiceName, internService(walk, columns.ServiceName, envelope))
  walk.tally.repairedStrings += appendValue(columns.Body.data, walk.cursor, log.body.kind, log.body.start, log.body.end)
  appendIndex(columns.ResourceSchemaUrl, internRepeated(walk, columns.ResourceSchemaUrl, envelope.resourceSchema))
  appendRepeatedMap(walk, columns.ResourceAttributes, envelope.resourceAttributes)
  appendIndex(columns.ScopeSchemaUrl, internRepeated(walk, columns.ScopeSchemaUrl, envelope.scopeSchema))
  appendString(walk, columns.ScopeName, envelope.scopeName.start, envelope.scopeName.end)
  appendIndex(columns.ScopeVersion, internRepeated(walk, columns.ScopeVersion, envelope.scopeVersion))
  appendRepeatedMap(walk, columns.ScopeAttributes, envelope.scopeAttributes)
  appendShaped(walk, columns.LogAttributes, record, shape)
  appendString(walk, columns.EventName, log.eventName.start, log.eventName.end)
  block.rows++
}

function speaksAsLog(walk: Walk, { eventName }: LogPlaces, speech: Speech | undefined): boolean {
  if (speech !== undefined && speaks(walk, walk.scratch.record, speech)) return true
  return eventName.end > eventName.start && isSpeakingEvent(walk.cursor.bytes, eventName.start, eventName.end)
}

function maskLog(walk: Walk, log: LogPlaces, mask: Mask | undefined, names: readonly string[]): void {
  maskAttributes(walk, mask, walk.scratch.record, names, false)
  maskValue(walk, mask, log.body.kind, log.body)
}

function liftLog(walk: Walk, envelope: Envelope, log: LogPlaces, names: readonly string[]): LiftedLog {
  maskLog(walk, log, maskOfRows(walk), names)
  return {
    kind: 'log',
    tenantId: walk.tenantNow as TenantId,
    traceId: idAt(walk, log.traceId),
    spanId: idAt(walk, log.spanId),
    eventName: textAt(walk, log.eventName),
    timeUnixNano: unixNano(log.timeLow, log.timeHigh),
    ordinal: walk.tally.records - 1,
    severity: log.severity,
    body: valueAt(walk.cursor, log.body.kind, log.body.start, log.body.end),
    attributes: attributesOf(walk, walk.scratch.record, names),
    ...surroundingsOf(walk, envelope),
  }
}
