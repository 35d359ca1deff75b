// Numbered migrations, forward only. Every statement can be run twice, so two collectors that start at once, and a crash in
// the middle, end in the same schema. Tables that were there before the first migration are a user's own: they are
// remembered as such and no migration, this one or a later, touches them.
import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { readdir, readFile } from 'node:fs/promises'
import type { ClickHouse } from './client.ts'
import { formerNames, quoteName, quoteText } from './schema.ts'

const directory = new URL('./migrations/', import.meta.url)

export type Migration = {
  readonly number: number
  readonly name: string
  readonly sql: string
  readonly checksum: string
}

/** What the server's dictionaries read our tables with, where they may not as the server's default user. */
export type Login = { readonly user: string; readonly password: string }

export type Migrated = {
  /** Migrations that were run now. */
  readonly applied: readonly string[]
  /** Tables of the same names that a user brought, left as they are. */
  readonly leftAlone: readonly string[]
  /** Tables that were made now. */
  readonly created: readonly string[]
}

export async function readMigrations(): Promise<readonly Migration[]> {
  const names = (await readdir(directory)).filter((name) => /^\d{4}_.+\.sql$/.test(name)).sort()
  return Promise.all(
    names.map(async (name) => {
      const sql = await readFile(new URL(name, directory), 'utf8')
      return { number: Number(name.slice(0, 4)), name, sql, checksum: createHash('sha256').update(sql).digest('hex') }
    }),
  )
}

/** Brings the database to the newest schema. Throws when it is of a newer collector, or a migration was changed. */
export async function migrateClickHouse(
  client: ClickHouse,
  engine = 'MergeTree',
  migrations?: readonly Migration[],
  login?: Login,
): Promise<Migrated> {
  assert.match(engine, /^\w*MergeTree(\([^;]*\))?$/, `${engine} is no engine of the MergeTree family`)
  const known = migrations ?? (await readMigrations())
  const database = quoteName(client.database)
  await ensureDatabase(client)
  // Listed before the record of the user's tables is read: whoever made ours wrote the record first, so a list that has
  // ours in it is followed by a record that does not.
  const before = await tableNames(client)
  // Synced as the tables are: after a power cut that left them and not these rows, all of ours would pass for the user's own.
  await client.command(
    `CREATE TABLE IF NOT EXISTS ${database}.schema_migrations (number UInt32, name String, checksum String, left_alone Array(String), applied_at DateTime DEFAULT now()) ENGINE = ${engine} ORDER BY number SETTINGS fsync_after_insert = 1, fsync_part_directory = 1, min_rows_to_fsync_after_merge = 1`,
  )
  const applied = await readApplied(client)
  refuseForeign(client.database, applied, known)
  const leftAlone = await rememberTables(client, before)
  const isOfUser = (table: string): boolean =>
    leftAlone.has(table) || (formerNames[table] ?? []).some((former) => leftAlone.has(former))
  const present = new Set([...before, 'schema_migrations'])
  const created: string[] = []
  const run: string[] = []
  for (const migration of known) {
    if (applied.has(migration.number)) continue
    for (const statement of statementsOf(migration.sql, client.database, engine, login)) {
      const table = tableOf(statement, client.database)
      if (isOfUser(table) || (isView(statement) && tablesIn(statement, client.database).some(isOfUser))) continue
      await client.command(statement)
      if (!present.has(table)) created.push(table)
      present.add(table)
    }
    await client.command(
      `INSERT INTO ${database}.schema_migrations (number, name, checksum) SETTINGS async_insert = 0 SELECT {number:UInt32}, {name:String}, {checksum:String}`,
      { number: migration.number, name: migration.name, checksum: migration.checksum },
    )
    run.push(migration.name)
  }
  return { applied: run, leftAlone: [...leftAlone].sort(), created }
}

/** A user who may not make databases can still be given one. */
async function ensureDatabase(client: ClickHouse): Promise<void> {
  const found = await client.query('SELECT 1 AS found FROM system.databases WHERE name = {database:String}', {
    database: client.database,
  })
  if (found.length === 0) await client.command(`CREATE DATABASE IF NOT EXISTS ${quoteName(client.database)}`)
}

async function tableNames(client: ClickHouse): Promise<readonly string[]> {
  const rows = await client.query<{ name: string }>(
    'SELECT name FROM system.tables WHERE database = {database:String}',
    {
      database: client.database,
    },
  )
  return rows.map(({ name }) => name).filter((name) => name !== 'schema_migrations')
}

async function readApplied(client: ClickHouse): Promise<ReadonlyMap<number, string>> {
  const rows = await client.query<{ number: number; checksum: string }>(
    `SELECT number, any(checksum) AS checksum FROM ${quoteName(client.database)}.schema_migrations WHERE number > 0 GROUP BY number`,
  )
  return new Map(rows.map(({ number, checksum }) => [number, checksum]))
}

function refuseForeign(database: string, applied: ReadonlyMap<number, string>, migrations: readonly Migration[]): void {
  for (const [number, checksum] of applied) {
    const migration = migrations.find((each) => each.number === number)
    if (migration === undefined) {
      throw new Error(
        `the database ${database} has migration ${number}, and this collector knows up to ${migrations.at(-1)?.number ?? 0}: a newer version has used it; run that version, or name another database`,
      )
    }
    if (migration.checksum !== checksum) {
      throw new Error(
        `migration ${migration.name} is not the one that the database ${database} got (SHA-256 ${migration.checksum.slice(0, 12)}…, there ${checksum.slice(0, 12)}…): a released migration is never edited`,
      )
    }
  }
}

/** Row 0 holds the tables that were there before ours. Two collectors that start at once each write one; a table of a user's
 *  is in both, one that the other collector has just made is not. */
async function rememberTables(client: ClickHouse, before: readonly string[]): Promise<ReadonlySet<string>> {
  const table = `${quoteName(client.database)}.schema_migrations`
  const read = () => client.query<{ left_alone: string[] }>(`SELECT left_alone FROM ${table} WHERE number = 0`)
  if ((await read()).length === 0) {
    await client.command(
      `INSERT INTO ${table} (number, name, left_alone) SETTINGS async_insert = 0 SELECT 0, 'tables that were here', {before:Array(String)}`,
      { before: [...before] },
    )
  }
  const [first, ...others] = (await read()).map((row) => row.left_alone)
  assert(first !== undefined, `${table} does not give back the row that was written to it`)
  return new Set(first.filter((name) => others.every((each) => each.includes(name))))
}

/** The statements of a migration. Comments stay with the statement behind them. */
export function statementsOf(sql: string, database: string, engine: string, login?: Login): readonly string[] {
  const values: Readonly<Record<string, string>> = {
    database: quoteName(database),
    engine,
    login: login === undefined ? '' : `USER ${quoteText(login.user)} PASSWORD ${quoteText(login.password)} `,
  }
  return sql
    .split(/;\s*$/m)
    .map((statement) => statement.trim())
    .filter((statement) => withoutComments(statement) !== '')
    .map((statement) =>
      // In one pass: what is put in may itself look like something to be replaced.
      statement.replaceAll(placeholder, (_all, text?: string, columns?: string, name?: string) => {
        if (text !== undefined) return quoteText(text.replaceAll('{database}', quoteName(database)))
        return name === undefined ? replacing(engine, columns) : (values[name] as string)
      }),
    )
}

const placeholder =
  /\{text:((?:[^{}]|\{database\})*)\}|\{engine:Replacing(?:\(([^)]*)\))?\}|\{(database|engine|login)\}/g

/** `ReplicatedMergeTree('/path', '{replica}')` and `Generation` make `ReplicatedReplacingMergeTree('/path', '{replica}', Generation)`. */
function replacing(engine: string, columns = ''): string {
  const [, family = '', own = ''] = /^(\w*)MergeTree(?:\((.*)\))?$/.exec(engine) ?? []
  const all = [own, columns].filter((part) => part !== '').join(', ')
  return `${family}ReplacingMergeTree${all === '' ? '' : `(${all})`}`
}

function withoutComments(statement: string): string {
  return statement.replaceAll(/^\s*--.*$/gm, '').trim()
}

/** The one table, view or dictionary that a statement is about: how a migration keeps off a user's own. */
function tableOf(statement: string, database: string): string {
  const text = withoutComments(statement)
  const verb = /^(CREATE (TABLE|VIEW|DICTIONARY) IF NOT EXISTS|ALTER TABLE) /.exec(text)?.[0]
  const target = `${verb}${quoteName(database)}.`
  const table = verb !== undefined && text.startsWith(target) ? /^\w+/.exec(text.slice(target.length))?.[0] : undefined
  assert(
    table !== undefined,
    `a migration may create or alter one table, view or dictionary of {database}; this does neither: ${text.slice(0, 80)}`,
  )
  return table
}

function isView(statement: string): boolean {
  return withoutComments(statement).startsWith('CREATE VIEW ')
}

/** What a statement names of the database. A view of ours on a table of a user's own is not made: nobody knows its columns. */
function tablesIn(statement: string, database: string): readonly string[] {
  const prefix = `${quoteName(database)}.`
  const [, ...parts] = withoutComments(statement).split(prefix)
  return parts.flatMap((part) => /^\w+/.exec(part)?.[0] ?? [])
}
