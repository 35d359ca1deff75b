// Attributes: read as places in the request's bytes, written as rows of a Map column with the keys in order.
//
// Sorting is what upstream does too: the same attributes in another order must be the same row, or they compress badly.
// A service sends the same few key sequences again and again, so the order of a sequence is worked out once and kept.
import { appendEnd, appendIndex, type MapColumn } from '@tallylight/storage/clickhouse/block.ts'
import { compareEntries, type Dictionary, intern } from '@tallylight/storage/clickhouse/dictionary.ts'
import { appendAgain, appendText, viewOf } from '@tallylight/storage/clickhouse/stream.ts'
import { appendValue, isShallow, placeValue, repaired, type ValuePlace, valueEmpty, valueLiteral } from './any-value.ts'
import type { Walk } from './walk.ts'
import { fieldBits, readEnd, readTag, skip } from './wire.ts'

/** More attributes on one record than this are no telemetry; the record is rejected and the rest of its request stored. */
export const attributesMax = 32_768

const tenantKey = Buffer.from('tallylight.tenant.id')
const serviceKey = Buffer.from('service.name')
const timeKey = Buffer.from('tallylight.time')
const timeKeyView = viewOf(timeKey)

/** Says on the row where a time came from that the sender did not give. */
export type TimeMark = 'observed' | 'received'
const timeMarks: Readonly<Record<TimeMark, Buffer>> = {
  observed: Buffer.from('observed'),
  received: Buffer.from('received'),
}

export type AttributeList = {
  count: number
  isTooDeep: boolean
  isTooLong: boolean
  keyStarts: Int32Array
  keyEnds: Int32Array
  kinds: Uint8Array
  valueStarts: Int32Array
  valueEnds: Int32Array
  entries: Int32Array
  /** Where `service.name` and `tallylight.tenant.id` are, or -1. Looked for only in resources and where asked. */
  serviceAt: number
  tenantAt: number
  timeMark: TimeMark | undefined
  readonly place: ValuePlace
}

export function openAttributeList(): AttributeList {
  const size = 64
  return {
    count: 0,
    isTooDeep: false,
    isTooLong: false,
    keyStarts: new Int32Array(size),
    keyEnds: new Int32Array(size),
    kinds: new Uint8Array(size),
    valueStarts: new Int32Array(size),
    valueEnds: new Int32Array(size),
    entries: new Int32Array(size),
    serviceAt: -1,
    tenantAt: -1,
    timeMark: undefined,
    place: { kind: 0, start: 0, end: 0 },
  }
}

export function clearAttributes(list: AttributeList): void {
  list.count = 0
  list.isTooDeep = false
  list.isTooLong = false
  list.serviceAt = -1
  list.tenantAt = -1
  list.timeMark = undefined
}

const knownInPair = fieldBits(1, 2)

/** Reads one KeyValue, whose length comes next. */
export function readAttribute(walk: Walk, end: number, list: AttributeList): void {
  const { cursor } = walk
  const pairEnd = readEnd(cursor, end)
  const { place } = list
  place.kind = valueEmpty
  place.start = cursor.at
  place.end = cursor.at
  let keyStart = cursor.at
  let keyEnd = cursor.at
  while (cursor.at < pairEnd) {
    const tag = readTag(cursor, pairEnd)
    if (tag === 0x0a) {
      keyEnd = readEnd(cursor, pairEnd)
      keyStart = cursor.at
      cursor.at = keyEnd
    } else if (tag === 0x12) {
      const valueEnd = readEnd(cursor, pairEnd)
      placeValue(cursor, valueEnd, place)
    } else {
      skip(cursor, tag, pairEnd, 'KeyValue', knownInPair)
    }
  }
  if (list.count >= attributesMax) {
    list.isTooLong = true
    return
  }
  if (!isShallow(cursor, place.kind, place.start, place.end)) list.isTooDeep = true
  const at = list.count++
  if (at === list.kinds.length) widen(list)
  list.keyStarts[at] = keyStart
  list.keyEnds[at] = keyEnd
  list.kinds[at] = place.kind
  list.valueStarts[at] = place.start
  list.valueEnds[at] = place.end
  const keySize = keyEnd - keyStart
  if (list.serviceAt < 0 && keySize === serviceKey.length && isKey(cursor.bytes, keyStart, keyEnd, serviceKey)) {
    list.serviceAt = at
  } else if (walk.manyTenants && keySize === tenantKey.length && isKey(cursor.bytes, keyStart, keyEnd, tenantKey)) {
    list.tenantAt = at
  }
}

function isKey(bytes: Buffer, start: number, end: number, key: Buffer): boolean {
  return bytes[start] === key[0] && key.compare(bytes, start, end) === 0
}

function widen(list: AttributeList): void {
  const wide = (old: Int32Array): Int32Array => {
    const wider = new Int32Array(old.length * 2)
    wider.set(old)
    return wider
  }
  const kinds = new Uint8Array(list.kinds.length * 2)
  kinds.set(list.kinds)
  list.kinds = kinds
  list.keyStarts = wide(list.keyStarts)
  list.keyEnds = wide(list.keyEnds)
  list.valueStarts = wide(list.valueStarts)
  list.valueEnds = wide(list.valueEnds)
  list.entries = wide(list.entries)
}

/** Key sequences that were seen, by a hash of their entries, and the order that sorts them. */
export type Shapes = Map<number, Shape>
type Shape = {
  readonly dictionary: Dictionary
  readonly generation: number
  readonly entries: Int32Array
  /** undefined when the sequence is in order as it is. */
  readonly order: Uint16Array | undefined
}
const shapesMax = 4096

/** Appends the list as one row of a Map column. */
export function appendMap(walk: Walk, column: MapColumn, list: AttributeList): void {
  const { cursor, scratch } = walk
  const { dictionary } = column.keys
  const { entries } = list
  if (list.timeMark !== undefined) addTimeMark(list)
  const count = list.count
  let hash = count
  for (let at = 0; at < count; at++) {
    const entry = internKey(walk, dictionary, list, at)
    entries[at] = entry
    hash = (Math.imul(hash, 31) + entry) | 0
  }
  const order = count < 2 ? undefined : orderOf(scratch.shapes, dictionary, entries, count, hash)
  for (let place = 0; place < count; place++) {
    const at = order === undefined ? place : (order[place] as number)
    appendIndex(column.keys, entries[at] as number)
    const kind = list.kinds[at] as number
    if (kind === valueLiteral) {
      appendText(column.values.data, timeMarks[list.timeMark as TimeMark])
    } else {
      const start = list.valueStarts[at] as number
      const end = list.valueEnds[at] as number
      walk.tally.repairedStrings += appendValue(column.values.data, cursor, kind, start, end)
    }
  }
  appendEnd(column.ends, count)
}

function addTimeMark(list: AttributeList): void {
  if (list.count > 0 && list.kinds[list.count - 1] === valueLiteral) return
  const at = list.count++
  if (at === list.kinds.length) widen(list)
  list.kinds[at] = valueLiteral
}

function internKey(walk: Walk, dictionary: Dictionary, list: AttributeList, at: number): number {
  if (list.kinds[at] === valueLiteral) return intern(dictionary, timeKey, timeKeyView, 0, timeKey.length)
  const { bytes, view } = walk.cursor
  const start = list.keyStarts[at] as number
  const end = list.keyEnds[at] as number
  const entry = intern(dictionary, bytes, view, start, end)
  if (entry >= 0) return entry
  walk.tally.repairedStrings++
  const text = repaired(bytes, start, end)
  return intern(dictionary, text, viewOf(text), 0, text.length)
}

function orderOf(
  shapes: Shapes,
  dictionary: Dictionary,
  entries: Int32Array,
  count: number,
  hash: number,
): Uint16Array | undefined {
  const known = shapes.get(hash)
  if (
    known !== undefined &&
    known.dictionary === dictionary &&
    known.generation === dictionary.generation &&
    isSameSequence(known.entries, entries, count)
  ) {
    return known.order
  }
  const order = Uint16Array.from({ length: count }, (_, at) => at).sort(
    // Equal keys keep the order in which they were sent.
    (a, b) => compareEntries(dictionary, entries[a] as number, entries[b] as number) || a - b,
  )
  const isSorted = order.every((at, place) => at === place)
  if (shapes.size >= shapesMax) shapes.clear()
  // Long lists are rare and their memory is not.
  if (count <= 256) {
    shapes.set(hash, {
      dictionary,
      generation: dictionary.generation,
      entries: entries.slice(0, count),
      order: isSorted ? undefined : order,
    })
  }
  return isSorted ? undefined : order
}

function isSameSequence(known: Int32Array, entries: Int32Array, count: number): boolean {
  if (known.length !== count) return false
  for (let at = 0; at < count; at++) if (known[at] !== entries[at]) return false
  return true
}

/** A map that many rows repeat: written once per block, then copied from there. */
export type RepeatedMap = {
  readonly list: AttributeList
  column: MapColumn | undefined
  keysStart: number
  keysEnd: number
  valuesStart: number
  valuesEnd: number
}

export function repeatMap(list: AttributeList): RepeatedMap {
  return { list, column: undefined, keysStart: 0, keysEnd: 0, valuesStart: 0, valuesEnd: 0 }
}

export function appendRepeatedMap(walk: Walk, column: MapColumn, repeated: RepeatedMap): void {
  if (repeated.column !== column) {
    repeated.column = column
    repeated.keysStart = column.keys.indexes.length
    repeated.valuesStart = column.values.data.length
    appendMap(walk, column, repeated.list)
    repeated.keysEnd = column.keys.indexes.length
    repeated.valuesEnd = column.values.data.length
    return
  }
  appendAgain(column.keys.indexes, repeated.keysStart, repeated.keysEnd)
  appendAgain(column.values.data, repeated.valuesStart, repeated.valuesEnd)
  appendEnd(column.ends, repeated.list.count)
}

/** Checks the attributes of an event, a link or an exemplar without keeping them. Null when they can be stored. */
export function judgeAttributes(list: AttributeList): 'too_deep' | 'too_many_attributes' | null {
  return list.isTooDeep ? 'too_deep' : list.isTooLong ? 'too_many_attributes' : null
}
