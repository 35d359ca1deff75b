// Parts of a block, for the rare case that a table does not take all of it: some of the rows as a block of their own, and rows
// as text.
import { type AnyBlock, appendEnd, type Column, openBlock } from './block.ts'
import { dictionaryEntries } from './dictionary.ts'
import { reserve, type Stream } from './stream.ts'

/** Rows `[from, to)`. */
export type Rows = { readonly from: number; readonly to: number }

/** Rows `[from, to)` as a new block. Costs a scan of the strings before `from`. */
export function sliceBlock(block: AnyBlock, from: number, to: number): AnyBlock {
  return rowsOf(block, [{ from, to }])
}

/** Some rows as a new block, in their order. */
export function rowsOf(block: AnyBlock, chosen: readonly Rows[]): AnyBlock {
  const part = openBlock(block.table, block.day)
  const copiedEnds = new Set<Stream>()
  for (const [name] of block.table.columns) {
    copyRows(columnOf(block, name), columnOf(part, name), chosen, copiedEnds)
  }
  for (const { from, to } of chosen) part.rows += to - from
  return part
}

function columnOf(block: AnyBlock, name: string): Column {
  return block.columns[name] as Column
}

function copyRows(source: Column, target: Column, chosen: readonly Rows[], copiedEnds: Set<Stream>): void {
  if (source.kind === 'fixed' && target.kind === 'fixed') {
    for (const { from, to } of chosen) append(target.data, source.data, from * source.width, to * source.width)
  } else if (source.kind === 'nullable' && target.kind === 'nullable') {
    for (const { from, to } of chosen) append(target.nulls, source.nulls, from, to)
    copyRows(source.of, target.of, chosen, copiedEnds)
  } else if (source.kind === 'string' && target.kind === 'string') {
    copyStrings(source.data, target.data, chosen)
  } else if (source.kind === 'lowCardinality' && target.kind === 'lowCardinality') {
    target.dictionary.entries.length = 0
    append(target.dictionary.entries, source.dictionary.entries, 0, source.dictionary.entries.length)
    target.dictionary.count = source.dictionary.count
    for (const { from, to } of chosen) append(target.indexes, source.indexes, from * 2, to * 2)
  } else if (source.kind === 'map' && target.kind === 'map') {
    const elements = copyEnds(source.ends, target.ends, chosen, copiedEnds)
    copyRows(source.keys, target.keys, elements, copiedEnds)
    copyRows(source.values, target.values, elements, copiedEnds)
  } else if (source.kind === 'array' && target.kind === 'array') {
    copyRows(source.of, target.of, copyEnds(source.ends, target.ends, chosen, copiedEnds), copiedEnds)
  }
}

function copyStrings(source: Stream, target: Stream, chosen: readonly Rows[]): void {
  let row = 0
  let at = 0
  for (const { from, to } of chosen) {
    const start = stringAt(source, at, from - row)
    at = stringAt(source, start, to - from)
    row = to
    append(target, source, start, at)
  }
}

function append(target: Stream, source: Stream, start: number, end: number): void {
  reserve(target, end - start)
  source.bytes.copy(target.bytes, target.length, start, end)
  target.length += end - start
}

/** Copies lengths once per stream (columns of a group share them) and returns which elements the rows have. */
function copyEnds(source: Stream, target: Stream, chosen: readonly Rows[], copied: Set<Stream>): readonly Rows[] {
  const endAt = (row: number): number => (row === 0 ? 0 : source.view.getUint32((row - 1) * 8, true))
  if (!copied.has(target)) {
    copied.add(target)
    for (const { from, to } of chosen)
      for (let row = from; row < to; row++) appendEnd(target, endAt(row + 1) - endAt(row))
  }
  return chosen.map(({ from, to }) => ({ from: endAt(from), to: endAt(to) }))
}

/** Where the `count`th string from the byte `at` begins. */
function stringAt(stream: Stream, at: number, count: number): number {
  let next = at
  for (let left = count; left > 0; left--) next = readString(stream, next).end
  return next
}

function readString(stream: Stream, at: number): { readonly start: number; readonly end: number } {
  let length = 0
  let shift = 0
  let next = at
  for (;;) {
    const byte = stream.bytes[next++] as number
    length |= (byte & 0x7f) << shift
    if (byte < 0x80) return { start: next, end: next + length }
    shift += 7
  }
}

/** The only row of a block as JSON text, for the quarantine. 64-bit numbers are digits in a string, times nanoseconds. */
export function rowText(block: AnyBlock): string {
  return rowTexts(block)[0] as string
}

/** Each row as such a text. */
export function rowTexts(block: AnyBlock): readonly string[] {
  const columns = block.table.columns.map(([name]) => [name, valuesOf(columnOf(block, name), block.rows)] as const)
  return Array.from({ length: block.rows }, (_, row) =>
    JSON.stringify(Object.fromEntries(columns.map(([name, values]) => [name, values[row]]))),
  )
}

/** The text of a LowCardinality column in a block of one row. */
export function textOf(block: AnyBlock, name: string): string {
  return String(valuesOf(columnOf(block, name), 1)[0])
}

/** The texts of a String or LowCardinality column, row by row. */
export function textsOf(block: AnyBlock, name: string): readonly string[] {
  return valuesOf(columnOf(block, name), block.rows) as readonly string[]
}

/** How often each text stands in a LowCardinality column. */
export function countTexts(block: AnyBlock, name: string): ReadonlyMap<string, number> {
  const counts = new Map<string, number>()
  for (const text of valuesOf(columnOf(block, name), block.rows)) {
    counts.set(String(text), (counts.get(String(text)) ?? 0) + 1)
  }
  return counts
}

function valuesOf(column: Column, count: number): readonly unknown[] {
  switch (column.kind) {
    case 'segmentName':
      return Array.from({ length: count }, () => '')
    case 'fixed':
      return Array.from({ length: count }, (_, at) => fixedValue(column.data, column.type, column.width, at))
    case 'nullable':
      return valuesOf(column.of, count).map((value, at) => (column.nulls.bytes[at] === 1 ? null : value))
    case 'string':
      return stringsOf(column.data, count)
    case 'lowCardinality': {
      const entries = dictionaryEntries(column.dictionary).map((entry) => entry.toString())
      return Array.from({ length: count }, (_, at) => entries[column.indexes.view.getUint16(at * 2, true)])
    }
    case 'map': {
      const ends = endsOf(column.ends, count)
      const elements = ends.at(-1) ?? 0
      const keys = valuesOf(column.keys, elements)
      const values = valuesOf(column.values, elements)
      return ends.map((end, at) => {
        const start = at === 0 ? 0 : (ends[at - 1] as number)
        return Object.fromEntries(keys.slice(start, end).map((key, index) => [String(key), values[start + index]]))
      })
    }
    case 'array': {
      const ends = endsOf(column.ends, count)
      const elements = valuesOf(column.of, ends.at(-1) ?? 0)
      return ends.map((end, at) => elements.slice(at === 0 ? 0 : ends[at - 1], end))
    }
    default:
      return column satisfies never
  }
}

function endsOf(ends: Stream, count: number): readonly number[] {
  return Array.from({ length: count }, (_, at) => ends.view.getUint32(at * 8, true))
}

function stringsOf(stream: Stream, count: number): readonly string[] {
  let next = 0
  return Array.from({ length: count }, () => {
    const { start, end } = readString(stream, next)
    next = end
    return stream.bytes.toString('utf8', start, end)
  })
}

function fixedValue(stream: Stream, type: string, width: number, at: number): unknown {
  const { view } = stream
  if (type === 'Float64') return String(view.getFloat64(at * 8, true))
  if (width === 8) return String(type === 'UInt64' ? view.getBigUint64(at * 8, true) : view.getBigInt64(at * 8, true))
  if (width === 4) return type === 'Int32' ? view.getInt32(at * 4, true) : view.getUint32(at * 4, true)
  return width === 2 ? view.getUint16(at * 2, true) : view.getUint8(at)
}
