// Mutations of ClickHouse, awaited. They run behind the statement that asked for them and may take longer than any request,
// so they are asked for and then watched. Rows that a mutation took out are still in the parts it replaced, until the server
// removes those: that can be awaited too.
import { setTimeout as delay } from 'node:timers/promises'
import type { ClickHouse } from '@tallylight/storage/clickhouse/client.ts'
import { quoteText, type TargetTable } from '@tallylight/storage/clickhouse/schema.ts'
import { limits } from '../limits.ts'

export type Mutations = {
  /** `change` is what stands behind ALTER TABLE. Rejects when the signal aborts. */
  mutate(target: MutatedTable, change: string, signal: AbortSignal): Promise<void>
  /** Resolves when the parts that were replaced so far are gone from the disk. */
  replacedPartsGone(targets: readonly TargetTable[], signal: AbortSignal): Promise<void>
}

/** `name` is quoted, with its database. */
export type MutatedTable = Pick<TargetTable, 'name' | 'database' | 'table'>

export function openMutations(clickhouse: ClickHouse, onProblem: (message: string) => void): Mutations {
  async function unfinished({ database, table }: MutatedTable): Promise<readonly string[]> {
    const rows = await clickhouse.query<{ reason: string }>(
      `SELECT latest_fail_reason AS reason FROM system.mutations
       WHERE database = {database:String} AND table = {table:String} AND NOT is_done`,
      { database, table },
    )
    return rows.map(({ reason }) => reason)
  }

  async function mutate(target: MutatedTable, change: string, signal: AbortSignal): Promise<void> {
    // A condition may ask another table; replicas would refuse that without the second setting.
    await clickhouse.command(
      `ALTER TABLE ${target.name} ${change} SETTINGS mutations_sync = 0, allow_nondeterministic_mutations = 1`,
    )
    let said = ''
    for (let pauseMs: number = limits.mutationPollMsMin; ; pauseMs = Math.min(pauseMs * 2, limits.mutationPollMsMax)) {
      const reasons = await unfinished(target)
      if (reasons.length === 0) return
      const failed = reasons.find((reason) => reason !== '' && reason !== said)
      if (failed !== undefined)
        onProblem(`${target.table}: a mutation fails and is tried again: ${failed.slice(0, 200)}`)
      said = failed ?? said
      await delay(pauseMs, undefined, { signal })
    }
  }

  async function replacedParts(targets: readonly TargetTable[]): Promise<readonly string[]> {
    const names = targets.map(({ database, table }) => `(${quoteText(database)}, ${quoteText(table)})`)
    const rows = await clickhouse.query<{ part: string }>(
      `SELECT concat(database, '.', table, ' ', name) AS part FROM system.parts
       WHERE NOT active AND (database, table) IN (${names.join(', ')})`,
    )
    return rows.map(({ part }) => part)
  }

  return {
    mutate,
    replacedPartsGone: async (targets, signal) => {
      if (targets.length === 0) return
      let left = new Set(await replacedParts(targets))
      while (left.size > 0) {
        await delay(limits.mutationPollMsMax, undefined, { signal })
        const now = new Set(await replacedParts(targets))
        left = new Set([...left].filter((part) => now.has(part)))
      }
    },
  }
}
