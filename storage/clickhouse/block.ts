// An open block: the rows of one table and UTC day, as growing columns. Everything about it is append-only, so a journal
// frame is what it grew by, and a crash, a failed write or a malformed request is undone by cutting it back.
import assert from 'node:assert/strict'
import { type Dictionary, openDictionary, resetDictionary, truncateDictionary } from './dictionary.ts'
import { appendUint64, openStream, reserve, type Stream } from './stream.ts'
import { segmentColumn, type TableDefinition } from './tables.ts'

export type FixedColumn = {
  readonly kind: 'fixed'
  readonly type: string
  readonly width: number
  readonly data: Stream
}
/** `nulls` holds a byte per row, 1 where there is no value; `of` has a zero there. */
export type NullableColumn = { readonly kind: 'nullable'; readonly nulls: Stream; readonly of: FixedColumn }
export type StringColumn = { readonly kind: 'string'; readonly data: Stream }
export type LowCardinalityColumn = {
  readonly kind: 'lowCardinality'
  readonly dictionary: Dictionary
  readonly indexes: Stream
}
/** `ends` holds, per row, the number of elements up to and with this row: 64 bits each, as Native has it. */
export interface ArrayColumn<Element = Column> {
  readonly kind: 'array'
  readonly ends: Stream
  readonly of: Element
}
export type MapColumn = {
  readonly kind: 'map'
  readonly ends: Stream
  readonly keys: LowCardinalityColumn
  readonly values: StringColumn
}
/** The same text in each row, known only when the block is sent. */
export type SegmentNameColumn = { readonly kind: 'segmentName' }
export type Column =
  | FixedColumn
  | NullableColumn
  | StringColumn
  | LowCardinalityColumn
  | ArrayColumn
  | MapColumn
  | SegmentNameColumn

type ElementColumn<Type extends string> = Type extends 'String'
  ? StringColumn
  : Type extends 'LowCardinality(String)'
    ? LowCardinalityColumn
    : Type extends 'Map(LowCardinality(String), String)'
      ? MapColumn
      : Type extends `Array(${infer Inner})`
        ? ArrayColumn<ElementColumn<Inner>>
        : Type extends `Nullable(${string})`
          ? NullableColumn
          : FixedColumn

type ColumnsOf<Table extends TableDefinition> = {
  readonly [Definition in Table['columns'][number] as Definition[0]]: Definition[0] extends 'Segment'
    ? SegmentNameColumn
    : ElementColumn<Definition[1]>
}

/** A block of a table that is known where the code is written: its columns are typed by the table's definition. */
export type Block<Table extends TableDefinition> = BlockOf<ColumnsOf<Table>>
/** A block of whatever table. */
export type AnyBlock = BlockOf<Readonly<Record<string, Column>>>

type BlockOf<Columns> = {
  readonly table: TableDefinition
  /** Days since 1970-01-01 UTC. */
  day: number
  readonly columns: Columns
  /** Every stream of the columns, in column order; those of one group's lengths once. */
  readonly streams: readonly Stream[]
  /** For each stream what a frame must know of its past: nothing, a dictionary's entries, or a total of elements. */
  readonly bases: readonly StreamBase[]
  readonly dictionaries: readonly Dictionary[]
  rows: number
  rowsSynced: number
  rowsMark: number
  /** The walk that set the marks, so that they are set once per request and block. */
  markedBy: number
}

export type StreamBase =
  | { readonly kind: 'values' }
  | { readonly kind: 'entries'; readonly dictionary: Dictionary }
  | { readonly kind: 'ends' }

const widths: Readonly<Record<string, number>> = {
  UInt8: 1,
  Bool: 1,
  UInt16: 2,
  UInt32: 4,
  Int32: 4,
  DateTime: 4,
  Int64: 8,
  UInt64: 8,
  Float64: 8,
  'DateTime64(9)': 8,
}

export function openBlock<const Table extends TableDefinition>(table: Table, day: number): Block<Table> & AnyBlock {
  const streams: Stream[] = []
  const bases: StreamBase[] = []
  const dictionaries: Dictionary[] = []
  const addStream = (base: StreamBase, stream = openStream()): Stream => {
    streams.push(stream)
    bases.push(base)
    return stream
  }
  const groupEnds = new Map<string, Stream>()

  const build = (type: string, group: string | undefined): Column => {
    if (type === 'String') return { kind: 'string', data: addStream({ kind: 'values' }) }
    if (type === 'LowCardinality(String)') {
      const dictionary = openDictionary()
      dictionaries.push(dictionary)
      addStream({ kind: 'entries', dictionary }, dictionary.entries)
      return { kind: 'lowCardinality', dictionary, indexes: addStream({ kind: 'values' }) }
    }
    if (type === 'Map(LowCardinality(String), String)') {
      const ends = addStream({ kind: 'ends' })
      const keys = build('LowCardinality(String)', undefined) as LowCardinalityColumn
      return { kind: 'map', ends, keys, values: build('String', undefined) as StringColumn }
    }
    const element = /^Array\((.+)\)$/.exec(type)?.[1]
    if (element !== undefined) {
      let ends = group === undefined ? undefined : groupEnds.get(group)
      if (ends === undefined) {
        ends = addStream({ kind: 'ends' })
        if (group !== undefined) groupEnds.set(group, ends)
      }
      return { kind: 'array', ends, of: build(element, undefined) }
    }
    const inner = /^Nullable\((.+)\)$/.exec(type)?.[1]
    if (inner !== undefined) {
      const nulls = addStream({ kind: 'values' })
      return { kind: 'nullable', nulls, of: build(inner, undefined) as FixedColumn }
    }
    const width = widths[type]
    assert(width !== undefined, `table ${table.name}: no column can be made of type ${type}`)
    return { kind: 'fixed', type, width, data: addStream({ kind: 'values' }) }
  }

  // Measured: an object filled name by name becomes a hash table in V8 after a dozen, with a hidden class of its own, and every
  // load of a column a lookup; made from entries it has one shape per table, which the engine compiles in.
  const columns = Object.fromEntries(
    table.columns.map(([name, type]): [string, Column] => [
      name,
      name === segmentColumn ? { kind: 'segmentName' } : build(type, /^([^.]+)\./.exec(name)?.[1]),
    ]),
  )
  return {
    table,
    day,
    columns: columns as ColumnsOf<Table> & Readonly<Record<string, Column>>,
    streams,
    bases,
    dictionaries,
    rows: 0,
    rowsSynced: 0,
    rowsMark: 0,
    markedBy: 0,
  }
}

/** Tells a block's table by its name: one that was read back has a definition of its own, from its segment's header. */
export function isBlockOf<const Table extends TableDefinition>(
  block: AnyBlock,
  table: Table,
): block is Block<Table> & AnyBlock {
  return block.table.name === table.name
}

/** Empties a block for another day, keeping its buffers: fresh memory costs more than filling it (page faults). */
export function reuseBlock(block: AnyBlock, day: number): void {
  block.day = day
  block.rows = 0
  block.rowsSynced = 0
  block.rowsMark = 0
  block.markedBy = 0
  for (const stream of block.streams) {
    stream.length = 0
    stream.synced = 0
    stream.mark = 0
  }
  for (const dictionary of block.dictionaries) resetDictionary(dictionary)
}

export function blockBytes(block: AnyBlock): number {
  let bytes = 0
  for (const stream of block.streams) bytes += stream.length
  return bytes
}

export function blockCapacity(block: AnyBlock): number {
  let bytes = 0
  for (const stream of block.streams) bytes += stream.bytes.length
  return bytes
}

/** The number of elements that `ends` counts so far. Below 2³²: a segment holds at most 128 MiB. */
export function elementsOf(ends: Stream): number {
  return ends.length === 0 ? 0 : ends.view.getUint32(ends.length - 8, true)
}

export function appendEnd(ends: Stream, elements: number): void {
  appendUint64(ends, elementsOf(ends) + elements, 0)
}

export function markBlock(block: AnyBlock, walk: number): void {
  if (block.markedBy === walk) return
  block.markedBy = walk
  block.rowsMark = block.rows
  for (const stream of block.streams) stream.mark = stream.length
  for (const dictionary of block.dictionaries) dictionary.mark = dictionary.count
}

/** Undoes what the walk that set the marks has appended. */
export function cutToMark(block: AnyBlock): void {
  block.rows = block.rowsMark
  for (const dictionary of block.dictionaries) truncateDictionary(dictionary, dictionary.mark)
  for (const stream of block.streams) stream.length = stream.mark
}

/** Undoes what no frame has made durable. */
export function cutToSynced(block: AnyBlock): void {
  block.rows = block.rowsSynced
  for (const dictionary of block.dictionaries) truncateDictionary(dictionary, Math.max(dictionary.synced, 1))
  for (const stream of block.streams) stream.length = stream.synced
  // The empty string stands in every dictionary from its beginning, synced or not.
  for (const { entries, count } of block.dictionaries) if (count === 1 && entries.length === 0) entries.length = 1
}

/** Adds another row's index of an entry. */
export function appendIndex(column: LowCardinalityColumn, entry: number): void {
  const indexes = column.indexes
  reserve(indexes, 2)
  indexes.view.setUint16(indexes.length, entry, true)
  indexes.length += 2
}
