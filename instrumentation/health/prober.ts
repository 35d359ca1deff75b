// Looks at servers that a service depends on: at start, in intervals, and a last word at shutdown. Each look has a time-out. One that
// fails again and again is looked at less often, up to a tenth, so that a dying server is not helped to die. A look is no turn
// and no call: what it does carries `tallylight.probe` and asks for no quota.
import { context, ROOT_CONTEXT } from '@opentelemetry/api'
import { running, withQuota } from '../instrument.ts'
import { limits } from '../limits.ts'
import { type HealthCheck, recordHealthCheck } from '../records.ts'
import { withProbe } from '../turns/scene.ts'

export type Probe = {
  /** By what it is called on panels: `mcp:files`, `http:search`. */
  readonly target: string
  /** An address that answers below 400 when all is well; or what looks, gives what it found, and throws when it is not. For an MCP
   *  server `(signal) => client.ping({ signal })`; never a call of a model. */
  readonly check: string | ((signal: AbortSignal) => Promise<HealthCheck['metadata'] | unknown>)
  readonly intervalMs?: number
  readonly timeoutMs?: number
}

export type ProberOptions = {
  /** Each look, beside its record. */
  readonly onCheck?: (check: HealthCheck) => void
}

/** Ends with its last looks; it keeps no process alive. */
export function startProber(probes: readonly Probe[], options: ProberOptions = {}): AsyncDisposable {
  running()?.exporter.start()
  const stopped = new AbortController()
  const loops = probes.map((probe) => loop(probe, options, stopped.signal))
  return {
    async [Symbol.asyncDispose]() {
      stopped.abort()
      await Promise.all(loops)
    },
  }
}

async function loop(probe: Probe, options: ProberOptions, stopped: AbortSignal): Promise<void> {
  const { intervalMs = limits.probeIntervalMs } = probe
  let failures = 0
  let event: HealthCheck['event'] = 'startup'
  while (!stopped.aborted) {
    const check = await look(probe, event)
    tell(check, options)
    failures = check.status === 'healthy' ? 0 : failures + 1
    event = 'interval'
    await pause(intervalMs * sparingFactor(failures), stopped)
  }
  tell(await look(probe, 'shutdown'), options)
}

/** 1 while it may be chance, then 2, 4, 8, 10. */
function sparingFactor(failures: number): number {
  const beyond = failures - limits.probeFailuresMax
  return beyond < 0 ? 1 : Math.min(2 ** (beyond + 1), limits.probeSparingFactorMax)
}

async function look(
  { target, check, timeoutMs = limits.probeTimeoutMs }: Probe,
  event: HealthCheck['event'],
): Promise<HealthCheck> {
  const startedMs = performance.now()
  const signal = AbortSignal.timeout(timeoutMs)
  const done = (more: Pick<HealthCheck, 'status' | 'error' | 'metadata'>): HealthCheck => ({
    target,
    ...(event === undefined ? {} : { event }),
    responseTimeMs: performance.now() - startedMs,
    ...more,
  })
  try {
    const work = typeof check === 'string' ? () => get(check, signal) : () => check(signal)
    const found = await Promise.race([
      context.with(withProbe(ROOT_CONTEXT), () => withQuota({ skip: true }, work)),
      aborted(signal),
    ])
    const metadata = metadataOf(found)
    return done({ status: 'healthy', ...(metadata === undefined ? {} : { metadata }) })
  } catch (error) {
    return done({ status: signal.aborted ? 'timeout' : 'unhealthy', error })
  }
}

async function get(url: string, signal: AbortSignal): Promise<HealthCheck['metadata']> {
  const reply = await fetch(url, { signal })
  await reply.body?.cancel()
  if (reply.status >= 400) throw new Error(`${reply.status}`)
  return { status: reply.status }
}

/** A check that heeds no signal is not waited for either. */
function aborted(signal: AbortSignal): Promise<never> {
  return new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason), { once: true }))
}

function metadataOf(found: unknown): HealthCheck['metadata'] | undefined {
  if (typeof found !== 'object' || found === null) return undefined
  const plain = Object.entries(found).filter(([, value]) => ['string', 'number', 'boolean'].includes(typeof value))
  return Object.fromEntries(plain)
}

function tell(check: HealthCheck, { onCheck }: ProberOptions): void {
  recordHealthCheck(check)
  onCheck?.(check)
}

function pause(ms: number, stopped: AbortSignal): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>()
  const timer = setTimeout(resolve, ms).unref()
  if (stopped.aborted) resolve()
  stopped.addEventListener('abort', () => resolve(), { once: true })
  return promise.finally(() => clearTimeout(timer))
}
