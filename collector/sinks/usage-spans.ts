// The usage events of a segment: its rows of spans, read by the rule. What replaces the rule replaces this function.
import { type Block, isBlockOf } from '@tallylight/storage/clickhouse/block.ts'
import { mapsWith, namesOf, openTexts } from '@tallylight/storage/clickhouse/read-rows.ts'
import { tracesTable } from '@tallylight/storage/clickhouse/tables.ts'
import type { PriceOf } from '../genai/price.ts'
import type { SegmentPart } from '../journal/journal.ts'
import { tenantOf } from '../quota/limits.ts'
import type { UsageEvent } from '../quota/usage-event.ts'
import { otherKeys, type SpanPlace, usageEventOf, usageKeys, withoutWrappers } from './usage-rule.ts'

type Traces = Block<typeof tracesTable>

export function usageEventsOf(parts: readonly SegmentPart[], priceOf: PriceOf): readonly UsageEvent[] {
  const blocks = parts.map(({ block }) => block).filter((block) => isBlockOf(block, tracesTable))
  const events = blocks.flatMap((block) => [...eventsOf(block, priceOf)])
  return withoutWrappers(events, () => blocks.flatMap((block) => [...placesOf(block)]))
}

function* eventsOf(block: Traces, priceOf: PriceOf): Generator<UsageEvent> {
  const placeAt = openPlaces(block)
  const { Timestamp, Duration, SpanAttributes } = block.columns
  for (const { row, values } of mapsWith(SpanAttributes, block.rows, usageKeys, otherKeys)) {
    const endedUnixNano = Timestamp.data.view.getBigInt64(row * 8, true) + Duration.data.view.getBigInt64(row * 8, true)
    const event = usageEventOf(placeAt(row), values, Number(endedUnixNano / 1_000_000n), priceOf)
    if (event !== undefined) yield event
  }
}

function* placesOf(block: Traces): Generator<SpanPlace> {
  const placeAt = openPlaces(block)
  for (let row = 0; row < block.rows; row++) yield placeAt(row)
}

/** Asked with rows that ascend. */
function openPlaces({ columns }: Traces): (row: number) => SpanPlace {
  const tenant = namesOf(columns.TenantId)
  const traceId = openTexts(columns.TraceId)
  const spanId = openTexts(columns.SpanId)
  const parentSpanId = openTexts(columns.ParentSpanId)
  return (row) => ({
    tenant: tenantOf(tenant(row)),
    traceId: traceId(row),
    spanId: spanId(row),
    parentSpanId: parentSpanId(row),
  })
}
