// Tables and views of the ledger with their columns, a line each, which every role may read: what CI compares with schema.txt,
// and what `doctor` compares with it on a server in use.
import { readFile } from 'node:fs/promises'
import type pg from 'pg'

export async function dumpColumns(client: Pick<pg.ClientBase, 'query'>): Promise<string> {
  const { rows } = await client.query<{ line: string }>(
    `select relname || '.' || attname || ' ' || format_type(atttypid, atttypmod) as line
     from pg_attribute join pg_class on pg_class.oid = attrelid
     where relnamespace = current_schema()::regnamespace and relkind in ('r', 'v') and attnum > 0 and not attisdropped
     order by relname collate "C", attname collate "C"`,
  )
  return rows.map(({ line }) => `${line}\n`).join('')
}

export async function columnDifferences(client: Pick<pg.ClientBase, 'query'>): Promise<readonly string[]> {
  const wanted = (await readFile(new URL('./schema.txt', import.meta.url), 'utf8')).split('\n').filter(Boolean)
  const found = (await dumpColumns(client)).split('\n').filter(Boolean)
  return [
    ...wanted.filter((line) => !found.includes(line)).map((line) => `${line} is missing`),
    ...found.filter((line) => !wanted.includes(line)).map((line) => `${line} is not of this version`),
  ]
}
