// Messages in the shapes that providers, SDKs and frameworks write them in, as parts in one shape. The shapes are told apart
// by the keys they use, so that a request logged by anyone is read the same way: OpenTelemetry's parts, OpenAI's chat and
// Responses items, Anthropic's and Bedrock's blocks, Gemini's contents, LangChain's serialized messages, the AI SDK's.
// A part that is none of these is kept as its JSON. `isWhole`: everything that was there stands in the parts.
import { limits } from '../limits.ts'
import { isObject, type Json, type JsonObject, textOfJson } from './attributes.ts'
import type { ContentType } from './fact.ts'

export type MessagePart = {
  readonly role: string
  readonly type: ContentType
  readonly text: string
  readonly toolName?: string
  /** For telling the same tool call written twice. */
  readonly toolCallId?: string
}

export type MessagesRead = {
  readonly parts: readonly MessagePart[]
  readonly finishReason: string
  readonly isWhole: boolean
}

type Sink = { readonly parts: MessagePart[]; finishReason: string; isWhole: boolean }

/** `role` is for what names none: the user's for input, the assistant's for output. */
export function readMessages(value: Json, role: string): MessagesRead {
  const sink: Sink = { parts: [], finishReason: '', isWhole: true }
  readAny(value, role, sink)
  const { messagePartsMax } = limits
  if (sink.parts.length > messagePartsMax) {
    const rest = sink.parts.splice(messagePartsMax)
    sink.parts.push({ role, type: 'json', text: JSON.stringify(rest) })
  }
  return sink
}

/** Keys of a request or reply that hold messages, in the order in which they speak. */
const envelopeKeys = [
  'system',
  'instructions',
  'systemInstruction',
  'system_instruction',
  'messages',
  'contents',
  'prompt',
  'input',
  'inputs',
  'choices',
  'candidates',
  'generations',
  'output',
  'outputs',
  'message',
]
const systemKeys = new Set(['system', 'instructions', 'systemInstruction', 'system_instruction'])

function readAny(value: Json, role: string, sink: Sink): void {
  if (value === null || value === undefined || value === '') return
  if (typeof value !== 'object') push(sink, role, 'text', String(value))
  else if (!Array.isArray(value)) readItem(value, role, sink)
  // A vector, or tokens by their numbers: nobody's messages.
  else if (typeof value[0] === 'number') push(sink, role, 'json', JSON.stringify(value))
  else for (const item of value as readonly Json[]) readItem(item, role, sink)
}

function readItem(item: Json, role: string, sink: Sink): void {
  if (!isObject(item)) {
    readAny(item, role, sink)
    return
  }
  const unwrapped = unwrap(item)
  noteFinish(unwrapped, sink)
  if (isMessage(unwrapped)) readMessage(unwrapped, role, sink)
  else if (isPart(unwrapped)) readPart(unwrapped, role, sink)
  else readEnvelope(unwrapped, role, sink)
}

function readEnvelope(unwrapped: JsonObject, role: string, sink: Sink): void {
  // A Responses reply repeats its instructions beside the output.
  const isReply = Array.isArray(unwrapped.output)
  const envelope = envelopeKeys.filter(
    (key) => unwrapped[key] !== undefined && unwrapped[key] !== null && !(isReply && systemKeys.has(key)),
  )
  if (envelope.length === 0) push(sink, role, 'json', JSON.stringify(unwrapped))
  for (const key of envelope) {
    const value = unwrapped[key] as Json
    if (key === 'message' && isObject(value)) readMessage(unwrap(value), role, sink)
    else readAny(value, systemKeys.has(key) ? 'system' : role, sink)
  }
  if (envelope.length > 0) noteRest(unwrapped, new Set([...envelope, ...finishKeys, 'index']), sink)
}

/** `{lc: 1, type: 'constructor', id: [..., 'HumanMessage'], kwargs: {...}}`, Gemini's `{content: {role, parts}}`, and the
 *  `{completion, reasoning, toolCalls}` of OpenRouter. */
function unwrap(item: JsonObject): JsonObject {
  if (typeof item.completion === 'string' && item.role === undefined && item.content === undefined) {
    const { completion, ...rest } = item
    return { ...rest, content: completion }
  }
  if (item.lc === 1 && isObject(item.kwargs)) {
    const name = Array.isArray(item.id) ? String(item.id.at(-1)) : ''
    return { ...item.kwargs, role: name.replace(/Message(Chunk)?$/, '').toLowerCase() }
  }
  return isObject(item.content) && (item.content as JsonObject).parts !== undefined
    ? { ...item, ...(item.content as JsonObject), content: null }
    : item
}

const messageTypes = new Set(['message', 'human', 'ai', 'system', 'tool', 'user', 'assistant'])

function isMessage(item: JsonObject): boolean {
  return (
    typeof item.role === 'string' ||
    Array.isArray(item.parts) ||
    Array.isArray(item.tool_calls) ||
    (item.type === undefined && item.content !== undefined) ||
    (typeof item.type === 'string' && messageTypes.has(item.type) && item.content !== undefined)
  )
}

const roles: ReadonlyMap<string, string> = new Map(
  Object.entries<string>({
    human: 'user',
    humanmessage: 'user',
    ai: 'assistant',
    aimessage: 'assistant',
    model: 'assistant',
    chatbot: 'assistant',
    function: 'tool',
  }),
)

const finishKeys = ['finish_reason', 'finishReason', 'stop_reason', 'stopReason']
const messageKeys = new Set([
  'role',
  'type',
  'content',
  'contents',
  'parts',
  'tool_calls',
  'toolCalls',
  'function_call',
  'tool_call_id',
  'toolCallId',
  'refusal',
  'reasoning',
  'reasoning_content',
  'thinking',
  'id',
  'index',
  'status',
  ...finishKeys,
])

const toolMessageKeys = new Set([...messageKeys, 'name'])

function readMessage(message: JsonObject, fallbackRole: string, sink: Sink): void {
  const said = typeof message.role === 'string' && message.role !== '' ? message.role : String(message.type ?? '')
  const role = said === '' || said === 'message' ? fallbackRole : (roles.get(said.toLowerCase()) ?? said)
  const from = sink.parts.length
  const callId = textOfJson(message.tool_call_id ?? message.toolCallId)
  const reasoning = firstOf(sink, message, 'reasoning_content', 'reasoning', 'thinking')
  if (reasoning !== null) push(sink, role, 'reasoning', textOfJson(reasoning))
  const content = message.parts ?? message.contents ?? message.content ?? null
  if (content !== (message.content ?? content)) sink.isWhole = false
  const isAnswer = role === 'tool' && callId !== '' && (typeof content === 'string' || isPlainParts(content))
  if (isAnswer) {
    const said = toolJson({ id: callId, name: textOfJson(message.name), response: plainText(content) })
    push(sink, role, 'tool_call_response', said, { toolCallId: callId })
  } else readAny(content, role, sink)
  readAny(message.refusal ?? null, role, sink)
  const several = firstOf(sink, message, 'tool_calls', 'toolCalls')
  const calls = several ?? (message.function_call ? [message.function_call] : [])
  if (several !== null && message.function_call) sink.isWhole = false
  const known = new Set(sink.parts.slice(from).map((part) => part.toolCallId))
  if (!Array.isArray(calls)) sink.isWhole = false
  for (const call of Array.isArray(calls) ? (calls as readonly Json[]) : []) {
    readToolCall(call, role, known, sink)
    if (isObject(call)) noteRest(call, toolPartKeys, sink)
  }
  noteRest(message, isAnswer ? toolMessageKeys : messageKeys, sink)
}

/** Of names for the same the first that says something; should another say something else, not all is read. */
function firstOf(sink: Sink, message: JsonObject, ...keys: readonly string[]): Json {
  const said = keys.map((key) => message[key] ?? null).filter((value) => value !== null && value !== '')
  const [first = null] = said
  if (said.some((other) => textOfJson(other) !== textOfJson(first))) sink.isWhole = false
  return first
}

/** Parts that are nothing but text: a tool's result is then one text. */
function isPlainParts(content: Json): boolean {
  return (
    Array.isArray(content) &&
    content.length > 0 &&
    (content as readonly Json[]).every(
      (part) => isObject(part) && (part.type === 'text' || isBareText(part)) && typeof part.text === 'string',
    )
  )
}

/** Bedrock's. */
function isBareText(part: JsonObject): boolean {
  return part.type === undefined && Object.keys(part).length === 1
}

function plainText(content: Json): string {
  return typeof content === 'string' ? content : (content as readonly JsonObject[]).map((part) => part.text).join('')
}

const textTypes = new Set(['text', 'input_text', 'output_text', 'summary_text'])
const reasoningTypes = new Set(['reasoning', 'thinking', 'redacted_thinking'])
const callTypes = new Set([
  'tool_call',
  'tool_use',
  'toolUse',
  'tool-call',
  'function_call',
  'functionCall',
  'server_tool_use',
  'server_tool_call',
])
const responseTypes = new Set([
  'tool_call_response',
  'tool_result',
  'toolResult',
  'tool-result',
  'function_call_output',
  'server_tool_call_response',
  'web_search_tool_result',
])
/** Of Bedrock and Gemini, whose parts have no type but one key that says it. */
const untypedKeys = [
  'toolUse',
  'toolResult',
  'functionCall',
  'functionResponse',
  'function_response',
  'reasoningContent',
  'json',
  'inlineData',
  'fileData',
  'image',
  'document',
  'cachePoint',
]

function isPart(item: JsonObject): boolean {
  // LangChain's generations repeat the text of the message that they hold, and its result has a type and is what holds them.
  if (isObject(item.message) || Array.isArray(item.generations)) return false
  if (typeof item.type === 'string' || isLoneCall(item)) return true
  return typeof item.text === 'string' || untypedKeys.some((key) => item[key] !== undefined)
}

/** Of LiteLLM, which writes each call of a tool as a reply of its own, and no role. */
function isLoneCall(item: JsonObject): boolean {
  return item.role === undefined && isObject(item.function_call)
}

function readPart(part: JsonObject, role: string, sink: Sink): void {
  const type = String(part.type ?? '')
  const text = part.text ?? part.content ?? part.thinking
  if (reasoningTypes.has(type)) readReasoning(part, role, sink)
  else if (typeof text === 'string' && (textTypes.has(type) || (type === '' && part.text !== undefined))) {
    if (text !== '') push(sink, role, part.thought === true ? 'reasoning' : 'text', text)
    noteRest(part, part.text === undefined ? textKeys : textKeysAlone, sink)
  } else if (isObject(part.reasoningContent)) {
    const inner = part.reasoningContent.reasoningText
    const thought = isObject(inner) ? textOfJson(inner.text) : JSON.stringify(part.reasoningContent)
    push(sink, role, 'reasoning', thought)
    noteBeside(part, sink)
  } else if (part.json !== undefined && type === '') {
    push(sink, role, 'json', textOfJson(part.json))
    noteBeside(part, sink)
  } else if (isLoneCall(part)) {
    readToolCall(part.function_call as Json, role, noneKnown, sink)
    noteRest(part, loneCallKeys, sink)
  } else if (callTypes.has(type) || isObject(part.toolUse) || isObject(part.functionCall)) {
    readToolCall(part, role, noneKnown, sink)
    noteBeside(part, sink)
  } else if (responseTypes.has(type) || firstObject(part, ...responseKeys) !== undefined) {
    readToolResponse(part, role, sink)
    noteBeside(part, sink)
  } else push(sink, role, 'json', JSON.stringify(part))
}

/** Google's SDK for Python writes the last of them. */
const responseKeys = ['toolResult', 'functionResponse', 'function_response'] as const
const textKeys = new Set(['type', 'text', 'content', 'thought', ...finishKeys, 'index', 'annotations', 'logprobs'])
const textKeysAlone = new Set([...textKeys].filter((key) => key !== 'content'))
const loneCallKeys = new Set(['function_call', ...finishKeys])
const thoughtKeys = new Set(['type', 'content', 'text', 'thinking'])
const summaryKeys = new Set(['type', 'summary', 'id', 'status'])
const noneKnown: ReadonlySet<string | undefined> = new Set()

function readReasoning(part: JsonObject, role: string, sink: Sink): void {
  const said = part.content ?? part.text ?? part.thinking
  // Mistral's is a list of texts.
  const text = isPlainParts(said ?? null) ? plainText(said as Json) : said
  if (typeof text === 'string') {
    if (text !== '') push(sink, role, 'reasoning', text)
    noteRest(part, thoughtKeys, sink)
    return
  }
  // OpenAI's item: the summary is what can be read of it.
  const summary = Array.isArray(part.summary) ? (part.summary as readonly Json[]) : []
  for (const item of summary)
    push(sink, role, 'reasoning', isObject(item) ? textOfJson(item.text ?? item) : textOfJson(item))
  noteRest(part, summaryKeys, sink)
}

function readToolCall(call: Json, role: string, known: ReadonlySet<string | undefined>, sink: Sink): void {
  if (!isObject(call)) {
    push(sink, role, 'json', JSON.stringify(call))
    return
  }
  const inner = firstObject(call, 'toolUse', 'functionCall', 'function', 'tool_call', 'tool_use') ?? call
  const id = textOfJson(call.call_id ?? call.id ?? call.toolCallId ?? call.toolUseId ?? inner.id ?? inner.toolUseId)
  if (id !== '' && known.has(id)) return
  const named = firstObject(inner, 'function') ?? inner
  const name = textOfJson(named.name ?? named.toolName ?? call.name ?? call.toolName)
  const args =
    named.arguments ?? named.args ?? named.input ?? call.arguments ?? call.args ?? call.server_tool_call ?? null
  // An item of a Responses request stands alone, in nobody's message.
  const of = call.type === 'function_call' ? 'assistant' : role
  push(sink, of, 'tool_call', toolJson({ id, name, arguments: args }), { toolName: name, toolCallId: id })
}

function readToolResponse(part: JsonObject, role: string, sink: Sink): void {
  const inner = firstObject(part, ...responseKeys) ?? part
  const id = textOfJson(inner.id ?? inner.call_id ?? inner.tool_use_id ?? inner.toolUseId ?? inner.toolCallId)
  const name = textOfJson(inner.name ?? inner.toolName)
  const response =
    inner.response ?? inner.result ?? inner.output ?? inner.content ?? inner.server_tool_call_response ?? null
  const failed = inner.is_error === true || inner.status === 'error' ? { status: 'error' } : {}
  const of = part.type === 'function_call_output' ? 'tool' : role
  push(sink, of, 'tool_call_response', toolJson({ id, name, response, ...failed }), { toolCallId: id })
}

function firstObject(item: JsonObject, ...keys: readonly string[]): JsonObject | undefined {
  for (const key of keys) if (isObject(item[key])) return item[key] as JsonObject
  return undefined
}

function toolJson(said: JsonObject): string {
  return JSON.stringify(Object.fromEntries(Object.entries(said).filter(([, value]) => value !== '' && value !== null)))
}

function push(sink: Sink, role: string, type: ContentType, text: string, tool: Partial<MessagePart> = {}): void {
  sink.parts.push({ role, type, text, ...tool })
}

function noteFinish(item: JsonObject, sink: Sink): void {
  for (const key of finishKeys)
    if (sink.finishReason === '' && typeof item[key] === 'string') sink.finishReason = item[key] as string
}

/** A part without a type is one key. Gemini signs its thoughts beside it. */
function noteBeside(part: JsonObject, sink: Sink): void {
  noteRest(part, part.type === undefined ? untypedPartKeys : toolPartKeys, sink)
}

const untypedPartKeys = new Set([...untypedKeys, 'thought', 'thoughtSignature', 'thought_signature'])
const toolPartKeys = new Set([
  ...untypedKeys,
  ...['type', 'id', 'call_id', 'tool_use_id', 'toolCallId', 'toolUseId', 'name', 'toolName', 'index', 'status'],
  ...['function', 'tool_call', 'tool_use', 'arguments', 'args', 'input', 'server_tool_call'],
  ...['response', 'result', 'output', 'content', 'is_error', 'server_tool_call_response'],
])

/** What a message says beside what was read: the attribute then stays where it is. */
function noteRest(item: JsonObject, read: ReadonlySet<string>, sink: Sink): void {
  for (const key in item) {
    if (read.has(key)) continue
    const value = item[key]
    const isNothing = value === null || value === '' || (Array.isArray(value) && value.length === 0)
    if (!isNothing) sink.isWhole = false
  }
}
