// OTLP/gRPC on node:http2 with the framing by hand: five bytes before a message, a status in the trailers. A library does
// the same at twice the price per request, and buffers and inflates before anybody was asked for a key.
import { createSecureServer, createServer, type Http2Server, type Http2SecureServer, type IncomingHttpHeaders, type ServerHttp2Session, type ServerHttp2Stream } from 'node:http2'
import type { AddressInfo } from 'node:net'
import { limits } from '../limits.ts'
import { acceptFailed, bodyTooLarge, isRefusal, noRoom, openAdmission, type Refusal, refusalOf, stopping } from './admission.ts'
import { encodeAccepted, encodeGrpcMessage, encodeStatus, statusOf } from './answer.ts'
import type { Body } from './bodies.ts'
import { contentEncodingOf } from './http-fields.ts'
import { after, isForwarded, isLoopback, listen, openFailureLog, type Receiver, type ReceiverOptions } from './receiver.ts'
import type { ContentEncoding, Identity, Signal } from './request.ts'

const signalOfPath: ReadonlyMap<string, Signal> = new Map([
  ['/opentelemetry.proto.collector.trace.v1.TraceService/Export', 'traces'],
  ['/opentelemetry.proto.collector.metrics.v1.MetricsService/Export', 'metrics'],
  ['/opentelemetry.proto.collector.logs.v1.LogsService/Export', 'logs'],
])
const frameHeadBytes = 5
const contentType = 'application/grpc+proto'

type Call = {
  readonly stream: ServerHttp2Stream
  readonly signal: Signal | 'unknown'
  readonly identity: Identity | undefined
  readonly compression: ContentEncoding
  body: Body | undefined
  head: Buffer
  isCompressed: boolean
  lengthLeft: number
  isDone: boolean
}

export async function openOtlpGrpc(options: ReceiverOptions): Promise<Receiver> {
  const { host, port, tls, accept, log, count, bounds = limits } = options
  const admission = openAdmission({ ...options, bodyBytesMax: bounds.requestBytesMax })
  const logFailure = openFailureLog({ write: (fields, message) => log.error(fields, message), clockMs: () => performance.now() })
  const open = new Set<Call>()
  const sessions = new Set<ServerHttp2Session>()
  let isStopping = false
  let localBoundToLoopback = false
  let onLastDone: (() => void) | undefined

  const http2Options = {
    settings: { maxConcurrentStreams: limits.grpcStreamsMax, initialWindowSize: limits.grpcStreamWindowBytes },
    maxHeaderListPairs: 64,
    peerMaxConcurrentStreams: 0,
  }
  const server: Http2Server | Http2SecureServer = tls ? createSecureServer({ ...tls.options(), ...http2Options }) : createServer(http2Options)
  if (tls !== undefined) tls.attach(server as Http2SecureServer)
  server.on('session', (session: ServerHttp2Session) => {
    sessions.add(session)
    session.setLocalWindowSize(limits.grpcConnectionWindowBytes)
    session.setTimeout(bounds.connectionIdleMs, () => session.close())
    session.on('close', () => sessions.delete(session))
    session.on('error', (error) => logFailure(error, 'a gRPC connection failed'))
  })
  server.on('stream', (stream: ServerHttp2Stream, headers: IncomingHttpHeaders) => receive(stream, headers))

  function receive(stream: ServerHttp2Stream, headers: IncomingHttpHeaders): void {
    const signal = signalOfPath.get(String(headers[':path'])) ?? 'unknown'
    const encoding = contentEncodingOf(headers['grpc-encoding'] as string | undefined)
    const admitted = admit(stream, headers, signal, encoding)
    const call: Call = {
      stream,
      signal,
      identity: isRefusal(admitted) ? undefined : admitted,
      compression: encoding ?? 'identity',
      body: undefined,
      head: Buffer.alloc(0),
      isCompressed: false,
      lengthLeft: -1,
      isDone: false,
    }
    open.add(call)
    stream.on('error', () => finish(call))
    stream.on('aborted', () => {
      if (!call.isDone) count(call.signal, 'aborted')
      finish(call)
    })
    stream.on('close', () => finish(call))
    stream.setTimeout(bounds.requestMs, () => {
      if (!call.isDone) refuse(call, { reason: 'timed_out', message: 'the message did not arrive in time', retryAfterMs: 1000 })
    })
    if (isRefusal(admitted)) {
      refuse(call, admitted)
      return
    }
    stream.on('data', (chunk: Buffer) => read(call, chunk))
    stream.on('end', () => handOn(call))
  }

  function admit(stream: ServerHttp2Stream, headers: IncomingHttpHeaders, signal: Signal | 'unknown', encoding: ContentEncoding | undefined): Identity | Refusal {
    if (signal === 'unknown') return { reason: 'unknown_path', message: `there is no method ${JSON.stringify(String(headers[':path']).slice(0, 100))}` }
    if (headers[':method'] !== 'POST') return { reason: 'method_not_allowed', message: 'gRPC calls are POST' }
    if (isStopping) return stopping
    const identity = admission.identify({
      authorization: headers.authorization,
      peerAddress: stream.session?.socket?.remoteAddress,
      hostHeader: headers[':authority'],
      localBoundToLoopback: localBoundToLoopback && !isForwarded(headers),
    })
    if (isRefusal(identity)) return identity
    if (!/^application\/grpc(\+proto)?(;|$)/i.test(String(headers['content-type']))) {
      return { reason: 'unsupported_media_type', message: 'Content-Type must be application/grpc or application/grpc+proto' }
    }
    if (encoding === undefined) return { reason: 'unsupported_encoding', message: 'grpc-encoding must be one of gzip, zstd, deflate and identity' }
    return identity
  }

  function read(call: Call, chunk: Buffer): void {
    if (call.isDone) return
    let rest = chunk
    if (call.body === undefined) {
      call.head = call.head.length === 0 ? rest : Buffer.concat([call.head, rest])
      if (call.head.length < frameHeadBytes) return
      call.isCompressed = call.head[0] === 1
      const length = call.head.readUInt32BE(1)
      const refusal = openBody(call, length)
      if (refusal !== undefined) {
        refuse(call, refusal)
        return
      }
      rest = call.head.subarray(frameHeadBytes)
      call.head = Buffer.alloc(0)
    }
    if (rest.length === 0) return
    if (rest.length > call.lengthLeft) {
      refuse(call, { reason: 'malformed', message: 'more bytes came than the message declares; Export takes one message' })
      return
    }
    call.lengthLeft -= rest.length
    const appended = call.body?.append(rest)
    if (appended !== 'kept') refuse(call, appended === 'too_large' ? bodyTooLarge(undefined, bounds.requestBytesMax) : noRoom)
  }

  function openBody(call: Call, length: number): Refusal | undefined {
    if ((call.head[0] as number) > 1) return { reason: 'malformed', message: 'the compressed flag of a message is 0 or 1' }
    if (call.isCompressed && call.compression === 'identity') {
      return { reason: 'malformed', message: 'the message says it is compressed, and grpc-encoding names no compression' }
    }
    if (call.identity === undefined) return stopping
    const body = admission.openBody(call.identity.tenant, length)
    if (isRefusal(body)) return body
    call.body = body
    call.lengthLeft = length
    return undefined
  }

  function handOn(call: Call): void {
    if (call.isDone) return
    const { body, identity, signal } = call
    if (body === undefined || call.lengthLeft !== 0 || identity === undefined || signal === 'unknown') {
      refuse(call, { reason: 'malformed', message: 'the message ends before its declared length' })
      return
    }
    accept({ signal, identity, encoding: 'protobuf', contentEncoding: call.isCompressed ? call.compression : 'identity', body: body.bytes() }).then(
      (outcome) => {
        body.release()
        if (call.isDone) return
        const refusal = refusalOf(outcome)
        if (refusal !== undefined) refuse(call, refusal)
        else if (outcome.kind === 'accepted') answer(call, encodeAccepted(signal, outcome.rejected, outcome.message, 'protobuf'))
      },
      (error: unknown) => {
        body.release()
        logFailure(error, `could not accept ${signal} sent over gRPC`)
        if (!call.isDone) refuse(call, acceptFailed)
      },
    )
  }

  function answer(call: Call, message: Buffer): void {
    const { stream } = call
    const frame = Buffer.alloc(frameHeadBytes + message.length)
    frame.writeUInt32BE(message.length, 1)
    message.copy(frame, frameHeadBytes)
    stream.respond({ ':status': 200, 'content-type': contentType }, { waitForTrailers: true })
    stream.on('wantTrailers', () => stream.sendTrailers({ 'grpc-status': '0' }))
    stream.end(frame)
    finish(call)
  }

  function refuse(call: Call, refusal: Refusal): void {
    const { stream } = call
    count(call.signal, refusal.reason)
    call.body?.release()
    const code = statusOf[refusal.reason].grpc
    if (!stream.destroyed && !stream.headersSent) {
      stream.respond(
        {
          ':status': 200,
          'content-type': contentType,
          'grpc-status': String(code),
          'grpc-message': encodeGrpcMessage(refusal.message),
          'grpc-status-details-bin': encodeStatus(refusal, code, 'protobuf').toString('base64'),
        },
        { endStream: true },
      )
      // What else the client has to send would only fill the window; NO_ERROR says that nothing was wrong with it.
      stream.resume()
    }
    finish(call)
  }

  function finish(call: Call): void {
    if (call.isDone) return
    call.isDone = true
    open.delete(call)
    if (open.size === 0) onLastDone?.()
  }

  let stopped: Promise<void> | undefined
  function stop(deadlineMs: number): Promise<void> {
    stopped ??= stopNow(deadlineMs)
    return stopped
  }

  async function stopNow(deadlineMs: number): Promise<void> {
    isStopping = true
    const closed = new Promise<void>((resolve) => server.close(() => resolve()))
    // GOAWAY: calls under way are finished, new ones go elsewhere.
    for (const session of sessions) session.close()
    const lastDone = new Promise<void>((resolve) => {
      if (open.size === 0) resolve()
      else onLastDone = resolve
    })
    await Promise.race([lastDone, after(deadlineMs)])
    for (const call of [...open]) refuse(call, stopping)
    await Promise.race([closed, after(250)])
    for (const session of sessions) session.destroy()
    await closed
  }

  await listen(server, host, port)
  const bound = server.address() as AddressInfo
  localBoundToLoopback = isLoopback(bound.address)
  return { address: bound.address, port: bound.port, stop, [Symbol.asyncDispose]: () => stop(limits.receiverStopMs) }
}
