// What reads the journal: the ClickHouse sink with the GenAI records, the ledger's sink, and what watches over both.
import { type Administration, openAdministration } from '../administration/administration.ts'
import { contentPolicyOf, maskingOf, retentionDaysOf } from '../config.ts'
import { type GenAi, openGenAi } from '../genai/genai.ts'
import type { Journal } from '../journal/journal.ts'
import type { SealedSegment } from '../journal/sealed-segments.ts'
import { limits } from '../limits.ts'
import { openReconciler } from '../quota/reconcile.ts'
import { quotaSamples } from '../quota/samples.ts'
import { openClickHouseSink } from '../sinks/clickhouse.ts'
import { factsIn } from '../sinks/known-facts.ts'
import { openLedgerSink } from '../sinks/ledger.ts'
import { openRemovals } from '../sinks/removal.ts'
import { recordedCallsOf, recordedSumsOf } from '../sinks/usage-of-calls.ts'
import type { Engines } from './engines.ts'
import type { Quota } from './quota.ts'
import type { Start } from './start.ts'
import { untilDone } from './until-done.ts'

export type Sinks = {
  readonly genai: GenAi
  readonly administration: Administration
  readonly enqueue: (segment: SealedSegment) => void
  /** Once it was asked what an earlier run was waiting for; an engine that is not ours is not waited for. */
  readonly recalled: Promise<void>
}

export function openSinks(start: Start, engines: Engines, journal: Journal, quota: Quota): Sinks {
  const { config, file, metrics, log, loops } = start
  const { clickhouse, database, tables, keysPrepared } = engines
  const { targets } = tables
  const removalOf = openRemovals(() => journal, ['clickhouse', 'ledger'])
  const genai = openGenAi({
    clickhouse,
    targetOf: (table) => targets()?.get(table),
    priceOf: quota.priceOf,
    retentionDaysOf: (kept, tenant) => retentionDaysOf(file, kept, tenant),
    contentPolicyOf: (tenant) => contentPolicyOf(file, tenant),
    keepsRawContent: file.content?.keepRaw ?? false,
    personal: maskingOf(file).personal,
    isShared: config.clickhouseUrl !== undefined,
    journal: journal.id,
    onCorrected: (events) => ledgerSink.correct(events),
    onUnpriced: (calls) => metrics.add('tallylight_unpriced_calls_total', {}, calls),
    onProblem: (message) => log.warn({ why: message }, 'rows of GenAI records could not be checked'),
  })
  const sink = openClickHouseSink({
    journal: () => journal,
    remove: removalOf('clickhouse'),
    clickhouse,
    targets,
    derive: async (segment, facts) => {
      await ledgerSink.deliver(segment, facts.length === 0 ? [] : await genai.derive(facts))
    },
    onBroughtAgain: () => genai.resolver.forget(),
    onMend: tables.compareAgain,
    now: Date.now,
    clockMs: () => performance.now(),
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
    ledger: quota.ledger,
    eventsOf: (parts) => genai.usageOf(factsIn(parts)),
    isSilentAbout: (segment) => sink.isSilentAbout(segment),
    remove: removalOf('ledger'),
    now: Date.now,
    clockMs: () => performance.now(),
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
  const tableName = (table: string): string => targets()?.get(table)?.name ?? table
  const reconciler = openReconciler({
    database,
    recordedSums: (from, until) => recordedSumsOf(clickhouse, tableName, from, until),
    recordedCalls: (from, until) => recordedCallsOf(clickhouse, tableName, from, until),
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
  metrics.onRead(() => quotaSamples(ledgerSink.status(), reconciler.status(), quota.failure.status()))
  const administration = openAdministration({
    clickhouse,
    targetOf: (table) => targets()?.get(table),
    database,
    journal,
    genai,
    ledger: quota.ledger,
    daysOf: (kept, tenant) => retentionDaysOf(file, kept, tenant),
    tenantsWithRetention: Object.keys(file.retention?.tenants ?? {}),
    signal: loops.signal,
    onProblem: (message) => log.warn({ why: message }, 'records could not be administered yet'),
    onErased: (state) => metrics.add('tallylight_erasures_total', { state }, 1),
  })
  loops.add(sink.run(loops.signal))
  loops.add(ledgerSink.run(loops.signal))
  loops.add(genai.run(loops.signal))
  loops.add(Promise.all([keysPrepared, tables.prepared]).then(() => administration.run()))
  loops.add(Promise.all([quota.prepared, tables.prepared]).then(() => reconciler.run(loops.signal)))
  const asked = Promise.withResolvers<void>()
  const recalled = tables.prepared.then(() =>
    untilDone(start, { name: 'ClickHouse', isAwaited: false }, () => genai.recall().finally(asked.resolve)),
  )
  loops.add(recalled.finally(asked.resolve))
  return {
    genai,
    administration,
    recalled: config.clickhouseUrl === undefined ? asked.promise : Promise.resolve(),
    enqueue: (segment) => {
      ledgerSink.enqueue(segment)
      sink.enqueue(segment)
    },
  }
}
