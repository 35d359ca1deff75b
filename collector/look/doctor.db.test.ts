// What `doctor` finds where the stores are not the collector's own, and where one of them does not answer. The collector is a
// stand-in, so that each case is what it says and no more.
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { openClickHouse } from '@tallylight/storage/clickhouse/client.ts'
import { type EmbeddedClickHouse, startEmbeddedClickHouse } from '@tallylight/storage/clickhouse/embedded.ts'
import { migrateClickHouse } from '@tallylight/storage/clickhouse/migrate.ts'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { lockDirectory } from '../journal/lock.ts'
import { examine, type Finding } from './doctor.ts'

const database = 'my-db'
let engine: EmbeddedClickHouse
let directory: string
/** Of the engine, as a collector would be told. */
let clickhouseUrl: string
const stack = new AsyncDisposableStack()

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'tallylight-doctor-'))
  stack.defer(() => rm(directory, { recursive: true }))
  engine = stack.use(await startEmbeddedClickHouse({ directory: join(directory, 'ch'), port: 0, log: () => undefined }))
  const { url, user, password } = engine
  const client = stack.use(openClickHouse({ url, user, password, database }))
  await migrateClickHouse(client)
  clickhouseUrl = `http://${user}:${password}@127.0.0.1:${engine.port}/${database}`
})
afterAll(() => stack.disposeAsync())

async function listen(server: Server): Promise<number> {
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  stack.defer(() => {
    server.closeAllConnections()
    server.close()
  })
  return (server.address() as AddressInfo).port
}

/** A data directory with the `run.json` of a collector that is ready, knows its admin key and answers a probe as it is told. */
async function standIn(probe: 'read back' | 'cut', metrics = ''): Promise<string> {
  const api = createServer((request, response) => {
    if (request.url === '/readyz') response.end('{"missing":[]}')
    else if (request.url === '/metrics') response.end(metrics)
    else if (request.method !== 'POST') response.writeHead(405).end('{}')
    else if (probe === 'cut') request.socket.destroy()
    else response.end('{"missing":[],"seconds":0.5}')
  })
  const place = await mkdtemp(join(directory, 'data-'))
  const ports = { otlpHttp: 1, api: await listen(api), clickhouse: null, postgres: null }
  const versions = { tallylight: '1', node: process.versions.node, clickhouse: null }
  await writeFile(join(place, 'run.json'), JSON.stringify({ pid: process.pid, ports, versions }))
  await writeFile(join(place, 'admin.key'), 'tl_key\n', { mode: 0o600 })
  // By which a collector is told from what one that was killed has left.
  await mkdir(join(place, 'journal'))
  const lock = await lockDirectory(join(place, 'journal'), 'a stand-in')
  stack.defer(() => lock[Symbol.asyncDispose]())
  return place
}

function look(place: string, environment: Readonly<Record<string, string>>): Promise<readonly Finding[]> {
  return examine({
    environment: { TALLYLIGHT_DATA_DIR: place, ...environment },
    version: '1',
    grafana: undefined,
    now: Date.now,
  })
}

const about = (findings: readonly Finding[], wanted: string): readonly Finding[] =>
  findings.filter((finding) => finding.about === wanted)

test('doctor: a file that is understood and that the collector cannot use is not called good', async () => {
  const configuration = async (metrics: string) =>
    about(await look(await standIn('read back', metrics), {}), 'configuration')
  const refused = expect.stringContaining('limits and probes are those from before')
  expect(await configuration('tallylight_config_refused 1\n')).toContainEqual({
    about: 'configuration',
    is: 'wrong',
    what: refused,
    mend: expect.stringContaining('its log says why'),
  })
  expect(await configuration('tallylight_config_refused 0\n')).not.toContainEqual(
    expect.objectContaining({ what: refused }),
  )
})

test('doctor: a database whose name has a hyphen is looked at like any other', async () => {
  const findings = await look(await standIn('read back'), { TALLYLIGHT_CLICKHOUSE_URL: clickhouseUrl })
  expect(about(findings, 'ClickHouse')).toEqual([])
  expect(about(findings, 'tables')).toEqual([
    { about: 'tables', is: 'good', what: 'all in ClickHouse are as this version makes them' },
  ])
})

test('doctor: a collector whose stores are elsewhere is wrong to look at without their addresses', async () => {
  const findings = await look(await standIn('read back'), {})
  for (const [store, setting] of [
    ['ClickHouse', 'TALLYLIGHT_CLICKHOUSE_URL'],
    ['Postgres', 'TALLYLIGHT_POSTGRES_URL'],
  ] as const)
    expect(about(findings, store)).toEqual([
      {
        about: store,
        is: 'wrong',
        what: `is not inside of the collector that runs here, and ${setting} is not set here`,
        mend: `set ${setting} as the collector has it`,
      },
    ])
})

test('doctor: where no collector runs, something is wrong', async () => {
  const place = await mkdtemp(join(directory, 'empty-'))
  const findings = await look(place, { TALLYLIGHT_API_PORT: '0' })
  expect(about(findings, 'collector')).toEqual([
    { about: 'collector', is: 'wrong', what: 'does not run here', mend: 'npm start' },
  ])
})

test('doctor: a ClickHouse that takes the question and says nothing does not answer, and the rest is still looked at', async () => {
  const silent = await listen(createServer(() => undefined))
  const url = `http://127.0.0.1:${silent}/tallylight`
  const findings = await look(await standIn('cut'), { TALLYLIGHT_CLICKHOUSE_URL: url })
  expect(about(findings, 'ClickHouse')).toMatchObject([
    { is: 'wrong', what: expect.stringContaining('does not answer') },
  ])
  expect(about(findings, 'keys')).toMatchObject([{ is: 'good' }])
  expect(about(findings, 'Postgres')).toHaveLength(1)
  expect(about(findings, 'senders')).toHaveLength(1)
})

test('doctor: a probe whose answer does not come is told, and the rest is still looked at', async () => {
  const findings = await look(await standIn('cut'), { TALLYLIGHT_CLICKHOUSE_URL: clickhouseUrl })
  expect(about(findings, 'write and read back')).toMatchObject([
    { is: 'wrong', what: expect.stringContaining('was not answered') },
  ])
  expect(about(findings, 'tables')).toMatchObject([{ is: 'good' }])
  expect(about(findings, 'senders')).toHaveLength(1)
})
