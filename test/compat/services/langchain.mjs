// Calls of `@langchain/openai`.
import { ChatOpenAI } from '@langchain/openai'
import { all, run } from './calls.mjs'

const [url] = process.argv.slice(2)
const model = new ChatOpenAI({ apiKey: 'k', model: 'gpt-4o', configuration: { baseURL: `${url}/v1` } })

await run([
  [[9, 2], async () => (await model.invoke('Hi')).content],
  [[1200, 300], async () => (await all(await model.stream('Hi'))).length],
])
