// The tools of the chat: the time here, and the forecast from the MCP server.
import { fileURLToPath } from 'node:url'
import { Client } from '@modelcontextprotocol/sdk/client/index.js'
import { StdioClientTransport } from '@modelcontextprotocol/sdk/client/stdio.js'
import { recordToolCall } from '@tallylight/instrumentation/index.ts'
import type { ChatCompletionFunctionTool } from 'openai/resources'

export type Tools = AsyncDisposable & {
  readonly definitions: ChatCompletionFunctionTool[]
  call(id: string, name: string, args: unknown): Promise<string>
  ping(): Promise<unknown>
}

const parameters = { type: 'object', properties: { city: { type: 'string' } }, required: ['city'] }

export async function openTools(): Promise<Tools> {
  const weather = new Client({ name: 'chat-service', version: '1.0.0' })
  const program = fileURLToPath(new URL('weather-server.ts', import.meta.url))
  await weather.connect(
    new StdioClientTransport({
      command: process.execPath,
      args: [...process.execArgv, program],
      env: Object.fromEntries(Object.entries(process.env).filter(([, value]) => value !== undefined)) as Record<
        string,
        string
      >,
      stderr: 'ignore',
    }),
  )

  async function run(name: string, args: unknown): Promise<string> {
    const { city = '' } = (args ?? {}) as { readonly city?: string }
    if (name === 'get_time') return new Date().toISOString()
    if (name !== 'get_forecast') return `there is no tool ${name}`
    const result = await weather.callTool({ name: 'forecast', arguments: { city } })
    const [first] = result.content as readonly { readonly text?: string }[]
    return first?.text ?? ''
  }

  return {
    definitions: [
      { type: 'function', function: { name: 'get_time', description: 'The time in a city', parameters } },
      { type: 'function', function: { name: 'get_forecast', description: 'The weather in a city', parameters } },
    ],
    call: (id, name, args) => recordToolCall({ id, name, arguments: args }, () => run(name, args)),
    ping: () => weather.ping(),
    [Symbol.asyncDispose]: () => weather.close(),
  }
}
