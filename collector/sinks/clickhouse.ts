// The ClickHouse sink: brings sealed segments into ClickHouse, each (segment, table, day) as exactly one insert of one
// block, and tells the journal what is there.
//
// Exactly once rests on two things. The deduplication token names segment, table and day, so a repeat within the table's
// window is dropped by the server. And each row carries its segment's name, so an insert in doubt (no answer, or a run
// before this one may have made it) is decided by counting: all there, or nothing there. Doubt goes first.
//
// A table that refuses is left alone for a while; the other tables of the segment, and of those behind it, go on.
import { type AnyBlock, appendIndex, type Block, isBlockOf, openBlock } from '@tallylight/storage/clickhouse/block.ts'
import type { ClickHouse, InsertOutcome, Settings } from '@tallylight/storage/clickhouse/client.ts'
import { nativeBlock } from '@tallylight/storage/clickhouse/native.ts'
import type { TargetTable } from '@tallylight/storage/clickhouse/schema.ts'
import { rowText, sliceBlock, textOf } from '@tallylight/storage/clickhouse/slice.ts'
import { appendText, appendUint16, appendUint64 } from '@tallylight/storage/clickhouse/stream.ts'
import { quarantineTable, tracesTable, traceTimesTable } from '@tallylight/storage/clickhouse/tables.ts'
import { traceTimesOf } from '@tallylight/storage/clickhouse/trace-times.ts'
import { type BySignal, noneBySignal } from '../journal/frame.ts'
import type { Journal, LoadedSegment, SealedSegment } from '../journal/journal.ts'
import { signalOfTable } from '../journal/recover.ts'
import { internBytes } from '../otlp/walk.ts'
import { loggable, remedyOf } from './refusals.ts'

export type SinkOptions = {
  readonly journal: () => Pick<Journal, 'load' | 'settle' | 'remove'>
  readonly clickhouse: ClickHouse
  /** The tables as they are, once ClickHouse is there and its schema fits. Undefined until then. */
  readonly targets: () => ReadonlyMap<string, TargetTable> | undefined
  readonly now: () => number
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

type Refused = Extract<InsertOutcome, { kind: 'refused' }>
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
  /** Runs until the signal, then returns when the insert under way has its answer or `abandonMs` have passed. */
  run(signal: AbortSignal): Promise<void>
}

/** A part of a segment: one table and day. Trace times are derived from the spans and are a part of their own. */
type Part = {
  readonly key: string
  readonly table: number
  readonly day: number
  readonly name: string
  readonly block: AnyBlock
}

type Waiting = {
  readonly segment: SealedSegment
  readonly done: Set<string>
  readonly doubtful: Set<string>
  isAllDoubtful: boolean
  /** Tables that are still to be written, known once the segment was loaded. */
  tables: Set<string> | undefined
  storedMs: number | undefined
}

/** Rows from–to of a part that were inserted, or put into quarantine, by themselves. */
type Piece = { readonly from: number; readonly to: number; readonly isQuarantined: boolean }

type PartResult = { readonly kind: 'done'; readonly quarantined: BySignal } | { readonly kind: 'later' }

export function openClickHouseSink(options: SinkOptions): ClickHouseSink {
  const { clickhouse, bounds, now } = options
  const waiting: Waiting[] = []
  const pauses = new Map<string, { untilMs: number; delayMs: number }>()
  let wake: (() => void) | undefined

  function enqueue(segment: SealedSegment): void {
    waiting.push({
      segment,
      done: new Set(segment.done),
      doubtful: new Set(),
      isAllDoubtful: !segment.isFresh,
      tables: undefined,
      storedMs: undefined,
    })
    wake?.()
  }

  async function run(signal: AbortSignal): Promise<void> {
    signal.addEventListener('abort', () => wake?.(), { once: true })
    while (!signal.aborted) {
      const targets = options.targets()
      const next = targets === undefined ? undefined : nextWaiting()
      if (targets === undefined || next === undefined) {
        await pause(signal)
        continue
      }
      await bring(next, targets)
    }
  }

  /** The oldest segment with a table that is not paused; those in doubt before the others. */
  function nextWaiting(): Waiting | undefined {
    if (isPaused(everything)) return undefined
    const ready = waiting.filter((each) => {
      if (each.storedMs !== undefined) return now() - each.storedMs >= bounds.graceMs
      return each.tables === undefined || [...each.tables].some((table) => !isPaused(table))
    })
    return ready.find((each) => each.isAllDoubtful || each.doubtful.size > 0) ?? ready[0]
  }

  function isPaused(table: string): boolean {
    return (pauses.get(table)?.untilMs ?? 0) > now()
  }

  function pauseFor(table: string): void {
    const before = pauses.get(table)?.delayMs ?? bounds.retryMsMin / 2
    const delayMs = Math.min(before * 2, bounds.retryMsMax)
    // Spread out, so that collectors that failed together do not come back together.
    pauses.set(table, { untilMs: now() + delayMs * (0.75 + Math.random() / 2), delayMs })
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
    if (each.storedMs === undefined) {
      let loaded: LoadedSegment
      try {
        loaded = await options.journal().load(segment)
      } catch (error) {
        options.onProblem({ table: '', kind: 'load_failed', message: `${segment.name}: ${String(error)}` })
        pauseFor(everything)
        return
      }
      try {
        const parts = partsOf(loaded).filter((part) => !each.done.has(part.key))
        each.tables = new Set(parts.map((part) => part.name))
        await Promise.all(groupByTable(parts).map((group) => bringTable(each, group, loaded, targets)))
      } finally {
        loaded.release()
      }
      if (each.tables.size > 0) return
      each.isAllDoubtful = false
      each.storedMs = now()
      const isDurable = [...targets.values()].every((target) => target.isDurable)
      if (!isDurable && bounds.graceMs > 0) return
    }
    try {
      await options.journal().remove(segment)
      waiting.splice(waiting.indexOf(each), 1)
    } catch (error) {
      options.onProblem({ table: '', kind: 'remove_failed', message: `${segment.name}: ${String(error)}` })
      pauseFor(everything)
    }
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
      const work = openPart(each, part, target, targets, loaded.header.insertSettings)
      const result = await work.bring(0, part.block.rows, isDoubtful)
      if (result.kind === 'later') return
      each.done.add(part.key)
      each.doubtful.delete(part.key)
      pauses.delete(part.name)
      settle(each.segment, part, loaded, result.quarantined)
    }
    each.tables?.delete(parts[0]?.name ?? '')
  }

  function settle(segment: SealedSegment, part: Part, loaded: LoadedSegment, refused: BySignal): void {
    const stored = noneBySignal()
    const quarantined = { ...refused }
    const signal = signalOfTable(part.table)
    if (part.name === quarantineTable.name) {
      const all = quarantinedIn(segment, loaded)
      for (const each of ['traces', 'metrics', 'logs'] as const) quarantined[each] += all[each]
    } else if (part.name !== traceTimesTable.name && signal !== undefined) {
      stored[signal] = part.block.rows - refused[signal]
    }
    const table = part.name === traceTimesTable.name ? traceTimesNumber : part.table
    options.journal().settle(segment, { table, day: part.day }, stored, quarantined)
  }

  /** Inserts a part, whole or in pieces, and decides doubt by counting. */
  function openPart(
    each: Waiting,
    part: Part,
    target: TargetTable,
    targets: ReadonlyMap<string, TargetTable>,
    settings: Settings,
  ) {
    const { segment } = each
    const quarantined = noneBySignal()
    let refusedRows = 0
    let takenRows = 0
    let pieces: readonly Piece[] | undefined

    const pieceName = (from: number, to: number): string =>
      from === 0 && to === part.block.rows ? segment.name : `${segment.name}/${part.key}/${from}-${to}`

    async function bring(from: number, to: number, isDoubtful: boolean): Promise<PartResult> {
      const name = pieceName(from, to)
      if (isDoubtful && target.hasSegment) {
        const counted = await countOf(name, from, to)
        if (counted === undefined) return later('unreachable', 'could not ask what is there')
        if (counted.whole === to - from) {
          takenRows += to - from
          return done()
        }
        if (counted.isQuarantined) {
          addRefused(from, to)
          return done()
        }
        if (counted.whole > 0)
          return later('partial', `${name} has ${counted.whole} rows of ${to - from}; inserts are all or nothing`)
        if (counted.hasPieces) return halves(from, to, true)
      }
      const startedMs = now()
      const rows = from === 0 && to === part.block.rows ? part.block : sliceBlock(part.block, from, to)
      const outcome = await clickhouse.insertNative(
        target.name,
        target.columns.map(([column]) => column),
        { ...settings, insert_deduplication_token: `${name}:${part.name}:${part.day}` },
        nativeBlock(rows, target.columns, name),
      )
      options.onInsert({
        table: part.name,
        rows: to - from,
        seconds: (now() - startedMs) / 1000,
        outcome: outcome.kind,
        lagSeconds: (now() - segment.createdUnixMs) / 1000,
      })
      switch (outcome.kind) {
        case 'inserted':
          takenRows += to - from
          return done()
        case 'unreachable':
          pauseFor(everything)
          return later(outcome.kind, outcome.message)
        case 'in_doubt':
          each.doubtful.add(part.key)
          return later(outcome.kind, outcome.message)
        case 'refused':
          return refused(outcome, from, to)
        default:
          return outcome satisfies never
      }
    }

    async function refused(refusal: Refused, from: number, to: number): Promise<PartResult> {
      const remedy = remedyOf(refusal.code)
      const message = loggable(refusal)
      // A refusal may come after the rows were written, from a view of the user's behind the table: what was refused is
      // counted before it is sent again, in whatever pieces.
      each.doubtful.add(part.key)
      if (remedy === 'retry' || remedy === 'mend') return later(remedy, message)
      const counted = target.hasSegment ? await countOf(pieceName(from, to), from, to) : undefined
      if (counted?.whole === to - from) {
        takenRows += to - from
        options.onProblem({ table: part.name, kind: 'stored_though_refused', message })
        return done()
      }
      if (to - from > 1) {
        options.onProblem({
          table: part.name,
          kind: remedy,
          message: `${message}; its ${to - from} rows are tried in halves`,
        })
        return halves(from, to, true)
      }
      if (remedy === 'halve') return later(remedy, message)
      if (takenRows === 0 && refusedRows >= bounds.refusedRowsMax) {
        return later('mend', `${message}; ${refusedRows} rows refused and none taken, so it is not the rows`)
      }
      return putAside(from, refusal)
    }

    async function halves(from: number, to: number, isDoubtful: boolean): Promise<PartResult> {
      const middle = from + Math.floor((to - from) / 2)
      const first = await bring(from, middle, isDoubtful)
      if (first.kind === 'later') return first
      return bring(middle, to, isDoubtful)
    }

    async function putAside(row: number, refusal: Refused): Promise<PartResult> {
      const aside = targets.get(quarantineTable.name)
      if (aside === undefined) return later('mend', 'there is no quarantine table')
      const name = pieceName(row, row + 1)
      const reason = `${refusal.type} (${refusal.code}): ${refusal.message}`
      const block = quarantineBlock(part, sliceBlock(part.block, row, row + 1), reason, now())
      const outcome = await clickhouse.insertNative(
        aside.name,
        aside.columns.map(([column]) => column),
        { ...settings, insert_deduplication_token: `${name}:${part.name}:quarantine` },
        nativeBlock(block, aside.columns, name),
      )
      if (outcome.kind !== 'inserted') return later(outcome.kind, outcome.message)
      addRefused(row, row + 1)
      options.onProblem({ table: part.name, kind: 'quarantined', message: loggable(refusal) })
      return done()
    }

    function addRefused(from: number, to: number): void {
      refusedRows += to - from
      const signal = signalOfTable(part.table)
      if (signal !== undefined && part.name !== traceTimesTable.name) quarantined[signal] += to - from
    }

    /** What there is of rows from–to: as one insert, as smaller pieces, or in quarantine. Undefined when nobody can say. */
    async function countOf(
      name: string,
      from: number,
      to: number,
    ): Promise<{ whole: number; hasPieces: boolean; isQuarantined: boolean } | undefined> {
      try {
        const [counted] = await clickhouse.query<{ whole: string }>(
          `SELECT count() AS whole FROM ${target.name} WHERE Segment = {name:String}`,
          { name },
        )
        pieces ??= await findPieces()
        const inside = pieces.filter(
          (piece) => piece.from >= from && piece.to <= to && piece.to - piece.from < to - from,
        )
        const isQuarantined = pieces.some((piece) => piece.isQuarantined && piece.from === from && piece.to === to)
        return { whole: Number(counted?.whole ?? 0), hasPieces: inside.length > 0, isQuarantined }
      } catch (error) {
        options.onProblem({ table: part.name, kind: 'count_failed', message: String(error) })
        return undefined
      }
    }

    /** The pieces that a run before this one, or this part's last try, has brought to the table or the quarantine. */
    async function findPieces(): Promise<readonly Piece[]> {
      const prefix = `${segment.name}/${part.key}/`
      const found: Piece[] = []
      for (const [table, isQuarantined] of [
        [target, false],
        [targets.get(quarantineTable.name), true],
      ] as const) {
        if (table === undefined) continue
        const names = await clickhouse.query<{ name: string }>(
          `SELECT DISTINCT Segment AS name FROM ${table.name} WHERE startsWith(Segment, {prefix:String})`,
          { prefix },
        )
        for (const { name } of names) {
          const range = /(\d+)-(\d+)$/.exec(name)
          if (range !== null) found.push({ from: Number(range[1]), to: Number(range[2]), isQuarantined })
        }
      }
      return found
    }

    function later(kind: string, message: string): PartResult {
      pauseFor(part.name)
      options.onProblem({ table: part.name, kind, message })
      return { kind: 'later' }
    }

    function done(): PartResult {
      return { kind: 'done', quarantined }
    }

    return { bring }
  }

  return {
    enqueue,
    run,
    status: () => ({
      waiting: waiting.filter((each) => each.storedMs === undefined).length,
      failingTables: [...pauses.keys()].filter((table) => isPaused(table)),
    }),
  }
}

/** The name under which everything is paused when ClickHouse itself is away. */
const everything = '*'
/** The number of trace times in the books: no table of the journal has it. */
const traceTimesNumber = 1000

function partsOf(loaded: LoadedSegment): readonly Part[] {
  const parts: Part[] = []
  for (const { table, day, block } of loaded.parts) {
    if (block.rows === 0) continue
    parts.push({ key: `${table}:${day}`, table, day, name: block.table.name, block })
    if (!isBlockOf(block, tracesTable)) continue
    parts.push({
      key: `${traceTimesNumber}:${day}`,
      table,
      day,
      name: traceTimesTable.name,
      block: traceTimesOf(block),
    })
  }
  return parts
}

function groupByTable(parts: readonly Part[]): readonly (readonly Part[])[] {
  return [...Map.groupBy(parts, (part) => part.name).values()]
}

/** Records of a segment that are in its quarantine rows: what its tables do not hold. */
function quarantinedIn(segment: SealedSegment, loaded: LoadedSegment): BySignal {
  const left = { ...segment.records }
  for (const part of loaded.parts) {
    const signal = signalOfTable(part.table)
    if (signal !== undefined) left[signal] -= part.rows
  }
  return left
}

function quarantineBlock(part: Part, row: AnyBlock, message: string, nowMs: number): Block<typeof quarantineTable> {
  const block = openBlock(quarantineTable, part.day)
  const { columns } = block
  const unixNano = BigInt(nowMs) * 1_000_000n
  appendIndex(columns.TenantId, internBytes(columns.TenantId, Buffer.from(textOf(row, 'TenantId'))))
  appendUint16(columns.RetentionDays.data, Number(textOf(row, 'RetentionDays')))
  appendUint64(columns.Time.data, Number(unixNano & 0xffff_ffffn), Number(unixNano >> 32n))
  appendIndex(columns.Signal, internBytes(columns.Signal, Buffer.from(signalOfTable(part.table) ?? '')))
  appendIndex(columns.Reason, internBytes(columns.Reason, Buffer.from('refused_by_table')))
  appendText(columns.Message.data, Buffer.from(`${part.name}: ${message}`))
  appendIndex(columns.Format, internBytes(columns.Format, Buffer.from('json')))
  appendText(columns.Record.data, Buffer.from(rowText(row)))
  block.rows = 1
  return block
}
