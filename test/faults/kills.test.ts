import { expect, test } from 'vitest'
import { namedPoints, runKills } from './kills.ts'

for (const [victim, kills] of [
  ['collector', 4],
  ['clickhouse', 4],
  ['point', namedPoints.length],
] as const) {
  const name = `kills: a ${victim} killed ${kills} times under load loses no answered span and doubles none`
  // Every kill is a start of both engines.
  test(name, { timeout: 30_000 + kills * 15_000 }, async () => {
    const result = await runKills({ kills, seed: 7, victims: [victim] })
    expect(result.answered).toBeGreaterThan(0)
    expect({ lost: result.lost, doubled: result.doubled }).toEqual({ lost: 0, doubled: 0 })
    expect(result.accepted).toBe(result.stored + result.quarantined + result.duplicate)
  })
}
