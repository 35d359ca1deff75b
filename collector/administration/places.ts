// Where the records of a user or a conversation are: how a row of each table says whose it is, and how it is told to belong to
// a selection. Rows of a trace go by their ids, because the user often stands only on an ancestor; a row that says the name
// itself is found by that too, with or without a trace.
import { quoteName, quoteText, type TargetTable } from '@tallylight/storage/clickhouse/schema.ts'
import {
  exponentialHistogramTable,
  factsTable,
  gaugeTable,
  histogramTable,
  logsTable,
  quarantineTable,
  summaryTable,
  sumTable,
  type TableDefinition,
  tracesTable,
  traceTimesTable,
} from '@tallylight/storage/clickhouse/tables.ts'
import { rowTables } from '../genai/row-tables.ts'
import { attributeNames } from '../genai/scene.ts'
import { defaultTenant } from '../receive/key-rules.ts'
import type { TenantId } from '../receive/request.ts'
import type { IsName, SubjectKind } from './subject.ts'

export type Place = {
  readonly table: TableDefinition
  /** `none`: rows of no span. `resolved`: rows that are made again from what is left of a trace. */
  readonly of: 'span' | 'trace' | 'resolved' | 'none'
  /** Maps of attributes, and lists of such maps. */
  readonly maps: readonly string[]
  readonly mapLists: readonly string[]
  /** Expressions that are the name. */
  readonly names: Readonly<Record<SubjectKind, readonly string[]>>
}

const noNames = { user: [], conversation: [] } as const

function signalPlace(table: TableDefinition, of: Place['of'], attributes: string, lists: readonly string[]): Place {
  return { table, of, maps: [attributes, 'ResourceAttributes'], mapLists: lists, names: noNames }
}

const exemplars = ['Exemplars.FilteredAttributes']

export const signalPlaces: readonly Place[] = [
  signalPlace(tracesTable, 'span', 'SpanAttributes', ['Events.Attributes']),
  { table: traceTimesTable, of: 'trace', maps: [], mapLists: [], names: noNames },
  signalPlace(logsTable, 'span', 'LogAttributes', []),
  signalPlace(gaugeTable, 'none', 'Attributes', exemplars),
  signalPlace(sumTable, 'none', 'Attributes', exemplars),
  signalPlace(histogramTable, 'none', 'Attributes', exemplars),
  signalPlace(exponentialHistogramTable, 'none', 'Attributes', exemplars),
  signalPlace(summaryTable, 'none', 'Attributes', []),
]

export const factsPlace: Place = {
  table: factsTable,
  of: 'span',
  maps: [],
  mapLists: [],
  names: {
    user: ["JSONExtractString(Fact, 'scene', 'userId')", "JSONExtractString(Fact, 'says', 'actor')"],
    conversation: [
      "JSONExtractString(Fact, 'scene', 'conversationId')",
      "JSONExtractString(Fact, 'scene', 'sessionId')",
    ],
  },
}

export const resolvedPlaces: readonly Place[] = rowTables.map(({ table }) => {
  const has = (wanted: string): readonly string[] =>
    table.columns.map(([name]) => name).filter((name) => name === wanted)
  return {
    table,
    of: 'resolved',
    maps: [],
    mapLists: [],
    names: { user: [...has('UserId'), ...has('Actor')], conversation: has('ConversationId') },
  }
})

/** Its records are found by what they hold, and told by their hash. */
export const quarantinePlace: Place = { table: quarantineTable, of: 'none', maps: [], mapLists: [], names: noNames }

export const places: readonly Place[] = [...signalPlaces, factsPlace, ...resolvedPlaces]

/** The condition that a row says the name itself; undefined where no row of the table does. */
export function namesSubject(place: Place, kind: SubjectKind, isName: IsName): string | undefined {
  const inPairs = (map: string): string =>
    `arrayExists((key, value) -> key IN (${namesList(kind)}) AND ${isName('value')}, mapKeys(${map}), mapValues(${map}))`
  const conditions = [
    ...place.maps.map(inPairs),
    ...place.mapLists.map((list) => `arrayExists(map -> ${inPairs('map')}, ${quoteName(list)})`),
    ...place.names[kind].map(isName),
  ]
  return conditions.length === 0 ? undefined : `(${conditions.join(' OR ')})`
}

export function namesList(kind: SubjectKind): string {
  return attributeNames[kind].map(quoteText).join(', ')
}

/** `selections` is the quoted table. */
export function idsOf(selections: string, selection: string, kind: string, columns = 'Id'): string {
  return `(SELECT ${columns} FROM ${selections} WHERE Selection = ${quoteText(selection)} AND Kind = ${quoteText(kind)})`
}

/** The condition that a row is in the selection, or says the name itself. */
export function isSelected(place: Place, selections: string, selection: string, named: string | undefined): string {
  const conditions = named === undefined ? [] : [named]
  if (place.of !== 'none') conditions.push(`TraceId IN ${idsOf(selections, selection, 'trace')}`)
  if (place.of === 'span') conditions.push(`(TraceId, SpanId) IN ${idsOf(selections, selection, 'span', 'Id, SpanId')}`)
  if (place.table === quarantineTable)
    conditions.push(`hex(SHA256(Record)) IN ${idsOf(selections, selection, 'record')}`)
  return conditions.length === 0 ? '0' : `(${conditions.join(' OR ')})`
}

/** A table of the user's own without tenants holds the default tenant's rows. */
export function isOfTenant(target: TargetTable, tenantId: TenantId): string {
  if (target.hasTenant) return `TenantId = ${quoteText(tenantId)}`
  return tenantId === defaultTenant ? '1' : '0'
}
