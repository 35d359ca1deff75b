// JSON numbers to 64-bit integers and doubles, exactly. Integers are kept as two 32-bit halves: a BigInt per timestamp would
// cost more than the rest of the span. What is not usual (fractions, exponents, very long tokens) goes a slow, plain way.
import { fault, type Source, skipNumber, unexpected } from './json-source.ts'

/** Where the readers leave what they read. `low` and `high` are the halves of the magnitude, as signed 32-bit integers. */
export type NumberRead = { low: number; high: number; isNegative: boolean; double: number }

export function openNumberRead(): NumberRead {
  return { low: 0, high: 0, isNegative: false, double: 0.5 }
}

const MINUS = 0x2d
const ZERO = 0x30
const DOT = 0x2e
/** A token with a fraction or an exponent may be this long and still be read as an integer; digits alone may always. */
const slowTokenCharsMax = 400

/** Reads an integer: digits, or a number whose fraction and exponent leave an integer (1.5e3). Its end is not judged. */
export function readInteger(source: Source, start: number, into: NumberRead): number {
  const { bytes } = source
  into.isNegative = bytes[start] === MINUS
  const first = into.isNegative ? start + 1 : start
  const nanos = readNineteenDigits(source, first, into)
  if (nanos !== first) return nanos
  let head = 0
  let tail = 0
  let scale = 1
  let at = first
  for (; at < first + 15 && isDigit(bytes[at]); at += 1) head = head * 10 + bytes[at]! - ZERO
  for (; at < first + 20 && isDigit(bytes[at]); at += 1) {
    tail = tail * 10 + bytes[at]! - ZERO
    scale *= 10
  }
  if (at === first) return unexpected(source, at, 'a decimal integer')
  const next = bytes[at]
  if (isDigit(next)) return fault(source, start, 'the number does not fit into 64 bits')
  if (next === DOT || next === 0x65 || next === 0x45) return readScaledInteger(source, start, into)
  if (bytes[first] === ZERO && at > first + 1) return fault(source, start, 'a number starts with 0')
  if (!setHalves(into, head, scale, tail)) return fault(source, start, 'the number does not fit into 64 bits')
  return at
}

function isDigit(byte: number | undefined): boolean {
  return byte !== undefined && byte >= ZERO && byte <= 0x39
}

/** Times of this century have 19 digits: sixteen are read as four words. Returns `start` when it is not such a number. */
function readNineteenDigits(source: Source, start: number, into: NumberRead): number {
  const { bytes, view, end } = source
  if (start + 20 > end) return start
  const a = view.getInt32(start, true)
  if (!isFourDigits(a)) return start
  const b = view.getInt32(start + 4, true)
  const c = view.getInt32(start + 8, true)
  const d = view.getInt32(start + 12, true)
  if (!isFourDigits(b) || !isFourDigits(c) || !isFourDigits(d)) return start
  const e = bytes[start + 16]! - ZERO
  const f = bytes[start + 17]! - ZERO
  const g = bytes[start + 18]! - ZERO
  if (e < 0 || e > 9 || f < 0 || f > 9 || g < 0 || g > 9) return start
  const next = bytes[start + 19]!
  if (bytes[start] === ZERO || isDigit(next) || next === DOT || next === 0x65 || next === 0x45) return start
  const head = (fourDigits(a) * 10_000 + fourDigits(b)) * 10_000 + fourDigits(c)
  setHalves(into, head, 10_000_000, fourDigits(d) * 1000 + e * 100 + f * 10 + g)
  return start + 19
}

function isFourDigits(word: number): boolean {
  return (word & -0x0f0f0f10) === 0x30303030 && ((word + 0x06060606) & -0x0f0f0f10) === 0x30303030
}

function fourDigits(word: number): number {
  const digits = word & 0x0f0f0f0f
  const pairs = (digits * 10 + (digits >>> 8)) & 0x00ff00ff
  return (pairs & 0xff) * 100 + (pairs >>> 16)
}

/** head × scale + tail in two halves; false when it needs more than 64 bits. head < 10^15 and scale ≤ 10^7, so that every
 *  product of a part of it stays below 2^53 and is exact. */
function setHalves(into: NumberRead, head: number, scale: number, tail: number): boolean {
  const upper = Math.floor(head / 0x100_0000)
  const lower = head - upper * 0x100_0000
  const product = upper * scale
  const productHigh = Math.floor(product / 0x100)
  const rest = (product - productHigh * 0x100) * 0x100_0000 + lower * scale + tail
  const carry = Math.floor(rest / 0x1_0000_0000)
  const high = productHigh + carry
  into.low = (rest - carry * 0x1_0000_0000) | 0
  into.high = high | 0
  return high < 0x1_0000_0000
}

const scaledPattern = /^-?(\d+)(?:\.(\d+))?(?:[eE]([+-]?\d+))?$/

function readScaledInteger(source: Source, start: number, into: NumberRead): number {
  const end = skipNumber(source, start)
  if (end - start > slowTokenCharsMax) {
    return fault(source, start, `an integer of ${end - start} characters, at most ${slowTokenCharsMax} are read`)
  }
  const parts = scaledPattern.exec(source.bytes.toString('latin1', start, end))
  if (!parts) return unexpected(source, start, 'a decimal integer')
  const fraction = parts[2] ?? ''
  const allDigits = (parts[1]! + fraction).replace(/^0+/, '')
  const digits = allDigits.replace(/0+$/, '')
  const exponent = Number(parts[3] ?? 0) - fraction.length + allDigits.length - digits.length
  into.low = 0
  into.high = 0
  if (digits === '') return end
  if (exponent < 0) return fault(source, start, 'the number is not an integer')
  const value = digits.length + exponent > 20 ? 1n << 64n : BigInt(digits) * 10n ** BigInt(exponent)
  if (value >= 1n << 64n) return fault(source, start, 'the number does not fit into 64 bits')
  into.low = Number(value & 0xffff_ffffn) | 0
  into.high = Number(value >> 32n) | 0
  return end
}

const powersOfTen = Float64Array.from({ length: 16 }, (_, exponent) => 10 ** exponent)

/** Reads a double. Up to 15 digits without an exponent are one exact division away; the rest is `Number`'s work. */
export function readDouble(source: Source, start: number, into: NumberRead): number {
  const { bytes } = source
  const isNegative = bytes[start] === MINUS
  const first = isNegative ? start + 1 : start
  let digits = 0
  let at = first
  for (; at < first + 15 && isDigit(bytes[at]); at += 1) digits = digits * 10 + bytes[at]! - ZERO
  const whole = at - first
  let fraction = 0
  if (bytes[at] === DOT) {
    at += 1
    const fractionStart = at
    for (; at < first + 16 && isDigit(bytes[at]); at += 1) digits = digits * 10 + bytes[at]! - ZERO
    fraction = at - fractionStart
    if (fraction === 0) return readLongDouble(source, start, into)
  }
  const next = bytes[at]
  const isUsual =
    whole > 0 && (bytes[first] !== ZERO || whole === 1) && !isDigit(next) && next !== 0x65 && next !== 0x45
  if (!isUsual || next === DOT) return readLongDouble(source, start, into)
  const value = digits / powersOfTen[fraction]!
  into.double = isNegative ? -value : value
  return at
}

function readLongDouble(source: Source, start: number, into: NumberRead): number {
  const end = skipNumber(source, start)
  const value = Number(source.bytes.toString('latin1', start, end))
  if (!Number.isFinite(value)) return fault(source, start, 'the number does not fit into a double')
  into.double = value
  return end
}
