// Traffic of LLM services as OTLP/JSON, as an instrumented service sends it: turns with their calls, tools and health checks.
// Attributes stand here as OpenTelemetry spells them and not as our tables do, so that a renamed one breaks a test.
import { createHash } from 'node:crypto'

export type Value = string | number | boolean
type Attributes = Readonly<Record<string, Value>>
export type Span = { readonly resource: Attributes; readonly span: object }

export type Call = {
  readonly provider: string
  readonly model: string
  readonly durationMs: number
  /** Undefined is no stream. */
  readonly firstTokenMs?: number
  /** Undefined is a provider that says nothing. */
  readonly tokens?: { readonly input: number; readonly output: number }
  readonly error?: string
  readonly attempt?: number
  readonly callId?: string
}

export type Tool = {
  readonly name: string
  readonly server?: string
  readonly durationMs: number
  readonly error?: string
}

export type Turn = {
  /** Makes its ids: the same name is the same turn. */
  readonly name: string
  readonly atUnixMs: number
  readonly tenant: string
  readonly service: string
  readonly user?: string
  readonly conversation?: string
  readonly status?: string
  readonly blockReason?: string
  readonly calls: readonly Call[]
  readonly tools?: readonly Tool[]
}

export function idOf(name: string, digits: 16 | 32): string {
  return createHash('sha256').update(name).digest('hex').slice(0, digits)
}

export function attributesOf(values: Attributes): readonly object[] {
  return Object.entries(values).map(([key, value]) => ({
    key,
    value:
      typeof value === 'string'
        ? { stringValue: value }
        : typeof value === 'boolean'
          ? { boolValue: value }
          : Number.isInteger(value)
            ? { intValue: `${value}` }
            : { doubleValue: value },
  }))
}

const nano = (unixMs: number): string => `${BigInt(Math.round(unixMs)) * 1_000_000n}`

function spanOf(options: {
  readonly turn: Turn
  readonly name: string
  readonly as: string
  readonly under?: string
  readonly fromUnixMs: number
  readonly ms: number
  readonly attributes: Attributes
  readonly error?: string | undefined
}): Span {
  const { turn, name, as, under, fromUnixMs, ms, error } = options
  const attributes = { ...options.attributes, ...(error === undefined ? {} : { 'error.type': error }) }
  return {
    resource: { 'service.name': turn.service, 'tallylight.tenant.id': turn.tenant },
    span: {
      traceId: idOf(turn.name, 32),
      spanId: idOf(`${turn.name} ${as}`, 16),
      ...(under === undefined ? {} : { parentSpanId: idOf(`${turn.name} ${under}`, 16) }),
      ...{ name, kind: 3, startTimeUnixNano: nano(fromUnixMs), endTimeUnixNano: nano(fromUnixMs + ms) },
      attributes: attributesOf(attributes),
      ...(error === undefined ? {} : { status: { code: 2, message: error } }),
    },
  }
}

export function spansOf(turn: Turn): readonly Span[] {
  const { user = 'ada', conversation = `conversation of ${turn.name}`, tools = [] } = turn
  const ms = Math.max(...turn.calls.map((call) => call.durationMs), ...tools.map((tool) => tool.durationMs), 1)
  const scene = { 'gen_ai.conversation.id': conversation, 'user.id': user }
  const under = 'turn'
  return [
    spanOf({
      ...{ turn, name: 'turn', as: 'turn', fromUnixMs: turn.atUnixMs, ms },
      attributes: {
        ...{ 'tallylight.turn.id': idOf(turn.name, 32), 'tallylight.turn.channel': 'rest', ...scene },
        ...{ 'tallylight.turn.question': `How is ${turn.name}?`, 'tallylight.turn.answer': 'Well.' },
        'tallylight.turn.status': turn.status ?? 'success',
        ...(turn.blockReason === undefined ? {} : { 'tallylight.turn.block_reason': turn.blockReason }),
      },
    }),
    ...turn.calls.map((call, at) =>
      spanOf({
        ...{
          turn,
          name: `chat ${call.model}`,
          as: `call ${at}`,
          under,
          fromUnixMs: turn.atUnixMs,
          ms: call.durationMs,
        },
        attributes: { ...scene, ...callAttributes(call) },
        error: call.error,
      }),
    ),
    ...tools.map((tool, at) =>
      spanOf({
        ...{
          turn,
          name: `tools/call ${tool.name}`,
          as: `tool ${at}`,
          under,
          fromUnixMs: turn.atUnixMs,
          ms: tool.durationMs,
        },
        attributes: { ...scene, ...toolAttributes(tool) },
        error: tool.error,
      }),
    ),
  ]
}

function callAttributes(call: Call): Attributes {
  return {
    'gen_ai.operation.name': 'chat',
    'gen_ai.provider.name': call.provider,
    'gen_ai.request.model': call.model,
    'gen_ai.input.messages': JSON.stringify([{ role: 'user', parts: [{ type: 'text', content: 'How are you?' }] }]),
    ...(call.error === undefined
      ? {
          'gen_ai.response.model': call.model,
          'gen_ai.response.finish_reasons': 'stop',
          'gen_ai.output.messages': JSON.stringify([
            { role: 'assistant', parts: [{ type: 'text', content: 'Well.' }] },
          ]),
        }
      : {}),
    ...(call.firstTokenMs === undefined
      ? {}
      : { 'gen_ai.request.stream': true, 'gen_ai.response.time_to_first_chunk': call.firstTokenMs / 1000 }),
    ...(call.tokens === undefined
      ? {}
      : { 'gen_ai.usage.input_tokens': call.tokens.input, 'gen_ai.usage.output_tokens': call.tokens.output }),
    ...(call.attempt === undefined ? {} : { 'tallylight.attempt': call.attempt }),
    ...(call.callId === undefined ? {} : { 'tallylight.call.id': call.callId }),
  }
}

function toolAttributes({ name, server }: Tool): Attributes {
  return server === undefined
    ? { 'gen_ai.operation.name': 'execute_tool', 'gen_ai.tool.name': name }
    : { 'mcp.method.name': 'tools/call', 'gen_ai.tool.name': name, 'mcp.server.name': server }
}

export function healthCheck(options: {
  readonly tenant: string
  readonly service: string
  readonly target: string
  readonly atUnixMs: number
  readonly isHealthy: boolean
}): Span {
  const { tenant, service, target, atUnixMs, isHealthy } = options
  return {
    resource: { 'service.name': service, 'tallylight.tenant.id': tenant },
    span: {
      ...{
        traceId: idOf(`${target} ${atUnixMs}`, 32),
        spanId: idOf(`${target} ${atUnixMs}`, 16),
        name: 'health',
        kind: 1,
      },
      ...{ startTimeUnixNano: nano(atUnixMs), endTimeUnixNano: nano(atUnixMs + 20) },
      attributes: attributesOf({
        'tallylight.health.target': target,
        'tallylight.health.status': isHealthy ? 'healthy' : 'unhealthy',
        'tallylight.health.response_time': 0.02,
      }),
    },
  }
}

export type LogRecord = {
  readonly event: string
  readonly tenant: string
  readonly service: string
  readonly atUnixMs: number
  readonly traceId?: string
  readonly attributes: Attributes
}

export function tracesRequest(spans: readonly Span[]): object {
  return {
    resourceSpans: [...Map.groupBy(spans, ({ resource }) => JSON.stringify(resource)).values()].map((group) => ({
      resource: { attributes: attributesOf(group[0]?.resource ?? {}) },
      scopeSpans: [{ scope: { name: 'demo' }, spans: group.map(({ span }) => span) }],
    })),
  }
}

export function logsRequest(records: readonly LogRecord[]): object {
  return {
    resourceLogs: records.map(({ event, tenant, service, atUnixMs, traceId, attributes }) => ({
      resource: { attributes: attributesOf({ 'service.name': service, 'tallylight.tenant.id': tenant }) },
      scopeLogs: [
        {
          scope: { name: 'demo' },
          logRecords: [
            {
              ...{ timeUnixNano: nano(atUnixMs), eventName: event, severityNumber: 9, body: { stringValue: event } },
              ...(traceId === undefined ? {} : { traceId, spanId: traceId.slice(0, 16) }),
              attributes: attributesOf(attributes),
            },
          ],
        },
      ],
    })),
  }
}
