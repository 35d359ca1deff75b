// What the recordings do not show: dialects that none of them is of, older and newer forms, and how senders count.
import { expect, test } from 'vitest'
import type { Says } from '../fact.ts'
import { factsOf, type Lifted } from '../lift.ts'
import { openPrices } from '../price.ts'
import type { AnyValue, LiftedSpan } from '../record.ts'
import { resolve } from '../resolve/resolve.ts'
import type { Resolved } from '../rows.ts'
import { chatAttributes, messagesOf, type SpanSketch, sketchLog, sketchSpan } from '../testing.ts'

const priceOf = openPrices([])

function lift(sketch: SpanSketch): Lifted {
  return factsOf(sketchSpan(sketch))
}

function rowsOf(...sketches: readonly SpanSketch[]): Resolved {
  return resolve(
    sketches.flatMap((sketch) => lift(sketch).facts),
    priceOf,
  )
}

function says(sketch: SpanSketch): Says | undefined {
  return lift(sketch).facts[0]?.says
}

test('langsmith: the kind of run counts, the provider is not the guessed one, and OK with an exception is a failure', () => {
  const scope = { name: 'langsmith', version: '0.10.5' }
  const exception = {
    name: 'exception',
    timeUnixNano: 0n,
    attributes: new Map([
      ['exception.type', 'Error'],
      ['exception.message', '429'],
    ]),
  }
  const { llmCalls } = rowsOf({
    scope,
    status: 'ok',
    events: [exception],
    attributes: {
      ...chatAttributes,
      'langsmith.span.kind': 'llm',
      'gen_ai.system': 'langchain',
      'gen_ai.request.model': 'o4-mini',
    },
  })
  expect(llmCalls).toMatchObject([{ Provider: 'openai', ErrorType: 'Error', UsageSource: 'none' }])
  expect(says({ scope, attributes: { 'langsmith.span.kind': 'prompt', 'gen_ai.operation.name': 'chat' } })?.kind).toBe(
    'link',
  )
  expect(
    says({ scope, attributes: { 'langsmith.span.kind': 'retriever', 'gen_ai.operation.name': 'embeddings' } })?.kind,
  ).toBe('link')
})

test('langsmith: usage with its details, conversation from metadata and never from the project, content whole', () => {
  const sketch: SpanSketch = {
    scope: { name: 'langsmith', version: '0.10.5' },
    attributes: {
      'langsmith.span.kind': 'llm',
      'gen_ai.operation.name': 'chat',
      'gen_ai.system': 'langchain',
      'gen_ai.request.model': 'o4-mini',
      'gen_ai.response.model': 'o4-mini-2025-04-16',
      'gen_ai.usage.input_tokens': 1200,
      'gen_ai.usage.output_tokens': 300,
      'langsmith.usage_metadata':
        '{"input_tokens":1200,"output_tokens":300,"total_tokens":1500,"input_token_details":{"cache_read":1024},"output_token_details":{"reasoning":192}}',
      'gen_ai.response.finish_reasons': 'stop, stop',
      'langsmith.trace.session_id': 'project',
      'langsmith.metadata.thread_id': 'thread-1',
      'langsmith.metadata.user_id': 'u',
      'gen_ai.prompt': '{"model":"o4-mini","messages":[{"role":"user","content":"Where?"}]}',
      'gen_ai.completion':
        '{"id":"x","choices":[{"index":0,"message":{"role":"assistant","content":"Here."},"finish_reason":"stop"}]}',
    },
  }
  expect(rowsOf(sketch).llmCalls).toMatchObject([
    {
      InputTokens: 1200,
      CacheReadTokens: 1024,
      CacheWriteTokens: null,
      OutputTokens: 300,
      ReasoningTokens: 192,
      FinishReason: 'stop',
      ConversationId: 'thread-1',
      UserId: 'u',
      CostNanoUsd: 1_795_200n,
    },
  ])
  expect(messagesOf(sketch)).toEqual([
    ['input', 'user', 'text', 'Where?'],
    ['output', 'assistant', 'text', 'Here.'],
  ])
})

test('langsmith: LangChain’s serialized messages and generations are messages', () => {
  const of = (kind: string, kwargs: object) => ({
    lc: 1,
    type: 'constructor',
    id: ['langchain', 'schema', kind],
    kwargs,
  })
  const call = of('AIMessage', { content: '', tool_calls: [{ name: 'search', args: { q: 'x' }, id: 'c1' }] })
  expect(
    messagesOf({
      scope: { name: 'langsmith', version: '' },
      attributes: {
        ...chatAttributes,
        'langsmith.span.kind': 'llm',
        'gen_ai.prompt': JSON.stringify({ messages: [[of('HumanMessage', { content: 'find x' })]] }),
        'gen_ai.completion': JSON.stringify({ generations: [[{ text: '', message: call }]] }),
      },
    }),
  ).toEqual([
    ['input', 'user', 'text', 'find x'],
    ['output', 'assistant', 'tool_call', '{"id":"c1","name":"search","arguments":{"q":"x"}}'],
  ])
})

test('azure: messages are JSON in events, the type of an error is not "undefined", a run on the server is the call', () => {
  const event = (name: string, content: object) => ({
    name,
    timeUnixNano: 0n,
    attributes: new Map([['gen_ai.event.content', JSON.stringify(content)]]),
  })
  const scope = { name: '@azure/ai-inference-rest', version: '1.0.0-beta.6' }
  const sketch: SpanSketch = {
    scope,
    attributes: {
      ...chatAttributes,
      'gen_ai.system': 'az.ai.inference',
      'gen_ai.response.finish_reasons': 'stop',
      'gen_ai.usage.input_tokens': 42,
      'gen_ai.usage.output_tokens': 9,
    },
    events: [
      event('gen_ai.user.message', { role: 'user', content: 'Where?' }),
      event('gen_ai.choice', { message: { content: 'Here.' }, finish_reason: 'stop', index: 0 }),
    ],
  }
  expect(rowsOf(sketch).llmCalls).toMatchObject([
    { Provider: 'azure.ai.inference', FinishReason: 'stop', CostNanoUsd: 11_700n },
  ])
  expect(messagesOf(sketch)).toEqual([
    ['input', 'user', 'text', 'Where?'],
    ['output', 'assistant', 'text', 'Here.'],
  ])
  expect(lift(sketch).understood.events).toEqual([0, 1])
  const toolCall = { id: 'c', type: 'function', function: { name: 'f', arguments: '{}' } }
  const withTool: SpanSketch = {
    ...sketch,
    events: [
      event('gen_ai.assistant.message', { content: '', tool_calls: [toolCall] }),
      event('gen_ai.tool.message', { content: 'sunny', id: 'c' }),
      event('gen_ai.choice', { message: { toolCalls: [toolCall] }, finish_reason: 'tool_calls', index: 0 }),
    ],
  }
  expect(messagesOf(withTool)).toEqual([
    ['input', 'assistant', 'tool_call', '{"id":"c","name":"f","arguments":"{}"}'],
    ['input', 'tool', 'tool_call_response', '{"id":"c","response":"sunny"}'],
    ['output', 'assistant', 'tool_call', '{"id":"c","name":"f","arguments":"{}"}'],
  ])
  const failed: SpanSketch = { scope, status: 'error', attributes: { ...chatAttributes, 'error.type': 'undefined' } }
  expect(rowsOf(failed).llmCalls).toMatchObject([{ ErrorType: 'unknown' }])
  const run = {
    'gen_ai.operation.name': 'process_thread_run',
    'gen_ai.system': 'az.ai.agents',
    'gen_ai.thread.id': 't',
  }
  const counts = { 'gen_ai.usage.input_tokens': 2220, 'gen_ai.usage.output_tokens': 194 }
  expect(rowsOf({ attributes: { ...run, ...counts } }).llmCalls).toMatchObject([
    { InputTokens: 2220, ConversationId: 't' },
  ])
})

test('logfire: a stream is counted once, from the record that has its usage, in whichever trace that is', () => {
  const scope = { name: 'logfire.openai', version: '4.41.0' }
  const request = {
    ...chatAttributes,
    request_data: '{"model":"gpt-4o-mini","stream":true,"messages":[{"role":"user","content":"Where?"}]}',
  }
  expect(rowsOf({ scope, attributes: { ...request, 'logfire.span_type': 'span' } }).llmCalls).toEqual([])
  const end = 1_795_000_009_000_000_000n
  const { llmCalls } = rowsOf({
    scope,
    startUnixNano: end,
    endUnixNano: end,
    attributes: {
      ...request,
      'logfire.span_type': 'log',
      duration: 2.5,
      'gen_ai.usage.input_tokens': 42,
      'gen_ai.usage.output_tokens': 9,
      response_data: '{"combined_chunk_content":"Here.","chunk_count":3}',
    },
  })
  expect(llmCalls).toMatchObject([{ InputTokens: 42, DurationNano: 2_500_000_000n }])
  expect(lift({ scope, attributes: { ...request, 'logfire.span_type': 'pending_span' } }).facts).toEqual([])
})

test('strands: a tool that says it failed failed, a first token is in milliseconds in Python, a cycle wraps', () => {
  const scope = { name: 'strands.telemetry.tracer', version: '' }
  const tool = { 'gen_ai.operation.name': 'execute_tool', 'gen_ai.tool.name': 'f', 'gen_ai.tool.status': 'error' }
  expect(rowsOf({ scope, attributes: tool }).toolCalls).toMatchObject([{ Status: 'failure', ErrorType: 'unknown' }])
  const call = { ...chatAttributes, 'gen_ai.server.time_to_first_token': 250 }
  expect(rowsOf({ scope, attributes: call }).llmCalls).toMatchObject([{ TimeToFirstTokenNano: 250_000_000n }])
  const cycle: SpanSketch = { scope, name: 'execute_event_loop_cycle', attributes: { 'event_loop.cycle_id': '1' } }
  expect(says(cycle)?.kind).toBe('wrapper')
})

test('pydantic-ai: messages as a list of events, older names of agents and tools', () => {
  const scope = { name: 'pydantic-ai', version: '0.4' }
  const events = [
    { 'event.name': 'gen_ai.user.message', content: 'Where?', role: 'user', 'gen_ai.message.index': 0 },
    { 'event.name': 'gen_ai.choice', index: 0, message: { role: 'assistant', content: 'Here.' } },
  ]
  expect(messagesOf({ scope, attributes: { ...chatAttributes, events: JSON.stringify(events) } })).toEqual([
    ['input', 'user', 'text', 'Where?'],
    ['output', 'assistant', 'text', 'Here.'],
  ])
  expect(says({ scope, name: 'agent run', attributes: { agent_name: 'a', model_name: 'm' } })).toMatchObject({
    kind: 'agent',
    name: 'a',
  })
})

test.each([
  ['@traceloop/instrumentation-anthropic', '0.27.0', 5000, 'raw'],
  ['@traceloop/instrumentation-anthropic', '0.28.1', 5000, 'inclusive'],
  ['opentelemetry.instrumentation.anthropic', '0.62.1', 5000, 'inclusive'],
  ['@openlit/instrumentation-anthropic', '1.0.0', 5000, 'raw'],
  ['strands-agents', '', 5000, 'raw'],
  ['some-other', '1.0.0', 5000, 'inclusive'],
  // Cached tokens that exceed the input prove themselves.
  ['some-other', '1.0.0', 100, 'raw'],
] as const)('counts: %s %s with %i tokens of input beside 2300 cached is %s', (name, version, input, counting) => {
  const { llmCalls } = rowsOf({
    scope: { name, version },
    attributes: {
      ...chatAttributes,
      'gen_ai.system': name === 'strands-agents' ? 'strands-agents' : 'anthropic',
      'gen_ai.request.model': 'claude-sonnet-4-5',
      'gen_ai.usage.input_tokens': input,
      'gen_ai.usage.output_tokens': 50,
      'gen_ai.usage.cache_read.input_tokens': 2000,
      'gen_ai.usage.cache_creation.input_tokens': 300,
    },
  })
  expect(llmCalls).toMatchObject([{ InputTokens: counting === 'raw' ? input + 2300 : input, UsageSource: 'provider' }])
})

test('counts: an input that hides its cache is a lower bound', () => {
  const { llmCalls } = rowsOf({
    scope: { name: '@traceloop/instrumentation-anthropic', version: '0.14.6' },
    attributes: {
      'llm.request.type': 'chat',
      'gen_ai.system': 'Anthropic',
      'gen_ai.request.model': 'claude-sonnet-4-5',
      'gen_ai.usage.prompt_tokens': 100,
      'gen_ai.usage.completion_tokens': 50,
      'gen_ai.prompt.0.role': 'user',
      'gen_ai.prompt.0.content': '[{"type":"text","text":"Where?"}]',
    },
  })
  expect(llmCalls).toMatchObject([
    { Provider: 'anthropic', InputTokens: 100, CacheReadTokens: null, UsageSource: 'partial' },
  ])
})

test.each([
  ['a negative', -1],
  ['beyond 2^53', 2n ** 60n],
  ['NaN', Number.NaN],
  ['a fraction', 1.5],
  ['a text', '42'],
  ['a boolean', true],
] as const)('counts: %s count makes the usage of its record none, and is counted', (_case, count: AnyValue) => {
  const sketch: SpanSketch = {
    attributes: { ...chatAttributes, 'gen_ai.usage.input_tokens': count, 'gen_ai.usage.output_tokens': 9 },
  }
  expect(lift(sketch).absurdUsage).toBe(1)
  expect(rowsOf(sketch).llmCalls).toMatchObject([
    { UsageSource: 'none', InputTokens: null, OutputTokens: null, CostNanoUsd: null },
  ])
})

test('counts: parts that exceed their whole are kept, and not priced', () => {
  const { llmCalls } = rowsOf({
    attributes: {
      ...chatAttributes,
      'gen_ai.usage.output_tokens': 5,
      'gen_ai.usage.input_tokens': 9,
      'gen_ai.usage.total_tokens': 14,
      'gen_ai.usage.cache_read.input_tokens': 3,
    },
  })
  expect(llmCalls).toMatchObject([{ InputTokens: 9, CacheReadTokens: 3 }])
})

test('turn, audit, health and error records of our instrumentation', () => {
  const scope = { name: '@tallylight/instrumentation', version: '0.1.0' }
  const log = (eventName: string, attributes: Record<string, AnyValue>) =>
    factsOf(sketchLog({ scope, eventName, spanId: '1', traceId: 'a'.repeat(32), attributes })).facts
  const facts = [
    ...log('tallylight.audit', {
      'tallylight.audit.action': 'delete',
      'tallylight.audit.actor': 'bob',
      'tallylight.audit.resource.type': 'chat',
      'tallylight.audit.resource.id': '7',
      'tallylight.audit.before': '{"a":1}',
      'client.address': '::1',
    }),
    ...log('tallylight.health', {
      'tallylight.health.target': 'mcp:files',
      'tallylight.health.status': 'timeout',
      'tallylight.health.event': 'startup',
      'tallylight.health.response_time': 5,
      'tallylight.health.metadata.tools': 3,
    }),
    ...log('tallylight.error', { 'exception.type': 'Boom', 'exception.message': 'no' }),
  ]
  expect(resolve(facts, priceOf)).toMatchObject({
    auditEvents: [
      {
        Actor: 'bob',
        Action: 'delete',
        ResourceType: 'chat',
        ResourceId: '7',
        Before: '{"a":1}',
        After: '',
        ClientAddress: '::1',
      },
    ],
    healthChecks: [
      {
        Target: 'mcp:files',
        Status: 'timeout',
        EventType: 'startup',
        ResponseTimeNano: 5_000_000_000n,
        Metadata: { tools: '3' },
      },
    ],
    errors: [{ Type: 'Boom', Message: 'no', FactId: expect.stringMatching(/^log\./) }],
    llmCalls: [],
    turns: [],
  })
})

test('tallylight: a stream that nobody read to its end is a lower bound, as its span says', () => {
  const left = {
    ...chatAttributes,
    'gen_ai.request.stream': true,
    'gen_ai.usage.input_tokens': 42,
    'gen_ai.usage.output_tokens': 1,
  }
  const sourceOf = (source: string) =>
    rowsOf({
      scope: { name: '@tallylight/instrumentation', version: '0.1.0' },
      attributes: { ...left, 'tallylight.usage.source': source },
    }).llmCalls[0]?.UsageSource
  expect([sourceOf('partial'), sourceOf('provider')]).toEqual(['partial', 'provider'])
})

test('health: the server’s span of a prober is a check, other requests are nothing', () => {
  const check = (attributes: Record<string, AnyValue>, spanKind: LiftedSpan['spanKind'] = 'server') =>
    rowsOf({ spanKind, attributes }).healthChecks.map((row) => [row.Target, row.Status])
  expect(check({ 'http.route': '/healthz', 'http.response.status_code': 200 })).toEqual([['/healthz', 'healthy']])
  expect(check({ 'http.target': '/readyz?verbose', 'http.status_code': 503 })).toEqual([['/readyz', 'unhealthy']])
  expect(check({ 'url.path': '/', 'user_agent.original': 'kube-probe/1.31' })).toEqual([['/', 'healthy']])
  expect(check({ 'url.path': '/healthz' }, 'client')).toEqual([])
  expect(check({ 'url.path': '/chat', 'user_agent.original': 'curl' })).toEqual([])
})

/** Direction, type and text of what a span around calls holds, and which content stays in it. */
function heldBy(sketch: SpanSketch): { readonly said: readonly string[][]; readonly left: readonly string[] } {
  const { facts, texts, leftover } = lift(sketch)
  const held = facts[0]?.says
  const messages = held !== undefined && 'messages' in held ? (held.messages ?? []) : []
  return {
    said: messages.map(({ direction, type, content }) => [direction, type, texts.get(content.hash) ?? '']),
    left: leftover.attributes,
  }
}

const state = '{"messages":[{"role":"user","content":"hi"}],"remaining_steps":24}'
const history = '{"messages":[{"role":"user","content":"hi"},{"role":"assistant","content":"hello"}]}'
const traceInput = { 'langfuse.trace.input': 'hi', 'langfuse.observation.input': 'hi' }

test.each<[what: string, attributes: Record<string, AnyValue>, said: readonly string[][]]>([
  [
    'a state that is more than messages is kept as its JSON',
    { 'openinference.span.kind': 'CHAIN', 'input.value': state, 'output.value': history },
    [
      ['input', 'json', state],
      ['output', 'text', 'hi'],
      ['output', 'text', 'hello'],
    ],
  ],
  [
    'a workflow’s arguments are kept as their JSON',
    { 'traceloop.span.kind': 'workflow', 'traceloop.entity.input': '{"args":[],"kwargs":{"q":"hi"}}' },
    [['input', 'json', '{"args":[],"kwargs":{"q":"hi"}}']],
  ],
  [
    'a run of a chain holds its request and its reply',
    { 'langsmith.span.kind': 'chain', 'gen_ai.prompt': '{"input":"hi"}', 'gen_ai.completion': '{"output":"hello"}' },
    [
      ['input', 'text', 'hi'],
      ['output', 'text', 'hello'],
    ],
  ],
  [
    'what a trace repeats of its span is held once',
    { 'langfuse.observation.type': 'span', ...traceInput },
    [['input', 'text', 'hi']],
  ],
  [
    'what a trace says in its own words is held too',
    { 'langfuse.observation.type': 'span', ...traceInput, 'langfuse.trace.input': 'hi there' },
    [
      ['input', 'text', 'hi there'],
      ['input', 'text', 'hi'],
    ],
  ],
  [
    'a turn holds its question and its answer whole, whatever they look like',
    {
      'tallylight.turn.channel': 'rest',
      'tallylight.turn.question': '{"q":1}',
      'tallylight.turn.answer': 'x'.repeat(999),
    },
    [
      ['input', 'text', '{"q":1}'],
      ['output', 'text', 'x'.repeat(999)],
    ],
  ],
  [
    'embedded texts of an older form',
    { 'llm.request.type': 'embedding', 'gen_ai.request.model': 'm', 'gen_ai.prompt.0.content': 'a text' },
    [['input', 'text', 'a text']],
  ],
  [
    'one embedded text, written as JSON',
    { 'ai.operationId': 'ai.embed.doEmbed', 'ai.values': ['"{\\"a\\":1}"', '"b"'] },
    [
      ['input', 'text', '{"a":1}'],
      ['input', 'text', 'b'],
    ],
  ],
])('around calls: %s', (_what, attributes, said) => {
  expect(heldBy({ attributes })).toEqual({ said, left: [] })
})

test.each([
  '{"order_id":12345678901234567890,"big":1e400}',
  '{"json":{"a":1},"customer":"Ann"}',
  '{"functionCall":{"name":"f"},"note":"keep"}',
  '{"reasoningContent":{"reasoningText":{"text":"t"}},"q":"lost?"}',
  '{"role":"user","content":"hi","tool_calls":{"a":1}}',
  '{"type":"text","text":"a","content":"b"}',
  '{"type":"order","role":"user","id":"c-1","status":"vip"}',
])('what stands around calls and is more or less than messages is one JSON to the letter: %s', (value) => {
  const attributes = { 'traceloop.span.kind': 'task', 'traceloop.entity.output': value }
  expect(heldBy({ attributes })).toEqual({ said: [['output', 'json', value]], left: [] })
})

test('events: what instructions in an attribute leave to say is said, and an event that says more than is told stays', () => {
  const events = [
    { name: 'gen_ai.user.message', timeUnixNano: 0n, attributes: new Map([['content', 'hi']]) },
    { name: 'gen_ai.choice', timeUnixNano: 0n, attributes: new Map([['message', 'hello']]) },
  ]
  const agent = { 'gen_ai.operation.name': 'invoke_agent', 'gen_ai.system_instructions': 'be kind' }
  expect(heldBy({ attributes: agent, events }).said.map(([, , text]) => text)).toEqual(['be kind', 'hi', 'hello'])
  expect(lift({ attributes: agent, events }).understood.events).toEqual([0, 1])
  const told = { ...agent, 'gen_ai.input.messages': '[{"role":"user","content":"something else"}]' }
  expect(lift({ attributes: told, events }).understood.events).toEqual([1])
})

test('embeddings: a vector is one JSON and no messages, and as the reply to an embedding it stays where it is', () => {
  const vectors = `[[${'0.1,'.repeat(1_535)}0.1]]`
  const workflow = { 'traceloop.span.kind': 'task', 'traceloop.entity.output': vectors }
  expect(heldBy({ attributes: workflow })).toEqual({ said: [['output', 'json', vectors]], left: [] })
  const scope = { name: 'langsmith', version: '0.10.5' }
  const attributes = {
    'langsmith.span.kind': 'embedding',
    'gen_ai.prompt': '{"input":["a","b"]}',
    'gen_ai.completion': `{"output":${vectors}}`,
  }
  const said = [
    ['input', 'text', 'a'],
    ['input', 'text', 'b'],
  ]
  expect(heldBy({ scope, attributes })).toEqual({ said, left: ['gen_ai.completion'] })
})

test('embeddings: a request that holds more than the texts stays, and of texts in another order the numbers count', () => {
  const texts = (count: number) =>
    Object.fromEntries(
      Array.from({ length: count }, (_, at) => [
        `embedding.embeddings.${count - 1 - at}.embedding.text`,
        `t${count - 1 - at}`,
      ]),
    )
  const embedding = { 'openinference.span.kind': 'EMBEDDING', ...texts(11) }
  expect(heldBy({ attributes: embedding }).said.map(([, , text]) => text)).toEqual(
    Array.from({ length: 11 }, (_, at) => `t${at}`),
  )
  expect(heldBy({ attributes: { ...embedding, 'input.value': '{"input":["t0"],"model":"m"}' } }).left).toEqual([
    'input.value',
  ])
  expect(heldBy({ attributes: { ...embedding, 'input.value': '["t0","another"]' } }).left).toEqual(['input.value'])
})

test('logs: a body that holds more than the input and output that were read stays where it is', () => {
  const scope = { name: 'strands.telemetry.tracer', version: '' }
  const input = new Map([
    [
      'messages',
      [
        new Map([
          ['role', 'user'],
          ['content', 'hi'],
        ]),
      ],
    ],
  ])
  const isUnderstood = (more: readonly (readonly [string, AnyValue])[]): boolean =>
    factsOf(sketchLog({ spanId: '1', scope, body: new Map<string, AnyValue>([['input', input], ...more]) })).understood
      .body
  const choice = new Map<string, AnyValue>([
    ['message', new Map([['content', 'hi']])],
    ['index', 0],
  ])
  const ofChoice = (body: AnyValue) => factsOf(sketchLog({ eventName: 'gen_ai.choice', body })).understood.body
  expect([ofChoice(choice), ofChoice(new Map([...choice, ['note', 'keep']]))]).toEqual([true, false])
  expect([isUnderstood([]), isUnderstood([['note', 'keep']]), isUnderstood([['output', 'text']])]).toEqual([
    true,
    false,
    false,
  ])
})
