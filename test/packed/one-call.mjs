// The smallest service: one call of a model, as a bundler takes it in.
import OpenAI from 'openai'

const [url] = process.argv.slice(2)
const openai = new OpenAI({ apiKey: 'k', baseURL: `${url}/v1` })
const messages = [{ role: 'user', content: 'Hi' }]
openai.chat.completions
  .create({ model: 'gpt-4o', messages })
  .then((reply) => console.log(JSON.stringify(reply.choices[0].message.content)))
