// A collector with a ClickHouse of the user's own, asked as Grafana asks: the boards' queries as the reader of the endpoint,
// which may only read, and as Postgres's `tallylight_read`.
import { createHash, randomBytes } from 'node:crypto'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type ClickHouse, openClickHouse } from '@tallylight/storage/clickhouse/client.ts'
import { startEmbeddedClickHouse } from '@tallylight/storage/clickhouse/embedded.ts'
import pg from 'pg'
import { type CollectorProcess, startCollector } from '../collector-process.ts'

export type Table = {
  readonly columns: readonly { readonly name: string; readonly type: string }[]
  readonly rows: readonly (readonly unknown[])[]
}

/** The two data sources, asked as Grafana's backend asks them. */
export type Sources = {
  clickhouse(sql: string): Promise<Table>
  postgres(sql: string): Promise<Table>
}

export type World = Sources & {
  readonly collector: CollectorProcess
  /** May do anything to the tables. */
  readonly owner: ClickHouse
  send(signal: 'traces' | 'metrics' | 'logs', body: object | string, key?: string): Promise<Response>
  /** A turn of the collector's own, read back from both stores. */
  probe(): Promise<void>
  /** A key of the tenant's own, for quotas. */
  keyOf(tenant: string): Promise<string>
  quota(path: string, body: object, key: string): Promise<Response>
  [Symbol.asyncDispose](): Promise<void>
}

export async function openWorld(config: object, environment: Readonly<Record<string, string>>): Promise<World> {
  await using stack = new AsyncDisposableStack()
  const directory = await mkdtemp(join(tmpdir(), 'tallylight-boards-'))
  stack.defer(() => rm(directory, { recursive: true, force: true }))
  const engine = stack.use(
    await startEmbeddedClickHouse({ directory: join(directory, 'clickhouse'), port: 0, log: () => undefined }),
  )
  const readerKey = randomBytes(16).toString('hex')
  engine.setReaderKeys([createHash('sha256').update(readerKey).digest('hex')])
  const owner = stack.use(
    openClickHouse({ url: engine.url, user: engine.user, password: engine.password, database: 'tallylight' }),
  )
  const configPath = join(directory, 'tallylight.json')
  await writeFile(configPath, JSON.stringify(config))
  const collector = stack.use(
    await startCollector({
      TALLYLIGHT_CLICKHOUSE_URL: `http://${engine.user}:${engine.password}@127.0.0.1:${engine.port}/tallylight`,
      TALLYLIGHT_CONFIG: configPath,
      ...environment,
    }),
  )
  async function makeKey(wanted: object): Promise<string> {
    const made = await fetch(`http://127.0.0.1:${collector.ports().api}/api/v1/keys`, {
      method: 'POST',
      headers: { Authorization: `Bearer ${collector.adminKey}`, 'Content-Type': 'application/json' },
      body: JSON.stringify(wanted),
    })
    if (made.status !== 201) throw new Error(`no key was made: ${made.status} ${await made.text()}`)
    return ((await made.json()) as { readonly key: string }).key
  }
  const gatewayKey = await makeKey({ tenant: 'default', roles: ['ingest'], manyTenants: true, name: 'gateway' })
  const reader = new pg.Pool({
    max: 2,
    host: '127.0.0.1',
    port: collector.ports().postgres,
    user: 'tallylight_read',
    database: 'tallylight',
    password: (await readFile(join(collector.directory, 'postgres.key'), 'utf8')).trim(),
  })
  stack.defer(() => reader.end())
  const kept = stack.move()

  return {
    collector,
    owner,
    clickhouse: (sql) => askClickhouse(engine.url, readerKey, sql),
    postgres: (sql) => askPostgres(reader, sql),
    send: (signal, body, key = gatewayKey) =>
      fetch(`http://127.0.0.1:${collector.ports().otlpHttp}/v1/${signal}`, {
        method: 'POST',
        headers: { Authorization: `Bearer ${key}`, 'Content-Type': 'application/json' },
        body: typeof body === 'string' ? body : JSON.stringify(body),
      }),
    probe: async () => {
      const answer = await fetch(`http://127.0.0.1:${collector.ports().api}/api/v1/probe`, {
        method: 'POST',
        headers: { Authorization: `Bearer ${collector.adminKey}` },
      })
      const { missing } = (await answer.json()) as { readonly missing: readonly string[] }
      if (missing.length > 0) throw new Error(`the probe was not read back: ${missing.join(', ')}`)
    },
    keyOf: (tenant) => makeKey({ tenant, roles: ['quota'] }),
    quota: (path, body, key) =>
      fetch(`http://127.0.0.1:${collector.ports().api}/v1/quota/${path}`, {
        method: 'POST',
        headers: { Authorization: `Bearer ${key}`, 'Content-Type': 'application/json' },
        body: JSON.stringify(body),
      }),
    [Symbol.asyncDispose]: () => kept.disposeAsync(),
  }
}

export async function askClickhouse(url: string, readerKey: string, sql: string): Promise<Table> {
  const response = await fetch(`${url}/?database=tallylight&default_format=JSONCompact&max_execution_time=64`, {
    method: 'POST',
    headers: { 'X-ClickHouse-User': 'tallylight', 'X-ClickHouse-Key': readerKey },
    body: sql,
  })
  const text = await response.text()
  if (!response.ok) throw new Error(`${text.trim()}\n${sql}`)
  const { meta, data } = JSON.parse(text) as { readonly meta: Table['columns']; readonly data: Table['rows'] }
  return { columns: meta, rows: data }
}

export async function askPostgres(reader: pg.Pool, sql: string): Promise<Table> {
  const asked: pg.QueryArrayConfig = { text: sql, rowMode: 'array' }
  const { fields, rows } = await reader.query<unknown[]>(asked)
  return { columns: fields.map(({ name, dataTypeID }) => ({ name, type: postgresType(dataTypeID) })), rows }
}

/** As the names of types say it in ClickHouse, as far as a chart needs to know: text or a number. */
function postgresType(id: number): string {
  const { builtins } = pg.types
  const texts: readonly number[] = [builtins.TEXT, builtins.VARCHAR, builtins.UUID, builtins.JSONB]
  return texts.includes(id) ? 'String' : 'Float64'
}
