import { expect, test } from 'vitest'
import { measureReceivers } from './receivers.ts'

test('bench receivers: every variant reads the same requests, and its CPU is counted', async () => {
  const costs = await measureReceivers(40, 1)
  for (const { microsecondsPerRequest } of costs) expect(microsecondsPerRequest).toBeGreaterThan(0)
  const digestsOf = (bytes: number) => new Set(costs.filter((cost) => cost.bytes === bytes).map(({ digest }) => digest))
  for (const bytes of [422, 37_000, 4_000, 200_000]) expect(digestsOf(bytes).size).toBe(1)
})
