// Tools that the runner of an SDK calls by itself: the service tells nothing of them, and each is a span all the same, beside
// the calls of its turn, with what was asked and what came of it.
import { createOpenAI } from '@ai-sdk/openai'
import Anthropic from '@anthropic-ai/sdk'
import { betaTool } from '@anthropic-ai/sdk/helpers/beta/json-schema'
import { context, trace } from '@opentelemetry/api'
import { AsyncLocalStorageContextManager } from '@opentelemetry/context-async-hooks'
import { InMemorySpanExporter, type ReadableSpan, SimpleSpanProcessor, TracerProvider } from '@opentelemetry/sdk-trace'
import { type Provider, startProvider } from '@tallylight/instrumentation/hooks/fixtures/provider.ts'
import { type Instrumentation, instrument, recordToolCall, turn } from '@tallylight/instrumentation/index.ts'
import { generateText, jsonSchema, stepCountIs } from 'ai'
import OpenAI from 'openai'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'

const spans = new InMemorySpanExporter()
let provider: Provider
let instrumentation: Instrumentation

/** Asks for a tool until the request brings its result. */
function answerTo(body: string, path: string) {
  const isAnswered = /"tool_call_id"|"tool_result"/.test(body)
  return path.startsWith('/v1/messages') ? anthropicReply(isAnswered) : openAiReply(isAnswered)
}

const anthropicReply = (isAnswered: boolean) => ({
  id: 'm',
  type: 'message',
  role: 'assistant',
  model: 'claude-sonnet-4-6',
  content: isAnswered
    ? [{ type: 'text', text: 'It is 21 degrees.' }]
    : [{ type: 'tool_use', id: 'toolu_weather_1', name: 'get_weather', input: { city: 'Bern' } }],
  stop_reason: isAnswered ? 'end_turn' : 'tool_use',
  usage: { input_tokens: 10, output_tokens: 5 },
})

const openAiReply = (isAnswered: boolean) => ({
  id: 'c',
  object: 'chat.completion',
  created: 1,
  model: 'gpt-4o',
  choices: [
    {
      index: 0,
      finish_reason: isAnswered ? 'stop' : 'tool_calls',
      message: isAnswered
        ? { role: 'assistant', content: 'It is 21 degrees.' }
        : {
            role: 'assistant',
            content: null,
            tool_calls: [
              {
                id: 'call_weather_1',
                type: 'function',
                function: { name: 'get_weather', arguments: '{"city":"Bern"}' },
              },
            ],
          },
    },
  ],
  usage: { prompt_tokens: 10, completion_tokens: 5, total_tokens: 15 },
})

beforeAll(async () => {
  provider = await startProvider((body, { url = '' }) => ({
    headers: { 'content-type': 'application/json' },
    pieces: [JSON.stringify(answerTo(body, url))],
  }))
  context.setGlobalContextManager(new AsyncLocalStorageContextManager().enable())
  trace.setGlobalTracerProvider(new TracerProvider({ spanProcessors: [new SimpleSpanProcessor({ exporter: spans })] }))
  instrumentation = instrument({
    environment: {},
    content: 'full',
    redact: (text) => text.replaceAll('Bern', '…'),
    baseUrls: [
      { url: `${provider.url}/v1/messages`, provider: 'anthropic' },
      { url: provider.url, provider: 'openai' },
    ],
  })
})
afterAll(async () => {
  await instrumentation.shutdown()
  await provider[Symbol.asyncDispose]()
})
afterEach(() => spans.reset())

const parameters = { type: 'object', properties: { city: { type: 'string' } } } as const

async function runOpenAi(work: (city: string) => string): Promise<string> {
  const openai = new OpenAI({ apiKey: 'k', baseURL: `${provider.url}/v1` })
  const runner = openai.chat.completions.runTools({
    model: 'gpt-4o',
    messages: [{ role: 'user', content: 'How warm is it in Bern?' }],
    tools: [
      {
        type: 'function',
        function: {
          name: 'get_weather',
          description: '',
          parameters,
          parse: JSON.parse,
          function: ({ city }: { city: string }) => work(city),
        },
      },
    ],
  })
  return (await runner.finalContent()) ?? ''
}

async function runAnthropic(work: (city: string) => string): Promise<string> {
  const anthropic = new Anthropic({ apiKey: 'k', baseURL: provider.url })
  const message = await anthropic.beta.messages.toolRunner({
    model: 'claude-sonnet-4-6',
    max_tokens: 50,
    messages: [{ role: 'user', content: 'How warm is it in Bern?' }],
    tools: [
      betaTool({
        name: 'get_weather',
        description: '',
        inputSchema: parameters,
        run: ({ city }) => work(String(city)),
      }),
    ],
  })
  const [part] = message.content
  return part?.type === 'text' ? part.text : ''
}

async function runAiSdk(work: (city: string) => string): Promise<string> {
  const model = createOpenAI({ apiKey: 'k', baseURL: `${provider.url}/v1` }).chat('gpt-4o')
  const inputSchema = jsonSchema<{ city: string }>(parameters)
  const { text } = await generateText({
    model,
    prompt: 'How warm is it in Bern?',
    tools: { get_weather: { description: '', inputSchema, execute: async ({ city }: { city: string }) => work(city) } },
    stopWhen: stepCountIs(3),
  })
  return text
}

const runners = [
  ['openai', runOpenAi, 'call_weather_1'],
  ['@anthropic-ai/sdk', runAnthropic, 'toolu_weather_1'],
  ['ai', runAiSdk, 'call_weather_1'],
] as const
const named = (name: string): readonly ReadableSpan[] => spans.getFinishedSpans().filter((span) => span.name === name)

test.each(runners)('a tool that %s runs by itself is a span of its turn', async (_, run, id) => {
  const answer = await turn({ conversation: 'c1', channel: 'rest' }, () => run((city) => `21 degrees in ${city}`))
  expect(answer).toBe('It is 21 degrees.')
  const [turnSpan] = named('turn')
  const [tool, ...others] = named('execute_tool get_weather')
  expect(others).toEqual([])
  expect(tool?.spanContext().traceId).toBe(turnSpan?.spanContext().traceId)
  expect(tool?.attributes).toMatchObject({
    'gen_ai.operation.name': 'execute_tool',
    'gen_ai.tool.name': 'get_weather',
    'gen_ai.tool.call.id': id,
    'gen_ai.tool.call.arguments': '{"city":"…"}',
    'gen_ai.tool.call.result': expect.stringContaining('21 degrees in …'),
    'gen_ai.conversation.id': 'c1',
    'tallylight.turn.id': turnSpan?.attributes['tallylight.turn.id'],
    'tallylight.tool.seen_on': 'wire',
  })
  const [first, second] = spans.getFinishedSpans().filter(({ name }) => name.startsWith('chat '))
  expect(secondsOf(tool?.startTime)).toBeGreaterThanOrEqual(secondsOf(first?.startTime))
  expect(secondsOf(tool?.endTime)).toBeLessThanOrEqual(secondsOf(second?.endTime))
  expect(turnSpan?.attributes['tallylight.turn.tools']).toEqual(['get_weather'])
})

test('a tool that its runner says has failed is a span that failed', async () => {
  await turn({}, () =>
    runAnthropic(() => {
      throw new Error('no such city')
    }),
  )
  expect(named('execute_tool get_weather')[0]?.attributes['error.type']).toBe('tool_error')
})

test('a tool that the service tells of is told once', async () => {
  await turn({}, () =>
    runOpenAi((city) => recordToolCall({ name: 'get_weather', arguments: { city } }, () => `21 degrees in ${city}`)),
  )
  expect(named('execute_tool get_weather').map(({ attributes }) => attributes['tallylight.tool.seen_on'])).toEqual([
    undefined,
  ])
})

test('outside of a turn it belongs to the call that asked for it', async () => {
  await runOpenAi((city) => city)
  const [tool] = named('execute_tool get_weather')
  const [asking] = named('chat gpt-4o')
  expect(tool?.parentSpanContext?.spanId).toBe(asking?.spanContext().spanId)
})

test('a result that comes in another turn, from a person or a browser, is no tool of this service', async () => {
  const openai = new OpenAI({ apiKey: 'k', baseURL: `${provider.url}/v1` })
  const question = { role: 'user', content: 'How warm is it?' } as const
  const first = await turn({}, () => openai.chat.completions.create({ model: 'gpt-4o', messages: [question] }))
  const asked = first.choices[0]?.message
  if (asked === undefined) throw new Error('nothing was answered')
  const result = { role: 'tool', tool_call_id: 'call_weather_1', content: '21' } as const
  await turn({}, () => openai.chat.completions.create({ model: 'gpt-4o', messages: [question, asked, result] }))
  expect(named('execute_tool get_weather')).toEqual([])
})

function secondsOf(time: readonly [number, number] | undefined): number {
  return time === undefined ? Number.NaN : time[0] + time[1] / 1e9
}
