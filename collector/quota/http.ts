// `/v1/quota/…` on node:http directly: a reservation stands before every model call, and a framework costs as much as the
// answer. Errors are problem details (RFC 9457). An array as the body is a batch: its items are answered one by one, in order.
import { hash } from 'node:crypto'
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { z } from 'zod'
import type { PricedUsage, PriceOf } from '../genai/price.ts'
import { type Authenticate, identityOf, isRefusal, type Log, roleMissing } from '../receive/admission.ts'
import { isForwarded } from '../receive/receiver.ts'
import type { Identity, TenantId } from '../receive/request.ts'
import {
  type Answer,
  answerOf,
  invalid,
  isUuid,
  notAllowed,
  parseJson,
  problem,
  unknownPath,
  unknownReservation,
} from './answers.ts'
import { charge, check, extension, lease, release, reservation, settlement, type usage } from './bodies.ts'
import { type Amounts, tokensOf } from './books.ts'
import type { FailurePolicies, FailurePolicy, Verdict } from './failure-policy.ts'
import type { Ledger } from './ledger.ts'
import type { LimitBook } from './limit-book.ts'
import { amountJson, type Subject } from './limits.ts'
import type { Reserve } from './step.ts'

export type QuotaHttp = {
  /** Whether the path is ours. */
  takes(url: string): boolean
  handle(request: IncomingMessage, response: ServerResponse, localBoundToLoopback: boolean): void
  /** What a POST to `/v1/quota/<path>` answers, for who is in this process and has seen to the key. */
  post(identity: Identity, path: string, body: unknown): Promise<Answer>
}

export type QuotaHttpOptions = {
  readonly ledger: Ledger
  readonly limitBook: LimitBook
  readonly authenticate: Authenticate
  readonly priceOf: PriceOf
  /** Judges calls while the ledger is away. */
  readonly failure: Pick<FailurePolicies, 'judge' | 'foresee' | 'policyOf'>
  /** What a call of an unknown price gets where a limit on cost blocks: refused, or held by its tokens alone. */
  readonly unpriced: 'refuse' | 'tokens_only'
  readonly now: () => number
  readonly log: Pick<Log, 'error'>
  readonly onVerdict: (verdict: Verdict) => void
  readonly onAnswer: (route: string, status: number, seconds: number) => void
}

const prefix = '/v1/quota/'
const bodyBytesMax = 1024 * 1024
const batchMax = 256
/** As far as the times of records may be ahead. */
const endedAheadMsMax = 24 * 3_600_000
const noTokens = { tokens: undefined }

export function openQuotaHttp(options: QuotaHttpOptions): QuotaHttp {
  const { ledger, limitBook, priceOf, now } = options

  function handle(request: IncomingMessage, response: ServerResponse, localBoundToLoopback: boolean): void {
    const startedMs = performance.now()
    const path = (request.url ?? '').split('?')[0]?.slice(prefix.length) ?? ''
    const failed = (error: unknown): Answer => {
      if (error instanceof URIError) return problem(400, 'the path is not well formed')
      options.log.error({ err: error }, 'a quota request failed')
      return problem(503, 'the quota service could not answer', { 'Retry-After': '1' })
    }
    const tell = (answered: Answer): Answer => {
      send(response, answered)
      return answered
    }
    answer(request, path, localBoundToLoopback)
      .then(tell)
      // Also when it could not be told: an answer that throws would end the collector.
      .catch((error: unknown) => tell(failed(error)))
      .then((answered) => {
        const route = path.replace(/^reservations\/[^/]+/, 'reservations/{id}').replace(/^limits\/.+/, 'limits/{id}')
        options.onAnswer(
          answered.status === 404 ? 'unknown' : route,
          answered.status,
          (performance.now() - startedMs) / 1000,
        )
      })
  }

  async function answer(request: IncomingMessage, path: string, localBoundToLoopback: boolean): Promise<Answer> {
    const identity = identityOf(
      options.authenticate({
        authorization: request.headers.authorization,
        peerAddress: request.socket.remoteAddress,
        hostHeader: request.headers.host,
        originHeader: request.headers.origin,
        localBoundToLoopback: localBoundToLoopback && !isForwarded(request.headers),
      }),
    )
    const body = await readBody(request)
    if (isRefusal(identity)) {
      return identity.reason === 'unauthenticated'
        ? problem(401, identity.message, { 'WWW-Authenticate': 'Bearer' })
        : problem(503, identity.message, { 'Retry-After': '1' })
    }
    if (!identity.roles.has('quota') && !identity.roles.has('admin'))
      return problem(403, roleMissing(identity, 'quota'))
    if (body === 'too_large') return problem(413, `a request may have ${bodyBytesMax} bytes`)
    const query = new URLSearchParams((request.url ?? '').slice(prefix.length + path.length))
    return route(identity, request.method ?? '', path, query, body)
  }

  async function route(
    identity: Identity,
    method: string,
    path: string,
    query: URLSearchParams,
    body: Buffer,
  ): Promise<Answer> {
    const [thing, id, verb, ...more] = path.split('/').map(decodeURIComponent)
    if (more.length > 0) return unknownPath(`${prefix}${path}`)
    if (thing === 'limits' && verb === undefined)
      return limitBook.answer(identity, method, id, query, () => parseJson(body))
    if (thing === 'usage' && id === undefined) {
      return method === 'GET' ? limitBook.usage(identity, query) : notAllowed('GET')
    }
    if (thing === 'reservations' && id !== undefined && verb === undefined && method === 'GET') {
      return limitBook.reservation(identity, id)
    }
    const step = stepOf(thing, id, verb)
    if (step === undefined) return unknownPath(`${prefix}${path}`)
    if (method !== 'POST') return notAllowed(id === undefined ? 'POST' : 'GET, POST')
    const parsed = parseJson(body.length === 0 ? Buffer.from('{}') : body)
    return parsed.kind === 'malformed' ? problem(400, parsed.reason) : takeAll(step, identity, parsed.value)
  }

  async function takeAll(step: StepAnswer, identity: Identity, body: unknown): Promise<Answer> {
    if (!Array.isArray(body)) return step(identity, body)
    if (body.length > batchMax) return problem(400, `a batch may have ${batchMax} items, ${body.length} came`)
    const answers = await Promise.all(body.map((item) => step(identity, item)))
    return { status: 200, body: answers.map((each) => ({ status: each.status, ...each.body })) }
  }

  async function post(identity: Identity, path: string, body: unknown): Promise<Answer> {
    const step = stepOf(...(path.split('/') as [string, string?, string?]))
    return step === undefined ? unknownPath(`${prefix}${path}`) : takeAll(step, identity, body)
  }

  type StepAnswer = (identity: Identity, body: unknown) => Promise<Answer>

  function stepOf(thing?: string, id?: string, verb?: string): StepAnswer | undefined {
    if (thing === 'reservations' && id === undefined) return reserve
    if (thing === 'leases' && id === undefined) return leaseNow
    if (thing === 'check' && id === undefined) return dryRun
    if (thing === 'charges' && id === undefined) return chargeOnce
    if (thing !== 'reservations' || id === undefined) return undefined
    // Without an id in the path each item of the batch names its own.
    const withId =
      (work: (identity: Identity, id: string, body: unknown) => Promise<Answer>, own = id): StepAnswer =>
      async (identity, item) => {
        if (verb !== undefined) return work(identity, own, item)
        const { id: named, ...rest } = (item ?? {}) as { readonly id?: unknown }
        return typeof named === 'string' ? work(identity, named, rest) : problem(400, 'id: the reservation is needed')
      }
    switch (verb ?? id) {
      case 'settle':
        return withId(settle)
      case 'release':
        return withId(releaseOne)
      case 'extend':
        return withId(extend)
      default:
        return undefined
    }
  }

  const reserve: StepAnswer = (identity, body) => ask(identity, body, reservation, false)
  const dryRun: StepAnswer = (identity, body) =>
    ask(
      identity,
      body,
      check.transform((each) => ({ ...each, ttlMs: 0 })),
      true,
    )

  async function ask(
    identity: Identity,
    body: unknown,
    schema: z.ZodType<z.output<typeof reservation>>,
    isDry: boolean,
  ): Promise<Answer> {
    const parsed = schema.safeParse(body)
    if (!parsed.success) return invalid(parsed.error)
    const { callId, estimate } = parsed.data
    const subject = subjectOf(identity, parsed.data)
    let amounts: Amounts
    let unpriced: string | undefined
    if ('costNanoUsd' in estimate) amounts = { cost: estimate.costNanoUsd, tokens: undefined }
    else {
      const expected = { inputTokens: estimate.inputTokens, outputTokens: estimate.outputTokensMax }
      const priced = priceOf({ ...callOf(subject), atUnixMs: now() }, expected)
      if (priced.kind === 'unpriced' && options.unpriced === 'refuse') unpriced = priced.reason
      amounts = { cost: priced.kind === 'priced' ? priced.costNanoUsd : undefined, ...tokensOf(expected) }
    }
    return reserveNow(
      identity,
      callId,
      { subject, amounts, unpriced, ttlMs: parsed.data.ttlMs, isDry, isLease: false },
      body,
    )
  }

  const leaseNow: StepAnswer = async (identity, body) => {
    const parsed = lease.safeParse(body)
    if (!parsed.success) return invalid(parsed.error)
    const { callId, allowance, ttlMs } = parsed.data
    const { inputTokens, outputTokens, requests } = allowance
    const subject = subjectOf(identity, parsed.data)
    const isCounted = inputTokens !== undefined && outputTokens !== undefined
    const tokens = isCounted ? tokensOf({ inputTokens, outputTokens }) : noTokens
    // Who leases tokens of one model need not know its price.
    const isPriced = allowance.costNanoUsd === undefined && isCounted && subject.model !== ''
    const cost = isPriced
      ? costOfMany({ inputTokens, outputTokens }, callOf(subject), requests, Math.ceil)
      : allowance.costNanoUsd
    const isUnpriced = isPriced && cost === undefined && options.unpriced === 'refuse'
    const unpriced = isUnpriced ? 'the model has no price, so a lease of its tokens has none' : undefined
    const amounts = { cost, ...tokens, requests: BigInt(requests) }
    return reserveNow(identity, callId, { subject, amounts, unpriced, ttlMs, isDry: false, isLease: true }, body)
  }

  async function reserveNow(
    identity: Identity,
    callId: string,
    wanted: Omit<Reserve, 'kind' | 'tenant' | 'callId' | 'bodyHash'>,
    body: unknown,
  ): Promise<Answer> {
    const { tenant } = identity
    const outcome = await ledger.run({ kind: 'reserve', tenant, callId, bodyHash: hashOf(body), ...wanted })
    if (outcome.kind !== 'unavailable') {
      const answered = answerOf(outcome, wanted.isDry ? 200 : 201)
      const policy = policyHeader(options.failure.policyOf(tenant), wanted.amounts.cost)
      return { ...answered, headers: { ...answered.headers, 'Tallylight-Failure-Policy': policy } }
    }
    const verdict = verdictOf(tenant, callId, wanted)
    const left =
      verdict.left === undefined ? {} : { left: { ...verdict.left, costNanoUsd: amountJson(verdict.left.costNanoUsd) } }
    return problem(503, outcome.reason, { 'Retry-After': '1' }, { ...verdict, ...left })
  }

  /** Only what is a call is judged. A dry run is none, and whoever gets no lease asks for its calls one by one: judged as well,
   *  both would use up what an outage leaves to calls. */
  function verdictOf(
    tenant: TenantId,
    callId: string,
    { amounts, isDry, isLease }: Pick<Reserve, 'amounts' | 'isDry' | 'isLease'>,
  ): Verdict {
    if (isDry || isLease) return options.failure.foresee(tenant, isLease ? undefined : amounts)
    const verdict = options.failure.judge(tenant, callId, amounts)
    options.onVerdict(verdict)
    return verdict
  }

  async function settle(identity: Identity, id: string, body: unknown): Promise<Answer> {
    const parsed = settlement.safeParse(body)
    if (!parsed.success) return invalid(parsed.error)
    if (!isUuid(id)) return unknownReservation
    const { model, provider, requests } = parsed.data
    const amounts = (subject: Subject): Amounts => {
      const reserved = callOf(subject)
      const call = { model: model ?? reserved.model, provider: provider ?? reserved.provider }
      const spent = amountsOf(parsed.data, call)
      if (requests === undefined) return spent
      const { usage: spentUsage, costNanoUsd } = parsed.data
      // Never above what the records of its calls will say: what a lease's holder claims beyond them stays booked.
      const cost =
        spentUsage === undefined || costNanoUsd !== undefined
          ? spent.cost
          : costOfMany(withoutUndefined(spentUsage), call, requests, Math.floor)
      return { ...spent, cost, requests: BigInt(requests) }
    }
    return answerOf(
      await ledger.run({ kind: 'settle', tenant: identity.tenant, id, bodyHash: hashOf(body), amountsOf: amounts }),
      200,
    )
  }

  async function releaseOne(identity: Identity, id: string, body: unknown): Promise<Answer> {
    const parsed = release.safeParse(body ?? {})
    if (!parsed.success) return invalid(parsed.error)
    if (!isUuid(id)) return unknownReservation
    const step = { kind: 'release', tenant: identity.tenant, id, bodyHash: hashOf({}), amountsOf: undefined } as const
    return answerOf(await ledger.run(step), 200)
  }

  async function extend(identity: Identity, id: string, body: unknown): Promise<Answer> {
    const parsed = extension.safeParse(body ?? {})
    if (!parsed.success) return invalid(parsed.error)
    if (!isUuid(id)) return unknownReservation
    return answerOf(await ledger.run({ kind: 'extend', tenant: identity.tenant, id, ttlMs: parsed.data.ttlMs }), 200)
  }

  const chargeOnce: StepAnswer = async (identity, body) => {
    const parsed = charge.safeParse(body)
    if (!parsed.success) return invalid(parsed.error)
    const { eventKey, endedAt } = parsed.data
    // It would fill a sliding window until that time has come and gone.
    if (endedAt !== undefined && Date.parse(endedAt) > now() + endedAheadMsMax)
      return problem(400, 'endedAt: a call has ended, by a clock that is ahead of ours by 24 hours at most')
    const subject = subjectOf(identity, parsed.data)
    const ended = endedAt === undefined ? undefined : new Date(endedAt)
    const amounts = amountsOf(parsed.data, callOf(subject), ended?.getTime())
    if (amounts.cost === undefined && options.unpriced === 'refuse') {
      return problem(400, 'costNanoUsd: the model has no price, so a charge has to say what it cost')
    }
    const outcome = await ledger.run({
      kind: 'charge',
      tenant: identity.tenant,
      eventKey: `charge:${eventKey}`,
      bodyHash: hashOf(body),
      subject,
      amounts,
      endedAt: ended,
    })
    const answered = answerOf(outcome, 201)
    return outcome.kind === 'done' ? { ...answered, body: { eventKey, ...answered.body } } : answered
  }

  function amountsOf(
    body: { readonly usage?: z.output<typeof usage> | undefined; readonly costNanoUsd?: bigint | undefined },
    call: { readonly provider: string | undefined; readonly model: string },
    atUnixMs = now(),
  ): Amounts {
    if (body.usage === undefined) return { cost: body.costNanoUsd, tokens: undefined }
    const tokens = tokensOf(body.usage)
    if (body.costNanoUsd !== undefined) return { cost: body.costNanoUsd, ...tokens }
    const priced = priceOf({ ...call, atUnixMs }, withoutUndefined(body.usage))
    return { cost: priced.kind === 'priced' ? priced.costNanoUsd : undefined, ...tokens }
  }

  /** Of so many calls together. A price may depend on how long a call is, so it is that of a usual one, taken so often. */
  function costOfMany(
    used: PricedUsage,
    call: { readonly provider: string | undefined; readonly model: string },
    calls: number,
    round: (tokens: number) => number,
  ): bigint | undefined {
    if (calls === 0) return 0n
    const usual = Object.fromEntries(Object.entries(used).map(([kind, tokens]) => [kind, round(tokens / calls)]))
    const priced = priceOf({ ...call, atUnixMs: now() }, usual as PricedUsage)
    return priced.kind === 'priced' ? priced.costNanoUsd * BigInt(calls) : undefined
  }

  return { takes: (url) => url.startsWith(prefix), handle, post }
}

/** What the tenant wants done when no answer comes: a client remembers it. With a bound, also what this call may cost. */
function policyHeader(policy: FailurePolicy, callNanoUsd: bigint | undefined): string {
  if (policy.policy !== 'bounded') return policy.policy
  const call = callNanoUsd === undefined ? '' : `;call-nano-usd=${callNanoUsd}`
  return `bounded;cost-nano-usd=${policy.costNanoUsd};requests=${policy.requests}${call}`
}

function subjectOf(
  identity: Identity,
  body: { readonly user: string; readonly conversation: string; readonly model: string; readonly provider: string },
): Subject {
  const { user, conversation, model, provider } = body
  return { user, conversation, model, provider, key: identity.keyId }
}

function callOf(subject: Subject): { readonly provider: string | undefined; readonly model: string } {
  return { provider: subject.provider === '' ? undefined : subject.provider, model: subject.model }
}

function withoutUndefined(usage: z.output<z.ZodType<Readonly<Record<string, number | undefined>>>>): PricedUsage {
  return Object.fromEntries(Object.entries(usage).filter(([, tokens]) => tokens !== undefined)) as PricedUsage
}

/** The same fields in another order are the same body. */
function hashOf(body: unknown): string {
  const sorted = (value: unknown): unknown => {
    if (Array.isArray(value)) return value.map(sorted)
    if (typeof value !== 'object' || value === null) return value
    return Object.fromEntries(
      Object.entries(value)
        .sort(([a], [b]) => (a < b ? -1 : 1))
        .map(([key, each]) => [key, sorted(each)]),
    )
  }
  return hash('sha256', JSON.stringify(sorted(body)), 'hex')
}

function readBody(request: IncomingMessage): Promise<Buffer | 'too_large'> {
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = []
    let length = 0
    request.on('data', (chunk: Buffer) => {
      length += chunk.length
      if (length <= bodyBytesMax) chunks.push(chunk)
    })
    request.on('end', () => resolve(length > bodyBytesMax ? 'too_large' : Buffer.concat(chunks)))
    request.on('error', reject)
  })
}

function send(response: ServerResponse, { status, body, headers = {} }: Answer): void {
  if (response.destroyed) return
  if (body === undefined) {
    response.writeHead(status, headers).end()
    return
  }
  // A string and not its bytes: Node then writes head and body in one piece.
  const text = JSON.stringify(body)
  response.writeHead(status, {
    'Content-Type': 'application/json',
    ...headers,
    'Content-Length': Buffer.byteLength(text),
  })
  response.end(text)
}
