// OTLP over gRPC, on node:http2 with the framing by hand: five bytes before a message, a status in the trailers. A library
// does the same at twice the price per request, and buffers and inflates before anybody was asked for a key. Promises:
// a message's declared length is checked before a byte of it is kept; every call gets exactly one status, or a closed
// connection; what gets OK was accepted first.
//
// A call is `reading` its message, then `accepting`, then `done`.
import {
  constants,
  createSecureServer,
  createServer,
  type Http2SecureServer,
  type Http2Server,
  type IncomingHttpHeaders,
  type OutgoingHttpHeaders,
  type ServerHttp2Session,
  type ServerHttp2Stream,
} from 'node:http2'
import type { AddressInfo } from 'node:net'
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
import { encodeAccepted, encodeGrpcMessage, encodeStatus, grpcStatus, statusOf } from './answer.ts'
import type { Body } from './bodies.ts'
import { answerHealth, healthCheckPath } from './grpc-health.ts'
import {
  compressionMissing,
  encodeFrame,
  flagUnknown,
  frameHeadBytes,
  grpcContentType,
  isGrpc,
  messageMissing,
  messageTorn,
  messageTwice,
  nothingWaits,
  signalOfMethod,
  timeoutMsOf,
  unknownMethod,
  wrongGrpcContentType,
  wrongGrpcEncoding,
} from './grpc-message.ts'
import { contentEncodingOf } from './http-fields.ts'
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

type Call = {
  readonly stream: ServerHttp2Stream
  readonly signal: Signal | 'unknown'
  readonly startedMs: number
  state: 'held' | 'reading' | 'accepting' | 'done'
  /** The first bytes of a frame head that was cut in two. */
  head: Buffer | undefined
  isCompressed: boolean
  messageBytes: number
  body: Body | undefined
  before: Call | undefined
  after: Call | undefined
}

type Admitted = {
  readonly identity: Identity
  readonly signal: Signal
  readonly contentEncoding: ContentEncoding
  readonly timeoutMs: number
}

// The answer to nearly every call, made once.
const okHeaders: OutgoingHttpHeaders = { ':status': 200, 'content-type': grpcContentType }
const okTrailers: OutgoingHttpHeaders = { 'grpc-status': String(grpcStatus.ok) }
const trailersFollow = { waitForTrailers: true }
const nghttp2BadClientMagic = -903
// The client reads a frame where it waits for a status line, and tells its user nothing that helps.
const notHttp2 = `what was sent to the port of gRPC is not HTTP/2: OTLP over HTTP goes to 4318 (TALLYLIGHT_OTLP_HTTP_PORT), and a gRPC client that speaks TLS needs http:// in its endpoint`
const fullyAccepted = encodeFrame(Buffer.alloc(0))

export async function openOtlpGrpc(options: ReceiverOptions): Promise<Receiver> {
  const { host, port, tls, accept, log, count, bounds = limits } = options
  const admission = openAdmission({ ...options, bodyBytesMax: bounds.requestBytesMax })
  const clockMs = () => performance.now()
  const logFailure = openFailureLog({ write: (fields, message) => log.error(fields, message), clockMs })
  const logConnection = openFailureLog({ write: (fields, message) => log.warn(fields, message), clockMs })
  const open = openList<Call>()
  const peers = new Map<ServerHttp2Session, string | undefined>()
  let isStopping = false
  let localBoundToLoopback = false
  let onLastDone: (() => void) | undefined

  // Node's own bounds hold for the rest: a peer that resets more than 1,000 calls at once and 33 a second after that, or
  // sends invalid frames, is disconnected, and so is one that makes a connection hold more than 10 MB beside its bodies.
  const http2Options = {
    settings: {
      maxConcurrentStreams: limits.grpcStreamsMax,
      initialWindowSize: limits.grpcStreamWindowBytes,
      maxHeaderListSize: limits.grpcHeadersBytesMax,
    },
    maxHeaderListPairs: 64,
  }
  const server: Http2Server | Http2SecureServer = tls
    ? createSecureServer({ ...tls.options(), ...http2Options, handshakeTimeout: bounds.requestHeadersMs })
    : createServer(http2Options)
  server.maxConnections = bounds.connectionsMax
  tls?.attach(server)
  server.on('session', (session: ServerHttp2Session) => {
    peers.set(session, session.socket.remoteAddress)
    session.setLocalWindowSize(limits.grpcConnectionWindowBytes)
    session.setTimeout(bounds.connectionIdleMs, () => session.close())
    session.on('close', () => peers.delete(session))
  })
  server.on('stream', receive)
  server.on('sessionError', (error: NodeJS.ErrnoException) => {
    const isForeign = error.errno === nghttp2BadClientMagic
    if (isForeign) count('unknown', 'malformed')
    logConnection(error, isForeign ? notHttp2 : 'a gRPC connection failed')
  })
  server.on('tlsClientError', (error: Error) => logConnection(error, 'a TLS handshake failed'))
  server.on('drop', () => count('unknown', 'unavailable'))

  function receive(stream: ServerHttp2Stream, headers: IncomingHttpHeaders): void {
    if (headers[':path'] === healthCheckPath) {
      answerHealth(stream, () => !isStopping)
      return
    }
    const call: Call = {
      stream,
      signal: signalOfMethod(headers[':path']),
      startedMs: clockMs(),
      state: 'reading',
      head: undefined,
      isCompressed: false,
      messageBytes: 0,
      body: undefined,
      before: undefined,
      after: undefined,
    }
    open.add(call)
    stream.on('close', () => onClosed(call))
    // The close that follows says all there is to know.
    stream.on('error', ignoreError)
    if (!isGrpc(headers['content-type'])) {
      refuse(call, wrongGrpcContentType(headers['content-type']), grpcStatus.invalidArgument, 415)
      return
    }
    const admitted = admit(call, headers)
    if (isRefusal(admitted)) {
      refuse(call, admitted)
      return
    }
    stream.on('data', (chunk: Buffer) => read(call, admitted, chunk))
    stream.on('end', () => end(call, admitted))
  }

  function admit({ stream, signal }: Call, headers: IncomingHttpHeaders): Admitted | Refusal {
    if (signal === 'unknown') return unknownMethod(headers[':path'])
    if (isStopping) return stopping
    const identity = admission.identify({
      authorization: headers.authorization,
      peerAddress: stream.session && peers.get(stream.session as ServerHttp2Session),
      hostHeader: headers[':authority'] ?? headers.host,
      originHeader: headers.origin,
      localBoundToLoopback: localBoundToLoopback && !isForwarded(headers),
    })
    if (isRefusal(identity)) return identity
    const encoding = headers['grpc-encoding']
    const contentEncoding = contentEncodingOf(Array.isArray(encoding) ? encoding.join() : encoding)
    if (contentEncoding === undefined) return wrongGrpcEncoding(String(encoding))
    return { identity, signal, contentEncoding, timeoutMs: timeoutMsOf(headers['grpc-timeout']) }
  }

  function read(call: Call, admitted: Admitted, chunk: Buffer): void {
    if (call.state !== 'reading') return
    let rest = chunk
    if (call.body === undefined) {
      const head = call.head === undefined ? chunk : Buffer.concat([call.head, chunk])
      if (head.length < frameHeadBytes) {
        call.head = head
        return
      }
      openMessage(call, admitted, head)
      rest = head.subarray(frameHeadBytes)
    }
    const { body, messageBytes } = call
    if (body === undefined || rest.length === 0) return
    if (body.length() + rest.length > messageBytes) {
      refuse(call, messageTwice)
      return
    }
    const appended = body.append(rest)
    if (appended === 'too_large') refuse(call, bodyTooLarge(undefined, bounds.requestBytesMax))
    else if (appended === 'no_room') refuse(call, noRoom)
  }

  /** Leaves `call.body` undefined when it refused the call. */
  function openMessage(call: Call, { identity, contentEncoding }: Admitted, head: Buffer): void {
    const flag = head[0]
    if (flag !== 0 && flag !== 1) {
      refuse(call, flagUnknown, grpcStatus.internal)
      return
    }
    if (flag === 1 && contentEncoding === 'identity') {
      refuse(call, compressionMissing, grpcStatus.internal)
      return
    }
    call.isCompressed = flag === 1
    call.messageBytes = head.readUInt32BE(1)
    const body = admission.openBody(identity.tenant, call.messageBytes)
    if (!isRefusal(body)) call.body = body
    else if (body.reason === 'throttled') hold(call, body)
    else refuse(call, body)
  }

  /** Answers later, and reads nothing meanwhile: a flood waits for its refusals, instead of the others for theirs. */
  function hold(call: Call, refusal: Refusal): void {
    call.state = 'held'
    call.stream.pause()
    const timer = setTimeout(() => {
      if (call.state === 'held') refuse(call, refusal)
    }, bounds.throttledAnswerMs).unref()
    call.stream.on('close', () => clearTimeout(timer))
  }

  function end(call: Call, admitted: Admitted): void {
    // A cancelled call ends too, whole or not, and closes next: nobody waits for its answer.
    if (call.state !== 'reading' || call.stream.aborted || call.stream.closed) return
    const { body, signal, messageBytes } = call
    if (body === undefined) refuse(call, messageMissing)
    else if (body.length() < messageBytes) refuse(call, messageTorn(messageBytes, body.length()))
    else if (clockMs() - call.startedMs > admitted.timeoutMs) refuse(call, nothingWaits, grpcStatus.deadlineExceeded)
    else if (signal !== 'unknown') handOn(call, admitted, body)
  }

  function handOn(call: Call, { identity, signal, contentEncoding }: Admitted, body: Body): void {
    call.state = 'accepting'
    const encodingUsed = call.isCompressed ? contentEncoding : 'identity'
    accept({ signal, identity, encoding: 'protobuf', contentEncoding: encodingUsed, body: body.bytes() }).then(
      (outcome) => {
        body.release()
        if (call.state === 'accepting') answer(call, signal, outcome)
      },
      (error: unknown) => {
        body.release()
        logFailure(error, `could not accept ${signal} sent over gRPC`)
        if (call.state === 'accepting') refuse(call, acceptFailed)
      },
    )
  }

  function answer(call: Call, signal: Signal, outcome: ExportOutcome): void {
    const refusal = refusalOf(outcome)
    if (refusal !== undefined) refuse(call, refusal)
    if (outcome.kind !== 'accepted') return
    const { stream } = call
    const message = encodeAccepted(signal, outcome.rejected, outcome.message, 'protobuf')
    stream.respond(okHeaders, trailersFollow)
    stream.on('wantTrailers', sendOkTrailers)
    stream.end(message.length === 0 ? fullyAccepted : encodeFrame(message))
    finish(call)
  }

  function refuse(
    call: Call,
    refusal: Refusal,
    code: number = statusOf[refusal.reason].grpc,
    httpStatus = constants.HTTP_STATUS_OK,
  ): void {
    const { stream } = call
    count(call.signal, refusal.reason)
    finish(call)
    if (stream.closed || stream.destroyed) return
    const trailers: OutgoingHttpHeaders = {
      ':status': httpStatus,
      'content-type': grpcContentType,
      'grpc-status': String(code),
      'grpc-message': encodeGrpcMessage(refusal.message),
      'grpc-status-details-bin': encodeStatus(refusal, code, 'protobuf').toString('base64').replace(/=+$/, ''),
    }
    if (refusal.reason === 'unsupported_encoding') trailers['grpc-accept-encoding'] = 'identity,gzip,deflate,zstd'
    stream.respond(trailers, { endStream: true })
    // What the client has still to send would only be thrown away; NO_ERROR says that the answer stands without it.
    if (!stream.readableEnded) stream.close(constants.NGHTTP2_NO_ERROR)
  }

  function onClosed(call: Call): void {
    if (call.state === 'reading' || call.state === 'held') count(call.signal, 'aborted')
    finish(call)
  }

  function finish(call: Call): void {
    // While `accept` works on the message its bytes stay counted, whatever became of the client.
    if (call.state === 'reading') call.body?.release()
    call.state = 'done'
    if (open.delete(call) && open.size() === 0) onLastDone?.()
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
    // GOAWAY: calls under way are finished, new ones go to another connection.
    for (const session of peers.keys()) session.close()
    await Promise.race([lastDone, after(deadlineMs)])
    for (const call of open.all()) refuse(call, stopping)
    await Promise.race([closed, after(250)])
    for (const session of peers.keys()) session.destroy()
    clearInterval(sweep)
    await closed
  }

  await listen(server, host, port)
  const sweep = setInterval(
    () => {
      const startedBefore = clockMs() - bounds.requestMs
      for (const call of open.all()) {
        if (call.state === 'reading' && call.startedMs < startedBefore) refuse(call, tooSlow)
      }
    },
    Math.min(1_000, bounds.requestMs / 4),
  ).unref()
  const bound = server.address() as AddressInfo
  localBoundToLoopback = isLoopback(bound.address)
  return { address: bound.address, port: bound.port, stop, [Symbol.asyncDispose]: () => stop(limits.receiverStopMs) }
}

function ignoreError(): void {}

function sendOkTrailers(this: ServerHttp2Stream): void {
  this.sendTrailers(okTrailers)
}
