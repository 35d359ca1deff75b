// Calls of `@aws-sdk/client-bedrock-runtime`, over the version of HTTP that it has by itself.
import { BedrockRuntimeClient, ConverseCommand, ConverseStreamCommand } from '@aws-sdk/client-bedrock-runtime'
import { all, run } from './calls.mjs'

const [http1Url, http2Url] = process.argv.slice(2)
const options = { region: 'us-east-1', credentials: { accessKeyId: 'a', secretAccessKey: 'b' } }
const isHttp2 = new BedrockRuntimeClient(options).config.requestHandler.constructor.name.includes('Http2')
const bedrock = new BedrockRuntimeClient({ ...options, endpoint: isHttp2 ? http2Url : http1Url })
const converse = { modelId: 'amazon.nova-lite-v1:0', messages: [{ role: 'user', content: [{ text: 'Hi' }] }] }

await run([
  [[9, 2], async () => (await bedrock.send(new ConverseCommand(converse))).output.message.content[0].text],
  [[9, 2], async () => (await all((await bedrock.send(new ConverseStreamCommand(converse))).stream)).length],
])
bedrock.destroy()
