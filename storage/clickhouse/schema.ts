// Compares the tables that are there with the rows that will be sent. What the server converts is fine (the exporter's
// older and newer tables, and those without our columns); what it cannot take is named column by column, before a row is
// sent and not after.
import type { ClickHouse } from './client.ts'
import {
  type ColumnDefinition,
  journalTables,
  logsTable,
  ownColumns,
  type TableDefinition,
  traceTimesTable,
} from './tables.ts'

export type TargetTable = {
  /** Quoted, with its database. */
  readonly name: string
  /** What is sent: the table's own columns left out where it lacks ours. */
  readonly columns: readonly ColumnDefinition[]
  readonly hasTenant: boolean
  readonly hasSegment: boolean
  /** An answered insert is on the disk. */
  readonly isDurable: boolean
}

export type VerifiedSchema =
  | { readonly kind: 'verified'; readonly targets: ReadonlyMap<string, TargetTable> }
  | { readonly kind: 'deviates'; readonly problems: readonly string[] }

/** Names that a table has had. */
const formerNames: Readonly<Record<string, readonly string[]>> = {
  otel_metrics_exp_histogram: ['otel_metrics_exponential_histogram'],
}
/** Columns that older tables of the exporter lack. */
const youngColumns: ReadonlySet<string> = new Set([`${logsTable.name}.EventName`])

type TableRow = { readonly name: string; readonly engine: string; readonly engine_full: string }
type ColumnRow = { readonly table: string; readonly name: string; readonly type: string }

export async function verifySchema(client: ClickHouse): Promise<VerifiedSchema> {
  const tables = await client.query<TableRow>(
    'SELECT name, engine, engine_full FROM system.tables WHERE database = {database:String}',
    { database: client.database },
  )
  const columns = await client.query<ColumnRow>(
    'SELECT table, name, type FROM system.columns WHERE database = {database:String}',
    { database: client.database },
  )
  const problems: string[] = []
  const targets = new Map<string, TargetTable>()
  for (const wanted of [...journalTables, traceTimesTable]) {
    const names = [wanted.name, ...(formerNames[wanted.name] ?? [])]
    const found = tables.find((table) => names.includes(table.name))
    if (found === undefined) {
      problems.push(`${client.database}.${wanted.name} does not exist`)
      continue
    }
    const target = compareTable(client.database, wanted, found, columns, problems)
    if (target !== undefined) targets.set(wanted.name, target)
  }
  return problems.length > 0 ? { kind: 'deviates', problems } : { kind: 'verified', targets }
}

function compareTable(
  database: string,
  wanted: TableDefinition,
  found: TableRow,
  allColumns: readonly ColumnRow[],
  problems: string[],
): TargetTable | undefined {
  const label = `${database}.${found.name}`
  if (!/MergeTree$|^Distributed$|^Null$/.test(found.engine)) {
    problems.push(`${label} is a ${found.engine}; rows go into tables of the MergeTree family, Distributed or Null`)
    return undefined
  }
  const types = new Map(
    allColumns.filter((column) => column.table === found.name).map(({ name, type }) => [name, type]),
  )
  const before = problems.length
  const columns: ColumnDefinition[] = []
  for (const [name, type] of wanted.columns) {
    const has = types.get(name)
    if (has === undefined) {
      if (ownColumns.includes(name) || youngColumns.has(`${wanted.name}.${name}`)) continue
      problems.push(`${label} has no column ${name} (${type})`)
    } else if (!isConvertible(type, has)) {
      problems.push(`${label}.${name} is ${has}; it must be ${type} or what the server converts that to`)
    } else {
      columns.push([name, type])
    }
  }
  if (problems.length > before) return undefined
  return {
    name: `\`${database}\`.\`${found.name}\``,
    columns,
    hasTenant: types.has('TenantId'),
    hasSegment: types.has('Segment'),
    isDurable: found.engine === 'Null' || /fsync_after_insert = 1/.test(found.engine_full),
  }
}

/** Whether the server turns our type into the table's on insert. */
export function isConvertible(ours: string, theirs: string): boolean {
  return simplify(ours) === simplify(theirs)
}

/** Types that are converted into each other, under one name. */
function simplify(type: string): string {
  const inner =
    /^(?:LowCardinality|Nullable)\((.*)\)$/.exec(type)?.[1] ?? /^SimpleAggregateFunction\(\w+, (.*)\)$/.exec(type)?.[1]
  if (inner !== undefined) return simplify(inner)
  const element = /^Array\((.*)\)$/.exec(type)?.[1]
  if (element !== undefined) return `Array(${simplify(element)})`
  if (/^DateTime/.test(type)) return 'DateTime'
  if (/^Map\(/.test(type) || /^JSON/.test(type)) return 'Map'
  if (type === 'Bool') return 'UInt8'
  return type
}
