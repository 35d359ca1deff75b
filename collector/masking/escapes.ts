// Text as it reads, without the escapes of JSON that it was written with, and where each of its bytes stands. What is masked is
// looked for in text as it reads: behind `\n` begins a line and no n, and `\u002B49` is +49. It is written over where it stands
// and with its escapes, so the JSON around it stays JSON.
//
// JSON that stands in JSON has more backslashes; as many as stand together are one escape here. Text that is no JSON may look
// as if there were one (`C:\new`): then there is a border where none is, and something more is masked.

export type Unescaped = {
  /** In UTF-8, and never longer than it was. */
  readonly bytes: Buffer
  /** Where in the escaped text a byte stands, or its end. To be asked for from the first to the last. */
  placeOf(at: number): number
}

const backslash = 0x5c
const replacement = 0xfffd

/** Undefined: there is no backslash in it. */
export function unescapeJson(bytes: Buffer, start: number, end: number): Unescaped | undefined {
  // Of these bytes alone: to the end of a request from each of its texts would be a long way.
  const before = bytes.subarray(start, end).indexOf(backslash)
  if (before < 0) return undefined
  const read = Buffer.allocUnsafe(end - start)
  let length = bytes.copy(read, 0, start, start + before)
  for (let at = start + before; at < end; ) {
    const byte = bytes[at] as number
    if (byte === backslash) {
      const size = sizeOfEscape(bytes, at, end)
      length += writeSign(read, length, signOfEscape(bytes, at, size))
      at += size
    } else {
      read[length++] = byte
      at++
    }
  }
  return { bytes: read.subarray(0, length), placeOf: openPlaces(bytes, start, end) }
}

/** Nothing is remembered of where what stands: it is asked for only where something is masked, which is seldom. */
function openPlaces(bytes: Buffer, start: number, end: number): (at: number) => number {
  let place = start
  let seen = 0
  return (at) => {
    while (seen < at) {
      const isEscape = bytes[place] === backslash
      const size = isEscape ? sizeOfEscape(bytes, place, end) : 1
      seen += isEscape ? sizeOfSign(signOfEscape(bytes, place, size)) : 1
      place += size
    }
    return place
  }
}

function sizeOfEscape(bytes: Buffer, at: number, end: number): number {
  let to = at + 1
  while (to < end && bytes[to] === backslash) to++
  if (to === end) return to - at
  if (bytes[to] === 0x75 && to + 5 <= end && readHex(bytes, to + 1) >= 0) return to + 5 - at
  return to - at + (escaped[bytes[to] as number] === 0 ? 0 : 1)
}

/** A backslash where it escapes nothing. */
function signOfEscape(bytes: Buffer, at: number, size: number): number {
  const last = bytes[at + size - 1] as number
  if (last === backslash) return backslash
  if (size >= 6 && bytes[at + size - 5] === 0x75 && bytes[at + size - 6] === backslash)
    return readHex(bytes, at + size - 4)
  return escaped[last] as number
}

/** What stands for what behind a backslash; 0 for nothing. */
const escaped = new Uint8Array(256)
for (const pair of ['""', '//', 'b\b', 'f\f', 'n\n', 'r\r', 't\t']) escaped[pair.charCodeAt(0)] = pair.charCodeAt(1)

/** Negative where it is none. */
function readHex(bytes: Buffer, at: number): number {
  let value = 0
  for (let index = at; index < at + 4; index++) value = value * 16 + (hexDigits[bytes[index] as number] as number)
  return value < 0 ? -1 : value
}

const hexDigits = new Int32Array(256).fill(-(16 ** 5))
for (const digit of '0123456789abcdefABCDEF') hexDigits[digit.charCodeAt(0)] = Number.parseInt(digit, 16)

function sizeOfSign(sign: number): number {
  return sign < 0x80 ? 1 : sign < 0x800 ? 2 : 3
}

/** UTF-8. Of a sign that takes two escapes each half is a sign that nobody looks for. */
function writeSign(to: Buffer, at: number, sign: number): number {
  const size = sizeOfSign(sign)
  const whole = sign >= 0xd800 && sign <= 0xdfff ? replacement : sign
  if (size === 1) to[at] = whole
  else if (size === 2) {
    to[at] = 0xc0 | (whole >> 6)
    to[at + 1] = 0x80 | (whole & 0x3f)
  } else {
    to[at] = 0xe0 | (whole >> 12)
    to[at + 1] = 0x80 | ((whole >> 6) & 0x3f)
    to[at + 2] = 0x80 | (whole & 0x3f)
  }
  return size
}

const slash = Buffer.from('\\/')
const spelled = Buffer.from('\\u00')

export type EscapeSearch = {
  start(body: Buffer): void
  /** Whether one of a sign that secrets and their names are made of is in these bytes. Those that only stand before or behind a
   *  secret, as `\n` and `\"`, are known where it is judged. To be asked from the first to the last. */
  hasAny(start: number, end: number): boolean
}

export function openEscapeSearch(): EscapeSearch {
  let body: Buffer = slash
  let slashAt = 0
  let spelledAt = 0

  function findSlash(from: number): void {
    const at = body.indexOf(slash, from)
    slashAt = at < 0 ? Number.POSITIVE_INFINITY : at
  }

  /** `\u0020` to `\u007f`. */
  function findSpelled(from: number): void {
    let at = body.indexOf(spelled, from)
    while (at >= 0 && !isOfAscii(body[at + spelled.length])) at = body.indexOf(spelled, at + 1)
    spelledAt = at < 0 ? Number.POSITIVE_INFINITY : at
  }

  return {
    start: (bytes) => {
      body = bytes
      findSlash(0)
      findSpelled(0)
    },
    hasAny: (start, end) => {
      if (slashAt < start) findSlash(start)
      if (spelledAt < start) findSpelled(start)
      return slashAt < end || spelledAt < end
    },
  }
}

function isOfAscii(digit: number | undefined): boolean {
  return digit !== undefined && digit >= 0x32 && digit <= 0x37
}
