// OpenLIT: OpenTelemetry's names with the provider's raw numbers under them (`counts.ts` knows), and `gen_ai.tool.name` on the
// span of a call that asks for a tool. Older versions wrote the content into span events of 1.27.
import { firstValue } from '../attributes.ts'
import type { LiftedSpan } from '../record.ts'
import type { Dialect, Read } from './dialect.ts'
import { readOtel } from './otel.ts'

export const openlit: Dialect = {
  name: 'openlit',
  knows: (span) =>
    /^@?openlit/.test(span.scope.name) ||
    span.attributes.has('openlit.agent.version_hash') ||
    span.attributes.get('telemetry.sdk.name') === 'openlit' ||
    span.resource.get('telemetry.sdk.name') === 'openlit',
  readSpan: (reading, span) => {
    const read = withoutFirstToken(readOtel(reading, span), span)
    // A stream that was not asked to tell its usage is counted with a tokenizer, and nothing says so.
    return read.says.kind === 'call' && read.says.isStreaming
      ? { ...read, says: { ...read.says, isDoubtful: true } }
      : read
  },
}

/** Of a reply that was no stream, Python writes how long all of it took as the time to the first token. */
function withoutFirstToken(read: Read, { attributes }: LiftedSpan): Read {
  const isWhole = firstValue(attributes, 'gen_ai.request.stream', 'gen_ai.request.is_stream') === false
  if (read.says.kind !== 'call' || !isWhole) return read
  const { timeToFirstTokenNano: _told, ...says } = read.says
  return { ...read, says: { ...says, isStreaming: false } }
}
