import type { ClickHouse } from '@tallylight/storage/clickhouse/client.ts'
import { migrateClickHouse } from '@tallylight/storage/clickhouse/migrate.ts'
import { type TargetTable, verifySchema } from '@tallylight/storage/clickhouse/schema.ts'
import { startTestEngine, type TestEngine } from '@tallylight/storage/clickhouse/testing.ts'
import { withConnection } from '@tallylight/storage/postgres/connection.ts'
import { insertErasure } from '@tallylight/storage/postgres/erasures.ts'
import { migratePostgres } from '@tallylight/storage/postgres/migrate.ts'
import { startTestPostgres, type TestPostgres } from '@tallylight/storage/postgres/testing.ts'
import type pg from 'pg'
import { afterAll, beforeAll, expect, test, vi } from 'vitest'
import { encodeFact } from '../genai/fact.ts'
import { factsOf } from '../genai/lift.ts'
import { sketchSpan } from '../genai/testing.ts'
import type { TenantId } from '../receive/request.ts'
import type { TraceTimes } from '../sinks/known-facts.ts'
import { openRowErasure } from './erase-rows.ts'
import { type Erasures, openErasures } from './erasures.ts'
import { type Holds, openHolds } from './holds.ts'
import { type Mutations, openMutations } from './mutations.ts'
import { openSelections } from './selection.ts'
import type { Subject } from './subject.ts'

let engine: TestEngine
let postgres: TestPostgres
beforeAll(async () => {
  ;[engine, postgres] = await Promise.all([startTestEngine(), startTestPostgres()])
})
afterAll(async () => {
  await engine[Symbol.asyncDispose]()
  await postgres[Symbol.asyncDispose]()
})

/** So long that a busy machine does not make a collector silent, and so short that a test can wait for it. */
const silentMs = 3_000
const ada: Subject = { tenantId: 'acme' as TenantId, kind: 'user', name: 'ada-lovelace' }

type Store = {
  readonly clickhouse: ClickHouse
  readonly database: pg.Pool
  /** What the collectors did, in order: `one drains`, `one forgets`, `one goes on`. */
  readonly did: string[]
  readonly problems: string[]
  readonly holds: Holds
  readonly resolvedAgain: string[]
  /** A collector of this journal, until the signal. What is waited for holds it up. */
  collector(journal: string, signal: AbortSignal, waits?: Waits): Erasures
}
type Waits = {
  readonly drain?: () => Promise<void>
  readonly forget?: () => Promise<unknown>
  readonly mutated?: (table: string) => Promise<unknown>
}

async function openStore(name: string): Promise<Store> {
  const clickhouse = await engine.open(name, false)
  await migrateClickHouse(clickhouse)
  const schema = await verifySchema(clickhouse)
  if (schema.kind !== 'verified') throw new Error(schema.problems.join('; '))
  const targetOf = (table: string): TargetTable | undefined => schema.targets.get(table)
  const database = await postgres.open(name)
  await withConnection(database, migratePostgres)
  const did: string[] = []
  const problems: string[] = []
  const mutations = openMutations(clickhouse, (message) => problems.push(message))
  const selections = openSelections(clickhouse, targetOf, mutations)
  const holds = openHolds(database, selections)
  const resolvedAgain: string[] = []
  const resolveAgain = async (traces: readonly TraceTimes[]): Promise<void> =>
    void resolvedAgain.push(...traces.map(({ traceId }) => traceId))
  await clickhouse.command(
    `INSERT INTO ${name}.otel_traces (TenantId, RetentionDays, Timestamp, TraceId, SpanId, SpanAttributes)
     SELECT 'acme', 30, now(), concat('t', toString(number)), 's', map('user.id', if(number = 0, 'ada-lovelace', 'bob')) FROM numbers(3)`,
  )
  return {
    clickhouse,
    database,
    did,
    problems,
    holds,
    resolvedAgain,
    collector: (journal, signal, waits) => {
      const mutate: Mutations['mutate'] = async (target, ...change) => {
        await mutations.mutate(target, ...change)
        await waits?.mutated?.(target.table)
      }
      const erasures = openErasures({
        database,
        journal,
        rows: openRowErasure({ clickhouse, targetOf, selections, mutations: { ...mutations, mutate }, resolveAgain }),
        holds,
        drain: async () => {
          await waits?.drain?.()
          did.push(`${journal} drains`)
        },
        forget: async () => {
          did.push(`${journal} forgets`)
          await waits?.forget?.()
        },
        pauseKnownTexts: () => () => void did.push(`${journal} goes on`),
        onProblem: (message) => problems.push(message),
        onFinished: (state) => did.push(state),
        collectorSilentMs: silentMs,
      })
      void erasures.run(signal)
      return erasures
    },
  }
}

async function usersIn({ clickhouse }: Store): Promise<readonly string[]> {
  const rows = await clickhouse.query<{ user: string }>(
    `SELECT SpanAttributes['user.id'] AS user FROM ${clickhouse.database}.otel_traces ORDER BY user`,
  )
  return rows.map(({ user }) => user)
}

async function begin(erasures: Erasures): Promise<string> {
  const begun = await erasures.begin(ada, 'somebody')
  if (begun.kind === 'held') throw new Error(begun.reason)
  return begun.erasure.id
}

async function ended(erasures: Erasures, id: string): Promise<Awaited<ReturnType<Erasures['find']>>> {
  await vi.waitUntil(async () => (await erasures.find(id, undefined))?.finished_at !== null, 30_000)
  return erasures.find(id, undefined)
}

test('erasures: nothing goes before every collector has stored what it has, and no row before all have forgotten', async () => {
  const store = await openStore('together')
  const stopping = new AbortController()
  const other = Promise.withResolvers<void>()
  await store.database.query("insert into collectors values ('gone', now() - interval '1 hour')")
  const one = store.collector('one', stopping.signal)
  store.collector('two', stopping.signal, { drain: () => other.promise })
  await vi.waitUntil(async () => (await store.database.query('select from collectors')).rowCount === 3, 10_000)
  const id = await begin(one)
  await vi.waitUntil(() => store.did.includes('one drains'), 10_000)
  expect(await usersIn(store)).toEqual(['ada-lovelace', 'bob', 'bob'])
  other.resolve()
  expect(await ended(one, id)).toMatchObject({
    state: 'done',
    name: null,
    reason: '',
    erased: { otel_traces: 1 },
    absent: ['gone'],
  })
  expect(await usersIn(store)).toEqual(['bob', 'bob'])
  expect(store.did.slice(0, 2)).toEqual(['one drains', 'two drains'])
  expect(store.did.slice(2, 4).toSorted()).toEqual(['one forgets', 'two forgets'])
  await vi.waitUntil(() => store.did.includes('one goes on') && store.did.includes('two goes on'), 10_000)
  expect(store.problems).toEqual([])
  stopping.abort()
})

test('erasures: a collector that takes longer to store what it has than it may be silent is waited for', async () => {
  const store = await openStore('waited')
  const stopping = new AbortController()
  const other = Promise.withResolvers<void>()
  const one = store.collector('one', stopping.signal)
  store.collector('two', stopping.signal, { drain: () => other.promise })
  const { database } = store
  await vi.waitUntil(async () => (await database.query('select from collectors')).rowCount === 2, 10_000)
  const id = await begin(one)
  await vi.waitUntil(async () => (await stateOf(one, id)) !== 'draining' || (await isLongUnderWay(database)), 15_000)
  expect(await stateOf(one, id)).toBe('draining')
  expect(await usersIn(store)).toEqual(['ada-lovelace', 'bob', 'bob'])
  other.resolve()
  expect(await ended(one, id)).toMatchObject({ state: 'done', absent: [] })
  expect(store.problems).toEqual([])
  stopping.abort()
})

async function stateOf(erasures: Erasures, id: string): Promise<string | undefined> {
  return (await erasures.find(id, undefined))?.state
}

/** For longer than a collector that does not say anything would be waited for. */
async function isLongUnderWay(database: pg.Pool): Promise<boolean> {
  const long = `requested_at < now() - interval '${silentMs + 1_500} milliseconds'`
  return (await database.query(`select from erasures where ${long}`)).rowCount === 1
}

test('erasures: that a collector cannot be noted is said once, until it can', async () => {
  const problems: string[] = []
  const stopping = new AbortController()
  let noted = 0
  const query = (statement: string): Promise<object> => {
    if (!statement.startsWith('insert into collectors')) return Promise.resolve({ rows: [] })
    return ++noted <= 3 ? Promise.reject(new Error('away')) : Promise.resolve({})
  }
  const running = openErasures({
    database: { query } as unknown as pg.Pool,
    journal: 'one',
    rows: { count: unused, eraseFacts: unused, eraseRows: unused, resolveLeft: unused, gone: unused },
    holds: { list: unused, onSubject: unused, onSelection: unused },
    drain: unused,
    forget: unused,
    pauseKnownTexts: () => unused,
    onProblem: (message) => problems.push(message),
    onFinished: unused,
    collectorSilentMs: 300,
  }).run(stopping.signal)
  await vi.waitUntil(() => noted > 5, 20_000)
  expect(problems).toEqual(['erasures are not told that this collector is there: Error: away'])
  stopping.abort()
  await running
})

function unused(): never {
  throw new Error('there is no erasure')
}

test('erasures: one that its collector did not finish goes on when that is back, and not before', async () => {
  const store = await openStore('resumed')
  const first = new AbortController()
  const id = await begin(store.collector('one', first.signal, { drain: () => new Promise(() => undefined) }))
  await vi.waitUntil(async () => (await store.database.query('select from collectors')).rowCount === 1, 10_000)
  first.abort()
  await store.database.query("update collectors set seen_at = now() - interval '1 hour'")
  const second = new AbortController()
  const two = store.collector('two', second.signal)
  await vi.waitUntil(() => store.did.includes('two drains'), 10_000)
  expect(await usersIn(store)).toEqual(['ada-lovelace', 'bob', 'bob'])
  const one = store.collector('one', second.signal)
  expect(await ended(two, id)).toMatchObject({ state: 'done', erased: { otel_traces: 1 }, absent: [] })
  expect(await one.list('globex' as TenantId)).toEqual([])
  expect(await usersIn(store)).toEqual(['bob', 'bob'])
  second.abort()
})

const aHold = { ...ada, reason: 'a court asks' }

test('erasures: one that cannot go on, for whatever reason, keeps none behind it from its end', async () => {
  const store = await openStore('failing')
  const stopping = new AbortController()
  const one = store.collector('one', stopping.signal)
  const stuck = {
    kind: 'user',
    name: 'eve',
    salt: '',
    name_hash: '',
    requested_by: 'somebody',
    journal: 'one',
  } as const
  await withConnection(store.database, (client) => insertErasure(client, { tenant: 'no name of one', ...stuck }))
  const id = await begin(one)
  expect(await ended(one, id)).toMatchObject({ state: 'done', erased: { otel_traces: 1 } })
  expect(store.problems[0]).toContain('has no tenant or name any more')
  stopping.abort()
})

test('erasures: a hold that is placed after facts went keeps every row, and learns of the erasure', async () => {
  const store = await openStore('held_first')
  await store.database.query("insert into tenants (id) values ('acme') on conflict do nothing")
  const stopping = new AbortController()
  const placed = Promise.withResolvers<void>()
  const one = store.collector('one', stopping.signal, { forget: () => placed.promise })
  const id = await begin(one)
  await vi.waitUntil(() => store.did.includes('one forgets'), 10_000)
  const hold = await store.holds.place(aHold, 'somebody')
  expect(await store.holds.erasing(hold)).toEqual([id])
  placed.resolve()
  expect(await ended(one, id)).toMatchObject({
    state: 'refused',
    reason: expect.stringMatching(`legal hold ${hold.id} is on the user, .* some of .* may be gone`),
  })
  expect(await usersIn(store)).toEqual(['ada-lovelace', 'bob', 'bob'])
  expect(store.resolvedAgain).toEqual([])
  expect(await store.holds.erasing(hold)).toEqual([])
  stopping.abort()
})

test('erasures: a hold that is placed between two tables keeps the second, and what others had in the first is made again', async () => {
  const store = await openStore('held_later')
  await store.database.query("insert into tenants (id) values ('acme') on conflict do nothing")
  const startUnixNano = BigInt(Date.now()) * 1_000_000n
  const attributes = { 'gen_ai.operation.name': 'chat', 'gen_ai.request.model': 'm', 'user.id': 'bob' }
  const tenantId = ada.tenantId
  const [fact] = factsOf(
    sketchSpan({ tenantId, traceId: 't0', startUnixNano, endUnixNano: startUnixNano, attributes }),
  ).facts
  if (fact === undefined) throw new Error('no dialect knows the call')
  const insert = (table: string, columns: string, values: string): Promise<void> =>
    store.clickhouse.command(
      `INSERT INTO held_later.${table} (TenantId, RetentionDays, Timestamp, TraceId, SpanId, ${columns}) SELECT 'acme', 30, now(), 't0', ${values}`,
    )
  await insert('otel_logs', 'LogAttributes', "'s', map('user.id', 'ada-lovelace')")
  await insert('genai_facts', 'FactId, Fact', `'${fact.spanId}', 'span', '${encodeFact(fact).replaceAll("'", "\\'")}'`)
  const stopping = new AbortController()
  const mutated = async (table: string): Promise<unknown> =>
    table === 'otel_traces' && (await store.holds.place(aHold, 'somebody'))
  const one = store.collector('one', stopping.signal, { mutated })
  expect(await ended(one, await begin(one))).toMatchObject({
    state: 'refused',
    reason: expect.stringContaining('may be gone'),
    erased: { otel_traces: 1, otel_logs: 1 },
  })
  expect(await usersIn(store)).toEqual(['bob', 'bob'])
  expect(await store.clickhouse.query('SELECT SpanId FROM held_later.otel_logs')).toEqual([{ SpanId: 's' }])
  expect(store.resolvedAgain).toEqual(['t0'])
  expect(store.problems).toEqual([])
  stopping.abort()
})

test('erasures: what the server keeps of its statements, and Postgres of the erasure, does not name the user', async () => {
  const store = await openStore('unnamed')
  const stopping = new AbortController()
  const one = store.collector('one', stopping.signal)
  await ended(one, await begin(one))
  stopping.abort()
  const mutations = await store.clickhouse.query<{ command: string }>(
    "SELECT command FROM system.mutations WHERE database = 'unnamed'",
  )
  expect(mutations.length).toBeGreaterThan(0)
  expect(JSON.stringify(mutations)).not.toContain('ada-lovelace')
  const rows = await store.database.query(
    'select to_jsonb(e) as row from erasures e union all select to_jsonb(a) from quota_audit a',
  )
  expect(rows.rowCount).toBeGreaterThan(2)
  expect(JSON.stringify(rows.rows)).not.toContain('ada-lovelace')
})
