// GenAI records, as the rest of the collector sees them: what the walk lifts with, what a sealed segment's facts are resolved
// with, and what its calls used.
import type { ClickHouse } from '@tallylight/storage/clickhouse/client.ts'
import type { TargetTable } from '@tallylight/storage/clickhouse/schema.ts'
import type { ContentPolicy, RetentionClass } from '../config.ts'
import { limits } from '../limits.ts'
import { openPersonalMask, type PersonalOptions } from '../masking/personal.ts'
import type { Lifting } from '../otlp/lift.ts'
import type { UsageEvent } from '../quota/usage-event.ts'
import { openAwaitedElsewhere } from '../sinks/awaited-elsewhere.ts'
import type { StoredFact } from '../sinks/known-facts.ts'
import { openResolver, type Resolver } from '../sinks/resolver.ts'
import { usageEventsOf } from '../sinks/usage-of-calls.ts'
import { openAwaitedSpans } from './awaited-spans.ts'
import { openEstimates } from './estimates.ts'
import type { Fact } from './fact.ts'
import { openKnownTexts } from './known-texts.ts'
import { factsOf } from './lift.ts'
import type { PriceOf } from './price.ts'

export type GenAiOptions = {
  readonly clickhouse: ClickHouse
  readonly targetOf: (table: string) => TargetTable | undefined
  readonly priceOf: PriceOf
  readonly retentionDaysOf: (kept: RetentionClass, tenant: string) => number
  readonly contentPolicyOf: (tenant: string) => ContentPolicy
  /** Content that became rows stays in spans and log records, too. */
  readonly keepsRawContent: boolean
  readonly personal: PersonalOptions
  /** Other collectors may store parts of the same traces. */
  readonly isShared: boolean
  /** The id of this collector's. */
  readonly journal: string
  /** Told of what calls used, where that became known later. */
  readonly onCorrected: (events: readonly UsageEvent[]) => Promise<void>
  /** Calls that are new and whose price is not known. */
  readonly onUnpriced: (calls: number) => void
  readonly onProblem: (message: string) => void
}

export type GenAi = {
  readonly lifting: Lifting
  /** What calls used, as far as it can be said without ClickHouse. */
  usageOf(facts: readonly StoredFact[]): readonly UsageEvent[]
  /** Writes the rows that follow from facts that are in ClickHouse, and says what their calls used. */
  derive(facts: readonly StoredFact[]): Promise<readonly UsageEvent[]>
  /** Takes up what an earlier run was waiting for; before records come, or parents of before are not known for what they are. */
  recall(): Promise<void>
  run(signal: AbortSignal): Promise<void>
  /** For what is done to records that are there already. */
  readonly resolver: Pick<Resolver, 'forget' | 'resolveAgain' | 'reprice'>
  /** Until the function that it answers is called, every text is written again when it comes. */
  readonly pauseKnownTexts: () => () => void
}

export function openGenAi(options: GenAiOptions): GenAi {
  const texts = openKnownTexts({ entriesMax: limits.knownTextsMax, windowMs: limits.knownTextsMs }, Date.now)
  const personal = openPersonalMask(options.personal)
  const estimates = openEstimates()
  const awaited = openAwaitedSpans()
  const elsewhere = options.isShared
    ? openAwaitedElsewhere({
        clickhouse: options.clickhouse,
        onAwaited: awaited.add,
        now: Date.now,
        bounds: {
          exchangeMs: limits.awaitedExchangeMs,
          waitingMax: limits.awaitedWaitingMax,
          overlapMs: limits.awaitedOverlapMs,
          heardMsMax: limits.awaitedHeardMsMax,
          heardMax: limits.awaitedHeardMax,
        },
        onProblem: options.onProblem,
      })
    : undefined
  const resolver = openResolver({
    clickhouse: options.clickhouse,
    targetOf: options.targetOf,
    priceOf: options.priceOf,
    estimate: estimates.estimate,
    retentionDaysOf: (tenant, kept) => options.retentionDaysOf(kept, tenant),
    now: Date.now,
    bounds: {
      rememberedBytesMax: limits.rememberedFactsBytesMax,
      quietMs: limits.quietTraceMs,
      checkMs: limits.quietTraceCheckMs,
      looksMax: limits.quietTracesMax,
    },
    onMore: (resolved) => options.onCorrected(resolved.flatMap(usageEventsOf)),
    onUnpriced: options.onUnpriced,
    isShared: options.isShared,
    journal: options.journal,
    onMissing: (tenantId, spanIds) => {
      spanIds.forEach(awaited.add)
      elsewhere?.tell(tenantId, spanIds)
    },
    onProblem: options.onProblem,
  })
  return {
    lifting: {
      read: (record) => factsOf(record, options.contentPolicyOf(record.tenantId) === 'metadata' ? 'metadata' : 'full'),
      // Of `metadata` errors are kept, which may quote what was said.
      maskOf: (tenant) => (options.contentPolicyOf(tenant) === 'full' ? undefined : personal.maskBytes),
      rawContentOf: (tenant) =>
        options.contentPolicyOf(tenant) === 'metadata' ? 'none' : options.keepsRawContent ? 'all' : 'leftover',
      retentionDaysOf: (tenant, fact) => options.retentionDaysOf(classOf(fact), tenant),
      textRetentionDaysOf: (tenant) =>
        Math.max(options.retentionDaysOf('chat', tenant), options.retentionDaysOf('tools', tenant)),
      isKnownText: texts.has,
      awaited,
      onTexts: texts.add,
    },
    usageOf: (facts) => resolver.preview(facts).flatMap(usageEventsOf),
    derive: async (facts) => {
      const events: UsageEvent[] = []
      await resolver.resolve(facts, (resolved) => events.push(...usageEventsOf(resolved)))
      return events
    },
    recall: async () => {
      for (const spanId of await resolver.recallMissing()) awaited.add(spanId)
      await resolver.recallLooks()
    },
    run: async (signal) => {
      await using _counting = estimates
      await Promise.all([resolver.run(signal), elsewhere?.run(signal)])
    },
    resolver,
    pauseKnownTexts: texts.pause,
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
