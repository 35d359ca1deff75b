import type { BoardPlan } from '../board.ts'
import { ofService } from '../filters.ts'
import { toConversation } from '../links.ts'
import { table, waterfall } from '../panels.ts'
import { clickhouse } from '../sources.ts'
import { callColumns, callFields } from './call-table.ts'

const none = 'No such trace: its retention is over, or the id is cut'

/** The one that was chosen, whenever it was, else the newest of the range. Its day is looked up first: without it, every day
 *  of the table would be asked for the id. It knows when spans began; log records may be later than the last of them. Of a
 *  trace whose spans were not sent, what was logged is looked for in the range. */
const withTrace = `WITH if(\${trace:singlequote} != '', \${trace:singlequote}, (SELECT argMax(TraceId, Timestamp) FROM turns WHERE ${ofService})) AS wanted,
(SELECT if(count() = 0, $__fromTime, min(Start)) FROM otel_traces_trace_id_ts WHERE TraceId = wanted) AS first,
(SELECT if(count() = 0, $__toTime, max(End) + 3600) FROM otel_traces_trace_id_ts WHERE TraceId = wanted) AS last`
const ofTrace = 'TraceId = wanted AND Timestamp >= first AND Timestamp <= last'

const tagsOf = (map: string): string => `arrayMap(key -> map('key', key, 'value', ${map}[key]), mapKeys(${map}))`

export const trace: BoardPlan = {
  name: 'trace',
  title: 'Trace',
  description: 'One trace: its spans, its calls, its tools, its messages, its log records and its errors.',
  from: 'now-3h',
  variables: ['tenant', 'service', 'trace'],
  rows: [
    {
      question: 'What happened, and how long did it take?',
      panels: [
        waterfall({
          id: 10,
          title: 'Spans',
          description: 'The whole trace; without an id the newest of the range.',
          noValue: none,
          queries: [
            clickhouse(
              'traces',
              `
              ${withTrace}
              SELECT TraceId AS traceID, SpanId AS spanID, ParentSpanId AS parentSpanID, ServiceName AS serviceName, SpanName AS operationName,
              toUnixTimestamp64Nano(Timestamp) * 1e-6 AS startTime, Duration * 1e-6 AS duration,
              ${tagsOf('SpanAttributes')} AS tags, ${tagsOf('ResourceAttributes')} AS serviceTags,
              if(StatusCode = 'Error', 2, 0) AS statusCode, StatusMessage AS statusMessage, SpanKind AS kind
              FROM otel_traces
              WHERE ${ofTrace}
              ORDER BY Timestamp LIMIT 5000`,
            ),
          ],
        }),
      ],
    },
    {
      question: 'What did it ask, use and cost?',
      panels: [
        table({
          id: 20,
          title: 'Calls',
          description: 'Model calls, in their order.',
          noValue: 'No model calls in this trace',
          columns: callColumns,
          queries: [
            clickhouse(
              'table',
              `${withTrace}\nSELECT Timestamp AS time, ErrorType AS error, FinishReason AS ended, ${callFields}\nFROM llm_calls\nWHERE ${ofTrace}\nORDER BY time LIMIT 500`,
            ),
          ],
        }),
        table({
          id: 21,
          title: 'Tool calls',
          description: 'With their arguments and results, where the tenant keeps content.',
          noValue: 'No tool calls in this trace',
          columns: { duration: { unit: 's' }, conversation: { link: toConversation() } },
          queries: [
            clickhouse(
              'table',
              `
              ${withTrace}
              SELECT Timestamp AS time, Status AS status, ErrorType AS error, McpServer AS server, Name AS tool, DurationNano / 1e9 AS duration,
              Arguments AS arguments, Result AS result, TenantId AS tenant, ConversationId AS conversation
              FROM tool_calls
              WHERE ${ofTrace}
              ORDER BY Timestamp LIMIT 500`,
            ),
          ],
        }),
        table({
          id: 22,
          title: 'Messages',
          description: 'In the order in which they were sent.',
          noValue: 'No messages: the tenant keeps no content, or the service sends none',
          columns: { content: { width: 900 } },
          queries: [
            clickhouse(
              'table',
              `
              ${withTrace}
              SELECT Timestamp AS time, Direction AS direction, Role AS role, ContentType AS type, Content AS content
              FROM messages
              WHERE ${ofTrace}
              ORDER BY Timestamp, SpanId, Direction, Index LIMIT 500`,
            ),
          ],
        }),
        table({
          id: 23,
          title: 'Around the calls',
          description: 'What turns, agents and chains hold of the conversation: mostly what their calls hold, too.',
          noValue: 'No messages around the calls of this trace',
          columns: { content: { width: 900 } },
          queries: [
            clickhouse(
              'table',
              `
              ${withTrace}
              SELECT Timestamp AS time, SpanId AS span, Direction AS direction, Role AS role, ContentType AS type, Content AS content
              FROM wrapper_messages
              WHERE ${ofTrace}
              ORDER BY Timestamp, SpanId, Direction, Index LIMIT 500`,
            ),
          ],
        }),
      ],
    },
    {
      question: 'What went wrong, and what was logged?',
      panels: [
        table({
          id: 30,
          title: 'Errors',
          description: 'Failures of the spans and log records of the trace.',
          noValue: 'No errors in this trace',
          columns: {},
          queries: [
            clickhouse(
              'table',
              `${withTrace}\nSELECT Timestamp AS time, Type AS type, Message AS message, ServiceName AS service, SpanId AS span, Stack AS stack\nFROM errors\nWHERE ${ofTrace}\nORDER BY Timestamp LIMIT 500`,
            ),
          ],
        }),
        table({
          id: 31,
          title: 'Log records',
          description: 'Of the trace, in their order.',
          noValue: 'No log records in this trace',
          columns: { body: { width: 900 } },
          queries: [
            clickhouse(
              'table',
              `${withTrace}\nSELECT Timestamp AS time, SeverityText AS severity, ServiceName AS service, EventName AS event, Body AS body\nFROM otel_logs\nWHERE ${ofTrace}\nORDER BY Timestamp LIMIT 500`,
            ),
          ],
        }),
      ],
    },
  ],
}
