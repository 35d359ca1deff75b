// What the newest versions of senders write, and old ones that are still there, after their sources or a run of them.
import { expect, test } from 'vitest'
import { factsOf } from '../lift.ts'
import type { AnyValue } from '../record.ts'
import { resolve } from '../resolve/resolve.ts'
import { isContentKey } from '../speaks.ts'
import { messagesOf, type SpanSketch, sketchLog, sketchSpan } from '../testing.ts'
import {
  type Attributes,
  beside,
  claude,
  eventOf,
  gpt,
  inside,
  priceOf,
  rowsOf,
  says,
  scopeOf,
  thinking,
} from './sketches.ts'

test('events: Logfire’s of Google’s SDK hold a message as one text', () => {
  const call: SpanSketch = {
    ...scopeOf('opentelemetry.instrumentation.google_genai', '0.5b0'),
    attributes: { ...thinking, 'logfire.span_type': 'span' },
    events: [
      eventOf('gen_ai.user.message', { event_body: '{"content":"Where?","role":"user"}' }),
      eventOf('gen_ai.choice', {
        event_body:
          '{"index":0,"finish_reason":"STOP","message":{"role":"assistant","content":["Here.",{"function_call":{"name":"f","args":{"a":1}}}]}}',
      }),
    ],
  }
  expect(messagesOf(call)).toEqual([
    ['input', 'user', 'text', 'Where?'],
    ['output', 'assistant', 'text', 'Here.'],
    ['output', 'assistant', 'tool_call', '{"name":"f","arguments":{"a":1}}'],
  ])
  expect(factsOf(sketchSpan(call)).understood.events).toEqual([0, 1])
})

test('events: one of which something is in no row stays, and what the span repeats is no such thing', () => {
  const understood = (attributes: Attributes, name = 'gen_ai.user.message') =>
    factsOf(sketchSpan({ attributes: gpt, name: 'chat', events: [eventOf(name, attributes)] })).understood.events
  expect(understood({ content: 'Where?', role: 'user', 'gen_ai.system': 'openai' })).toEqual([0])
  expect(understood({ content: 'Where?', 'gen_ai.request.model': 'gpt-4o-mini' })).toEqual([0])
  expect(understood({ content: 'Where?', tool_calls: '[]' }, 'gen_ai.assistant.message')).toEqual([0])
  expect(understood({ content: 'Where?', tool_calls: '[broken' }, 'gen_ai.assistant.message')).toEqual([])
  expect(understood({ text: 'Where?' })).toEqual([])
  expect(understood({ message: 'Here.', content: 'There.' }, 'gen_ai.choice')).toEqual([])
})

test('strands: what tools gave back in a cycle stands beside what the model said', () => {
  const cycle = sketchSpan({
    ...scopeOf('strands.telemetry.tracer'),
    name: 'execute_event_loop_cycle',
    attributes: { 'event_loop.cycle_id': '1' },
    events: [
      eventOf('gen_ai.choice', {
        message: '[{"text":"Let me look."}]',
        'tool.result': '[{"toolResult":{"toolUseId":"t1","content":[{"text":"sunny"}]}}]',
      }),
    ],
  })
  const { texts, understood } = factsOf(cycle)
  expect([...texts.values()]).toEqual(['Let me look.', '{"id":"t1","response":[{"text":"sunny"}]}'])
  expect(understood.events).toEqual([0])
})

const llm: Attributes = {
  'openinference.span.kind': 'LLM',
  'llm.model_name': 'gemini-2.5-flash',
  'llm.token_count.prompt': 1200,
  'llm.token_count.completion': 300,
}

test('openinference: LiteLLM’s count of text in the prompt is not what was cached', () => {
  const attributes = { ...llm, 'llm.token_count.prompt_details.cache_input': 1024 }
  const litellm = scopeOf('openinference.instrumentation.litellm', '0.1.51')
  expect(rowsOf({ ...litellm, attributes }).llmCalls).toMatchObject([
    { CacheReadTokens: null, CostNanoUsd: 1_110_000n },
  ])
  expect(rowsOf({ attributes }).llmCalls).toMatchObject([{ CacheReadTokens: 1024, CostNanoUsd: 833_520n }])
})

test('openinference: how much was cached is in the reply of a call that is the same in all else', () => {
  const replied = (prompt_token_count: number): Attributes => ({
    ...llm,
    'output.value': JSON.stringify({
      usage_metadata: {
        cached_content_token_count: 1024,
        candidates_token_count: 108,
        prompt_token_count,
        thoughts_token_count: 192,
      },
    }),
  })
  const adk = scopeOf('openinference.instrumentation.google_adk')
  expect(rowsOf({ ...adk, attributes: replied(1200) }).llmCalls).toMatchObject([
    { InputTokens: 1200, CacheReadTokens: 1024, UsageSource: 'recovered', CostNanoUsd: 833_520n },
  ])
  expect(rowsOf({ ...adk, attributes: replied(1300) }).llmCalls).toMatchObject([
    { InputTokens: 1200, CacheReadTokens: null, UsageSource: 'provider' },
  ])
})

test.each(['openinference.instrumentation.vertexai', 'openinference.instrumentation.llama_index'])(
  'gemini: %s has the thoughts in the total alone',
  (scope) => {
    const attributes = { ...llm, 'llm.token_count.completion': 108, 'llm.token_count.total': 1500 }
    expect(rowsOf({ ...scopeOf(scope), attributes }).llmCalls).toMatchObject([
      { OutputTokens: 300, ReasoningTokens: 192 },
    ])
    expect(rowsOf({ attributes }).llmCalls).toMatchObject([{ OutputTokens: 108, ReasoningTokens: null }])
  },
)

test('openinference: Bedrock’s Converse counts as Bedrock does, and ended for the reason among its parameters', () => {
  const attributes = {
    ...llm,
    'llm.provider': 'aws',
    'llm.model_name': 'us.anthropic.claude-sonnet-4-5-20250929-v1:0',
    'llm.invocation_parameters': '{"maxTokens":5,"stop_reason":"tool_use"}',
    'llm.token_count.prompt': 5000,
    'llm.token_count.completion': 50,
    'llm.token_count.prompt_details.cache_read': 2000,
    'llm.token_count.total': 7050,
  }
  expect(rowsOf({ ...scopeOf('openinference.instrumentation.bedrock'), attributes }).llmCalls).toMatchObject([
    { InputTokens: 7000, CacheReadTokens: 2000, FinishReason: 'tool_call' },
  ])
})

test('openinference: a realtime answer’s first sound is its first token', () => {
  const attributes = { ...llm, time_to_first_token_ms: 250 }
  expect(rowsOf({ attributes }).llmCalls).toMatchObject([{ Streaming: true, TimeToFirstTokenNano: 250_000_000n }])
})

test('claude agent sdk: in JavaScript the agent’s span is the call, and its input a lower bound', () => {
  const attributes = {
    'openinference.span.kind': 'AGENT',
    'llm.model_name': claude,
    'llm.token_count.prompt': 100,
    'llm.token_count.completion': 50,
    'llm.token_count.total': 150,
    'session.id': 'session-1',
  }
  const scope = scopeOf('@arizeai/openinference-instrumentation-claude-agent-sdk', '0.2.0')
  expect(rowsOf({ ...scope, attributes }).llmCalls).toMatchObject([
    { Provider: 'anthropic', InputTokens: 100, OutputTokens: 50, UsageSource: 'partial', ConversationId: 'session-1' },
  ])
})

test('openinference: Haystack tells nothing of a cache, so of Anthropic its input is a lower bound', () => {
  const haystack = scopeOf('openinference.instrumentation.haystack')
  const attributes = { ...llm, 'llm.provider': 'anthropic', 'llm.model_name': claude }
  expect(rowsOf({ ...haystack, attributes }).llmCalls).toMatchObject([{ InputTokens: 1200, UsageSource: 'partial' }])
  expect(rowsOf({ ...haystack, attributes: llm }).llmCalls).toMatchObject([{ UsageSource: 'provider' }])
})

test('counting: OpenLLMetry’s Bedrock in JavaScript adds what was cached where it tells it', () => {
  const bedrock = scopeOf('@traceloop/instrumentation-bedrock', '0.28.0')
  const attributes = { ...beside, 'gen_ai.provider.name': 'aws.bedrock', 'gen_ai.usage.input_tokens': 7300 }
  expect(rowsOf({ ...bedrock, attributes }).llmCalls).toMatchObject([
    { InputTokens: 7300, CacheReadTokens: 2000, CacheWriteTokens: 300, UsageSource: 'provider' },
  ])
})

test('gemini: OpenLLMetry’s Vertex in JavaScript has the thoughts in the total alone', () => {
  const attributes = {
    'gen_ai.operation.name': 'generate_content',
    'gen_ai.request.model': 'gemini-2.5-flash',
    'gen_ai.usage.prompt_tokens': 1200,
    'gen_ai.usage.completion_tokens': 108,
    'llm.usage.total_tokens': 1500,
  }
  expect(rowsOf({ ...scopeOf('@traceloop/instrumentation-vertexai'), attributes }).llmCalls).toMatchObject([
    { OutputTokens: 300, ReasoningTokens: 192 },
  ])
})

test('log records: a choice’s reason to finish is folded like any other', () => {
  const body = new Map<string, AnyValue>([
    ['finish_reason', 'MAX_TOKENS'],
    ['content', new Map<string, AnyValue>([['parts', [new Map([['text', 'Here.']])]]])],
  ])
  const log = sketchLog({ ...scopeOf('opentelemetry.instrumentation.google_genai'), eventName: 'gen_ai.choice', body })
  const facts = [...factsOf(sketchSpan({ attributes: thinking })).facts, ...factsOf(log).facts]
  expect(resolve(facts, priceOf).llmCalls).toMatchObject([{ FinishReason: 'length' }])
})

test('google’s sdk: a tool is a function, with an attribute for each parameter and one for what it returned', () => {
  const tool = sketchSpan({
    ...scopeOf('opentelemetry.instrumentation.google_genai', '0.5b0'),
    attributes: {
      'gen_ai.operation.name': 'execute_tool',
      'gen_ai.tool.name': 'get_weather',
      'code.function.parameters.city.type': 'str',
      'code.function.parameters.city.value': 'Paris',
      'code.function.parameters.options.value': '{"days":3}',
      'code.function.return.value': 'sunny',
    },
  })
  const { texts, understood } = factsOf(tool)
  expect([...texts.values()]).toEqual(['{"city":"Paris","options":{"days":3}}', 'sunny'])
  expect(understood.attributes).toHaveLength(3)
  expect(understood.attributes.filter((key) => !isContentKey(key))).toEqual([])
})

test('openrouter: cache, reasoning and the reason to finish have names of their own, as has the answer', () => {
  const { 'gen_ai.usage.cache_read.input_tokens': _cached, ...plain } = gpt
  const attributes = {
    ...plain,
    'gen_ai.operation.name': 'chat',
    'gen_ai.usage.input_tokens.cached': 1024,
    'gen_ai.usage.output_tokens.reasoning': 192,
    'gen_ai.response.finish_reason': 'tool_calls',
    'gen_ai.prompt': '{"messages":[{"role":"user","content":"Where?"}]}',
    'gen_ai.completion': '{"completion":"Here.","reasoning":"Hm.","toolCalls":[]}',
  }
  expect(rowsOf({ attributes }).llmCalls).toMatchObject([
    { CacheReadTokens: 1024, ReasoningTokens: 192, CostNanoUsd: 283_200n, FinishReason: 'tool_call' },
  ])
  expect(messagesOf({ attributes })).toEqual([
    ['input', 'user', 'text', 'Where?'],
    ['output', 'assistant', 'reasoning', 'Hm.'],
    ['output', 'assistant', 'text', 'Here.'],
  ])
})

test('mastra: the first token is a moment, and the server of a tool stands where its address belongs', () => {
  const attributes = { ...gpt, 'mastra.completion_start_time': new Date(1_795_000_000_250).toISOString() }
  expect(rowsOf({ attributes: { ...attributes, 'gen_ai.operation.name': 'chat' } }).llmCalls).toMatchObject([
    { Streaming: true, TimeToFirstTokenNano: 250_000_000n },
  ])
  const tool = { 'gen_ai.operation.name': 'execute_tool', 'gen_ai.tool.name': 'f', 'server.address': 'weather' }
  const viaMcp = { ...tool, 'mastra.span.type': 'mcp_tool_call' }
  expect(rowsOf({ attributes: viaMcp }).toolCalls).toMatchObject([{ McpServer: 'weather' }])
  expect(rowsOf({ attributes: tool }).toolCalls).toMatchObject([{ McpServer: '' }])
})

test('mastra: what was cached had a name of its own', () => {
  const { 'gen_ai.usage.cache_read.input_tokens': cached, ...plain } = gpt
  const attributes = { ...plain, 'gen_ai.operation.name': 'chat', 'gen_ai.usage.cached_input_tokens': cached as number }
  expect(rowsOf({ attributes }).llmCalls).toMatchObject([{ CacheReadTokens: 1024, CostNanoUsd: 283_200n }])
})

test('openllmetry: older versions tell the first token by another event', () => {
  const stream: SpanSketch = {
    ...scopeOf('opentelemetry.instrumentation.openai.v1', '0.40.0'),
    attributes: { ...gpt, 'llm.request.type': 'chat' },
    events: [{ ...eventOf('llm.content.completion.chunk', {}), timeUnixNano: 1_795_000_000_250_000_000n }],
  }
  expect(rowsOf(stream).llmCalls).toMatchObject([{ Streaming: true, TimeToFirstTokenNano: 250_000_000n }])
})

test('pydantic ai: what is embedded is read, and a tool that waits for approval is pending in every version', () => {
  const pydantic = scopeOf('pydantic-ai')
  const embeddings = {
    'gen_ai.operation.name': 'embeddings',
    'gen_ai.request.model': 'text-embedding-3-small',
    'gen_ai.usage.input_tokens': 5,
    inputs: '["one","two"]',
  }
  const { texts, understood } = factsOf(sketchSpan({ ...pydantic, attributes: embeddings }))
  expect([[...texts.values()], understood.attributes]).toEqual([['one', 'two'], ['inputs']])
  const deferred = {
    'gen_ai.operation.name': 'execute_tool',
    'gen_ai.tool.name': 'delete_file',
    'pydantic_ai.tool.deferral.name': 'ApprovalRequired',
  }
  for (const status of ['unset', 'error'] as const) {
    const rows = rowsOf({ ...pydantic, status, attributes: deferred })
    expect(rows.toolCalls).toMatchObject([{ Status: 'pending', ErrorType: '' }])
    expect(rows.errors).toEqual([])
  }
})

test('logfire: the calls of Claude’s agent tell what was known when they began', () => {
  const logfire = scopeOf('logfire.claude_agent_sdk', '5.2.0')
  const agent = inside('1', '', {
    ...logfire,
    attributes: {
      ...gpt,
      'gen_ai.operation.name': 'invoke_agent',
      'gen_ai.provider.name': 'anthropic',
      'gen_ai.conversation.id': 'session-1',
    },
  })
  const call = inside('2', '1', {
    ...logfire,
    attributes: {
      'gen_ai.operation.name': 'chat',
      'gen_ai.provider.name': 'anthropic',
      'gen_ai.request.model': claude,
      'gen_ai.usage.partial.input_tokens': 3650,
      'gen_ai.usage.partial.cache_read.input_tokens': 1000,
      'gen_ai.usage.partial.output_tokens': 2,
    },
  })
  expect(rowsOf(agent, call).llmCalls).toMatchObject([
    {
      InputTokens: 3650,
      CacheReadTokens: 1000,
      OutputTokens: 2,
      UsageSource: 'partial',
      ConversationId: 'session-1',
      CostNanoUsd: 8_280_000n,
    },
  ])
})

test('logfire: of MCP it writes each request and its response, on both sides', () => {
  const logfire = scopeOf('logfire.mcp', '5.2.0')
  const request =
    '{"method":"tools/call","params":{"meta":{"traceparent":"00"},"name":"get_weather","arguments":{"city":"Paris"}}}'
  const response = (isError: boolean) => JSON.stringify({ content: [{ type: 'text', text: 'sunny' }], isError })
  const client = inside('1', '', {
    ...logfire,
    name: 'MCP request: tools/call get_weather',
    attributes: { request, 'rpc.method': 'tools/call', response: response(false) },
  })
  const server = inside('2', '1', {
    ...logfire,
    name: 'MCP server handle request: tools/call',
    attributes: { request, response: response(true) },
    resource: { 'service.name': 'weather' },
  })
  expect(rowsOf(client, server).toolCalls).toMatchObject([
    { SpanId: client.spanId, Name: 'get_weather', McpServer: 'weather', Status: 'failure' },
  ])
  expect(rowsOf(client).toolCalls).toMatchObject([{ Status: 'success' }])
  const { texts, understood } = factsOf(sketchSpan(client))
  expect([...texts.values()]).toEqual(['{"city":"Paris"}', response(false)])
  expect(understood.attributes).toEqual(['response', 'request'])
  const ping = inside('3', '', { ...logfire, attributes: { request: '{"method":"ping"}', response: '{}' } })
  expect(rowsOf(ping).healthChecks).toMatchObject([{ Target: 'mcp:ping', Status: 'healthy' }])
  const pending = { ...client, attributes: { request, 'logfire.span_type': 'pending_span' } }
  expect(says(pending)).toBeUndefined()
})

test('content: what LiteLLM and others write beside a call is content, and its counts are none', () => {
  const content = [
    'llm.openai.messages',
    'llm.openai.choices',
    'llm.anthropic.system',
    'llm.vertex_ai.systemInstruction',
    'gen_ai.workflow.input',
    'mastra.agent_run.output',
    'code.function.parameters.city.value',
    'ai.response.files',
    'tool.parameters',
  ]
  expect(content.filter((key) => !isContentKey(key))).toEqual([])
  const others = [
    'llm.token_count.prompt',
    'llm.cost.completion',
    'llm.usage.prompt',
    'llm.openai.model',
    'llm.request.type',
  ]
  expect(others.filter(isContentKey)).toEqual([])
})

test('vercel: a picture that a model made is part of its answer', () => {
  const attributes = {
    'ai.operationId': 'ai.generateText.doGenerate',
    'ai.model.id': 'gemini-2.5-flash-image',
    'ai.response.text': 'Here.',
    'ai.response.files': '[{"type":"file","mediaType":"image/png","data":"AAAA"}]',
  }
  const call = { ...scopeOf('ai'), attributes }
  expect(messagesOf(call).map(([, , type]) => type)).toEqual(['text', 'json'])
  expect(factsOf(sketchSpan(call)).leftover.attributes).toEqual([])
})

test('vercel: Traceloop’s processor puts all under OpenTelemetry’s names, and it is read there', () => {
  const ai = scopeOf('ai')
  const asked = '[{"role":"user","parts":[{"type":"text","content":"Where?"}]}]'
  const call: SpanSketch = {
    ...ai,
    attributes: {
      ...gpt,
      'ai.operationId': 'ai.generateText.doGenerate',
      'gen_ai.operation.name': 'chat',
      'gen_ai.input.messages': asked,
      'gen_ai.output.messages': '[{"role":"assistant","parts":[{"type":"text","content":"Here."}]}]',
      'gen_ai.response.finish_reasons': ['stop'],
    },
  }
  expect(messagesOf(call)).toEqual([
    ['input', 'user', 'text', 'Where?'],
    ['output', 'assistant', 'text', 'Here.'],
  ])
  expect(rowsOf(call).llmCalls).toMatchObject([{ Provider: 'openai', FinishReason: 'stop' }])
  const agent = {
    'ai.operationId': 'ai.generateText',
    'gen_ai.input.messages': asked,
    'traceloop.span.kind': 'agent',
    'traceloop.entity.input': asked,
  }
  expect(says({ ...ai, attributes: agent })).toMatchObject({ kind: 'agent', question: { preview: 'Where?' } })
  const tool = {
    'ai.operationId': 'ai.toolCall',
    'gen_ai.tool.name': 'get_weather',
    'gen_ai.tool.call.id': 'call_1',
    'gen_ai.tool.call.arguments': '{"city":"Paris"}',
    'gen_ai.tool.call.result': '"sunny"',
    'traceloop.entity.input': '{"city":"Paris"}',
    'traceloop.entity.output': '"sunny"',
  }
  expect(rowsOf({ ...ai, name: 'execute_tool get_weather', attributes: tool }).toolCalls).toMatchObject([
    { Name: 'get_weather', CallId: 'call_1', Arguments: { bytes: 16 }, Result: { bytes: 7 } },
  ])
  for (const attributes of [agent, tool])
    expect(factsOf(sketchSpan({ ...ai, attributes })).leftover.attributes).toEqual([])
})

test('operations: an answer in a realtime session and the stages of a voice agent are calls', () => {
  for (const operation of ['realtime_inference', 'speech_to_text', 'text_to_speech']) {
    const attributes = { ...gpt, 'gen_ai.operation.name': operation, 'gen_ai.usage.audio.input_tokens': 100 }
    expect(rowsOf({ attributes }).llmCalls).toMatchObject([{ InputTokens: 1200, OutputTokens: 300 }])
  }
})

test('openlit: Google’s ADK tells the thoughts under a name of its own', () => {
  const { 'gen_ai.usage.total_tokens': _total, ...attributes } = thinking
  const adk = scopeOf('openlit.instrumentation.google_adk', '1.45.0')
  const reasoning = { 'gen_ai.usage.completion_tokens_details.reasoning_tokens': 192 }
  const call = { ...adk, attributes: { ...attributes, 'gen_ai.provider.name': 'gcp.gemini', ...reasoning } }
  expect(rowsOf(call).llmCalls).toMatchObject([{ OutputTokens: 300, ReasoningTokens: 192, CostNanoUsd: 833_520n }])
})

test('content: what was searched for and found, and what an agent remembers, is content', () => {
  const keys = ['gen_ai.retrieval.query.text', 'gen_ai.retrieval.documents', 'gen_ai.memory.records']
  expect(keys.filter((key) => !isContentKey(key))).toEqual([])
})

test('pydantic ai: of older versions a tool has no operation, and what it answers in a list of events has its name', () => {
  const tool = sketchSpan({
    ...scopeOf('pydantic-ai', '0.4.0'),
    name: 'running tool',
    attributes: {
      'gen_ai.tool.name': 'get_weather',
      'gen_ai.tool.call.id': 'call_1',
      tool_arguments: '{"city":"Paris"}',
      tool_response: 'sunny',
    },
  })
  const { facts, leftover } = factsOf(tool)
  expect(resolve(facts, priceOf).toolCalls).toMatchObject([
    { Name: 'get_weather', CallId: 'call_1', Arguments: { bytes: 16 }, Result: { bytes: 5 } },
  ])
  expect(leftover.attributes).toEqual([])
  const events = [
    { 'event.name': 'gen_ai.tool.message', role: 'tool', id: 'call_1', name: 'get_weather', content: 'sunny' },
    { 'event.name': 'gen_ai.choice', index: 0, message: { role: 'assistant', content: 'Sunny.' } },
  ]
  const attributes = { ...gpt, 'gen_ai.operation.name': 'chat', events: JSON.stringify(events) }
  const call: SpanSketch = { ...scopeOf('pydantic-ai', '1.0.0'), attributes }
  expect(messagesOf(call)).toEqual([
    ['input', 'tool', 'tool_call_response', '{"id":"call_1","name":"get_weather","response":"sunny"}'],
    ['output', 'assistant', 'text', 'Sunny.'],
  ])
  expect(factsOf(sketchSpan(call)).leftover.attributes).toEqual([])
})

test('logfire: what a stream was asked stays with its request, as it is in no row of it', () => {
  const attributes = {
    'logfire.span_type': 'span',
    'gen_ai.operation.name': 'chat',
    'gen_ai.request.model': claude,
    'gen_ai.input.messages': '[{"role":"user","parts":[{"type":"text","content":"Where?"}]}]',
    request_data: '{"model":"claude","stream":true}',
  }
  const request = factsOf(sketchSpan({ ...scopeOf('logfire.anthropic', '5.2.0'), attributes }))
  expect([request.facts[0]?.says.kind, request.understood.attributes]).toEqual(['link', []])
  expect(request.leftover.attributes).toEqual(['gen_ai.input.messages', 'request_data'])
})

const bedrockClaude = 'us.anthropic.claude-sonnet-4-5-20250929-v1:0'

test.each([
  // From 1.62 in Python and 1.19 in TypeScript, and as they were before.
  ['strands.telemetry.tracer', claude, 7300, 7350],
  ['strands.telemetry.tracer', bedrockClaude, 7300, 7350],
  ['strands.telemetry.tracer', bedrockClaude, 5000, 7350],
  ['strands-agents', bedrockClaude, 7300, 7350],
  ['strands-agents', bedrockClaude, 5000, 7350],
  // In TypeScript the total of Anthropic's is without the cache, in both.
  ['strands-agents', claude, 5000, 5050],
])('counting: %s asked %s for 7300 tokens with %i of a total of %i', (scope, model, input, total) => {
  const attributes = {
    ...beside,
    'gen_ai.request.model': model,
    'gen_ai.usage.input_tokens': input,
    'gen_ai.usage.total_tokens': total,
  }
  expect(rowsOf({ ...scopeOf(scope), attributes }).llmCalls).toMatchObject([
    { InputTokens: 7300, CacheReadTokens: 2000, CacheWriteTokens: 300, OutputTokens: 50 },
  ])
})

test('openinference: AutoGen’s answers of tools are JSON in a list of their own', () => {
  const attributes = {
    ...llm,
    'llm.input_messages.0.message.role': 'function',
    'llm.input_messages.0.function.0': '{"name":"f","content":"sunny","call_id":"call_1","is_error":false}',
  }
  const call = { ...scopeOf('openinference.instrumentation.autogen_agentchat'), attributes }
  expect(messagesOf(call)).toEqual([
    ['input', 'tool', 'tool_call_response', '{"id":"call_1","name":"f","response":"sunny"}'],
  ])
  expect(factsOf(sketchSpan(call)).leftover.attributes).toEqual([])
})

test('openllmetry: FastMCP’s server knows its name, and client, server and tool are one tool call', () => {
  const mcp = scopeOf('opentelemetry.instrumentation.mcp', '0.62.4')
  const input = '{"tool_name":"get_weather","arguments":{"city":"Paris"}}'
  const output = '[{"type":"text","content":"sunny"}]'
  const tool = {
    'traceloop.span.kind': 'tool',
    'traceloop.entity.name': 'get_weather',
    'traceloop.entity.input': input,
    'traceloop.entity.output': output,
  }
  const client = inside('1', '', { ...mcp, attributes: tool })
  const server = inside('2', '1', {
    ...mcp,
    name: 'mcp.server',
    attributes: {
      'traceloop.span.kind': 'server',
      'traceloop.entity.name': 'mcp.server',
      'traceloop.workflow.name': 'weather',
      'mcp.response.value': output,
    },
  })
  const inner = inside('3', '2', { ...mcp, attributes: { ...tool, 'traceloop.workflow.name': 'weather' } })
  const told = { Name: 'get_weather', McpServer: 'weather', Arguments: { bytes: 16 }, Result: { bytes: 35 } }
  expect(rowsOf(client, server, inner).toolCalls).toMatchObject([{ SpanId: client.spanId, ...told }])
  expect(rowsOf(server, inner).toolCalls).toMatchObject([{ SpanId: server.spanId, ...told }])
  expect(factsOf(sketchSpan(server)).leftover.attributes).toEqual([])
})
