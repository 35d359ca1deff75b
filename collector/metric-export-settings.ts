// Whether and how the collector's own metrics are exported: OpenTelemetry's own environment names, of which the exporter
// reads the rest itself. The environment may be that of a service which sends to this collector, so the general endpoint
// does not make the collector send to itself; only the one for metrics does.
export type MetricExportSettings =
  /** `why` is empty when nobody asked for it. */
  | { readonly kind: 'off'; readonly why: string }
  | {
      readonly kind: 'on'
      readonly url: string
      readonly protocol: 'http/protobuf' | 'http/json'
      readonly intervalMs: number
    }
  | { readonly kind: 'refused'; readonly reason: string }

const intervalMsDefault = 60_000
const intervalMsMin = 100

export function readMetricExport(
  environment: Readonly<Record<string, string | undefined>>,
  isOwnAddress: (host: string, port: number) => boolean,
): MetricExportSettings {
  const get = (name: string): string => environment[name]?.trim() ?? ''
  const general = get('OTEL_EXPORTER_OTLP_ENDPOINT')
  const own = get('OTEL_EXPORTER_OTLP_METRICS_ENDPOINT')
  const endpoint = own || general
  if (endpoint === '') return { kind: 'off', why: '' }
  if (get('OTEL_SDK_DISABLED').toLowerCase() === 'true') return { kind: 'off', why: 'OTEL_SDK_DISABLED is true' }
  if (get('OTEL_METRICS_EXPORTER').toLowerCase() === 'none')
    return { kind: 'off', why: 'OTEL_METRICS_EXPORTER is none' }
  const name = own === '' ? 'OTEL_EXPORTER_OTLP_ENDPOINT' : 'OTEL_EXPORTER_OTLP_METRICS_ENDPOINT'
  const url = URL.parse(endpoint)
  // Not shown: some put a password into it.
  if (url === null || !/^https?:$/.test(url.protocol))
    return { kind: 'refused', reason: `${name} is not a URL that begins with http:// or https://` }
  const protocol = get('OTEL_EXPORTER_OTLP_METRICS_PROTOCOL') || get('OTEL_EXPORTER_OTLP_PROTOCOL') || 'http/protobuf'
  if (own === '' && isOwnAddress(url.hostname, Number(url.port || (url.protocol === 'https:' ? 443 : 80))))
    return {
      kind: 'off',
      why: `${name} is this collector; to have its metrics among its own, name it in OTEL_EXPORTER_OTLP_METRICS_ENDPOINT`,
    }
  if (protocol !== 'http/protobuf' && protocol !== 'http/json')
    return {
      kind: 'refused',
      reason: `the collector exports its metrics with OTEL_EXPORTER_OTLP_PROTOCOL http/protobuf or http/json, not ${JSON.stringify(protocol)}; OTEL_METRICS_EXPORTER=none switches that off`,
    }
  const interval = get('OTEL_METRIC_EXPORT_INTERVAL') || String(intervalMsDefault)
  if (!/^\d{1,9}$/.test(interval) || Number(interval) < intervalMsMin)
    return {
      kind: 'refused',
      reason: `OTEL_METRIC_EXPORT_INTERVAL is milliseconds, ${intervalMsMin} or more, not ${JSON.stringify(interval)}`,
    }
  const path = own === '' ? `${url.pathname.replace(/\/$/, '')}/v1/metrics` : url.pathname
  return { kind: 'on', url: `${url.origin}${path}`, protocol, intervalMs: Number(interval) }
}
