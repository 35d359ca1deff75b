// Spans: from the bytes of an ExportTraceServiceRequest to rows of otel_traces, in one pass and without an object per span.
// Columns and conversions are those of the OpenTelemetry exporter; a negative duration is 0 and counted, never wrapped. Fields are
// read into one object and written from it: what reads a field and what writes it change together, so they stand together.
import { appendEnd, appendIndex, type Block, type LowCardinalityColumn } from '@tallylight/storage/clickhouse/block.ts'
import { appendHex, appendUint16, appendUint64 } from '@tallylight/storage/clickhouse/stream.ts'
import { tracesTable } from '@tallylight/storage/clickhouse/tables.ts'
import { type Fact, linkFact } from '../genai/fact.ts'
import type { LiftedEvent, LiftedSpan } from '../genai/record.ts'
import { sceneOf } from '../genai/scene.ts'
import { isContentEvent } from '../genai/speaks.ts'
import type { TenantId } from '../receive/request.ts'
import { valueString } from './any-value.ts'
import {
  appendMap,
  appendRepeatedMap,
  appendShaped,
  clearAttributes,
  judgeAttributes,
  namesOf,
  readAttribute,
  shapeOf,
  speaks,
  speechOf,
  withoutKeys,
} from './attributes.ts'
import {
  clearRange,
  type Envelope,
  internService,
  openRange,
  type Range,
  readRange,
  requestOf,
  walkEnvelopes,
} from './envelope.ts'
import {
  appendLifted,
  appendLinkFact,
  attributesOf,
  idAt,
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
  appendTime,
  type Constant,
  chargePart,
  chargeRow,
  constant,
  internConstant,
  internTenant,
  internText,
  isZero,
  judgeTenant,
  judgeTime,
  quarantine,
  type RejectReason,
  reject,
  type Walk,
} from './walk.ts'
import { fieldBits, readEnd, readFixed32, readFixed64, readTag, readVarint32, skip } from './wire.ts'

const spanKinds = ['Unspecified', 'Internal', 'Server', 'Client', 'Producer', 'Consumer'].map(constant)
const statusCodes = ['Unset', 'Ok', 'Error'].map(constant)
const noName = constant('')

const knownInSpan = fieldBits(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16)
const knownInStatus = fieldBits(2, 3)
const knownInEvent = fieldBits(1, 2, 3, 4)
const knownInLink = fieldBits(1, 2, 3, 4, 5, 6)

/** Where the fields of the span at hand are. One object, filled anew for each span. */
type SpanPlaces = {
  readonly traceId: Range
  readonly spanId: Range
  readonly parentSpanId: Range
  readonly traceState: Range
  readonly name: Range
  readonly statusMessage: Range
  kind: number
  status: number
  startLow: number
  startHigh: number
  endLow: number
  endHigh: number
  events: number
  links: number
}

type TracesBlock = Block<typeof tracesTable>

/** The block that is written, and the entries in it of what nearly every span repeats. -1 is not looked up yet. */
type Target = {
  readonly block: TracesBlock
  tenant: Buffer
  tenantEntry: number
  readonly kindEntries: number[]
  readonly statusEntries: number[]
}

function openTarget(walk: Walk): Target {
  return {
    block: walk.openBlock(tracesTable, walk.day),
    tenant: nobody,
    tenantEntry: -1,
    kindEntries: [-1, -1, -1, -1, -1, -1],
    statusEntries: [-1, -1, -1],
  }
}

const nobody = Buffer.alloc(0)

function tenantEntryOf(walk: Walk, target: Target): number {
  if (target.tenant !== walk.tenantText) {
    target.tenant = walk.tenantText
    target.tenantEntry = internTenant(walk, target.block.columns.TenantId)
  }
  return target.tenantEntry
}

/** The entry of an enumeration's name, or of the empty string for a number that has none. */
function entryOf(column: LowCardinalityColumn, names: readonly Constant[], entries: number[], value: number): number {
  const name = names[value]
  if (name === undefined) return internConstant(column, noName)
  let entry = entries[value] as number
  if (entry < 0) {
    entry = internConstant(column, name)
    entries[value] = entry
  }
  return entry
}

export function walkTraces(walk: Walk): void {
  const span: SpanPlaces = {
    traceId: openRange(),
    spanId: openRange(),
    parentSpanId: openRange(),
    traceState: openRange(),
    name: openRange(),
    statusMessage: openRange(),
    kind: 0,
    status: 0,
    startLow: 0,
    startHigh: 0,
    endLow: 0,
    endHigh: 0,
    events: 0,
    links: 0,
  }
  let target: Target | undefined
  walkEnvelopes(walk, (envelope, end) => {
    walk.tally.records++
    const start = walk.cursor.at
    readSpan(walk, span, end)
    const refusal = judgeSpan(walk, envelope, span)
    if (refusal !== null) {
      reject(walk, refusal)
      return
    }
    markMissingTime(walk, span)
    const verdict = judgeTime(walk, span.startLow, span.startHigh)
    if (verdict === 'too_old') {
      reject(walk, 'too_old')
    } else if (verdict === 'future') {
      if (speaks(walk, walk.scratch.record, speechOf(walk, walk.scratch.record))) maskAside(walk, span, start, end)
      const record = requestOf(walk, envelope, walk.cursor.bytes.subarray(start, end))
      quarantine(walk, 'future_time', 'the span starts more than 24 h after it was received', record)
    } else {
      if (target === undefined || target.block.day !== walk.day) target = openTarget(walk)
      chargeRow(walk, end - start + envelope.resource.end - envelope.resource.start)
      appendSpan(walk, envelope, span, target, start, end)
    }
  })
}

function readSpan(walk: Walk, span: SpanPlaces, end: number): void {
  const { cursor, scratch } = walk
  clearAttributes(scratch.record)
  clearRange(span.traceId)
  clearRange(span.spanId)
  clearRange(span.parentSpanId)
  clearRange(span.traceState)
  clearRange(span.name)
  clearRange(span.statusMessage)
  span.kind = 0
  span.status = 0
  span.startLow = 0
  span.startHigh = 0
  span.endLow = 0
  span.endHigh = 0
  span.events = 0
  span.links = 0
  while (cursor.at < end) {
    const tag = readTag(cursor, end)
    switch (tag) {
      case 0x0a:
        readRange(walk, end, span.traceId)
        break
      case 0x12:
        readRange(walk, end, span.spanId)
        break
      case 0x1a:
        readRange(walk, end, span.traceState)
        break
      case 0x22:
        readRange(walk, end, span.parentSpanId)
        break
      case 0x2a:
        readRange(walk, end, span.name)
        break
      case 0x30:
        span.kind = readVarint32(cursor, end)
        break
      case 0x39:
        readFixed64(cursor, end)
        span.startLow = cursor.low
        span.startHigh = cursor.high
        break
      case 0x41:
        readFixed64(cursor, end)
        span.endLow = cursor.low
        span.endHigh = cursor.high
        break
      case 0x4a:
        readAttribute(walk, end, scratch.record)
        break
      case 0x5a:
        span.events++
        checkPart(walk, end, 'Event')
        break
      case 0x6a:
        span.links++
        checkPart(walk, end, 'Link')
        break
      case 0x7a:
        readStatus(walk, span, end)
        break
      case 0x50:
      case 0x60:
      case 0x70:
        readVarint32(cursor, end)
        break
      case 0x85:
        readFixed32(cursor, end)
        break
      default:
        skip(cursor, tag, end, 'Span', knownInSpan)
    }
  }
}

/** Reads an event or link once before anything is written, since one that cannot be stored takes its span with it. */
function checkPart(walk: Walk, end: number, name: 'Event' | 'Link'): void {
  const { cursor, scratch } = walk
  const partEnd = readEnd(cursor, end)
  chargePart(walk)
  clearAttributes(scratch.part)
  const attributesTag = name === 'Event' ? 0x1a : 0x22
  while (cursor.at < partEnd) {
    const tag = readTag(cursor, partEnd)
    if (tag === attributesTag) readAttribute(walk, partEnd, scratch.part)
    else skipOfPart(walk, tag, partEnd, name)
  }
  if (scratch.part.isTooDeep) scratch.record.isTooDeep = true
  if (scratch.part.isTooLong) scratch.record.isTooLong = true
}

function skipOfPart(walk: Walk, tag: number, end: number, name: 'Event' | 'Link'): void {
  const own = name === 'Event' ? tag === 0x09 || tag === 0x12 || tag === 0x20 : isLinkTag(tag)
  skip(walk.cursor, tag, end, name, own ? 0 : name === 'Event' ? knownInEvent : knownInLink)
}

function isLinkTag(tag: number): boolean {
  return tag === 0x0a || tag === 0x12 || tag === 0x1a || tag === 0x28 || tag === 0x35
}

function readStatus(walk: Walk, span: SpanPlaces, end: number): void {
  const { cursor } = walk
  const statusEnd = readEnd(cursor, end)
  span.status = 0
  clearRange(span.statusMessage)
  while (cursor.at < statusEnd) {
    const tag = readTag(cursor, statusEnd)
    if (tag === 0x12) readRange(walk, statusEnd, span.statusMessage)
    else if (tag === 0x18) span.status = readVarint32(cursor, statusEnd)
    else skip(cursor, tag, statusEnd, 'Status', knownInStatus)
  }
}

function judgeSpan(walk: Walk, envelope: Envelope, span: SpanPlaces): RejectReason | null {
  const { bytes } = walk.cursor
  const { traceId, spanId, parentSpanId } = span
  if (traceId.end - traceId.start !== 16 || isZero(bytes, traceId.start, traceId.end)) return 'invalid_trace_id'
  if (spanId.end - spanId.start !== 8 || isZero(bytes, spanId.start, spanId.end)) return 'invalid_span_id'
  const parentSize = parentSpanId.end - parentSpanId.start
  if (parentSize !== 0 && parentSize !== 8) return 'invalid_parent_span_id'
  if (envelope.refusal !== null) return envelope.refusal
  if (!judgeTenant(walk, walk.scratch.record)) return 'invalid_tenant'
  return judgeAttributes(walk.scratch.record)
}

function markMissingTime(walk: Walk, span: SpanPlaces): void {
  if (span.startLow !== 0 || span.startHigh !== 0) return
  walk.tally.timesReplaced++
  walk.scratch.record.timeMark = 'received'
  span.startLow = walk.receivedLow
  span.startHigh = walk.receivedHigh
}

function appendSpan(
  walk: Walk,
  envelope: Envelope,
  span: SpanPlaces,
  target: Target,
  start: number,
  end: number,
): void {
  const { columns } = target.block
  const { bytes } = walk.cursor
  const { record } = walk.scratch
  let shape = shapeOf(walk, columns.SpanAttributes, record)
  let withoutEvents = noEvents
  if (shape !== undefined && walk.lifting !== undefined && speaks(walk, record, shape)) {
    const names = namesOf(walk, record, shape)
    const lifted = liftSpan(walk, envelope, span, names, start, end)
    const leftOut = appendLifted(walk, walk.lifting, lifted, span.startLow, span.startHigh)
    if (leftOut.attributes.length > 0) {
      withoutKeys(walk, record, names, leftOut.attributes)
      shape = shapeOf(walk, columns.SpanAttributes, record)
    }
    withoutEvents = leftOut.events
  } else if (walk.lifting?.awaited.has(walk.cursor.view, span.spanId.start) === true) {
    appendLinkFact(walk, walk.lifting, linkOfSpan(walk, envelope, span), span.startLow, span.startHigh)
  }
  appendIndex(columns.TenantId, tenantEntryOf(walk, target))
  appendUint16(columns.RetentionDays.data, walk.retentionDaysNow)
  appendUint64(columns.Timestamp.data, span.startLow, span.startHigh)
  appendHex(columns.TraceId.data, bytes, span.traceId.start, span.traceId.end)
  appendHex(columns.SpanId.data, bytes, span.spanId.start, span.spanId.end)
  appendId(columns.ParentSpanId, bytes, span.parentSpanId.start, span.parentSpanId.end)
  appendString(walk, columns.TraceState, span.traceState.start, span.traceState.end)
  appendIndex(columns.SpanName, internText(walk, columns.SpanName, span.name.start, span.name.end))
  appendIndex(columns.SpanKind, entryOf(columns.SpanKind, spanKinds, target.kindEntries, span.kind))
  appendIndex(columns.ServiceName, internService(walk, columns.ServiceName, envelope))
  appendRepeatedMap(walk, columns.ResourceAttributes, envelope.resourceAttributes)
  appendString(walk, columns.ScopeName, envelope.scopeName.start, envelope.scopeName.end)
  appendString(walk, columns.ScopeVersion, envelope.scopeVersion.start, envelope.scopeVersion.end)
  appendShaped(walk, columns.SpanAttributes, record, shape)
  appendDuration(walk, span, columns)
  appendIndex(columns.StatusCode, entryOf(columns.StatusCode, statusCodes, target.statusEntries, span.status))
  appendString(walk, columns.StatusMessage, span.statusMessage.start, span.statusMessage.end)
  if (span.events > 0) appendEvents(walk, columns, start, end, withoutEvents)
  if (span.links > 0) appendLinks(walk, columns, start, end)
  appendEnd(columns['Events.Timestamp'].ends, span.events - withoutEvents.size)
  appendEnd(columns['Links.TraceId'].ends, span.links)
  target.block.rows++
}

type TracesColumns = TracesBlock['columns']

function appendDuration(walk: Walk, span: SpanPlaces, columns: TracesColumns): void {
  const isNegative = span.endHigh < span.startHigh || (span.endHigh === span.startHigh && span.endLow < span.startLow)
  if (isNegative) {
    walk.tally.negativeDurations++
    appendUint64(columns.Duration.data, 0, 0)
    return
  }
  const borrow = span.endLow < span.startLow ? 1 : 0
  appendUint64(columns.Duration.data, (span.endLow - span.startLow) >>> 0, span.endHigh - span.startHigh - borrow)
}

/** Where the fields of the event at hand are. */
type EventPlaces = { readonly name: Range; low: number; high: number }

/** Calls back for each event of the span in `[start, end)`, with its attributes in `scratch.part`. */
function readEvents(walk: Walk, start: number, end: number, take: (event: EventPlaces, number: number) => void): void {
  const { cursor, scratch } = walk
  const event: EventPlaces = { name: openRange(), low: 0, high: 0 }
  let number = 0
  cursor.at = start
  while (cursor.at < end) {
    const tag = readTag(cursor, end)
    if (tag !== 0x5a) {
      skip(cursor, tag, end, '', 0)
      continue
    }
    const eventEnd = readEnd(cursor, end)
    clearAttributes(scratch.part)
    clearRange(event.name)
    event.low = 0
    event.high = 0
    while (cursor.at < eventEnd) {
      const eventTag = readTag(cursor, eventEnd)
      if (eventTag === 0x09) {
        readFixed64(cursor, eventEnd)
        event.low = cursor.low
        event.high = cursor.high
      } else if (eventTag === 0x12) readRange(walk, eventEnd, event.name)
      else if (eventTag === 0x1a) readAttribute(walk, eventEnd, scratch.part)
      else skip(cursor, eventTag, eventEnd, 'Event', 0)
    }
    take(event, number++)
  }
}

function appendEvents(
  walk: Walk,
  columns: TracesColumns,
  start: number,
  end: number,
  without: ReadonlySet<number>,
): void {
  readEvents(walk, start, end, (event, number) => {
    if (without.has(number)) return
    appendTime(walk, columns['Events.Timestamp'].of.data, event.low, event.high)
    const names = columns['Events.Name'].of
    appendIndex(names, internText(walk, names, event.name.start, event.name.end))
    appendMap(walk, columns['Events.Attributes'].of, walk.scratch.part)
  })
}

const noEvents: ReadonlySet<number> = new Set()
const kindNames = ['unspecified', 'internal', 'server', 'client', 'producer', 'consumer'] as const
const statusNames = ['unset', 'ok', 'error'] as const

function maskAside(walk: Walk, span: SpanPlaces, start: number, end: number): void {
  const mask = maskOfAside(walk)
  const { record, part } = walk.scratch
  maskAttributes(walk, mask, record, namesOf(walk, record, undefined), false)
  maskValue(walk, mask, valueString, span.statusMessage)
  readEvents(walk, start, end, ({ name }) =>
    maskAttributes(walk, mask, part, namesOf(walk, part, undefined), isContentEvent(textAt(walk, name))),
  )
}

function liftSpan(
  walk: Walk,
  envelope: Envelope,
  span: SpanPlaces,
  names: readonly string[],
  start: number,
  end: number,
): LiftedSpan {
  const mask = maskOfRows(walk)
  maskAttributes(walk, mask, walk.scratch.record, names, false)
  maskValue(walk, mask, valueString, span.statusMessage)
  const events: LiftedEvent[] = []
  if (span.events > 0) {
    readEvents(walk, start, end, ({ name: place, low, high }) => {
      const name = textAt(walk, place)
      const { part } = walk.scratch
      const namesOfEvent = namesOf(walk, part, undefined)
      maskAttributes(walk, mask, part, namesOfEvent, isContentEvent(name))
      events.push({
        name,
        timeUnixNano: unixNano(low, high),
        attributes: attributesOf(walk, part, namesOfEvent),
      })
    })
  }
  return {
    kind: 'span',
    tenantId: walk.tenantNow as TenantId,
    traceId: idAt(walk, span.traceId),
    spanId: idAt(walk, span.spanId),
    parentSpanId: idAt(walk, span.parentSpanId),
    name: textAt(walk, span.name),
    spanKind: kindNames[span.kind] ?? 'unspecified',
    startUnixNano: unixNano(span.startLow, span.startHigh),
    endUnixNano: unixNano(span.endLow, span.endHigh),
    status: statusNames[span.status] ?? 'unset',
    statusMessage: textAt(walk, span.statusMessage),
    attributes: attributesOf(walk, walk.scratch.record, names),
    events,
    ...surroundingsOf(walk, envelope),
  }
}

/** Nothing of it is content, and its failure is its own: it tells whose its children are. */
function linkOfSpan(walk: Walk, envelope: Envelope, span: SpanPlaces): Fact {
  const { resource } = surroundingsOf(walk, envelope)
  return linkFact({
    tenantId: walk.tenantNow as TenantId,
    traceId: idAt(walk, span.traceId),
    spanId: idAt(walk, span.spanId),
    parentSpanId: idAt(walk, span.parentSpanId),
    startUnixNano: unixNano(span.startLow, span.startHigh),
    endUnixNano: unixNano(span.endLow, span.endHigh),
    scene: sceneOf(attributesOf(walk, walk.scratch.record), resource),
  })
}

function appendLinks(walk: Walk, columns: TracesColumns, start: number, end: number): void {
  const { cursor, scratch } = walk
  const { bytes } = cursor
  cursor.at = start
  while (cursor.at < end) {
    const tag = readTag(cursor, end)
    if (tag !== 0x6a) {
      skip(cursor, tag, end, '', 0)
      continue
    }
    const linkEnd = readEnd(cursor, end)
    clearAttributes(scratch.part)
    const traceId = openRange()
    const spanId = openRange()
    const traceState = openRange()
    while (cursor.at < linkEnd) {
      const linkTag = readTag(cursor, linkEnd)
      if (linkTag === 0x0a) readRange(walk, linkEnd, traceId)
      else if (linkTag === 0x12) readRange(walk, linkEnd, spanId)
      else if (linkTag === 0x1a) readRange(walk, linkEnd, traceState)
      else if (linkTag === 0x22) readAttribute(walk, linkEnd, scratch.part)
      else skip(cursor, linkTag, linkEnd, 'Link', 0)
    }
    appendId(columns['Links.TraceId'].of, bytes, traceId.start, traceId.end)
    appendId(columns['Links.SpanId'].of, bytes, spanId.start, spanId.end)
    appendString(walk, columns['Links.TraceState'].of, traceState.start, traceState.end)
    appendMap(walk, columns['Links.Attributes'].of, scratch.part)
  }
}
