// The schema as the server has it, as text: what a reader wants to see, what CI compares with schema.sql, and what `doctor`
// compares with it on a server in use.
import { readFile } from 'node:fs/promises'
import type { ClickHouse } from './client.ts'

export async function dumpSchema(client: ClickHouse): Promise<string> {
  const rows = await client.query<{ text: string }>(
    `SELECT formatQuery(replaceAll(create_table_query, {prefix:String}, 'tallylight.')) AS text
     FROM system.tables WHERE database = {database:String} ORDER BY name`,
    { database: client.database, prefix: `${client.database}.` },
  )
  return rows.map(({ text }) => `${text};\n`).join('\n')
}

/** What differs from the schema of this version, a line of a table each: columns with their types, keys, TTLs, windows. */
export async function schemaDifferences(client: ClickHouse): Promise<readonly string[]> {
  const [wanted, found] = [
    await readFile(new URL('./schema.sql', import.meta.url), 'utf8'),
    await dumpSchema(client),
  ].map(tablesOf)
  const differences: string[] = []
  for (const [name, lines] of wanted ?? []) {
    const there = found?.get(name)
    if (there === undefined) {
      differences.push(`${name} is missing`)
      continue
    }
    for (const line of lines) if (!there.has(line)) differences.push(`${name} lacks: ${line}`)
    for (const line of there) if (!lines.has(line)) differences.push(`${name} has besides: ${line}`)
  }
  return differences
}

/** The lines of each table and view, without what differs from server to server: engines, and the dictionary's login. */
function tablesOf(dump: string): ReadonlyMap<string, ReadonlySet<string>> {
  const tables = new Map<string, Set<string>>()
  for (const statement of dump.split(/;\n/)) {
    const name = /^\s*CREATE (?:TABLE|VIEW|DICTIONARY) tallylight\.(\w+)/.exec(statement)?.[1]
    if (name === undefined) continue
    const lines = statement.split('\n').map((line) => line.trim().replace(/,$/, ''))
    const kept = lines.filter((line) => line !== '' && !/^(CREATE|ENGINE|SOURCE|UUID|[()])/.test(line))
    tables.set(name, new Set(kept))
  }
  return tables
}
