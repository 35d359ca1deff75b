// The port of the proxy: the first line and the key of a request are judged here, before anything of it is read. Absolute
// targets, CONNECT and upgrades are refused in words, since whoever sends them has mistaken this for a proxy to everywhere.
import { createServer, type IncomingMessage, type Server, type ServerResponse, STATUS_CODES } from 'node:http'
import { createServer as createTlsServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import type { Duplex } from 'node:stream'
import { endpointOf } from '@tallylight/instrumentation/providers/endpoint.ts'
import { limits } from '../limits.ts'
import type { Metrics } from '../metrics.ts'
import { type Authenticate, identityOf, isRefusal, type Log } from '../receive/admission.ts'
import { isSmallRest, otherPort, protocolError } from '../receive/http-fields.ts'
import { after, isForwarded, isLoopback, listen, openFailureLog, type Receiver } from '../receive/receiver.ts'
import type { Identity } from '../receive/request.ts'
import type { TlsFiles } from '../receive/tls.ts'
import { keyIn } from './http-fields.ts'
import type { Admitted, ProviderProxy } from './proxy.ts'
import { type Dialect, dialectOf, type Refusal, refusalAnswer } from './refusal.ts'
import { readTarget, type Target, withoutKey } from './target.ts'
import type { Upstream } from './upstreams.ts'

export type ProxyServerOptions = {
  readonly host: string
  readonly port: number
  readonly tls: TlsFiles | undefined
  readonly authenticate: Authenticate
  readonly upstreams: ReadonlyMap<string, Upstream>
  /** Asked for with the first request. */
  readonly load: () => Promise<ProviderProxy>
  readonly metrics: Pick<Metrics, 'add' | 'onRead'>
  readonly log: Log
}

const methods: ReadonlySet<string> = new Set(['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE'])

export async function openProxyServer(options: ProxyServerOptions): Promise<Receiver> {
  const { tls, upstreams, metrics, log } = options
  const clockMs = (): number => performance.now()
  const logFailure = openFailureLog({ write: (fields, message) => log.error(fields, message), clockMs })
  const logHandshake = openFailureLog({ write: (fields, message) => log.warn(fields, message), clockMs })
  const open = new Map<ServerResponse, Promise<void>>()
  let loaded: Promise<ProviderProxy> | undefined
  let isStopping = false
  let localBoundToLoopback = false

  const httpOptions = {
    // Of what waits in a reply; Node's own is four times as much.
    highWaterMark: limits.proxyStreamBytesMax,
    headersTimeout: limits.requestHeadersMs,
    requestTimeout: limits.proxyRequestMs,
    connectionsCheckingInterval: 1_000,
    keepAliveTimeout: limits.connectionIdleMs,
    // Java's client offers HTTP/2 with its first request to any http address, and goes on in HTTP/1.1 where nobody takes it up.
    shouldUpgradeCallback: ({ headers }: IncomingMessage) => headers.upgrade?.toLowerCase() === 'websocket',
  }
  const server: Server = tls
    ? createTlsServer({ ...tls.options(), ...httpOptions, handshakeTimeout: limits.requestHeadersMs })
    : createServer(httpOptions)
  server.maxConnections = limits.connectionsMax
  tls?.attach(server)
  server.on('request', (request: IncomingMessage, response: ServerResponse) => receive(request, response, false))
  server.on('checkContinue', (request: IncomingMessage, response: ServerResponse) => receive(request, response, true))
  server.on('clientError', onClientError)
  server.on('tlsClientError', (error: Error) => logHandshake(error, 'a TLS handshake of the proxy failed'))
  server.on('connect', (_request: IncomingMessage, socket: Duplex) => refuseSocket(socket, noTunnel))
  server.on('upgrade', (_request: IncomingMessage, socket: Duplex) => refuseSocket(socket, noUpgrade))
  metrics.onRead(() => [
    {
      name: 'tallylight_proxy_open_requests',
      help: 'Requests to the proxy that are not over.',
      labels: {},
      type: 'gauge',
      value: open.size,
    },
  ])

  function receive(request: IncomingMessage, response: ServerResponse, awaitsContinue: boolean): void {
    const work = answer(request, response, awaitsContinue)
      .catch((error: unknown) => {
        logFailure(error, 'a request to the proxy failed')
        refuse(request, response, { reason: 'failed', message: 'the request could not be forwarded' }, 'openai')
      })
      .finally(() => open.delete(response))
    open.set(response, work)
  }

  async function answer(request: IncomingMessage, response: ServerResponse, awaitsContinue: boolean): Promise<void> {
    const admitted = admit(request)
    const dialect = dialectOf(admitted.endpoint?.api, admitted.upstream?.base.provider ?? '')
    if ('refusal' in admitted) return refuse(request, response, admitted.refusal, dialect)
    loaded ??= options.load().catch((error: unknown) => {
      loaded = undefined
      throw error
    })
    const proxy = await loaded
    if (response.destroyed) return refuse(request, response, left, dialect)
    const refusal = await proxy.take({ ...admitted, request, response, awaitsContinue })
    if (refusal !== undefined) refuse(request, response, refusal, dialect)
  }

  type Judged =
    | Pick<Admitted, 'identity' | 'upstream' | 'path' | 'endpoint'>
    | (Partial<Pick<Admitted, 'upstream' | 'endpoint'>> & { readonly refusal: Refusal })

  function admit(request: IncomingMessage): Judged {
    const { url = '', method = '' } = request
    const target = readTarget(url)
    if (target.kind === 'refused') return { refusal: { reason: 'bad_request', message: target.message } }
    const upstream = upstreams.get(target.upstream)
    const endpoint = upstream && endpointAt(upstream, method, target.path)
    const known = { ...(upstream && { upstream }), ...(endpoint && { endpoint }) }
    if (isStopping) return { ...known, refusal: stopping }
    const identity = identify(request, target)
    if ('reason' in identity) return { ...known, refusal: identity }
    if (upstream === undefined) return { refusal: unknownUpstream(url, upstreams) }
    if (!methods.has(method))
      return { ...known, refusal: { reason: 'method_not_allowed', message: `${method} is not forwarded` } }
    return { identity, upstream, path: target.path, endpoint }
  }

  function identify(request: IncomingMessage, target: Target & { readonly kind: 'target' }): Identity | Refusal {
    const { headers } = request
    const inHeaders = keyIn(headers)
    if (target.key !== undefined && inHeaders !== undefined && inHeaders !== target.key)
      return { reason: 'bad_request', message: 'the key in the path and the one in the headers are not the same' }
    const key = target.key ?? inHeaders
    const identity = identityOf(
      options.authenticate({
        authorization: key === undefined ? undefined : `Bearer ${key}`,
        peerAddress: request.socket.remoteAddress,
        hostHeader: headers.host,
        originHeader: headers.origin,
        localBoundToLoopback: localBoundToLoopback && !isForwarded(headers),
      }),
    )
    if (isRefusal(identity)) {
      if (identity.reason !== 'unauthenticated') return { reason: 'no_room', message: identity.message }
      // Authorization is the provider's here.
      const message =
        key === undefined
          ? 'a key is needed, in X-Tallylight-Key or as /k/<key>/ before the upstream'
          : identity.message
      return { reason: 'unauthenticated', message, isFinal: true }
    }
    return roleRefusal(identity, target.key !== undefined) ?? identity
  }

  function refuse(request: IncomingMessage, response: ServerResponse, refusal: Refusal, dialect: Dialect): void {
    metrics.add('tallylight_proxy_refused_total', { reason: refusal.reason }, 1)
    if (response.destroyed || response.headersSent) {
      response.destroy()
      return
    }
    const { status, headers, body } = refusalAnswer(refusal, dialect)
    const mayThrowAway = request.complete || isSmallRest(request, limits.refusedBodyBytesMax)
    const fields = { ...headers, ...(isStopping || !mayThrowAway ? { Connection: 'close' } : {}) }
    // In words of its own: a head of the upstream that could not be written may have left it its.
    response.writeHead(status, STATUS_CODES[status] ?? '', fields)
    if (mayThrowAway) {
      response.end(body)
      return
    }
    // A connection closed with unread bytes is reset, and the reset takes the answer with it.
    response.write(body)
    const end = (): void => {
      clearTimeout(timer)
      response.end()
    }
    const timer = setTimeout(end, limits.refusedBodyMs).unref()
    request.once('end', end).once('close', end).resume()
  }

  /** What the parser could not go on with. A reply under way on the connection cannot take another in its middle. */
  function onClientError(error: NodeJS.ErrnoException, socket: Duplex): void {
    const isAnswering = [...open.keys()].some((response) => response.socket === socket && response.headersSent)
    if (error.code === 'ECONNRESET' || !socket.writable || isAnswering) socket.destroy()
    else {
      const isLate = error.code === 'ERR_HTTP_REQUEST_TIMEOUT'
      refuseSocket(socket, {
        reason: isLate ? 'timed_out' : 'bad_request',
        message: protocolError(error).refusal.message,
      })
    }
  }

  function refuseSocket(socket: Duplex, refusal: Refusal): void {
    metrics.add('tallylight_proxy_refused_total', { reason: refusal.reason }, 1)
    const { status, headers, body } = refusalAnswer(refusal, 'openai')
    const lines = Object.entries({ ...headers, Connection: 'close' }).map(([name, value]) => `${name}: ${value}\r\n`)
    socket.on('error', () => socket.destroy())
    socket.end(`HTTP/1.1 ${status} Refused\r\n${lines.join('')}\r\n${body}`)
  }

  let stopped: Promise<void> | undefined
  function stop(deadlineMs: number): Promise<void> {
    stopped ??= stopNow(deadlineMs)
    return stopped
  }

  async function stopNow(deadlineMs: number): Promise<void> {
    isStopping = true
    const closed = new Promise<void>((resolve) => server.close(() => resolve()))
    await Promise.race([Promise.all(open.values()), after(deadlineMs)])
    // Calls that go on are ended with their clients: their records and settlements are then made as for any other end. One that
    // knows no end all the same costs this much again, and not the end of the collector.
    for (const response of open.keys()) response.destroy()
    await Promise.race([Promise.all(open.values()), after(deadlineMs)])
    server.closeAllConnections()
    await closed
    const proxy = await loaded
    await proxy?.[Symbol.asyncDispose]()
  }

  await listen(server, options.host, options.port)
  const bound = server.address() as AddressInfo
  localBoundToLoopback = isLoopback(bound.address)
  return { address: bound.address, port: bound.port, stop, [Symbol.asyncDispose]: () => stop(limits.receiverStopMs) }
}

function endpointAt(upstream: Upstream, method: string, path: string): Admitted['endpoint'] {
  const url = URL.parse(`${upstream.origin}${upstream.basePath}${path}`)
  return url === null ? undefined : endpointOf(method, url, [upstream.base])
}

/** A key in a URL is soon in some log: it may do no more than this road needs. */
function roleRefusal({ roles, manyTenants }: Identity, isInPath: boolean): Refusal | undefined {
  const needed = roles.has('ingest') && roles.has('quota')
  if (!needed) return { reason: 'forbidden', message: 'the key needs the roles ingest and quota', isFinal: true }
  if (!isInPath || (roles.size === 2 && !manyTenants)) return undefined
  const message = 'a key in the path may have the roles ingest and quota of one tenant, and no others'
  return { reason: 'forbidden', message, isFinal: true }
}

function unknownUpstream(url: string, upstreams: ReadonlyMap<string, Upstream>): Refusal {
  const path = withoutKey(url).slice(0, 100)
  const known = [...upstreams.keys()].sort().join(', ')
  return {
    reason: 'unknown_upstream',
    message: `a path begins with the name of an upstream, as /openai/v1, not ${path}${otherPort(path, 'proxy')}; known are ${known}`,
    isFinal: true,
  }
}

const left: Refusal = { reason: 'aborted', message: 'the client left before its request was read' }
const stopping: Refusal = { reason: 'stopping', message: 'the collector is stopping' }
const noTunnel: Refusal = {
  reason: 'method_not_allowed',
  message: 'CONNECT is not taken: this forwards to the upstreams of its configuration alone, by /<upstream>/<path>',
}
const noUpgrade: Refusal = {
  reason: 'method_not_allowed',
  message: 'no connection is upgraded here: realtime sessions over WebSocket are metered by the instrumentation',
}
