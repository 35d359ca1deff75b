// Looks at servers: at start, in intervals, and a last time at the end. Each look has a time-out. A server that fails again and
// again is looked at less often, up to a tenth, so that a dying one is not helped to die. What a look does and where it is
// recorded is the caller's: a service by `startProber`, the collector by its configuration.
import { limits } from '../limits.ts'

export type HealthCheck = {
  /** What was looked at: `mcp:files`, `http://search/healthz`. */
  readonly target: string
  readonly status: 'healthy' | 'unhealthy' | 'timeout'
  readonly event?: 'startup' | 'interval' | 'shutdown'
  readonly responseTimeMs?: number
  readonly error?: unknown
  readonly metadata?: Readonly<Record<string, string | number | boolean>>
}

export type Look = {
  readonly target: string
  /** Gives what it found, and throws when all is not well. */
  readonly check: (signal: AbortSignal) => Promise<unknown>
  readonly intervalMs?: number | undefined
  readonly timeoutMs?: number | undefined
}

/** Looks until it is disposed of, which waits for the last look. It keeps no process alive. */
export function startLooks(look: Look, tell: (check: HealthCheck) => void): AsyncDisposable {
  const stopped = new AbortController()
  const loop = repeat(look, tell, stopped.signal)
  return {
    async [Symbol.asyncDispose]() {
      stopped.abort()
      await loop
    },
  }
}

async function repeat(look: Look, tell: (check: HealthCheck) => void, stopped: AbortSignal): Promise<void> {
  const intervalMs = msOr(look.intervalMs, limits.probeIntervalMs)
  const timeoutMs = msOr(look.timeoutMs, limits.probeTimeoutMs)
  let failures = 0
  let event: HealthCheck['event'] = 'startup'
  while (!stopped.aborted) {
    const check = await lookOnce(look, event, timeoutMs, stopped)
    // One that the end cut short says nothing of the server.
    if (check === undefined) break
    tell(check)
    failures = check.status === 'healthy' ? 0 : failures + 1
    event = 'interval'
    await pause(Math.min(intervalMs * sparingFactor(failures), timerMsMax), stopped)
  }
  const last = await lookOnce(look, 'shutdown', Math.min(timeoutMs, limits.probeLastTimeoutMsMax))
  if (last !== undefined) tell(last)
}

/** The longest time of a timer: with a longer one it looks a thousand times a second. */
const timerMsMax = 2 ** 31 - 1

/** A signal that waits for a part of a millisecond throws. */
function msOr(said: number | undefined, usual: number): number {
  return typeof said === 'number' && said > 0 && said <= timerMsMax ? Math.ceil(said) : usual
}

/** 1 while it may be chance, then 2, 4, 8, 10. */
function sparingFactor(failures: number): number {
  const beyond = failures - limits.probeFailuresMax
  return beyond < 0 ? 1 : Math.min(2 ** (beyond + 1), limits.probeSparingFactorMax)
}

async function lookOnce(
  { target, check }: Look,
  event: HealthCheck['event'],
  timeoutMs: number,
  stopped?: AbortSignal,
): Promise<HealthCheck | undefined> {
  const startedMs = performance.now()
  const late = AbortSignal.timeout(timeoutMs)
  const signal = stopped === undefined ? late : AbortSignal.any([late, stopped])
  const done = (more: Pick<HealthCheck, 'status' | 'error' | 'metadata'>): HealthCheck => ({
    target,
    ...(event === undefined ? {} : { event }),
    responseTimeMs: performance.now() - startedMs,
    ...more,
  })
  try {
    const metadata = metadataOf(await Promise.race([check(signal), aborted(signal)]))
    return done({ status: 'healthy', ...(metadata === undefined ? {} : { metadata }) })
  } catch (error) {
    if (!late.aborted && stopped?.aborted === true) return undefined
    return done({ status: late.aborted ? 'timeout' : 'unhealthy', error })
  }
}

/** An address that answers below 400 is well. With headers a redirect is an answer, too: they are for this server alone. */
export async function checkHttp(
  url: string,
  signal: AbortSignal,
  headers?: Readonly<Record<string, string>>,
): Promise<{ readonly status: number }> {
  const reply = await fetch(url, headers === undefined ? { signal } : { signal, headers, redirect: 'manual' })
  await reply.body?.cancel()
  if (reply.status >= 400) throw new Error(`${reply.status}`)
  return { status: reply.status }
}

/** A check that heeds no signal is not waited for either. */
function aborted(signal: AbortSignal): Promise<never> {
  return new Promise((_, reject) => {
    if (signal.aborted) reject(signal.reason)
    signal.addEventListener('abort', () => reject(signal.reason), { once: true })
  })
}

function metadataOf(found: unknown): HealthCheck['metadata'] | undefined {
  if (typeof found !== 'object' || found === null) return undefined
  const plain = Object.entries(found).filter(([, value]) => ['string', 'number', 'boolean'].includes(typeof value))
  return Object.fromEntries(plain)
}

function pause(ms: number, stopped: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const end = (): void => {
      clearTimeout(timer)
      stopped.removeEventListener('abort', end)
      resolve()
    }
    const timer = setTimeout(end, ms).unref()
    stopped.addEventListener('abort', end)
    if (stopped.aborted) end()
  })
}
