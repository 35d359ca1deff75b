// otel_traces_trace_id_ts of a block of spans: one row per tenant and trace with the first and last start, to the second.
// Derived when the block is sent and in the order of its rows, so that the same block always gives the same rows and a
// repeated insert is recognised.
import { appendIndex, type Block, openBlock } from './block.ts'
import { dictionaryEntries, intern } from './dictionary.ts'
import { appendText, appendUint16, appendUint32, viewOf } from './stream.ts'
import { traceTimesTable, type tracesTable } from './tables.ts'

const two32 = 0x1_0000_0000
/** A length byte and 32 hex digits. */
const traceIdBytes = 33

export function traceTimesOf(spans: Block<typeof tracesTable>): Block<typeof traceTimesTable> {
  const { columns } = spans
  const tenants = columns.TenantId.indexes.view
  const retentions = columns.RetentionDays.data.view
  const times = columns.Timestamp.data.view
  const ids = columns.TraceId.data.bytes
  const rowOf = new Map<string, number>()
  const firstRows: number[] = []
  const starts: number[] = []
  const ends: number[] = []
  for (let row = 0; row < spans.rows; row++) {
    const second = Math.floor((times.getUint32(row * 8 + 4, true) * two32 + times.getUint32(row * 8, true)) / 1e9)
    const id = ids.toString('latin1', row * traceIdBytes + 1, (row + 1) * traceIdBytes)
    const key = `${tenants.getUint16(row * 2, true)}:${id}`
    const at = rowOf.get(key)
    if (at === undefined) {
      rowOf.set(key, firstRows.length)
      firstRows.push(row)
      starts.push(second)
      ends.push(second)
    } else {
      if (second < (starts[at] as number)) starts[at] = second
      if (second > (ends[at] as number)) ends[at] = second
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
