// What the calls of some time cost, as ClickHouse has their records: the other side of the reconciler's comparison. Read by
// the same rule as segments are, but over whole traces: a wrapper that came in another segment than its call shows there.
import type { ClickHouse } from '@tallylight/storage/clickhouse/client.ts'
import type { PriceOf } from '../genai/price.ts'
import { tenantOf } from '../quota/limits.ts'
import type { RecordedCall } from '../quota/reconcile.ts'
import { eventKeyOf } from '../quota/usage-event.ts'
import { otherKeys, type SpanPlace, usageEventOf, usageKeys, withoutWrappers } from './usage-rule.ts'

type SpanRow = {
  readonly tenant: string
  readonly traceId: string
  readonly spanId: string
  readonly parentSpanId: string
  readonly endedMs: string
  readonly said: Readonly<Record<string, string>>
}

/** No call takes longer, and the spans of its trace stand as near. More would be read for each hour that is compared. */
const aroundSeconds = 10_800

/** `table` is that of spans, quoted, with its database. */
export async function recordedCallsOf(
  clickhouse: ClickHouse,
  table: string,
  priceOf: PriceOf,
  fromUnixMs: number,
  untilUnixMs: number,
): Promise<readonly RecordedCall[]> {
  const rows = await clickhouse.query<SpanRow>(
    `WITH spans AS (
       SELECT TenantId, TraceId, SpanId, ParentSpanId, SpanAttributes,
         intDiv(toUnixTimestamp64Nano(Timestamp) + toInt64(Duration), 1000000) AS EndedMs
       FROM ${table}
       WHERE Timestamp >= fromUnixTimestamp64Second({from: Int64} - {around: Int64})
         AND Timestamp < fromUnixTimestamp64Second({until: Int64} + {around: Int64})
     )
     SELECT DISTINCT TenantId AS tenant, TraceId AS traceId, SpanId AS spanId, ParentSpanId AS parentSpanId,
       toString(EndedMs) AS endedMs, mapFilter((key, value) -> has({keys: Array(String)}, key), SpanAttributes) AS said
     FROM spans
     WHERE (TenantId, TraceId) IN (
       SELECT TenantId, TraceId FROM spans
       WHERE EndedMs >= {from: Int64} * 1000 AND EndedMs < {until: Int64} * 1000
         AND arrayExists(key -> mapContains(SpanAttributes, key), {needed: Array(String)}))`,
    {
      from: fromUnixMs / 1000,
      until: untilUnixMs / 1000,
      around: aroundSeconds,
      needed: [...usageKeys],
      keys: [...usageKeys, ...otherKeys],
    },
  )
  const spans = rows.map((row) => ({ ...placeOf(row), endedUnixMs: Number(row.endedMs), said: row.said }))
  const events = spans.flatMap(({ said, endedUnixMs, ...place }) => {
    return usageEventOf(place, new Map(Object.entries(said)), endedUnixMs, priceOf) ?? []
  })
  return withoutWrappers(events, () => spans)
    .filter(({ endedUnixMs }) => endedUnixMs >= fromUnixMs && endedUnixMs < untilUnixMs)
    .map((event) => ({
      tenant: event.tenant,
      eventKey: eventKeyOf(event),
      costNanoUsd: event.cost.kind === 'priced' ? event.cost.costNanoUsd : undefined,
    }))
}

function placeOf({ tenant, traceId, spanId, parentSpanId }: SpanRow): SpanPlace {
  return { tenant: tenantOf(tenant), traceId, spanId, parentSpanId }
}
