// Vercel's AI SDK, 4 to 7, in its own dialect: `ai.*` on spans of scope `ai`. The span with `.do` in its operation is the call;
// the one around it repeats its numbers, or its last step's, or their sum. From 7 on the SDK can write OpenTelemetry's
// conventions (scope `gen_ai`), which `otel.ts` reads.
import { foldFinishReason, providerOf } from '@tallylight/instrumentation/usage/names.ts'
import { countingOf, inclusive, readUsage, type UsageSource } from '@tallylight/instrumentation/usage/usage.ts'
import { durationNano, firstText, firstValue, isObject, type Json, jsonOf } from '../attributes.ts'
import { firstReason, rawUsageOf } from '../counts.ts'
import type { CallSays, Failure, MessageFact, Says } from '../fact.ts'
import { failureOf, statusOf } from '../failure.ts'
import {
  contentIn,
  leaveOver,
  messageOf,
  type Reading,
  readSaid,
  readSaidJson,
  saidIn,
  saidWhole,
  settleUsage,
  turnSays,
  wholeIn,
} from '../reading.ts'
import type { AnyValue, LiftedSpan } from '../record.ts'
import type { Dialect, Read } from './dialect.ts'
import { repeatedSteps } from './openinference.ts'
import { callIdentity, finishReasonOf, readOtel, recoverFromMetadata } from './otel.ts'
import { saidIndexed, saidOnSpan } from './otel-messages.ts'

export const vercelAi: Dialect = {
  name: 'vercel-ai',
  knows: (span) => span.attributes.has('ai.operationId') || span.scope.name === 'gen_ai',
  readSpan: (reading, span): Read => {
    const read = readOne(reading, span)
    if (span.attributes.has('openinference.span.kind')) accountForCopies(reading, read.says)
    accountForEqual(reading, 'traceloop.entity.input', 'traceloop.entity.output')
    return read
  },
}

function readOne(reading: Reading, span: LiftedSpan): Read {
  if (!span.attributes.has('ai.operationId')) return readOtel(reading, span)
  const failure = failureOf(span)
  return { says: saysOf(reading, span, failure), failure }
}

function saysOf(reading: Reading, span: LiftedSpan, failure: Failure | undefined): Says {
  const operation = firstText(span.attributes, 'ai.operationId')
  if (/\.do(Generate|Stream)$/.test(operation)) return readCall(reading, span, failure)
  if (operation.endsWith('.doEmbed')) return readEmbedding(reading, span)
  if (operation === 'ai.toolCall') return readTool(reading, span, failure)
  if (/^ai\.(generate|stream)(Text|Object)$/.test(operation)) return readAgent(reading, span)
  return turnSays('wrapper', firstText(span.attributes, 'ai.telemetry.functionId') || operation, valuesOf(reading))
}

/** OpenInference's processor writes what the SDK has written once more, under its own names. */
function accountForCopies(reading: Reading, says: Says): void {
  const { attributes, account } = reading
  accountForEqual(reading, 'input.value', 'output.value')
  const parameters = jsonOf(attributes.get('llm.invocation_parameters'))
  const isSetting = ([key, value]: readonly [string, Json]) => attributes.get(`ai.settings.${key}`) === value
  if (isObject(parameters) && Object.entries(parameters).every(isSetting))
    account.understood.add('llm.invocation_parameters')
  const told = new Set('messages' in says ? says.messages?.map(({ content }) => content.hash) : [])
  const isTold = ({ content }: MessageFact) => told.has(content.hash)
  for (const [prefix, direction, role] of copies)
    if (!saidIndexed(reading, prefix, direction, role, repeatedSteps).messages.every(isTold))
      leaveOver(reading, ...[...attributes.keys()].filter((key) => key.startsWith(prefix)))
}

/** What holds the same as something that was read. */
function accountForEqual({ attributes, account }: Reading, ...keys: readonly string[]): void {
  const there = keys.filter((key) => attributes.has(key))
  if (there.length === 0) return
  const values = new Set([...account.understood].map((key) => attributes.get(key)))
  for (const key of there) if (values.has(attributes.get(key))) account.understood.add(key)
}

const copies = [
  ['llm.input_messages.', 'input', 'user'],
  ['llm.output_messages.', 'output', 'assistant'],
] as const

function readCall(reading: Reading, span: LiftedSpan, failure: Failure | undefined): CallSays {
  const { attributes } = span
  const timeToFirstTokenNano = durationNano(firstChunkMs(span), 1e6)
  const reason =
    firstText(attributes, 'ai.response.finishReason', 'ai.finishReason') ||
    firstReason(attributes.get('gen_ai.response.finish_reasons'))
  const { provider, requestModel, model } = modelsOf(span)
  return {
    kind: 'call',
    provider,
    requestModel,
    model,
    responseId: firstText(attributes, 'ai.response.id', 'gen_ai.response.id'),
    isStreaming: firstText(attributes, 'ai.operationId').endsWith('.doStream'),
    ...usageOf(reading, span, provider),
    finishReason: finishReasonOf(foldFinishReason(reason), failure),
    ...(timeToFirstTokenNano === undefined ? {} : { timeToFirstTokenNano }),
    ...callIdentity(attributes),
    messages: saidBy(reading, span),
  }
}

/** Traceloop's processor writes what the SDK has written under OpenTelemetry's names, and takes the SDK's own away. */
function saidBy(reading: Reading, span: LiftedSpan): readonly MessageFact[] {
  const [input, output] = [inputOf(reading), outputOf(reading)]
  const said = input.length > 0 && output.length > 0 ? [] : saidOnSpan(reading, span).messages
  const otherwise = (direction: 'input' | 'output') => said.filter((message) => message.direction === direction)
  return [...(input.length > 0 ? input : otherwise('input')), ...(output.length > 0 ? output : otherwise('output'))]
}

function modelsOf({ attributes }: LiftedSpan): Pick<CallSays, 'provider' | 'requestModel' | 'model'> {
  const requestModel = firstText(attributes, 'ai.model.id', 'gen_ai.request.model')
  const model = firstText(attributes, 'ai.response.model', 'gen_ai.response.model') || requestModel
  const provider = providerOf(
    firstText(attributes, 'ai.model.provider', 'gen_ai.provider.name', 'gen_ai.system'),
    model,
  )
  return { provider, requestModel: requestModel || model, model }
}

function firstChunkMs({ attributes, events }: LiftedSpan): ReturnType<typeof firstValue> {
  const names = ['ai.response.msToFirstChunk', 'ai.stream.msToFirstChunk'] as const
  const event = events.find((one) => one.name === 'ai.stream.firstChunk')
  return firstValue(attributes, ...names) ?? (event === undefined ? undefined : firstValue(event.attributes, ...names))
}

/** Up to 5 the numbers are the provider's own, and what a cache saved stands only in its metadata; from 6 on they include
 *  it, and the details tell so. */
function usageOf(reading: Reading, { attributes }: LiftedSpan, provider: string): ReturnType<typeof settleUsage> {
  const isInclusive = [...attributes.keys()].some((key) => key.startsWith('ai.usage.inputTokenDetails.'))
  const counting = countingOf(provider)
  const reply = recoverFromMetadata(jsonOf(attributes.get('ai.response.providerMetadata')), provider)
  const isLowerBound = !isInclusive && counting.cache === 'additive' && reply.kind === 'none'
  const source: UsageSource = isLowerBound ? 'partial' : 'provider'
  return settleUsage(reading, readUsage(rawUsageOf(attributes), isInclusive ? inclusive : counting), reply, source)
}

function inputOf(reading: Reading): readonly MessageFact[] {
  const messages = saidIn(reading, 'ai.prompt.messages', 'input', 'user').messages
  return messages.length > 0 ? messages : saidIn(reading, 'ai.prompt', 'input', 'user').messages
}

/** The reply lies in pieces. */
function outputOf(reading: Reading): readonly MessageFact[] {
  return [
    ...pieceOf(reading, 'reasoning', 'ai.response.reasoning', 'ai.result.reasoning'),
    ...pieceOf(reading, 'text', 'ai.response.text', 'ai.result.text'),
    // The object is the text, parsed and written again.
    ...pieceOf(reading, 'text', 'ai.response.object', 'ai.result.object'),
    ...wholeIn(reading, 'ai.response.files', 'output', 'assistant'),
    ...toolCallsOf(reading, 'ai.response.toolCalls'),
    ...toolCallsOf(reading, 'ai.result.toolCalls'),
  ]
}

function pieceOf(reading: Reading, type: 'text' | 'reasoning', ...keys: readonly string[]): readonly MessageFact[] {
  for (const key of keys) {
    const text = firstText(reading.attributes, key)
    if (text === '') continue
    reading.account.understood.add(key)
    return [messageOf(reading, 'output', 'assistant', type, text)]
  }
  return []
}

function toolCallsOf(reading: Reading, key: string): readonly MessageFact[] {
  const calls = jsonOf(reading.attributes.get(key))
  if (!Array.isArray(calls)) {
    const said = readSaid(reading, reading.attributes.get(key), 'output', 'assistant')
    if (said.messages.length > 0) reading.account.understood.add(key)
    return said.messages
  }
  const said = readSaidJson(reading, { role: 'assistant', tool_calls: calls }, 'output', 'assistant')
  if (said !== undefined) reading.account.understood.add(key)
  return said?.messages ?? []
}

function readEmbedding(reading: Reading, span: LiftedSpan): Says {
  const { provider, requestModel, model } = modelsOf(span)
  return {
    kind: 'embedding',
    provider,
    requestModel,
    model,
    responseId: '',
    isStreaming: false,
    ...usageOf(reading, span, provider),
    finishReason: '',
    ...callIdentity(span.attributes),
    messages: valuesOf(reading),
  }
}

/** What is embedded: each text is written as JSON. */
function valuesOf(reading: Reading): readonly MessageFact[] {
  const values = reading.attributes.get('ai.values')
  if (!Array.isArray(values)) return wholeIn(reading, 'ai.value', 'input', 'user')
  reading.account.understood.add('ai.values')
  const texts = (values as readonly AnyValue[]).map((value) => {
    const text = jsonOf(value)
    return typeof text === 'string' ? text : value
  })
  return saidWhole(reading, texts, 'input', 'user')
}

function readTool(reading: Reading, span: LiftedSpan, failure: Failure | undefined): Says {
  const args = contentIn(reading, 'ai.toolCall.args', 'ai.toolCall.input', 'gen_ai.tool.call.arguments')
  const result = contentIn(reading, 'ai.toolCall.result', 'ai.toolCall.output', 'gen_ai.tool.call.result')
  accountForEqual(reading, 'gen_ai.tool.call.arguments', 'gen_ai.tool.call.result')
  return {
    kind: 'tool',
    name: firstText(span.attributes, 'ai.toolCall.name', 'gen_ai.tool.name') || span.name,
    callId: firstText(span.attributes, 'ai.toolCall.id', 'gen_ai.tool.call.id'),
    toolType: '',
    provider: '',
    mcpServer: '',
    ...(args === undefined ? {} : { arguments: args }),
    ...(result === undefined ? {} : { result }),
    status: statusOf(failure),
  }
}

function readAgent(reading: Reading, span: LiftedSpan): Says {
  const name = firstText(span.attributes, 'ai.telemetry.functionId', 'ai.operationId')
  return turnSays('agent', name, saidBy(reading, span))
}
