// What an OTLP/HTTP request says about itself in its first line and headers, and how it is told that this will not do.
import type { IncomingMessage } from 'node:http'
import type { Refusal } from './admission.ts'
import { encodeStatus, retryAfterSeconds, statusOf } from './answer.ts'
import type { ContentEncoding, Signal } from './request.ts'

export type Encoding = 'protobuf' | 'json'

export const contentTypeOf = { protobuf: 'application/x-protobuf', json: 'application/json' } as const

export function signalOf(url: string): Signal | 'unknown' {
  switch (url) {
    case '/v1/traces':
      return 'traces'
    case '/v1/metrics':
      return 'metrics'
    case '/v1/logs':
      return 'logs'
    default: {
      const query = url.indexOf('?')
      return query === -1 ? 'unknown' : signalOf(url.slice(0, query))
    }
  }
}

export function encodingOf(contentType: string | undefined): Encoding | undefined {
  if (contentType === contentTypeOf.protobuf) return 'protobuf'
  if (contentType === contentTypeOf.json) return 'json'
  const mediaType = contentType?.split(';', 1)[0]?.trim().toLowerCase()
  if (mediaType === contentTypeOf.protobuf) return 'protobuf'
  return mediaType === contentTypeOf.json ? 'json' : undefined
}

/** Undefined for one we cannot undo, and for several. */
export function contentEncodingOf(header: string | undefined): ContentEncoding | undefined {
  if (header === undefined || header === '') return 'identity'
  switch (header.trim().toLowerCase()) {
    case 'identity':
      return 'identity'
    case 'gzip':
    case 'x-gzip':
      return 'gzip'
    case 'zstd':
      return 'zstd'
    case 'deflate':
      return 'deflate'
    default:
      return undefined
  }
}

/** Undefined when the body is chunked. The parser has refused what is no number, and both headers at once. */
export function contentLengthOf(request: IncomingMessage): number | undefined {
  const header = request.headers['content-length']
  if (header !== undefined) return Number(header)
  return request.headers['transfer-encoding'] === undefined ? 0 : undefined
}

/** Whether the rest of a refused body is worth reading for the sake of the connection. A client that waits for `100
 *  Continue` may or may not send it after a refusal, so its connection cannot be used again. */
export function isSmallRest(request: IncomingMessage, bytesMax: number): boolean {
  const bytes = contentLengthOf(request)
  return bytes === 0 || (bytes !== undefined && bytes <= bytesMax && request.headers.expect === undefined)
}

export function unknownPath(url: string): Refusal {
  const message = `POST goes to /v1/traces, /v1/metrics or /v1/logs, not ${JSON.stringify(url.slice(0, 100))}${otherPort(url, 'otlp')}`
  return { reason: 'unknown_path', message }
}

const paths = [
  {
    port: 'otlp',
    begins: /^\/v1\/(traces|metrics|logs)$/,
    where: 'OTLP over HTTP is on 4318 (TALLYLIGHT_OTLP_HTTP_PORT)',
  },
  {
    port: 'api',
    begins: /^\/(v1\/quota\/|api\/v1\/|healthz$|readyz$|metrics$)/,
    where: 'that is on 4319 (TALLYLIGHT_API_PORT)',
  },
  { port: 'proxy', begins: /^\/(openai|anthropic|gemini)\//, where: 'the proxy is on 4320 (TALLYLIGHT_PROXY_PORT)' },
] as const

/** Said behind a path that `port` does not serve: most who ask for one have taken one of our ports for another. */
export function otherPort(path: string, port: (typeof paths)[number]['port']): string {
  const meant = paths.find(({ begins }) => begins.test(path))
  return meant === undefined || meant.port === port ? '' : `; ${meant.where}`
}

export function wrongMethod(method: string): Refusal {
  return { reason: 'method_not_allowed', message: `only POST is allowed, ${method} came` }
}

export function wrongMediaType(contentType: string | undefined): Refusal {
  const came = contentType === undefined ? 'none' : JSON.stringify(contentType.slice(0, 100))
  const message = `Content-Type must be ${contentTypeOf.protobuf} or ${contentTypeOf.json}, ${came} came`
  return { reason: 'unsupported_media_type', message }
}

export function wrongContentEncoding(header: string): Refusal {
  const came = JSON.stringify(header.slice(0, 100))
  const message = `Content-Encoding must be one of gzip, zstd, deflate and identity, ${came} came`
  return { reason: 'unsupported_encoding', message }
}

export function protocolError(error: NodeJS.ErrnoException): { readonly line: string; readonly refusal: Refusal } {
  switch (error.code) {
    case 'ERR_HTTP_REQUEST_TIMEOUT':
      return {
        line: '408 Request Timeout',
        refusal: { reason: 'timed_out', message: 'the request did not arrive in time' },
      }
    case 'HPE_HEADER_OVERFLOW':
      return {
        line: '431 Request Header Fields Too Large',
        refusal: { reason: 'too_large', message: 'the headers are too long' },
      }
    default:
      return {
        line: '400 Bad Request',
        refusal: { reason: 'malformed', message: `this is not HTTP/1.1: ${error.message}` },
      }
  }
}

export function refusalAnswer(
  refusal: Refusal,
  encoding: Encoding,
): { readonly status: number; readonly headers: Record<string, string | number>; readonly bytes: Buffer } {
  const { http: status, grpc: code } = statusOf[refusal.reason]
  const bytes = encodeStatus(refusal, code, encoding)
  const headers: Record<string, string | number> = {
    'Content-Type': contentTypeOf[encoding],
    'Content-Length': bytes.length,
  }
  if (status === 401) headers['WWW-Authenticate'] = 'Bearer'
  if (status === 405) headers.Allow = 'POST'
  if (refusal.reason === 'unsupported_encoding') headers['Accept-Encoding'] = 'gzip, zstd, deflate, identity'
  if (status === 429 || status === 503) headers['Retry-After'] = retryAfterSeconds(refusal.retryAfterMs ?? 1000)
  return { status, headers, bytes }
}
