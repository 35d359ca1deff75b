// The servers of the configuration file, looked at by one of the collectors that have it. What a look finds goes the road of every
// record, as the span that a service's own prober sends, of the probe's tenant: it is a health check, no call, and costs nothing.
import { randomBytes } from 'node:crypto'
import { type HealthCheck, startLooks } from '@tallylight/instrumentation/health/looks.ts'
import type { ProbeSetting } from '../config.ts'
import type { Metrics } from '../metrics.ts'
import type { Log } from '../receive/admission.ts'
import { checkServer, type Environment, NotLooked } from './check.ts'
import type { Turns } from './turns.ts'

export type Probes = AsyncDisposable & {
  /** From now on these, and no others; those that stay as they were go on undisturbed. */
  apply(wanted: readonly ProbeSetting[]): void
}

export type ProbesOptions = {
  readonly turns: Turns
  readonly environment: Environment
  /** Which collector looked, on each row. */
  readonly collectorId: string
  /** Whether the records are durable. */
  readonly send: (tenant: string, body: Buffer) => Promise<boolean>
  readonly metrics: Pick<Metrics, 'add' | 'observe'>
  readonly now: () => number
  readonly log: Log
}

type Running = { readonly probe: ProbeSetting; stop(): void }

export function openProbes(options: ProbesOptions): Probes {
  const { turns, environment, metrics, log } = options
  /** By the whole setting: a changed one is another. */
  const running = new Map<string, Running>()
  /** Last looks, rows on their way, sessions that are being left: waited for at the end. */
  const pending = new Set<Promise<void>>()

  function wait(work: Promise<void>): void {
    const waited = work
      .catch((error: unknown) => log.error({ err: error }, 'a probe could not be ended or recorded'))
      .finally(() => pending.delete(waited))
    pending.add(waited)
  }

  function start(probe: ProbeSetting): Running {
    const { tenant, target, kind, intervalMs, timeoutMs } = probe
    let looks: AsyncDisposable | undefined
    let complaint = ''
    const check = async (signal: AbortSignal): Promise<object> => {
      const found = await checkServer(probe, environment, signal, wait)
      complaint = ''
      return found
    }
    const tell = (seen: HealthCheck): void => {
      if (!(seen.error instanceof NotLooked)) {
        wait(record(probe, seen))
        return
      }
      metrics.add('tallylight_probes_total', { tenant, target, status: 'not_looked' }, 1)
      if (seen.error.message !== complaint)
        log.error({ tenant, target, why: seen.error.message }, 'a server cannot be probed')
      complaint = seen.error.message
    }
    const end = (): void => {
      if (looks !== undefined) wait(Promise.resolve(looks[Symbol.asyncDispose]()))
      looks = undefined
    }
    const giveUp = turns.want(
      `tallylight probe ${tenant} ${kind} ${target}`,
      () => {
        looks = startLooks({ target, check, intervalMs, timeoutMs }, tell)
      },
      end,
    )
    return {
      probe,
      stop: () => {
        giveUp()
        end()
      },
    }
  }

  async function record({ tenant, target }: ProbeSetting, seen: HealthCheck): Promise<void> {
    metrics.add('tallylight_probes_total', { tenant, target, status: seen.status }, 1)
    metrics.observe('tallylight_probe_seconds', { tenant, target }, (seen.responseTimeMs ?? 0) / 1000)
    const body = Buffer.from(JSON.stringify(requestOf(seen, options.collectorId, options.now())))
    if (await options.send(tenant, body)) return
    metrics.add('tallylight_probes_total', { tenant, target, status: 'not_stored' }, 1)
  }

  function apply(wanted: readonly ProbeSetting[]): void {
    const byKey = new Map(wanted.map((probe) => [JSON.stringify(probe), probe]))
    for (const [key, { stop }] of running) {
      if (byKey.has(key)) continue
      running.delete(key)
      stop()
    }
    for (const [key, probe] of byKey) if (!running.has(key)) running.set(key, start(probe))
  }

  return {
    apply,
    [Symbol.asyncDispose]: async () => {
      apply([])
      while (pending.size > 0) await Promise.all(pending)
    },
  }
}

/** OTLP/JSON of the span that `recordHealthCheck` of the instrumentation makes. */
function requestOf(seen: HealthCheck, collectorId: string, nowUnixMs: number): object {
  const { target, status, event = 'interval', responseTimeMs = 0, error, metadata = {} } = seen
  const said = {
    'tallylight.health.target': target,
    'tallylight.health.status': status,
    'tallylight.health.event': event,
    'tallylight.health.response_time': responseTimeMs / 1000,
    'tallylight.probe': true,
    'tallylight.health.metadata.collector': collectorId,
    ...Object.fromEntries(Object.entries(metadata).map(([key, value]) => [`tallylight.health.metadata.${key}`, value])),
    ...(error instanceof Error ? { 'error.type': error.name } : {}),
  }
  const span = {
    traceId: randomBytes(16).toString('hex'),
    spanId: randomBytes(8).toString('hex'),
    name: 'health check',
    kind: 1,
    startTimeUnixNano: nanoOf(nowUnixMs - responseTimeMs),
    endTimeUnixNano: nanoOf(nowUnixMs),
    attributes: attributesOf(said),
    status: error instanceof Error ? { code: 2, message: error.message } : {},
  }
  const resource = { attributes: attributesOf({ 'service.name': 'tallylight', 'service.instance.id': collectorId }) }
  return { resourceSpans: [{ resource, scopeSpans: [{ scope: { name: '@tallylight/collector' }, spans: [span] }] }] }
}

function nanoOf(unixMs: number): string {
  return `${BigInt(Math.round(unixMs * 1_000)) * 1_000n}`
}

function attributesOf(values: Readonly<Record<string, string | number | boolean>>): readonly object[] {
  return Object.entries(values).map(([key, value]) => ({ key, value: anyValueOf(value) }))
}

function anyValueOf(value: string | number | boolean): object {
  if (typeof value === 'string') return { stringValue: value }
  return typeof value === 'boolean' ? { boolValue: value } : { doubleValue: value }
}
