// Langfuse: `langfuse.observation.*`. Its usage is disjoint buckets, its errors leave the status unset, its embeddings by the
// OpenAI wrapper are typed as generations.
import { providerOf } from '@tallylight/instrumentation/usage/names.ts'
import { readProviderUsage } from '@tallylight/instrumentation/usage/provider-usage.ts'
import { inclusive, readUsage, type UsageRead } from '@tallylight/instrumentation/usage/usage.ts'
import { firstText, isObject, type Json, jsonOf, textOfValue } from '../attributes.ts'
import { usageOf } from '../counts.ts'
import type { Failure, MessageFact, Says } from '../fact.ts'
import { failureOf, statusOf } from '../failure.ts'
import { contentIn, type Direction, type Reading, saidIn, settleUsage, turnSays, wholeIn } from '../reading.ts'
import type { LiftedSpan } from '../record.ts'
import { type Dialect, link, type Read } from './dialect.ts'
import { toolMessageOf } from './langchain.ts'
import { callIdentity, nanoToMoment } from './otel.ts'

const input = 'langfuse.observation.input'
const output = 'langfuse.observation.output'

export const langfuse: Dialect = {
  name: 'langfuse',
  knows: (span) => span.attributes.has('langfuse.observation.type') || /^langfuse/.test(span.scope.name),
  readSpan: (reading, span): Read => {
    const failure = failureOf(span, {
      hasFailed: firstText(span.attributes, 'langfuse.observation.level') === 'ERROR',
      message: firstText(span.attributes, 'langfuse.observation.status_message'),
    })
    return { says: saysOf(reading, span, failure), failure }
  },
}

function saysOf(reading: Reading, span: LiftedSpan, failure: Failure | undefined): Says {
  switch (firstText(span.attributes, 'langfuse.observation.type')) {
    case 'generation':
      return readGeneration(reading, span, /embed/i.test(modelOf(span)) ? 'embedding' : 'call')
    case 'embedding':
      return readGeneration(reading, span, 'embedding')
    case 'tool':
      return readTool(reading, span, failure)
    case 'agent':
      return readWrapper(reading, span, 'agent')
    case 'event':
      return link
    default:
      return readWrapper(reading, span, 'wrapper')
  }
}

function modelOf({ attributes }: LiftedSpan): string {
  return firstText(attributes, 'langfuse.observation.model.name', 'gen_ai.response.model', 'gen_ai.request.model')
}

function readGeneration(reading: Reading, span: LiftedSpan, kind: 'call' | 'embedding'): Says {
  const { attributes } = span
  const model = modelOf(span)
  const provider = providerOf(firstText(attributes, 'gen_ai.provider.name', 'gen_ai.system'), model)
  const started = nanoToMoment(span, 'langfuse.observation.completion_start_time')
  const asked = saidIn(reading, input, 'input', 'user').messages
  const messages = kind === 'embedding' ? asked : [...asked, ...saidIn(reading, output, 'output', 'assistant').messages]
  return {
    kind,
    provider,
    requestModel: firstText(attributes, 'gen_ai.request.model') || model,
    model,
    responseId: firstText(attributes, 'gen_ai.response.id'),
    isStreaming: started !== undefined,
    ...settleUsage(reading, usageOfDetails(span, provider), { kind: 'none' }),
    finishReason: '',
    ...(started === undefined ? {} : { timeToFirstTokenNano: started }),
    ...callIdentity(attributes),
    messages,
  }
}

function usageOfDetails(span: LiftedSpan, provider: string): UsageRead {
  const details = jsonOf(span.attributes.get('langfuse.observation.usage_details'))
  if (!isObject(details)) return usageOf(span.attributes, inclusive)
  // Given by the service itself in its provider's form.
  if (isOfProvider(details)) return readProviderUsage(details, provider)
  return readUsage(bucketsOf(details), inclusive)
}

/** OpenAI's chat, Gemini, OpenAI's Responses. */
function isOfProvider(details: { readonly [key: string]: Json }): boolean {
  const { prompt_tokens, promptTokenCount, input_tokens_details } = details
  return prompt_tokens !== undefined || promptTokenCount !== undefined || isObject(input_tokens_details)
}

function bucketsOf(details: { readonly [key: string]: Json }): Readonly<Record<string, unknown>> {
  const sum = (isIn: (key: string) => boolean) => {
    const counts = Object.entries(details).filter(([key, value]) => isIn(key) && value !== null)
    if (counts.length === 0) return undefined
    // One that is no count spoils the sum, as it should.
    return counts.reduce<unknown>(
      (total, [, value]) => (typeof total === 'number' && typeof value === 'number' ? total + value : value),
      0,
    )
  }
  // Writes that are told by how long they are kept are told once more as a total.
  const isSplit = Object.entries(details).some(([key, value]) => key.includes('ephemeral_') && Number(value) > 0)
  const isRepeated = (key: string) => isSplit && totalOfWrites.test(key)
  const isCache = (key: string) => /cache|ephemeral_/.test(key) && !/output/.test(key) && !isRepeated(key)
  const isWrite = (key: string) => isCache(key) && /creation|write|ephemeral_/.test(key)
  const isReasoning = (key: string) => /^output/.test(key) && /reasoning|thoughts/.test(key)
  return {
    inputTokens: sum((key) => (key.startsWith('input') && !isRepeated(key)) || isCache(key)),
    cacheReadTokens: sum((key) => isCache(key) && !isWrite(key)),
    cacheWriteTokens: sum(isWrite),
    cacheWrite1hTokens: sum((key) => isWrite(key) && /1h(_input_tokens)?$/.test(key)),
    outputTokens: sum((key) => key.startsWith('output')),
    reasoningTokens: sum(isReasoning),
  }
}

const totalOfWrites = /^(input_)?cache_creation(_input_tokens)?$/

function readTool(reading: Reading, span: LiftedSpan, failure: Failure | undefined): Says {
  const args = contentIn(reading, input)
  const result = contentIn(reading, output)
  return {
    kind: 'tool',
    name: span.name,
    callId:
      firstText(span.attributes, 'gen_ai.tool.call.id') || (toolMessageOf(span.attributes.get(output))?.callId ?? ''),
    toolType: '',
    provider: '',
    mcpServer: '',
    ...(args === undefined ? {} : { arguments: args }),
    ...(result === undefined ? {} : { result }),
    status: statusOf(failure),
  }
}

function readWrapper(reading: Reading, span: LiftedSpan, kind: 'agent' | 'wrapper'): Says {
  return turnSays(kind, span.name, [
    ...saidAround(reading, input, 'langfuse.trace.input', 'input', 'user'),
    ...saidAround(reading, output, 'langfuse.trace.output', 'output', 'assistant'),
  ])
}

/** What is said of the trace mostly repeats what is said of its outermost span. */
function saidAround(
  reading: Reading,
  key: string,
  ofTrace: string,
  direction: Direction,
  role: string,
): readonly MessageFact[] {
  const own = wholeIn(reading, key, direction, role)
  const traced = wholeIn(reading, ofTrace, direction, role)
  const isSame = textOfValue(reading.attributes.get(key)) === textOfValue(reading.attributes.get(ofTrace))
  return isSame ? own : [...traced, ...own]
}
