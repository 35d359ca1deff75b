import type { BoardPlan } from '../board.ts'
import { isRateLimited, ofCalls } from '../filters.ts'
import { toPanel, toPanelOf, toTrace } from '../links.ts'
import { chart, table } from '../panels.ts'
import { clickhouse } from '../sources.ts'
import { callColumns, callFields } from './call-table.ts'

const ranked = toPanel('models', 10, 'The models, ranked')
const failed = toPanel('models', 30, 'The failed calls')
const slow = toPanel('models', 31, 'The slow calls')
const none = 'No calls in this time'

/** What models and providers are compared by. */
const compared = `
                countIf(ErrorType != '') / count() AS failed, countIf(${isRateLimited}) / count() AS rate_limited,
                quantile(0.5)(DurationNano) / 1e9 AS p50, quantile(0.95)(DurationNano) / 1e9 AS p95,
                quantileIf(0.95)(TimeToFirstTokenNano, Streaming) / 1e9 AS first_token_p95,
                sumIf(OutputTokens, ErrorType = '') / nullIf(sumIf(DurationNano, ErrorType = '' AND OutputTokens > 0) / 1e9, 0) AS output_per_second,
                sum(InputTokens) AS input, sum(OutputTokens) AS output, sum(CacheReadTokens) / nullIf(sum(InputTokens), 0) AS cached,
                sum(CostNanoUsd) / 1e9 AS cost, sum(CostNanoUsd) / 1e6 / nullIf(count(CostNanoUsd), 0) AS cost_per_thousand,
                argMax(TraceId, DurationNano) AS trace`

const comparedColumns = {
  calls: { unit: 'short' },
  failed: { unit: 'percentunit', thresholds: { warn: 0.01, bad: 0.05 } },
  rate_limited: { unit: 'percentunit', thresholds: { warn: 0.01, bad: 0.05 } },
  p50: { unit: 's' },
  p95: { unit: 's' },
  first_token_p95: { unit: 's' },
  output_per_second: { unit: 'short', decimals: 0 },
  input: { unit: 'short' },
  output: { unit: 'short' },
  cached: { unit: 'percentunit' },
  cost: { unit: 'currencyUSD' },
  cost_per_thousand: { unit: 'currencyUSD' },
  trace: { link: toTrace(), width: 280 },
} as const

export const models: BoardPlan = {
  name: 'models',
  title: 'Models and providers',
  description: 'Models and providers side by side: which is slow, which fails, which refuses, and what each costs.',
  variables: ['tenant', 'service', 'provider', 'model'],
  rows: [
    {
      question: 'How do they compare?',
      panels: [
        table({
          id: 10,
          title: 'Models',
          description:
            'By calls. Output per second is the output tokens of good calls over their duration; cost per thousand calls counts those with a price. The trace is that of the slowest call.',
          noValue: none,
          columns: {
            ...comparedColumns,
            model: { link: toPanelOf('models', 31, 'model', 'model', 'Its slowest calls') },
          },
          queries: [
            clickhouse(
              'table',
              `
              SELECT Provider AS provider, Model AS model, count() AS calls,${compared}
              FROM llm_calls
              WHERE ${ofCalls}
              GROUP BY provider, model ORDER BY calls DESC LIMIT 200`,
            ),
          ],
        }),
        table({
          id: 11,
          title: 'Providers',
          description:
            'By calls. Repeats are attempts after the first, as far as the instrumentation counts them. The trace is that of the slowest call.',
          noValue: none,
          height: 7,
          columns: {
            ...comparedColumns,
            repeats: { unit: 'percentunit' },
            provider: { link: toPanelOf('models', 30, 'provider', 'provider', 'Its failed calls') },
          },
          queries: [
            clickhouse(
              'table',
              `
              SELECT Provider AS provider, count() AS calls, countIf(Attempt > 1) / count() AS repeats,${compared}
              FROM llm_calls
              WHERE ${ofCalls}
              GROUP BY provider ORDER BY calls DESC LIMIT 200`,
            ),
          ],
        }),
      ],
    },
    {
      question: 'Which is slow?',
      panels: [
        perModel(
          20,
          'Duration, 95th percentile',
          'From the request to the last byte.',
          's',
          'quantile(0.95)(DurationNano) / 1e9',
          '',
          slow,
        ),
        perModel(
          21,
          'Time to first token, 95th percentile',
          'Of streamed calls only.',
          's',
          'quantile(0.95)(TimeToFirstTokenNano) / 1e9',
          ' AND Streaming AND TimeToFirstTokenNano IS NOT NULL',
          slow,
        ),
        perModel(
          22,
          'Output tokens per second of a call',
          'How fast the words come: output tokens of good calls over their duration.',
          'short',
          'sum(OutputTokens) / (sum(DurationNano) / 1e9)',
          ` AND ErrorType = '' AND OutputTokens > 0 AND DurationNano > 0`,
          ranked,
        ),
        perModel(
          23,
          'Cost per thousand calls',
          'Calls whose price is known.',
          'currencyUSD',
          'avg(CostNanoUsd) / 1e6',
          ' AND CostNanoUsd IS NOT NULL',
          ranked,
        ),
      ],
    },
    {
      question: 'Which fails or refuses?',
      panels: [
        perModel(
          24,
          'Failed share',
          'Calls that ended in an error.',
          'percentunit',
          `countIf(ErrorType != '') / count()`,
          '',
          failed,
        ),
        chart({
          id: 25,
          title: 'Refused for the rate, by provider',
          description: 'Share of calls answered with 429 or what the provider calls it.',
          noValue: none,
          unit: 'percentunit',
          rows: failed,
          queries: [
            clickhouse(
              'timeseries',
              `
              SELECT $__timeInterval(Timestamp) AS time, Provider AS provider, countIf(${isRateLimited}) / count() AS refused
              FROM llm_calls
              WHERE ${ofCalls}
              GROUP BY time, provider ORDER BY time, provider`,
            ),
          ],
        }),
        chart({
          id: 26,
          title: 'Why answers ended',
          description:
            'Finish reasons of good calls: a rising share of length means cut answers, of content_filter means refusals.',
          noValue: none,
          unit: 'short',
          kind: 'bars',
          rows: slow,
          queries: [
            clickhouse(
              'timeseries',
              `
              SELECT $__timeInterval(Timestamp) AS time, if(FinishReason = '', 'unknown', FinishReason) AS reason, count() AS calls
              FROM llm_calls
              WHERE ${ofCalls} AND ErrorType = ''
              GROUP BY time, reason ORDER BY time, reason`,
            ),
          ],
        }),
        perModel(27, 'Calls per second', 'By the model that answered.', 'reqps', 'count() / $__interval_s', '', ranked),
      ],
    },
    {
      question: 'Which calls are those?',
      panels: [
        table({
          id: 30,
          title: 'Failed calls',
          description: 'The newest failed calls; each leads to its trace.',
          noValue: 'No failed calls in this time',
          columns: callColumns,
          queries: [
            clickhouse(
              'table',
              `
              SELECT Timestamp AS time, ErrorType AS error, Attempt AS attempt, ${callFields}
              FROM llm_calls
              WHERE ${ofCalls} AND ErrorType != ''
              ORDER BY Timestamp DESC LIMIT 100`,
            ),
          ],
        }),
        table({
          id: 31,
          title: 'Slowest calls',
          description: 'The calls that took longest; each leads to its trace.',
          noValue: none,
          columns: callColumns,
          queries: [
            clickhouse(
              'table',
              `
              SELECT Timestamp AS time, FinishReason AS ended, ${callFields}
              FROM llm_calls
              WHERE ${ofCalls}
              ORDER BY DurationNano DESC LIMIT 100`,
            ),
          ],
        }),
      ],
    },
  ],
}

function perModel(
  id: number,
  title: string,
  description: string,
  unit: string,
  value: string,
  besides: string,
  rows: typeof ranked,
) {
  return chart({
    id,
    title: `${title}, by model`,
    description,
    noValue: none,
    unit,
    rows,
    queries: [
      clickhouse(
        'timeseries',
        `
        SELECT $__timeInterval(Timestamp) AS time, Model AS model, ${value} AS value
        FROM llm_calls
        WHERE ${ofCalls}${besides}
        GROUP BY time, model ORDER BY time, model`,
      ),
    ],
  })
}
