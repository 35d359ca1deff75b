// What went wrong with an upstream, as a label, and as what the client is told: its name, which side broke, and the code that
// an operator can look up. Never an address, which is the configuration's to know.
import type { Refusal } from './refusal.ts'

export type ErrorKind = 'refused' | 'dns' | 'tls' | 'timeout' | 'reset' | 'malformed' | 'other'

const kinds: Readonly<Record<string, ErrorKind>> = {
  ECONNREFUSED: 'refused',
  EHOSTUNREACH: 'refused',
  ENETUNREACH: 'refused',
  ENOTFOUND: 'dns',
  EAI_AGAIN: 'dns',
  ETIMEDOUT: 'timeout',
  UND_ERR_CONNECT_TIMEOUT: 'timeout',
  UND_ERR_HEADERS_TIMEOUT: 'timeout',
  UND_ERR_BODY_TIMEOUT: 'timeout',
  ECONNRESET: 'reset',
  EPIPE: 'reset',
  UND_ERR_SOCKET: 'reset',
  UND_ERR_HEADERS_OVERFLOW: 'malformed',
  UND_ERR_RES_CONTENT_LENGTH_MISMATCH: 'malformed',
}

const said: Readonly<Record<ErrorKind, string>> = {
  refused: 'could not be connected to',
  dns: 'has a name that leads nowhere',
  tls: 'has no certificate that can be trusted',
  timeout: 'did not answer in time',
  reset: 'broke off the connection',
  malformed: 'answered what is not HTTP/1.1',
  other: 'failed',
}

export function errorKindOf(error: Error): ErrorKind {
  const code = codeOf(error)
  const known = kinds[code]
  if (known !== undefined) return known
  // undici's parser knows no code for most of what it cannot read.
  if (error.name === 'HTTPParserError') return 'malformed'
  if (/^(ERR_TLS|ERR_SSL|CERT_|SELF_SIGNED|DEPTH_ZERO|UNABLE_TO_|EPROTO)/.test(code)) return 'tls'
  return 'other'
}

export function upstreamRefusal(upstream: string, error: Error): Refusal {
  const kind = errorKindOf(error)
  const code = codeOf(error)
  return {
    reason: kind === 'timeout' ? 'upstream_timeout' : 'upstream_failed',
    message: `the upstream ${upstream} ${said[kind]}${code === '' ? '' : ` (${code})`}`,
    details: { kind, ...(code === '' ? {} : { code }) },
  }
}

/** Several addresses that were all tried have an error each, and one around them. */
function codeOf(error: Error): string {
  const { code, errors } = error as { readonly code?: unknown; readonly errors?: readonly unknown[] }
  if (typeof code === 'string') return code
  const first = errors?.[0]
  return first instanceof Error ? codeOf(first) : ''
}
