// What collectors that share a ClickHouse tell each other: the ids of parents that each waits for. A plain span that says whose
// a call is may come to another collector than the call, hours later, and is lifted there because its id was told. An id is
// told by whoever resolved its child, and again with each resolve of its trace while the parent is missing; waiting itself costs
// nothing, however long, nor do spans that nobody waits for. What came before it could be told is found by the resolver's
// second look at a trace.
import type { ClickHouse } from '@tallylight/storage/clickhouse/client.ts'
import { quoteName } from '@tallylight/storage/clickhouse/schema.ts'
import { pause } from '../quota/pause.ts'
import type { TenantId } from '../receive/request.ts'

export type AwaitedElsewhere = {
  tell(tenantId: TenantId, spanIds: readonly string[]): void
  /** Tells and hears until the signal, once the table is there. */
  run(signal: AbortSignal): Promise<void>
}

export type AwaitedElsewhereBounds = {
  readonly exchangeMs: number
  /** Ids that wait to be told while ClickHouse is away; beyond, the oldest are not told. */
  readonly waitingMax: number
  /** What is asked for reaches back so much further than the last answer: an insert is seen a while after its time. */
  readonly overlapMs: number
  readonly heardMsMax: number
  /** Ids of one answer. */
  readonly heardMax: number
}

const idChars = 16

export function openAwaitedElsewhere(options: {
  readonly clickhouse: ClickHouse
  readonly onAwaited: (spanId: string) => void
  readonly now: () => number
  readonly bounds: AwaitedElsewhereBounds
  readonly onProblem: (message: string) => void
}): AwaitedElsewhere {
  const { clickhouse, now, bounds } = options
  const table = `${quoteName(clickhouse.database)}.awaited_spans`
  /** By id, whose trace it is of. */
  let waiting = new Map<string, TenantId>()
  let heardMs = now()
  let isFailing = false

  async function flush(): Promise<void> {
    if (waiting.size === 0) return
    const told = waiting
    waiting = new Map()
    try {
      const lines = [...told].map(([SpanId, TenantId]) => `${JSON.stringify({ TenantId, SpanId })}\n`).join('')
      const outcome = await clickhouse.insertRows(table, ['TenantId', 'SpanId'], lines)
      if (outcome.kind !== 'inserted') throw new Error(`${table}: ${outcome.kind}: ${outcome.message}`)
    } catch (error) {
      waiting = new Map([...told, ...waiting])
      keepNewest()
      throw error
    }
  }

  function keepNewest(): void {
    for (const spanId of waiting.keys()) {
      if (waiting.size <= bounds.waitingMax) return
      waiting.delete(spanId)
    }
  }

  /** Of too many the newest: their parents are the likeliest to come. */
  async function hear(): Promise<void> {
    const startedMs = now()
    const sinceMs = Math.min(startedMs - heardMs + bounds.overlapMs, bounds.heardMsMax)
    // One text of all ids: a row for each would cost ten times as much to read.
    const [row] = await clickhouse.query<{ ids: string }>(
      `SELECT arrayStringConcat(groupUniqArray(SpanId)) AS ids FROM (
         SELECT SpanId FROM ${table} WHERE ToldAt > now64(3) - toIntervalMillisecond(${sinceMs})
         ORDER BY ToldAt DESC LIMIT ${bounds.heardMax})`,
    )
    const ids = row?.ids ?? ''
    for (let at = 0; at < ids.length; at += idChars) options.onAwaited(ids.slice(at, at + idChars))
    heardMs = startedMs
  }

  return {
    tell: (tenantId, spanIds) => {
      for (const spanId of spanIds) waiting.set(spanId, tenantId)
      keepNewest()
    },
    run: async (signal) => {
      for (;;) {
        await pause(bounds.exchangeMs, signal)
        if (signal.aborted) return
        try {
          await flush()
          await hear()
          isFailing = false
        } catch (error) {
          // Said once: it is tried every few seconds.
          if (!isFailing) options.onProblem(`what other collectors wait for is not known: ${String(error)}`)
          isFailing = true
        }
      }
    },
  }
}
