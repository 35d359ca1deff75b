// The quota service's HTTP, as a service needs it. A reservation that its caller waits for keeps the process alive; nothing else does.
import http from 'node:http'
import https from 'node:https'
import { json } from 'node:stream/consumers'
import { runSeen } from '../hooks/exchange.ts'
import { limits } from '../limits.ts'
import { type Json, objectOf, textOf } from '../providers/json-fields.ts'
import { QuotaExceededError } from './quota-exceeded.ts'

/** Whom a limit may hold for. */
export type CallSubject = {
  readonly user: string
  readonly conversation: string
  readonly model: string
  readonly provider: string
}

export type ReservationRequest = CallSubject & {
  readonly callId: string
  readonly estimate: { readonly inputTokens: number; readonly outputTokensMax: number }
}

export type LeaseRequest = CallSubject & {
  readonly callId: string
  readonly allowance: { readonly inputTokens: number; readonly outputTokens: number; readonly requests: number }
  readonly ttlMs: number
}

/** What a tenant wants done with calls while its quota service is away. `bounded`: so much, in each process and outage. */
export type TenantPolicy =
  | { readonly policy: 'open' | 'closed' }
  | { readonly policy: 'bounded'; readonly costNanoUsd: number; readonly requests: number }

/** What an answer told for the time when none comes: the tenant's policy, and what this call may cost. */
export type ForAbsence = { readonly tenant: TenantPolicy; readonly callNanoUsd: number | undefined }

export type ReserveOutcome =
  | {
      readonly kind: 'granted'
      readonly id: string
      readonly forAbsence: ForAbsence | undefined
    }
  | { readonly kind: 'denied'; readonly error: QuotaExceededError; readonly forAbsence: ForAbsence | undefined }
  | {
      readonly kind: 'unavailable'
      readonly reason: string
      /** Of a quota service whose ledger is away: it has judged by the tenant's policy. */
      readonly verdict?: 'allow' | 'deny'
      readonly policy?: TenantPolicy['policy']
    }

export type GrantedLease = {
  readonly id: string
  readonly holds: readonly { readonly measure: string; readonly amount: number }[]
}

export type SettledUsage = {
  readonly inputTokens: number
  readonly outputTokens: number
  readonly cacheReadTokens?: number
  readonly cacheWriteTokens?: number
}

export type SpentLease = {
  readonly usage: SettledUsage
  readonly requests: number
  readonly model: string
  readonly provider: string
}

export type StepOutcome =
  | { readonly kind: 'done' }
  | { readonly kind: 'unavailable' | 'refused'; readonly reason: string }

export type QuotaClient = {
  /** `isWaitedFor`: a call goes or stays by it. */
  reserve(request: ReservationRequest, isWaitedFor: boolean): Promise<ReserveOutcome>
  settle(
    id: string,
    settled: { readonly usage: SettledUsage; readonly model: string; readonly provider: string },
  ): Promise<StepOutcome>
  release(id: string): Promise<StepOutcome>
  /** Undefined: none is granted now. Nobody waits for it. */
  lease(request: LeaseRequest): Promise<GrantedLease | undefined>
  endLease(id: string, spent: SpentLease): Promise<StepOutcome>
  /** All at once. One that is settled by then answers so in its item, and is nobody's concern any more. */
  extend(ids: readonly string[]): Promise<StepOutcome>
}

export type Answered =
  | {
      readonly kind: 'answer'
      readonly status: number
      readonly body: Json
      readonly retryAfter: string
      /** The tenant's, for the time when no answer comes: the header `Tallylight-Failure-Policy`. */
      readonly policy: string
    }
  | { readonly kind: 'unavailable'; readonly reason: string }

/** Brings a request to the quota service, by its path behind `/v1/quota/`. */
export type Post = (path: string, body: unknown, isWaitedFor: boolean) => Promise<Answered>

export function openQuotaClient(options: { readonly url: string; readonly key: string }): QuotaClient {
  return quotaClientOver(postOverHttp(options))
}

/** Our own requests are nobody's calls, also where the collector's host is a provider's for its proxy. */
function postOverHttp(options: { readonly url: string; readonly key: string }): Post {
  const base = `${options.url.replace(/\/+$/, '')}/v1/quota`
  const module = base.startsWith('https:') ? https : http
  const agent = new module.Agent({ keepAlive: true })

  return (path, body, isWaitedFor) => {
    try {
      return runSeen(() => postOnce(path, body, isWaitedFor))
    } catch (error) {
      // Thrown at once for a URL or key that no request can carry, a line break in it for one.
      return Promise.resolve({ kind: 'unavailable', reason: error instanceof Error ? error.message : String(error) })
    }
  }

  function postOnce(path: string, body: unknown, isWaitedFor: boolean): Promise<Answered> {
    const { promise, resolve } = Promise.withResolvers<Answered>()
    const text = JSON.stringify(body)
    const request = module.request(`${base}/${path}`, {
      method: 'POST',
      agent,
      headers: {
        'content-type': 'application/json',
        'content-length': Buffer.byteLength(text),
        ...(options.key === '' ? {} : { authorization: `Bearer ${options.key}` }),
      },
    })
    if (!isWaitedFor) request.on('socket', (socket) => socket.unref())
    // Over all of it: a time-out of the socket begins anew with every byte.
    const timer = setTimeout(() => {
      resolve({ kind: 'unavailable', reason: `no answer in ${limits.quotaTimeoutMs} ms` })
      request.destroy()
    }, limits.quotaTimeoutMs).unref()
    promise.then(() => clearTimeout(timer))
    request.on('error', (error) => resolve({ kind: 'unavailable', reason: error.message || error.name }))
    request.on('response', (response) => {
      const { statusCode: status = 0, headers } = response
      json(response).then(
        (value) => {
          const policy = String(headers['tallylight-failure-policy'] ?? '')
          resolve({ kind: 'answer', status, body: objectOf(value), retryAfter: headers['retry-after'] ?? '', policy })
        },
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
    async reserve(request, isWaitedFor) {
      const answered = await post('reservations', request, isWaitedFor)
      return answered.kind === 'unavailable' ? answered : reserveOutcomeOf(answered)
    },
    settle: (id, settled) => step(`reservations/${id}/settle`, settled),
    release: (id) => step(`reservations/${id}/release`, {}),
    async lease(request) {
      const answered = await post('leases', request, false)
      return answered.kind === 'answer' && answered.status === 201 ? leaseOf(answered.body) : undefined
    },
    endLease: (id, spent) =>
      spent.requests === 0 ? step(`reservations/${id}/release`, {}) : step(`reservations/${id}/settle`, spent),
    extend: (ids) =>
      step(
        'reservations/extend',
        ids.map((id) => ({ id, ttlMs: limits.quotaHoldMs })),
      ),
  }
}

function reserveOutcomeOf(answer: Extract<Answered, { kind: 'answer' }>): ReserveOutcome {
  const { status, body, retryAfter, policy } = answer
  const forAbsence = forAbsenceOf(policy)
  if (status === 201) return { kind: 'granted', id: textOf(body.id), forAbsence }
  const detail = textOf(body.detail)
  // 400 with this text is a decision, too: what a call costs is unknown, and a limit on cost blocks.
  const isUnpriced = status === 400 && detail.startsWith('model:')
  if (status === 429 || isUnpriced)
    return { kind: 'denied', error: denialOf(body, detail, retryAfter, isUnpriced), forAbsence }
  const judged = policies.find((each) => each === body.policy)
  const reason = `answered ${status}`
  if (judged === undefined) return { kind: 'unavailable', reason }
  return { kind: 'unavailable', reason, policy: judged, verdict: body.verdict === 'allow' ? 'allow' : 'deny' }
}

const policies = ['open', 'closed', 'bounded'] as const

/** A header as RFC 9651 writes it: `bounded;cost-nano-usd=100;requests=3;call-nano-usd=40`. */
function forAbsenceOf(header: string): ForAbsence | undefined {
  const [name, ...parameters] = header.split(';').map((each) => each.trim())
  const policy = policies.find((each) => each === name)
  if (policy === undefined) return undefined
  const values = new Map(parameters.map((each) => each.split('=', 2) as [string, string]))
  const numberOf = (parameter: string): number | undefined =>
    values.has(parameter) ? Number(values.get(parameter)) : undefined
  const costNanoUsd = numberOf('cost-nano-usd') ?? 0
  const tenant: TenantPolicy =
    policy === 'bounded' ? { policy, costNanoUsd, requests: numberOf('requests') ?? 0 } : { policy }
  return { tenant, callNanoUsd: numberOf('call-nano-usd') }
}

function leaseOf(body: Json): GrantedLease {
  const holds = Array.isArray(body.holds) ? body.holds.map(objectOf) : []
  return {
    id: textOf(body.id),
    holds: holds.map(({ measure, amount }) => ({ measure: textOf(measure), amount: Number(amount) })),
  }
}

function denialOf(body: Json, detail: string, retryAfter: string, isUnpriced: boolean): QuotaExceededError {
  const resets = new Date(textOf(body.frees))
  const seconds = retryAfter === '' ? Number.NaN : Number(retryAfter)
  return new QuotaExceededError(detail === '' ? 'the quota is exceeded' : detail, {
    reason: isUnpriced ? 'price' : 'limit',
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
