// Breaks wire bytes the ways that networks, bugs and attackers do.
import type { Random } from '../random.ts'

/** One to four changes: flipped bits, truncations, removed or doubled stretches, edited lengths, bytes from `other`. */
export function mutate(bytes: Buffer, other: Buffer, random: Random): Buffer {
  let out = Buffer.from(bytes)
  for (let left = random.between(1, 4); left > 0; left -= 1) out = change(out, other, random)
  return out
}

function change(bytes: Buffer, other: Buffer, random: Random): Buffer<ArrayBuffer> {
  const at = random.below(bytes.length + 1)
  const to = Math.min(bytes.length, at + random.below(12))
  const before = bytes.subarray(0, at)
  switch (random.below(8)) {
    case 0:
      return Buffer.from(before)
    case 1:
      return Buffer.concat([before, bytes.subarray(to)])
    case 2:
      return Buffer.concat([before, random.bytes(random.between(1, 6)), bytes.subarray(at)])
    case 3:
      return Buffer.concat([bytes.subarray(0, to), bytes.subarray(at)])
    case 4: {
      const from = random.below(other.length + 1)
      return Buffer.concat([before, other.subarray(from, from + random.below(40)), bytes.subarray(to)])
    }
    case 5:
      return setByte(bytes, at, (byte) => byte + random.pick([-2, -1, 1, 2]))
    case 6:
      return setByte(bytes, at, () => random.pick([0, 0x7f, 0x80, 0xff, 0x0a, 0x12, 0x0b, 0x0c]))
    default:
      return setByte(bytes, at, (byte) => byte ^ (1 << random.below(8)))
  }
}

function setByte(bytes: Buffer, at: number, next: (byte: number) => number): Buffer<ArrayBuffer> {
  const out = Buffer.from(bytes)
  if (at < out.length) out[at] = next(out[at]!) & 0xff
  return out
}
