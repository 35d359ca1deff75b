import { execFile } from 'node:child_process'
import { mkdir, mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { withConnection } from '@tallylight/storage/postgres/connection.ts'
import { migratePostgres } from '@tallylight/storage/postgres/migrate.ts'
import { startTestPostgres, type TestPostgres } from '@tallylight/storage/postgres/testing.ts'
import pg from 'pg'
import { afterAll, afterEach, beforeAll, beforeEach, expect, test, vi } from 'vitest'
import type { Authentication } from './admission.ts'
import { defaultTenant, parseKeyId } from './key-rules.ts'
import { type Keyring, makeKey, openKeyring, registerKey } from './keys.ts'
import { parseTenantId, type Role, type TenantId } from './request.ts'

const acme = parseTenantId('acme') as TenantId
/** So long that nothing is read again by itself within a test. */
const never = 600_000

let postgres: TestPostgres
let database: pg.Pool
let directory: string
let cachePath: string
let schemas = 0
let said: string[]
let running: (() => Promise<void>)[]

beforeAll(async () => {
  postgres = await startTestPostgres()
})
afterAll(() => postgres[Symbol.asyncDispose]())
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'tallylight-keys-'))
  cachePath = join(directory, 'keys.cache')
  said = []
  running = []
  database = await postgres.open(`keys_${schemas++}`)
  await withConnection(database, migratePostgres)
})
afterEach(async () => {
  for (const stop of running) await stop()
  aheadMs = 0
  await rm(directory, { recursive: true, force: true })
})

/** How far the collector's clock is ahead. */
let aheadMs = 0
function open(pollMs = never, path = cachePath, pool = database): Promise<Keyring> {
  const note = (_fields: object, message: string): void => void said.push(message)
  const log = { info: note, warn: note, error: note }
  const times = { pollMs, readMsMax: 5_000, usesFlushMs: 20, now: () => Date.now() + aheadMs }
  return openKeyring({ database: pool, cachePath: path, requireKeys: false, ...times, log })
}

/** Lets it follow the changes, and waits until it has read them once. */
async function follow(keyring: Keyring): Promise<Keyring> {
  const stopping = new AbortController()
  const changed = new Promise<void>((resolve) => keyring.onChange(resolve))
  const done = keyring.run(stopping.signal)
  running.push(async () => {
    stopping.abort()
    await done
  })
  await changed
  return keyring
}

function ask(keyring: Keyring, key: string): Authentication {
  return keyring.authenticate({
    authorization: `Bearer ${key}`,
    peerAddress: '10.0.0.9',
    hostHeader: 'collector.example',
    originHeader: undefined,
    localBoundToLoopback: false,
  })
}

function wanted(tenant = acme, roles: readonly Role[] = ['ingest'], manyTenants = false) {
  return { tenant, roles, manyTenants, name: 'a test' }
}

test('keys: a key works at once with its tenant, roles and mark, is listed without its secret, and is refused when revoked', async () => {
  const keyring = await open()
  const one = await keyring.create(wanted(acme, ['ingest', 'query']))
  const many = await keyring.create(wanted(defaultTenant, ['query'], true))
  expect(ask(keyring, one.key)).toEqual({
    kind: 'identified',
    identity: { tenant: 'acme', roles: new Set(['ingest', 'query']), manyTenants: false, keyId: one.id },
  })
  expect(ask(keyring, many.key)).toMatchObject({ identity: { tenant: 'default', manyTenants: true } })
  const listed = await keyring.list()
  expect(listed.map(({ id, tenant, name, revoked_at }) => ({ id, tenant, name, revoked_at }))).toEqual([
    { id: one.id, tenant: 'acme', name: 'a test', revoked_at: null },
    { id: many.id, tenant: 'default', name: 'a test', revoked_at: null },
  ])
  expect(await keyring.revoke(one.id)).toBe('revoked')
  expect(ask(keyring, one.key)).toEqual({ kind: 'revoked' })
  expect(ask(keyring, many.key)).toMatchObject({ kind: 'identified' })
  expect(await keyring.revoke(one.id)).toBe('revoked_before')
  expect(await keyring.revoke('ffffffff')).toBe('unknown')
})

test('keys: the text of a key is nowhere at rest: not in the database’s files, not in the cache, which its owner alone may read', async () => {
  const keyring = await open()
  const { key, id } = await keyring.create(wanted())
  const secret = key.slice(-64)
  const found = async (text: string): Promise<string> =>
    promisify(execFile)('grep', ['-rlaF', text, postgres.directory, directory]).then(
      ({ stdout }) => stdout,
      () => '',
    )
  expect(await found(secret)).toBe('')
  // The search itself finds what is there.
  expect(await found(id)).toContain('keys.cache')
  expect(await found(id)).toContain('cluster')
  expect((await stat(cachePath)).mode & 0o777).toBe(0o600)
})

test('keys: readers of every tenant are admin and query keys that are marked for many, until they are revoked', async () => {
  const keyring = await open()
  const admin = await keyring.create(wanted(acme, ['admin'], true))
  await keyring.create(wanted(acme, ['admin', 'query']))
  await keyring.create(wanted(acme, ['ingest', 'quota'], true))
  const other = await keyring.create(wanted(acme, ['admin'], true))
  const reader = await keyring.create(wanted(acme, ['query'], true))
  const hashOf = async (id: string) => (await keyring.list()).find((key) => key.id === id)?.hash
  expect(keyring.readerKeyHashes()).toEqual([await hashOf(admin.id), await hashOf(other.id), await hashOf(reader.id)])
  let changes = 0
  keyring.onChange(() => changes++)
  await keyring.revoke(admin.id)
  expect(changes).toBe(1)
  expect(keyring.readerKeyHashes()).toEqual([await hashOf(other.id), await hashOf(reader.id)])
})

test('keys: the last key that administers all tenants and does not end is not revoked, also by two who each revoke another', async () => {
  const keyring = await open()
  const one = await keyring.create(wanted(defaultTenant, ['admin'], true))
  await keyring.create(wanted(acme, ['admin']))
  await keyring.create(wanted(acme, ['ingest'], true))
  expect(await keyring.revoke(one.id)).toBe('last_admin')
  expect(ask(keyring, one.key).kind).toBe('identified')
  // The old one is over tomorrow, so its successor is the last.
  const next = await keyring.rotate(one.id, 60)
  expect(await keyring.revoke(next?.id ?? '')).toBe('last_admin')
  expect(await keyring.revoke(one.id)).toBe('revoked')
  const other = await keyring.create(wanted(acme, ['admin'], true))
  const outcomes = await Promise.all([keyring.revoke(next?.id ?? ''), keyring.revoke(other.id)])
  expect(outcomes.toSorted()).toEqual(['last_admin', 'revoked'])
})

test('keys: a rotated key has one in its place with the same rights at once, and is good for its time of grace', async () => {
  const keyring = await open()
  const old = await keyring.create(wanted(acme, ['ingest', 'query'], true))
  const next = await keyring.rotate(old.id, 60)
  if (next === undefined) throw new Error('the key was not rotated')
  const rights = { tenant: 'acme', roles: new Set(['ingest', 'query']), manyTenants: true }
  expect(ask(keyring, old.key)).toMatchObject({ identity: { ...rights, keyId: old.id } })
  expect(ask(keyring, next.key)).toMatchObject({ identity: { ...rights, keyId: next.id } })
  expect(keyring.readerKeyHashes()).toHaveLength(2)
  expect(await keyring.rotate(old.id, 60)).toBeUndefined()
  expect(await keyring.rotate('ffffffff', 60)).toBeUndefined()
  expect(await keyring.rotate(next.id, 60, 'somebody', acme)).toBeUndefined()
  const restarted = await open(never, cachePath, new pg.Pool({ host: '127.0.0.1', port: 1 }))
  aheadMs = 60_000
  for (const each of [keyring, restarted]) {
    expect(ask(each, old.key)).toEqual({ kind: 'revoked' })
    expect(ask(each, next.key).kind).toBe('identified')
    expect(each.readerKeyHashes()).toHaveLength(1)
  }
})

test('keys: those who keep the readers’ keys are told when a time of grace is over', async () => {
  const keyring = await openAfterFirstKey(20)
  const old = await keyring.create(wanted(acme, ['query'], true))
  await keyring.rotate(old.id, 60)
  await follow(keyring)
  let told = 0
  keyring.onChange(() => told++)
  aheadMs = 60_000
  await vi.waitUntil(() => told > 0, 5_000)
  expect(keyring.readerKeyHashes()).toHaveLength(1)
})

test('keys: when a key was last used is written by and by, and no collector reads its keys again for it', async () => {
  const here = await open()
  const used = await here.create(wanted())
  const idle = await here.create(wanted())
  const before = await versionOf()
  const keyring = await follow(await open(never, join(directory, 'there.cache')))
  expect(ask(keyring, used.key).kind).toBe('identified')
  const lastUsed = async (id: string) => (await keyring.list()).find((key) => key.id === id)?.last_used_at
  await vi.waitUntil(async () => (await lastUsed(used.id)) !== null, 5_000)
  expect(await lastUsed(idle.id)).toBeNull()
  const first = (await lastUsed(used.id)) as Date
  aheadMs = 1_000
  ask(keyring, used.key)
  await vi.waitUntil(async () => Number(await lastUsed(used.id)) > Number(first), 5_000)
  expect(await versionOf()).toBe(before)
})

test('keys: who made, rotated and revoked a key, and made a tenant, is in the audit', async () => {
  const keyring = await open()
  expect(await keyring.createTenant(acme, 'admin key')).toBe('added')
  expect(await keyring.createTenant(acme, 'admin key')).toBe('present')
  const { id } = await keyring.create(wanted(), 'admin key')
  const next = await keyring.rotate(id, 0, 'other key')
  await keyring.revoke(String(next?.id), 'third key')
  const { rows } = await database.query<{ line: string }>(
    "select concat_ws(' ', tenant, actor, action, resource) as line from quota_audit order by id",
  )
  expect(rows.map(({ line }) => line)).toEqual([
    'acme admin key tenant.create tenant acme',
    `acme admin key key.create key ${id}`,
    `acme other key key.rotate key ${id}`,
    `acme third key key.revoke key ${next?.id}`,
  ])
  expect((await keyring.listTenants()).map(({ id: tenant, keys }) => [tenant, keys])).toEqual([['acme', 1]])
})

test('keys: another collector hears of a new and of a revoked key by notification, long before it would look', async () => {
  const here = await open()
  const there = await follow(await openAfterFirstKey(never))
  const { key, id } = await here.create(wanted())
  await vi.waitUntil(() => ask(there, key).kind === 'identified', 5_000)
  await here.revoke(id)
  await vi.waitUntil(() => ask(there, key).kind === 'revoked', 5_000)
})

test('keys: with the notification lost, a revocation is found by looking', async () => {
  const here = await open()
  const there = await follow(await openAfterFirstKey(50))
  await database.query(`create or replace function note_key_change() returns trigger language plpgsql as
    $$ begin update key_changes set version = version + 1; return null; end $$`)
  const { key, id } = await here.create(wanted())
  await vi.waitUntil(() => ask(there, key).kind === 'identified', 5_000)
  await here.revoke(id)
  await vi.waitUntil(() => ask(there, key).kind === 'revoked', 5_000)
})

test('keys: a change by hand is seen like any other', async () => {
  const there = await follow(await openAfterFirstKey(never))
  const { key, id } = await (await open()).create(wanted())
  await vi.waitUntil(() => ask(there, key).kind === 'identified', 5_000)
  await database.query('delete from keys where id = $1', [id])
  await vi.waitUntil(() => ask(there, key).kind === 'unknown', 5_000)
})

test('keys: Postgres killed, those known go on, a new one may be good, and a revocation meanwhile is seen when it is back', async () => {
  const here = await open()
  const { key, id } = await here.create(wanted())
  const there = await follow(await open(50, join(directory, 'there.cache')))
  expect(ask(there, key).kind).toBe('identified')
  process.kill(postgres.engine.pid() as number, 'SIGKILL')
  await vi.waitUntil(() => said.includes('the keys cannot be read again; those known go on'), 5_000)
  expect(ask(there, key).kind).toBe('identified')
  expect(ask(there, makeKey().key).kind).toBe('unavailable')
  expect(ask(there, 'tl_nonsense').kind).toBe('no_key')
  await vi.waitUntil(() => here.revoke(id).then(Boolean, () => false), 20_000)
  await vi.waitUntil(() => ask(there, key).kind === 'revoked', 5_000)
  expect(said.filter((line) => line.startsWith('the keys')).length).toBeLessThanOrEqual(4)
})

test('keys: after a restart without Postgres, keys are judged by the cache', async () => {
  const before = await open()
  const { key } = await before.create(wanted(acme, ['ingest'], true))
  const old = await before.create(wanted())
  await before.revoke(old.id)
  const nobody = new pg.Pool({ host: '127.0.0.1', port: 1, connectionTimeoutMillis: 1_000 })
  const after = await open(never, cachePath, nobody)
  expect(ask(after, key)).toMatchObject({ kind: 'identified', identity: { tenant: 'acme', manyTenants: true } })
  expect(ask(after, old.key).kind).toBe('revoked')
  expect(ask(after, makeKey().key).kind).toBe('unavailable')
  await expect(after.refresh()).rejects.toThrow(/ECONNREFUSED/)
})

for (const [what, text] of [
  ['half a file', '{"keys": [{"id": "00'],
  ['a file of other content', '{"keys": [{"id": 7}], "tenants": 1}'],
  [
    'a tenant whose name is none',
    `{"keys": [{"id":"a","hash":"${'0'.repeat(64)}","tenant":" ","roles":[],"manyTenants":false,"isRevoked":false}], "tenants": 1}`,
  ],
] as const)
  test(`keys: ${what} in place of the cache is said and not believed, and nobody goes without a key until Postgres answers`, async () => {
    await writeFile(cachePath, text)
    const keyring = await open()
    const local = {
      authorization: undefined,
      peerAddress: '127.0.0.1',
      hostHeader: 'localhost',
      originHeader: undefined,
      localBoundToLoopback: true,
    }
    expect(keyring.authenticate(local).kind).toBe('missing')
    expect(said).toEqual([`${cachePath} cannot be used; until Postgres answers, no key is known`])
    await keyring.refresh()
    expect(keyring.authenticate(local).kind).toBe('identified')
    expect(JSON.parse(await readFile(cachePath, 'utf8'))).toEqual({ keys: [], tenants: 0 })
  })

test('keys: a cache that cannot be written keeps no revocation from taking effect, and is written when it can be', async () => {
  const path = join(directory, 'volume', 'keys.cache')
  await mkdir(join(directory, 'volume'))
  const keyring = await open(never, path)
  const { key, id } = await keyring.create(wanted())
  await rm(join(directory, 'volume'), { recursive: true })
  await expect(keyring.revoke(id)).rejects.toThrow(/ENOENT/)
  expect(ask(keyring, key).kind).toBe('revoked')
  await mkdir(join(directory, 'volume'))
  await keyring.refresh()
  expect(await readFile(path, 'utf8')).toContain('"isRevoked":true')
})

test('keys: the admin key of a file is registered once, stays revoked when it was, and is not mistaken for another', async () => {
  const keyring = await open()
  const { key, id } = makeKey()
  const admin = wanted(defaultTenant, ['admin'], true)
  await Promise.all([1, 2, 3].map(() => registerKey(database, key, admin)))
  await keyring.refresh()
  expect(ask(keyring, key).kind).toBe('identified')
  expect(await keyring.list()).toHaveLength(1)
  expect(await registerKey(database, key, admin)).toBe('good')
  await keyring.create(admin)
  await keyring.revoke(id)
  expect(await registerKey(database, key, admin)).toBe('over')
  await keyring.refresh()
  expect(ask(keyring, key).kind).toBe('revoked')
  await expect(registerKey(database, `tl_${id}_${'0'.repeat(64)}`, admin)).rejects.toThrow(
    `has the id of another one, ${id}`,
  )
  await expect(registerKey(database, 'nonsense', admin)).rejects.toThrow('does not hold a key')
  expect(parseKeyId(key)).toBe(id)
})

test('keys: to register a key that is there changes nothing, so that no collector reads its keys again', async () => {
  const keyring = await open()
  const { key } = await keyring.create(wanted())
  const before = await versionOf()
  await registerKey(database, key, wanted())
  expect(await versionOf()).toBe(before)
  await keyring.create(wanted())
  expect(await versionOf()).toBeGreaterThan(before)
})

test('keys: a key of a tenant whose name is none is left out and said, not taken for another tenant’s', async () => {
  const keyring = await open()
  const { key, id } = await keyring.create(wanted())
  await database.query("insert into tenants (id) values ('no name')")
  await database.query("update keys set tenant = 'no name' where id = $1", [id])
  await keyring.refresh()
  expect(ask(keyring, key).kind).toBe('unknown')
  expect(said.join()).toContain('whose name is none')
})

/** A second collector; the key makes that its first reading is a change that can be awaited. */
async function openAfterFirstKey(pollMs: number): Promise<Keyring> {
  await (await open()).create(wanted())
  return open(pollMs, join(directory, 'there.cache'))
}

async function versionOf(): Promise<number> {
  const { rows } = await database.query<{ version: string }>('select version from key_changes')
  return Number(rows[0]?.version)
}
