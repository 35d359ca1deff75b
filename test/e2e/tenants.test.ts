// Two tenants on one collector: neither a key nor an attribute lets one write into the other's records or read them, also not
// with the other's trace ids, texts and users, and not through administration.
import { execFile } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { afterAll, beforeAll, expect, test, vi } from 'vitest'
import { type CollectorProcess, startCollector } from '../collector-process.ts'

const commandPath = fileURLToPath(new URL('../../collector/command-line.ts', import.meta.url))
type Json = Readonly<Record<string, unknown>>
type Key = { readonly id: string; readonly key: string }

let collector: CollectorProcess
const keys: Record<string, Key> = {}

async function tallylight(
  ...args: string[]
): Promise<{ readonly code: number; readonly out: string; readonly said: string }> {
  const env = { PATH: process.env.PATH ?? '', TALLYLIGHT_DATA_DIR: collector.directory }
  const run = promisify(execFile)(process.execPath, ['--disable-warning=ExperimentalWarning', commandPath, ...args], {
    env,
  })
  return run.then(
    ({ stdout, stderr }) => ({ code: 0, out: stdout.trim(), said: stderr }),
    ({ code, stdout, stderr }) => ({ code, out: stdout.trim(), said: stderr }),
  )
}

async function ask(
  method: string,
  path: string,
  key: string | undefined,
  body?: object,
): Promise<{ readonly status: number; readonly body: Json }> {
  const response = await fetch(`http://127.0.0.1:${collector.ports().api}${path}`, {
    method,
    headers: { Authorization: `Bearer ${key}`, 'Content-Type': 'application/json' },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  })
  const text = await response.text()
  return { status: response.status, body: (text === '' ? {} : JSON.parse(text)) as Json }
}

async function makeKey(name: string, tenant: string, roles: readonly string[], manyTenants = false): Promise<void> {
  const made = await ask('POST', '/api/v1/keys', collector.adminKey, { tenant, roles, name, manyTenants })
  expect(made.status).toBe(201)
  keys[name] = made.body as Key
}

const traceId = 'd'.repeat(32)
const start = BigInt(Date.now()) * 1_000_000n
const text = (key: string, value: string) => ({ key, value: { stringValue: value } })

/** The same trace, span, user and conversation whoever sends it, with a question of one's own. */
function callOf(question: string, attributes: readonly object[], resource: readonly object[], trace = traceId): object {
  const span = {
    traceId: trace,
    spanId: 'e'.repeat(16),
    name: 'chat',
    startTimeUnixNano: String(start),
    endTimeUnixNano: String(start + 1_000_000n),
    attributes: [
      text('gen_ai.operation.name', 'chat'),
      text('gen_ai.request.model', 'gpt-4o'),
      text('gen_ai.conversation.id', 'c-1'),
      text('user.id', 'ada'),
      text('gen_ai.input.messages', JSON.stringify([{ role: 'user', parts: [{ type: 'text', content: question }] }])),
      ...attributes,
    ],
  }
  return { resourceSpans: [{ resource: { attributes: resource }, scopeSpans: [{ spans: [span] }] }] }
}

async function send(key: string | undefined, body: object): Promise<number> {
  const response = await fetch(`http://127.0.0.1:${collector.ports().otlpHttp}/v1/traces`, {
    method: 'POST',
    body: JSON.stringify(body),
    headers: { 'Content-Type': 'application/json', ...(key === undefined ? {} : { Authorization: `Bearer ${key}` }) },
  })
  await response.arrayBuffer()
  return response.status
}

const questionOf = (tenant: string): string => `asked by ${tenant} `.padEnd(400, tenant)

beforeAll(async () => {
  collector = await startCollector()
  for (const tenant of ['acme', 'globex']) expect((await tallylight('tenants', 'create', tenant)).code).toBe(0)
  for (const tenant of ['acme', 'globex']) {
    await makeKey(`${tenant} ingest`, tenant, ['ingest', 'quota'])
    await makeKey(`${tenant} admin`, tenant, ['admin', 'query', 'quota'])
  }
  await makeKey('gateway', 'default', ['ingest'], true)
  // Each names the other, wherever a tenant may be named.
  const named = [text('tallylight.tenant.id', 'globex'), text('tenant.id', 'globex')]
  expect(await send(keys['acme ingest']?.key, callOf(questionOf('acme'), named, named))).toBe(200)
  expect(
    await send(keys['globex ingest']?.key, callOf(questionOf('globex'), [text('tallylight.tenant.id', 'acme')], [])),
  ).toBe(200)
  await collector.drained()
}, 60_000)
afterAll(() => collector?.[Symbol.asyncDispose]())

test('tenants: the page at / shows a key of one tenant that tenant’s turns, whichever roles it has', async () => {
  const shownTo = async (key: string | undefined): Promise<readonly unknown[]> => {
    const { turns } = (await ask('GET', '/state/turns', key)).body as { readonly turns: readonly Json[] }
    return turns.map(({ tenant }) => tenant).sort()
  }
  expect(await shownTo(keys['acme admin']?.key)).toEqual(['acme'])
  expect(await shownTo(collector.adminKey)).toEqual(['acme', 'globex'])
})

test('tenants: what a key sends is its tenant’s, whatever the attributes say; the named one is a label', async () => {
  expect(
    await collector.query('SELECT TenantId, TenantLabel, Model FROM tallylight.llm_calls ORDER BY TenantId'),
  ).toEqual([
    { TenantId: 'acme', TenantLabel: 'globex', Model: 'gpt-4o' },
    { TenantId: 'globex', TenantLabel: 'acme', Model: 'gpt-4o' },
  ])
  expect(await collector.query('SELECT TenantId FROM tallylight.otel_traces ORDER BY TenantId')).toEqual([
    { TenantId: 'acme' },
    { TenantId: 'globex' },
  ])
})

test('tenants: the same trace, span, user and conversation of two tenants are two, each with its own texts', async () => {
  const messages = await collector.query<{ tenant: string; content: string }>(
    `SELECT TenantId AS tenant, Content AS content FROM tallylight.messages WHERE TraceId = '${traceId}' ORDER BY tenant`,
  )
  expect(messages).toEqual(['acme', 'globex'].map((tenant) => ({ tenant, content: questionOf(tenant) })))
  const turns = await collector.query('SELECT TenantId, Calls FROM tallylight.turns ORDER BY TenantId')
  expect(turns).toEqual([
    { TenantId: 'acme', Calls: 1 },
    { TenantId: 'globex', Calls: 1 },
  ])
})

test('tenants: a key that is marked for many names the tenant by attribute, span before resource; without one it is its own', async () => {
  const [spanSays, resourceSays] = [[text('tallylight.tenant.id', 'acme')], [text('tallylight.tenant.id', 'globex')]]
  const { key } = keys.gateway as Key
  for (const [attributes, resource] of [
    [spanSays, resourceSays],
    [[], resourceSays],
    [[], []],
  ] as const)
    expect(
      await send(key, callOf(`gateway ${attributes.length}${resource.length}`, attributes, resource, 'f'.repeat(32))),
    ).toBe(200)
  await collector.drained()
  expect(
    await collector.query(
      `SELECT TenantId AS tenant, toUInt32(count()) AS spans FROM tallylight.otel_traces GROUP BY 1 ORDER BY 1`,
    ),
  ).toEqual([
    { tenant: 'acme', spans: 2 },
    { tenant: 'default', spans: 1 },
    { tenant: 'globex', spans: 2 },
  ])
})

test('tenants: a key of one tenant reads no tables, and without a key nobody is let in once there are two', async () => {
  for (const name of ['acme admin', 'acme ingest', 'gateway']) {
    const response = await fetch(`http://127.0.0.1:${collector.ports().clickhouse}/?query=SELECT+1`, {
      headers: { 'X-ClickHouse-User': 'tallylight', 'X-ClickHouse-Key': keys[name]?.key ?? '' },
    })
    expect([response.status, await response.text()], name).toEqual([
      403,
      expect.stringContaining('Authentication failed'),
    ])
  }
  expect(await send(undefined, callOf('nobody', [], []))).toBe(401)
  expect(await send(keys['acme admin']?.key, callOf('no role', [], []))).toBe(403)
})

const foreign: readonly (readonly [
  what: string,
  method: string,
  path: () => string,
  body: object | undefined,
  status: number,
])[] = [
  ['make a tenant', 'POST', () => '/api/v1/tenants', { tenant: 'initech' }, 403],
  ['make a key of another tenant', 'POST', () => '/api/v1/keys', { tenant: 'globex', roles: ['ingest'] }, 403],
  [
    'make a key for many tenants',
    'POST',
    () => '/api/v1/keys',
    { tenant: 'acme', roles: ['query'], manyTenants: true },
    403,
  ],
  ['revoke a key of another', 'DELETE', () => `/api/v1/keys/${keys['globex ingest']?.id}`, undefined, 404],
  ['rotate a key of another', 'POST', () => `/api/v1/keys/${keys['globex ingest']?.id}/rotate`, {}, 404],
  ['erase another’s user', 'POST', () => '/api/v1/erasures', { tenant: 'globex', user: 'ada' }, 403],
  ['count another’s user', 'POST', () => '/api/v1/erasures', { tenant: 'globex', user: 'ada', dryRun: true }, 403],
  ['hold another', 'POST', () => '/api/v1/holds', { tenant: 'globex', reason: 'none' }, 403],
  ['apply everybody’s retention', 'POST', () => '/api/v1/retention/apply', {}, 403],
  ['see what became of everybody’s retention', 'GET', () => '/api/v1/retention/apply', undefined, 403],
  ['price another’s calls', 'POST', () => '/api/v1/reprice', { tenant: 'globex' }, 403],
]
test.each(foreign)('tenants: an administrator of one tenant may not %s', async (_what, method, path, body, status) => {
  expect((await ask(method, path(), keys['acme admin']?.key, body)).status).toBe(status)
})

test('tenants: an administrator of one tenant sees its own tenant, keys, holds and erasures only', async () => {
  const key = keys['acme admin']?.key
  await ask('POST', '/api/v1/holds', collector.adminKey, { tenant: 'globex', user: 'eve', reason: 'case 1' })
  expect((await ask('GET', '/api/v1/tenants', key)).body.tenants).toMatchObject([{ tenant: 'acme', keys: 2 }])
  const listed = (await ask('GET', '/api/v1/keys', key)).body.keys as readonly { readonly tenant: string }[]
  expect(new Set(listed.map(({ tenant }) => tenant))).toEqual(new Set(['acme']))
  expect((await ask('GET', '/api/v1/holds', key)).body).toEqual({ holds: [] })
  expect((await ask('GET', '/api/v1/erasures', key)).body).toEqual({ erasures: [] })
  expect((await ask('GET', '/api/v1/holds', collector.adminKey)).body).toMatchObject({ holds: [{ tenant: 'globex' }] })
  expect((await ask('POST', '/api/v1/keys', key, { tenant: 'acme', roles: ['ingest'] })).status).toBe(201)
})

test('tenants: what became of pricing again is told to who asked for it', async () => {
  const globex = keys['globex admin']?.key
  expect((await ask('POST', '/api/v1/reprice', globex, {})).status).toBe(202)
  expect((await ask('GET', '/api/v1/reprice', keys['acme admin']?.key)).body).toEqual({ state: 'idle' })
  expect((await ask('POST', '/api/v1/reprice', keys['acme admin']?.key, {})).status).toBe(202)
  await vi.waitUntil(async () => (await ask('GET', '/api/v1/reprice', globex)).body.state === 'done')
})

test('tenants: to erase a user of one tenant leaves the user of the same name in the other', async () => {
  const erased = await tallylight('erase', '--tenant', 'acme', '--user', 'ada')
  expect(erased).toMatchObject({ code: 0 })
  const left = await collector.query<{ tenant: string }>(
    "SELECT TenantId AS tenant FROM tallylight.llm_calls WHERE UserId = 'ada' ORDER BY tenant",
  )
  expect(left.map(({ tenant }) => tenant)).toEqual(['default', 'globex', 'globex'])
  expect(
    await collector.query(
      "SELECT Content AS content FROM tallylight.messages WHERE TenantId = 'globex' AND ContentBytes > 300",
    ),
  ).toEqual([{ content: questionOf('globex') }])
})

test('tenants: a rotated key goes on beside its successor until its time of grace is over', async () => {
  const old = keys['globex ingest'] as Key
  const next = await tallylight('keys', 'rotate', old.id, '--grace-seconds', '3')
  expect(next).toMatchObject({ code: 0, out: expect.stringMatching(/^tl_/) })
  const statuses = async (): Promise<readonly number[]> => [
    await send(old.key, callOf('old key', [], [])),
    await send(next.out, callOf('new key', [], [])),
  ]
  expect(await statuses()).toEqual([200, 200])
  const listed = (await tallylight('keys', 'list')).out.split('\n').map((line) => JSON.parse(line) as Json)
  const expiresAt = String(listed.find(({ id }) => id === old.id)?.expiresAt)
  await new Promise((resolve) => setTimeout(resolve, Date.parse(expiresAt) - Date.now()))
  expect(await statuses()).toEqual([401, 200])
})
