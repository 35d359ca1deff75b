// What resolved calls used, as the ledger wants to know it: the calls that count, and the spans that turned out to count no
// more. And what ClickHouse has of them, for the reconciler.
import type { ClickHouse } from '@tallylight/storage/clickhouse/client.ts'
import { embeddingRows, llmCallRows } from '@tallylight/storage/clickhouse/genai-tables.ts'
import type { MinuteSum } from '@tallylight/storage/postgres/quota/reconcile.ts'
import type { NanoUsd, Priced } from '../genai/price.ts'
import type { EmbeddingRow, LlmCallRow } from '../genai/rows.ts'
import type { RecordedCall } from '../quota/reconcile.ts'
import type { UsageEvent } from '../quota/usage-event.ts'
import type { TenantId } from '../receive/request.ts'
import type { ResolvedTrace } from './resolver.ts'

export function usageEventsOf({ tenantId, traceId, resolved }: ResolvedTrace): readonly UsageEvent[] {
  return [
    ...resolved.llmCalls.map((row) => eventOfCall(row)),
    ...resolved.embeddings.map((row) => eventOfEmbedding(row)),
    ...resolved.gone.flatMap((gone) =>
      gone.table === 'llm_calls' || gone.table === 'embeddings'
        ? [eventOfGone(tenantId, traceId, gone.spanId, resolved.generation)]
        : [],
    ),
  ]
}

function eventOfCall(row: LlmCallRow): UsageEvent {
  const { InputTokens, OutputTokens, UsageSource } = row
  const usage = UsageSource === 'none' ? undefined : { inputTokens: InputTokens ?? 0, outputTokens: OutputTokens ?? 0 }
  return eventOf(row, usage, UsageSource === 'partial')
}

function eventOfEmbedding(row: EmbeddingRow): UsageEvent {
  return eventOf(row, row.InputTokens === null ? undefined : { inputTokens: row.InputTokens, outputTokens: 0 }, false)
}

function eventOf(row: LlmCallRow | EmbeddingRow, told: UsageEvent['usage'], isLowerBound: boolean): UsageEvent {
  const isFree = told === undefined && row.ErrorType !== ''
  return {
    ...placeOf(row),
    callId: row.CallId || undefined,
    user: row.UserId,
    conversation: row.ConversationId,
    // Limits are for the model that was asked for.
    model: row.RequestModel || row.Model,
    provider: row.Provider,
    // Of a call that was made and told nothing, nothing is known, which is not nothing.
    usage: isFree ? nothing : told,
    isLowerBound,
    cost: isFree ? free : costOf(row),
    isMetered: true,
    endedUnixMs: Number((row.Timestamp + row.DurationNano) / 1_000_000n),
  }
}

function placeOf(row: LlmCallRow | EmbeddingRow) {
  return {
    tenant: row.TenantId,
    traceId: row.TraceId,
    spanId: row.SpanId,
    parentSpanId: '',
    generation: row.Generation,
  }
}

/** A call that failed and tells no usage was not billed. */
const nothing = { inputTokens: 0, outputTokens: 0 }
const free: Priced = { kind: 'priced', costNanoUsd: 0n as NanoUsd, priceVersion: '' }

function costOf({ CostNanoUsd, PriceVersion }: LlmCallRow | EmbeddingRow): Priced {
  return CostNanoUsd === null
    ? { kind: 'unpriced', reason: 'no price is known' }
    : { kind: 'priced', costNanoUsd: CostNanoUsd, priceVersion: PriceVersion }
}

function eventOfGone(tenant: TenantId, traceId: string, spanId: string, generation: number): UsageEvent {
  return {
    tenant,
    traceId,
    spanId,
    parentSpanId: '',
    generation,
    callId: undefined,
    user: '',
    conversation: '',
    model: '',
    provider: '',
    usage: nothing,
    isLowerBound: false,
    cost: free,
    isMetered: false,
    endedUnixMs: 0,
  }
}

/** The name of a table, quoted, with its database. */
type NameOf = (table: string) => string

/** The calls that ended in this time, as their rows say. */
export async function recordedCallsOf(
  clickhouse: ClickHouse,
  nameOf: NameOf,
  fromUnixMs: number,
  untilUnixMs: number,
): Promise<readonly RecordedCall[]> {
  const rows = await clickhouse.query<{ tenant: TenantId; eventKey: string; cost: string | null }>(
    `SELECT tenant, eventKey, cost FROM (${endedCalls(nameOf)})`,
    { from: fromUnixMs, until: untilUnixMs, longest: longestCallMs },
  )
  return rows.map(({ cost, ...row }) => ({ ...row, costNanoUsd: cost === null ? undefined : BigInt(cost) }))
}

/** What those of each tenant and minute add up to, as `selectSettledSums` has it of the ledger. */
export async function recordedSumsOf(
  clickhouse: ClickHouse,
  nameOf: NameOf,
  fromUnixMs: number,
  untilUnixMs: number,
): Promise<readonly MinuteSum[]> {
  return clickhouse.query<MinuteSum>(
    `SELECT tenant, toString(intDiv(endedMs, 60000)) AS minute, toString(count()) AS calls,
       toString(sum(toInt128(ifNull(cost, '0')))) AS nano_usd,
       toString(sum(toUInt64(reinterpretAsUInt32(reverse(substring(SHA256(concat(eventKey, ' ', ifNull(cost, ''))), 1, 4))))))
         AS fingerprint
     FROM (${endedCalls(nameOf)}) GROUP BY tenant, intDiv(endedMs, 60000)`,
    { from: fromUnixMs, until: untilUnixMs, longest: longestCallMs },
  )
}

/** Named as `eventKeyOf` names them. */
function endedCalls(nameOf: NameOf): string {
  const select = (table: string, isUntold: string): string =>
    `SELECT TenantId AS tenant, concat('span:', TraceId, ':', SpanId) AS eventKey,
       if(${isUntold} AND ErrorType != '', '0', toString(CostNanoUsd)) AS cost,
       intDiv(toUnixTimestamp64Nano(Timestamp) + toInt64(ifNull(DurationNano, 0)), 1000000) AS endedMs
     FROM ${nameOf(table)} FINAL
     WHERE Timestamp >= fromUnixTimestamp64Milli({from: Int64} - {longest: Int64}) AND Timestamp < fromUnixTimestamp64Milli({until: Int64})`
  return `SELECT * FROM (
    ${select(llmCallRows.name, "UsageSource = 'none'")}
    UNION ALL ${select(embeddingRows.name, 'InputTokens IS NULL')})
  WHERE endedMs >= {from: Int64} AND endedMs < {until: Int64}`
}

const longestCallMs = 86_400_000
