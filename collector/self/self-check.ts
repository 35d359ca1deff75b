// What the collector does for its own sake, once a minute: a probe of the whole road, and a reading of its numbers into its
// own tables. Off with an interval of 0.
import type { Metrics } from '../metrics.ts'
import { pause } from '../quota/pause.ts'
import type { Log } from '../receive/admission.ts'
import { reservedTenant } from '../receive/key-rules.ts'
import type { Accept, TenantId } from '../receive/request.ts'
import type { Canary, Send } from './canary.ts'
import type { Readings } from './readings.ts'

/** Sends past the ports. */
export function openOwnSender(accept: Accept, tenant: TenantId = reservedTenant): Send {
  const identity = { tenant, roles: new Set(['ingest'] as const), manyTenants: false, keyId: '' }
  return async (signal, body) => {
    const outcome = await accept({ signal, identity, encoding: 'json', contentEncoding: 'identity', body })
    return outcome.kind === 'accepted' && outcome.rejected === 0
  }
}

export type SelfCheck = {
  run(signal: AbortSignal): Promise<void>
  /** The last numbers, while the journal still takes them. */
  lastWords(): Promise<void>
}

export function openSelfCheck(options: {
  readonly intervalMs: number
  readonly canary: Canary
  readonly readings: Readings
  readonly metrics: Pick<Metrics, 'read'>
  readonly send: Send
  readonly now: () => number
  readonly log: Log
}): SelfCheck {
  const { intervalMs, canary, readings, metrics, send, now, log } = options

  async function write(): Promise<void> {
    const reading = readings.take(metrics.read(), now())
    if (await send('metrics', reading.body)) reading.keep()
  }

  async function repeat(work: () => Promise<unknown>, signal: AbortSignal): Promise<void> {
    for (;;) {
      await pause(intervalMs, signal)
      if (signal.aborted) return
      try {
        await work()
      } catch (error) {
        log.warn({ err: error }, 'the collector could not look at itself')
      }
    }
  }

  /** Side by side: a probe that waits for an engine must not keep the numbers that say so from being written. */
  async function run(signal: AbortSignal): Promise<void> {
    if (intervalMs > 0) await Promise.all([repeat(() => canary.probe(signal), signal), repeat(write, signal)])
  }

  async function lastWords(): Promise<void> {
    if (intervalMs > 0) await write()
  }

  return { run, lastWords }
}
