// Where in a body a literal stands: the cheap question that is asked of every byte, so that the dear one, whether a secret
// stands there, is asked of few. A body has some 450 bytes per span, which is why this is neither a regular expression
// (3.0 CPU-seconds per million spans, measured with literals like those of secret-rules.ts) nor a search for each (3.6).
//
// Every literal has an anchor: four of its bytes, the rarest in telemetry. They are two groups of three, one of which begins
// at an even place wherever the literal stands. So it is enough to look up, at every second byte, three bytes in a table of
// those groups (0.3 CPU-seconds); what is in the table is compared.
import assert from 'node:assert/strict'
import { viewOf } from '@tallylight/storage/clickhouse/stream.ts'

export type Literal = {
  /** Three bytes at least; one of three is found only before a letter, a digit or a dash. */
  readonly text: string
  /** Found in capitals too; the text itself has small letters. */
  readonly isAnyCase: boolean
}

/** A literal of the body: about in the order in which they stand. `at` is Infinity behind the last. */
export type LiteralHit = {
  at: number
  /** Which literal, by its place in the list. */
  literal: number
}

export type LiteralScan = {
  readonly hit: LiteralHit
  /** Goes to the first literal of a body. */
  start(bytes: Buffer, view: DataView): void
  next(): void
  /** Whether what was found there has not been written over since. */
  isStillAt(at: number, literal: number): boolean
}

type Anchored = { readonly literal: number; readonly offset: number }

/** Few groups of a thousand possible ones share a place in a table of this size, so few bytes are compared in vain. */
const tableBits = 17
const shift = 32 - tableBits
const multiplier = 0x9e3779b1 | 0
/** Found before they are asked for, so that the loop over the bytes runs in one piece. */
const waitingMax = 1024
const perPlaceMax = 64

export function openLiteralScan(literals: readonly Literal[]): LiteralScan {
  const known = literals.map(({ text, isAnyCase }) => ({ bytes: Buffer.from(text, 'latin1'), isAnyCase }))
  const isAnchor = new Uint8Array(1 << tableBits)
  const anchored = new Map<number, Anchored[]>()
  for (const [literal, { bytes, isAnyCase }] of known.entries()) {
    assert(bytes.length >= 3, 'a shorter literal may stand where no group of three of it is looked at')
    for (const { offset, group } of groupsOf(bytes, isAnyCase)) {
      const place = placeOf(group)
      isAnchor[place] = 1
      const others = anchored.get(place) ?? []
      assert(others.length < perPlaceMax, `more than ${perPlaceMax} literals have one place in the table`)
      if (!others.some((other) => other.literal === literal && other.offset === offset))
        anchored.set(place, [...others, { literal, offset }])
    }
  }

  const hit: LiteralHit = { at: Number.POSITIVE_INFINITY, literal: -1 }
  const places = new Int32Array(waitingMax + perPlaceMax)
  const found = new Int16Array(waitingMax + perPlaceMax)
  let body: Buffer = Buffer.alloc(0)
  let words = viewOf(body)
  let scanned = 0
  let count = 0
  let taken = 0

  function scan(): void {
    count = 0
    taken = 0
    while (count < waitingMax && scanned < body.length) {
      const at = findGroup(words, isAnchor, scanned)
      if (at < body.length) compare(at, placeOf(words.getUint32(at, true)))
      scanned = at + 2
    }
  }

  function compare(groupAt: number, place: number): void {
    for (const { literal, offset } of anchored.get(place) as readonly Anchored[]) {
      const at = groupAt - offset
      if (at < 0 || !isStillAt(at, literal)) continue
      places[count] = at
      found[count++] = literal
    }
  }

  function isStillAt(at: number, literal: number): boolean {
    const { bytes, isAnyCase } = known[literal] as (typeof known)[number]
    if (at + bytes.length > body.length) return false
    for (let index = 0; index < bytes.length; index++) {
      const byte = body[at + index] as number
      if (byte !== bytes[index] && !(isAnyCase && isLetter(byte) && (byte | 0x20) === bytes[index])) return false
    }
    return true
  }

  function next(): void {
    if (taken === count) scan()
    hit.at = taken < count ? (places[taken] as number) : Number.POSITIVE_INFINITY
    hit.literal = taken < count ? (found[taken++] as number) : -1
  }

  function start(bytes: Buffer, view: DataView): void {
    body = bytes
    words = view
    scanned = 0
    count = 0
    taken = 0
    next()
  }

  return { hit, start, next, isStillAt }
}

function placeOf(bytes: number): number {
  return Math.imul(bytes & 0xff_ffff, multiplier) >>> shift
}

/** The next even place from `from` where three bytes are in the table. Behind a literal that begins in the last bytes there
 *  is no room for a secret. */
function findGroup(view: DataView, isAnchor: Uint8Array, from: number): number {
  const last = view.byteLength - 4
  for (let at = from; at <= last; at += 2) {
    if (isAnchor[Math.imul(view.getUint32(at, true) & 0xff_ffff, multiplier) >>> shift] !== 0) return at
  }
  return view.byteLength
}

/** The most frequent pairs of letters in English, the first the most; of the others those
 *  of two small letters are not rare. */
const frequent = (
  'th he in er an re on at en nd ti es or te of ed is it al ar st to nt ng se ha as ou io le ve co me de hi ri ro ic ne ' +
  'ea ra ce li ch ll be ma si om ur ca el ta la ns di fo ho pe ec pr no ct us ac ot il tr ly nc et ut ss so rs un lo wa ' +
  'ge ie wh ee wi em ad ol rt po we na ul ni ts mo ow pa im mi ai sh ir su id os iv ia am fi ci vi pl ig tu ev ld ry mp ' +
  'fe bl ab gh ty op wo sa ay ex ke ui fr oo av ag if ap gr od bo sp rd do uc bu ei ov by rm ep tt oc fa ef cu rn pi'
).split(' ')

function weightOf(pair: string): number {
  const rank = frequent.indexOf(pair)
  if (rank >= 0) return frequent.length + 60 - rank
  return /^[a-z .][a-z .]$/.test(pair) ? 30 : 1
}

/** The two groups of the rarest four bytes, as little-endian numbers, in every case they may have. */
function groupsOf(bytes: Buffer, isAnyCase: boolean): readonly { readonly offset: number; readonly group: number }[] {
  const pairWeight = (at: number): number => weightOf(bytes.toString('latin1', at, at + 2))
  const weight = (at: number): number => Math.min(pairWeight(at), pairWeight(at + 1))
  const starts = Array.from({ length: Math.max(1, bytes.length - 3) }, (_, at) => at)
  const costOf = (at: number): number => weight(at) + weight(at + 1)
  const first = starts.reduce((best, at) => (costOf(at) < costOf(best) ? at : best), 0)
  const bytesAt = (at: number): readonly number[] => {
    const byte = bytes[at]
    if (byte === undefined) return wordBytes
    return isAnyCase && isLetter(byte) ? [byte, byte ^ 0x20] : [byte]
  }
  return [first, first + 1].flatMap((offset) =>
    bytesAt(offset).flatMap((low) =>
      bytesAt(offset + 1).flatMap((middle) =>
        bytesAt(offset + 2).map((high) => ({ offset, group: low | (middle << 8) | (high << 16) })),
      ),
    ),
  )
}

function isLetter(byte: number): boolean {
  const lower = byte | 0x20
  return lower >= 0x61 && lower <= 0x7a
}

const wordBytes = Array.from({ length: 128 }, (_, byte) => byte).filter((byte) =>
  /[\w-]/.test(String.fromCharCode(byte)),
)
