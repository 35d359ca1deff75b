// Finds everything of a user or a conversation, also what is theirs only by an ancestor, and writes its ids into
// `record_selections`. A trace in which nobody else is named is theirs whole; of the others each span is placed as the
// resolver places it. Selecting again adds to a selection and never takes away.
import type { ClickHouse } from '@tallylight/storage/clickhouse/client.ts'
import { messageRows, toolCallRows, wrapperMessageRows } from '@tallylight/storage/clickhouse/genai-tables.ts'
import { quoteName, quoteText, type TargetTable } from '@tallylight/storage/clickhouse/schema.ts'
import { factsTable, logsTable, quarantineTable, tracesTable } from '@tallylight/storage/clickhouse/tables.ts'
import { decodeFact, type Fact } from '../genai/fact.ts'
import { sceneOf } from '../genai/scene.ts'
import { limits } from '../limits.ts'
import type { Mutations } from './mutations.ts'
import { idsOf, isOfTenant, isSelected, namesList, namesSubject, type Place, places } from './places.ts'
import { findQuarantined } from './quarantined.ts'
import { isNameOf, type Subject } from './subject.ts'
import { spansOf } from './whose-spans.ts'

export type Selections = {
  /** Quoted, with its database. */
  readonly table: string
  /** `traces`: whole traces are taken even where others share them. */
  select(selection: string, subject: Subject, extent: 'spans' | 'traces'): Promise<void>
  /** Traces of the selection of which facts are left: those that others share, and those that went on meanwhile. */
  tracesLeft(selection: string, subject: Subject): Promise<readonly TraceSpan[]>
  /** All whose names begin so. */
  remove(prefix: string, signal: AbortSignal): Promise<void>
  /** Traces that are in both. */
  countCommon(one: string, other: string): Promise<number>
}

export type TraceSpan = { readonly traceId: string; readonly fromUnixNano: bigint; readonly toUnixNano: bigint }

export function openSelections(
  clickhouse: ClickHouse,
  targetOf: (table: string) => TargetTable | undefined,
  mutations: Mutations,
): Selections {
  const table = `${quoteName(clickhouse.database)}.record_selections`

  function targetNamed(name: string): TargetTable {
    const target = targetOf(name)
    if (target === undefined) throw new Error(`${name} is not known to be there`)
    return target
  }

  const fromTenant = (name: string, subject: Subject): string => {
    const target = targetNamed(name)
    return `FROM ${target.name} WHERE ${isOfTenant(target, subject.tenantId)}`
  }

  async function add(selection: string, kind: string, select: string): Promise<void> {
    await clickhouse.command(
      `INSERT INTO ${table} (Selection, Kind, Id, SpanId) SELECT ${quoteText(selection)}, ${quoteText(kind)}, Id, SpanId FROM (${select})`,
    )
  }

  async function select(selection: string, subject: Subject, extent: 'spans' | 'traces'): Promise<void> {
    const isName = isNameOf(subject)
    const named = places.flatMap((place) => {
      const condition = hasTraceId(place) ? namesSubject(place, subject.kind, isName) : undefined
      return condition === undefined ? [] : [{ place, condition }]
    })
    const candidates = named.map(
      ({ place, condition }) =>
        `SELECT TraceId AS Id, '' AS SpanId ${fromTenant(place.table.name, subject)} AND TraceId != '' AND ${condition}`,
    )
    const all = `SELECT DISTINCT Id, SpanId FROM (${candidates.join(' UNION ALL ')})`
    await add(selection, extent === 'traces' ? 'trace' : 'candidate', all)
    if (extent === 'spans') await addSpans(selection, subject)
    await addTexts(selection, subject)
    await findQuarantined(
      { clickhouse, target: targetNamed(quarantineTable.name), selections: table },
      selection,
      subject,
    )
  }

  async function addSpans(selection: string, subject: Subject): Promise<void> {
    const candidates = idsOf(table, selection, 'candidate')
    const others = namesOfTraces(subject, candidates)
    const isTheirs = `arrayAll(name -> name IN ('', ${quoteText(subject.name)}), Names)`
    await add(
      selection,
      'trace',
      `SELECT TraceId AS Id, '' AS SpanId FROM (
         SELECT TraceId, groupUniqArrayArray(Names) AS Names FROM (${others}) GROUP BY TraceId) WHERE ${isTheirs}`,
    )
    const shared = await clickhouse.query<{ traceId: string }>(
      `SELECT DISTINCT Id AS traceId FROM ${table} WHERE Selection = ${quoteText(selection)} AND Kind = 'candidate'
         AND Id NOT IN ${idsOf(table, selection, 'trace')}`,
    )
    for (let at = 0; at < shared.length; at += limits.sharedTracesPerRead) {
      const traceIds = shared.slice(at, at + limits.sharedTracesPerRead).map(({ traceId }) => traceId)
      const lines = (await spansOfTraces(traceIds, subject)).map(
        ([Id, SpanId]) => `${JSON.stringify({ Selection: selection, Kind: 'span', Id, SpanId })}\n`,
      )
      if (lines.length === 0) continue
      const outcome = await clickhouse.insertRows(table, ['Selection', 'Kind', 'Id', 'SpanId'], lines.join(''))
      if (outcome.kind !== 'inserted') throw new Error(`${table}: ${outcome.kind}: ${outcome.message}`)
    }
  }

  /** Everybody who is named in a trace, by facts and by the attributes of spans and log records. */
  function namesOfTraces(subject: Subject, candidates: string): string {
    const own = (map: string): string =>
      `mapValues(mapFilter((key, value) -> key IN (${namesList(subject.kind)}), ${map}))`
    const scene = (field: string): string => `JSONExtractString(Fact, 'scene', '${field}')`
    const inFacts = subject.kind === 'user' ? [scene('userId')] : [scene('conversationId'), scene('sessionId')]
    const of = (name: string, names: string): string =>
      `SELECT TraceId, ${names} AS Names ${fromTenant(name, subject)} AND TraceId IN ${candidates}`
    return [
      of(factsTable.name, `[${inFacts.join(', ')}]`),
      of(tracesTable.name, own('SpanAttributes')),
      of(logsTable.name, own('LogAttributes')),
      // One of which only rows are left has no names, and is theirs.
      `SELECT arrayJoin(groupUniqArray(Id)) AS TraceId, CAST([], 'Array(String)') AS Names FROM ${candidates}`,
    ].join(' UNION ALL ')
  }

  async function spansOfTraces(
    traceIds: readonly string[],
    subject: Subject,
  ): Promise<readonly (readonly [traceId: string, spanId: string])[]> {
    const list = traceIds.map(quoteText).join(', ')
    const facts = (
      await clickhouse.query<{ text: string }>(
        `SELECT Fact AS text ${fromTenant(factsTable.name, subject)} AND TraceId IN (${list})`,
      )
    ).map(({ text }) => decodeFact(text))
    const known = new Set(facts.map(({ traceId, spanId }) => `${traceId}${spanId}`))
    const spans = await clickhouse.query<SpanRow>(
      `SELECT TraceId AS traceId, SpanId AS spanId, ParentSpanId AS parentSpanId, toString(toUnixTimestamp64Nano(Timestamp)) AS startUnixNano,
         mapFilter((key, value) -> key IN (${namesList('user')}, ${namesList('conversation')}), SpanAttributes) AS attributes
       ${fromTenant(tracesTable.name, subject)} AND TraceId IN (${list})`,
    )
    const links = spans
      .filter(({ traceId, spanId }) => !known.has(`${traceId}${spanId}`))
      .map((span) => linkOf(subject, span))
    return [...Map.groupBy([...facts, ...links], ({ traceId }) => traceId)].flatMap(([traceId, ofTrace]) =>
      spansOf(ofTrace, subject).map((spanId) => [traceId, spanId] as const),
    )
  }

  /** Hashes of the texts that the selected records show. */
  async function addTexts(selection: string, subject: Subject): Promise<void> {
    const inPlace = (name: string): string => {
      const place = places.find((each) => each.table.name === name) as Place
      const named = namesSubject(place, subject.kind, isNameOf(subject))
      return `${fromTenant(name, subject)} AND ${isSelected(place, table, selection, named)}`
    }
    await add(
      selection,
      'text',
      `SELECT DISTINCT Id, '' AS SpanId FROM (
         SELECT arrayJoin(extractAll(Fact, '"hash":"([0-9a-f]{32})"')) AS Id ${inPlace(factsTable.name)}
         UNION ALL SELECT ContentHash AS Id ${inPlace(messageRows.name)}
         UNION ALL SELECT ContentHash AS Id ${inPlace(wrapperMessageRows.name)}
         UNION ALL SELECT arrayJoin([ArgumentsHash, ResultHash]) AS Id ${inPlace(toolCallRows.name)}) WHERE Id != ''`,
    )
  }

  return {
    table,
    select,
    tracesLeft: async (selection, subject) => {
      const rows = await clickhouse.query<{ traceId: string; from: string; to: string }>(
        `SELECT TraceId AS traceId, toString(toUnixTimestamp64Nano(min(Timestamp))) AS from, toString(toUnixTimestamp64Nano(max(Timestamp))) AS to
         ${fromTenant(factsTable.name, subject)} AND TraceId IN
           (SELECT Id FROM ${table} WHERE Selection = ${quoteText(selection)} AND Kind IN ('trace', 'span')) GROUP BY TraceId`,
      )
      return rows.map(({ traceId, from, to }) => ({ traceId, fromUnixNano: BigInt(from), toUnixNano: BigInt(to) }))
    },
    remove: async (prefix, signal) => {
      const where = `startsWith(Selection, ${quoteText(prefix)})`
      const found = await clickhouse.query(`SELECT 1 FROM ${table} WHERE ${where} LIMIT 1`)
      const place = { name: table, database: clickhouse.database, table: 'record_selections' }
      if (found.length > 0) await mutations.mutate(place, `DELETE WHERE ${where}`, signal)
    },
    countCommon: async (one, other) => {
      const inOther = `SELECT Id FROM ${table} WHERE Selection = ${quoteText(other)} AND Kind IN ('trace', 'span')`
      const [row] = await clickhouse.query<{ traces: number }>(
        `SELECT toUInt32(uniqExact(Id)) AS traces FROM ${table}
         WHERE Selection = ${quoteText(one)} AND Kind IN ('trace', 'span') AND Id IN (${inOther})`,
      )
      return row?.traces ?? 0
    },
  }
}

type SpanRow = {
  readonly traceId: string
  readonly spanId: string
  readonly parentSpanId: string
  readonly startUnixNano: string
  readonly attributes: Readonly<Record<string, string>>
}

/** A span of which no fact is known may still say whose it is. */
function linkOf({ tenantId }: Subject, span: SpanRow): Fact {
  const startUnixNano = BigInt(span.startUnixNano)
  return {
    id: 'span',
    tenantId,
    traceId: span.traceId,
    spanId: span.spanId,
    parentSpanId: span.parentSpanId === span.spanId ? '' : span.parentSpanId,
    serviceName: '',
    dialect: '',
    startUnixNano,
    endUnixNano: startUnixNano,
    scene: sceneOf(new Map(Object.entries(span.attributes)), new Map()),
    says: { kind: 'link' },
  }
}

function hasTraceId({ of }: Place): boolean {
  return of === 'span' || of === 'resolved'
}
