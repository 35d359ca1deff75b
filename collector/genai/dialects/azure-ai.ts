// Azure AI Inference and Azure AI Agents. Messages are span events with the message as JSON in `gen_ai.event.content`; an error's
// type is "undefined". Agents run on the server: a run is one span with the sum of its steps, which its events repeat.
import { firstText } from '../attributes.ts'
import type { Dialect } from './dialect.ts'
import { readOtel } from './otel.ts'

export const azureAi: Dialect = {
  name: 'azure-ai',
  knows: ({ scope, attributes }) =>
    /^(@azure(-rest)?\/ai-|azure\.ai\.)/.test(scope.name) ||
    (firstText(attributes, 'az.namespace') === 'Microsoft.CognitiveServices' && attributes.has('gen_ai.system')) ||
    firstText(attributes, 'gen_ai.system').startsWith('az.ai.'),
  readSpan: readOtel,
}
