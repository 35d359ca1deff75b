import { afterAll, beforeAll, expect, test } from 'vitest'
import type { ClickHouse } from './client.ts'
import { resolvedTables } from './genai-tables.ts'
import { type Migration, migrateClickHouse, readMigrations, statementsOf } from './migrate.ts'
import { dumpSchema, schemaDifferences } from './schema-dump.ts'
import { journalTables, traceTimesTable } from './tables.ts'
import { startTestEngine, type TestEngine } from './testing.ts'

let engine: TestEngine
beforeAll(async () => {
  engine = await startTestEngine()
})
afterAll(() => engine[Symbol.asyncDispose]())

const written = [...journalTables, traceTimesTable, ...resolvedTables]
const views =
  'genai_texts llm_calls tool_calls turns messages wrapper_messages embeddings health_checks errors audit_events'.split(
    ' ',
  )
const metricViews = ['genai_metric_coverage', 'genai_metrics']
const ours = [
  ...written.map((table) => table.name),
  ...views,
  ...metricViews,
  'record_selections',
  'awaited_spans',
].toSorted()

async function tablesOf(client: ClickHouse): Promise<readonly string[]> {
  const rows = await client.query<{ name: string }>(
    'SELECT name FROM system.tables WHERE database = {database:String} ORDER BY name',
    { database: client.database },
  )
  return rows.map(({ name }) => name).filter((name) => name !== 'schema_migrations')
}

/** A client whose n-th command fails, and all behind it: what a crash in the middle leaves. */
function crashingAt(client: ClickHouse, commandNumber: number): ClickHouse {
  let count = 0
  return {
    ...client,
    command: async (sql, parameters) => {
      if (++count >= commandNumber) throw new Error('crashed')
      await client.command(sql, parameters)
    },
  }
}

function later(number: number, sql: string): Migration {
  return { number, name: `${String(number).padStart(4, '0')}_later.sql`, sql, checksum: `sum of ${sql}` }
}

test('migrate: an empty server gets the database and every table, with the columns of tables.ts in their order', async () => {
  const client = await engine.open('fresh', false)
  const migrated = await migrateClickHouse(client)
  expect(migrated.leftAlone).toEqual([])
  expect(migrated.created.toSorted()).toEqual(ours)
  for (const { name, columns } of written) {
    const found = await client.query<{ name: string; type: string }>(
      "SELECT name, type FROM system.columns WHERE database = 'fresh' AND table = {name:String} AND default_kind = '' ORDER BY position",
      { name },
    )
    // Names in a list are sent as they are, since a block's dictionary is small, and kept with the table's dictionary.
    expect(
      found.map((column) => [column.name, column.type.replace('Array(LowCardinality(String))', 'Array(String)')]),
      name,
    ).toEqual(columns.map(([column, type]) => [column, type.replace('Array(LowCardinality(String))', 'Array(String)')]))
  }
  expect(await migrateClickHouse(client)).toEqual({ applied: [], leftAlone: [], created: [] })
})

test('migrate: the record of the migrations outlives a power cut as the tables do, also where it was made without', async () => {
  const client = await engine.open('synced', false)
  const settings = async (): Promise<string> => {
    const [{ sql } = { sql: '' }] = await client.query<{ sql: string }>(
      "SELECT create_table_query AS sql FROM system.tables WHERE database = 'synced' AND name = 'schema_migrations'",
    )
    return sql.slice(sql.indexOf('SETTINGS'))
  }
  await expect(migrateClickHouse(crashingAt(client, 4))).rejects.toThrow('crashed')
  expect(await settings()).toContain('fsync_after_insert = 1, fsync_part_directory = 1')
  await client.command('ALTER TABLE synced.schema_migrations RESET SETTING fsync_after_insert')
  expect(await settings()).not.toContain('fsync_after_insert')
  await migrateClickHouse(client)
  expect(await settings()).toContain('fsync_after_insert = 1')
})

test('migrate: two collectors that start at once end in one schema, and neither takes the other’s tables for a user’s', async () => {
  for (const round of [1, 2, 3, 4, 5]) {
    const clients = await Promise.all([1, 2, 3].map(() => engine.open(`race_${round}`, false)))
    await Promise.all(clients.map((client) => migrateClickHouse(client)))
    const [client] = clients
    expect(await tablesOf(client!)).toEqual(ours)
    expect((await migrateClickHouse(client!, 'MergeTree')).leftAlone).toEqual([])
  }
})

test('migrate: after a crash at any statement the next start goes on, and in the end all is there', async () => {
  const client = await engine.open('crashed', false)
  const migrations = await readMigrations()
  for (const [index, { name, sql }] of migrations.entries()) {
    const upToThis = migrations.slice(0, index + 1)
    let crashes = 0
    const start = () => migrateClickHouse(crashingAt(client, crashes + 1), 'MergeTree', upToThis)
    const isCrash = (error: Error) => error.message === 'crashed'
    // Each start finds what the one before left, which is one command less than it comes to itself.
    while (await start().then(() => false, isCrash)) crashes++
    expect(crashes, name).toBeGreaterThan(statementsOf(sql, 'x', 'MergeTree').length)
  }
  expect(await migrateClickHouse(client)).toEqual({ applied: [], leftAlone: [], created: [] })
  expect(await tablesOf(client)).toEqual(ours)
})

test('migrate: a user’s own tables stay as they are, now and in every later migration; missing ones are made, and no view on the user’s', async () => {
  const client = await engine.open('brought')
  await client.command(
    'CREATE TABLE brought.otel_traces (Timestamp DateTime64(9)) ENGINE = MergeTree ORDER BY Timestamp',
  )
  await client.command(
    'CREATE TABLE brought.otel_metrics_exponential_histogram (TimeUnix DateTime) ENGINE = MergeTree ORDER BY TimeUnix',
  )
  const first = await migrateClickHouse(client)
  expect(first.leftAlone).toEqual(['otel_metrics_exponential_histogram', 'otel_traces'])
  expect(first.created.toSorted()).toEqual(
    ours.filter((name) => !['otel_traces', 'otel_metrics_exp_histogram', ...metricViews].includes(name)),
  )
  const alter = ['otel_traces', 'otel_logs', 'otel_metrics_exp_histogram'].map(
    (table) => `ALTER TABLE {database}.${table} ADD COLUMN IF NOT EXISTS Later String;\n`,
  )
  const second = await migrateClickHouse(client, 'MergeTree', [...(await readMigrations()), later(9, alter.join(''))])
  expect(second).toMatchObject({ applied: ['0009_later.sql'], leftAlone: first.leftAlone, created: [] })
  const altered = await client.query("SELECT table FROM system.columns WHERE database = 'brought' AND name = 'Later'")
  expect(altered).toEqual([{ table: 'otel_logs' }])
  expect(await client.query('DESCRIBE TABLE brought.otel_traces')).toHaveLength(1)
})

test('migrate: a number that this version does not know, and a migration that was edited, are refused with both named', async () => {
  const client = await engine.open('foreign_versions', false)
  const migrations = await readMigrations()
  const newest = migrations.length
  await migrateClickHouse(client)
  const edited = migrations.map((each) => ({ ...each, checksum: 'f'.repeat(64) }))
  await expect(migrateClickHouse(client, 'MergeTree', edited)).rejects.toThrow(
    /migration 000\d_\w+.sql is not the one that the database foreign_versions got \(SHA-256 ffffffffffff…, there [0-9a-f]{12}…\)/,
  )
  await migrateClickHouse(client, 'MergeTree', [
    ...migrations,
    later(newest + 1, 'ALTER TABLE {database}.otel_logs ADD COLUMN IF NOT EXISTS x String;'),
  ])
  await expect(migrateClickHouse(client)).rejects.toThrow(
    `the database foreign_versions has migration ${newest + 1}, and this collector knows up to ${newest}`,
  )
})

test('migrate: names of databases are quoted, and an engine that ends the statement is refused', async () => {
  const odd = 'odd`; {engine}"\\ name'
  const client = await engine.open(odd, false)
  await migrateClickHouse(client)
  expect(await tablesOf(client)).toEqual(ours)
  await expect(migrateClickHouse(client, 'MergeTree ORDER BY 1; DROP DATABASE fresh')).rejects.toThrow(
    /no engine of the MergeTree family/,
  )
  const replicated = "ReplicatedMergeTree('/clickhouse/{database}/{uuid}/{shard}', '{replica}')"
  const statements = (await readMigrations()).flatMap(({ sql }) => statementsOf(sql, 'd', replicated))
  for (const statement of statements) {
    expect(statement).toMatch(/(CREATE (TABLE|VIEW|DICTIONARY) IF NOT EXISTS|ALTER TABLE) `d`\./)
    if (statement.includes('CREATE TABLE'))
      expect(statement).toMatch(
        /ENGINE = Replicated(Replacing)?MergeTree\('\/clickhouse\/\{database\}\/\{uuid\}\/\{shard\}', '\{replica\}'/,
      )
  }
  const superseded = statements.find((statement) => statement.includes('llm_call_rows'))
  expect(superseded).toContain("'{replica}', Generation, IsDeleted)")
})

test('migrate: a migration that does more than create or alter one table is refused before it runs', async () => {
  const client = await engine.open('too_much', false)
  await expect(migrateClickHouse(client, 'MergeTree', [later(1, 'DROP DATABASE {database};')])).rejects.toThrow(
    /may create or alter one table/,
  )
  expect(await client.query("SELECT name FROM system.databases WHERE name = 'too_much'")).toHaveLength(1)
})

test('migrate: schema.sql is the schema that the migrations make', async () => {
  const client = await engine.open('dumped', false)
  await migrateClickHouse(client)
  await expect(await dumpSchema(client)).toMatchFileSnapshot('./schema.sql')
})

test('schema: a column, an index, a TTL or a window that is changed by hand is named, and what is said to mend it does', async () => {
  const client = await engine.open('changed', false)
  await migrateClickHouse(client)
  expect(await schemaDifferences(client)).toEqual([])
  await client.command('ALTER TABLE changed.otel_logs DROP COLUMN EventName')
  await client.command('ALTER TABLE changed.otel_logs ADD COLUMN Own String')
  await client.command('ALTER TABLE changed.turn_rows MODIFY SETTING non_replicated_deduplication_window = 1')
  await client.command('DROP VIEW changed.turns')
  await client.command('ALTER TABLE changed.otel_logs MODIFY COLUMN Body LowCardinality(String) CODEC(ZSTD(1))')
  await client.command('ALTER TABLE changed.turn_rows MODIFY TTL toDateTime(Timestamp) + toIntervalDay(1)')
  await client.command('ALTER TABLE changed.audit_event_rows DROP INDEX idx_trace_id')
  const differences = await schemaDifferences(client)
  expect(differences.map(({ what }) => what).toSorted()).toEqual([
    'audit_event_rows: INDEX idx_trace_id is missing, and should be TraceId TYPE bloom_filter(0.001) GRANULARITY 1',
    'otel_logs: `Body` is LowCardinality(String) CODEC(ZSTD(1)), and should be String CODEC(ZSTD(1))',
    'otel_logs: `EventName` is missing, and should be String CODEC(ZSTD(1))',
    'otel_logs: `Own` is String, and should be away',
    'turn_rows: SETTING non_replicated_deduplication_window is 1, and should be 10000',
    'turn_rows: TTL is toDateTime(Timestamp) + toIntervalDay(1), and should be toDateTime(Timestamp) + toIntervalDay(RetentionDays)',
    'turns is missing',
  ])
  for (const { mend } of differences)
    for (const statement of mend
      .replace(/--.*/, '')
      .split(';')
      .filter((text) => text.trim() !== ''))
      await client.command(`${statement} SETTINGS mutations_sync = 1`.replace(/(MODIFY SETTING .*) SETTINGS .*/, '$1'))
  // As a collector that starts anew.
  await migrateClickHouse(client)
  expect(await schemaDifferences(client)).toEqual([])
})
