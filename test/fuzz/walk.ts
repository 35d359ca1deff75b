// The hand-written walk against the oracle: the same bytes must become the same rows, the same rejections, or a refusal.
import assert from 'node:assert/strict'
import { walkLogs } from '@tallylight/collector/otlp/logs.ts'
import { walkMetrics } from '@tallylight/collector/otlp/metrics.ts'
import { walkTraces } from '@tallylight/collector/otlp/traces.ts'
import { openWalk, openWalkScratch, type Walk } from '@tallylight/collector/otlp/walk.ts'
import { Malformed } from '@tallylight/collector/otlp/wire.ts'
import { type AnyBlock, type Column, elementsOf, openBlock } from '@tallylight/storage/clickhouse/block.ts'
import { dictionaryEntries } from '@tallylight/storage/clickhouse/dictionary.ts'
import type { TableDefinition } from '@tallylight/storage/clickhouse/tables.ts'
import type { FuzzCase } from './cases.ts'
import type { Oracle } from './oracle.ts'
import type { Signal } from './otlp-proto.ts'
import type { Cell, Clock, Row } from './rows.ts'

const walks = { traces: walkTraces, metrics: walkMetrics, logs: walkLogs } as const
const scratch = openWalkScratch()
const day = 86_400_000_000_000n
const nowUnixMs = 1_790_000_000_000
const now = BigInt(nowUnixMs) * 1_000_000n
const retentionDays = 30
const clock: Clock = {
  receivedUnixNano: now,
  oldestUnixNano: now - BigInt(retentionDays) * day,
  newestUnixNano: now + day,
}
const ours = new Set(['TenantId', 'Segment', 'RetentionDays'])

/** Throws, naming the seed, when the walk and the oracle disagree about a request or about its broken form. */
export function checkWalk(oracle: Oracle, { seed, signal, wire, broken }: FuzzCase): void {
  compare(oracle, seed, signal, wire)
  compare(oracle, seed, signal, broken)
}

function compare(oracle: Oracle, seed: number, signal: Signal, bytes: Buffer): void {
  const expected = oracle.expectedRows(signal, bytes, clock)
  const walked = walkBytes(signal, bytes)
  const place = `seed ${seed}: ${signal}`
  if (expected.kind === 'unclear') return
  if (expected.kind === 'malformed') {
    assert.equal(walked.kind, 'malformed', `${place}: accepted, but ${expected.reason}`)
    return
  }
  assert(walked.kind === 'walked', `${place}: refused, but valid: ${walked.kind === 'malformed' ? walked.reason : ''}`)
  assert.deepStrictEqual(walked.tables, sortedByDay(expected.tables), `${place}: other rows`)
  const { rejected } = walked.walk.tally
  const badIds = ['invalid_trace_id', 'invalid_span_id', 'invalid_parent_span_id'] as const
  const left = {
    badId: badIds.reduce((sum, reason) => sum + (rejected.get(reason) ?? 0), 0),
    tooOld: rejected.get('too_old') ?? 0,
    tooNew: walked.walk.tally.quarantined,
  }
  assert.deepStrictEqual(left, expected.left, `${place}: other rejections`)
}

type Walked =
  | { readonly kind: 'walked'; readonly walk: Walk; readonly tables: Readonly<Record<string, readonly Row[]>> }
  | { readonly kind: 'malformed'; readonly reason: string }

function walkBytes(signal: Signal, bytes: Buffer): Walked {
  const blocks = new Map<string, AnyBlock>()
  const open = <Table extends TableDefinition>(table: Table, dayNumber: number) => {
    const key = `${table.name}:${dayNumber}`
    const found = blocks.get(key)
    if (found !== undefined) return found as ReturnType<typeof openBlock<Table>>
    const block = openBlock(table, dayNumber)
    blocks.set(key, block)
    return block
  }
  const request = {
    bytes,
    tenant: 'fuzz',
    manyTenants: false,
    receivedUnixMs: nowUnixMs,
    retentionDaysOf: () => retentionDays,
    openBlock: open,
    rowBytesMax: 1024 * 1024 * 1024,
    lifting: undefined,
    masked: new Map<string, number>(),
  }
  const walk = openWalk(signal, request, scratch)
  try {
    walks[signal](walk)
  } catch (error) {
    if (error instanceof Malformed) return { kind: 'malformed', reason: error.message }
    throw error
  }
  const tables: Record<string, Row[]> = {}
  for (const block of [...blocks.values()].sort((a, b) => a.day - b.day)) {
    if (block.table.name === 'quarantine' || block.rows === 0) continue
    tables[block.table.name] = [...(tables[block.table.name] ?? []), ...rowsOf(block)]
  }
  return { kind: 'walked', walk, tables }
}

/** The walk's rows stand in one block per day; within a day both keep the order of the request. */
function sortedByDay(tables: Readonly<Record<string, readonly Row[]>>): Readonly<Record<string, readonly Row[]>> {
  const dayOf = (row: Row): number => Number(((row.Timestamp ?? row.TimeUnix) as bigint) / day)
  return Object.fromEntries(
    Object.entries(tables).map(([table, rows]) => [table, rows.toSorted((a, b) => dayOf(a) - dayOf(b))]),
  )
}

function rowsOf(block: AnyBlock): Row[] {
  const names = block.table.columns.map(([name]) => name).filter((name) => !ours.has(name))
  const cells = new Map(names.map((name) => [name, cellsOf(block.columns[name] as Column, block.rows)]))
  return Array.from({ length: block.rows }, (_, row) => {
    const entries = names.map((name) => [name, cells.get(name)?.[row] as Cell] as const)
    return Object.fromEntries(entries.map(([name, cell]) => [name, withoutTimeMark(name, cell)]))
  })
}

/** The walk marks a replaced time among the attributes; the oracle counts it. */
function withoutTimeMark(name: string, cell: Cell): Cell {
  if (!/^(Span|Log)?Attributes$/.test(name) || !Array.isArray(cell)) return cell
  return cell.filter((pair) => !(Array.isArray(pair) && pair[0] === 'tallylight.time'))
}

function cellsOf(column: Column, count: number): Cell[] {
  switch (column.kind) {
    case 'segmentName':
      return []
    case 'fixed':
      return Array.from({ length: count }, (_, at) => fixedCell(column.data.view, column.type, at))
    case 'nullable':
      return cellsOf(column.of, count)
    case 'string':
      return stringsOf(column.data.bytes.subarray(0, column.data.length))
    case 'lowCardinality': {
      const entries = dictionaryEntries(column.dictionary).map(String)
      return Array.from({ length: count }, (_, at) => entries[column.indexes.view.getUint16(at * 2, true)] as string)
    }
    case 'map': {
      const keys = cellsOf(column.keys, elementsOf(column.ends))
      const values = cellsOf(column.values, elementsOf(column.ends))
      return split(
        column.ends.view,
        count,
        keys.map((key, at) => [key, values[at] as Cell]),
      )
    }
    case 'array':
      return split(column.ends.view, count, cellsOf(column.of, elementsOf(column.ends)))
    default:
      return column satisfies never
  }
}

function split(ends: DataView, count: number, elements: readonly Cell[]): Cell[] {
  const endOf = (at: number): number => (at < 0 ? 0 : ends.getUint32(at * 8, true))
  return Array.from({ length: count }, (_, at) => elements.slice(endOf(at - 1), endOf(at)))
}

function stringsOf(bytes: Buffer): string[] {
  const strings: string[] = []
  for (let at = 0; at < bytes.length; ) {
    let length = 0
    let scale = 1
    let byte: number
    do {
      byte = bytes.readUInt8(at++)
      length += (byte & 0x7f) * scale
      scale *= 0x80
    } while (byte >= 0x80)
    strings.push(bytes.toString('utf8', at, at + length))
    at += length
  }
  return strings
}

function fixedCell(view: DataView, type: string, at: number): Cell {
  switch (type) {
    case 'Float64':
      return view.getFloat64(at * 8, true)
    case 'UInt64':
      return view.getBigUint64(at * 8, true)
    case 'DateTime64(9)':
      return view.getBigInt64(at * 8, true)
    case 'Int32':
      return view.getInt32(at * 4, true)
    case 'UInt32':
      return view.getUint32(at * 4, true)
    case 'UInt16':
      return view.getUint16(at * 2, true)
    case 'Bool':
      return view.getUint8(at) === 1
    default:
      return view.getUint8(at)
  }
}
