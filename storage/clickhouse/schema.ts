// Compares the tables that are there with the rows that will be sent, before a row is sent and not after. Accepted are our
// tables, the exporter's of any age that we can serve, and those without our columns; what cannot be is named column by
// column. What works but not as promised (no way to know a repeated insert, views that double, times cut to seconds) is a
// warning: it is for the user to weigh.
import { type CalendarOf, openCalendars } from './calendar.ts'
import { type ClickHouse, insertSettings } from './client.ts'
import { takes } from './column-types.ts'
import { resolvedTables } from './genai-tables.ts'
import {
  isMergeTree,
  isReplicated,
  readServerTables,
  type ServerTable,
  type ServerTables,
  viewsOn,
} from './server-tables.ts'
import {
  type ColumnDefinition,
  journalTables,
  logsTable,
  ownColumns,
  segmentColumn,
  type TableDefinition,
  traceTimesTable,
} from './tables.ts'

export type TargetTable = {
  /** Quoted, with its database. */
  readonly name: string
  readonly database: string
  /** As it is called there: `otel_metrics_exponential_histogram`, if that is what exists. */
  readonly table: string
  /** What is sent, in order and in our types: without those of ours that the table lacks. */
  readonly columns: readonly ColumnDefinition[]
  readonly hasTenant: boolean
  readonly hasSegment: boolean
  /** An answered insert is on the disk, and stays there through merges. */
  readonly isDurable: boolean
  /** The rows of one day in UTC come as one part: all or none. Not where the table's days are another time zone's. */
  readonly insertsWhole: boolean
  /** What is answered is in the table itself and can be counted: not so of Distributed, which sends later, and of Null. */
  readonly storesItself: boolean
  /** Where the hours of the table's time zone begin, in seconds past the full hour of UTC. */
  readonly hoursBegin: number
  readonly isReplicated: boolean
  /** How many inserts the table remembers by token; 0: a repeated one doubles its rows. */
  readonly deduplicationWindow: number
}

export type VerifiedSchema =
  | {
      readonly kind: 'verified'
      readonly targets: ReadonlyMap<string, TargetTable>
      readonly warnings: readonly string[]
    }
  | { readonly kind: 'deviates'; readonly problems: readonly string[] }

/** Names that a table has had. */
export const formerNames: Readonly<Record<string, readonly string[]>> = {
  otel_metrics_exp_histogram: ['otel_metrics_exponential_histogram'],
}
/** Columns that older tables of the exporter lack. */
const youngColumns: ReadonlySet<string> = new Set([`${logsTable.name}.EventName`])
const formerColumns: Readonly<Record<string, string>> = {
  AggregationTemporality: 'AggTemp',
  ScopeDroppedAttrCount: 'ScopeDroppedAttributesCount',
}

/** What a table without our columns should remember: all inserts of the quarter of an hour in which they may come again. */
const deduplicationWindowMin = 10_000

/** Whether an insert that is made again adds nothing. */
export function knowsRepeats({ hasSegment, deduplicationWindow }: TargetTable): boolean {
  return hasSegment || deduplicationWindow >= deduplicationWindowMin
}

type Findings = { readonly problems: string[]; readonly warnings: string[] }

export async function verifySchema(client: ClickHouse): Promise<VerifiedSchema> {
  const server = await readServerTables(client, client.database)
  const findings: Findings = { problems: [], warnings: [] }
  await judgeSettings(client, findings)
  const calendarOf = openCalendars(client)
  const targets = new Map<string, TargetTable>()
  for (const wanted of [...journalTables, traceTimesTable, ...resolvedTables]) {
    const found = findTable(client.database, wanted, server, findings)
    if (found === undefined) continue
    const target = await judgeTable(wanted, found, server, calendarOf, findings)
    if (target === undefined) continue
    targets.set(wanted.name, target)
    warnOfViews(found, server, findings.warnings)
  }
  const { problems, warnings } = findings
  return problems.length > 0 ? { kind: 'deviates', problems } : { kind: 'verified', targets, warnings }
}

/** A setting that the server does not know, or does not let us set, fails every insert in the same way. */
async function judgeSettings(client: ClickHouse, { problems }: Findings): Promise<void> {
  const names = Object.keys(insertSettings)
  const rows = await client.query<{ name: string; readonly: number; value: string }>(
    'SELECT name, readonly, value FROM system.settings WHERE name IN {names:Array(String)}',
    { names: [...names, 'deduplicate_insert'] },
  )
  const found = new Map(rows.map((row) => [row.name, row]))
  for (const name of names) {
    const setting = found.get(name)
    if (setting === undefined) problems.push(`the server does not know the setting ${name}, which every insert needs`)
    else if (setting.readonly === 1)
      problems.push(`the user may not set ${name}, which every insert needs: its profile forbids it`)
  }
  // Newer servers have this one above insert_deduplicate; older ones refuse a request that names it, so it is not sent.
  if (found.get('deduplicate_insert')?.value === 'disable') {
    problems.push("the user's profile has deduplicate_insert = 'disable': repeated inserts would double their rows")
  }
}

function findTable(
  database: string,
  wanted: TableDefinition,
  server: ServerTables,
  findings: Findings,
): ServerTable | undefined {
  const named = (name: string): ServerTable | undefined => server.tables.find((table) => table.name === name)
  const current = named(wanted.name)
  const former = (formerNames[wanted.name] ?? []).map(named).find((table) => table !== undefined)
  if (current !== undefined && former !== undefined) {
    findings.warnings.push(
      `${database} has ${current.name} and ${former.name}: rows go into ${current.name}; drop the one that is not read`,
    )
  }
  if (current === undefined && former === undefined) findings.problems.push(`${database}.${wanted.name} does not exist`)
  return current ?? former
}

async function judgeTable(
  wanted: TableDefinition,
  found: ServerTable,
  server: ServerTables,
  calendarOf: CalendarOf,
  findings: Findings,
): Promise<TargetTable | undefined> {
  const label = `${found.database}.${found.name}`
  if (!isMergeTree(found) && found.engine !== 'Distributed' && found.engine !== 'Null') {
    findings.problems.push(
      `${label} is a ${found.engine}; rows go into tables of the MergeTree family, Distributed or Null`,
    )
    return undefined
  }
  const columns = judgeColumns(wanted, label, server.columnsOf(found.name), findings)
  if (columns === undefined) return undefined
  const sent = new Set(columns.map(([name]) => name))
  const typeOf = (name: string): string =>
    server.columnsOf(found.name).find((column) => column.name === name)?.type ?? ''
  const { zone, hoursBegin } = await calendarOf(typeOf(wanted.dayColumn))
  if (hoursBegin.length > 1 && resolvedTables.some(({ name }) => name === wanted.name))
    findings.problems.push(
      `${label}.${wanted.dayColumn} is in the time zone ${zone}, where clocks are changed by a part of an hour; the table is sorted by its hours, which must begin alike all the year: set <timezone>UTC</timezone> in the server's configuration`,
    )
  const target: TargetTable = {
    name: `${quoteName(found.database)}.${quoteName(found.name)}`,
    database: found.database,
    table: found.name,
    columns,
    hasTenant: sent.has('TenantId'),
    hasSegment: sent.has(segmentColumn),
    isDurable: server.isDurable(found),
    insertsWhole: isMergeTree(found) && (await takesDaysWhole(found.partition_key, typeOf, calendarOf)),
    storesItself: isMergeTree(found),
    hoursBegin: hoursBegin[0] ?? 0,
    isReplicated: isReplicated(found),
    deduplicationWindow: server.deduplicationWindow(found),
  }
  if (!target.hasTenant && wanted !== traceTimesTable) {
    findings.warnings.push(
      `${label} has no column TenantId: it takes the records of tenant default alone, and those of others go to the quarantine`,
    )
  }
  if (found.engine === 'Distributed') {
    findings.warnings.push(
      `${label} is Distributed: shard by a column (not rand()), or a repeated insert reaches other shards, where its token is not known`,
    )
  } else if (!knowsRepeats(target)) {
    findings.warnings.push(
      `${label} has no column ${segmentColumn}, and ${target.deduplicationWindow === 0 ? 'no deduplication window' : `a deduplication window of ${target.deduplicationWindow}`}: an insert whose answer is lost, or whose end a crash kept from being noted, is made again and doubles its rows; what a server without fsync loses with its power is not brought again. ALTER TABLE ${target.name} MODIFY SETTING non_replicated_deduplication_window = ${deduplicationWindowMin} prevents it`,
    )
  }
  return target
}

function judgeColumns(
  wanted: TableDefinition,
  label: string,
  theirs: ReturnType<ServerTables['columnsOf']>,
  { problems, warnings }: Findings,
): readonly ColumnDefinition[] | undefined {
  const byName = new Map(theirs.map((column) => [column.name, column]))
  const before = problems.length
  const columns: ColumnDefinition[] = []
  for (const [name, type] of wanted.columns) {
    const has = byName.get(name)
    if (has === undefined) {
      if (ownColumns.includes(name) || youngColumns.has(`${wanted.name}.${name}`)) continue
      problems.push(missingColumn(label, name, type, byName))
    } else if (has.default_kind === 'MATERIALIZED' || has.default_kind === 'ALIAS') {
      // The table makes the value itself and refuses one that is sent.
      warnings.push(`${label}.${name} is ${has.default_kind}: the table computes it, and what was sent is not stored`)
    } else if (!takes(has.type, type)) {
      problems.push(`${label}.${name} is ${has.type}; it must be ${type}, or a type that holds every such value`)
    } else {
      columns.push([name, type])
      if (/DateTime64\(9\)/.test(type) && !/DateTime64\(9[,)]/.test(has.type)) {
        warnings.push(`${label}.${name} is ${has.type}: nanoseconds are cut to that`)
      }
    }
  }
  // Columns that we do not send are filled with their default. That is how a user's own column has to work, so it is fine;
  // only those that the exporter fills and readers count on are worth a word.
  const keys = theirs.filter(
    (column) => /Keys$/.test(column.name) && column.default_kind === '' && byName.has(column.name.slice(0, -4)),
  )
  for (const { name } of keys)
    warnings.push(`${label}.${name} stays empty: the exporter fills it in its JSON mode, this collector does not`)
  return problems.length > before ? undefined : columns
}

function missingColumn(
  label: string,
  name: string,
  type: string,
  theirs: ReadonlyMap<string, { readonly type: string }>,
): string {
  const group = /^([^.]+)\./.exec(name)?.[1]
  if (group !== undefined && theirs.get(group)?.type.startsWith('Nested(')) {
    return `${label} has ${group} as one Nested column, and ${name} (${type}) must be a column: make the table with flatten_nested = 1`
  }
  const former = formerColumns[name]
  if (former !== undefined && theirs.has(former)) {
    return `${label} has no column ${name} (${type}), but ${former}, its former name: ALTER TABLE ${label} RENAME COLUMN ${former} TO ${name}`
  }
  return `${label} has no column ${name} (${type})`
}

/** A view and its source do not commit together: an insert that failed between the two is made again, and only a window on
 *  the view's own table keeps the rows that were there already from being added twice. */
function warnOfViews(table: ServerTable, server: ServerTables, warnings: string[]): void {
  for (const { view, target } of viewsOn(server, table)) {
    const label = `the materialized view ${view.database}.${view.name}`
    if (target?.name === traceTimesTable.name) {
      warnings.push(
        `${label} fills ${target.database}.${target.name}, which this collector does too: each trace is there twice; drop the view`,
      )
    } else if (target === undefined) {
      warnings.push(
        `${label} on ${table.name} writes to a table that cannot be seen: whether a repeated insert doubles its rows is not known`,
      )
    } else if (server.deduplicationWindow(target) === 0) {
      warnings.push(
        `${label} writes to ${target.database}.${target.name}, which has no deduplication window: each repeated insert into ${table.name} adds its rows again. ALTER TABLE ${quoteName(target.database)}.${quoteName(target.name)} MODIFY SETTING non_replicated_deduplication_window = ${deduplicationWindowMin}`,
      )
    }
  }
}

/** Not partitioned, or by the day of a column or what whole days are in, with the days of UTC. */
async function takesDaysWhole(
  key: string,
  typeOf: (column: string) => string,
  calendarOf: CalendarOf,
): Promise<boolean> {
  if (key === '') return true
  const column = /^(?:toDate|toMonday|toStartOf(?:Week|Month|Year)|toYear|toYYYYMM|toYYYYMMDD)\(([\w.`]+)\)$/.exec(
    key,
  )?.[1]
  return column !== undefined && (await calendarOf(typeOf(column.replaceAll('`', '')))).hasDaysOfUtc
}

export function quoteName(name: string): string {
  return `\`${name.replaceAll('\\', '\\\\').replaceAll('`', '\\`')}\``
}

export function quoteText(text: string): string {
  return `'${text.replaceAll('\\', '\\\\').replaceAll("'", "\\'")}'`
}
