// GenAI records, as the rest of the collector sees them: what the walk lifts with, and what a sealed segment's facts are
// resolved with.
import type { ClickHouse } from '@tallylight/storage/clickhouse/client.ts'
import type { TargetTable } from '@tallylight/storage/clickhouse/schema.ts'
import type { RetentionClass } from '../config.ts'
import { limits } from '../limits.ts'
import type { Metrics } from '../metrics.ts'
import type { Lifting } from '../otlp/lift.ts'
import { openResolver, type Resolver } from '../sinks/resolver.ts'
import type { Fact } from './fact.ts'
import { openKnownTexts } from './known-texts.ts'
import { factsOf } from './lift.ts'
import type { PriceOf } from './price.ts'

export type GenAiOptions = {
  readonly clickhouse: ClickHouse
  readonly targetOf: (table: string) => TargetTable | undefined
  readonly priceOf: PriceOf
  readonly retentionDaysOf: (kept: RetentionClass, tenant: string) => number
  readonly metrics: Pick<Metrics, 'add'>
  readonly onProblem: (message: string) => void
}

export type GenAi = {
  readonly lifting: Lifting
  readonly resolver: Resolver
  /** Until the function that it answers is called, every text is written again when it comes. */
  readonly pauseKnownTexts: () => () => void
}

export function openGenAi(options: GenAiOptions): GenAi {
  const texts = openKnownTexts({ entriesMax: limits.knownTextsMax, windowMs: limits.knownTextsMs }, Date.now)
  return {
    pauseKnownTexts: texts.pause,
    lifting: {
      read: (record) => factsOf(record),
      keepsLeftover: () => true,
      retentionDaysOf: (tenant, fact) => options.retentionDaysOf(classOf(fact), tenant),
      textRetentionDaysOf: (tenant) =>
        Math.max(options.retentionDaysOf('chat', tenant), options.retentionDaysOf('tools', tenant)),
      isKnownText: texts.has,
      onTexts: texts.add,
    },
    resolver: openResolver({
      clickhouse: options.clickhouse,
      targetOf: options.targetOf,
      priceOf: options.priceOf,
      retentionDaysOf: (tenant, kept) => options.retentionDaysOf(kept, tenant),
      now: Date.now,
      bounds: {
        rememberedBytesMax: limits.rememberedFactsBytesMax,
        quietMs: limits.quietTraceMs,
        checkMs: limits.quietTraceCheckMs,
      },
      onResolved: async () => undefined,
      onUnpriced: (calls) => options.metrics.add('tallylight_unpriced_calls_total', {}, calls),
      onProblem: options.onProblem,
    }),
  }
}

/** A fact is kept as long as the rows that are made of it: by what it says, '' for all others. */
export const retentionOfFacts: Readonly<Record<string, RetentionClass>> = {
  tool: 'tools',
  'mcp-server': 'tools',
  audit: 'audit',
  link: 'errors',
  '': 'chat',
}

function classOf({ says }: Fact): RetentionClass {
  return retentionOfFacts[says.kind] ?? 'chat'
}
