// The keys in memory, read from Postgres when they change, and kept in a file, so that requests are judged without a round
// trip and ingest goes on while Postgres is away, also after a restart.
//
// A change is told by a notification, and looked for every few seconds in case that was lost: one number is asked for, and
// the keys are read only when it is another.
import { hash, randomBytes } from 'node:crypto'
import { inTransaction, withConnection } from '@tallylight/storage/postgres/connection.ts'
import {
  ensureKey,
  insertKey,
  insertTenant,
  type KeyRow,
  keysChannel,
  listKeys,
  listTenants,
  lockLastingAdmins,
  noteKeyUses,
  type Queryable,
  type Revoked,
  revokeKey,
  rotateKey,
  selectKeySnapshot,
  selectKeysVersion,
  type TenantRow,
} from '@tallylight/storage/postgres/keys.ts'
import { writeAudit } from '@tallylight/storage/postgres/quota/statements.ts'
import { readIfPresent, writePrivateFile } from '@tallylight/storage/private-file.ts'
import type pg from 'pg'
import { z } from 'zod'
import { pause } from '../quota/pause.ts'
import type { Authenticate, Log } from './admission.ts'
import { isOver, type KnownKey, type KnownKeys, openKeyRules, parseKeyId, roles } from './key-rules.ts'
import { parseTenantId, type Role, type TenantId } from './request.ts'

export type NewKey = {
  readonly tenant: TenantId
  readonly roles: readonly Role[]
  readonly manyTenants: boolean
  readonly name: string
}

export type Keyring = {
  readonly authenticate: Authenticate
  /** The only time that the key's text is known. `by` is who asked, for the audit. */
  create(key: NewKey, by?: string): Promise<{ readonly id: string; readonly key: string }>
  list(): Promise<readonly KeyRow[]>
  /** With `tenant` a key of another one, or one for many, is unknown. The last that administers all tenants and does not end by
   *  itself is not revoked: without it nobody could make another. */
  revoke(id: string, by?: string, tenant?: TenantId): Promise<Revoked | 'last_admin'>
  /** Another key in its place; the old one is good until `expiresAt`. Undefined when there is none to rotate. */
  rotate(id: string, graceSeconds: number, by?: string, tenant?: TenantId): Promise<Rotated | undefined>
  createTenant(id: TenantId, by?: string): Promise<'added' | 'present'>
  listTenants(): Promise<readonly TenantRow[]>
  /** SHA-256 of the keys that may read every tenant's rows: admin or query, marked for many tenants. */
  readerKeyHashes(): readonly string[]
  onChange(listener: () => void): void
  /** Reads the keys now; throws when Postgres is away. */
  refresh(): Promise<void>
  /** Follows the changes until the signal. */
  run(signal: AbortSignal): Promise<void>
}

export type Rotated = { readonly id: string; readonly key: string; readonly expiresAt: Date }

const cacheSchema = z.object({
  keys: z.array(
    z.object({
      id: z.string(),
      hash: z.string().regex(/^[0-9a-f]{64}$/),
      tenant: z.string().transform((text, context) => {
        const tenant = parseTenantId(text)
        if (tenant === undefined) context.addIssue('no name of a tenant')
        return tenant ?? z.NEVER
      }),
      roles: z.array(z.enum(roles)),
      manyTenants: z.boolean(),
      isRevoked: z.boolean(),
      expiresAtMs: z.number().nullable().default(null),
    }),
  ),
  tenants: z.int(),
})

export async function openKeyring(options: {
  readonly database: pg.Pool
  readonly cachePath: string
  readonly requireKeys: boolean
  readonly pollMs: number
  readonly readMsMax: number
  readonly usesFlushMs: number
  readonly now?: () => number
  readonly log: Log
}): Promise<Keyring> {
  const { database, cachePath, log, now = Date.now } = options
  let known = await readCache(cachePath, log)
  /** Of the keys in memory; undefined when they are from the file, or may be those of another server. */
  let version: number | undefined
  let isCurrent = false
  let isCacheWritten = true
  let isAway = false
  const listeners: (() => void)[] = []
  const openRules = (): Authenticate =>
    openKeyRules({ known, requireKeys: options.requireKeys, isCurrent: () => isCurrent, now })
  let rules = openRules()

  async function refresh(from: Queryable): Promise<void> {
    const found = await selectKeysVersion(from)
    if (found !== version) await read(from)
    // A full disk must not keep a revocation from taking effect; what is in the file matters at the next start.
    if (!isCacheWritten) {
      await writePrivateFile(cachePath, JSON.stringify(known))
      isCacheWritten = true
    }
    isCurrent = true
  }

  async function read(from: Queryable): Promise<void> {
    const snapshot = await selectKeySnapshot(from)
    // Another reading began later and was done sooner.
    if (version !== undefined && snapshot.version < version) return
    version = snapshot.version
    const next: KnownKeys = { keys: snapshot.keys.flatMap((row) => knownKey(row, log)), tenants: snapshot.tenants }
    if (JSON.stringify(next) === JSON.stringify(known)) return
    known = next
    rules = openRules()
    isCacheWritten = false
    for (const listener of listeners) listener()
  }

  /** A change was told since the last reading began. */
  let isTold = false
  const nobody = (): void => undefined
  let wake = nobody
  const onTold = (): void => {
    isTold = true
    wake()
  }

  /** When keys were last used, of those that were since this was last written. */
  let uses = new Map<string, number>()

  async function flushUses(): Promise<void> {
    if (uses.size === 0) return
    const written = uses
    uses = new Map()
    try {
      await inTime(noteKeyUses(database, written))
    } catch (error) {
      // Said by those who read the keys. What was used meanwhile is later than what could not be written.
      uses = new Map([...written, ...uses])
      throw error
    }
  }

  async function flush(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      await pause(options.usesFlushMs, signal)
      await flushUses().catch((error: unknown) => log.warn({ err: error }, 'when keys were used is written later'))
    }
  }

  /** A key whose time of grace is over may no longer read either, and nobody tells that. */
  let readersTold = ''
  function tellExpired(): void {
    const readers = readerKeyHashes().join()
    if (readers !== readersTold) for (const listener of listeners) listener()
    readersTold = readers
  }

  function readerKeyHashes(): readonly string[] {
    return known.keys.filter((key) => readsAllTenants(key, now())).map((key) => key.hash)
  }

  async function runFollowing(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      try {
        await withConnection(database, (client) => follow(client, signal))
      } catch (error) {
        if (!isAway) log.warn({ err: error }, 'the keys cannot be read again; those known go on')
        isAway = true
        isCurrent = false
        isTold = false
        tellExpired()
        await untilTold(signal)
      }
    }
  }

  async function follow(client: pg.PoolClient, signal: AbortSignal): Promise<void> {
    client.on('notification', onTold)
    client.once('error', onTold)
    await inTime(client.query(`listen ${keysChannel}`))
    // Changes may have been missed, or this is another server with a number of its own.
    version = undefined
    while (!signal.aborted) {
      isTold = false
      await inTime(refresh(client))
      if (isAway) log.info({}, 'the keys are read again')
      isAway = false
      tellExpired()
      await untilTold(signal)
    }
    client.off('notification', onTold)
    await inTime(client.query('unlisten *'))
  }

  /** A server that vanished without a word would be waited for until the kernel gives up, a quarter of an hour. */
  async function inTime(work: Promise<unknown>): Promise<void> {
    let timer: NodeJS.Timeout | undefined
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(
        () => reject(new Error(`Postgres did not answer within ${options.readMsMax} ms`)),
        options.readMsMax,
      )
    })
    await Promise.race([work, late]).finally(() => clearTimeout(timer))
  }

  function untilTold(signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const timer = setTimeout(done, options.pollMs)
      signal.addEventListener('abort', done)
      wake = done
      if (isTold || signal.aborted) done()
      function done(): void {
        wake = nobody
        clearTimeout(timer)
        signal.removeEventListener('abort', done)
        resolve()
      }
    })
  }

  return {
    authenticate: (credentials) => {
      const answer = rules(credentials)
      if (answer.kind === 'identified' && answer.identity.keyId !== '') uses.set(answer.identity.keyId, now())
      return answer
    },
    create: async (wanted, by = nobodyElse) => {
      const made = makeKey()
      await inTransaction(database, async (client) => {
        await insertKey(client, { id: made.id, hash: hash('sha256', made.key), ...keyFields(wanted) })
        await writeAudit(client, auditOf(wanted.tenant, by, 'key.create', made.id, { roles: wanted.roles }))
      })
      // The key is there and its text is known only here: an answer that it failed would be wrong.
      await refresh(database).catch((error: unknown) =>
        log.warn({ err: error }, 'a key was made and could not be read back yet'),
      )
      return made
    },
    list: () => listKeys(database),
    revoke: async (id, by = nobodyElse, tenant) => {
      const ofTenant = known.keys.find((key) => key.id === id)?.tenant ?? tenant
      const outcome = await inTransaction(database, async (client) => {
        const lasting = await lockLastingAdmins(client)
        if (tenant === undefined && lasting.length === 1 && lasting[0] === id) return 'last_admin'
        const revoked = await revokeKey(client, id, tenant)
        if (revoked === 'revoked') await writeAudit(client, auditOf(ofTenant, by, 'key.revoke', id, null))
        return revoked
      })
      await refresh(database)
      return outcome
    },
    rotate: async (id, graceSeconds, by = nobodyElse, tenant) => {
      const made = makeKey()
      const next = { id: made.id, hash: hash('sha256', made.key) }
      const old = await inTransaction(database, async (client) => {
        const rotated = await rotateKey(client, id, next, graceSeconds, tenant)
        if (rotated !== undefined)
          await writeAudit(client, auditOf(rotated.tenant, by, 'key.rotate', id, { next: made.id, graceSeconds }))
        return rotated
      })
      if (old?.expires_at === undefined || old.expires_at === null) return undefined
      await refresh(database).catch((error: unknown) =>
        log.warn({ err: error }, 'a key was rotated and could not be read back yet'),
      )
      return { ...made, expiresAt: old.expires_at }
    },
    createTenant: async (id, by = nobodyElse) => {
      const outcome = await inTransaction(database, async (client) => {
        const inserted = await insertTenant(client, id)
        if (inserted === 'added') await writeAudit(client, auditOf(id, by, 'tenant.create', id, null))
        return inserted
      })
      await refresh(database)
      return outcome
    },
    listTenants: () => listTenants(database),
    readerKeyHashes,
    onChange: (listener) => {
      listeners.push(listener)
    },
    refresh: () => refresh(database),
    run: async (signal) => {
      await Promise.all([runFollowing(signal), flush(signal)])
    },
  }
}

export function makeKey(): { readonly id: string; readonly key: string } {
  const id = randomBytes(4).toString('hex')
  return { id, key: `tl_${id}_${randomBytes(32).toString('hex')}` }
}

/** Registers a key whose text is known, as the admin key of the first start is. `over`: it is there, and nobody is let in
 *  with it any more. */
export async function registerKey(database: pg.Pool, key: string, wanted: NewKey): Promise<'good' | 'over'> {
  const id = parseKeyId(key)
  if (id === undefined) throw new Error('the admin key file does not hold a key (tl_…); delete it to have one made')
  const outcome = await ensureKey(database, { id, hash: hash('sha256', key), ...keyFields(wanted) })
  if (outcome === 'other_key')
    throw new Error(`the key of the admin key file has the id of another one, ${id}; delete the file to have one made`)
  return outcome === 'over' ? 'over' : 'good'
}

function keyFields({ tenant, roles, manyTenants, name }: NewKey): Omit<Parameters<typeof insertKey>[1], 'id' | 'hash'> {
  return { tenant, roles, many_tenants: manyTenants, name }
}

/** The port of ClickHouse knows no tenants, so it is for keys that may see all. */
function readsAllTenants(key: KnownKey, nowMs: number): boolean {
  return !isOver(key, nowMs) && key.manyTenants && (key.roles.includes('admin') || key.roles.includes('query'))
}

/** Who asked where nobody is named: the collector itself. */
const nobodyElse = 'collector'

function auditOf(
  tenant: string | undefined,
  actor: string,
  action: string,
  id: string,
  after: object | null,
): Parameters<typeof writeAudit>[1] {
  const [thing] = action.split('.')
  return { tenant: tenant ?? '', actor, action, resource: `${thing} ${id}`, before: null, after }
}

function knownKey(row: KeyRow, log: Log): readonly KnownKey[] {
  const tenant = parseTenantId(row.tenant)
  if (tenant === undefined) {
    log.error({ keyId: row.id }, 'a key of a tenant whose name is none is left out; 1–128 letters, digits and ._:@/-')
    return []
  }
  const known = roles.filter((role) => row.roles.includes(role))
  const isRevoked = row.revoked_at !== null
  const expiresAtMs = row.expires_at?.getTime() ?? null
  return [{ id: row.id, hash: row.hash, tenant, roles: known, manyTenants: row.many_tenants, isRevoked, expiresAtMs }]
}

async function readCache(path: string, log: Log): Promise<KnownKeys> {
  const text = await readIfPresent(path)
  if (text === undefined) return { keys: [], tenants: 0 }
  try {
    return cacheSchema.parse(JSON.parse(text))
  } catch (cause) {
    log.error({ err: cause }, `${path} cannot be used; until Postgres answers, no key is known`)
    // There may have been tenants, so nobody goes without a key meanwhile.
    return { keys: [], tenants: Number.MAX_SAFE_INTEGER }
  }
}
