import { expect, test } from 'vitest'
import { endpointOf } from './providers/endpoint.ts'
import { readSettings } from './settings.ts'

test.each([
  ['OPENAI_BASE_URL', 'https://api.deepseek.com', '/chat/completions', 'deepseek', true],
  ['OPENAI_BASE_URL', 'https://us.api.openai.com/v1/', '/chat/completions', 'openai', true],
  ['OPENAI_BASE_URL', 'http://gateway:4000/v1/', '/chat/completions', 'openai', false],
  ['AZURE_OPENAI_ENDPOINT', 'https://mine.openai.azure.com/', '/openai/v1/chat/completions', 'azure.ai.openai', true],
  ['ANTHROPIC_BASE_URL', 'https://api.deepseek.com/anthropic', '/v1/messages', 'deepseek', true],
  ['OLLAMA_HOST', 'models', ':11434/v1/chat/completions', 'ollama', false],
  ['OLLAMA_HOST', 'models:80', '/v1/chat/completions', 'ollama', false],
  ['OLLAMA_HOST', 'models:80/', '/v1/chat/completions', 'ollama', false],
  ['OLLAMA_HOST', 'https://models', '/v1/chat/completions', 'ollama', false],
  ['GROQ_BASE_URL', 'http://proxy/groq', '/openai/v1/chat/completions', 'groq', false],
])(
  'settings: %s=%s: who answers there is who is known by the host, else who the variable is for',
  (name, value, path, provider, takesUsageOption) => {
    const { settings, warnings } = readSettings({ [name]: value })
    const address = /^https?:/.test(value) ? value : `http://${value}`
    const url = new URL(address.replace(/\/$/, '') + path)
    expect(endpointOf('POST', url, settings.baseUrls)).toMatchObject({ provider, takesUsageOption })
    expect(warnings).toEqual([])
  },
)

test.each([
  [{ OPENAI_BASE_URL: 'http://localhost:4320/openai/v1' }],
  [{ OPENAI_BASE_URL: 'http://127.0.0.1:4320/openai/v1', ANTHROPIC_BASE_URL: 'http://[::1]:4320/anthropic' }],
  [{ OPENAI_BASE_URL: 'http://tally:4320/openai/v1', TALLYLIGHT_URL: 'http://tally:4319' }],
  [{ OPENAI_BASE_URL: 'http://tally:4320/openai/v1', OTEL_EXPORTER_OTLP_ENDPOINT: 'http://tally:4318' }],
  [{ OPENAI_BASE_URL: `https://llm.example/k/tl_aaaaaaaa_${'0'.repeat(64)}/openai/v1` }],
])('settings: with %o calls go to the proxy, which has them on record, and are none here', (environment) => {
  const { settings, warnings } = readSettings(environment)
  expect(settings.baseUrls).toEqual([])
  expect(warnings).toEqual([expect.stringContaining('the proxy of Tallylight')])
  expect(warnings[0]).not.toContain('tl_')
})

test.each([
  { OPENAI_BASE_URL: 'http://models:4320/v1' },
  { OPENAI_BASE_URL: 'http://localhost:8000/v1' },
  { OPENAI_BASE_URL: 'http://tally:8000/v1', TALLYLIGHT_URL: 'http://tally:4319' },
])('settings: %o is no proxy of ours', (environment) => {
  const { settings, warnings } = readSettings(environment)
  expect(settings.baseUrls).toHaveLength(1)
  expect(warnings).toEqual([])
})
