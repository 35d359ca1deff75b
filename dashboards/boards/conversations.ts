import type { BoardPlan } from '../board.ts'
import { ofService, ofTenant, seconds, usd } from '../filters.ts'
import { toConversation, toTrace } from '../links.ts'
import { table } from '../panels.ts'
import { clickhouse } from '../sources.ts'
import { callColumns, callFields } from './call-table.ts'

const none = 'No conversation in this time: services name it with gen_ai.conversation.id'

/** The one that was chosen, else the newest of the range, so that the board is never blank. Tenants name theirs as they like: what is
 *  `1` of one is not `1` of another. */
const wanted = `decodeURLComponent('\${conversation:percentencode}')`
const newest = `SELECT argMax((TenantId, ConversationId), Timestamp) FROM turns WHERE ${ofService} AND ConversationId != ''`
const ofConversation = `${ofTenant} AND ConversationId = if(${wanted} != '', ${wanted}, (${newest}).2)
  AND (${wanted} != '' OR TenantId = (${newest}).1)`

export const conversations: BoardPlan = {
  name: 'conversations',
  title: 'Conversations',
  description:
    'The conversations of the range, and one of them turn by turn: what was asked, what was answered, which calls and tools it took.',
  from: 'now-3h',
  variables: ['tenant', 'service', 'conversation'],
  rows: [
    {
      question: 'Which conversations were there?',
      panels: [
        table({
          id: 10,
          title: 'Conversations',
          description: 'The newest first; a click on one shows it below.',
          noValue: none,
          columns: {
            conversation: { link: toConversation() },
            cost: { unit: 'currencyUSD', decimals: 4 },
            not_well: { thresholds: { warn: 1, bad: 3 } },
            trace: { link: toTrace() },
          },
          queries: [
            clickhouse(
              'table',
              `
              SELECT max(Timestamp) AS last, ConversationId AS conversation, TenantId AS tenant, any(ServiceName) AS service,
              argMax(UserId, Timestamp) AS user, count() AS turns, countIf(Status NOT IN ('success', 'pending')) AS not_well,
              sum(Calls) AS calls, sum(ToolCalls) AS tool_calls, sum(CostNanoUsd) / 1e9 AS cost,
              argMax(QuestionPreview, Timestamp) AS last_question, argMax(TraceId, Timestamp) AS trace
              FROM turns
              WHERE ${ofService} AND (TenantId, ConversationId) IN (
              SELECT TenantId, ConversationId FROM turns WHERE ${ofService} AND ConversationId != ''
              GROUP BY TenantId, ConversationId ORDER BY max(Timestamp) DESC LIMIT 200)
              GROUP BY tenant, conversation ORDER BY last DESC LIMIT 200`,
            ),
          ],
        }),
      ],
    },
    {
      question: 'What happened in one of them?',
      panels: [
        table({
          id: 20,
          title: 'Turns',
          description: 'In their order. Of the conversation above, or the newest when none is chosen.',
          noValue: none,
          columns: {
            trace: { link: toTrace(), width: 280 },
            duration: { unit: 's' },
            first_token: { unit: 's' },
            cost: { unit: 'currencyUSD', decimals: 4 },
          },
          queries: [
            clickhouse(
              'table',
              `
              SELECT Timestamp AS time, Status AS status, QuestionPreview AS question, AnswerPreview AS answer, Calls AS calls,
              ToolsUsed AS tools, ${seconds('DurationNano')} AS duration, ${seconds('TimeToFirstTokenNano')} AS first_token,
              InputTokens AS input, OutputTokens AS output, ${usd('CostNanoUsd')} AS cost, Channel AS channel, BlockReason AS reason,
              TraceId AS trace
              FROM turns
              WHERE ${ofConversation}
              ORDER BY Timestamp LIMIT 500`,
            ),
          ],
        }),
        table({
          id: 21,
          title: 'Messages',
          description:
            'Whole, where the tenant keeps content; in the order in which they were sent, each text once per call.',
          noValue: 'No messages: the tenant keeps no content, or the service sends none',
          height: 12,
          columns: { content: { width: 800 }, trace: { link: toTrace(), width: 280 } },
          queries: [
            clickhouse(
              'table',
              `
              SELECT Timestamp AS time, Direction AS direction, Role AS role, ContentType AS type, Content AS content, TraceId AS trace
              FROM messages
              WHERE ${ofConversation}
              ORDER BY Timestamp, SpanId, Direction, Index LIMIT 500`,
            ),
          ],
        }),
        table({
          id: 22,
          title: 'Calls',
          description: 'Model calls of the conversation, in their order.',
          noValue: none,
          columns: callColumns,
          queries: [
            clickhouse(
              'table',
              `
              SELECT Timestamp AS time, ErrorType AS error, ${callFields}
              FROM llm_calls
              WHERE ${ofConversation}
              ORDER BY Timestamp LIMIT 500`,
            ),
          ],
        }),
      ],
    },
  ],
}
