// Seeds the engines and asks the queries of every variable, panel and alert, round after round.
import { createHash, randomBytes } from 'node:crypto'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { rules } from '@tallylight/dashboards/alerts/alerts.ts'
import { buildBoards } from '@tallylight/dashboards/boards.ts'
import { uids } from '@tallylight/dashboards/links.ts'
import { openClickHouse } from '@tallylight/storage/clickhouse/client.ts'
import { startEmbeddedClickHouse } from '@tallylight/storage/clickhouse/embedded.ts'
import { migrateClickHouse } from '@tallylight/storage/clickhouse/migrate.ts'
import { withConnection } from '@tallylight/storage/postgres/connection.ts'
import { migratePostgres } from '@tallylight/storage/postgres/migrate.ts'
import { startTestPostgres } from '@tallylight/storage/postgres/testing.ts'
import { allOf, ask, panelsOf, targetsOf, variableQueriesOf } from '../dashboards/queries.ts'
import { askClickhouse, askPostgres, type Sources } from '../dashboards/world.ts'
import { seedLedger, seedTables, traceOfNewest } from './dashboards-seed.ts'

/** The range that the board opens with, or a day. */
export type Over = 'as opened' | 'a day'

export type MeasuredPanel = {
  readonly board: string
  readonly over: Over
  /** Undefined for alerts, which look as far as each of them says. */
  readonly hours: number | undefined
  /** 0 is no panel, but a variable or an alert. */
  readonly panelId: number
  readonly title: string
  readonly rows: number
  readonly p50Ms: number
  readonly p95Ms: number
}

const hourMs = 3_600_000

/** Stands for a board. */
export const alertsTitle = 'Alerts'

export async function measureBoards(options: {
  readonly calls: number
  readonly tenants: number
  readonly rounds: number
  readonly over: readonly Over[]
  readonly say: (what: string) => void
}): Promise<readonly MeasuredPanel[]> {
  await using stack = new AsyncDisposableStack()
  const directory = await mkdtemp(join(tmpdir(), 'tallylight-bench-'))
  stack.defer(() => rm(directory, { recursive: true, force: true }))
  const engine = stack.use(await startEmbeddedClickHouse({ directory, port: 0, log: () => undefined }))
  const readerKey = randomBytes(16).toString('hex')
  engine.setReaderKeys([createHash('sha256').update(readerKey).digest('hex')])
  const tables = stack.use(
    openClickHouse({ url: engine.url, user: engine.user, password: engine.password, database: 'tallylight' }),
  )
  await migrateClickHouse(tables)
  const postgres = stack.use(await startTestPostgres())
  const ledger = await postgres.open('ledger')
  await withConnection(ledger, migratePostgres)
  const toUnixMs = Date.now()
  const size = { calls: options.calls, tenants: options.tenants, nowUnixSeconds: Math.floor(toUnixMs / 1000) }
  options.say(`seeding ${options.calls} calls of ${options.tenants} tenants`)
  await seedTables(tables, size)
  await seedLedger(ledger, size)
  const sources: Sources = {
    clickhouse: (sql) => askClickhouse(engine.url, readerKey, sql),
    postgres: (sql) => askPostgres(ledger, sql),
  }
  const measured: MeasuredPanel[] = []
  for (const board of buildBoards()) {
    const opening = Number(/^now-(\d+)h$/.exec(board.time?.from ?? '')?.[1])
    const trace = board.uid === uids.trace ? { trace: [traceOfNewest(options.calls)] } : {}
    for (const over of options.over) {
      const hours = over === 'a day' ? 24 : opening
      const range = { fromUnixMs: toUnixMs - hours * hourMs, toUnixMs }
      const known = { board: board.title ?? '', over, hours }
      const offered: Record<string, readonly string[]> = {}
      for (const { name, query } of variableQueriesOf(board)) {
        const time = async (): Promise<number> => {
          const table = await ask(sources, query, { range, values: {} })
          offered[name] = table.rows.map(([value]) => String(value))
          return table.rows.length
        }
        measured.push({ ...known, panelId: 0, title: `variable ${name}`, ...(await repeat(options.rounds, time)) })
      }
      const values = { ...allOf(board), ...trace }
      for (const panel of panelsOf(board)) {
        const time = async (): Promise<number> => {
          let rows = 0
          for (const query of targetsOf(panel))
            rows += (await ask(sources, query, { range, panel, values, options: offered })).rows.length
          return rows
        }
        const { id: panelId, title } = panel
        measured.push({ ...known, panelId, title, ...(await repeat(options.rounds, time)) })
      }
    }
    options.say(`${board.title}: done`)
  }
  for (const { title, query, overSeconds } of rules) {
    const range = { fromUnixMs: toUnixMs - overSeconds * 1000, toUnixMs }
    const time = async (): Promise<number> => (await ask(sources, query, { range, values: {} })).rows.length
    const known = { board: alertsTitle, over: 'as opened', hours: undefined, panelId: 0, title } as const
    measured.push({ ...known, ...(await repeat(options.rounds, time)) })
  }
  return measured
}

async function repeat(
  rounds: number,
  work: () => Promise<number>,
): Promise<Pick<MeasuredPanel, 'rows' | 'p50Ms' | 'p95Ms'>> {
  const times: number[] = []
  let rows = 0
  for (let round = 0; round < rounds; round++) {
    const startedMs = performance.now()
    rows = await work()
    times.push(performance.now() - startedMs)
  }
  times.sort((a, b) => a - b)
  const at = (share: number): number => Math.round(times[Math.ceil(share * times.length) - 1] ?? 0)
  return { rows, p50Ms: at(0.5), p95Ms: at(0.95) }
}
