// Starts the parts in order and stops them in reverse. The only reader of the environment.
//
// The order is the record's road backwards: what is written to before what writes. The engines may come late or go away;
// the journal takes records meanwhile, so only the journal and the ports must be there before the collector is ready.
import { mkdir, readFile, rm, writeFile } from 'node:fs/promises'
import { hostname } from 'node:os'
import { join, resolve } from 'node:path'
import { type ClickHouse, insertSettings, openClickHouse } from '@tallylight/storage/clickhouse/client.ts'
import { type EmbeddedClickHouse, startEmbeddedClickHouse } from '@tallylight/storage/clickhouse/embedded.ts'
import { type Login, migrateClickHouse } from '@tallylight/storage/clickhouse/migrate.ts'
import { type TargetTable, verifySchema } from '@tallylight/storage/clickhouse/schema.ts'
import { openPool, withConnection } from '@tallylight/storage/postgres/connection.ts'
import { type EmbeddedPostgres, startEmbeddedPostgres } from '@tallylight/storage/postgres/embedded.ts'
import { migratePostgres } from '@tallylight/storage/postgres/migrate.ts'
import { ensurePrivateFile } from '@tallylight/storage/private-file.ts'
import type pg from 'pg'
import { pino } from 'pino'
import { openAdministration } from './administration/administration.ts'
import { administrationRoutes } from './api/administration.ts'
import { openApi } from './api/server.ts'
import { openStatePage } from './api/state.ts'
import {
  type Config,
  type ConfigFile,
  contentPolicyOf,
  failurePolicyOf,
  maskingOf,
  parseConfigFile,
  readConfig,
  retentionDaysOf,
} from './config.ts'
import { watchFile } from './file-watch.ts'
import { openGenAi } from './genai/genai.ts'
import { type OwnPrice, openPrices } from './genai/price.ts'
import { diskFiles } from './journal/files.ts'
import { type Journal, openJournal, type SealedSegment } from './journal/journal.ts'
import { lockDirectory } from './journal/lock.ts'
import { journalSamples } from './journal/samples.ts'
import { limits } from './limits.ts'
import { openRequestMask } from './masking/request-mask.ts'
import { readMetricExport } from './metric-export-settings.ts'
import { type Metrics, openMetrics, renderPrometheus } from './metrics.ts'
import type { WalkTally } from './otlp/walk.ts'
import { processSamples } from './process-samples.ts'
import { openFailurePolicies } from './quota/failure-policy.ts'
import { openQuotaHttp } from './quota/http.ts'
import { openLedger } from './quota/ledger.ts'
import { type LimitBook, openLimitBook } from './quota/limit-book.ts'
import { limitOf } from './quota/limits.ts'
import { openReconciler } from './quota/reconcile.ts'
import { quotaSamples } from './quota/samples.ts'
import { runWebhook } from './quota/webhook.ts'
import { openAccept } from './receive/accept.ts'
import type { RefusalCounter } from './receive/admission.ts'
import { openBodies } from './receive/bodies.ts'
import { openDuplicateWindow } from './receive/duplicates.ts'
import { openInflate } from './receive/inflate.ts'
import { openIngestLimits } from './receive/ingest-limits.ts'
import { defaultTenant } from './receive/key-rules.ts'
import { type Keyring, makeKey, openKeyring, registerKey } from './receive/keys.ts'
import { openOtlpGrpc } from './receive/otlp-grpc.ts'
import { openOtlpHttp } from './receive/otlp-http.ts'
import { after, isLoopback } from './receive/receiver.ts'
import { parseTenantId, type Signal } from './receive/request.ts'
import { openTlsFiles } from './receive/tls.ts'
import { openCanary } from './self/canary.ts'
import { openReadings } from './self/readings.ts'
import { openOwnSender, openSelfCheck } from './self/self-check.ts'
import { openClickHouseSink } from './sinks/clickhouse.ts'
import { factsIn } from './sinks/known-facts.ts'
import { openLedgerSink } from './sinks/ledger.ts'
import { openRemovals } from './sinks/removal.ts'
import { recordedCallsOf } from './sinks/usage-of-calls.ts'

const version = '0.1.0'
const log = pino({ base: null, timestamp: pino.stdTimeFunctions.isoTime })

try {
  await run()
} catch (error) {
  log.fatal({ err: error }, 'tallylight could not start')
  process.exitCode = 1
}

async function run(): Promise<void> {
  const read = readConfig(process.env)
  if (read.kind === 'refused') return refuse(read.reasons)
  const { config } = read
  const file = await readFileConfig(config)
  if (file.kind === 'refused') return refuse(file.reasons)
  const metricExport = readMetricExport(process.env, (host, port) => isOwnAddress(config, host, port))
  if (metricExport.kind === 'refused') return refuse([metricExport.reason])
  const dataDirectory = resolve(config.dataDirectory)
  const stopping = new AbortController()
  const stopRequested = new Promise<string>((done) => {
    for (const signal of ['SIGTERM', 'SIGINT'] as const) process.once(signal, () => done(signal))
  })

  await using stack = new AsyncDisposableStack()
  await mkdir(dataDirectory, { recursive: true, mode: 0o700 })
  const journalDirectory = join(dataDirectory, 'journal')
  await diskFiles.makeDirectory(journalDirectory)
  stack.use(await lockDirectory(journalDirectory, `process ${process.pid} on ${hostname()}`))

  const metrics = openMetrics()
  const engineLog = (level: 'info' | 'warn' | 'error', message: string, fields?: object): void =>
    log[level](fields ?? {}, message)
  const [clickhouseEngine, postgresEngine] = await startEngines(config, file.file, dataDirectory, engineLog, stack)
  const clickhouse = openClickHouse(clickhouseAddress(config, clickhouseEngine))
  stack.use(clickhouse)
  const database = openPool(
    {
      connectionString: config.postgresUrl ?? postgresEngine?.url,
      max: limits.postgresConnectionsMax,
      connectionTimeoutMillis: limits.postgresConnectMsMax,
    },
    (error) => log.warn({ err: error }, 'a connection to Postgres was lost'),
  )
  stack.defer(() => database.end())

  const keyring = await openKeyring({
    database,
    cachePath: join(dataDirectory, 'keys.cache'),
    requireKeys: config.requireKeys,
    pollMs: limits.keysPollMs,
    readMsMax: limits.keysReadMsMax,
    usesFlushMs: limits.keyUsesFlushMs,
    log,
  })
  keyring.onChange(() => clickhouseEngine?.setReaderKeys(keyring.readerKeyHashes()))
  clickhouseEngine?.setReaderKeys(keyring.readerKeyHashes())
  const keysPrepared = prepareKeys(database, keyring, dataDirectory, stopping.signal)
  if (config.postgresUrl === undefined) await keysPrepared

  let targets: ReadonlyMap<string, TargetTable> | undefined
  const login = loginOf(config)
  const tablesPrepared = prepareTables(clickhouse, login, stopping.signal, (found) => {
    targets = found
  })
  if (config.clickhouseUrl === undefined) await tablesPrepared

  const sealed: SealedSegment[] = []
  let takeSealed: Parameters<typeof openJournal>[0]['onSealed'] = (segment) => void sealed.push(segment)
  const journalBytesMax = file.file.journal?.bytesMax ?? limits.journalBytesMax
  const journal: Journal = await openJournal({
    directory: journalDirectory,
    files: diskFiles,
    now: Date.now,
    insertSettings,
    bounds: {
      segmentBytesMax: limits.segmentBytesMax,
      segmentBytesSealed: limits.segmentBytesSealed,
      segmentRowsMax: limits.segmentRowsMax,
      liveAgeMsMax: limits.liveSegmentMsMax,
      lateAgeMsMax: limits.lateSegmentMsMax,
      journalBytesMax,
      reserveBytes: (totalBytes) =>
        file.file.journal?.reserveBytes ?? Math.max(limits.volumeReserveBytes, totalBytes * limits.volumeReserveShare),
      spaceCheckMs: limits.spaceCheckMs,
      gatherMsMax: limits.gatherMsMax,
      gatherRequestsMin: limits.gatherRequestsMin,
      sealedBytesMax: limits.sealedBytesMax,
      blocksPerSegmentMax: limits.blocksPerSegmentMax,
      answeredMs: limits.duplicateWindowMs,
    },
    onSealed: (segment) => takeSealed(segment),
    onProblem: (problem) => {
      metrics.add('tallylight_journal_problems_total', { kind: problem.kind }, 1)
      log.error('error' in problem ? { err: problem.error } : { ...problem }, `journal: ${problem.kind}`)
    },
  })
  stack.defer(() => journal.stop())
  metrics.onRead(() => journalSamples(journal.status(), Date.now(), journalBytesMax))
  metrics.onRead(() => processSamples(version))

  const priceOf = openPrices(pricesOf(file.file))
  const removalOf = openRemovals(() => journal, ['clickhouse', 'ledger'])
  const limitBook = openLimitBook({ database })
  const ledgerDatabase = openPool(
    {
      connectionString: config.postgresUrl ?? postgresEngine?.url,
      max: limits.ledgerConnectionsMax,
      connectionTimeoutMillis: limits.ledgerAnswerMsMax,
      query_timeout: limits.ledgerAnswerMsMax,
      pipeline: true,
    },
    (error) => log.warn({ err: error }, 'a connection of the ledger was lost'),
  )
  stack.defer(() => ledgerDatabase.end())
  const failure = openFailurePolicies({
    policyOf: (tenant) => failurePolicyOf(file.file, tenant),
    now: Date.now,
    tenantsMax: limits.awayTenantsMax,
    callsMax: limits.awayCallsMax,
  })
  const ledger = openLedger({
    database: ledgerDatabase,
    log,
    onRecovered: () => {
      limitBook.noteOutages(failure.takeOutages()).catch((error: unknown) => {
        log.warn({ err: error }, 'what was decided without the ledger could not be noted in the audit')
      })
    },
  })
  const genai = openGenAi({
    clickhouse,
    targetOf: (table) => targets?.get(table),
    priceOf,
    retentionDaysOf: (kept, tenant) => retentionDaysOf(file.file, kept, tenant),
    contentPolicyOf: (tenant) => contentPolicyOf(file.file, tenant),
    personal: maskingOf(file.file).personal,
    onCorrected: (events) => ledgerSink.correct(events),
    onUnpriced: (calls) => metrics.add('tallylight_unpriced_calls_total', {}, calls),
    onProblem: (message) => log.warn({ why: message }, 'rows of GenAI records could not be checked'),
  })
  const sink = openClickHouseSink({
    journal: () => journal,
    remove: removalOf('clickhouse'),
    clickhouse,
    targets: () => targets,
    derive: async (segment, facts) => {
      await ledgerSink.deliver(segment, facts.length === 0 ? [] : await genai.derive(facts))
    },
    now: Date.now,
    bounds: {
      retryMsMin: limits.sinkRetryMsMin,
      retryMsMax: limits.sinkRetryMsMax,
      graceMs: limits.sinkGraceMs,
      refusedRowsMax: limits.sinkRefusedRowsMax,
    },
    onProblem: (problem) => {
      metrics.add('tallylight_sink_problems_total', { table: problem.table, kind: problem.kind }, 1)
      log.warn({ ...problem }, 'a part could not be stored yet')
    },
    onInsert: ({ table, rows, seconds, outcome, lagSeconds }) => {
      metrics.add('tallylight_inserts_total', { table, outcome }, 1)
      if (outcome !== 'inserted') return
      metrics.add('tallylight_inserted_rows_total', { table }, rows)
      metrics.observe('tallylight_insert_rows', { table }, rows)
      metrics.observe('tallylight_insert_seconds', { table }, seconds)
      metrics.observe('tallylight_lag_seconds', { table }, lagSeconds)
    },
  })
  const ledgerSink = openLedgerSink({
    journal: () => journal,
    ledger,
    eventsOf: (parts) => genai.usageOf(factsIn(parts)),
    isClickHouseAway: () => sink.status().isAway,
    remove: removalOf('ledger'),
    now: Date.now,
    bounds: {
      retryMsMin: limits.sinkRetryMsMin,
      retryMsMax: limits.sinkRetryMsMax,
      awayMs: limits.ledgerAwayMs,
    },
    onProblem: (problem) => {
      metrics.add('tallylight_ledger_problems_total', { kind: problem.kind }, 1)
      log.warn({ ...problem }, 'calls could not be booked yet')
    },
    onBooked: ({ booked, repeated, refused, unpriced }) => {
      for (const [outcome, count] of Object.entries({ booked, repeated, refused }))
        metrics.add('tallylight_quota_records_total', { outcome }, count)
      metrics.add('tallylight_quota_records_unpriced_total', {}, unpriced)
    },
  })
  const reconciler = openReconciler({
    database,
    recordedCalls: (from, until) =>
      recordedCallsOf(clickhouse, (table) => targets?.get(table)?.name ?? table, from, until),
    now: Date.now,
    bounds: {
      checkMs: limits.quotaCheckMs,
      reconcileMs: limits.quotaReconcileMs,
      settlingMs: limits.quotaSettlingMs,
      confirmMs: limits.quotaConfirmMs,
      eventsKeptMs: limits.quotaEventsKeptMs,
      differencesMax: limits.quotaDifferencesMax,
    },
    log,
  })
  metrics.onRead(() => quotaSamples(ledgerSink.status(), reconciler.status(), failure.status()))
  takeSealed = (segment) => {
    ledgerSink.enqueue(segment)
    sink.enqueue(segment)
  }
  for (const segment of sealed) takeSealed(segment)
  const sinkRunning = sink.run(stopping.signal)
  const administration = openAdministration({
    clickhouse,
    targetOf: (table) => targets?.get(table),
    database,
    journal,
    genai,
    daysOf: (kept, tenant) => retentionDaysOf(file.file, kept, tenant),
    tenantsWithRetention: Object.keys(file.file.retention?.tenants ?? {}),
    signal: stopping.signal,
    onProblem: (message) => log.warn({ why: message }, 'records could not be administered yet'),
    onErased: (state) => metrics.add('tallylight_erasures_total', { state }, 1),
  })
  const administrationRunning = Promise.all([keysPrepared, tablesPrepared]).then(() => administration.run())
  const checksRunning = genai.run(stopping.signal)
  const keysRunning = keysPrepared.then(() => keyring.run(stopping.signal))
  const quotaPrepared = keysPrepared.then(() =>
    untilDone('The ledger', stopping.signal, () => applyQuotaLimits(limitBook, file.file)),
  )
  const fileWatching = quotaPrepared.then(() =>
    watchFile(
      {
        path: config.configPath,
        pollMs: limits.configPollMs,
        onChange: (text) => applyChangedFile(limitBook, config.configPath, text),
      },
      stopping.signal,
    ),
  )
  const ledgerSinkRunning = ledgerSink.run(stopping.signal)
  const ledgerRunning = quotaPrepared.then(() =>
    ledger.watch(stopping.signal, (count) => metrics.add('tallylight_quota_expired_total', {}, count)),
  )
  const reconcilerRunning = Promise.all([quotaPrepared, tablesPrepared]).then(() => reconciler.run(stopping.signal))
  const { webhook } = file.file.quota ?? {}
  const webhookRunning = quotaPrepared.then(async () => {
    if (webhook === undefined) return
    const onDelivery = (outcome: string): void => metrics.add('tallylight_quota_events_total', { outcome }, 1)
    await runWebhook({ ...webhook, database, now: Date.now, log, onDelivery }, stopping.signal)
  })
  const endLoops = async (): Promise<void> => {
    stopping.abort()
    await Promise.race([
      Promise.all([
        sinkRunning,
        checksRunning,
        ledgerSinkRunning,
        keysRunning,
        tablesPrepared,
        administrationRunning,
        ledgerRunning,
        reconcilerRunning,
        fileWatching,
        webhookRunning,
      ]),
      after(limits.sinkStopMs),
    ])
  }
  // Also when a port cannot be had: a loop that goes on would keep the process, and its connections, for ever.
  stack.defer(endLoops)
  if (config.postgresUrl === undefined) await quotaPrepared

  const duplicates =
    file.file.deduplicateRequests === false
      ? undefined
      : openDuplicateWindow({
          windowMs: limits.duplicateWindowMs,
          entriesMax: limits.duplicateEntriesMax,
          now: Date.now,
        })
  for (const request of journal.answered) duplicates?.add(request.digest, request)
  const ingestLimits = openIngestLimits({
    config: file.file.ingestLimits ?? {},
    clockMs: () => performance.now(),
    burstSeconds: limits.ingestBurstSeconds,
    tenantsMax: limits.ingestTenantsMax,
  })
  const accept = openAccept({
    journal,
    inflate: openInflate({ concurrentMax: limits.inflateConcurrentMax }),
    inflatedBytesMax: limits.requestInflatedBytesMax,
    duplicates,
    ingestLimits,
    retentionDays: (signal) => (tenant) => retentionDaysOf(file.file, signal, tenant),
    mask: openRequestMask(maskingOf(file.file)),
    now: Date.now,
    lifting: genai.lifting,
    onMasked: (counts) => {
      for (const [kind, found] of counts) metrics.add('tallylight_masked_total', { kind }, found)
    },
    onWalked: (signal, tally) => {
      for (const [reason, count] of tally.rejected)
        metrics.add('tallylight_rejected_records_total', { signal, reason }, count)
      if (tally.repairedStrings > 0) metrics.add('tallylight_repaired_strings_total', { signal }, tally.repairedStrings)
      if (tally.negativeDurations > 0)
        metrics.add('tallylight_negative_durations_total', { signal }, tally.negativeDurations)
      if (tally.timesReplaced > 0) metrics.add('tallylight_times_replaced_total', { signal }, tally.timesReplaced)
      if (tally.timesClamped > 0) metrics.add('tallylight_times_clamped_total', { signal }, tally.timesClamped)
      if (tally.lifted > 0) countLifted(metrics, signal, tally)
    },
  })
  const send = openOwnSender(accept)
  const canary = openCanary({
    send,
    ledger,
    clickhouse,
    database,
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
  const count: RefusalCounter = (signal, reason) =>
    metrics.add('tallylight_refused_requests_total', { signal, reason }, 1)
  const tls = config.tls === undefined ? undefined : stack.use(await openTlsFiles({ ...config.tls, log }))
  const receiverOptions = {
    host: config.bind,
    tls,
    authenticate: keyring.authenticate,
    accept,
    ingestLimits,
    bodies: openBodies({ bytesMax: limits.bodiesInFlightBytesMax, bodyBytesMax: limits.requestBytesMax }),
    log,
    count,
  }
  const http = stack.use(await openOtlpHttp({ ...receiverOptions, port: config.ports.otlpHttp }))
  const grpc = stack.use(await openOtlpGrpc({ ...receiverOptions, port: config.ports.otlpGrpc }))
  let isReady = false
  const missing = (): readonly string[] => (isReady ? [] : ['the collector is starting or stopping'])
  const quota = openQuotaHttp({
    ledger,
    limitBook,
    authenticate: keyring.authenticate,
    priceOf,
    failure,
    onVerdict: ({ policy, verdict }) => metrics.add('tallylight_quota_verdicts_total', { policy, verdict }, 1),
    unpriced: file.file.quota?.unpriced ?? 'refuse',
    now: Date.now,
    log,
    onAnswer: (route, status, seconds) => {
      metrics.add('tallylight_quota_answers_total', { route, status: String(status) }, 1)
      metrics.observe('tallylight_quota_seconds', { route }, seconds)
    },
  })
  const api = stack.use(
    await openApi({
      host: config.bind,
      port: config.ports.api,
      tls,
      keyring,
      missing,
      renderMetrics: () => renderPrometheus(metrics.read()),
      quota,
      administration: [administrationRoutes(administration)],
      statePage: openStatePage({ read: metrics.read, version, missing, clickhouse }),
      probe: async () => (await canary.probe(stopping.signal)) ?? { missing: ['the collector is stopping'] },
      log,
    }),
  )
  let exporting: AsyncDisposable | undefined
  if (metricExport.kind === 'on') {
    // Loaded only when it is wanted: OpenTelemetry's packages cost 45 MB.
    const { startMetricExport } = await import('./metric-export.ts')
    const count = (outcome: string): void => metrics.add('tallylight_metric_exports_total', { outcome }, 1)
    exporting = stack.use(
      startMetricExport({ settings: metricExport, version, instanceId: journal.id, read: metrics.read, count, log }),
    )
    log.info(
      { url: metricExport.url, intervalMs: metricExport.intervalMs },
      'the metrics of the collector are exported',
    )
  } else if (metricExport.why !== '')
    log.info({ why: metricExport.why }, 'the metrics of the collector are not exported')
  const runPath = join(dataDirectory, 'run.json')
  const ports = {
    otlpGrpc: grpc.port,
    otlpHttp: http.port,
    api: api.port,
    proxy: null,
    clickhouse: clickhouseEngine?.port ?? null,
    postgres: postgresEngine?.port ?? null,
  }
  const versions = { tallylight: version, node: process.versions.node, clickhouse: clickhouseEngine?.version ?? null }
  await writeFile(runPath, `${JSON.stringify({ pid: process.pid, ports, versions }, undefined, 2)}\n`)
  stack.defer(() => rm(runPath, { force: true }))
  isReady = true
  log.info({ ports, dataDirectory }, 'tallylight is ready')
  const selfCheckRunning = selfCheck.run(stopping.signal)

  const signal = await stopRequested
  log.info({ signal }, 'tallylight is stopping')
  isReady = false
  // Before the ports, one of which may be what it sends to.
  await exporting?.[Symbol.asyncDispose]()
  // Answers first, then the journal, so that what was answered is on the disk; the sink goes on after the next start.
  await Promise.all([http.stop(limits.receiverStopMs), grpc.stop(limits.receiverStopMs)])
  await selfCheck.lastWords()
  await journal.stop()
  await endLoops()
  await selfCheckRunning
}

/** The limits of the configuration file, with what that changed in the log. */
async function applyQuotaLimits(limitBook: LimitBook, file: ConfigFile): Promise<void> {
  const wanted = (file.quota?.limits ?? []).map(({ tenant, ...input }) =>
    limitOf(parseTenantId(tenant) ?? defaultTenant, input.id, input, 'config'),
  )
  const diff = await limitBook.applyConfig(wanted)
  if (diff.added.length + diff.changed.length + diff.removed.length > 0) log.info(diff, 'quota limits were changed')
}

/** Applies the limits of a configuration file that has changed. A file that is gone or wrong changes nothing. */
async function applyChangedFile(limitBook: LimitBook, path: string, text: string | undefined): Promise<void> {
  const read = text === undefined ? undefined : parseConfigFile(text, path)
  if (read?.kind !== 'file') {
    const reasons = read?.reasons ?? [`${path} cannot be read`]
    log.error({ reasons }, 'the configuration file has changed and cannot be used; the limits stay as they are')
    return
  }
  try {
    await applyQuotaLimits(limitBook, read.file)
    log.info(
      { path },
      'the limits of the configuration file are in force; its other settings are read at the next start',
    )
  } catch (error) {
    log.error({ err: error }, 'the limits of the changed configuration file could not be applied')
  }
}

function pricesOf(file: ConfigFile): readonly OwnPrice[] {
  return (file.quota?.prices ?? []).map(
    ({ provider, from, cacheReadNanoUsdPerMillion, cacheWriteNanoUsdPerMillion, ...price }) => ({
      ...price,
      fromUnixMs: Date.parse(from),
      ...(provider === undefined ? {} : { provider }),
      ...(cacheReadNanoUsdPerMillion === undefined ? {} : { cacheReadNanoUsdPerMillion }),
      ...(cacheWriteNanoUsdPerMillion === undefined ? {} : { cacheWriteNanoUsdPerMillion }),
    }),
  )
}

function countLifted(metrics: Metrics, signal: Signal, tally: WalkTally): void {
  metrics.add('tallylight_lifted_records_total', { signal }, tally.lifted)
  metrics.add('tallylight_leftover_contents_total', { signal }, tally.leftoverContents)
  metrics.add('tallylight_malformed_contents_total', { signal }, tally.malformedContents)
  metrics.add('tallylight_absurd_usages_total', { signal }, tally.absurdUsages)
}

function refuse(reasons: readonly string[]): void {
  for (const reason of reasons) log.fatal(reason)
  process.exitCode = 2
}

async function readFileConfig(config: Config): Promise<ReturnType<typeof parseConfigFile>> {
  let text: string
  try {
    text = await readFile(config.configPath, 'utf8')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT' && !config.isConfigNamed) return { kind: 'file', file: {} }
    return { kind: 'refused', reasons: [`cannot read ${config.configPath}: ${String(error)}`] }
  }
  return parseConfigFile(text, config.configPath)
}

async function startEngines(
  config: Config,
  file: ConfigFile,
  dataDirectory: string,
  engineLog: (level: 'info' | 'warn' | 'error', message: string, fields?: object) => void,
  stack: AsyncDisposableStack,
): Promise<readonly [EmbeddedClickHouse | undefined, EmbeddedPostgres | undefined]> {
  const startClickHouse = async (): Promise<EmbeddedClickHouse | undefined> => {
    if (config.clickhouseUrl !== undefined) return undefined
    const memoryBytesMax = file.clickhouse?.memoryBytesMax
    return stack.use(
      await startEmbeddedClickHouse({
        directory: join(dataDirectory, 'clickhouse'),
        port: config.ports.clickhouse,
        ...(memoryBytesMax === undefined ? {} : { memoryBytesMax }),
        log: engineLog,
      }),
    )
  }
  const startPostgres = async (): Promise<EmbeddedPostgres | undefined> => {
    if (config.postgresUrl !== undefined) return undefined
    return stack.use(
      await startEmbeddedPostgres({
        directory: join(dataDirectory, 'postgres'),
        port: config.ports.postgres,
        readerKeyPath: join(dataDirectory, 'postgres.key'),
        log: engineLog,
      }),
    )
  }
  // Both to their end: one that came up after the other had failed would keep the process alive for nothing.
  const [clickhouse, postgres] = await Promise.allSettled([startClickHouse(), startPostgres()])
  if (clickhouse.status === 'rejected') throw clickhouse.reason
  if (postgres.status === 'rejected') throw postgres.reason
  return [clickhouse.value, postgres.value]
}

function isOwnAddress({ bind, ports }: Config, host: string, port: number): boolean {
  const isHere =
    host === 'localhost' || isLoopback(host.replace(/^\[|\]$/g, '')) || host === bind || host === hostname()
  return isHere && (port === ports.otlpHttp || port === ports.otlpGrpc)
}

function clickhouseAddress(
  config: Config,
  engine: EmbeddedClickHouse | undefined,
): Parameters<typeof openClickHouse>[0] {
  if (engine !== undefined)
    return { url: engine.url, user: engine.user, password: engine.password, database: 'tallylight' }
  const url = new URL(config.clickhouseUrl ?? '')
  const database = decodeURIComponent(url.pathname.slice(1)) || 'tallylight'
  const user = decodeURIComponent(url.username) || undefined
  const password = decodeURIComponent(url.password) || undefined
  return { url: url.origin, user, password, database }
}

/** With a ClickHouse of one's own, and a user with a password. */
function loginOf({ clickhouseUrl }: Config): Login | undefined {
  const url = clickhouseUrl === undefined ? undefined : new URL(clickhouseUrl)
  if (url === undefined || url.password === '') return undefined
  return { user: decodeURIComponent(url.username), password: decodeURIComponent(url.password) }
}

/** The schema of Postgres and the first keys. Tried until it works: with Postgres away the cached keys go on. */
async function prepareKeys(
  database: pg.Pool,
  keyring: Keyring,
  dataDirectory: string,
  signal: AbortSignal,
): Promise<void> {
  await untilDone('Postgres', signal, async () => {
    const applied = await withConnection(database, migratePostgres)
    if (applied.length > 0) log.info({ migrations: applied }, 'Postgres was migrated')
    const adminKey = await ensurePrivateFile(join(dataDirectory, 'admin.key'), makeKey().key)
    await registerKey(database, adminKey.trim(), {
      tenant: defaultTenant,
      roles: ['admin'],
      manyTenants: true,
      name: 'admin of the first start',
    })
    await keyring.refresh()
  })
}

/** The schema of ClickHouse, made and compared, now or when it first appears. */
async function prepareTables(
  clickhouse: ClickHouse,
  login: Login | undefined,
  signal: AbortSignal,
  found: (targets: ReadonlyMap<string, TargetTable>) => void,
): Promise<void> {
  await untilDone('ClickHouse', signal, async () => {
    // A server that knows our user reads its dictionaries as nobody, or not at all, unless it is told who to be.
    const [who] = await clickhouse.query<{ name: string }>('SELECT currentUser() AS name')
    const known = who?.name === login?.user ? login : undefined
    const { created, leftAlone } = await migrateClickHouse(clickhouse, undefined, undefined, known)
    if (created.length > 0) log.info({ tables: created }, 'tables were made in ClickHouse')
    if (leftAlone.length > 0) log.info({ tables: leftAlone }, 'tables of your own are used as they are')
    const schema = await verifySchema(clickhouse)
    if (schema.kind === 'verified') for (const warning of schema.warnings) log.warn(warning)
    if (schema.kind === 'deviates') throw new Error(`its tables cannot take the rows: ${schema.problems.join('; ')}`)
    found(schema.targets)
  })
}

async function untilDone(what: string, signal: AbortSignal, work: () => Promise<void>): Promise<void> {
  let said = ''
  while (!signal.aborted) {
    try {
      await work()
      return
    } catch (error) {
      if (String(error) !== said) log.error({ err: error }, `${what} cannot be used yet; records wait in the journal`)
      said = String(error)
    }
    await new Promise<void>((done) => {
      const timer = setTimeout(done, limits.engineRetryMs)
      signal.addEventListener(
        'abort',
        () => {
          clearTimeout(timer)
          done()
        },
        { once: true },
      )
    })
  }
}
