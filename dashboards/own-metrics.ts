// The collector's own numbers, as it writes them into its tables once a minute (collector/self/readings.ts). Counters and
// histograms are differences to the reading before, so they are added up over time and over collectors alike.
import { chosen, ownTenant } from './filters.ts'

/** Readings come once a minute; a shorter bucket would be empty. */
export const readingInterval = '1m'

type Table = 'gauge' | 'sum' | 'histogram'

const own = `$__timeFilter(TimeUnix) AND TenantId = '${ownTenant}' AND ServiceName = '${ownTenant}'`
const ofCollector = `AND ${chosen(`ResourceAttributes['service.instance.id']`, 'collector')}`

function from(table: Table, metric: string): string {
  return `FROM otel_metrics_${table}\nWHERE ${own} AND MetricName = '${metric}'\n`
}

/** FROM and WHERE of one metric, of the collectors that the reader chose. */
export const gauges = `FROM otel_metrics_gauge\nWHERE ${own}\n${ofCollector}`
export const gauge = (metric: string): string => from('gauge', metric) + ofCollector
export const counter = (metric: string): string => from('sum', metric) + ofCollector
export const histogram = (metric: string): string => from('histogram', metric) + ofCollector

/** The same of all collectors, for alerts: they know no variables. */
export const everyGauge = (metric: string): string => from('gauge', metric)
export const everyCounter = (metric: string): string => from('sum', metric)
export const everyHistogram = (metric: string): string => from('histogram', metric)

/** The bound of the bucket in which a share of all falls; the last bound for what lies above it. */
export function histogramQuantile(level: number): string {
  const bounds = 'any(ExplicitBounds)'
  const sums = 'arrayCumSum(sumForEach(BucketCounts))'
  return `${bounds}[least(length(${bounds}), arrayFirstIndex(sum -> sum >= ${level} * sum(Count), ${sums}))]`
}
