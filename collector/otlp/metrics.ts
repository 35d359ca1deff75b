// Metric points: from the bytes of an ExportMetricsServiceRequest to rows of the five metric tables, in one pass. An
// absent sum, minimum or maximum is NaN, not 0: nobody measured a 0.
//
// A metric holds one kind of points. Its name, unit and description may come after them, so a metric is looked over first
// and its points are walked after, as resources are.
import {
  type ArrayColumn,
  appendEnd,
  appendIndex,
  type Block,
  type FixedColumn,
} from '@tallylight/storage/clickhouse/block.ts'
import {
  appendFloat64,
  appendUint8,
  appendUint16,
  appendUint32,
  appendUint64,
} from '@tallylight/storage/clickhouse/stream.ts'
import {
  exponentialHistogramTable,
  gaugeTable,
  histogramTable,
  summaryTable,
  sumTable,
} from '@tallylight/storage/clickhouse/tables.ts'
import type { LiftedPoint } from '../genai/record.ts'
import { isHealthMetric } from '../genai/speaks.ts'
import type { TenantId } from '../receive/request.ts'
import { appendMap, appendRepeatedMap, clearAttributes, judgeAttributes, readAttribute } from './attributes.ts'
import {
  clearRange,
  type Envelope,
  field,
  internRepeated,
  internService,
  openRange,
  type Range,
  type RepeatedText,
  readRange,
  requestOf,
  walkEnvelopes,
} from './envelope.ts'
import { appendPointFact, attributesOf, type Lifting, surroundingsOf, textAt, unixNano } from './lift.ts'
import {
  appendId,
  appendString,
  appendTime,
  chargeRow,
  internTenant,
  judgeTenant,
  judgeTime,
  quarantine,
  type RejectReason,
  reject,
  type Walk,
} from './walk.ts'
import {
  type Cursor,
  fieldBits,
  malformed,
  readDouble,
  readEnd,
  readFixed64,
  readSint32,
  readTag,
  readVarint32,
  readVarint64,
  skip,
} from './wire.ts'

type Metric = {
  readonly name: RepeatedText
  readonly description: Range
  readonly unit: Range
  /** The field that holds the points: 5 gauge, 7 sum, 9 histogram, 10 exponential histogram, 11 summary; 0 none. */
  kind: number
  readonly data: Range
  temporality: number
  isMonotonic: boolean
  /** Its points are lifted: they tell how servers are. */
  isOfHealth: boolean
}

/** The fields of the point at hand, whatever its kind. */
type Point = {
  startLow: number
  startHigh: number
  timeLow: number
  timeHigh: number
  value: number
  flags: number
  countLow: number
  countHigh: number
  sum: number
  min: number
  max: number
  scale: number
  zeroLow: number
  zeroHigh: number
  zeroThreshold: number
  positiveOffset: number
  negativeOffset: number
  exemplars: number
  /** Where repeated numbers are: packed ones as a range, single ones with the same tag rules. In order of arrival. */
  readonly counts: Numbers
  readonly bounds: Numbers
  readonly positive: Numbers
  readonly negative: Numbers
  readonly quantiles: number[]
  readonly quantileValues: number[]
}

/** Numbers of 64 bits as pairs of halves. */
type Numbers = { halves: number[] }

const knownInMetric = fieldBits(1, 2, 3, 5, 7, 9, 10, 11, 12)
const knownInData = fieldBits(1, 2, 3)
const knownInNumber = fieldBits(2, 3, 4, 5, 6, 7, 8)
const knownInHistogram = fieldBits(2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12)
const knownInExponential = fieldBits(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14)
const knownInSummary = fieldBits(2, 3, 4, 5, 6, 7, 8)
const knownInBuckets = fieldBits(1, 2)
const knownInQuantile = fieldBits(1, 2)
const knownInExemplar = fieldBits(2, 3, 4, 5, 6, 7)

const metricTables = {
  5: gaugeTable,
  7: sumTable,
  9: histogramTable,
  10: exponentialHistogramTable,
  11: summaryTable,
} as const
type MetricKind = keyof typeof metricTables

export function walkMetrics(walk: Walk): void {
  const metric: Metric = {
    name: { start: 0, end: 0, column: undefined, entry: 0 },
    description: openRange(),
    unit: openRange(),
    kind: 0,
    data: openRange(),
    temporality: 0,
    isMonotonic: false,
    isOfHealth: false,
  }
  const point = openPoint()
  walkEnvelopes(walk, (envelope, end) => {
    readMetric(walk, metric, point, end)
    if (metric.kind === 0) return
    const { name } = metric
    metric.isOfHealth =
      (metric.kind === 5 || metric.kind === 7) && isHealthMetric(walk.cursor.bytes, name.start, name.end)
    readData(walk, metric)
    walk.cursor.at = metric.data.start
    while (walk.cursor.at < metric.data.end) {
      const tag = readTag(walk.cursor, metric.data.end)
      if (tag !== 0x0a) {
        skip(walk.cursor, tag, metric.data.end, '', 0)
        continue
      }
      const pointEnd = readEnd(walk.cursor, metric.data.end)
      walkPoint(walk, envelope, metric, point, pointEnd)
      walk.cursor.at = pointEnd
    }
  })
}

function openPoint(): Point {
  const numbers = (): Numbers => ({ halves: [] })
  return {
    startLow: 0,
    startHigh: 0,
    timeLow: 0,
    timeHigh: 0,
    value: 0,
    flags: 0,
    countLow: 0,
    countHigh: 0,
    sum: Number.NaN,
    min: Number.NaN,
    max: Number.NaN,
    scale: 0,
    zeroLow: 0,
    zeroHigh: 0,
    zeroThreshold: 0,
    positiveOffset: 0,
    negativeOffset: 0,
    exemplars: 0,
    counts: numbers(),
    bounds: numbers(),
    positive: numbers(),
    negative: numbers(),
    quantiles: [],
    quantileValues: [],
  }
}

function clearPoint(point: Point): void {
  point.startLow = 0
  point.startHigh = 0
  point.timeLow = 0
  point.timeHigh = 0
  point.value = 0
  point.flags = 0
  point.countLow = 0
  point.countHigh = 0
  point.sum = Number.NaN
  point.min = Number.NaN
  point.max = Number.NaN
  point.scale = 0
  point.zeroLow = 0
  point.zeroHigh = 0
  point.zeroThreshold = 0
  point.positiveOffset = 0
  point.negativeOffset = 0
  point.exemplars = 0
  point.counts.halves.length = 0
  point.bounds.halves.length = 0
  point.positive.halves.length = 0
  point.negative.halves.length = 0
  point.quantiles.length = 0
  point.quantileValues.length = 0
}

function readMetric(walk: Walk, metric: Metric, point: Point, end: number): void {
  const { cursor } = walk
  clearRange(metric.name)
  metric.name.column = undefined
  clearRange(metric.description)
  clearRange(metric.unit)
  clearRange(metric.data)
  metric.kind = 0
  while (cursor.at < end) {
    const tag = readTag(cursor, end)
    switch (tag) {
      case 0x0a:
        readRange(walk, end, metric.name)
        break
      case 0x12:
        readRange(walk, end, metric.description)
        break
      case 0x1a:
        readRange(walk, end, metric.unit)
        break
      case 0x2a:
      case 0x3a:
      case 0x4a:
      case 0x52:
      case 0x5a:
        checkReplaced(walk, metric, point)
        metric.kind = tag >>> 3
        readRange(walk, end, metric.data)
        break
      case 0x62:
        // No table has a place for a metric's metadata; it must decode all the same.
        readAttribute(walk, end, walk.scratch.part)
        clearAttributes(walk.scratch.part)
        break
      default:
        skip(cursor, tag, end, 'Metric', knownInMetric)
    }
  }
}

/** Reads data that a later field of the metric replaces, for nothing but that it decodes. */
function checkReplaced(walk: Walk, metric: Metric, point: Point): void {
  if (metric.kind === 0) return
  const { cursor } = walk
  const here = cursor.at
  readData(walk, metric)
  cursor.at = metric.data.start
  while (cursor.at < metric.data.end) {
    const tag = readTag(cursor, metric.data.end)
    if (tag !== 0x0a) {
      skip(cursor, tag, metric.data.end, '', 0)
      continue
    }
    clearPoint(point)
    clearAttributes(walk.scratch.record)
    readPoint(walk, metric.kind, point, readEnd(cursor, metric.data.end))
  }
  cursor.at = here
}

/** Reads what all points of a metric share; their tags are checked here, their insides later. */
function readData(walk: Walk, metric: Metric): void {
  const { cursor } = walk
  const { start, end } = metric.data
  metric.temporality = 0
  metric.isMonotonic = false
  const hasTemporality = metric.kind === 7 || metric.kind === 9 || metric.kind === 10
  const known = hasTemporality ? knownInData : fieldBits(1)
  cursor.at = start
  while (cursor.at < end) {
    const tag = readTag(cursor, end)
    if (tag === 0x0a) cursor.at = readEnd(cursor, end)
    else if (hasTemporality && tag === 0x10) metric.temporality = readVarint32(cursor, end) | 0
    else if (metric.kind === 7 && tag === 0x18) metric.isMonotonic = readVarint32(cursor, end) !== 0
    else skip(cursor, tag, end, 'the data of a metric', metric.kind === 7 ? known : known & ~(1 << 3))
  }
}

function walkPoint(walk: Walk, envelope: Envelope, metric: Metric, point: Point, end: number): void {
  const start = walk.cursor.at
  walk.tally.records++
  clearPoint(point)
  clearAttributes(walk.scratch.record)
  readPoint(walk, metric.kind, point, end)
  const refusal = judgePoint(walk, envelope)
  if (refusal !== null) {
    reject(walk, refusal)
    return
  }
  if (point.timeLow === 0 && point.timeHigh === 0) {
    walk.tally.timesReplaced++
    walk.scratch.record.timeMark = 'received'
    point.timeLow = walk.receivedLow
    point.timeHigh = walk.receivedHigh
  }
  const verdict = judgeTime(walk, point.timeLow, point.timeHigh)
  if (verdict === 'too_old') {
    reject(walk, 'too_old')
  } else if (verdict === 'future') {
    const record = requestOf(walk, envelope, metricOf(walk, metric, walk.cursor.bytes.subarray(start, end)))
    quarantine(walk, 'future_time', 'the point is of more than 24 h after it was received', record)
  } else {
    chargeRow(
      walk,
      end - start + envelope.resource.end - envelope.resource.start + metric.description.end - metric.description.start,
    )
    appendPoint(walk, envelope, metric, point, start, end)
    if (metric.isOfHealth && walk.lifting !== undefined) liftPoint(walk, walk.lifting, envelope, metric, point)
  }
}

function liftPoint(walk: Walk, lifting: Lifting, envelope: Envelope, metric: Metric, point: Point): void {
  // Marked as without a value: the prober is gone.
  if ((point.flags & 1) !== 0 || Number.isNaN(point.value)) return
  const lifted: LiftedPoint = {
    tenantId: walk.tenantNow as TenantId,
    metricName: textAt(walk, metric.name),
    timeUnixNano: unixNano(point.timeLow, point.timeHigh),
    value: point.value,
    attributes: attributesOf(walk, walk.scratch.record),
    resource: surroundingsOf(walk, envelope).resource,
  }
  appendPointFact(walk, lifting, lifted, point.timeLow, point.timeHigh)
}

function judgePoint(walk: Walk, envelope: Envelope): RejectReason | null {
  if (envelope.refusal !== null) return envelope.refusal
  if (!judgeTenant(walk, walk.scratch.record)) return 'invalid_tenant'
  return judgeAttributes(walk.scratch.record)
}

/** A metric that holds one point alone. */
function metricOf(walk: Walk, metric: Metric, point: Buffer): Buffer {
  const { bytes } = walk.cursor
  const slice = (range: Range): Buffer => bytes.subarray(range.start, range.end)
  const shared: Buffer[] = [field(1, point)]
  if (metric.temporality !== 0) shared.push(Buffer.from([0x10, metric.temporality & 0x7f]))
  if (metric.isMonotonic) shared.push(Buffer.from([0x18, 1]))
  return Buffer.concat([
    field(1, slice(metric.name)),
    field(2, slice(metric.description)),
    field(3, slice(metric.unit)),
    field(metric.kind, Buffer.concat(shared)),
  ])
}

function readPoint(walk: Walk, kind: number, point: Point, end: number): void {
  switch (kind as MetricKind) {
    case 5:
    case 7:
      readNumberPoint(walk, point, end)
      break
    case 9:
      readHistogramPoint(walk, point, end)
      break
    case 10:
      readExponentialPoint(walk, point, end)
      break
    case 11:
      readSummaryPoint(walk, point, end)
      break
  }
}

/** Fields 2 (start) and 3 (time) are the same in every kind of point. */
function readTimes(cursor: Cursor, tag: number, end: number, point: Point): boolean {
  if (tag !== 0x11 && tag !== 0x19) return false
  readFixed64(cursor, end)
  if (tag === 0x11) {
    point.startLow = cursor.low
    point.startHigh = cursor.high
  } else {
    point.timeLow = cursor.low
    point.timeHigh = cursor.high
  }
  return true
}

function readNumberPoint(walk: Walk, point: Point, end: number): void {
  const { cursor, scratch } = walk
  while (cursor.at < end) {
    const tag = readTag(cursor, end)
    if (readTimes(cursor, tag, end, point)) continue
    if (tag === 0x21) point.value = readDouble(cursor, end)
    else if (tag === 0x31) point.value = readSignedFixed64(cursor, end)
    else if (tag === 0x3a) readAttribute(walk, end, scratch.record)
    else if (tag === 0x2a) checkExemplar(walk, point, end)
    else if (tag === 0x40) point.flags = readVarint32(cursor, end)
    else skip(cursor, tag, end, 'NumberDataPoint', knownInNumber)
  }
}

function readSignedFixed64(cursor: Cursor, end: number): number {
  readFixed64(cursor, end)
  return (cursor.high | 0) * 0x1_0000_0000 + cursor.low
}

function readCount(cursor: Cursor, end: number, point: Point): void {
  readFixed64(cursor, end)
  point.countLow = cursor.low
  point.countHigh = cursor.high
}

function readHistogramPoint(walk: Walk, point: Point, end: number): void {
  const { cursor, scratch } = walk
  while (cursor.at < end) {
    const tag = readTag(cursor, end)
    if (readTimes(cursor, tag, end, point)) continue
    if (tag === 0x21) readCount(cursor, end, point)
    else if (tag === 0x29) point.sum = readDouble(cursor, end)
    else if (tag === 0x32 || tag === 0x31) readFixed64s(cursor, tag, end, point.counts)
    else if (tag === 0x3a || tag === 0x39) readFixed64s(cursor, tag, end, point.bounds)
    else if (tag === 0x42) checkExemplar(walk, point, end)
    else if (tag === 0x4a) readAttribute(walk, end, scratch.record)
    else if (tag === 0x50) point.flags = readVarint32(cursor, end)
    else if (tag === 0x59) point.min = readDouble(cursor, end)
    else if (tag === 0x61) point.max = readDouble(cursor, end)
    else skip(cursor, tag, end, 'HistogramDataPoint', knownInHistogram)
  }
}

function readExponentialPoint(walk: Walk, point: Point, end: number): void {
  const { cursor, scratch } = walk
  while (cursor.at < end) {
    const tag = readTag(cursor, end)
    if (readTimes(cursor, tag, end, point)) continue
    if (tag === 0x0a) readAttribute(walk, end, scratch.record)
    else if (tag === 0x21) readCount(cursor, end, point)
    else if (tag === 0x29) point.sum = readDouble(cursor, end)
    else if (tag === 0x30) point.scale = readSint32(cursor, end)
    else if (tag === 0x39) {
      readFixed64(cursor, end)
      point.zeroLow = cursor.low
      point.zeroHigh = cursor.high
    } else if (tag === 0x42) point.positiveOffset = readBuckets(cursor, end, point.positive)
    else if (tag === 0x4a) point.negativeOffset = readBuckets(cursor, end, point.negative)
    else if (tag === 0x50) point.flags = readVarint32(cursor, end)
    else if (tag === 0x5a) checkExemplar(walk, point, end)
    else if (tag === 0x61) point.min = readDouble(cursor, end)
    else if (tag === 0x69) point.max = readDouble(cursor, end)
    else if (tag === 0x71) point.zeroThreshold = readDouble(cursor, end)
    else skip(cursor, tag, end, 'ExponentialHistogramDataPoint', knownInExponential)
  }
}

function readSummaryPoint(walk: Walk, point: Point, end: number): void {
  const { cursor, scratch } = walk
  point.sum = 0
  while (cursor.at < end) {
    const tag = readTag(cursor, end)
    if (readTimes(cursor, tag, end, point)) continue
    if (tag === 0x21) readCount(cursor, end, point)
    else if (tag === 0x29) point.sum = readDouble(cursor, end)
    else if (tag === 0x32) readQuantile(cursor, end, point)
    else if (tag === 0x3a) readAttribute(walk, end, scratch.record)
    else if (tag === 0x40) point.flags = readVarint32(cursor, end)
    else skip(cursor, tag, end, 'SummaryDataPoint', knownInSummary)
  }
}

function readQuantile(cursor: Cursor, end: number, point: Point): void {
  const quantileEnd = readEnd(cursor, end)
  let quantile = 0
  let value = 0
  while (cursor.at < quantileEnd) {
    const tag = readTag(cursor, quantileEnd)
    if (tag === 0x09) quantile = readDouble(cursor, quantileEnd)
    else if (tag === 0x11) value = readDouble(cursor, quantileEnd)
    else skip(cursor, tag, quantileEnd, 'ValueAtQuantile', knownInQuantile)
  }
  point.quantiles.push(quantile)
  point.quantileValues.push(value)
}

/** Repeated numbers of 8 bytes, packed (wire type 2) or one at a time (1): a reader must take both. */
function readFixed64s(cursor: Cursor, tag: number, end: number, numbers: Numbers): void {
  const packedEnd = (tag & 7) === 2 ? readEnd(cursor, end) : cursor.at + 8
  if ((packedEnd - cursor.at) % 8 !== 0) throw malformed(cursor, 'packed 64-bit numbers are not a multiple of 8 bytes')
  while (cursor.at < packedEnd) {
    readFixed64(cursor, end)
    numbers.halves.push(cursor.low, cursor.high)
  }
}

function readBuckets(cursor: Cursor, end: number, numbers: Numbers): number {
  const bucketsEnd = readEnd(cursor, end)
  let offset = 0
  numbers.halves.length = 0
  while (cursor.at < bucketsEnd) {
    const tag = readTag(cursor, bucketsEnd)
    if (tag === 0x08) offset = readSint32(cursor, bucketsEnd)
    else if (tag === 0x12 || tag === 0x10) {
      const packedEnd = tag === 0x12 ? readEnd(cursor, bucketsEnd) : cursor.at + 1
      do {
        if (cursor.at >= packedEnd) break
        readVarint64(cursor, bucketsEnd)
        numbers.halves.push(cursor.low, cursor.high)
      } while (cursor.at < packedEnd)
      if (tag === 0x12 && cursor.at !== packedEnd) throw malformed(cursor, 'a packed varint runs past its field')
    } else skip(cursor, tag, bucketsEnd, 'Buckets', knownInBuckets)
  }
  return offset
}

/** Reads an exemplar once before anything is written: its attributes decide with its point's whether they are stored. */
function checkExemplar(walk: Walk, point: Point, end: number): void {
  const { cursor, scratch } = walk
  const exemplarEnd = readEnd(cursor, end)
  point.exemplars++
  clearAttributes(scratch.part)
  while (cursor.at < exemplarEnd) {
    const tag = readTag(cursor, exemplarEnd)
    if (tag === 0x3a) readAttribute(walk, exemplarEnd, scratch.part)
    else {
      const isOwn = tag === 0x11 || tag === 0x19 || tag === 0x22 || tag === 0x2a || tag === 0x31
      skip(cursor, tag, exemplarEnd, 'Exemplar', isOwn ? 0 : knownInExemplar)
    }
  }
  if (scratch.part.isTooDeep) scratch.record.isTooDeep = true
  if (scratch.part.isTooLong) scratch.record.isTooLong = true
}

type GaugeColumns = Block<typeof gaugeTable>['columns']
/** What the blocks of all five tables have. */
type AnyPointBlock = {
  readonly columns: Omit<GaugeColumns, 'Value' | 'Flags' | 'Segment' | keyof ExemplarColumns>
  rows: number
}
type ExemplarColumns = Pick<
  GaugeColumns,
  'Exemplars.FilteredAttributes' | 'Exemplars.TimeUnix' | 'Exemplars.Value' | 'Exemplars.SpanId' | 'Exemplars.TraceId'
>

function appendPoint(walk: Walk, envelope: Envelope, metric: Metric, point: Point, start: number, end: number): void {
  const kind = metric.kind as MetricKind
  switch (kind) {
    case 5: {
      const block = walk.openBlock(gaugeTable, walk.day)
      appendHead(walk, envelope, metric, point, block)
      appendFloat64(block.columns.Value.data, point.value)
      appendUint32(block.columns.Flags.data, point.flags)
      appendExemplars(walk, block.columns, kind, point, start, end)
      break
    }
    case 7: {
      const block = walk.openBlock(sumTable, walk.day)
      const { columns } = block
      appendHead(walk, envelope, metric, point, block)
      appendFloat64(columns.Value.data, point.value)
      appendUint32(columns.Flags.data, point.flags)
      appendExemplars(walk, columns, kind, point, start, end)
      appendUint32(columns.AggregationTemporality.data, metric.temporality)
      appendUint8(columns.IsMonotonic.data, metric.isMonotonic ? 1 : 0)
      break
    }
    case 9: {
      const block = walk.openBlock(histogramTable, walk.day)
      const { columns } = block
      appendHead(walk, envelope, metric, point, block)
      appendNumbers(columns.BucketCounts, point.counts)
      appendNumbers(columns.ExplicitBounds, point.bounds)
      appendDistribution(columns, point, metric)
      appendExemplars(walk, columns, kind, point, start, end)
      break
    }
    case 10: {
      const block = walk.openBlock(exponentialHistogramTable, walk.day)
      const { columns } = block
      appendHead(walk, envelope, metric, point, block)
      appendUint32(columns.Scale.data, point.scale)
      appendUint64(columns.ZeroCount.data, point.zeroLow, point.zeroHigh)
      appendFloat64(columns.ZeroThreshold.data, point.zeroThreshold)
      appendUint32(columns.PositiveOffset.data, point.positiveOffset)
      appendNumbers(columns.PositiveBucketCounts, point.positive)
      appendUint32(columns.NegativeOffset.data, point.negativeOffset)
      appendNumbers(columns.NegativeBucketCounts, point.negative)
      appendDistribution(columns, point, metric)
      appendExemplars(walk, columns, kind, point, start, end)
      break
    }
    case 11: {
      const block = walk.openBlock(summaryTable, walk.day)
      const { columns } = block
      appendHead(walk, envelope, metric, point, block)
      appendUint64(columns.Count.data, point.countLow, point.countHigh)
      appendFloat64(columns.Sum.data, point.sum)
      for (const quantile of point.quantiles) appendFloat64(columns['ValueAtQuantiles.Quantile'].of.data, quantile)
      for (const value of point.quantileValues) appendFloat64(columns['ValueAtQuantiles.Value'].of.data, value)
      appendEnd(columns['ValueAtQuantiles.Quantile'].ends, point.quantiles.length)
      appendUint32(columns.Flags.data, point.flags)
      break
    }
    default:
      kind satisfies never
  }
}

function appendHead(walk: Walk, envelope: Envelope, metric: Metric, point: Point, block: AnyPointBlock): void {
  const { columns } = block
  appendIndex(columns.TenantId, internTenant(walk, columns.TenantId))
  appendUint16(columns.RetentionDays.data, walk.retentionDaysNow)
  appendRepeatedMap(walk, columns.ResourceAttributes, envelope.resourceAttributes)
  appendString(walk, columns.ResourceSchemaUrl, envelope.resourceSchema.start, envelope.resourceSchema.end)
  appendString(walk, columns.ScopeName, envelope.scopeName.start, envelope.scopeName.end)
  appendString(walk, columns.ScopeVersion, envelope.scopeVersion.start, envelope.scopeVersion.end)
  appendRepeatedMap(walk, columns.ScopeAttributes, envelope.scopeAttributes)
  appendUint32(columns.ScopeDroppedAttrCount.data, envelope.scopeDroppedAttributes)
  appendString(walk, columns.ScopeSchemaUrl, envelope.scopeSchema.start, envelope.scopeSchema.end)
  appendIndex(columns.ServiceName, internService(walk, columns.ServiceName, envelope))
  appendIndex(columns.MetricName, internRepeated(walk, columns.MetricName, metric.name))
  appendString(walk, columns.MetricDescription, metric.description.start, metric.description.end)
  appendString(walk, columns.MetricUnit, metric.unit.start, metric.unit.end)
  appendMap(walk, columns.Attributes, walk.scratch.record)
  appendTime(walk, columns.StartTimeUnix.data, point.startLow, point.startHigh)
  appendUint64(columns.TimeUnix.data, point.timeLow, point.timeHigh)
  block.rows++
}

type DistributionColumns = Pick<
  Block<typeof histogramTable>['columns'],
  'Count' | 'Sum' | 'Flags' | 'Min' | 'Max' | 'AggregationTemporality'
>

function appendDistribution(columns: DistributionColumns, point: Point, metric: Metric): void {
  appendUint64(columns.Count.data, point.countLow, point.countHigh)
  appendFloat64(columns.Sum.data, point.sum)
  appendUint32(columns.Flags.data, point.flags)
  appendFloat64(columns.Min.data, point.min)
  appendFloat64(columns.Max.data, point.max)
  appendUint32(columns.AggregationTemporality.data, metric.temporality)
}

function appendNumbers(column: ArrayColumn<FixedColumn>, numbers: Numbers): void {
  const { halves } = numbers
  for (let at = 0; at < halves.length; at += 2) {
    appendUint64(column.of.data, halves[at] as number, halves[at + 1] as number)
  }
  appendEnd(column.ends, halves.length / 2)
}

const exemplarTags: Readonly<Record<5 | 7 | 9 | 10, number>> = { 5: 0x2a, 7: 0x2a, 9: 0x42, 10: 0x5a }

function appendExemplars(
  walk: Walk,
  columns: ExemplarColumns,
  kind: 5 | 7 | 9 | 10,
  point: Point,
  start: number,
  end: number,
): void {
  if (point.exemplars > 0) {
    const { cursor } = walk
    cursor.at = start
    while (cursor.at < end) {
      const tag = readTag(cursor, end)
      if (tag === exemplarTags[kind]) appendExemplar(walk, columns, readEnd(cursor, end))
      else skip(cursor, tag, end, '', 0)
    }
  }
  appendEnd(columns['Exemplars.TimeUnix'].ends, point.exemplars)
}

function appendExemplar(walk: Walk, columns: ExemplarColumns, end: number): void {
  const { cursor, scratch } = walk
  clearAttributes(scratch.part)
  const traceId = openRange()
  const spanId = openRange()
  let timeLow = 0
  let timeHigh = 0
  let value = 0
  while (cursor.at < end) {
    const tag = readTag(cursor, end)
    if (tag === 0x11) {
      readFixed64(cursor, end)
      timeLow = cursor.low
      timeHigh = cursor.high
    } else if (tag === 0x19) value = readDouble(cursor, end)
    else if (tag === 0x31) value = readSignedFixed64(cursor, end)
    else if (tag === 0x22) readRange(walk, end, spanId)
    else if (tag === 0x2a) readRange(walk, end, traceId)
    else if (tag === 0x3a) readAttribute(walk, end, scratch.part)
    else skip(cursor, tag, end, 'Exemplar', 0)
  }
  appendMap(walk, columns['Exemplars.FilteredAttributes'].of, scratch.part)
  appendTime(walk, columns['Exemplars.TimeUnix'].of.data, timeLow, timeHigh)
  appendFloat64(columns['Exemplars.Value'].of.data, value)
  appendId(columns['Exemplars.SpanId'].of, cursor.bytes, spanId.start, spanId.end)
  appendId(columns['Exemplars.TraceId'].of, cursor.bytes, traceId.start, traceId.end)
}
