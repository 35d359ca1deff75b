import type { BoardPlan } from '../board.ts'
import { ofCalls, ofTenant } from '../filters.ts'
import { toConversation, toPanel, toTrace } from '../links.ts'
import { counter, readingInterval } from '../own-metrics.ts'
import { chart, stat, table } from '../panels.ts'
import { clickhouse } from '../sources.ts'
import { callColumns, callFields } from './call-table.ts'
import { lostTurns, seenTurns } from './lost-turns.ts'

const lost = toPanel('integrity', 20, 'The turns that are missing')
const unpriced = toPanel('integrity', 32, 'The calls without a price')
const unsure = toPanel('integrity', 33, 'The calls without the provider’s usage')
const audited = toPanel('integrity', 41, 'The audited changes')
const none = 'No turns were seen in this time'
const noChanges = 'No audited changes in this time'

export const integrity: BoardPlan = {
  name: 'integrity',
  title: 'Chat log integrity',
  description:
    'Is every turn that was seen also stored, was every record written, is every token counted and every call priced, and who changed what?',
  from: 'now-3h',
  variables: ['tenant', 'service', 'provider', 'model', 'collector'],
  rows: [
    {
      question: 'Is everything stored?',
      panels: [
        stat({
          id: 10,
          title: 'Turns stored of turns seen',
          description:
            'Traces in which a call, tool call or turn was seen, and those of them that have a turn in the chat log.',
          noValue: none,
          unit: 'percentunit',
          decimals: 3,
          thresholds: { warn: 1, bad: 0.999, isMoreBetter: true },
          rows: lost,
          queries: [
            clickhouse('table', `SELECT sum(isStored) / count() AS ratio\nFROM ${seenTurns}\nHAVING count() > 0`),
          ],
        }),
        stat({
          id: 11,
          title: 'Records written',
          description:
            'Records that are in ClickHouse, as a share of those that were accepted and are not still on their way.',
          noValue: 'Nothing was accepted in this time',
          unit: 'percentunit',
          decimals: 3,
          thresholds: { warn: 1, bad: 0.999, isMoreBetter: true },
          rows: toPanel('collector', 25, 'What was set aside'),
          queries: [
            clickhouse(
              'table',
              `
              SELECT 1 - sumIf(Value, MetricName = 'tallylight.quarantined_records') / sumIf(Value, MetricName = 'tallylight.accepted_records') AS ratio
              ${counters('tallylight.accepted_records', 'tallylight.quarantined_records')}
              HAVING sumIf(Value, MetricName = 'tallylight.accepted_records') > 0`,
            ),
          ],
        }),
        chart({
          id: 12,
          title: 'Turns seen and stored',
          description: 'By the time at which they were seen. Two lines where one belongs is a loss.',
          noValue: none,
          unit: 'short',
          width: 16,
          rows: lost,
          queries: [
            clickhouse(
              'timeseries',
              `
              SELECT $__timeInterval(at) AS time, count() AS seen, sum(isStored) AS stored
              FROM ${seenTurns}
              GROUP BY time ORDER BY time`,
            ),
          ],
        }),
        table({
          id: 20,
          title: 'Turns that are missing',
          description: 'Traces in which something was seen more than two minutes ago and that have no turn.',
          noValue: 'None is missing',
          columns: { trace: { link: toTrace(), width: 280 } },
          queries: [
            clickhouse(
              'table',
              `
              SELECT at, TenantId AS tenant, TraceId AS trace
              FROM ${lostTurns}
              ORDER BY at DESC LIMIT 100`,
            ),
          ],
        }),
      ],
    },
    {
      question: 'Was every write good?',
      panels: [
        chart({
          id: 21,
          title: 'Inserts of the chat log',
          description: 'Into the tables of calls, tools, turns and messages, by outcome.',
          noValue: 'No inserts in this time',
          unit: 'short',
          kind: 'bars',
          interval: readingInterval,
          rows: toPanel('collector', 45, 'The tables'),
          queries: [
            clickhouse(
              'timeseries',
              `
              SELECT $__timeInterval(TimeUnix) AS time, Attributes['outcome'] AS outcome, sum(Value) AS inserts
              ${counter('tallylight.inserts')} AND match(Attributes['table'], '^(genai_|.*_rows$)')
              GROUP BY time, outcome ORDER BY time, outcome`,
            ),
          ],
        }),
        chart({
          id: 22,
          title: 'Contents that were not understood',
          description:
            'Attributes of content that stay in the raw record, contents that should have been JSON, and token counts that cannot be.',
          noValue: 'Nothing of the kind in this time',
          unit: 'short',
          kind: 'bars',
          interval: readingInterval,
          rows: toPanel('integrity', 33, 'The calls without the provider’s usage'),
          queries: [
            clickhouse(
              'timeseries',
              `
              SELECT $__timeInterval(TimeUnix) AS time, MetricName AS what, sum(Value) AS records
              ${counters('tallylight.leftover_contents', 'tallylight.malformed_contents', 'tallylight.absurd_usages')}
              GROUP BY time, what ORDER BY time, what`,
            ),
          ],
        }),
      ],
    },
    {
      question: 'Is every token counted and priced?',
      panels: [
        chart({
          id: 30,
          title: 'Usage by source',
          description:
            'Share of the calls whose tokens the provider said (provider), or that are known less surely: recovered, partial, estimated, in this order; none is unknown.',
          noValue: 'No calls in this time',
          unit: 'percentunit',
          kind: 'bars',
          max: 1,
          rows: unsure,
          queries: [
            clickhouse(
              'timeseries',
              `
              SELECT $__timeInterval(Timestamp) AS time, UsageSource AS source, count() / sum(count()) OVER (PARTITION BY time) AS share
              FROM llm_calls
              WHERE ${ofCalls}
              GROUP BY time, source ORDER BY time, source`,
            ),
          ],
        }),
        chart({
          id: 31,
          title: 'Calls without a price',
          description: 'Calls with known usage and an unknown price: the cost of a tenant is too low by them.',
          noValue: 'Every call has a price',
          unit: 'short',
          kind: 'bars',
          rows: unpriced,
          queries: [
            clickhouse(
              'timeseries',
              `
              SELECT $__timeInterval(Timestamp) AS time, Model AS model, count() AS calls
              FROM llm_calls
              WHERE ${ofCalls} AND CostNanoUsd IS NULL AND UsageSource != 'none'
              GROUP BY time, model ORDER BY time, model`,
            ),
          ],
        }),
        table({
          id: 32,
          title: 'Models without a price',
          description: 'A price of your own goes into tallylight.json under quota.prices.',
          noValue: 'Every model has a price',
          width: 12,
          columns: { trace: { link: toTrace() } },
          queries: [
            clickhouse(
              'table',
              `
              SELECT Provider AS provider, Model AS model, count() AS calls, sum(InputTokens) AS input, sum(OutputTokens) AS output, argMax(TraceId, Timestamp) AS trace
              FROM llm_calls
              WHERE ${ofCalls} AND CostNanoUsd IS NULL AND UsageSource != 'none'
              GROUP BY provider, model ORDER BY calls DESC LIMIT 100`,
            ),
          ],
        }),
        table({
          id: 33,
          title: 'Calls without the provider’s usage',
          description: 'The newest calls whose tokens are estimated, partial or unknown.',
          noValue: 'Every call has the usage that its provider said',
          width: 12,
          columns: { ...callColumns, conversation: { link: toConversation() } },
          queries: [
            clickhouse(
              'table',
              `
              SELECT Timestamp AS time, ErrorType AS error, ${callFields}
              FROM llm_calls
              WHERE ${ofCalls} AND UsageSource NOT IN ('provider', 'recovered')
              ORDER BY Timestamp DESC LIMIT 100`,
            ),
          ],
        }),
      ],
    },
    {
      question: 'Who changed what?',
      panels: [
        chart({
          id: 40,
          title: 'Audited changes by tenant',
          description:
            'Events tallylight.audit of services: who did what to which resource. A burst is a script, or a theft.',
          noValue: noChanges,
          unit: 'short',
          kind: 'bars',
          rows: audited,
          queries: [
            clickhouse(
              'timeseries',
              `
              SELECT $__timeInterval(Timestamp) AS time, TenantId AS tenant, count() AS changes
              FROM audit_events
              WHERE ${ofTenant}
              GROUP BY time, tenant ORDER BY time, tenant`,
            ),
          ],
        }),
        table({
          id: 41,
          title: 'Audited changes',
          description: 'The newest first; what it was before and after stands in audit_events.',
          noValue: noChanges,
          width: 12,
          height: 8,
          columns: { trace: { link: toTrace(), width: 280 } },
          queries: [
            clickhouse(
              'table',
              `
              SELECT Timestamp AS time, TenantId AS tenant, Actor AS actor, Action AS action, ResourceType AS resource, ResourceId AS id,
              ClientAddress AS address, TraceId AS trace
              FROM audit_events
              WHERE ${ofTenant}
              ORDER BY Timestamp DESC LIMIT 100`,
            ),
          ],
        }),
      ],
    },
  ],
}

/** Like `counter`, of several metrics. */
function counters(...metrics: readonly string[]): string {
  const names = metrics.map((metric) => `'${metric}'`).join(', ')
  return counter('').replace(`MetricName = ''`, `MetricName IN (${names})`)
}
