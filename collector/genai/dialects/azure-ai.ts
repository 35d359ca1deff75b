// Azure AI Inference and Azure AI Agents. Messages are span events with the message as JSON in `gen_ai.event.content`; an error's
// type is "undefined". Agents run on the server: a run is one span with the sum of its steps, which its events repeat, and what an
// agent of a project answers is one span of its client, with all that it used.
import { firstText } from '../attributes.ts'
import type { LiftedSpan } from '../record.ts'
import type { Dialect } from './dialect.ts'
import { operationOf, readOtel } from './otel.ts'

export const azureAi: Dialect = {
  name: 'azure-ai',
  knows: ({ scope, attributes }) =>
    /^(@azure(-rest)?\/ai-|azure\.ai\.)/.test(scope.name) ||
    (firstText(attributes, 'az.namespace') === 'Microsoft.CognitiveServices' &&
      firstText(attributes, 'gen_ai.system', 'gen_ai.provider.name') !== '') ||
    firstText(attributes, 'gen_ai.system').startsWith('az.ai.'),
  readSpan: (reading, span) => readOtel(reading, span, isRequestToAgent(span) ? { kind: 'call' } : {}),
}

/** An agent that runs here is no client, and the calls inside it are metered; of one that runs there, nothing else is seen. */
function isRequestToAgent(span: LiftedSpan): boolean {
  const isMetered = span.attributes.has('gen_ai.usage.input_tokens')
  return span.spanKind === 'client' && isMetered && operationOf(span) === 'invoke_agent'
}
