// `npm run bench:tenants`: what one tenant's flood does to another's answers. A steady tenant sends at its times, whether or
// not the requests before were answered, and its latencies count from the time a request should have left; beside it, in
// every other phase, a flooding tenant with limits of its own sends as fast as it is answered and heeds no Retry-After.
// Phases go alone, flooded, flooded, alone, so that a slow minute of the machine hits both. One JSON line.
//
// The collector is pinned to one core and the senders to the other, the flood at the lowest priority: what is measured is
// how long the collector takes, not how long a sender waits for its turn.
import { type ChildProcess, fork, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { Agent, request } from 'node:http'
import { cpus, loadavg, setPriority, tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { type CollectorProcess, startCollector } from '../collector-process.ts'
import { buildCorpus } from './corpora.ts'

type Statuses = Record<number, number>
type Target = { readonly port: number; readonly key: string; readonly bodies: readonly Buffer[] }

type Phase = {
  readonly p50Ms: number
  readonly p99Ms: number
  /** Of one core, the collector’s own process. */
  readonly cpuShare: number
}

export type Fairness = {
  readonly requestsPerPhase: number
  readonly alone: Phase
  readonly flooded: Phase
  readonly p99Ratio: number
  readonly steadyStatuses: Statuses
  readonly floodRequestsPerSecond: number
  readonly floodStatuses: Statuses
}

const programPath = fileURLToPath(import.meta.url)
const floodRecords = 512
const steadyRecords = 50

export async function measureFairness(options: {
  readonly rounds: number
  readonly secondsPerPhase: number
  readonly requestsPerSecond: number
  readonly connections: number
  readonly recordsPerSecond: number
}): Promise<Fairness> {
  const directory = await mkdtemp(join(tmpdir(), 'tallylight-bench-'))
  await using stack = new AsyncDisposableStack()
  stack.defer(() => rm(directory, { recursive: true, force: true }))
  const configPath = join(directory, 'config.json')
  const rates = {
    flood: { recordsPerSecond: options.recordsPerSecond, bytesPerSecond: options.recordsPerSecond * 100 },
  }
  // A corpus is sent round and round: its repeats are work here and no retries.
  await writeFile(configPath, JSON.stringify({ deduplicateRequests: false, ingestLimits: { tenants: rates } }))
  const collector = stack.use(await startCollector({ TALLYLIGHT_CONFIG: configPath }))
  const steady = {
    port: collector.ports().otlpHttp,
    key: await makeKey(collector, 'steady'),
    bodies: bodiesOf(steadyRecords),
  }
  const flood = fork(programPath, ['flood'], { execArgv: ['--disable-warning=ExperimentalWarning'] })
  stack.defer(async () => {
    const ended = once(flood, 'exit')
    flood.kill()
    await ended
  })
  const floodKey = await makeKey(collector, 'flood')
  pin(collector, flood)
  await told(flood, { kind: 'open', port: steady.port, key: floodKey, connections: options.connections })

  const latenciesMs = { alone: [] as number[], flooded: [] as number[] }
  const cpuSeconds = { alone: 0, flooded: 0 }
  const steadyStatuses: Statuses = {}
  const floodStatuses: Statuses = {}
  const requests = Math.ceil(options.secondsPerPhase * options.requestsPerSecond)
  await sendAtTimes(steady, requests, options.requestsPerSecond, {})
  for (let round = 0; round < options.rounds; round++) {
    for (const phase of ['alone', 'flooded', 'flooded', 'alone'] as const) {
      if (phase === 'flooded') await told(flood, { kind: 'start' })
      const cpuBefore = await cpuOf(collector)
      latenciesMs[phase].push(...(await sendAtTimes(steady, requests, options.requestsPerSecond, steadyStatuses)))
      cpuSeconds[phase] += (await cpuOf(collector)) - cpuBefore
      if (phase === 'alone') continue
      const { statuses } = (await told(flood, { kind: 'stop' })) as { readonly statuses: Statuses }
      for (const [status, count] of Object.entries(statuses)) add(floodStatuses, Number(status), count)
    }
  }
  const alone = quantiles(latenciesMs.alone)
  const flooded = quantiles(latenciesMs.flooded)
  const floodRequests = Object.values(floodStatuses).reduce((sum, count) => sum + count, 0)
  const phasesSeconds = options.rounds * 2 * options.secondsPerPhase
  const share = (seconds: number): number => Number((seconds / phasesSeconds).toFixed(2))
  return {
    requestsPerPhase: requests,
    alone: { ...quantiles(latenciesMs.alone), cpuShare: share(cpuSeconds.alone) },
    flooded: { ...quantiles(latenciesMs.flooded), cpuShare: share(cpuSeconds.flooded) },
    p99Ratio: Number((flooded.p99Ms / alone.p99Ms).toFixed(2)),
    steadyStatuses,
    floodRequestsPerSecond: Math.round(floodRequests / phasesSeconds),
    floodStatuses,
  }
}

function pin(collector: CollectorProcess, flood: ChildProcess): void {
  setPriority(flood.pid ?? 0, 19)
  if (cpus().length < 2) return
  spawnSync('taskset', ['-a', '-cp', '0', String(collector.pid())])
  for (const pid of [process.pid, flood.pid]) spawnSync('taskset', ['-a', '-cp', '1', String(pid)])
}

async function cpuOf(collector: CollectorProcess): Promise<number> {
  return collector.metric('process_cpu_seconds_total')
}

function bodiesOf(recordsPerRequest: number): readonly Buffer[] {
  return buildCorpus('web', {
    requests: 50,
    recordsPerRequest,
    seed: 1,
    encoding: 'protobuf',
    contentEncoding: 'gzip',
    nowUnixNano: BigInt(Date.now()) * 1_000_000n,
  }).bodies
}

async function makeKey(collector: CollectorProcess, tenant: string): Promise<string> {
  const response = await fetch(`http://127.0.0.1:${collector.ports().api}/api/v1/keys`, {
    method: 'POST',
    headers: { Authorization: `Bearer ${collector.adminKey}`, 'Content-Type': 'application/json' },
    body: JSON.stringify({ tenant, roles: ['ingest'] }),
  })
  return ((await response.json()) as { readonly key: string }).key
}

/** Every request at its time, whatever became of those before. */
async function sendAtTimes(target: Target, requests: number, perSecond: number, statuses: Statuses): Promise<number[]> {
  const agent = new Agent({ keepAlive: true })
  const latenciesMs: number[] = []
  const startMs = performance.now()
  const sendOne = async (number: number): Promise<void> => {
    add(statuses, await post(agent, target, number), 1)
    latenciesMs.push(performance.now() - (startMs + (number / perSecond) * 1000))
  }
  const underWay: Promise<void>[] = []
  while (underWay.length < requests) {
    const dueMs = startMs + (underWay.length / perSecond) * 1000
    if (dueMs > performance.now()) await setTimeout(Math.max(1, dueMs - performance.now()))
    else underWay.push(sendOne(underWay.length))
  }
  await Promise.all(underWay)
  agent.destroy()
  return latenciesMs
}

function post(agent: Agent, { port, key, bodies }: Target, number: number): Promise<number> {
  const body = bodies[number % bodies.length] as Buffer
  const headers = {
    Authorization: `Bearer ${key}`,
    'Content-Type': 'application/x-protobuf',
    'Content-Encoding': 'gzip',
    'Content-Length': body.length,
  }
  return new Promise((resolve, reject) => {
    const call = request(
      { agent, host: '127.0.0.1', port, path: '/v1/traces', method: 'POST', headers },
      (response) => {
        response.resume()
        response.on('end', () => resolve(response.statusCode ?? 0))
        response.on('error', reject)
      },
    )
    call.on('error', reject)
    call.end(body)
  })
}

function add(statuses: Statuses, status: number, count: number): void {
  statuses[status] = (statuses[status] ?? 0) + count
}

function quantiles(latenciesMs: number[]): { readonly p50Ms: number; readonly p99Ms: number } {
  latenciesMs.sort((a, b) => a - b)
  const at = (share: number): number => Number((latenciesMs[Math.floor(latenciesMs.length * share)] ?? 0).toFixed(2))
  return { p50Ms: at(0.5), p99Ms: at(0.99) }
}

// The flooding side, a process of its own.

type FloodOrder =
  | { readonly kind: 'open'; readonly port: number; readonly key: string; readonly connections: number }
  | { readonly kind: 'start' }
  | { readonly kind: 'stop' }

async function told(child: ChildProcess, order: FloodOrder): Promise<unknown> {
  child.send(order)
  const [answer] = await once(child, 'message')
  return answer
}

function floodAsTold(): void {
  const bodies = bodiesOf(floodRecords)
  let target: Target | undefined
  let connections = 0
  let isFlooding = false
  let statuses: Statuses = {}
  let flooding: Promise<unknown> = Promise.resolve()
  const agent = new Agent({ keepAlive: true })
  async function oneAfterAnother(to: Target, lane: number): Promise<void> {
    for (let number = lane; isFlooding; number++) add(statuses, await post(agent, to, number), 1)
  }
  process.on('message', async (order: FloodOrder) => {
    if (order.kind === 'open') {
      target = { port: order.port, key: order.key, bodies }
      connections = order.connections
    } else if (order.kind === 'start') {
      isFlooding = true
      statuses = {}
      const to = target as Target
      flooding = Promise.all(Array.from({ length: connections }, (_, lane) => oneAfterAnother(to, lane)))
    } else {
      isFlooding = false
      await flooding
    }
    process.send?.({ statuses })
  })
}

if (process.argv[1] === programPath) {
  if (process.argv[2] === 'flood') floodAsTold()
  else {
    const { values } = parseArgs({
      options: {
        rounds: { type: 'string', default: '4' },
        seconds: { type: 'string', default: '5' },
        rate: { type: 'string', default: '100' },
        connections: { type: 'string', default: '32' },
        limit: { type: 'string', default: '10000' },
      },
    })
    if (Object.values(values).some((text) => !(Number(text) > 0))) {
      console.error(
        'usage: npm run bench:tenants -- [--rounds N] [--seconds PER_PHASE] [--rate REQUESTS_PER_SECOND] [--connections OF_THE_FLOOD] [--limit RECORDS_PER_SECOND_OF_THE_FLOOD]',
      )
      process.exit(2)
    }
    const result = await measureFairness({
      rounds: Number(values.rounds),
      secondsPerPhase: Number(values.seconds),
      requestsPerSecond: Number(values.rate),
      connections: Number(values.connections),
      recordsPerSecond: Number(values.limit),
    })
    console.log(JSON.stringify({ ...result, loadAverage: Number((loadavg()[0] ?? 0).toFixed(2)) }))
  }
}
