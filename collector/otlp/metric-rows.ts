// The rows of metric points in the five tables. What all five have is written first, then what is of the kind.
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
import { appendMap, appendRepeatedMap, clearAttributes, readAttribute } from './attributes.ts'
import {
  type Envelope,
  internRepeated,
  internService,
  openRange,
  type Range,
  type RepeatedText,
  readRange,
} from './envelope.ts'
import { type MetricKind, type Numbers, type Point, readSignedFixed64 } from './metric-point.ts'
import { appendId, appendString, appendTime, internTenant, type Walk } from './walk.ts'
import { readDouble, readEnd, readFixed64, readTag, skip } from './wire.ts'

export type Metric = {
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

export function appendPoint(
  walk: Walk,
  envelope: Envelope,
  metric: Metric,
  point: Point,
  start: number,
  end: number,
): void {
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
