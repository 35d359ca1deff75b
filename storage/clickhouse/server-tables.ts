// What a server says of its tables: columns, engine, the settings that decide whether an answered insert is on the disk and
// whether a repeated one is known, and the materialized views that stand on a table.
import type { ClickHouse } from './client.ts'

export type ServerColumn = {
  readonly table: string
  readonly name: string
  readonly type: string
  readonly default_kind: string
}

export type ServerTable = {
  readonly database: string
  readonly name: string
  readonly engine: string
  readonly engine_full: string
  readonly partition_key: string
  readonly create_table_query: string
  readonly uuid: string
  readonly dependencies_database: readonly string[]
  readonly dependencies_table: readonly string[]
}

export type ServerTables = {
  readonly tables: readonly ServerTable[]
  readonly columnsOf: (table: string) => readonly ServerColumn[]
  /** Of any database: views write where they like. */
  readonly find: (database: string, name: string) => ServerTable | undefined
  readonly isDurable: (table: ServerTable) => boolean
  /** How many inserts the table remembers; 0 when it repeats what is repeated. */
  readonly deduplicationWindow: (table: ServerTable) => number
}

export async function readServerTables(client: ClickHouse, database: string): Promise<ServerTables> {
  const everything = await client.query<ServerTable>(
    `SELECT database, name, engine, engine_full, partition_key, create_table_query, toString(uuid) AS uuid, dependencies_database, dependencies_table
     FROM system.tables WHERE database NOT IN ('system', 'information_schema', 'INFORMATION_SCHEMA')`,
  )
  const columns = await client.query<ServerColumn>(
    'SELECT table, name, type, default_kind FROM system.columns WHERE database = {database:String} ORDER BY table, position',
    { database },
  )
  const byTable = Map.groupBy(columns, (column) => column.table)
  const defaults = await readDefaults(client)
  const settingOf = (table: ServerTable, name: string): number => {
    const own = new RegExp(`\\b${name} = '?(\\d+)'?`).exec(table.engine_full)?.[1]
    return Number(own ?? defaults.get(`${isReplicated(table) ? 'replicated' : 'plain'}:${name}`) ?? 0)
  }
  return {
    tables: everything.filter((table) => table.database === database),
    columnsOf: (table) => byTable.get(table) ?? [],
    find: (ofDatabase, name) => everything.find((table) => table.database === ofDatabase && table.name === name),
    isDurable: (table) => table.engine === 'Null' || (isMergeTree(table) && syncs((name) => settingOf(table, name))),
    deduplicationWindow: (table) => {
      if (table.engine === 'Null') return Number.MAX_SAFE_INTEGER
      if (!isMergeTree(table)) return 0
      return settingOf(
        table,
        isReplicated(table) ? 'replicated_deduplication_window' : 'non_replicated_deduplication_window',
      )
    },
  }
}

/** The part's files, its directory, and what merges make of it: without the last, a power cut takes rows that were synced
 *  when they were inserted, because their part was replaced by one that was not. */
function syncs(settingOf: (name: string) => number): boolean {
  const syncsMerges =
    settingOf('min_rows_to_fsync_after_merge') > 0 || settingOf('min_compressed_bytes_to_fsync_after_merge') > 0
  return settingOf('fsync_after_insert') === 1 && settingOf('fsync_part_directory') === 1 && syncsMerges
}

async function readDefaults(client: ClickHouse): Promise<ReadonlyMap<string, string>> {
  const names = `name LIKE '%fsync%' OR name LIKE '%deduplication_window'`
  const rows = await client.query<{ kind: string; name: string; value: string }>(
    `SELECT 'plain' AS kind, name, value FROM system.merge_tree_settings WHERE ${names}
     UNION ALL SELECT 'replicated', name, value FROM system.replicated_merge_tree_settings WHERE ${names}`,
  )
  return new Map(rows.map(({ kind, name, value }) => [`${kind}:${name}`, value]))
}

export function isMergeTree(table: ServerTable): boolean {
  return table.engine.endsWith('MergeTree')
}

export function isReplicated(table: ServerTable): boolean {
  return /^(Replicated|Shared)/.test(table.engine)
}

export type ViewTarget = { readonly view: ServerTable; readonly target: ServerTable | undefined }

/** The materialized views on a table and on what they write to, each once. */
export function viewsOn(tables: ServerTables, table: ServerTable): readonly ViewTarget[] {
  const found = new Map<string, ViewTarget>()
  const visit = (source: ServerTable): void => {
    for (const [at, name] of source.dependencies_table.entries()) {
      const view = tables.find(source.dependencies_database[at] ?? '', name)
      if (view?.engine !== 'MaterializedView' || found.has(`${view.database}.${view.name}`)) continue
      const target = targetOf(tables, view)
      found.set(`${view.database}.${view.name}`, { view, target })
      if (target !== undefined) visit(target)
    }
  }
  visit(table)
  return [...found.values()]
}

function targetOf(tables: ServerTables, view: ServerTable): ServerTable | undefined {
  const name = '(?:`((?:[^`\\\\]|\\\\.)+)`|(\\w+))'
  // Before the columns and the SELECT, so that a TO inside of them is not taken for the view's.
  const head = new RegExp(
    `^CREATE MATERIALIZED VIEW ${name}(?:\\.${name})? (?:UUID '[^']*' )?TO (?:${name}\\.)?${name}`,
  ).exec(view.create_table_query)
  if (head !== null) {
    const unescaped = (text: string | undefined): string | undefined => text?.replaceAll(/\\(.)/g, '$1')
    return tables.find(unescaped(head[5] ?? head[6]) ?? view.database, unescaped(head[7] ?? head[8]) ?? '')
  }
  return tables.find(view.database, `.inner_id.${view.uuid}`) ?? tables.find(view.database, `.inner.${view.name}`)
}
