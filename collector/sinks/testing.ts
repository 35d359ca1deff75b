// A resolver of a test: on a database of its own, with nothing around it, and facts as a sink hands them over.
import type { ClickHouse } from '@tallylight/storage/clickhouse/client.ts'
import type { TargetTable } from '@tallylight/storage/clickhouse/schema.ts'
import { expect } from 'vitest'
import { encodeFact, type Fact } from '../genai/fact.ts'
import { openPrices } from '../genai/price.ts'
import type { StoredFact } from './known-facts.ts'
import { openResolver, type Resolver, type ResolverOptions } from './resolver.ts'

export function openTestResolver(
  clickhouse: ClickHouse,
  targets: ReadonlyMap<string, TargetTable>,
  changed: Partial<ResolverOptions> = {},
): Resolver {
  return openResolver({
    clickhouse,
    targetOf: (table) => targets.get(table),
    priceOf: openPrices([]),
    estimate: () => Promise.reject(new Error('nothing is to be estimated')),
    retentionDaysOf: () => 30,
    now: Date.now,
    bounds: { rememberedBytesMax: 8 * 1024 * 1024, quietMs: 0, checkMs: 20, looksMax: 50_000 },
    isShared: false,
    journal: 'aaaaaaaaaa',
    onMore: () => Promise.resolve(),
    onUnpriced: () => undefined,
    onMissing: () => undefined,
    onProblem: (message) => expect.fail(message),
    ...changed,
  })
}

export function storedOf(facts: readonly Fact[]): readonly StoredFact[] {
  return facts.map((fact) => ({ tenantId: fact.tenantId, traceId: fact.traceId, text: encodeFact(fact) }))
}

export async function storeFacts(clickhouse: ClickHouse, facts: readonly Fact[], Segment = ''): Promise<void> {
  const rows = facts.map((fact) => ({
    Segment,
    TenantId: fact.tenantId,
    TraceId: fact.traceId,
    SpanId: fact.spanId,
    FactId: fact.id,
    Fact: encodeFact(fact),
    RetentionDays: 30,
    Timestamp: String(fact.startUnixNano),
  }))
  await insertLines(clickhouse, 'genai_facts', rows)
}

export async function insertLines(
  clickhouse: ClickHouse,
  table: string,
  rows: readonly Record<string, unknown>[],
): Promise<void> {
  const lines = rows.map((row) => `${JSON.stringify(row)}\n`).join('')
  const outcome = await clickhouse.insertRows(`${clickhouse.database}.${table}`, Object.keys(rows[0] ?? {}), lines)
  expect(outcome.kind).toBe('inserted')
}
