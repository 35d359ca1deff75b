// Two builds compared on a machine that others use too: in pairs, A B B A, because what disturbs one half of a pair mostly
// disturbs the other. Pairs measured in bad weather are left out, and counted. A difference is claimed only when the
// interval of the ratio excludes 1: single runs cannot show less than about 20 %, seven pairs about 5 %.
import { seededRandom } from '../random.ts'
import { measureKernel, readWeather, stolenShare } from './machine.ts'

const stolenShareMax = 0.02
const pressurePercentMax = 40
const kernelShareMax = 0.1
const resamples = 2000

export type Pair = {
  readonly a: number
  readonly b: number
  readonly kernelSeconds: number
  readonly stolenShare: number
  readonly pressurePercent: number
}

export type PairsReport = {
  readonly pairs: number
  /** Left out: time stolen by the host, cores contended, or the kernel off the median. */
  readonly rejected: number
  readonly a: { readonly min: number; readonly median: number }
  readonly b: { readonly min: number; readonly median: number }
  /** Of the pairs' ratios a / b, with 95 % of what resampling gives. */
  readonly ratio: { readonly median: number; readonly low: number; readonly high: number }
  readonly isDifferent: boolean
  readonly kernelSeconds: number
}

/** `measure` returns CPU-seconds per million records of the build. */
export async function measurePairs(count: number, measure: (build: 'a' | 'b') => Promise<number>): Promise<Pair[]> {
  const pairs: Pair[] = []
  for (let at = 0; at < count; at++) {
    const kernelSeconds = measureKernel()
    const before = readWeather()
    const measured = { a: 0, b: 0 }
    for (const build of at % 2 === 0 ? (['a', 'b'] as const) : (['b', 'a'] as const)) {
      measured[build] = await measure(build)
    }
    const after = readWeather()
    pairs.push({
      ...measured,
      kernelSeconds,
      stolenShare: stolenShare(before, after),
      pressurePercent: after.pressurePercent,
    })
  }
  return pairs
}

export function reportPairs(all: readonly Pair[]): PairsReport {
  const kernelSeconds = median(all.map((pair) => pair.kernelSeconds))
  const pairs = all.filter(
    (pair) =>
      pair.stolenShare <= stolenShareMax &&
      pair.pressurePercent <= pressurePercentMax &&
      Math.abs(pair.kernelSeconds / kernelSeconds - 1) <= kernelShareMax,
  )
  const ratios = pairs.map(({ a, b }) => a / b)
  const [low, high] = interval(ratios)
  const summary = (values: readonly number[]) => ({ min: round(Math.min(...values)), median: round(median(values)) })
  return {
    pairs: pairs.length,
    rejected: all.length - pairs.length,
    a: summary(pairs.map(({ a }) => a)),
    b: summary(pairs.map(({ b }) => b)),
    ratio: { median: round(median(ratios)), low: round(low), high: round(high) },
    isDifferent: pairs.length > 0 && (low > 1 || high < 1),
    kernelSeconds: round(kernelSeconds),
  }
}

/** What the median of 95 % of the resampled sets lies in. */
function interval(values: readonly number[]): readonly [low: number, high: number] {
  const random = seededRandom(1)
  const medians = Array.from({ length: resamples }, () => median(values.map(() => random.pick(values)))).sort(
    (a, b) => a - b,
  )
  return [medians[Math.floor(resamples * 0.025)] ?? Number.NaN, medians[Math.floor(resamples * 0.975)] ?? Number.NaN]
}

function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b)
  const middle = sorted.length >> 1
  const upper = sorted[middle] ?? Number.NaN
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] ?? Number.NaN) + upper) / 2
}

function round(value: number): number {
  return Number(value.toFixed(3))
}
