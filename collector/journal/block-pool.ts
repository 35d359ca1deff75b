// Blocks that are not in use. Memory that is given up and taken again every second costs more than what is written into it:
// page faults, and a full garbage collection each time the engine sees that much of it come.
import { type AnyBlock, blockCapacity, openBlock, reuseBlock } from '@tallylight/storage/clickhouse/block.ts'
import type { TableDefinition } from '@tallylight/storage/clickhouse/tables.ts'

export type BlockPool = {
  /** An empty block of the table. */
  take(table: TableDefinition, day: number): AnyBlock
  giveBack(block: AnyBlock): void
}

const spareBytesMax = 96 * 1024 * 1024

export function openBlockPool(): BlockPool {
  const spare = new Map<string, AnyBlock[]>()
  let spareBytes = 0
  return {
    take: (table, day) => {
      const block = spare.get(table.name)?.pop()
      if (block === undefined) return openBlock(table, day)
      spareBytes -= blockCapacity(block)
      reuseBlock(block, day)
      return block
    },
    giveBack: (block) => {
      const capacity = blockCapacity(block)
      if (spareBytes + capacity > spareBytesMax) return
      spareBytes += capacity
      const ofTable = spare.get(block.table.name)
      if (ofTable === undefined) spare.set(block.table.name, [block])
      else ofTable.push(block)
    },
  }
}
