// Golden vectors: usage objects as the providers send them, and what they are worth. Shapes from the providers' references.
import { expect, test } from 'vitest'
import { readProviderUsage } from './provider-usage.ts'

const golden: readonly (readonly [string, string, unknown, unknown])[] = [
  [
    'OpenAI chat: cached inside input, reasoning inside output',
    'openai',
    {
      prompt_tokens: 1200,
      completion_tokens: 300,
      total_tokens: 1500,
      prompt_tokens_details: { cached_tokens: 1024, audio_tokens: 0 },
      completion_tokens_details: { reasoning_tokens: 192, audio_tokens: 0, accepted_prediction_tokens: 0 },
    },
    {
      inputTokens: 1200,
      cacheReadTokens: 1024,
      inputAudioTokens: 0,
      outputTokens: 300,
      reasoningTokens: 192,
      outputAudioTokens: 0,
    },
  ],
  [
    'OpenAI chat with audio',
    'openai',
    {
      prompt_tokens: 60,
      completion_tokens: 90,
      prompt_tokens_details: { cached_tokens: 0, audio_tokens: 40 },
      completion_tokens_details: { reasoning_tokens: 0, audio_tokens: 70 },
    },
    {
      inputTokens: 60,
      cacheReadTokens: 0,
      inputAudioTokens: 40,
      outputTokens: 90,
      reasoningTokens: 0,
      outputAudioTokens: 70,
    },
  ],
  [
    'OpenAI Responses',
    'openai',
    {
      input_tokens: 1200,
      input_tokens_details: { cached_tokens: 1024 },
      output_tokens: 300,
      output_tokens_details: { reasoning_tokens: 192 },
      total_tokens: 1500,
    },
    { inputTokens: 1200, cacheReadTokens: 1024, outputTokens: 300, reasoningTokens: 192 },
  ],
  [
    'OpenAI chat: written to a cache inside input',
    'openai',
    {
      prompt_tokens: 1200,
      completion_tokens: 30,
      total_tokens: 1230,
      prompt_tokens_details: { cached_tokens: 100, cache_write_tokens: 1024 },
    },
    { inputTokens: 1200, cacheReadTokens: 100, cacheWriteTokens: 1024, outputTokens: 30 },
  ],
  [
    'OpenAI Responses: written to a cache inside input',
    'openai',
    {
      input_tokens: 1200,
      input_tokens_details: {
        cached_tokens: 100,
        cache_write_tokens: 1024,
        cache_write_tokens_details: { ttl_12h_tokens: 0, ttl_30m_tokens: 1024 },
      },
      output_tokens: 30,
      output_tokens_details: { reasoning_tokens: 0 },
      total_tokens: 1230,
    },
    { inputTokens: 1200, cacheReadTokens: 100, cacheWriteTokens: 1024, outputTokens: 30, reasoningTokens: 0 },
  ],
  [
    'OpenAI realtime: split by modality, cached audio apart',
    'openai',
    {
      total_tokens: 253,
      input_tokens: 132,
      output_tokens: 121,
      input_token_details: {
        text_tokens: 119,
        audio_tokens: 13,
        cached_tokens: 64,
        cached_tokens_details: { text_tokens: 64, audio_tokens: 8 },
      },
      output_token_details: { text_tokens: 30, audio_tokens: 91 },
    },
    {
      inputTokens: 132,
      cacheReadTokens: 64,
      inputAudioTokens: 13,
      cacheReadAudioTokens: 8,
      outputTokens: 121,
      outputAudioTokens: 91,
    },
  ],
  ['OpenAI embeddings', 'openai', { prompt_tokens: 16, total_tokens: 16 }, { inputTokens: 16 }],
  [
    'Anthropic: cached beside input, an hour of cache apart, searches by the piece',
    'anthropic',
    {
      input_tokens: 100,
      cache_read_input_tokens: 2000,
      cache_creation_input_tokens: 300,
      cache_creation: { ephemeral_5m_input_tokens: 200, ephemeral_1h_input_tokens: 100 },
      output_tokens: 50,
      server_tool_use: { web_search_requests: 2 },
      service_tier: 'standard',
    },
    {
      inputTokens: 2400,
      cacheReadTokens: 2000,
      cacheWriteTokens: 300,
      cacheWrite1hTokens: 100,
      outputTokens: 50,
      webSearches: 2,
    },
  ],
  [
    'Anthropic: thinking inside output',
    'anthropic',
    { input_tokens: 10, output_tokens: 50, output_tokens_details: { thinking_tokens: 40 } },
    { inputTokens: 10, outputTokens: 50, reasoningTokens: 40 },
  ],
  [
    'Anthropic without a cache, the provider not told',
    '',
    { input_tokens: 42, cache_creation_input_tokens: null, cache_read_input_tokens: null, output_tokens: 9 },
    { inputTokens: 42, outputTokens: 9 },
  ],
  [
    'Bedrock Converse: cached beside input',
    'aws.bedrock',
    { inputTokens: 100, outputTokens: 50, totalTokens: 2450, cacheReadInputTokens: 2000, cacheWriteInputTokens: 300 },
    { inputTokens: 2400, cacheReadTokens: 2000, cacheWriteTokens: 300, outputTokens: 50 },
  ],
  [
    'Bedrock Converse: an hour of cache apart',
    'aws.bedrock',
    {
      inputTokens: 100,
      outputTokens: 50,
      totalTokens: 450,
      cacheWriteInputTokens: 300,
      cacheDetails: [
        { ttl: '1h', inputTokens: 120 },
        { ttl: '5m', inputTokens: 180 },
      ],
    },
    { inputTokens: 400, cacheWriteTokens: 300, cacheWrite1hTokens: 120, outputTokens: 50 },
  ],
  [
    'Gemini: thoughts beside candidates, cached inside the prompt',
    'gcp.gemini',
    {
      promptTokenCount: 1200,
      cachedContentTokenCount: 1024,
      candidatesTokenCount: 108,
      thoughtsTokenCount: 192,
      totalTokenCount: 1500,
    },
    { inputTokens: 1200, cacheReadTokens: 1024, outputTokens: 300, reasoningTokens: 192 },
  ],
  [
    'Gemini that only thought, with what its tools put into the prompt',
    'gcp.gemini',
    { promptTokenCount: 100, toolUsePromptTokenCount: 20, thoughtsTokenCount: 30, totalTokenCount: 150 },
    { inputTokens: 120, outputTokens: 30, reasoningTokens: 30 },
  ],
  [
    'Gemini in OpenAI’s dialect: thoughts in the total alone',
    'gcp.gemini',
    { prompt_tokens: 20, completion_tokens: 198, total_tokens: 623 },
    { inputTokens: 20, outputTokens: 603, reasoningTokens: 405 },
  ],
  [
    'Gemini in OpenAI’s dialect that did not think',
    'gcp.vertex_ai',
    { prompt_tokens: 20, completion_tokens: 198, total_tokens: 218 },
    { inputTokens: 20, outputTokens: 198 },
  ],
  [
    'xAI: reasoning beside the completion',
    'x_ai',
    {
      prompt_tokens: 100,
      completion_tokens: 20,
      total_tokens: 170,
      prompt_tokens_details: { cached_tokens: 60 },
      completion_tokens_details: { reasoning_tokens: 50 },
    },
    { inputTokens: 100, cacheReadTokens: 60, outputTokens: 70, reasoningTokens: 50 },
  ],
  [
    'xAI with more cached than prompt: then it stands beside it',
    'x_ai',
    { prompt_tokens: 10, completion_tokens: 5, prompt_tokens_details: { cached_tokens: 90 } },
    { inputTokens: 100, cacheReadTokens: 90, outputTokens: 5 },
  ],
  [
    'DeepSeek: hits inside the prompt',
    'deepseek',
    {
      prompt_tokens: 100,
      prompt_cache_hit_tokens: 64,
      prompt_cache_miss_tokens: 36,
      completion_tokens: 40,
      total_tokens: 140,
      completion_tokens_details: { reasoning_tokens: 25 },
    },
    { inputTokens: 100, cacheReadTokens: 64, outputTokens: 40, reasoningTokens: 25 },
  ],
  [
    'Alibaba: reads and writes inside the prompt',
    'alibaba',
    {
      prompt_tokens: 100,
      completion_tokens: 10,
      prompt_tokens_details: { cached_tokens: 30, cache_creation_input_tokens: 20 },
    },
    { inputTokens: 100, cacheReadTokens: 30, cacheWriteTokens: 20, outputTokens: 10 },
  ],
  [
    'Groq, Mistral, Perplexity: no details',
    'groq',
    { prompt_tokens: 18, completion_tokens: 556, total_tokens: 574, queue_time: 0.03 },
    { inputTokens: 18, outputTokens: 556 },
  ],
  [
    'Cohere: what is billed',
    'cohere',
    { billed_units: { input_tokens: 5, output_tokens: 418 }, tokens: { input_tokens: 71, output_tokens: 418 } },
    { inputTokens: 5, outputTokens: 418 },
  ],
]

test.each(golden)('usage: %s', (_case, provider, sent, usage) => {
  expect(readProviderUsage(sent, provider)).toEqual({ kind: 'usage', usage })
})

test.each([
  ['nothing', {}],
  ['a text', 'prompt_tokens: 3'],
  ['a list', [1]],
  ['null', null],
  ['only nulls', { prompt_tokens: null, completion_tokens: null }],
])('usage: %s tells none', (_case, sent) => {
  expect(readProviderUsage(sent, 'openai')).toEqual({ kind: 'none' })
})

test.each([-1, 2 ** 53, Number.NaN, 1.5, '42', true, {}, Number.POSITIVE_INFINITY])(
  'usage: %s is no count, and nothing beside it is believed',
  (count) => {
    expect(readProviderUsage({ prompt_tokens: count, completion_tokens: 9 }, 'openai')).toEqual({ kind: 'absurd' })
  },
)
