// Calls of `openai`, each with what it gave and the tokens that were served.
import OpenAI from 'openai'
import { all, run } from './calls.mjs'

const [url] = process.argv.slice(2)
const openai = new OpenAI({ apiKey: 'k', baseURL: `${url}/v1` })
const chat = { model: 'gpt-4o', messages: [{ role: 'user', content: 'Hi' }] }
const streamed = { ...chat, stream: true, stream_options: { include_usage: true } }

await run([
  [[9, 2], async () => (await openai.chat.completions.create(chat)).choices[0].message.content],
  [[1200, 300], async () => (await all(await openai.chat.completions.create(streamed))).length],
  [[9, undefined], async () => (await openai.embeddings.create({ model: 'text-embedding-3-small', input: 'Hi' })).data],
  openai.responses && [
    [9, 2],
    async () => (await openai.responses.create({ model: 'gpt-4o', input: 'Hi' })).output_text,
  ],
  openai.responses && [
    [1200, 300],
    async () => (await all(await openai.responses.create({ model: 'gpt-4o', input: 'Hi', stream: true }))).length,
  ],
])
