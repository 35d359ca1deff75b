// Reads single values back out of a block's columns, for those who look for a few rows among many: what they do not ask for
// is passed over and never made into a string.
import type { LowCardinalityColumn, MapColumn, StringColumn } from './block.ts'
import { dictionaryEntries } from './dictionary.ts'
import type { Stream } from './stream.ts'

/** The texts of a column, asked for with rows that ascend. */
export function openTexts({ data }: StringColumn): (row: number) => string {
  let next = 0
  let nextRow = 0
  return (row) => {
    for (; nextRow < row; nextRow++) next = endOfText(data, next)
    return textAt(data, next)
  }
}

/** The text of each row of a column. */
export function namesOf({ dictionary, indexes }: LowCardinalityColumn): (row: number) => string {
  const names = dictionaryEntries(dictionary).map((entry) => entry.toString())
  return (row) => names[indexes.view.getUint16(row * 2, true)] as string
}

/** The rows whose map has one of the `needed` keys, with their values of these and of the `wanted` keys. */
export function* mapsWith(
  { ends, keys, values }: MapColumn,
  rows: number,
  needed: ReadonlySet<string>,
  wanted: ReadonlySet<string>,
): Generator<{ readonly row: number; readonly values: ReadonlyMap<string, string> }> {
  const names = dictionaryEntries(keys.dictionary).map((entry) => entry.toString())
  const isNeeded = names.map((name) => needed.has(name))
  if (!isNeeded.includes(true)) return
  const isRead = names.map((name, at) => isNeeded[at] || wanted.has(name))
  let element = 0
  let place = 0
  for (let row = 0; row < rows; row++) {
    const end = ends.view.getUint32(row * 8, true)
    let found: Map<string, string> | undefined
    let isFound = false
    for (; element < end; element++) {
      const key = keys.indexes.view.getUint16(element * 2, true)
      if (isRead[key]) {
        found ??= new Map()
        found.set(names[key] as string, textAt(values.data, place))
        isFound ||= isNeeded[key] as boolean
      }
      place = endOfText(values.data, place)
    }
    if (found !== undefined && isFound) yield { row, values: found }
  }
}

function textAt({ bytes }: Stream, at: number): string {
  const [start, end] = boundsOf(bytes, at)
  return bytes.toString('utf8', start, end)
}

function endOfText({ bytes }: Stream, at: number): number {
  const length = bytes[at] as number
  return length < 0x80 ? at + 1 + length : boundsOf(bytes, at)[1]
}

function boundsOf(bytes: Buffer, at: number): readonly [start: number, end: number] {
  let length = 0
  let shift = 0
  let next = at
  for (;;) {
    const byte = bytes[next++] as number
    length |= (byte & 0x7f) << shift
    if (byte < 0x80) return [next, next + length]
    shift += 7
  }
}
