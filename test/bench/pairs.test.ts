import { expect, test } from 'vitest'
import { type Pair, reportPairs } from './pairs.ts'

const calm = { kernelSeconds: 1, stolenShare: 0, pressurePercent: 5 }
const pairsOf = (ratios: readonly number[]): Pair[] => ratios.map((ratio) => ({ ...calm, a: 2 * ratio, b: 2 }))

test('pairs: a difference is claimed when the interval of the ratio excludes 1, and not before', () => {
  const same = reportPairs(pairsOf([0.9, 1.1, 1.02, 0.97, 1.05, 0.95, 1]))
  expect(same).toMatchObject({ isDifferent: false, ratio: { median: 1 } })
  const faster = reportPairs(pairsOf([0.88, 0.93, 0.9, 0.91, 0.95, 0.86, 0.9]))
  expect(faster).toMatchObject({ isDifferent: true, ratio: { median: 0.9 }, a: { min: 1.72, median: 1.8 } })
  expect(faster.ratio.low).toBeGreaterThanOrEqual(0.86)
  expect(faster.ratio.high).toBeLessThan(1)
})

test('pairs: those measured in bad weather are left out and counted', () => {
  const good = pairsOf([1, 1, 1, 1])
  const bad: Pair[] = [
    { ...calm, a: 9, b: 1, stolenShare: 0.03 },
    { ...calm, a: 9, b: 1, pressurePercent: 41 },
    { ...calm, a: 9, b: 1, kernelSeconds: 1.2 },
  ]
  expect(reportPairs([...good, ...bad])).toMatchObject({ pairs: 4, rejected: 3, ratio: { median: 1, high: 1 } })
  expect(reportPairs(bad.slice(0, 2))).toMatchObject({ pairs: 0, rejected: 2, isDifferent: false })
})
