// What ClickHouse already knows of some traces: their facts, the spans between them that speak of nothing, and the keys under
// which rows stand. The truth behind the resolver's memory, after a restart and where several collectors see one trace.
import { type AnyBlock, isBlockOf } from '@tallylight/storage/clickhouse/block.ts'
import type { ClickHouse } from '@tallylight/storage/clickhouse/client.ts'
import { quoteText, type TargetTable } from '@tallylight/storage/clickhouse/schema.ts'
import { textsOf } from '@tallylight/storage/clickhouse/slice.ts'
import { contentsTable, factsTable, tracesTable } from '@tallylight/storage/clickhouse/tables.ts'
import { keyOf, type RowKey, type RowTable } from '../genai/row-tables.ts'
import type { Row } from '../genai/rows.ts'
import { sceneKeys, sceneResourceKeys } from '../genai/scene.ts'
import type { TenantId } from '../receive/request.ts'

export type TraceKey = { readonly tenantId: TenantId; readonly traceId: string }
export type TraceTimes = TraceKey & { readonly fromUnixNano: bigint; readonly toUnixNano: bigint }
/** As `encodeFact` wrote it. */
export type StoredFact = TraceKey & { readonly text: string }
/** The ids of spans that are not known of a trace. */
export type AwaitingTrace = { readonly times: TraceTimes; readonly awaits: readonly string[] }
/** One that a collector was about to look at once more when it ended. */
export type UnsettledTrace = AwaitingTrace & {
  readonly facts: number
  /** Others have stored some of them. */
  readonly isShared: boolean
}
export type KnownKey = TraceKey & { readonly key: RowKey; readonly generation: number }

/** The facts of a segment. */
export function factsIn(parts: readonly { readonly block: AnyBlock }[]): readonly StoredFact[] {
  return parts.flatMap(({ block }) => (isBlockOf(block, factsTable) ? factsOfBlock(block) : []))
}

function factsOfBlock(block: AnyBlock): readonly StoredFact[] {
  const tenants = textsOf(block, 'TenantId')
  const traces = textsOf(block, 'TraceId')
  return textsOf(block, 'Fact').map((text, row) => ({
    tenantId: tenants[row] as TenantId,
    traceId: traces[row] as string,
    text,
  }))
}

/** A span with its parent; times are digits. */
export type SpanLink = TraceKey & {
  readonly spanId: string
  readonly parentSpanId: string
  readonly startUnixNano: string
  readonly endUnixNano: string
  /** Of the span's attributes and of its resource's those that may say whose it is. */
  readonly attributes: Readonly<Record<string, string>>
  readonly resource: Readonly<Record<string, string>>
}

export type KnownFacts = {
  factsOf(traces: readonly TraceTimes[]): Promise<readonly StoredFact[]>
  /** Distinct facts per trace, by their keys: a hundredth of reading them. Traces without any are left out. */
  countsOf(traces: readonly TraceTimes[]): Promise<readonly (TraceKey & { readonly facts: number })[]>
  keysOf(rowTable: RowTable, traces: readonly TraceTimes[]): Promise<readonly KnownKey[]>
  /** The texts of these hashes, as far as they are kept. */
  textsOf(tenantId: TenantId, hashes: readonly string[]): Promise<ReadonlyMap<string, string>>
  /** Parents that no fact stands for, of the last hours' facts. */
  missingParents(): Promise<readonly string[]>
  /** The traces of what this journal brought last. */
  unsettled(journal: string): Promise<readonly UnsettledTrace[]>
  /** The spans of these traces that one of them awaits. */
  spansOf(awaiting: readonly AwaitingTrace[]): Promise<readonly (TraceKey & { readonly spanId: string })[]>
  /** Every span of these traces, with its parent. */
  linksOf(traces: readonly TraceTimes[]): Promise<readonly SpanLink[]>
}

type KnownTable = Pick<TargetTable, 'name' | 'hasTenant' | 'hoursBegin'>

const tracesPerQuery = 1_000
/** A server takes 256 KiB of a statement by default. */
const hashesPerQuery = 1_000
/** Parts of one trace further apart than this do not know of each other: a trace has to be looked for somewhere. */
const traceSpreadSeconds = 86_400

/** Who starts anew waits for the parents of as many spans, of so long. */
const awaitedMax = 100_000
const awaitedSeconds = 7_200

/** A second each, at most: more than a trace waits for its second look. */
const unsettledSegments = 60

export function openKnownFacts(
  clickhouse: Pick<ClickHouse, 'query'>,
  targetOf: (table: string) => KnownTable | undefined,
): KnownFacts {
  function targetNamed(table: string): KnownTable {
    const target = targetOf(table)
    if (target === undefined) throw new Error(`${table} is not known to be there`)
    return target
  }

  const nameOf = (table: string): string => targetNamed(table).name

  /** A user's own table may have no tenants; then its spans are the default tenant's, and ancestors cannot be told apart. */
  function hasTenants(): boolean {
    return targetOf(tracesTable.name)?.hasTenant === true
  }

  /** `{traces}` in the rest of the statement becomes the condition. Asked in turns, because a statement has a largest size. */
  async function ask<Row>(
    select: string,
    table: string,
    traces: readonly TraceTimes[],
    rest: string,
  ): Promise<readonly Row[]> {
    const rows: Row[] = []
    for (let at = 0; at < traces.length; at += tracesPerQuery) {
      const condition = conditionOf(traces.slice(at, at + tracesPerQuery))
      const found = await clickhouse.query<Row>(
        `SELECT ${select} FROM ${nameOf(table)} ${rest.replace('{traces}', condition)}`,
      )
      for (const row of found) rows.push(row)
    }
    return rows
  }

  return {
    factsOf: (traces) =>
      ask('TenantId AS tenantId, TraceId AS traceId, Fact AS text', factsTable.name, traces, 'WHERE {traces}'),
    countsOf: (traces) =>
      ask(
        'TenantId AS tenantId, TraceId AS traceId, toUInt32(uniqExact(SpanId, FactId)) AS facts',
        factsTable.name,
        traces,
        'WHERE {traces} GROUP BY TenantId, TraceId',
      ),
    keysOf: async (rowTable, traces) => {
      const { hoursBegin } = targetNamed(rowTable.table.name)
      const rows = await ask<Omit<Row, 'Timestamp'> & { readonly hour: number }>(
        `TenantId, TraceId, Generation, toUnixTimestamp(toStartOfHour(Timestamp)) AS hour, ${rowTable.key.map((name) => `\`${name}\``).join(', ')}`,
        rowTable.table.name,
        traces,
        'FINAL WHERE {traces}',
      )
      return rows.map((row) => ({
        tenantId: row.TenantId,
        traceId: row.TraceId,
        key: keyOf(rowTable, { ...row, Timestamp: BigInt(row.hour) * 1_000_000_000n }, hoursBegin),
        generation: row.Generation,
      }))
    },
    textsOf: async (tenantId, hashes) => {
      const texts = new Map<string, string>()
      for (let at = 0; at < hashes.length; at += hashesPerQuery) {
        const list = hashes
          .slice(at, at + hashesPerQuery)
          .map(quoteText)
          .join(', ')
        const rows = await clickhouse.query<{ hash: string; text: string }>(
          `SELECT Hash AS hash, any(Text) AS text FROM ${nameOf(contentsTable.name)}
           WHERE TenantId = ${quoteText(tenantId)} AND Hash IN (${list}) GROUP BY Hash`,
        )
        for (const { hash, text } of rows) texts.set(hash, text)
      }
      return texts
    },
    missingParents: async () => {
      const recent = `FROM ${nameOf(factsTable.name)} WHERE Timestamp > now() - toIntervalSecond(${awaitedSeconds})`
      const rows = await clickhouse.query<{ parent: string }>(
        `SELECT DISTINCT JSONExtractString(Fact, 'parentSpanId') AS parent ${recent}
           AND parent != '' AND parent GLOBAL NOT IN (SELECT SpanId ${recent}) LIMIT ${awaitedMax}`,
      )
      return rows.map(({ parent }) => parent)
    },
    unsettled: async (journal) => {
      const facts = nameOf(factsTable.name)
      const recent = `Timestamp > now() - toIntervalSecond(${traceSpreadSeconds}) AND TraceId != ''`
      const own = `${recent} AND startsWith(Segment, ${quoteText(`${journal}-`)})`
      const rows = await clickhouse.query<
        TraceKey &
          Record<'from' | 'to', string> &
          Record<'parents' | 'spans' | 'journals', readonly string[]> & { facts: number }
      >(
        `SELECT TenantId AS tenantId, TraceId AS traceId, toUInt32(uniqExact(SpanId, FactId)) AS facts,
           toString(toUnixTimestamp64Nano(min(Timestamp))) AS from, toString(toUnixTimestamp64Nano(max(Timestamp))) AS to,
           groupUniqArray(JSONExtractString(Fact, 'parentSpanId')) AS parents, groupUniqArray(SpanId) AS spans,
           groupUniqArray(splitByChar('-', toString(Segment))[1]) AS journals
         FROM ${facts} WHERE ${recent} AND (TenantId, TraceId) GLOBAL IN (
           SELECT TenantId, TraceId FROM ${facts} WHERE ${own} AND Segment GLOBAL IN (
             SELECT DISTINCT Segment FROM ${facts} WHERE ${own} ORDER BY Segment DESC LIMIT ${unsettledSegments}))
         GROUP BY TenantId, TraceId`,
      )
      return rows.map(({ tenantId, traceId, from, to, parents, spans, journals, ...row }) => {
        const known = new Set(spans).add('')
        return {
          times: { tenantId, traceId, fromUnixNano: BigInt(from), toUnixNano: BigInt(to) },
          awaits: parents.filter((parent) => !known.has(parent)),
          facts: row.facts,
          isShared: journals.length > 1,
        }
      })
    },
    spansOf: async (awaiting) => {
      if (!hasTenants()) return []
      const pairs = awaiting.flatMap(({ times, awaits }) => awaits.map((spanId) => ({ times, spanId })))
      const spans: (TraceKey & { readonly spanId: string })[] = []
      // So many of both in a statement: a trace may await any number.
      for (let at = 0; at < pairs.length; at += tracesPerQuery) {
        const some = pairs.slice(at, at + tracesPerQuery)
        const ids = [...new Set(some.map(({ spanId }) => spanId))].map(quoteText)
        const found = await ask<TraceKey & { readonly spanId: string }>(
          'DISTINCT TenantId AS tenantId, TraceId AS traceId, SpanId AS spanId',
          tracesTable.name,
          [...new Set(some.map(({ times }) => times))],
          `WHERE {traces} AND SpanId IN (${ids.join(', ')})`,
        )
        for (const span of found) spans.push(span)
      }
      return spans
    },
    linksOf: async (traces) => {
      if (!hasTenants()) return []
      return ask<SpanLink>(
        `TenantId AS tenantId, TraceId AS traceId, SpanId AS spanId, ParentSpanId AS parentSpanId,
           toString(toUnixTimestamp64Nano(Timestamp)) AS startUnixNano,
           toString(toUnixTimestamp64Nano(Timestamp) + Duration) AS endUnixNano,
           mapFilter((key, value) -> key IN (${sceneKeys.map(quoteText).join(', ')}), SpanAttributes) AS attributes,
           mapFilter((key, value) -> key IN (${sceneResourceKeys.map(quoteText).join(', ')}), ResourceAttributes) AS resource`,
        tracesTable.name,
        traces,
        'WHERE {traces}',
      )
    },
  }
}

function conditionOf(traces: readonly TraceTimes[]): string {
  const pairs = traces.map(({ tenantId, traceId }) => `(${quoteText(tenantId)}, ${quoteText(traceId)})`)
  const from = Math.min(...traces.map(({ fromUnixNano }) => secondsOf(fromUnixNano))) - traceSpreadSeconds
  const to = Math.max(...traces.map(({ toUnixNano }) => secondsOf(toUnixNano))) + traceSpreadSeconds
  return `(TenantId, TraceId) IN (${pairs.join(', ')}) AND Timestamp BETWEEN toDateTime(${Math.max(0, from)}) AND toDateTime(${to})`
}

function secondsOf(unixNano: bigint): number {
  return Number(unixNano / 1_000_000_000n)
}
