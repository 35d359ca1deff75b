import assert from 'node:assert/strict'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { type ClickHouse, insertSettings } from './client.ts'
import { takes } from './column-types.ts'
import { resolvedTables } from './genai-tables.ts'
import { migrateClickHouse } from './migrate.ts'
import { type TargetTable, verifySchema } from './schema.ts'
import { journalTables, ownColumns, traceTimesTable } from './tables.ts'
import { insertSamples, sampleOf, selectSamples, startTestEngine, type TestEngine } from './testing.ts'

let engine: TestEngine
beforeAll(async () => {
  engine = await startTestEngine()
})
afterAll(() => engine[Symbol.asyncDispose]())

const wanted = [...journalTables, traceTimesTable, ...resolvedTables]

/** How a generation of the exporter's tables differs from ours: a type in the place of another, undefined for none. */
type Generation = {
  readonly type: (table: string, column: string, ours: string) => string | undefined
  readonly name?: (table: string) => string
  readonly extra?: Readonly<Record<string, string>>
  readonly settings?: string
}

const withoutOurs = (_table: string, column: string, ours: string): string | undefined =>
  ownColumns.includes(column) ? undefined : ours

const generations: Readonly<Record<string, Generation>> = {
  'the exporter of 2023: signed durations, wide small numbers, String metric names, no event name': {
    type: (table, column, ours) => {
      if (column === 'Duration') return 'Int64'
      if (column === 'TraceFlags') return 'UInt32'
      if (column === 'SeverityNumber') return 'Int32'
      if (column === 'MetricName') return 'String'
      if (column === 'EventName') return undefined
      if (table === 'otel_traces_trace_id_ts' && ours === 'DateTime') return 'DateTime64(9)'
      return withoutOurs(table, column, ours)
    },
    name: (table) => table.replace('exp_histogram', 'exponential_histogram'),
    extra: { otel_logs: 'TimestampTime DateTime DEFAULT toDateTime(Timestamp)' },
  },
  'the newest exporter: metric times in seconds, computed columns': {
    type: (table, column, ours) => {
      if (/TimeUnix$/.test(column)) return ours.replace('DateTime64(9)', 'DateTime')
      if (table === 'otel_traces_trace_id_ts' && column === 'Start') return 'SimpleAggregateFunction(min, DateTime)'
      if (table === 'otel_traces_trace_id_ts' && column === 'End') return 'SimpleAggregateFunction(max, DateTime)'
      return withoutOurs(table, column, ours)
    },
    extra: {
      otel_logs:
        "`__otel_materialized_k8s.pod.name` LowCardinality(String) MATERIALIZED ResourceAttributes['k8s.pod.name']",
      otel_traces:
        "SpanAttributeItems Array(String) ALIAS arrayMap((k, v) -> concat(k, '=', v), mapKeys(SpanAttributes), mapValues(SpanAttributes))",
    },
  },
  'the JSON mode of the exporter': {
    type: (table, column, ours) =>
      ours.includes('Map(')
        ? ours.replace('Map(LowCardinality(String), String)', 'JSON')
        : withoutOurs(table, column, ours),
    extra: {
      otel_traces:
        'ResourceAttributesKeys Array(LowCardinality(String)), SpanAttributesKeys Array(LowCardinality(String))',
    },
  },
  "a user's own, with a column that nothing fills, zones and nullable text": {
    type: (_table, column, ours) => {
      if (column === 'Body' || column === 'StatusMessage') return 'Nullable(String)'
      if (ours === 'DateTime64(9)') return "DateTime64(6, 'Europe/Berlin')"
      return ours
    },
    extra: { otel_traces: 'Note String' },
  },
}

async function makeTables(client: ClickHouse, generation: Generation): Promise<void> {
  for (const { name, columns } of wanted) {
    const definitions = columns.flatMap(([column, ours]) => {
      const type = name.startsWith('otel_') ? generation.type(name, column, ours) : ours
      return type === undefined ? [] : [`\`${column}\` ${type}`]
    })
    const extra = generation.extra?.[name]
    if (extra !== undefined) definitions.push(extra)
    await client.command(
      `CREATE TABLE ${client.database}.${generation.name?.(name) ?? name} (${definitions.join(', ')}) ENGINE = MergeTree ORDER BY tuple()`,
    )
  }
}

async function verified(client: ClickHouse) {
  const schema = await verifySchema(client)
  assert(schema.kind === 'verified', schema.kind === 'deviates' ? schema.problems.join('\n') : '')
  return schema
}

/** What a sample of our type must read as in a table's type. */
function expected(ours: string, theirs: string): unknown {
  const element = /^Array\((.*)\)$/.exec(ours)?.[1]
  if (element !== undefined) return [expected(element, /^Array\((.*)\)$/.exec(theirs)?.[1] ?? theirs)]
  if (ours.startsWith('Map(')) return theirs === 'JSON' ? { a: { b: '1' }, c: '2' } : { 'a.b': '1', c: '2' }
  if (ours === 'DateTime64(9)') {
    if (theirs.includes('Berlin')) return '2026-11-20 13:00:00.123456'
    return theirs.startsWith('DateTime64') ? '2026-11-20 12:00:00.123456789' : '2026-11-20 12:00:00'
  }
  if (ours === 'DateTime')
    return theirs.includes('DateTime64(9')
      ? '2026-11-20 12:00:00.000000000'
      : theirs.includes('Berlin')
        ? '2026-11-20 13:00:00.000000'
        : '2026-11-20 12:00:00'
  if (ours === 'Bool') return true
  if (ours.includes('String')) return sampleOf(ours).slice(1, -1)
  return /Int64\)?$/.test(ours) ? sampleOf(ours) : Number(sampleOf(ours))
}

async function readBack(client: ClickHouse, target: TargetTable): Promise<void> {
  const types = new Map(
    (
      await client.query<{ name: string; type: string }>(
        'SELECT name, type FROM system.columns WHERE database = {database:String} AND table = {table:String}',
        { database: target.database, table: target.table },
      )
    ).map(({ name, type }) => [name, type]),
  )
  // JSON numbers hold no 64 bits, so integers of that size are asked for as text.
  const list = target.columns.map(([name, type]) =>
    /^(Nullable\()?U?Int64\)?$/.test(type)
      ? `toString(\`${name}\`) AS \`${name}\``
      : /^Array\(U?Int64\)$/.test(type)
        ? `arrayMap(each -> toString(each), \`${name}\`) AS \`${name}\``
        : `\`${name}\``,
  )
  const [row, ...others] = await client.query<Record<string, unknown>>(`SELECT ${list.join(', ')} FROM ${target.name}`)
  assert(row !== undefined && others.length === 0, `${target.table} has not exactly one row`)
  for (const [name, type] of target.columns) {
    expect(row[name], `${target.table}.${name}, ${type} in ${types.get(name)}`).toEqual(
      expected(type, types.get(name) ?? ''),
    )
  }
}

for (const [at, [name, generation]] of Object.entries(generations).entries()) {
  test(`schema: ${name}: accepted, and a block of every table is stored as sent`, async () => {
    const client = await engine.open(`generation_${at}`)
    await makeTables(client, generation)
    const { targets } = await verified(client)
    expect([...targets.keys()].sort()).toEqual(wanted.map((table) => table.name).sort())
    for (const target of targets.values()) {
      const outcome = await insertSamples(engine, client, target)
      expect(outcome, target.table).toMatchObject({ kind: 'inserted' })
      await readBack(client, target)
    }
  })
}

test('schema: our own tables are verified without a word, durable, with window, tenant and segment', async () => {
  const client = await engine.open('own', false)
  await migrateClickHouse(client)
  const { targets, warnings } = await verified(client)
  expect(warnings).toEqual([])
  for (const [name, target] of targets) {
    expect(target, name).toMatchObject({
      hasTenant: true,
      // A resolved row that is written twice is one row.
      hasSegment: !name.endsWith('_rows'),
      isDurable: true,
      insertsWhole: true,
      isReplicated: false,
      deduplicationWindow: 10_000,
    })
    expect(target.columns).toEqual(wanted.find((table) => table.name === name)?.columns)
    // Those that are superseded take no sample: IsDeleted is 0 or 1.
    if (name.endsWith('_rows')) continue
    expect(await insertSamples(engine, client, target), name).toMatchObject({ kind: 'inserted' })
    await readBack(client, target)
  }
})

test('schema: a table with the days of another zone than UTC takes a day in two, and one whose hours move is named', async () => {
  const client = await engine.open('zones', false)
  await migrateClickHouse(client)
  const remake = async (name: string, zone: string): Promise<void> => {
    const table = wanted.find((each) => each.name === name)
    assert(table !== undefined)
    const typed = (type: string): string => type.replace('DateTime64(9)', `DateTime64(9, '${zone}')`)
    const definitions = table.columns.map(([column, type]) => `\`${column}\` ${typed(type)}`).join(', ')
    await client.command(`DROP TABLE zones.${name}`)
    await client.command(
      `CREATE TABLE zones.${name} (${definitions}) ENGINE = MergeTree PARTITION BY toDate(${table.dayColumn}) ORDER BY tuple()`,
    )
  }
  await remake('quarantine', 'Europe/Berlin')
  await remake('turn_rows', 'Asia/Kolkata')
  const { targets } = await verified(client)
  expect(targets.get('quarantine')).toMatchObject({ insertsWhole: false, storesItself: true, hoursBegin: 0 })
  expect(targets.get('turn_rows')).toMatchObject({ insertsWhole: false, storesItself: true, hoursBegin: 1800 })
  expect(targets.get('otel_logs')).toMatchObject({ insertsWhole: true, storesItself: true, hoursBegin: 0 })
  await remake('llm_call_rows', 'Australia/Lord_Howe')
  const schema = await verifySchema(client)
  assert(schema.kind === 'deviates')
  expect(schema.problems).toEqual([
    expect.stringMatching(
      /llm_call_rows.Timestamp is in the time zone Australia\/Lord_Howe, .* set <timezone>UTC<\/timezone>/,
    ),
  ])
})

const deviations: readonly (readonly [what: string, change: string, problem: RegExp])[] = [
  ['a missing table', 'DROP TABLE {}.otel_metrics_sum', /^\w+\.otel_metrics_sum does not exist$/],
  ['a missing column', 'ALTER TABLE {}.otel_logs DROP COLUMN Body', /otel_logs has no column Body \(String\)/],
  [
    'a number that is too small',
    'ALTER TABLE {}.otel_traces MODIFY COLUMN Duration UInt32',
    /otel_traces.Duration is UInt32; it must be UInt64/,
  ],
  [
    'attributes that are no text',
    'ALTER TABLE {}.otel_traces MODIFY COLUMN SpanAttributes Map(LowCardinality(String), UInt64)',
    /SpanAttributes is Map\(LowCardinality\(String\), UInt64\)/,
  ],
  [
    'a column of the former name',
    'ALTER TABLE {}.otel_metrics_sum RENAME COLUMN AggregationTemporality TO AggTemp',
    /but AggTemp, its former name: ALTER TABLE \S+ RENAME COLUMN AggTemp TO AggregationTemporality/,
  ],
  [
    "a view in a table's place",
    'RENAME TABLE {}.otel_logs TO {}.l; CREATE VIEW {}.otel_logs AS SELECT * FROM {}.l',
    /otel_logs is a View; rows go into tables of the MergeTree family/,
  ],
  [
    'a log engine',
    'DROP TABLE {}.quarantine; CREATE TABLE {}.quarantine (Time DateTime) ENGINE = Log',
    /quarantine is a Log;/,
  ],
]

for (const [at, [what, change, problem]] of deviations.entries()) {
  test(`schema: ${what} is named`, async () => {
    const client = await engine.open(`deviation_${at}`)
    await makeTables(client, { type: withoutOurs })
    for (const statement of change.replaceAll('{}', client.database).split('; ')) await client.command(statement)
    const schema = await verifySchema(client)
    assert(schema.kind === 'deviates')
    expect(schema.problems).toHaveLength(1)
    expect(schema.problems[0]).toMatch(problem)
  })
}

test('schema: an unflattened Nested column is named with the remedy, because the server takes none of its fields', async () => {
  const client = await engine.open('nested')
  await makeTables(client, { type: withoutOurs })
  const columns =
    journalTables[0]?.columns.filter(([name]) => !ownColumns.includes(name) && !name.startsWith('Links.')) ?? []
  await client.command('DROP TABLE nested.otel_traces')
  const definitions = columns.map(([name, type]) => `\`${name}\` ${type}`).join(', ')
  await client.command(
    `CREATE TABLE nested.otel_traces (${definitions}, Links Nested(TraceId String, SpanId String, TraceState String, Attributes Map(LowCardinality(String), String))) ENGINE = MergeTree ORDER BY tuple() SETTINGS flatten_nested = 0`,
  )
  const schema = await verifySchema(client)
  assert(schema.kind === 'deviates')
  expect(schema.problems).toHaveLength(4)
  expect(schema.problems[0]).toMatch(/has Links as one Nested column, and Links.TraceId .* flatten_nested = 1/)
})

test('schema: a column that the table computes itself is left out, and said', async () => {
  const client = await engine.open('computed')
  await makeTables(client, {
    type: (table, column, ours) =>
      table === 'otel_logs' && column === 'ServiceName'
        ? `${ours} MATERIALIZED ResourceAttributes['service.name']`
        : withoutOurs(table, column, ours),
  })
  const { targets, warnings } = await verified(client)
  const logs = targets.get('otel_logs')
  assert(logs !== undefined)
  expect(logs.columns.map(([name]) => name)).not.toContain('ServiceName')
  expect(warnings.some((warning) => /otel_logs.ServiceName is MATERIALIZED/.test(warning))).toBe(true)
  expect(await insertSamples(engine, client, logs)).toMatchObject({ kind: 'inserted' })
})

test('schema: views whose target forgets inserts are named through a chain of views, and those that remember are not', async () => {
  const client = await engine.open('views', false)
  await migrateClickHouse(client)
  for (const statement of [
    'CREATE TABLE views.forgets (Service String, Spans UInt64) ENGINE = SummingMergeTree ORDER BY Service',
    'CREATE TABLE views.`re members` (Service String, Spans UInt64) ENGINE = SummingMergeTree ORDER BY Service SETTINGS non_replicated_deduplication_window = 100',
    'CREATE MATERIALIZED VIEW views.first_mv TO views.`re members` AS SELECT ServiceName AS Service, count() AS Spans FROM views.otel_traces GROUP BY Service',
    'CREATE MATERIALIZED VIEW views.second_mv TO views.forgets AS SELECT Service, Spans FROM views.`re members`',
    'CREATE MATERIALIZED VIEW views.inner_mv ENGINE = MergeTree ORDER BY Body AS SELECT Body FROM views.otel_logs',
    'CREATE MATERIALIZED VIEW views.times_mv TO views.otel_traces_trace_id_ts AS SELECT TraceId, min(toDateTime(Timestamp)) AS Start, max(toDateTime(Timestamp)) AS End FROM views.otel_traces GROUP BY TraceId',
  ])
    await client.command(statement)
  const { warnings } = await verified(client)
  expect(warnings.toSorted()).toEqual([
    expect.stringMatching(
      /views.inner_mv writes to views..inner\S+, which has no deduplication window: .* into otel_logs/,
    ),
    expect.stringMatching(
      /views.second_mv writes to views.forgets, which has no deduplication window: .* into otel_traces/,
    ),
    expect.stringMatching(/views.times_mv fills views.otel_traces_trace_id_ts, which this collector does too/),
  ])
})

test('schema: durable is all three of insert, directory and merge', async () => {
  const client = await engine.open('durable', false)
  await migrateClickHouse(client)
  for (const setting of ['fsync_after_insert', 'fsync_part_directory', 'min_rows_to_fsync_after_merge']) {
    await client.command(`ALTER TABLE durable.otel_logs MODIFY SETTING ${setting} = 0`)
    expect((await verified(client)).targets.get('otel_logs')?.isDurable, setting).toBe(false)
    await client.command(`ALTER TABLE durable.otel_logs MODIFY SETTING ${setting} = 1`)
    expect((await verified(client)).targets.get('otel_logs')?.isDurable, setting).toBe(true)
  }
})

test('inserts: a million rows in one block are one part; the same token again adds nothing', async () => {
  const client = await engine.open('one_part', false)
  await migrateClickHouse(client)
  const target = (await verified(client)).targets.get('quarantine')
  assert(target !== undefined)
  const body = await engine.native(selectSamples(target.columns, 'numbers(1000000)'))
  const names = target.columns.map(([name]) => name)
  await client.command('SYSTEM STOP MERGES one_part.quarantine')
  for (const times of [1, 2, 3]) {
    const outcome = await client.insertNative(
      target.name,
      names,
      { ...insertSettings, insert_deduplication_token: 'a' },
      [body],
    )
    expect(outcome, `insert ${times}`).toMatchObject({ kind: 'inserted' })
    const parts = await client.query<{ parts: string; rows: string }>(
      "SELECT toString(count()) AS parts, toString(sum(rows)) AS rows FROM system.parts WHERE active AND database = 'one_part' AND table = 'quarantine'",
    )
    expect(parts).toEqual([{ parts: '1', rows: '1000000' }])
  }
  await client.insertNative(target.name, names, { ...insertSettings, insert_deduplication_token: 'b' }, [body])
  expect(await client.query(`SELECT toString(count()) AS rows FROM ${target.name}`)).toEqual([{ rows: '2000000' }])
})

test('inserts: a block with a column that the table lacks is refused, and nothing of it is stored', async () => {
  const client = await engine.open('unknown_column')
  await client.command('CREATE TABLE unknown_column.t (a String) ENGINE = MergeTree ORDER BY a')
  const body = await engine.native("SELECT 'x' AS a, 'y' AS b")
  const outcome = await client.insertNative('unknown_column.t', ['a', 'b'], insertSettings, [body])
  expect(outcome).toMatchObject({ kind: 'refused', code: 16, type: 'NO_SUCH_COLUMN_IN_TABLE' })
  expect(await client.query('SELECT a FROM unknown_column.t')).toEqual([])
})

test('types: what is said to be taken is taken by the server unchanged; what is not, it changes or refuses', async () => {
  const client = await engine.open('types')
  const cases: readonly (readonly [ours: string, value: string, theirs: string, kept: boolean])[] = [
    ['UInt8', '200', 'UInt32', true],
    ['UInt8', '200', 'Int32', true],
    ['UInt8', '200', 'Int8', false],
    ['UInt32', '4000000000', 'UInt64', true],
    ['UInt32', '4000000000', 'Int32', false],
    ['UInt32', '300', 'UInt8', false],
    ['Int32', '-7', 'Int64', true],
    ['Int32', '-7', 'UInt32', false],
    ['Float64', '1.5', 'UInt64', false],
    ['String', "'x'", 'LowCardinality(String)', true],
    ['String', "'x'", 'LowCardinality(Nullable(String))', true],
    ['String', "'long text'", 'FixedString(4)', false],
    ['String', "'no id'", 'UUID', false],
    ['LowCardinality(String)', "'Odd'", "Enum8('Ok' = 1)", false],
    ['Map(LowCardinality(String), String)', "map('a', 'x')", 'Map(String, LowCardinality(String))', true],
    ['Map(LowCardinality(String), String)', "map('a', 'x')", 'Map(String, UInt64)', false],
    ['Map(LowCardinality(String), String)', "map('a', 'x')", 'JSON(a UInt64)', false],
  ]
  for (const [at, [ours, value, theirs, kept]] of cases.entries()) {
    const label = `${value} as ${ours} into ${theirs}`
    expect(takes(theirs, ours), label).toBe(kept)
    await client.command(`CREATE TABLE types.t${at} (c ${theirs}) ENGINE = MergeTree ORDER BY tuple()`)
    const body = await engine.native(`SELECT CAST(${value} AS ${ours}) AS c`)
    const outcome = await client.insertNative(`types.t${at}`, ['c'], insertSettings, [body])
    const same = await client.query(
      `SELECT 1 AS one FROM types.t${at} WHERE toString(c) = toString(CAST(${value} AS ${ours}))`,
    )
    expect(outcome.kind === 'inserted' && same.length === 1, label).toBe(kept)
  }
})

test('schema: a profile that switches deduplication off is named, because insert_deduplicate does not win over it', async () => {
  const client = await engine.open('profile', false)
  await migrateClickHouse(client)
  const withProfile: ClickHouse = {
    ...client,
    query: (sql, parameters) =>
      client.query(
        sql.includes('system.settings') ? `${sql} SETTINGS deduplicate_insert = 'disable'` : sql,
        parameters,
      ),
  }
  expect(await verifySchema(withProfile)).toEqual({
    kind: 'deviates',
    problems: [expect.stringMatching(/deduplicate_insert = 'disable': repeated inserts would double/)],
  })
})
