// `npm run bench:backlog`: what a long absence of ClickHouse costs. A backlog of --gigabytes is journalled while the door to
// ClickHouse is shut; the collector is killed and started again on it (scan), then the door opens and the backlog drains into
// real tables while new spans come in at --rate. Prints one JSON line. Bytes are those of the journal.
import { readFileSync } from 'node:fs'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { Agent, request } from 'node:http'
import { loadavg, tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { startEmbeddedClickHouse } from '@tallylight/storage/clickhouse/embedded.ts'
import { startCollector } from '../collector-process.ts'
import { openDoor } from '../faults/door.ts'
import { buildCorpus } from './corpora.ts'

const { values } = parseArgs({ options: { gigabytes: { type: 'string' }, rate: { type: 'string' } } })
const backlogBytes = Number(values.gigabytes ?? 1) * 1e9
const rate = Number(values.rate ?? 20_000)
if (!(backlogBytes > 0) || !(rate >= 0)) {
  console.error('usage: npm run bench:backlog -- [--gigabytes 1] [--rate SPANS_PER_SECOND_WHILE_IT_DRAINS]')
  process.exit(2)
}
const spansPerRequest = 512
const corpus = buildCorpus('web', {
  requests: 100,
  recordsPerRequest: spansPerRequest,
  seed: 1,
  encoding: 'protobuf',
  contentEncoding: 'gzip',
  nowUnixNano: BigInt(Date.now()) * 1_000_000n,
})

const directory = await mkdtemp(join(tmpdir(), 'tallylight-backlog-'))
await using stack = new AsyncDisposableStack()
// Last of all: the engine still merges until it is stopped.
stack.defer(() => rm(directory, { recursive: true, force: true }))
await using engine = await startEmbeddedClickHouse({ directory, port: 0, log: () => undefined })
await using door = await openDoor({ port: engine.port })
const configPath = join(directory, 'bench.json')
await writeFile(configPath, JSON.stringify({ deduplicateRequests: false }))
await using collector = await startCollector({
  TALLYLIGHT_CLICKHOUSE_URL: `http://${engine.user}:${engine.password}@127.0.0.1:${door.port}/tallylight`,
  TALLYLIGHT_CONFIG: configPath,
})
const agent = new Agent({ keepAlive: true, maxSockets: 4 })
let next = 0

await door.shut()
await Promise.all(
  Array.from({ length: 4 }, async () => {
    while ((await collector.metric('tallylight_journal_bytes')) < backlogBytes) {
      for (let at = 0; at < 25; at++) await post()
    }
  }),
)
const journalBytes = await collector.metric('tallylight_journal_bytes')
const records = await collector.metric('tallylight_journal_records')
const rssFilledMiB = peakMiB()

await collector.kill('SIGKILL')
agent.destroy()
const startedMs = performance.now()
await collector.start()
const startSeconds = (performance.now() - startedMs) / 1000
const rssStartedMiB = peakMiB()

await door.open()
const openedMs = performance.now()
let isDraining = true
const sending = (async () => {
  const sender = new Agent({ keepAlive: true, maxSockets: 4 })
  const underWay: Promise<void>[] = []
  for (let sent = 0; isDraining && rate > 0; ) {
    for (; sent * spansPerRequest < ((performance.now() - openedMs) / 1000) * rate; sent++) underWay.push(post(sender))
    await setTimeout(2)
  }
  await Promise.all(underWay)
  sender.destroy()
})()
// Drained when what came before is stored: new spans keep a second's worth in the journal.
while ((await collector.metric('tallylight_stored_records_total')) < records) await setTimeout(100)
const drainSeconds = (performance.now() - openedMs) / 1000
isDraining = false
await sending
await collector.drained()
console.log(
  JSON.stringify({
    journalBytes,
    records,
    rssFilledMiB,
    startSeconds: round(startSeconds),
    scanMegabytesPerSecond: Math.round(journalBytes / 1e6 / startSeconds),
    rssStartedMiB,
    ratePerSecond: rate,
    drainSeconds: round(drainSeconds),
    drainedPerSecond: Math.round(records / drainSeconds),
    rssDrainedMiB: peakMiB(),
    loadAverage: round(loadavg()[0] ?? 0),
  }),
)

function post(through = agent): Promise<void> {
  const body = corpus.bodies[next++ % corpus.bodies.length] as Buffer
  const headers = {
    'Content-Type': corpus.contentType,
    'Content-Encoding': 'gzip',
    'Content-Length': body.length,
  }
  const port = collector.ports().otlpHttp
  return new Promise((resolve, reject) => {
    const call = request(
      { agent: through, host: '127.0.0.1', port, path: corpus.path, method: 'POST', headers },
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

function peakMiB(): number {
  const status = readFileSync(`/proc/${collector.pid()}/status`, 'utf8')
  return Math.round(Number(/VmHWM:\s+(\d+)/.exec(status)?.[1] ?? 0) / 1024)
}

function round(value: number): number {
  return Number(value.toFixed(2))
}
