// `npm run bench:ingest`: the collector's CPU for a fixed amount of work, measured alone. Prebuilt requests, the collector
// pinned to one core and the sender to the other, fsync before each answer; ClickHouse (Null tables, or the real ones with
// --tables real) is a process of its own and not counted. One JSON line per corpus.
//
// Without --rate it sends as fast as it is answered. With --rate requests leave at their times whether or not the ones
// before were answered, latencies count from the time a request should have left, and with real tables the line says when
// its rows could be queried.
import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { Agent, request } from 'node:http'
import { cpus, loadavg, tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { openClickHouse } from '@tallylight/storage/clickhouse/client.ts'
import { startEmbeddedClickHouse } from '@tallylight/storage/clickhouse/embedded.ts'
import { readMigrations, statementsOf } from '@tallylight/storage/clickhouse/migrate.ts'
import { type CollectorProcess, startCollector } from '../collector-process.ts'
import { buildCorpus, type Corpus, type CorpusName, usualRecords } from './corpora.ts'

const ticksPerSecond = 100
/** Where a signal's records go, one row each. */
const tablesOf = { traces: '^otel_traces$', logs: '^otel_logs$', metrics: '^otel_metrics_' } as const

const { values } = parseArgs({
  options: {
    corpus: { type: 'string', multiple: true },
    records: { type: 'string' },
    connections: { type: 'string' },
    tables: { type: 'string' },
    encoding: { type: 'string' },
    compression: { type: 'string' },
    batch: { type: 'string' },
    rate: { type: 'string' },
  },
})
const corpora = (values.corpus ?? ['web']).map((name): CorpusName => {
  if (!Object.hasOwn(usualRecords, name))
    throw new Error(`there is no corpus ${name}; there are ${Object.keys(usualRecords).join(', ')}`)
  return name as CorpusName
})
const records = Number(values.records ?? 1_000_000)
const connections = Number(values.connections ?? 4)
const tables = values.tables ?? 'null'
const rate = values.rate === undefined ? undefined : Number(values.rate)
const encoding = values.encoding === 'json' ? 'json' : 'protobuf'
const compression = values.compression === 'zstd' || values.compression === 'identity' ? values.compression : 'gzip'
if (
  (rate !== undefined && !(rate > 0)) ||
  !Number.isSafeInteger(records) ||
  records < 1 ||
  !Number.isSafeInteger(connections) ||
  connections < 1
) {
  console.error(
    'usage: npm run bench:ingest -- [--corpus web] [--records N] [--connections N] [--batch N] [--tables null|real] [--encoding protobuf|json] [--compression gzip|zstd|identity] [--rate RECORDS_PER_SECOND]',
  )
  process.exit(2)
}

const engineDirectory = await mkdtemp(join(tmpdir(), 'tallylight-bench-'))
await using engine = await startEmbeddedClickHouse({ directory: engineDirectory, port: 0, log: () => undefined })
const url = new URL(engine.url)
url.username = engine.user
url.password = engine.password
url.pathname = '/tallylight'
await using clickhouse = openClickHouse({
  url: engine.url,
  user: engine.user,
  password: engine.password,
  database: 'tallylight',
})
if (tables === 'null') await makeNullTables()
for (const name of corpora) await measure(name)
await rm(engineDirectory, { recursive: true, force: true })

/** The tables of the migrations with the engine Null: what they cost is ClickHouse's and not ours. */
async function makeNullTables(): Promise<void> {
  await clickhouse.command('CREATE DATABASE IF NOT EXISTS tallylight')
  for (const migration of await readMigrations()) {
    for (const statement of statementsOf(migration.sql, 'tallylight', 'Null')) {
      await clickhouse.command(
        statement
          .replace(/\n *INDEX [^\n]*/g, '')
          .replace(/,(\s*)\)\nENGINE/, '$1)\nENGINE')
          .replace(/PARTITION BY[\s\S]*$/, ''),
      )
    }
  }
}

async function measure(name: CorpusName): Promise<void> {
  const recordsPerRequest = Number(values.batch ?? usualRecords[name])
  const wanted = Math.ceil(records / recordsPerRequest)
  const corpus = buildCorpus(name, {
    requests: Math.min(wanted, 300),
    recordsPerRequest,
    seed: 1,
    encoding,
    contentEncoding: compression,
    nowUnixNano: BigInt(Date.now()) * 1_000_000n,
  })
  await using collector = await startCollector({
    TALLYLIGHT_CLICKHOUSE_URL: url.href,
    TALLYLIGHT_CONFIG: await configWithoutDuplicates(),
  })
  if (cpus().length > 1 && rate === undefined) {
    spawnSync('taskset', ['-a', '-cp', '0', String(collector.pid())])
    spawnSync('taskset', ['-a', '-cp', '1', String(process.pid)])
  }
  await send(collector, corpus, Math.ceil(wanted / 10), () => undefined)
  await collector.drained()
  const insertsBefore = await insertsOf(collector)
  const before = cpuSeconds(collector.pid())
  await using watch = rate === undefined || tables === 'null' ? undefined : watchRows(corpus)
  const startedMs = performance.now()
  const latenciesMs = await send(collector, corpus, wanted, (requests) => watch?.answered(requests * recordsPerRequest))
  const seconds = (performance.now() - startedMs) / 1000
  await collector.drained()
  const cpu = cpuSeconds(collector.pid()) - before
  const count = wanted * recordsPerRequest
  latenciesMs.sort((a, b) => a - b)
  const at = (share: number): number => Number(quantile(latenciesMs, share).toFixed(2))
  const inserted = await collector.metric('tallylight_inserted_rows_total')
  const inserts = (await insertsOf(collector)) - insertsBefore
  const queryableMs = await watch?.delaysMs()
  console.log(
    JSON.stringify({
      corpus: name,
      encoding,
      compression,
      tables,
      records: count,
      recordsPerRequest,
      connections,
      cpuSecondsPerMillion: Number(((cpu / count) * 1e6).toFixed(3)),
      cpuMicrosecondsPerRequest: Number(((cpu / wanted) * 1e6).toFixed(1)),
      recordsPerSecond: Math.round(count / seconds),
      ackP50Ms: at(0.5),
      ackP99Ms: at(0.99),
      ...(rate === undefined ? {} : { ratePerSecond: rate }),
      ...(queryableMs === undefined ? {} : { queryableP99Ms: Math.round(quantile(queryableMs, 0.99)) }),
      insertsPerSecond: Number((inserts / seconds).toFixed(2)),
      rowsPerInsert: Math.round(count / inserts),
      ...(tables === 'null' ? {} : { diskBytesPerRow: await diskBytesPerRow(corpus) }),
      rssPeakMiB: peakMiB(collector.pid()),
      insertedRows: inserted,
      loadAverage: Number((loadavg()[0] ?? 0).toFixed(2)),
    }),
  )
}

async function configWithoutDuplicates(): Promise<string> {
  const path = join(engineDirectory, 'bench.json')
  // A corpus is sent round and round: its repeats are work here and no retries.
  await writeFile(path, JSON.stringify({ deduplicateRequests: false }))
  return path
}

/** Sends the requests and resolves to their latencies. `onAnswered` is told of each answer. */
async function send(
  collector: CollectorProcess,
  corpus: Corpus,
  requests: number,
  onAnswered: (requests: number) => void,
): Promise<number[]> {
  const agent = new Agent({ keepAlive: true, maxSockets: connections })
  const headers = {
    'Content-Type': encoding === 'json' ? 'application/json' : 'application/x-protobuf',
    ...(compression === 'identity' ? {} : { 'Content-Encoding': compression }),
  }
  const latenciesMs: number[] = []
  const port = collector.ports().otlpHttp
  const sendOne = async (number: number, dueMs: number): Promise<void> => {
    const body = corpus.bodies[number % corpus.bodies.length] as Buffer
    await post(agent, port, corpus.path, headers, body)
    latenciesMs.push(performance.now() - dueMs)
    onAnswered(1)
  }
  if (rate === undefined) {
    let next = 0
    const oneAfterAnother = async (): Promise<void> => {
      while (next < requests) await sendOne(next++, performance.now())
    }
    await Promise.all(Array.from({ length: connections }, oneAfterAnother))
  } else {
    await sendAtRate(requests, corpus.options.recordsPerRequest / rate, sendOne)
  }
  agent.destroy()
  return latenciesMs
}

/** Every request at its time, whatever became of those before. */
async function sendAtRate(
  requests: number,
  secondsApart: number,
  sendOne: (number: number, dueMs: number) => Promise<void>,
): Promise<void> {
  const startMs = performance.now()
  const underWay: Promise<void>[] = []
  for (let next = 0; next < requests; ) {
    for (; next < requests && startMs + next * secondsApart * 1000 <= performance.now(); next++) {
      underWay.push(sendOne(next, startMs + next * secondsApart * 1000))
    }
    await setTimeout(1)
  }
  await Promise.all(underWay)
}

/** Compares what was answered with what a reader counts, every 50 ms: how long after its answer a row can be queried. */
function watchRows(corpus: Corpus) {
  const answers: { readonly atMs: number; readonly rows: number }[] = []
  const delays: number[] = []
  let answeredRows = 0
  let seen = 0
  let isEnded = false
  const counted = async (): Promise<number> => {
    const [row] = await clickhouse.query<{ rows: string }>(
      "SELECT sum(total_rows) AS rows FROM system.tables WHERE database = 'tallylight' AND match(name, {tables:String})",
      { tables: tablesOf[corpus.signal] },
    )
    return Number(row?.rows ?? 0)
  }
  const watching = (async () => {
    const rowsBefore = await counted()
    while (!isEnded || seen < answers.length) {
      const rows = (await counted()) - rowsBefore
      for (; seen < answers.length && (answers[seen]?.rows ?? 0) <= rows; seen++) {
        delays.push(performance.now() - (answers[seen]?.atMs ?? 0))
      }
      await setTimeout(50)
    }
  })()
  return {
    answered: (rows: number) => {
      answeredRows += rows
      answers.push({ atMs: performance.now(), rows: answeredRows })
    },
    delaysMs: async () => {
      isEnded = true
      await watching
      return delays.sort((a, b) => a - b)
    },
    [Symbol.asyncDispose]: async () => {
      isEnded = true
      seen = answers.length
      await watching
    },
  }
}

async function insertsOf(collector: CollectorProcess): Promise<number> {
  return (
    (await collector.metric('tallylight_inserts_total')) -
    (await collector.metric('tallylight_inserts_total', { table: 'otel_traces_trace_id_ts' }))
  )
}

async function diskBytesPerRow(corpus: Corpus): Promise<number> {
  const [parts] = await clickhouse.query<{ bytes: string; rows: string }>(
    'SELECT sum(bytes_on_disk) AS bytes, sum(rows) AS rows FROM system.parts WHERE active AND database = {database:String} AND match(table, {tables:String})',
    { database: 'tallylight', tables: tablesOf[corpus.signal] },
  )
  return Number((Number(parts?.bytes ?? 0) / Number(parts?.rows ?? 1)).toFixed(1))
}

function quantile(sorted: readonly number[], share: number): number {
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? 0
}

function post(
  agent: Agent,
  port: number,
  path: string,
  headers: Readonly<Record<string, string>>,
  body: Buffer,
): Promise<void> {
  return new Promise((resolve, reject) => {
    const call = request(
      { agent, host: '127.0.0.1', port, path, method: 'POST', headers: { ...headers, 'Content-Length': body.length } },
      (response) => {
        response.resume()
        response.on('end', () =>
          response.statusCode === 200 ? resolve() : reject(new Error(`answered ${response.statusCode}`)),
        )
      },
    )
    call.on('error', reject)
    call.end(body)
  })
}

/** User and system time of all the process's threads, from /proc. */
function cpuSeconds(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]?.split(' ') ?? []
  return (Number(fields[11]) + Number(fields[12])) / ticksPerSecond
}

function peakMiB(pid: number): number {
  return Math.round(Number(/VmHWM:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1] ?? 0) / 1024)
}
