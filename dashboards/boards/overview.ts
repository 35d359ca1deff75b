import type { BoardPlan } from '../board.ts'
import { isRateLimited, ofCalls, ofService, percentiles, seconds } from '../filters.ts'
import { toBoardOf, toConversation, toPanel, toTrace } from '../links.ts'
import { gauge, histogram, histogramQuantile } from '../own-metrics.ts'
import { chart, stat, table } from '../panels.ts'
import { clickhouse } from '../sources.ts'
import { callColumns, callFields } from './call-table.ts'

const failed = toPanel('overview', 41, 'The failed calls')
const slow = toPanel('overview', 42, 'The slow calls')
const models = toPanel('models', 10, 'The models, ranked')
const dead = 'No reading of any collector: it is down, or it is another database'

export const overview: BoardPlan = {
  name: 'overview',
  title: 'LLM overview',
  description:
    'Is the pipeline alive, what is asked, does it work, how long does it take, what does it cost, and which calls are those.',
  variables: ['tenant', 'service', 'provider', 'model', 'collector'],
  rows: [
    {
      question: 'Is the pipeline alive?',
      panels: [
        stat({
          id: 1,
          title: 'Last word of a collector',
          description:
            'Age of the newest reading of its own numbers, which it writes once a minute through the same road as everything else.',
          noValue: dead,
          unit: 's',
          thresholds: { warn: 150, bad: 300 },
          rows: toPanel('collector', 12, 'The collector'),
          queries: [
            clickhouse(
              'table',
              `SELECT dateDiff('second', max(TimeUnix), now()) AS age\n${gauge('tallylight.build_info')}\nHAVING count() > 0`,
            ),
          ],
        }),
        stat({
          id: 2,
          title: 'Canary',
          description:
            'Share of the last probes whose turn, tool call, reservation and health check were read back from the stores.',
          noValue: dead,
          unit: 'percentunit',
          thresholds: { warn: 1, bad: 0.9, isMoreBetter: true },
          rows: toPanel('collector', 12, 'The canary'),
          queries: [
            clickhouse(
              'table',
              `SELECT avg(Value) AS success\n${gauge('tallylight.canary_success')}\nHAVING count() > 0`,
            ),
          ],
        }),
        stat({
          id: 3,
          title: 'Lag',
          description:
            'From the receipt of a record until it can be queried: 95th percentile, as the bound of its bucket.',
          noValue: 'Nothing was stored in this time',
          unit: 's',
          thresholds: { warn: 10, bad: 60 },
          rows: toPanel('collector', 12, 'The collector'),
          queries: [
            clickhouse(
              'table',
              `SELECT ${histogramQuantile(0.95)} AS p95\n${histogram('tallylight.lag')}\nHAVING sum(Count) > 0`,
            ),
          ],
        }),
        stat({
          id: 4,
          title: 'Calls',
          description:
            'Model calls in this time, wrappers and repeats of the same call not counted, nor what a limit denied.',
          noValue: 'No calls: look at the age of the last word',
          unit: 'short',
          rows: models,
          queries: [clickhouse('table', `SELECT count() AS calls FROM llm_calls\nWHERE ${ofCalls}`)],
        }),
        stat({
          id: 5,
          title: 'Failed',
          description: 'Share of the calls that ended in an error.',
          noValue: 'No calls in this time',
          unit: 'percentunit',
          thresholds: { warn: 0.01, bad: 0.05 },
          rows: failed,
          queries: [
            clickhouse(
              'table',
              `SELECT countIf(ErrorType != '') / count() AS ratio FROM llm_calls\nWHERE ${ofCalls}\nHAVING count() > 0`,
            ),
          ],
        }),
        stat({
          id: 6,
          title: 'Cost',
          description: 'Of the calls in this time whose price is known.',
          noValue: 'No calls with a price',
          unit: 'currencyUSD',
          rows: toPanel('tenants', 22, 'The top consumers'),
          queries: [clickhouse('table', `SELECT sum(CostNanoUsd) / 1e9 AS cost FROM llm_calls\nWHERE ${ofCalls}`)],
        }),
      ],
    },
    {
      question: 'What is asked, and does it work?',
      panels: [
        chart({
          id: 10,
          title: 'Calls per second by model',
          description: 'Model calls by the model that answered.',
          noValue: 'No calls in this time',
          unit: 'reqps',
          kind: 'bars',
          rows: models,
          queries: [
            clickhouse(
              'timeseries',
              `
              SELECT $__timeInterval(Timestamp) AS time, Model AS model, count() / $__interval_s AS calls
              FROM llm_calls
              WHERE ${ofCalls}
              GROUP BY time, model ORDER BY time, model`,
            ),
          ],
        }),
        chart({
          id: 11,
          title: 'Failed share by provider',
          description: 'Calls that ended in an error, as a share of all calls of the provider.',
          noValue: 'No calls in this time',
          unit: 'percentunit',
          thresholds: { warn: 0.01, bad: 0.05 },
          rows: failed,
          queries: [
            clickhouse(
              'timeseries',
              `
              SELECT $__timeInterval(Timestamp) AS time, Provider AS provider, countIf(ErrorType != '') / count() AS failed
              FROM llm_calls
              WHERE ${ofCalls}
              GROUP BY time, provider ORDER BY time, provider`,
            ),
          ],
        }),
        chart({
          id: 12,
          title: 'Errors by kind',
          description:
            'Failed calls: refused for their rate (429 and its other names), timed out, and the rest by their type.',
          noValue: 'No failed calls in this time',
          unit: 'short',
          kind: 'bars',
          rows: failed,
          queries: [
            clickhouse(
              'timeseries',
              `
              SELECT $__timeInterval(Timestamp) AS time, if(${isRateLimited}, 'rate limited', ErrorType) AS error, count() AS calls
              FROM llm_calls
              WHERE ${ofCalls} AND ErrorType != ''
              GROUP BY time, error ORDER BY time, error`,
            ),
          ],
        }),
        chart({
          id: 13,
          title: 'Turns by outcome',
          description: 'What users saw: one turn is one message and all that happened until its reply.',
          noValue: 'No turns in this time',
          unit: 'short',
          kind: 'bars',
          rows: toPanel('conversations', 10, 'The conversations'),
          queries: [
            clickhouse(
              'timeseries',
              `
              SELECT $__timeInterval(Timestamp) AS time, Status AS status, count() AS turns
              FROM turns
              WHERE ${ofService}
              GROUP BY time, status ORDER BY time, status`,
            ),
          ],
        }),
      ],
    },
    {
      question: 'How long does it take?',
      panels: [
        chart({
          id: 20,
          title: 'Duration of calls',
          description: 'Median, 95th and 99th percentile, from the request to the last byte.',
          noValue: 'No calls in this time',
          unit: 's',
          rows: slow,
          queries: [
            clickhouse(
              'timeseries',
              `
              SELECT $__timeInterval(Timestamp) AS time, ${percentiles('DurationNano')}
              FROM llm_calls
              WHERE ${ofCalls}
              GROUP BY time ORDER BY time`,
            ),
          ],
        }),
        chart({
          id: 21,
          title: 'Time to first token of streams',
          description:
            'Of streamed calls only: without a stream the first token is the last, and would hide the others.',
          noValue: 'No streamed calls with a known first token in this time',
          unit: 's',
          rows: slow,
          queries: [
            clickhouse(
              'timeseries',
              `
              SELECT $__timeInterval(Timestamp) AS time, ${percentiles('TimeToFirstTokenNano')}
              FROM llm_calls
              WHERE ${ofCalls} AND Streaming AND TimeToFirstTokenNano IS NOT NULL
              GROUP BY time ORDER BY time`,
            ),
          ],
        }),
      ],
    },
    {
      question: 'What does it cost?',
      panels: [
        chart({
          id: 30,
          title: 'Tokens per hour',
          description:
            'Input with what was read from caches inside, output with reasoning inside, at the pace of each bucket.',
          noValue: 'No calls with known usage in this time',
          unit: 'short',
          rows: models,
          queries: [
            clickhouse(
              'timeseries',
              `
              SELECT $__timeInterval(Timestamp) AS time, sum(InputTokens) * 3600 / $__interval_s AS input,
                sum(OutputTokens) * 3600 / $__interval_s AS output
              FROM llm_calls
              WHERE ${ofCalls}
              GROUP BY time ORDER BY time`,
            ),
          ],
        }),
        chart({
          id: 31,
          title: 'Cost per hour by model',
          description:
            'Calls whose price is known, at the pace of each bucket. What has no price is on the board Chat log integrity.',
          noValue: 'No calls with a price in this time',
          unit: 'currencyUSD',
          kind: 'bars',
          rows: toPanel('tenants', 22, 'The top consumers'),
          queries: [
            clickhouse(
              'timeseries',
              `
              SELECT $__timeInterval(Timestamp) AS time, Model AS model, sum(CostNanoUsd) / 1e9 * 3600 / $__interval_s AS cost
              FROM llm_calls
              WHERE ${ofCalls} AND CostNanoUsd IS NOT NULL
              GROUP BY time, model ORDER BY time, model`,
            ),
          ],
        }),
      ],
    },
    {
      question: 'Which calls are those?',
      panels: [
        table({
          id: 41,
          title: 'Failed calls',
          description: 'The newest failed calls; each leads to its trace.',
          noValue: 'No failed calls in this time',
          columns: callColumns,
          queries: [
            clickhouse(
              'table',
              `
              SELECT Timestamp AS time, ErrorType AS error, ${callFields}
              FROM llm_calls
              WHERE ${ofCalls} AND ErrorType != ''
              ORDER BY Timestamp DESC LIMIT 100`,
            ),
          ],
        }),
        table({
          id: 42,
          title: 'Slowest calls',
          description: 'The calls that took longest; each leads to its trace.',
          noValue: 'No calls in this time',
          columns: callColumns,
          queries: [
            clickhouse(
              'table',
              `
              SELECT Timestamp AS time, ErrorType AS error, ${callFields}
              FROM llm_calls
              WHERE ${ofCalls}
              ORDER BY DurationNano DESC LIMIT 100`,
            ),
          ],
        }),
        table({
          id: 43,
          title: 'Failed turns',
          description: 'Turns that did not end well, the newest first.',
          noValue: 'No failed turns in this time',
          columns: {
            trace: { link: toTrace(), width: 280 },
            conversation: { link: toConversation() },
            tenant: { link: toBoardOf('tenants', 'tenant', 'tenant', 'The tenant') },
            duration: { unit: 's' },
          },
          queries: [
            clickhouse(
              'table',
              `
              SELECT Timestamp AS time, Status AS status, TenantId AS tenant, ServiceName AS service, UserId AS user,
                ConversationId AS conversation, ${seconds('DurationNano')} AS duration, Calls AS calls, BlockReason AS reason,
                QuestionPreview AS question, TraceId AS trace
              FROM turns
              WHERE ${ofService} AND Status NOT IN ('success', 'pending')
              ORDER BY Timestamp DESC LIMIT 100`,
            ),
          ],
        }),
      ],
    },
  ],
}
