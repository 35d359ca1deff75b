// Puts the parts together: hooks, records, export. Once per thread, however many copies of this package are loaded and however
// often it is asked. Nothing here throws into the service, keeps its process alive, or holds up its end for long.

import { type CallMetrics, openCallMetrics } from './calls/call-metrics.ts'
import { openCallRecorder } from './calls/call-recorder.ts'
import { type ContentAttributes, openContentAttributes, type Redact } from './calls/content-attributes.ts'
import { openRunnerTools, type RunnerTools } from './calls/runner-tools.ts'
import { type Counters, openCounters } from './counters.ts'
import { type Export, openExport } from './export.ts'
import type { Watch } from './hooks/exchange.ts'
import { hookFetch } from './hooks/fetch.ts'
import { hookHttp2 } from './hooks/http2.ts'
import { hookNodeHttp } from './hooks/node-http.ts'
import { hookUndici } from './hooks/undici.ts'
import { hookWebSocket, type RealtimeSocket, type RealtimeWatch, watchRealtime } from './hooks/websocket.ts'
import { limits } from './limits.ts'
import { hookMcp } from './mcp/mcp-loading.ts'
import { type McpTransport, observeConnection } from './mcp/mcp-spans.ts'
import { type BaseUrl, endpointOf, mayCost, realtimeEndpointOf } from './providers/endpoint.ts'
import { type FailurePolicy, type Gate, openGate, type QuotaOverride, runWithQuota } from './quota/gate.ts'
import { openQuotaClient } from './quota/quota-client.ts'
import { chosen, type Environment, readSettings, type Settings } from './settings.ts'
import { sayOnStderr } from './stderr.ts'

export type InstrumentOptions = {
  readonly environment?: Environment
  /** Servers that speak a provider's API, beside the known ones and those in the environment of the SDKs. */
  readonly baseUrls?: readonly BaseUrl[]
  /** Whether `stream_options.include_usage` is asked for where the caller did not, of hosts known to take it. */
  readonly asksForUsage?: boolean
  readonly content?: Settings['content']
  readonly redact?: Redact
  readonly quota?: Settings['quota']
  /** What a trace that comes with an MCP request is to the server's span; `off`: the SDK is not looked for. */
  readonly mcp?: Settings['mcp']
  /** What becomes of a call when the quota service is away and never told the tenant's policy; it goes, unless told otherwise. */
  readonly quotaFailure?: FailurePolicy
  /** Whether calls are granted out of leases, without a round trip: for services whose users call often. */
  readonly quotaLeases?: boolean
  /** Gets the few lines that are said; the usual is stderr. */
  readonly write?: (line: string) => void
}

export type Instrumentation = {
  readonly settings: Settings
  readonly watch: RealtimeWatch
  readonly counters: Counters
  readonly exporter: Export
  readonly content: ContentAttributes
  readonly tools: RunnerTools
  /** Sends what waits, no longer than `limits.flushMs`. */
  flush(): Promise<void>
  /** Takes the hooks out and sends what waits. */
  shutdown(): Promise<void>
}

const slot = Symbol.for('tallylight.instrumentation')
type Global = { [slot]?: Instrumentation }

/** What is running in this thread, if anything. */
export function running(): Instrumentation | undefined {
  return (globalThis as Global)[slot]
}

export function instrument(options: InstrumentOptions = {}): Instrumentation {
  const already = running()
  if (already !== undefined) {
    const names = Object.keys(options ?? {})
    if (names.length > 0)
      already.counters.warnOnce(
        'options',
        `it runs already, by register or by an earlier call, and ${names.join(', ')} of instrument() change nothing`,
      )
    return already
  }
  const environment = options.environment ?? process.env
  const counters = openCounters(options.write ?? sayOnStderr)
  const read = readSettings(environment)
  const settings: Settings = {
    ...read.settings,
    content: choice('content', ['off', 'metadata', 'full'], read.settings.content),
    quota: choice('quota', ['off', 'observe', 'enforce'], read.settings.quota),
    mcp: choice('mcp', ['off', 'parent', 'link'], read.settings.mcp),
    // One that stands alone is one, too.
    baseUrls: [...[options.baseUrls ?? []].flat().flatMap(readable), ...read.settings.baseUrls],
    asksForUsage: options.asksForUsage ?? read.settings.asksForUsage,
  }
  function choice<T extends string>(name: keyof InstrumentOptions, choices: readonly T[], usual: T): T {
    return chosen(name, options[name], choices, usual, (warning) => counters.warnOnce(name, warning))
  }
  function readable(base: BaseUrl): readonly BaseUrl[] {
    const url = URL.parse(String((base as BaseUrl | null | undefined)?.url))
    if (url !== null) return [{ ...base, url: url.href.replace(/\/+$/, '') }]
    counters.warnOnce('baseUrls', 'one of baseUrls is no URL, and is left out')
    return []
  }
  for (const warning of read.warnings) counters.warnOnce(warning, warning)
  const exporter = openExport({ settings, environment, counters })
  const quotaFailure = choice('quotaFailure', ['open', 'closed'], 'open')
  const gate = gateOf(settings, { ...options, quotaFailure }, counters)
  const failed = (error: unknown): void => {
    counters.add('failures')
    counters.warnOnce('failure', `a part of the instrumentation failed: ${placeOf(error)}`)
  }
  const content = openContentAttributes(settings.content, options.redact, counters)
  const tools = openRunnerTools({ tracer: exporter.tracer, content, counters, failed, nowMs: Date.now })
  const watch = openWatch({ settings, exporter, counters, content, tools }, gate, failed)
  const unhook = [...hookAll(watch), hookSdkOfMcp(settings, { watch, exporter, content })]

  let callsBefore = -1
  // It is emitted again when what a listener did is done, so each time for what was new: a flush for nothing would keep the process
  // alive for ever, and one alone would lose what a service calls when it was emptied out.
  const onBeforeExit = (): void => {
    const { spansMade } = counters.read()
    if (spansMade === callsBefore) return
    callsBefore = spansMade
    void flush().then(() => exporter.giveUp())
  }
  // Only where the process ends by itself. One that is told to end decides by itself whether it calls `shutdown`.
  process.on('beforeExit', onBeforeExit)

  function flush(): Promise<void> {
    const settled = gate?.idle() ?? Promise.resolve()
    return within(
      limits.flushMs,
      settled.then(() => exporter.flush()),
    )
  }

  const started: Instrumentation = {
    settings,
    watch,
    counters,
    exporter,
    content,
    tools,
    flush,
    async shutdown() {
      process.off('beforeExit', onBeforeExit)
      for (const each of unhook) each()
      if (running() === started) delete (globalThis as Global)[slot]
      await flush()
      await within(limits.flushMs, exporter.shutdown())
      await gate?.[Symbol.asyncDispose]()
    },
  }
  ;(globalThis as Global)[slot] = started
  return started
}

/** A socket of the package `ws`, which no hook sees, to OpenAI's realtime API. */
export function observeRealtime(socket: RealtimeSocket): void {
  const instrumentation = running()
  if (instrumentation !== undefined) watchRealtime(instrumentation.watch, socket)
}

/** Calls in `work` are asked for as `override` says. */
export function withQuota<T>(override: QuotaOverride, work: () => T): T {
  running()?.exporter.start()
  return runWithQuota(override, work)
}

function hookAll(watch: RealtimeWatch): readonly (() => void)[] {
  return [hookFetch(watch), hookUndici(watch), hookNodeHttp(watch), hookHttp2(watch), hookWebSocket(watch)]
}

function hookSdkOfMcp({ mcp }: Settings, parts: Pick<Instrumentation, 'watch' | 'exporter' | 'content'>): () => void {
  if (mcp === 'off') return () => undefined
  return hookMcp({
    connecting: (transport) => observeConnection(parts, transport as McpTransport, { incoming: mcp }),
    failed: parts.watch.failed,
  })
}

function gateOf(
  { quota, url, key }: Settings,
  { quotaFailure = 'open', quotaLeases = false }: InstrumentOptions,
  counters: Counters,
): Gate | undefined {
  if (quota === 'off') return undefined
  const client = openQuotaClient({ url, key })
  const nowMs = (): number => performance.now()
  return openGate({ mode: quota, failurePolicy: quotaFailure, leases: quotaLeases, client, counters, nowMs })
}

function openWatch(
  { settings, exporter, counters, content, tools }: Omit<Instrumentation, 'watch' | 'flush' | 'shutdown'>,
  gate: Gate | undefined,
  failed: (error: unknown) => void,
): RealtimeWatch {
  let metrics: CallMetrics | undefined
  const recorder = openCallRecorder({
    tracer: exporter.tracer,
    metrics: () => {
      metrics ??= openCallMetrics(exporter.meter())
      return metrics
    },
    content,
    tools,
    counters,
    gate,
    keepsContent: settings.content === 'full',
    nowMs: () => performance.now(),
  })
  const unmetered: Watch['unmetered'] = (reason, host) => {
    counters.add('unmetered')
    const why = reason === 'api' ? 'with an API that is not read' : 'past the hooks'
    counters.warnOnce(`unmetered ${reason} ${host}`, `a request to ${host} went ${why}, and is not metered`)
  }
  return {
    endpointOf: (method, url) => endpointOf(method, url, settings.baseUrls),
    realtimeEndpointOf: (url) => realtimeEndpointOf(url, settings.baseUrls),
    mayCost: (url) => mayCost(url, settings.baseUrls),
    startCall: recorder.startCall,
    asksForUsage: settings.asksForUsage,
    keepsContent: settings.content === 'full',
    failed,
    unmetered,
  }
}

/** Where, and not the message: that may quote what somebody wrote. */
function placeOf(error: unknown): string {
  if (!(error instanceof Error)) return typeof error
  const { stack } = error
  // A service may have a `prepareStackTrace` that makes something else of it.
  const frames = (typeof stack === 'string' ? stack : '').split('\n').filter((line) => /^ +at /.test(line))
  return [error.name, ...frames.slice(0, 5)].join('\n')
}

/** A slow destination is not worth a slow end. */
async function within(ms: number, work: Promise<void>): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>()
  const timer = setTimeout(resolve, ms)
  try {
    // What could not be sent was counted where it failed.
    await Promise.race([work.catch(() => undefined), promise])
  } finally {
    clearTimeout(timer)
  }
}
