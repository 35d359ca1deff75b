import { expect, test } from 'vitest'
import { appendIndex, openBlock } from './block.ts'
import { intern } from './dictionary.ts'
import { appendHex, appendUint16, appendUint64, viewOf } from './stream.ts'
import { tracesTable } from './tables.ts'
import { traceTimesOf } from './trace-times.ts'

test('trace times: a row per tenant and trace with its first and last second, also of one whose spans lie in several turns', async () => {
  const spans = openBlock(tracesTable, 20_000)
  const { TenantId, RetentionDays, Timestamp, TraceId } = spans.columns
  const expected = new Map<string, { start: number; end: number }>()
  const traces = 9_000
  for (let row = 0; row < 3 * traces; row++) {
    const tenant = row % 2 === 0 ? 'acme' : 'globex'
    const id = Buffer.alloc(16)
    id.writeUInt32BE(1 + (row % traces), 12)
    // The middle one of three is the earliest.
    const second = 1_700_000_000 + ((row + traces) % (3 * traces))
    const name = Buffer.from(tenant)
    appendIndex(TenantId, intern(TenantId.dictionary, name, viewOf(name), 0, name.length))
    appendUint16(RetentionDays.data, 30)
    const nanos = BigInt(second) * 1_000_000_000n + 999_999_999n
    appendUint64(Timestamp.data, Number(nanos & 0xffff_ffffn), Number(nanos >> 32n))
    appendHex(TraceId.data, id, 0, 16)
    spans.rows++
    const key = `${tenant} ${id.toString('hex')}`
    const known = expected.get(key)
    expected.set(key, { start: Math.min(second, known?.start ?? second), end: Math.max(second, known?.end ?? second) })
  }

  const block = await traceTimesOf(spans)

  const found = new Map<string, { start: number; end: number }>()
  const { columns } = block
  for (let row = 0; row < block.rows; row++) {
    const tenant = columns.TenantId.indexes.view.getUint16(row * 2, true) === 1 ? 'acme' : 'globex'
    const id = columns.TraceId.data.bytes.toString('latin1', row * 33 + 1, (row + 1) * 33)
    found.set(`${tenant} ${id}`, {
      start: columns.Start.data.view.getUint32(row * 4, true),
      end: columns.End.data.view.getUint32(row * 4, true),
    })
  }
  expect(block.rows).toBe(expected.size)
  expect(found).toEqual(expected)
})
