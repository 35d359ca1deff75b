// Attributes: read as places in the request's bytes, written as rows of a Map column with the keys in order.
//
// Sorting is what upstream does too: the same attributes in another order must be the same row, or they compress badly.
// A service sends the same few key sequences again and again, so the order of a sequence is worked out once and kept. Reading,
// judging and writing share the list of places and know each other's shortcuts, which is why they are one file.
import { appendEnd, type MapColumn } from '@tallylight/storage/clickhouse/block.ts'
import { compareEntries, type Dictionary, intern } from '@tallylight/storage/clickhouse/dictionary.ts'
import {
  appendAgain,
  appendStringOf,
  appendText,
  reserve,
  type Stream,
  viewOf,
} from '@tallylight/storage/clickhouse/stream.ts'
import { isSpeakingEvent, isSpeakingKey, isSpeakingValue, isValuedKey } from '../genai/speaks.ts'
import {
  appendValue,
  isShallow,
  placeValue,
  repaired,
  type ValuePlace,
  valueEmpty,
  valueInt,
  valueLiteral,
  valueString,
} from './any-value.ts'
import type { Walk } from './walk.ts'
import { fieldBits, readEnd, readTag, skip } from './wire.ts'

/** More attributes on one record than this are no telemetry; the record is rejected and the rest of its request stored. */
export const attributesMax = 32_768

const tenantKey = Buffer.from('tallylight.tenant.id')
const serviceKey = Buffer.from('service.name')
const eventNameKey = Buffer.from('event.name')
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
  /** Of the keys and their order: finds the shape without reading the keys twice. */
  fingerprint: number
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
    fingerprint: 0,
    serviceAt: -1,
    tenantAt: -1,
    timeMark: undefined,
    place: { kind: 0, start: 0, end: 0 },
  }
}

export function clearAttributes(list: AttributeList): void {
  list.count = 0
  list.fingerprint = 0
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
  const { bytes } = cursor
  const at = cursor.at
  // Nearly every attribute: lengths of one byte, the key first, then a string or an integer and nothing else. What is not
  // exactly that goes the long way, where every case and every error is.
  const pairSize = bytes[at] as number
  const pairEnd = at + 1 + pairSize
  const keySize = bytes[at + 2] as number
  const keyEnd = at + 3 + keySize
  const value = keyEnd + 2
  if (
    pairSize < 0x80 &&
    pairEnd <= end &&
    bytes[at + 1] === 0x0a &&
    keySize < 0x80 &&
    value < pairEnd &&
    bytes[keyEnd] === 0x12 &&
    bytes[keyEnd + 1] === pairEnd - value
  ) {
    const tag = bytes[value]
    if (tag === 0x0a && bytes[value + 1] === pairEnd - value - 2) {
      cursor.at = pairEnd
      keep(walk, list, at + 3, keyEnd, valueString, value + 2, pairEnd)
      return
    }
    if (tag === 0x18 && isOneVarint(bytes, value + 1, pairEnd)) {
      cursor.at = pairEnd
      keep(walk, list, at + 3, keyEnd, valueInt, value + 1, pairEnd)
      return
    }
  }
  readAnyAttribute(walk, end, list)
}

function isOneVarint(bytes: Buffer, start: number, end: number): boolean {
  let at = start
  while (at < end - 1 && (bytes[at] as number) >= 0x80) at++
  return at === end - 1 && (bytes[at] as number) < 0x80 && end - start <= 10
}

function readAnyAttribute(walk: Walk, end: number, list: AttributeList): void {
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
  if (!isShallow(cursor, place.kind, place.start, place.end)) list.isTooDeep = true
  keep(walk, list, keyStart, keyEnd, place.kind, place.start, place.end)
}

function keep(
  walk: Walk,
  list: AttributeList,
  keyStart: number,
  keyEnd: number,
  kind: number,
  valueStart: number,
  valueEnd: number,
): void {
  const at = list.count
  if (at >= attributesMax) {
    list.isTooLong = true
    return
  }
  if (at === list.kinds.length) widen(list)
  list.count = at + 1
  list.keyStarts[at] = keyStart
  list.keyEnds[at] = keyEnd
  list.kinds[at] = kind
  list.valueStarts[at] = valueStart
  list.valueEnds[at] = valueEnd
  const keySize = keyEnd - keyStart
  // Keys of one namespace differ at their ends.
  const tail = keySize >= 4 ? walk.cursor.view.getUint32(keyEnd - 4, true) : 0
  list.fingerprint = Math.imul(list.fingerprint ^ tail, 0x9e3779b1) + keySize
  if (keySize === serviceKey.length) {
    if (list.serviceAt < 0 && isKey(walk.cursor.bytes, keyStart, keyEnd, serviceKey)) list.serviceAt = at
  } else if (
    walk.manyTenants &&
    keySize === tenantKey.length &&
    isKey(walk.cursor.bytes, keyStart, keyEnd, tenantKey)
  ) {
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

/** Key sequences that were seen, by their fingerprint. A service sends few of them, so most lists are recognised by
 *  comparing bytes: nothing is hashed, looked up or sorted. */
export type Shapes = (Shape | undefined)[]
export type Shape = {
  readonly dictionary: Dictionary
  readonly generation: number
  /** The keys as they were sent, one behind the other. */
  readonly keys: Buffer
  readonly view: DataView
  /** Bytes per key, or -1 for the mark of a time. */
  readonly sizes: Int16Array
  /** Per place in the row: which attribute of the list stands there, and the entry of its key. */
  readonly order: Uint16Array
  readonly entries: Uint16Array
  /** Whether one of the keys is of models, tools, messages or health. */
  readonly isSpeaking: boolean
  /** Attributes whose value decides that. */
  readonly valued: readonly number[]
  /** The keys as texts, in the order of the list, once somebody has asked for them. */
  names: readonly string[] | undefined
}
const shapeSlots = 4096
/** Longer lists are rare and their memory is not. */
const shapeKeysMax = 256
const shapeBytesMax = 16 * 1024

export function openShapes(): Shapes {
  return new Array<Shape | undefined>(shapeSlots).fill(undefined)
}

/** Appends the list as one row of a Map column. */
export function appendMap(walk: Walk, column: MapColumn, list: AttributeList): void {
  appendShaped(walk, column, list, shapeOf(walk, column, list))
}

/** The shape of the list in this column's dictionary; undefined where the list is empty. */
export function shapeOf(walk: Walk, column: MapColumn, list: AttributeList): Shape | undefined {
  const { dictionary } = column.keys
  if (list.timeMark !== undefined) addTimeMark(list)
  if (list.count === 0) return undefined
  const slot = (list.fingerprint ^ (list.fingerprint >>> 15)) & (shapeSlots - 1)
  const known = walk.scratch.shapes[slot]
  if (
    known !== undefined &&
    known.dictionary === dictionary &&
    known.generation === dictionary.generation &&
    isOfShape(walk, list, known)
  )
    return known
  const shape = learnShape(walk, dictionary, list)
  if (list.count <= shapeKeysMax && shape.keys.length <= shapeBytesMax) walk.scratch.shapes[slot] = shape
  return shape
}

export function appendShaped(walk: Walk, column: MapColumn, list: AttributeList, shape: Shape | undefined): void {
  const { count } = list
  if (shape !== undefined) {
    const { indexes } = column.keys
    const { order, entries } = shape
    reserve(indexes, count * 2)
    let at = indexes.length
    for (let place = 0; place < count; place++, at += 2) indexes.view.setUint16(at, entries[place] as number, true)
    indexes.length = at
    appendValues(walk, column.values.data, list, order)
  }
  appendEnd(column.ends, count)
}

/** The keys of the list, which has this shape, as texts. */
export function namesOf(walk: Walk, list: AttributeList, shape: Shape | undefined): readonly string[] {
  if (shape?.names !== undefined) return shape.names
  const { bytes } = walk.cursor
  const names = Array.from({ length: list.count }, (_, at) =>
    list.kinds[at] === valueLiteral ? '' : bytes.toString('utf8', list.keyStarts[at], list.keyEnds[at]),
  )
  // As keys of objects, texts are the same strings as the literals they are looked up by: comparing them reads no characters.
  if (shape !== undefined) shape.names = names.map((name) => Object.keys({ [name]: 0 })[0] as string)
  return shape?.names ?? names
}

/** Takes attributes out of the list, which has these `names`. */
export function withoutKeys(
  walk: Walk,
  list: AttributeList,
  names: readonly string[],
  without: readonly string[],
): void {
  const { kinds, keyStarts, keyEnds, valueStarts, valueEnds } = list
  const before = list.count
  list.count = 0
  list.fingerprint = 0
  for (let at = 0; at < before; at++) {
    const kind = kinds[at] as number
    if (kind === valueLiteral) continue
    const keyStart = keyStarts[at] as number
    const keyEnd = keyEnds[at] as number
    if (without.includes(names[at] as string)) continue
    keep(walk, list, keyStart, keyEnd, kind, valueStarts[at] as number, valueEnds[at] as number)
  }
  if (list.timeMark !== undefined) addTimeMark(list)
}

function appendValues(walk: Walk, values: Stream, list: AttributeList, order: Uint16Array): void {
  const { cursor } = walk
  const { kinds, valueStarts, valueEnds, count } = list
  for (let place = 0; place < count; place++) {
    const at = order[place] as number
    const kind = kinds[at] as number
    const start = valueStarts[at] as number
    const end = valueEnds[at] as number
    if (kind === valueString && appendStringOf(values, cursor.bytes, cursor.view, start, end)) continue
    if (kind === valueLiteral) appendText(values, timeMarks[list.timeMark as TimeMark])
    else walk.tally.repairedStrings += appendValue(values, cursor, kind, start, end)
  }
}

function addTimeMark(list: AttributeList): void {
  if (list.count > 0 && list.kinds[list.count - 1] === valueLiteral) return
  const at = list.count++
  if (at === list.kinds.length) widen(list)
  list.kinds[at] = valueLiteral
  list.fingerprint = Math.imul(list.fingerprint, 0x9e3779b1) - 1
}

function isOfShape(walk: Walk, list: AttributeList, shape: Shape): boolean {
  const { view, bytes } = walk.cursor
  const { sizes } = shape
  const { count, keyStarts, keyEnds } = list
  if (sizes.length !== count) return false
  let known = 0
  for (let at = 0; at < count; at++) {
    const size = sizes[at] as number
    if (list.kinds[at] === valueLiteral || size < 0) {
      if (list.kinds[at] !== valueLiteral || size >= 0) return false
      continue
    }
    const start = keyStarts[at] as number
    if ((keyEnds[at] as number) - start !== size) return false
    if (size >= 4) {
      const last = size - 4
      for (let i = 0; i < last; i += 4) {
        if (view.getUint32(start + i, true) !== shape.view.getUint32(known + i, true)) return false
      }
      if (view.getUint32(start + last, true) !== shape.view.getUint32(known + last, true)) return false
    } else {
      for (let i = 0; i < size; i++) if (bytes[start + i] !== shape.keys[known + i]) return false
    }
    known += size
  }
  return true
}

/** Looks up each key and sorts them. The strings that had to be repaired are counted each time: such a list is not kept. */
function learnShape(walk: Walk, dictionary: Dictionary, list: AttributeList): Shape {
  const { count, entries, keyStarts, keyEnds, kinds } = list
  const { bytes } = walk.cursor
  const repairedBefore = walk.tally.repairedStrings
  for (let at = 0; at < count; at++) entries[at] = internKey(walk, dictionary, list, at)
  const order = Uint16Array.from({ length: count }, (_, at) => at).sort(
    // Equal keys keep the order in which they were sent.
    (a, b) => compareEntries(dictionary, entries[a] as number, entries[b] as number) || a - b,
  )
  const keys = Buffer.concat(
    Array.from({ length: count }, (_, at) =>
      kinds[at] === valueLiteral ? noBytes : bytes.subarray(keyStarts[at], keyEnds[at]),
    ),
  )
  return {
    dictionary,
    // No dictionary has the generation -1, so such a shape is never found again.
    generation: walk.tally.repairedStrings === repairedBefore ? dictionary.generation : -1,
    keys,
    view: viewOf(keys),
    sizes: Int16Array.from({ length: count }, (_, at) =>
      kinds[at] === valueLiteral ? -1 : (keyEnds[at] as number) - (keyStarts[at] as number),
    ),
    order,
    entries: Uint16Array.from(order, (at) => entries[at] as number),
    ...speechOf(walk, list),
    names: undefined,
  }
}

/** What the keys of a list say of whether its record is lifted. */
export type Speech = Pick<Shape, 'isSpeaking' | 'valued'>

export function speechOf(walk: Walk, list: AttributeList): Speech {
  const { bytes } = walk.cursor
  const valued: number[] = []
  let isSpeaking = false
  for (let at = 0; at < list.count; at++) {
    if (list.kinds[at] === valueLiteral) continue
    const start = list.keyStarts[at] as number
    const end = list.keyEnds[at] as number
    if (isSpeakingKey(bytes, start, end)) isSpeaking = true
    if (isValuedKey(bytes, start, end) || isKey(bytes, start, end, eventNameKey)) valued.push(at)
  }
  return { isSpeaking, valued }
}

/** Whether a record with these attributes is one that is lifted. */
export function speaks(walk: Walk, list: AttributeList, { isSpeaking, valued }: Speech): boolean {
  if (isSpeaking) return true
  for (const at of valued) {
    if (list.kinds[at] !== valueString) continue
    const start = list.valueStarts[at] as number
    const end = list.valueEnds[at] as number
    if (isSpeakingValue(walk.cursor.bytes, start, end) || isSpeakingEvent(walk.cursor.bytes, start, end)) return true
  }
  return false
}

const noBytes = Buffer.alloc(0)

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
