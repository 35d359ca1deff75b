// The fields of a metric point, whatever its kind, in one object that is cleared for each. An absent sum, minimum or maximum is
// NaN, not 0: nobody measured a 0.
import { clearAttributes, readAttribute } from './attributes.ts'
import { chargePart, chargeRow, type Walk } from './walk.ts'
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

/** By the field of a metric that holds the points: gauge, sum, histogram, exponential histogram, summary. */
export type MetricKind = 5 | 7 | 9 | 10 | 11

/** The fields of the point at hand, whatever its kind. */
export type Point = {
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
export type Numbers = { halves: number[] }

const knownInNumber = fieldBits(2, 3, 4, 5, 6, 7, 8)
const knownInHistogram = fieldBits(2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12)
const knownInExponential = fieldBits(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14)
const knownInSummary = fieldBits(2, 3, 4, 5, 6, 7, 8)
const knownInBuckets = fieldBits(1, 2)
const knownInQuantile = fieldBits(1, 2)
const knownInExemplar = fieldBits(2, 3, 4, 5, 6, 7)

export function openPoint(): Point {
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

export function clearPoint(point: Point): void {
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

export function readPoint(walk: Walk, kind: number, point: Point, end: number): void {
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

export function readSignedFixed64(cursor: Cursor, end: number): number {
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
    } else if (tag === 0x42) point.positiveOffset = readBuckets(walk, end, point.positive)
    else if (tag === 0x4a) point.negativeOffset = readBuckets(walk, end, point.negative)
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
    else if (tag === 0x32) readQuantile(walk, end, point)
    else if (tag === 0x3a) readAttribute(walk, end, scratch.record)
    else if (tag === 0x40) point.flags = readVarint32(cursor, end)
    else skip(cursor, tag, end, 'SummaryDataPoint', knownInSummary)
  }
}

function readQuantile(walk: Walk, end: number, point: Point): void {
  const { cursor } = walk
  chargePart(walk)
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

/** What a count of a bucket takes while it is read, which came in a byte or more. */
const bucketBytes = 16

function readBuckets(walk: Walk, end: number, numbers: Numbers): number {
  const { cursor } = walk
  const bucketsEnd = readEnd(cursor, end)
  let offset = 0
  numbers.halves.length = 0
  while (cursor.at < bucketsEnd) {
    const tag = readTag(cursor, bucketsEnd)
    if (tag === 0x08) offset = readSint32(cursor, bucketsEnd)
    else if (tag === 0x12 || tag === 0x10) {
      const packedEnd = tag === 0x12 ? readEnd(cursor, bucketsEnd) : cursor.at + 1
      chargeRow(walk, (packedEnd - cursor.at) * bucketBytes)
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
  chargePart(walk)
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
