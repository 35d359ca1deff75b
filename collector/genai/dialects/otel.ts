// OpenTelemetry's GenAI conventions, from 1.27 to the newest, deprecated names included. Most other dialects are this one with
// a few names of their own, and use its readers.
import { foldFinishReason, providerOf } from '@tallylight/instrumentation/usage/names.ts'
import type { UsageRead, UsageSource } from '@tallylight/instrumentation/usage/usage.ts'
import { readUsage } from '@tallylight/instrumentation/usage/usage.ts'
import {
  durationNano,
  firstText,
  firstValue,
  isObject,
  isTrue,
  type Json,
  jsonOf,
  objectOf,
  scalarText,
  toJson,
} from '../attributes.ts'
import { firstReason, rawUsageOf, recoveredUsage, senderCounting, withThoughts } from '../counts.ts'
import type { CallSays, Content, Failure, MessageFact, Says, ToolSays } from '../fact.ts'
import { type FailureHints, failureOf, statusOf } from '../failure.ts'
import { contentIn, contentOfJson, type Reading, settleUsage, turnSays } from '../reading.ts'
import type { Attributes, LiftedSpan } from '../record.ts'
import { type Dialect, link, type Read } from './dialect.ts'
import { readLogOfEvents } from './otel-logs.ts'
import { embeddedOnSpan, saidOnSpan, toolContentOfEvents } from './otel-messages.ts'

export const otel: Dialect = {
  name: 'otel',
  knows: (span) => operationOf(span) !== '',
  readSpan: (reading, span) => readOtel(reading, span),
  knowsLog: () => true,
  readLog: readLogOfEvents,
}

export type OperationKind = 'call' | 'embedding' | 'tool' | 'agent' | 'wrapper' | 'link'

const kinds: ReadonlyMap<string, OperationKind> = new Map(
  Object.entries<OperationKind>({
    chat: 'call',
    text_completion: 'call',
    completion: 'call',
    generate_content: 'call',
    // Newest: one answer within a realtime session, and the stages of a voice agent.
    realtime_inference: 'call',
    speech_to_text: 'call',
    text_to_speech: 'call',
    // Azure's agents run on the server: the run is the only span that is metered.
    process_thread_run: 'call',
    embeddings: 'embedding',
    embedding: 'embedding',
    execute_tool: 'tool',
    invoke_agent: 'agent',
    invoke_workflow: 'wrapper',
    agent_step: 'wrapper',
    plan: 'wrapper',
  }),
)

/** Operations that no convention knows, as some write them. A span that is only named so is none. */
const unconventional: ReadonlyMap<string, OperationKind> = new Map(
  Object.entries<OperationKind>({
    // rig.
    chat_streaming: 'call',
    interactions: 'call',
    interactions_streaming: 'call',
    // Semantic Kernel, in .NET and in Python.
    'chat.completions': 'call',
    'text.completions': 'call',
    text_completions: 'call',
    // Gemini CLI and what was made of it.
    llm_call: 'call',
    tool_call: 'tool',
    agent_call: 'agent',
    user_prompt: 'wrapper',
  }),
)

export function kindOf(operation: string): OperationKind {
  return kinds.get(operation) ?? unconventional.get(operation) ?? 'link'
}

/** Before 1.27 there was no operation: the type of request says it, or the first word of the span's name. */
export function operationOf(span: LiftedSpan): string {
  const said = firstText(span.attributes, 'gen_ai.operation.name', 'llm.request.type')
  if (said !== '') return said
  if (!speaksOfModels(span.attributes)) return ''
  const word = /^[a-z_]+/.exec(span.name)?.[0] ?? ''
  if (kinds.get(word) !== undefined) return word
  return firstValue(span.attributes, ...marksOfCall) === undefined ? '' : 'chat'
}

const marksOfCall = ['gen_ai.usage.input_tokens', 'gen_ai.usage.prompt_tokens', 'gen_ai.is_streaming'] as const

function speaksOfModels(attributes: Attributes): boolean {
  return firstText(attributes, 'gen_ai.request.model', 'gen_ai.system', 'gen_ai.provider.name') !== ''
}

/** What a dialect knows better than OpenTelemetry's names do. */
export type Quirks = {
  readonly kind?: OperationKind
  readonly provider?: string
  readonly finishReason?: string
  readonly timeToFirstTokenNano?: number | undefined
  readonly source?: UsageSource
  readonly usage?: UsageRead
  readonly failure?: FailureHints
  readonly toolName?: string
  readonly arguments?: Content | undefined
  readonly result?: Content | undefined
  readonly agentName?: string
  /** Of an agent or wrapper, in place of what stands under OpenTelemetry's names. */
  readonly messages?: readonly MessageFact[]
}

export function readOtel(reading: Reading, span: LiftedSpan, quirks: Quirks = {}): Read {
  const failure = failureOf(span, quirks.failure)
  return { says: saysOf(reading, span, quirks, failure), failure }
}

function saysOf(reading: Reading, span: LiftedSpan, quirks: Quirks, failure: Failure | undefined): Says {
  const kind = isMergedTools(span) ? 'link' : (quirks.kind ?? kindOf(operationOf(span)))
  switch (kind) {
    case 'call':
    case 'embedding':
      return readCall(reading, span, kind, quirks, failure)
    case 'tool':
      return readTool(reading, span, quirks, failure)
    case 'agent':
    case 'wrapper':
      return readAgent(reading, span, kind, quirks)
    case 'link':
      return link
    default:
      return kind satisfies never
  }
}

/** Google's ADK writes what several tools of one step returned once more, as if it were one. */
function isMergedTools({ attributes, scope }: LiftedSpan): boolean {
  return scope.name === 'gcp.vertex.agent' && attributes.get('gen_ai.tool.name') === '(merged tools)'
}

export function readCall(
  reading: Reading,
  span: LiftedSpan,
  kind: 'call' | 'embedding',
  quirks: Quirks,
  failure: Failure | undefined,
): CallSays {
  const { attributes } = span
  const said = kind === 'call' ? saidOnSpan(reading, span) : embeddedOnSpan(reading, span)
  const model = firstText(attributes, 'gen_ai.response.model', 'ai.response.model')
  const requestModel = firstText(attributes, 'gen_ai.request.model', 'ai.model.id')
  const provider =
    quirks.provider ??
    providerOf(
      firstText(attributes, 'gen_ai.provider.name', 'gen_ai.system', 'ai.model.provider'),
      model || requestModel,
    )
  const timeToFirstTokenNano =
    quirks.timeToFirstTokenNano ?? timeToFirstToken(attributes) ?? nanoToMoment(span, 'mastra.completion_start_time')
  return {
    kind,
    provider,
    requestModel: requestModel || model,
    model: model || requestModel,
    responseId: firstText(attributes, 'gen_ai.response.id', 'ai.response.id'),
    isStreaming: timeToFirstTokenNano !== undefined || isStreaming(attributes),
    ...settleUsage(reading, ...usageOfCall(span, provider, quirks)),
    finishReason: finishReasonOf(quirks.finishReason ?? (reasonTold(attributes) || said.finishReason), failure),
    ...(timeToFirstTokenNano === undefined ? {} : { timeToFirstTokenNano }),
    ...callIdentity(attributes),
    messages: said.messages,
  }
}

/** The one reason has names of its own: OpenRouter's, and older ones of OpenLLMetry's. */
function reasonTold(attributes: Attributes): string {
  return (
    firstReason(attributes.get('gen_ai.response.finish_reasons')) ||
    firstText(
      attributes,
      'gen_ai.response.finish_reason',
      'gen_ai.response.stop_reason',
      'llm.response.finish_reason',
      'llm.response.stop_reason',
    )
  )
}

function usageOfCall(span: LiftedSpan, provider: string, quirks: Quirks): [UsageRead, UsageRead, UsageSource] {
  const raw = withThoughts(rawUsageOf(span.attributes), span.scope)
  const { counting, source } = senderCounting(span.scope, provider, raw)
  return [quirks.usage ?? readUsage(raw, counting), rawOnSpan(span.attributes, provider), quirks.source ?? source]
}

/** The provider's own usage object, where a sender left it: Logfire, LiteLLM, Google's ADK, the AI SDK. */
function rawOnSpan(attributes: Attributes, provider: string): UsageRead {
  const usage = attributes.get('gen_ai.usage.raw')
  if (usage !== undefined) return recoveredUsage(jsonOf(usage), provider)
  const printed = attributes.get('metadata.usage_object')
  if (typeof printed === 'string') return recoveredUsage(jsonOf(fromPython(printed)), provider)
  // Of other models the ADK makes what looks like Google's, and is counted as whoever made the call counts.
  const answered = provider.startsWith('gcp.') ? attributes.get('gcp.vertex.agent.llm_response') : undefined
  if (answered !== undefined) return recoveredUsage(jsonOf(answered), provider)
  const metadata = attributes.get('ai.response.providerMetadata')
  return metadata === undefined ? { kind: 'none' } : recoverFromMetadata(jsonOf(metadata), provider)
}

/** A dictionary of numbers as Python prints it. */
export function fromPython(text: string): string {
  return text.replaceAll("'", '"').replaceAll(/: None\b/g, ': null')
}

/** `{anthropic: {usage: {...}}}`, `{google: {usageMetadata: {...}}}`. */
export function recoverFromMetadata(json: unknown, provider: string): UsageRead {
  if (!isObject(json)) return { kind: 'none' }
  for (const inner of Object.values(json))
    if (isObject(inner) && (isObject(inner.usage) || isObject(inner.usageMetadata)))
      return recoveredUsage(inner, provider)
  return { kind: 'none' }
}

/** That it failed is said by the error; as a reason to finish, "error" tells nothing more. */
export function finishReasonOf(said: string, failure: Failure | undefined): string {
  const folded = foldFinishReason(said)
  return folded === 'error' && failure !== undefined ? '' : folded
}

export function callIdentity(attributes: Attributes): Pick<CallSays, 'callId' | 'attempt'> {
  const attempt = Number(scalarText(attributes.get('tallylight.attempt')))
  const resent = Number(scalarText(attributes.get('http.request.resend_count')) || Number.NaN)
  return {
    callId: firstText(attributes, 'tallylight.call.id'),
    attempt: isCount(attempt) && attempt > 0 ? attempt : isCount(resent) ? resent + 1 : 0,
  }
}

function isCount(value: number): boolean {
  return Number.isSafeInteger(value) && value >= 0 && value < 65_535
}

function isStreaming(attributes: Attributes): boolean {
  return isTrue(
    firstValue(
      attributes,
      'gen_ai.request.stream',
      'gen_ai.is_streaming',
      'gen_ai.request.is_stream',
      'llm.is_streaming',
    ),
  )
}

function timeToFirstToken(attributes: Attributes): number | undefined {
  return durationNano(
    firstValue(
      attributes,
      'gen_ai.response.time_to_first_chunk',
      'gen_ai.client.inference.time_to_first_chunk',
      'gen_ai.client.operation.time_to_first_chunk',
      'gen_ai.server.time_to_first_token',
    ),
    1e9,
  )
}

/** Where the first token is told by its moment: ISO time, at times as a JSON string, in milliseconds, so that it may lie before a
 *  start that is finer. */
export function nanoToMoment({ attributes, startUnixNano }: LiftedSpan, key: string): number | undefined {
  const text = firstText(attributes, key).replaceAll('"', '')
  const unixMs = text === '' ? Number.NaN : Date.parse(text)
  if (Number.isNaN(unixMs)) return undefined
  const nano = Number(BigInt(unixMs) * 1_000_000n - startUnixNano)
  return Number.isSafeInteger(nano) ? Math.max(0, nano) : undefined
}

/** Where the first token is told by an event of the span. */
export function nanoToEvent({ events, startUnixNano }: LiftedSpan, name: string): number | undefined {
  const first = events.find((event) => event.name === name)
  return first === undefined || first.timeUnixNano < startUnixNano
    ? undefined
    : Number(first.timeUnixNano - startUnixNano)
}

export function readTool(reading: Reading, span: LiftedSpan, quirks: Quirks, failure: Failure | undefined): ToolSays {
  const { attributes } = span
  const ofEvents = toolContentOfEvents(reading, span)
  const args =
    quirks.arguments ??
    contentIn(reading, 'gen_ai.tool.call.arguments', 'gen_ai.tool.args') ??
    ofEvents.arguments ??
    argumentsOfFunction(reading)
  const result =
    quirks.result ?? contentIn(reading, 'gen_ai.tool.call.result', 'code.function.return.value') ?? ofEvents.result
  return {
    kind: 'tool',
    name: quirks.toolName || firstText(attributes, 'gen_ai.tool.name') || withoutOperation(span.name),
    callId: firstText(attributes, 'gen_ai.tool.call.id'),
    toolType: firstText(attributes, 'gen_ai.tool.type'),
    provider: providerOf(firstText(attributes, 'gen_ai.provider.name', 'gen_ai.system'), ''),
    mcpServer: firstText(attributes, 'mcp.server.name') || mcpServerOfMastra(attributes),
    ...(args === undefined ? {} : { arguments: args }),
    ...(result === undefined ? {} : { result }),
    status: statusOf(failure),
    ...(attributes.get('tallylight.tool.seen_on') === 'wire' ? { isSeenOnWire: true } : {}),
  }
}

/** Where its address belongs. */
function mcpServerOfMastra(attributes: Attributes): string {
  return attributes.get('mastra.span.type') === 'mcp_tool_call' ? firstText(attributes, 'server.address') : ''
}

/** Of Google's SDK for Python a tool is a function, and each of its parameters an attribute; what is no plain value is JSON. */
function argumentsOfFunction(reading: Reading): Content | undefined {
  const { attributes, account } = reading
  const given = [...attributes].flatMap(([key, value]): [string, Json][] => {
    const name = parameterValue.exec(key)?.[1]
    if (name === undefined) return []
    account.understood.add(key)
    return [[name, objectOf(value) ?? toJson(value)]]
  })
  return given.length === 0 ? undefined : contentOfJson(reading, Object.fromEntries(given))
}

const parameterValue = /^code\.function\.parameters\.(.+)\.value$/

function readAgent(reading: Reading, span: LiftedSpan, kind: 'agent' | 'wrapper', quirks: Quirks): Says {
  const name =
    quirks.agentName ||
    firstText(span.attributes, 'gen_ai.agent.name', 'agent_name', 'gen_ai.workflow.name') ||
    withoutOperation(span.name)
  return turnSays(kind, name, quirks.messages ?? saidOnSpan(reading, span).messages)
}

function withoutOperation(name: string): string {
  const [word = '', ...rest] = name.split(' ')
  return kinds.get(word) !== undefined && rest.length > 0 ? rest.join(' ') : name
}
