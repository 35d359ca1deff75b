// The dictionary of a LowCardinality(String) column: each distinct string once, in order of first use, and a number for
// each. Entries are only ever appended; undoing removes the newest ones. The bytes of the stream are those of
// ClickHouse's Native format: entry 0 is the empty string, which stands for the default.
import { isUtf8 } from 'node:buffer'
import { appendEmptyString, openStream, putLength, reserve, type Stream } from './stream.ts'

export type Dictionary = {
  readonly entries: Stream
  /** Moves when numbers are taken back, so that what was remembered about them is forgotten. */
  generation: number
  count: number
  synced: number
  mark: number
  /** Where the text of an entry starts in `entries`, its length, and its hash. */
  starts: Uint32Array
  lengths: Uint32Array
  hashes: Uint32Array
  /** Open addressing: entry number + 1, or 0 for a free slot. Never more than half full. */
  slots: Int32Array
  /** The numbers of texts that came as strings: finding one costs less than its bytes would. */
  readonly words: Map<string, number>
}

/** Numbers are written with 16 bits: a segment whose dictionary is full is sealed and the next one starts afresh. */
export const dictionaryEntriesMax = 65_536

const entriesInitial = 64
// Keys come from clients: a seed of the process's own keeps them from choosing strings that all land in one slot.
const seed = (Math.random() * 0x1_0000_0000) >>> 0

/** Thrown through the walk when an open segment has no room; caught where the request is appended, which seals the
 *  segment and walks again. Not an error of the client's. */
export class SegmentFull extends Error {
  override readonly name = 'SegmentFull'
}

export function openDictionary(): Dictionary {
  const dictionary: Dictionary = {
    entries: openStream(),
    generation: 0,
    count: 0,
    synced: 0,
    mark: 0,
    starts: new Uint32Array(entriesInitial),
    lengths: new Uint32Array(entriesInitial),
    hashes: new Uint32Array(entriesInitial),
    slots: new Int32Array(entriesInitial * 2),
    words: new Map(),
  }
  resetDictionary(dictionary)
  return dictionary
}

export function resetDictionary(dictionary: Dictionary): void {
  dictionary.slots.fill(0)
  dictionary.words.clear()
  dictionary.generation++
  dictionary.count = 0
  dictionary.synced = 0
  dictionary.mark = 0
  dictionary.entries.length = 0
  dictionary.entries.synced = 0
  dictionary.entries.mark = 0
  appendEmptyString(dictionary.entries)
  insert(dictionary, hashOf(dictionary.entries.view, dictionary.entries.bytes, 1, 1), 1, 0)
}

/** The number of `source[start, end)`, or -1 when it is not valid UTF-8. */
export function intern(dictionary: Dictionary, source: Buffer, view: DataView, start: number, end: number): number {
  const hash = hashOf(view, source, start, end)
  const size = end - start
  const slots = dictionary.slots
  const mask = slots.length - 1
  let slot = hash & mask
  for (;;) {
    const entry = (slots[slot] as number) - 1
    if (entry < 0) break
    if (
      dictionary.hashes[entry] === hash &&
      dictionary.lengths[entry] === size &&
      isSame(dictionary.entries, dictionary.starts[entry] as number, source, view, start, size)
    ) {
      return entry
    }
    slot = (slot + 1) & mask
  }
  return add(dictionary, hash, source, start, end)
}

/** The number of a text that comes as a string. */
export function internWord(dictionary: Dictionary, text: string): number {
  const known = dictionary.words.get(text)
  if (known !== undefined) return known
  const bytes = Buffer.from(text)
  const entry = intern(dictionary, bytes, new DataView(bytes.buffer, bytes.byteOffset, bytes.length), 0, bytes.length)
  dictionary.words.set(text, entry)
  return entry
}

function add(dictionary: Dictionary, hash: number, source: Buffer, start: number, end: number): number {
  if (dictionary.count >= dictionaryEntriesMax) throw new SegmentFull('a dictionary holds 65,536 distinct strings')
  if (!isUtf8(source.subarray(start, end))) return -1
  const entries = dictionary.entries
  reserve(entries, end - start + 5)
  putLength(entries, end - start)
  const at = entries.length
  source.copy(entries.bytes, at, start, end)
  entries.length = at + (end - start)
  return insert(dictionary, hash, at, end - start)
}

function insert(dictionary: Dictionary, hash: number, start: number, size: number): number {
  if (dictionary.count === dictionary.starts.length) widen(dictionary)
  const entry = dictionary.count++
  dictionary.starts[entry] = start
  dictionary.lengths[entry] = size
  dictionary.hashes[entry] = hash
  place(dictionary.slots, hash, entry)
  return entry
}

function place(slots: Int32Array, hash: number, entry: number): void {
  const mask = slots.length - 1
  let slot = hash & mask
  while (slots[slot] !== 0) slot = (slot + 1) & mask
  slots[slot] = entry + 1
}

function widen(dictionary: Dictionary): void {
  const wide = (old: Uint32Array): Uint32Array => {
    const wider = new Uint32Array(old.length * 2)
    wider.set(old)
    return wider
  }
  dictionary.starts = wide(dictionary.starts)
  dictionary.lengths = wide(dictionary.lengths)
  dictionary.hashes = wide(dictionary.hashes)
  dictionary.slots = new Int32Array(dictionary.starts.length * 2)
  for (let entry = 0; entry < dictionary.count; entry++) {
    place(dictionary.slots, dictionary.hashes[entry] as number, entry)
  }
}

/** Forgets the entries from `count` on. The newest leave first: each of them lies at the end of its chain of slots, so
 *  freeing its slot cuts off no other. */
export function truncateDictionary(dictionary: Dictionary, count: number): void {
  const slots = dictionary.slots
  const mask = slots.length - 1
  if (dictionary.count > count) {
    dictionary.generation++
    dictionary.words.clear()
  }
  while (dictionary.count > count) {
    const entry = --dictionary.count
    let slot = (dictionary.hashes[entry] as number) & mask
    while (slots[slot] !== entry + 1) slot = (slot + 1) & mask
    slots[slot] = 0
  }
}

function hashOf(view: DataView, bytes: Uint8Array, start: number, end: number): number {
  const size = end - start
  let hash = seed ^ size
  if (size >= 4) {
    const last = end - 4
    for (let at = start; at < last; at += 4) {
      hash = Math.imul(hash ^ view.getUint32(at, true), 0x9e3779b1)
      hash ^= hash >>> 15
    }
    hash = Math.imul(hash ^ view.getUint32(last, true), 0x9e3779b1)
  } else {
    for (let at = start; at < end; at++) hash = Math.imul(hash ^ (bytes[at] as number), 0x9e3779b1)
  }
  hash ^= hash >>> 15
  hash = Math.imul(hash, 0x85ebca6b)
  return (hash ^ (hash >>> 13)) >>> 0
}

function isSame(entries: Stream, at: number, source: Buffer, view: DataView, start: number, size: number): boolean {
  if (size >= 4) {
    const own = entries.view
    const last = size - 4
    for (let i = 0; i < last; i += 4) {
      if (own.getUint32(at + i, true) !== view.getUint32(start + i, true)) return false
    }
    return own.getUint32(at + last, true) === view.getUint32(start + last, true)
  }
  for (let i = 0; i < size; i++) if (entries.bytes[at + i] !== source[start + i]) return false
  return true
}

/** The order of two entries by their bytes, as ClickHouse and the exporter order map keys. */
export function compareEntries(dictionary: Dictionary, a: number, b: number): number {
  const bytes = dictionary.entries.bytes
  const startA = dictionary.starts[a] as number
  const startB = dictionary.starts[b] as number
  const sizeA = dictionary.lengths[a] as number
  const sizeB = dictionary.lengths[b] as number
  return bytes.compare(bytes, startB, startB + sizeB, startA, startA + sizeA)
}

/** The entries in order, as they stand in the stream: right also for a dictionary that was read back and never searched. */
export function dictionaryEntries(dictionary: Dictionary): readonly Buffer[] {
  const { bytes, length } = dictionary.entries
  const entries: Buffer[] = []
  let at = 0
  while (at < length) {
    let size = 0
    let shift = 0
    let byte: number
    do {
      byte = bytes[at++] as number
      size |= (byte & 0x7f) << shift
      shift += 7
    } while (byte >= 0x80)
    entries.push(bytes.subarray(at, at + size))
    at += size
  }
  return entries
}
