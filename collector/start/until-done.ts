// What needs an engine that may come late: done again and again while the engine is away.
import { ClickHouseError } from '@tallylight/storage/clickhouse/client.ts'
import { limits } from '../limits.ts'
import { pause } from '../quota/pause.ts'
import type { Start } from './start.ts'

/** Does the work until it succeeds or the collector stops. Each reason is logged once.
 *
 *  Where the start waits for it, no port is open yet, and records do not wait in the journal but are lost where they come
 *  from. So only an engine that is away is waited for there; what it answers (it was used by a newer version, a migration was
 *  changed, its files are broken) ends the start with the reason. Where nothing waits, it may be mended meanwhile. */
export async function untilDone(
  { log, loops }: Pick<Start, 'log' | 'loops'>,
  engine: { readonly name: string; readonly isAwaited: boolean },
  work: () => Promise<void>,
): Promise<void> {
  let said = ''
  const meanwhile = engine.isAwaited ? 'the collector starts when it can' : 'records wait in the journal'
  while (!loops.signal.aborted) {
    try {
      await work()
      return
    } catch (error) {
      if (engine.isAwaited && !loops.signal.aborted && !isAway(error)) throw error
      if (String(error) !== said) log.error({ err: error }, `${engine.name} cannot be used yet; ${meanwhile}`)
      said = String(error)
    }
    await pause(limits.engineRetryMs, loops.signal)
  }
}

/** Of Node, and SQLSTATEs: of the connection, of a server that starts or stops, that lacks room, or is busy with another. */
const awayCodes = /^(ECONN\w+|EPIPE|ETIMEDOUT|E(?:HOST|NET)UNREACH|08\w{3}|57P0\d|53\w{3}|55P03|40001|40P01)$/
/** What `pg` and `@clickhouse/client` say without a code. */
const awayMessages = /^(Connection terminated|timeout expired|timeout exceeded|Timeout error|socket hang up)/
/** TIMEOUT_EXCEEDED, TOO_MANY_SIMULTANEOUS_QUERIES, MEMORY_LIMIT_EXCEEDED, NOT_ENOUGH_SPACE */
const awayClickHouseCodes: ReadonlySet<string> = new Set(['159', '202', '241', '243'])

/** Whether the engine may answer otherwise later. What is not known to pass is told rather than waited for. */
export function isAway(error: unknown): boolean {
  if (!(error instanceof Error)) return false
  if (error instanceof ClickHouseError) return awayClickHouseCodes.has(error.code)
  const code = 'code' in error ? String(error.code) : ''
  return awayCodes.test(code) || awayMessages.test(error.message) || isAway(error.cause)
}
