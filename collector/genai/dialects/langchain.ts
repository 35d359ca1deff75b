// LangChain's own objects as its serialization writes them, wherever an instrumentation of it left them: what a model answered,
// with its usage, and what a tool gave back. No dialect: several of them hold such objects.
import { inclusive, type RawUsage, readUsage, type UsageRead } from '@tallylight/instrumentation/usage/usage.ts'
import { isObject, type Json, type JsonObject, jsonOf, scalarText, textOfJson } from '../attributes.ts'
import type { AnyValue } from '../record.ts'

export type Generation = { readonly usage: UsageRead; readonly model: string }

/** `{generations: [[{message: {lc: 1, kwargs: {usage_metadata, response_metadata}}}]]}`. */
export function generationOf(value: AnyValue | undefined): Generation | undefined {
  const run = typeof value === 'string' && value.includes('"generations"') ? jsonOf(value) : undefined
  const generation = isObject(run) ? firstOf(firstOf(run.generations)) : undefined
  const kwargs = isObject(generation) && isObject(generation.message) ? generation.message.kwargs : undefined
  if (!isObject(kwargs)) return undefined
  const { usage_metadata: usage, response_metadata: response } = kwargs
  return {
    usage: isObject(usage) ? readUsage(usageMetadataCounts(usage), inclusive) : { kind: 'none' },
    model: isObject(response) ? scalarText(response.model_name ?? response.model) : '',
  }
}

function firstOf(list: Json | undefined): Json | undefined {
  return Array.isArray(list) ? (list[0] as Json | undefined) : undefined
}

/** Its `usage_metadata`: details are parts of the totals. */
export function usageMetadataCounts(metadata: { readonly [key: string]: Json | undefined }): RawUsage {
  const input = isObject(metadata.input_token_details) ? metadata.input_token_details : {}
  const output = isObject(metadata.output_token_details) ? metadata.output_token_details : {}
  return {
    inputTokens: metadata.input_tokens,
    outputTokens: metadata.output_tokens,
    totalTokens: metadata.total_tokens,
    cacheReadTokens: input.cache_read,
    cacheWriteTokens: writesOf(input),
    cacheWrite1hTokens: input.ephemeral_1h_input_tokens,
    inputAudioTokens: input.audio,
    reasoningTokens: output.reasoning,
    outputAudioTokens: output.audio,
  }
}

/** Where Anthropic tells how long they are kept, `cache_creation` is 0, so that nobody counts them twice. */
function writesOf(input: JsonObject): Json | undefined {
  const { cache_creation: all, ephemeral_5m_input_tokens: short, ephemeral_1h_input_tokens: long } = input
  const split = [short, long].filter((count) => count !== undefined && count !== null)
  if (split.length === 0 || (all !== undefined && all !== null && all !== 0)) return all
  // One that is no count spoils the sum, as it should.
  return split.reduce((sum, count) => (typeof sum === 'number' && typeof count === 'number' ? sum + count : count), 0)
}

export type ToolMessage = { readonly name: string; readonly callId: string }

/** `{lc: 1, id: [..., 'ToolMessage'], kwargs}`, at times as the `output` of something. */
export function toolMessageOf(value: AnyValue | undefined): ToolMessage | undefined {
  const json = typeof value === 'string' && value.includes('"ToolMessage"') ? jsonOf(value) : undefined
  const message = isObject(json) && isObject(json.output) ? json.output : json
  const kwargs = isObject(message) && message.lc === 1 ? message.kwargs : undefined
  return isObject(kwargs) ? { name: textOfJson(kwargs.name), callId: textOfJson(kwargs.tool_call_id) } : undefined
}
