// Alerts on the collector itself, by its own numbers (own-metrics.ts), and on its silence.
import { everyCounter, everyGauge, everyHistogram, histogramQuantile } from '../own-metrics.ts'
import { ask, type Rule } from './rule.ts'

const at = 'SELECT $__toTime AS time'
/** Two of one host are two: the worse of them must not hide behind the other. */
const which = `ResourceAttributes['host.name'] AS host, ResourceAttributes['service.instance.id'] AS collector`
const tenMinutes = 600

export const collectorRules: readonly Rule[] = [
  {
    uid: 'ingest-silent',
    title: 'No collector says anything',
    severity: 'page',
    // Without GROUP BY: nothing must be a row with 0, not no row.
    query: ask(`
      ${at}, count() AS value
      ${everyGauge('tallylight.build_info')}`),
    overSeconds: 300,
    fires: { when: 'below', bound: 1 },
    forSeconds: 60,
    summary: 'No collector has written its numbers for 5 minutes',
    board: 'overview',
    panelId: 1,
    isSilenceAlarming: true,
  },
  {
    uid: 'canary-missing',
    title: 'Probes are not read back',
    severity: 'page',
    query: ask(`
      ${at}, ${which}, avg(Value) AS value
      ${everyGauge('tallylight.canary_success')}
      GROUP BY host, collector
      ORDER BY time`),
    overSeconds: 300,
    fires: { when: 'below', bound: 0.5 },
    forSeconds: 60,
    summary: 'What {{ $labels.host }} sends to itself does not come back from the stores',
    board: 'overview',
    panelId: 2,
  },
  {
    uid: 'records-refused',
    title: 'Senders are refused',
    severity: 'ticket',
    query: ask(`
      SELECT time, reason, sum(count) AS value
      FROM (
      ${at}, Attributes['reason'] AS reason, Value AS count
      ${everyCounter('tallylight.refused_requests')}
      UNION ALL
      ${at}, Attributes['reason'] AS reason, Value AS count
      ${everyCounter('tallylight.rejected_records')}
      )
      GROUP BY time, reason
      ORDER BY time`),
    overSeconds: tenMinutes,
    fires: { when: 'above', bound: 10 },
    forSeconds: 0,
    summary: '{{ $values.B.Value }} requests or records were refused as {{ $labels.reason }}',
    board: 'collector',
    panelId: 21,
  },
  {
    uid: 'records-quarantined',
    title: 'Records are in quarantine',
    severity: 'ticket',
    query: ask(`
      ${at}, Attributes['signal'] AS signal, sum(Value) AS value
      ${everyCounter('tallylight.quarantined_records')}
      GROUP BY signal
      ORDER BY time`),
    overSeconds: tenMinutes,
    fires: { when: 'above', bound: 0 },
    forSeconds: 0,
    summary: '{{ $values.B.Value }} records of {{ $labels.signal }} were accepted and no table takes them',
    board: 'collector',
    panelId: 23,
  },
  {
    uid: 'inserts-fail',
    title: 'Inserts fail',
    severity: 'page',
    query: ask(`
      ${at}, Attributes['table'] AS table, sumIf(Value, Attributes['outcome'] != 'inserted') AS value
      ${everyCounter('tallylight.inserts')}
      GROUP BY table
      ORDER BY time`),
    overSeconds: tenMinutes,
    fires: { when: 'above', bound: 3 },
    forSeconds: 0,
    summary: '{{ $values.B.Value }} inserts into {{ $labels.table }} failed; the journal keeps the rows',
    board: 'collector',
    panelId: 41,
  },
  {
    uid: 'journal-age',
    title: 'The journal is old',
    severity: 'page',
    query: ask(`
      ${at}, ${which}, argMax(Value, TimeUnix) AS value
      ${everyGauge('tallylight.journal_age')}
      GROUP BY host, collector
      ORDER BY time`),
    overSeconds: tenMinutes,
    fires: { when: 'above', bound: 300 },
    forSeconds: 60,
    summary: 'Records of {{ $labels.host }} have waited for {{ humanizeDuration $values.B.Value }}',
    board: 'collector',
    panelId: 31,
  },
  {
    uid: 'journal-fill',
    title: 'The journal fills up',
    severity: 'page',
    query: ask(`
      SELECT $__toTime AS time, host, collector, used / most AS value
      FROM (
      SELECT ${which}, argMax(Value, TimeUnix) AS used
      ${everyGauge('tallylight.journal')}
      GROUP BY host, collector
      ) AS sizes
      JOIN (
      SELECT ${which}, max(Value) AS most
      ${everyGauge('tallylight.journal_bytes_max')}
      GROUP BY host, collector
      ) AS bounds USING (host, collector)
      ORDER BY time`),
    overSeconds: tenMinutes,
    fires: { when: 'above', bound: 0.8 },
    forSeconds: 60,
    summary:
      'The journal of {{ $labels.host }} is {{ humanizePercentage $values.B.Value }} full; at 100 % senders get 503',
    board: 'collector',
    panelId: 32,
  },
  {
    uid: 'lag',
    title: 'Records can be queried late',
    severity: 'ticket',
    query: ask(`
      ${at}, ${histogramQuantile(0.95)} AS value
      ${everyHistogram('tallylight.lag')}
      HAVING sum(Count) > 0`),
    overSeconds: tenMinutes,
    fires: { when: 'above', bound: 60 },
    forSeconds: 300,
    summary: 'Records can be queried only after {{ humanizeDuration $values.B.Value }} (95th percentile)',
    board: 'collector',
    panelId: 30,
  },
  {
    uid: 'settle-drift',
    title: 'The ledger and the records differ',
    severity: 'ticket',
    query: ask(`
      ${at}, ${which}, argMax(Value, TimeUnix) / 1e9 AS value
      ${everyGauge('tallylight.quota_drift_nano_usd')}
      GROUP BY host, collector
      ORDER BY time`),
    overSeconds: tenMinutes,
    fires: { when: 'above', bound: 1 },
    forSeconds: 900,
    summary: 'What was settled and what the records cost differ by {{ $values.B.Value }} dollars',
    board: 'tenants',
    panelId: 12,
  },
]
