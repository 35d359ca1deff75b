// Metric points: from the bytes of an ExportMetricsServiceRequest to rows of the five metric tables, in one pass.
//
// A metric holds one kind of points. Its name, unit and description may come after them, so a metric is looked over first
// and its points are walked after, as resources are.
import type { LiftedPoint } from '../genai/record.ts'
import { isHealthMetric } from '../genai/speaks.ts'
import type { TenantId } from '../receive/request.ts'
import { clearAttributes, judgeAttributes, readAttribute } from './attributes.ts'
import {
  clearRange,
  type Envelope,
  field,
  openRange,
  type Range,
  readRange,
  requestOf,
  walkEnvelopes,
} from './envelope.ts'
import { appendPointFact, attributesOf, type Lifting, surroundingsOf, textAt, unixNano } from './lift.ts'
import { clearPoint, openPoint, type Point, readPoint } from './metric-point.ts'
import { appendPoint, type Metric } from './metric-rows.ts'
import { chargeRow, judgeTenant, judgeTime, quarantine, type RejectReason, reject, type Walk } from './walk.ts'
import { fieldBits, readEnd, readTag, readVarint32, skip } from './wire.ts'

const knownInMetric = fieldBits(1, 2, 3, 5, 7, 9, 10, 11, 12)
const knownInData = fieldBits(1, 2, 3)

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
