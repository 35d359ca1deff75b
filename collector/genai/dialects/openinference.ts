// OpenInference (Arize): kinds in `openinference.span.kind`, everything else in `llm.*`, messages in indexed attributes, the raw
// request and reply in `input.value` and `output.value`.
import { foldFinishReason, providerOf } from '@tallylight/instrumentation/usage/names.ts'
import { isEmpty, readUsage, type UsageRead } from '@tallylight/instrumentation/usage/usage.ts'
import { durationNano, firstText, isTrue, objectOf, scalarText, textOfValue } from '../attributes.ts'
import { rawUsageOf, recoveredUsage, senderCounting, withThoughts } from '../counts.ts'
import type { CallSays, Failure, MessageFact, Says } from '../fact.ts'
import { failureOf, statusOf } from '../failure.ts'
import {
  accountFor,
  contentIn,
  messageOf,
  type Reading,
  readSaid,
  saidIn,
  settleUsage,
  turnSays,
  wholeIn,
} from '../reading.ts'
import type { Attributes, LiftedSpan } from '../record.ts'
import { type Dialect, link, type Read } from './dialect.ts'
import { generationOf, toolMessageOf } from './langchain.ts'
import { callIdentity, finishReasonOf, nanoToEvent } from './otel.ts'
import { saidIndexed } from './otel-messages.ts'

export const openinference: Dialect = {
  name: 'openinference',
  knows: (span) => span.attributes.has('openinference.span.kind'),
  readSpan: (reading, span): Read => {
    const failure = failureOf(span)
    return { says: saysOf(reading, span, failure), failure }
  },
}

function saysOf(reading: Reading, span: LiftedSpan, failure: Failure | undefined): Says {
  const { attributes } = span
  switch (firstText(attributes, 'openinference.span.kind').toUpperCase()) {
    case 'LLM':
      // Anthropic's way to count tokens: nothing was said, and nothing is billed.
      return span.name.endsWith('count_tokens') ? link : readCall(reading, span, failure)
    case 'EMBEDDING':
      return readEmbedding(reading, span)
    case 'TOOL':
      return readTool(reading, span, failure)
    case 'AGENT':
      return isClaudeAgent(span) ? readClaudeAgent(reading, span, failure) : readWrapper(reading, span, 'agent')
    case 'RETRIEVER':
    case 'RERANKER':
      return link
    default:
      return readWrapper(reading, span, 'wrapper')
  }
}

/** Claude's agent is a process of its own: of its calls nothing is seen but what they used in all, on the agent's span. Should
 *  their own spans ever stand inside, those are the calls. */
function isClaudeAgent({ scope, attributes }: LiftedSpan): boolean {
  return claudeAgentScopes.has(scope.name) && attributes.has('llm.token_count.prompt')
}

/** In JavaScript it leaves out what was cached, and that is most of what such an agent asks. */
const claudeAgentScopes = new Set([
  'openinference.instrumentation.claude_agent_sdk',
  '@arizeai/openinference-instrumentation-claude-agent-sdk',
])

function readClaudeAgent(reading: Reading, span: LiftedSpan, failure: Failure | undefined): Says {
  const messages = [
    ...wholeIn(reading, 'input.value', 'input', 'user'),
    ...wholeIn(reading, 'output.value', 'output', 'assistant'),
  ]
  return { ...readCall(reading, span, failure), messages }
}

function readCall(reading: Reading, span: LiftedSpan, failure: Failure | undefined): CallSays {
  const { attributes } = span
  const generation = /instrumentation[-.]langchain$/.test(span.scope.name)
    ? generationOf(attributes.get('output.value'))
    : undefined
  const model =
    firstText(attributes, 'llm.response.model_name') || generation?.model || firstText(attributes, 'llm.model_name')
  const requestModel = requestedModel(attributes)
  const provider = providerOf(firstText(attributes, 'llm.provider', 'llm.system'), model || requestModel)
  const timeToFirstTokenNano =
    durationNano(attributes.get('gen_ai.response.time_to_first_chunk'), 1e9) ??
    durationNano(attributes.get('time_to_first_token_ms'), 1e6) ??
    nanoToEvent(span, 'First Token Stream Event')
  return {
    kind: 'call',
    provider,
    requestModel: requestModel || model,
    model: model || requestModel,
    responseId: responseIdOf(attributes),
    isStreaming: timeToFirstTokenNano !== undefined || isTrue(attributes.get('llm.is_streaming')),
    ...usageOf(reading, span, provider, generation?.usage),
    finishReason: finishReasonOf(foldFinishReason(reasonOf(attributes)), failure),
    ...(timeToFirstTokenNano === undefined ? {} : { timeToFirstTokenNano }),
    ...callIdentity(attributes),
    messages: saidBy(reading),
  }
}

/** The name that was asked for is written down by few senders; the request itself always has it. */
function requestedModel(attributes: Attributes): string {
  return (
    firstText(attributes, 'llm.request.model_name') ||
    scalarText(objectOf(attributes.get('llm.invocation_parameters'))?.model) ||
    scalarText(objectOf(attributes.get('input.value'))?.model)
  )
}

/** Of Bedrock's Converse it stands among the parameters. */
function reasonOf(attributes: Attributes): string {
  return (
    firstText(attributes, 'llm.finish_reason') ||
    scalarText(objectOf(attributes.get('llm.invocation_parameters'))?.stop_reason)
  )
}

function responseIdOf(attributes: Attributes): string {
  return (
    firstText(attributes, 'llm.response.id', 'gen_ai.response.id') ||
    scalarText(objectOf(attributes.get('output.value'))?.id)
  )
}

/** `told`: by LangChain's own message. */
function usageOf(
  reading: Reading,
  span: LiftedSpan,
  provider: string,
  told?: UsageRead,
): ReturnType<typeof settleUsage> {
  const raw = withThoughts(rawUsageOf(ofLiteLlm(span)), span.scope)
  const { counting, source } = senderCounting(span.scope, provider, raw)
  const reported = readUsage(raw, counting)
  if (told?.kind === 'usage') return settleUsage(reading, reported, told, source)
  if (reported.kind === 'absurd') return settleUsage(reading, reported, { kind: 'none' }, source)
  const isLacking = source === 'partial' || reported.kind !== 'usage' || isEmpty(reported.usage)
  const isSilent = raw.cacheReadTokens === undefined && raw.cacheWriteTokens === undefined
  const reply: UsageRead =
    isLacking || isSilent ? recoveredUsage(objectOf(span.attributes.get('output.value')), provider) : { kind: 'none' }
  return settleUsage(reading, reported, isLacking || saysMore(reply, reported) ? reply : { kind: 'none' }, source)
}

/** LiteLLM's writes how much of the prompt is text under the name that is meant for what was cached. */
function ofLiteLlm({ attributes, scope }: LiftedSpan): Attributes {
  const name = 'llm.token_count.prompt_details.cache_input'
  if (scope.name !== 'openinference.instrumentation.litellm' || !attributes.has(name)) return attributes
  return new Map([...attributes].filter(([key]) => key !== name))
}

/** The same call, and of it how much was cached: Google's ADK, Groq's SDK and others tell it only in the reply. */
function saysMore(reply: UsageRead, reported: UsageRead): boolean {
  if (reply.kind !== 'usage' || reported.kind !== 'usage') return false
  const { inputTokens, outputTokens, cacheReadTokens = 0, cacheWriteTokens = 0 } = reply.usage
  const isSame = inputTokens === reported.usage.inputTokens && outputTokens === reported.usage.outputTokens
  return isSame && cacheReadTokens + cacheWriteTokens > 0
}

function saidBy(reading: Reading): readonly MessageFact[] {
  const flat = (prefix: string, direction: 'input' | 'output', role: string) =>
    saidIndexed(reading, prefix, direction, role, repeatedSteps).messages
  const input = orWhole(reading, 'llm.input_messages.', flat('llm.input_messages.', 'input', 'user'))
  const output = orWhole(reading, 'llm.output_messages.', flat('llm.output_messages.', 'output', 'assistant'))
  return [
    ...(input.length > 0 ? input : flat('llm.prompts.', 'input', 'user')),
    ...(output.length > 0 ? output : flat('llm.choices.', 'output', 'assistant')),
  ]
}

/** LangChain's messages lose content that is more than a text (images, tools, all of a Responses reply): of such a message
 *  nothing but its role is told, and the whole stands in the value beside. */
function orWhole(reading: Reading, prefix: string, messages: readonly MessageFact[]): readonly MessageFact[] {
  const { attributes } = reading
  const keys = [...attributes.keys()].filter((key) => key.startsWith(prefix))
  const told = new Set(keys.filter((key) => !key.endsWith('.message.role')).map((key) => indexOf(key, prefix)))
  if (keys.every((key) => told.has(indexOf(key, prefix)))) return messages
  const [key, direction, role] =
    prefix === 'llm.input_messages.'
      ? (['input.value', 'input', 'user'] as const)
      : (['output.value', 'output', 'assistant'] as const)
  const whole = readSaid(reading, attributes.get(key), direction, role)
  if (whole.messages.length <= messages.length) return messages
  accountFor(reading, key, whole.isWhole)
  return whole.messages
}

function indexOf(key: string, prefix: string): string {
  return key.slice(prefix.length, key.indexOf('.', prefix.length))
}

/** `llm.input_messages.0.message.contents.1.message_content.text` has steps that only repeat what the list is of. */
export const repeatedSteps = new Set(['message', 'message_content', 'tool_call', 'prompt', 'completion'])

function readEmbedding(reading: Reading, span: LiftedSpan): Says {
  const { attributes } = span
  const model =
    firstText(attributes, 'embedding.model_name', 'llm.model_name') ||
    scalarText(objectOf(attributes.get('embedding.invocation_parameters'))?.model)
  const provider = providerOf(firstText(attributes, 'llm.provider', 'llm.system'), model)
  return {
    kind: 'embedding',
    provider,
    requestModel: model,
    model,
    responseId: '',
    isStreaming: false,
    ...usageOf(reading, span, provider),
    finishReason: '',
    ...callIdentity(attributes),
    messages: embeddedTexts(reading),
  }
}

/** Each text has an attribute; the input beside them holds the same, or a whole request. */
function embeddedTexts(reading: Reading): readonly MessageFact[] {
  const { attributes, account } = reading
  const keys = [...attributes.keys()]
    .filter((key) => /^embedding\.embeddings\.\d+\.embedding\.text$/.test(key))
    .sort((a, b) => Number(a.split('.')[2]) - Number(b.split('.')[2]))
  if (keys.length === 0) return saidIn(reading, 'input.value', 'input', 'user').messages
  for (const key of keys) account.understood.add(key)
  const texts = keys.map((key) => messageOf(reading, 'input', 'user', 'text', textOfValue(attributes.get(key))))
  const hashes = new Set(texts.map(({ content }) => content.hash))
  const given = readSaid(reading, attributes.get('input.value'), 'input', 'user')
  const isSame = given.isWhole && given.messages.every(({ content }) => hashes.has(content.hash))
  accountFor(reading, 'input.value', isSame)
  return texts
}

function readTool(reading: Reading, span: LiftedSpan, failure: Failure | undefined): Says {
  const { attributes } = span
  const args = contentIn(reading, 'input.value', 'tool_call.function.arguments')
  const result = contentIn(reading, 'output.value')
  // Of some the tool's schema, of others what was given once more.
  const parameters = attributes.get('tool.parameters')
  if (parameters !== undefined && parameters === attributes.get('input.value'))
    reading.account.understood.add('tool.parameters')
  return {
    kind: 'tool',
    name: firstText(attributes, 'tool.name', 'tool_call.function.name') || span.name,
    callId:
      firstText(attributes, 'tool.id', 'tool_call.id', 'tanstack.ai.tool.call.id') ||
      (toolMessageOf(attributes.get('output.value'))?.callId ?? ''),
    toolType: '',
    provider: '',
    mcpServer: '',
    ...(args === undefined ? {} : { arguments: args }),
    ...(result === undefined ? {} : { result }),
    status: statusOf(failure),
  }
}

function readWrapper(reading: Reading, span: LiftedSpan, kind: 'agent' | 'wrapper'): Says {
  const name = firstText(span.attributes, 'agent.name', 'graph.node.id') || span.name
  return turnSays(kind, name, [
    ...wholeIn(reading, 'input.value', 'input', 'user'),
    ...wholeIn(reading, 'output.value', 'output', 'assistant'),
  ])
}
