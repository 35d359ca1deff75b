// Strands Agents, and AgentCore, which runs them: the framework stands where the provider belongs, cycles of the agent's loop
// have no operation, content lies in span events (Bedrock's form, or since the newest conventions OpenTelemetry's).
import { durationNano, firstText } from '../attributes.ts'
import { type Reading, wholeIn } from '../reading.ts'
import type { LiftedSpan } from '../record.ts'
import type { Dialect, Read } from './dialect.ts'
import { kindOf, type OperationKind, operationOf, readOtel } from './otel.ts'
import { saidOnSpan } from './otel-messages.ts'

export const strands: Dialect = {
  name: 'strands',
  knows: (span) => /^strands/.test(span.scope.name) || firstText(span.attributes, 'gen_ai.system') === 'strands-agents',
  readSpan,
}

function readSpan(reading: Reading, span: LiftedSpan): Read {
  const { attributes } = span
  // Python's is in milliseconds under a name that is in seconds everywhere else.
  const unit = span.scope.name === 'strands.telemetry.tracer' ? 1e6 : 1e9
  const kind = kindOfSpan(span)
  const isAround = kind === 'agent' || kind === 'wrapper'
  return readOtel(reading, span, {
    kind,
    ...(isAround
      ? { messages: [...wholeIn(reading, 'system_prompt', 'input', 'system'), ...saidOnSpan(reading, span).messages] }
      : {}),
    timeToFirstTokenNano: durationNano(attributes.get('gen_ai.server.time_to_first_token'), unit),
    failure: { hasFailed: firstText(attributes, 'gen_ai.tool.status') === 'error' },
  })
}

function kindOfSpan(span: LiftedSpan): OperationKind {
  const operation = operationOf(span)
  const isLoop = /_cycle$/.test(span.name) || operation === 'invoke_swarm' || operation === 'invoke_graph'
  return isLoop ? 'wrapper' : kindOf(operation)
}
