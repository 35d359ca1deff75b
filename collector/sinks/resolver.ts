// From facts to rows: when a segment's facts are in ClickHouse, the traces that they belong to are resolved again from all that
// is known of them, and what that changed is written. Nothing here has to be kept: resolving twice writes the same rows, under
// the same keys, with the same generation.
//
// The memory of recent traces is the fast path. What is not in it is read back from `genai_facts`. Another collector may have
// stored other parts of a trace; so a trace that was touched is counted once more when it has been quiet for a while, and
// whoever looks last sees everything. What this collector has written itself is compared with what is to be written; of what
// others wrote only the keys are known, and their rows are superseded.
import type { ClickHouse } from '@tallylight/storage/clickhouse/client.ts'
import type { TargetTable } from '@tallylight/storage/clickhouse/schema.ts'
import type { RetentionClass } from '../config.ts'
import type { Fact } from '../genai/fact.ts'
import type { PriceOf } from '../genai/price.ts'
import { resolve, revisionsMax } from '../genai/resolve/resolve.ts'
import { deletionOf, linesOf, type RowTable, rowTables } from '../genai/row-lines.ts'
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
  /** Told of traces that were found to have more facts, from another collector, or a price. */
  readonly onMore: (resolved: readonly ResolvedTrace[]) => Promise<void>
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

export type ResolvedTrace = { readonly tenantId: TenantId; readonly traceId: string; readonly resolved: Resolved }

export type Resolver = {
  /** Resolves the traces of these facts and writes what that changed. Throws when ClickHouse cannot be asked or told; then
   *  nothing is lost by asking again. */
  resolve(facts: readonly StoredFact[]): Promise<readonly ResolvedTrace[]>
  /** What can be said of these facts without asking ClickHouse: from them and from what is remembered. */
  preview(facts: readonly StoredFact[]): readonly ResolvedTrace[]
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
  /** Keys that an earlier run or another collector has written, per table; what stands there is not known. */
  readonly foreignKeys: Map<string, Set<string>>
  /** What is written. */
  written: Resolved | undefined
  /** How often the same facts were priced again, as far as the rows say. */
  revision: number
  bytes: number
  touchedMs: number
  isChecked: boolean
}

export function openResolver(options: ResolverOptions): Resolver {
  const { now, bounds, priceOf } = options
  const known: KnownFacts = openKnownFacts(options.clickhouse, options.targetOf)
  /** The least recently touched first. */
  const traces = new Map<string, Trace>()
  let bytes = 0

  function remember(key: string, trace: Trace): void {
    if (traces.delete(key)) bytes -= trace.bytes
    trace.bytes = 0
    for (const text of trace.facts.keys()) trace.bytes += text.length
    bytes += trace.bytes
    traces.set(key, trace)
    trace.touchedMs = now()
    trace.isChecked = false
  }

  function forget(key: string): void {
    const trace = traces.get(key)
    if (trace !== undefined && traces.delete(key)) bytes -= trace.bytes
  }

  function forgetOldest(): void {
    for (const key of traces.keys()) {
      if (bytes <= bounds.rememberedBytesMax) return
      forget(key)
    }
  }

  /** Reads back what is stored of traces that are not remembered, with the keys of their rows. */
  async function recall(
    strangers: readonly Trace[],
    times: readonly TraceTimes[] = strangers.map(timesOf),
  ): Promise<void> {
    const byKey = new Map(strangers.map((trace) => [keyOfTrace(trace), trace]))
    const before = new Map(strangers.map((trace) => [trace, trace.facts.size]))
    for (const stored of await known.factsOf(times)) byKey.get(keyOfTrace(stored))?.facts.set(stored.text, stored.fact)
    const older = strangers.filter((trace) => trace.facts.size > (before.get(trace) ?? 0))
    for (const rowTable of older.length === 0 ? [] : rowTables) {
      for (const found of await known.keysOf(rowTable, older.map(timesOf))) {
        const trace = byKey.get(keyOfTrace(found))
        if (trace === undefined) continue
        foreignKeysOf(trace, rowTable.table.name).add(found.key)
        trace.revision = Math.max(trace.revision, found.generation % revisionsMax)
      }
    }
  }

  async function resolveTraces(touched: readonly Trace[]): Promise<readonly ResolvedTrace[]> {
    const first = touched.map(resolveTrace)
    const incomplete = first.filter(({ trace, resolved }) => trace.traceId !== '' && resolved.missingParents.length > 0)
    const all =
      incomplete.length > 0 && (await findLinks(incomplete.map(({ trace }) => trace)))
        ? first.map((each) => (each.trace.links.length > 0 ? resolveTrace(each.trace) : each))
        : first
    await write(all)
    return all.map(({ trace: { tenantId, traceId }, resolved }) => ({ tenantId, traceId, resolved }))
  }

  function resolveTrace(trace: Trace): { readonly trace: Trace; readonly resolved: Resolved } {
    return { trace, resolved: resolve([...trace.facts.values(), ...trace.links], priceOf, trace.revision) }
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

  async function write(all: readonly { readonly trace: Trace; readonly resolved: Resolved }[]): Promise<void> {
    await Promise.all(
      rowTables.map(async (rowTable) => {
        const { name, columns } = rowTable.table
        const lines: string[] = []
        let unpriced = 0
        for (const { trace, resolved } of all) {
          const changed = changedLines(rowTable, trace, resolved)
          for (const line of changed.lines) lines.push(line)
          unpriced += changed.unpriced
        }
        await insert(
          name,
          columns.map(([column]) => column),
          lines,
        )
        if (unpriced > 0) options.onUnpriced(unpriced)
      }),
    )
    for (const { trace, resolved } of all) {
      trace.written = resolved
      trace.foreignKeys.clear()
    }
  }

  /** What is to be written, and how many of it are calls that were not there and have no price. */
  function changedLines(
    rowTable: RowTable,
    trace: Trace,
    resolved: Resolved,
  ): { readonly lines: readonly string[]; readonly unpriced: number } {
    const { written, tenantId } = trace
    const foreign = trace.foreignKeys.get(rowTable.table.name)
    const now = linesOf(rowTable, resolved, options.retentionDaysOf)
    if (written === undefined && foreign === undefined)
      return { lines: now.map((line) => line.text()), unpriced: now.filter((line) => line.isUnpriced).length }
    const before = new Map<string, string | undefined>()
    for (const key of foreign ?? []) before.set(key, undefined)
    if (written !== undefined)
      for (const line of linesOf(rowTable, written, options.retentionDaysOf)) before.set(line.key(), line.said())
    const lines: string[] = []
    let unpriced = 0
    for (const line of now) {
      const key = line.key()
      if (line.isUnpriced && !before.has(key)) unpriced++
      if (!before.has(key) || before.get(key) !== line.said()) lines.push(line.text())
      before.delete(key)
    }
    const retentionDays = options.retentionDaysOf(tenantId, rowTable.retention)
    for (const key of before.keys()) lines.push(deletionOf(key, resolved.generation, retentionDays))
    return { lines, unpriced }
  }

  async function insert(table: string, columns: readonly string[], lines: readonly string[]): Promise<void> {
    if (lines.length === 0) return
    const target = options.targetOf(table)
    if (target === undefined) throw new Error(`${table} is not known to be there`)
    const outcome = await options.clickhouse.insertRows(target.name, columns, lines.join(''))
    if (outcome.kind !== 'inserted') throw new Error(`${table}: ${outcome.kind}: ${outcome.message}`)
  }

  async function resolveFacts(facts: readonly StoredFact[]): Promise<readonly ResolvedTrace[]> {
    const touched = new Map<string, Trace>()
    const strangers: Trace[] = []
    for (const stored of facts) {
      const key = keyOfTrace(stored)
      let trace = touched.get(key) ?? traces.get(key)
      if (trace === undefined) {
        trace = openTrace(stored)
        if (stored.traceId !== '') strangers.push(trace)
      }
      touched.set(key, trace)
      trace.facts.set(stored.text, stored.fact)
    }
    let resolved: readonly ResolvedTrace[]
    try {
      await recall(strangers)
      resolved = await resolveTraces([...touched.values()])
    } catch (error) {
      // What is written is not known now: read back next time.
      for (const key of touched.keys()) forget(key)
      throw error
    }
    for (const [key, trace] of touched) remember(key, trace)
    forgetOldest()
    return resolved
  }

  /** What is stored of these traces; what was remembered of them is forgotten. */
  async function readBack(times: readonly TraceTimes[]): Promise<readonly Trace[]> {
    for (const each of times) forget(keyOfTrace(each))
    const found = times.map((each) => openTrace(each))
    await recall(found, times)
    return found.filter((trace) => trace.facts.size > 0)
  }

  async function priceAgain(stored: readonly Trace[], unpriced: (row: PricedRow) => boolean): Promise<number> {
    let priced = 0
    const changed: Trace[] = []
    for (const trace of stored.filter(({ revision }) => revision + 1 < revisionsMax)) {
      const { llmCalls, embeddings } = resolveTrace(trace).resolved
      const rows = [...llmCalls, ...embeddings].filter((row) => row.CostNanoUsd !== null && unpriced(row))
      if (rows.length === 0) continue
      priced += rows.length
      trace.revision++
      changed.push(trace)
    }
    if (changed.length > 0) await options.onMore(await resolveTraces(changed))
    return priced
  }

  async function checkQuiet(): Promise<void> {
    const quiet = [...traces.entries()].filter(
      ([, { isChecked, touchedMs, traceId }]) => !isChecked && traceId !== '' && touchedMs <= now() - bounds.quietMs,
    )
    if (quiet.length === 0) return
    const counts = await known.countsOf(quiet.map(([, trace]) => timesOf(trace)))
    const countOf = new Map(counts.map((found) => [keyOfTrace(found), found.facts]))
    const changed = quiet.filter(([key, trace]) => (countOf.get(key) ?? 0) > trace.facts.size)
    if (changed.length > 0) {
      const found = changed.map(([, trace]) => trace)
      await recall(found)
      await options.onMore(await resolveTraces(found))
      for (const [key, trace] of changed) remember(key, trace)
      forgetOldest()
    }
    for (const [, trace] of quiet) trace.isChecked = true
  }

  /** One at a time: both change what is remembered of a trace. */
  let turn: Promise<unknown> = Promise.resolve()
  function inTurn<Result>(work: () => Promise<Result>): Promise<Result> {
    const mine = turn.then(work)
    turn = mine.catch(() => undefined)
    return mine
  }

  return {
    resolve: (facts) => inTurn(() => resolveFacts(facts)),
    forget: () =>
      inTurn(async () => {
        for (const key of [...traces.keys()]) forget(key)
      }),
    resolveAgain: (times) =>
      inTurn(async () => {
        const stored = await readBack(times)
        if (stored.length > 0) await resolveTraces(stored)
      }),
    reprice: (times, unpriced) => inTurn(async () => priceAgain(await readBack(times), unpriced)),
    preview: (facts) =>
      [...Map.groupBy(facts, keyOfTrace)].map(([key, added]) => {
        const { tenantId, traceId } = added[0] as StoredFact
        const all = new Map(traces.get(key)?.facts)
        for (const { text, fact } of added) all.set(text, fact)
        const links = traces.get(key)?.links ?? []
        return { tenantId, traceId, resolved: resolve([...all.values(), ...links], priceOf) }
      }),
    run: async (signal) => {
      const stopped = new Promise<void>((done) => signal.addEventListener('abort', () => done(), { once: true }))
      for (;;) {
        await Promise.race([after(bounds.checkMs), stopped])
        if (signal.aborted) return
        await inTurn(checkQuiet).catch((error: unknown) => options.onProblem(String(error)))
      }
    },
  }
}

function openTrace({ tenantId, traceId }: TraceKey): Trace {
  return {
    tenantId,
    traceId,
    facts: new Map(),
    links: [],
    foreignKeys: new Map(),
    written: undefined,
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

function foreignKeysOf(trace: Trace, table: string): Set<string> {
  const keys = trace.foreignKeys.get(table) ?? new Set<string>()
  trace.foreignKeys.set(table, keys)
  return keys
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
