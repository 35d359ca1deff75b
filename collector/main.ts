// Starts the parts in order and stops them in reverse. The only reader of the environment.
//
// The order is the record's road backwards: what is written to before what writes. The engines may come late or go away;
// the journal takes records meanwhile, so only the journal and the ports must be there before the collector is ready.
import { mkdir, readFile, rm, writeFile } from 'node:fs/promises'
import { hostname } from 'node:os'
import { join, resolve } from 'node:path'
import { setFlagsFromString } from 'node:v8'
import { pino } from 'pino'
import { type ParsedFile, parseConfigFile } from './config.ts'
import { type Config, readConfig } from './environment.ts'
import { limits } from './limits.ts'
import { type MetricExportSettings, readMetricExport } from './metric-export-settings.ts'
import { openMetrics } from './metrics.ts'
import { processSamples } from './process-samples.ts'
import { isLoopback } from './receive/receiver.ts'
import { openCanary } from './self/canary.ts'
import { openReadings } from './self/readings.ts'
import { openOwnSender, openSelfCheck } from './self/self-check.ts'
import { openStartedAccept } from './start/accept.ts'
import { openDoors } from './start/doors.ts'
import { openEngines } from './start/engines.ts'
import { lockJournal, openStartedJournal } from './start/journal.ts'
import { startProbes } from './start/probes.ts'
import { openQuota } from './start/quota.ts'
import { openSinks } from './start/sinks.ts'
import { openLoops, type Start } from './start/start.ts'

const version = '0.1.0'

// V8 lets a heap whose garbage dies young grow by a sixth only: a full collection every second or two of 50,000 spans, and each keeps
// all requests waiting. Twice what lives is less than what the buffers beside it take. Measured (decisions/0001): a seventh less CPU.
setFlagsFromString('--heap-growing-percent=100')

const log = pino({ base: null, timestamp: pino.stdTimeFunctions.isoTime })

/** It was asked to stop before it was ready. */
class StoppedWhileStarting extends Error {}

try {
  await run()
} catch (error) {
  if (error instanceof StoppedWhileStarting) log.info(error.message)
  else {
    log.fatal({ err: error }, 'tallylight could not start')
    process.exitCode = 1
  }
}

async function run(): Promise<void> {
  const [argument] = process.argv.slice(2)
  if (argument !== undefined)
    return refuse([`a collector takes no arguments, and got "${argument}"; commands: tallylight help`])
  const read = readConfig(process.env)
  if (read.kind === 'refused') return refuse(read.reasons)
  const { config } = read
  const text = await readConfigText(config)
  if (text.kind === 'refused') return refuse(text.reasons)
  const file: ParsedFile =
    text.text === undefined ? { kind: 'file', file: {} } : parseConfigFile(text.text, config.configPath)
  if (file.kind === 'refused') return refuse(file.reasons)
  const metricExport = readMetricExport(process.env, (host, port) => isOwnAddress(config, host, port))
  if (metricExport.kind === 'refused') return refuse([metricExport.reason])
  const loops = openLoops(limits.sinkStopMs)
  let isStarting = true
  const stopRequested = new Promise<string>((done) => {
    // Each time: of Ctrl-C the terminal tells everybody, npm and start.mjs pass theirs on, and one that nobody listens to ends us.
    for (const signal of ['SIGTERM', 'SIGINT'] as const)
      process.on(signal, () => {
        done(signal)
        // An engine may take minutes to recover, or never be good: whatever the start waits for ends at this.
        if (isStarting)
          loops.breakOff(new StoppedWhileStarting(`tallylight was told by ${signal} to stop while it started`))
      })
  })

  await using stack = new AsyncDisposableStack()
  const dataDirectory = resolve(config.dataDirectory)
  await mkdir(dataDirectory, { recursive: true, mode: 0o700 })
  const metrics = openMetrics()
  metrics.onRead(() => processSamples(version))
  const start: Start = {
    config,
    file: file.file,
    fileText: text.text,
    dataDirectory,
    version,
    log,
    metrics,
    stack,
    loops,
  }

  const journalDirectory = await lockJournal(start)
  const engines = await openEngines(start)
  loops.signal.throwIfAborted()
  const { journal, giveSealed } = await openStartedJournal(start, journalDirectory)
  const quota = openQuota(start, engines)
  const sinks = openSinks(start, engines, journal, quota)
  giveSealed(sinks.enqueue)
  // Also when a port cannot be had: a loop that goes on would keep the process, and its connections, for ever.
  stack.defer(loops.end)
  if (config.postgresUrl === undefined) await quota.prepared
  await sinks.recalled
  loops.signal.throwIfAborted()

  const { accept, ingestLimits } = openStartedAccept(start, journal, sinks.genai)
  const send = openOwnSender(accept)
  const canary = openCanary({
    send,
    ledger: quota.ledger,
    clickhouse: engines.clickhouse,
    database: engines.database,
    metrics,
    log,
    now: Date.now,
    bounds: { waitMsMax: limits.canaryWaitMsMax, pollMs: limits.canaryPollMs },
  })
  metrics.onRead(canary.samples)
  const origin = { version, instanceId: journal.id, hostName: hostname(), startedUnixMs: performance.timeOrigin }
  const selfCheck = openSelfCheck({
    intervalMs: config.selfCheckMs,
    canary,
    readings: openReadings(origin, metrics.read()),
    metrics,
    send,
    now: Date.now,
    log,
  })
  const doors = await openDoors(start, { engines, quota, sinks, accept, ingestLimits, canary })
  const probes = startProbes(start, engines, accept, journal.id, process.env)
  const exporting = await startExport(start, metricExport, journal.id)
  const { clickhouse, postgres } = engines.embedded
  const ports = {
    otlpGrpc: doors.ports.otlpGrpc,
    otlpHttp: doors.ports.otlpHttp,
    api: doors.ports.api,
    proxy: doors.ports.proxy,
    clickhouse: clickhouse?.port ?? null,
    postgres: postgres?.port ?? null,
  }
  const versions = { tallylight: version, node: process.versions.node, clickhouse: clickhouse?.version ?? null }
  const runPath = join(dataDirectory, 'run.json')
  await writeFile(runPath, `${JSON.stringify({ pid: process.pid, ports, versions }, undefined, 2)}\n`)
  stack.defer(() => rm(runPath, { force: true }))
  loops.signal.throwIfAborted()
  isStarting = false
  doors.setReady(true)
  log.info({ ports, dataDirectory }, 'tallylight is ready')
  const selfCheckRunning = selfCheck.run(loops.signal)

  const signal = await stopRequested
  log.info({ signal }, 'tallylight is stopping')
  doors.setReady(false)
  // Before the ports, one of which may be what it sends to.
  await exporting?.[Symbol.asyncDispose]()
  // Answers first, then the journal, so that what was answered is on the disk; the sink goes on after the next start.
  await Promise.all([doors.stopReceivers(), probes[Symbol.asyncDispose]()])
  await selfCheck.lastWords()
  await journal.stop()
  await loops.end()
  await selfCheckRunning
}

async function startExport(
  { metrics, version, log, stack }: Start,
  settings: Exclude<MetricExportSettings, { kind: 'refused' }>,
  instanceId: string,
): Promise<AsyncDisposable | undefined> {
  if (settings.kind === 'off') {
    if (settings.why !== '') log.info({ why: settings.why }, 'the metrics of the collector are not exported')
    return undefined
  }
  // Loaded only when it is wanted: OpenTelemetry's packages cost 45 MB.
  const { startMetricExport } = await import('./metric-export.ts')
  const count = (outcome: string): void => metrics.add('tallylight_metric_exports_total', { outcome }, 1)
  const exporting = stack.use(startMetricExport({ settings, version, instanceId, read: metrics.read, count, log }))
  log.info({ url: settings.url, intervalMs: settings.intervalMs }, 'the metrics of the collector are exported')
  return exporting
}

function refuse(reasons: readonly string[]): void {
  for (const reason of reasons) log.fatal(reason)
  process.exitCode = 2
}

/** Undefined when there is none and none was named. */
async function readConfigText({
  configPath,
  isConfigNamed,
}: Config): Promise<{ kind: 'text'; text: string | undefined } | { kind: 'refused'; reasons: readonly string[] }> {
  try {
    return { kind: 'text', text: await readFile(configPath, 'utf8') }
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT' && !isConfigNamed) return { kind: 'text', text: undefined }
    return { kind: 'refused', reasons: [`cannot read ${configPath}: ${String(error)}`] }
  }
}

function isOwnAddress({ bind, ports }: Config, host: string, port: number): boolean {
  const isHere =
    host === 'localhost' || isLoopback(host.replace(/^\[|\]$/g, '')) || host === bind || host === hostname()
  return isHere && (port === ports.otlpHttp || port === ports.otlpGrpc)
}
