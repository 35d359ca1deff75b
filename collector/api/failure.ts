// What is answered for a request that failed: 503 where a database was away, for the same request may do in a moment, and 500
// where it will not: a statement was refused, or the slip is ours. Said as an absence, that would send people to look at a
// database that is well. Neither quotes the error, which may hold what was asked.
import { ClickHouseError } from '@tallylight/storage/clickhouse/client.ts'

export type Failure = { readonly status: 500 | 503; readonly detail: string }

const away: Failure = { status: 503, detail: 'the database did not answer' }
const failed: Failure = { status: 500, detail: 'the collector could not do this; its log says why' }

/** Five signs, of which the first is never that of an errno. */
const sqlState = /^[0-9FHPX][0-9A-Z]{4}$/
/** Classes of SQLSTATE: the connection, what the server is short of, what its operator does to it (a shutdown). */
const awayClasses: ReadonlySet<string> = new Set(['08', '53', '57'])
/** What a ClickHouse answers that is too slow, too busy, or without a server behind it. */
const awayCodes: ReadonlySet<string> = new Set(['159', '202', '209', '210', '279'])

export function failureOf(error: unknown): Failure {
  const code = String((error as { readonly code?: unknown } | undefined)?.code ?? '')
  if (error instanceof ClickHouseError) return awayCodes.has(code) ? away : failed
  if (sqlState.test(code)) return awayClasses.has(code.slice(0, 2)) ? away : failed
  const isSlip = [TypeError, RangeError, ReferenceError, SyntaxError].some((kind) => error instanceof kind)
  // What is left are connections that were not made, ended or were too slow, of which most have only words.
  return isSlip ? failed : away
}
