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

/** Calls and embeddings that have a price now, and those that still have none. */
export type Repriced = { readonly priced: number; readonly unpriced: number }

/** A trace with calls of one day that have no price. */
type UnpricedTrace = {
  readonly tenantId: TenantId
  readonly traceId: string
  readonly spanIds: readonly string[]
  readonly fromUnixNano: string
  readonly toUnixNano: string
}

export function openReprice(options: {
  readonly clickhouse: ClickHouse
  readonly targetOf: (table: string) => TargetTable | undefined
  readonly reprice: Resolver['reprice']
}): Reprice {
  const { clickhouse } = options

  /** The rows without a price, as a table in brackets. */
  function unpricedRows({ tenantId, fromUnixMs, toUnixMs }: RepriceAsked): string {
    const conditions = [
      'CostNanoUsd IS NULL',
      ...(tenantId === undefined ? [] : [`TenantId = ${quoteText(tenantId)}`]),
      ...(fromUnixMs === undefined ? [] : [`Timestamp >= fromUnixTimestamp64Milli(${fromUnixMs})`]),
      ...(toUnixMs === undefined ? [] : [`Timestamp < fromUnixTimestamp64Milli(${toUnixMs})`]),
    ].join(' AND ')
    const of = (table: string, tokens: string): string => {
      const target = options.targetOf(table)
      if (target === undefined) throw new Error(`${table} is not known to be there`)
      return `SELECT TenantId, TraceId, SpanId, Timestamp FROM ${target.name} FINAL WHERE ${conditions} AND (${tokens})`
    }
    const calls = of(llmCallRows.name, 'InputTokens IS NOT NULL OR OutputTokens IS NOT NULL')
    return `(${calls} UNION ALL ${of(embeddingRows.name, 'InputTokens IS NOT NULL')})`
  }

  async function priceDay(rows: string, day: string, signal: AbortSignal): Promise<Repriced> {
    let priced = 0
    let found = 0
    let after = { tenant: '', trace: '' }
    for (;;) {
      signal.throwIfAborted()
      const traces = await clickhouse.query<UnpricedTrace>(
        `SELECT TenantId AS tenantId, TraceId AS traceId, groupArray(SpanId) AS spanIds,
           toString(toUnixTimestamp64Nano(min(Timestamp))) AS fromUnixNano,
           toString(toUnixTimestamp64Nano(max(Timestamp))) AS toUnixNano
         FROM ${rows} WHERE toDate(Timestamp) = {day:Date} AND (TenantId, TraceId) > ({tenant:String}, {trace:String})
         GROUP BY TenantId, TraceId ORDER BY TenantId, TraceId LIMIT ${limits.unpricedTracesPerRead}`,
        { day, ...after },
      )
      for (let at = 0; at < traces.length; at += limits.tracesResolvedAgain)
        priced += await priceTraces(traces.slice(at, at + limits.tracesResolvedAgain))
      found += traces.reduce((sum, { spanIds }) => sum + spanIds.length, 0)
      const last = traces.at(-1)
      if (last === undefined) return { priced, unpriced: found - priced }
      after = { tenant: last.tenantId, trace: last.traceId }
    }
  }

  function priceTraces(traces: readonly UnpricedTrace[]): Promise<number> {
    const keyOf = (tenantId: string, traceId: string, spanId: string): string => `${tenantId}\0${traceId}\0${spanId}`
    const unpriced = new Set(
      traces.flatMap(({ tenantId, traceId, spanIds }) => spanIds.map((spanId) => keyOf(tenantId, traceId, spanId))),
    )
    return options.reprice(
      traces.map(({ tenantId, traceId, fromUnixNano, toUnixNano }) => ({
        tenantId,
        traceId,
        fromUnixNano: BigInt(fromUnixNano),
        toUnixNano: BigInt(toUnixNano),
      })),
      (row) => unpriced.has(keyOf(row.TenantId, row.TraceId, row.SpanId)),
    )
  }

  return async (asked, signal) => {
    const rows = unpricedRows(asked)
    const days = await clickhouse.query<{ day: string }>(
      `SELECT DISTINCT toString(toDate(Timestamp)) AS day FROM ${rows} ORDER BY day`,
    )
    let [priced, unpriced] = [0, 0]
    for (const { day } of days) {
      const done = await priceDay(rows, day, signal)
      priced += done.priced
      unpriced += done.unpriced
    }
    return { priced, unpriced }
  }
}
