import type { ClickHouse } from '@tallylight/storage/clickhouse/client.ts'
import { migrateClickHouse } from '@tallylight/storage/clickhouse/migrate.ts'
import { type TargetTable, verifySchema } from '@tallylight/storage/clickhouse/schema.ts'
import { startTestEngine, type TestEngine } from '@tallylight/storage/clickhouse/testing.ts'
import { withConnection } from '@tallylight/storage/postgres/connection.ts'
import { migratePostgres } from '@tallylight/storage/postgres/migrate.ts'
import { startTestPostgres, type TestPostgres } from '@tallylight/storage/postgres/testing.ts'
import type pg from 'pg'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { type RetentionClass, retentionDefaults } from '../config.ts'
import { encodeFact } from '../genai/fact.ts'
import { factsOf } from '../genai/lift.ts'
import { sketchSpan } from '../genai/testing.ts'
import { limits } from '../limits.ts'
import type { TenantId } from '../receive/request.ts'
import { type Holds, openHolds } from './holds.ts'
import { openMutations } from './mutations.ts'
import { openRetention, type Retention } from './retention.ts'
import { openSelections } from './selection.ts'

let engine: TestEngine
let postgres: TestPostgres
beforeAll(async () => {
  ;[engine, postgres] = await Promise.all([startTestEngine(), startTestPostgres()])
})
afterAll(async () => {
  await engine[Symbol.asyncDispose]()
  await postgres[Symbol.asyncDispose]()
})

type Days = Readonly<Record<string, Partial<Record<RetentionClass, number>>>>
type Store = {
  readonly clickhouse: ClickHouse
  readonly holds: Holds
  withDays(days: Days, mutated?: () => Promise<void>): Retention
}
const never = new AbortController().signal
const tables = [
  'otel_traces',
  'otel_logs',
  'genai_facts',
  'genai_contents',
  'llm_call_rows',
  'message_rows',
  'audit_event_rows',
]

async function openStore(name: string): Promise<Store> {
  const clickhouse = await engine.open(name, false)
  await migrateClickHouse(clickhouse)
  const schema = await verifySchema(clickhouse)
  if (schema.kind !== 'verified') throw new Error(schema.problems.join('; '))
  const targetOf = (table: string): TargetTable | undefined => schema.targets.get(table)
  const database: pg.Pool = await postgres.open(name)
  await withConnection(database, migratePostgres)
  await database.query("insert into tenants (id) values ('acme'), ('globex') on conflict do nothing")
  const problems: string[] = []
  const mutations = openMutations(clickhouse, (message) => problems.push(message))
  const selections = openSelections(clickhouse, targetOf, mutations)
  const holds = openHolds(database, selections)
  return {
    clickhouse,
    holds,
    withDays: (days, mutated) =>
      openRetention({
        clickhouse,
        targetOf,
        selections,
        mutations: {
          ...mutations,
          mutate: async (...change) => {
            await mutations.mutate(...change)
            await mutated?.()
          },
        },
        holds,
        daysOf: (kept, tenant) => days[tenant]?.[kept] ?? retentionDefaults[kept],
        tenants: Object.keys(days),
        onProblem: (message) => problems.push(message),
      }),
  }
}

/** One call of a user ten days ago, in every table that it would be in, and an audit event. */
async function insertCall({ clickhouse }: Store, tenant: string, user: string): Promise<void> {
  const traceId = `${tenant}${user}`.padEnd(32, '0')
  const start = BigInt(Date.now() - 10 * 86_400_000) * 1_000_000n
  const span = sketchSpan({
    tenantId: tenant as TenantId,
    traceId,
    startUnixNano: start,
    endUnixNano: start,
    attributes: { 'gen_ai.operation.name': 'chat', 'gen_ai.request.model': 'm', 'user.id': user },
  })
  const [fact] = factsOf(span).facts
  if (fact === undefined) throw new Error('no dialect knows the call')
  const at = `fromUnixTimestamp64Nano(${start})`
  const insert = (table: string, columns: string, values: string): Promise<void> =>
    clickhouse.command(
      `INSERT INTO ${clickhouse.database}.${table} (TenantId, ${columns}) SELECT '${tenant}', ${values}`,
    )
  await insert('otel_traces', 'RetentionDays, Timestamp, TraceId, SpanId', `30, ${at}, '${traceId}', '${span.spanId}'`)
  await insert('otel_logs', 'RetentionDays, Timestamp, LogAttributes', `30, ${at}, map('user.id', '${user}')`)
  await insert(
    'genai_facts',
    'RetentionDays, Timestamp, TraceId, SpanId, FactId, Fact',
    `90, ${at}, '${traceId}', '${span.spanId}', 'span', '${encodeFact(fact).replaceAll("'", "\\'")}'`,
  )
  await insert(
    'genai_contents',
    'RetentionDays, Time, UserId, Hash, Text',
    `90, ${at}, '${user}', 'hash${user}', 'text'`,
  )
  await insert('llm_call_rows', 'RetentionDays, Timestamp, TraceId, UserId', `90, ${at}, '${traceId}', '${user}'`)
  await insert(
    'message_rows',
    'RetentionDays, Timestamp, TraceId, UserId, ContentHash',
    `90, ${at}, '${traceId}', '${user}', 'hash${user}'`,
  )
  await insert('audit_event_rows', 'RetentionDays, Timestamp, TraceId, Actor', `365, ${at}, '', '${user}'`)
}

/** Days of each tenant's rows, user by user in the order of `users`; undefined is gone. */
async function daysIn({ clickhouse }: Store, tenant: string): Promise<Readonly<Record<string, readonly number[]>>> {
  const { database } = clickhouse
  const found: Record<string, readonly number[]> = {}
  for (const table of tables) {
    const rows = await clickhouse.query<{ days: number }>(
      `SELECT RetentionDays AS days FROM ${database}.${table} WHERE TenantId = '${tenant}' ORDER BY days`,
    )
    found[table] = rows.map(({ days }) => days)
  }
  return found
}

const asWritten = {
  otel_traces: [30],
  otel_logs: [30],
  genai_facts: [90],
  genai_contents: [90],
  llm_call_rows: [90],
  message_rows: [90],
  audit_event_rows: [365],
}
const allHeld = Object.fromEntries(tables.map((table) => [table, [limits.heldRetentionDays]]))

test('retention: rows follow a changed configuration by tenant and class, those past their new end vanish, and a dry run only counts', async () => {
  const store = await openStore('followed')
  await insertCall(store, 'acme', 'ada')
  await insertCall(store, 'globex', 'ada')
  const retention = store.withDays({ acme: { traces: 60, chat: 7, tools: 7, audit: 400 } })
  const counts = {
    otel_traces: { held: 0, changed: 1, vanishing: 0 },
    genai_facts: { held: 0, changed: 1, vanishing: 1 },
    genai_contents: { held: 0, changed: 1, vanishing: 1 },
    llm_call_rows: { held: 0, changed: 1, vanishing: 1 },
    message_rows: { held: 0, changed: 1, vanishing: 1 },
    audit_event_rows: { held: 0, changed: 1, vanishing: 0 },
  }
  expect(await retention.apply('all', true, never)).toEqual(counts)
  expect(await daysIn(store, 'acme')).toEqual(asWritten)
  expect(await retention.apply('all', false, never)).toEqual(counts)
  expect(await daysIn(store, 'acme')).toEqual({
    otel_traces: [60],
    otel_logs: [30],
    genai_facts: [],
    genai_contents: [],
    llm_call_rows: [],
    message_rows: [],
    audit_event_rows: [400],
  })
  expect(await daysIn(store, 'globex')).toEqual(asWritten)
  expect(await retention.apply('all', false, never)).toEqual({})
})

test('retention: what is held outlives a shorter retention and merges, what comes under a hold is held too, and both end with its release', async () => {
  const store = await openStore('held')
  await insertCall(store, 'acme', 'ada')
  await insertCall(store, 'globex', 'ada')
  const hold = await store.holds.place(
    { tenantId: 'acme' as TenantId, kind: 'user', name: 'ada', reason: 'case 7' },
    'somebody',
  )
  const short = Object.fromEntries(Object.keys(retentionDefaults).map((kept) => [kept, 1]))
  const retention = store.withDays({ acme: short })
  expect(await retention.apply('holds', false, never)).toMatchObject({ otel_logs: { held: 1, changed: 0 } })
  expect(await daysIn(store, 'acme')).toEqual(allHeld)
  expect(await daysIn(store, 'globex')).toEqual(asWritten)
  await insertCall(store, 'acme', 'ada')
  await insertCall(store, 'acme', 'bob')
  await retention.apply('all', false, never)
  for (const table of tables) await store.clickhouse.command(`OPTIMIZE TABLE held.${table} FINAL`)
  for (const [table, days] of Object.entries(await daysIn(store, 'acme')))
    expect(new Set(days), table).toEqual(new Set([limits.heldRetentionDays]))
  await store.holds.release(hold.id, 'somebody', undefined)
  await retention.apply('holds', false, never)
  expect(await daysIn(store, 'acme')).toEqual(Object.fromEntries(tables.map((table) => [table, []])))
})

test('retention: a hold that is placed while a shorter retention is applied is on every row that is not gone yet', async () => {
  const store = await openStore('overtaken')
  const tenantId = 'acme' as TenantId
  await insertCall(store, 'acme', 'ada')
  await insertCall(store, 'acme', 'bob')
  // So that the first mutation marks his rows in the first table, and the second would take hers.
  await store.holds.place({ tenantId, kind: 'user', name: 'bob', reason: 'case 9' }, 'somebody')
  const days = { acme: Object.fromEntries(Object.keys(retentionDefaults).map((kept) => [kept, 1])) }
  let isPlaced = false
  const retention = store.withDays(days, async () => {
    if (isPlaced) return
    isPlaced = true
    await store.holds.place({ tenantId, kind: 'user', name: 'ada', reason: 'case 10' }, 'somebody')
    await store.withDays(days).apply('holds', false, never)
  })
  await retention.apply('all', false, never)
  for (const table of tables) await store.clickhouse.command(`OPTIMIZE TABLE overtaken.${table} FINAL`)
  const { heldRetentionDays } = limits
  const bothHeld = Object.fromEntries(tables.map((table) => [table, [heldRetentionDays, heldRetentionDays]]))
  // Both audit events have the same key, and are one row.
  expect(await daysIn(store, 'acme')).toEqual({ ...bothHeld, audit_event_rows: [heldRetentionDays] })
})

test('retention: a hold on a tenant is on every row of it', async () => {
  const store = await openStore('whole')
  await insertCall(store, 'acme', 'ada')
  await insertCall(store, 'globex', 'bob')
  await store.holds.place({ tenantId: 'acme' as TenantId, kind: 'tenant', name: '', reason: 'case 8' }, 'somebody')
  await store.withDays({}).apply('all', false, never)
  expect(await daysIn(store, 'acme')).toEqual(allHeld)
  expect(await daysIn(store, 'globex')).toEqual(asWritten)
})

test('retention: held rows have no end in the time that 32 bits can tell', async () => {
  const { clickhouse } = await openStore('ends')
  const [row] = await clickhouse.query<{ end: string }>(
    `SELECT toString(toDateTime('2037-01-01 00:00:00', 'UTC') + toIntervalDay(${limits.heldRetentionDays})) AS end`,
  )
  expect(row?.end).toBe('2105-06-14 00:00:00')
})
