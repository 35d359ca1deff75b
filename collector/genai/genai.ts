// GenAI records, as the rest of the collector sees them: what the walk lifts with, what a sealed segment's facts are resolved
// with, and what its calls used.
import type { ClickHouse } from '@tallylight/storage/clickhouse/client.ts'
import type { TargetTable } from '@tallylight/storage/clickhouse/schema.ts'
import type { RetentionClass } from '../config.ts'
import { limits } from '../limits.ts'
import type { Lifting } from '../otlp/lift.ts'
import type { UsageEvent } from '../quota/usage-event.ts'
import type { StoredFact } from '../sinks/known-facts.ts'
import { openResolver, type ResolvedTrace } from '../sinks/resolver.ts'
import { usageEventsOf } from '../sinks/usage-of-calls.ts'
import type { Fact } from './fact.ts'
import { openKnownTexts } from './known-texts.ts'
import { factsOf } from './lift.ts'
import type { PriceOf } from './price.ts'

export type GenAiOptions = {
  readonly clickhouse: ClickHouse
  readonly targetOf: (table: string) => TargetTable | undefined
  readonly priceOf: PriceOf
  readonly retentionDaysOf: (kept: RetentionClass, tenant: string) => number
  /** Books what calls used; throws when it has to be done again. */
  readonly book: (events: readonly UsageEvent[]) => Promise<void>
  readonly onProblem: (message: string) => void
}

export type GenAi = {
  readonly lifting: Lifting
  /** What calls used, as far as it can be said at once: the ledger does not wait for ClickHouse. */
  usageOf(facts: readonly StoredFact[]): readonly UsageEvent[]
  /** Writes the rows that follow from facts that are in ClickHouse, and books what is known better now. */
  derive(facts: readonly StoredFact[]): Promise<void>
  run(signal: AbortSignal): Promise<void>
}

export function openGenAi(options: GenAiOptions): GenAi {
  const texts = openKnownTexts({ entriesMax: limits.knownTextsMax, windowMs: limits.knownTextsMs }, Date.now)
  const resolver = openResolver({
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
    onMore: bookUntold,
    onProblem: options.onProblem,
  })
  /** The generation that the ledger was told of a call last: what is said again need not be booked again. */
  const told = new Map<string, number>()

  function note({ generation, ...event }: UsageEvent): void {
    const key = nameOf(event)
    const before = told.get(key) ?? 0
    told.delete(key)
    told.set(key, Math.max(before, generation))
    const [oldest] = told.keys()
    if (told.size > limits.toldCallsMax && oldest !== undefined) told.delete(oldest)
  }

  async function bookUntold(resolved: readonly ResolvedTrace[]): Promise<void> {
    const events = resolved.flatMap(usageEventsOf).filter((event) => (told.get(nameOf(event)) ?? -1) < event.generation)
    if (events.length > 0) await options.book(events)
    events.forEach(note)
  }

  return {
    lifting: {
      read: (record) => factsOf(record),
      keepsLeftover: () => true,
      retentionDaysOf: (tenant, fact) => options.retentionDaysOf(classOf(fact), tenant),
      isKnownText: texts.has,
      onTexts: texts.add,
    },
    usageOf: (facts) => {
      const events = resolver.preview(facts).flatMap(usageEventsOf)
      events.forEach(note)
      return events
    },
    derive: async (facts) => bookUntold(await resolver.resolve(facts)),
    run: resolver.run,
  }
}

function nameOf({ tenant, traceId, spanId }: Pick<UsageEvent, 'tenant' | 'traceId' | 'spanId'>): string {
  return `${tenant}\0${traceId}\0${spanId}`
}

/** A fact is kept as long as the rows that are made of it. */
function classOf({ says }: Fact): RetentionClass {
  switch (says.kind) {
    case 'tool':
    case 'mcp-server':
      return 'tools'
    case 'audit':
      return 'audit'
    case 'link':
      return 'errors'
    default:
      return 'chat'
  }
}
