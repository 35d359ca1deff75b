// A collector that cannot start says why, ends by itself, and leaves nothing behind.
import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { mkdtemp, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { type AddressInfo, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { setImmediate } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { openClickHouse } from '@tallylight/storage/clickhouse/client.ts'
import { startEmbeddedClickHouse } from '@tallylight/storage/clickhouse/embedded.ts'
import { startEmbeddedPostgres } from '@tallylight/storage/postgres/embedded.ts'
import pg from 'pg'
import { expect, test } from 'vitest'
import { startCollector } from '../collector-process.ts'

const mainPath = fileURLToPath(new URL('../../collector/main.ts', import.meta.url))
const ports = ['OTLP_GRPC_PORT', 'OTLP_HTTP_PORT', 'API_PORT', 'PROXY_PORT', 'CLICKHOUSE_PORT', 'POSTGRES_PORT']

/** Runs a collector that is expected to end by itself. */
async function run(
  environment: Readonly<Record<string, string>>,
  args: readonly string[] = [],
  whileItRuns: (child: ChildProcess) => Promise<void> = async () => undefined,
): Promise<{ readonly code: number; readonly log: string }> {
  const free = Object.fromEntries(ports.map((name) => [`TALLYLIGHT_${name}`, '0']))
  const env = { PATH: process.env.PATH ?? '', ...free, ...environment }
  const running = promisify(execFile)(process.execPath, ['--disable-warning=ExperimentalWarning', mainPath, ...args], {
    env,
    timeout: 30_000,
    killSignal: 'SIGKILL',
  })
  await whileItRuns(running.child)
  return running.then(
    ({ stdout, stderr }) => ({ code: 0, log: stdout + stderr }),
    ({ code, stdout, stderr }) => ({ code, log: stdout + stderr }),
  )
}

/** Command lines of processes that speak of this directory. */
async function processesOf(directory: string): Promise<readonly string[]> {
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name))
  const commands = await Promise.all(pids.map((pid) => readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')))
  return commands.filter((command) => command.includes(directory))
}

for (const name of ['POSTGRES_PORT', 'CLICKHOUSE_PORT', 'API_PORT'])
  test(`start: ${name} taken: the collector names who has it, ends with 1, and its engines with it`, async () => {
    await using stack = new AsyncDisposableStack()
    const directory = await mkdtemp(join(tmpdir(), 'tallylight-start-'))
    stack.defer(() => rm(directory, { recursive: true, force: true }))
    const server = createServer().listen(0, '127.0.0.1')
    await once(server, 'listening')
    stack.defer(() => void server.close())
    const { port } = server.address() as AddressInfo
    const { code, log } = await run({ TALLYLIGHT_DATA_DIR: directory, [`TALLYLIGHT_${name}`]: String(port) })
    expect(log).toMatch(new RegExp(`port ${port} on 127.0.0.1 is taken by process ${process.pid} \\(`))
    expect(code).toBe(1)
    expect(await processesOf(directory)).toEqual([])
  })

test('start: whoever ends `npm start` ends the collector with it, which npm’s shell would keep the signal from', async () => {
  await using stack = new AsyncDisposableStack()
  const directory = await mkdtemp(join(tmpdir(), 'tallylight-start-'))
  stack.defer(() => rm(directory, { recursive: true, force: true }))
  const { scripts } = JSON.parse(await readFile(new URL('../../package.json', import.meta.url), 'utf8')) as {
    readonly scripts: Readonly<Record<string, string>>
  }
  await writeFile(join(directory, 'package.json'), JSON.stringify({ scripts: { start: scripts.start } }))
  await writeFile(
    join(directory, 'start.mjs'),
    `setInterval(() => undefined, 1000)
    process.once('SIGTERM', () => { console.log('told'); process.exit(0) })
    console.log(process.pid)`,
  )
  const npm = spawn('npm', ['start', '--silent'], { cwd: directory, stdio: ['ignore', 'pipe', 'ignore'] })
  const lines = createInterface({ input: npm.stdout })
  const [pid] = (await once(lines, 'line')) as [string]
  let isTold = false
  stack.defer(() => void (isTold || process.kill(Number(pid), 'SIGKILL')))
  const said = once(lines, 'line')
  npm.kill('SIGTERM')
  expect(await said).toEqual(['told'])
  isTold = true
})

test('start: a second collector on the same directory is told who has it and disturbs nothing; of Ctrl-C the first hears often', async () => {
  await using first = await startCollector()
  const { code, log } = await run({ TALLYLIGHT_DATA_DIR: first.directory })
  expect(code).toBe(1)
  expect(log).toContain(`is in use by process ${first.pid()} on `)
  expect(await first.query('SELECT 1 AS a')).toEqual([{ a: 1 }])
  let isOver = false
  const ended = first.ended().then(() => {
    isOver = true
  })
  for (; !isOver; await setImmediate()) process.kill(first.pid(), 'SIGINT')
  await ended
  // It was not ended, it stopped.
  expect(await readdir(first.directory)).not.toContain('run.json')
  expect(await processesOf(first.directory)).toEqual([])
})

/** A collector on this directory that is expected to refuse it, with nothing left running. */
async function refusalOn(directory: string): Promise<string> {
  const { code, log } = await run({ TALLYLIGHT_DATA_DIR: directory })
  expect([code, log]).toEqual([1, expect.stringContaining('tallylight could not start')])
  expect(await processesOf(directory)).toEqual([])
  return log
}

test('start: what no waiting mends ends the start with the reason: a broken admin key, a Postgres that a newer version has used, a ClickHouse whose migrations cannot be read', async () => {
  await using collector = await startCollector()
  await collector.kill('SIGTERM')
  const { directory } = collector
  const keyPath = join(directory, 'admin.key')
  for (const text of ['', 'garbage']) {
    await writeFile(keyPath, text)
    expect(await refusalOn(directory)).toContain(`${keyPath} does not hold a key`)
  }
  await writeFile(keyPath, collector.adminKey)
  const askPostgres = async (sql: string): Promise<void> => {
    await using postgres = await startEmbeddedPostgres({
      directory: join(directory, 'postgres'),
      port: 0,
      readerKeyPath: join(directory, 'postgres.key'),
      log: () => undefined,
    })
    const client = new pg.Client({ connectionString: postgres.url })
    await client.connect()
    await client.query(sql).finally(() => client.end())
  }
  await askPostgres(`insert into schema_migrations (number, name, checksum)
    select max(number) + 1, '9999_later.sql', '' from schema_migrations`)
  expect(await refusalOn(directory)).toContain('it has migration 9999_later.sql, and this version of Tallylight knows')
  await askPostgres(`delete from schema_migrations where name = '9999_later.sql'`)
  {
    await using engine = await startEmbeddedClickHouse({
      directory: join(directory, 'clickhouse'),
      port: 0,
      log: () => undefined,
    })
    await using client = openClickHouse({ ...engine, database: 'tallylight' })
    await client.command('DROP TABLE tallylight.schema_migrations')
    await client.command('CREATE TABLE tallylight.schema_migrations (broken UInt8) ENGINE = MergeTree ORDER BY ()')
  }
  expect(await refusalOn(directory)).toContain('Unknown expression identifier')
}, 180_000)

/** Tells a collector to end once this file is made, of which each is made at another step of a first start. */
function stopAt(directory: string, name: string, signal: 'SIGTERM' | 'SIGKILL' = 'SIGTERM'): ReturnType<typeof run> {
  return run({ TALLYLIGHT_DATA_DIR: directory }, [], async (child) => {
    while (!existsSync(join(directory, name)) && child.exitCode === null) await setImmediate()
    child.kill(signal)
  })
}

test('start: a first start that is killed half way is begun again by the next, however far it came', async () => {
  await using stack = new AsyncDisposableStack()
  const directory = await mkdtemp(join(tmpdir(), 'tallylight-start-'))
  stack.defer(() => rm(directory, { recursive: true, force: true, maxRetries: 50, retryDelay: 100 }))
  for (const moment of ['postgres/owner.key', 'clickhouse.made', 'postgres.made', 'journal/books.json'])
    await stopAt(directory, moment, 'SIGKILL')
  expect(await stopAt(directory, 'run.json')).toMatchObject({ code: 0, log: expect.not.stringContaining('"level":50') })
}, 180_000)

test('start: told to stop at any moment, the collector does, with its engines, and the next start goes on from there', async () => {
  await using stack = new AsyncDisposableStack()
  const home = await mkdtemp(join(tmpdir(), 'tallylight-start-'))
  stack.defer(() => rm(home, { recursive: true, force: true }))
  const moments = ['clickhouse/engine.pid', 'postgres/cluster.new', 'admin.key']
  for (const [at, moment] of moments.entries()) {
    const directory = join(home, String(at))
    const { code, log } = await stopAt(directory, moment)
    expect([code, log], moment).toEqual([0, expect.stringContaining('was told by SIGTERM to stop while it started')])
    expect(log).not.toContain('tallylight is ready')
    expect(await processesOf(directory)).toEqual([])
    // It is written when all is there.
    expect(await stopAt(directory, 'run.json')).toMatchObject({ code: 0, log: expect.not.stringContaining('"err"') })
  }
}, 180_000)

test('start: an engine’s files that are gone are not replaced by empty ones, unless that is said', async () => {
  await using collector = await startCollector()
  await collector.kill('SIGTERM')
  const { directory } = collector
  for (const [engine, files, proof] of [
    ['postgres', 'postgres/cluster', 'postgres/cluster'],
    ['clickhouse', 'clickhouse', 'clickhouse/store'],
  ] as const) {
    await rename(join(directory, files), join(directory, 'elsewhere'))
    const log = await refusalOn(directory)
    expect(log).toContain(`${join(directory, proof)} is gone, and `)
    expect(log).toContain(`remove ${join(directory, `${engine}.made`)}`)
    expect(existsSync(join(directory, proof))).toBe(false)
    await rename(join(directory, 'elsewhere'), join(directory, files))
  }
  for (const engine of ['postgres', 'clickhouse']) {
    await rm(join(directory, engine), { recursive: true })
    await rm(join(directory, `${engine}.made`))
  }
  await collector.start()
}, 180_000)

test('start: wrong settings are all said at once, with exit code 2, before anything is made', async () => {
  const directory = join(tmpdir(), `tallylight-start-${process.pid}-none`)
  const { code, log } = await run({
    TALLYLIGHT_DATA_DIR: directory,
    TALLYLIGHT_API_PROT: '1',
    TALLYLIGHT_REQUIRE_KEYS: 'yes',
  })
  expect(code).toBe(2)
  expect(log).toContain('did you mean TALLYLIGHT_API_PORT?')
  expect(log).toContain('TALLYLIGHT_REQUIRE_KEYS is 1 or 0')
  const named = await run({ TALLYLIGHT_DATA_DIR: directory }, ['doctor'])
  expect(named).toMatchObject({ code: 2, log: expect.stringContaining('got \\"doctor\\"') })
  const grpc = await run({
    TALLYLIGHT_DATA_DIR: directory,
    OTEL_EXPORTER_OTLP_ENDPOINT: 'http://otel.example:4317',
    OTEL_EXPORTER_OTLP_PROTOCOL: 'grpc',
  })
  expect(grpc).toMatchObject({ code: 2, log: expect.stringContaining('http/protobuf or http/json, not \\"grpc\\"') })
  await expect(readdir(directory)).rejects.toThrow('ENOENT')
})
