// Who asks: keys against a list that is held in memory, read again from Postgres every few seconds, and kept in a file, so
// that requests are judged without a round trip and ingest goes on while Postgres is away, also after a restart.
import { hash, randomBytes, timingSafeEqual } from 'node:crypto'
import {
  countTenants,
  insertKey,
  insertTenant,
  type KeyRow,
  revokeKey,
  selectKeys,
} from '@tallylight/storage/postgres/keys.ts'
import { readIfPresent, writePrivateFile } from '@tallylight/storage/private-file.ts'
import type pg from 'pg'
import type { Authenticate, Authentication, Credentials, Log } from './admission.ts'
import { type Identity, parseTenantId, type Role, type TenantId } from './request.ts'

export const roles: readonly Role[] = ['ingest', 'query', 'quota', 'admin']
export const defaultTenant = parseTenantId('default') as TenantId

export type NewKey = {
  readonly tenant: TenantId
  readonly roles: readonly Role[]
  readonly manyTenants: boolean
  readonly name: string
}

export type Keyring = {
  readonly authenticate: Authenticate
  create(key: NewKey): Promise<{ readonly id: string; readonly key: string }>
  list(): Promise<readonly KeyRow[]>
  revoke(id: string): Promise<boolean>
  /** SHA-256 of the keys that may read every tenant's rows: admin, or query with many tenants. */
  readerKeyHashes(): readonly string[]
  onChange(listener: () => void): void
  /** Reads the keys now; throws when Postgres is away. */
  refresh(): Promise<void>
  /** Reads the keys every `pollMs` until the signal. */
  run(signal: AbortSignal): Promise<void>
}

type CachedKey = {
  readonly id: string
  readonly hash: string
  readonly tenant: string
  readonly roles: readonly string[]
  readonly manyTenants: boolean
  readonly isRevoked: boolean
}
type Cache = { readonly keys: readonly CachedKey[]; readonly tenants: number }

const keyPattern = /^tl_([a-z0-9]{8})_[0-9a-f]{64}$/
const authorizationsMax = 10_000

export async function openKeyring(options: {
  readonly database: Pick<pg.Pool, 'query'>
  readonly cachePath: string
  readonly requireKeys: boolean
  readonly pollMs: number
  readonly log: Log
}): Promise<Keyring> {
  const { database, cachePath, log } = options
  const cached = await readIfPresent(cachePath)
  let cache: Cache = cached === undefined ? { keys: [], tenants: 0 } : (JSON.parse(cached) as Cache)
  let keysById = new Map(cache.keys.map((key) => [key.id, key]))
  /** Authorization headers that were judged since the last change: a client sends the same one with every request. */
  const judged = new Map<string, Authentication>()
  const listeners: (() => void)[] = []
  let isAway = false

  const loopback: Authentication = {
    kind: 'identified',
    identity: { tenant: defaultTenant, roles: new Set<Role>(['ingest', 'quota']), manyTenants: false, keyId: '' },
  }

  function authenticate(credentials: Credentials): Authentication {
    const { authorization } = credentials
    if (authorization === undefined) return isAdmittedWithoutKey(credentials) ? loopback : { kind: 'missing' }
    let answer = judged.get(authorization)
    if (answer === undefined) {
      answer = judge(authorization)
      if (judged.size >= authorizationsMax) judged.clear()
      judged.set(authorization, answer)
    }
    return answer
  }

  /** Decision 9: only on a machine of one's own, and never once there is somebody to be told apart from. */
  function isAdmittedWithoutKey({ peerAddress, hostHeader, localBoundToLoopback }: Credentials): boolean {
    if (options.requireKeys || cache.tenants > 1 || !localBoundToLoopback) return false
    const isPeerLocal = peerAddress !== undefined && /^(127\.|::1$|::ffff:127\.)/.test(peerAddress)
    const isHostLocal = hostHeader === undefined || /^(localhost|127\.\d+\.\d+\.\d+|\[::1\])(:\d+)?$/i.test(hostHeader)
    return isPeerLocal && isHostLocal
  }

  function judge(authorization: string): Authentication {
    const key = /^Bearer (\S+)$/i.exec(authorization)?.[1]
    const id = key === undefined ? undefined : keyPattern.exec(key)?.[1]
    const known = id === undefined ? undefined : keysById.get(id)
    if (key === undefined || known === undefined) return { kind: 'unknown' }
    if (!timingSafeEqual(Buffer.from(known.hash, 'hex'), hash('sha256', key, 'buffer'))) return { kind: 'unknown' }
    if (known.isRevoked) return { kind: 'revoked' }
    return { kind: 'identified', identity: identityOf(known) }
  }

  async function refresh(): Promise<void> {
    const rows = await selectKeys(database)
    const next: Cache = {
      keys: rows.map((row) => ({
        id: row.id,
        hash: row.hash,
        tenant: row.tenant,
        roles: row.roles,
        manyTenants: row.many_tenants,
        isRevoked: row.revoked_at !== null,
      })),
      tenants: await countTenants(database),
    }
    if (JSON.stringify(next) === JSON.stringify(cache)) return
    cache = next
    keysById = new Map(next.keys.map((key) => [key.id, key]))
    judged.clear()
    await writePrivateFile(cachePath, JSON.stringify(next))
    for (const listener of listeners) listener()
  }

  async function run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, options.pollMs)
        signal.addEventListener(
          'abort',
          () => {
            clearTimeout(timer)
            resolve()
          },
          { once: true },
        )
      })
      if (signal.aborted) return
      try {
        await refresh()
        isAway = false
      } catch (error) {
        if (!isAway) log.warn({ err: error }, 'keys could not be read again; those known go on')
        isAway = true
      }
    }
  }

  return {
    authenticate,
    create: async (wanted) => {
      const made = makeKey()
      await insertTenant(database, wanted.tenant)
      await insertKey(database, {
        id: made.id,
        hash: made.hash,
        tenant: wanted.tenant,
        roles: wanted.roles,
        many_tenants: wanted.manyTenants,
        name: wanted.name,
      })
      await refresh()
      return { id: made.id, key: made.key }
    },
    list: () => selectKeys(database),
    revoke: async (id) => {
      const isRevoked = await revokeKey(database, id)
      await refresh()
      return isRevoked
    },
    readerKeyHashes: () =>
      cache.keys
        .filter(
          (key) => !key.isRevoked && (key.roles.includes('admin') || (key.roles.includes('query') && key.manyTenants)),
        )
        .map((key) => key.hash),
    onChange: (listener) => {
      listeners.push(listener)
    },
    refresh,
    run,
  }
}

export function makeKey(): { readonly id: string; readonly key: string; readonly hash: string } {
  const id = randomBytes(8).toString('hex').slice(0, 8)
  const key = `tl_${id}_${randomBytes(32).toString('hex')}`
  return { id, key, hash: hash('sha256', key) }
}

/** Registers a key whose text is known, as the admin key of the first start is. */
export async function registerKey(database: Pick<pg.Pool, 'query'>, key: string, wanted: NewKey): Promise<void> {
  const id = keyPattern.exec(key)?.[1]
  if (id === undefined) throw new Error('the admin key file does not hold a key (tl_…)')
  await insertTenant(database, wanted.tenant)
  await insertKey(database, {
    id,
    hash: hash('sha256', key),
    tenant: wanted.tenant,
    roles: wanted.roles,
    many_tenants: wanted.manyTenants,
    name: wanted.name,
  })
}

function identityOf(key: CachedKey): Identity {
  return {
    tenant: parseTenantId(key.tenant) ?? defaultTenant,
    roles: new Set(key.roles.filter((role): role is Role => (roles as readonly string[]).includes(role))),
    manyTenants: key.manyTenants,
    keyId: key.id,
  }
}
