// Prices calls later whose price was not known when they came: their traces are resolved again from the stored facts with the
// prices of today, which have dates, so a call costs what it cost then. What is priced now supersedes the row as a correction
// of the same facts; what still has no price is left alone. Booked by the ledger like any other difference.
import type { ClickHouse } from '@tallylight/storage/clickhouse/client.ts'
import { embeddingRows, llmCallRows } from '@tallylight/storage/clickhouse/genai-tables.ts'
import { quoteText, type TargetTable } from '@tallylight/storage/clickhouse/schema.ts'
import { limits } from '../limits.ts'
import type { TenantId } from '../receive/request.ts'
import type { Resolver } from '../sinks/resolver.ts'

export type Reprice = (asked: RepriceAsked, signal: AbortSignal) => Promise<Repriced>

/** Unix milliseconds; undefined is without an end. */
export type RepriceAsked = {
  readonly tenantId: TenantId | undefined
  readonly fromUnixMs: number | undefined
  readonly toUnixMs: number | undefined
}

export type Repriced = { readonly priced: number; readonly unpriced: number }

type UnpricedRow = {
  readonly tenantId: TenantId
  readonly traceId: string
  readonly spanId: string
  readonly unixNano: string
}

export function openReprice(options: {
  readonly clickhouse: ClickHouse
  readonly targetOf: (table: string) => TargetTable | undefined
  readonly reprice: Resolver['reprice']
}): Reprice {
  async function readUnpriced(asked: RepriceAsked): Promise<readonly UnpricedRow[]> {
    const { tenantId, fromUnixMs, toUnixMs } = asked
    const conditions = [
      'CostNanoUsd IS NULL',
      ...(tenantId === undefined ? [] : [`TenantId = ${quoteText(tenantId)}`]),
      ...(fromUnixMs === undefined ? [] : [`Timestamp >= fromUnixTimestamp64Milli(${fromUnixMs})`]),
      ...(toUnixMs === undefined ? [] : [`Timestamp < fromUnixTimestamp64Milli(${toUnixMs})`]),
    ].join(' AND ')
    const of = (table: string, tokens: string): string => {
      const target = options.targetOf(table)
      if (target === undefined) throw new Error(`${table} is not known to be there`)
      return `SELECT TenantId AS tenantId, TraceId AS traceId, SpanId AS spanId,
        toString(toUnixTimestamp64Nano(Timestamp)) AS unixNano
        FROM ${target.name} FINAL WHERE ${conditions} AND (${tokens})`
    }
    const calls = of(llmCallRows.name, 'InputTokens IS NOT NULL OR OutputTokens IS NOT NULL')
    const embeddings = of(embeddingRows.name, 'InputTokens IS NOT NULL')
    return options.clickhouse.query<UnpricedRow>(
      `SELECT * FROM (${calls} UNION ALL ${embeddings}) ORDER BY tenantId, traceId, spanId`,
    )
  }

  return async (asked, signal) => {
    const found = await readUnpriced(asked)
    const unpriced = new Set(found.map(({ tenantId, traceId, spanId }) => keyOf(tenantId, traceId, spanId)))
    const traces = [...Map.groupBy(found, ({ tenantId, traceId }) => `${tenantId}\0${traceId}`).values()].map(
      (rows) => {
        const [first] = rows as [UnpricedRow]
        const times = rows.map(({ unixNano }) => BigInt(unixNano)).toSorted((a, b) => (a < b ? -1 : 1))
        return {
          tenantId: first.tenantId,
          traceId: first.traceId,
          fromUnixNano: times[0] as bigint,
          toUnixNano: times.at(-1) as bigint,
        }
      },
    )
    let priced = 0
    for (let at = 0; at < traces.length; at += limits.repricedTracesPerRead) {
      signal.throwIfAborted()
      priced += await options.reprice(traces.slice(at, at + limits.repricedTracesPerRead), (row) =>
        unpriced.has(keyOf(row.TenantId, row.TraceId, row.SpanId)),
      )
    }
    return { priced, unpriced: found.length - priced }
  }
}

function keyOf(tenantId: string, traceId: string, spanId: string): string {
  return `${tenantId}\0${traceId}\0${spanId}`
}
