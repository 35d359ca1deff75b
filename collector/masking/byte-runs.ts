// Runs of bytes of some classes, which is nearly all that secrets are made of. All classes are ASCII: a run never begins or
// ends inside a character of several bytes.

export const digit = 1
export const upper = 2
export const lower = 4
/** `-` and `_`. */
export const dash = 8
/** `+`, `/` and `=`. */
export const base64Sign = 16
export const dot = 32
/** `%`, before the two digits that stand for a byte in a URL. */
export const percent = 64
export const tilde = 128

export const letter = upper | lower
export const alphanumeric = digit | letter
export const word = alphanumeric | dash
export const base64 = alphanumeric | base64Sign

const classes = new Uint8Array(256)
for (let byte = 0; byte < 128; byte++) {
  const sign = String.fromCharCode(byte)
  if (/\d/.test(sign)) classes[byte] = digit
  else if (/[A-Z]/.test(sign)) classes[byte] = upper
  else if (/[a-z]/.test(sign)) classes[byte] = lower
  else if (/[-_]/.test(sign)) classes[byte] = dash
  else if (/[+/=]/.test(sign)) classes[byte] = base64Sign
  else if (sign === '.') classes[byte] = dot
  else if (sign === '%') classes[byte] = percent
  else if (sign === '~') classes[byte] = tilde
}

export function isOf(byte: number, allowed: number): boolean {
  return ((classes[byte] as number) & allowed) !== 0
}

export function runEnd(bytes: Buffer, from: number, end: number, allowed: number): number {
  let at = from
  while (at < end && ((classes[bytes[at] as number] as number) & allowed) !== 0) at++
  return at
}

/** Where the run that ends at `to` begins. */
export function runStart(bytes: Buffer, start: number, to: number, allowed: number): number {
  let at = to
  while (at > start && ((classes[bytes[at - 1] as number] as number) & allowed) !== 0) at--
  return at
}

export function digitsIn(bytes: Buffer, from: number, to: number): number {
  let digits = 0
  for (let at = from; at < to; at++) if (classes[bytes[at] as number] === digit) digits++
  return digits
}

/** Whether there is a byte of each of these classes. */
export function hasEach(bytes: Buffer, from: number, to: number, needed: number): boolean {
  let missing = needed
  for (let at = from; at < to && missing !== 0; at++) missing &= ~(classes[bytes[at] as number] as number)
  return missing === 0
}

/** Digits, capitals and small letters together: what random text of some length has, and names seldom do. */
export function isMixed(bytes: Buffer, from: number, to: number): boolean {
  return hasEach(bytes, from, to, alphanumeric)
}

/** Whether one of the pieces between dashes looks random. Names are made of words, which are short or have no digits. */
export function hasRandomPiece(bytes: Buffer, from: number, to: number): boolean {
  for (let at = from; at < to; ) {
    const pieceEnd = runEnd(bytes, at, to, alphanumeric)
    if (pieceEnd - at >= 16 && isMixed(bytes, at, pieceEnd)) return true
    if (pieceEnd - at >= 32 && digitsIn(bytes, at, pieceEnd) > 0) return true
    at = pieceEnd + 1
  }
  return false
}

export function startsWith(bytes: Buffer, at: number, end: number, text: string): boolean {
  if (at + text.length > end) return false
  for (let index = 0; index < text.length; index++) if (bytes[at + index] !== text.charCodeAt(index)) return false
  return true
}
