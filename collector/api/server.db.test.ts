import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { ClickHouseError } from '@tallylight/storage/clickhouse/client.ts'
import { withConnection } from '@tallylight/storage/postgres/connection.ts'
import { migratePostgres } from '@tallylight/storage/postgres/migrate.ts'
import { startTestPostgres, type TestPostgres } from '@tallylight/storage/postgres/testing.ts'
import express from 'express'
import pg from 'pg'
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest'
import { defaultTenant } from '../receive/key-rules.ts'
import { type Keyring, makeKey, openKeyring } from '../receive/keys.ts'
import type { Role } from '../receive/request.ts'
import { type Api, openApi } from './server.ts'

let postgres: TestPostgres
let directory: string
/** Nobody listens there. */
const nowhere = new pg.Pool({ host: '127.0.0.1', port: 1 })
let keyring: Keyring
let api: Api
/** The same keys, read from the file, with Postgres away. */
let alone: Api
const keys: Record<string, string> = {}
let missing: readonly string[] = []
const logged: string[] = []

beforeAll(async () => {
  postgres = await startTestPostgres()
  directory = await mkdtemp(join(tmpdir(), 'tallylight-api-'))
  const database = await postgres.open('api')
  await withConnection(database, migratePostgres)
  keyring = await openKeys(database)
  for (const name of ['admin', 'ingest', 'query', 'revoked'] as const) {
    const roles: readonly Role[] = name === 'revoked' ? ['admin'] : [name]
    const made = await keyring.create({ tenant: defaultTenant, roles, manyTenants: name === 'admin', name })
    keys[name] = made.key
    if (name === 'revoked') await keyring.revoke(made.id)
  }
  keys.unknown = makeKey().key
  api = await openPort(keyring)
  alone = await openPort(await openKeys(nowhere))
})
afterAll(async () => {
  for (const each of [api, alone, postgres]) await each[Symbol.asyncDispose]()
  await nowhere.end()
  await rm(directory, { recursive: true })
})
beforeEach(() => {
  missing = []
  logged.length = 0
})

const note = (_fields: object, message: string): void => void logged.push(message)
const log = { info: note, warn: note, error: note }

function openKeys(database: pg.Pool): Promise<Keyring> {
  const cachePath = join(directory, 'keys.cache')
  return openKeyring({
    database,
    cachePath,
    requireKeys: false,
    pollMs: 60_000,
    readMsMax: 5_000,
    usesFlushMs: 60_000,
    log,
  })
}

function openPort(of: Keyring, administration: readonly express.Router[] = []): Promise<Api> {
  const renderMetrics = (): string => 'tallylight_accepted_records_total 7\n'
  return openApi({
    host: '127.0.0.1',
    port: 0,
    tls: undefined,
    keyring: of,
    missing: () => missing,
    renderMetrics,
    quota: { takes: () => false, handle: () => undefined },
    administration,
    statePage: { router: () => express.Router() },
    probe: async () => ({ missing: [] }),
    log,
  })
}

const failed = 'the collector could not do this; its log says why'
const away = 'the database did not answer'

function sqlError(code: string): Error {
  return Object.assign(new Error(`a secret, ${code}`), { code })
}

function clickHouseError(code: string): Error {
  return new ClickHouseError({ message: 'a secret', code, type: 'SOME_TYPE' })
}

type Answer = { readonly status: number; readonly type: string; readonly headers: Headers; readonly text: string }

async function ask(method: string, path: string, key?: string, body?: string, of = api): Promise<Answer> {
  const response = await fetch(`http://127.0.0.1:${of.port}${path}`, {
    method,
    headers: {
      ...(key === undefined ? {} : { Authorization: `Bearer ${keys[key]}` }),
      ...(body === undefined ? {} : { 'Content-Type': 'application/json' }),
    },
    ...(body === undefined ? {} : { body }),
  })
  const type = response.headers.get('content-type') ?? ''
  return { status: response.status, type, headers: response.headers, text: await response.text() }
}

test('api: alive, ready and the metrics are open to all, and say nothing of who made the server', async () => {
  expect(await ask('GET', '/healthz')).toMatchObject({ status: 200, text: '{"status":"alive"}' })
  expect(await ask('GET', '/readyz')).toMatchObject({ status: 200, text: '{"status":"ready","missing":[]}' })
  const metrics = await ask('GET', '/metrics')
  expect(metrics).toMatchObject({ status: 200, text: 'tallylight_accepted_records_total 7\n' })
  expect(metrics.type).toBe('text/plain; version=0.0.4; charset=utf-8')
  expect(metrics.headers.has('x-powered-by')).toBe(false)
})

test('api: not ready is 503 with what is missing, while alive stays 200', async () => {
  missing = ['the collector is starting or stopping']
  expect(await ask('GET', '/readyz')).toMatchObject({
    status: 503,
    text: '{"status":"starting","missing":["the collector is starting or stopping"]}',
  })
  expect((await ask('GET', '/healthz')).status).toBe(200)
})

test('api: HEAD is answered like GET, without a body', async () => {
  for (const path of ['/healthz', '/readyz', '/metrics'])
    expect(await ask('HEAD', path)).toMatchObject({ status: 200, text: '' })
})

for (const [method, path, key, status, detail] of [
  ['GET', '/', undefined, 404, 'there is nothing at /'],
  ['GET', '/nothing?token=secret', undefined, 404, 'there is nothing at /nothing'],
  ['POST', '/healthz', undefined, 405, '/healthz takes GET, HEAD'],
  ['DELETE', '/metrics', undefined, 405, '/metrics takes GET, HEAD'],
  ['PUT', '/api/v1/keys', 'admin', 405, '/api/v1/keys takes GET, HEAD, POST'],
  ['GET', '/api/v1/keys/00000001', 'admin', 405, '/api/v1/keys/00000001 takes DELETE'],
  ['GET', '/api/v1/nothing', 'admin', 404, 'there is nothing at /api/v1/nothing'],
  // From this machine and without a key one may send, and not administer.
  [
    'POST',
    '/v1/traces',
    undefined,
    404,
    'there is nothing at /v1/traces; OTLP over HTTP is on 4318 (TALLYLIGHT_OTLP_HTTP_PORT)',
  ],
  [
    'GET',
    '/api/v1/nothing',
    undefined,
    403,
    'a key with the role admin is needed, as Authorization: Bearer tl_…; the first start wrote one into data/admin.key',
  ],
  ['GET', '/api/v1/keys', 'unknown', 401, 'the key is not known; `tallylight keys list` lists those of this collector'],
  ['GET', '/api/v1/keys', 'revoked', 401, 'the key was revoked'],
  ['GET', '/api/v1/keys', 'ingest', 403, 'the key does not have the role admin'],
  ['POST', '/api/v1/keys', 'query', 403, 'the key does not have the role admin'],
  ['DELETE', '/api/v1/keys/00000009', 'admin', 404, 'there is no key 00000009'],
  ['DELETE', '/api/v1/keys/%00', 'admin', 404, 'there is no key with a NUL'],
  ['POST', '/api/v1/keys/%00/rotate', 'admin', 404, 'there is no key with a NUL'],
  ['DELETE', '/api/v1/keys/%zz', 'admin', 400, 'the request is not well formed'],
] as const)
  test(`api: ${method} ${path} with ${key ?? 'no'} key is ${status}, and says why`, async () => {
    const answer = await ask(method, path, key)
    expect(answer).toMatchObject({ status, text: JSON.stringify({ status, detail }) })
    expect(answer.type).toBe('application/problem+json; charset=utf-8')
    expect(answer.headers.get('www-authenticate')).toBe(status === 401 ? 'Bearer' : null)
    if (status === 405) expect(detail).toContain(answer.headers.get('allow') ?? 'no methods')
  })

test('api: through a proxy nobody goes without a key, whoever the proxy is', async () => {
  const response = await fetch(`http://127.0.0.1:${api.port}/api/v1/keys`, {
    headers: { 'X-Forwarded-For': '10.0.0.9' },
  })
  expect(response.status).toBe(401)
  expect(await response.text()).toBe(
    '{"status":401,"detail":"a key is needed, as Authorization: Bearer tl_…; `tallylight keys create` makes one"}',
  )
})

test('api: a key is made of a tenant, roles, a name and a mark; its text is answered once, and it ends when it is revoked', async () => {
  const body = { tenant: 'default', roles: ['ingest', 'quota'], name: 'ci', manyTenants: true }
  const made = await ask('POST', '/api/v1/keys', 'admin', JSON.stringify(body))
  const { id, key, ...said } = JSON.parse(made.text)
  expect(made.status).toBe(201)
  expect(said).toEqual({ tenant: 'default', roles: ['ingest', 'quota'] })
  const credentials = {
    authorization: `Bearer ${key}`,
    peerAddress: '10.0.0.9',
    hostHeader: 'collector.example',
    originHeader: undefined,
    localBoundToLoopback: false,
  }
  expect(keyring.authenticate(credentials)).toMatchObject({
    identity: { tenant: 'default', manyTenants: true, keyId: id },
  })
  const listed = await ask('GET', '/api/v1/keys', 'admin')
  expect(JSON.parse(listed.text).keys.at(-1)).toEqual({
    id,
    ...body,
    createdAt: expect.stringMatching(/^20.*Z$/),
    revokedAt: null,
    expiresAt: null,
    lastUsedAt: null,
  })
  expect(listed.text).not.toContain(key)
  for (let times = 0; times < 2; times++)
    expect(await ask('DELETE', `/api/v1/keys/${id}`, 'admin')).toMatchObject({ status: 204, text: '' })
  expect(keyring.authenticate(credentials).kind).toBe('revoked')
})

test('api: a body is JSON whatever type it says, as `curl -d` says that it is a form', async () => {
  const headers = { Authorization: `Bearer ${keys.admin}`, 'Content-Type': 'application/x-www-form-urlencoded' }
  const body = '{"tenant":"acme","roles":["root"]}'
  const answer = await fetch(`http://127.0.0.1:${api.port}/api/v1/keys`, { method: 'POST', headers, body })
  expect(await answer.text()).toContain('roles.0: ')
})

for (const [what, body, status, reason] of [
  ['no body', undefined, 400, /tenant: /],
  ['a tenant that is none', '{"tenant":"a b","roles":["ingest"]}', 400, /tenant: a tenant is 1–128 letters/],
  ['no roles', '{"tenant":"acme","roles":[]}', 400, /roles: /],
  ['a role that is none', '{"tenant":"acme","roles":["root"]}', 400, /roles\.0: .*ingest.*query.*quota.*admin/],
  ['a field that is none', '{"tenant":"acme","roles":["ingest"],"expires":1}', 400, /Unrecognized key: \\"expires\\"/],
  ['half of JSON', '{"tenant":"secret', 400, /the body is not JSON/],
  ['a name too long', JSON.stringify({ tenant: 'a', roles: ['ingest'], name: 'x'.repeat(201) }), 400, /name: .*200/],
  ['a name with a NUL', JSON.stringify({ tenant: 'a', roles: ['ingest'], name: 'a\0' }), 400, /name: .*NUL/],
  ['null', 'null', 400, /body: .*object/],
  ['a body too long', `"${'x'.repeat(70_000)}"`, 413, /a body may have 64 KiB/],
] as const)
  test(`api: a key of ${what} is ${status} and makes none`, async () => {
    const before = await keyring.list()
    const answer = await ask('POST', '/api/v1/keys', 'admin', body)
    expect(answer.status).toBe(status)
    expect(answer.text).toMatch(reason)
    expect(answer.text).not.toContain('secret')
    expect(await keyring.list()).toEqual(before)
  })

test('api: with Postgres away, what needs it is 503 and logged, and a key that may be new is not called unknown', async () => {
  const answer = await ask('GET', '/api/v1/keys', 'admin', undefined, alone)
  expect(answer).toMatchObject({ status: 503, text: '{"status":503,"detail":"the database did not answer"}' })
  expect(answer.headers.get('retry-after')).toBe('1')
  expect(logged).toEqual(['an API request failed'])
  expect(await ask('GET', '/api/v1/keys', 'unknown', undefined, alone)).toMatchObject({
    status: 503,
    text: expect.stringContaining('the list of keys cannot be read now'),
  })
  expect((await ask('GET', '/api/v1/keys', 'revoked', undefined, alone)).status).toBe(401)
  expect((await ask('GET', '/healthz', undefined, undefined, alone)).status).toBe(200)
})

for (const [what, error, status, detail] of [
  ['a statement that a constraint refuses', sqlError('23503'), 500, failed],
  ['a table that is not there', sqlError('42P01'), 500, failed],
  ['a statement that ClickHouse refuses', clickHouseError('62'), 500, failed],
  ['a slip of ours', new TypeError('x is not a function'), 500, failed],
  ['a server that is shutting down', sqlError('57P01'), 503, away],
  ['a server that has no connection left', sqlError('53300'), 503, away],
  ['a connection that is refused', Object.assign(new Error('refused'), { code: 'ECONNREFUSED' }), 503, away],
  ['a connection that ended', new Error('Connection terminated unexpectedly'), 503, away],
  ['a ClickHouse that is too slow', new Error('Timeout error.'), 503, away],
  ['a ClickHouse whose engine is not up', clickHouseError('209'), 503, away],
] as const)
  test(`api: ${what} is ${status}, logged, and told as what it is`, async () => {
    const failing = express.Router().get('/failing', () => Promise.reject(error))
    await using port = await openPort(keyring, [failing])
    expect(await ask('GET', '/api/v1/failing', 'admin', undefined, port)).toMatchObject({
      status,
      text: JSON.stringify({ status, detail }),
    })
    expect(logged).toEqual(['an API request failed'])
  })

test('api: at its end it waits for nobody who only holds a connection', async () => {
  const short = await openPort(keyring)
  const idle = connect(short.port, '127.0.0.1')
  await once(idle, 'connect')
  const closed = once(idle, 'close')
  await short[Symbol.asyncDispose]()
  await closed
})

test('api: a connection that is kept may rest longer than load balancers and clients let it', async () => {
  const response = await fetch(`http://127.0.0.1:${api.port}/healthz`)
  expect(response.headers.get('keep-alive')).toBe('timeout=75')
})

test('api: a runbook is read without a key, and what is none is not found', async () => {
  expect(await ask('GET', '/runbooks/journal-fill')).toMatchObject({
    status: 200,
    text: expect.stringContaining('# The journal fills up'),
  })
  expect((await ask('GET', '/runbooks/..%2Fpackage')).status).toBe(404)
})

test('api: a probe is for admins', async () => {
  expect((await ask('POST', '/api/v1/probe', 'admin')).text).toBe('{"missing":[]}')
  expect((await ask('POST', '/api/v1/probe', 'query')).status).toBe(403)
})
