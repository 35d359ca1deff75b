// A stand-in for the providers: their wire protocols over real HTTP/1 and HTTP/2, with the recorded streams of the parsers.
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import http2 from 'node:http2'
import type { AddressInfo } from 'node:net'
import { text } from 'node:stream/consumers'
import { encodeEvent } from '@tallylight/instrumentation/providers/fixtures/encode-event.ts'

export type StandIn = AsyncDisposable & { readonly url: string; readonly bedrockUrl: string }

/** Of a reply that is not streamed; a streamed one says what its recording says. */
const inputTokens = 9
const outputTokens = 2

const fixtures = new URL('../../instrumentation/providers/fixtures/', import.meta.url)
const openAiUsage = {
  prompt_tokens: inputTokens,
  completion_tokens: outputTokens,
  total_tokens: inputTokens + outputTokens,
}

type Api = { readonly path: RegExp; readonly stream: string; readonly whole: object }

const apis: readonly Api[] = [
  {
    path: /\/chat\/completions$/,
    stream: 'openai-chat.sse',
    whole: {
      id: 'c1',
      object: 'chat.completion',
      created: 1,
      model: 'gpt-4o',
      choices: [{ index: 0, message: { role: 'assistant', content: 'Hi' }, finish_reason: 'stop' }],
      usage: openAiUsage,
    },
  },
  {
    path: /\/responses$/,
    stream: 'openai-responses.sse',
    whole: {
      id: 'r1',
      object: 'response',
      created_at: 1,
      model: 'gpt-4o',
      status: 'completed',
      output: [
        {
          type: 'message',
          id: 'm',
          role: 'assistant',
          status: 'completed',
          content: [{ type: 'output_text', text: 'Hi', annotations: [] }],
        },
      ],
      usage: {
        input_tokens: inputTokens,
        output_tokens: outputTokens,
        total_tokens: inputTokens + outputTokens,
        input_tokens_details: { cached_tokens: 0 },
        output_tokens_details: { reasoning_tokens: 0 },
      },
    },
  },
  {
    path: /\/embeddings$/,
    stream: '',
    whole: {
      object: 'list',
      model: 'text-embedding-3-small',
      data: [
        { object: 'embedding', index: 0, embedding: Buffer.from(new Float32Array([1, 2]).buffer).toString('base64') },
      ],
      usage: { prompt_tokens: inputTokens, total_tokens: inputTokens },
    },
  },
  {
    path: /\/messages$/,
    stream: 'anthropic-messages.sse',
    whole: {
      id: 'm1',
      type: 'message',
      role: 'assistant',
      model: 'claude-sonnet-4-5',
      content: [{ type: 'text', text: 'Hi' }],
      stop_reason: 'end_turn',
      stop_sequence: null,
      usage: { input_tokens: inputTokens, output_tokens: outputTokens },
    },
  },
  {
    path: /:(stream)?generateContent$/i,
    stream: 'gemini-generate.sse',
    whole: {
      candidates: [{ content: { role: 'model', parts: [{ text: 'Hi' }] }, finishReason: 'STOP', index: 0 }],
      usageMetadata: { promptTokenCount: inputTokens, candidatesTokenCount: outputTokens },
      modelVersion: 'gemini-2.5-flash',
      responseId: 'g1',
    },
  },
]

async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
  const body = await text(request)
  const path = (request.url ?? '').split('?')[0] ?? ''
  if (path.startsWith('/model/')) {
    // As the SDKs of before HTTP/2 ask.
    const { type, pieces } = converse(path)
    response.writeHead(200, { 'content-type': type, 'x-amzn-requestid': 'q1' })
    for (const piece of pieces) response.write(piece)
    response.end()
    return
  }
  const api = apis.find((each) => each.path.test(path))
  if (api === undefined) {
    response.writeHead(404).end()
    return
  }
  const asked = JSON.parse(body)
  if (asked.stream !== true && !path.includes('streamGenerateContent')) {
    const whole = asksForTool(asked) ? { ...api.whole, choices: [{ index: 0, ...toolAsked }] } : api.whole
    response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(whole))
    return
  }
  response.writeHead(200, { 'content-type': 'text/event-stream' })
  const recorded = recordingOf(api, asked.stream_options?.include_usage === true)
  for (let at = 0; at < recorded.length; at += 97) response.write(recorded.subarray(at, at + 97))
  response.end()
}

const toolCall = { id: 'call_1', type: 'function', function: { name: 'get_weather', arguments: '{"city":"Zürich"}' } }
const toolAsked = {
  message: { role: 'assistant', content: null, tool_calls: [toolCall] },
  finish_reason: 'tool_calls',
}

/** Who offers tools is asked to run one, and answered when its result came. */
function asksForTool(asked: {
  readonly tools?: unknown
  readonly messages?: readonly { readonly role: string }[]
}): boolean {
  return asked.tools !== undefined && asked.messages?.some(({ role }) => role === 'tool') === false
}

/** Chat completions tell their usage only to those who ask: in a chunk of its own, and as null in all others. */
function recordingOf({ stream }: Api, isUsageAsked: boolean): Buffer {
  const recorded = readFileSync(new URL(stream, fixtures))
  if (stream !== 'openai-chat.sse' || isUsageAsked) return recorded
  const events = recorded.toString().replaceAll(',"usage":null', '').split('\n\n')
  return Buffer.from(events.filter((event) => !event.includes('"choices":[]')).join('\n\n'))
}

function converse(path: string): { readonly type: string; readonly pieces: readonly (string | Uint8Array)[] } {
  const usage = { inputTokens, outputTokens, totalTokens: inputTokens + outputTokens }
  if (path.endsWith('/converse')) {
    const output = { message: { role: 'assistant', content: [{ text: 'Hi' }] } }
    const whole = { output, stopReason: 'end_turn', usage, metrics: { latencyMs: 1 } }
    return { type: 'application/json', pieces: [JSON.stringify(whole)] }
  }
  return {
    type: 'application/vnd.amazon.eventstream',
    pieces: [
      encodeEvent('messageStart', { role: 'assistant' }),
      encodeEvent('contentBlockDelta', { contentBlockIndex: 0, delta: { text: 'Hi' } }),
      encodeEvent('messageStop', { stopReason: 'end_turn' }),
      encodeEvent('metadata', { usage, metrics: { latencyMs: 1 } }),
    ],
  }
}

async function answerStream(stream: http2.ServerHttp2Stream, path: string): Promise<void> {
  await text(stream)
  const { type, pieces } = converse(path)
  stream.respond({ ':status': 200, 'content-type': type, 'x-amzn-requestid': 'q1' })
  for (const piece of pieces) stream.write(piece)
  stream.end()
}

export async function startStandIn(): Promise<StandIn> {
  const server = createServer((request, response) => {
    answer(request, response).catch(() => response.destroy())
  })
  const bedrock = http2.createServer()
  const sessions = new Set<http2.ServerHttp2Session>()
  bedrock.on('session', (session) => sessions.add(session))
  bedrock.on('stream', (stream, headers) => {
    answerStream(stream, String(headers[':path'])).catch(() => stream.destroy())
  })
  server.listen(0, '127.0.0.1')
  bedrock.listen(0, '127.0.0.1')
  await Promise.all([once(server, 'listening'), once(bedrock, 'listening')])
  const urlOf = (address: AddressInfo | string | null): string => `http://127.0.0.1:${(address as AddressInfo).port}`
  return {
    url: urlOf(server.address()),
    bedrockUrl: urlOf(bedrock.address()),
    async [Symbol.asyncDispose]() {
      server.closeAllConnections()
      for (const session of sessions) session.destroy()
      server.close()
      bedrock.close()
      await Promise.all([once(server, 'close'), once(bedrock, 'close')])
    },
  }
}
