import { describe, expect, test } from 'vitest'
import { compare } from './instrumentation-run.ts'
import type { Order, Transport } from './instrumentation-service.ts'

const small = { count: 8, parallel: 4, requestBytes: 1_024, asksForUsage: false } as const
const call: Order = { ...small, isStream: false, pace: 'burst' }
const stream: Order = { ...small, isStream: true, pace: 'event' }

/** What a caller reads of a reply, or of a stream of five events: another number is another benchmark. */
const cases: readonly (readonly [Transport, string, Order, number])[] = [
  ['fetch', 'call', call, 996],
  ['fetch', 'stream', stream, 2206],
  ['undici', 'call', call, 996],
  ['http', 'stream', stream, 2206],
  ['openai', 'stream', stream, 23],
]

describe('bench instrumentation', () => {
  test.each(cases)(
    'over %s, a %s: everybody reads the same bytes, watched or not',
    async (transport, _, order, bytes) => {
      const compared = await compare({
        transport,
        variants: ['none', 'tallylight', 'spans'],
        content: 'metadata',
        rivals: '',
        events: 5,
        rounds: 1,
        order,
        isPinned: false,
        kernelSeconds: 1,
      })
      expect(compared.map(({ bytesPerCall }) => bytesPerCall)).toEqual([bytes, bytes, bytes])
      for (const { cpuMicrosPerCall } of compared) expect(cpuMicrosPerCall).toBeGreaterThan(0)
    },
  )
})
