// A collector as its users run it: a process of its own, on free ports and a directory of its own, that can be stopped,
// killed and started again where it was.
import { type ChildProcess, spawn } from 'node:child_process'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { request } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import type { Config } from '@tallylight/collector/environment.ts'
import { freePort } from '@tallylight/storage/free-port.ts'

export type Ports = Config['ports']

export type CollectorProcess = {
  readonly directory: string
  readonly adminKey: string
  ports(): Ports
  pid(): number
  /** Rows of a query, asked as a reader with the admin key. */
  query<Row>(sql: string): Promise<readonly Row[]>
  metric(name: string, labels?: Readonly<Record<string, string>>): Promise<number>
  /** Resolves when the sums of the books say that nothing is on its way any more. */
  drained(): Promise<void>
  kill(signal: 'SIGKILL' | 'SIGTERM'): Promise<void>
  /** Resolves when the process has ended, by itself or not. */
  ended(): Promise<void>
  /** Starts again on the same directory and the same ports. */
  start(): Promise<void>
  log(): string
  [Symbol.asyncDispose](): Promise<void>
}

const mainPath = fileURLToPath(new URL('../collector/main.ts', import.meta.url))
const faultPointsUrl = new URL('./faults/fault-points.ts', import.meta.url).href
const readyMsMax = 60_000
/** As start.mjs gives them. */
const nodeOptions = ['--disable-warning=ExperimentalWarning', '--max-semi-space-size=16']
/** Of start.mjs. */
const compiledPath = process.env.NODE_COMPILE_CACHE

export async function startCollector(
  environment: Readonly<Record<string, string>> = {},
  options: {
    /** Where its data directory is made; the folder for temporary files, unless it says otherwise. */
    readonly volume?: string
    /** The file of the plan for fault-points.ts. */
    readonly faultPlan?: string
    /** Another checkout of the project, whose collector is run. */
    readonly checkout?: string | undefined
  } = {},
): Promise<CollectorProcess> {
  const directory = await mkdtemp(join(options.volume ?? tmpdir(), 'tallylight-test-'))
  const programPath = options.checkout === undefined ? mainPath : join(options.checkout, 'collector', 'main.ts')
  let child: ChildProcess | undefined
  let ports: Ports | undefined
  let said = ''

  async function start(): Promise<void> {
    const fixed: Record<string, string> = {}
    const names = {
      OTLP_GRPC_PORT: ports?.otlpGrpc,
      OTLP_HTTP_PORT: ports?.otlpHttp,
      API_PORT: ports?.api,
      CLICKHOUSE_PORT: ports?.clickhouse,
      POSTGRES_PORT: ports?.postgres,
      PROXY_PORT: ports?.proxy,
    }
    // Of those that stay free while it is away.
    for (const [name, port] of Object.entries(names)) fixed[`TALLYLIGHT_${name}`] = String(port ?? (await freePort()))
    const faults = options.faultPlan === undefined ? [] : ['--import', faultPointsUrl]
    const started = spawn(process.execPath, [...nodeOptions, ...faults, programPath], {
      env: {
        PATH: process.env.PATH ?? '',
        ...(compiledPath === undefined ? {} : { NODE_COMPILE_CACHE: compiledPath }),
        ...fixed,
        TALLYLIGHT_DATA_DIR: directory,
        // Tests count what they sent; those of the self check say so.
        TALLYLIGHT_SELF_CHECK_MS: '0',
        ...(options.faultPlan === undefined ? {} : { FAULT_PLAN: options.faultPlan }),
        ...environment,
      },
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    child = started
    started.stderr?.setEncoding('utf8').on('data', (text: string) => {
      said += text
    })
    await new Promise<void>((resolve, reject) => {
      const timer = setTimeout(
        () => reject(new Error(`the collector was not ready in time:\n${said.slice(-4000)}`)),
        readyMsMax,
      )
      started.once('exit', (code, signal) => {
        clearTimeout(timer)
        reject(new Error(`the collector ended (${signal ?? code}):\n${said.slice(-4000)}`))
      })
      createInterface({ input: started.stdout as NodeJS.ReadableStream }).on('line', (line) => {
        said += `${line}\n`
        if (!line.includes('"msg":"tallylight is ready"')) return
        clearTimeout(timer)
        resolve()
      })
    })
    const run = JSON.parse(await readFile(join(directory, 'run.json'), 'utf8')) as { readonly ports: Ports }
    ports = run.ports
  }

  async function kill(signal: 'SIGKILL' | 'SIGTERM'): Promise<void> {
    child?.kill(signal)
    await ended()
  }

  async function ended(): Promise<void> {
    const running = child
    if (running === undefined || running.exitCode !== null || running.signalCode !== null) return
    await new Promise<void>((resolve) => running.once('exit', () => resolve()))
  }

  await start()
  const adminKey = (await readFile(join(directory, 'admin.key'), 'utf8')).trim()
  const portsNow = (): Ports => {
    if (ports === undefined) throw new Error('the collector was never ready')
    return ports
  }

  async function query<Row>(sql: string): Promise<readonly Row[]> {
    const headers = { 'X-ClickHouse-User': 'tallylight', 'X-ClickHouse-Key': adminKey }
    const { status, text } = await ask(portsNow().clickhouse, 'POST', '/?default_format=JSONEachRow', headers, sql)
    if (status !== 200) throw new Error(`${sql}: ${status} ${text}`)
    return text
      .split('\n')
      .filter(Boolean)
      .map((line) => JSON.parse(line) as Row)
  }

  async function metric(name: string, labels: Readonly<Record<string, string>> = {}): Promise<number> {
    const { text } = await ask(portsNow().api, 'GET', '/metrics', {}, '')
    let sum = 0
    for (const line of text.split('\n')) {
      const found = /^(\w+)(?:\{(.*)\})? (\S+)$/.exec(line)
      if (found?.[1] !== name) continue
      if (Object.entries(labels).every(([label, value]) => found[2]?.includes(`${label}="${value}"`))) {
        sum += Number(found[3])
      }
    }
    return sum
  }

  async function drained(): Promise<void> {
    let least = Number.POSITIVE_INFINITY
    let deadline = 0
    for (;;) {
      const waiting = await metric('tallylight_journal_records')
      const segments = await metric('tallylight_journal_segments')
      if (waiting === 0 && segments === 0) return
      // A long backlog may take its time; one that gets no shorter is stuck.
      if (waiting + segments < least) deadline = Date.now() + readyMsMax
      least = Math.min(least, waiting + segments)
      if (Date.now() > deadline)
        throw new Error(`${waiting} records in ${segments} segments still wait:\n${said.slice(-4000)}`)
      await new Promise((resolve) => setTimeout(resolve, 100))
    }
  }

  return {
    directory,
    adminKey,
    ports: portsNow,
    pid: () => child?.pid ?? 0,
    query,
    metric,
    drained,
    kill,
    ended,
    start,
    log: () => said,
    [Symbol.asyncDispose]: async () => {
      await kill('SIGTERM')
      // Of a collector that was killed the engines are nobody's children, and may still be writing their last.
      await rm(directory, { recursive: true, force: true, maxRetries: 50, retryDelay: 100 })
    },
  }
}

/** A connection for each request: one kept from before a kill belongs to a process that is gone. */
function ask(
  port: number,
  method: string,
  path: string,
  headers: Readonly<Record<string, string>>,
  body: string,
): Promise<{ readonly status: number; readonly text: string }> {
  return new Promise((resolve, reject) => {
    const call = request({ host: '127.0.0.1', port, method, path, headers, agent: false }, (response) => {
      let text = ''
      response.setEncoding('utf8')
      response.on('data', (chunk: string) => {
        text += chunk
      })
      response.on('end', () => resolve({ status: response.statusCode ?? 0, text }))
      response.on('error', reject)
    })
    call.on('error', (error) =>
      reject(new Error(`${method} ${path.slice(0, 40)} on port ${port} failed`, { cause: error })),
    )
    call.end(body)
  })
}
