// A program that is instrumented with the unmodified OpenTelemetry SDK and sends one of everything. Run by sdk.test.ts as a
// process of its own: `node sender.ts <proto|http|grpc> <endpoint>`.
import { SpanKind, SpanStatusCode, trace } from '@opentelemetry/api'
import { OTLPLogExporter as GrpcLogs } from '@opentelemetry/exporter-logs-otlp-grpc'
import { OTLPLogExporter as HttpLogs } from '@opentelemetry/exporter-logs-otlp-http'
import { OTLPLogExporter as ProtoLogs } from '@opentelemetry/exporter-logs-otlp-proto'
import { OTLPMetricExporter as GrpcMetrics } from '@opentelemetry/exporter-metrics-otlp-grpc'
import { OTLPMetricExporter as HttpMetrics } from '@opentelemetry/exporter-metrics-otlp-http'
import { OTLPMetricExporter as ProtoMetrics } from '@opentelemetry/exporter-metrics-otlp-proto'
import { OTLPTraceExporter as GrpcTraces } from '@opentelemetry/exporter-trace-otlp-grpc'
import { OTLPTraceExporter as HttpTraces } from '@opentelemetry/exporter-trace-otlp-http'
import { OTLPTraceExporter as ProtoTraces } from '@opentelemetry/exporter-trace-otlp-proto'
import { resourceFromAttributes } from '@opentelemetry/resources'
import { BatchLogRecordProcessor, LoggerProvider } from '@opentelemetry/sdk-logs'
import { AggregationType, MeterProvider, PeriodicExportingMetricReader } from '@opentelemetry/sdk-metrics'
import { BatchSpanProcessor, TracerProvider } from '@opentelemetry/sdk-trace'
import { largeText, oddAttributes } from './values.ts'

const [kind = 'proto', endpoint = ''] = process.argv.slice(2)
const url = (path: string): string => (kind === 'grpc' ? endpoint : `${endpoint}/v1/${path}`)
const exporters = {
  proto: { traces: ProtoTraces, logs: ProtoLogs, metrics: ProtoMetrics },
  http: { traces: HttpTraces, logs: HttpLogs, metrics: HttpMetrics },
  grpc: { traces: GrpcTraces, logs: GrpcLogs, metrics: GrpcMetrics },
}[kind as 'proto' | 'http' | 'grpc']
const resource = resourceFromAttributes({ 'service.name': `sender-${kind}`, 'host.name': 'häuschen' })

const tracers = new TracerProvider({
  resource,
  spanProcessors: [new BatchSpanProcessor({ exporter: new exporters.traces({ url: url('traces') }) })],
})
const tracer = tracers.getTracer('sender', '1.2.3')
const linked = trace.wrapSpanContext({
  traceId: '0af7651916cd43dd8448eb211c80319c',
  spanId: 'b7ad6b7169203331',
  traceFlags: 1,
})
const span = tracer.startSpan('GET /ünïcode 🚦', {
  kind: SpanKind.CLIENT,
  attributes: { ...oddAttributes, large: largeText },
  links: [{ context: linked.spanContext(), attributes: { why: 'because' } }],
})
span.addEvent('first token', { 'chunk.index': 0 })
span.addEvent('done', { text: 'fin \u0000 ok' })
span.setStatus({ code: SpanStatusCode.ERROR, message: 'nö' })
span.end()
await tracers.forceFlush()
await tracers.shutdown()

const loggers = new LoggerProvider({
  resource,
  processors: [new BatchLogRecordProcessor({ exporter: new exporters.logs({ url: url('logs') }) })],
})
loggers
  .getLogger('sender')
  .emit({ severityNumber: 17, severityText: 'ERROR', body: 'brökén', attributes: { code: 7 }, eventName: 'it.broke' })
loggers.getLogger('sender').emit({ body: { nested: [1, 'two', { three: true }] } })
await loggers.forceFlush()
await loggers.shutdown()

const reader = new PeriodicExportingMetricReader({
  exporter: new exporters.metrics({ url: url('metrics') }),
  exportIntervalMillis: 3_600_000,
})
const meters = new MeterProvider({
  resource,
  readers: [reader],
  views: [{ instrumentName: 'exponential', aggregation: { type: AggregationType.EXPONENTIAL_HISTOGRAM } }],
})
const meter = meters.getMeter('sender')
meter.createCounter('calls', { unit: '{call}', description: 'how often' }).add(3, { model: 'gpt' })
meter.createUpDownCounter('open').add(-2)
meter.createGauge('temperature').record(21.5)
const histogram = meter.createHistogram('latency', { unit: 's', advice: { explicitBucketBoundaries: [0.1, 1, 10] } })
for (const value of [0.05, 0.5, 5, 50]) histogram.record(value)
const exponential = meter.createHistogram('exponential')
for (const value of [1, 2, 4, 8]) exponential.record(value)
await meters.forceFlush()
await meters.shutdown()
