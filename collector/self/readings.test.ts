import { expect, test } from 'vitest'
import type { Sample } from '../metrics.ts'
import { openReadings } from './readings.ts'

const origin = { version: '1.0.0', instanceId: 'journal-1', hostName: 'here', startedUnixMs: 1_000 }

function counter(value: number, isLasting = false): Sample {
  return {
    name: 'tallylight_inserts_total',
    help: 'Inserts.',
    labels: { table: 't' },
    type: 'counter',
    value,
    isLasting,
  }
}

type Point = {
  readonly asDouble?: number
  readonly count?: string
  readonly bucketCounts?: readonly string[]
  readonly startTimeUnixNano: string
}
type Metric = {
  readonly name: string
  readonly unit: string
  readonly sum?: { readonly aggregationTemporality: number; readonly dataPoints: readonly Point[] }
  readonly gauge?: { readonly dataPoints: readonly Point[] }
  readonly histogram?: { readonly dataPoints: readonly Point[] }
}

function metricsOf(body: Buffer): readonly Metric[] {
  const request = JSON.parse(body.toString()) as {
    readonly resourceMetrics: readonly [{ readonly scopeMetrics: readonly [{ readonly metrics: readonly Metric[] }] }]
  }
  return request.resourceMetrics[0].scopeMetrics[0].metrics
}

const addedOf = (body: Buffer): number | undefined => metricsOf(body)[0]?.sum?.dataPoints[0]?.asDouble

test('readings: a counter is written as what it grew by, named as over OTLP', () => {
  const readings = openReadings(origin, [])
  const first = readings.take([counter(5)], 2_000)
  first.keep()
  expect(metricsOf(first.body)[0]).toMatchObject({
    name: 'tallylight.inserts',
    unit: '{insert}',
    sum: { aggregationTemporality: 1 },
  })
  expect([addedOf(first.body), addedOf(readings.take([counter(7)], 3_000).body)]).toEqual([5, 2])
})

test('readings: what was refused is in the next one', () => {
  const readings = openReadings(origin, [])
  readings.take([counter(5)], 2_000).keep()
  readings.take([counter(7)], 3_000)
  const third = readings.take([counter(8)], 4_000)
  expect(addedOf(third.body)).toBe(3)
  expect(metricsOf(third.body)[0]?.sum?.dataPoints[0]?.startTimeUnixNano).toBe('2000000000')
})

test('readings: a count that goes over restarts begins where it stood', () => {
  const readings = openReadings(origin, [counter(1_000, true)])
  expect(addedOf(readings.take([counter(1_004, true)], 2_000).body)).toBe(4)
})

test('readings: a histogram is the difference of its buckets, a gauge is its value', () => {
  const readings = openReadings(origin, [])
  const histogram = (counts: readonly number[], count: number): Sample => ({
    ...{ name: 'tallylight_lag_seconds', help: 'Lag.', labels: {}, type: 'histogram' },
    value: { counts, bounds: [1, 2], sum: count, count },
  })
  const gauge: Sample = { name: 'tallylight_journal_bytes', help: 'Size.', labels: {}, type: 'gauge', value: 9 }
  readings.take([histogram([1, 0, 0], 1), gauge], 2_000).keep()
  const [lag, journal] = metricsOf(readings.take([histogram([1, 3, 0], 4), gauge], 3_000).body)
  expect([
    lag?.name,
    lag?.unit,
    lag?.histogram?.dataPoints[0]?.count,
    lag?.histogram?.dataPoints[0]?.bucketCounts,
  ]).toEqual(['tallylight.lag', 's', '3', ['0', '3', '0']])
  expect([journal?.name, journal?.gauge?.dataPoints[0]?.asDouble]).toEqual(['tallylight.journal', 9])
})
