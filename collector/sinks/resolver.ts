// From facts to rows: when a segment's facts are in ClickHouse, the traces that they belong to are resolved again from all that
// is known of them, and what that changed is written. Nothing here has to be kept: resolving twice writes the same rows, under
// the same keys, with the same generation.
//
// The memory of recent traces is the fast path. What is not in it is read back from `genai_facts`. Another collector may have
// stored other parts of a trace; so a trace that was touched is counted once more when it has been quiet for a while, and
// whoever looks last sees everything.
import type { ClickHouse } from '@tallylight/storage/clickhouse/client.ts'
import type { TargetTable } from '@tallylight/storage/clickhouse/schema.ts'
import type { RetentionClass } from '../config.ts'
import type { Fact } from '../genai/fact.ts'
import type { PriceOf } from '../genai/price.ts'
import { resolve, revisionsMax } from '../genai/resolve/resolve.ts'
import { deletionOf, linesOf, rowTables } from '../genai/row-lines.ts'
import type { EmbeddingRow, LlmCallRow, Resolved } from '../genai/rows.ts'
import { after } from '../receive/receiver.ts'
import type { TenantId } from '../receive/request.ts'
import {
  type KnownFacts,
  openKnownFacts,
  type SpanLink,
  type StoredFact,
  type TraceKey,
  type TraceTimes,
} from './known-facts.ts'

export type ResolverOptions = {
  readonly clickhouse: ClickHouse
  readonly targetOf: (table: string) => TargetTable | undefined
  readonly priceOf: PriceOf
  readonly retentionDaysOf: (tenant: TenantId, retention: RetentionClass) => number
  readonly now: () => number
  readonly bounds: ResolverBounds
  /** What was resolved and written, for those who count and charge. Called again when a write has to be repeated. */
  readonly onResolved: (resolved: readonly Resolved[]) => Promise<void>
  /** Calls that are new and whose price is not known. */
  readonly onUnpriced: (calls: number) => void
  readonly onProblem: (message: string) => void
}

export type ResolverBounds = {
  /** Text of the facts that are remembered. */
  readonly rememberedBytesMax: number
  /** How long a trace must be quiet before it is counted once more, and how often that is looked for. */
  readonly quietMs: number
  readonly checkMs: number
}

export type Resolver = {
  /** Throws when ClickHouse cannot be asked or told; then nothing is lost by asking again. */
  resolve(facts: readonly StoredFact[]): Promise<void>
  /** Looks again at traces that have gone quiet, until the signal. */
  run(signal: AbortSignal): Promise<void>
  /** What was taken out of the tables is not written again from memory: all of it is read back when it is needed. */
  forget(): Promise<void>
  /** Resolves what is stored of these traces, and writes it. */
  resolveAgain(traces: readonly TraceTimes[]): Promise<void>
  /** The same with today's prices, and only where that prices one of the `unpriced` rows, as a correction of the same facts.
   *  Answers how many that were. */
  reprice(traces: readonly TraceTimes[], unpriced: (row: PricedRow) => boolean): Promise<number>
}

export type PricedRow = Pick<LlmCallRow | EmbeddingRow, 'TenantId' | 'TraceId' | 'SpanId' | 'CostNanoUsd'>

type Trace = {
  readonly tenantId: TenantId
  readonly traceId: string
  /** By their text: a fact that comes twice is one. */
  readonly facts: Map<string, Fact>
  /** The spans between its facts, from `otel_traces`. */
  links: readonly Fact[]
  /** Per table the keys that are written, with the digest of what stands there; '' is not known. */
  readonly written: Map<string, Map<string, string>>
  /** How often the same facts were priced again, as far as the rows say. */
  revision: number
  bytes: number
  touchedMs: number
  isChecked: boolean
}

export function openResolver(options: ResolverOptions): Resolver {
  const { now, bounds } = options
  const known: KnownFacts = openKnownFacts(options.clickhouse, options.targetOf)
  /** The least recently touched first. */
  const traces = new Map<string, Trace>()
  let bytes = 0

  function touch(key: string, trace: Trace): void {
    traces.delete(key)
    traces.set(key, trace)
    trace.touchedMs = now()
    trace.isChecked = false
  }

  function add(trace: Trace, { text, fact }: StoredFact): void {
    if (trace.facts.has(text)) return
    trace.facts.set(text, fact)
    trace.bytes += text.length
    bytes += text.length
  }

  function forgetOldest(): void {
    for (const [key, trace] of traces) {
      if (bytes <= bounds.rememberedBytesMax) return
      traces.delete(key)
      bytes -= trace.bytes
    }
  }

  /** Reads back what is stored of traces that are not remembered, with the keys of their rows. */
  async function recall(
    strangers: readonly Trace[],
    times: readonly TraceTimes[] = strangers.map(timesOf),
  ): Promise<void> {
    const byKey = new Map(strangers.map((trace) => [keyOfTrace(trace), trace]))
    const before = new Map(strangers.map((trace) => [trace, trace.facts.size]))
    for (const stored of await known.factsOf(times.filter(({ traceId }) => traceId !== ''))) {
      const trace = byKey.get(keyOfTrace(stored))
      if (trace !== undefined) add(trace, stored)
    }
    const older = strangers.filter((trace) => trace.traceId !== '' && trace.facts.size > (before.get(trace) ?? 0))
    for (const rowTable of older.length === 0 ? [] : rowTables) {
      for (const found of await known.keysOf(rowTable, older.map(timesOf))) {
        const trace = byKey.get(keyOfTrace(found))
        if (trace === undefined) continue
        writtenIn(trace, rowTable.table.name).set(found.key, '')
        trace.revision = Math.max(trace.revision, found.generation % revisionsMax)
      }
    }
  }

  async function resolveTraces(touched: readonly Trace[]): Promise<void> {
    let resolved = touched.map((trace) => resolveTrace(trace))
    const incomplete = touched.filter(
      (trace, at) => trace.traceId !== '' && (resolved[at]?.missingParents.length ?? 0) > 0,
    )
    if (incomplete.length > 0 && (await findLinks(incomplete))) resolved = touched.map((trace) => resolveTrace(trace))
    await write(touched, resolved)
    await options.onResolved(resolved)
  }

  function resolveTrace(trace: Trace): Resolved {
    return resolve([...trace.facts.values(), ...trace.links], options.priceOf, trace.revision)
  }

  /** Whether there are spans between the facts that say how they hang together. */
  async function findLinks(incomplete: readonly Trace[]): Promise<boolean> {
    const links = Map.groupBy(await known.linksOf(incomplete.map(timesOf)), keyOfTrace)
    for (const trace of incomplete) {
      const spansOfFacts = new Set([...trace.facts.values()].map(({ spanId }) => spanId))
      trace.links = (links.get(keyOfTrace(trace)) ?? []).filter(({ spanId }) => !spansOfFacts.has(spanId)).map(linkFact)
    }
    return incomplete.some((trace) => trace.links.length > 0)
  }

  async function write(touched: readonly Trace[], resolved: readonly Resolved[]): Promise<void> {
    await Promise.all(
      rowTables.map(async (rowTable) => {
        const { name } = rowTable.table
        const lines: string[] = []
        let unpriced = 0
        const changes: (readonly [Trace, Map<string, string>])[] = []
        for (const [at, trace] of touched.entries()) {
          const rows = resolved[at] as Resolved
          const before = writtenIn(trace, name)
          const after = new Map<string, string>()
          for (const { key, digest, line, isUnpriced } of linesOf(rowTable, rows, options.retentionDaysOf)) {
            after.set(key, digest)
            if (isUnpriced && !before.has(key)) unpriced++
            if (before.get(key) !== digest) lines.push(line)
          }
          const retentionDays = options.retentionDaysOf(trace.tenantId, rowTable.retention)
          for (const key of before.keys())
            if (!after.has(key)) lines.push(deletionOf(key, rows.generation, retentionDays))
          changes.push([trace, after])
        }
        await insert(
          name,
          rowTable.table.columns.map(([column]) => column),
          lines,
        )
        if (unpriced > 0) options.onUnpriced(unpriced)
        for (const [trace, after] of changes) trace.written.set(name, after)
      }),
    )
  }

  async function insert(table: string, columns: readonly string[], lines: readonly string[]): Promise<void> {
    if (lines.length === 0) return
    const target = options.targetOf(table)
    if (target === undefined) throw new Error(`${table} is not known to be there`)
    const outcome = await options.clickhouse.insertRows(target.name, columns, lines.join(''))
    if (outcome.kind !== 'inserted') throw new Error(`${table}: ${outcome.kind}: ${outcome.message}`)
  }

  /** One at a time: both change what is remembered of a trace. */
  let turn: Promise<void> = Promise.resolve()
  function inTurn(work: () => Promise<void>): Promise<void> {
    const mine = turn.then(work)
    turn = mine.catch(() => undefined)
    return mine
  }

  return {
    resolve: (facts) => inTurn(() => resolveFacts(facts)),
    forget: () => inTurn(async () => forgetAll()),
    resolveAgain: (times) =>
      inTurn(async () => {
        const stored = await readBack(times)
        if (stored.length > 0) await resolveTraces(stored)
      }),
    reprice: async (times, unpriced) => {
      let priced = 0
      await inTurn(async () => {
        const stored = await readBack(times)
        if (stored.length > 0) priced = await priceAgain(stored, unpriced)
      })
      return priced
    },
    run: async (signal) => {
      const stopped = new Promise<void>((done) => signal.addEventListener('abort', () => done(), { once: true }))
      for (;;) {
        await Promise.race([after(bounds.checkMs), stopped])
        if (signal.aborted) return
        await inTurn(checkQuiet).catch((error: unknown) => options.onProblem(String(error)))
      }
    },
  }

  async function resolveFacts(facts: readonly StoredFact[]): Promise<void> {
    const touched = new Map<string, Trace>()
    const strangers: Trace[] = []
    for (const stored of facts) {
      const key = keyOfTrace(stored)
      let trace = touched.get(key) ?? traces.get(key)
      if (trace === undefined) {
        trace = openTrace(stored)
        strangers.push(trace)
      }
      touched.set(key, trace)
      add(trace, stored)
    }
    try {
      await recall(strangers)
      await resolveTraces([...touched.values()])
    } catch (error) {
      // What is written is not known now: read back next time.
      for (const [key, trace] of touched) if (traces.delete(key) || strangers.includes(trace)) bytes -= trace.bytes
      throw error
    }
    for (const [key, trace] of touched) touch(key, trace)
    forgetOldest()
  }

  function forgetAll(): void {
    traces.clear()
    bytes = 0
  }

  /** What is stored of these traces; what was remembered of them is forgotten. */
  async function readBack(times: readonly TraceTimes[]): Promise<readonly Trace[]> {
    for (const each of times) {
      const key = keyOfTrace(each)
      bytes -= traces.get(key)?.bytes ?? 0
      traces.delete(key)
    }
    const found = times.map((each) => openTrace(each))
    const before = bytes
    await recall(found, times)
    // They are not kept.
    bytes = before
    return found.filter((trace) => trace.facts.size > 0)
  }

  async function priceAgain(stored: readonly Trace[], unpriced: (row: PricedRow) => boolean): Promise<number> {
    let priced = 0
    const changed: Trace[] = []
    for (const trace of stored.filter(({ revision }) => revision + 1 < revisionsMax)) {
      const { llmCalls, embeddings } = resolveTrace(trace)
      const rows = [...llmCalls, ...embeddings].filter((row) => row.CostNanoUsd !== null && unpriced(row))
      if (rows.length === 0) continue
      priced += rows.length
      trace.revision++
      changed.push(trace)
    }
    if (changed.length > 0) await resolveTraces(changed)
    return priced
  }

  async function checkQuiet(): Promise<void> {
    const quiet = [...traces.values()].filter(
      ({ isChecked, touchedMs, traceId }) => !isChecked && traceId !== '' && touchedMs <= now() - bounds.quietMs,
    )
    if (quiet.length === 0) return
    const counts = new Map((await known.countsOf(quiet.map(timesOf))).map((found) => [keyOfTrace(found), found.facts]))
    const changed = quiet.filter(
      (trace) => (counts.get(keyOfTrace(trace)) ?? 0) > trace.facts.size || trace.links.length > 0,
    )
    await recall(changed)
    if (changed.length > 0) await resolveTraces(changed)
    for (const trace of quiet) trace.isChecked = true
    forgetOldest()
  }
}

function openTrace({ tenantId, traceId }: TraceKey): Trace {
  return {
    tenantId,
    traceId,
    facts: new Map(),
    links: [],
    written: new Map(),
    revision: 0,
    bytes: 0,
    touchedMs: 0,
    isChecked: false,
  }
}

/** A log record of no trace is one of its own. */
function keyOfTrace(of: { readonly tenantId: string; readonly traceId: string; readonly fact?: Fact }): string {
  return of.traceId === '' ? `${of.tenantId}\0\0${of.fact?.id ?? ''}` : `${of.tenantId}\0${of.traceId}`
}

function writtenIn(trace: Trace, table: string): Map<string, string> {
  let written = trace.written.get(table)
  if (written === undefined) {
    written = new Map()
    trace.written.set(table, written)
  }
  return written
}

function timesOf({ tenantId, traceId, facts }: Trace): TraceTimes {
  let fromUnixNano = 2n ** 63n
  let toUnixNano = 0n
  for (const { startUnixNano, endUnixNano } of facts.values()) {
    if (startUnixNano < fromUnixNano) fromUnixNano = startUnixNano
    if (endUnixNano > toUnixNano) toUnixNano = endUnixNano
  }
  return { tenantId, traceId, fromUnixNano, toUnixNano }
}

function linkFact({ tenantId, traceId, spanId, parentSpanId, startUnixNano, endUnixNano }: SpanLink): Fact {
  return {
    id: 'span',
    tenantId,
    traceId,
    spanId,
    parentSpanId: parentSpanId === spanId ? '' : parentSpanId,
    serviceName: '',
    dialect: '',
    startUnixNano: BigInt(startUnixNano),
    endUnixNano: BigInt(endUnixNano),
    scene: {},
    says: { kind: 'link' },
  }
}
