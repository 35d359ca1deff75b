// otel_traces_trace_id_ts of a block of spans: one row per tenant and trace with the first and last start, to the second.
// Derived when the block is sent and in the order of its rows, so that the same block always gives the same rows and a
// repeated insert is recognised.
import { setImmediate } from 'node:timers/promises'
import { appendIndex, type Block, openBlock } from './block.ts'
import { dictionaryEntries, intern } from './dictionary.ts'
import { appendStringOf, appendUint16, appendUint32, viewOf } from './stream.ts'
import { type tracesTable, traceTimesTable } from './tables.ts'

const two32 = 0x1_0000_0000
/** A length byte and 32 hex digits. */
const traceIdBytes = 33

/** In turns of the event loop: at once, fifty thousand spans would keep every request waiting for tens of milliseconds. */
const rowsPerTurn = 8_192

export async function traceTimesOf(spans: Block<typeof tracesTable>): Promise<Block<typeof traceTimesTable>> {
  const traces = openTraces(spans)
  for (let from = 0; from < spans.rows; from += rowsPerTurn) {
    if (from > 0) await setImmediate()
    addRows(traces, spans, from, Math.min(from + rowsPerTurn, spans.rows))
  }
  const block = openBlock(traceTimesTable, spans.day)
  for (let from = 0; from < traces.count; from += rowsPerTurn) {
    await setImmediate()
    appendTraces(block, traces, spans, from, Math.min(from + rowsPerTurn, traces.count))
  }
  return block
}

/** The traces that were met, in order: the row of the first span, the first and the last second. */
type Traces = {
  /** Open addressing: number + 1, or 0 for a free slot. Never more than half full. */
  readonly slots: Int32Array
  readonly firstRows: Int32Array
  readonly starts: Float64Array
  readonly ends: Float64Array
  count: number
}

function openTraces({ rows }: Block<typeof tracesTable>): Traces {
  return {
    slots: new Int32Array(2 ** Math.ceil(Math.log2(rows * 2 + 2))),
    firstRows: new Int32Array(rows),
    starts: new Float64Array(rows),
    ends: new Float64Array(rows),
    count: 0,
  }
}

function addRows(traces: Traces, spans: Block<typeof tracesTable>, from: number, to: number): void {
  const { slots, firstRows, starts, ends } = traces
  const tenants = spans.columns.TenantId.indexes.view
  const times = spans.columns.Timestamp.data.view
  const ids = spans.columns.TraceId.data.view
  const mask = slots.length - 1
  for (let row = from; row < to; row++) {
    const second = secondOf(times.getUint32(row * 8, true), times.getUint32(row * 8 + 4, true))
    const tenant = tenants.getUint16(row * 2, true)
    let slot = hashOf(ids, row, tenant) & mask
    for (;;) {
      const at = (slots[slot] as number) - 1
      if (at < 0) {
        const number = traces.count++
        slots[slot] = number + 1
        firstRows[number] = row
        starts[number] = second
        ends[number] = second
        break
      }
      const first = firstRows[at] as number
      if (tenants.getUint16(first * 2, true) === tenant && isSameId(ids, first, row)) {
        if (second < (starts[at] as number)) starts[at] = second
        if (second > (ends[at] as number)) ends[at] = second
        break
      }
      slot = (slot + 1) & mask
    }
  }
}

/** Exact until 2106, where DateTime ends: each product here is a whole number that a double holds. Nanoseconds since 1970 in one
 *  double are rounded to the next 256, and the last hundred of a second would be of the next one: a reader who asks from there
 *  on misses the span. */
function secondOf(low: number, high: number): number {
  const seconds = Math.floor((high * two32) / 1e9)
  return seconds + Math.floor((high * two32 - seconds * 1e9 + low) / 1e9)
}

function appendTraces(
  block: Block<typeof traceTimesTable>,
  traces: Traces,
  spans: Block<typeof tracesTable>,
  from: number,
  to: number,
): void {
  const { TenantId, RetentionDays, TraceId, Start, End } = block.columns
  const tenants = spans.columns.TenantId.indexes.view
  const retentions = spans.columns.RetentionDays.data.view
  const { bytes, view } = spans.columns.TraceId.data
  const tenantNames = dictionaryEntries(spans.columns.TenantId.dictionary)
  for (let at = from; at < to; at++) {
    const row = traces.firstRows[at] as number
    const tenant = tenantNames[tenants.getUint16(row * 2, true)] as Buffer
    appendIndex(TenantId, intern(TenantId.dictionary, tenant, viewOf(tenant), 0, tenant.length))
    appendUint16(RetentionDays.data, retentions.getUint16(row * 2, true))
    appendStringOf(TraceId.data, bytes, view, row * traceIdBytes + 1, (row + 1) * traceIdBytes)
    appendUint32(Start.data, traces.starts[at] as number)
    appendUint32(End.data, traces.ends[at] as number)
    block.rows++
  }
}

function hashOf(ids: DataView, row: number, tenant: number): number {
  let hash = tenant
  const start = row * traceIdBytes + 1
  for (let at = start; at < start + 32; at += 4) {
    hash = Math.imul(hash ^ ids.getUint32(at, true), 0x9e3779b1)
    hash ^= hash >>> 15
  }
  return hash
}

function isSameId(ids: DataView, a: number, b: number): boolean {
  for (let at = 1; at < traceIdBytes; at += 4) {
    if (ids.getUint32(a * traceIdBytes + at, true) !== ids.getUint32(b * traceIdBytes + at, true)) return false
  }
  return true
}
