// The Anthropic SDKs' own spans, on by default as soon as there is a tracer provider: OpenTelemetry's newest names, the reason
// to stop and a tool's result under names of their own. Messages are only those that are new since the last call.
import { firstText } from '../attributes.ts'
import { contentIn } from '../reading.ts'
import type { Dialect } from './dialect.ts'
import { readOtel } from './otel.ts'

export const anthropicSdk: Dialect = {
  name: 'anthropic-sdk',
  knows: (span) => span.scope.name.startsWith('com.anthropic.sdk'),
  readSpan: (reading, span) => {
    const stopReason = firstText(span.attributes, 'anthropic.message.stop_reason')
    return readOtel(reading, span, {
      result: contentIn(reading, 'gen_ai.tool.call.result', 'anthropic.tool_result.content'),
      ...(stopReason === '' ? {} : { finishReason: stopReason }),
    })
  },
}
