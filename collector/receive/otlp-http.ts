// OTLP over HTTP/1.1, on node:http with nothing between: small requests are the dear ones, and a framework costs as much
// as the server. Promises: no byte of a body is kept before its key, size, type and rate were checked; every request gets
// exactly one answer in its own encoding, or a closed connection; what is answered 200 was accepted first.
//
// An exchange is `reading` its body, then `accepting`, then `done`. A refusal with much of the body still to come is
// `draining` in between: it is answered at once, but a connection closed with unread bytes is reset, and the reset takes
// the answer with it; so what comes is thrown away for a while before the connection ends.
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import { createServer as createTlsServer } from 'node:https'
import type { AddressInfo, Socket } from 'node:net'
import { limits } from '../limits.ts'
import {
  acceptFailed,
  bodyTooLarge,
  isRefusal,
  noRoom,
  openAdmission,
  type Refusal,
  refusalOf,
  stopping,
  tooSlow,
} from './admission.ts'
import { encodeAccepted } from './answer.ts'
import type { Body } from './bodies.ts'
import {
  contentEncodingOf,
  contentLengthOf,
  contentTypeOf,
  type Encoding,
  encodingOf,
  isSmallRest,
  protocolError,
  refusalAnswer,
  signalOf,
  unknownPath,
  wrongContentEncoding,
  wrongMediaType,
  wrongMethod,
} from './http-fields.ts'
import { openList } from './open-list.ts'
import {
  after,
  isForwarded,
  isLoopback,
  listen,
  openFailureLog,
  type Receiver,
  type ReceiverOptions,
} from './receiver.ts'
import type { ContentEncoding, ExportOutcome, Identity, Signal } from './request.ts'

type Exchange = {
  readonly request: IncomingMessage
  readonly response: ServerResponse
  readonly signal: Signal | 'unknown'
  readonly encoding: Encoding
  readonly startedMs: number
  state: 'held' | 'reading' | 'accepting' | 'draining' | 'done'
  body: Body | undefined
  before: Exchange | undefined
  after: Exchange | undefined
}

// The answer to nearly every request, made once.
const fullyAccepted = {
  protobuf: { 'Content-Type': contentTypeOf.protobuf, 'Content-Length': '0' },
  json: { 'Content-Type': contentTypeOf.json, 'Content-Length': '2' },
} as const

export async function openOtlpHttp(options: ReceiverOptions): Promise<Receiver> {
  const { host, port, tls, accept, log, count, bounds = limits } = options
  const admission = openAdmission({ ...options, bodyBytesMax: bounds.requestBytesMax })
  const clockMs = () => performance.now()
  const logFailure = openFailureLog({ write: (fields, message) => log.error(fields, message), clockMs })
  const logHandshake = openFailureLog({ write: (fields, message) => log.warn(fields, message), clockMs })
  const open = openList<Exchange>()
  let isStopping = false
  let localBoundToLoopback = false
  let onLastDone: (() => void) | undefined

  const httpOptions = {
    headersTimeout: bounds.requestHeadersMs,
    // Ours answers in the request's encoding; Node's, which cannot, comes after it, for what never became a request.
    requestTimeout: Math.max(bounds.requestMs, bounds.requestHeadersMs) + 5_000,
    connectionsCheckingInterval: Math.min(1_000, bounds.requestHeadersMs),
    keepAliveTimeout: bounds.connectionIdleMs,
  }
  const server: Server = tls
    ? createTlsServer({ ...tls.options(), ...httpOptions, handshakeTimeout: bounds.requestHeadersMs })
    : createServer(httpOptions)
  server.maxConnections = bounds.connectionsMax
  tls?.attach(server)
  server.on('request', (request: IncomingMessage, response: ServerResponse) => receive(request, response, false))
  server.on('checkContinue', (request: IncomingMessage, response: ServerResponse) => receive(request, response, true))
  server.on('clientError', onClientError)
  server.on('tlsClientError', (error: Error) => logHandshake(error, 'a TLS handshake failed'))
  server.on('drop', () => count('unknown', 'unavailable'))

  function receive(request: IncomingMessage, response: ServerResponse, awaitsContinue: boolean): void {
    const { headers } = request
    const encoding = encodingOf(headers['content-type'])
    const exchange: Exchange = {
      request,
      response,
      signal: signalOf(request.url ?? ''),
      encoding: encoding ?? 'json',
      startedMs: clockMs(),
      state: 'reading',
      body: undefined,
      before: undefined,
      after: undefined,
    }
    open.add(exchange)
    const admitted = admit(exchange, encoding, awaitsContinue)
    if (!isRefusal(admitted)) read(exchange, admitted)
    else if (admitted.reason === 'throttled') hold(exchange, admitted)
    else refuse(exchange, admitted)
  }

  function admit(exchange: Exchange, encoding: Encoding | undefined, awaitsContinue: boolean): Admitted | Refusal {
    const { request, response, signal } = exchange
    const { headers } = request
    if (signal === 'unknown') return unknownPath(request.url ?? '')
    if (request.method !== 'POST') return wrongMethod(request.method ?? '')
    if (isStopping) return stopping
    const identity = admission.identify({
      authorization: headers.authorization,
      peerAddress: request.socket.remoteAddress,
      hostHeader: headers.host,
      originHeader: headers.origin,
      localBoundToLoopback: localBoundToLoopback && !isForwarded(headers),
    })
    if (isRefusal(identity)) return identity
    if (encoding === undefined) return wrongMediaType(headers['content-type'])
    const contentEncoding = contentEncodingOf(headers['content-encoding'])
    if (contentEncoding === undefined) return wrongContentEncoding(headers['content-encoding'] ?? '')
    const bytes = contentLengthOf(request)
    const body = admission.openBody(identity.tenant, bytes)
    if (isRefusal(body)) return body
    exchange.body = body
    if (awaitsContinue) response.writeContinue()
    return { identity, signal, contentEncoding, body, isLengthKnown: bytes !== undefined }
  }

  function read(exchange: Exchange, admitted: Admitted): void {
    const { request } = exchange
    const { body } = admitted
    request.on('data', (chunk: Buffer) => {
      if (exchange.state !== 'reading') return
      const appended = body.append(chunk)
      if (appended === 'kept') return
      refuse(exchange, appended === 'too_large' ? bodyTooLarge(undefined, bounds.requestBytesMax) : noRoom)
    })
    request.on('end', () => {
      if (exchange.state !== 'reading') return
      if (!admitted.isLengthKnown) admission.chargeBody(admitted.identity.tenant, body.length())
      exchange.state = 'accepting'
      handOn(exchange, admitted)
    })
    request.on('close', () => {
      if (exchange.state !== 'reading') return
      count(exchange.signal, 'aborted')
      finish(exchange)
    })
  }

  function handOn(exchange: Exchange, { identity, signal, contentEncoding, body }: Admitted): void {
    const { encoding } = exchange
    accept({ signal, identity, encoding, contentEncoding, body: body.bytes() }).then(
      (outcome) => {
        body.release()
        if (exchange.state === 'accepting') answer(exchange, signal, outcome)
      },
      (error: unknown) => {
        body.release()
        logFailure(error, `could not accept ${signal} sent over HTTP`)
        if (exchange.state === 'accepting') refuse(exchange, acceptFailed)
      },
    )
  }

  function answer(exchange: Exchange, signal: Signal, outcome: ExportOutcome): void {
    const { response, encoding } = exchange
    const refusal = refusalOf(outcome)
    if (refusal !== undefined) refuse(exchange, refusal)
    if (outcome.kind !== 'accepted') return
    if (isStopping) response.shouldKeepAlive = false
    const bytes = encodeAccepted(signal, outcome.rejected, outcome.message, encoding)
    if (bytes.length <= 2) response.writeHead(200, fullyAccepted[encoding])
    else response.writeHead(200, { 'Content-Type': contentTypeOf[encoding], 'Content-Length': bytes.length })
    if (bytes.length === 0) response.end()
    else response.end(bytes)
    finish(exchange)
  }

  function refuse(exchange: Exchange, refusal: Refusal): void {
    const { response, request, encoding } = exchange
    count(exchange.signal, refusal.reason)
    const { status, headers, bytes } = refusalAnswer(refusal, encoding)
    const isBodyRead = exchange.state === 'accepting'
    const mayThrowAway = isBodyRead || (exchange.body === undefined && isSmallRest(request, bounds.refusedBodyBytesMax))
    if (isStopping || !mayThrowAway) headers.Connection = 'close'
    response.writeHead(status, headers)
    if (mayThrowAway) {
      // Node reads and drops the rest of a body that nobody listens to, up to its Content-Length.
      response.end(bytes)
      finish(exchange)
    } else {
      response.write(bytes)
      drain(exchange)
    }
  }

  /** Answers later, and reads nothing meanwhile: a flood waits for its refusals, instead of the others for theirs. */
  function hold(exchange: Exchange, refusal: Refusal): void {
    exchange.state = 'held'
    const timer = setTimeout(() => {
      if (exchange.state === 'held') refuse(exchange, refusal)
    }, bounds.throttledAnswerMs).unref()
    exchange.request.on('close', () => {
      clearTimeout(timer)
      if (exchange.state !== 'held') return
      count(exchange.signal, 'aborted')
      finish(exchange)
    })
  }

  function drain(exchange: Exchange): void {
    const { request, response } = exchange
    exchange.body?.release()
    exchange.state = 'draining'
    let drainedBytes = 0
    const end = () => {
      if (exchange.state === 'done') return
      clearTimeout(timer)
      response.end()
      finish(exchange)
    }
    const timer = setTimeout(end, bounds.refusedBodyMs).unref()
    request.on('data', (chunk: Buffer) => {
      drainedBytes += chunk.length
      if (drainedBytes > bounds.refusedBodyBytesMax) end()
    })
    request.on('end', end)
    request.on('close', end)
  }

  function finish(exchange: Exchange): void {
    // While `accept` works on the body its bytes stay counted, whatever the client was told.
    if (exchange.state !== 'accepting') exchange.body?.release()
    exchange.state = 'done'
    open.delete(exchange)
    if (open.size() === 0) onLastDone?.()
  }

  /** What the parser could not go on with. Requests before it on the same connection still get their answers. */
  function onClientError(error: NodeJS.ErrnoException, socket: Socket): void {
    const last = open.all().findLast((exchange) => exchange.request.socket === socket)
    if (last?.request.complete) last.response.shouldKeepAlive = false
    else if (error.code === 'ECONNRESET' || error.code === 'HPE_INVALID_EOF_STATE' || !socket.writable) socket.destroy()
    else if (last === undefined) answerProtocolError(error, socket)
    else if (last.state === 'reading') refuse(last, protocolError(error).refusal)
  }

  function answerProtocolError(error: NodeJS.ErrnoException, socket: Socket): void {
    const { line, refusal } = protocolError(error)
    count('unknown', refusal.reason)
    const { headers, bytes } = refusalAnswer(refusal, 'json')
    const head = Object.entries({ ...headers, Connection: 'close' }).map(([name, value]) => `${name}: ${value}`)
    socket.end(Buffer.concat([Buffer.from(`HTTP/1.1 ${line}\r\n${head.join('\r\n')}\r\n\r\n`), bytes]))
    socket.destroySoon()
  }

  let stopped: Promise<void> | undefined
  function stop(deadlineMs: number): Promise<void> {
    stopped ??= stopNow(deadlineMs)
    return stopped
  }

  async function stopNow(deadlineMs: number): Promise<void> {
    isStopping = true
    const closed = new Promise<void>((resolve) => server.close(() => resolve()))
    const lastDone = new Promise<void>((resolve) => {
      if (open.size() === 0) resolve()
      else onLastDone = resolve
    })
    await Promise.race([lastDone, after(deadlineMs)])
    for (const exchange of open.all()) {
      if (isUnanswered(exchange)) refuse(exchange, stopping)
    }
    // Connections that are neither idle nor in a request (half a header, a handshake) get no answer, but the answers
    // just written get the time to leave.
    await Promise.race([closed, after(250)])
    server.closeAllConnections()
    clearInterval(sweep)
    await closed
  }

  await listen(server, host, port)
  const sweep = setInterval(
    () => {
      const startedBefore = clockMs() - bounds.requestMs
      for (const exchange of open.all()) {
        if (exchange.state === 'reading' && exchange.startedMs < startedBefore) refuse(exchange, tooSlow)
      }
    },
    Math.min(1_000, bounds.requestMs / 4),
  ).unref()
  const bound = server.address() as AddressInfo
  localBoundToLoopback = isLoopback(bound.address)
  return { address: bound.address, port: bound.port, stop, [Symbol.asyncDispose]: () => stop(limits.receiverStopMs) }
}

type Admitted = {
  readonly identity: Identity
  readonly signal: Signal
  readonly contentEncoding: ContentEncoding
  readonly body: Body
  readonly isLengthKnown: boolean
}

function isUnanswered(exchange: Exchange): boolean {
  return exchange.state === 'held' || exchange.state === 'reading' || exchange.state === 'accepting'
}
