import { describe, expect, test } from 'vitest'
import type { Endpoint } from './call.ts'
import { endpointOf, mayCost, realtimeEndpointOf } from './endpoint.ts'

const bases = [{ url: 'http://vllm:8000/v1', provider: 'vllm', takesUsageOption: true }]
const found = (url: string, method = 'POST'): Endpoint | undefined => endpointOf(method, new URL(url), bases)

const known: readonly (readonly [string, Partial<Endpoint>])[] = [
  ['https://api.openai.com/v1/chat/completions', { api: 'openai.chat', provider: 'openai', takesUsageOption: true }],
  ['https://jp.api.openai.com/v1/responses', { api: 'openai.responses', provider: 'openai' }],
  ['https://mtls.api.openai.com/v1/responses', { provider: 'openai' }],
  ['https://api.openai.com/v1/completions', { api: 'openai.completions' }],
  ['https://api.openai.com/v1/responses?x=1', { api: 'openai.responses' }],
  ['https://api.openai.com/v1/embeddings', { api: 'openai.embeddings' }],
  [
    'https://us.openai.azure.com/openai/deployments/my%20gpt/chat/completions?api-version=2024-10-21',
    { api: 'openai.chat', provider: 'azure.ai.openai', model: 'my gpt' },
  ],
  ['https://x.services.ai.azure.com/openai/v1/responses', { api: 'openai.responses', provider: 'azure.ai.openai' }],
  ['https://openrouter.ai/api/v1/chat/completions', { provider: 'openrouter', takesUsageOption: false }],
  ['https://api.mistral.ai/v1/chat/completions', { provider: 'mistral_ai', takesUsageOption: false }],
  ['https://api.groq.com/openai/v1/chat/completions', { provider: 'groq' }],
  ['https://api.deepseek.com/chat/completions', { provider: 'deepseek' }],
  ['http://localhost:11434/v1/chat/completions', { provider: 'ollama' }],
  ['http://vllm:8000/v1/chat/completions', { provider: 'vllm', api: 'openai.chat', takesUsageOption: true }],
  ['https://api.anthropic.com/v1/messages?beta=true', { api: 'anthropic.messages', provider: 'anthropic' }],
  [
    'https://us-east5-aiplatform.googleapis.com/v1/projects/p/locations/l/publishers/anthropic/models/claude@1:streamRawPredict',
    { api: 'anthropic.messages', provider: 'gcp.vertex_ai', model: 'claude@1', isStream: true },
  ],
  [
    'https://aiplatform.eu.rep.googleapis.com/v1/projects/p/locations/eu/publishers/google/models/gemini-3-pro:generateContent',
    { api: 'gemini.generate', provider: 'gcp.vertex_ai', model: 'gemini-3-pro' },
  ],
  [
    'https://generativelanguage.googleapis.com/v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse',
    { api: 'gemini.generate', provider: 'gcp.gemini', model: 'gemini-2.5-flash', isStream: true },
  ],
  [
    'https://us-central1-aiplatform.googleapis.com/v1beta1/projects/p/locations/us-central1/endpoints/4321:streamGenerateContent?alt=sse',
    { api: 'gemini.generate', provider: 'gcp.vertex_ai', model: '4321', isStream: true },
  ],
  [
    'https://generativelanguage.googleapis.com/v1beta/tunedModels/mine-1:generateContent',
    { api: 'gemini.generate', provider: 'gcp.gemini', model: 'mine-1' },
  ],
  [
    'https://generativelanguage.googleapis.com/v1beta/openai/chat/completions',
    { api: 'openai.chat', provider: 'gcp.gemini' },
  ],
  ['https://generativelanguage.googleapis.com/v1beta/models/e:batchEmbedContents', { api: 'gemini.embed' }],
  [
    'https://bedrock-runtime.eu-west-1.amazonaws.com/model/arn%3Aaws%3Abedrock%2Fp/converse-stream',
    { api: 'bedrock.converse', provider: 'aws.bedrock', model: 'arn:aws:bedrock/p', isStream: true },
  ],
  [
    'https://vpce-0a-b1.bedrock-runtime.us-east-1.vpce.amazonaws.com/model/m/converse',
    { api: 'bedrock.converse', provider: 'aws.bedrock' },
  ],
  // Spelled otherwise, and the same to many servers.
  ['http://vllm:8000/v1/chat/%63ompletions', { api: 'openai.chat' }],
  ['http://vllm:8000/v1/chat%2Fcompletions', { api: 'openai.chat' }],
  ['http://vllm:8000/v1/chat/completions/', { api: 'openai.chat' }],
  [
    'https://generativelanguage.googleapis.com/v1beta/models/gemini-2.5-flash%3AgenerateContent',
    { api: 'gemini.generate', model: 'gemini-2.5-flash' },
  ],
  ['https://bedrock-mantle.us-east-1.api.aws/v1/responses', { api: 'openai.responses', provider: 'aws.bedrock' }],
]

describe('endpoint', () => {
  test.each(known)('%s', (url, expected) => {
    expect(found(url)).toMatchObject(expected)
  })

  test('of several providers behind one gateway it is the one whose API is spoken, then the one whose address is the longest', () => {
    const gateway = [
      { url: 'http://gateway:4000/v1', provider: 'openai' },
      { url: 'http://gateway:4000', provider: 'anthropic' },
      { url: 'http://gateway:4000', provider: 'gcp.gemini' },
      { url: 'http://gateway:4000', provider: 'aws.bedrock' },
      { url: 'http://gateway:4000/v1/groq', provider: 'groq' },
    ]
    const providers: Readonly<Record<string, string>> = {
      '/v1/chat/completions': 'openai',
      '/v1/groq/chat/completions': 'groq',
      '/v1/messages': 'anthropic',
      '/v1beta/models/gemini-2.5-flash:generateContent': 'gcp.gemini',
      '/model/amazon.nova-lite-v1:0/converse': 'aws.bedrock',
    }
    for (const bases of [gateway, gateway.toReversed()])
      for (const [path, provider] of Object.entries(providers)) {
        const endpoint = endpointOf('POST', new URL(`http://gateway:4000${path}`), bases)
        expect(endpoint?.provider, path).toBe(provider)
      }
    expect(realtimeEndpointOf(new URL('ws://gateway:4000/v1/realtime'), gateway.toReversed())?.provider).toBe('openai')
  })

  test('what is no model call is left alone', () => {
    const others = [
      'https://api.openai.com/v1/models',
      'https://api.openai.com/v1/threads/t/messages',
      'https://api.openai.com/v1/audio/transcriptions',
      'https://api.anthropic.com/v1/messages/count_tokens',
      'https://api.anthropic.com/v1/messages/batches',
      'https://generativelanguage.googleapis.com/v1beta/models/g:countTokens',
      'https://us-aiplatform.googleapis.com/v1/publishers/mistralai/models/m:rawPredict',
      'https://us-aiplatform.googleapis.com/v1/publishers/anthropic/models/count-tokens:rawPredict',
      'https://us-aiplatform.googleapis.com/v1/projects/p/locations/us/endpoints/4321:rawPredict',
      'https://bedrock-runtime.eu-west-1.amazonaws.com/model/m/count-tokens',
      'https://api.openai.com.evil.example/v1/chat/completions',
      'http://vllm:8000/v10/chat/completions',
      'http://localhost:3000/v1/chat/completions',
    ]
    for (const url of others) expect(found(url), url).toBe(undefined)
    expect(found('https://api.openai.com/v1/responses', 'GET')).toBe(undefined)
  })

  test('what a provider does for nothing is not missed; what may cost is', () => {
    const isMissed = (url: string): boolean => mayCost(new URL(url), bases)
    const free = [
      'https://api.anthropic.com/v1/messages/count_tokens?beta=true',
      'https://us-aiplatform.googleapis.com/v1/publishers/anthropic/models/count-tokens:rawPredict',
      'https://generativelanguage.googleapis.com/v1beta/models/g:countTokens',
      'https://bedrock-runtime.eu-west-1.amazonaws.com/model/m/count-tokens',
      'https://api.openai.com/v1/responses/input_tokens',
      'https://api.openai.com/v1/responses/resp_1/cancel',
      'https://api.openai.com/v1/conversations/conv_1/items',
      'https://api.openai.com/v1/moderations',
      'https://api.openai.com/v1/files',
      'https://example.com/v1/images/generations',
      'http://vllm:8000/v10/score',
    ]
    for (const url of free) expect(isMissed(url), url).toBe(false)
    const missed = [
      'https://api.openai.com/v1/images/generations',
      'https://api.openai.com/v1/batches',
      'https://api.cohere.com/v2/chat',
      'https://bedrock-runtime.eu-west-1.amazonaws.com/model/m/invoke',
      'http://vllm:8000/v1/score',
    ]
    for (const url of missed) expect(isMissed(url), url).toBe(true)
  })
})
