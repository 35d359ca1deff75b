// Calls of a copy of `undici` in node_modules.
import { request, fetch as undiciFetch } from 'undici'
import { run } from './calls.mjs'

const [url] = process.argv.slice(2)
const target = `${url}/v1/chat/completions`
const headers = { 'content-type': 'application/json' }
const body = (more = {}) => JSON.stringify({ model: 'gpt-4o', messages: [{ role: 'user', content: 'Hi' }], ...more })
const streamed = body({ stream: true, stream_options: { include_usage: true } })

await run([
  [[9, 2], async () => (await (await request(target, { method: 'POST', headers, body: body() })).body.json()).id],
  [[9, 2], async () => (await (await undiciFetch(target, { method: 'POST', headers, body: body() })).json()).id],
  [
    [1200, 300],
    async () => (await (await request(target, { method: 'POST', headers, body: streamed })).body.text()).length,
  ],
])
