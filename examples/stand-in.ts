// A stand-in for OpenAI: chat completions over real HTTP, whole and streamed, so that the example runs without an account. It asks
// for the tool that it is offered, then answers. What it served is counted, to be compared with what was recorded. A user's message may
// hold a fault: `[fault:cut]`, `[fault:500]`, `[fault:html]`, `[fault:hang]`.
import { once } from 'node:events'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { json } from 'node:stream/consumers'

export type Served = { calls: number; inputTokens: number; outputTokens: number }

export type StandIn = AsyncDisposable & {
  /** As the SDK wants it: with `/v1`. */
  readonly url: string
  /** Calls that were answered whole, and what they said they used. */
  served(): Readonly<Served>
}

type Message = { readonly role: string; readonly content: unknown; readonly tool_calls?: readonly unknown[] }
type Request = {
  readonly model: string
  readonly stream?: boolean
  readonly stream_options?: { readonly include_usage?: boolean }
  readonly messages: readonly Message[]
  readonly tools?: readonly { readonly function: { readonly name: string } }[]
}
type Reply = { readonly text: string; readonly tool: string | undefined }

export async function startStandIn(): Promise<StandIn> {
  const served: Served = { calls: 0, inputTokens: 0, outputTokens: 0 }
  const server = createServer((request, response) => {
    answer(request, response, served).catch(() => response.destroy())
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/v1`,
    served: () => ({ ...served }),
    async [Symbol.asyncDispose]() {
      server.closeAllConnections()
      server.close()
      await once(server, 'close')
    },
  }
}

async function answer(request: IncomingMessage, response: ServerResponse, served: Served): Promise<void> {
  const asked = (await json(request)) as Request
  const question = String(asked.messages.findLast(({ role }) => role === 'user')?.content ?? '')
  const fault = /\[fault:(\w+)\]/.exec(question)?.[1]
  if (fault === '500') {
    send(response, 500, 'application/json', JSON.stringify({ error: { message: 'try again', code: 'server_error' } }))
    return
  }
  if (fault === 'html') {
    send(response, 200, 'text/html', '<html>not today</html>')
    return
  }
  const reply = replyTo(asked, question)
  const usage = usageOf(asked, reply)
  if (asked.stream === true) await stream(response, asked, reply, usage, fault)
  else send(response, 200, 'application/json', JSON.stringify(whole(asked, reply, usage)))
  if (fault !== undefined) return
  served.calls++
  served.inputTokens += usage.prompt_tokens
  served.outputTokens += usage.completion_tokens
}

function send(response: ServerResponse, status: number, type: string, body: string): void {
  response.writeHead(status, { 'content-type': type }).end(body)
}

function replyTo({ messages, tools = [] }: Request, question: string): Reply {
  const last = messages.at(-1)
  const wanted = tools.find(({ function: { name } }) => question.includes(name.split('_')[1] ?? name))
  if (last?.role !== 'tool' && wanted !== undefined) return { text: '', tool: wanted.function.name }
  const found = last?.role === 'tool' ? ` It is ${String(last.content)}.` : ''
  return { text: `You asked: ${question.replace(/\[.*?\]/g, '').trim()}${found}`, tool: undefined }
}

/** Words stand for tokens, so that a reader can count them. */
function usageOf({ messages }: Request, { text, tool }: Reply) {
  const words = (value: unknown): number => JSON.stringify(value).split(/\s+/).length
  const prompt = messages.reduce((sum, message) => sum + words(message), 0)
  const completion = tool === undefined ? text.split(' ').length : 5
  return { prompt_tokens: prompt, completion_tokens: completion, total_tokens: prompt + completion }
}

const toolCall = (name: string) => ({
  id: `call_${name}`,
  type: 'function',
  function: { name, arguments: '{"city":"Zürich"}' },
})

function whole({ model }: Request, { text, tool }: Reply, usage: object): object {
  const message = {
    role: 'assistant',
    content: tool === undefined ? text : null,
    ...(tool === undefined ? {} : { tool_calls: [toolCall(tool)] }),
  }
  const choices = [{ index: 0, message, finish_reason: tool === undefined ? 'stop' : 'tool_calls' }]
  return { id: `chatcmpl-${crypto.randomUUID()}`, object: 'chat.completion', created: now(), model, choices, usage }
}

async function stream(
  response: ServerResponse,
  { model, stream_options }: Request,
  { text, tool }: Reply,
  usage: object,
  fault: string | undefined,
): Promise<void> {
  response.writeHead(200, { 'content-type': 'text/event-stream' })
  const head = { id: `chatcmpl-${crypto.randomUUID()}`, object: 'chat.completion.chunk', created: now(), model }
  const write = (chunk: object): boolean => response.write(`data: ${JSON.stringify({ ...head, ...chunk })}\n\n`)
  const delta = (what: object, finish: string | null = null): boolean =>
    write({ choices: [{ index: 0, delta: what, finish_reason: finish }] })
  delta({ role: 'assistant', content: '' })
  const words = tool === undefined ? text.split(/(?<= )/) : []
  for (const word of words.slice(0, fault === undefined ? words.length : 2)) delta({ content: word })
  if (fault === 'cut') {
    response.socket?.destroySoon()
    return
  }
  if (fault === 'hang') {
    await once(response, 'close')
    return
  }
  if (tool !== undefined) delta({ tool_calls: [{ index: 0, ...toolCall(tool) }] })
  delta({}, tool === undefined ? 'stop' : 'tool_calls')
  if (stream_options?.include_usage === true) write({ choices: [], usage })
  response.end('data: [DONE]\n\n')
}

function now(): number {
  return Math.floor(Date.now() / 1000)
}
