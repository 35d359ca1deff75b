// `npm run bench:rivals -- --binary PATH`: the corpora of bench:ingest through another collector, given as a binary, into the
// same ClickHouse endpoint and the same Null tables: `otelcol-contrib` (its clickhouse exporter, batches in the sending
// queue, in memory) or `rotel`. With --tables real otelcol makes its own. Its CPU is counted alone, after a tenth of the work
// to warm up. Neither syncs a disk before it answers, as the collector here does.
//
// Rows are counted by what the engine took, so a collector that drops under pressure is seen.
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { createWriteStream } from 'node:fs'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { loadavg, tmpdir } from 'node:os'
import { basename, join, resolve } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { type ClickHouse, openClickHouse } from '@tallylight/storage/clickhouse/client.ts'
import { type EmbeddedClickHouse, startEmbeddedClickHouse } from '@tallylight/storage/clickhouse/embedded.ts'
import { freePort } from '@tallylight/storage/free-port.ts'
import { buildCorpus, type CorpusName, corpusTime, usualRecords } from './corpora.ts'
import { inDecodings, openDecoding } from './decoding.ts'
import { makeNullTables } from './ingest-run.ts'
import { quantile, sendLoad } from './load.ts'
import { cpuSeconds, pinApart, rssPeakMiB } from './machine.ts'

const names = Object.keys(usualRecords) as CorpusName[]
const { values } = parseArgs({
  options: {
    binary: { type: 'string', default: '' },
    corpus: { type: 'string', multiple: true, default: ['web'] },
    records: { type: 'string', default: '1000000' },
    connections: { type: 'string', default: '4' },
    compression: { type: 'string', default: 'gzip' },
    tables: { type: 'string', default: 'null' },
  },
})
const binary = resolve(values.binary)
const isRotel = basename(binary).startsWith('rotel')
const records = Number(values.records)
const connections = Number(values.connections)
const compression = (['gzip', 'zstd', 'identity'] as const).find((each) => each === values.compression)
const corpora = values.corpus.flatMap((name) => names.filter((each) => each === name))
const isReal = values.tables === 'real'
if (
  values.binary === '' ||
  compression === undefined ||
  corpora.length < values.corpus.length ||
  !(records >= 1 && connections >= 1) ||
  (isReal && isRotel)
) {
  console.error(
    `usage: npm run bench:rivals -- --binary PATH_OF_OTELCOL_CONTRIB_OR_ROTEL [--corpus ${names.join('|')}]… [--records N] [--connections N] [--compression gzip|zstd|identity] [--tables null|real (otelcol)]`,
  )
  process.exit(2)
}

/** A rival that brings nothing more for this long, and has not brought everything, has dropped the rest. */
const quietMsMax = 15_000
const readyMsMax = 30_000
const database = 'tallylight'

await using stack = new AsyncDisposableStack()
const directory = await mkdtemp(join(tmpdir(), 'tallylight-rivals-'))
stack.defer(() => rm(directory, { recursive: true, force: true }))
const engine = stack.use(await startEmbeddedClickHouse({ directory, port: 0, log: () => undefined }))
const { url, user, password } = engine
const clickhouse = stack.use(openClickHouse({ url, user, password, database }))
if (isReal) await clickhouse.command(`CREATE DATABASE ${database}`)
else await makeNullTables(clickhouse)
const decoding = openDecoding()
const version = spawnSync(binary, ['--version'], { encoding: 'utf8' }).stdout.trim()
for (const corpus of corpora) console.log(JSON.stringify(await measure(corpus, compression)))

async function measure(name: CorpusName, contentEncoding: 'gzip' | 'zstd' | 'identity') {
  const recordsPerRequest = usualRecords[name]
  const requests = Math.ceil(records / recordsPerRequest)
  const warmUp = Math.ceil(requests / 10)
  const corpus = buildCorpus(name, {
    requests: Math.min(requests, 300),
    recordsPerRequest,
    seed: 1,
    encoding: 'protobuf',
    contentEncoding,
    nowUnixNano: corpusTime(),
  })
  await using rival = await startRival(engine)
  const pid = rival.child.pid ?? 0
  pinApart(pid, process.pid)
  const load = { corpus, port: rival.port, connections }
  const insertedBefore = await insertedRows(clickhouse)
  await sendLoad({ ...load, requests: warmUp })
  await untilInserted(insertedBefore + warmUp * recordsPerRequest)
  const decodingBefore = decoding.measure()
  const before = { cpu: cpuSeconds(pid), inserted: await insertedRows(clickhouse) }
  const startedMs = performance.now()
  const latenciesMs = await sendLoad({ ...load, requests })
  const seconds = (performance.now() - startedMs) / 1000
  const sent = requests * recordsPerRequest
  const inserted = (await untilInserted(before.inserted + sent)) - before.inserted
  const cpu = cpuSeconds(pid) - before.cpu
  const decodingAfter = decoding.measure()
  return {
    rival: version,
    corpus: name,
    corpusSha256: corpus.sha256.slice(0, 16),
    compression: contentEncoding,
    tables: values.tables,
    records: sent,
    insertedRows: inserted,
    recordsPerRequest,
    connections,
    cpuSecondsPerMillion: Number(((cpu / sent) * 1e6).toFixed(3)),
    ...inDecodings((cpu / sent) * 1e6, decodingBefore, decodingAfter),
    recordsPerSecond: Math.round(sent / seconds),
    ackP50Ms: Number(quantile(latenciesMs, 0.5).toFixed(2)),
    ackP99Ms: Number(quantile(latenciesMs, 0.99).toFixed(2)),
    rssPeakMiB: rssPeakMiB(pid),
    loadAverage: Number((loadavg()[0] ?? 0).toFixed(2)),
  }
}

/** Rows that the engine took, into tables of any engine. Views would add theirs; the Null tables have none. */
async function insertedRows(from: ClickHouse): Promise<number> {
  const [row] = await from.query<{ rows: string }>(
    isReal
      ? `SELECT sum(total_rows) AS rows FROM system.tables WHERE database = '${database}' AND name LIKE 'otel%' AND name NOT LIKE '%trace_id_ts%'`
      : "SELECT sum(value) AS rows FROM system.events WHERE event = 'InsertedRows'",
  )
  return Number(row?.rows ?? 0)
}

/** Resolves to what was inserted: as much as wanted, or what there was when nothing more came. */
async function untilInserted(wanted: number): Promise<number> {
  let inserted = await insertedRows(clickhouse)
  for (let sinceMs = performance.now(); inserted < wanted && performance.now() - sinceMs < quietMsMax; ) {
    await setTimeout(100)
    const now = await insertedRows(clickhouse)
    if (now > inserted) sinceMs = performance.now()
    inserted = now
  }
  return inserted
}

async function startRival(target: EmbeddedClickHouse) {
  const [http, grpc, telemetry] = [await freePort(), await freePort(), await freePort()] as const
  const args = isRotel ? rotelArguments(target, http, grpc) : await otelcolArguments(target, http, telemetry)
  const logPath = join(directory, 'rival.log')
  const child: ChildProcess = spawn(binary, args, { stdio: ['ignore', 'pipe', 'pipe'], env: {} })
  const log = createWriteStream(logPath, { flags: 'a' })
  let said = ''
  for (const stream of [child.stdout, child.stderr]) {
    stream?.setEncoding('utf8').on('data', (text: string) => {
      said = (said + text).slice(-4000)
      log.write(text)
    })
  }
  for (const endMs = performance.now() + readyMsMax; ; await setTimeout(100)) {
    if (child.exitCode !== null || performance.now() > endMs) throw new Error(`${binary} did not start:\n${said}`)
    const answered = await fetch(`http://127.0.0.1:${http}/`).catch(() => undefined)
    if (answered !== undefined) break
  }
  return {
    child,
    port: http,
    [Symbol.asyncDispose]: async () => {
      child.kill('SIGTERM')
      if (child.exitCode === null) await once(child, 'exit')
      log.end()
    },
  }
}

function rotelArguments({ port }: EmbeddedClickHouse, http: number, grpc: number): readonly string[] {
  return [
    'start',
    `--otlp-http-endpoint=127.0.0.1:${http}`,
    `--otlp-grpc-endpoint=127.0.0.1:${grpc}`,
    '--exporter=clickhouse',
    `--clickhouse-exporter-endpoint=http://127.0.0.1:${port}`,
    `--clickhouse-exporter-database=${database}`,
    `--clickhouse-exporter-user=${user}`,
    `--clickhouse-exporter-password=${password}`,
    '--clickhouse-exporter-compression=none',
    '--clickhouse-exporter-async-insert=false',
  ]
}

async function otelcolArguments({ port }: EmbeddedClickHouse, http: number, telemetry: number): Promise<string[]> {
  const path = join(directory, 'otelcol.yaml')
  const pipeline = { receivers: ['otlp'], exporters: ['clickhouse'] }
  // JSON is YAML. Batches as its README advises; no compression, on loopback, as the collector here.
  const config = {
    receivers: { otlp: { protocols: { http: { endpoint: `127.0.0.1:${http}`, max_request_body_size: 67_108_864 } } } },
    exporters: {
      clickhouse: {
        endpoint: `http://127.0.0.1:${port}`,
        username: user,
        password,
        database,
        create_schema: isReal,
        compress: 'none',
        async_insert: false,
        timeout: '60s',
        sending_queue: {
          enabled: true,
          queue_size: 200_000,
          sizer: 'items',
          block_on_overflow: true,
          batch: { flush_timeout: '1s', min_size: 50_000 },
        },
      },
    },
    service: {
      pipelines: { traces: pipeline, logs: pipeline, metrics: pipeline },
      telemetry: {
        metrics: { readers: [{ pull: { exporter: { prometheus: { host: '127.0.0.1', port: telemetry } } } }] },
      },
    },
  }
  await writeFile(path, JSON.stringify(config))
  return ['--config', path]
}
