// From facts to rows: when a segment's facts are in ClickHouse, the traces that they belong to are resolved again from all that
// is known of them, and what that changed is written. Nothing here has to be kept: resolving twice writes the same rows, under
// the same keys, with the same generation.
//
// The memory of recent traces is the fast path. What is not in it is read back from `genai_facts`. Another collector may have
// stored other parts of a trace; so a trace that was touched is counted once more when it has been quiet for a while, and
// whoever looks last sees everything. What this collector has written itself is compared with what is to be written; of what
// others wrote only the keys are known, and their rows are superseded. All of it is one file, because all of it changes what is
// remembered of a trace, and one at a time.
import { type ClickHouse, rowSettings } from '@tallylight/storage/clickhouse/client.ts'
import { nativeBlock } from '@tallylight/storage/clickhouse/native.ts'
import type { TargetTable } from '@tallylight/storage/clickhouse/schema.ts'
import type { RetentionClass } from '../config.ts'
import type { Texts } from '../genai/estimate.ts'
import { decodeFact, type Estimate, encodeFact, estimateFact, type Fact, linkFact } from '../genai/fact.ts'
import type { PriceOf } from '../genai/price.ts'
import { previewRevision, resolve, revisionsMax } from '../genai/resolve/resolve.ts'
import { openRowBlocks, type RowBlocks } from '../genai/row-blocks.ts'
import {
  type AnyRow,
  isSameRow,
  isUnpriced,
  keyOf,
  nameOfKey,
  type RowKey,
  type RowTable,
  rowTables,
} from '../genai/row-tables.ts'
import type { EmbeddingRow, Estimable, LlmCallRow, Resolved } from '../genai/rows.ts'
import { sceneOf } from '../genai/scene.ts'
import { pause } from '../quota/pause.ts'
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
  /** Counts the tokens of a stream that told none. */
  readonly estimate: (texts: Texts) => Promise<Estimate>
  readonly retentionDaysOf: (tenant: TenantId, retention: RetentionClass) => number
  readonly now: () => number
  readonly bounds: ResolverBounds
  /** Other collectors may store parts of the same traces. */
  readonly isShared: boolean
  /** The id of this collector's. */
  readonly journal: string
  /** Told of traces that were found to have more facts, from another collector, or a price. */
  readonly onMore: (resolved: readonly ResolvedTrace[]) => Promise<void>
  /** Calls that are new and whose price is not known. */
  readonly onUnpriced: (calls: number) => void
  /** Spans that would tell more of a trace if they came. */
  readonly onMissing: (tenantId: TenantId, spanIds: readonly string[]) => void
  readonly onProblem: (message: string) => void
}

export type ResolverBounds = {
  /** Text of the facts that are remembered. */
  readonly rememberedBytesMax: number
  /** How long a trace must be quiet before it is counted once more, and how often that is looked for. */
  readonly quietMs: number
  readonly checkMs: number
  /** Traces that wait for it. */
  readonly looksMax: number
}

export type ResolvedTrace = { readonly tenantId: TenantId; readonly traceId: string; readonly resolved: Resolved }

export type Resolver = {
  /** Resolves the traces of these facts, says each, and writes what that changed. Throws when ClickHouse cannot be asked or
   *  told; then nothing is lost by asking again. */
  resolve(facts: readonly StoredFact[], take: (resolved: ResolvedTrace) => void): Promise<void>
  /** What can be said of these facts without asking ClickHouse: from them and from what is remembered. */
  preview(facts: readonly StoredFact[]): readonly ResolvedTrace[]
  /** The spans that an earlier run was waiting for. */
  recallMissing(): Promise<readonly string[]>
  /** Takes up the second looks that an earlier run has left. */
  recallLooks(): Promise<void>
  /** Looks again at traces that have gone quiet, where others may know more of them, until the signal. */
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
  /** A fact that comes twice is one. */
  readonly facts: Map<string, KnownFact>
  /** The spans between its facts, from `otel_traces`. */
  links: readonly Fact[]
  /** By span: what was counted for calls that told no usage, of which texts. Counted again when there are others, and after a
   *  restart, with the same result. */
  readonly estimates: Map<string, CountedCall>
  /** Keys that an earlier run or another collector has written, per table and by name; what stands there is not known. */
  readonly foreignKeys: Map<RowTable, Map<string, RowKey>>
  /** What is written. */
  written: Resolved | undefined
  /** How often the same facts were priced again, as far as the rows say. */
  revision: number
  /** The highest of the rows that are to be superseded: of what another run or collector has written, or this one. */
  generationMin: number
  bytes: number
}

type CountedCall = { readonly texts: string; readonly fact: Fact }

/** What was known of a trace when it was last resolved. */
type Look = {
  readonly times: TraceTimes
  /** Distinct ones. */
  readonly facts: number
  /** Ids of parents that were not there. */
  readonly awaits: readonly string[]
  readonly touchedMs: number
}

/** What follows from a trace with its links and with what was counted for it. */
type WholeTrace = { readonly trace: Trace; readonly resolved: Resolved; readonly estimates: readonly Fact[] }

/** One of which more is stored: how many facts. */
type QuietTrace = { readonly key: string; readonly look: Look; readonly facts: number }

type KnownFact = { readonly fact: Fact; readonly textChars: number }

/** What is to be written. */
type Changes = { readonly rows: RowBlocks; unpriced: number }

/** Facts are many times as large as objects as they are as text, so only so many are objects at a time. Whole traces: one
 *  that was forgotten between two portions would not know what the first is about to write. */
const factsAtOnce = 500

function* portionsOf<Group>(groups: readonly Group[], factsIn: (group: Group) => number): Generator<readonly Group[]> {
  let portion: Group[] = []
  let facts = 0
  for (const group of groups) {
    portion.push(group)
    facts += factsIn(group)
    if (facts < factsAtOnce) continue
    yield portion
    portion = []
    facts = 0
  }
  if (portion.length > 0) yield portion
}

export function openResolver(options: ResolverOptions): Resolver {
  const { now, bounds, priceOf } = options
  const known: KnownFacts = openKnownFacts(options.clickhouse, options.targetOf)
  /** The least recently touched first. */
  const traces = new Map<string, Trace>()
  let bytes = 0
  /** Of traces that are to be looked at once more, the least recently touched first. */
  const looks = new Map<string, Look>()
  // Whoever changes them is alone (`inTurn`).
  const changes: Changes = { rows: openRowBlocks(), unpriced: 0 }

  function remember(key: string, trace: Trace): void {
    if (traces.delete(key)) bytes -= trace.bytes
    trace.bytes = 0
    for (const { textChars } of trace.facts.values()) trace.bytes += textChars
    bytes += trace.bytes
    traces.set(key, trace)
    if (options.isShared && trace.traceId !== '') lookAgain(key, trace)
  }

  function lookAgain(key: string, trace: Trace): void {
    // Last in the order, as the latest touched.
    looks.delete(key)
    looks.set(key, {
      times: timesOf(trace),
      facts: new Set(factsOf(trace).map(nameOfFact)).size,
      awaits: trace.written?.missingParents ?? [],
      touchedMs: now(),
    })
    dropOldestLooks()
  }

  function dropOldestLooks(): void {
    for (const oldest of looks.keys()) {
      if (looks.size <= bounds.looksMax) return
      looks.delete(oldest)
    }
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
    for (const stored of await known.factsOf(times)) {
      const trace = byKey.get(keyOfTrace(stored))
      if (trace !== undefined) addFact(trace.facts, stored)
    }
    const older = strangers.filter((trace) => trace.facts.size > (before.get(trace) ?? 0))
    for (const rowTable of older.length === 0 ? [] : rowTables) {
      for (const found of await known.keysOf(rowTable, older.map(timesOf))) {
        const trace = byKey.get(keyOfTrace(found))
        if (trace === undefined) continue
        foreignKeysOf(trace, rowTable).set(nameOfKey(found.key), found.key)
        trace.revision = Math.max(trace.revision, found.generation % revisionsMax)
        trace.generationMin = Math.max(trace.generationMin, found.generation)
      }
    }
  }

  async function resolveTraces(touched: readonly Trace[], take: (resolved: ResolvedTrace) => void): Promise<void> {
    for (const { trace, resolved: known, estimates } of await resolveWhole(touched)) {
      let resolved = known
      if (mustSupersede(trace.written, resolved)) {
        trace.generationMin = trace.written.generation
        resolved = resolveTrace(trace, estimates)
      }
      for (const rowTable of rowTables) addChanges(rowTable, trace, resolved)
      options.onMissing(trace.tenantId, resolved.missingParents)
      trace.written = resolved
      trace.foreignKeys.clear()
      take({ tenantId: trace.tenantId, traceId: trace.traceId, resolved })
    }
  }

  /** With what has to be looked up and counted for it. */
  async function resolveWhole(touched: readonly Trace[]): Promise<readonly WholeTrace[]> {
    const first = touched.map((trace) => ({ trace, resolved: resolveTrace(trace, []) }))
    const incomplete = first.filter(({ trace, resolved }) => trace.traceId !== '' && resolved.missingParents.length > 0)
    if (incomplete.length > 0) await findLinks(incomplete.map(({ trace }) => trace))
    const whole: WholeTrace[] = []
    for (const { trace, resolved: alone } of first) {
      const resolved = trace.links.length > 0 ? resolveTrace(trace, []) : alone
      const estimates = resolved.estimable.length > 0 ? await countTokens(trace, resolved) : []
      whole.push({ trace, estimates, resolved: estimates.length > 0 ? resolveTrace(trace, estimates) : resolved })
    }
    return whole
  }

  function resolveTrace(trace: Trace, estimates: readonly Fact[]): Resolved {
    const all = [...factsOf(trace), ...trace.links, ...estimates]
    return resolve(all, priceOf, trace.revision, trace.generationMin)
  }

  /** What could be counted. A call's texts come in several records, and what was counted of the first is not all. */
  async function countTokens(trace: Trace, { estimable }: Resolved): Promise<readonly Fact[]> {
    const isCounted = (one: Estimable): boolean => trace.estimates.get(one.spanId)?.texts === nameOfTexts(one)
    const uncounted = estimable.filter((one) => !isCounted(one))
    if (uncounted.length > 0) await countTexts(trace, uncounted)
    return estimable.filter(isCounted).flatMap(({ spanId }) => trace.estimates.get(spanId)?.fact ?? [])
  }

  async function countTexts(trace: Trace, estimable: readonly Estimable[]): Promise<void> {
    const previews = new Map<string, string>()
    for (const { fact } of trace.facts.values()) {
      const { says } = fact
      if (!('messages' in says)) continue
      for (const { content } of says.messages)
        if (Buffer.byteLength(content.preview) === content.bytes) previews.set(content.hash, content.preview)
    }
    const hashes = new Set(estimable.flatMap(({ input, output }) => [...input, ...output]))
    const kept = await known.textsOf(
      trace.tenantId,
      [...hashes].filter((hash) => !previews.has(hash)),
    )
    const textsOf = (of: readonly string[]): string[] =>
      of.flatMap((hash) => previews.get(hash) ?? kept.get(hash) ?? [])
    for (const one of estimable) {
      const { spanId, input, output } = one
      const span = factsOf(trace).find((fact) => fact.id === 'span' && fact.spanId === spanId)
      const texts = { input: textsOf(input), output: textsOf(output) }
      if (span === undefined || texts.output.length === 0) continue
      trace.estimates.set(spanId, { texts: nameOfTexts(one), fact: estimateFact(span, await options.estimate(texts)) })
    }
  }

  /** Looks for the spans around and between the facts, which say how they hang together, and whose they are. */
  async function findLinks(incomplete: readonly Trace[]): Promise<void> {
    const links = Map.groupBy(await known.linksOf(incomplete.map(timesOf)), keyOfTrace)
    for (const trace of incomplete) trace.links = ancestorsAmong(links.get(keyOfTrace(trace)) ?? [], factsOf(trace))
  }

  async function write(): Promise<void> {
    await Promise.all(
      changes.rows.blocks().map(async (block) => {
        const { name, columns } = block.table
        const target = options.targetOf(name)
        if (target === undefined) throw new Error(`${name} is not known to be there`)
        const names = columns.map(([column]) => column)
        const body = nativeBlock(block, columns, '')
        const outcome = await options.clickhouse.insertNative(target.name, names, rowSettings, body)
        if (outcome.kind !== 'inserted') throw new Error(`${name}: ${outcome.kind}: ${outcome.message}`)
      }),
    )
    if (changes.unpriced > 0) options.onUnpriced(changes.unpriced)
  }

  /** Does what gathers changes, and writes them. */
  async function andWrite(gather: () => Promise<void>): Promise<void> {
    let areWritten = false
    try {
      await gather()
      await write()
      areWritten = true
    } finally {
      changes.rows.clear(areWritten)
      changes.unpriced = 0
    }
  }

  async function resolveAndWrite(some: readonly Trace[]): Promise<readonly ResolvedTrace[]> {
    const resolved: ResolvedTrace[] = []
    await andWrite(() => resolveTraces(some, (each) => resolved.push(each)))
    return resolved
  }

  /** Adds what is to be written, and counts calls among it that were not there and have no price. */
  function addChanges(rowTable: RowTable, trace: Trace, resolved: Resolved): void {
    const rows = rowTable.rowsOf(resolved)
    const foreign = trace.foreignKeys.get(rowTable)
    const written = trace.written === undefined ? [] : rowTable.rowsOf(trace.written)
    const gone = new Map(foreign)
    if (rows.length === 0 && written.length === 0 && gone.size === 0) return
    const retentionDays = options.retentionDaysOf(trace.tenantId, rowTable.retention)
    const hoursBegin = options.targetOf(rowTable.table.name)?.hoursBegin ?? 0
    const before = new Map<string, AnyRow>()
    for (const row of written) {
      const key = keyOf(rowTable, row, hoursBegin)
      before.set(nameOfKey(key), row)
      gone.set(nameOfKey(key), key)
    }
    // Most rows are new, and are compared with nothing.
    const isNew = gone.size === 0
    for (const row of rows) {
      const name = isNew ? '' : nameOfKey(keyOf(rowTable, row, hoursBegin))
      const isThere = gone.delete(name)
      if (!isThere && isUnpriced(row)) changes.unpriced++
      const known = before.get(name)
      if (known === undefined || !isSameRow(known, row)) changes.rows.append(rowTable, row, retentionDays)
    }
    for (const key of gone.values()) changes.rows.appendDeletion(rowTable, key, resolved.generation, retentionDays)
  }

  async function resolveFacts(facts: readonly StoredFact[], take: (resolved: ResolvedTrace) => void): Promise<void> {
    const groups = [...Map.groupBy(facts, keyOfTrace)]
    try {
      await andWrite(async () => {
        for (const portion of portionsOf(groups, ([, added]) => added.length)) await resolvePortion(portion, take)
      })
    } catch (error) {
      // What is written is not known now: read back next time.
      for (const [key] of groups) forget(key)
      throw error
    }
  }

  async function resolvePortion(
    groups: readonly (readonly [key: string, facts: readonly StoredFact[]])[],
    take: (resolved: ResolvedTrace) => void,
  ): Promise<void> {
    const strangers: Trace[] = []
    const open = groups.map(([key, added]) => {
      let trace = traces.get(key)
      if (trace === undefined) {
        trace = openTrace(added[0] as StoredFact)
        if (trace.traceId !== '') strangers.push(trace)
      }
      for (const stored of added) addFact(trace.facts, stored)
      return [key, trace] as const
    })
    await recall(strangers)
    await resolveTraces(
      open.map(([, trace]) => trace),
      take,
    )
    for (const [key, trace] of open) remember(key, trace)
    forgetOldest()
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
    for (const { trace, resolved } of await resolveWhole(
      stored.filter(({ revision }) => revision + 1 < revisionsMax),
    )) {
      const { llmCalls, embeddings } = resolved
      const rows = [...llmCalls, ...embeddings].filter((row) => row.CostNanoUsd !== null && unpriced(row))
      if (rows.length === 0) continue
      priced += rows.length
      trace.revision++
      changed.push(trace)
    }
    // The ledger is told first: rows that have a price are not asked for again.
    const told: ResolvedTrace[] = []
    if (changed.length > 0)
      await andWrite(async () => {
        await resolveTraces(changed, (each) => told.push(each))
        await options.onMore(told)
      })
    return priced
  }

  /** Looks once more at traces that have gone quiet, also at those that were forgotten meanwhile: whether others have stored
   *  facts of them, or a plain span that this one waits for and that came before it could be told. They may be many: between
   *  two portions others have their turn, and a portion that fails takes none of the others with it. */
  async function checkQuiet(signal: AbortSignal): Promise<void> {
    const changed = await findChanged()
    const problems: unknown[] = []
    for (const portion of portionsOf(changed, ({ facts }) => facts)) {
      if (signal.aborted) break
      await inTurn(() => resolveQuiet(portion)).catch((error: unknown) => problems.push(error))
    }
    if (problems.length > 0) throw problems[0]
  }

  /** Of the quiet traces those of which more is stored than was known. None of them is looked at again by itself. */
  async function findChanged(): Promise<readonly QuietTrace[]> {
    const quiet = [...looks].filter(([, { touchedMs }]) => touchedMs <= now() - bounds.quietMs)
    if (quiet.length === 0) return []
    const counts = await known.countsOf(quiet.map(([, { times }]) => times))
    const countOf = new Map(counts.map((found) => [keyOfTrace(found), found.facts]))
    const awaiting = quiet.map(([, look]) => look).filter(({ awaits }) => awaits.length > 0)
    const spans = Map.groupBy(await known.spansOf(awaiting), keyOfTrace)
    const changed: QuietTrace[] = []
    for (const [key, look] of quiet) {
      // Touched while this was asked: it waits anew.
      if (looks.get(key) !== look) continue
      looks.delete(key)
      const facts = countOf.get(key) ?? 0
      const isAwaitedThere = spans.get(key)?.some(({ spanId }) => look.awaits.includes(spanId)) === true
      if (facts > look.facts || isAwaitedThere) changed.push({ key, look, facts })
    }
    return changed
  }

  async function resolveQuiet(portion: readonly QuietTrace[]): Promise<void> {
    // What was touched since is looked at when it is quiet again.
    const still = portion.filter(({ key }) => !looks.has(key))
    if (still.length === 0) return
    const found = still.map(({ key, look }) => [key, traces.get(key) ?? openTrace(look.times)] as const)
    try {
      await recall(
        found.map(([, trace]) => trace),
        still.map(({ look }) => look.times),
      )
      await options.onMore(await resolveAndWrite(found.map(([, trace]) => trace)))
    } catch (error) {
      for (const { key, look } of still) {
        forget(key)
        looks.set(key, look)
      }
      throw error
    }
    for (const [key, trace] of found) remember(key, trace)
    forgetOldest()
  }

  /** What was known of a trace that others have parts of is not known any more: it is resolved anew. */
  async function recallLooks(): Promise<void> {
    for (const { times, awaits, facts, isShared } of await known.unsettled(options.journal)) {
      options.onMissing(times.tenantId, awaits)
      const key = keyOfTrace(times)
      if (!looks.has(key)) looks.set(key, { times, facts: isShared ? 0 : facts, awaits, touchedMs: now() })
    }
    dropOldestLooks()
  }

  /** One at a time: both change what is remembered of a trace. */
  let turn: Promise<unknown> = Promise.resolve()
  function inTurn<Result>(work: () => Promise<Result>): Promise<Result> {
    const mine = turn.then(work)
    turn = mine.catch(() => undefined)
    return mine
  }

  return {
    resolve: (facts, take) => inTurn(() => resolveFacts(facts, take)),
    forget: () =>
      inTurn(async () => {
        for (const key of [...traces.keys()]) forget(key)
      }),
    resolveAgain: (times) =>
      inTurn(async () => {
        await resolveAndWrite(await readBack(times))
      }),
    reprice: (times, unpriced) => inTurn(async () => priceAgain(await readBack(times), unpriced)),
    preview: (facts) =>
      [...Map.groupBy(facts, keyOfTrace)].map(([key, added]) => {
        const { tenantId, traceId } = added[0] as StoredFact
        const all = new Map(traces.get(key)?.facts)
        for (const stored of added) addFact(all, stored)
        const links = traces.get(key)?.links ?? []
        const facts = [...all.values()].map(({ fact }) => fact)
        return { tenantId, traceId, resolved: resolve([...facts, ...links], priceOf, previewRevision) }
      }),
    recallMissing: known.missingParents,
    recallLooks: async () => {
      if (options.isShared) await recallLooks()
    },
    run: async (signal) => {
      while (options.isShared) {
        await pause(bounds.checkMs, signal)
        if (signal.aborted) return
        await checkQuiet(signal).catch((error: unknown) => options.onProblem(String(error)))
      }
    },
  }
}

/** Two records may tell one fact in two ways: both are kept, so that what is known here can be compared with what is stored. */
function addFact(facts: Map<string, KnownFact>, stored: StoredFact): void {
  const { text } = stored
  const textChars = text.length
  const fact = decodeFact(text)
  const name = nameOfFact(fact)
  const known = facts.get(name)
  if (known === undefined) {
    facts.set(name, { fact, textChars })
    return
  }
  if (known.textChars !== textChars || encodeFact(known.fact) !== text)
    facts.set(`${name} ${text}`, { fact, textChars })
}

/** Whether what was written says something else under the same generation, or the same under a later one: readers and the
 *  ledger would keep to it. What is said twice keeps its generation, or repeats would raise it for ever. */
function mustSupersede(written: Resolved | undefined, resolved: Resolved): written is Resolved {
  if (written === undefined || resolved.generation > written.generation) return false
  return resolved.generation < written.generation || !areSameRows(written, resolved)
}

/** The same facts give their rows in the same order. */
function areSameRows(one: Resolved, other: Resolved): boolean {
  return rowTables.every(({ rowsOf }) => {
    const rows = rowsOf(one)
    const others = rowsOf(other)
    return rows.length === others.length && rows.every((row, at) => isSameRow(row, others[at] as AnyRow))
  })
}

function nameOfTexts({ input, output }: Estimable): string {
  return JSON.stringify([input, output])
}

function nameOfFact({ spanId, id }: Fact): string {
  return `${spanId} ${id}`
}

function factsOf({ facts }: Trace): readonly Fact[] {
  return [...facts.values()].map(({ fact }) => fact)
}

function openTrace({ tenantId, traceId }: TraceKey): Trace {
  return {
    tenantId,
    traceId,
    facts: new Map(),
    links: [],
    estimates: new Map(),
    foreignKeys: new Map(),
    written: undefined,
    revision: 0,
    generationMin: 0,
    bytes: 0,
  }
}

/** A log record of no trace is one of its own. */
function keyOfTrace(of: TraceKey | StoredFact): string {
  if (of.traceId !== '') return `${of.tenantId}\0${of.traceId}`
  return `${of.tenantId}\0\0${'text' in of ? of.text : ''}`
}

function foreignKeysOf(trace: Trace, rowTable: RowTable): Map<string, RowKey> {
  const keys = trace.foreignKeys.get(rowTable) ?? new Map<string, RowKey>()
  trace.foreignKeys.set(rowTable, keys)
  return keys
}

function timesOf({ tenantId, traceId, facts }: Trace): TraceTimes {
  let fromUnixNano = 2n ** 63n
  let toUnixNano = 0n
  for (const { fact } of facts.values()) {
    const { startUnixNano, endUnixNano } = fact
    if (startUnixNano < fromUnixNano) fromUnixNano = startUnixNano
    if (endUnixNano > toUnixNano) toUnixNano = endUnixNano
  }
  return { tenantId, traceId, fromUnixNano, toUnixNano }
}

/** Of all spans of a trace those that a fact stands under. What the others say is not known where these came after the facts,
 *  and were lifted because they were waited for: so it is not looked at. */
function ancestorsAmong(spans: readonly SpanLink[], facts: readonly Fact[]): readonly Fact[] {
  const known = new Set(facts.map(({ spanId }) => spanId))
  const told = Map.groupBy(spans, ({ spanId }) => spanId)
  const ancestors: Fact[] = []
  const wanted = facts.map(({ parentSpanId }) => parentSpanId)
  for (let spanId = wanted.pop(); spanId !== undefined; spanId = wanted.pop()) {
    if (known.has(spanId)) continue
    known.add(spanId)
    for (const span of told.get(spanId) ?? []) {
      ancestors.push(linkOf(span))
      wanted.push(span.parentSpanId)
    }
  }
  return ancestors
}

function linkOf({ startUnixNano, endUnixNano, attributes, resource, ...span }: SpanLink): Fact {
  return linkFact({
    ...span,
    startUnixNano: BigInt(startUnixNano),
    endUnixNano: BigInt(endUnixNano),
    scene: sceneOf(new Map(Object.entries(attributes)), new Map(Object.entries(resource))),
  })
}
