// Asks before a call, and settles after it. In every case what was held is settled or given back: also when the caller gave up
// before the answer came, when the stream was cut, and when nobody read it. A call on a hot path is granted out of a lease,
// without a round trip. When the quota service is away, the tenant's policy decides, and after a few failures it is not asked for a
// while, so that its absence does not cost each call a time-out.
import { type Context, context, createContextKey } from '@opentelemetry/api'
import type { Counters } from '../counters.ts'
import type { CallEnd, CallStart } from '../hooks/exchange.ts'
import { limits } from '../limits.ts'
import { activeTurn, textOf } from '../turns/scene.ts'
import type { Usage } from '../usage/usage.ts'
import { type AbsencePolicy, openAbsence } from './absence.ts'
import { countOr, type Estimate, openEstimates } from './estimates.ts'
import type { HeldOn, LeasedCall } from './lease.ts'
import { openLeases } from './leases.ts'
import type { CallSubject, QuotaClient, ReserveOutcome, SettledUsage } from './quota-client.ts'
import { refusedWhileAway } from './quota-exceeded.ts'

export type GateMode = 'observe' | 'enforce'

/** What becomes of a call when the quota service has never answered: it goes, or it is refused. Later its tenant's own counts. */
export type FailurePolicy = 'open' | 'closed'

export type QuotaOverride = {
  /** This call is not asked for: it is paid otherwise. */
  readonly skip?: boolean
  /** Instead of what we would guess. */
  readonly estimate?: Partial<Estimate>
  readonly user?: string
  /** Whether the call may be granted out of a lease; without one as `quotaLeases` says. */
  readonly lease?: boolean
}

export type Hold = {
  readonly callId: string
  readonly admitted: Promise<void> | undefined
  /** By what the call went or was refused when the quota service was away; '' when it was there. */
  absencePolicy(): AbsencePolicy | ''
  /** Settles, or gives back what was held. */
  end(end: CallEnd): void
}

export type Gate = AsyncDisposable & {
  /** Undefined: this call is not asked for. */
  admit(start: CallStart): Hold | undefined
  /** Gives back the leases, and settles when no step is under way. */
  idle(): Promise<void>
}

export type GateOptions = {
  readonly mode: GateMode
  readonly failurePolicy: FailurePolicy
  /** Whether calls are granted out of leases where they do not say otherwise. */
  readonly leases: boolean
  readonly client: QuotaClient
  readonly counters: Counters
  /** Monotonic. */
  readonly nowMs: () => number
}

const overrideKey = createContextKey('tallylight.quota')

/** What it leaves open is as the override around it says. */
export function runWithQuota<T>(override: QuotaOverride, work: () => T): T {
  const active = context.active()
  return context.with(active.setValue(overrideKey, { ...overrideOf(active), ...override }), work)
}

function overrideOf(from: Context): QuotaOverride {
  return (from.getValue(overrideKey) as QuotaOverride | undefined) ?? {}
}

export function openGate(options: GateOptions): Gate {
  const { client, counters, nowMs } = options
  const estimates = openEstimates()
  const absence = openAbsence(options.failurePolicy)
  const leases = openLeases({ client, counters, nowMs })
  const holds = new Map<string, HeldOn & { readonly giveUpAtMs: number }>()
  const underWay = new Set<Promise<unknown>>()
  let isLeaving = false
  let failuresInARow = 0
  let awayUntilMs = 0

  function track(work: Promise<unknown>): void {
    underWay.add(work)
    const done = (): void => void underWay.delete(work)
    work.then(done, done)
  }

  function admit(start: CallStart): Hold | undefined {
    const override = overrideOf(start.context ?? context.active())
    if (override.skip === true) return undefined
    if (start.transport === 'undici') {
      counters.add('notGated')
      counters.warnOnce('undici', 'calls over undici of one’s own are metered, and cannot be held back by the gate')
      return undefined
    }
    const subject = subjectOf(start, override)
    const guessed = estimates.of(start.request, start.requestBytes)
    const inputTokens = countOr(override.estimate?.inputTokens, guessed.inputTokens)
    const outputTokens = countOr(override.estimate?.outputTokensMax, guessed.outputTokensMax)
    const estimate = { inputTokens, outputTokensMax: outputTokens }
    const mayLease = options.mode === 'enforce' && (override.lease ?? options.leases)
    const leased = mayLease ? leases.reserve(subject, { inputTokens, outputTokens }) : undefined
    return leased === undefined ? reserved(start, subject, estimate) : leasedHold(start, estimate, leased)
  }

  function leasedHold(start: CallStart, estimate: Estimate, leased: LeasedCall): Hold {
    return {
      callId: leased.callId,
      admitted: undefined,
      absencePolicy: () => '',
      end: (end) => {
        learn(start, end)
        leased.settle(spentOf(start.request.model, estimate, end))
      },
    }
  }

  function reserved(start: CallStart, subject: CallSubject, estimate: Estimate): Hold {
    const callId = crypto.randomUUID()
    let policy: AbsencePolicy | '' = ''
    const reserving = reserve(callId, subject, estimate)
    track(reserving)
    const decide = (outcome: ReserveOutcome): void => {
      if (outcome.kind === 'denied') throw outcome.error
      if (outcome.kind === 'granted') return
      const judged = judge(outcome, subject, estimate)
      policy = judged.policy
      if (judged.verdict === 'deny') throw refusedWhileAway(outcome.reason)
    }
    const admitted = options.mode === 'enforce' ? reserving.then(decide) : undefined
    // Its owner may be gone by then; whoever waits gets it all the same.
    admitted?.catch(() => undefined)
    return {
      callId,
      admitted,
      absencePolicy: () => policy,
      end: (end) => track(settle(start, estimate, reserving, end)),
    }
  }

  async function reserve(callId: string, subject: CallSubject, estimate: Estimate): Promise<ReserveOutcome> {
    if (nowMs() < awayUntilMs) return { kind: 'unavailable', reason: 'it did not answer a moment ago' }
    const request = { callId, ...subject, estimate }
    const askedMs = nowMs()
    const isWaitedFor = options.mode === 'enforce'
    const reserveNow = (): Promise<ReserveOutcome> => client.reserve(request, isWaitedFor)
    let outcome = await reserveNow()
    if (outcome.kind === 'denied') {
      const given = leases.giveBack(subject)
      if (await (isWaitedFor ? keptAlive(given) : given)) outcome = await reserveNow()
    }
    const isAway = outcome.kind === 'unavailable' && outcome.verdict === undefined
    failuresInARow = isAway ? failuresInARow + 1 : 0
    if (failuresInARow >= limits.quotaFailuresMax) awayUntilMs = nowMs() + limits.quotaAwayMs
    if (outcome.kind === 'unavailable') return outcome
    absence.answered(outcome.forAbsence, subject.model, estimate)
    if (outcome.kind === 'denied') counters.add('denied')
    else {
      const { id } = outcome
      holds.set(id, { id, untilMs: askedMs + limits.quotaHoldMs, giveUpAtMs: askedMs + limits.quotaHoldMsMax })
    }
    return outcome
  }

  function judge(
    { reason, verdict, policy }: Extract<ReserveOutcome, { kind: 'unavailable' }>,
    { model }: CallSubject,
    estimate: Estimate,
  ): { readonly policy: AbsencePolicy; readonly verdict: 'allow' | 'deny' } {
    const judged = verdict === undefined || policy === undefined ? absence.judge(model, estimate) : { policy, verdict }
    counters.add('notGated')
    const then = judged.verdict === 'allow' ? 'calls go without' : 'calls are refused'
    counters.warnOnce(
      `quota ${judged.verdict}`,
      `the quota service is not available (${reason}); ${then}, by the policy ${judged.policy}`,
    )
    return judged
  }

  async function settle(
    start: CallStart,
    estimate: Estimate,
    reserving: Promise<ReserveOutcome>,
    end: CallEnd,
  ): Promise<void> {
    const { request, endpoint } = start
    learn(start, end)
    const outcome = await reserving
    if (outcome.kind !== 'granted') return
    holds.delete(outcome.id)
    const spent = spentOf(request.model, estimate, end)
    const model = modelOf(end.reply?.model || request.model)
    const step =
      spent === undefined
        ? await client.release(outcome.id)
        : await client.settle(outcome.id, { usage: spent, model, provider: endpoint.provider })
    // The record of the call carries its id, and settles it in the collector where this could not.
    if (step.kind !== 'done') counters.add('settlementsFailed')
  }

  function learn({ request, requestBytes, transport }: CallStart, { reply }: CallEnd): void {
    if (reply?.usageSource !== 'provider' || reply.usage === undefined) return
    // What a realtime model reads was told to its session before, most of it as sound: it is not in what asks for a response.
    estimates.learn(request, transport === 'websocket' ? 0 : requestBytes, reply.usage)
  }

  /** Undefined: nothing was spent. What a provider served and did not count is estimated, never free. */
  function spentOf(
    model: string,
    estimate: Estimate,
    { ending, status, reply, error, isHeldBack }: CallEnd,
  ): SettledUsage | undefined {
    const usage = reply?.usage
    if (reply !== undefined && reply.usageSource === 'provider' && usage !== undefined) return settled(usage)
    if (ending === 'denied' || isHeldBack === true || status >= 300) return undefined
    // With a reply the error is that of whoever read it: a sink that could not connect ends the stream that fills it.
    if (status === 0 && isUnsent(error)) return undefined
    const written = estimates.tokensOf(model, reply?.outputChars ?? 0)
    return settled({
      ...usage,
      inputTokens: usage?.inputTokens ?? estimate.inputTokens,
      outputTokens: Math.max(usage?.outputTokens ?? 0, written),
    })
  }

  const heldNow = (): readonly HeldOn[] => [...holds.values(), ...leases.sweep()]
  const extending = setInterval(() => {
    const now = nowMs()
    // A reply that nobody reads and nobody closes must not hold its quota for ever: its hold expires by itself.
    for (const [id, { giveUpAtMs }] of holds) if (giveUpAtMs < now) holds.delete(id)
    const open = heldNow()
    if (isLeaving && open.length === 0) clearInterval(extending)
    const due = open.filter(({ untilMs }) => untilMs < now + limits.quotaHoldMs / 2)
    for (let at = 0; at < due.length; at += limits.quotaBatchMax)
      track(extend(due.slice(at, at + limits.quotaBatchMax)))
  }, limits.quotaHoldMs / 4).unref()

  /** From when it was asked for, by our own clock: the service's may be minutes away. What was not extended is asked for again. */
  async function extend(due: readonly HeldOn[]): Promise<void> {
    const askedMs = nowMs()
    const step = await client.extend(due.map(({ id }) => id))
    if (step.kind === 'done') for (const each of due) each.untilMs = askedMs + limits.quotaHoldMs
  }

  async function idle(): Promise<void> {
    await leases.close()
    while (underWay.size > 0) await Promise.allSettled(underWay)
  }

  return {
    admit,
    idle,
    async [Symbol.asyncDispose]() {
      await idle()
      // Calls may go on, those of a gate that gave way to another in the proxy for one: they keep what they hold.
      isLeaving = true
      if (heldNow().length === 0) clearInterval(extending)
    },
  }
}

/** A call waits for it, and the connections over which leases are given back keep no process alive. They take no longer. */
async function keptAlive<T>(work: Promise<T>): Promise<T> {
  const timer = setTimeout(() => undefined, limits.quotaTimeoutMs)
  try {
    return await work
  } finally {
    clearTimeout(timer)
  }
}

function subjectOf({ request, endpoint, context: from }: CallStart, override: QuotaOverride): CallSubject {
  const scene = activeTurn(from)?.scene
  return {
    user: nameOf(override.user ?? scene?.user ?? '', limits.quotaNameCharsMax),
    conversation: nameOf(scene?.conversation ?? '', limits.quotaNameCharsMax),
    model: modelOf(request.model),
    provider: nameOf(endpoint.provider, limits.quotaNameCharsMax),
  }
}

function modelOf(name: string): string {
  return nameOf(name === '' ? 'unknown' : name, limits.quotaModelCharsMax)
}

/** As the quota service can keep it. A call that it refused to read would be judged as if it were away, and a few of them would
 *  be taken for its absence, for everybody's calls. Services in JavaScript have users that are numbers, too. */
function nameOf(name: string, charsMax: number): string {
  return textOf(name).slice(0, charsMax).replaceAll('\0', '\ufffd').toWellFormed()
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

const unsentCodes = new Set([
  unsentCode,
  'ECONNREFUSED',
  'ENOTFOUND',
  'EAI_AGAIN',
  'EHOSTUNREACH',
  'ENETUNREACH',
  'UND_ERR_CONNECT_TIMEOUT',
  // A dispatcher that does not go with this fetch.
  'UND_ERR_INVALID_ARG',
])

/** Names of OpenSSL and Node for a certificate that is not trusted: the request goes out behind it. */
const isDistrust = (code: string): boolean => /CERT|^ERR_TLS_|^UNABLE_TO_|^HOSTNAME_MISMATCH$/.test(code)

/** No connection came about: no provider can have charged for it. One that had can fail by the same names, as it is read. */
function isUnsent(error: unknown): boolean {
  for (let each = error, depth = 0; each instanceof Error && depth < 4; each = each.cause, depth++) {
    const code = 'code' in each && typeof each.code === 'string' ? each.code : ''
    if ('syscall' in each && (each.syscall === 'read' || each.syscall === 'write')) return false
    if (unsentCodes.has(code) || isDistrust(code)) return true
  }
  return false
}
