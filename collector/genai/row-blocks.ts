// Rows on their way to ClickHouse, gathered in blocks as the tables have them: a row becomes bytes when it is known, and no
// object of it is held until the insert.
import { type AnyBlock, blockCapacity, reuseBlock } from '@tallylight/storage/clickhouse/block.ts'
import { limits } from '../limits.ts'
import { type AnyRow, appendDeletion, type RowKey, type RowTable } from './row-tables.ts'

export type RowBlocks = {
  append(rowTable: RowTable, row: AnyRow, retentionDays: number): void
  /** Says that there is no row under this key any more. It is kept as long as the longest row could be. */
  appendDeletion(rowTable: RowTable, key: RowKey, generation: number, retentionDays: number): void
  /** In the order in which they were filled. */
  blocks(): readonly AnyBlock[]
  /** Those that were written are filled again. Those that were not may still be on their way. */
  clear(areWritten: boolean): void
}

export function openRowBlocks(): RowBlocks {
  const spare = new Map<RowTable, AnyBlock>()
  const open = new Map<RowTable, AnyBlock>()
  const full: AnyBlock[] = []

  function blockOf(rowTable: RowTable): AnyBlock {
    let block = open.get(rowTable)
    // A dictionary holds 65,536 words, and a row brings one or few to each of its own.
    if (block?.dictionaries.some(({ count }) => count > limits.rowBlockWordsMax)) {
      full.push(block)
      block = undefined
    }
    if (block === undefined) {
      block = spare.get(rowTable) ?? rowTable.openBlock()
      spare.delete(rowTable)
      open.set(rowTable, block)
    }
    return block
  }

  return {
    append: (rowTable, row, retentionDays) => rowTable.append(blockOf(rowTable), row, retentionDays),
    appendDeletion: (rowTable, key, generation, retentionDays) =>
      appendDeletion(rowTable, blockOf(rowTable), key, generation, retentionDays),
    blocks: () => [...full, ...open.values()],
    clear: (areWritten) => {
      for (const [rowTable, block] of open) {
        if (!areWritten || blockCapacity(block) > limits.rowBlockBytesKept) continue
        reuseBlock(block, 0)
        spare.set(rowTable, block)
      }
      open.clear()
      full.length = 0
    },
  }
}
