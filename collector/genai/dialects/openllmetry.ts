// OpenLLMetry (Traceloop): OpenTelemetry's names, older ones with the messages in indexed attributes, workflows and tools in
// `traceloop.*`. Its instrumentation of MCP knows only the latter.
import { providerOf } from '@tallylight/instrumentation/usage/names.ts'
import { firstText, isObject, type Json, type JsonObject, jsonOf, parseJson } from '../attributes.ts'
import type { Failure, MessageFact, Says } from '../fact.ts'
import { failureOf, statusOf } from '../failure.ts'
import { accountFor, contentIn, contentOfJson, type Reading, readSaidJson, turnSays, wholeIn } from '../reading.ts'
import type { LiftedSpan } from '../record.ts'
import { type Dialect, link, type Read } from './dialect.ts'
import { toolMessageOf } from './langchain.ts'
import { kindOf, nanoToEvent, operationOf, type Quirks, readOtel } from './otel.ts'

const ownAttributes = ['traceloop.span.kind', 'traceloop.entity.name', 'traceloop.entity.output', 'llm.request.type']

/** Its Python packages, beside OpenTelemetry's own, which are `openai_v2` and `genai.*`. */
const pythonScopes =
  /^opentelemetry\.instrumentation\.(openai\.v\d|anthropic|langchain|bedrock|cohere|groq|mistralai|ollama|together|google_generativeai|litellm|llamaindex)$/

export const openllmetry: Dialect = {
  name: 'openllmetry',
  knows: (span) =>
    span.scope.name.startsWith('@traceloop/') ||
    ownAttributes.some((key) => span.attributes.has(key)) ||
    span.attributes.has('gen_ai.prompt.0.role') ||
    span.attributes.has('gen_ai.prompt.0.content') ||
    (pythonScopes.test(span.scope.name) && operationOf(span) !== ''),
  readSpan,
}

function readSpan(reading: Reading, span: LiftedSpan): Read | undefined {
  switch (firstText(span.attributes, 'traceloop.span.kind')) {
    case 'tool':
      return readTool(reading, span)
    case 'agent':
      return wrapperOf(reading, span, 'agent')
    case 'workflow':
    case 'task':
      // LangChain's tools.
      if (operationOf(span) === 'execute_tool') return readTool(reading, span)
      if (isModelOfLlamaIndex(span)) return readOperation(reading, span)
      return wrapperOf(reading, span, 'wrapper')
    // Of FastMCP: it stands around the tool, and knows whose it is.
    case 'server':
      return isOfMcp(span) ? readServer(reading, span) : readOperation(reading, span)
    // Of an MCP client: it may be open for as long as its process, and is nobody's turn.
    case 'session':
      return { says: link, failure: failureOf(span) }
    default:
      return readOperation(reading, span)
  }
}

/** A model that has no instrumentation of its own is told by the task that asks it, and by nothing else; where it has one, its
 *  call stands inside. */
function isModelOfLlamaIndex(span: LiftedSpan): boolean {
  const kind = kindOf(operationOf(span))
  return isOfLlamaIndex(span) && (kind === 'call' || kind === 'embedding')
}

function isOfLlamaIndex({ scope }: LiftedSpan): boolean {
  return scope.name === 'opentelemetry.instrumentation.llamaindex'
}

/** LlamaIndex's class where the provider belongs: `anthropic_llm`. */
function providerOfLlamaIndex(span: LiftedSpan): Quirks {
  if (!isOfLlamaIndex(span)) return {}
  const said = firstText(span.attributes, 'gen_ai.provider.name', 'gen_ai.system').replace(/_llm$/i, '')
  return { provider: providerOf(said, firstText(span.attributes, 'gen_ai.response.model', 'gen_ai.request.model')) }
}

function wrapperOf(reading: Reading, span: LiftedSpan, kind: 'agent' | 'wrapper'): Read {
  const name = firstText(span.attributes, 'traceloop.entity.name', 'gen_ai.agent.name') || span.name
  const messages = [
    ...wholeIn(reading, 'traceloop.entity.input', 'input', 'user'),
    ...wholeIn(reading, 'traceloop.entity.output', 'output', 'assistant'),
  ]
  accountForCopies(reading, 'gen_ai.task')
  return { says: turnSays(kind, name, messages), failure: failureOf(span) }
}

function readOperation(reading: Reading, span: LiftedSpan): Read {
  const server = serverOf(span)
  if (server !== undefined) return { says: link, failure: failureOf(span), besides: [server] }
  const kind = kindOf(operationOf(span))
  const reason = firstText(span.attributes, 'gen_ai.completion.0.finish_reason')
  const timeToFirstTokenNano =
    nanoToEvent(span, 'gen_ai.content.completion.chunk') ?? nanoToEvent(span, 'llm.content.completion.chunk')
  const quirks: Quirks = {
    kind,
    timeToFirstTokenNano,
    ...(reason === '' ? {} : { finishReason: reason }),
    ...providerOfLlamaIndex(span),
  }
  const read = readOtel(reading, span, quirks)
  if (read.says.kind !== 'call' || span.scope.name !== '@traceloop/instrumentation-openai') return read
  // Its streams are counted with a tokenizer, and nothing on the span tells them from calls that are none.
  return { ...read, says: { ...read.says, isDoubtful: true, messages: read.says.messages.flatMap(itemsIn(reading)) } }
}

/** The items that a Responses request holds are written as one text of the user. */
function itemsIn(reading: Reading): (message: MessageFact) => readonly MessageFact[] {
  return (message) => {
    const text = message.role === 'user' && message.type === 'text' ? textOf(reading, message) : ''
    const items = text.startsWith('[{"') ? parseJson(text) : undefined
    if (!Array.isArray(items) || !items.every(isItem)) return [message]
    const said = readSaidJson(reading, items, message.direction, 'user')
    if (said === undefined || said.messages.length === 0) return [message]
    accountFor(reading, 'gen_ai.input.messages', said.isWhole)
    return said.messages
  }
}

function textOf({ contents }: Reading, { content }: MessageFact): string {
  return contents.texts.get(content.hash) ?? ''
}

const itemTypes = new Set(['message', 'function_call', 'function_call_output', 'reasoning', 'item_reference'])

function isItem(json: Json): boolean {
  return isObject(json) && (typeof json.role === 'string' || itemTypes.has(String(json.type)))
}

/** `initialize.mcp` alone tells the name of the server. */
function serverOf(span: LiftedSpan): Says | undefined {
  if (span.name !== 'initialize.mcp') return undefined
  const output = jsonOf(span.attributes.get('traceloop.entity.output'))
  const info = isObject(output) ? output.serverInfo : undefined
  return isObject(info) && typeof info.name === 'string' ? { kind: 'mcp-server', name: info.name } : undefined
}

function readTool(reading: Reading, span: LiftedSpan): Read {
  const input = jsonOf(span.attributes.get('traceloop.entity.input'))
  const output = jsonOf(span.attributes.get('traceloop.entity.output'))
  const message = toolMessageOf(span.attributes.get('traceloop.entity.output'))
  const hasFailed = isObject(output) && output.is_error === true
  const failure: Failure | undefined = failureOf(span, { hasFailed })
  // Of OpenAI's agents it writes OpenTelemetry's names alone.
  const args =
    contentOfJson(
      reading,
      isMcp(input) ? input.arguments : (argumentsOf(input) ?? firstText(span.attributes, 'traceloop.entity.input')),
    ) ?? contentIn(reading, 'gen_ai.tool.call.arguments')
  const result =
    contentOfJson(reading, resultOf(output) ?? firstText(span.attributes, 'traceloop.entity.output')) ??
    contentIn(reading, 'gen_ai.tool.call.result')
  // LangChain writes much around both, and the arguments twice.
  if (!isOfLangChain(input)) accountForBoth(reading)
  return {
    says: {
      kind: 'tool',
      name: message?.name || firstText(span.attributes, 'traceloop.entity.name', 'gen_ai.tool.name') || span.name,
      callId: firstText(span.attributes, 'gen_ai.tool.call.id') || callIdOfLangChain(input) || (message?.callId ?? ''),
      toolType: firstText(span.attributes, 'gen_ai.tool.type'),
      provider: '',
      ...(isOfMcp(span) ? { mcp: 'client' as const } : {}),
      mcpServer: firstText(span.attributes, 'mcp.server.name'),
      ...(args === undefined ? {} : { arguments: args }),
      ...(result === undefined ? {} : { result }),
      status: statusOf(failure),
    },
    failure,
  }
}

function isOfMcp({ scope }: LiftedSpan): boolean {
  return scope.name.includes('mcp')
}

function readServer(reading: Reading, span: LiftedSpan): Read {
  const failure = failureOf(span)
  const result = contentIn(reading, 'mcp.response.value')
  return {
    says: {
      kind: 'tool',
      name: '',
      callId: '',
      toolType: '',
      provider: '',
      mcp: 'server',
      mcpServer: firstText(span.attributes, 'traceloop.workflow.name'),
      ...(result === undefined ? {} : { result }),
      status: statusOf(failure),
    },
    failure,
  }
}

/** `{tool_name, arguments}`; a tool that takes none has none. */
function isMcp(input: Json | undefined): input is JsonObject {
  return isObject(input) && typeof input.tool_name === 'string'
}

function accountForBoth(reading: Reading): void {
  for (const key of ['traceloop.entity.input', 'traceloop.entity.output'])
    if (reading.attributes.has(key)) reading.account.understood.add(key)
  accountForCopies(reading, 'gen_ai.tool.call')
}

/** Newer versions write both under OpenTelemetry's names as well. */
function accountForCopies({ attributes, account }: Reading, prefix: 'gen_ai.tool.call' | 'gen_ai.task'): void {
  const isTool = prefix === 'gen_ai.tool.call'
  for (const [key, copy] of [
    ['traceloop.entity.input', `${prefix}.${isTool ? 'arguments' : 'input'}`],
    ['traceloop.entity.output', `${prefix}.${isTool ? 'result' : 'output'}`],
  ] as const)
    if (attributes.has(key) && attributes.get(copy) === attributes.get(key)) account.understood.add(copy)
}

function isOfLangChain(input: Json | undefined): boolean {
  return isObject(input) && input.input_str !== undefined
}

/** `{args, kwargs}` of a decorated function, `{input_str, inputs, kwargs}` of LangChain, whose
 *  `kwargs` are LangChain's own. */
function argumentsOf(input: Json | undefined): Json | undefined {
  if (!isObject(input)) return input
  if (input.arguments !== undefined) return input.arguments
  if (input.input_str !== undefined) return isObject(input.inputs) ? input.inputs : input.input_str
  const { args, kwargs } = input
  if (isObject(kwargs) && (Object.keys(kwargs).length > 0 || !Array.isArray(args) || args.length === 0)) return kwargs
  if (!Array.isArray(args)) return input
  return args.length === 1 ? (args[0] as Json) : args
}

function callIdOfLangChain(input: Json | undefined): string {
  const id = isObject(input) && isObject(input.kwargs) ? input.kwargs.tool_call_id : undefined
  return typeof id === 'string' ? id : ''
}

/** `{result}`, or the message that LangChain makes of it. */
function resultOf(output: Json | undefined): Json | undefined {
  if (!isObject(output)) return output
  const message = isObject(output.output) && isObject(output.output.kwargs) ? output.output.kwargs.content : undefined
  return output.result ?? message ?? output
}
