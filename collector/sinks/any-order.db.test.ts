// Random traces, cut into random batches that come in any order, twice, over two collectors that forget, are killed and start
// anew: what the tables and the ledger say in the end is what they say of the same traces sent at once.
import type { ClickHouse } from '@tallylight/storage/clickhouse/client.ts'
import { migrateClickHouse } from '@tallylight/storage/clickhouse/migrate.ts'
import { type TargetTable, verifySchema } from '@tallylight/storage/clickhouse/schema.ts'
import { startTestEngine, type TestEngine } from '@tallylight/storage/clickhouse/testing.ts'
import { afterAll, beforeAll, expect, test, vi } from 'vitest'
import { textOfValue } from '../genai/attributes.ts'
import { estimateUsage } from '../genai/estimate.ts'
import { type Fact, linkFact } from '../genai/fact.ts'
import { factsOf } from '../genai/lift.ts'
import type { LiftedRecord } from '../genai/record.ts'
import { rowTables } from '../genai/row-tables.ts'
import { sceneOf } from '../genai/scene.ts'
import { type Random, seededRandom } from '../genai/testing.ts'
import { recordOf } from '../quota/usage-event.ts'
import type { StoredFact } from './known-facts.ts'
import { makeTrace, second } from './random-traces.ts'
import type { ResolvedTrace, Resolver } from './resolver.ts'
import { insertLines, openTestResolver, storedOf, storeFacts } from './testing.ts'
import { usageEventsOf } from './usage-of-calls.ts'

let engine: TestEngine
beforeAll(async () => {
  engine = await startTestEngine()
})
afterAll(() => engine[Symbol.asyncDispose]())

/** Collectors of one ClickHouse, and the ledger's rule: of an event the highest generation counts. */
type World = {
  readonly clickhouse: ClickHouse
  readonly ledger: Map<string, readonly [generation: number, said: unknown]>
  readonly say: (resolved: ResolvedTrace) => void
  open(journal: string, rememberedBytesMax: number): Promise<Collector>
}

type Collector = {
  readonly journal: string
  readonly resolver: Resolver
  readonly awaited: Set<string>
  readonly stop: () => Promise<void>
  readonly start: () => void
}

async function openWorld(database: string, random: Random): Promise<World> {
  const clickhouse = await engine.open(database, false)
  await migrateClickHouse(clickhouse)
  const schema = await verifySchema(clickhouse)
  if (schema.kind !== 'verified') throw new Error(schema.problems.join('; '))
  const targets: ReadonlyMap<string, TargetTable> = schema.targets
  const ledger: World['ledger'] = new Map()
  const say = (resolved: ResolvedTrace): void => {
    for (const event of usageEventsOf(resolved)) {
      const { tenant, eventKey, generation, callId, subject, amounts, isLowerBound, isMetered, endedAt } =
        recordOf(event)
      const key = `${tenant} ${eventKey}`
      if ((ledger.get(key)?.[0] ?? -1) >= generation) continue
      ledger.set(key, [generation, isMetered ? { callId, subject, amounts, isLowerBound, endedAt } : 'not metered'])
    }
  }
  const everybody = new Set<Set<string>>()
  return {
    clickhouse,
    ledger,
    say,
    open: async (journal, rememberedBytesMax) => {
      const awaited = new Set<string>()
      everybody.add(awaited)
      const resolver = openTestResolver(clickhouse, targets, {
        isShared: true,
        journal,
        bounds: { rememberedBytesMax, quietMs: 0, checkMs: 5, looksMax: 50_000 },
        estimate: (texts) => Promise.resolve(estimateUsage(texts)),
        onMissing: (_tenant, ids) => {
          for (const each of everybody) for (const id of ids) if (each === awaited || random.chance(0.5)) each.add(id)
        },
        onMore: async (more) => more.forEach(say),
      })
      for (const id of await resolver.recallMissing()) awaited.add(id)
      await resolver.recallLooks()
      const stop = new AbortController()
      let running = Promise.resolve()
      return {
        resolver,
        journal,
        awaited,
        start: () => {
          running = resolver.run(stop.signal)
        },
        stop: async () => {
          stop.abort()
          await running
          everybody.delete(awaited)
        },
      }
    },
  }
}

const timeOf = (unixNano: bigint): string => String(unixNano)

/** As the walk and the sink do: the facts, once ClickHouse has them, with spans and texts. */
let segments = 0
async function store(
  { clickhouse }: World,
  { journal, awaited }: Collector,
  records: readonly LiftedRecord[],
): Promise<readonly StoredFact[]> {
  const facts: Fact[] = []
  const texts = new Map<string, Record<string, unknown>>()
  for (const record of records) {
    const lifted = factsOf(record)
    for (const [hash, text] of lifted.texts)
      texts.set(hash, {
        TenantId: record.tenantId,
        Hash: hash,
        Text: text,
        RetentionDays: 30,
        Time: timeOf(record.kind === 'span' ? record.startUnixNano : record.timeUnixNano),
      })
    facts.push(...lifted.facts)
    for (const { parentSpanId } of lifted.facts) if (parentSpanId !== '') awaited.add(parentSpanId)
    if (lifted.facts.length > 0 || record.kind !== 'span' || !awaited.has(record.spanId)) continue
    const { tenantId, traceId, spanId, parentSpanId, startUnixNano, endUnixNano, attributes, resource } = record
    facts.push(
      linkFact({
        tenantId,
        traceId,
        spanId,
        parentSpanId,
        startUnixNano,
        endUnixNano,
        scene: sceneOf(attributes, resource),
      }),
    )
    if (parentSpanId !== '') awaited.add(parentSpanId)
  }
  const spans = records.flatMap((record) =>
    record.kind === 'span'
      ? [
          {
            TenantId: record.tenantId,
            RetentionDays: 30,
            Timestamp: timeOf(record.startUnixNano),
            TraceId: record.traceId,
            SpanId: record.spanId,
            ParentSpanId: record.parentSpanId,
            Duration: Math.max(0, Number(record.endUnixNano - record.startUnixNano)),
            SpanAttributes: Object.fromEntries([...record.attributes].map(([key, value]) => [key, textOfValue(value)])),
            ResourceAttributes: Object.fromEntries(
              [...record.resource].map(([key, value]) => [key, textOfValue(value)]),
            ),
          },
        ]
      : [],
  )
  if (spans.length > 0) await insertLines(clickhouse, 'otel_traces', spans)
  if (facts.length > 0) await storeFacts(clickhouse, facts, `${journal}-${String(++segments).padStart(12, '0')}`)
  if (texts.size > 0) await insertLines(clickhouse, 'genai_contents', [...texts.values()])
  return storedOf(facts)
}

/** What readers see, by trace. */
async function readAll({ clickhouse, ledger }: World): Promise<Record<string, unknown>> {
  const seen: Record<string, Record<string, unknown[]>> = {}
  const note = (trace: string, table: string, row: unknown): void => {
    const ofTrace = seen[trace] ?? {}
    seen[trace] = { ...ofTrace, [table]: [...(ofTrace[table] ?? []), row] }
  }
  for (const { table } of rowTables) {
    const rows = await clickhouse.query<Record<string, unknown>>(
      `SELECT * EXCEPT (Generation, IsDeleted, RetentionDays) FROM ${clickhouse.database}.${table.name} FINAL ORDER BY ALL`,
    )
    for (const row of rows) note(String(row.TraceId), table.name, row)
  }
  for (const [key, [, said]] of [...ledger].sort(([a], [b]) => (a < b ? -1 : 1))) {
    if (said === 'not metered') continue
    note(key.split(':')[1] as string, 'ledger', { key, said })
  }
  return seen
}

/** Each found what has been mended since. */
const seeds = [34, 36]
const tracesOfSeed = 14

test.each(seeds)(
  'any order: rows and bookings are those of the same traces sent at once, seed %i',
  async (seed) => {
    const random = seededRandom(seed * 7919 + 13)
    const now = BigInt(Date.now()) * 1_000_000n
    const traces = Array.from({ length: tracesOfSeed }, (_, at) =>
      makeTrace(random, at, now - BigInt(random.below(7200)) * second),
    )
    const [asSent, atOnce] = await Promise.all([openWorld(`sent_${seed}`, random), openWorld(`once_${seed}`, random)])
    const one = await atOnce.open('a'.repeat(10), 2 ** 30)
    for (const trace of traces) {
      const facts = await store(atOnce, one, trace)
      await one.resolver.resolve(facts, atOnce.say)
    }

    const memory = () => random.pick([0, 2_000, 2 ** 30])
    const journals = ['b'.repeat(10), 'c'.repeat(10)] as const
    const collectors = [await asSent.open(journals[0], memory()), await asSent.open(journals[1], memory())]
    const mode = random.pick(['one', 'two', 'two'])
    const records = random
      .shuffle(
        traces.flatMap((trace) => {
          const batches: LiftedRecord[][] = []
          const order = random.pick([0, 1, 2])
          const sorted = order === 0 ? trace : order === 1 ? trace.toReversed() : random.shuffle(trace)
          for (let from = 0; from < sorted.length; ) {
            const size = 1 + random.below(sorted.length)
            batches.push(sorted.slice(from, from + size))
            from += size
          }
          const at = random.below(20)
          return batches.flatMap((batch, index) => {
            const when = at + index * random.below(8)
            return random.chance(0.1)
              ? [
                  { when, batch },
                  { when: when + random.below(10), batch },
                ]
              : [{ when, batch }]
          })
        }),
      )
      .sort((a, b) => a.when - b.when)
    const waiting: { at: number; facts: readonly StoredFact[] }[] = []
    for (let from = 0; from < records.length; ) {
      const some = records.slice(from, from + 1 + random.below(8))
      from += some.length
      const at = mode === 'one' ? 0 : random.below(2)
      if (random.chance(0.15)) {
        const [which, again] = [random.below(2), memory()]
        await collectors[which]?.stop()
        collectors[which] = await asSent.open(journals[which] as string, again)
      }
      const collector = collectors[at] as Collector
      const facts = await store(
        asSent,
        collector,
        some.flatMap(({ batch }) => batch),
      )
      const fate = random.below(10)
      if (fate > 1) await collector.resolver.resolve(facts, asSent.say)
      else {
        // Killed before the ledger was told: the segment is resolved again.
        if (fate === 0) await collector.resolver.resolve(facts, () => undefined)
        waiting.push({ at, facts })
      }
      if (waiting.length > 0 && random.chance(0.2)) {
        const [next] = waiting.splice(random.below(waiting.length), 1)
        if (next !== undefined) await (collectors[next.at] as Collector).resolver.resolve(next.facts, asSent.say)
      }
    }
    for (const next of waiting) await (collectors[next.at] as Collector).resolver.resolve(next.facts, asSent.say)
    for (const each of [...collectors, one]) each.start()
    const differing = async (): Promise<void> => {
      const [seen, expected] = [await readAll(asSent), await readAll(atOnce)]
      const wrong = Object.keys(expected).filter(
        (trace) => JSON.stringify(seen[trace], big) !== JSON.stringify(expected[trace], big),
      )
      expect(Object.keys(seen).sort()).toEqual(Object.keys(expected).sort())
      const [first] = wrong
      if (first !== undefined) {
        const of = traces[Number.parseInt(first, 16) - 1] ?? []
        const said = of
          .map((r) =>
            JSON.stringify(
              { ...r, attributes: Object.fromEntries(r.attributes), resource: 0, scope: 0, traceId: 0 },
              big,
            ),
          )
          .join('\n')
        expect(seen[first], `${wrong.length} traces wrong\n${said}`).toEqual(expected[first])
      }
    }
    try {
      await vi.waitFor(differing, { timeout: 60_000, interval: 300 })
    } finally {
      for (const each of [...collectors, one]) await each.stop()
    }
  },
  120_000,
)

function big(_key: string, value: unknown): unknown {
  return typeof value === 'bigint' ? String(value) : value
}
