// The ports: OTLP over HTTP and gRPC, the API, and the proxy. Opened last, when what they lead to is there.
import { administrationRoutes } from '../api/administration.ts'
import { openApi } from '../api/server.ts'
import { openStatePage } from '../api/state.ts'
import { isSettingChanged } from '../changed-settings.ts'
import { limits } from '../limits.ts'
import { renderPrometheus } from '../metrics.ts'
import { startProxy } from '../proxy/start.ts'
import { openQuotaHttp } from '../quota/http.ts'
import type { RefusalCounter } from '../receive/admission.ts'
import { openBodies } from '../receive/bodies.ts'
import type { IngestLimits } from '../receive/ingest-limits.ts'
import { openOtlpGrpc } from '../receive/otlp-grpc.ts'
import { openOtlpHttp } from '../receive/otlp-http.ts'
import type { Accept } from '../receive/request.ts'
import { openTlsFiles } from '../receive/tls.ts'
import type { Canary } from '../self/canary.ts'
import type { Engines } from './engines.ts'
import type { Quota } from './quota.ts'
import type { Sinks } from './sinks.ts'
import type { Start } from './start.ts'

export type Doors = {
  readonly ports: { readonly otlpHttp: number; readonly otlpGrpc: number; readonly api: number; readonly proxy: number }
  /** What `/readyz` says. */
  readonly setReady: (isReady: boolean) => void
  /** The receivers answer what they hold, and take nothing more. The API goes on to the end. */
  readonly stopReceivers: () => Promise<void>
}

export async function openDoors(
  start: Start,
  behind: {
    readonly engines: Engines
    readonly quota: Quota
    readonly sinks: Sinks
    readonly accept: Accept
    readonly ingestLimits: IngestLimits
    readonly canary: Canary
  },
): Promise<Doors> {
  const { config, file, version, metrics, log, stack, loops } = start
  const { keyring, clickhouse } = behind.engines
  const { ledger, limitBook, priceOf, failure } = behind.quota
  const count: RefusalCounter = (signal, reason) =>
    metrics.add('tallylight_refused_requests_total', { signal, reason }, 1)
  const tls = config.tls === undefined ? undefined : stack.use(await openTlsFiles({ ...config.tls, log }))
  const receiverOptions = {
    host: config.bind,
    tls,
    authenticate: keyring.authenticate,
    accept: behind.accept,
    ingestLimits: behind.ingestLimits,
    bodies: openBodies({ bytesMax: limits.bodiesInFlightBytesMax, bodyBytesMax: limits.requestBytesMax }),
    log,
    count,
  }
  const http = stack.use(await openOtlpHttp({ ...receiverOptions, port: config.ports.otlpHttp }))
  const grpc = stack.use(await openOtlpGrpc({ ...receiverOptions, port: config.ports.otlpGrpc }))
  let isReady = false
  const missing = (): readonly string[] => (isReady ? [] : ['the collector is starting or stopping'])
  const quota = openQuotaHttp({
    ledger,
    limitBook,
    authenticate: keyring.authenticate,
    priceOf,
    failure,
    onVerdict: ({ policy, verdict }) => metrics.add('tallylight_quota_verdicts_total', { policy, verdict }, 1),
    unpriced: file.quota?.unpriced ?? 'refuse',
    now: Date.now,
    log,
    onAnswer: (route, status, seconds) => {
      metrics.add('tallylight_quota_answers_total', { route, status: String(status) }, 1)
      metrics.observe('tallylight_quota_seconds', { route }, seconds)
    },
  })
  const api = stack.use(
    await openApi({
      host: config.bind,
      port: config.ports.api,
      tls,
      keyring,
      missing,
      renderMetrics: () => renderPrometheus(metrics.read()),
      quota,
      administration: [
        administrationRoutes(behind.sinks.administration, (setting) =>
          isSettingChanged(config.configPath, file, setting),
        ),
      ],
      statePage: openStatePage({ read: metrics.read, version, missing, clickhouse }),
      probe: async () => (await behind.canary.probe(loops.signal)) ?? { missing: ['the collector is stopping'] },
      log,
    }),
  )
  const { authenticate } = keyring
  const { bind: host, ports } = config
  const proxy = stack.use(
    await startProxy({
      host,
      port: ports.proxy,
      tls,
      authenticate,
      accept: behind.accept,
      quota,
      file,
      version,
      metrics,
      log,
    }),
  )
  return {
    ports: { otlpHttp: http.port, otlpGrpc: grpc.port, api: api.port, proxy: proxy.port },
    setReady: (is) => {
      isReady = is
    },
    stopReceivers: async () => {
      await Promise.all([http, grpc, proxy].map((receiver) => receiver.stop(limits.receiverStopMs)))
    },
  }
}
