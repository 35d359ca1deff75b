// The usage objects of the providers' own replies, wherever one was left on a record as JSON: which provider wrote it is
// read from the names it uses, since the record may not know.
import { type Counting, countingOf, inclusive, type RawUsage, readUsage, type UsageRead } from './usage.ts'

type Json = Readonly<Record<string, unknown>>

export function isJsonObject(value: unknown): value is Json {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function part(value: unknown, key: string): Json {
  const inner = isJsonObject(value) ? value[key] : undefined
  return isJsonObject(inner) ? inner : {}
}

/** `usage` is the usage object itself; `provider` is what the record says, '' where it says nothing. */
export function readProviderUsage(usage: unknown, provider: string): UsageRead {
  if (!isJsonObject(usage)) return { kind: 'none' }
  if ('prompt_token_count' in usage || 'candidates_token_count' in usage)
    return readUsage(gemini(inCamelCase(usage)), countingOf('gcp.gemini'))
  if ('promptTokenCount' in usage || 'candidatesTokenCount' in usage)
    return readUsage(gemini(usage), countingOf('gcp.gemini'))
  if ('inputTokens' in usage || 'outputTokens' in usage) return readUsage(bedrock(usage), countingOf('aws.bedrock'))
  if ('prompt_tokens' in usage || 'completion_tokens' in usage)
    return readUsage(openAiChat(usage, provider), chatCounting(provider))
  if ('billed_units' in usage || 'tokens' in usage) return readUsage(cohere(usage), inclusive)
  if ('input_tokens' in usage || 'output_tokens' in usage) {
    const isAnthropic = 'cache_read_input_tokens' in usage || 'cache_creation_input_tokens' in usage
    return isAnthropic || provider === 'anthropic'
      ? readUsage(anthropic(usage), countingOf('anthropic'))
      : readUsage(openAiResponses(usage), chatCounting(provider))
  }
  return { kind: 'none' }
}

/** Among those who speak OpenAI's dialect, xAI alone counts reasoning beside the completion. */
function chatCounting(provider: string): Counting {
  return provider === 'x_ai' ? countingOf('x_ai') : inclusive
}

function openAiChat(usage: Json, provider: string): RawUsage {
  const input = part(usage, 'prompt_tokens_details')
  const output = part(usage, 'completion_tokens_details')
  return {
    inputTokens: usage.prompt_tokens,
    // DeepSeek's name, then Moonshot's.
    cacheReadTokens: input.cached_tokens ?? usage.prompt_cache_hit_tokens ?? usage.cached_tokens,
    // Then Alibaba's name, and LiteLLM's for all who cache.
    cacheWriteTokens: input.cache_write_tokens ?? input.cache_creation_input_tokens ?? input.cache_creation_tokens,
    cacheWrite1hTokens: part(input, 'cache_creation_token_details').ephemeral_1h_input_tokens,
    inputAudioTokens: input.audio_tokens,
    outputTokens: usage.completion_tokens,
    reasoningTokens: output.reasoning_tokens ?? (provider.startsWith('gcp.') ? thoughtsOf(usage) : undefined),
    outputAudioTokens: output.audio_tokens,
    totalTokens: usage.total_tokens,
  }
}

/** Google speaks this dialect, too, and counts what its models thought in the total alone. */
function thoughtsOf({ prompt_tokens, completion_tokens, total_tokens }: Json): number | undefined {
  const rest = Number(total_tokens) - Number(prompt_tokens) - Number(completion_tokens)
  return rest > 0 ? rest : undefined
}

/** Responses, and realtime, which splits by modality. */
function openAiResponses(usage: Json): RawUsage {
  const input = part(usage, 'input_tokens_details')
  const inputSplit = part(usage, 'input_token_details')
  const output = part(usage, 'output_tokens_details')
  const outputSplit = part(usage, 'output_token_details')
  return {
    inputTokens: usage.input_tokens,
    cacheReadTokens: input.cached_tokens ?? inputSplit.cached_tokens,
    cacheWriteTokens: input.cache_write_tokens,
    inputAudioTokens: inputSplit.audio_tokens,
    cacheReadAudioTokens: part(inputSplit, 'cached_tokens_details').audio_tokens,
    outputTokens: usage.output_tokens,
    reasoningTokens: output.reasoning_tokens,
    outputAudioTokens: outputSplit.audio_tokens,
    totalTokens: usage.total_tokens,
  }
}

function anthropic(usage: Json): RawUsage {
  return {
    inputTokens: usage.input_tokens,
    cacheReadTokens: usage.cache_read_input_tokens,
    cacheWriteTokens: usage.cache_creation_input_tokens,
    cacheWrite1hTokens: part(usage, 'cache_creation').ephemeral_1h_input_tokens,
    outputTokens: usage.output_tokens,
    reasoningTokens: part(usage, 'output_tokens_details').thinking_tokens,
    webSearches: part(usage, 'server_tool_use').web_search_requests,
  }
}

function bedrock(usage: Json): RawUsage {
  const writes: readonly unknown[] = Array.isArray(usage.cacheDetails) ? usage.cacheDetails : []
  return {
    inputTokens: usage.inputTokens,
    cacheReadTokens: usage.cacheReadInputTokens,
    cacheWriteTokens: usage.cacheWriteInputTokens,
    // One entry for each time that it is kept.
    cacheWrite1hTokens: writes.filter(isJsonObject).find(({ ttl }) => ttl === '1h')?.inputTokens,
    outputTokens: usage.outputTokens,
    totalTokens: usage.totalTokens,
  }
}

function gemini(usage: Json): RawUsage {
  const prompt = usage.promptTokenCount
  const tools = usage.toolUsePromptTokenCount
  return {
    // What its own tools put into the prompt is billed as input, and stands beside it.
    inputTokens: typeof prompt === 'number' && typeof tools === 'number' ? prompt + tools : prompt,
    cacheReadTokens: usage.cachedContentTokenCount,
    outputTokens: usage.candidatesTokenCount ?? (usage.thoughtsTokenCount === undefined ? undefined : 0),
    reasoningTokens: usage.thoughtsTokenCount,
  }
}

/** Google's SDK for Python writes the names of its objects as Python does. */
function inCamelCase(usage: Json): Json {
  const renamed = (key: string) => key.replaceAll(/_([a-z])/g, (_all, letter: string) => letter.toUpperCase())
  return Object.fromEntries(Object.entries(usage).map(([key, value]) => [renamed(key), value]))
}

/** What Cohere bills, which OpenTelemetry wants reported. */
function cohere(usage: Json): RawUsage {
  const billed = 'billed_units' in usage ? part(usage, 'billed_units') : part(usage, 'tokens')
  return { inputTokens: billed.input_tokens, outputTokens: billed.output_tokens }
}
