// Request bodies for benchmarks, built before anything is measured: seeded, distinct, with the entropy and the compression
// ratio of real telemetry. The hash names a corpus: figures of equal hashes may be compared, others not.
// A body is sent more than once in long runs, so ids repeat from then on: switch the collector's memory of bodies off.
import { createHash } from 'node:crypto'
import { gzipSync, zstdCompressSync } from 'node:zlib'
import { loadRequestTypes, type Signal } from '../fuzz/otlp-proto.ts'
import { seededRandom } from '../random.ts'
import { type Fleet, type Otlp, openFleet } from './telemetry.ts'

export type CorpusName = 'web' | 'llm' | 'logs-300' | 'logs-1k' | 'metrics' | 'tiny-1' | 'tiny-10'

export type CorpusOptions = {
  readonly requests: number
  /** Spans, log records or data points per request. */
  readonly recordsPerRequest: number
  readonly seed: number
  readonly encoding: 'protobuf' | 'json'
  readonly contentEncoding: 'identity' | 'gzip' | 'zstd'
  /** Records end within the twenty seconds before this. */
  readonly nowUnixNano: bigint
}

export type Corpus = {
  readonly name: CorpusName
  readonly signal: Signal
  readonly path: string
  readonly contentType: string
  readonly options: CorpusOptions
  /** As they go into the request, compressed. All distinct. */
  readonly bodies: readonly Buffer[]
  readonly records: number
  readonly bytesPerRecord: number
  readonly sentBytesPerRecord: number
  /** Of each body by itself, as senders compress them: gzip at level 6, zstd at level 3; over the first bodies. */
  readonly gzipRatio: number
  readonly zstdRatio: number
  readonly sha256: string
}

/** What a corpus usually has per request; the tiny ones have no other. */
export const usualRecords: Readonly<Record<CorpusName, number>> = {
  web: 512,
  llm: 512,
  'logs-300': 512,
  'logs-1k': 512,
  metrics: 500,
  'tiny-1': 1,
  'tiny-10': 10,
}

/** A time for a corpus that is measured now: the same all day, so that its hash is, and all its records are of today. */
export function corpusTime(): bigint {
  const daySeconds = 86_400
  return BigInt(Math.floor(Date.now() / 1000 / daySeconds) * daySeconds + 20) * 1_000_000_000n
}

const ratioSampleBytes = 4 * 1024 * 1024

export function buildCorpus(name: CorpusName, options: CorpusOptions): Corpus {
  const fleet = openFleet(seededRandom(options.seed), options.nowUnixNano)
  const signal = signalOf(name)
  const type = loadRequestTypes()[signal]
  const hash = createHash('sha256')
  const sample = { raw: 0, gzip: 0, zstd: 0 }
  const bodies: Buffer[] = []
  let rawBytes = 0
  let sentBytes = 0
  for (let index = 0; index < options.requests; index += 1) {
    const request = makeRequest(name, fleet, options.recordsPerRequest)
    const raw =
      options.encoding === 'json'
        ? Buffer.from(jsonText(request))
        : Buffer.from(type.encode(type.fromObject(request)).finish())
    if (sample.raw < ratioSampleBytes) {
      sample.raw += raw.length
      sample.gzip += gzipSync(raw, { level: 6 }).length
      sample.zstd += zstdCompressSync(raw).length
    }
    const body = compress(raw, options.contentEncoding)
    hash.update(raw)
    bodies.push(body)
    rawBytes += raw.length
    sentBytes += body.length
  }
  const records = options.requests * options.recordsPerRequest
  return {
    name,
    signal,
    path: `/v1/${signal}`,
    contentType: options.encoding === 'json' ? 'application/json' : 'application/x-protobuf',
    options,
    bodies,
    records,
    bytesPerRecord: rawBytes / records,
    sentBytesPerRecord: sentBytes / records,
    gzipRatio: sample.raw / sample.gzip,
    zstdRatio: sample.raw / sample.zstd,
    sha256: hash.digest('hex'),
  }
}

/** One line for the log of a benchmark. */
export function describeCorpus(corpus: Corpus): string {
  const { name, options, records, bytesPerRecord, gzipRatio, zstdRatio, sha256 } = corpus
  const sizes = `${bytesPerRecord.toFixed(0)} B each, gzip ${gzipRatio.toFixed(1)}x, zstd ${zstdRatio.toFixed(1)}x`
  const shape = `${options.requests} requests, ${records} records, ${options.encoding}, ${options.contentEncoding}`
  return `${name}: ${shape}, ${sizes}, seed ${options.seed}, sha256 ${sha256.slice(0, 16)}`
}

function signalOf(name: CorpusName): Signal {
  if (name === 'metrics') return 'metrics'
  return name.startsWith('logs') ? 'logs' : 'traces'
}

function compress(raw: Buffer, contentEncoding: CorpusOptions['contentEncoding']): Buffer {
  switch (contentEncoding) {
    case 'gzip':
      return gzipSync(raw, { level: 6 })
    case 'zstd':
      return zstdCompressSync(raw)
    case 'identity':
      return raw
    default:
      return contentEncoding satisfies never
  }
}

const scope = { name: '@opentelemetry/instrumentation-http', version: '0.301.0' }

function makeRequest(name: CorpusName, fleet: Fleet, count: number): Otlp {
  const list = (make: () => Otlp) => Array.from({ length: count }, make)
  switch (name) {
    case 'web':
    case 'tiny-1':
    case 'tiny-10':
      return { resourceSpans: [{ resource: fleet.resource(), scopeSpans: [{ scope, spans: list(fleet.webSpan) }] }] }
    case 'llm':
      return { resourceSpans: [{ resource: fleet.resource(), scopeSpans: [{ scope, spans: list(fleet.llmSpan) }] }] }
    case 'logs-300':
    case 'logs-1k': {
      const bodyBytes = name === 'logs-300' ? 157 : 857
      const logRecords = list(() => fleet.logRecord(bodyBytes))
      return { resourceLogs: [{ resource: fleet.resource(), scopeLogs: [{ scope, logRecords }] }] }
    }
    case 'metrics': {
      const metrics: Otlp[] = []
      for (let left = count; left > 0; left -= 10) metrics.push(fleet.metric(metrics.length, Math.min(10, left)))
      return { resourceMetrics: [{ resource: fleet.resource(), scopeMetrics: [{ scope, metrics }] }] }
    }
    default:
      return name satisfies never
  }
}

function jsonText(value: Otlp[string]): string {
  if (Buffer.isBuffer(value)) return `"${value.toString('hex')}"`
  if (Array.isArray(value)) return `[${value.map((item: Otlp[string]) => jsonText(item)).join(',')}]`
  if (typeof value !== 'object') return JSON.stringify(value)
  return `{${Object.entries(value)
    .map(([name, member]) => `"${name}":${jsonText(member)}`)
    .join(',')}}`
}
