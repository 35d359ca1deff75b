// Numbered migrations, forward only. Every statement can be run twice, so two collectors that start at once, and a crash in
// the middle, end in the same schema. Tables that are there already, a user's own among them, are left as they are.
import { createHash } from 'node:crypto'
import { readdir, readFile } from 'node:fs/promises'
import type { ClickHouse } from './client.ts'

const directory = new URL('./migrations/', import.meta.url)

export type Migration = {
  readonly number: number
  readonly name: string
  readonly sql: string
  readonly checksum: string
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
export async function migrateClickHouse(client: ClickHouse, engine = 'MergeTree'): Promise<void> {
  const database = quoteName(client.database)
  await client.command(`CREATE DATABASE IF NOT EXISTS ${database}`)
  await client.command(
    `CREATE TABLE IF NOT EXISTS ${database}.schema_migrations (number UInt32, name String, checksum String, applied_at DateTime DEFAULT now()) ENGINE = ${engine} ORDER BY number`,
  )
  const applied = await client.query<{ number: number; checksum: string }>(
    `SELECT number, any(checksum) AS checksum FROM ${database}.schema_migrations GROUP BY number`,
  )
  const migrations = await readMigrations()
  const known = new Map(migrations.map((migration) => [migration.number, migration]))
  for (const { number, checksum } of applied) {
    const migration = known.get(number)
    if (migration === undefined) {
      throw new Error(
        `the database ${client.database} has migration ${number}, and this collector knows ${migrations.length}: it was used by a newer version`,
      )
    }
    if (migration.checksum !== checksum) {
      throw new Error(
        `migration ${migration.name} was changed after the database ${client.database} got it; a released migration is never edited`,
      )
    }
  }
  const done = new Set(applied.map((row) => row.number))
  for (const migration of migrations) {
    if (done.has(migration.number)) continue
    for (const statement of statementsOf(migration.sql, client.database, engine)) await client.command(statement)
    await client.command(
      `INSERT INTO ${database}.schema_migrations (number, name, checksum) SELECT {number:UInt32}, {name:String}, {checksum:String}`,
      { number: migration.number, name: migration.name, checksum: migration.checksum },
    )
  }
}

/** The statements of a migration. Comments stay with the statement behind them. */
export function statementsOf(sql: string, database: string, engine: string): readonly string[] {
  return sql
    .replaceAll('{database}', quoteName(database))
    .replaceAll('{engine}', engine)
    .split(/;\s*$/m)
    .map((statement) => statement.trim())
    .filter((statement) => statement.replaceAll(/^\s*--.*$/gm, '').trim() !== '')
}

export function quoteName(name: string): string {
  return `\`${name.replaceAll('\\', '\\\\').replaceAll('`', '\\`')}\``
}
