// The schema as the server has it, as text: what a reader wants to see, what CI compares with schema.sql, and what `doctor`
// compares with it on a server in use.
import { readFile } from 'node:fs/promises'
import type { ClickHouse } from './client.ts'
import { quoteName } from './schema.ts'

export async function dumpSchema(client: ClickHouse): Promise<string> {
  const rows = await client.query<{ text: string }>(
    `SELECT formatQuery(replaceAll(create_table_query, {prefix:String}, 'tallylight.')) AS text
     FROM system.tables WHERE database = {database:String} ORDER BY name`,
    { database: client.database, prefix: `${asWritten(client.database)}.` },
  )
  return rows.map(({ text }) => `${text};\n`).join('\n')
}

/** As the server writes a name: it quotes what could not stand without. */
function asWritten(name: string): string {
  return /^[A-Za-z_]\w*$/.test(name) ? name : quoteName(name)
}

export type Difference = {
  readonly table: string
  readonly what: string
  /** Statements for the server; what is not SQL stands behind `--`. */
  readonly mend: string
}

/** Of a table or view: its lines by what each is about, a column, an index or a clause. */
type Made = { readonly kind: 'TABLE' | 'VIEW' | 'DICTIONARY'; readonly lines: ReadonlyMap<string, string> }

/** What differs from the schema of this version: columns with their types, keys, indexes, TTLs, windows. */
export async function schemaDifferences(client: ClickHouse): Promise<readonly Difference[]> {
  const wanted = tablesOf(await readFile(new URL('./schema.sql', import.meta.url), 'utf8'))
  const found = tablesOf(await dumpSchema(client))
  // Every statement of a migration can be run twice, and makes only what is not there.
  const database = asWritten(client.database)
  const remake = `ALTER TABLE ${database}.schema_migrations DELETE WHERE number > 0; -- then restart the collector`
  return [...wanted].flatMap(([table, { kind, lines }]) => {
    const there = found.get(table)
    if (there === undefined) return [{ table, what: `${table} is missing`, mend: remake }]
    const full = `${database}.${table}`
    return [...new Set([...lines.keys(), ...there.lines.keys()])]
      .filter((about) => lines.get(about) !== there.lines.get(about))
      .map((about) => {
        const [should, is] = [lines.get(about), there.lines.get(about)]
        const mend = kind === 'TABLE' ? mendOf(full, about, should, is, remake) : `DROP ${kind} ${full}; ${remake}`
        return { table, what: `${table}: ${about} is ${is ?? 'missing'}, and should be ${should ?? 'away'}`, mend }
      })
  })
}

function mendOf(
  table: string,
  about: string,
  should: string | undefined,
  is: string | undefined,
  remake: string,
): string {
  const alter = `ALTER TABLE ${table}`
  if (about.startsWith('`')) {
    if (should === undefined) return `${alter} DROP COLUMN ${about}; -- unless a newer version made it`
    return `${alter} ${is === undefined ? 'ADD' : 'MODIFY'} COLUMN ${about} ${should};`
  }
  if (about.startsWith('INDEX ')) {
    const drop = is === undefined ? '' : `${alter} DROP ${about}; `
    return `${drop}${should === undefined ? '' : `${alter} ADD ${about} ${should};`}`.trim()
  }
  if (about === 'TTL') return should === undefined ? `${alter} REMOVE TTL;` : `${alter} MODIFY TTL ${should};`
  if (about.startsWith('SETTING '))
    return should === undefined ? `${alter} RESET ${about};` : `${alter} MODIFY ${about} = ${should};`
  // Keys and partitions are for the life of a table.
  return `RENAME TABLE ${table} TO ${table}_old; ${remake}, and INSERT INTO ${table} SELECT * FROM ${table}_old`
}

/** Without what differs from server to server: engines, and the dictionary's login. */
function tablesOf(dump: string): ReadonlyMap<string, Made> {
  const tables = new Map<string, Made>()
  for (const statement of dump.split(/;\n/)) {
    const [, kind, name] = /^\s*CREATE (TABLE|VIEW|DICTIONARY) tallylight\.(\w+)/.exec(statement) ?? []
    if (kind === undefined || name === undefined) continue
    const lines = statement
      .split('\n')
      .map((line) => line.trim().replace(/,$/, ''))
      .filter((line) => line !== '' && !/^(CREATE|ENGINE|SOURCE|UUID|[()])/.test(line))
    tables.set(name, { kind: kind as Made['kind'], lines: new Map(lines.flatMap(aboutOf)) })
  }
  return tables
}

/** What a line is about, and what it says of it. */
function aboutOf(line: string): readonly (readonly [about: string, says: string])[] {
  const settings = /^SETTINGS (.*)$/.exec(line)?.[1]
  if (settings !== undefined)
    return settings.split(', ').map((setting) => {
      const [name = '', value = ''] = setting.split(' = ')
      return [`SETTING ${name}`, value]
    })
  const [, about, says] = /^(`\w+`|INDEX \w+|TTL|ORDER BY|PARTITION BY|PRIMARY KEY)\s+(.*)$/.exec(line) ?? []
  return [about === undefined ? [line, 'there'] : [about, says ?? '']]
}
