import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import type pg from 'pg'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { withConnection } from './connection.ts'
import { applyMigrations, migratePostgres } from './migrate.ts'
import { columnDifferences, dumpColumns } from './schema-dump.ts'
import { startTestPostgres, type TestPostgres } from './testing.ts'

let postgres: TestPostgres
beforeAll(async () => {
  postgres = await startTestPostgres()
})
afterAll(() => postgres[Symbol.asyncDispose]())

/** A folder of migrations, named and filled as given. */
async function migrations(files: Readonly<Record<string, string>>): Promise<AsyncDisposable & { readonly url: URL }> {
  const directory = await mkdtemp(join(tmpdir(), 'tallylight-migrations-'))
  for (const [name, sql] of Object.entries(files)) await writeFile(join(directory, name), sql)
  return {
    url: pathToFileURL(`${directory}/`),
    [Symbol.asyncDispose]: () => rm(directory, { recursive: true }),
  }
}

async function numbersApplied(pool: pg.Pool): Promise<readonly number[]> {
  const { rows } = await pool.query<{ number: number }>('select number from schema_migrations order by number')
  return rows.map(({ number }) => number)
}

test('migrate: every migration of ours is applied once, and a second run finds nothing to do', async () => {
  const pool = await postgres.open('once')
  const applied = await withConnection(pool, migratePostgres)
  expect(applied[0]).toBe('0001_keys.sql')
  expect(await numbersApplied(pool)).toEqual(applied.map((_, index) => index + 1))
  expect(await withConnection(pool, migratePostgres)).toEqual([])
})

test('migrate: of collectors that start at once each migration is applied by one, and none fails', async () => {
  const pool = await postgres.open('together')
  const applied = await Promise.all(Array.from({ length: 5 }, () => withConnection(pool, migratePostgres)))
  const numbers = await numbersApplied(pool)
  expect(applied.flat().sort()).toHaveLength(numbers.length)
  expect(new Set(applied.flat()).size).toBe(numbers.length)
})

test('migrate: a collector that dies in the middle leaves whole migrations only, and the next one goes on', async () => {
  const pool = await postgres.open('crash')
  await using folder = await migrations({
    '0001_first.sql': 'create table first (a integer)',
    '0002_second.sql': `create table second (a integer);
      insert into second select 1 from pg_sleep(0) where pg_advisory_lock(42) is not null`,
    '0003_third.sql': 'create table third (a integer)',
  })
  await withConnection(pool, async (gate) => {
    await gate.query('select pg_advisory_lock(42)')
    const dying = withConnection(pool, (client) => applyMigrations(client, folder.url))
    const failed = expect(dying).rejects.toThrow('cannot migrate Postgres: 0002_second.sql failed')
    // The first half of the second migration is done when its backend waits for the gate.
    const killed = async (): Promise<number> =>
      (
        await pool.query(
          `select pg_terminate_backend(pid) from pg_locks where locktype = 'advisory' and objid = 42 and not granted`,
        )
      ).rowCount ?? 0
    while ((await killed()) === 0);
    await failed
    await gate.query('select pg_advisory_unlock(42)')
  })
  expect(await numbersApplied(pool)).toEqual([1])
  expect((await pool.query("select to_regclass('second') as found")).rows).toEqual([{ found: null }])
  expect(await withConnection(pool, (client) => applyMigrations(client, folder.url))).toEqual([
    '0002_second.sql',
    '0003_third.sql',
  ])
  expect((await pool.query('select a from second')).rows).toEqual([{ a: 1 }])
})

test('migrate: a migration that fails names itself, changes nothing, and gives the connection back usable', async () => {
  const pool = await postgres.open('failing')
  await using folder = await migrations({
    '0001_wrong.sql': 'create table t (a integer); insert into nowhere values (1)',
  })
  await withConnection(pool, async (client) => {
    await expect(applyMigrations(client, folder.url)).rejects.toMatchObject({
      message: 'cannot migrate Postgres: 0001_wrong.sql failed, and changed nothing',
      cause: expect.objectContaining({ code: '42P01' }),
    })
    expect((await client.query("select to_regclass('t') as found")).rows).toEqual([{ found: null }])
  })
})

const refusals: readonly (readonly [what: string, change: string, message: RegExp])[] = [
  [
    'a newer database',
    "insert into schema_migrations (number, name, checksum) values (2, '0002_later.sql', '')",
    /it has migration 0002_later\.sql, and this version of Tallylight knows 1/,
  ],
  ['a changed migration', "update schema_migrations set checksum = 'other'", /migration 0001_only\.sql has checksum/],
  [
    'a gap',
    "insert into schema_migrations (number, name, checksum) values (3, '0003_x.sql', '')",
    /lacks number 2, and has 0003_x\.sql/,
  ],
]

for (const [index, [what, change, message]] of refusals.entries()) {
  test(`migrate: ${what} is refused, and left as it is`, async () => {
    const pool = await postgres.open(`refused_${index}`)
    await using folder = await migrations({ '0001_only.sql': 'create table only_one (a integer)' })
    await withConnection(pool, (client) => applyMigrations(client, folder.url))
    await pool.query(change)
    const before = await pool.query('select number, checksum from schema_migrations order by number')
    await expect(withConnection(pool, (client) => applyMigrations(client, folder.url))).rejects.toThrow(message)
    const after = await pool.query('select number, checksum from schema_migrations order by number')
    expect(after.rows).toEqual(before.rows)
  })
}

test('migrate: a folder that lacks a number is refused', async () => {
  const pool = await postgres.open('gap')
  await using folder = await migrations({ '0001_a.sql': 'select 1', '0003_c.sql': 'select 1' })
  await expect(withConnection(pool, (client) => applyMigrations(client, folder.url))).rejects.toThrow(
    'number 2 is missing, 0003_c.sql stands in its place',
  )
})

test('migrate: readers see the tenants, and of the ledger what docs/quota.md names for them, and not the keys', async () => {
  const pool = await postgres.open('granted')
  await withConnection(pool, migratePostgres)
  await pool.query('grant usage on schema granted to tallylight_read')
  const { rows } = await pool.query(
    `select name, has_table_privilege('tallylight_read', 'granted.' || name, 'select') as may
     from unnest(array['tenants', 'schema_migrations', 'quota_audit', 'quota_outbox', 'keys']) as name`,
  )
  expect(rows).toEqual([
    { name: 'tenants', may: true },
    { name: 'schema_migrations', may: true },
    { name: 'quota_audit', may: true },
    { name: 'quota_outbox', may: true },
    { name: 'keys', may: false },
  ])
})

test('schema: schema.txt has the columns that the migrations make, and what is changed by hand is named', async () => {
  const pool = await postgres.open('columns')
  await withConnection(pool, migratePostgres)
  await expect(await dumpColumns(pool)).toMatchFileSnapshot('./schema.txt')
  expect(await columnDifferences(pool)).toEqual([])
  await pool.query('alter table tenants add column own text')
  await pool.query('alter table quota_reservation_rows drop column claimed, alter column body_hash type varchar(9)')
  await pool.query('create table of_somebody_else (id int)')
  const differences = await columnDifferences(pool)
  expect(differences.map(({ what }) => what).toSorted()).toEqual([
    'quota_reservation_rows.body_hash is character varying(9), and should be text',
    'quota_reservation_rows.claimed is missing, and should be bigint[]',
    'tenants.own is text, and should be away',
  ])
  for (const { mend } of differences) await pool.query(mend)
  expect(await columnDifferences(pool)).toEqual([])
  await pool.query('drop view quota_drift')
  expect(await columnDifferences(pool)).toEqual([
    { what: 'quota_drift is missing', mend: 'restore the database from its backup' },
  ])
})
