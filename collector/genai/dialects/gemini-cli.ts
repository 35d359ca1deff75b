// Gemini CLI: OpenTelemetry's names around operations of its own (`otel.ts` knows them). A tool's arguments and result stand
// where a call has its messages, and what the model thought is not in its output.
import { firstText } from '../attributes.ts'
import { contentIn } from '../reading.ts'
import type { LiftedSpan } from '../record.ts'
import type { Dialect } from './dialect.ts'
import { kindOf, operationOf, readOtel } from './otel.ts'

export const geminiCli: Dialect = {
  name: 'otel',
  knows: (span) => span.scope.name === 'gemini-cli' && operationOf(span) !== '',
  readSpan: (reading, span) =>
    kindOf(operationOf(span)) === 'tool'
      ? readOtel(reading, withCallId(span), {
          arguments: contentIn(reading, 'gen_ai.input.messages'),
          result: contentIn(reading, 'gen_ai.output.messages'),
        })
      : readOtel(reading, span, { source: 'partial' }),
}

function withCallId(span: LiftedSpan): LiftedSpan {
  const id = firstText(span.attributes, 'gen_ai.tool.call.id', 'gen_ai.tool.call_id')
  return { ...span, attributes: new Map([...span.attributes, ['gen_ai.tool.call.id', id]]) }
}
