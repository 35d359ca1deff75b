// What the walks of the three signals share: the request that is walked, where its rows go, what was counted, and the
// few things that are the same for each: times, tenants, ids, text.
//
// A walk appends rows while it reads. When the bytes turn out malformed it throws, and the caller cuts the blocks back to
// where the walk found them; nothing of such a request stays.
import {
  appendIndex,
  type Block,
  type LowCardinalityColumn,
  type StringColumn,
} from '@tallylight/storage/clickhouse/block.ts'
import { intern, SegmentFull } from '@tallylight/storage/clickhouse/dictionary.ts'
import {
  appendEmptyString,
  appendHex,
  appendStringOf,
  appendText,
  appendUint16,
  appendUint64,
  openStream,
  type Stream,
  viewOf,
} from '@tallylight/storage/clickhouse/stream.ts'
import { quarantineTable, type TableDefinition } from '@tallylight/storage/clickhouse/tables.ts'
import type { MaskedCounts } from '../masking/request-mask.ts'
import { parseTenantId, type Signal } from '../receive/request.ts'
import { appendValue, repaired, valueString } from './any-value.ts'
import { type AttributeList, openAttributeList, openShapes, type Shapes } from './attributes.ts'
import type { Lifting } from './lift.ts'
import { type Cursor, openCursor } from './wire.ts'

/** Why a record of a request that is otherwise stored was not: the client is told, and must not send it again. */
export type RejectReason =
  | 'invalid_trace_id'
  | 'invalid_span_id'
  | 'invalid_parent_span_id'
  | 'invalid_tenant'
  | 'too_old'
  | 'too_deep'
  | 'too_many_attributes'

/** Gives the open block of a table and UTC day, marked for this walk. Throws SegmentFull when there is no room. */
export type OpenBlock = <Table extends TableDefinition>(table: Table, day: number) => Block<Table>

export type WalkRequest = {
  readonly bytes: Buffer
  readonly tenant: string
  readonly manyTenants: boolean
  readonly receivedUnixMs: number
  readonly retentionDaysOf: (tenant: string) => number
  readonly openBlock: OpenBlock
  /** What one request may unfold to, in bytes of rows: its resource is written again with each record. */
  readonly rowBytesMax: number
  /** Undefined where nothing is lifted. */
  readonly lifting: Lifting | undefined
  /** What was masked in the request, by kind; the walk adds to it. */
  readonly masked: MaskedCounts
}

export type WalkTally = {
  records: number
  quarantined: number
  readonly rejected: Map<RejectReason, number>
  repairedStrings: number
  negativeDurations: number
  /** Records without a time of their own. */
  timesReplaced: number
  /** Times that no DateTime64(9) holds, set to its end. */
  timesClamped: number
  lifted: number
  /** Attributes of content that stay where they are, because not all of them was understood. */
  leftoverContents: number
  malformedContents: number
  absurdUsages: number
  /** Records that a dialect could not read: stored as they came, and in no row. */
  brokenRecords: number
}

const millisecondsPerDay = 86_400_000
const nanosecondsPerDay = 86_400_000_000_000
const two32 = 0x1_0000_0000
/** Unix nanoseconds above this are after 2262 and would turn negative in a DateTime64(9). */
const highMax = 0x7fff_ffff
const futureDaysMax = 1

/** The buffers that a walk works in, made once and used by every request. */
export type WalkScratch = {
  readonly resource: AttributeList
  readonly scope: AttributeList
  readonly record: AttributeList
  readonly part: AttributeList
  readonly shapes: Shapes
  readonly text: Stream
}

export function openWalkScratch(): WalkScratch {
  return {
    resource: openAttributeList(),
    scope: openAttributeList(),
    record: openAttributeList(),
    part: openAttributeList(),
    shapes: openShapes(),
    text: openStream(),
  }
}

export type Walk = WalkRequest & {
  readonly signal: Signal
  readonly cursor: Cursor
  readonly scratch: WalkScratch
  readonly tally: WalkTally
  readonly receivedUnixNano: number
  readonly receivedLow: number
  readonly receivedHigh: number
  readonly receivedDay: number
  /** Texts that this request has written. */
  readonly texts: Map<string, Set<string>>
  rowBytes: number
  /** The UTC day that was looked up last, and its bounds as halves. */
  day: number
  dayStartLow: number
  dayStartHigh: number
  dayEndLow: number
  dayEndHigh: number
  tenantNow: string
  retentionDaysNow: number
  tenantText: Buffer
  tenantView: DataView
}

export function openWalk(signal: Signal, request: WalkRequest, scratch: WalkScratch): Walk {
  const received = BigInt(Math.round(request.receivedUnixMs)) * 1_000_000n
  const tenantText = Buffer.from(request.tenant)
  return {
    ...request,
    signal,
    cursor: openCursor(request.bytes),
    scratch,
    tally: {
      records: 0,
      quarantined: 0,
      rejected: new Map(),
      repairedStrings: 0,
      negativeDurations: 0,
      timesReplaced: 0,
      timesClamped: 0,
      lifted: 0,
      leftoverContents: 0,
      malformedContents: 0,
      absurdUsages: 0,
      brokenRecords: 0,
    },
    texts: new Map(),
    receivedDay: Math.floor(request.receivedUnixMs / millisecondsPerDay),
    receivedUnixNano: Number(received),
    receivedLow: Number(received & 0xffff_ffffn),
    receivedHigh: Number(received >> 32n),
    rowBytes: 0,
    day: -1,
    dayStartLow: 0,
    dayStartHigh: 0,
    dayEndLow: 0,
    dayEndHigh: 0,
    tenantNow: request.tenant,
    retentionDaysNow: request.retentionDaysOf(request.tenant),
    tenantText,
    tenantView: viewOf(tenantText),
  }
}

export function reject(walk: Walk, reason: RejectReason): void {
  walk.tally.rejected.set(reason, (walk.tally.rejected.get(reason) ?? 0) + 1)
}

/** What an event, a link, an exemplar, a quantile or an item inside of a value counts for, however few bytes it came in: about
 *  what it takes while it is written. Two bytes are enough for an event, and 60 MiB of nothing else were gigabytes here and a
 *  row that no server took. */
const partBytes = 64

/** Counts what a record unfolds to, so that a small request cannot become gigabytes of rows. */
export function chargeRow(walk: Walk, bytes: number): void {
  walk.rowBytes += bytes + walk.cursor.items * partBytes
  walk.cursor.items = 0
  if (walk.rowBytes > walk.rowBytesMax) throw new SegmentFull('the request unfolds to more rows than a segment holds')
}

export function chargePart(walk: Walk): void {
  chargeRow(walk, partBytes)
}

export type TimeVerdict = 'kept' | 'too_old' | 'future'

/** Whether a record of this time is stored; if so, `walk.day` is its UTC day. */
export function judgeTime(walk: Walk, low: number, high: number): TimeVerdict {
  const unixNano = high * two32 + low
  if (unixNano > walk.receivedUnixNano + futureDaysMax * nanosecondsPerDay) return 'future'
  if (unixNano < walk.receivedUnixNano - walk.retentionDaysNow * nanosecondsPerDay) return 'too_old'
  const isToday =
    (high > walk.dayStartHigh || (high === walk.dayStartHigh && low >= walk.dayStartLow)) &&
    (high < walk.dayEndHigh || (high === walk.dayEndHigh && low < walk.dayEndLow))
  if (!isToday || walk.day < 0) findDay(walk, low, high)
  return 'kept'
}

/** The days' bounds are exact in a double, being multiples of 2¹⁶; a nanosecond is not, so the quotient may be one off. */
function findDay(walk: Walk, low: number, high: number): void {
  let day = Math.floor((high * two32 + low) / nanosecondsPerDay)
  for (;;) {
    const start = day * nanosecondsPerDay
    const end = start + nanosecondsPerDay
    walk.dayStartHigh = Math.floor(start / two32)
    walk.dayStartLow = start - walk.dayStartHigh * two32
    walk.dayEndHigh = Math.floor(end / two32)
    walk.dayEndLow = end - walk.dayEndHigh * two32
    if (high < walk.dayStartHigh || (high === walk.dayStartHigh && low < walk.dayStartLow)) day--
    else if (high > walk.dayEndHigh || (high === walk.dayEndHigh && low >= walk.dayEndLow)) day++
    else break
  }
  walk.day = day
}

/** Appends a time beside the row's own; one that a DateTime64(9) cannot hold becomes its last, and is counted. */
export function appendTime(walk: Walk, stream: Stream, low: number, high: number): void {
  if (high > highMax) {
    walk.tally.timesClamped++
    appendUint64(stream, 0xffff_ffff, highMax)
  } else {
    appendUint64(stream, low, high)
  }
}

/** The tenant of a record: the key's own, or, for a key that may name one, what the record or else its resource says. */
export function judgeTenant(walk: Walk, record: AttributeList): boolean {
  if (!walk.manyTenants) return true
  const named = namedTenant(walk, record) ?? namedTenant(walk, walk.scratch.resource) ?? walk.tenant
  if (named === walk.tenantNow) return true
  if (parseTenantId(named) === undefined) return false
  walk.tenantNow = named
  walk.retentionDaysNow = walk.retentionDaysOf(named)
  walk.tenantText = Buffer.from(named)
  walk.tenantView = viewOf(walk.tenantText)
  return true
}

function namedTenant(walk: Walk, list: AttributeList): string | undefined {
  const at = list.tenantAt
  if (at < 0 || list.kinds[at] !== valueString) return undefined
  return walk.cursor.bytes.toString('utf8', list.valueStarts[at], list.valueEnds[at])
}

/** The entry of the tenant in this block's dictionary. */
export function internTenant(walk: Walk, column: LowCardinalityColumn): number {
  return intern(column.dictionary, walk.tenantText, walk.tenantView, 0, walk.tenantText.length)
}

export function isZero(bytes: Buffer, start: number, end: number): boolean {
  for (let at = start; at < end; at++) if (bytes[at] !== 0) return false
  return true
}

/** An id as hex; absent and all zero are both none. */
export function appendId(column: StringColumn, bytes: Buffer, start: number, end: number): void {
  if (start === end || isZero(bytes, start, end)) appendEmptyString(column.data)
  else appendHex(column.data, bytes, start, end)
}

export function appendString(walk: Walk, column: StringColumn, start: number, end: number): void {
  const { bytes, view } = walk.cursor
  if (appendStringOf(column.data, bytes, view, start, end)) return
  walk.tally.repairedStrings++
  appendText(column.data, repaired(bytes, start, end))
}

export function internText(walk: Walk, column: LowCardinalityColumn, start: number, end: number): number {
  const { bytes, view } = walk.cursor
  const entry = intern(column.dictionary, bytes, view, start, end)
  if (entry >= 0) return entry
  walk.tally.repairedStrings++
  return internBytes(column, repaired(bytes, start, end))
}

/** A text of ours with the view that interning reads it through: one view per row would be garbage by the million. */
export type Constant = { readonly text: Buffer; readonly view: DataView }

export function constant(text: string): Constant {
  const bytes = Buffer.from(text)
  return { text: bytes, view: viewOf(bytes) }
}

export function internConstant(column: LowCardinalityColumn, { text, view }: Constant): number {
  return intern(column.dictionary, text, view, 0, text.length)
}

export function internBytes(column: LowCardinalityColumn, text: Buffer): number {
  return intern(column.dictionary, text, viewOf(text), 0, text.length)
}

/** The entry of a value's text, whatever its kind. */
export function internValue(
  walk: Walk,
  column: LowCardinalityColumn,
  kind: number,
  start: number,
  end: number,
): number {
  if (kind === valueString) return internText(walk, column, start, end)
  const text = walk.scratch.text
  text.length = 0
  walk.tally.repairedStrings += appendValue(text, walk.cursor, kind, start, end)
  let from = 0
  while ((text.bytes[from] as number) >= 0x80) from++
  return intern(column.dictionary, text.bytes, text.view, from + 1, text.length)
}

/** Writes a record that no table may take now to the quarantine, as a request that holds it alone. */
export function quarantine(walk: Walk, reason: string, message: string, record: Buffer): void {
  const block = walk.openBlock(quarantineTable, walk.receivedDay)
  const { columns } = block
  chargeRow(walk, record.length)
  appendIndex(columns.TenantId, internTenant(walk, columns.TenantId))
  appendUint16(columns.RetentionDays.data, walk.retentionDaysNow)
  appendUint64(columns.Time.data, walk.receivedLow, walk.receivedHigh)
  appendIndex(columns.Signal, internBytes(columns.Signal, Buffer.from(walk.signal)))
  appendIndex(columns.Reason, internBytes(columns.Reason, Buffer.from(reason)))
  appendText(columns.Message.data, Buffer.from(message))
  appendIndex(columns.Format, internBytes(columns.Format, Buffer.from('otlp')))
  appendText(columns.Record.data, record)
  block.rows++
  walk.tally.quarantined++
}
