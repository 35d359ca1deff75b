// What the proxy does with one request: who asks, which upstream, is it a model call? A call is read whole, asked for at the
// quota service in this process, forwarded, and recorded; its end, whichever it is, ends the span and the hold. Everything else
// that an upstream offers passes as it is, and is counted. Loaded with the first request: undici and the SDK are 40 MB.
import type { IncomingMessage, ServerResponse } from 'node:http'
import { openCounters } from '@tallylight/instrumentation/counters.ts'
import { type Inflated, openInflated } from '@tallylight/instrumentation/hooks/reply-tap.ts'
import type { Endpoint } from '@tallylight/instrumentation/providers/call.ts'
import { unsentCode } from '@tallylight/instrumentation/quota/gate.ts'
import { limits } from '../limits.ts'
import type { Metrics } from '../metrics.ts'
import type { QuotaHttp } from '../quota/http.ts'
import type { Log } from '../receive/admission.ts'
import { contentLengthOf } from '../receive/http-fields.ts'
import { openFailureLog } from '../receive/receiver.ts'
import type { Accept, Identity } from '../receive/request.ts'
import { type Call, openCalls } from './calls.ts'
import { type Forwarded, forward, type Tap } from './forward.ts'
import { fieldsForUpstream } from './http-fields.ts'
import type { Refusal } from './refusal.ts'
import { openBodyRoom } from './request-body.ts'
import { openUnwillingUpstreams } from './unwilling-upstreams.ts'
import { openUpstreamAgent } from './upstream-agent.ts'
import { errorKindOf, upstreamRefusal } from './upstream-error.ts'
import type { Upstream } from './upstreams.ts'

/** A request that may go to its upstream. */
export type Admitted = {
  readonly request: IncomingMessage
  readonly response: ServerResponse
  readonly identity: Identity
  readonly upstream: Upstream
  readonly path: string
  /** Undefined for what is no model call. */
  readonly endpoint: Endpoint | undefined
  readonly awaitsContinue: boolean
}

export type ProviderProxy = AsyncDisposable & {
  /** A refusal is the caller's to send; else the reply has ended, or its connection has. */
  take(admitted: Admitted): Promise<Refusal | undefined>
}

export type ProxyOptions = {
  readonly accept: Accept
  readonly version: string
  readonly quota: Pick<QuotaHttp, 'post'>
  readonly keepsContent: (tenant: string) => boolean
  readonly passesUnmetered: boolean
  readonly metrics: Pick<Metrics, 'add' | 'observe'>
  readonly log: Log
}

export function openProxy(options: ProxyOptions): ProviderProxy {
  const { metrics, log } = options
  const logFailure = openFailureLog({
    write: (fields, message) => log.error(fields, message),
    clockMs: () => performance.now(),
  })
  const calls = openCalls({
    ...options,
    counters: openCounters((line) => log.warn({}, line)),
    onRecord: (outcome, reason) => {
      metrics.add('tallylight_proxy_records_total', { outcome }, 1)
      if (outcome === 'lost') logFailure(new Error(reason), 'the record of a proxied call was lost')
    },
    onFailure: (error) => {
      metrics.add('tallylight_proxy_failures_total', {}, 1)
      logFailure(error, 'a part of the proxy failed')
    },
  })
  const room = openBodyRoom({ bodyBytesMax: limits.proxyRequestBytesMax, bytesMax: limits.proxyBodiesBytesMax })
  const agent = openUpstreamAgent()
  const unwilling = openUnwillingUpstreams()

  function take(admitted: Admitted): Promise<Refusal | undefined> {
    return admitted.endpoint === undefined ? passOn(admitted) : takeCall(admitted, admitted.endpoint)
  }

  async function passOn(admitted: Admitted): Promise<Refusal | undefined> {
    const { request, upstream } = admitted
    const isMeant = request.method === 'GET' || request.method === 'HEAD' || request.method === 'DELETE'
    if (!isMeant && !options.passesUnmetered) return unmetered
    if (admitted.awaitsContinue) admitted.response.writeContinue()
    const length = contentLengthOf(request)
    const fields = fieldsForUpstream(request.rawHeaders, { isCall: false, added: {} })
    if (length !== undefined && length > 0) fields.push('content-length', String(length))
    const forwarded = await send(admitted, fields, length === 0 ? null : request, plainTap)
    countEnd(upstream, forwarded.kind === 'complete' ? (isMeant ? 'passed' : 'unmetered') : forwarded.kind)
    return refusalOf(admitted, forwarded)
  }

  async function takeCall(admitted: Admitted, endpoint: Endpoint): Promise<Refusal | undefined> {
    const { request, response, upstream, identity } = admitted
    const refused = refusalOfHead(request)
    if (refused !== undefined) return refused
    if (admitted.awaitsContinue) response.writeContinue()
    const read = await room.read(request)
    if (read.kind !== 'whole') return bodyRefusals[read.kind]
    const wholeMs = performance.now()
    try {
      const call = calls.open({
        identity,
        headers: request.headers,
        upstream,
        endpoint,
        url: new URL(`${upstream.origin}${upstream.basePath}${admitted.path}`),
        body: read.bytes,
        mayAsk: !unwilling.has(identity.tenant, upstream.name),
      })
      if (call === undefined) return failed
      if ('reason' in call) return call
      const denied = await admissionOf(call, response)
      if (denied !== undefined) {
        countEnd(upstream, denied === 'left' ? 'left' : 'denied')
        await call.span.stored()
        return denied === 'left' ? undefined : denied
      }
      metrics.observe('tallylight_proxy_added_seconds', { part: 'before' }, (performance.now() - wholeMs) / 1000)
      return await forwardCall(admitted, call, read.bytes)
    } finally {
      read.release()
    }
  }

  /** Undefined: it may go. */
  async function admissionOf(call: Call, response: ServerResponse): Promise<Refusal | 'left' | undefined> {
    const left = Promise.withResolvers<'left'>()
    const onClose = (): void => left.resolve('left')
    response.once('close', onClose)
    try {
      if ((await Promise.race([call.exchange.admitted, left.promise])) !== 'left') return undefined
      call.exchange.end('aborted', unsent(new Error('the client left before the call was sent')))
      return 'left'
    } catch (error) {
      call.exchange.end('denied', error)
      return call.refusalOf(error)
    } finally {
      response.off('close', onClose)
    }
  }

  async function forwardCall(admitted: Admitted, call: Call, body: Buffer): Promise<Refusal | undefined> {
    const { request, upstream, identity } = admitted
    const { exchange, span } = call
    const added = upstream.sendsTrace ? span.traceHeaders() : {}
    const fields = fieldsForUpstream(request.rawHeaders, { isCall: true, added })
    let wasRefused = false
    const tap = openCallTap(upstream, call, () => {
      if (wasRefused) unwilling.add(identity.tenant, upstream.name)
    })
    let forwarded = await send(admitted, fields, exchange.body ?? body, tap)
    if (forwarded.kind === 'again') {
      // It may be the option that we added: then the caller's own request is another one, and its answer the caller's.
      wasRefused = true
      exchange.withdraw()
      forwarded = await send(admitted, fields, body, tap)
    }
    tap.end(forwarded)
    countEnd(upstream, forwarded.kind)
    await span.stored()
    return forwarded.kind === 'refuse' ? tap.refusal() : refusalOf(admitted, forwarded)
  }

  /** `onTaken` is called before the first byte of the answer passes: a caller’s next call may come before its end is recorded. */
  function openCallTap(upstream: Upstream, { exchange, span }: Call, onTaken: () => void) {
    let inflated: Inflated | undefined
    let html = ''
    const tap: Tap = {
      head(status, header) {
        if (status === 400 && exchange.body !== undefined) return 'again'
        exchange.head(status, header)
        inflated = openInflated(header, exchange)
        if (!header('content-type').toLowerCase().includes('text/html')) {
          if (status >= 200 && status < 400) onTaken()
          return 'pass'
        }
        metrics.add('tallylight_proxy_upstream_errors_total', { upstream: upstream.name, kind: 'html' }, 1)
        if (status >= 400) return 'pass'
        html = `the upstream ${upstream.name} answered ${status} with text/html, which no model speaks`
        return 'refuse'
      },
      isFiltering: exchange.isFiltering,
      pass: (bytes) => inflated?.write(bytes) ?? [bytes],
      rest: exchange.rest,
      async recorded() {
        const allMs = performance.now()
        inflated?.end()
        await span.stored()
        metrics.observe('tallylight_proxy_added_seconds', { part: 'after' }, (performance.now() - allMs) / 1000)
      },
    }
    function end(forwarded: Forwarded): void {
      if (forwarded.kind === 'complete') return
      const error = forwarded.kind === 'failed' ? forwarded.error : undefined
      if ('wasSent' in forwarded && !forwarded.wasSent)
        exchange.end(error === undefined ? 'aborted' : 'cut', unsent(error ?? new Error('the client left')))
      else if (error !== undefined) (inflated?.stop ?? exchange.end)('cut', error)
      else if (forwarded.kind === 'left') (inflated?.stop ?? exchange.end)('aborted', undefined)
      else exchange.end('cut', new Error(html))
    }
    return { ...tap, end, refusal: (): Refusal => ({ reason: 'upstream_failed', message: html }) }
  }

  function send(
    { request, response, upstream, path }: Admitted,
    fields: string[],
    body: Buffer | IncomingMessage | string | null,
    tap: Tap,
  ): Promise<Forwarded> {
    return forward({
      dispatcher: agent,
      origin: upstream.origin,
      path: `${upstream.basePath}${path}`,
      method: request.method ?? 'GET',
      fields,
      body,
      response,
      stalledMs: limits.proxyStalledMs,
      tap,
    })
  }

  function refusalOf({ upstream, response }: Admitted, forwarded: Forwarded): Refusal | undefined {
    if (forwarded.kind !== 'failed') return undefined
    const { error, isHeadSent } = forwarded
    metrics.add('tallylight_proxy_upstream_errors_total', { upstream: upstream.name, kind: errorKindOf(error) }, 1)
    if (!isHeadSent) return upstreamRefusal(upstream.name, error)
    // The one way to say in the middle of a reply that this is not its end.
    response.destroy()
    return undefined
  }

  function countEnd(upstream: Upstream, ending: string): void {
    metrics.add('tallylight_proxy_requests_total', { upstream: upstream.name, ending }, 1)
  }

  return {
    take,
    async [Symbol.asyncDispose]() {
      await agent.destroy()
      await calls[Symbol.asyncDispose]()
    },
  }
}

const plainTap: Tap = {
  head: () => 'pass',
  isFiltering: () => false,
  pass: (bytes) => [bytes],
  rest: () => [],
  recorded: async () => undefined,
}

/** What the headers of a call say against it. */
function refusalOfHead({ headers }: IncomingMessage): Refusal | undefined {
  const { authorization = '', 'content-encoding': encoding = 'identity' } = headers
  if (authorization.startsWith('AWS4-'))
    return {
      reason: 'signed_host',
      message:
        'the request is signed for this host, and another would refuse it: use an API key of Bedrock (AWS_BEARER_TOKEN_BEDROCK)',
    }
  if (encoding !== 'identity')
    return { reason: 'unsupported_encoding', message: 'the body of a model call has to come without Content-Encoding' }
  return Number(headers['content-length'] ?? 0) > limits.proxyRequestBytesMax ? tooLarge : undefined
}

const tooLarge: Refusal = {
  reason: 'too_large',
  message: `the body of a model call may have ${limits.proxyRequestBytesMax} bytes`,
}
const bodyRefusals: Readonly<Record<'too_large' | 'no_room' | 'left', Refusal>> = {
  too_large: tooLarge,
  no_room: { reason: 'no_room', message: 'the calls under way fill the memory set aside for them' },
  left: { reason: 'aborted', message: 'the body ended before its length' },
}
const unmetered: Refusal = {
  reason: 'unmetered',
  message: 'this is no model call that can be metered, and proxy.unmetered of the configuration says to refuse those',
  isFinal: true,
}
const failed: Refusal = { reason: 'failed', message: 'the call could not be recorded, and was not sent' }

/** Nothing of the request has left, so nothing of its hold is spent. */
function unsent(error: Error): Error {
  const { code } = error as NodeJS.ErrnoException
  const last = Object.assign(new Error('the request was not sent'), { code: unsentCode })
  const outer = new Error(error.message, { cause: last })
  return code === undefined ? outer : Object.assign(outer, { code })
}
