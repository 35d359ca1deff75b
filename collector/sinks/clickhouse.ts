// The ClickHouse sink: brings sealed segments into ClickHouse, each (segment, table, day) as exactly one insert of one
// block, and tells the journal what is there.
//
// Exactly once rests on two things. The deduplication token names segment, table and day, so a repeat within the table's
// window is dropped by the server. And each row carries its segment's name, so an insert in doubt (no answer, or a run
// before this one may have made it) is decided by counting: all there, or nothing there. Doubt goes first.
//
// A table that refuses is left alone for a while; the other tables of the segment, and of those behind it, go on.
//
// What is derived from a segment's facts is written when its facts and texts are there, and before the segment is forgotten.
// Deriving twice writes the same rows, so it needs no counting.
import { type AnyBlock, isBlockOf } from '@tallylight/storage/clickhouse/block.ts'
import type { ClickHouse, InsertOutcome } from '@tallylight/storage/clickhouse/client.ts'
import { knowsRepeats, type TargetTable } from '@tallylight/storage/clickhouse/schema.ts'
import { countTexts } from '@tallylight/storage/clickhouse/slice.ts'
import {
  contentsTable,
  factsTable,
  journalTables,
  quarantineTable,
  tracesTable,
  traceTimesTable,
} from '@tallylight/storage/clickhouse/tables.ts'
import { traceTimesOf } from '@tallylight/storage/clickhouse/trace-times.ts'
import { type BySignal, noneBySignal } from '../journal/frame.ts'
import type { Journal } from '../journal/journal.ts'
import { signalOfTable } from '../journal/recover.ts'
import type { LoadedSegment, SealedSegment } from '../journal/sealed-segments.ts'
import { factsIn, type StoredFact } from './known-facts.ts'
import { asideOf, withoutOtherTenants } from './other-tenants.ts'
import { bringPart, type Part } from './part.ts'
import type { RemoveSegment } from './removal.ts'

export type SinkOptions = {
  readonly journal: () => Pick<Journal, 'load' | 'settle'>
  readonly remove: RemoveSegment
  readonly clickhouse: ClickHouse
  /** The tables as they are, once ClickHouse is there and its schema fits. Undefined until then. */
  readonly targets: () => ReadonlyMap<string, TargetTable> | undefined
  /** Told of the facts of each segment, none too, when they are in ClickHouse: writes what follows from them. Throws when it
   *  has to be tried again. Undefined: nothing follows. */
  readonly derive: ((segment: SealedSegment, facts: readonly StoredFact[]) => Promise<void>) | undefined
  /** Segments are brought again because the server lost what it had: what was derived may be lost as well. */
  readonly onBroughtAgain: () => Promise<void>
  /** A table does not take its rows, or cannot be asked for them: it may not be what `targets` says any more. */
  readonly onMend: () => void
  /** The time of day, for what is written. */
  readonly now: () => number
  /** For what is waited for: it never goes back, as the time of day does when it is set. */
  readonly clockMs: () => number
  readonly bounds: SinkBounds
  readonly onProblem: (problem: SinkProblem) => void
  readonly onInsert: (insert: InsertReport) => void
}

export type SinkBounds = {
  readonly retryMsMin: number
  readonly retryMsMax: number
  /** How long a segment stays when ClickHouse does not sync what it answers. */
  readonly graceMs: number
  /** A part of which this many rows were refused and none taken is not a matter of rows. */
  readonly refusedRowsMax: number
}

export type SinkProblem = { readonly table: string; readonly kind: string; readonly message: string }
export type InsertReport = {
  readonly table: string
  readonly rows: number
  readonly seconds: number
  readonly outcome: InsertOutcome['kind']
  /** From the segment's opening to the answer: what a reader waits at most. */
  readonly lagSeconds: number
}

export type ClickHouseSink = {
  /** The sink takes the segment from here; in order. */
  enqueue(segment: SealedSegment): void
  status(): { readonly waiting: number; readonly failingTables: readonly string[] }
  /** Whether what follows from the segment is not said soon: ClickHouse is away, or it was tried in vain. */
  isSilentAbout(segment: SealedSegment): boolean
  /** Runs until the signal, then returns when the insert under way has its answer or `abandonMs` have passed. */
  run(signal: AbortSignal): Promise<void>
}

type Waiting = {
  readonly segment: SealedSegment
  /** Parts that ClickHouse has said it has, and when. */
  readonly done: Map<string, number>
  readonly doubtful: Set<string>
  /** Parts that the books have: one that is brought again is not booked again. */
  readonly booked: Set<string>
  isAllDoubtful: boolean
  /** Tables that are still to be written, known once the segment was loaded. */
  tables: Set<string> | undefined
  isDeriving: boolean
  /** When the journal may forget it, once all of it is stored: at once where the tables sync. */
  forgetMs: number | undefined
}

type Pause = { readonly untilMs: number; readonly delayMs: number }

export function openClickHouseSink(options: SinkOptions): ClickHouseSink {
  const { clickhouse, bounds, clockMs } = options
  const waiting: Waiting[] = []
  const pauses = new Map<string, Pause>()
  /** What follows from them was tried in vain: each waits for itself as well, so that it holds up no other. */
  const underived = new Map<SealedSegment, Pause>()
  let wake: (() => void) | undefined
  /** When ClickHouse was last not reached, until it was asked whether it has started anew since. */
  let lostTouchMs = longAgo

  function enqueue(segment: SealedSegment): void {
    waiting.push({
      segment,
      done: new Map([...segment.done].map((key) => [key, longAgo])),
      doubtful: new Set(),
      booked: new Set(segment.done),
      isAllDoubtful: !segment.isFresh,
      tables: undefined,
      isDeriving: false,
      forgetMs: undefined,
    })
    wake?.()
  }

  async function run(signal: AbortSignal): Promise<void> {
    signal.addEventListener('abort', () => wake?.(), { once: true })
    while (!signal.aborted) {
      const targets = options.targets()
      const next = targets === undefined ? undefined : nextWaiting()
      if (targets === undefined || next === undefined) await pause(signal)
      else await bring(next, targets)
      if (targets !== undefined && !isPaused(everything)) await forgetStored(targets)
    }
    await deriving
  }

  /** The oldest segment with a table that is not paused; those in doubt before the others. */
  function nextWaiting(): Waiting | undefined {
    if (isPaused(everything)) return undefined
    const ready = waiting.filter(
      ({ segment, forgetMs, tables, isDeriving }) =>
        forgetMs === undefined &&
        !isDeriving &&
        (tables === undefined ||
          [...tables].some((table) => (table === derived ? mayDerive(segment) : !isPaused(table)))),
    )
    return ready.find(isInDoubt) ?? ready[0]
  }

  /** Removes what is stored and safe. A server that does not sync may have lost, with its power, what it said it has: it is
   *  asked when it was not reached, and before anything is forgotten, and what it had before its start is brought again. */
  async function forgetStored(targets: ReadonlyMap<string, TargetTable>): Promise<void> {
    const isDue = ({ forgetMs }: Waiting): boolean => forgetMs !== undefined && forgetMs <= clockMs()
    const isUnsure = (each: Waiting): boolean => isDue(each) || oldestDoneMs(each) < lostTouchMs
    if (!isDurable(targets) && waiting.some(isUnsure)) {
      const startedMs = await askStart()
      if (startedMs === undefined) return
      lostTouchMs = longAgo
      const lost = waiting.filter((each) => oldestDoneMs(each) <= startedMs)
      if (lost.length > 0) await options.onBroughtAgain()
      for (const each of lost) bringAgain(each, targets)
    }
    for (const each of waiting.filter(isDue)) await forget(each)
  }

  /** When the server started, by `clockMs`, at the latest: it tells whole seconds. */
  async function askStart(): Promise<number | undefined> {
    try {
      const [row] = await clickhouse.query<{ seconds: number }>('SELECT toUInt32(uptime()) AS seconds')
      return clockMs() - (row?.seconds ?? 0) * 1000
    } catch (error) {
      options.onProblem({ table: '', kind: 'uptime_unknown', message: String(error) })
      lostTouchMs = clockMs()
      pauseFor(everything)
      return undefined
    }
  }

  function bringAgain(each: Waiting, targets: ReadonlyMap<string, TargetTable>): void {
    each.forgetMs = undefined
    each.tables = undefined
    each.isAllDoubtful = true
    doubtDone(each, targets)
  }

  /** A table that knows no repeats would have its rows twice after every start of this or of the server: what it was said to
   *  have, it has. */
  function doubtDone({ done }: Waiting, targets: ReadonlyMap<string, TargetTable>): void {
    for (const key of done.keys()) {
      const target = targets.get(tableOfKey(key) ?? '')
      if (target === undefined || knowsRepeats(target)) done.delete(key)
      else done.set(key, clockMs())
    }
  }

  async function forget(each: Waiting): Promise<void> {
    try {
      await options.remove(each.segment)
      waiting.splice(waiting.indexOf(each), 1)
    } catch (error) {
      options.onProblem({ table: '', kind: 'remove_failed', message: `${each.segment.name}: ${String(error)}` })
      pauseFor(everything)
    }
  }

  function isPaused(table: string): boolean {
    return isOn(pauses.get(table))
  }

  function mayDerive(segment: SealedSegment): boolean {
    return !isPaused(derived) && !isOn(underived.get(segment))
  }

  function isOn(pause: Pause | undefined): boolean {
    return (pause?.untilMs ?? longAgo) > clockMs()
  }

  function pauseFor(table: string): void {
    pauses.set(table, longer(pauses.get(table)))
  }

  function longer(before: Pause | undefined): Pause {
    const delayMs = Math.min((before?.delayMs ?? bounds.retryMsMin / 2) * 2, bounds.retryMsMax)
    // Spread out, so that collectors that failed together do not come back together.
    return { untilMs: clockMs() + delayMs * (0.75 + Math.random() / 2), delayMs }
  }

  function pause(signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const timer = setTimeout(() => wake?.(), bounds.retryMsMin)
      wake = () => {
        clearTimeout(timer)
        wake = undefined
        resolve()
      }
      if (signal.aborted) wake()
    })
  }

  async function bring(each: Waiting, targets: ReadonlyMap<string, TargetTable>): Promise<void> {
    const { segment } = each
    // The power that a run before this one lost may have been the server's too.
    if (!each.segment.isFresh && !isDurable(targets) && each.tables === undefined) doubtDone(each, targets)
    let loaded: LoadedSegment
    try {
      loaded = await options.journal().load(segment)
    } catch (error) {
      options.onProblem({ table: '', kind: 'load_failed', message: `${segment.name}: ${String(error)}` })
      pauseFor(everything)
      return
    }
    try {
      const parts = (await partsOf(segment, loaded, targets)).filter((part) => !each.done.has(part.key))
      each.tables = new Set(parts.map((part) => part.name))
      if (options.derive !== undefined && !each.done.has(derived)) each.tables.add(derived)
      await Promise.all(groupByTable(parts).map((group) => bringTable(each, group, loaded, targets)))
      await derive(each, loaded.parts)
    } finally {
      loaded.release()
    }
    noteStored(each)
  }

  function noteStored(each: Waiting): void {
    const targets = options.targets()
    if (targets === undefined || each.tables === undefined || each.tables.size > 0) return
    each.isAllDoubtful = false
    each.forgetMs = isDurable(targets) ? clockMs() : clockMs() + bounds.graceMs
  }

  async function bringTable(
    each: Waiting,
    parts: readonly Part[],
    loaded: LoadedSegment,
    targets: ReadonlyMap<string, TargetTable>,
  ): Promise<void> {
    for (const part of parts) {
      const target = targets.get(part.name)
      if (target === undefined || isPaused(part.name) || isPaused(everything)) return
      const isDoubtful = each.isAllDoubtful || each.doubtful.has(part.key)
      const result = await bringPart(
        { ...options, segment: each.segment, part, target, targets, settings: loaded.header.insertSettings },
        isDoubtful,
      )
      if (result.kind === 'later') {
        if (result.isDoubtful) each.doubtful.add(part.key)
        if (result.reason === 'unreachable' || result.reason === 'in_doubt') lostTouchMs = clockMs()
        if (result.reason === 'unreachable') pauseFor(everything)
        pauseFor(part.name)
        if (result.reason === 'mend' || result.reason === 'not_counted') options.onMend()
        options.onProblem({ table: part.name, kind: result.reason, message: result.message })
        return
      }
      each.done.set(part.key, clockMs())
      each.doubtful.delete(part.key)
      pauses.delete(part.name)
      // It answers: the next outage begins with a short pause again.
      pauses.delete(everything)
      if (!each.booked.has(part.key)) settle(each.segment, part, result.refusedRows)
      each.booked.add(part.key)
    }
    each.tables?.delete(parts[0]?.name ?? '')
  }

  /** One at a time and beside the next segment's inserts: what is derived may wait for Postgres. */
  let deriving: Promise<void> = Promise.resolve()
  async function derive(each: Waiting, parts: LoadedSegment['parts']): Promise<void> {
    const { tables } = each
    if (tables?.has(derived) !== true || !mayDerive(each.segment)) return
    if (tables.has(factsTable.name) || tables.has(contentsTable.name)) return
    const facts = factsIn(parts)
    await deriving
    each.isDeriving = true
    deriving = deriveNow(each, facts)
  }

  async function deriveNow(each: Waiting, facts: readonly StoredFact[]): Promise<void> {
    try {
      await options.derive?.(each.segment, facts)
      pauses.delete(derived)
      underived.delete(each.segment)
      each.tables?.delete(derived)
      each.done.set(derived, clockMs())
      noteStored(each)
    } catch (error) {
      pauseFor(derived)
      underived.set(each.segment, longer(underived.get(each.segment)))
      options.onProblem({ table: derived, kind: 'not_derived', message: `${each.segment.name}: ${String(error)}` })
    }
    each.isDeriving = false
    wake?.()
  }

  function settle(segment: SealedSegment, part: Part, refusedRows: number): void {
    const stored = noneBySignal()
    const quarantined = noneBySignal()
    if (part.signal !== undefined) {
      stored[part.signal] = part.block.rows - refusedRows
      quarantined[part.signal] = refusedRows
    } else if (part.name === quarantineTable.name) {
      for (const [signal, rows] of countTexts(part.block, 'Signal')) quarantined[signal as keyof BySignal] += rows
    }
    options.journal().settle(segment, part.key, stored, quarantined)
  }

  return {
    enqueue,
    run,
    status: () => ({
      waiting: waiting.filter((each) => each.forgetMs === undefined).length,
      failingTables: [...pauses.keys()].filter((table) => isPaused(table)),
    }),
    isSilentAbout: (segment) => options.targets() === undefined || isPaused(everything) || underived.has(segment),
  }
}

/** The name under which everything is paused when ClickHouse itself is away. */
const everything = '*'
/** Before anything that `clockMs` tells. */
const longAgo = Number.NEGATIVE_INFINITY
/** The number of trace times in the books: no table of the journal has it. */
const traceTimesNumber = 1000
/** Behind the key of a part: its rows of other tenants, which go to the quarantine. */
const othersKey = ':others'
/** What follows from a segment's facts, as one more table and part of it. Not in the books: after a restart it is said again. */
const derived = 'genai rows'

/** Whether an insert may have been made. What is derived is derived again, and needs no counting. */
function isInDoubt({ isAllDoubtful, doubtful, tables }: Waiting): boolean {
  const isLeft = tables === undefined || [...tables].some((table) => table !== derived)
  return isLeft && (isAllDoubtful || doubtful.size > 0)
}

/** Infinity while nothing is done. */
function oldestDoneMs({ done }: Waiting): number {
  return Math.min(...done.values())
}

function isDurable(targets: ReadonlyMap<string, TargetTable>): boolean {
  return [...targets.values()].every((target) => target.isDurable)
}

async function partsOf(
  segment: SealedSegment,
  loaded: LoadedSegment,
  targets: ReadonlyMap<string, TargetTable>,
): Promise<readonly Part[]> {
  const parts: Part[] = []
  const takesAll = (name: string): boolean => targets.get(name)?.hasTenant !== false
  for (const { table, day, block } of loaded.parts) {
    const signal = signalOfTable(table)
    const { taken, others } =
      signal === undefined || takesAll(block.table.name) ? { taken: block } : withoutOtherTenants(block)
    if (taken.rows > 0) parts.push(partOf(table, day, taken, signal))
    if (signal !== undefined && others !== undefined) {
      const aside = await asideOf(others, signal, segment.createdUnixMs)
      const key = `${table}:${day}${othersKey}`
      parts.push({ ...partOf(table, aside.day, aside, undefined), key, segmentName: `${segment.name}/${key}` })
    }
    if (!isBlockOf(taken, tracesTable) || taken.rows === 0) continue
    const times = await traceTimesOf(taken)
    const kept = takesAll(times.table.name) ? times : withoutOtherTenants(times).taken
    if (kept.rows > 0) parts.push(partOf(traceTimesNumber, day, kept, undefined))
  }
  return parts
}

function partOf(table: number, day: number, block: AnyBlock, signal: Part['signal']): Part {
  return { key: `${table}:${day}`, day, name: block.table.name, block, signal }
}

/** Where the part of this key goes. */
function tableOfKey(key: string): string | undefined {
  if (key.endsWith(othersKey)) return quarantineTable.name
  const number = Number(key.split(':')[0])
  return number === traceTimesNumber ? traceTimesTable.name : journalTables[number]?.name
}

function groupByTable(parts: readonly Part[]): readonly (readonly Part[])[] {
  return [...Map.groupBy(parts, (part) => part.name).values()]
}
