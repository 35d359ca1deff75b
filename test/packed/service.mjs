// A service as its users write it: the SDKs, unchanged, and no word about telemetry. It prints what each call gave.

import { createOpenAI } from '@ai-sdk/openai'
import Anthropic from '@anthropic-ai/sdk'
import { BedrockRuntimeClient, ConverseCommand, ConverseStreamCommand } from '@aws-sdk/client-bedrock-runtime'
import { GoogleGenAI } from '@google/genai'
import { ChatOpenAI } from '@langchain/openai'
import { generateText, streamText } from 'ai'
import OpenAI from 'openai'

const [url, bedrockUrl] = process.argv.slice(2)
const openai = new OpenAI({ apiKey: 'k', baseURL: `${url}/v1` })
const anthropic = new Anthropic({ apiKey: 'k', baseURL: url })
const gemini = new GoogleGenAI({ apiKey: 'k', httpOptions: { baseUrl: url } })
const vercel = createOpenAI({ apiKey: 'k', baseURL: `${url}/v1` }).chat('gpt-4o')
const langchain = new ChatOpenAI({ apiKey: 'k', model: 'gpt-4o', configuration: { baseURL: `${url}/v1` } })
const bedrock = new BedrockRuntimeClient({
  region: 'us-east-1',
  endpoint: bedrockUrl,
  credentials: { accessKeyId: 'a', secretAccessKey: 'b' },
})
const messages = [{ role: 'user', content: 'Hi' }]
const chat = { model: 'gpt-4o', messages }
const message = { model: 'claude-sonnet-4-5', max_tokens: 5, messages }
const converse = { modelId: 'amazon.nova-lite-v1:0', messages: [{ role: 'user', content: [{ text: 'Hi' }] }] }
const generate = { model: 'gemini-2.5-flash', contents: 'Hi' }

async function all(stream) {
  const items = []
  for await (const item of stream) items.push(item)
  return items
}

const calls = {
  'openai chat': async () => (await openai.chat.completions.create(chat)).choices[0].message.content,
  'openai chat, streamed': async () => {
    const chunks = await all(await openai.chat.completions.create({ ...chat, stream: true }))
    return [chunks.length, chunks.some((chunk) => chunk.usage)]
  },
  'openai chat, left': async () => {
    for await (const chunk of await openai.chat.completions.create({ ...chat, stream: true })) return chunk.object
  },
  'openai responses': async () => (await openai.responses.create({ model: 'gpt-4o', input: 'Hi' })).output_text,
  'openai responses, streamed': async () =>
    (await all(await openai.responses.create({ model: 'gpt-4o', input: 'Hi', stream: true }))).length,
  'openai embeddings': async () =>
    (await openai.embeddings.create({ model: 'text-embedding-3-small', input: 'Hi' })).data[0].embedding,
  anthropic: async () => (await anthropic.messages.create(message)).content[0].text,
  'anthropic, streamed': async () => (await anthropic.messages.stream(message).finalMessage()).usage.output_tokens,
  gemini: async () => (await gemini.models.generateContent(generate)).text,
  'gemini, streamed': async () => (await all(await gemini.models.generateContentStream(generate))).length,
  ai: async () => (await generateText({ model: vercel, prompt: 'Hi' })).text,
  'ai, streamed': async () => (await all(streamText({ model: vercel, prompt: 'Hi' }).textStream)).join(''),
  langchain: async () => (await langchain.invoke('Hi')).content,
  'langchain, streamed': async () => (await all(await langchain.stream('Hi'))).map(({ content }) => content).join(''),
  bedrock: async () => (await bedrock.send(new ConverseCommand(converse))).output.message.content[0].text,
  'bedrock, streamed': async () => (await all((await bedrock.send(new ConverseStreamCommand(converse))).stream)).length,
}

const given = {}
for (const [name, call] of Object.entries(calls)) given[name] = await call()
console.log(JSON.stringify(given))
bedrock.destroy()
