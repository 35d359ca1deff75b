// The quota service over a Postgres that fails over, is slow, goes silent and is full: 503 with the policy of the tenant, in
// bounded time; what was granted stays granted, nothing is granted twice or beyond the limit, and it recovers by itself.
import { openPool } from '@tallylight/storage/postgres/connection.ts'
import type pg from 'pg'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { type CollectorProcess, startCollector } from '../collector-process.ts'
import { type PostgresPair, startPostgresPair } from './postgres-pair.ts'
import { openSwitchboard, type Switchboard } from './switchboard.ts'

const stack = new AsyncDisposableStack()
let pair: PostgresPair
let line: Switchboard
let collector: CollectorProcess
let owner: pg.Pool

type Reply = { readonly status: number; readonly body: Readonly<Record<string, unknown>>; readonly seconds: number }

beforeAll(async () => {
  pair = stack.use(await startPostgresPair())
  line = stack.use(await openSwitchboard(pair.primaryPort))
  collector = stack.use(await startCollector({ TALLYLIGHT_POSTGRES_URL: pair.urlOf(line.port) }))
  owner = connectTo(pair.primaryPort)
}, 60_000)
afterAll(() => stack.disposeAsync())

function connectTo(port: number): pg.Pool {
  const pool = openPool({ connectionString: pair.urlOf(port), max: 1 }, () => undefined)
  stack.defer(() => pool.end())
  return pool
}

async function call(method: string, path: string, body: object): Promise<Reply> {
  const startedMs = performance.now()
  const response = await fetch(`http://127.0.0.1:${collector.ports().api}/v1/quota/${path}`, {
    method,
    headers: { Authorization: `Bearer ${collector.adminKey}` },
    body: JSON.stringify(body),
  })
  const json = (await response.json()) as Reply['body']
  return { status: response.status, body: json, seconds: (performance.now() - startedMs) / 1000 }
}

function reserve(conversation: string, callId: string): Promise<Reply> {
  return call('POST', 'reservations', {
    callId,
    conversation,
    model: 'm',
    estimate: { costNanoUsd: 1 },
    ttlMs: 600_000,
  })
}

async function reserveUntilAnswered(conversation: string, callId: string): Promise<Reply> {
  for (;;) {
    const reply = await reserve(conversation, callId)
    if (reply.status !== 503) return reply
    expect(reply.body).toMatchObject({ policy: 'closed', verdict: 'deny' })
  }
}

/** A limit of its own, of so many requests. */
async function putLimit(conversation: string, amount: number): Promise<void> {
  const limit = { subject: { conversation }, measure: 'requests', amount, window: 'ever', action: 'block' }
  expect((await call('PUT', `limits/${conversation}`, limit)).status).toBe(201)
}

async function held(conversation: string): Promise<number> {
  const { rows } = await owner.query('select held::int from quota_balances where limit_id = $1', [conversation])
  return rows[0]?.held ?? 0
}

test('quota: with no connection left answers are 503 with the verdict, and afterwards the same call is granted once', async () => {
  await putLimit('full', 5)
  expect((await reserve('full', 'full before')).status).toBe(201)
  line.set({ kind: 'cut' })
  line.set({ kind: 'full' })
  for (let times = 0; times < 3; times++) {
    const reply = await reserve('full', 'full')
    expect(reply.status).toBe(503)
    expect(reply.body).toMatchObject({ policy: 'closed', verdict: 'deny' })
  }
  line.set({ kind: 'through', delayMs: 0 })
  expect((await reserveUntilAnswered('full', 'full')).status).toBe(201)
  expect(await held('full')).toBe(2)
}, 30_000)

test('quota: a slow Postgres is waited for up to a bound; a call that was told 503 and was booked all the same is held once', async () => {
  await putLimit('slow', 5)
  line.set({ kind: 'through', delayMs: 100 })
  expect((await reserve('slow', 'in time')).status).toBe(201)
  line.set({ kind: 'through', delayMs: 1_500 })
  const late = await reserve('slow', 'late')
  expect(late.status).toBe(503)
  expect(late.seconds).toBeLessThan(6)
  line.set({ kind: 'through', delayMs: 0 })
  expect((await reserveUntilAnswered('slow', 'late')).status).toBe(201)
  expect(await held('slow')).toBe(2)
}, 30_000)

test('quota: connections that are dead without a word are found in seconds, and what comes next has new ones', async () => {
  await putLimit('silent', 5)
  expect((await reserve('silent', 'before')).status).toBe(201)
  line.set({ kind: 'silent' })
  const silent = await reserve('silent', 'silent')
  expect(silent.status).toBe(503)
  expect(silent.seconds).toBeLessThan(6)
  // The old ones stay dead: only new ones get through.
  line.set({ kind: 'through', delayMs: 0 })
  const startedMs = performance.now()
  expect((await reserveUntilAnswered('silent', 'silent')).status).toBe(201)
  expect(performance.now() - startedMs).toBeLessThan(15_000)
  expect(await held('silent')).toBe(2)
}, 60_000)

test('quota: while the primary dies and its standby takes over, exactly what fits is granted, and no grant is lost', async () => {
  await putLimit('failover', 200)
  const statuses = new Map<string, number>()
  const ask = async (callId: string): Promise<void> => {
    const { status, body } = await reserve('failover', callId)
    if (status === 503) expect(body).toMatchObject({ policy: 'closed', verdict: 'deny' })
    statuses.set(callId, status)
  }
  const calls = Array.from({ length: 300 }, (_, at) => `call ${at}`)
  for (const callId of calls.slice(0, 50)) await ask(callId)
  // The next are on their way when it dies.
  const underWay = Promise.all(calls.slice(50, 100).map(ask))
  await pair.killPrimary()
  line.set({ kind: 'cut' })
  await underWay
  expect((await reserve('failover', 'away')).body).toMatchObject({ status: 503, policy: 'closed', verdict: 'deny' })
  const grantedBefore = calls.filter((callId) => statuses.get(callId) === 201)
  expect(grantedBefore.length).toBeGreaterThanOrEqual(50)
  await pair.promoteStandby()
  line.set({ kind: 'through', delayMs: 0 }, pair.standbyPort)
  owner = connectTo(pair.standbyPort)
  const answered = await Promise.all(
    calls.map(async (callId) => ({ callId, status: (await reserveUntilAnswered('failover', callId)).status })),
  )
  const granted = answered.filter(({ status }) => status === 201).map(({ callId }) => callId)
  expect(granted).toHaveLength(200)
  expect(answered.filter(({ status }) => status === 429)).toHaveLength(100)
  expect(granted).toEqual(expect.arrayContaining(grantedBefore))
  expect(await held('failover')).toBe(200)
  expect((await owner.query('select * from quota_drift')).rows).toEqual([])
}, 60_000)
