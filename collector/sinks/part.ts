// One part of a segment (a table and a day) on its way into its table: as one insert, or, where rows are refused, in halves
// down to the row, which is put aside. Doubt is decided by counting before anything is sent.
import { type AnyBlock, type Block, openBlock } from '@tallylight/storage/clickhouse/block.ts'
import type { InsertOutcome, Settings } from '@tallylight/storage/clickhouse/client.ts'
import { nativeBlock } from '@tallylight/storage/clickhouse/native.ts'
import type { TargetTable } from '@tallylight/storage/clickhouse/schema.ts'
import { rowText, sliceBlock, textOf } from '@tallylight/storage/clickhouse/slice.ts'
import { quarantineTable } from '@tallylight/storage/clickhouse/tables.ts'
import type { Signal } from '../receive/request.ts'
import { appendAside } from './aside.ts'
import type { SinkOptions } from './clickhouse.ts'
import { type Counted, openCounting } from './counting.ts'
import { loggable, remedyOf } from './refusals.ts'

type Refused = Extract<InsertOutcome, { kind: 'refused' }>

export type Part = {
  readonly key: string
  readonly day: number
  readonly name: string
  readonly block: AnyBlock
  /** Whose records the rows are; undefined for rows that are derived or are in quarantine already. */
  readonly signal: Signal | undefined
  /** What its rows carry in `Segment` where that is not the segment's own name. */
  readonly segmentName?: string
}

export type PartResult =
  | { readonly kind: 'done'; readonly refusedRows: number }
  | {
      readonly kind: 'later'
      readonly reason: string
      readonly message: string
      /** Something of it may have been inserted. */
      readonly isDoubtful: boolean
    }

export type PartOptions = Pick<SinkOptions, 'clickhouse' | 'now' | 'clockMs' | 'bounds' | 'onProblem' | 'onInsert'> & {
  readonly segment: { readonly name: string; readonly createdUnixMs: number }
  readonly part: Part
  readonly target: TargetTable
  readonly targets: ReadonlyMap<string, TargetTable>
  readonly settings: Settings
}

export async function bringPart(options: PartOptions, isDoubtfulPart: boolean): Promise<PartResult> {
  const { clickhouse, bounds, now, clockMs, part, target, targets, settings } = options
  const { createdUnixMs } = options.segment
  const segment = { name: part.segmentName ?? options.segment.name, createdUnixMs }
  const counting = openCounting({
    clickhouse,
    target,
    quarantine: targets.get(quarantineTable.name),
    segment,
    key: part.key,
    table: part.block.table,
    day: part.day,
    rows: part.block.rows,
  })
  let refusedRows = 0
  let takenRows = 0
  let isDoubtful = isDoubtfulPart
  return bring(0, part.block.rows)

  async function bring(from: number, to: number): Promise<PartResult> {
    const rows = to - from
    const wasDoubtful = isDoubtful && target.hasSegment
    if (wasDoubtful) {
      const counted = await countOf(from, to)
      if (counted === undefined) return later('not_counted', 'could not ask what is there')
      if (counted.isQuarantined) return settled(0, rows)
      if (counted.whole === rows) return settled(rows, 0)
      if (counted.whole > 0 && target.insertsWhole) {
        // All were written, then, and some deleted since or dropped by their TTL. Elsewhere the insert was cut between two
        // partitions or shards: made again, it adds what is missing, as each of them knows its token.
        problem('partly_deleted', `${counting.nameOf(from, to)} has ${counted.whole} rows of ${rows} left`)
        return settled(rows, 0)
      }
      if (counted.hasPieces) return halves(from, to)
    }
    const outcome = await insert(from, to, '')
    const isDropped = outcome.kind === 'inserted' && wasDoubtful && (await isDroppedAsRepeat(from, to))
    return judge(isDropped ? await insert(from, to, ':again') : outcome, from, to)
  }

  async function insert(from: number, to: number, again: string): Promise<InsertOutcome> {
    const name = counting.nameOf(from, to)
    const startedMs = clockMs()
    const rows = from === 0 && to === part.block.rows ? part.block : sliceBlock(part.block, from, to)
    const outcome = await clickhouse.insertNative(
      target.name,
      target.columns.map(([column]) => column),
      { ...settings, insert_deduplication_token: `${name}:${part.name}:${part.day}${again}` },
      nativeBlock(rows, target.columns, name),
    )
    options.onInsert({
      table: part.name,
      rows: to - from,
      seconds: (clockMs() - startedMs) / 1000,
      outcome: outcome.kind,
      lagSeconds: (now() - segment.createdUnixMs) / 1000,
    })
    return outcome
  }

  /** A server that lost rows may still know the token they came with, and answer as if it had them. One that has answered
   *  and has none of the rows does not get them from an insert that is still under way either. */
  async function isDroppedAsRepeat(from: number, to: number): Promise<boolean> {
    if (!target.storesItself || target.isReplicated) return false
    return (await countOf(from, to))?.whole === 0
  }

  async function judge(outcome: InsertOutcome, from: number, to: number): Promise<PartResult> {
    switch (outcome.kind) {
      case 'inserted':
        return settled(to - from, 0)
      case 'unreachable':
        return later(outcome.kind, outcome.message)
      case 'in_doubt':
        isDoubtful = true
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
    isDoubtful = true
    if (remedy === 'retry' || remedy === 'mend') return later(remedy, message)
    const counted = target.hasSegment ? await countOf(from, to) : undefined
    if (counted?.whole === to - from) {
      problem('stored_though_refused', message)
      return settled(to - from, 0)
    }
    if (to - from > 1) {
      problem(remedy, `${message}; its ${to - from} rows are tried in halves`)
      return halves(from, to)
    }
    if (remedy === 'halve') return later(remedy, message)
    if (takenRows === 0 && refusedRows >= bounds.refusedRowsMax) {
      return later('mend', `${message}; ${refusedRows} rows refused and none taken, so it is not the rows`)
    }
    return putAside(from, refusal)
  }

  async function halves(from: number, to: number): Promise<PartResult> {
    const middle = from + Math.floor((to - from) / 2)
    const first = await bring(from, middle)
    return first.kind === 'later' ? first : bring(middle, to)
  }

  async function putAside(row: number, refusal: Refused): Promise<PartResult> {
    const aside = targets.get(quarantineTable.name)
    if (aside === undefined) return later('mend', 'there is no quarantine table')
    const name = counting.nameAside(row)
    const reason = `${refusal.type} (${refusal.code}): ${refusal.message}`
    const block = quarantineBlock(part, sliceBlock(part.block, row, row + 1), reason, now())
    const outcome = await clickhouse.insertNative(
      aside.name,
      aside.columns.map(([column]) => column),
      { ...settings, insert_deduplication_token: `${name}:${part.name}:quarantine` },
      nativeBlock(block, aside.columns, name),
    )
    if (outcome.kind !== 'inserted') return later(outcome.kind, outcome.message)
    problem('quarantined', loggable(refusal))
    return settled(0, 1)
  }

  /** Undefined when nobody can say. */
  async function countOf(from: number, to: number): Promise<Counted | undefined> {
    try {
      return await counting.countOf(from, to)
    } catch (error) {
      problem('count_failed', String(error))
      return undefined
    }
  }

  function settled(taken: number, refusedNow: number): PartResult {
    takenRows += taken
    refusedRows += refusedNow
    return { kind: 'done', refusedRows }
  }

  function later(reason: string, message: string): PartResult {
    return { kind: 'later', reason, message, isDoubtful }
  }

  function problem(kind: string, message: string): void {
    options.onProblem({ table: part.name, kind, message })
  }
}

function quarantineBlock(part: Part, row: AnyBlock, message: string, nowMs: number): Block<typeof quarantineTable> {
  const block = openBlock(quarantineTable, Math.floor(nowMs / 86_400_000))
  appendAside(block, {
    tenant: textOf(row, 'TenantId'),
    retentionDays: Number(textOf(row, 'RetentionDays')),
    unixMs: nowMs,
    signal: part.signal,
    reason: 'refused_by_table',
    message: `${part.name}: ${message}`,
    record: rowText(row),
  })
  return block
}
