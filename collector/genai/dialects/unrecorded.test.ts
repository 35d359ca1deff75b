// Senders of which no recording could be made, as their sources write: counts, kinds and names, and beside each rule a record
// that it must leave alone.
import { expect, test } from 'vitest'
import { factsOf } from '../lift.ts'
import type { LiftedEvent } from '../record.ts'
import { isContentKey } from '../speaks.ts'
import { messagesOf, type SpanSketch, sketchLog, sketchSpan } from '../testing.ts'
import { type Attributes, beside, claude, gpt, inside, rowsOf, says, scopeOf, thinking } from './sketches.ts'

const springBoot = scopeOf('org.springframework.boot', '4.0.1')
const springCounts: Attributes = {
  'gen_ai.usage.input_tokens': '1200',
  'gen_ai.usage.cache_read.input_tokens': '1024',
  'gen_ai.usage.output_tokens': '300',
  'gen_ai.usage.total_tokens': '1500',
}
const springCall: Attributes = {
  'gen_ai.operation.name': 'chat',
  'gen_ai.system': 'openai',
  'gen_ai.request.model': 'gpt-4o-mini',
  'gen_ai.response.model': 'gpt-4o-mini-2024-07-18',
  'gen_ai.response.finish_reasons': '["TOOL_CALLS"]',
}

test('spring ai: counts are texts, the conversation is the client’s, and a tool has names of its own', () => {
  const client = inside('1', '', {
    ...springBoot,
    attributes: {
      'gen_ai.operation.name': 'framework',
      'gen_ai.system': 'spring_ai',
      'spring.ai.kind': 'chat_client',
      'spring.ai.chat.client.conversation.id': 'conv-7',
    },
  })
  const call = inside('2', '1', { ...springBoot, attributes: { ...springCall, ...springCounts } })
  const tool = inside('3', '1', {
    ...springBoot,
    attributes: {
      // Up to 1.1; then `execute_tool`.
      'gen_ai.operation.name': 'framework',
      'gen_ai.system': 'spring_ai',
      'spring.ai.kind': 'tool_call',
      'spring.ai.tool.definition.name': 'get_weather',
      'spring.ai.tool.type': 'function',
      'spring.ai.tool.call.id': 'call_1',
      'spring.ai.tool.call.arguments': '{"city":"Paris"}',
      'spring.ai.tool.call.result': '"sunny"',
    },
  })
  const { llmCalls, toolCalls } = rowsOf(client, call, tool)
  expect(llmCalls).toMatchObject([
    {
      Provider: 'openai',
      InputTokens: 1200,
      CacheReadTokens: 1024,
      OutputTokens: 300,
      FinishReason: 'tool_call',
      ConversationId: 'conv-7',
      CostNanoUsd: 283_200n,
      UsageSource: 'provider',
    },
  ])
  expect(toolCalls).toMatchObject([{ Name: 'get_weather', CallId: 'call_1', Type: 'function' }])
  const { texts, understood } = factsOf(sketchSpan(tool))
  expect([...texts.values()]).toEqual(['{"city":"Paris"}', '"sunny"'])
  expect(understood.attributes).toEqual(['spring.ai.tool.call.arguments', 'spring.ai.tool.call.result'])
  expect(understood.attributes.filter((key) => !isContentKey(key))).toEqual([])
})

test('spring ai: what it does not know is "none", and of Anthropic without its cache the input is a lower bound', () => {
  const failed = { ...springCall, 'gen_ai.response.model': 'none', 'gen_ai.response.finish_reasons': 'none' }
  expect(rowsOf({ ...springBoot, status: 'error', attributes: failed }).llmCalls).toMatchObject([
    { Model: 'gpt-4o-mini', FinishReason: '', UsageSource: 'none' },
  ])
  const anthropic = { ...springCall, 'gen_ai.system': 'anthropic', 'gen_ai.response.model': claude }
  const counts = { 'gen_ai.usage.input_tokens': '42', 'gen_ai.usage.output_tokens': '9' }
  expect(rowsOf({ ...springBoot, attributes: { ...anthropic, ...counts } }).llmCalls).toMatchObject([
    { InputTokens: 42, OutputTokens: 9, UsageSource: 'partial' },
  ])
})

test('spring ai: a text that is no decimal is absurd, and so is every text from another sender', () => {
  for (const count of ['-1', '1.5', '1e3', '0x10', '', ' 7', '9'.repeat(16), 'many']) {
    const attributes = { ...springCall, ...springCounts, 'gen_ai.usage.input_tokens': count }
    expect(factsOf(sketchSpan({ ...springBoot, attributes })).absurdUsage).toBe(1)
  }
  const other = sketchSpan({ attributes: { ...springCall, ...springCounts, 'spring.ai.kind': 'chat_model' } })
  expect(factsOf(other).absurdUsage).toBe(1)
  expect(says({ ...springBoot, attributes: { 'http.route': '/orders' } })).toBeUndefined()
})

test.each([
  'chat_streaming',
  'interactions',
  'interactions_streaming',
  'chat.completions',
  'text.completions',
  'text_completions',
  'llm_call',
])('operations: %s is a call, and around a chat it is the same call', (operation) => {
  const outer = inside('1', '', { attributes: { ...gpt, 'gen_ai.operation.name': operation } })
  const inner = inside('2', '1', { attributes: { ...gpt, 'gen_ai.operation.name': 'chat' } })
  expect(rowsOf(outer).llmCalls).toMatchObject([{ InputTokens: 1200, CacheReadTokens: 1024, CostNanoUsd: 283_200n }])
  expect(rowsOf(outer, inner).llmCalls).toMatchObject([{ SpanId: inner.spanId, CostNanoUsd: 283_200n }])
})

test('operations: a span that is only named like one that no convention knows is none', () => {
  const unnamed = { 'gen_ai.system': 'openai', 'gen_ai.request.model': 'gpt-4o-mini' }
  for (const name of ['llm_call', 'tool_call search', 'agent_call', 'interactions'])
    expect(says({ name, attributes: unnamed })).toBeUndefined()
})

test('gemini cli: its operations, a tool’s content where calls have messages, output without the thoughts', () => {
  const own: Attributes = { 'gen_ai.agent.name': 'gemini-cli', 'gen_ai.conversation.id': 'session-1' }
  const cli = scopeOf('gemini-cli', 'v1')
  const prompt = inside('1', '', { ...cli, attributes: { ...own, 'gen_ai.operation.name': 'user_prompt' } })
  const call = inside('2', '1', {
    ...cli,
    attributes: {
      ...own,
      'gen_ai.operation.name': 'llm_call',
      'gen_ai.request.model': 'gemini-2.5-pro',
      'gen_ai.input.messages': '[{"role":"user","parts":[{"text":"Where?"}]}]',
      'gen_ai.output.messages': '{"role":"model","parts":[{"functionCall":{"name":"f","args":{}}}]}',
      'gen_ai.usage.input_tokens': 1200,
      'gen_ai.usage.output_tokens': 108,
    },
  })
  const tool = inside('3', '1', {
    ...cli,
    attributes: {
      ...own,
      'gen_ai.operation.name': 'tool_call',
      'gen_ai.tool.name': 'f',
      'gen_ai.tool.call_id': 'call_1',
      'gen_ai.input.messages': '{"city":"Paris"}',
      'gen_ai.output.messages': '{"llmContent":"sunny"}',
    },
  })
  const { llmCalls, toolCalls } = rowsOf(prompt, call, tool)
  expect(llmCalls).toMatchObject([
    {
      Provider: 'gcp.gemini',
      ConversationId: 'session-1',
      InputTokens: 1200,
      OutputTokens: 108,
      UsageSource: 'partial',
    },
  ])
  expect(toolCalls).toMatchObject([{ Name: 'f', CallId: 'call_1' }])
  expect([...factsOf(sketchSpan(tool)).texts.values()]).toEqual(['{"city":"Paris"}', '{"llmContent":"sunny"}'])
  expect(messagesOf(call).map(([direction, , type]) => [direction, type])).toEqual([
    ['input', 'text'],
    ['output', 'tool_call'],
  ])
})

const foundry: Attributes = {
  'az.namespace': 'Microsoft.CognitiveServices',
  'gen_ai.provider.name': 'microsoft.foundry',
  'gen_ai.operation.name': 'invoke_agent',
  'gen_ai.agent.name': 'weather',
}
const foundryCounts: Attributes = {
  'gen_ai.response.model': 'gpt-4o-mini',
  'gen_ai.usage.input_tokens': 1200,
  'gen_ai.usage.output_tokens': 300,
}

test('azure: what a project’s agent answers is one call; calls inside count in its place, and an agent that runs here is none', () => {
  const projects = scopeOf('azure.ai.projects')
  const agent = inside('1', '', { ...projects, spanKind: 'client', attributes: { ...foundry, ...foundryCounts } })
  expect(rowsOf(agent).llmCalls).toMatchObject([
    { Provider: 'azure.ai.openai', InputTokens: 1200, OutputTokens: 300, CostNanoUsd: 360_000n },
  ])
  const call = inside('2', '1', { attributes: { ...gpt, 'gen_ai.operation.name': 'chat' } })
  expect(rowsOf(agent, call).llmCalls).toMatchObject([{ SpanId: call.spanId }])
  expect(says({ ...agent, spanKind: 'internal' })?.kind).toBe('agent')
  expect(says({ ...projects, spanKind: 'client', attributes: foundry })?.kind).toBe('agent')
  const embeddings = { ...foundry, ...foundryCounts, 'gen_ai.operation.name': 'embeddings' }
  expect(says({ ...agent, attributes: embeddings })?.kind).toBe('embedding')
})

const agentSdk = scopeOf('openinference.instrumentation.claude_agent_sdk', '0.1.22')
const claudeAgent: Attributes = {
  'openinference.span.kind': 'AGENT',
  'llm.provider': 'anthropic',
  'llm.model_name': claude,
  'session.id': 'session-1',
  'input.value': 'Where?',
  'output.value': 'Here.',
  // 5000 beside 2000 read and 300 written: its writer adds them up.
  'llm.token_count.prompt': 7300,
  'llm.token_count.completion': 50,
  'llm.token_count.total': 7350,
  'llm.token_count.prompt_details.cache_read': 2000,
  'llm.token_count.prompt_details.cache_write': 300,
}

test('claude agent sdk: the agent’s span is the call, with its tools and with what was said', () => {
  const agent = inside('1', '', { ...agentSdk, attributes: claudeAgent })
  const tool = inside('2', '1', {
    ...agentSdk,
    attributes: { 'openinference.span.kind': 'TOOL', 'tool.name': 'get_weather', 'tool.id': 'toolu_1' },
  })
  const { llmCalls, toolCalls } = rowsOf(agent, tool)
  expect(llmCalls).toMatchObject([
    {
      Provider: 'anthropic',
      InputTokens: 7300,
      CacheReadTokens: 2000,
      CacheWriteTokens: 300,
      OutputTokens: 50,
      ConversationId: 'session-1',
      CostNanoUsd: 17_475_000n,
    },
  ])
  expect(toolCalls).toMatchObject([{ Name: 'get_weather', CallId: 'toolu_1' }])
  expect(messagesOf(agent)).toEqual([
    ['input', 'user', 'text', 'Where?'],
    ['output', 'assistant', 'text', 'Here.'],
  ])
})

test('claude agent sdk: the Anthropic SDK’s own calls inside the agent count in its place', () => {
  const agent = inside('1', '', { ...agentSdk, attributes: claudeAgent })
  const call = (spanId: string, responseId: string) =>
    inside(spanId, '1', {
      ...scopeOf('com.anthropic.sdk.python', '2.12.0'),
      attributes: {
        'gen_ai.operation.name': 'chat',
        'gen_ai.provider.name': 'anthropic',
        'gen_ai.request.model': claude,
        'gen_ai.response.id': responseId,
        'gen_ai.usage.input_tokens': 3650,
        'gen_ai.usage.output_tokens': 25,
      },
    })
  const { llmCalls } = rowsOf(agent, call('2', 'msg_1'), call('3', 'msg_2'))
  expect(llmCalls.map((row) => row.InputTokens)).toEqual([3650, 3650])
})

test('claude agent sdk: an agent that tells no counts, and any other agent, is no call', () => {
  const { 'llm.token_count.prompt': _prompt, ...unmetered } = claudeAgent
  expect(says({ ...agentSdk, attributes: unmetered })?.kind).toBe('agent')
  expect(says({ ...scopeOf('openinference.instrumentation.crewai'), attributes: claudeAgent })?.kind).toBe('agent')
})

test.each([
  ['openlit.instrumentation.litellm', 'litellm', 7300],
  ['openlit.instrumentation.langgraph', 'anthropic', 7300],
  ['openlit.instrumentation.claude_agent_sdk', 'anthropic', 7300],
  ['openlit.instrumentation.anthropic', 'anthropic', 5000],
  ['@openlit/langchain', 'anthropic', 5000],
  ['opentelemetry.instrumentation.bedrock', 'aws.bedrock', 5000],
  ['opentelemetry.instrumentation.anthropic', 'anthropic', 7300],
  // The same numbers, wherever they stand: 2000 read and 300 written.
])('counting: %s says that %s was asked for 7300 tokens with %i', (scope, provider, input) => {
  const attributes = { ...beside, 'gen_ai.provider.name': provider, 'gen_ai.usage.input_tokens': input }
  expect(rowsOf({ ...scopeOf(scope), attributes }).llmCalls).toMatchObject([
    { InputTokens: 7300, CacheReadTokens: 2000, CacheWriteTokens: 300 },
  ])
})

test('counting: OpenLLMetry’s Bedrock is a lower bound where it tells no cache', () => {
  const attributes = {
    'gen_ai.operation.name': 'chat',
    'gen_ai.provider.name': 'aws.bedrock',
    'gen_ai.request.model': claude,
    'gen_ai.usage.input_tokens': 42,
    'gen_ai.usage.output_tokens': 9,
  }
  const { llmCalls } = rowsOf({ ...scopeOf('opentelemetry.instrumentation.bedrock'), attributes })
  expect(llmCalls).toMatchObject([{ InputTokens: 42, UsageSource: 'partial' }])
})

test('openinference: what a part is not has keys of no value, and a text is no call of a tool', () => {
  const part = 'llm.input_messages.0.message.contents.0.message_content'
  const call = 'llm.input_messages.0.message.tool_calls.0.tool_call'
  const attributes = {
    'openinference.span.kind': 'LLM',
    'llm.model_name': claude,
    'llm.input_messages.0.message.role': 'user',
    [`${part}.type`]: 'text',
    [`${part}.text`]: 'Where?',
    [`${part}.image`]: null,
    [`${call}.id`]: null,
    [`${call}.function.name`]: null,
    [`${call}.function.arguments`]: null,
  }
  expect(messagesOf({ attributes })).toEqual([['input', 'user', 'text', 'Where?']])
})

test('vercel: what OpenInference’s processor repeats may go, and what it says otherwise stays', () => {
  const written = (text: string) => ({
    'ai.operationId': 'ai.generateText.doGenerate',
    'ai.prompt.messages': '[{"role":"user","content":[{"type":"text","text":"Where?"}]}]',
    'openinference.span.kind': 'LLM',
    'input.value': '[{"role":"user","content":[{"type":"text","text":"Where?"}]}]',
    'llm.input_messages.0.message.role': 'user',
    'llm.input_messages.0.message.content': text,
  })
  const leftOf = (text: string) => factsOf(sketchSpan({ ...scopeOf('ai'), attributes: written(text) })).leftover
  expect(leftOf('Where?').attributes).toEqual([])
  expect(leftOf('When?').attributes).toEqual([
    'llm.input_messages.0.message.role',
    'llm.input_messages.0.message.content',
  ])
})

test('counting: OpenInference’s Agno hands on what the provider said', () => {
  const { 'llm.token_count.total': _total, ...untold } = claudeAgent
  const attributes = { ...untold, 'openinference.span.kind': 'LLM', 'llm.token_count.prompt': 5000 }
  const agno = { ...scopeOf('openinference.instrumentation.agno', '1.0.3'), attributes }
  expect(rowsOf(agno).llmCalls).toMatchObject([{ InputTokens: 7300, CostNanoUsd: 17_475_000n }])
  const openai = { ...attributes, 'llm.provider': 'OpenAI', 'llm.model_name': 'gpt-4o-mini' }
  expect(rowsOf({ ...agno, attributes: openai }).llmCalls).toMatchObject([{ InputTokens: 5000 }])
})

test.each([
  ['bedrock.anthropic.messages', 'aws.bedrock'],
  ['googleVertex.anthropic.messages', 'gcp.vertex_ai'],
  ['togetherai.chat', 'together_ai'],
])('vercel: %s is %s', (said, provider) => {
  const attributes = {
    'ai.operationId': 'ai.generateText.doGenerate',
    'ai.model.provider': said,
    'ai.model.id': `us.anthropic.${claude}-v1:0`,
    'ai.usage.inputTokens': 7300,
    'ai.usage.inputTokenDetails.cacheReadTokens': 2000,
    'ai.usage.inputTokenDetails.cacheWriteTokens': 300,
    'ai.usage.outputTokens': 50,
  }
  expect(rowsOf({ ...scopeOf('ai'), attributes }).llmCalls).toMatchObject([{ Provider: provider, InputTokens: 7300 }])
})

test('openlit: of a stream the time to its first token counts, of a whole reply it is none', () => {
  const litellm = scopeOf('openlit.instrumentation.litellm')
  const attributes = { ...beside, 'gen_ai.server.time_to_first_token': 0.9 }
  const whole = { ...litellm, attributes: { ...attributes, 'gen_ai.request.stream': false } }
  expect(rowsOf(whole).llmCalls).toMatchObject([{ Streaming: false, TimeToFirstTokenNano: null }])
  const stream = { ...litellm, attributes: { ...attributes, 'gen_ai.request.stream': true } }
  expect(rowsOf(stream).llmCalls).toMatchObject([{ Streaming: true, TimeToFirstTokenNano: 900_000_000n }])
})

test.each(['google_generativeai', 'vertexai'])(
  'gemini: OpenLLMetry’s %s has the thoughts in the total alone',
  (name) => {
    const scope = scopeOf(`opentelemetry.instrumentation.${name}`, '0.62.1')
    expect(rowsOf({ ...scope, attributes: thinking }).llmCalls).toMatchObject([
      { InputTokens: 1200, CacheReadTokens: 1024, OutputTokens: 300, ReasoningTokens: 192, CostNanoUsd: 833_520n },
    ])
    const plain = { ...thinking, 'gen_ai.usage.total_tokens': 1308 }
    expect(rowsOf({ ...scope, attributes: plain }).llmCalls).toMatchObject([
      { OutputTokens: 108, ReasoningTokens: null },
    ])
    const broken = { ...thinking, 'gen_ai.usage.output_tokens': '108' }
    expect(factsOf(sketchSpan({ ...scope, attributes: broken })).absurdUsage).toBe(1)
  },
)

test('gemini: from any other sender a total that is more than its parts adds nothing', () => {
  expect(rowsOf({ attributes: thinking }).llmCalls).toMatchObject([{ OutputTokens: 108, ReasoningTokens: null }])
})

test('google adk: the reply on the span tells the thoughts, of Google’s models alone', () => {
  const reply = {
    content: { parts: [{ text: 'Here.' }], role: 'model' },
    usage_metadata: {
      cached_content_token_count: 1024,
      candidates_token_count: 108,
      prompt_token_count: 1200,
      thoughts_token_count: 192,
      total_token_count: 1500,
    },
  }
  const attributes = {
    'gen_ai.system': 'gcp.vertex.agent',
    'gen_ai.request.model': 'gemini-2.5-flash',
    'gen_ai.usage.input_tokens': 1200,
    'gen_ai.usage.output_tokens': 108,
    'gcp.vertex.agent.llm_response': JSON.stringify(reply),
  }
  const adk = { ...scopeOf('gcp.vertex.agent', '1.18.0'), name: 'call_llm' }
  expect(rowsOf({ ...adk, attributes }).llmCalls).toMatchObject([
    {
      Provider: 'gcp.gemini',
      OutputTokens: 300,
      ReasoningTokens: 192,
      CacheReadTokens: 1024,
      UsageSource: 'recovered',
    },
  ])
  // By LiteLLM: what others thought is in their output.
  const other = { ...attributes, 'gen_ai.request.model': 'openai/o4-mini', 'gen_ai.usage.output_tokens': 300 }
  expect(rowsOf({ ...adk, attributes: other }).llmCalls).toMatchObject([{ OutputTokens: 300, UsageSource: 'provider' }])
  const tool = { 'gen_ai.operation.name': 'execute_tool', 'gcp.vertex.agent.llm_response': '{}' }
  expect(says({ ...adk, attributes: tool })?.kind).toBe('tool')
})

test('llamaindex: a task that asks a model is a call, one around another sender’s call repeats it, all others wrap', () => {
  const task: Attributes = { ...gpt, 'traceloop.span.kind': 'task', 'gen_ai.provider.name': 'openai_llm' }
  const llamaindex = scopeOf('opentelemetry.instrumentation.llamaindex', '0.62.4')
  const outer = inside('1', '', { ...llamaindex, attributes: { ...task, 'gen_ai.operation.name': 'chat' } })
  const inner = inside('2', '1', { attributes: { ...gpt, 'gen_ai.operation.name': 'chat' } })
  expect(rowsOf(outer).llmCalls).toMatchObject([{ Provider: 'openai', CostNanoUsd: 283_200n }])
  expect(rowsOf(outer, inner).llmCalls).toMatchObject([{ SpanId: inner.spanId }])
  expect(says({ ...outer, attributes: { ...task, 'gen_ai.operation.name': 'rerank' } })?.kind).toBe('wrapper')
  expect(says({ ...outer, ...scopeOf('opentelemetry.instrumentation.langchain') })?.kind).toBe('wrapper')
})

test('langsmith: a count that cannot be is not made good by what LangChain says beside it', () => {
  const usage_metadata = { input_tokens: 10, output_tokens: 5, total_tokens: 15 }
  const completion = JSON.stringify({
    generations: [[{ text: 'Here.', message: { lc: 1, kwargs: { content: 'Here.', usage_metadata } } }]],
    type: 'LLMResult',
  })
  const attributes = { ...gpt, 'langsmith.span.kind': 'llm', 'gen_ai.completion': completion }
  expect(rowsOf({ ...scopeOf('langsmith'), attributes }).llmCalls).toMatchObject([{ InputTokens: 10 }])
  const absurd = { ...attributes, 'gen_ai.usage.input_tokens': -1 }
  expect(factsOf(sketchSpan({ ...scopeOf('langsmith'), attributes: absurd })).absurdUsage).toBe(1)
})

test('langchain: writes are told once, as a total or by how long they are kept, and one that is no count spoils them', () => {
  const callWith = (details: object): SpanSketch => ({
    ...scopeOf('langsmith'),
    attributes: {
      ...gpt,
      'gen_ai.request.model': claude,
      'langsmith.span.kind': 'llm',
      'langsmith.usage_metadata': JSON.stringify({
        input_tokens: 7300,
        output_tokens: 50,
        input_token_details: details,
      }),
    },
  })
  const split = { ephemeral_5m_input_tokens: 100, ephemeral_1h_input_tokens: 200 }
  for (const details of [{ cache_creation: 0, ...split }, { cache_creation: 300, ...split }, split])
    expect(rowsOf(callWith(details)).llmCalls).toMatchObject([{ InputTokens: 7300, CacheWriteTokens: 300 }])
  const broken = { cache_creation: 0, ephemeral_5m_input_tokens: 'many' }
  expect(factsOf(sketchSpan(callWith(broken))).absurdUsage).toBe(1)
})

test('semantic kernel: in .NET a call has its own operation, and its reason to finish in its choice', () => {
  const event = (name: string, content: object): LiftedEvent => ({
    name,
    timeUnixNano: 0n,
    attributes: new Map([['gen_ai.event.content', JSON.stringify(content)]]),
  })
  const call: SpanSketch = {
    ...scopeOf('Microsoft.SemanticKernel.Diagnostics'),
    spanKind: 'client',
    attributes: { ...gpt, 'gen_ai.operation.name': 'chat.completions' },
    events: [
      event('gen_ai.user.message', { role: 'user', content: 'Where?', tool_calls: [] }),
      event('gen_ai.choice', {
        index: 0,
        message: {
          role: 'Assistant',
          content: null,
          tool_calls: [{ id: 'c', function: { name: 'f', arguments: {} } }],
        },
        finish_reason: 'ToolCalls',
      }),
    ],
  }
  expect(rowsOf(call).llmCalls).toMatchObject([{ InputTokens: 1200, FinishReason: 'tool_call' }])
})

test('semantic kernel: in Python a log’s body is the text of its JSON; of all others a text is what was said', () => {
  const body = '{"message":{"role":"assistant","content":"Here."},"finish_reason":"stop"}'
  const messageOf = (scope: string) => {
    const log = sketchLog({ ...scopeOf(scope), eventName: 'gen_ai.choice', body })
    const { facts, texts } = factsOf(log)
    const said = facts[0]?.says
    return said?.kind === 'messages' ? said.messages.map(({ content }) => texts.get(content.hash)) : []
  }
  expect(messageOf('semantic_kernel.utils.telemetry.model_diagnostics.decorators')).toEqual(['Here.'])
  expect(messageOf('app')).toEqual([body])
})
