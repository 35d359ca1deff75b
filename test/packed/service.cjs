// The same as CommonJS, with a turn of its own: the package that is required here is another copy than the one `--import` loads.
const { default: OpenAI } = require('openai')
const { default: Anthropic } = require('@anthropic-ai/sdk')
const { running, turn, version } = require('@tallylight/instrumentation')

const [url] = process.argv.slice(2)
const messages = [{ role: 'user', content: 'Hi' }]

turn({ conversation: 'c1', user: 'ada' }, async () => {
  const openai = new OpenAI({ apiKey: 'k', baseURL: `${url}/v1` })
  const anthropic = new Anthropic({ apiKey: 'k', baseURL: url })
  const chat = await openai.chat.completions.create({ model: 'gpt-4o', messages })
  const message = await anthropic.messages.create({ model: 'claude-sonnet-4-5', max_tokens: 5, messages })
  return [chat.choices[0].message.content, message.content[0].text]
}).then((given) => console.log(JSON.stringify({ given, version, failures: running().counters.read().failures })))
