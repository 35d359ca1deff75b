// The collector's own numbers as rows of its own tables, so that a board shows them where nobody runs Prometheus: once a
// minute a reading goes through the same road as everything else, under the reserved tenant. Counters and histograms are
// differences to the last reading that was accepted, so they add up over restarts and collectors, and a reading that was
// refused is in the next one. What a kill loses is what was counted since the last reading.
import { readingOf, type Sample } from '../metrics.ts'

export type Readings = {
  /** OTLP/JSON of what changed; `keep` is called once it is durable. */
  take(samples: readonly Sample[], nowUnixMs: number): { readonly body: Buffer; keep(): void }
}

export type Origin = {
  readonly version: string
  readonly instanceId: string
  readonly hostName: string
  readonly startedUnixMs: number
}

/** `first` is read before anything is counted: what goes over restarts was counted by others before. */
export function openReadings(origin: Origin, first: readonly Sample[]): Readings {
  let before = new Map<string, Sample>()
  for (const sample of first)
    if (sample.type === 'counter' && sample.isLasting === true) before.set(keyOf(sample), sample)
  let sinceUnixMs = origin.startedUnixMs

  return {
    take: (samples, nowUnixMs) => {
      const times = { startTimeUnixNano: nanoOf(sinceUnixMs), timeUnixNano: nanoOf(nowUnixMs) }
      const metrics = [...Map.groupBy(samples, (sample) => sample.name)].map(([name, group]) => {
        const points = group.map((sample) => ({
          ...times,
          attributes: attributesOf(sample.labels),
          ...changeOf(sample, before),
        }))
        const { type, help } = group[0] as Sample
        return { ...readingOf(name), description: help, ...dataOf(type, points) }
      })
      return {
        body: Buffer.from(JSON.stringify(requestOf(origin, metrics))),
        keep: () => {
          before = new Map(samples.map((sample) => [keyOf(sample), sample]))
          sinceUnixMs = nowUnixMs
        },
      }
    },
  }
}

const delta = 1

function dataOf(type: Sample['type'], dataPoints: readonly object[]): object {
  switch (type) {
    case 'counter':
      return { sum: { aggregationTemporality: delta, isMonotonic: true, dataPoints } }
    case 'gauge':
      return { gauge: { dataPoints } }
    case 'histogram':
      return { histogram: { aggregationTemporality: delta, dataPoints } }
    default:
      return type satisfies never
  }
}

function changeOf(sample: Sample, before: ReadonlyMap<string, Sample>): object {
  const last = before.get(keyOf(sample))
  if (sample.type !== 'histogram') {
    const base = sample.type === 'counter' && last?.type === 'counter' ? last.value : 0
    return { asDouble: sample.value - base }
  }
  const { counts, bounds, sum, count } = sample.value
  const base = last?.type === 'histogram' ? last.value : undefined
  return {
    count: String(count - (base?.count ?? 0)),
    sum: sum - (base?.sum ?? 0),
    bucketCounts: counts.map((each, at) => String(each - (base?.counts[at] ?? 0))),
    explicitBounds: bounds,
  }
}

function requestOf({ version, instanceId, hostName }: Origin, metrics: readonly object[]): object {
  const attributes = attributesOf({
    'service.name': 'tallylight',
    'service.version': version,
    'service.instance.id': instanceId,
    'host.name': hostName,
  })
  return {
    resourceMetrics: [
      { resource: { attributes }, scopeMetrics: [{ scope: { name: 'tallylight', version }, metrics }] },
    ],
  }
}

function attributesOf(labels: Readonly<Record<string, string>>): readonly object[] {
  return Object.entries(labels).map(([key, value]) => ({ key, value: { stringValue: value } }))
}

function keyOf({ name, labels }: Sample): string {
  return name + JSON.stringify(labels)
}

function nanoOf(unixMs: number): string {
  return `${BigInt(Math.round(unixMs * 1000)) * 1000n}`
}
