// Every bound of the collector, with its unit in the name and the reason beside it. Bounds that lean on each other are
// asserted at the end, so that a changed number fails at start and not at three in the morning.
import assert from 'node:assert/strict'

const KiB = 1024
const MiB = 1024 * KiB
const GiB = 1024 * MiB

export const limits = {
  /** OTLP 1.11 recommends 64 MiB, before and after decompression. */
  requestBytesMax: 64 * MiB,
  requestInflatedBytesMax: 64 * MiB,
  /** Bodies held in memory at once, over all connections; more is answered 503, so that a slow disk cannot fill the heap. */
  bodiesInFlightBytesMax: 128 * MiB,
} as const

assert(limits.bodiesInFlightBytesMax >= limits.requestBytesMax, 'one request of the largest size must fit in flight')
export { GiB, KiB, MiB }
