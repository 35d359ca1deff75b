// Which records speak of models, tools, messages or health, told from wire bytes: only those are lifted out of the walk. The
// walk asks for every key of every span, so the answer for all others has to cost next to nothing: the length and two bytes
// of a key exclude nearly every one.

import { limits } from '../limits.ts'

/** A key that begins so makes its record one of ours. */
const prefixes = [
  'gen_ai.',
  'llm.',
  'mcp.',
  'ai.telemetry.',
  'ai.usage.',
  'openinference.',
  'traceloop.',
  'langfuse.',
  'langsmith.',
  'openlit.',
  'pydantic_ai.',
  'tallylight.turn.',
  'tallylight.health.',
  'tallylight.audit.',
  'agent_loop.',
  'event_loop.',
] as const

// Logfire marks every span of a service, of the web too: only a request to a model has its data, and one to a server of tools a
// `request` (as may some others, which are lifted in vain).
const keys = [
  'ai.operationId',
  'tallylight.call.id',
  'tallylight.probe',
  'tallylight.record',
  'request_data',
  'request',
  'agent_name',
] as const

/** Keys whose value decides: the request of a prober is a record of ours, all other requests are not. */
const pathKeys = ['http.route', 'url.path', 'http.target'] as const
const userAgentKeys = ['user_agent.original', 'http.user_agent'] as const

export const recognised = { prefixes, keys, pathKeys, userAgentKeys } as const

/** Names of events, spoken by log records: in `event_name`, or in the attribute `event.name`. */
const eventPrefixes = ['gen_ai.', 'tallylight.', 'strands.telemetry.', 'openinference.instrumentation.'] as const

export const recognisedEvents = eventPrefixes

const healthPaths = new Set([
  '/health',
  '/healthz',
  '/health/live',
  '/health/ready',
  '/livez',
  '/live',
  '/liveness',
  '/readyz',
  '/ready',
  '/readiness',
  '/status',
  '/ping',
  '/_health',
  '/api/health',
  '/api/healthz',
])

export function isHealthPath(path: string): boolean {
  const clean = path.split('?')[0] as string
  return healthPaths.has(clean.length > 1 && clean.endsWith('/') ? clean.slice(0, -1) : clean)
}

/** Metrics of which each point, with the others of its time, tells how one look at a server went: of the OpenTelemetry
 *  Collector's `httpcheck` and of Prometheus's blackbox exporter. */
export const healthMetrics = [
  'httpcheck.status',
  'httpcheck.duration',
  'httpcheck.error',
  'httpcheck.validation.failed',
  'probe_success',
  'probe_duration_seconds',
  'probe_http_status_code',
] as const

/** User agents are short where probers write them. */
const longestProberBytes = 160
const probers = [
  'kube-probe',
  'ELB-HealthChecker',
  'GoogleHC',
  'Consul Health Check',
  'Envoy/HC',
  'Amazon-Route53-Health-Check',
]

export function isProber(userAgent: string): boolean {
  return probers.some((prober) => userAgent.startsWith(prober))
}

type Known = { readonly bytes: Uint8Array; readonly isPrefix: boolean }

const byFirstByte: (readonly Known[] | undefined)[] = tableOf([
  ...prefixes.map((text) => ({ bytes: Buffer.from(text), isPrefix: true })),
  ...keys.map((text) => ({ bytes: Buffer.from(text), isPrefix: false })),
])
const eventsByFirstByte = tableOf(eventPrefixes.map((text) => ({ bytes: Buffer.from(text), isPrefix: true })))
const slash = 0x2f
const pathsBySecondByte = tableOf(
  [...healthPaths].map((path) => ({ bytes: Buffer.from(path.slice(1)), isPrefix: true })),
)
const probersByFirstByte = tableOf(probers.map((text) => ({ bytes: Buffer.from(text), isPrefix: true })))
const valuedByFirstByte = tableOf(
  [...pathKeys, ...userAgentKeys].map((text) => ({ bytes: Buffer.from(text), isPrefix: false })),
)

const healthMetricsByFirstByte = tableOf(healthMetrics.map((text) => ({ bytes: Buffer.from(text), isPrefix: false })))

function tableOf(known: readonly Known[]): (readonly Known[] | undefined)[] {
  const table: Known[][] = []
  for (const one of known) {
    const first = one.bytes[0] as number
    table[first] ??= []
    table[first].push(one)
  }
  return Array.from({ length: 256 }, (_, byte) => table[byte])
}

/** Whether a key of an attribute of a span or log record makes it one of ours. */
export function isSpeakingKey(bytes: Uint8Array, start: number, end: number): boolean {
  return isKnown(byFirstByte, bytes, start, end)
}

/** Whether the value of this key has to be looked at with `isSpeakingValue`. */
export function isValuedKey(bytes: Uint8Array, start: number, end: number): boolean {
  return isKnown(valuedByFirstByte, bytes, start, end)
}

/** Of a path or a user agent. Only what begins as one of ours is read as text: every span of a web service comes by here. */
export function isSpeakingValue(bytes: Uint8Array, start: number, end: number): boolean {
  const isPath = bytes[start] === slash
  const isCandidate = isPath
    ? isKnown(pathsBySecondByte, bytes, start + 1, end)
    : isKnown(probersByFirstByte, bytes, start, end)
  if (!isCandidate || end - start > longestProberBytes) return false
  const text = Buffer.from(bytes.buffer, bytes.byteOffset + start, end - start).toString('latin1')
  return isPath ? isHealthPath(text) : isProber(text)
}

export function isSpeakingEvent(bytes: Uint8Array, start: number, end: number): boolean {
  return isKnown(eventsByFirstByte, bytes, start, end)
}

/** Of the name of a metric. */
export function isHealthMetric(bytes: Uint8Array, start: number, end: number): boolean {
  return isKnown(healthMetricsByFirstByte, bytes, start, end)
}

function isKnown(table: (readonly Known[] | undefined)[], bytes: Uint8Array, start: number, end: number): boolean {
  const candidates = table[bytes[start] as number]
  if (candidates === undefined) return false
  const length = end - start
  for (const { bytes: known, isPrefix } of candidates)
    if ((isPrefix ? length >= known.length : length === known.length) && isEqual(known, bytes, start)) return true
  return false
}

function isEqual(known: Uint8Array, bytes: Uint8Array, start: number): boolean {
  for (let at = 1; at < known.length; at++) if (known[at] !== bytes[start + at]) return false
  return true
}

/** Keys that hold content: what of them is in no row is counted as left over, and a tenant that stores metadata only has
 *  them taken out. */
const contentKeys = new Set([
  'gen_ai.system_instructions',
  'gen_ai.input.messages',
  'gen_ai.output.messages',
  'gen_ai.prompt',
  'gen_ai.completion',
  'gen_ai.tool.call.arguments',
  'gen_ai.tool.call.result',
  'gen_ai.tool.args',
  'gen_ai.tool.input',
  'gen_ai.tool.output',
  'gen_ai.response.tool_calls',
  'gen_ai.content.reasoning',
  'gen_ai.workflow.input',
  'gen_ai.workflow.output',
  'gen_ai.retrieval.query.text',
  'gen_ai.retrieval.documents',
  'gen_ai.memory.query.text',
  'gen_ai.memory.records',
  'gen_ai.evaluation.explanation',
  'gen_ai.task.input',
  'gen_ai.task.output',
  'anthropic.tool_result.content',
  'code.function.return.value',
  'input.value',
  'output.value',
  'tool.parameters',
  'tool_call.function.arguments',
  'ai.prompt',
  'ai.prompt.messages',
  'ai.response.text',
  'ai.response.reasoning',
  'ai.response.object',
  'ai.response.toolCalls',
  'ai.response.files',
  'ai.documents',
  'ai.result.text',
  'ai.result.reasoning',
  'ai.result.object',
  'ai.result.toolCalls',
  'ai.toolCall.args',
  'ai.toolCall.result',
  'ai.toolCall.input',
  'ai.toolCall.output',
  'ai.value',
  'ai.values',
  'langfuse.observation.input',
  'langfuse.observation.output',
  'langfuse.trace.input',
  'langfuse.trace.output',
  'traceloop.entity.input',
  'traceloop.entity.output',
  'tool_arguments',
  'tool_response',
  'request_data',
  'response_data',
  'inputs',
  'request',
  'llm.invocation_parameters',
  'llm.prompt_template.variables',
  'model_request_parameters',
  'reranker.query',
  'events',
  'all_messages_events',
  'pydantic_ai.all_messages',
  'final_result',
  'system_prompt',
  'mcp.tool.arguments',
  'mcp.tool.result',
  'mcp.request.params',
  'mcp.response.value',
  'spring.ai.tool.call.arguments',
  'spring.ai.tool.call.result',
  'gcp.vertex.agent.llm_request',
  'gcp.vertex.agent.llm_response',
  'gcp.vertex.agent.tool_call_args',
  'gcp.vertex.agent.tool_response',
  'gcp.vertex.agent.data',
  // Logfire, of OpenAI's Agents SDK.
  'input',
  'output',
  'raw_input',
  'response',
  'tallylight.turn.question',
  'tallylight.turn.answer',
  // A tool of OpenInference.
  'tool_call.function.arguments',
])

/** LiteLLM writes each key of a request and of its reply as `llm.<provider>.<key>`. */
const ofLiteLlm =
  /^llm\.(?!(token_count|usage|cost|request|response)\.)\w+\.(messages|contents?|choices|candidates|system|system_?instructions?|instructions|prompt|inputs?|outputs?|completion|generations|results|text|query|documents|stringified_raw_response)$/i

const contentPrefixes =
  /^(code\.function\.parameters\..+\.value$|mastra\.\w+\.(input|output)$|gen_ai\.(prompt|completion)\.\d|gen_ai\.prompt\.variable\.|llm\.(input_messages|output_messages|prompts|choices)\.\d|embedding\.embeddings\.\d+\.embedding\.text|(retrieval\.documents|reranker\.(input|output)_documents)\.\d+\.document\.content)/

/** Of keys that were asked for: every attribute of a record is. */
const contentKeysKnown = new Map<string, boolean>()

export function isContentKey(key: string): boolean {
  const known = contentKeysKnown.get(key)
  if (known !== undefined) return known
  if (contentKeysKnown.size >= limits.keysRemembered) contentKeysKnown.clear()
  const isContent = contentKeys.has(key) || contentPrefixes.test(key) || ofLiteLlm.test(key)
  contentKeysKnown.set(key, isContent)
  return isContent
}

const errorKeys = new Set(['error.message', 'mcp.error.message', 'langfuse.observation.status_message'])

/** Keys that say what went wrong, beside the status of a span. */
export function isErrorKey(key: string): boolean {
  return key.startsWith('exception.') || errorKeys.has(key)
}

const contentEvents =
  /^gen_ai\.(system|user|assistant|tool)\.message$|^gen_ai\.choice$|^gen_ai\.content\.(prompt|completion)$|^gen_ai\.client\.inference\.operation\.details$/

export function isContentEvent(name: string): boolean {
  return contentEvents.test(name)
}
