// Of every API: the id that a reply asks by is the one that the later request answers by.
import { context, ROOT_CONTEXT, trace } from '@opentelemetry/api'
import { InMemorySpanExporter, SimpleSpanProcessor, TracerProvider } from '@opentelemetry/sdk-trace'
import { expect, test } from 'vitest'
import { openCounters } from '../counters.ts'
import { limits } from '../limits.ts'
import type { Api, Endpoint } from '../providers/call.ts'
import { openReply } from '../providers/reply.ts'
import { readRequest } from '../providers/request.ts'
import { openContentAttributes } from './content-attributes.ts'
import { openRunnerTools } from './runner-tools.ts'

const endpointOf = (api: Api): Endpoint => ({
  api,
  provider: 'p',
  model: 'm',
  isStream: false,
  takesUsageOption: false,
})

function setUp() {
  const spans = new InMemorySpanExporter()
  const tracer = new TracerProvider({ spanProcessors: [new SimpleSpanProcessor({ exporter: spans })] }).getTracer(
    'test',
  )
  const counters = openCounters(() => undefined)
  const clock = { nowMs: 1_000_000 }
  const tools = openRunnerTools({
    tracer: () => tracer,
    content: openContentAttributes('full', undefined, counters),
    counters,
    failed: (error) => expect.fail(String(error)),
    nowMs: () => clock.nowMs,
  })
  const around = tracer.startSpan('turn')
  const parent = trace.setSpan(ROOT_CONTEXT, around)
  return {
    clock,
    ask(api: Api, reply: object): void {
      const head = { status: 200, header: (name: string) => (name === 'content-type' ? 'application/json' : '') }
      const opened = openReply(endpointOf(api), head, true)
      opened.write(Buffer.from(JSON.stringify(reply)))
      opened.end()
      tools.asked(opened.known(), parent, tracer.startSpan('chat').spanContext())
    },
    answer(api: Api, request: object): void {
      context.with(parent, () => tools.answered(readRequest(endpointOf(api), JSON.stringify(request)).request, parent))
    },
    told: () => spans.getFinishedSpans().map(({ attributes }) => attributes),
  }
}

const args = { city: 'Bern' }
const functionCall = { name: 'f', args }
const functionResponse = { name: 'f', response: { degrees: 21 } }
const item = { type: 'function_call', id: 'fc_1', call_id: 'call_1', name: 'f', arguments: '{"city":"Bern"}' }
const toolUse = { toolUseId: 't_1', name: 'f', input: args }
const chatCall = { id: 'call_1', type: 'function', function: { name: 'f', arguments: '{"city":"Bern"}' } }

test.each<[api: Api, id: string | undefined, reply: object, request: object]>([
  [
    'openai.chat',
    'call_1',
    { choices: [{ message: { role: 'assistant', tool_calls: [chatCall] }, finish_reason: 'tool_calls' }] },
    { model: 'm', messages: [{ role: 'tool', tool_call_id: 'call_1', content: '21' }] },
  ],
  [
    'openai.responses',
    'call_1',
    { status: 'completed', output: [item] },
    {
      model: 'm',
      previous_response_id: 'r',
      input: [{ type: 'function_call_output', call_id: 'call_1', output: '21' }],
    },
  ],
  [
    'anthropic.messages',
    'toolu_1',
    {
      type: 'message',
      content: [{ type: 'tool_use', id: 'toolu_1', name: 'f', input: args }],
      stop_reason: 'tool_use',
    },
    {
      model: 'm',
      messages: [{ role: 'user', content: [{ type: 'tool_result', tool_use_id: 'toolu_1', content: '21' }] }],
    },
  ],
  [
    'gemini.generate',
    undefined,
    { candidates: [{ content: { role: 'model', parts: [{ functionCall }] }, finishReason: 'STOP' }] },
    { contents: [{ role: 'user', parts: [{ functionResponse }] }] },
  ],
  [
    'bedrock.converse',
    't_1',
    { output: { message: { role: 'assistant', content: [{ toolUse }] } }, stopReason: 'tool_use' },
    { messages: [{ role: 'user', content: [{ toolResult: { toolUseId: 't_1', content: [{ text: '21' }] } }] }] },
  ],
])('runner tools: %s', (api, id, reply, request) => {
  const { ask, answer, told } = setUp()
  ask(api, reply)
  answer(api, request)
  // A history is sent again with every call.
  answer(api, request)
  expect(told()).toMatchObject([{ 'gen_ai.tool.name': 'f', 'gen_ai.tool.call.arguments': '{"city":"Bern"}' }])
  expect(told()[0]?.['gen_ai.tool.call.id']).toBe(id)
  expect(told()[0]?.['gen_ai.tool.call.result']).toContain('21')
})

test('runner tools: one that takes longer than a service waits is a person’s, and of too many the oldest are forgotten', () => {
  const { ask, answer, told, clock } = setUp()
  const asking = (id: string) => ({ type: 'message', content: [{ type: 'tool_use', id, name: id, input: {} }] })
  const result = (id: string) => ({ type: 'tool_result', tool_use_id: id, content: '' })
  ask('anthropic.messages', asking('late'))
  clock.nowMs += limits.askedToolMsMax + 1
  for (let at = 0; at <= limits.askedToolsMax; at++) ask('anthropic.messages', asking(`tool_${at}`))
  const last = `tool_${limits.askedToolsMax}`
  answer('anthropic.messages', {
    messages: [{ role: 'user', content: ['late', 'tool_0', 'tool_1', last].map(result) }],
  })
  expect(told().map((each) => each['gen_ai.tool.name'])).toEqual(['tool_1', last])
})
