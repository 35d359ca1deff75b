// Looks at servers that a service depends on (`looks.ts`). A look is no turn and no call: what it does carries
// `tallylight.probe` and asks for no quota.
import { context, ROOT_CONTEXT } from '@opentelemetry/api'
import { guarded } from '../hooks/exchange.ts'
import { running, withQuota } from '../instrument.ts'
import { recordHealthCheck } from '../records.ts'
import { withProbe } from '../turns/scene.ts'
import { checkHttp, type HealthCheck, startLooks } from './looks.ts'

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
export function startProber(probes: readonly Probe[], { onCheck }: ProberOptions = {}): AsyncDisposable {
  running()?.exporter.start()
  const tell = (check: HealthCheck): void => {
    recordHealthCheck(check)
    // Nobody waits for it: what it throws would end the looks, and the process.
    const failed = (error: unknown): void => running()?.watch.failed(error)
    const told: unknown = guarded({ failed }, () => onCheck?.(check), undefined)
    if (told instanceof Promise) told.catch(failed)
  }
  const looks = probes.map((probe) =>
    startLooks({ ...probe, check: (signal) => apart(() => checkOf(probe, signal)) }, tell),
  )
  return {
    async [Symbol.asyncDispose]() {
      await Promise.all(looks.map((look) => look[Symbol.asyncDispose]()))
    },
  }
}

function checkOf({ check }: Probe, signal: AbortSignal): Promise<unknown> {
  return typeof check === 'string' ? checkHttp(check, signal) : check(signal)
}

function apart<T>(work: () => T): T {
  return context.with(withProbe(ROOT_CONTEXT), () => withQuota({ skip: true }, work))
}
