// LangSmith's translation of its runs: `gen_ai.*` with the whole request and reply as JSON in `gen_ai.prompt` and
// `gen_ai.completion`. The provider is guessed from the model's name, the status of a failed run is OK with an exception beside
// it, and the operation of a prompt or a retriever is "chat" or "embeddings": the kind of run is what counts.
import { providerOf } from '@tallylight/instrumentation/usage/names.ts'
import { inclusive, type RawUsage, readUsage, type UsageRead } from '@tallylight/instrumentation/usage/usage.ts'
import { firstText, firstValue, isObject, isTrue, type Json, jsonOf } from '../attributes.ts'
import { rawUsageOf, recoveredUsage } from '../counts.ts'
import { contentIn, type Reading, wholeIn } from '../reading.ts'
import type { AnyValue, LiftedSpan } from '../record.ts'
import type { Dialect, Read } from './dialect.ts'
import { generationOf, usageMetadataCounts } from './langchain.ts'
import { fromPython, kindOf, type OperationKind, operationOf, readOtel } from './otel.ts'

const kinds: ReadonlyMap<string, OperationKind> = new Map(
  Object.entries<OperationKind>({
    llm: 'call',
    embedding: 'embedding',
    tool: 'tool',
    chain: 'wrapper',
    parser: 'link',
    prompt: 'link',
    retriever: 'link',
  }),
)

export const langsmith: Dialect = {
  name: 'langsmith',
  knows: (span) => span.scope.name === 'langsmith' || span.attributes.has('langsmith.span.kind'),
  readSpan,
}

function readSpan(reading: Reading, span: LiftedSpan): Read {
  const { attributes } = span
  const kind = kinds.get(firstText(attributes, 'langsmith.span.kind')) ?? kindOf(operationOf(span))
  const isTool = kind === 'tool'
  const model = firstText(attributes, 'gen_ai.response.model', 'gen_ai.request.model')
  const provider = providerOf(firstText(attributes, 'langsmith.metadata.ls_provider', 'gen_ai.system'), model)
  const read = readOtel(reading, span, {
    kind,
    provider,
    usage: usageOf(span, provider),
    failure: { exceptionIsFailure: true },
    agentName: firstText(attributes, 'langsmith.trace.name'),
    toolName: firstText(attributes, 'langsmith.trace.name'),
    ...(kind === 'agent' || kind === 'wrapper'
      ? {
          messages: [
            ...wholeIn(reading, 'gen_ai.prompt', 'input', 'user'),
            ...wholeIn(reading, 'gen_ai.completion', 'output', 'assistant'),
          ],
        }
      : {}),
    ...(isTool
      ? { arguments: contentIn(reading, 'gen_ai.prompt'), result: contentIn(reading, 'gen_ai.completion') }
      : {}),
  })
  if (read.says.kind !== 'call' || !isTrue(attributes.get('langsmith.request.streaming'))) return read
  return { ...read, says: { ...read.says, isStreaming: true } }
}

function usageOf(span: LiftedSpan, provider: string): UsageRead {
  const { attributes } = span
  const metadata = jsonOf(firstValue(attributes, 'langsmith.usage_metadata', 'langsmith.metadata.usage_metadata'))
  const details = {
    input_token_details: detailsOf(attributes.get('gen_ai.usage.input_token_details')),
    output_token_details: detailsOf(attributes.get('gen_ai.usage.output_token_details')),
  }
  const raw: RawUsage = {
    ...rawUsageOf(attributes),
    ...defined(usageMetadataCounts(details)),
    ...(isObject(metadata) ? defined(usageMetadataCounts(metadata)) : {}),
  }
  const reported = readUsage(raw, inclusive)
  if (reported.kind === 'absurd') return reported
  // What LangChain made of it says more of the cache than what LangSmith made of that.
  const generation = generationOf(attributes.get('gen_ai.completion'))
  if (generation !== undefined && generation.usage.kind !== 'none') return generation.usage
  if (reported.kind !== 'none') return reported
  return recoveredUsage(jsonOf(attributes.get('gen_ai.completion')), provider)
}

/** JavaScript writes JSON, Python prints a dictionary. */
function detailsOf(value: AnyValue | undefined): Json | undefined {
  return typeof value === 'string' ? (jsonOf(value) ?? jsonOf(fromPython(value))) : jsonOf(value)
}

function defined(raw: RawUsage): RawUsage {
  return Object.fromEntries(Object.entries(raw).filter(([, value]) => value !== undefined))
}
