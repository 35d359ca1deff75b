// Protobuf bytes being written. A message's length is not known before its end: room for the usual width is left, and the
// length is written back, padded with continuation bits (legal protobuf, if not the shortest). Only a message that outgrows
// its room is moved. Whoever writes checks `at` against `roomEnd` first; the slack behind it holds any tag, number or length.
import assert from 'node:assert/strict'
import { limits } from '../limits.ts'

export type WireOutput = {
  bytes: Buffer
  view: DataView
  at: number
  roomEnd: number
}

/** Free bytes behind `roomEnd`, so that a field of fixed size, or two and a length, need one check and not five. */
const slackBytes = 128

export function openWireOutput(capacityBytes: number): WireOutput {
  const bytes = Buffer.allocUnsafeSlow(capacityBytes + slackBytes)
  return { bytes, view: new DataView(bytes.buffer), at: 0, roomEnd: capacityBytes }
}

/** What is written would be larger than a request may be. */
export class WireOverflow extends Error {}

/** Makes room for `more` bytes (and the slack behind them), or throws a WireOverflow. */
export function growWireOutput(output: WireOutput, more: number): void {
  if (output.at + more > limits.jsonWireBytesMax) throw new WireOverflow()
  const capacityBytes = Math.min(Math.max(output.roomEnd * 2, output.at + more), limits.jsonWireBytesMax)
  const grown = openWireOutput(capacityBytes)
  output.bytes.copy(grown.bytes, 0, 0, output.at)
  output.bytes = grown.bytes
  output.view = grown.view
  output.roomEnd = grown.roomEnd
}

export function putTag(output: WireOutput, tag: number): void {
  output.bytes[output.at] = tag
  output.at += 1
  if (tag > 0xff) {
    output.bytes[output.at] = tag >> 8
    output.at += 1
  }
}

/** A length: below 2^28, which the output's own bound makes sure of. */
export function putLength(output: WireOutput, length: number): void {
  const { bytes } = output
  let at = output.at
  let rest = length
  while (rest > 0x7f) {
    bytes[at] = (rest & 0x7f) | 0x80
    at += 1
    rest >>>= 7
  }
  bytes[at] = rest
  output.at = at + 1
}

/** A 64-bit number as a varint, from its two halves. */
export function putVarint(output: WireOutput, low: number, high: number): void {
  const { bytes } = output
  let at = output.at
  let lo = low >>> 0
  let hi = high >>> 0
  while (hi !== 0 || lo > 0x7f) {
    bytes[at] = (lo & 0x7f) | 0x80
    at += 1
    lo = ((lo >>> 7) | (hi << 25)) >>> 0
    hi >>>= 7
  }
  bytes[at] = lo
  output.at = at + 1
}

export function putFixed64(output: WireOutput, low: number, high: number): void {
  output.view.setInt32(output.at, low, true)
  output.view.setInt32(output.at + 4, high, true)
  output.at += 8
}

/** Writes the length of what stands behind the `width` bytes left free at `lengthAt`, moving it where they are too few. */
export function closeLength(output: WireOutput, lengthAt: number, width: number): void {
  const length = output.at - lengthAt - width
  const needed = length < 0x80 ? 1 : length < 0x4000 ? 2 : length < 0x20_0000 ? 3 : 4
  assert(length < 0x1000_0000, 'a protobuf length of more than 28 bits: the bound of the output is not kept')
  let used = width
  if (needed > width) {
    output.bytes.copyWithin(lengthAt + needed, lengthAt + width, output.at)
    output.at += needed - width
    used = needed
  }
  const { bytes } = output
  let rest = length
  for (let at = lengthAt; at < lengthAt + used - 1; at += 1) {
    bytes[at] = (rest & 0x7f) | 0x80
    rest >>>= 7
  }
  bytes[lengthAt + used - 1] = rest
}
