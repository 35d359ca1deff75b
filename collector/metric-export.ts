// The collector's own metrics over OTLP, for those who watch by push. Off unless OpenTelemetry's environment names an
// endpoint. The numbers are those of /metrics, read once per interval; nothing is measured twice.
import { ValueType } from '@opentelemetry/api'
import { OTLPMetricExporter as JsonExporter } from '@opentelemetry/exporter-metrics-otlp-http'
import { OTLPMetricExporter as ProtobufExporter } from '@opentelemetry/exporter-metrics-otlp-proto'
import { detectResources, envDetector, resourceFromAttributes } from '@opentelemetry/resources'
import {
  AggregationTemporality,
  type DataPoint,
  DataPointType,
  type MetricData,
  type PushMetricExporter,
  type ResourceMetrics,
} from '@opentelemetry/sdk-metrics'
import { limits } from './limits.ts'
import type { MetricExportSettings } from './metric-export-settings.ts'
import { readingOf, type Sample } from './metrics.ts'
import type { Log } from './receive/admission.ts'
import { after } from './receive/receiver.ts'

/** Sends every interval, and a last time at the end. */
export function startMetricExport(options: {
  readonly settings: Extract<MetricExportSettings, { kind: 'on' }>
  readonly version: string
  readonly instanceId: string
  readonly read: () => readonly Sample[]
  readonly count: (outcome: 'exported' | 'failed') => void
  readonly log: Log
}): AsyncDisposable {
  const { settings, version, count, log } = options
  // URL, headers, compression, timeout and certificates are read by the exporter itself, by OpenTelemetry's rules.
  const exporter: PushMetricExporter = settings.protocol === 'http/json' ? new JsonExporter() : new ProtobufExporter()
  const resource = resourceFromAttributes({
    'service.name': 'tallylight',
    'service.version': version,
    'service.instance.id': options.instanceId,
  }).merge(detectResources({ detectors: [envDetector] }))
  let isFailing = false
  let underWay: Promise<void> | undefined
  let ended: Promise<void> | undefined

  function send(): Promise<void> {
    // One that is still under way is as old as the endpoint is slow: the next reading says the same and more.
    underWay ??= exportOnce().finally(() => {
      underWay = undefined
    })
    return underWay
  }

  async function exportOnce(): Promise<void> {
    const scope = { name: 'tallylight', version }
    const metrics: ResourceMetrics = {
      resource,
      scopeMetrics: [{ scope, metrics: metricsOf(options.read(), Date.now()) }],
    }
    const result = await new Promise<Parameters<Parameters<PushMetricExporter['export']>[1]>[0]>((resolve) =>
      exporter.export(metrics, resolve),
    )
    const isFailed = result.code !== exportSucceeded
    count(isFailed ? 'failed' : 'exported')
    if (isFailed && !isFailing)
      log.warn({ reason: result.error?.message ?? 'unknown' }, 'the metrics of the collector could not be exported')
    if (!isFailed && isFailing) log.info({}, 'the metrics of the collector are exported again')
    isFailing = isFailed
  }

  async function lastWords(): Promise<void> {
    await underWay
    // An endpoint that is away is not worth a slow end.
    if (!isFailing) await send()
    await exporter.shutdown()
  }

  const timer = setInterval(send, settings.intervalMs).unref()
  return {
    [Symbol.asyncDispose]: async () => {
      clearInterval(timer)
      ended ??= lastWords()
      await Promise.race([ended, after(limits.metricExportStopMs)])
    },
  }
}

/** As OpenTelemetry's translation to Prometheus would read it back: dots, a unit for a suffix, and no `_total`. */
export function metricsOf(samples: readonly Sample[], nowMs: number): MetricData[] {
  const endTime = timeOf(nowMs)
  const startTime = timeOf(performance.timeOrigin)
  const metrics: MetricData[] = []
  for (const [name, group] of Map.groupBy(samples, (sample) => sample.name)) {
    const [first] = group
    if (first === undefined) continue
    const descriptor = { ...readingOf(name), description: first.help, valueType: ValueType.DOUBLE }
    const base = { descriptor, aggregationTemporality: AggregationTemporality.CUMULATIVE }
    if (first.type === 'histogram') {
      const dataPoints = group.flatMap((sample) =>
        sample.type === 'histogram' ? [pointOf(sample, startTime, endTime, histogramOf(sample.value))] : [],
      )
      metrics.push({ ...base, dataPointType: DataPointType.HISTOGRAM, dataPoints })
      continue
    }
    // A count that goes over restarts began at a time that is not known, which OTLP writes as 0.
    const since = first.isLasting === true ? unknownTime : startTime
    const dataPoints = group.flatMap((sample) =>
      sample.type === 'histogram' ? [] : [pointOf(sample, since, endTime, sample.value)],
    )
    metrics.push(
      first.type === 'counter'
        ? { ...base, dataPointType: DataPointType.SUM, isMonotonic: true, dataPoints }
        : { ...base, dataPointType: DataPointType.GAUGE, dataPoints },
    )
  }
  return metrics
}

const unknownTime: [number, number] = [0, 0]
/** `ExportResultCode.SUCCESS`, from a package that only the exporters depend on. */
const exportSucceeded = 0

function pointOf<Value>(
  sample: Sample,
  startTime: [number, number],
  endTime: [number, number],
  value: Value,
): DataPoint<Value> {
  return { startTime, endTime, attributes: sample.labels, value }
}

function histogramOf({ counts, bounds, sum, count }: Extract<Sample, { type: 'histogram' }>['value']) {
  return { buckets: { boundaries: [...bounds], counts: [...counts] }, sum, count }
}

function timeOf(unixMs: number): [number, number] {
  return [Math.floor(unixMs / 1000), Math.floor((unixMs % 1000) * 1e6)]
}
