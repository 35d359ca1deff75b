// One measurement of ingest: a collector of its own, prebuilt requests, fsync before each answer, and ClickHouse in a process
// that is not counted. Warmed up with a tenth of the work, and again until the engine has compiled what is hot; the tables are
// emptied before each run, so that what is said of rows and disk is of this corpus alone.
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { loadavg, tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { type ClickHouse, openClickHouse } from '@tallylight/storage/clickhouse/client.ts'
import { startEmbeddedClickHouse } from '@tallylight/storage/clickhouse/embedded.ts'
import { resolvedTables } from '@tallylight/storage/clickhouse/genai-tables.ts'
import { migrateClickHouse } from '@tallylight/storage/clickhouse/migrate.ts'
import { journalTables, traceTimesTable } from '@tallylight/storage/clickhouse/tables.ts'
import { type CollectorProcess, startCollector } from '../collector-process.ts'
import type { Signal } from '../fuzz/otlp-proto.ts'
import { buildCorpus, type CorpusName, corpusTime, usualRecords } from './corpora.ts'
import { inDecodings, openDecoding } from './decoding.ts'
import { quantile, sendLoad } from './load.ts'
import { cpuSeconds, pinApart, rssPeakMiB } from './machine.ts'

export type IngestJob = {
  readonly corpus: CorpusName
  readonly records: number
  readonly recordsPerRequest?: number | undefined
  readonly connections: number
  readonly encoding: 'protobuf' | 'json'
  readonly compression: 'gzip' | 'zstd' | 'identity'
  /** Records per second. */
  readonly rate?: number | undefined
  /** The collector on one core, this process on the other: to count the collector alone, not to share a machine. */
  readonly isPinned: boolean
  /** Of the collector, before anything is counted. */
  readonly warmUpCpuSeconds: number
  readonly checkout?: string | undefined
}

export type IngestResult = Readonly<Record<string, unknown>> & {
  readonly records: number
  readonly cpuSecondsPerMillion: number
  readonly ackP99Ms: number
}

export type Bench = {
  measure(job: IngestJob): Promise<IngestResult>
  [Symbol.asyncDispose](): Promise<void>
}

/** A corpus is this many bodies, sent round and round. */
const bodiesMax = 300

export async function openBench(tables: 'null' | 'real', masking: 'on' | 'off' = 'on'): Promise<Bench> {
  await using opening = new AsyncDisposableStack()
  const directory = await mkdtemp(join(tmpdir(), 'tallylight-bench-'))
  opening.defer(() => rm(directory, { recursive: true, force: true }))
  const engine = opening.use(await startEmbeddedClickHouse({ directory, port: 0, log: () => undefined }))
  const { url, user, password } = engine
  const clickhouse = opening.use(openClickHouse({ url, user, password, database: 'tallylight' }))
  if (tables === 'null') await makeNullTables(clickhouse)
  else await migrateClickHouse(clickhouse)
  const configPath = join(directory, 'bench.json')
  // A corpus is sent round and round: its repeats are work here and no retries.
  // A build from before masking refuses its name.
  const masked = masking === 'on' ? {} : { masking: { secrets: false } }
  await writeFile(configPath, JSON.stringify({ deduplicateRequests: false, ...masked }))
  const stack = opening.move()
  const decoding = openDecoding()

  async function measure(job: IngestJob): Promise<IngestResult> {
    const recordsPerRequest = job.recordsPerRequest ?? usualRecords[job.corpus]
    const requests = Math.ceil(job.records / recordsPerRequest)
    const corpus = buildCorpus(job.corpus, {
      requests: Math.min(requests, bodiesMax),
      recordsPerRequest,
      seed: 1,
      encoding: job.encoding,
      contentEncoding: job.compression,
      nowUnixNano: corpusTime(),
    })
    await using collector = await startCollector(
      {
        TALLYLIGHT_CLICKHOUSE_URL: `http://${user}:${password}@127.0.0.1:${engine.port}/tallylight`,
        TALLYLIGHT_CONFIG: configPath,
      },
      { checkout: job.checkout },
    )
    if (job.isPinned) pinApart(collector.pid(), process.pid)
    const load = { corpus, port: collector.ports().otlpHttp, connections: job.connections, rate: job.rate }
    const coldCpu = cpuSeconds(collector.pid())
    do await sendLoad({ ...load, requests: Math.ceil(requests / 10) })
    while (cpuSeconds(collector.pid()) - coldCpu < job.warmUpCpuSeconds)
    await collector.drained()
    if (tables === 'real') await emptyTables(clickhouse)
    const decodingBefore = decoding.measure()
    const insertsBefore = await insertsOf(collector)
    const cpuBefore = cpuSeconds(collector.pid())
    await using watch = job.rate === undefined || tables === 'null' ? undefined : watchRows(clickhouse, corpus.signal)
    const startedMs = performance.now()
    const latenciesMs = await sendLoad({ ...load, requests, onAnswered: (records) => watch?.answered(records) })
    const seconds = (performance.now() - startedMs) / 1000
    await collector.drained()
    const cpu = cpuSeconds(collector.pid()) - cpuBefore
    const decodingAfter = decoding.measure()
    const records = requests * recordsPerRequest
    const inserts = (await insertsOf(collector)) - insertsBefore
    const queryableMs = await watch?.delaysMs()
    return {
      corpus: job.corpus,
      corpusSha256: corpus.sha256.slice(0, 16),
      encoding: job.encoding,
      compression: job.compression,
      tables,
      masking,
      records,
      recordsPerRequest,
      connections: job.connections,
      cpuSecondsPerMillion: round((cpu / records) * 1e6, 3),
      ...inDecodings((cpu / records) * 1e6, decodingBefore, decodingAfter),
      cpuMicrosecondsPerRequest: round((cpu / requests) * 1e6, 1),
      recordsPerSecond: Math.round(records / seconds),
      ackP50Ms: round(quantile(latenciesMs, 0.5), 2),
      ackP99Ms: round(quantile(latenciesMs, 0.99), 2),
      ...(job.rate === undefined ? {} : { ratePerSecond: job.rate }),
      ...(queryableMs === undefined ? {} : { queryableP99Ms: Math.round(quantile(queryableMs, 0.99)) }),
      insertsPerSecond: round(inserts / seconds, 2),
      rowsPerInsert: Math.round(records / inserts),
      ...(tables === 'null' ? {} : await describeTables(clickhouse, corpus.signal, seconds)),
      rssPeakMiB: rssPeakMiB(collector.pid()),
      loadAverage: round(loadavg()[0] ?? 0, 2),
    }
  }

  return { measure, [Symbol.asyncDispose]: () => stack.disposeAsync() }
}

/** The tables of the migrations with the engine Null: what they cost is ClickHouse's and not ours. */
/** The schema, and then Null in the place of every table: migrations that are applied are not made again. */
export async function makeNullTables(clickhouse: ClickHouse): Promise<void> {
  await migrateClickHouse(clickhouse)
  for (const { name, columns } of [...journalTables, traceTimesTable, ...resolvedTables]) {
    const list = columns.map(([column, type]) => `\`${column}\` ${type}`).join(', ')
    await clickhouse.command(`DROP TABLE tallylight.${name} SYNC SETTINGS check_table_dependencies = 0`)
    await clickhouse.command(`CREATE TABLE tallylight.${name} (${list}) ENGINE = Null`)
  }
}

async function emptyTables(clickhouse: ClickHouse): Promise<void> {
  for (const { name } of [...journalTables, traceTimesTable]) {
    await clickhouse.command(`TRUNCATE TABLE tallylight.${name}`)
  }
}

/** Where a signal's records go, one row each. */
function tablesOf(signal: Signal): readonly string[] {
  const prefix = `otel_${signal}`
  return journalTables.map(({ name }) => name).filter((name) => name === prefix || name.startsWith(`${prefix}_`))
}

/** What is in each table: its rows, the size and number of its inserts (each segment's rows of a day came as one), bytes on
 *  the disk, and a hash of the rows without their times, which differ from run to run. */
async function describeTables(clickhouse: ClickHouse, signal: Signal, seconds: number) {
  const insertRows: Record<string, number> = {}
  const partsPerSecond: Record<string, number> = {}
  const diskBytesPerRow: Record<string, number> = {}
  let resultHash = 0n
  for (const name of tablesOf(signal)) {
    const [found] = await clickhouse.query<{ rows: string; hash: string; inserts: number; median: number }>(
      `SELECT sum(ofOne) AS rows, toString(sum(hash)) AS hash, toUInt32(count()) AS inserts, median(ofOne) AS median
       FROM (SELECT count() AS ofOne, sum(cityHash64(* EXCEPT 'Segment|Time')) AS hash FROM tallylight.${name} GROUP BY Segment)`,
    )
    const rows = Number(found?.rows ?? 0)
    if (rows === 0) continue
    const [parts] = await clickhouse.query<{ bytes: string; rows: string }>(
      'SELECT sum(bytes_on_disk) AS bytes, sum(rows) AS rows FROM system.parts WHERE active AND database = {database:String} AND table = {name:String}',
      { database: 'tallylight', name },
    )
    insertRows[name] = Math.round(found?.median ?? 0)
    partsPerSecond[name] = round((found?.inserts ?? 0) / seconds, 2)
    diskBytesPerRow[name] = round(Number(parts?.bytes) / Number(parts?.rows), 1)
    resultHash = BigInt.asUintN(64, resultHash * 31n + BigInt(found?.hash ?? 0))
  }
  return {
    medianInsertRows: insertRows,
    partsPerSecond,
    diskBytesPerRow,
    resultHash: resultHash.toString(16).padStart(16, '0'),
  }
}

/** Compares what was answered with what a reader counts, every 50 ms: how long after its answer a row can be queried. */
function watchRows(clickhouse: ClickHouse, signal: Signal) {
  const answers: { readonly atMs: number; readonly rows: number }[] = []
  const delays: number[] = []
  let answeredRows = 0
  let seen = 0
  let isEnded = false
  const counted = async (): Promise<number> => {
    const [row] = await clickhouse.query<{ rows: string }>(
      "SELECT sum(total_rows) AS rows FROM system.tables WHERE database = 'tallylight' AND name IN {tables:Array(String)}",
      { tables: tablesOf(signal) },
    )
    return Number(row?.rows ?? 0)
  }
  const watching = (async () => {
    while (!isEnded || seen < answers.length) {
      const rows = await counted()
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

function round(value: number, digits: number): number {
  return Number(value.toFixed(digits))
}
