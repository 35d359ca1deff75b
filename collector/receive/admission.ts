// What must hold before a byte of a request's body is kept, the same for HTTP and gRPC: a key with the role ingest, room
// for the body, and a tenant within its rates. A flood is refused here, at the price of its headers.
import type { Bodies, Body } from './bodies.ts'
import type { IngestLimits } from './ingest-limits.ts'
import type { ExportOutcome, Identity, Role, Signal, TenantId } from './request.ts'

export type Credentials = {
  readonly authorization: string | undefined
  readonly peerAddress: string | undefined
  readonly hostHeader: string | undefined
  /** What a browser says of the page that asks. */
  readonly originHeader: string | undefined
  /** The server listens on loopback only, and no proxy says that it speaks for somebody else. */
  readonly localBoundToLoopback: boolean
}

export type Authentication =
  | { readonly kind: 'identified'; readonly identity: Identity }
  | { readonly kind: 'missing' }
  | { readonly kind: 'unknown' }
  /** What came cannot be a key: it lacks its scheme, or a part. */
  | { readonly kind: 'no_key' }
  | { readonly kind: 'revoked' }
  /** Not known here, and the keys cannot be read to see whether it is new. */
  | { readonly kind: 'unavailable' }

export type Authenticate = (credentials: Credentials) => Authentication

export type RefusalReason =
  | 'unauthenticated'
  | 'forbidden'
  | 'unknown_path'
  | 'method_not_allowed'
  | 'unsupported_media_type'
  | 'unsupported_encoding'
  | 'too_large'
  | 'malformed'
  | 'throttled'
  | 'unavailable'
  | 'timed_out'
  /** The body ended before its length: the client went away. Mostly nobody reads the answer, but the number must be somewhere. */
  | 'aborted'

/** Called once for each request that is not accepted, whoever refused it. */
export type RefusalCounter = (signal: Signal | 'unknown', reason: RefusalReason) => void

export type Refusal = {
  readonly reason: RefusalReason
  readonly message: string
  readonly retryAfterMs?: number
}

/** The part of a logger that receivers use; pino's fits. */
export type Log = {
  readonly info: (fields: object, message: string) => void
  readonly warn: (fields: object, message: string) => void
  readonly error: (fields: object, message: string) => void
}

export type Admission = {
  readonly identify: (credentials: Credentials) => Identity | Refusal
  /** Room and rate for a body of `bytes`, undefined when its length is not known before it ends. */
  readonly openBody: (tenant: TenantId, bytes: number | undefined) => Body | Refusal
  /** What `openBody` could not take, once a body of unknown length has ended. */
  readonly chargeBody: (tenant: TenantId, bytes: number) => void
}

export function openAdmission({
  authenticate,
  ingestLimits,
  bodies,
  bodyBytesMax,
}: {
  readonly authenticate: Authenticate
  readonly ingestLimits: IngestLimits
  readonly bodies: Bodies
  readonly bodyBytesMax: number
}): Admission {
  function identify(credentials: Credentials): Identity | Refusal {
    const identity = identityOf(authenticate(credentials))
    if (isRefusal(identity) || identity.roles.has('ingest')) return identity
    return { reason: 'forbidden', message: roleMissing(identity, 'ingest') }
  }

  function openBody(tenant: TenantId, bytes: number | undefined): Body | Refusal {
    if (bytes !== undefined && bytes > bodyBytesMax) return bodyTooLarge(bytes, bodyBytesMax)
    const body = bodies.open(tenant, bytes)
    if (body === undefined) return noRoom
    const taken = ingestLimits.take(tenant, bytes ?? 0)
    if (taken.kind === 'granted') return endingWith(body, () => ingestLimits.end(tenant))
    body.release()
    return { reason: 'throttled', message: taken.reason, retryAfterMs: taken.retryAfterMs }
  }

  return { identify, openBody, chargeBody: ingestLimits.chargeBytes }
}

function endingWith(body: Body, end: () => void): Body {
  let isEnded = false
  const release = (): void => {
    if (!isEnded) end()
    isEnded = true
    body.release()
  }
  return { ...body, release }
}

/** Who it is, or what is answered to whom is not let in, on any port. */
export function identityOf(authentication: Authentication): Identity | Refusal {
  switch (authentication.kind) {
    case 'identified':
      return authentication.identity
    case 'missing':
      return keyMissing
    case 'unknown':
      return keyUnknown
    case 'no_key':
      return keyTorn
    case 'revoked':
      return keyRevoked
    case 'unavailable':
      return keysAway
    default:
      return authentication satisfies never
  }
}

/** Who came without a key was let in, and has no key that lacks a role. */
export function roleMissing({ keyId }: Identity, role: Role): string {
  return keyId === ''
    ? `a key with the role ${role} is needed, as Authorization: Bearer tl_…; the first start wrote one into data/admin.key`
    : `the key does not have the role ${role}`
}

export function isRefusal(value: object): value is Refusal {
  return 'reason' in value
}

/** Undefined when it was accepted. */
export function refusalOf(outcome: ExportOutcome): Refusal | undefined {
  switch (outcome.kind) {
    case 'accepted':
      return undefined
    case 'malformed':
    case 'too_large':
      return { reason: outcome.kind, message: outcome.reason }
    case 'throttled':
    case 'unavailable':
      return { reason: outcome.kind, message: outcome.reason, retryAfterMs: outcome.retryAfterMs }
    default:
      return outcome satisfies never
  }
}

export function bodyTooLarge(bytes: number | undefined, bytesMax: number): Refusal {
  const came = bytes === undefined ? 'more came' : `${bytes} came`
  return { reason: 'too_large', message: `a request may have ${bytesMax} bytes, ${came}` }
}

export const noRoom: Refusal = {
  reason: 'unavailable',
  message: 'the requests being read already fill the memory set aside for them',
  retryAfterMs: 1000,
}
export const stopping: Refusal = { reason: 'unavailable', message: 'the collector is stopping', retryAfterMs: 1000 }
/** Not 408: OTLP clients drop what gets a 408, and a slow network is no reason to lose data. */
export const tooSlow: Refusal = { reason: 'timed_out', message: 'the body did not arrive in time', retryAfterMs: 1000 }
export const acceptFailed: Refusal = {
  reason: 'unavailable',
  message: 'the collector could not store the request',
  retryAfterMs: 1000,
}

const keyMissing: Refusal = {
  reason: 'unauthenticated',
  message: 'a key is needed, as Authorization: Bearer tl_…; `tallylight keys create` makes one',
}
const keyUnknown: Refusal = {
  reason: 'unauthenticated',
  message: 'the key is not known; `tallylight keys list` lists those of this collector',
}
const keyTorn: Refusal = {
  reason: 'unauthenticated',
  message: 'what came is not a key, tl_<8 signs>_<64 digits>, with the word Bearer before it in Authorization',
}
const keyRevoked: Refusal = { reason: 'unauthenticated', message: 'the key was revoked' }
/** Not 401, after which clients drop what they wanted to send: the key may be new. */
const keysAway: Refusal = {
  reason: 'unavailable',
  message: 'the key is not among those known, and the list of keys cannot be read now',
  retryAfterMs: 1000,
}
