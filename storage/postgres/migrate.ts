// Numbered migrations of Postgres, forward only, each in a transaction, all under one lock: two collectors that start at
// once take turns, and the second finds the work done.
import { createHash } from 'node:crypto'
import { readdir, readFile } from 'node:fs/promises'
import type pg from 'pg'

const directory = new URL('./migrations/', import.meta.url)
/** Any number, the same in every collector. */
const lockNumber = 7_251_906

export async function migratePostgres(client: pg.ClientBase): Promise<void> {
  await client.query('select pg_advisory_lock($1)', [lockNumber])
  try {
    await client.query(
      'create table if not exists schema_migrations (number integer primary key, name text not null, checksum text not null, applied_at timestamptz not null default now())',
    )
    const names = (await readdir(directory)).filter((name) => /^\d{4}_.+\.sql$/.test(name)).sort()
    const { rows } = await client.query<{ number: number; checksum: string }>(
      'select number, checksum from schema_migrations',
    )
    const applied = new Map(rows.map((row) => [row.number, row.checksum]))
    const newest = Math.max(0, ...applied.keys())
    if (newest > names.length) {
      throw new Error(
        `the Postgres database has migration ${newest}, and this collector knows ${names.length}: it was used by a newer version`,
      )
    }
    for (const name of names) await applyMigration(client, name, applied)
  } finally {
    await client.query('select pg_advisory_unlock($1)', [lockNumber])
  }
}

async function applyMigration(
  client: pg.ClientBase,
  name: string,
  applied: ReadonlyMap<number, string>,
): Promise<void> {
  const number = Number(name.slice(0, 4))
  const sql = await readFile(new URL(name, directory), 'utf8')
  const checksum = createHash('sha256').update(sql).digest('hex')
  const known = applied.get(number)
  if (known === checksum) return
  if (known !== undefined)
    throw new Error(`migration ${name} was changed after the database got it; a released migration is never edited`)
  await client.query('begin')
  try {
    await client.query(sql)
    await client.query('insert into schema_migrations (number, name, checksum) values ($1, $2, $3)', [
      number,
      name,
      checksum,
    ])
    await client.query('commit')
  } catch (error) {
    await client.query('rollback')
    throw error
  }
}
