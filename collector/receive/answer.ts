// The one place where an outcome becomes a status, for HTTP and gRPC alike, and where the few bytes of an answer are made.
// An OTLP client acts on nothing else: it retries 429, 502, 503, 504 and UNAVAILABLE, drops what gets anything else, and
// takes what it cannot read for a lost answer. So an inner failure is 503, never 500, and every answer is small.
import { limits } from '../limits.ts'
import type { Refusal, RefusalReason } from './admission.ts'
import type { Signal } from './request.ts'

/** The google.rpc codes we send. */
export const grpcStatus = {
  ok: 0,
  cancelled: 1,
  invalidArgument: 3,
  deadlineExceeded: 4,
  notFound: 5,
  permissionDenied: 7,
  resourceExhausted: 8,
  unimplemented: 12,
  internal: 13,
  unavailable: 14,
  unauthenticated: 16,
} as const

export const statusOf = {
  unauthenticated: { http: 401, grpc: grpcStatus.unauthenticated },
  forbidden: { http: 403, grpc: grpcStatus.permissionDenied },
  unknown_path: { http: 404, grpc: grpcStatus.unimplemented },
  method_not_allowed: { http: 405, grpc: grpcStatus.unimplemented },
  unsupported_media_type: { http: 415, grpc: grpcStatus.invalidArgument },
  unsupported_encoding: { http: 415, grpc: grpcStatus.unimplemented },
  too_large: { http: 413, grpc: grpcStatus.resourceExhausted },
  malformed: { http: 400, grpc: grpcStatus.invalidArgument },
  // Not RESOURCE_EXHAUSTED: OTLP asks for UNAVAILABLE with RetryInfo, and old clients retry nothing else.
  throttled: { http: 429, grpc: grpcStatus.unavailable },
  unavailable: { http: 503, grpc: grpcStatus.unavailable },
  timed_out: { http: 503, grpc: grpcStatus.unavailable },
  // Not INVALID_ARGUMENT: clients retry CANCELLED, and a torn message says nothing about the whole one.
  aborted: { http: 400, grpc: grpcStatus.cancelled },
} as const satisfies Record<RefusalReason, { readonly http: number; readonly grpc: number }>

const nothing = Buffer.alloc(0)
const emptyJson = Buffer.from('{}')

/** Export…ServiceResponse. The three signals differ in the name of one JSON field only. */
export function encodeAccepted(
  signal: Signal,
  rejected: number,
  message: string,
  encoding: 'protobuf' | 'json',
): Buffer {
  if (rejected === 0 && message === '') return encoding === 'json' ? emptyJson : nothing
  const errorMessage = boundText(message)
  if (encoding === 'json') {
    // Without the count when it is 0: then the message is a warning, and a client must not report a loss.
    const count = rejected === 0 ? {} : { [rejectedFieldOf[signal]]: String(rejected) }
    return Buffer.from(JSON.stringify({ partialSuccess: { ...count, errorMessage } }))
  }
  return lengthField(1, Buffer.concat([numberField(1, rejected), textField(2, errorMessage)]))
}

const rejectedFieldOf = {
  traces: 'rejectedSpans',
  metrics: 'rejectedDataPoints',
  logs: 'rejectedLogRecords',
} as const satisfies Record<Signal, string>

/** google.rpc.Status, with BadRequest for what is malformed and RetryInfo where a retry is wanted. Never RetryInfo for
 *  what is too large: it would make clients send it again for ever. */
export function encodeStatus(refusal: Refusal, code: number, encoding: 'protobuf' | 'json'): Buffer {
  const message = boundText(refusal.message)
  if (encoding === 'json') {
    return Buffer.from(JSON.stringify({ code, message, details: jsonDetails(refusal, message) }))
  }
  return Buffer.concat([numberField(1, code), textField(2, message), ...protobufDetails(refusal, message)])
}

/** Whole seconds, at least one: what a Retry-After header can say. */
export function retryAfterSeconds(retryAfterMs: number): number {
  return Math.max(1, Math.ceil(retryAfterMs / 1000))
}

/** grpc-message: all but printable ASCII percent-encoded, as UTF-8. */
export function encodeGrpcMessage(message: string): string {
  return Buffer.from(boundText(message))
    .toString('latin1')
    .replace(/[^ -$&-~]/g, (byte) => `%${byte.charCodeAt(0).toString(16).toUpperCase().padStart(2, '0')}`)
}

/** Cut at a whole character, so that what is left is still UTF-8. */
export function boundText(text: string): string {
  const bytesMax = limits.answerMessageBytesMax
  if (Buffer.byteLength(text) <= bytesMax) return text.toWellFormed()
  const ellipsis = '…'
  const kept = Buffer.from(text).subarray(0, bytesMax - Buffer.byteLength(ellipsis))
  return new TextDecoder().decode(kept, { stream: true }) + ellipsis
}

const badRequestType = 'type.googleapis.com/google.rpc.BadRequest'
const retryInfoType = 'type.googleapis.com/google.rpc.RetryInfo'

function jsonDetails(refusal: Refusal, message: string): object[] {
  if (refusal.reason === 'malformed') {
    return [{ '@type': badRequestType, fieldViolations: [{ field: 'body', description: message }] }]
  }
  if (refusal.retryAfterMs === undefined) return []
  return [{ '@type': retryInfoType, retryDelay: `${(Math.ceil(refusal.retryAfterMs) / 1000).toFixed(3)}s` }]
}

function protobufDetails(refusal: Refusal, message: string): Buffer[] {
  if (refusal.reason === 'malformed') {
    const violation = Buffer.concat([textField(1, 'body'), textField(2, message)])
    return [anyField(badRequestType, lengthField(1, violation))]
  }
  if (refusal.retryAfterMs === undefined) return []
  const delayMs = Math.ceil(refusal.retryAfterMs)
  const delay = Buffer.concat([
    numberField(1, Math.floor(delayMs / 1000)),
    numberField(2, (delayMs % 1000) * 1_000_000),
  ])
  return [anyField(retryInfoType, lengthField(1, delay))]
}

function anyField(type: string, value: Buffer): Buffer {
  return lengthField(3, Buffer.concat([textField(1, type), lengthField(2, value)]))
}

function textField(field: number, text: string): Buffer {
  return text === '' ? nothing : lengthField(field, Buffer.from(text))
}

function lengthField(field: number, value: Buffer): Buffer {
  return Buffer.concat([varint(field * 8 + 2), varint(value.length), value])
}

function numberField(field: number, value: number): Buffer {
  return value === 0 ? nothing : Buffer.concat([varint(field * 8), varint(value)])
}

// Division, not shifts: a count of records may pass 2^31.
function varint(value: number): Buffer {
  const bytes: number[] = []
  let rest = value
  while (rest >= 128) {
    bytes.push((rest % 128) + 128)
    rest = Math.floor(rest / 128)
  }
  bytes.push(rest)
  return Buffer.from(bytes)
}
