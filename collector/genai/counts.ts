// Token counts under all their names, and how the sender counts: names do not tell whether cached tokens stand inside a
// number or beside it, so the table of senders does, by scope, version and provider.

import { readProviderUsage } from '@tallylight/instrumentation/usage/provider-usage.ts'
import {
  type Counting,
  countingOf,
  inclusive,
  type RawUsage,
  readUsage,
  type UsageKind,
  type UsageRead,
  type UsageSource,
} from '@tallylight/instrumentation/usage/usage.ts'
import { limits } from '../limits.ts'
import { isObject, type Json } from './attributes.ts'
import type { AnyValue, Attributes, Scope } from './record.ts'

const names: Readonly<Record<UsageKind | 'totalTokens', readonly string[]>> = {
  inputTokens: [
    'gen_ai.usage.input_tokens',
    'gen_ai.usage.prompt_tokens',
    'ai.usage.inputTokens',
    'ai.usage.promptTokens',
    'ai.usage.tokens',
    'llm.token_count.prompt',
    'llm.usage.prompt_tokens',
    'gen_ai.usage.partial.input_tokens',
  ],
  cacheReadTokens: [
    'gen_ai.usage.cache_read.input_tokens',
    'gen_ai.usage.cache_read_input_tokens',
    'gen_ai.usage.cache_read_tokens',
    'gen_ai.usage.details.cache_read_tokens',
    'gen_ai.usage.details.cache_read_input_tokens',
    'gen_ai.usage.details.cached_tokens',
    'ai.usage.inputTokenDetails.cacheReadTokens',
    'ai.usage.cachedInputTokens',
    'llm.token_count.prompt_details.cache_read',
    'llm.token_count.prompt_details.cache_input',
    'llm.usage.cache_read_input_tokens',
    'gen_ai.usage.cached_input_tokens',
    'gen_ai.usage.input_tokens.cached',
    'gen_ai.usage.partial.cache_read.input_tokens',
    'gen_ai.usage.prompt_tokens_details.cached_tokens',
  ],
  cacheWriteTokens: [
    'gen_ai.usage.cache_write.input_tokens',
    'gen_ai.usage.cache_creation.input_tokens',
    'gen_ai.usage.cache_creation_input_tokens',
    'gen_ai.usage.cache_write_input_tokens',
    'gen_ai.usage.cache_write_tokens',
    'gen_ai.usage.details.cache_write_tokens',
    'gen_ai.usage.details.cache_creation_input_tokens',
    'ai.usage.inputTokenDetails.cacheWriteTokens',
    'llm.token_count.prompt_details.cache_write',
    'llm.usage.cache_creation_input_tokens',
    'gen_ai.usage.input_tokens.cache_write',
    'gen_ai.usage.partial.cache_creation.input_tokens',
    'gen_ai.usage.prompt_tokens_details.cache_creation_tokens',
  ],
  cacheWrite1hTokens: [
    'anthropic.usage.cache_creation.ephemeral_1h_input_tokens',
    'gen_ai.usage.details.ephemeral_1h_input_tokens',
  ],
  inputAudioTokens: [
    'gen_ai.usage.audio.input_tokens',
    'gen_ai.usage.details.input_audio_tokens',
    'llm.token_count.prompt_details.audio',
    'gen_ai.usage.audio_input_tokens',
    'gen_ai.usage.input_tokens.audio',
    'gen_ai.usage.input_audio_tokens',
  ],
  cacheReadAudioTokens: ['gen_ai.usage.audio.cache_read.input_tokens', 'gen_ai.usage.details.cache_audio_read_tokens'],
  outputTokens: [
    'gen_ai.usage.output_tokens',
    'gen_ai.usage.completion_tokens',
    'ai.usage.outputTokens',
    'ai.usage.completionTokens',
    'llm.token_count.completion',
    'llm.usage.completion_tokens',
    'gen_ai.usage.partial.output_tokens',
  ],
  reasoningTokens: [
    'gen_ai.usage.reasoning.output_tokens',
    'gen_ai.usage.reasoning_tokens',
    'gen_ai.usage.reasoning_output_tokens',
    'gen_ai.usage.details.reasoning_tokens',
    'gen_ai.usage.details.thoughts_tokens',
    'ai.usage.outputTokenDetails.reasoningTokens',
    'ai.usage.reasoningTokens',
    'llm.token_count.completion_details.reasoning',
    'llm.usage.reasoning_tokens',
    'gen_ai.usage.output_tokens.reasoning',
    'gen_ai.usage.completion_tokens_details.reasoning_tokens',
  ],
  outputAudioTokens: [
    'gen_ai.usage.audio.output_tokens',
    'gen_ai.usage.details.output_audio_tokens',
    'llm.token_count.completion_details.audio',
    'gen_ai.usage.audio_output_tokens',
    'gen_ai.usage.output_audio_tokens',
    'gen_ai.usage.completion_tokens_details.audio_tokens',
  ],
  webSearches: ['gen_ai.usage.web_searches', 'gen_ai.usage.details.web_search_requests'],
  totalTokens: ['gen_ai.usage.total_tokens', 'ai.usage.totalTokens', 'llm.token_count.total', 'llm.usage.total_tokens'],
}

const ranks = new Map(
  Object.entries(names).flatMap(([kind, keys]) =>
    keys.map((key, rank) => [key, { kind: kind as UsageKind | 'totalTokens', rank }] as const),
  ),
)

/** One value per kind: two spellings of a number on one span are never added. */
export function rawUsageOf(attributes: Attributes): RawUsage {
  const raw: { [kind in UsageKind | 'totalTokens']?: unknown } = {}
  const best: { [kind in UsageKind | 'totalTokens']?: number } = {}
  for (const [key, value] of attributes) {
    const named = ranks.get(key)
    if (named === undefined || value === null || (best[named.kind] ?? Number.POSITIVE_INFINITY) < named.rank) continue
    raw[named.kind] = value
    best[named.kind] = named.rank
  }
  return raw
}

/** These write Gemini's candidates as output, and what was thought in the total alone. What Google's own tools put into the prompt
 *  would be in that rest as well, but those writers know no such tools. */
export function withThoughts(raw: RawUsage, { name }: Scope): RawUsage {
  const { inputTokens: input, outputTokens: output, totalTokens: total, reasoningTokens } = raw
  if (!hidesThoughts.test(name) || reasoningTokens !== undefined) return raw
  if (!isCount(input) || !isCount(output) || !isCount(total) || total <= input + output) return raw
  return { ...raw, outputTokens: total - input, reasoningTokens: total - input - output }
}

const hidesThoughts =
  /^(opentelemetry\.instrumentation\.(google_generativeai|vertexai)|@traceloop\/instrumentation-vertexai|openinference\.instrumentation\.(vertexai|llama_index))$/

function isCount(value: unknown): value is number {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0
}

export function usageOf(attributes: Attributes, counting: Counting): UsageRead {
  return readUsage(rawUsageOf(attributes), counting)
}

/** Raw provider JSON left on a span, wherever it hangs in it. */
export function recoveredUsage(json: Json | undefined, provider: string): UsageRead {
  if (!isObject(json)) return { kind: 'none' }
  for (const key of ['usage', 'usageMetadata', 'usage_metadata', 'metrics'])
    if (isObject(json[key])) return readProviderUsage(json[key], provider)
  return readProviderUsage(json, provider)
}

/** How a sender counts, and how far its counts go. */
type Sender = {
  readonly scope: RegExp
  /** Only versions below this one. */
  readonly below?: string
  readonly provider?: string
  /** `raw`: the provider's own numbers, under whatever names. */
  readonly counting: 'raw' | Counting
  /** What the counts are when no cached tokens are told. */
  readonly sourceWithoutCache?: UsageSource
}

const cachingProviders = new Set(['anthropic', 'aws.bedrock'])

const senders: readonly Sender[] = [
  {
    scope: /^@traceloop\/instrumentation-anthropic$/,
    below: '0.28.0',
    counting: 'raw',
    sourceWithoutCache: 'partial',
  },
  { scope: /^@traceloop\/instrumentation-langchain$/, counting: inclusive, sourceWithoutCache: 'partial' },
  { scope: /^@traceloop\/instrumentation-google-generativeai$/, counting: 'raw' },
  // Which tells what was cached adds it.
  { scope: /^@traceloop\/instrumentation-bedrock$/, counting: inclusive, sourceWithoutCache: 'partial' },
  // In Python these hand on what LangChain or LiteLLM has added up, or add up themselves.
  { scope: /^openlit\.instrumentation\.(langchain|langgraph|litellm|claude_agent_sdk)$/, counting: inclusive },
  { scope: /^(@openlit\/|openlit)/, counting: 'raw' },
  { scope: /^opentelemetry\.instrumentation\.(bedrock|llamaindex)$/, counting: 'raw', sourceWithoutCache: 'partial' },
  { scope: /^org\.springframework\.boot$/, counting: 'raw', sourceWithoutCache: 'partial' },
  { scope: /^openinference\.instrumentation\.agno$/, counting: 'raw' },
  { scope: /^openinference\.instrumentation\.haystack$/, counting: 'raw', sourceWithoutCache: 'partial' },
  {
    scope: /^@arizeai\/openinference-instrumentation-claude-agent-sdk$/,
    counting: 'raw',
    sourceWithoutCache: 'partial',
  },
  {
    scope: /^@arizeai\/openinference-instrumentation-anthropic$/,
    below: '0.2.0',
    counting: 'raw',
    sourceWithoutCache: 'partial',
  },
  { scope: /^@arizeai\/openinference-instrumentation-bedrock$/, counting: 'raw' },
  // All others of its numbers, and all in Python, include the cache, or the total beside them tells that they do not.
  { scope: /^strands-agents$/, provider: 'anthropic', counting: 'raw' },
  {
    scope: /^(@opentelemetry\/instrumentation-aws-sdk|opentelemetry\.instrumentation\.botocore)/,
    provider: 'aws.bedrock',
    counting: 'raw',
    sourceWithoutCache: 'partial',
  },
]

/** Senders by the name of their scope; a service has few. */
const sendersOfScopes = new Map<string, readonly Sender[]>()

function sendersOf(scope: string): readonly Sender[] {
  const known = sendersOfScopes.get(scope)
  if (known !== undefined) return known
  if (sendersOfScopes.size >= limits.scopesRemembered) sendersOfScopes.clear()
  const found = senders.filter((one) => one.scope.test(scope))
  sendersOfScopes.set(scope, found)
  return found
}

export type SenderCounting = { readonly counting: Counting; readonly source: UsageSource }

/** `raw` tells whether cached tokens were told: without them, some senders' input is a lower bound. */
export function senderCounting(scope: Scope, provider: string, raw: RawUsage): SenderCounting {
  const sender = sendersOf(scope.name).find(
    (one) =>
      (one.provider === undefined || one.provider === provider) &&
      (one.below === undefined || isBelow(scope.version, one.below)),
  )
  if (sender === undefined) return { counting: inclusive, source: 'provider' }
  const hidesCache =
    sender.sourceWithoutCache !== undefined &&
    cachingProviders.has(provider) &&
    raw.cacheReadTokens === undefined &&
    raw.cacheWriteTokens === undefined
  return {
    counting: sender.counting === 'raw' ? countingOf(provider) : sender.counting,
    source: hidesCache ? (sender.sourceWithoutCache ?? 'provider') : 'provider',
  }
}

/** A version that is not said is not old. */
function isBelow(version: string, bound: string): boolean {
  if (version === '') return false
  const [have, want] = [version, bound].map((text) => text.split('.').map((part) => Number.parseInt(part, 10) || 0))
  for (let at = 0; at < 3; at++) {
    const difference = (have?.[at] ?? 0) - (want?.[at] ?? 0)
    if (difference !== 0) return difference < 0
  }
  return false
}

/** The first of finish reasons that come as a list, as JSON of a list, as a text, or as texts with commas between. */
export function firstReason(value: AnyValue | undefined): string {
  if (Array.isArray(value)) return firstReason((value as readonly AnyValue[])[0])
  if (typeof value !== 'string') return ''
  const text = value.trim()
  if (!text.startsWith('[')) return text.split(',')[0]?.trim() ?? ''
  const parsed = /^\[\s*"([^"]*)"/.exec(text)
  return parsed?.[1] ?? ''
}
