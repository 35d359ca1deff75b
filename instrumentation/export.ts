// Where spans and metrics go. A service with a tracer provider of its own keeps it, and ours join it; else one is started
// with OTLP exporters, by OpenTelemetry's environment. Which of the two is decided at the first call and not before, since
// `register` runs ahead of the service, whose own provider would then come second and be refused.
import {
  context,
  createContextKey,
  type Meter,
  metrics,
  type ProxyTracerProvider,
  propagation,
  ROOT_CONTEXT,
  type Tracer,
  trace,
} from '@opentelemetry/api'
import { OTLPMetricExporter as GrpcMetrics } from '@opentelemetry/exporter-metrics-otlp-grpc'
import { OTLPTraceExporter as GrpcTraces } from '@opentelemetry/exporter-trace-otlp-grpc'
import {
  JsonMetricsSerializer,
  JsonTraceSerializer,
  ProtobufMetricsSerializer,
  ProtobufTraceSerializer,
} from '@opentelemetry/otlp-transformer'
import {
  AggregationTemporality,
  PeriodicExportingMetricReader,
  type PushMetricExporter,
} from '@opentelemetry/sdk-metrics'
import { startNodeSdk } from '@opentelemetry/sdk-node'
import { BatchSpanProcessor, type SpanExporter } from '@opentelemetry/sdk-trace'
import type { Counters } from './counters.ts'
import { limits } from './limits.ts'
import { type OtlpSender, openOtlpSender, type Sent } from './otlp-sender.ts'
import type { Environment, Settings } from './settings.ts'
import { version } from './version.ts'

export type Export = {
  readonly tracer: () => Tracer
  readonly meter: () => Meter
  /** Decides now where all goes. Before that nothing carries a context from one function to the next. */
  start(): void
  /** For the line at start. */
  readonly destination: string
  flush(): Promise<void>
  /** Ends what could not be sent until now, so that nothing waits for it. What comes later is sent as ever. */
  giveUp(): void
  /** Nothing comes after it. Where all went to a provider of ours, the place is free again for another. */
  shutdown(): Promise<void>
}

export type ExportOptions = {
  readonly settings: Settings
  readonly environment: Environment
  readonly counters: Counters
}

type Sdk = Pick<Export, 'flush' | 'giveUp' | 'shutdown'>

const scope = '@tallylight/instrumentation'

export function openExport(options: ExportOptions): Export {
  const destination = destinationOf(options)
  let isDecided = false
  let sdk: Sdk | undefined
  let tracer: Tracer | undefined
  let meter: Meter | undefined

  function decide(): void {
    if (isDecided) return
    isDecided = true
    if (hasProvider()) return
    try {
      sdk = startSdk(options, destination)
    } catch (error) {
      // What the environment says of gRPC is read there, and thrown at whoever began the first turn.
      const reason = error instanceof Error ? error.message : String(error)
      options.counters.add('failures')
      options.counters.warnOnce('export', `nothing can be sent to ${destination.said}: ${reason}; this is said once`)
    }
  }

  return {
    destination: destination.said,
    start: decide,
    tracer() {
      decide()
      tracer ??= trace.getTracer(scope, version)
      return tracer
    },
    meter() {
      decide()
      meter ??= metrics.getMeter(scope, version)
      return meter
    },
    async flush() {
      await sdk?.flush()
    },
    giveUp: () => sdk?.giveUp(),
    async shutdown() {
      await sdk?.shutdown()
    },
  }
}

function hasProvider(): boolean {
  const provider = trace.getTracerProvider()
  // The stand-in that the API hands out has no delegate until a provider is set.
  if (!('getDelegateTracer' in provider)) return true
  return (provider as ProxyTracerProvider).getDelegateTracer(scope) !== undefined
}

type Destination = {
  readonly isGrpc: boolean
  readonly isJson: boolean
  readonly urls: { readonly traces: string; readonly metrics: string }
  readonly headers: Readonly<Record<string, string>>
  readonly timeoutMs: number
  readonly said: string
}

const grpcPort = '4317'
const httpPort = '4318'

/** OpenTelemetry's settings win; what they leave open comes from ours: the collector's host, and the key. */
function destinationOf({ settings, environment }: ExportOptions): Destination {
  const protocol = environment.OTEL_EXPORTER_OTLP_PROTOCOL?.trim() || 'http/protobuf'
  const isGrpc = protocol === 'grpc'
  const usual = new URL(settings.url)
  usual.port = isGrpc ? grpcPort : httpPort
  const base = environment.OTEL_EXPORTER_OTLP_ENDPOINT || usual.origin
  const urlOf = (own: string | undefined, path: string): string => own || `${base.replace(/\/+$/, '')}/v1/${path}`
  const traces = urlOf(environment.OTEL_EXPORTER_OTLP_TRACES_ENDPOINT, 'traces')
  const said = saidOf(environment, isGrpc ? (base.includes('://') ? base : `http://${base}`) : traces)
  const headers = headersOf(environment.OTEL_EXPORTER_OTLP_HEADERS ?? '')
  if (settings.key !== '') headers.authorization ??= `Bearer ${settings.key}`
  return {
    isGrpc,
    isJson: protocol === 'http/json',
    urls: { traces, metrics: urlOf(environment.OTEL_EXPORTER_OTLP_METRICS_ENDPOINT, 'metrics') },
    headers: { ...headers, ...headersOf(environment.OTEL_EXPORTER_OTLP_TRACES_HEADERS ?? '') },
    timeoutMs: countIn(environment, 'OTEL_EXPORTER_OTLP_TIMEOUT', limits.exportTimeoutMs),
    said,
  }
}

/** A batch of -1 spans would be tried for ever. */
function countIn(environment: Environment, name: string, usual: number): number {
  const said = Number(environment[name])
  return said > 0 ? said : usual
}

/** As baggage: `name=value,name=value`, values escaped as in URLs. */
function headersOf(text: string): Record<string, string> {
  const pairs = text.split(',').map((pair) => pair.split(/=(.*)/s, 2).map((each) => each.trim()))
  return Object.fromEntries(
    pairs.flatMap(([name = '', value = '']) => (name === '' ? [] : [[name.toLowerCase(), unescaped(value)]])),
  )
}

function unescaped(text: string): string {
  try {
    return decodeURIComponent(text)
  } catch {
    return text
  }
}

/** Without what may be secret in it. */
function saidOf(environment: Environment, url: string): string {
  if (environment.OTEL_SDK_DISABLED?.trim().toLowerCase() === 'true') return 'nowhere, as OTEL_SDK_DISABLED says'
  if (!isOtlpIn(environment)) return 'where OTEL_TRACES_EXPORTER says'
  const { origin, pathname } = isAddress(url) ? new URL(url) : { origin: 'an address that is no URL', pathname: '' }
  return `${origin}${pathname}`
}

const isOtlpIn = (environment: Environment): boolean => ['', 'otlp'].includes(environment.OTEL_TRACES_EXPORTER ?? '')

/** `localhost:4318` is a URL of the scheme `localhost`. */
const isAddress = (url: string): boolean => /^https?:$/.test(URL.parse(url)?.protocol ?? '')

/** Where the environment turned traces off, or wants an exporter that is not OTLP, sdk-node does what it says. Not where an address is
 *  none: its own exporters would try that again and again, and keep the process alive for a quarter of a minute. */
function startSdk({ settings, environment, counters }: ExportOptions, destination: Destination): Sdk {
  const isMetered = ['', 'otlp'].includes(environment.OTEL_METRICS_EXPORTER ?? '') && !hasMeterProvider()
  if (
    destination.isGrpc &&
    environment.OTEL_EXPORTER_OTLP_HEADERS === undefined &&
    'authorization' in destination.headers
  )
    counters.warnOnce('grpc', 'over gRPC the key is sent only if OTEL_EXPORTER_OTLP_HEADERS has it')
  const senders: OtlpSender[] = []
  const senderOf = (url: string, onOutcome: (outcome: Sent, records: number) => void): OtlpSender => {
    const contentType = destination.isJson ? 'application/json' : 'application/x-protobuf'
    const sender = openOtlpSender({ ...destination, url, contentType, onOutcome })
    senders.push(sender)
    return sender
  }
  const count = (outcome: Sent, records: number): void => countSpans(counters, destination.said, outcome, records)
  const spans = new BatchSpanProcessor({
    exporter: destination.isGrpc
      ? countedGrpc(new GrpcTraces(), count)
      : spansOver(senderOf(destination.urls.traces, count), destination),
    scheduledDelayMillis: countIn(environment, 'OTEL_BSP_SCHEDULE_DELAY', limits.exportDelayMs),
    maxExportBatchSize: countIn(
      environment,
      'OTEL_BSP_MAX_EXPORT_BATCH_SIZE',
      settings.content === 'full' ? limits.exportContentBatchSpansMax : limits.exportBatchSpansMax,
    ),
  })
  const metricExporter = destination.isGrpc
    ? new GrpcMetrics()
    : metricsOver(
        senderOf(destination.urls.metrics, () => undefined),
        destination,
      )
  const reader = isMetered ? new PeriodicExportingMetricReader({ exporter: metricExporter }) : undefined
  const ofService = placesTaken()
  const sdk = startNodeSdk({
    // Its own words go to the service's log only when the service asks for them.
    logLevel: environment.OTEL_LOG_LEVEL || 'none',
    ...(isOtlpIn(environment) ? { spanProcessors: [spans] } : {}),
    metricReaders: reader === undefined ? [] : [reader],
    logRecordProcessors: [],
  })
  const ours = providerNow()
  return {
    async flush() {
      await Promise.all([spans.forceFlush(), reader?.forceFlush()])
      await Promise.all(senders.map((sender) => sender.idle()))
    },
    giveUp() {
      for (const sender of senders) sender.giveUp()
    },
    async shutdown() {
      try {
        await sdk.shutdown()
      } finally {
        // A service that has set another since keeps all that goes with it.
        if (providerNow() === ours) leavePlaces(ofService)
      }
    },
  }
}

function providerNow(): unknown {
  const provider = trace.getTracerProvider()
  return 'getDelegate' in provider ? (provider as ProxyTracerProvider).getDelegate() : provider
}

/** Where OpenTelemetry keeps one for all of a process. */
type Places = { readonly metrics: boolean; readonly context: boolean; readonly propagation: boolean }

function placesTaken(): Places {
  const probe = ROOT_CONTEXT.setValue(createContextKey('tallylight.probe'), true)
  return {
    metrics: hasMeterProvider(),
    context: context.with(probe, () => context.active() === probe),
    propagation: propagation.fields().length > 0,
  }
}

/** A provider that is shut down drops what it gets, and who looks for the service's own would find it and never start another. */
function leavePlaces(ofService: Places): void {
  trace.disable()
  if (!ofService.metrics) metrics.disable()
  if (!ofService.context) context.disable()
  if (!ofService.propagation) propagation.disable()
}

function hasMeterProvider(): boolean {
  return metrics.getMeterProvider().constructor.name !== 'NoopMeterProvider'
}

const succeeded = 0

/** Told at once that all is well: what becomes of it is counted when it is known. */
function spansOver(sender: OtlpSender, { isJson }: Destination): SpanExporter {
  const serializer = isJson ? JsonTraceSerializer : ProtobufTraceSerializer
  return {
    export(spans, done) {
      const body = serializer.serializeRequest(spans)
      if (body !== undefined) sender.send(body, spans.length)
      done({ code: succeeded })
    },
    shutdown: async () => sender.giveUp(),
  }
}

function metricsOver(sender: OtlpSender, { isJson }: Destination): PushMetricExporter {
  const serializer = isJson ? JsonMetricsSerializer : ProtobufMetricsSerializer
  return {
    export(collected, done) {
      const body = serializer.serializeRequest(collected)
      if (body !== undefined) sender.send(body, 1)
      done({ code: succeeded })
    },
    selectAggregationTemporality: () => AggregationTemporality.CUMULATIVE,
    forceFlush: async () => undefined,
    shutdown: async () => sender.giveUp(),
  }
}

function countedGrpc(exporter: SpanExporter, count: (outcome: Sent, records: number) => void): SpanExporter {
  return {
    export(spans, done) {
      exporter.export(spans, (result) => {
        const reason = result.error?.message ?? 'no reason was given'
        count(result.code === succeeded ? { kind: 'sent' } : { kind: 'failed', reason }, spans.length)
        done(result)
      })
    },
    shutdown: () => exporter.shutdown(),
  }
}

function countSpans(counters: Counters, said: string, outcome: Sent, spans: number): void {
  counters.add(outcome.kind === 'sent' ? 'spansExported' : 'spansDropped', spans)
  const { spansMade, spansDropped, spansExported } = counters.read()
  if (outcome.kind === 'sent' || spansExported > 0) return
  const what = `${spansMade} calls were seen, and none of ${spansDropped} spans could be sent to ${said}`
  counters.warnOnce('export', `${what}: ${outcome.reason}; this is said once`)
}
