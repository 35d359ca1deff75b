// What the benchmark of the instrumentation calls: a provider that speaks OpenAI's chat completions, whole and streamed, and the
// OTLP receiver of whoever instruments, in one process that is not measured. `x-bench-pace: event` sends each event of a stream
// by itself, a millisecond after the one before, as a model writes; `burst` sends all of them at once.
import { once } from 'node:events'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { text } from 'node:stream/consumers'
import { seededRandom } from '../random.ts'

const events = Number(process.argv[2])
const random = seededRandom(1)
const words = [' the', ' and', ' model', ' of', ' a', '.\n', ' "quoted"', ' größer', ' token', ' stream', ',', ' is']
const head = {
  id: 'chatcmpl-BxYzAbCdEfGhIjKlMnOpQrStUvWx',
  object: 'chat.completion.chunk',
  created: 1_760_000_000,
  model: 'gpt-4o-2024-08-06',
  service_tier: 'default',
  system_fingerprint: 'fp_cbf1785567',
}
const usage = {
  prompt_tokens: 200,
  completion_tokens: events,
  total_tokens: 200 + events,
  prompt_tokens_details: { cached_tokens: 0, audio_tokens: 0 },
  completion_tokens_details: { reasoning_tokens: 0, audio_tokens: 0 },
}
const whole = JSON.stringify({
  ...head,
  object: 'chat.completion',
  choices: [
    {
      index: 0,
      message: { role: 'assistant', content: wordsOf(100), refusal: null, annotations: [] },
      logprobs: null,
      finish_reason: 'stop',
    },
  ],
  usage,
})
/** As OpenAI sends them to who asks for usage, with the padding that hides the lengths of words. */
const asked = [
  chunk({ role: 'assistant', content: '', refusal: null }, null),
  ...Array.from({ length: events }, () => chunk({ content: wordsOf(1) }, null)),
  chunk({}, 'stop'),
]
const unasked = asked.map((event) => event.replace(',"usage":null', ''))
const ending = { usage: `data: ${JSON.stringify({ ...head, choices: [], usage })}\n\n`, done: 'data: [DONE]\n\n' }

function wordsOf(count: number): string {
  return Array.from({ length: count }, () => random.pick(words)).join('')
}

function chunk(delta: object, finishReason: string | null): string {
  const choices = [{ index: 0, delta, logprobs: null, finish_reason: finishReason }]
  const obfuscation = random.bytes(random.between(4, 8)).toString('base64url')
  return `data: ${JSON.stringify({ ...head, choices, usage: null, obfuscation })}\n\n`
}

type Paced = { readonly response: ServerResponse; readonly pieces: readonly string[]; next: number }
const paced = new Set<Paced>()

/** Sends one event to each stream. */
function tick(): void {
  for (const stream of paced) {
    const piece = stream.pieces[stream.next++]
    if (piece !== undefined) stream.response.write(piece)
    else {
      stream.response.end()
      paced.delete(stream)
    }
  }
}

async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
  const body = await text(request)
  if (!request.url?.endsWith('/chat/completions')) {
    response.writeHead(200, { 'content-type': 'application/json' }).end('{}')
    return
  }
  if (!body.includes('"stream":true')) {
    response.writeHead(200, { 'content-type': 'application/json' }).end(whole)
    return
  }
  const isAsked = body.includes('"include_usage":true')
  const pieces = isAsked ? [...asked, ending.usage, ending.done] : [...unasked, ending.done]
  response.writeHead(200, { 'content-type': 'text/event-stream; charset=utf-8' })
  if (request.headers['x-bench-pace'] === 'event') {
    response.socket?.setNoDelay(true)
    response.flushHeaders()
    paced.add({ response, pieces, next: 0 })
  } else response.end(pieces.join(''))
}

const server = createServer((request, response) => {
  answer(request, response).catch((error: unknown) => response.destroy(error instanceof Error ? error : undefined))
})
server.listen(0, '127.0.0.1')
await once(server, 'listening')
setInterval(tick, 1)
process.send?.((server.address() as AddressInfo).port)
process.once('disconnect', () => process.exit())
