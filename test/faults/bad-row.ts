// One row among many that its table refuses: it is found by halving, put aside with its reason, and the rest is stored.
import { migrateClickHouse } from '@tallylight/storage/clickhouse/migrate.ts'
import { startCollector } from '../collector-process.ts'
import { spansRequest } from '../spans.ts'
import { countOf, openOwner, send, spans, startServer, urlOf } from './own-server.ts'

const spansPerRequest = 5_000

export type BadRowResult = {
  readonly rows: number
  /** From the first request until nothing is on its way. */
  readonly seconds: number
  readonly inTable: { readonly rows: number; readonly ids: number }
  readonly inQuarantine: readonly Readonly<Record<string, unknown>>[]
  readonly accepted: number
  readonly stored: number
  readonly quarantined: number
}

export async function runBadRow(rows: number): Promise<BadRowResult> {
  await using stack = new AsyncDisposableStack()
  const server = await startServer(stack)
  const owner = openOwner(server, stack)
  await migrateClickHouse(owner)
  await owner.command("ALTER TABLE books.otel_traces ADD CONSTRAINT polite CHECK SpanName != 'rude'")
  const collector = stack.use(await startCollector({ TALLYLIGHT_CLICKHOUSE_URL: urlOf(server) }))
  const startedMs = performance.now()
  const bad = Math.floor(rows * 0.6)
  for (let from = 0; from < rows; from += spansPerRequest) {
    const fresh = spans(Math.min(spansPerRequest, rows - from), (at) => (from + at === bad ? 'rude' : 'fine'))
    const body = spansRequest(
      fresh.map((span, at) => ({ ...span, id: (from + at + 1).toString(16).padStart(16, '0') })),
    )
    const status = await send(collector, body)
    if (status !== 200) throw new Error(`spans from ${from} were answered ${status}`)
  }
  await collector.drained()
  const total = (name: string): Promise<number> => collector.metric(`tallylight_${name}_records_total`)
  return {
    rows,
    seconds: Number(((performance.now() - startedMs) / 1000).toFixed(1)),
    inTable: await countOf(owner, 'otel_traces'),
    inQuarantine: await owner.query(
      "SELECT TenantId, Signal, Reason, Format, JSONExtractString(Record, 'SpanName') AS name, position(Message, 'polite') > 0 AS says FROM books.quarantine",
    ),
    accepted: await total('accepted'),
    stored: await total('stored'),
    quarantined: await total('quarantined'),
  }
}
