// Alerts on what users feel: calls, tools, turns and their log.
import { everySeenTurn } from '../boards/lost-turns.ts'
import { isRateLimited, ownTenant, wasSent } from '../filters.ts'
import { ask, type Rule } from './rule.ts'

const calls = `FROM llm_calls\nWHERE $__timeFilter(Timestamp) AND TenantId != '${ownTenant}' AND ${wasSent}`
const at = 'SELECT $__toTime AS time'
/** Below it one failed call is a tenth, and wakes somebody for nothing. */
const callsMin = 10
const quarterSeconds = 900

export const callRules: readonly Rule[] = [
  {
    uid: 'error-ratio-of-model',
    title: 'A model fails often',
    severity: 'page',
    query: ask(`
      ${at}, Provider AS provider, Model AS model, countIf(ErrorType != '') / count() AS value
      ${calls}
      GROUP BY provider, model HAVING count() >= ${callsMin}
      ORDER BY time`),
    overSeconds: quarterSeconds,
    fires: { when: 'above', bound: 0.1 },
    forSeconds: 300,
    summary: '{{ humanizePercentage $values.B.Value }} of the calls of {{ $labels.model }} fail',
    board: 'models',
    panelId: 24,
  },
  {
    uid: 'error-rate',
    title: 'More than 5 % of all calls fail',
    severity: 'page',
    query: ask(`
      ${at}, countIf(ErrorType != '') / count() AS value
      ${calls}
      HAVING count() >= ${callsMin}`),
    overSeconds: quarterSeconds,
    fires: { when: 'above', bound: 0.05 },
    forSeconds: 300,
    summary: '{{ humanizePercentage $values.B.Value }} of all calls fail',
    board: 'overview',
    panelId: 11,
  },
  {
    uid: 'failures-in-5-minutes',
    title: 'More than 10 failed calls in 5 minutes',
    severity: 'ticket',
    query: ask(`
      ${at}, countIf(ErrorType != '') AS value
      ${calls}`),
    overSeconds: 300,
    fires: { when: 'above', bound: 10 },
    forSeconds: 0,
    summary: '{{ $values.B.Value }} calls failed in 5 minutes',
    board: 'overview',
    panelId: 12,
  },
  {
    uid: 'time-to-first-token',
    title: 'Streams begin late',
    severity: 'page',
    query: ask(`
      ${at}, Provider AS provider, Model AS model, quantile(0.95)(TimeToFirstTokenNano) / 1e9 AS value
      ${calls} AND Streaming AND TimeToFirstTokenNano IS NOT NULL
      GROUP BY provider, model HAVING count() >= ${callsMin}
      ORDER BY time`),
    overSeconds: quarterSeconds,
    fires: { when: 'above', bound: 5 },
    forSeconds: 300,
    summary: 'The first token of {{ $labels.model }} takes {{ humanizeDuration $values.B.Value }} (95th percentile)',
    board: 'overview',
    panelId: 21,
  },
  {
    uid: 'average-latency-of-provider',
    title: 'Calls of a provider take more than 2 s on average',
    severity: 'ticket',
    query: ask(`
      ${at}, Provider AS provider, avg(DurationNano) / 1e9 AS value
      ${calls} AND ErrorType = ''
      GROUP BY provider HAVING count() >= ${callsMin}
      ORDER BY time`),
    overSeconds: quarterSeconds,
    fires: { when: 'above', bound: 2 },
    forSeconds: 300,
    summary: 'A call of {{ $labels.provider }} takes {{ humanizeDuration $values.B.Value }} on average',
    board: 'models',
    panelId: 20,
  },
  {
    uid: 'rate-limited-by-provider',
    title: 'A provider refuses calls for their rate',
    severity: 'page',
    query: ask(`
      ${at}, Provider AS provider, countIf(${isRateLimited}) / count() AS value
      ${calls}
      GROUP BY provider HAVING count() >= ${callsMin}
      ORDER BY time`),
    overSeconds: quarterSeconds,
    fires: { when: 'above', bound: 0.05 },
    forSeconds: 300,
    summary: '{{ $labels.provider }} refuses {{ humanizePercentage $values.B.Value }} of the calls for their rate',
    board: 'models',
    panelId: 25,
  },
  {
    uid: 'usage-is-estimated',
    title: 'Usage of many calls is not the provider’s',
    severity: 'ticket',
    query: ask(`
      ${at}, ServiceName AS service, countIf(UsageSource NOT IN ('provider', 'recovered')) / count() AS value
      ${calls} AND ErrorType = ''
      GROUP BY service HAVING count() >= ${callsMin}
      ORDER BY time`),
    overSeconds: quarterSeconds,
    fires: { when: 'above', bound: 0.2 },
    forSeconds: 900,
    summary:
      'The usage of {{ humanizePercentage $values.B.Value }} of the calls of {{ $labels.service }} is estimated or unknown',
    board: 'integrity',
    panelId: 30,
  },
  {
    uid: 'calls-without-price',
    title: 'Calls have no price',
    severity: 'ticket',
    query: ask(`
      ${at}, Provider AS provider, Model AS model, countIf(CostNanoUsd IS NULL AND UsageSource != 'none') AS value
      ${calls}
      GROUP BY provider, model
      ORDER BY time`),
    overSeconds: quarterSeconds,
    fires: { when: 'above', bound: 10 },
    forSeconds: 0,
    summary: '{{ $values.B.Value }} calls of {{ $labels.model }} at {{ $labels.provider }} have no price',
    board: 'integrity',
    panelId: 31,
  },
  {
    uid: 'health-check-down',
    title: 'A health check fails',
    severity: 'page',
    query: ask(`
      ${at}, tenant, target, countIf(status = 'healthy') / count() AS value
      FROM (
      SELECT TenantId AS tenant, trimRight(concat(Target, ' ', Metadata['server'])) AS target, Status AS status, EventType AS event,
      Timestamp AS looked, row_number() OVER (PARTITION BY tenant, target ORDER BY Timestamp DESC) AS nth
      FROM health_checks
      WHERE $__timeFilter(Timestamp) AND TenantId != '${ownTenant}'
      )
      WHERE looked >= $__toTime - 300 OR (nth <= 3 AND event IN ('startup', 'interval'))
      GROUP BY tenant, target HAVING count() >= 3 AND argMin(event, nth) != 'shutdown'
      ORDER BY time`),
    // A prober looks ever less often at what fails, up to ten times its interval: the last three looks may be long ago.
    overSeconds: 3 * 3600,
    fires: { when: 'below', bound: 0.5 },
    forSeconds: 60,
    summary:
      '{{ $labels.target }} of {{ $labels.tenant }} answers {{ humanizePercentage $values.B.Value }} of its checks',
    board: 'tools',
    panelId: 31,
  },
  {
    uid: 'chat-log-writes',
    title: 'Turns are missing in the chat log',
    severity: 'page',
    query: ask(`
      ${at}, sum(isStored) / count() AS value
      FROM ${everySeenTurn}
      HAVING count() > 0`),
    overSeconds: 3600,
    fires: { when: 'below', bound: 1 },
    forSeconds: 300,
    summary: 'Only {{ humanizePercentage $values.B.Value }} of the turns that were seen are stored',
    board: 'integrity',
    panelId: 12,
  },
  {
    uid: 'audit-burst',
    title: 'More than 50 audited changes in a minute',
    severity: 'page',
    query: ask(`
      SELECT $__toTime AS time, tenant, max(changes) AS value
      FROM (
      SELECT TenantId AS tenant,
      count() OVER (PARTITION BY TenantId ORDER BY toUnixTimestamp(Timestamp) RANGE BETWEEN 59 PRECEDING AND CURRENT ROW) AS changes
      FROM audit_events
      WHERE $__timeFilter(Timestamp)
      )
      GROUP BY tenant
      ORDER BY time`),
    overSeconds: 300,
    fires: { when: 'above', bound: 50 },
    forSeconds: 0,
    summary: '{{ $values.B.Value }} changes of {{ $labels.tenant }} were audited in one minute',
    board: 'integrity',
    panelId: 40,
  },
]
