// What gRPC puts around an OTLP message: the method's path, five bytes of frame head, a timeout, and what is said to those
// who get it wrong.
import type { Refusal } from './admission.ts'
import type { Signal } from './request.ts'

/** One byte that says whether the message is compressed, four of its length. */
export const frameHeadBytes = 5
export const grpcContentType = 'application/grpc+proto'

export function signalOfMethod(path: string | undefined): Signal | 'unknown' {
  switch (path) {
    case '/opentelemetry.proto.collector.trace.v1.TraceService/Export':
      return 'traces'
    case '/opentelemetry.proto.collector.metrics.v1.MetricsService/Export':
      return 'metrics'
    case '/opentelemetry.proto.collector.logs.v1.LogsService/Export':
      return 'logs'
    default:
      return 'unknown'
  }
}

export function isGrpc(contentType: string | undefined): boolean {
  if (contentType === 'application/grpc' || contentType === grpcContentType) return true
  return contentType !== undefined && /^application\/grpc(\+proto)?\s*(;|$)/i.test(contentType)
}

export function encodeFrame(message: Buffer): Buffer {
  const frame = Buffer.alloc(frameHeadBytes + message.length)
  frame.writeUInt32BE(message.length, 1)
  message.copy(frame, frameHeadBytes)
  return frame
}

const msOfUnit: Readonly<Record<string, number>> = { H: 3_600_000, M: 60_000, S: 1000, m: 1, u: 1e-3, n: 1e-6 }

/** `grpc-timeout`, Infinity without one. What is no timeout is taken for none: it limits nobody but its sender. */
export function timeoutMsOf(header: string | string[] | undefined): number {
  if (typeof header !== 'string') return Number.POSITIVE_INFINITY
  const unitMs = /^\d{1,8}[HMSmun]$/.test(header) ? msOfUnit[header.at(-1) ?? ''] : undefined
  return unitMs === undefined ? Number.POSITIVE_INFINITY : Number.parseInt(header, 10) * unitMs
}

export const flagUnknown: Refusal = { reason: 'malformed', message: 'the compressed flag of a message is 0 or 1' }
export const compressionMissing: Refusal = {
  reason: 'malformed',
  message: 'the message says that it is compressed, and grpc-encoding names no compression',
}
// A cancelled call often looks like one that ended: @grpc/grpc-js ends its stream before it resets it.
export const messageMissing: Refusal = { reason: 'aborted', message: 'the call ended before its message' }
export const messageTwice: Refusal = {
  reason: 'malformed',
  message: 'Export takes one message; more bytes came than it declares',
}
export const nothingWaits: Refusal = { reason: 'timed_out', message: 'the message came after its grpc-timeout' }

export function messageTorn(declaredBytes: number, cameBytes: number): Refusal {
  const message = `the message declares ${declaredBytes} bytes, and the call ended after ${cameBytes}`
  return { reason: 'aborted', message }
}

export function unknownMethod(path: string | undefined): Refusal {
  const message = `this port serves Export of OTLP's TraceService, MetricsService and LogsService, not ${quote(path)}`
  return { reason: 'unknown_path', message }
}

export function wrongGrpcContentType(contentType: string | undefined): Refusal {
  const message = `content-type must be application/grpc or ${grpcContentType}, ${quote(contentType)} came`
  return { reason: 'unsupported_media_type', message }
}

export function wrongGrpcEncoding(encoding: string): Refusal {
  const message = `grpc-encoding must be one of identity, gzip, deflate and zstd, ${quote(encoding)} came`
  return { reason: 'unsupported_encoding', message }
}

function quote(text: string | undefined): string {
  return text === undefined ? 'none' : JSON.stringify(text.slice(0, 100))
}
