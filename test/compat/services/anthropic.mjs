// Calls of `@anthropic-ai/sdk`.
import Anthropic from '@anthropic-ai/sdk'
import { all, run } from './calls.mjs'

const [url] = process.argv.slice(2)
const anthropic = new Anthropic({ apiKey: 'k', baseURL: url })
const message = { model: 'claude-sonnet-4-5', max_tokens: 5, messages: [{ role: 'user', content: 'Hi' }] }

await run([
  [[9, 2], async () => (await anthropic.messages.create(message)).content[0].text],
  [[2400, 50], async () => (await all(await anthropic.messages.create({ ...message, stream: true }))).length],
])
