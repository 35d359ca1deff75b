// How the proxy says no: in the words of the provider whose SDK is listening, so that the service sees an error it knows, with
// the numbers of ours beside it. `X-Tallylight-Refused` tells these answers from the provider's own.
import type { Api } from '@tallylight/instrumentation/providers/call.ts'

export type RefusalReason =
  | 'bad_request'
  | 'unauthenticated'
  | 'forbidden'
  | 'unknown_upstream'
  | 'method_not_allowed'
  | 'unmetered'
  | 'too_large'
  | 'unsupported_encoding'
  | 'signed_host'
  | 'aborted'
  | 'timed_out'
  | 'no_room'
  | 'stopping'
  | 'quota_exceeded'
  | 'quota_unavailable'
  | 'upstream_failed'
  | 'upstream_timeout'
  | 'failed'

export type Refusal = {
  readonly reason: RefusalReason
  readonly message: string
  readonly headers?: Readonly<Record<string, string>>
  /** What a program may want to know of it. */
  readonly details?: object
  /** Where trying again makes it no better, SDKs are told so. */
  readonly isFinal?: boolean
}

export const statusOf: Readonly<Record<RefusalReason, number>> = {
  bad_request: 400,
  unauthenticated: 401,
  forbidden: 403,
  unknown_upstream: 404,
  method_not_allowed: 405,
  unmetered: 403,
  too_large: 413,
  unsupported_encoding: 415,
  signed_host: 400,
  aborted: 400,
  timed_out: 408,
  no_room: 503,
  stopping: 503,
  quota_exceeded: 429,
  quota_unavailable: 503,
  upstream_failed: 502,
  upstream_timeout: 504,
  failed: 500,
}

export type Dialect = 'openai' | 'anthropic' | 'google' | 'amazon'

/** What is spoken there; of a request that is no call, what its provider speaks. */
export function dialectOf(api: Api | undefined, provider: string): Dialect {
  if (api?.startsWith('anthropic.') || provider === 'anthropic') return 'anthropic'
  if (api?.startsWith('gemini.') || provider.startsWith('gcp.')) return 'google'
  return api?.startsWith('bedrock.') || provider.startsWith('aws.') ? 'amazon' : 'openai'
}

export type RefusalAnswer = {
  readonly status: number
  readonly headers: Readonly<Record<string, string>>
  readonly body: string
}

export function refusalAnswer(refusal: Refusal, dialect: Dialect): RefusalAnswer {
  const { reason, message, details } = refusal
  const status = statusOf[reason]
  const body = JSON.stringify({
    ...bodyOf(dialect, status, refusal),
    tallylight: { reason, status, detail: message, ...details },
  })
  return {
    status,
    headers: {
      'Content-Type': 'application/json',
      'Content-Length': String(Buffer.byteLength(body)),
      'X-Tallylight-Refused': reason,
      ...(refusal.isFinal === true ? { 'X-Should-Retry': 'false' } : {}),
      ...(dialect === 'amazon' ? { 'X-Amzn-ErrorType': amazonTypes[status] ?? 'InternalServerException' } : {}),
      ...(status === 503 ? { 'Retry-After': '1' } : {}),
      ...refusal.headers,
    },
    body,
  }
}

function bodyOf(dialect: Dialect, status: number, { reason, message }: Refusal): object {
  switch (dialect) {
    case 'openai': {
      const type = status === 429 ? 'insufficient_quota' : status < 500 ? 'invalid_request_error' : 'server_error'
      return { error: { message, type, param: null, code: reason } }
    }
    case 'anthropic':
      return { type: 'error', error: { type: anthropicTypes[status] ?? 'api_error', message } }
    case 'google':
      return { error: { code: status, message, status: googleStatuses[status] ?? 'INTERNAL' } }
    case 'amazon':
      return { message }
    default:
      return dialect satisfies never
  }
}

const anthropicTypes: Readonly<Record<number, string>> = {
  400: 'invalid_request_error',
  401: 'authentication_error',
  403: 'permission_error',
  404: 'not_found_error',
  405: 'invalid_request_error',
  413: 'request_too_large',
  415: 'invalid_request_error',
  429: 'rate_limit_error',
  503: 'overloaded_error',
  504: 'timeout_error',
}
const googleStatuses: Readonly<Record<number, string>> = {
  400: 'INVALID_ARGUMENT',
  401: 'UNAUTHENTICATED',
  403: 'PERMISSION_DENIED',
  404: 'NOT_FOUND',
  405: 'UNIMPLEMENTED',
  413: 'INVALID_ARGUMENT',
  415: 'INVALID_ARGUMENT',
  429: 'RESOURCE_EXHAUSTED',
  502: 'UNAVAILABLE',
  503: 'UNAVAILABLE',
  504: 'DEADLINE_EXCEEDED',
}
const amazonTypes: Readonly<Record<number, string>> = {
  400: 'ValidationException',
  401: 'UnrecognizedClientException',
  403: 'AccessDeniedException',
  404: 'ResourceNotFoundException',
  405: 'ValidationException',
  413: 'ValidationException',
  415: 'ValidationException',
  429: 'ThrottlingException',
  503: 'ServiceUnavailableException',
}
