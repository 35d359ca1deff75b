// Pydantic AI and Logfire. Pydantic AI is OpenTelemetry with older names for a tool's content and, in its first version, the
// messages as a JSON list of events. Logfire's own instrumentation keeps request and reply as JSON, and writes a stream as a
// span without usage and a later one, of no length, with it.
import { foldFinishReason } from '@tallylight/instrumentation/usage/names.ts'
import { durationNano, firstText, isObject, type Json, type JsonObject, jsonOf } from '../attributes.ts'
import { recoveredUsage } from '../counts.ts'
import type { CallSays, MessageFact } from '../fact.ts'
import {
  accountFor,
  contentIn,
  leaveOver,
  nothingSaid,
  type Reading,
  readSaidJson,
  type Said,
  saidIn,
  settleUsage,
  wholeIn,
} from '../reading.ts'
import type { LiftedSpan } from '../record.ts'
import { type Dialect, link, type Read } from './dialect.ts'
import { kindOf, type OperationKind, operationOf, readOtel } from './otel.ts'
import { saidOnSpan } from './otel-messages.ts'

export const pydanticAi: Dialect = {
  name: 'pydantic-ai',
  knows: (span) =>
    span.scope.name === 'pydantic-ai' ||
    span.attributes.has('pydantic_ai.all_messages') ||
    (isOfLogfire(span) && (span.attributes.has('request_data') || operationOf(span) !== '')) ||
    isFunctionOfAgents(span),
  readSpan,
}

/** A tool of OpenAI's Agents SDK, by Logfire, has neither an operation nor a request. */
function isFunctionOfAgents({ scope, attributes }: LiftedSpan): boolean {
  return scope.name === 'logfire.openai_agents' && attributes.get('logfire.msg_template') === 'Function: {name}'
}

/** It marks every span of a service, of the web too. */
function isOfLogfire(span: LiftedSpan): boolean {
  return isOfLogfireItself(span) || span.attributes.has('logfire.span_type')
}

function isOfLogfireItself(span: LiftedSpan): boolean {
  return span.scope.name.startsWith('logfire')
}

function readSpan(reading: Reading, span: LiftedSpan): Read {
  const spanType = firstText(span.attributes, 'logfire.span_type')
  if (isFunctionOfAgents(span))
    return readOtel(reading, span, {
      kind: 'tool',
      toolName: firstText(span.attributes, 'name'),
      arguments: contentIn(reading, 'input'),
      result: contentIn(reading, 'output'),
    })
  const kind = kindOfSpan(span)
  if (kind === 'tool') return readTool(reading, span)
  if (kind === 'agent' || kind === 'wrapper')
    return readOtel(reading, span, { kind, messages: [...saidOnSpan(reading, span).messages, ...saidByAgent(reading)] })
  if (kind === 'embedding') return readEmbedding(reading, span)
  if (kind !== 'call') return readOtel(reading, span, { kind })
  const request = jsonOf(span.attributes.get('request_data'))
  const asked = isObject(request) ? request : {}
  const read = readOtel(reading, span, { kind, ...(isOfClaudeAgent(span) ? { source: 'partial' } : {}) })
  if (read.says.kind !== 'call') return read
  if (spanType === 'span' && read.failure === undefined && isRequestOfStream(span, read.says, asked)) {
    // The record may never come, and then this alone has what was asked.
    leaveOver(reading, ...reading.account.understood)
    return { ...read, says: link }
  }
  return { ...read, ...startOfStream(span, spanType), says: completeCall(reading, read.says, asked, spanType) }
}

/** Claude's agent tells of each answer what it knew when the answer began, and of all of them what they used on the agent's span,
 *  which is no call. */
function isOfClaudeAgent({ attributes }: LiftedSpan): boolean {
  return attributes.has('gen_ai.usage.partial.output_tokens') || attributes.has('gen_ai.usage.partial.input_tokens')
}

function readTool(reading: Reading, span: LiftedSpan): Read {
  const read = readOtel(reading, span, {
    kind: 'tool',
    arguments: contentIn(reading, 'gen_ai.tool.call.arguments', 'tool_arguments'),
    result: contentIn(reading, 'gen_ai.tool.call.result', 'tool_response'),
  })
  // It waits for somebody's approval, or is done elsewhere: up to version 4 that was an error.
  const isDeferred = span.attributes.has('pydantic_ai.tool.deferral.name')
  return isDeferred && read.says.kind === 'tool' ? { says: { ...read.says, status: 'pending' } } : read
}

/** What is embedded has a name of its own. */
function readEmbedding(reading: Reading, span: LiftedSpan): Read {
  const read = readOtel(reading, span, { kind: 'embedding' })
  if (read.says.kind !== 'embedding' || read.says.messages.length > 0) return read
  return { ...read, says: { ...read.says, messages: saidIn(reading, 'inputs', 'input', 'user').messages } }
}

/** What was used and said comes later, in a record of its own that repeats the request. Newer versions do not write down that
 *  a stream was asked for; every reply that has come is on the span. */
function isRequestOfStream(span: LiftedSpan, call: CallSays, asked: JsonObject): boolean {
  if (asked.stream === true) return true
  const hasReply = call.usageSource !== 'none' || call.responseId !== '' || span.attributes.has('response_data')
  return isOfLogfireItself(span) && !hasReply && !call.messages.some(({ direction }) => direction === 'output')
}

/** The record of a stream has no length, and its duration as a number of seconds. */
function startOfStream(span: LiftedSpan, spanType: string): Pick<Read, 'startUnixNano'> {
  const nano = durationNano(span.attributes.get('duration'), 1e9)
  return spanType === 'log' && nano !== undefined ? { startUnixNano: span.startUnixNano - BigInt(nano) } : {}
}

/** Older spans have no operation: an agent then has a name, as has a tool, and a call its request. */
function kindOfSpan(span: LiftedSpan): OperationKind {
  const { attributes } = span
  const operation = operationOf(span)
  if (operation !== '') return kindOf(operation)
  if (attributes.has('agent_name')) return 'agent'
  if (attributes.has('gen_ai.tool.name')) return 'tool'
  // Of a path that it does not know, like that which counts tokens, Logfire writes the URL.
  if (!attributes.has('request_data') || attributes.has('url')) return 'link'
  return /embedding/i.test(span.name) ? 'embedding' : 'call'
}

function completeCall(reading: Reading, call: CallSays, asked: JsonObject, spanType: string): CallSays {
  const model = typeof asked.model === 'string' ? asked.model : ''
  const said = call.messages.length > 0 ? { messages: call.messages, finishReason: '' } : saidByLogfire(reading)
  const reply = jsonOf(reading.attributes.get('response_data'))
  const counted =
    call.usageSource === 'none' && reading.account.absurdUsage === 0
      ? settleUsage(reading, { kind: 'none' }, recoveredUsage(reply, call.provider))
      : {}
  return {
    ...call,
    ...counted,
    responseId: call.responseId || firstText(reading.attributes, 'response_id'),
    requestModel: call.requestModel || model,
    model: call.model || model,
    isStreaming: call.isStreaming || spanType === 'log',
    finishReason: call.finishReason || foldFinishReason(said.finishReason),
    messages: said.messages,
  }
}

/** The whole conversation, the answer at its end, and the answer again as what the agent returned. */
function saidByAgent(reading: Reading): readonly MessageFact[] {
  const events = jsonOf(reading.attributes.get('all_messages_events'))
  const ofEvents = Array.isArray(events)
    ? saidInEventList(reading, 'all_messages_events', events as readonly Json[])
    : nothingSaid
  return [
    ...wholeIn(reading, 'pydantic_ai.all_messages', 'input', 'user'),
    ...ofEvents.messages,
    ...wholeIn(reading, 'final_result', 'output', 'assistant'),
  ]
}

function saidByLogfire(reading: Reading): Said {
  const events = jsonOf(reading.attributes.get('events'))
  if (Array.isArray(events)) return saidInEventList(reading, 'events', events as readonly Json[])
  const request = jsonOf(reading.attributes.get('request_data'))
  const reply = jsonOf(reading.attributes.get('response_data'))
  const input = request === undefined ? undefined : readSaidJson(reading, messagesOfRequest(request), 'input', 'user')
  const output = reply === undefined ? undefined : readSaidJson(reading, messageOfReply(reply), 'output', 'assistant')
  for (const key of ['request_data', 'response_data']) if (reading.attributes.has(key)) accountFor(reading, key, false)
  return {
    messages: [...(input?.messages ?? []), ...(output?.messages ?? [])],
    finishReason: output?.finishReason ?? '',
  }
}

function messagesOfRequest(request: Json): Json {
  if (!isObject(request)) return request
  const { system = null, instructions = null, messages = null, input = null, prompt = null } = request
  return { system, instructions, messages, input, prompt }
}

/** `message`, the text of a stream's chunks put together, or the reply's output. */
function messageOfReply(reply: Json): Json {
  if (!isObject(reply)) return reply
  const { message, combined_chunk_content: text, output } = reply
  return message ?? text ?? output ?? null
}

/** `[{"event.name": "gen_ai.user.message", content, role, …}, {"event.name": "gen_ai.choice", message: {…}}]` */
function saidInEventList(reading: Reading, key: string, events: readonly Json[]): Said {
  const messages: MessageFact[] = []
  let finishReason = ''
  let isWhole = true
  const replyAt = startOfReply(reading, events)
  for (const [at, event] of events.entries()) {
    if (!isObject(event)) continue
    const { 'event.name': name, 'gen_ai.message.index': _index, 'gen_ai.system': _system, message, ...rest } = event
    const isReply = name === 'gen_ai.choice' || isObject(message) || at >= replyAt
    const role = isReply
      ? 'assistant'
      : String(rest.role ?? /^gen_ai\.(\w+)\.message$/.exec(String(name))?.[1] ?? 'user')
    const toolCallId = role === 'tool' && typeof rest.id === 'string' ? { tool_call_id: rest.id } : {}
    const said = readSaidJson(
      reading,
      isReply ? { role, ...(isObject(message) ? message : rest) } : { ...rest, ...toolCallId, role },
      isReply ? 'output' : 'input',
      role,
    )
    isWhole &&= said?.isWhole ?? false
    messages.push(...(said?.messages ?? []))
    finishReason ||= said?.finishReason ?? ''
  }
  accountFor(reading, key, isWhole)
  return { messages, finishReason }
}

/** What Responses answered Logfire writes as it writes the history, without a mark: it is what the assistant says at the end. */
function startOfReply({ record, attributes }: Reading, events: readonly Json[]): number {
  const isAnswered = firstText(attributes, 'gen_ai.response.id', 'response_id') !== ''
  const names = events.map((event) => (isObject(event) ? event['event.name'] : undefined))
  if (!record.scope.name.startsWith('logfire.') || !isAnswered || names.includes('gen_ai.choice')) return events.length
  return names.findLastIndex((name) => name !== 'gen_ai.assistant.message') + 1
}
