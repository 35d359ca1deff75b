// `tallylight tail`: turns, calls and tool calls as they become readable, and refusals as they are counted. Asks once a second
// for the last minutes, because what comes late has an older time; what was shown is not shown again.
import { quoteName } from '@tallylight/storage/clickhouse/schema.ts'
import { pause } from '../quota/pause.ts'
import { openTables, type Place } from './place.ts'

const everyMs = 1_000
/** How late a record may come and still be shown. */
const lookBackSeconds = 300
const shownMax = 100_000

type Row = {
  readonly kind: 'turn' | 'call' | 'tool'
  readonly id: string
  readonly at: string
  readonly tenant: string
  readonly service: string
  readonly what: string
  readonly failure: string
  readonly ms: number
  readonly input: string | null
  readonly output: string | null
  readonly cost: number | null
  readonly trace: string
}

export async function tail(
  place: Place,
  options: { readonly tenant: string | undefined; readonly print: (line: string) => void; readonly now: () => number },
  signal: AbortSignal,
): Promise<void> {
  await using tables = openTables(place)
  if (tables === undefined)
    throw new Error(place.whyNoRun || `the tables of ${place.directory} cannot be read: there is no admin.key`)
  const sql = rowsSql(quoteName(tables.database))
  let shown = new Set<string>()
  let older = new Set<string>()
  // What was there before is not news.
  let sinceUnixSeconds = Math.floor(options.now() / 1000)
  let refused: ReadonlyMap<string, number> | undefined
  for (;;) {
    const rows = await tables.query<Row>(sql, { since: sinceUnixSeconds, tenant: options.tenant ?? '' })
    for (const row of rows.toReversed()) {
      if (shown.has(row.id) || older.has(row.id)) continue
      shown.add(row.id)
      options.print(lineOf(row))
    }
    // Two generations, of which the older is forgotten: a bound for a day of tailing.
    if (shown.size > shownMax) [older, shown] = [shown, new Set()]
    const counted = refusalsIn(await readMetrics(place))
    for (const [reason, count] of counted) {
      const before = refused?.get(reason) ?? 0
      if (refused !== undefined && count > before)
        options.print(`${clock(options.now())} refused ${count - before} × ${reason}`)
    }
    refused = counted
    sinceUnixSeconds = Math.max(sinceUnixSeconds, Math.floor(options.now() / 1000) - lookBackSeconds)
    await pause(everyMs, signal)
    if (signal.aborted) return
  }
}

function lineOf({ kind, at, tenant, service, what, failure, ms, input, output, cost, trace }: Row): string {
  const tokens = input === null && output === null ? '' : ` ${input ?? '?'}→${output ?? '?'} tokens`
  const price = cost === null ? '' : ` $${cost.toFixed(6)}`
  const end = failure === '' ? '' : ` ${failure}`
  return asLine(
    `${at} ${kind.padEnd(4)} ${tenant} ${service} ${what}${end} ${Math.round(ms)} ms${tokens}${price} ${trace}`,
  )
}

/** Names are whatever a sender says: one with an escape in it would write to the reader's terminal what it likes, one with a
 *  line break a line of its own. */
function asLine(text: string): string {
  return text.replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, '\ufffd')
}

function clock(unixMs: number): string {
  return new Date(unixMs).toISOString().slice(11, 19)
}

/** What the collector's `/metrics` says. */
export async function readMetrics(place: Place, signal?: AbortSignal): Promise<string> {
  const response = await fetch(`${place.url}/metrics`, signal === undefined ? {} : { signal })
  return response.text()
}

/** How many requests and records were refused since the start, by reason and signal. */
export function refusalsIn(metrics: string): ReadonlyMap<string, number> {
  const counts = new Map<string, number>()
  for (const [, labels = '', value] of metrics.matchAll(
    /^tallylight_re(?:fused_requests|jected_records)_total\{(.*)\} (\S+)$/gm,
  )) {
    const [, signal] = /signal="(\w+)"/.exec(labels) ?? []
    const [, reason] = /reason="(\w+)"/.exec(labels) ?? []
    counts.set(`${reason} (${signal})`, Number(value))
  }
  return counts
}

/** The last ones, where there are more than anybody can read: with the first ones, a busy collector's would be shown minutes later. */
function rowsSql(database: string): string {
  const where = `WHERE Timestamp >= fromUnixTimestamp({since:Int64}) AND ({tenant:String} = '' OR TenantId = {tenant:String}) AND (TenantId != 'tallylight' OR {tenant:String} != '')`
  const head = `formatDateTime(Timestamp, '%H:%i:%S', 'UTC') AS at, Timestamp AS moment, TenantId AS tenant, ServiceName AS service`
  return `SELECT * EXCEPT moment FROM (
    SELECT 'turn' AS kind, concat('t', TenantId, TraceId, TurnId) AS id, ${head}, ConversationId AS what,
      if(Status = 'success', '', Status) AS failure, DurationNano / 1e6 AS ms, InputTokens AS input, OutputTokens AS output,
      CostNanoUsd / 1e9 AS cost, TraceId AS trace
    FROM ${database}.turns ${where}
    UNION ALL
    SELECT 'call', concat('c', TenantId, TraceId, SpanId), ${head}, concat(Provider, ' ', Model), ErrorType, DurationNano / 1e6,
      InputTokens, OutputTokens, CostNanoUsd / 1e9, TraceId
    FROM ${database}.llm_calls ${where}
    UNION ALL
    SELECT 'tool', concat('o', TenantId, TraceId, SpanId), ${head}, if(McpServer = '', Name, concat(McpServer, ' / ', Name)),
      if(Status = 'success', '', Status), DurationNano / 1e6, NULL, NULL, NULL, TraceId
    FROM ${database}.tool_calls ${where}
  ) ORDER BY moment DESC LIMIT 5000`
}
