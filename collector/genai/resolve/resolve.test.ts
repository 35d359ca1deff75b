import { describe, expect, test } from 'vitest'
import { estimateFact, type Fact, linkFact } from '../fact.ts'
import { factsOf, linkOf } from '../lift.ts'
import { openPrices } from '../price.ts'
import type { AnyValue, LiftedRecord } from '../record.ts'
import type { Gone, Resolved } from '../rows.ts'
import { readRecorded, type SpanSketch, seededRandom, sketchLog, sketchSpan } from '../testing.ts'
import { resolve } from './resolve.ts'

const priceOf = openPrices([])
const second = 1_000_000_000n
const t0 = 1_795_000_000n * second

function at(from: number, to: number): Pick<SpanSketch, 'startUnixNano' | 'endUnixNano'> {
  return { startUnixNano: t0 + BigInt(from) * second, endUnixNano: t0 + BigInt(to) * second }
}

type Sketch = SpanSketch & { readonly spanId: string }

function span(
  spanId: string,
  parentSpanId: string,
  attributes: Record<string, AnyValue>,
  more: SpanSketch = {},
): Sketch {
  return { ...more, spanId, parentSpanId, attributes: { ...attributes, ...more.attributes } } as Sketch
}

const chat = {
  'gen_ai.operation.name': 'chat',
  'gen_ai.provider.name': 'openai',
  'gen_ai.request.model': 'gpt-4o-mini',
}
const used = (input: number, output: number) => ({
  'gen_ai.usage.input_tokens': input,
  'gen_ai.usage.output_tokens': output,
})
const agent = { 'gen_ai.operation.name': 'invoke_agent', 'gen_ai.agent.name': 'a' }
const tool = { 'gen_ai.operation.name': 'execute_tool', 'gen_ai.tool.name': 'search' }
const asked = (text: string) => ({
  'gen_ai.input.messages': JSON.stringify([{ role: 'user', parts: [{ type: 'text', content: text }] }]),
})
const failed: SpanSketch = {
  status: 'error',
  statusMessage: 'overloaded',
  attributes: { 'error.type': 'server_error' },
}

function factsOfAll(records: readonly (Sketch | LiftedRecord)[]): Fact[] {
  return records.flatMap(
    (record) =>
      factsOf('scope' in record && record.kind ? (record as LiftedRecord) : sketchSpan(record as Sketch)).facts,
  )
}

function rows(...records: readonly (Sketch | LiftedRecord)[]): Resolved {
  const facts = factsOfAll(records)
  const resolved = resolve(facts, priceOf)
  expect(resolve(facts.toReversed(), priceOf)).toEqual(resolved)
  return resolved
}

const idsOf = (list: readonly { readonly SpanId: string }[]) => list.map((row) => row.SpanId)

test('resolve: of chats inside chats the innermost meters, and knows what those around it said', () => {
  const { llmCalls, messages } = rows(
    span('1', '', { ...chat, ...used(10, 1), ...asked('hi'), 'gen_ai.conversation.id': 'c' }),
    span('2', '1', { ...chat, ...used(20, 2) }),
    span('3', '2', { ...chat, ...used(30, 3) }),
  )
  expect(llmCalls).toMatchObject([{ SpanId: '3', InputTokens: 30, OutputTokens: 3, ConversationId: 'c' }])
  expect(messages).toMatchObject([{ SpanId: '3', Role: 'user', Content: { preview: 'hi' } }])
})

test('resolve: an innermost chat that knows no usage takes that of the one around it', () => {
  const { llmCalls } = rows(span('1', '', { ...chat, ...used(10, 1) }), span('2', '1', chat))
  expect(llmCalls).toMatchObject([{ SpanId: '2', InputTokens: 10, UsageSource: 'provider' }])
})

describe('two senders that saw the same call, side by side', () => {
  const native = { scope: { name: 'com.anthropic.sdk.python', version: '2.12.0' } }
  const root = span('r', '', agent, at(0, 100))
  const of = (id: string) => ({ ...chat, 'gen_ai.response.id': id })

  test('resolve: one that does not know the response and one that does are one call, which the SDK itself tells', () => {
    const other = span('1', 'r', { ...chat, ...used(10, 6), ...asked('hi') }, at(1, 3))
    const told = span('2', 'r', { ...of('m'), ...used(10, 5) }, { ...at(1, 2), ...native })
    const { llmCalls, messages, gone } = rows(root, other, told)
    expect(llmCalls).toMatchObject([{ SpanId: '2', OutputTokens: 5, ResponseId: 'm' }])
    expect(messages).toMatchObject([{ SpanId: '2', Content: { preview: 'hi' } }])
    expect(gone).toContainEqual({ table: 'llm_calls', spanId: '1' })
  })

  test('resolve: calls at the same time are as many as each of the two saw', () => {
    const seen = ['a', 'b', 'c'].flatMap((name, index) => [
      span(`${name}1`, 'r', { ...chat, ...used(1, index) }, at(1, 10 * index + 11)),
      span(`${name}2`, 'r', { ...of(name), ...used(1, index) }, { ...at(1, 10 * index + 10), ...native }),
    ])
    expect(idsOf(rows(root, ...seen).llmCalls).toSorted()).toEqual(['a2', 'b2', 'c2'])
  })

  test.each([
    ['of one sender', chat, {}, 'r', at(1, 3)],
    ['of other responses', of('n'), native, 'r', at(1, 3)],
    ['of another model', { ...chat, 'gen_ai.request.model': 'gpt-4o' }, native, 'r', at(1, 3)],
    ['of another parent', chat, native, 'p', at(1, 3)],
    ['at another time', chat, native, 'r', at(4, 5)],
  ] as const)('resolve: two are two calls when they are %s', (_what, attributes, scope, parentSpanId, times) => {
    const first = span('1', 'r', { ...of('m'), ...used(10, 6) }, at(1, 3))
    const second = span('2', parentSpanId, { ...attributes, ...used(10, 5) }, { ...times, ...scope })
    expect(idsOf(rows(root, span('p', 'r', tool, at(1, 5)), first, second).llmCalls)).toEqual(['1', '2'])
  })
})

test('resolve: a call inside one that failed failed with it only if it does not tell its end', () => {
  const outer = span('1', '', chat, failed)
  const told = { ...chat, ...used(1, 1), 'gen_ai.response.finish_reasons': ['stop'] }
  expect(rows(outer, span('2', '1', chat)).llmCalls).toMatchObject([{ SpanId: '2', ErrorType: 'server_error' }])
  expect(rows(outer, span('2', '1', told)).llmCalls).toMatchObject([{ SpanId: '2', ErrorType: '' }])
})

test('resolve: a tool between two chats makes them two calls', () => {
  const { llmCalls, toolCalls } = rows(
    span('1', '', { ...chat, ...used(10, 1) }),
    span('2', '1', tool),
    span('3', '2', { ...chat, ...used(20, 2) }),
  )
  expect(llmCalls.map((row) => row.InputTokens)).toEqual([10, 20])
  expect(idsOf(toolCalls)).toEqual(['2'])
})

test('resolve: a chat around several chats counts nothing, and its content belongs to none of them', () => {
  const [outer, first, second] = [
    span('1', '', { ...chat, ...used(30, 3), ...asked('hi') }),
    span('2', '1', { ...chat, ...used(10, 1) }, at(0, 1)),
    span('3', '1', { ...chat, ...used(20, 2) }, at(1, 2)),
  ]
  expect(rows(outer, first).messages).toMatchObject([{ SpanId: '2', Index: 0 }])
  const { llmCalls, messages, wrapperMessages, gone } = rows(outer, first, second)
  expect(gone).toContainEqual({ table: 'messages', spanId: '2', direction: 'input', fromIndex: 0, toIndex: 1 })
  expect(llmCalls.map((row) => row.InputTokens)).toEqual([10, 20])
  expect(messages).toEqual([])
  expect(wrapperMessages).toMatchObject([{ SpanId: '1', Content: { preview: 'hi' } }])
})

test('resolve: what stands around a call is no message of it, and what repeats it is a row only if it says more', () => {
  const said = (...records: readonly (Sketch | LiftedRecord)[]) => {
    const { messages, wrapperMessages } = rows(...records)
    return [messages, wrapperMessages].map((list) => list.map((row) => `${row.SpanId} ${row.Content.preview}`))
  }
  const inside = span('2', '1', { ...chat, ...asked('hi') })
  expect(said(span('1', '', { ...agent, ...asked('hi'), 'user.id': 'ada' }), inside)).toEqual([['2 hi'], ['1 hi']])
  expect(said(span('1', '', { ...chat, ...asked('hi') }), inside)).toEqual([['2 hi'], []])
  const more = [
    { role: 'user', content: 'hi' },
    { role: 'user', content: 'and?' },
  ]
  const longer = { 'gen_ai.input.messages': JSON.stringify(more) }
  expect(said(span('1', '', { ...chat, ...longer }), inside)).toEqual([['2 hi', '2 and?'], []])
  expect(said(span('1', '', { ...chat, ...asked('hi') }), span('2', '1', { ...chat, ...asked('hello') }))).toEqual([
    ['2 hello'],
    ['1 hi'],
  ])
  // Of a span that is not there, or that says nothing of models.
  const log = sketchLog({ spanId: '2', eventName: 'gen_ai.user.message', body: new Map([['content', 'hi']]) })
  expect(said(log)).toEqual([[], ['2 hi']])
  expect(said(log, span('2', '', chat))).toEqual([['2 hi'], []])
  const { wrapperMessages } = rows(span('1', '', { ...agent, ...asked('hi'), 'user.id': 'ada' }), inside)
  expect(wrapperMessages).toMatchObject([{ UserId: 'ada', Direction: 'input', Index: 0, Role: 'user' }])
})

test('resolve: a log record of no span keeps its message: it would be a row of nobody', () => {
  const log = { eventName: 'gen_ai.user.message', body: new Map([['content', 'hi']]) }
  expect(factsOf(sketchLog(log)).understood.body).toBe(true)
  expect(factsOf(sketchLog({ ...log, spanId: '' })).understood.body).toBe(false)
})

test('resolve: agents and wrappers never count, whatever tokens they repeat', () => {
  const { llmCalls, turns } = rows(
    span('1', '', { ...agent, ...used(99, 99) }, at(0, 9)),
    span('2', '1', { ...chat, ...used(10, 1) }, at(1, 2)),
  )
  expect(llmCalls).toHaveLength(1)
  expect(turns).toMatchObject([{ TurnId: '1', Calls: 1, InputTokens: 10, OutputTokens: 1, DurationNano: 9n * second }])
})

const reply = (id: string) => ({ ...chat, 'gen_ai.response.id': id })

test.each([
  ['equal ids that overlap in time', reply('r'), at(0, 3), reply('r'), at(1, 2), 1],
  ['equal ids one after the other', reply('r'), at(0, 1), reply('r'), at(1, 2), 2],
  ['equal ids of two providers', reply('r'), at(0, 3), { ...reply('r'), 'gen_ai.provider.name': 'groq' }, at(1, 2), 2],
  ['two ids that overlap in time', reply('r'), at(0, 3), reply('s'), at(1, 2), 2],
  ['no ids', chat, at(0, 3), chat, at(1, 2), 2],
] as const)('resolve: side by side, %s', (_case, a, timeOfA, b, timeOfB, calls) => {
  const { llmCalls } = rows(span('1', '', { ...a, ...used(10, 1) }, timeOfA), span('2', '', b, timeOfB))
  expect(llmCalls).toHaveLength(calls)
  expect(llmCalls[0]).toMatchObject({ SpanId: '1', InputTokens: 10 })
})

test('resolve: what follows a failed call with the same input is another attempt', () => {
  const { llmCalls } = rows(
    span('1', '', agent, at(0, 9)),
    span('2', '1', { ...chat, ...asked('hi') }, { ...at(0, 1), ...failed }),
    span('3', '1', { ...chat, ...asked('hi') }, { ...at(1, 2), ...failed }),
    span('4', '1', { ...chat, ...asked('hi'), ...used(1, 1) }, at(2, 3)),
    span('5', '1', { ...chat, ...asked('hi'), ...used(1, 1) }, at(3, 4)),
    span('6', '1', { ...chat, ...asked('ho'), ...used(1, 1) }, at(4, 5)),
  )
  expect(llmCalls.map((row) => row.Attempt)).toEqual([1, 2, 3, 1, 1])
})

test('resolve: attempts that are told are believed', () => {
  const { llmCalls } = rows(
    span('1', '', { ...chat, 'tallylight.call.id': 'c', 'tallylight.attempt': 1 }, at(0, 1)),
    span('2', '', { ...chat, 'tallylight.call.id': 'c', 'tallylight.attempt': 2 }, at(1, 2)),
    span('3', '', { ...chat, 'http.request.resend_count': 2 }, at(2, 3)),
  )
  expect(llmCalls.map((row) => [row.CallId, row.Attempt])).toEqual([
    ['c', 1],
    ['c', 2],
    ['', 3],
  ])
})

test('resolve: calls of a probe, and under a health check, are in nobody’s usage', () => {
  const { llmCalls, toolCalls, turns, errors, healthChecks } = rows(
    span('1', '', { 'url.path': '/healthz', 'http.response.status_code': 200 }, { spanKind: 'server' }),
    span('2', '1', { ...chat, ...used(10, 1) }),
    span('3', '', { ...agent, 'tallylight.probe': true }),
    span('4', '3', { ...chat, ...used(10, 1) }),
    span('5', '3', tool, failed),
    span('6', '3', agent, failed),
  )
  expect([llmCalls, toolCalls, turns, errors]).toEqual([[], [], [], []])
  expect(healthChecks).toMatchObject([{ Target: '/healthz', Status: 'healthy', EventType: 'http' }])
})

test('resolve: our turn span is the turn, whatever stands around it; nested ones belong to the outermost', () => {
  const turn = { 'tallylight.turn.id': 't', 'tallylight.turn.channel': 'SSE' }
  const { turns, llmCalls } = rows(
    span('1', '', agent, at(0, 9)),
    span('2', '1', { ...turn, 'client.address': '10.0.0.1' }, at(1, 8)),
    span('3', '2', { 'tallylight.turn.id': 'inner', 'tallylight.turn.channel': 'REST' }, at(2, 7)),
    span('4', '3', { ...chat, ...asked('hi'), ...used(10, 1), 'gen_ai.response.time_to_first_chunk': 0.5 }, at(3, 4)),
  )
  expect(llmCalls).toMatchObject([{ TurnId: 't' }])
  expect(turns).toMatchObject([
    {
      TurnId: 't',
      Channel: 'SSE',
      ClientAddress: '10.0.0.1',
      Calls: 1,
      QuestionPreview: 'hi',
      Status: 'success',
      TimeToFirstTokenNano: 2_500_000_000n,
    },
  ])
})

test('resolve: a turn whose span is still open is pending, and complete when it comes', () => {
  const call = span('2', '1', { ...chat, ...used(10, 1), 'tallylight.turn.id': 't' })
  expect(rows(call).turns).toMatchObject([{ TurnId: 't', Status: 'pending', Calls: 1 }])
  const turn = span('1', '', { 'tallylight.turn.id': 't', 'tallylight.turn.channel': 'REST' })
  const blocked = { 'tallylight.turn.block_reason': 'limit of the day' }
  expect(rows(call, turn).turns).toMatchObject([{ TurnId: 't', Status: 'success' }])
  expect(rows(call, { ...turn, attributes: { ...turn.attributes, ...blocked } }).turns).toMatchObject([
    { Status: 'blocked', BlockReason: 'limit of the day' },
  ])
})

test('resolve: a conversation named higher up is better than a session named below', () => {
  const { llmCalls } = rows(
    span('1', '', { ...agent, 'gen_ai.conversation.id': 'conv', 'session.id': 'tab-1' }),
    span('2', '1', { ...chat, 'session.id': 'tab-2', 'user.id': 'u' }),
  )
  expect(llmCalls).toMatchObject([{ ConversationId: 'conv', UserId: 'u' }])
})

test('resolve: what the way up does not tell is taken from the trace, unless it contradicts itself', () => {
  const calls = [span('1', '', chat), span('2', '', { ...chat, 'session.id': 's', 'user.id': 'u' })]
  expect(rows(...calls).llmCalls.map((row) => [row.ConversationId, row.UserId])).toEqual([
    ['s', 'u'],
    ['s', 'u'],
  ])
  const other = span('3', '', { ...chat, 'session.id': 'other', 'user.id': 'u' })
  expect(rows(...calls, other).llmCalls.map((row) => [row.ConversationId, row.UserId])).toEqual([
    ['', 'u'],
    ['s', 'u'],
    ['other', 'u'],
  ])
})

test('resolve: parents that are in no fact are named, and a link to them carries what they know', () => {
  const call = span('3', '2', { ...chat, ...used(1, 1) })
  expect(rows(call).missingParents).toEqual(['2'])
  const linked = [
    ...factsOfAll([call]),
    linkOf(sketchSpan(span('2', '1', {}))),
    linkOf(sketchSpan(span('1', '', { 'enduser.id': 'u', 'client.address': '::1' }))),
  ]
  const { llmCalls, turns, missingParents } = resolve(linked, priceOf)
  expect(llmCalls).toMatchObject([{ UserId: 'u' }])
  expect(turns).toMatchObject([{ ClientAddress: '::1', UserId: 'u' }])
  expect(missingParents).toEqual([])
})

test('resolve: spans that are their own ancestors are resolved like any other', () => {
  const circle = rows(
    span('1', '2', { ...chat, ...used(1, 1) }),
    span('2', '1', agent),
    span('3', '3', { ...chat, ...used(2, 2) }),
  )
  expect(circle.llmCalls.map((row) => row.InputTokens)).toEqual([1, 2])
})

test('resolve: ten thousand spans in one chain do not look at each other', { timeout: 20_000 }, () => {
  const chain = Array.from({ length: 10_000 }, (_, depth) =>
    span(`s${depth}`, depth === 0 ? '' : `s${depth - 1}`, depth % 2 === 0 ? agent : { ...chat, ...used(1, 1) }),
  )
  const facts = factsOfAll(chain)
  expect(resolve(facts, priceOf).llmCalls).toHaveLength(1)
})

test('resolve: one failure is one error, however often it is passed up or repeated', () => {
  const exception = (message: string) => ({
    name: 'exception',
    timeUnixNano: 0n,
    attributes: new Map([
      ['exception.type', 'RateLimitError'],
      ['exception.message', message],
    ]),
  })
  const { errors, llmCalls } = rows(
    span('1', '', agent, { status: 'error', statusMessage: 'RateLimitError: 429 slow down' }),
    span('2', '1', chat, { status: 'error', events: [exception('429 slow down')] }),
    span('3', '2', chat, { status: 'error', attributes: { 'error.type': 'rate_limit_error' } }),
    span('4', '1', tool, { status: 'error', statusMessage: 'no such city' }),
  )
  expect(llmCalls).toMatchObject([{ SpanId: '3', ErrorType: 'RateLimitError' }])
  expect(errors.map((row) => [row.SpanId, row.Type, row.Message])).toEqual([
    ['4', 'unknown', 'no such city'],
    ['3', 'RateLimitError', '429 slow down'],
  ])
})

test('resolve: the tool of an agent, its MCP client and the server are one tool call', () => {
  const viaMcp = { 'mcp.method.name': 'tools/call' }
  const { toolCalls } = rows(
    span('1', '', { ...tool, 'gen_ai.tool.call.id': 'c', 'gen_ai.tool.call.arguments': '{}' }),
    span('2', '1', viaMcp, { name: 'MCP send tools/call search', spanKind: 'client' }),
    span(
      '3',
      '2',
      { ...viaMcp, 'gen_ai.tool.name': 'search', 'error.type': 'tool_error' },
      {
        spanKind: 'server',
        status: 'error',
        resource: { 'service.name': 'search-server' },
      },
    ),
  )
  expect(toolCalls).toMatchObject([
    { SpanId: '1', CallId: 'c', McpServer: 'search-server', Status: 'failure', ErrorType: 'tool_error' },
  ])
})

test('resolve: a tool that two instrumentations tell, one inside the other, is one call, and one that calls itself is two', () => {
  const weather = { 'tool.name': 'search', 'input.value': '{"q":"a"}', 'openinference.span.kind': 'TOOL' }
  const told = { ...tool, 'gen_ai.tool.call.id': 'call_1' }
  expect(rows(span('a', '', agent), span('b', 'a', weather), span('c', 'b', told)).toolCalls).toMatchObject([
    { SpanId: 'b', Name: 'search', CallId: 'call_1', Arguments: { bytes: 9 } },
  ])
  const given = (q: string) => ({ ...tool, 'gen_ai.tool.call.arguments': JSON.stringify({ q }) })
  expect(rows(span('b', '', given('a')), span('c', 'b', given('a'))).toolCalls).toHaveLength(1)
  expect(rows(span('b', '', given('a')), span('c', 'b', given('b'))).toolCalls).toHaveLength(2)
  expect(rows(span('b', '', weather), span('c', 'b', told), span('d', 'b', told)).toolCalls).toHaveLength(3)
  const ids = { ...weather, 'tool.id': 'call_0' }
  expect(rows(span('b', '', ids), span('c', 'b', told)).toolCalls).toHaveLength(2)
})

test('resolve: what a record of a span says beside the longest is a row as well', () => {
  const list = (text: string) => `[{"role":"user","parts":[{"type":"text","content":"${text}"}]}]`
  const details = sketchLog({
    spanId: '1',
    eventName: 'gen_ai.client.inference.operation.details',
    attributes: { 'gen_ai.input.messages': list('of the log'), 'gen_ai.output.messages': list('out') },
  })
  const around = rows(span('1', '', { ...agent, ...asked('of the span') }), details)
  expect(around.wrapperMessages.map((row) => row.Content.preview).toSorted()).toEqual([
    'of the log',
    'of the span',
    'out',
  ])
  const call = rows(span('1', '', { ...chat, ...asked('of the span') }), details)
  expect(call.messages.map((row) => row.Content.preview)).toEqual(['of the span', 'out'])
  expect(call.wrapperMessages.map((row) => row.Content.preview)).toEqual(['of the log'])
})

describe('resolve: a tool that was seen on the wire', () => {
  const seen = (id: string, name = 'search') => ({
    ...tool,
    'gen_ai.tool.name': name,
    'gen_ai.tool.call.id': id,
    'gen_ai.tool.call.result': `result of ${id}`,
    'tallylight.tool.seen_on': 'wire',
  })
  const turn = span('1', '', agent, at(0, 9))

  test('is a tool call where nobody tells of it', () => {
    const { toolCalls, turns } = rows(turn, span('2', '1', seen('c'), at(1, 2)))
    expect(toolCalls).toMatchObject([{ SpanId: '2', CallId: 'c', Name: 'search', Status: 'success' }])
    expect(turns).toMatchObject([{ ToolCalls: 1 }])
  })

  test('gives way to one with its id, and to one of its name that begins in its time, once each', () => {
    const { toolCalls, gone } = rows(
      turn,
      span('2', '1', seen('a'), at(1, 4)),
      span('3', '1', seen('b'), at(1, 4)),
      span('4', '1', seen('d', 'mcp_find'), at(1, 4)),
      span('5', '1', { ...tool, 'gen_ai.tool.call.id': 'b' }, at(3, 4)),
      span('6', '1', tool, at(2, 3)),
      span('7', '1', { 'mcp.method.name': 'tools/call', 'gen_ai.tool.name': 'find' }, at(2, 3)),
      span('8', '1', tool, at(5, 6)),
    )
    expect(toolCalls.map((row) => [row.SpanId, row.CallId, row.Result?.preview])).toEqual([
      ['6', 'a', 'result of a'],
      ['7', 'd', 'result of d'],
      ['5', 'b', 'result of b'],
      ['8', '', undefined],
    ])
    expect(gone).toEqual(expect.arrayContaining(['2', '3', '4'].map((spanId) => ({ table: 'tool_calls', spanId }))))
  })

  test('by two services is one call, told of or not', () => {
    const { toolCalls } = rows(
      turn,
      span('2', '1', seen('a'), at(1, 4)),
      span('3', '1', seen('a'), at(1, 4)),
      span('4', '1', seen('b'), at(1, 4)),
      span('5', '1', seen('b'), at(1, 4)),
      span('6', '1', { ...tool, 'gen_ai.tool.call.id': 'b' }, at(2, 3)),
    )
    expect(toolCalls.map((row) => [row.SpanId, row.CallId])).toEqual([
      ['2', 'a'],
      ['6', 'b'],
    ])
  })

  test('is no call of MCP whose name is the end of a word in its own', () => {
    const { toolCalls } = rows(
      turn,
      span('2', '1', seen('a', 'budget'), at(1, 4)),
      span('3', '1', { 'mcp.method.name': 'tools/call', 'gen_ai.tool.name': 'get' }, at(2, 3)),
    )
    expect(toolCalls.map((row) => row.Name)).toEqual(['budget', 'get'])
  })

  test('is another call than one of its name with another id', () => {
    const { toolCalls } = rows(
      turn,
      span('2', '1', seen('a'), at(1, 4)),
      span('3', '1', { ...tool, 'gen_ai.tool.call.id': 'b' }, at(2, 3)),
    )
    expect(toolCalls.map((row) => row.CallId)).toEqual(['a', 'b'])
  })
})

test('resolve: a tool that calls two others through MCP is three tool calls', () => {
  const viaMcp = (name: string) => ({ 'mcp.method.name': 'tools/call', 'gen_ai.tool.name': name })
  const { toolCalls } = rows(
    span('1', '', { ...tool, 'gen_ai.tool.name': 'research' }, at(0, 3)),
    span('2', '1', viaMcp('find'), { spanKind: 'client', ...at(1, 2) }),
    span('3', '1', viaMcp('open'), { spanKind: 'client', ...at(2, 3) }),
  )
  expect(toolCalls.map((row) => row.Name)).toEqual(['research', 'find', 'open'])
})

test('resolve: a stream that broke counts what it told, and says that it is a lower bound', () => {
  const cut = {
    ...chat,
    'gen_ai.request.stream': true,
    'gen_ai.usage.input_tokens': 40,
    'gen_ai.usage.output_tokens': 1,
  }
  const { llmCalls } = rows(span('1', '', cut, failed))
  expect(llmCalls).toMatchObject([{ InputTokens: 40, OutputTokens: 1, UsageSource: 'partial' }])
  expect(llmCalls[0]?.CostNanoUsd).toBe(6_600n)
  const left = { ...chat, 'gen_ai.request.stream': true, 'gen_ai.usage.input_tokens': 40 }
  expect(rows(span('1', '', left)).llmCalls).toMatchObject([{ OutputTokens: null, UsageSource: 'partial' }])
})

test('resolve: tokens that the collector counted fill what a stream did not tell, and say so', () => {
  const output = JSON.stringify([{ role: 'assistant', parts: [{ type: 'text', content: 'Paris is the' }] }])
  const facts = factsOfAll([
    span(
      '1',
      '',
      { ...chat, ...asked('Where?'), 'gen_ai.output.messages': output, 'gen_ai.request.stream': true },
      failed,
    ),
  ])
  const before = resolve(facts, priceOf)
  expect(before.llmCalls).toMatchObject([
    { InputTokens: null, UsageSource: 'none', CostNanoUsd: null, PriceVersion: '' },
  ])
  expect(before.estimable).toMatchObject([
    { spanId: '1', model: 'gpt-4o-mini', input: [expect.any(String)], output: [expect.any(String)] },
  ])
  const counted = estimateFact(facts[0] as Fact, { usage: { inputTokens: 8, outputTokens: 3 }, inputTextTokens: 2 })
  const after = resolve([...facts, counted], priceOf)
  expect(after.llmCalls).toMatchObject([
    { InputTokens: 8, OutputTokens: 3, UsageSource: 'estimated', CostNanoUsd: 3_000n },
  ])
  expect(after.estimable).toEqual([])
  // It follows from the facts, and is not said without.
  expect(after.generation).toBe(before.generation)
})

test('resolve: log records bring the content of their span, one by one or as a list, and an error of its own', () => {
  const event = (name: string, body: Record<string, AnyValue>, ordinal: number) =>
    sketchLog({ spanId: '1', ordinal, body: new Map(Object.entries(body)), attributes: { 'event.name': name } })
  const { messages, llmCalls, errors } = rows(
    span('1', '', { ...chat, ...used(1, 1) }),
    event('gen_ai.choice', { index: 0, finish_reason: 'length', message: new Map([['content', 'so far']]) }, 9),
    event('gen_ai.user.message', { content: 'and now?' }, 3),
    event('gen_ai.assistant.message', { content: 'well' }, 2),
    event('gen_ai.user.message', { content: 'what?' }, 1),
    sketchLog({
      spanId: '1',
      eventName: 'gen_ai.client.operation.exception',
      attributes: { 'exception.type': 'Cut', 'exception.message': 'gone', 'exception.stacktrace': 'at x' },
    }),
  )
  expect(messages.map((row) => [row.Direction, row.Index, row.Role, row.Content.preview])).toEqual([
    ['input', 0, 'user', 'what?'],
    ['input', 1, 'assistant', 'well'],
    ['input', 2, 'user', 'and now?'],
    ['output', 0, 'assistant', 'so far'],
  ])
  expect(llmCalls).toMatchObject([{ FinishReason: 'length', ErrorType: 'Cut' }])
  expect(errors).toMatchObject([{ SpanId: '1', FactId: 'span', Type: 'Cut', Message: 'gone', Stack: 'at x' }])
})

test('resolve: a span that was read as a plain one, before its fact was stored, is what its fact says, and supersedes that', () => {
  const outer = span('1', '', { ...agent, ...asked('hi'), 'user.id': 'ada' })
  const { id: _id, serviceName: _service, dialect: _dialect, says: _says, ...read } = factsOfAll([outer])[0] as Fact
  const inner = factsOfAll([span('2', '1', chat)])
  const early = resolve([...inner, linkFact(read)], priceOf)
  expect(early).toMatchObject({ llmCalls: [{ UserId: 'ada' }], turns: [{ TurnId: early.llmCalls[0]?.TraceId }] })
  for (const facts of [
    [...inner, linkFact(read), ...factsOfAll([outer])],
    [...factsOfAll([outer]), linkFact(read), ...inner],
  ]) {
    const all = resolve(facts, priceOf)
    expect(all).toMatchObject({ turns: [{ TurnId: '1' }], wrapperMessages: [{ SpanId: '1' }] })
    expect(all.generation).toBeGreaterThan(early.generation)
  }
})

test('resolve: facts of two traces are refused', () => {
  const facts = factsOfAll([span('1', '', chat), { ...span('2', '', chat), traceId: 'f'.repeat(32) }])
  expect(() => resolve(facts, priceOf)).toThrow('two traces')
})

/** The keys of all rows. */
function keysOf(resolved: Resolved): Set<string> {
  const span = (table: string, list: readonly { readonly SpanId: string }[]) =>
    list.map((row) => `${table} ${row.SpanId}`)
  return new Set([
    ...span('llm_calls', resolved.llmCalls),
    ...span('tool_calls', resolved.toolCalls),
    ...span('embeddings', resolved.embeddings),
    ...span('health_checks', resolved.healthChecks),
    ...resolved.messages.map((row) => `messages ${row.SpanId} ${row.Direction} ${row.Index}`),
    ...resolved.turns.map((row) => `turns ${row.TurnId}`),
    ...resolved.errors.map((row) => `errors ${row.SpanId} ${row.FactId}`),
  ])
}

function isGone(key: string, gone: readonly Gone[]): boolean {
  const [table, id, third, index] = key.split(' ')
  return gone.some((one) => {
    if (one.table !== table) return false
    if (one.table === 'turns') return one.turnId === id
    if (one.spanId !== id) return false
    if (one.table === 'errors') return one.factId === third
    if ('direction' in one)
      return one.direction === third && Number(index) >= one.fromIndex && Number(index) < one.toIndex
    return true
  })
}

const traces = readRecorded().flatMap((record) => factsOf(record).facts)

test('resolve: whatever fewer facts made a row of is a row of all facts, or is named as gone', () => {
  const random = seededRandom(7)
  for (const [traceId, facts] of Map.groupBy(traces, (fact) => fact.traceId)) {
    const all = resolve(facts, priceOf)
    const keys = keysOf(all)
    for (let round = 0; round < 12; round++) {
      const some = facts.filter(() => random.chance(0.6))
      const lost = [...keysOf(resolve(some, priceOf))].filter((key) => !keys.has(key) && !isGone(key, all.gone))
      expect(lost, traceId).toEqual([])
    }
    expect(
      [...keys].filter((key) => isGone(key, all.gone)),
      traceId,
    ).toEqual([])
  }
})

describe('resolve: two instrumentations side by side', () => {
  const langfuse = { name: 'langfuse-sdk', version: '5.11.1' }
  const wrapper = (spanId: string, question = 'Where?', tokens = 42, more: SpanSketch = {}) => {
    const details = JSON.stringify({ input: tokens, output: 9 })
    const attributes = {
      'langfuse.observation.type': 'generation',
      'langfuse.observation.model.name': 'gpt-4o-mini-2024-07-18',
      'langfuse.observation.input': JSON.stringify([{ role: 'user', content: question }]),
      'langfuse.observation.usage_details': details,
    }
    return span(spanId, 'root', attributes, { scope: langfuse, ...at(0, 10), ...more })
  }
  const beside = (spanId: string, more: SpanSketch = {}) => {
    const model = { 'gen_ai.response.model': 'gpt-4o-mini-2024-07-18' }
    return span(spanId, 'root', { ...chat, ...used(42, 9), ...model }, { ...at(0, 10), ...more })
  }
  const callsOf = (...spans: readonly Sketch[]) =>
    rows(...spans).llmCalls.map((call) => [call.RequestModel, call.Model, call.InputTokens])
  const one = ['gpt-4o-mini', 'gpt-4o-mini-2024-07-18', 42]

  test('that tell the same of one time are one call, and two of each are two', () => {
    expect(callsOf(wrapper('1'), beside('2'))).toEqual([one])
    expect(callsOf(wrapper('1'), wrapper('2'), beside('3'), beside('4'))).toEqual([one, one])
    expect(callsOf(wrapper('1'), beside('2', { attributes: asked('Where?') }))).toEqual([one])
  })

  test('a client’s own span outside the agent is the agent’s call', () => {
    const inAgent = { ...wrapper('1'), parentSpanId: 'agent' }
    const [call] = rows(span('agent', 'root', agent, at(0, 11)), inAgent, beside('2')).llmCalls
    expect([call?.SpanId, call?.TurnId, call?.RequestModel]).toEqual(['1', 'agent', 'gpt-4o-mini'])
  })

  test('the tries of a client that one of them tells are each a call, and the last is what the other tells', () => {
    const { llmCalls, turns } = rows(
      span('root', '', agent, at(0, 11)),
      wrapper('1', 'Where?', 42, at(0, 10)),
      span('2', 'root', { ...chat, ...asked('Where?') }, { ...failed, ...at(1, 2) }),
      beside('3', { ...at(4, 10), attributes: asked('Where?') }),
    )
    expect(llmCalls.map((call) => [call.SpanId, call.Attempt, call.InputTokens])).toEqual([
      ['2', 1, null],
      ['3', 2, 42],
    ])
    expect(turns).toMatchObject([{ Status: 'success', Calls: 2, InputTokens: 42 }])
  })

  test('a call that knows no response is not two that know theirs', () => {
    const anthropic = { name: 'com.anthropic.sdk.python', version: '2.12.0' }
    const id = (name: string) => ({ attributes: { 'gen_ai.response.id': name } })
    expect(callsOf(wrapper('1'), beside('2', id('a')), beside('3', { ...id('b'), scope: anthropic }))).toHaveLength(2)
  })

  test('what stands around both stands around one call', () => {
    const around = span('1', 'root', { ...chat, ...used(42, 9) }, at(0, 10))
    const silent = { 'langfuse.observation.usage_details': '{}' }
    const inside = { ...wrapper('2', 'Where?', 42, { attributes: silent }), parentSpanId: '1' }
    const told = span(
      '3',
      '1',
      { ...chat, ...asked('Where?'), 'gen_ai.response.model': 'gpt-4o-mini-2024-07-18' },
      at(0, 10),
    )
    expect(callsOf(around, inside, told)).toEqual([one])
  })

  test('ten thousand calls at once are not all compared', { timeout: 20_000 }, () => {
    const spans = Array.from({ length: 10_000 }, (_, i) =>
      i % 2 === 0 ? wrapper(`w${i}`, `Where is ${i}?`) : beside(`b${i}`, { attributes: asked(`When is ${i}?`) }),
    )
    expect(resolve(factsOfAll(spans), priceOf).llmCalls).toHaveLength(10_000)
  })

  test.each<[what: string, spans: readonly Sketch[]]>([
    ['other numbers', [wrapper('1', 'Where?', 43), beside('2')]],
    ['another question', [wrapper('1'), beside('2', { attributes: asked('When?') })]],
    ['another model', [wrapper('1'), beside('2', { attributes: { 'gen_ai.response.model': 'o4-mini' } })]],
    ['another time', [wrapper('1'), beside('2', at(5, 15))]],
    ['another parent', [wrapper('1'), { ...beside('2'), parentSpanId: 'elsewhere' }]],
    ['the same sender', [wrapper('1'), wrapper('2')]],
    ['ids of their own', ['1', '2'].map((id) => beside(id, { attributes: { 'gen_ai.response.id': id } }))],
    [
      'ids of their own by two senders',
      [
        wrapper('1', 'Where?', 42, { attributes: { 'gen_ai.response.id': 'a' } }),
        beside('2', { attributes: { 'gen_ai.response.id': 'b' } }),
      ],
    ],
  ])('with %s are two calls', (_what, spans) => {
    expect(rows(...spans).llmCalls).toHaveLength(2)
  })
})

test('resolve: what the calls of a trace cost is what its innermost calls cost', () => {
  for (const facts of Map.groupBy(traces, (fact) => fact.traceId).values()) {
    const { llmCalls, turns } = resolve(facts, priceOf)
    const sum = (costs: readonly (bigint | null)[]) => costs.reduce<bigint>((total, cost) => total + (cost ?? 0n), 0n)
    expect(sum(turns.map((row) => row.CostNanoUsd))).toBe(sum(llmCalls.map((row) => row.CostNanoUsd)))
  }
})
