// A model call that passes: the same exchange, record and gate that the hooks have in a service, with the collector's own
// quota service and journal behind them, and the caller's trace, conversation and user from its headers.
import type { IncomingHttpHeaders } from 'node:http'
import type { Context } from '@opentelemetry/api'
import { CompositePropagator, W3CBaggagePropagator, W3CTraceContextPropagator } from '@opentelemetry/core'
import { openCallRecorder } from '@tallylight/instrumentation/calls/call-recorder.ts'
import { openContentAttributes } from '@tallylight/instrumentation/calls/content-attributes.ts'
import type { Counters } from '@tallylight/instrumentation/counters.ts'
import { type Exchange, openExchange } from '@tallylight/instrumentation/hooks/exchange.ts'
import type { Endpoint } from '@tallylight/instrumentation/providers/call.ts'
import { objectOf } from '@tallylight/instrumentation/providers/json-fields.ts'
import { type Gate, openGate } from '@tallylight/instrumentation/quota/gate.ts'
import { type Answered, type QuotaClient, quotaClientOver } from '@tallylight/instrumentation/quota/quota-client.ts'
import { joinedFrom, withTurn } from '@tallylight/instrumentation/turns/scene.ts'
import { limits } from '../limits.ts'
import type { Answer } from '../quota/answers.ts'
import type { QuotaHttp } from '../quota/http.ts'
import { type Accept, type Identity, parseTenantId } from '../receive/request.ts'
import { type CallSpan, type CallSpansOptions, openCallSpans } from './call-spans.ts'
import type { Refusal } from './refusal.ts'
import type { Upstream } from './upstreams.ts'

export type Call = {
  readonly exchange: Exchange
  readonly span: CallSpan
  /** Why it was not admitted. */
  refusalOf(error: unknown): Refusal
}

export type CallStart = {
  readonly identity: Identity
  readonly headers: IncomingHttpHeaders
  readonly upstream: Upstream
  readonly endpoint: Endpoint
  readonly url: URL
  readonly body: Buffer
  readonly mayAsk: boolean
}

export type Calls = AsyncDisposable & {
  /** A refusal where the headers cannot be taken; undefined where ours has failed. */
  open(start: CallStart): Call | Refusal | undefined
}

export type CallsOptions = {
  readonly accept: Accept
  readonly version: string
  readonly quota: Pick<QuotaHttp, 'post'>
  /** Whether what is said may be kept of a tenant's calls; how much of it is decided where all records are. */
  readonly keepsContent: (tenant: string) => boolean
  readonly counters: Counters
  readonly onRecord: CallSpansOptions['onRecord']
  readonly onFailure: (error: unknown) => void
}

const propagator = new CompositePropagator({
  propagators: [new W3CTraceContextPropagator(), new W3CBaggagePropagator()],
})
/** Sums and costs come from the spans; a service's own metrics are the service's. */
const noMetrics = { record: () => undefined }
const clockMs = (): number => performance.now()

export function openCalls(options: CallsOptions): Calls {
  const { counters } = options
  const spans = openCallSpans(options)
  /** One for each key, in the order of use: what a gate learns is its tenant's. */
  const gates = new Map<string, OwnGate>()

  function gateOf(identity: Identity): OwnGate {
    const name = `${identity.tenant}\n${identity.keyId}`
    const gate = gates.get(name) ?? openOwnGate(options.quota, identity, counters)
    gates.delete(name)
    gates.set(name, gate)
    const [oldest] = gates
    if (gates.size > limits.proxyGatesMax && oldest !== undefined) {
      gates.delete(oldest[0])
      // Its calls are settled all the same.
      Promise.resolve(oldest[1][Symbol.asyncDispose]()).catch(options.onFailure)
    }
    return gate
  }

  function open(start: CallStart): Call | Refusal | undefined {
    const { headers, endpoint } = start
    const stands = standIn(headers, start.identity)
    if ('reason' in stands) return stands
    const { identity } = stands
    const span = spans.open(identity, stands.service)
    const gate = gateOf(identity)
    const keepsContent = options.keepsContent(identity.tenant)
    const recorder = openCallRecorder({
      tracer: () => span.tracer,
      metrics: () => noMetrics,
      content: openContentAttributes(keepsContent ? 'full' : 'metadata', undefined, counters),
      // A request tells nothing of what its service did before.
      tools: undefined,
      counters,
      gate,
      keepsContent,
      nowMs: clockMs,
    })
    const exchange = openExchange(
      {
        startCall: (call) => recorder.startCall({ ...call, context: stands.context }),
        asksForUsage: start.mayAsk,
        keepsContent,
        failed: options.onFailure,
      },
      {
        endpoint,
        url: start.url,
        transport: 'proxy',
        body: start.body,
        header: (name) => String(headers[name] ?? ''),
        mayAsk: true,
      },
    )
    return exchange && { exchange, span, refusalOf: gate.refusalOf }
  }

  return {
    open,
    async [Symbol.asyncDispose]() {
      await Promise.all([...gates.values()].map((gate) => gate[Symbol.asyncDispose]()))
      await spans[Symbol.asyncDispose]()
    },
  }
}

type Standing = { readonly identity: Identity; readonly context: Context; readonly service: string }

/** In which trace, conversation and service a call stands, and whose it is. Whoever has the tenant's key is believed. */
function standIn(headers: IncomingHttpHeaders, identity: Identity): Standing | Refusal {
  const { parent, turnId, scene } = joinedFrom(headers, true, propagator)
  const own = {
    conversation: nameIn(headers, 'x-tallylight-conversation') || (scene.conversation ?? ''),
    user: nameIn(headers, 'x-tallylight-user') || (scene.user ?? ''),
    tenant: nameIn(headers, 'x-tallylight-tenant') || (scene.tenant ?? ''),
  }
  const service = nameIn(headers, 'x-tallylight-service') || 'tallylight-proxy'
  for (const [name, value] of Object.entries({ ...own, service }))
    if (value.length > limits.proxyNameCharsMax) {
      const message = `the ${name} of a call may have ${limits.proxyNameCharsMax} characters, ${value.length} came`
      return { reason: 'bad_request', message }
    }
  // A key for many names whose call it is: whose record, and so whose limits and failure policy.
  const isNamed = identity.manyTenants && own.tenant !== ''
  const tenant = isNamed ? parseTenantId(own.tenant) : identity.tenant
  if (tenant === undefined) return { reason: 'bad_request', message: 'a tenant is 1–128 letters, digits and ._:@/-' }
  const progress = {
    calls: 0,
    tools: new Set<string>(),
    question: '',
    answer: '',
    firstMs: undefined,
    blockReason: '',
    failure: undefined,
  }
  const known = Object.fromEntries(Object.entries(own).filter(([, value]) => value !== ''))
  const context = withTurn(parent, { id: turnId ?? '', scene: known, progress })
  return { identity: { ...identity, tenant }, context, service }
}

/** '' where it is not there. Escaped as in URLs and baggage, which is how any letter fits into a header. */
function nameIn(headers: IncomingHttpHeaders, name: string): string {
  const text = String(headers[name] ?? '')
  try {
    return decodeURIComponent(text)
  } catch {
    // A `%` of its own.
    return text
  }
}

type OwnGate = Gate & { refusalOf(error: unknown): Refusal }

/** A gate that asks the quota service of this collector, without a connection. */
function openOwnGate(quota: CallsOptions['quota'], identity: Identity, counters: Counters): OwnGate {
  /** What was said to calls that were denied, for those who wait for them. */
  const denials = new WeakMap<Error, Answer>()

  async function post(path: string, body: unknown, onAnswer?: (answer: Answer) => void): Promise<Answered> {
    const answer = await quota.post(identity, path, body)
    onAnswer?.(answer)
    const { status, headers = {} } = answer
    const policy = headers['Tallylight-Failure-Policy'] ?? ''
    return { kind: 'answer', status, body: objectOf(answer.body), retryAfter: headers['Retry-After'] ?? '', policy }
  }

  const client: QuotaClient = {
    ...quotaClientOver((path, body) => post(path, body)),
    async reserve(request, isWaitedFor) {
      let said: Answer | undefined
      const asking = quotaClientOver((path, body) =>
        post(path, body, (answer) => {
          said = answer
        }),
      )
      const outcome = await asking.reserve(request, isWaitedFor)
      if (outcome.kind === 'denied' && said !== undefined) denials.set(outcome.error, said)
      return outcome
    },
  }
  const gate = openGate({ mode: 'enforce', failurePolicy: 'closed', leases: false, client, counters, nowMs: clockMs })
  return {
    ...gate,
    refusalOf: (error) => refusalOf(error, error instanceof Error ? denials.get(error) : undefined),
  }
}

/** SDKs wait and try again by themselves, which helps where room is made within seconds, and else only keeps a user waiting. */
const retrySecondsMax = 5

function refusalOf(error: unknown, denied: Answer | undefined): Refusal {
  const message = error instanceof Error ? error.message : String(error)
  if (denied === undefined) return { reason: 'quota_unavailable', message }
  const { 'Content-Type': _type, 'Tallylight-Failure-Policy': _policy, ...headers } = denied.headers ?? {}
  const { type: _about, title: _title, status: _status, detail: _detail, ...details } = objectOf(denied.body)
  const isFinal = !(Number(headers['Retry-After']) <= retrySecondsMax)
  return { reason: 'quota_exceeded', message, headers, details, isFinal }
}
