// Settlement by record: what a span over OTLP says a call used settles its reservation, whatever became of the client, the
// collector and the answer, and however often the span comes.
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { openReconciler } from '@tallylight/collector/quota/reconcile.ts'
import { recordedCallsOf, recordedSumsOf } from '@tallylight/collector/sinks/usage-of-calls.ts'
import { openClickHouse } from '@tallylight/storage/clickhouse/client.ts'
import { openPool } from '@tallylight/storage/postgres/connection.ts'
import pg from 'pg'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { type CollectorProcess, startCollector } from '../collector-process.ts'
import { spansRequest, type TestSpan } from '../spans.ts'

const stack = new AsyncDisposableStack()
let collector: CollectorProcess
let sent = 0

beforeAll(async () => {
  collector = stack.use(await startCollector())
}, 60_000)
afterAll(() => stack.disposeAsync())

type Json = Readonly<Record<string, unknown>>

async function quota(method: string, path: string, body?: object): Promise<Json> {
  const response = await fetch(`http://127.0.0.1:${collector.ports().api}/v1/quota/${path}`, {
    method,
    headers: { Authorization: `Bearer ${collector.adminKey}` },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  })
  const json = (await response.json()) as Json
  if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${JSON.stringify(json)}`)
  return json
}

async function limit(user: string): Promise<void> {
  const shape = { measure: 'cost', amount: 1_000_000_000, window: 'ever', action: 'block' }
  await quota('PUT', `limits/${user}`, { ...shape, subject: { user } })
}

/** Never settled by its client. */
async function reserve(user: string, callId: string, ttlMs = 60_000): Promise<string> {
  const estimate = { inputTokens: 10_000, outputTokensMax: 1_000 }
  const body = { callId, user, model: 'gpt-4o', provider: 'openai', estimate, ttlMs }
  return String((await quota('POST', 'reservations', body)).id)
}

/** 1,000 tokens in and 100 out of gpt-4o cost 0.0035 dollars. */
const costNanoUsd = 3_500_000
function callSpan(user: string, more: Partial<TestSpan> & { readonly callId?: string } = {}): TestSpan {
  const { callId, ...rest } = more
  const nowNano = BigInt(Date.now()) * 1_000_000n
  return {
    id: `${++sent}`.padStart(16, '0'),
    name: 'chat gpt-4o',
    startUnixNano: nowNano,
    endUnixNano: nowNano + 1_000_000_000n,
    attributes: {
      'gen_ai.operation.name': 'chat',
      'gen_ai.provider.name': 'openai',
      'gen_ai.request.model': 'gpt-4o',
      'gen_ai.usage.input_tokens': 1000,
      'gen_ai.usage.output_tokens': 100,
      'user.id': user,
      ...(callId === undefined ? {} : { 'tallylight.call.id': callId }),
    },
    ...rest,
  }
}

async function send(...spans: readonly TestSpan[]): Promise<void> {
  const response = await fetch(`http://127.0.0.1:${collector.ports().otlpHttp}/v1/traces`, {
    method: 'POST',
    headers: { 'Content-Type': 'application/x-protobuf' },
    body: new Uint8Array(spansRequest(spans)),
  })
  if (!response.ok) throw new Error(`the spans were answered ${response.status}`)
}

async function usageOf(user: string): Promise<unknown> {
  return ((await quota('GET', `usage?limit=${user}`)).usage as readonly unknown[])[0]
}

/** As a reader of the database, who may see the views. */
async function ask(sql: string): Promise<readonly Json[]> {
  const password = (await readFile(join(collector.directory, 'postgres.key'), 'utf8')).trim()
  const connectionString = `postgres://tallylight_read:${password}@127.0.0.1:${collector.ports().postgres}/tallylight`
  const client = new pg.Client({ connectionString })
  await client.connect()
  try {
    return (await client.query(sql)).rows
  } finally {
    await client.end()
  }
}

test('quota: a span settles the reservation of a client that died, once, however often it comes', async () => {
  await limit('dead')
  const id = await reserve('dead', 'call of the dead')
  expect(await usageOf('dead')).toMatchObject({ held: 35_000_000, spent: 0 })
  const span = callSpan('dead', { callId: 'call of the dead' })
  await send(span)
  await collector.drained()
  expect(await quota('GET', `reservations/${id}`)).toMatchObject({ state: 'settled' })
  expect(await usageOf('dead')).toMatchObject({ held: 0, spent: costNanoUsd })
  // Not the same bytes, so that nobody but the ledger can know it.
  await send(span, callSpan('dead', { attributes: {} }))
  await collector.drained()
  expect(await usageOf('dead')).toMatchObject({ held: 0, spent: costNanoUsd })
})

test('quota: what a client settled early its record corrects', async () => {
  await limit('early')
  const id = await reserve('early', 'early')
  await quota('POST', `reservations/${id}/settle`, { costNanoUsd: 5_000_000 })
  expect(await usageOf('early')).toMatchObject({ held: 0, spent: 5_000_000 })
  await send(callSpan('early', { callId: 'early' }))
  await collector.drained()
  expect(await usageOf('early')).toMatchObject({ held: 0, spent: costNanoUsd })
})

test('quota: an embedding settles its reservation as every call does, whether its client settles it or died', async () => {
  await limit('embedding')
  const attributes = {
    'gen_ai.operation.name': 'embeddings',
    'gen_ai.provider.name': 'openai',
    'gen_ai.request.model': 'text-embedding-3-small',
    'gen_ai.usage.input_tokens': 1_000_000,
    'user.id': 'embedding',
  }
  const reserveOne = async (callId: string): Promise<string> => {
    const estimate = { inputTokens: 1_000_000, outputTokensMax: 0 }
    const body = { callId, user: 'embedding', model: 'text-embedding-3-small', provider: 'openai', estimate }
    return String((await quota('POST', 'reservations', body)).id)
  }
  const settled = await reserveOne('embedding settled')
  await quota('POST', `reservations/${settled}/settle`, { usage: { inputTokens: 1_000_000, outputTokens: 0 } })
  const died = await reserveOne('embedding died')
  for (const callId of ['embedding settled', 'embedding died'])
    await send(callSpan('embedding', { attributes: { ...attributes, 'tallylight.call.id': callId } }))
  await collector.drained()
  // Twice 0.02 dollars.
  expect(await usageOf('embedding')).toMatchObject({ held: 0, spent: 2 * 20_000_000 })
  expect(await quota('GET', `reservations/${died}`)).toMatchObject({ state: 'settled' })
})

test('quota: a call without a reservation is charged, and of nested spans the innermost alone', async () => {
  await limit('nested')
  const traceId = 'b'.repeat(32)
  const agent = callSpan('nested', { traceId, name: 'invoke_agent' })
  const step = callSpan('nested', { traceId, name: 'step', parentId: agent.id, attributes: {} })
  const chat = callSpan('nested', { traceId, parentId: step.id })
  await send(chat, agent, step)
  await collector.drained()
  expect(await usageOf('nested')).toMatchObject({ held: 0, spent: costNanoUsd })
})

test('quota: a collector that is killed after it has answered books what it answered, once', async () => {
  await limit('killed')
  const ids = await Promise.all(Array.from({ length: 10 }, (_, at) => reserve('killed', `killed ${at}`)))
  for (const at of ids.keys()) {
    await send(callSpan('killed', { callId: `killed ${at}` }))
    if (at % 3 === 0) {
      await collector.kill('SIGKILL')
      await collector.start()
    }
  }
  await collector.drained()
  expect(await usageOf('killed')).toMatchObject({ held: 0, spent: 10 * costNanoUsd })
  expect(await ask('select * from quota_drift')).toEqual([])
}, 60_000)

test('quota: a reservation of which nothing comes is an orphan, until its record does', async () => {
  await limit('orphan')
  const id = await reserve('orphan', 'orphan', 1_000)
  while ((await quota('GET', `reservations/${id}`)).state !== 'expired')
    await collector.metric('tallylight_quota_expired_total')
  expect(await usageOf('orphan')).toMatchObject({ held: 0, spent: 0 })
  const orphans = "select call_id, user_id, model from quota_orphans where call_id = 'orphan'"
  expect(await ask(orphans)).toEqual([{ call_id: 'orphan', user_id: 'orphan', model: 'gpt-4o' }])
  await send(callSpan('orphan', { callId: 'orphan' }))
  await collector.drained()
  expect(await usageOf('orphan')).toMatchObject({ held: 0, spent: costNanoUsd })
  expect(await ask(orphans)).toEqual([])
})

test('quota: calls under a lease are booked to it by their records, and its end frees what is left', async () => {
  await limit('leased')
  const allowance = { costNanoUsd: 20_000_000, requests: 10 }
  const lease = await quota('POST', 'leases', { callId: 'lease', user: 'leased', allowance, ttlMs: 60_000 })
  expect(lease).toMatchObject({ holds: [{ limitId: 'leased', measure: 'cost', amount: 20_000_000 }] })
  await send(callSpan('leased', { callId: 'lease/1' }), callSpan('leased', { callId: 'lease/2' }))
  await collector.drained()
  expect(await usageOf('leased')).toMatchObject({ held: 20_000_000 - 2 * costNanoUsd, spent: 2 * costNanoUsd })
  const unspent = "select measure, unspent::int from quota_open_leases where call_id = 'lease'"
  expect(await ask(unspent)).toEqual([{ measure: 'cost', unspent: 20_000_000 - 2 * costNanoUsd }])
  await quota('POST', `reservations/${lease.id}/settle`, { costNanoUsd: 3 * costNanoUsd, requests: 3 })
  expect(await usageOf('leased')).toMatchObject({ held: 0, spent: 3 * costNanoUsd })
  expect(await ask(unspent)).toEqual([])
})

test('quota: the reconciler finds settled cost equal to recorded cost, and lists a call of which it is not', async () => {
  await using clickhouse = openClickHouse({
    url: `http://127.0.0.1:${collector.ports().clickhouse}`,
    user: 'tallylight',
    password: collector.adminKey,
    database: 'tallylight',
  })
  const password = (await readFile(join(collector.directory, 'postgres', 'owner.key'), 'utf8')).trim()
  await using pools = new AsyncDisposableStack()
  const connectionString = `postgres://tallylight:${password}@127.0.0.1:${collector.ports().postgres}/tallylight`
  const database = openPool({ connectionString, max: 1 }, () => undefined)
  pools.defer(() => database.end())
  const hourMs = 3_600_000
  const thisHour = Math.floor(Date.now() / hourMs) * hourMs
  const reconciler = openReconciler({
    database,
    recordedSums: (from, until) => recordedSumsOf(clickhouse, (table) => `tallylight.${table}`, from, until),
    recordedCalls: (from, until) => recordedCallsOf(clickhouse, (table) => `tallylight.${table}`, from, until),
    // The hour and what ends in a moment are over.
    now: () => thisHour + 2 * hourMs,
    bounds: { checkMs: 0, reconcileMs: 0, settlingMs: 0, confirmMs: 0, eventsKeptMs: 0, differencesMax: 100 },
    log: { warn: () => undefined },
  })
  // Calls that failed and told nothing cost nothing, on both sides.
  const failed = { 'gen_ai.provider.name': 'openai', 'gen_ai.request.model': 'gpt-4o', 'error.type': '429' }
  await send(
    callSpan('failed', { attributes: { ...failed, 'gen_ai.operation.name': 'chat' } }),
    callSpan('failed', { attributes: { ...failed, 'gen_ai.operation.name': 'embeddings' } }),
  )
  await collector.drained()
  const reconcileAll = async (): Promise<unknown> => {
    // The tests before may have begun an hour ago.
    for (const ago of [1, 0, -1]) await reconciler.reconcile(thisHour - ago * hourMs, AbortSignal.timeout(10_000))
    return reconciler.status()
  }
  expect(await reconcileAll()).toMatchObject({ differences: 0, driftNanoUsd: 0 })
  const sums =
    'select sum(recorded_calls)::int as recorded, sum(settled_calls)::int as settled, sum(drift_nano_usd)::int as drift from quota_reconciliation'
  expect(await ask(sums)).toEqual([{ recorded: 20, settled: 20, drift: 0 }])
  await database.query("update quota_events set cost_nano_usd = cost_nano_usd + 5 where event_key like '%0000000001'")
  expect(await reconcileAll()).toMatchObject({ differences: 1, driftNanoUsd: 5 })
  expect(await ask('select tenant, recorded_nano_usd::int, settled_nano_usd::int from quota_differences')).toEqual([
    { tenant: 'default', recorded_nano_usd: costNanoUsd, settled_nano_usd: costNanoUsd + 5 },
  ])
  expect((await database.query('select wrong::int from quota_check()')).rows).toEqual([{ wrong: 0 }])
  await database.query("update quota_accounts set spent = spent + 1, free = free - 1 where limit_id = 'dead'")
  await send(callSpan('dead'))
  await collector.drained()
  expect((await database.query('select wrong::int from quota_check()')).rows).toEqual([{ wrong: 1 }])
})
