// The tables of ClickHouse as they are: made and compared with the rows that will be sent, now or when it first appears, and
// compared again when one no longer takes them. Made anew they are by the next start alone: a database that somebody renames
// for a moment, or is about to restore, would be in the way of its own return.
import type { ClickHouse } from '@tallylight/storage/clickhouse/client.ts'
import { type Login, migrateClickHouse } from '@tallylight/storage/clickhouse/migrate.ts'
import { type TargetTable, verifySchema } from '@tallylight/storage/clickhouse/schema.ts'
import type { Start } from './start.ts'
import { untilDone } from './until-done.ts'

export type Tables = {
  /** Undefined until the schema was found to be right. */
  readonly targets: () => ReadonlyMap<string, TargetTable> | undefined
  readonly prepared: Promise<void>
  /** A table is not what it was: compares all of them again, unless that is under way, until they fit. */
  readonly compareAgain: () => void
}

export function openTables(start: Start, clickhouse: ClickHouse, login: Login | undefined): Tables {
  const { config, log, loops } = start
  let targets: ReadonlyMap<string, TargetTable> | undefined
  let comparing: Promise<void> | undefined
  const warned = new Set<string>()

  async function prepare(): Promise<void> {
    // A server that knows our user reads its dictionaries as nobody, or not at all, unless it is told who to be.
    const [who] = await clickhouse.query<{ name: string }>('SELECT currentUser() AS name')
    const known = who?.name === login?.user ? login : undefined
    const { created, leftAlone } = await migrateClickHouse(clickhouse, undefined, undefined, known)
    if (created.length > 0) log.info({ tables: created }, 'tables were made in ClickHouse')
    if (leftAlone.length > 0) log.info({ tables: leftAlone }, 'tables of your own are used as they are')
    await compare()
  }

  async function compare(): Promise<void> {
    const schema = await verifySchema(clickhouse)
    if (schema.kind === 'deviates') throw new Error(`its tables cannot take the rows: ${schema.problems.join('; ')}`)
    for (const warning of schema.warnings) if (!warned.has(warning)) log.warn(warning)
    for (const warning of schema.warnings) warned.add(warning)
    targets = schema.targets
  }

  loops.add(new Promise((resolve) => loops.signal.addEventListener('abort', () => resolve(comparing))))
  return {
    targets: () => targets,
    prepared: untilDone(start, { name: 'ClickHouse', isAwaited: config.clickhouseUrl === undefined }, prepare),
    compareAgain: () => {
      if (comparing !== undefined || loops.signal.aborted) return
      comparing = untilDone(start, { name: 'ClickHouse', isAwaited: false }, compare).finally(() => {
        comparing = undefined
      })
    },
  }
}
