// Calls of `ai` through `@ai-sdk/openai`.
import { createOpenAI } from '@ai-sdk/openai'
import { generateText, jsonSchema, streamText } from 'ai'
import { all, run } from './calls.mjs'

const [url] = process.argv.slice(2)
const model = createOpenAI({ apiKey: 'k', baseURL: `${url}/v1`, compatibility: 'strict' }).chat('gpt-4o')
// The stand-in's recording asks for it. Its schema has another name since version 5.
const schema = jsonSchema({ type: 'object', properties: { city: { type: 'string' } } })
const tools = { get_weather: { parameters: schema, inputSchema: schema } }

await run([
  [[9, 2], async () => (await generateText({ model, prompt: 'Hi' })).text],
  [[1200, 300], async () => (await all((await streamText({ model, prompt: 'Hi', tools })).textStream)).join('')],
])
