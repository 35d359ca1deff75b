// Our instrumentation's: OpenTelemetry's conventions, and attributes of our own where there are none: the turn, audit events,
// health checks, and errors that were recorded by themselves.
import { firstText, textOfValue } from '../attributes.ts'
import type { Failure, HealthStatus, MessageFact, Says, TurnStatus } from '../fact.ts'
import { failureOf, failureOfLog, isTimeout } from '../failure.ts'
import { type Direction, messageOf, type Reading, turnSays } from '../reading.ts'
import type { Attributes, LiftedLog, LiftedSpan } from '../record.ts'
import type { Dialect, Read } from './dialect.ts'
import { mcp } from './mcp.ts'
import { operationOf, readOtel } from './otel.ts'
import { eventNameOf } from './otel-logs.ts'
import { saidOnSpan } from './otel-messages.ts'

export const tallylight: Dialect = {
  name: 'tallylight',
  knows: (span) =>
    span.scope.name.startsWith('@tallylight/') || isTurn(span) || span.attributes.has('tallylight.health.target'),
  readSpan,
  knowsLog: (log) => eventNameOf(log).startsWith('tallylight.'),
  readLog,
}

/** A call that joined a turn carries its id, too; the span of the turn itself is no operation on a model. */
function isTurn(span: LiftedSpan): boolean {
  return (
    span.attributes.has('tallylight.turn.channel') ||
    (span.attributes.has('tallylight.turn.id') && span.name === 'turn' && operationOf(span) === '')
  )
}

function readSpan(reading: Reading, span: LiftedSpan): Read | undefined {
  // Requests of MCP are told by its conventions, whoever tells them.
  if (mcp.knows(span)) return mcp.readSpan(reading, span)
  const failure = failureOf(span)
  if (span.attributes.has('tallylight.health.target')) return { says: healthOf(span.attributes, failure), failure }
  const besides = span.events
    .filter((event) => event.name === 'tallylight.audit')
    .map((event): Says => auditOf(event.attributes))
  if (isTurn(span)) return { says: turnOf(reading, span), failure, besides }
  // Of a stream that nobody read to its end.
  const isPartial = span.attributes.get('tallylight.usage.source') === 'partial'
  return { ...readOtel(reading, span, isPartial ? { source: 'partial' } : {}), besides }
}

const turnStatuses = new Set<string>(['pending', 'success', 'failure', 'timeout', 'retry', 'blocked'])

function turnOf(reading: Reading, span: LiftedSpan): Says {
  const messages = [
    ...saidOnSpan(reading, span).messages,
    ...plainText(reading, 'tallylight.turn.question', 'input', 'user'),
    ...plainText(reading, 'tallylight.turn.answer', 'output', 'assistant'),
  ]
  const status = firstText(span.attributes, 'tallylight.turn.status')
  const blockReason = firstText(span.attributes, 'tallylight.turn.block_reason')
  const seconds = span.attributes.get('gen_ai.response.time_to_first_chunk')
  return {
    ...turnSays('turn', span.name, messages),
    ...(turnStatuses.has(status) ? { status: status as TurnStatus } : {}),
    ...(blockReason === '' ? {} : { blockReason }),
    ...(typeof seconds === 'number' && seconds >= 0 ? { timeToFirstTokenNano: Math.round(seconds * 1e9) } : {}),
  }
}

/** The service's own word, which may look like JSON and is a text. */
function plainText(reading: Reading, key: string, direction: Direction, role: string): readonly MessageFact[] {
  const text = textOfValue(reading.attributes.get(key))
  if (text === '') return []
  reading.account.understood.add(key)
  return [messageOf(reading, direction, role, 'text', text)]
}

const healthStatuses = new Set<string>(['healthy', 'unhealthy', 'timeout'])

function healthOf(attributes: Attributes, failure: Failure | undefined): Says {
  const said = firstText(attributes, 'tallylight.health.status')
  const judged = failure === undefined ? 'healthy' : isTimeout(failure) ? 'timeout' : 'unhealthy'
  const prefix = 'tallylight.health.metadata.'
  const metadata = [...attributes].filter(([key]) => key.startsWith(prefix))
  const seconds = attributes.get('tallylight.health.response_time')
  return {
    kind: 'health',
    target: firstText(attributes, 'tallylight.health.target'),
    eventType: firstText(attributes, 'tallylight.health.event') || 'interval',
    status: healthStatuses.has(said) ? (said as HealthStatus) : judged,
    ...(typeof seconds === 'number' && seconds >= 0 ? { responseTimeNano: Math.round(seconds * 1e9) } : {}),
    metadata: Object.fromEntries(metadata.map(([key, value]) => [key.slice(prefix.length), textOfValue(value)])),
  }
}

function auditOf(attributes: Attributes): Says {
  const text = (name: string) => textOfValue(attributes.get(`tallylight.audit.${name}`))
  return {
    kind: 'audit',
    actor: text('actor') || firstText(attributes, 'user.id', 'enduser.id'),
    action: text('action'),
    resourceType: text('resource.type'),
    resourceId: text('resource.id'),
    before: text('before'),
    after: text('after'),
  }
}

function readLog(_reading: Reading, log: LiftedLog): Read | undefined {
  switch (eventNameOf(log)) {
    case 'tallylight.audit':
      return { says: auditOf(log.attributes) }
    case 'tallylight.health': {
      const failed = log.attributes.has('error.type') || log.attributes.has('exception.type')
      const failure = failed ? failureOfLog(log) : undefined
      return { says: healthOf(log.attributes, failure), failure }
    }
    case 'tallylight.error':
      return { says: { kind: 'error', of: 'itself' }, failure: failureOfLog(log) }
    default:
      return undefined
  }
}
