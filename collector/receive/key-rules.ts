// Decision 9: who is let in, judged by the keys as they were last read. A request with a key is judged by it alone. One
// without is let in only on a machine of one's own, and never once there is a second tenant to be told apart from.
import { hash, timingSafeEqual } from 'node:crypto'
import type { Authenticate, Authentication, Credentials } from './admission.ts'
import { type Identity, parseTenantId, type Role, type TenantId } from './request.ts'

export type KnownKey = {
  readonly id: string
  /** SHA-256 of the key's text, hexadecimal. */
  readonly hash: string
  readonly tenant: TenantId
  readonly roles: readonly Role[]
  readonly manyTenants: boolean
  readonly isRevoked: boolean
  /** Unix milliseconds: it was rotated, and another takes its place. Null: it does not end by itself. */
  readonly expiresAtMs: number | null
}

export type KnownKeys = {
  readonly keys: readonly KnownKey[]
  readonly tenants: number
}

export const roles: readonly Role[] = ['ingest', 'query', 'quota', 'admin']
export const defaultTenant = parseTenantId('default') as TenantId
/** Whose rows are the collector's own: its numbers and its probes. No key is made for it. */
export const reservedTenant = parseTenantId('tallylight') as TenantId

const keyPattern = /^tl_([a-z0-9]{8})_[0-9a-f]{64}$/
const authorizationsMax = 10_000

/** The public part of a key, undefined when the text is no key. */
export function parseKeyId(key: string): string | undefined {
  return keyPattern.exec(key)?.[1]
}

/** `isCurrent` says whether the keys could be read lately: when not, a key that is not among them may still be good. */
export function openKeyRules(options: {
  readonly known: KnownKeys
  readonly requireKeys: boolean
  readonly isCurrent: () => boolean
  readonly now: () => number
}): Authenticate {
  const { known } = options
  const keysById = new Map(known.keys.map((key) => [key.id, key]))
  /** A client sends the same header with every request, so it is hashed once. Changed keys mean other rules. */
  const judged = new Map<string, Authentication>()

  return (credentials) => {
    const { authorization } = credentials
    if (authorization === undefined) return isAdmittedWithoutKey(credentials) ? loopback : { kind: 'missing' }
    const before = judged.get(authorization)
    if (before !== undefined) return before
    const answer = judge(authorization)
    if (answer.kind === 'unavailable' || endsByItself(answer)) return answer
    if (judged.size >= authorizationsMax) judged.clear()
    judged.set(authorization, answer)
    return answer
  }

  /** Good now, and not for ever: what was judged before says nothing. */
  function endsByItself(answer: Authentication): boolean {
    return answer.kind === 'identified' && keysById.get(answer.identity.keyId)?.expiresAtMs !== null
  }

  function isAdmittedWithoutKey(credentials: Credentials): boolean {
    const { peerAddress, hostHeader, originHeader, localBoundToLoopback } = credentials
    if (options.requireKeys || known.tenants > 1 || !localBoundToLoopback) return false
    const isPeerLocal = peerAddress !== undefined && /^(127\.|::1$|::ffff:127\.)/.test(peerAddress)
    // A page in a browser on this machine reaches us too: by a name of its own that leads here, which its Host gives away, or by
    // a form or a fetch whose answer it does not need, which its Origin does.
    return isPeerLocal && isLocal(hostHeader) && isLocal(originHeader?.replace(/^https?:\/\//i, ''))
  }

  function judge(authorization: string): Authentication {
    const key = /^Bearer +(\S+)$/i.exec(authorization)?.[1]
    const id = key === undefined ? undefined : parseKeyId(key)
    if (key === undefined || id === undefined) return { kind: 'no_key' }
    const found = keysById.get(id)
    if (found === undefined) return options.isCurrent() ? { kind: 'unknown' } : { kind: 'unavailable' }
    if (!timingSafeEqual(Buffer.from(found.hash, 'hex'), hash('sha256', key, 'buffer'))) return { kind: 'unknown' }
    if (isOver(found, options.now())) return { kind: 'revoked' }
    return { kind: 'identified', identity: identityOf(found) }
  }
}

function isLocal(host: string | undefined): boolean {
  return host === undefined || /^(localhost|127\.\d+\.\d+\.\d+|\[::1\])(:\d+)?$/i.test(host)
}

/** Revoked, or rotated and its time of grace is over. */
export function isOver({ isRevoked, expiresAtMs }: KnownKey, nowMs: number): boolean {
  return isRevoked || (expiresAtMs !== null && expiresAtMs <= nowMs)
}

function identityOf({ id, tenant, roles, manyTenants }: KnownKey): Identity {
  return { tenant, roles: new Set(roles), manyTenants, keyId: id }
}

const loopback: Authentication = {
  kind: 'identified',
  identity: { tenant: defaultTenant, roles: new Set<Role>(['ingest', 'quota']), manyTenants: false, keyId: '' },
}
