// `npm start`, then `npm run example`, then `tallylight grafana provision`: the boards, asked with the logins of the folder that the
// command wrote, have rows. Those that a service in good health leaves empty stand below with the reason.
import { execFile } from 'node:child_process'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import type { Dashboard } from '@grafana/grafana-foundation-sdk/dashboard'
import pg from 'pg'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { type CollectorProcess, startCollector } from '../collector-process.ts'
import { allOf, ask, panelsOf, targetsOf, variableQueriesOf } from './queries.ts'
import { askClickhouse, askPostgres, type Sources } from './world.ts'

const run = promisify(execFile)
const root = new URL('../../', import.meta.url)
const hourMs = 3_600_000

/** Why a panel is empty when all is well. */
const wellWithout: Readonly<Record<string, string>> = {
  'Tools and MCP health 40 Failed tool calls': 'none failed',
  'Trace 30 Errors': 'the newest turn went well',
  'Trace 31 Log records': 'the service logs to its terminal, not over OTLP',
  'Collector 21 Refused requests per second': 'nobody was refused',
  'Collector 22 Rejected records per second': 'no record was rejected',
  'Collector 24 Refused and rejected': 'nobody was refused',
  'Collector 25 Quarantine': 'every table took every record',
  'Chat log integrity 20 Turns that are missing': 'none is missing',
  'Chat log integrity 31 Calls without a price': 'every call has a price',
  'Chat log integrity 32 Models without a price': 'every model has a price',
}

const stack = new AsyncDisposableStack()
let collector: CollectorProcess
let folder: string
let sources: Sources

type DataSource = {
  readonly type: string
  readonly url?: string
  readonly user?: string
  readonly jsonData: { readonly host?: string; readonly port?: number; readonly database?: string }
  readonly secureJsonData: { readonly password: string }
}

beforeAll(async () => {
  collector = stack.use(await startCollector({ TALLYLIGHT_SELF_CHECK_MS: '2000' }))
  const environment = {
    PATH: process.env.PATH ?? '',
    TALLYLIGHT_DATA_DIR: collector.directory,
    TALLYLIGHT_URL: `http://127.0.0.1:${collector.ports().api}`,
    OTEL_EXPORTER_OTLP_ENDPOINT: `http://127.0.0.1:${collector.ports().otlpHttp}`,
  }
  const start = (program: string, ...args: readonly string[]) =>
    run(process.execPath, ['--disable-warning=ExperimentalWarning', fileURLToPath(new URL(program, root)), ...args], {
      env: environment,
    })
  const { stdout } = await start('examples/run.ts')
  expect(stdout).toContain('"429 Quota exceeded: example-bob"')
  folder = await mkdtemp(join(tmpdir(), 'tallylight-grafana-'))
  stack.defer(() => rm(folder, { recursive: true, force: true }))
  await start('collector/command-line.ts', 'grafana', 'provision', folder)
  sources = await openSources()
  await collector.drained()
  await probedAndRead()
}, 120_000)
afterAll(() => stack.disposeAsync())

/** As Grafana is told. */
async function openSources(): Promise<Sources> {
  const { datasources } = (await json('datasources/tallylight.yaml')) as { readonly datasources: readonly DataSource[] }
  const [clickhouse, postgres] = ['grafana-clickhouse-datasource', 'grafana-postgresql-datasource'].map(
    (type) => datasources.find((source) => source.type === type) as DataSource,
  ) as [DataSource, DataSource]
  const { host, port } = clickhouse.jsonData
  const reader = new pg.Pool({
    max: 2,
    connectionString: `postgresql://${postgres.user}:${postgres.secureJsonData.password}@${postgres.url}/${postgres.jsonData.database}`,
  })
  stack.defer(() => reader.end())
  return {
    clickhouse: (sql) => askClickhouse(`http://${host}:${port}`, clickhouse.secureJsonData.password, sql),
    postgres: (sql) => askPostgres(reader, sql),
  }
}

async function json(path: string): Promise<unknown> {
  return JSON.parse(await readFile(join(folder, path), 'utf8'))
}

/** A canary that came back, and the reading that says so. */
async function probedAndRead(): Promise<void> {
  for (;;) {
    const { rows } = await sources.clickhouse(
      `SELECT count() FROM otel_metrics_gauge WHERE MetricName = 'tallylight.canary_success'`,
    )
    if (Number(rows[0]?.[0]) > 1) return
    await collector.drained()
  }
}

test('example: every board of the folder that was written has rows, but for what a service in good health has nothing of', async () => {
  const { providers } = (await json('dashboards/tallylight.yaml')) as {
    readonly providers: readonly [{ readonly options: { readonly path: string } }]
  }
  expect(providers[0].options.path).toBe(join(folder, 'boards'))
  const empty: string[] = []
  let filled = 0
  for (const name of ['overview', 'models', 'tenants', 'tools', 'conversations', 'trace', 'collector', 'integrity']) {
    const board = (await json(`boards/tallylight-${name}.json`)) as Dashboard
    const range = { fromUnixMs: Date.now() - hourMs, toUnixMs: Date.now() + 1_000 }
    const options: Record<string, readonly string[]> = {}
    for (const variable of variableQueriesOf(board))
      options[variable.name] = (await ask(sources, variable.query, { range, values: {} })).rows.map(
        ([value]) => `${value}`,
      )
    for (const panel of panelsOf(board)) {
      let rows = 0
      for (const query of targetsOf(panel))
        rows += (await ask(sources, query, { range, panel, values: allOf(board), options })).rows.length
      if (process.env.TALLYLIGHT_TEST_ROWS === '1') console.log(`${board.title} ${panel.id} ${panel.title}: ${rows}`)
      if (rows === 0) empty.push(`${board.title} ${panel.id} ${panel.title}`)
      else filled++
    }
  }
  expect(empty).toEqual(Object.keys(wellWithout))
  expect(filled).toBeGreaterThan(80)
})

test('example: three calls failed at the model, and the three that a limit denied are no failures of it', async () => {
  const { rows } = await sources.clickhouse(
    `SELECT UserId, ErrorType, count() FROM llm_calls WHERE ErrorType != '' GROUP BY ALL ORDER BY 1`,
  )
  expect(rows).toEqual([
    ['ada', 'server_error', 3],
    ['bob', 'QuotaExceededError', 3],
  ])
  const overview = (await json('boards/tallylight-overview.json')) as Dashboard
  const [failed] = panelsOf(overview)
    .filter(({ title }) => title === 'Failed calls')
    .flatMap(targetsOf)
  const range = { fromUnixMs: Date.now() - hourMs, toUnixMs: Date.now() }
  const table = await ask(sources, failed as NonNullable<typeof failed>, { range, values: allOf(overview) })
  const user = table.columns.findIndex(({ name }) => name === 'user')
  expect(table.rows.map((row) => row[user])).toEqual(['ada', 'ada', 'ada'])
})
