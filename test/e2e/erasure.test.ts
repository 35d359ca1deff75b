// Erasure from outside: recordings of the same two users in two tenants, and beside them everything else in which a user can
// stand. One of them is erased in one tenant. What they wrote must be nowhere, and what the others wrote where it was.
import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import { readdirSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import pg from 'pg'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { type CollectorProcess, startCollector } from '../collector-process.ts'
import { recordingOf } from './recordings.ts'

const commandPath = fileURLToPath(new URL('../../collector/command-line.ts', import.meta.url))
/** The user stands on every span, on the root alone, in the attributes of a framework. */
const recordings = ['langfuse-agent-tool', 'strands-agent-tool', 'vercel-ai6-generate-cached']
const tenants = ['acme', 'globex'] as const
const users = ['ada-9f31', 'bob-77c2'] as const
const [ada, bob] = users

type Json = Readonly<Record<string, unknown>>
let collector: CollectorProcess
const keys: Record<string, string> = {}

/** What each user writes, and nobody else: long enough to be stored apart from the rows. */
function plantOf(tenant: string, user: string): string {
  return `PLANT${tenant}${user.slice(0, 3)}`.padEnd(300, 'x')
}
/** What both users of a tenant write. */
const shared = `WRITTENBYBOTH${'y'.repeat(300)}`

async function post(path: string, key: string | undefined, body: string): Promise<void> {
  const response = await fetch(`http://127.0.0.1:${collector.ports().otlpHttp}${path}`, {
    method: 'POST',
    body,
    headers: { 'Content-Type': 'application/json', Authorization: `Bearer ${key}` },
  })
  expect([response.status, await response.text()]).toEqual([200, '{}'])
}

async function api(
  method: string,
  path: string,
  body?: object,
): Promise<{ readonly status: number; readonly body: Json }> {
  const response = await fetch(`http://127.0.0.1:${collector.ports().api}${path}`, {
    method,
    headers: { Authorization: `Bearer ${collector.adminKey}`, 'Content-Type': 'application/json' },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  })
  return { status: response.status, body: (await response.json()) as Json }
}

async function tallylight(
  ...args: string[]
): Promise<{ readonly code: number; readonly out: Json; readonly said: string }> {
  const env = { PATH: process.env.PATH ?? '', TALLYLIGHT_DATA_DIR: collector.directory }
  const run = promisify(execFile)(process.execPath, ['--disable-warning=ExperimentalWarning', commandPath, ...args], {
    env,
  })
  return run.then(
    ({ stdout, stderr }) => ({ code: 0, out: JSON.parse(stdout) as Json, said: stderr }),
    ({ code, stdout, stderr }) => ({ code, out: JSON.parse(stdout || '{}') as Json, said: stderr }),
  )
}

const nowNano = BigInt(Date.now()) * 1_000_000n
const text = (key: string, value: string) => ({ key, value: { stringValue: value } })
const idOf = (bytes: number, seed: string): string =>
  Buffer.from(seed.padEnd(bytes, '.'))
    .toString('hex')
    .slice(0, bytes * 2)
const traces = (spans: readonly object[]): string => JSON.stringify({ resourceSpans: [{ scopeSpans: [{ spans }] }] })

function span(trace: string, id: string, parent: string, attributes: readonly object[], atNano = nowNano): object {
  return {
    traceId: idOf(16, trace),
    spanId: idOf(8, id),
    ...(parent === '' ? {} : { parentSpanId: idOf(8, parent) }),
    name: id,
    startTimeUnixNano: String(atNano),
    endTimeUnixNano: String(atNano + 1_000_000n),
    attributes,
  }
}

function callAttributes(question: string): readonly object[] {
  return [
    text('gen_ai.operation.name', 'chat'),
    text('gen_ai.provider.name', 'openai'),
    text('gen_ai.request.model', 'gpt-4o'),
    { key: 'gen_ai.usage.input_tokens', value: { intValue: '10' } },
    { key: 'gen_ai.usage.output_tokens', value: { intValue: '5' } },
    text('gen_ai.input.messages', JSON.stringify([{ role: 'user', parts: [{ type: 'text', content: question }] }])),
  ]
}

/** Everything that is no recording: plain spans, log records, metrics, quarantine, and a trace that both share. */
async function sendTheRest(tenant: string): Promise<void> {
  const key = keys[tenant]
  for (const user of users) {
    const plant = plantOf(tenant, user)
    const who = text('user.id', user)
    // A plain request, of which only the root says whose it is.
    const name = `${tenant[0]}${user.slice(0, 3)}`
    await post(
      '/v1/traces',
      key,
      traces([
        span(`plain${name}`, `http${name}`, '', [who]),
        span(`plain${name}`, `db${name}`, `http${name}`, [text('db.query.text', plant)]),
      ]),
    )
    // A day and more ahead: no table takes it.
    await post(
      '/v1/traces',
      key,
      traces([span(`late${name}`, `late${name}`, '', [who, text('note', plant)], nowNano + 200_000_000_000_000n)]),
    )
    const record = (attributes: readonly object[], more: object = {}) => ({
      timeUnixNano: String(nowNano),
      body: { stringValue: plant },
      attributes,
      ...more,
    })
    const logRecords = [record([who]), record([], { traceId: idOf(16, `plain${name}`), spanId: idOf(8, `db${name}`) })]
    await post('/v1/logs', key, JSON.stringify({ resourceLogs: [{ scopeLogs: [{ logRecords }] }] }))
    const dataPoints = [{ timeUnixNano: String(nowNano), asInt: '1', attributes: [who, text('note', plant)] }]
    const metrics = [{ name: 'asked', gauge: { dataPoints } }]
    await post('/v1/metrics', key, JSON.stringify({ resourceMetrics: [{ scopeMetrics: [{ metrics }] }] }))
    const estimate = { inputTokens: 10, outputTokensMax: 10 }
    const reserved = await fetch(`http://127.0.0.1:${collector.ports().api}/v1/quota/reservations`, {
      method: 'POST',
      headers: { Authorization: `Bearer ${key}` },
      body: JSON.stringify({ callId: `call-${name}`, user, model: 'gpt-4o', provider: 'openai', estimate }),
    })
    expect(reserved.status).toBe(201)
  }
  const agent = (name: string, user: string) =>
    span(`both${tenant}`, name, 'root', [text('gen_ai.operation.name', 'invoke_agent'), text('user.id', user)])
  await post(
    '/v1/traces',
    key,
    traces([
      span(`both${tenant}`, 'root', '', [text('gen_ai.operation.name', 'invoke_agent')]),
      ...users.flatMap((user) => [
        agent(`agent${user.slice(0, 3)}`, user),
        span(
          `both${tenant}`,
          `chat${user.slice(0, 3)}`,
          `agent${user.slice(0, 3)}`,
          callAttributes(`${plantOf(tenant, user)} together`),
        ),
        span(`both${tenant}`, `same${user.slice(0, 3)}`, `agent${user.slice(0, 3)}`, callAttributes(shared)),
      ]),
    ]),
  )
}

async function sendRecordings(tenant: string, user: string): Promise<void> {
  const plant = plantOf(tenant, user)
  const texts = [
    ['What is the weather in Paris?', plant],
    ['What is the capital of France?', plant],
  ] as const
  for (const name of recordings)
    for (const { signal, body } of recordingOf(name, { user, seed: `${tenant} ${user}`, texts }))
      await post(`/v1/${signal}`, keys[tenant], body)
}

const tables = async (): Promise<readonly string[]> =>
  (
    await collector.query<{ name: string }>(
      "SELECT name FROM system.tables WHERE database = 'tallylight' AND engine LIKE '%MergeTree' AND name NOT IN ('schema_migrations', 'record_selections')",
    )
  ).map(({ name }) => name)

/** Rows by table that hold a text, in whatever column, superseded ones too. */
async function rowsWith(wanted: string, tenant: string): Promise<Readonly<Record<string, number>>> {
  const counts: Record<string, number> = {}
  for (const table of await tables()) {
    const [row] = await collector.query<{ rows: number }>(
      `SELECT toUInt32(count()) AS rows FROM tallylight.${table} AS t WHERE TenantId = '${tenant}' AND position(toString(tuple(t.*)), '${wanted}') > 0`,
    )
    if (row !== undefined && row.rows > 0) counts[table] = row.rows
  }
  return counts
}

async function filesWith(wanted: string): Promise<readonly string[]> {
  return promisify(execFile)('grep', ['-rlaF', wanted, collector.directory]).then(
    ({ stdout }) => stdout.split('\n').filter(Boolean),
    () => [],
  )
}

/** Folders of parts, as `uuid of the table/name of the part`. */
async function partsOnDisk(): Promise<readonly string[]> {
  const uuids = await collector.query<{ uuid: string }>(
    "SELECT toString(uuid) AS uuid FROM system.tables WHERE database = 'tallylight' AND engine LIKE '%MergeTree'",
  )
  const store = join(collector.directory, 'clickhouse', 'store', 'store')
  return uuids.flatMap(({ uuid }) =>
    readdirSync(join(store, uuid.slice(0, 3), uuid))
      .filter((name) => /^\w+_\d+_\d+_\d+(_\d+)?$/.test(name))
      .map((name) => `${uuid}/${name}`),
  )
}

async function activeParts(): Promise<ReadonlySet<string>> {
  const parts = await collector.query<{ part: string }>(
    `SELECT concat(toString(t.uuid), '/', p.name) AS part FROM system.parts AS p
     JOIN system.tables AS t ON t.database = p.database AND t.name = p.table WHERE p.database = 'tallylight' AND p.active`,
  )
  return new Set(parts.map(({ part }) => part))
}

async function postgres(sql: string): Promise<readonly Json[]> {
  const password = (await readFile(join(collector.directory, 'postgres.key'), 'utf8')).trim()
  const { postgres: port } = collector.ports()
  const client = new pg.Client({ host: '127.0.0.1', port, user: 'tallylight_read', password, database: 'tallylight' })
  await client.connect()
  try {
    return (await client.query<Json>(sql)).rows
  } finally {
    await client.end()
  }
}

/** Accounts, and what is held in each. */
function ledgerOf(tenant: string): Promise<readonly Json[]> {
  return postgres(
    `select subject, (held > 0)::int as held from quota_balances where tenant = '${tenant}' and subject <> '' order by subject`,
  )
}

/** What one tenant's users see of themselves, as sorted lines: not the turn around both, which is nobody's. */
async function seen(tenant: string, user: string): Promise<readonly string[]> {
  const views = ['llm_calls', 'tool_calls', 'turns', 'messages', 'wrapper_messages', 'errors']
  const rows = await Promise.all(
    views.map((view) =>
      collector.query<Json>(
        `SELECT '${view}' AS View, * EXCEPT (Generation, RetentionDays) FROM tallylight.${view} WHERE TenantId = '${tenant}' AND UserId = '${user}'
         AND NOT ('${view}' = 'turns' AND TraceId = '${idOf(16, `both${tenant}`)}')`,
      ),
    ),
  )
  return rows
    .flat()
    .map((row) => JSON.stringify(row))
    .sort()
}

beforeAll(async () => {
  collector = await startCollector()
  for (const tenant of tenants) {
    const made = await api('POST', '/api/v1/keys', { tenant, roles: ['ingest', 'quota'] })
    keys[tenant] = String(made.body.key)
    const limit = { measure: 'tokens', amount: 1_000_000, window: 'ever', action: 'block', each: 'user' }
    await fetch(`http://127.0.0.1:${collector.ports().api}/v1/quota/limits/each-user?tenant=${tenant}`, {
      method: 'PUT',
      headers: { Authorization: `Bearer ${collector.adminKey}` },
      body: JSON.stringify(limit),
    })
  }
  for (const tenant of tenants) {
    for (const user of users) await sendRecordings(tenant, user)
    await sendTheRest(tenant)
  }
  await collector.drained()
}, 120_000)
afterAll(() => collector?.[Symbol.asyncDispose]())

test('erasure: what one user of one tenant wrote is nowhere, what the others wrote where it was, and the proof says what went', async () => {
  const plant = plantOf('acme', ada).slice(0, 12)
  const before = await rowsWith(plant, 'acme')
  expect(Object.keys(before)).toEqual(
    expect.arrayContaining([
      'genai_contents',
      'genai_facts',
      'message_rows',
      'otel_logs',
      'otel_metrics_gauge',
      'otel_traces',
      'quarantine',
      'turn_rows',
      'wrapper_message_rows',
    ]),
  )
  const others = [
    ['acme', bob],
    ['globex', ada],
    ['globex', bob],
  ] as const
  const seenBefore = await Promise.all(others.map(([tenant, user]) => seen(tenant, user)))
  const plantsBefore = await Promise.all(others.map(([tenant, user]) => rowsWith(plantOf(tenant, user), tenant)))

  const partsBefore = new Set(await partsOnDisk())
  const preview = await tallylight('erase', '--tenant', 'acme', '--user', ada, '--dry-run')
  expect(preview).toMatchObject({ code: 0, out: { dryRun: true } })
  expect(await rowsWith(plant, 'acme')).toEqual(before)

  const erased = await tallylight('erase', '--tenant', 'acme', '--user', ada)
  expect(erased).toMatchObject({ code: 0, out: { tenant: 'acme', of: 'user', state: 'done', absent: [] } })
  const proof = erased.out as Json & { readonly erased: Readonly<Record<string, number>> }
  for (const [table, rows] of Object.entries(before)) expect(proof.erased[table], table).toBeGreaterThanOrEqual(rows)
  expect(proof.erased).toMatchObject({ quota_accounts: 1, quota_reservation_rows: 1 })
  expect(preview.out.rows).toEqual(proof.erased)
  expect(JSON.stringify(erased)).not.toContain(ada)

  expect(await rowsWith(plant, 'acme')).toEqual({})
  expect(await rowsWith(ada, 'acme')).toEqual({})
  expect(await filesWith(plant)).toEqual([])
  // What was on the disk and no row of any table any more is not on the disk either.
  const active = await activeParts()
  expect((await partsOnDisk()).filter((part) => partsBefore.has(part) && !active.has(part))).toEqual([])

  expect(await Promise.all(others.map(([tenant, user]) => seen(tenant, user)))).toEqual(seenBefore)
  expect(await Promise.all(others.map(([tenant, user]) => rowsWith(plantOf(tenant, user), tenant)))).toEqual(
    plantsBefore,
  )
  expect(await ledgerOf('acme')).toEqual([
    { subject: bob, held: 1 },
    { subject: `erased:${proof.id}`, held: 1 },
  ])
  expect(await ledgerOf('globex')).toEqual(users.map((subject) => ({ subject, held: 1 })))
  expect(await postgres('select * from quota_drift')).toEqual([])
  const hashed = createHash('sha256').update(`${proof.salt}${ada}`).digest('hex')
  expect(proof.nameHash).toBe(hashed)
}, 120_000)

test('erasure: a span of an erased trace that comes late brings back nothing, and a text that comes again is whole', async () => {
  const recording = recordingOf('strands-agent-tool', { user: ada, seed: `acme ${ada}` })[0]?.body ?? ''
  const late = JSON.parse(recording) as { resourceSpans: { scopeSpans: { spans: { name: string }[] }[] }[] }
  for (const { scopeSpans } of late.resourceSpans)
    for (const scope of scopeSpans) scope.spans = scope.spans.filter(({ name }) => name.startsWith('execute_tool'))
  await post('/v1/traces', keys.acme, JSON.stringify(late))
  await post(
    '/v1/traces',
    keys.acme,
    traces([span('again', 'again', '', [...callAttributes(plantOf('acme', ada)), text('user.id', ada)])]),
  )
  await collector.drained()
  const [traceId] = [...recording.matchAll(/"traceId":"([0-9a-f]{32})"/g)].map(([, id]) => id)
  expect(await collector.query(`SELECT Name, UserId FROM tallylight.tool_calls WHERE TraceId = '${traceId}'`)).toEqual([
    { Name: 'get_weather', UserId: '' },
  ])
  expect(await collector.query(`SELECT TraceId FROM tallylight.llm_calls WHERE TraceId = '${traceId}'`)).toEqual([])
  expect(
    await collector.query(`SELECT Content FROM tallylight.messages WHERE TenantId = 'acme' AND UserId = '${ada}'`),
  ).toEqual([{ Content: plantOf('acme', ada) }])
})

test('erasure: of a conversation takes its calls, and leaves the other conversations of the same user', async () => {
  const conversations = () =>
    collector.query<{ id: string; user: string; calls: number }>(
      `SELECT ConversationId AS id, UserId AS user, toUInt32(count()) AS calls FROM tallylight.llm_calls
       WHERE TenantId = 'globex' AND ConversationId != '' GROUP BY 1, 2 ORDER BY 1, 2`,
    )
  const before = await conversations()
  expect(before.map(({ id }) => id)).toContain('sess-st-1')
  const erased = await tallylight('erase', '--tenant', 'globex', '--conversation', 'sess-st-1')
  expect(erased).toMatchObject({ code: 0, out: { state: 'done', of: 'conversation' } })
  expect(await conversations()).toEqual(before.filter(({ id }) => id !== 'sess-st-1'))
  expect(await rowsWith('sess-st-1', 'globex')).toEqual({})
}, 60_000)

test('erasure: what is held is not erased, nor is what shares a trace with it, until the hold is released', async () => {
  const held = await tallylight('hold', 'place', '--tenant', 'acme', '--user', bob, '--reason', 'case 7')
  expect(held).toMatchObject({ code: 0, out: { tenant: 'acme', user: bob, reason: 'case 7' } })
  const before = await seen('acme', bob)
  expect(await tallylight('erase', '--tenant', 'acme', '--user', bob)).toMatchObject({
    code: 1,
    said: expect.stringContaining(`409: legal hold ${held.out.id} is on the user`),
  })
  const shared = await tallylight('erase', '--tenant', 'acme', '--conversation', 'sess-lf-1')
  expect(shared).toMatchObject({ code: 1, out: { state: 'refused', reason: expect.stringContaining('legal hold') } })
  expect(await seen('acme', bob)).toEqual(before)
  expect(await tallylight('hold', 'release', String(held.out.id))).toMatchObject({ code: 0 })
  expect(await tallylight('erase', '--tenant', 'acme', '--user', bob)).toMatchObject({
    code: 0,
    out: { state: 'done' },
  })
  expect(await seen('acme', bob)).toEqual([])
}, 60_000)
