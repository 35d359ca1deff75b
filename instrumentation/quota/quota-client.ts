// The quota service's HTTP, as a service needs it. A reservation is waited for by its caller; everything after it must not keep
// the process alive.
import http from 'node:http'
import https from 'node:https'
import { json } from 'node:stream/consumers'
import { runSeen } from '../hooks/exchange.ts'
import { limits } from '../limits.ts'
import { type Json, objectOf, textOf } from '../providers/json-fields.ts'
import { QuotaExceededError } from './quota-exceeded.ts'

export type ReservationRequest = {
  readonly callId: string
  readonly user: string
  readonly conversation: string
  readonly model: string
  readonly provider: string
  readonly estimate: { readonly inputTokens: number; readonly outputTokensMax: number }
}

export type ReserveOutcome =
  | { readonly kind: 'granted'; readonly id: string; readonly expiresAtMs: number }
  | { readonly kind: 'denied'; readonly error: QuotaExceededError }
  /** With a verdict the service has answered: its ledger is away, and this is what the tenant wants done then. */
  | { readonly kind: 'unavailable'; readonly reason: string; readonly verdict?: 'allow' | 'deny' }

export type SettledUsage = {
  readonly inputTokens: number
  readonly outputTokens: number
  readonly cacheReadTokens?: number
  readonly cacheWriteTokens?: number
}

export type StepOutcome =
  | { readonly kind: 'done' }
  | { readonly kind: 'unavailable' | 'refused'; readonly reason: string }

export type QuotaClient = {
  reserve(request: ReservationRequest): Promise<ReserveOutcome>
  settle(
    id: string,
    settled: { readonly usage: SettledUsage; readonly model: string; readonly provider: string },
  ): Promise<StepOutcome>
  release(id: string): Promise<StepOutcome>
  /** All at once. One that is settled by then answers so in its item, and is nobody's concern any more. */
  extend(ids: readonly string[]): Promise<StepOutcome>
}

export type Answered =
  | { readonly kind: 'answer'; readonly status: number; readonly body: Json; readonly retryAfter: string }
  | { readonly kind: 'unavailable'; readonly reason: string }

/** Brings a request to the quota service, by its path behind `/v1/quota/`. */
export type Post = (path: string, body: unknown, isWaitedFor: boolean) => Promise<Answered>

export function openQuotaClient(options: { readonly url: string; readonly key: string }): QuotaClient {
  return quotaClientOver(postOverHttp(options))
}

function postOverHttp(options: { readonly url: string; readonly key: string }): Post {
  const base = `${options.url.replace(/\/+$/, '')}/v1/quota`
  const module = base.startsWith('https:') ? https : http
  const agent = new module.Agent({ keepAlive: true })

  /** Our own requests are nobody's calls, also where the collector's host is a provider's for its proxy. */
  return (path, body, isWaitedFor) => runSeen(() => postOnce(path, body, isWaitedFor))

  function postOnce(path: string, body: unknown, isWaitedFor: boolean): Promise<Answered> {
    const { promise, resolve } = Promise.withResolvers<Answered>()
    const text = JSON.stringify(body)
    const request = module.request(`${base}/${path}`, {
      method: 'POST',
      agent,
      timeout: limits.quotaTimeoutMs,
      headers: {
        'content-type': 'application/json',
        'content-length': Buffer.byteLength(text),
        ...(options.key === '' ? {} : { authorization: `Bearer ${options.key}` }),
      },
    })
    if (!isWaitedFor) request.on('socket', (socket) => socket.unref())
    request.on('timeout', () => request.destroy(new Error(`no answer in ${limits.quotaTimeoutMs} ms`)))
    request.on('error', (error) => resolve({ kind: 'unavailable', reason: error.message || error.name }))
    request.on('response', (response) => {
      const { statusCode: status = 0, headers } = response
      json(response).then(
        (value) => resolve({ kind: 'answer', status, body: objectOf(value), retryAfter: headers['retry-after'] ?? '' }),
        () => resolve({ kind: 'unavailable', reason: `the answer ${status} is no JSON` }),
      )
    })
    request.end(text)
    return promise
  }
}

export function quotaClientOver(post: Post): QuotaClient {
  async function step(path: string, body: unknown): Promise<StepOutcome> {
    const answered = await post(path, body, false)
    if (answered.kind === 'unavailable') return answered
    if (answered.status < 300) return { kind: 'done' }
    return { kind: answered.status >= 500 ? 'unavailable' : 'refused', reason: `answered ${answered.status}` }
  }

  return {
    async reserve(request) {
      const answered = await post('reservations', request, true)
      return answered.kind === 'unavailable' ? answered : reserveOutcomeOf(answered)
    },
    settle: (id, settled) => step(`reservations/${id}/settle`, settled),
    release: (id) => step(`reservations/${id}/release`, {}),
    extend: (ids) =>
      step(
        'reservations/extend',
        ids.map((id) => ({ id, ttlMs: limits.quotaHoldMs })),
      ),
  }
}

function reserveOutcomeOf({ status, body, retryAfter }: Extract<Answered, { kind: 'answer' }>): ReserveOutcome {
  if (status === 201) {
    const expiresAtMs = Date.parse(textOf(body.expiresAt))
    return { kind: 'granted', id: textOf(body.id), expiresAtMs: Number.isNaN(expiresAtMs) ? 0 : expiresAtMs }
  }
  const detail = textOf(body.detail)
  // 400 with this text is a decision, too: what a call costs is unknown, and a limit on cost blocks.
  const isUnpriced = status === 400 && detail.startsWith('model:')
  if (status !== 429 && !isUnpriced) {
    const { verdict } = body
    const isJudged = status === 503 && (verdict === 'allow' || verdict === 'deny')
    return { kind: 'unavailable', reason: detail || `answered ${status}`, ...(isJudged ? { verdict } : {}) }
  }
  return { kind: 'denied', error: denialOf(body, detail, retryAfter) }
}

function denialOf(body: Json, detail: string, retryAfter: string): QuotaExceededError {
  const resets = new Date(textOf(body.frees))
  const seconds = retryAfter === '' ? Number.NaN : Number(retryAfter)
  return new QuotaExceededError(detail === '' ? 'the quota is exceeded' : detail, {
    limitId: textOf(body.limitId),
    measure: textOf(body.measure),
    requested: amountOf(body.requested),
    limit: amountOf(body.limit),
    used: amountOf(body.used),
    held: amountOf(body.held),
    free: amountOf(body.free),
    resetsAt: Number.isNaN(resets.getTime()) ? undefined : resets,
    retryAfterMs: Number.isNaN(seconds) ? undefined : seconds * 1000,
  })
}

/** A number, or its digits as text where it is too large for one. */
function amountOf(value: unknown): bigint {
  return (typeof value === 'number' && Number.isSafeInteger(value)) ||
    (typeof value === 'string' && /^-?\d+$/.test(value))
    ? BigInt(value)
    : 0n
}
