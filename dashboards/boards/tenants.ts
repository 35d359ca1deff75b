import type { BoardPlan } from '../board.ts'
import { ofCalls, ofService } from '../filters.ts'
import { toBoardOf, toConversation, toPanel, toTrace } from '../links.ts'
import { counter, readingInterval } from '../own-metrics.ts'
import { chart, stat, table } from '../panels.ts'
import { burnSql, limitsSql, ofTenants, spentSql } from '../quota-queries.ts'
import { clickhouse, postgres } from '../sources.ts'

const balances = toPanel('tenants', 10, 'The limits')
const consumers = toPanel('tenants', 22, 'The top consumers')
const noLimits = 'No limits: they are made through the API or in tallylight.json'
const noCalls = 'No calls with a price in this time'

export const tenants: BoardPlan = {
  name: 'tenants',
  title: 'Tenants, cost and quota burn',
  description:
    'What tenants spend, what their limits still hold, how fast they burn, when they run out, and who was refused.',
  from: 'now-6h',
  variables: ['postgres', 'tenantOfLimits', 'service', 'provider', 'model', 'collector'],
  rows: [
    {
      question: 'What is left?',
      panels: [
        table({
          id: 10,
          title: 'Limits and what they hold',
          description:
            'Accounts of the windows that are open: granted, spent, held by calls under way, free. Pace is what was spent in the last hour; out of it follows when the account runs out. Cost in dollars, all else in its own unit.',
          noValue: noLimits,
          height: 10,
          columns: {
            tenant: { link: toBoardOf('overview', 'tenant', 'tenant', 'The tenant') },
            used: { unit: 'percentunit', thresholds: { warn: 0.8, bad: 1 } },
            exhausted_in: { unit: 's', thresholds: { warn: 0, bad: 0, isMoreBetter: true } },
          },
          queries: [postgres('table', limitsSql(ofTenants))],
        }),
      ],
    },
    {
      question: 'How fast does it burn?',
      panels: [
        table({
          id: 11,
          title: 'Burn rates of cost limits',
          description:
            'Pace of spending as a multiple of the pace that would use up the limit exactly at the end of its window: over 1 hour, 6 hours and 3 days. 1 is sustainable; 14 uses up a month in two days.',
          noValue: noLimits,
          columns: {
            tenant: { link: toBoardOf('overview', 'tenant', 'tenant', 'The tenant') },
            '1 h': { unit: 'short', decimals: 2, thresholds: { warn: 6, bad: 14 } },
            '6 h': { unit: 'short', decimals: 2, thresholds: { warn: 3, bad: 6 } },
            '3 d': { unit: 'short', decimals: 2, thresholds: { warn: 1, bad: 3 } },
          },
          queries: [postgres('table', burnSql(ofTenants))],
        }),
        chart({
          id: 12,
          title: 'Spent of cost limits, per hour',
          description:
            'What settlements and charges booked, by limit. A call under several limits is booked to each, so lines are not to be added up.',
          noValue: 'Nothing was settled in this time',
          unit: 'currencyUSD',
          rows: balances,
          queries: [postgres('timeseries', spentSql(ofTenants))],
        }),
        chart({
          id: 13,
          title: 'Denied and other answers of the quota service',
          description: '429 is a call that was denied; 503 is a ledger that did not answer.',
          noValue: 'The quota service was not asked in this time',
          unit: 'short',
          kind: 'bars',
          interval: readingInterval,
          rows: toPanel('tenants', 15, 'The denied turns'),
          queries: [
            clickhouse(
              'timeseries',
              `
              SELECT $__timeInterval(TimeUnix) AS time, Attributes['status'] AS status, sum(Value) AS answers
              ${counter('tallylight.quota_answers')}
              GROUP BY time, status ORDER BY time, status`,
            ),
          ],
        }),
        table({
          id: 14,
          title: 'Reservations',
          description:
            'The newest reservations with their state: held, settled, released, or expired because nobody ended them.',
          noValue: 'No reservations in this time',
          width: 12,
          columns: { tenant: { link: toBoardOf('overview', 'tenant', 'tenant', 'The tenant') } },
          queries: [
            postgres(
              'table',
              `
              SELECT created_at AS time, tenant, state, user_id AS "user", provider, model, call_id AS call, ended_at AS ended
              FROM quota_reservations
              WHERE $__timeFilter(created_at) AND ${ofTenants}
              ORDER BY created_at DESC LIMIT 100`,
            ),
          ],
        }),
        table({
          id: 15,
          title: 'Denied turns',
          description: 'Turns that a limit ended, the newest first; each leads to its trace.',
          noValue: 'No turn was denied in this time, as far as services that send turns know',
          width: 12,
          columns: {
            tenant: { link: toBoardOf('overview', 'tenant', 'tenant', 'The tenant') },
            conversation: { link: toConversation() },
            trace: { link: toTrace(), width: 280 },
          },
          queries: [
            clickhouse(
              'table',
              `
              SELECT Timestamp AS time, TenantId AS tenant, BlockReason AS reason, UserId AS user, ServiceName AS service,
              ConversationId AS conversation, TraceId AS trace
              FROM turns
              WHERE ${ofService} AND Status = 'blocked'
              ORDER BY Timestamp DESC LIMIT 100`,
            ),
          ],
        }),
      ],
    },
    {
      question: 'Who spends it?',
      panels: [
        stat({
          id: 20,
          title: 'Cost',
          description: 'Of the calls in this time whose price is known.',
          noValue: noCalls,
          unit: 'currencyUSD',
          width: 6,
          height: 8,
          rows: consumers,
          queries: [clickhouse('table', `SELECT sum(CostNanoUsd) / 1e9 AS cost FROM llm_calls\nWHERE ${ofCalls}`)],
        }),
        chart({
          id: 21,
          title: 'Cost per hour by tenant',
          description: 'Calls whose price is known, at the pace of each bucket.',
          noValue: noCalls,
          unit: 'currencyUSD',
          kind: 'bars',
          width: 18,
          rows: consumers,
          queries: [
            clickhouse(
              'timeseries',
              `
              SELECT $__timeInterval(Timestamp) AS time, TenantId AS tenant, sum(CostNanoUsd) / 1e9 * 3600 / $__interval_s AS cost
              FROM llm_calls
              WHERE ${ofCalls} AND CostNanoUsd IS NOT NULL
              GROUP BY time, tenant ORDER BY time, tenant`,
            ),
          ],
        }),
        table({
          id: 22,
          title: 'Top consumers',
          description: 'Users by cost; an empty user is one that the service does not name.',
          noValue: 'No calls in this time',
          width: 12,
          columns: {
            tenant: { link: toBoardOf('overview', 'tenant', 'tenant', 'The tenant') },
            cost: { unit: 'currencyUSD' },
            trace: { link: toTrace(), width: 280 },
          },
          queries: [
            clickhouse(
              'table',
              `
              SELECT TenantId AS tenant, UserId AS user, sum(CostNanoUsd) / 1e9 AS cost, count() AS calls, sum(InputTokens) AS input,
              sum(OutputTokens) AS output, argMax(TraceId, coalesce(CostNanoUsd, 0)) AS trace
              FROM llm_calls
              WHERE ${ofCalls}
              GROUP BY tenant, user ORDER BY cost DESC NULLS LAST LIMIT 100`,
            ),
          ],
        }),
        table({
          id: 23,
          title: 'Costly conversations',
          description: 'Conversations by cost.',
          noValue: 'No calls with a conversation in this time',
          width: 12,
          columns: {
            tenant: { link: toBoardOf('overview', 'tenant', 'tenant', 'The tenant') },
            cost: { unit: 'currencyUSD' },
            conversation: { link: toConversation() },
          },
          queries: [
            clickhouse(
              'table',
              `
              SELECT TenantId AS tenant, ConversationId AS conversation, sum(CostNanoUsd) / 1e9 AS cost, count() AS calls, max(Timestamp) AS last
              FROM llm_calls
              WHERE ${ofCalls} AND ConversationId != ''
              GROUP BY tenant, conversation ORDER BY cost DESC NULLS LAST LIMIT 100`,
            ),
          ],
        }),
        table({
          id: 24,
          title: 'Costly calls',
          description: 'Single calls by cost.',
          noValue: noCalls,
          columns: {
            tenant: { link: toBoardOf('overview', 'tenant', 'tenant', 'The tenant') },
            cost: { unit: 'currencyUSD', decimals: 4 },
            trace: { link: toTrace(), width: 280 },
          },
          queries: [
            clickhouse(
              'table',
              `
              SELECT Timestamp AS time, TenantId AS tenant, UserId AS user, Provider AS provider, Model AS model,
              CostNanoUsd / 1e9 AS cost, InputTokens AS input, OutputTokens AS output, UsageSource AS usage, TraceId AS trace
              FROM llm_calls
              WHERE ${ofCalls} AND CostNanoUsd IS NOT NULL
              ORDER BY CostNanoUsd DESC LIMIT 100`,
            ),
          ],
        }),
      ],
    },
  ],
}
