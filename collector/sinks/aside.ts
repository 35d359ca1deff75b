// Rows that no table takes as rows of the quarantine: whose they are, why they are there, and the row itself as JSON.
import { appendIndex, type Block } from '@tallylight/storage/clickhouse/block.ts'
import { appendText, appendUint16, appendUint64 } from '@tallylight/storage/clickhouse/stream.ts'
import type { quarantineTable } from '@tallylight/storage/clickhouse/tables.ts'
import { internBytes } from '../otlp/walk.ts'
import type { Signal } from '../receive/request.ts'

export type Aside = {
  readonly tenant: string
  readonly retentionDays: number
  readonly unixMs: number
  /** Undefined where the row is no record's own. */
  readonly signal: Signal | undefined
  readonly reason: string
  readonly message: string
  readonly record: string
}

export function appendAside(block: Block<typeof quarantineTable>, aside: Aside): void {
  const { columns } = block
  const unixNano = BigInt(aside.unixMs) * 1_000_000n
  appendIndex(columns.TenantId, internBytes(columns.TenantId, Buffer.from(aside.tenant)))
  appendUint16(columns.RetentionDays.data, aside.retentionDays)
  appendUint64(columns.Time.data, Number(unixNano & 0xffff_ffffn), Number(unixNano >> 32n))
  appendIndex(columns.Signal, internBytes(columns.Signal, Buffer.from(aside.signal ?? '')))
  appendIndex(columns.Reason, internBytes(columns.Reason, Buffer.from(aside.reason)))
  appendText(columns.Message.data, Buffer.from(aside.message))
  appendIndex(columns.Format, internBytes(columns.Format, Buffer.from('json')))
  appendText(columns.Record.data, Buffer.from(aside.record))
  block.rows++
}
