// Numbered migrations of Postgres, forward only. Each runs in a transaction of its own together with its line in
// `schema_migrations`, under a lock that the transaction holds (and not the session: a pooler in between may change that
// after every transaction). Two collectors that start at once take turns, and the second finds the work done.
import { createHash } from 'node:crypto'
import { readdir, readFile } from 'node:fs/promises'
import type pg from 'pg'

type Migration = {
  readonly number: number
  readonly name: string
  readonly sql: string
  readonly checksum: string
}

const ownDirectory = new URL('./migrations/', import.meta.url)
const grantsPath = new URL('./grants.sql', import.meta.url)
/** Any number, the same in every collector. */
const lockNumber = 7_251_906
/** A collector that hangs with the lock must not hold up the others for ever; their next try comes by itself. */
const lockMsMax = 30_000

/** Brings the database to what this version knows, and answers the names of what was applied. */
export async function migratePostgres(client: pg.ClientBase): Promise<readonly string[]> {
  const applied = await applyMigrations(client, ownDirectory)
  const grants = await readFile(grantsPath, 'utf8')
  await inTransaction(client, () => client.query(grants))
  return applied
}

/** Throws and changes nothing when an applied migration is not the one we have, or when the database is of a newer version. */
export async function applyMigrations(client: pg.ClientBase, directory: URL): Promise<readonly string[]> {
  const migrations = await readMigrations(directory)
  const applied: string[] = []
  for (;;) {
    const name = await applyNext(client, migrations)
    if (name === undefined) break
    applied.push(name)
  }
  return applied
}

async function readMigrations(directory: URL): Promise<readonly Migration[]> {
  const names = (await readdir(directory)).filter((name) => name.endsWith('.sql')).sort()
  return Promise.all(
    names.map(async (name, index) => {
      const number = index + 1
      if (!name.startsWith(`${String(number).padStart(4, '0')}_`))
        throw new Error(`cannot use the migrations: number ${number} is missing, ${name} stands in its place`)
      const sql = await readFile(new URL(name, directory), 'utf8')
      return { number, name, sql, checksum: createHash('sha256').update(sql).digest('hex') }
    }),
  )
}

async function applyNext(client: pg.ClientBase, migrations: readonly Migration[]): Promise<string | undefined> {
  return inTransaction(client, async () => {
    await client.query(
      `create table if not exists schema_migrations (
         number integer primary key, name text not null, checksum text not null, applied_at timestamptz not null default now())`,
    )
    const { rows } = await client.query<{ number: number; name: string; checksum: string }>(
      'select number, name, checksum from schema_migrations order by number',
    )
    refuseUnknown(rows, migrations)
    const next = migrations[rows.length]
    if (next === undefined) return undefined
    try {
      await client.query(next.sql)
    } catch (cause) {
      throw new Error(`cannot migrate Postgres: ${next.name} failed, and changed nothing`, { cause })
    }
    await client.query('insert into schema_migrations (number, name, checksum) values ($1, $2, $3)', [
      next.number,
      next.name,
      next.checksum,
    ])
    return next.name
  })
}

function refuseUnknown(
  applied: readonly { readonly number: number; readonly name: string; readonly checksum: string }[],
  migrations: readonly Migration[],
): void {
  for (const [index, row] of applied.entries()) {
    if (row.number !== index + 1)
      throw new Error(
        `cannot use this Postgres database: schema_migrations lacks number ${index + 1}, and has ${row.name}`,
      )
    const known = migrations[index]
    if (known === undefined)
      throw new Error(
        `cannot use this Postgres database: it has migration ${row.name}, and this version of Tallylight knows ${migrations.length}; start the version that made it, or a newer one`,
      )
    if (known.checksum !== row.checksum)
      throw new Error(
        `cannot use this Postgres database: migration ${known.name} has checksum ${known.checksum.slice(0, 12)}, and the database got ${row.checksum.slice(0, 12)}; a released migration is never edited`,
      )
  }
}

async function inTransaction<Result>(client: pg.ClientBase, work: () => Promise<Result>): Promise<Result> {
  await client.query('begin')
  try {
    await client.query("select set_config('lock_timeout', $1, true)", [`${lockMsMax}ms`])
    await client.query('select pg_advisory_xact_lock($1)', [lockNumber])
    const result = await work()
    await client.query('commit')
    return result
  } catch (error) {
    // A connection that is lost has rolled back already, and what it was lost for is the error to tell.
    await client.query('rollback').catch(() => undefined)
    throw error
  }
}
