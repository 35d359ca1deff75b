// Traces of any shape, for tests: turns, agents, wrappers, calls of several dialects inside and beside each other, tools through
// MCP, tries, streams with log records of their own, embeddings, plain spans, failures, clocks in disorder, and whose it all is
// told anywhere.
import type { AnyValue, LiftedRecord } from '../genai/record.ts'
import { type Random, sketchLog, sketchSpan } from '../genai/testing.ts'
import type { TenantId } from '../receive/request.ts'

export const second = 1_000_000_000n
const hex = (value: number, digits: number): string => value.toString(16).padStart(digits, '0')

type Attributes = Record<string, AnyValue>

/** A trace of any shape, parents before children. */
export function makeTrace(random: Random, at: number, t0: bigint): readonly LiftedRecord[] {
  const records: LiftedRecord[] = []
  const traceId = hex(at + 1, 32)
  const tenantId = random.pick(['acme', 'other']) as TenantId
  const resources = ['chat', 'tools'].map((name) => new Map([['service.name', name]]))
  let spans = 0
  const spread = random.chance(0.2) ? 600 : 1
  const owners: Attributes = {
    ...(random.chance(0.7) ? { 'user.id': `user ${at}` } : {}),
    ...(random.chance(0.7) ? { [random.pick(['session.id', 'gen_ai.conversation.id'])]: `conversation ${at}` } : {}),
    ...(random.chance(0.3) ? { 'tenant.id': `label ${at}` } : {}),
  }
  const scene = (chance: number): Attributes =>
    random.chance(chance) ? owners : random.chance(0.03) ? { 'user.id': 'somebody' } : {}
  type Times = { readonly from: bigint; readonly to: bigint }
  function span(
    parent: string,
    name: string,
    attributes: Attributes,
    { from, to }: Times,
    more: Partial<LiftedRecord & { kind: 'span' }> = {},
  ): string {
    const spanId = hex((at + 1) * 4096 + ++spans, 16)
    const hasFailed = random.chance(0.12)
    const clocksAreOff = random.chance(0.02)
    records.push(
      sketchSpan({
        tenantId,
        traceId,
        spanId,
        parentSpanId: parent,
        name,
        startUnixNano: from,
        endUnixNano: clocksAreOff ? from - second : to,
        ...(hasFailed ? { status: 'error' as const, statusMessage: random.pick(['overloaded', 'broken']) } : {}),
        ...more,
        attributes: { ...attributes, ...(hasFailed ? { 'error.type': 'server_error' } : {}) },
        resource: Object.fromEntries(random.pick(resources)),
      }),
    )
    return spanId
  }
  const cut = ({ from, to }: Times): Times => {
    const length = Number((to - from) / 1_000_000n)
    const start = random.below(Math.max(1, length / 2))
    const end = start + 1 + random.below(Math.max(1, length - start))
    return { from: from + BigInt(start) * 1_000_000n, to: from + BigInt(end) * 1_000_000n }
  }
  const question = (text: string): Attributes => ({
    'gen_ai.input.messages': JSON.stringify([{ role: 'user', parts: [{ type: 'text', content: text }] }]),
  })
  const usage = (): Attributes => {
    const input: AnyValue = random.chance(0.05)
      ? random.pick<AnyValue>([-1, 2 ** 60, 'many', Number.NaN])
      : random.below(1000)
    return { 'gen_ai.usage.input_tokens': input, 'gen_ai.usage.output_tokens': random.below(100) }
  }
  function chat(parent: string, times: Times, text: string, depth: number): void {
    const model = random.pick(['gpt-4o-mini', 'gpt-4o', 'no-model-of-anybody'])
    const responseId = random.chance(0.3) ? `r-${at}-${random.below(3)}` : ''
    const dialect = random.below(6)
    const asked = random.chance(0.6) ? question(text) : {}
    const answered = random.chance(0.3)
      ? {
          'gen_ai.output.messages': JSON.stringify([
            { role: 'assistant', parts: [{ type: 'text', content: `answer to ${text}` }], finish_reason: 'stop' },
          ]),
        }
      : {}
    const told = random.chance(0.75) ? usage() : {}
    const isStream = random.chance(0.4)
    const attributes: Attributes =
      dialect === 0
        ? {
            'openinference.span.kind': 'LLM',
            'llm.provider': 'openai',
            'llm.model_name': model,
            'llm.token_count.prompt': random.below(1000),
            'llm.token_count.completion': random.below(90),
            'llm.input_messages.0.message.role': 'user',
            'llm.input_messages.0.message.content': text,
          }
        : dialect === 1
          ? {
              'llm.request.type': 'chat',
              'gen_ai.system': 'openai',
              'gen_ai.request.model': model,
              'gen_ai.usage.prompt_tokens': random.below(1000),
              'gen_ai.usage.completion_tokens': random.below(90),
              'gen_ai.prompt.0.role': 'user',
              'gen_ai.prompt.0.content': text,
            }
          : dialect === 2
            ? {
                'ai.operationId': random.pick(['ai.generateText.doGenerate', 'ai.generateText']),
                'operation.name': 'ai.generateText',
                'ai.model.id': model,
                'ai.model.provider': 'openai.chat',
                'ai.usage.promptTokens': random.below(1000),
                'ai.usage.completionTokens': random.below(99),
                'ai.prompt.messages': JSON.stringify([{ role: 'user', content: text }]),
              }
            : {
                'gen_ai.operation.name': 'chat',
                'gen_ai.provider.name': 'openai',
                'gen_ai.request.model': model,
                ...told,
                ...asked,
                ...answered,
                ...(isStream ? { 'gen_ai.request.stream': true } : {}),
                ...(random.chance(0.2)
                  ? { 'tallylight.call.id': `call ${at} ${random.below(3)}`, 'tallylight.attempt': 1 + random.below(2) }
                  : {}),
              }
    const id = span(
      parent,
      'chat',
      { ...attributes, ...(responseId === '' ? {} : { 'gen_ai.response.id': responseId }), ...scene(0.1) },
      times,
    )
    for (let record = random.below(4) - 1; record > 0; record--) {
      const event = random.pick([
        'gen_ai.user.message',
        'gen_ai.choice',
        'gen_ai.client.inference.operation.details',
        'gen_ai.client.operation.exception',
      ])
      const body =
        event === 'gen_ai.choice'
          ? {
              index: 0,
              finish_reason: 'stop',
              message: { role: 'assistant', content: `${text} ${record} and on and on` },
            }
          : { role: 'user', content: `${text} ${record}` }
      const logged: Attributes = event.endsWith('details')
        ? {
            ...question(`${text} ${record}`),
            'gen_ai.output.messages': JSON.stringify([
              { role: 'assistant', parts: [{ type: 'text', content: `reply ${record} to it` }] },
            ]),
          }
        : event.endsWith('exception')
          ? { 'exception.type': 'RateLimit', 'exception.message': 'slow down' }
          : {}
      records.push(
        sketchLog({
          tenantId,
          traceId,
          spanId: id,
          eventName: event,
          timeUnixNano: times.from + BigInt(record),
          body:
            event.endsWith('message') || event.endsWith('choice')
              ? new Map<string, AnyValue>(
                  Object.entries(body).map(([key, value]) => [
                    key,
                    typeof value === 'object' ? new Map(Object.entries(value)) : value,
                  ]),
                )
              : null,
          attributes: { ...logged, ...scene(0.1) },
        }),
      )
    }
    if (depth < 4 && random.chance(0.35)) chat(id, cut(times), random.chance(0.7) ? text : `${text}!`, depth + 1)
    if (depth < 4 && random.chance(0.15)) any(id, cut(times), depth + 1)
  }
  function tool(parent: string, times: Times, depth: number): void {
    const name = random.pick(['search', 'weather'])
    const callId = random.chance(0.5) ? { 'gen_ai.tool.call.id': `tool ${at} ${random.below(4)}` } : {}
    const id = span(
      parent,
      `execute_tool ${name}`,
      {
        'gen_ai.operation.name': 'execute_tool',
        'gen_ai.tool.name': name,
        ...callId,
        ...(random.chance(0.5) ? { 'gen_ai.tool.call.arguments': '{"q":1}' } : {}),
      },
      times,
    )
    if (random.chance(0.5)) {
      const mcp = { 'mcp.method.name': 'tools/call', 'gen_ai.tool.name': name }
      const client = span(id, `tools/call ${name}`, mcp, cut(times), { spanKind: 'client' })
      if (random.chance(0.7)) {
        const between = random.chance(0.5) ? span(client, 'POST', { 'http.route': '/mcp' }, cut(times)) : client
        const server = span(
          between,
          `tools/call ${name}`,
          { ...mcp, 'mcp.server.name': 'weather', ...scene(0.1) },
          cut(times),
          { spanKind: 'server' },
        )
        if (random.chance(0.3)) chat(server, cut(times), `sampled ${at}`, depth + 2)
      }
    } else if (depth < 4 && random.chance(0.3)) any(id, cut(times), depth + 1)
  }
  function any(parent: string, times: Times, depth: number): void {
    const what = random.below(10)
    if (what < 3) chat(parent, times, `question ${at} ${random.below(3)}`, depth)
    else if (what < 4) {
      const text = `tried ${at}`
      for (let tries = 1 + random.below(3); tries > 0; tries--) chat(parent, cut(times), text, 4)
    } else if (what < 6) tool(parent, times, depth)
    else if (random.chance(0.15)) span(parent, 'query', { 'db.system': 'postgresql', ...scene(0.5) }, times)
    else if (what < 7)
      span(
        parent,
        'embeddings',
        {
          'gen_ai.operation.name': 'embeddings',
          'gen_ai.provider.name': 'openai',
          'gen_ai.request.model': 'text-embedding-3-small',
          'gen_ai.usage.input_tokens': random.below(50),
        },
        times,
      )
    else {
      const around: Attributes =
        what < 8
          ? {
              'gen_ai.operation.name': 'invoke_agent',
              'gen_ai.agent.name': 'a',
              ...(random.chance(0.5) ? question(`agent ${at}`) : {}),
            }
          : what < 9
            ? { 'http.route': '/plain' }
            : { 'openinference.span.kind': 'CHAIN', 'input.value': `chain ${at}` }
      const id = span(parent, 'around', { ...around, ...scene(0.3) }, times)
      if (depth < 5) for (let children = 1 + random.below(3); children > 0; children--) any(id, cut(times), depth + 1)
    }
  }
  const all = { from: t0, to: t0 + 60n * second * BigInt(spread) }
  const turn: Attributes = random.chance(0.4)
    ? { 'tallylight.turn.channel': 'REST', 'tallylight.turn.id': `turn ${at}`, 'client.address': '::1' }
    : { 'http.route': '/chat', 'client.address': '::1' }
  const root = span(random.chance(0.1) ? 'ffffffffffffffff' : '', 'turn', { ...turn, ...scene(0.7) }, all)
  for (let children = 1 + random.below(3); children > 0; children--) any(root, cut(all), 1)
  for (const record of records.filter(() => random.chance(0.05))) {
    if (record.kind === 'span' && record.attributes.has('gen_ai.operation.name'))
      records.push({ ...record, attributes: new Map([...record.attributes, ['gen_ai.usage.output_tokens', 1_000]]) })
  }
  return records
}
