// Calls of `@google/genai`.
import { GoogleGenAI } from '@google/genai'
import { all, run } from './calls.mjs'

const [url] = process.argv.slice(2)
const gemini = new GoogleGenAI({ apiKey: 'k', httpOptions: { baseUrl: url } })
const generate = { model: 'gemini-2.5-flash', contents: 'Hi' }

await run([
  [[9, 2], async () => (await gemini.models.generateContent(generate)).text],
  [[1200, 300], async () => (await all(await gemini.models.generateContentStream(generate))).length],
])
