import type { BoardPlan } from '../board.ts'
import { ofService, ofTenant, seconds } from '../filters.ts'
import { toBoardOf, toConversation, toPanel, toTrace } from '../links.ts'
import { chart, table } from '../panels.ts'
import { clickhouse } from '../sources.ts'

const ranked = toPanel('tools', 10, 'The tools, ranked')
const failed = toPanel('tools', 40, 'The failed tool calls')
const checks = toPanel('tools', 30, 'The health checks, by target')
const none = 'No tool calls in this time'
const noChecks = 'No health checks in this time: services report them through the instrumentation'
const tool = `if(McpServer = '', Name, concat(McpServer, ' / ', Name))`
const hasFailed = `Status IN ('failure', 'timeout')`

export const tools: BoardPlan = {
  name: 'tools',
  title: 'Tools and MCP health',
  description:
    'Which tools and MCP servers are called, which fail, which are slow, and which servers answer their health checks.',
  variables: ['tenant', 'service'],
  rows: [
    {
      question: 'How do the tools compare?',
      panels: [
        table({
          id: 10,
          title: 'Tools',
          description:
            'By calls; the server is empty where a tool is no MCP tool. The trace is that of the slowest call.',
          noValue: none,
          width: 14,
          columns: {
            failed: { unit: 'percentunit', thresholds: { warn: 0.01, bad: 0.05 } },
            p50: { unit: 's' },
            p95: { unit: 's' },
            trace: { link: toTrace() },
          },
          queries: [
            clickhouse(
              'table',
              `
              SELECT McpServer AS server, Name AS tool, count() AS calls, countIf(${hasFailed}) / count() AS failed,
              countIf(Status = 'timeout') AS timeouts, quantile(0.5)(DurationNano) / 1e9 AS p50, quantile(0.95)(DurationNano) / 1e9 AS p95,
              argMax(TraceId, DurationNano) AS trace
              FROM tool_calls
              WHERE ${ofService}
              GROUP BY server, tool ORDER BY calls DESC LIMIT 200`,
            ),
          ],
        }),
        table({
          id: 11,
          title: 'MCP servers',
          description: 'By calls of their tools.',
          noValue: 'No calls of MCP tools in this time',
          width: 10,
          columns: {
            failed: { unit: 'percentunit', thresholds: { warn: 0.01, bad: 0.05 } },
            p95: { unit: 's' },
            trace: { link: toTrace() },
          },
          queries: [
            clickhouse(
              'table',
              `
              SELECT McpServer AS server, uniqExact(Name) AS tools, count() AS calls, countIf(${hasFailed}) / count() AS failed,
              quantile(0.95)(DurationNano) / 1e9 AS p95, argMax(TraceId, DurationNano) AS trace
              FROM tool_calls
              WHERE ${ofService} AND McpServer != ''
              GROUP BY server ORDER BY calls DESC LIMIT 200`,
            ),
          ],
        }),
      ],
    },
    {
      question: 'Which fail, which are slow?',
      panels: [
        perTool(20, 'Calls per second', 'Tool calls by server and tool.', 'reqps', 'count() / $__interval_s', ranked),
        perTool(
          21,
          'Failed share',
          'Calls that failed or timed out.',
          'percentunit',
          `countIf(${hasFailed}) / count()`,
          failed,
        ),
        perTool(
          22,
          'Duration, 95th percentile',
          'From the request to the result.',
          's',
          'quantile(0.95)(DurationNano) / 1e9',
          ranked,
        ),
        chart({
          id: 23,
          title: 'Tool calls of one trace, 99th percentile',
          description: 'A number that climbs is an agent that runs in circles.',
          noValue: none,
          unit: 'short',
          rows: toPanel('tools', 41, 'The traces with most tool calls'),
          queries: [
            clickhouse(
              'timeseries',
              `
              SELECT time, quantile(0.99)(calls) AS p99
              FROM (
                SELECT TraceId, min($__timeInterval(Timestamp)) AS time, count() AS calls
                FROM tool_calls
                WHERE ${ofService}
                GROUP BY TraceId
              )
              GROUP BY time ORDER BY time`,
            ),
          ],
        }),
      ],
    },
    {
      question: 'Do the servers answer?',
      panels: [
        table({
          id: 30,
          title: 'Health checks by target',
          description: 'Share of checks that found the target healthy, and what the last one found.',
          noValue: noChecks,
          columns: {
            available: { unit: 'percentunit', thresholds: { warn: 0.999, bad: 0.99, isMoreBetter: true } },
            p95: { unit: 's' },
            trace: { link: toTrace(), width: 280 },
          },
          queries: [
            clickhouse(
              'table',
              `
              SELECT TenantId AS tenant, Target AS target, Metadata['server'] AS server, countIf(Status = 'healthy') / count() AS available,
              count() AS checks, argMax(Status, Timestamp) AS last, max(Timestamp) AS at,
              quantile(0.95)(ResponseTimeNano) / 1e9 AS p95, argMaxIf(ErrorMessage, Timestamp, ErrorMessage != '') AS error,
              argMax(TraceId, Timestamp) AS trace
              FROM health_checks
              WHERE ${ofTenant}
              GROUP BY tenant, target, server ORDER BY available, checks DESC LIMIT 200`,
            ),
          ],
        }),
        chart({
          id: 31,
          title: 'Availability',
          description: 'Share of checks that found the target healthy.',
          noValue: noChecks,
          unit: 'percentunit',
          max: 1,
          rows: checks,
          queries: [
            clickhouse(
              'timeseries',
              `
              SELECT $__timeInterval(Timestamp) AS time, concat(TenantId, ': ', Target, ' ', Metadata['server']) AS target, countIf(Status = 'healthy') / count() AS available
              FROM health_checks
              WHERE ${ofTenant}
              GROUP BY time, target ORDER BY time, target`,
            ),
          ],
        }),
        chart({
          id: 32,
          title: 'Response time, 95th percentile',
          description: 'Of the health checks of each target.',
          noValue: noChecks,
          unit: 's',
          rows: checks,
          queries: [
            clickhouse(
              'timeseries',
              `
              SELECT $__timeInterval(Timestamp) AS time, concat(TenantId, ': ', Target, ' ', Metadata['server']) AS target, quantile(0.95)(ResponseTimeNano) / 1e9 AS p95
              FROM health_checks
              WHERE ${ofTenant}
              GROUP BY time, target ORDER BY time, target`,
            ),
          ],
        }),
      ],
    },
    {
      question: 'Which calls are those?',
      panels: [
        table({
          id: 40,
          title: 'Failed tool calls',
          description: 'The newest calls that failed or timed out; each leads to its trace.',
          noValue: 'No failed tool calls in this time',
          columns: {
            duration: { unit: 's' },
            trace: { link: toTrace(), width: 280 },
            conversation: { link: toConversation() },
          },
          queries: [
            clickhouse(
              'table',
              `
              SELECT Timestamp AS time, Status AS status, ErrorType AS error, McpServer AS server, Name AS tool, TenantId AS tenant,
              ServiceName AS service, ${seconds('DurationNano')} AS duration, ConversationId AS conversation, TraceId AS trace
              FROM tool_calls
              WHERE ${ofService} AND ${hasFailed}
              ORDER BY Timestamp DESC LIMIT 100`,
            ),
          ],
        }),
        table({
          id: 41,
          title: 'Traces with most tool calls',
          description: 'Where an agent may run in circles.',
          noValue: none,
          columns: {
            trace: { link: toTrace(), width: 280 },
            tenant: { link: toBoardOf('tenants', 'tenant', 'tenant', 'The tenant') },
          },
          queries: [
            clickhouse(
              'table',
              `
              SELECT TraceId AS trace, any(TenantId) AS tenant, any(ServiceName) AS service, count() AS calls,
              countIf(${hasFailed}) AS failures, topK(3)(Name) AS tools, min(Timestamp) AS first, max(Timestamp) AS last
              FROM tool_calls
              WHERE ${ofService} AND TraceId IN (
              SELECT TraceId FROM tool_calls WHERE ${ofService} GROUP BY TraceId ORDER BY count() DESC LIMIT 100)
              GROUP BY TraceId ORDER BY calls DESC LIMIT 100`,
            ),
          ],
        }),
      ],
    },
  ],
}

function perTool(id: number, title: string, description: string, unit: string, value: string, rows: typeof ranked) {
  return chart({
    id,
    title: `${title}, by tool`,
    description,
    noValue: none,
    unit,
    rows,
    queries: [
      clickhouse(
        'timeseries',
        `
        SELECT $__timeInterval(Timestamp) AS time, ${tool} AS tool, ${value} AS value
        FROM tool_calls
        WHERE ${ofService}
        GROUP BY time, tool ORDER BY time, tool`,
      ),
    ],
  })
}
