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

/** What differs from this version's tables and views, and what mends it. Tables of others beside ours are theirs. */
export async function columnDifferences(
  client: Pick<pg.ClientBase, 'query'>,
): Promise<readonly { readonly what: string; readonly mend: string }[]> {
  const wanted = columnsOf(await readFile(new URL('./schema.txt', import.meta.url), 'utf8'))
  const found = columnsOf(await dumpColumns(client))
  return [...wanted].flatMap(([table, columns]) => {
    const there = found.get(table)
    if (there === undefined) return [{ what: `${table} is missing`, mend: 'restore the database from its backup' }]
    return [...new Set([...columns.keys(), ...there.keys()])]
      .filter((column) => columns.get(column) !== there.get(column))
      .map((column) => {
        const [should, is] = [columns.get(column), there.get(column)]
        const what = `${table}.${column} is ${is ?? 'missing'}, and should be ${should ?? 'away'}`
        const change =
          should === undefined
            ? `drop column ${column}`
            : is === undefined
              ? `add column ${column} ${should}`
              : `alter column ${column} type ${should}`
        const unless = should === undefined ? ' -- unless a newer version made it' : ''
        return { what, mend: `alter table ${table} ${change};${unless}` }
      })
  })
}

/** Types by column by table. */
function columnsOf(dump: string): ReadonlyMap<string, ReadonlyMap<string, string>> {
  const tables = new Map<string, Map<string, string>>()
  for (const line of dump.split('\n').filter(Boolean)) {
    const [, table = '', column = '', type = ''] = /^(\w+)\.(\w+) (.*)$/.exec(line) ?? []
    tables.set(table, (tables.get(table) ?? new Map<string, string>()).set(column, type))
  }
  return tables
}
