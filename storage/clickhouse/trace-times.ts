// otel_traces_trace_id_ts of a block of spans: one row per tenant and trace with the first and last start, to the second.
// Derived when the block is sent and in the order of its rows, so that the same block always gives the same rows and a
// repeated insert is recognised.
import { appendIndex, type Block, openBlock } from './block.ts'
import { dictionaryEntries, intern } from './dictionary.ts'
import { appendText, appendUint16, appendUint32, viewOf } from './stream.ts'
import { type tracesTable, traceTimesTable } from './tables.ts'

const two32 = 0x1_0000_0000
/** A length byte and 32 hex digits. */
const traceIdBytes = 33

export function traceTimesOf(spans: Block<typeof tracesTable>): Block<typeof traceTimesTable> {
  const { columns } = spans
  const tenants = columns.TenantId.indexes.view
  const retentions = columns.RetentionDays.data.view
  const times = columns.Timestamp.data.view
  const ids = columns.TraceId.data.bytes
  const idsView = columns.TraceId.data.view
  const slots = new Int32Array(2 ** Math.ceil(Math.log2(spans.rows * 2 + 2)))
  const firstRows: number[] = []
  const starts: number[] = []
  const ends: number[] = []
  for (let row = 0; row < spans.rows; row++) {
    const second = Math.floor((times.getUint32(row * 8 + 4, true) * two32 + times.getUint32(row * 8, true)) / 1e9)
    const tenant = tenants.getUint16(row * 2, true)
    let slot = hashOf(idsView, row, tenant) & (slots.length - 1)
    for (;;) {
      const at = (slots[slot] as number) - 1
      if (at < 0) {
        slots[slot] = firstRows.push(row)
        starts.push(second)
        ends.push(second)
        break
      }
      const first = firstRows[at] as number
      if (tenants.getUint16(first * 2, true) === tenant && isSameId(idsView, first, row)) {
        if (second < (starts[at] as number)) starts[at] = second
        if (second > (ends[at] as number)) ends[at] = second
        break
      }
      slot = (slot + 1) & (slots.length - 1)
    }
  }
  const block = openBlock(traceTimesTable, spans.day)
  const tenantNames = dictionaryEntries(columns.TenantId.dictionary)
  for (const [at, row] of firstRows.entries()) {
    const tenant = tenantNames[tenants.getUint16(row * 2, true)] as Buffer
    const entry = intern(block.columns.TenantId.dictionary, tenant, viewOf(tenant), 0, tenant.length)
    appendIndex(block.columns.TenantId, entry)
    appendUint16(block.columns.RetentionDays.data, retentions.getUint16(row * 2, true))
    appendText(block.columns.TraceId.data, ids.subarray(row * traceIdBytes + 1, (row + 1) * traceIdBytes))
    appendUint32(block.columns.Start.data, starts[at] as number)
    appendUint32(block.columns.End.data, ends[at] as number)
    block.rows++
  }
  return block
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
