// Seeded randomness for fuzzing and for benchmark corpora: the same seed gives the same bytes on every machine.
// sfc32 (Chris Doty-Humphrey, PractRand-clean): 128 bits of state, so that millions of random 64-bit ids do not repeat; a
// weak generator here once made ids repeat and compressed a corpus 28-fold.

export type Random = {
  /** 32 random bits, unsigned. */
  readonly bits: () => number
  /** 0 ≤ n < bound. */
  readonly below: (bound: number) => number
  /** From `low` to `high`, both included. */
  readonly between: (low: number, high: number) => number
  readonly chance: (probability: number) => boolean
  readonly pick: <Item>(items: readonly Item[]) => Item
  readonly bytes: (length: number) => Buffer
  /** 64 random bits, unsigned. */
  readonly wide: () => bigint
}

export function seededRandom(seed: number): Random {
  let a = seed >>> 0
  let b = Math.floor(seed / 2 ** 32) >>> 0
  let c = 0x9e37_79b9
  let counter = 1
  const bits = () => {
    const sum = (a + b + counter) | 0
    counter = (counter + 1) | 0
    a = b ^ (b >>> 9)
    b = (c + (c << 3)) | 0
    c = ((c << 21) | (c >>> 11)) + sum
    return sum >>> 0
  }
  for (let round = 0; round < 16; round += 1) bits()
  const below = (bound: number) => Math.floor((bits() / 2 ** 32) * bound)
  const fill = (target: Buffer) => {
    for (let at = 0; at < target.length; at += 1) target[at] = bits() >>> 24
    return target
  }
  return {
    bits,
    below,
    between: (low, high) => low + below(high - low + 1),
    chance: (probability) => bits() < probability * 2 ** 32,
    pick: (items) => items[below(items.length)]!,
    bytes: (length) => fill(Buffer.allocUnsafe(length)),
    wide: () => (BigInt(bits()) << 32n) | BigInt(bits()),
  }
}
