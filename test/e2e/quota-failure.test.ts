// The quota service without its ledger: Postgres hangs, has no connection left, comes back. Answers are 503 with what the
// tenant wants done, in time; nothing is granted that is not in the ledger, and what was decided is in the audit.
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { context } from '@opentelemetry/api'
import { AsyncLocalStorageContextManager } from '@opentelemetry/context-async-hooks'
import { makeKey, registerKey } from '@tallylight/collector/receive/keys.ts'
import { parseTenantId, type TenantId } from '@tallylight/collector/receive/request.ts'
import { openCounters } from '@tallylight/instrumentation/counters.ts'
import { readRequest } from '@tallylight/instrumentation/providers/request.ts'
import { type Gate, openGate, runWithQuota } from '@tallylight/instrumentation/quota/gate.ts'
import { openQuotaClient } from '@tallylight/instrumentation/quota/quota-client.ts'
import { quotaExceededIn } from '@tallylight/instrumentation/quota/quota-exceeded.ts'
import { openPool } from '@tallylight/storage/postgres/connection.ts'
import type pg from 'pg'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { type CollectorProcess, startCollector } from '../collector-process.ts'

const stack = new AsyncDisposableStack()
let collector: CollectorProcess
let owner: pg.Pool
const keys = new Map<string, string>()

type Reply = { readonly status: number; readonly body: Readonly<Record<string, unknown>>; readonly seconds: number }

beforeAll(async () => {
  context.setGlobalContextManager(new AsyncLocalStorageContextManager().enable())
  const directory = await mkdtemp(join(tmpdir(), 'tallylight-test-'))
  stack.defer(() => rm(directory, { recursive: true }))
  const failure = {
    default: { policy: 'bounded', costNanoUsd: 100, requests: 3 },
    tenants: { careful: { policy: 'closed' }, trusting: { policy: 'open' } },
  }
  const path = join(directory, 'failure.json')
  const prices = [{ model: 'cheap', inputNanoUsdPerMillion: 1_000_000, outputNanoUsdPerMillion: 1_000_000 }]
  await writeFile(path, JSON.stringify({ quota: { failure, prices } }))
  collector = stack.use(await startCollector({ TALLYLIGHT_CONFIG: path }))
  const password = (await readFile(join(collector.directory, 'postgres', 'owner.key'), 'utf8')).trim()
  const connectionString = `postgres://tallylight:${password}@127.0.0.1:${collector.ports().postgres}/tallylight`
  owner = openPool({ connectionString, max: 1, application_name: 'test' }, () => undefined)
  stack.defer(() => owner.end())
  keys.set('default', collector.adminKey)
  for (const tenant of ['careful', 'trusting']) {
    const { key } = makeKey()
    const rights = {
      tenant: parseTenantId(tenant) as TenantId,
      roles: ['quota'] as const,
      manyTenants: false,
      name: '',
    }
    await registerKey(owner, key, rights)
    keys.set(tenant, key)
  }
  for (const tenant of keys.keys()) {
    expect((await reserve(tenant, 'before')).status).toBe(201)
    const limit = { measure: 'cost', amount: 1_000, window: 'ever', action: 'block' }
    expect((await call('default', 'PUT', `limits/budget?tenant=${tenant}`, limit)).status).toBe(201)
  }
}, 60_000)
afterAll(() => stack.disposeAsync())

async function call(tenant: string, method: string, path: string, body: object): Promise<Reply> {
  const startedMs = performance.now()
  const response = await fetch(`http://127.0.0.1:${collector.ports().api}/v1/quota/${path}`, {
    method,
    headers: { Authorization: `Bearer ${keys.get(tenant)}` },
    body: JSON.stringify(body),
  })
  const json = (await response.json()) as Reply['body']
  return { status: response.status, body: json, seconds: (performance.now() - startedMs) / 1000 }
}

function reserve(tenant: string, callId: string, costNanoUsd = 40): Promise<Reply> {
  return call(tenant, 'POST', 'reservations', { callId, model: 'm', estimate: { costNanoUsd } })
}

async function reserveUntilAnswered(tenant: string, callId: string): Promise<Reply> {
  for (;;) {
    const reply = await reserve(tenant, callId)
    if (reply.status !== 503) return reply
  }
}

async function held(tenant: string): Promise<number> {
  const { rows } = await owner.query('select held::int from quota_balances where tenant = $1', [tenant])
  return rows[0]?.held ?? 0
}

/** The processes that serve the collector. */
async function backends(): Promise<readonly number[]> {
  const { rows } = await owner.query<{ pid: number }>(
    "select pid from pg_stat_activity where usename = 'tallylight' and application_name <> 'test'",
  )
  return rows.map(({ pid }) => pid)
}

test('quota: while Postgres hangs, each tenant is told its policy within seconds, and afterwards the same calls are granted once', async () => {
  const stopped = await backends()
  for (const pid of stopped) process.kill(pid, 'SIGSTOP')
  const replies = await Promise.all([
    reserve('careful', 'hang'),
    reserve('trusting', 'hang'),
    ...[0, 1, 2].map((at) => reserve('default', `hang ${at}`)),
  ])
  for (const pid of stopped) process.kill(pid, 'SIGCONT')
  expect(replies.map(({ status }) => status)).toEqual([503, 503, 503, 503, 503])
  for (const { seconds } of replies) expect(seconds).toBeLessThan(6)
  expect(replies[0]?.body).toMatchObject({ policy: 'closed', verdict: 'deny', status: 503 })
  expect(replies[1]?.body).toMatchObject({ policy: 'open', verdict: 'allow' })
  const bounded = replies.slice(2).map(({ body }) => body.verdict)
  expect(bounded.sort()).toEqual(['allow', 'allow', 'deny'])
  for (const at of [0, 1, 2]) expect((await reserveUntilAnswered('default', `hang ${at}`)).status).toBe(201)
  expect(await held('default')).toBe(120)
  await expect
    .poll(
      async () =>
        (await owner.query("select tenant, after from quota_audit where action = 'quota.outage' order by tenant")).rows,
    )
    .toMatchObject([
      { tenant: 'careful', after: { policy: 'closed', allowed: 0, denied: 1 } },
      { tenant: 'default', after: { policy: 'bounded', allowed: 2, denied: 1, allowedNanoUsd: 80 } },
      { tenant: 'trusting', after: { policy: 'open', allowed: 1, denied: 0 } },
    ])
}, 60_000)

test('quota: without a connection left answers are 503, a bound holds over repeats, and it begins anew afterwards', async () => {
  await owner.query('alter database tallylight connection limit 0')
  await owner.query('select pg_terminate_backend(pid) from unnest($1::int[]) pid', [await backends()])
  const verdicts: unknown[] = []
  for (const callId of ['a', 'a', 'b', 'b', 'c']) {
    const { status, body } = await reserve('default', `full ${callId}`)
    expect(status).toBe(503)
    verdicts.push([body.verdict, (body.left as { readonly costNanoUsd: number }).costNanoUsd])
  }
  expect(verdicts).toEqual([
    ['allow', 60],
    ['allow', 60],
    ['allow', 20],
    ['allow', 20],
    ['deny', 20],
  ])
  expect(await collector.metric('tallylight_quota_allowed_away_nano_usd')).toBe(80)
  await owner.query('alter database tallylight connection limit -1')
  expect((await reserveUntilAnswered('default', 'full a')).status).toBe(201)
  expect(await held('default')).toBe(160)
  expect(await collector.metric('tallylight_quota_allowed_away_nano_usd')).toBe(0)
}, 60_000)

test('gate: the policy of its tenant is told with every answer, obeyed while the ledger is away, and remembered when nobody answers', async () => {
  const said: string[] = []
  const counters = openCounters((line) => said.push(line))
  await using stack = new AsyncDisposableStack()
  const endpoint = {
    api: 'openai.chat',
    provider: 'openai',
    model: '',
    isStream: false,
    takesUsageOption: false,
  } as const
  const { request } = readRequest(endpoint, '{"model":"cheap"}')
  const asked = {
    endpoint,
    request,
    url: new URL('http://x'),
    requestBytes: 2,
    attempt: 1,
    transport: 'fetch',
  } as const
  const gates = new Map<string, Gate>()
  for (const tenant of keys.keys()) {
    const url = `http://127.0.0.1:${collector.ports().api}`
    const client = openQuotaClient({ url, key: keys.get(tenant) ?? '' })
    // The opposite of what the tenant wants, which must not count any more once it has told.
    const failurePolicy = tenant === 'trusting' ? 'closed' : 'open'
    const nowMs = (): number => performance.now()
    const gate = openGate({ mode: 'enforce', failurePolicy, leases: false, client, counters, nowMs })
    gates.set(tenant, stack.use(gate))
  }
  const callsOf = async (tenant: string): Promise<readonly string[]> => {
    const outcomes: string[] = []
    for (let call = 0; call < 3; call++) {
      const estimate = { inputTokens: 20, outputTokensMax: 20 }
      const hold = runWithQuota({ estimate }, () => gates.get(tenant)?.admit(asked))
      const outcome = await hold?.admitted?.then(
        () => 'allowed',
        (error: unknown) => quotaExceededIn(error)?.denial.reason ?? 'failed',
      )
      outcomes.push(`${outcome} ${hold?.absencePolicy()}`.trimEnd())
      hold?.end({ ending: 'denied', status: 0, reply: undefined, error: undefined })
    }
    return outcomes
  }
  for (const tenant of keys.keys()) expect(await callsOf(tenant)).toEqual(['allowed', 'allowed', 'allowed'])
  await owner.query('alter database tallylight connection limit 0')
  await owner.query('select pg_terminate_backend(pid) from unnest($1::int[]) pid', [await backends()])
  const expected = {
    default: ['allowed bounded', 'allowed bounded', 'away bounded'],
    careful: ['away closed', 'away closed', 'away closed'],
    trusting: ['allowed open', 'allowed open', 'allowed open'],
  }
  for (const [tenant, outcomes] of Object.entries(expected)) expect(await callsOf(tenant)).toEqual(outcomes)
  await owner.query('alter database tallylight connection limit -1')
  await collector.kill('SIGKILL')
  for (const [tenant, outcomes] of Object.entries(expected)) expect(await callsOf(tenant)).toEqual(outcomes)
  expect(counters.read().notGated).toBe(18)
  expect(said.sort()).toEqual([
    expect.stringContaining('calls are refused, by the policy'),
    expect.stringContaining('calls go without, by the policy'),
  ])
}, 60_000)
