// Asks before a call, and settles after it. In every case what was held is settled or given back: also when the caller gave up
// before the answer came, when the stream was cut, and when nobody read it. When the quota service is away, the policy decides,
// and after a few failures it is not asked for a while, so that its absence does not cost each call a time-out.
import { type Context, context, createContextKey } from '@opentelemetry/api'
import type { Counters } from '../counters.ts'
import type { CallEnd, CallStart } from '../hooks/exchange.ts'
import { limits } from '../limits.ts'
import { activeTurn } from '../turns/scene.ts'
import type { Usage } from '../usage/usage.ts'
import { type Estimate, openEstimates } from './estimates.ts'
import type { QuotaClient, ReserveOutcome, SettledUsage } from './quota-client.ts'

export type GateMode = 'observe' | 'enforce'

/** What becomes of a call when the quota service does not answer, and the tenant's own policy is not known for that: it goes,
 *  or it is refused. */
export type FailurePolicy = 'open' | 'closed'

export type QuotaOverride = {
  /** This call is not asked for: it is paid otherwise. */
  readonly skip?: boolean
  /** Instead of what we would guess. */
  readonly estimate?: Partial<Estimate>
  readonly user?: string
}

export type Hold = {
  readonly callId: string
  readonly admitted: Promise<void> | undefined
  /** Settles, or gives back what was held. */
  end(end: CallEnd): void
}

export type Gate = AsyncDisposable & {
  /** Undefined: this call is not asked for. `client` is who asks for it, where that is not the same for all. */
  admit(start: CallStart, client?: QuotaClient): Hold | undefined
  /** Settles when no step is under way. */
  idle(): Promise<void>
}

export type GateOptions = {
  readonly mode: GateMode
  readonly failurePolicy: FailurePolicy
  /** Who asks, where it is the same for all. */
  readonly client?: QuotaClient
  readonly counters: Counters
  readonly nowMs: () => number
}

type Held = { readonly client: QuotaClient; expiresAtMs: number; readonly giveUpAtMs: number }

const overrideKey = createContextKey('tallylight.quota')

export function runWithQuota<T>(override: QuotaOverride, work: () => T): T {
  return context.with(context.active().setValue(overrideKey, override), work)
}

function overrideOf(from: Context): QuotaOverride {
  return (from.getValue(overrideKey) as QuotaOverride | undefined) ?? {}
}

export function openGate(options: GateOptions): Gate {
  const { counters, nowMs } = options
  const estimates = openEstimates()
  const holds = new Map<string, Held>()
  const underWay = new Set<Promise<unknown>>()
  let failuresInARow = 0
  let awayUntilMs = 0

  function track(work: Promise<unknown>): void {
    underWay.add(work)
    work.finally(() => underWay.delete(work))
  }

  function admit(start: CallStart, client = options.client): Hold | undefined {
    if (client === undefined) throw new Error('nobody was named who asks the quota service')
    const override = overrideOf(start.context ?? context.active())
    if (override.skip === true) return undefined
    if (start.transport === 'undici') {
      counters.add('notGated')
      counters.warnOnce('undici', 'calls over undici of one’s own are metered, and cannot be held back by the gate')
      return undefined
    }
    const callId = crypto.randomUUID()
    const estimate = { ...estimates.of(start.request, start.requestBytes), ...override.estimate }
    const reserving = reserve(client, start, callId, estimate, override)
    track(reserving)
    const admitted = options.mode === 'enforce' ? reserving.then(judge) : undefined
    // Its owner may be gone by then; whoever waits gets it all the same.
    admitted?.catch(() => undefined)
    return { callId, admitted, end: (end) => track(settle(client, start, estimate, reserving, end)) }
  }

  async function reserve(
    client: QuotaClient,
    { request, endpoint, context: from }: CallStart,
    callId: string,
    estimate: Estimate,
    override: QuotaOverride,
  ): Promise<ReserveOutcome> {
    if (nowMs() < awayUntilMs) return { kind: 'unavailable', reason: 'it did not answer a moment ago' }
    const scene = activeTurn(from)?.scene
    const outcome = await client.reserve({
      callId,
      user: override.user ?? scene?.user ?? '',
      conversation: scene?.conversation ?? '',
      model: request.model === '' ? 'unknown' : request.model,
      provider: endpoint.provider,
      estimate,
    })
    const isAway = outcome.kind === 'unavailable' && outcome.verdict === undefined
    failuresInARow = isAway ? failuresInARow + 1 : 0
    if (failuresInARow >= limits.quotaFailuresMax) awayUntilMs = nowMs() + limits.quotaAwayMs
    if (outcome.kind === 'granted') {
      const { id, expiresAtMs } = outcome
      holds.set(id, { client, expiresAtMs, giveUpAtMs: Date.now() + limits.quotaHoldMsMax })
    }
    if (outcome.kind === 'denied') counters.add('denied')
    return outcome
  }

  function judge(outcome: ReserveOutcome): void {
    if (outcome.kind === 'granted') return
    if (outcome.kind === 'denied') throw outcome.error
    counters.add('notGated')
    const isAllowed = (outcome.verdict ?? (options.failurePolicy === 'open' ? 'allow' : 'deny')) === 'allow'
    const then = isAllowed ? 'calls go without' : 'calls are refused'
    counters.warnOnce('quota', `the quota service is not available (${outcome.reason}); ${then}`)
    if (!isAllowed) throw new Error(`the quota service is not available: ${outcome.reason}`)
  }

  async function settle(
    client: QuotaClient,
    start: CallStart,
    estimate: Estimate,
    reserving: Promise<ReserveOutcome>,
    end: CallEnd,
  ): Promise<void> {
    const { request, requestBytes, endpoint } = start
    const usage = end.reply?.usage
    if (end.reply?.usageSource === 'provider' && usage !== undefined) estimates.learn(request, requestBytes, usage)
    const outcome = await reserving
    if (outcome.kind !== 'granted') return
    holds.delete(outcome.id)
    const spent = spentOf(request.model, estimate, end)
    const model = end.reply?.model || request.model || 'unknown'
    const step =
      spent === undefined
        ? await client.release(outcome.id)
        : await client.settle(outcome.id, { usage: spent, model, provider: endpoint.provider })
    // The record of the call carries its id, and settles it in the collector where this could not.
    if (step.kind !== 'done') counters.add('settlementsFailed')
  }

  /** Undefined: nothing was spent. What a provider served and did not count is estimated, never free. */
  function spentOf(
    model: string,
    estimate: Estimate,
    { ending, status, reply, error }: CallEnd,
  ): SettledUsage | undefined {
    const usage = reply?.usage
    if (reply !== undefined && reply.usageSource === 'provider' && usage !== undefined) return settled(usage)
    if (ending === 'denied' || status >= 400 || isUnsent(error)) return undefined
    const written = estimates.tokensOf(model, reply?.outputChars ?? 0)
    return settled({
      ...usage,
      inputTokens: usage?.inputTokens ?? estimate.inputTokens,
      outputTokens: Math.max(usage?.outputTokens ?? 0, written),
    })
  }

  const extending = setInterval(() => {
    const nowMs = Date.now()
    // A reply that nobody reads and nobody closes must not hold its quota for ever: its hold expires by itself.
    for (const [id, { giveUpAtMs }] of holds) if (giveUpAtMs < nowMs) holds.delete(id)
    const soonMs = nowMs + limits.quotaHoldMs / 2
    const due = [...holds].filter(([, { expiresAtMs }]) => expiresAtMs < soonMs)
    for (const [client, theirs] of Map.groupBy(due, ([, held]) => held.client)) {
      const ids = theirs.map(([id]) => id)
      for (let at = 0; at < ids.length; at += limits.quotaBatchMax)
        track(extend(client, ids.slice(at, at + limits.quotaBatchMax)))
    }
  }, limits.quotaHoldMs / 4).unref()

  async function extend(client: QuotaClient, ids: readonly string[]): Promise<void> {
    const step = await client.extend(ids)
    if (step.kind !== 'done') return
    for (const id of ids) {
      const held = holds.get(id)
      if (held !== undefined) held.expiresAtMs = Date.now() + limits.quotaHoldMs
    }
  }

  async function idle(): Promise<void> {
    while (underWay.size > 0) await Promise.allSettled(underWay)
  }

  return {
    admit,
    idle,
    async [Symbol.asyncDispose]() {
      clearInterval(extending)
      await idle()
    },
  }
}

function settled({ inputTokens = 0, outputTokens = 0, cacheReadTokens, cacheWriteTokens }: Usage): SettledUsage {
  return {
    inputTokens,
    outputTokens,
    ...(cacheReadTokens === undefined ? {} : { cacheReadTokens }),
    ...(cacheWriteTokens === undefined ? {} : { cacheWriteTokens }),
  }
}

/** In the chain of causes of an error, for who knows that not a byte of the request has left. */
export const unsentCode = 'TALLYLIGHT_UNSENT'

const unsentCodes = new Set([unsentCode, 'ECONNREFUSED', 'ENOTFOUND', 'EAI_AGAIN', 'EHOSTUNREACH', 'ENETUNREACH'])

/** No connection came about: no provider can have charged for it. */
function isUnsent(error: unknown): boolean {
  for (let each = error, depth = 0; each instanceof Error && depth < 4; each = each.cause, depth++)
    if ('code' in each && unsentCodes.has(String(each.code))) return true
  return false
}
