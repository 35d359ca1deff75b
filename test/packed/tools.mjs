// Tools that the loops of SDKs run, in a turn: one tells of itself, the other does not.
import { createOpenAI } from '@ai-sdk/openai'
import { recordToolCall, turn } from '@tallylight/instrumentation'
import { generateText, isStepCount, jsonSchema } from 'ai'
import OpenAI from 'openai'

const [url] = process.argv.slice(2)
const schema = { type: 'object', properties: { city: { type: 'string' } }, required: ['city'] }
const weatherIn = ({ city }) => `rain in ${city}`

const openai = new OpenAI({ apiKey: 'k', baseURL: `${url}/v1` })
const runner = () => {
  const told = (query) => recordToolCall({ name: 'get_weather', arguments: query }, () => weatherIn(query))
  const tool = { name: 'get_weather', parse: JSON.parse, parameters: schema, function: told }
  const messages = [{ role: 'user', content: 'How is the weather?' }]
  const tools = [{ type: 'function', function: tool }]
  return openai.chat.completions.runTools({ model: 'gpt-4o', messages, tools }).finalContent()
}
const vercel = async () => {
  const model = createOpenAI({ apiKey: 'k', baseURL: `${url}/v1` }).chat('gpt-4o')
  const tools = { get_weather: { inputSchema: jsonSchema(schema), execute: weatherIn } }
  return (await generateText({ model, prompt: 'How is the weather?', tools, stopWhen: isStepCount(3) })).text
}
console.log(
  JSON.stringify([await turn({ conversation: 'runner' }, runner), await turn({ conversation: 'vercel' }, vercel)]),
)
