// Every recording of every dialect through the whole road, OTLP in and tables out: at once, one record per request in both
// orders, over HTTP in JSON and protobuf and over gRPC, and with the collector killed in between. The tables must say what the
// expected file says, each time.
import { createHash } from 'node:crypto'
import { readdirSync, readFileSync } from 'node:fs'
import { Client, credentials } from '@grpc/grpc-js'
import { wireFromJson } from '@tallylight/collector/otlp/json.ts'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { type CollectorProcess, startCollector } from '../collector-process.ts'

const fixtures = new URL('../../collector/genai/fixtures/', import.meta.url)
const names = readdirSync(new URL('expected/', fixtures)).map((file) => file.replace(/\.json$/, ''))

type Json = { readonly [key: string]: Json } & readonly Json[] & string
type Part = { readonly signal: 'traces' | 'logs'; readonly body: object }
type Way = 'at once' | 'one by one' | 'backwards' | 'with a kill in between'
const ways: readonly Way[] = ['at once', 'one by one', 'backwards', 'with a kill in between']

function readJson(url: URL): Json {
  return JSON.parse(readFileSync(url, 'utf8')) as Json
}

/** Recordings keep their distances and come to yesterday, before their retention is over; each way has traces of its own. */
function recordingOf(name: string, way: Way): readonly Part[] {
  const files = [`${name}.json`, `${name}.logs.json`].filter((file) => readdirSync(fixtures).includes(file))
  const texts = files.map((file) => readFileSync(new URL(file, fixtures), 'utf8'))
  const times = texts.flatMap((text) =>
    [...text.matchAll(/"\w*[tT]imeUnixNano": ?"?(\d{19})"?/g)].map(([, time]) => BigInt(time ?? 0)),
  )
  const shift = BigInt(Date.now() - 3_600_000) * 1_000_000n - (times.toSorted()[0] ?? 0n)
  return texts.map((text, at) => {
    const moved = text
      .replaceAll(
        /"(\w*[tT]imeUnixNano)": ?"?(\d{19})"?/g,
        (_all, key: string, time: string) => `"${key}":"${BigInt(time) + shift}"`,
      )
      .replaceAll(/"traceId": ?"([0-9a-f]{32})"/g, (_all, id: string) => `"traceId":"${traceIdOf(id, way)}"`)
    return { signal: files[at]?.endsWith('.logs.json') ? 'logs' : 'traces', body: JSON.parse(moved) as object }
  })
}

function traceIdOf(id: string, way: Way): string {
  return createHash('sha256').update(`${way} ${id}`).digest('hex').slice(0, 32)
}

/** One request for each span and log record. */
function split({ signal, body }: Part): readonly Part[] {
  const [outer, middle, inner] =
    signal === 'traces' ? ['resourceSpans', 'scopeSpans', 'spans'] : ['resourceLogs', 'scopeLogs', 'logRecords']
  const list = (value: Json | undefined): readonly Json[] => value ?? []
  return list((body as Json)[outer]).flatMap((resource) =>
    list(resource[middle]).flatMap((scope) =>
      list(scope[inner]).map((record) => ({
        signal,
        body: { [outer]: [{ ...(resource as object), [middle]: [{ ...(scope as object), [inner]: [record] }] }] },
      })),
    ),
  )
}

async function sendJson(collector: CollectorProcess, { signal, body }: Part): Promise<void> {
  const response = await fetch(`http://127.0.0.1:${collector.ports().otlpHttp}/v1/${signal}`, {
    method: 'POST',
    body: JSON.stringify(body),
    headers: { 'Content-Type': 'application/json' },
  })
  expect([response.status, await response.text()]).toEqual([200, '{}'])
}

function protobufOf({ signal, body }: Part): Buffer {
  const wire = wireFromJson(signal, Buffer.from(JSON.stringify(body)))
  if (wire.kind === 'malformed') throw new Error(wire.reason)
  return wire.bytes
}

async function sendProtobuf(collector: CollectorProcess, part: Part): Promise<void> {
  const response = await fetch(`http://127.0.0.1:${collector.ports().otlpHttp}/v1/${part.signal}`, {
    method: 'POST',
    body: new Uint8Array(protobufOf(part)),
    headers: { 'Content-Type': 'application/x-protobuf' },
  })
  expect([response.status, (await response.arrayBuffer()).byteLength]).toEqual([200, 0])
}

async function sendGrpc(client: Client, part: Part): Promise<void> {
  const service = part.signal === 'traces' ? 'trace.v1.TraceService' : 'logs.v1.LogsService'
  const answer = await new Promise<Buffer | undefined>((resolve, reject) => {
    const same = (bytes: Buffer): Buffer => bytes
    client.makeUnaryRequest(
      `/opentelemetry.proto.collector.${service}/Export`,
      same,
      same,
      protobufOf(part),
      (error, bytes) => (error === null ? resolve(bytes) : reject(error)),
    )
  })
  expect(answer).toHaveLength(0)
}

let collector: CollectorProcess
beforeAll(async () => {
  collector = await startCollector()
  const grpc = new Client(`127.0.0.1:${collector.ports().otlpGrpc}`, credentials.createInsecure())
  for (const name of names) {
    for (const part of recordingOf(name, 'at once')) await sendJson(collector, part)
    for (const part of recordingOf(name, 'one by one').flatMap(split)) await sendProtobuf(collector, part)
    for (const part of recordingOf(name, 'backwards').flatMap(split).toReversed()) await sendGrpc(grpc, part)
  }
  grpc.close()
  const halves = names.map((name) => {
    const parts = recordingOf(name, 'with a kill in between').flatMap(split)
    return [parts.slice(0, parts.length / 2), parts.slice(parts.length / 2)] as const
  })
  for (const [first] of halves) for (const part of first) await sendJson(collector, part)
  await collector.kill('SIGKILL')
  await collector.start()
  for (const [, second] of halves) for (const part of second) await sendJson(collector, part)
  await collector.drained()
}, 120_000)
afterAll(() => collector?.[Symbol.asyncDispose]())

type Row = Readonly<Record<string, unknown>>

async function rowsOf(table: string, ids: readonly string[]): Promise<readonly Row[]> {
  const list = ids.map((id) => `'${id}'`).join(', ')
  return collector.query<Row>(`SELECT * FROM tallylight.${table} WHERE TraceId IN (${list}) ORDER BY Timestamp, SpanId`)
}

const orNull = (text: unknown): unknown => (text === '' ? null : text)
const usd = (nano: unknown): number | null => (nano === null ? null : Number(nano) / 1e9)

async function found(ids: readonly string[]) {
  const [calls, tools, embeddings, checks, messages] = await Promise.all([
    rowsOf('llm_calls', ids),
    rowsOf('tool_calls', ids),
    rowsOf('embeddings', ids),
    rowsOf('health_checks', ids),
    collector.query<Row>(
      `SELECT * FROM tallylight.messages WHERE TraceId IN (${ids.map((id) => `'${id}'`).join(', ')}) ORDER BY SpanId, Direction, Index`,
    ),
  ])
  return {
    calls: calls.map((row) =>
      callOf(
        row,
        messages.filter((message) => message.SpanId === row.SpanId && message.TraceId === row.TraceId),
      ),
    ),
    toolCalls: sorted(tools.map(toolOf)),
    embeddings: embeddings.map((row) => ({
      provider: row.Provider,
      model: row.Model,
      tokens: { input: row.InputTokens },
      conversationId: orNull(row.ConversationId),
      costUsd: usd(row.CostNanoUsd),
    })),
    healthChecks: checks.map((row) => ({ target: row.Target, ok: row.Status === 'healthy' })),
  }
}

function callOf(row: Row, messages: readonly Row[]) {
  const output = messages.filter((message) => message.Direction === 'output')
  const spoken = output.filter((message) => message.ContentType === 'text')
  const asked = messages.findLast(
    (message) => message.Direction === 'input' && message.Role === 'user' && message.ContentType === 'text',
  )
  return {
    provider: row.Provider,
    requestModel: row.RequestModel,
    model: row.Model,
    conversationId: orNull(row.ConversationId),
    userId: orNull(row.UserId),
    tenantId: orNull(row.TenantLabel),
    tokens: {
      input: row.InputTokens,
      cacheRead: row.CacheReadTokens,
      cacheWrite: row.CacheWriteTokens,
      output: row.OutputTokens,
      reasoning: row.ReasoningTokens,
    },
    finishReason: orNull(row.FinishReason),
    error: row.ErrorType === '' ? null : { type: row.ErrorType },
    streaming: row.Streaming,
    lastUserText: asked?.Content ?? null,
    assistantText: spoken.length === 0 ? null : spoken.map((message) => message.Content).join(''),
    requestedTools: output
      .filter((message) => message.ContentType === 'tool_call')
      .map((message) => (JSON.parse(String(message.Content)) as { readonly name: string }).name),
    costUsd: usd(row.CostNanoUsd),
  }
}

function toolOf(row: Row) {
  return {
    name: row.Name,
    status: row.Status === 'success' ? 'ok' : row.Status === 'failure' ? 'error' : row.Status,
    callId: orNull(row.CallId),
    ...(row.Arguments === '' ? {} : { arguments: JSON.parse(String(row.Arguments)) as unknown }),
    hasResult: row.Result !== '',
    mcpServer: orNull(row.McpServer),
    errorType: orNull(row.ErrorType),
    conversationId: orNull(row.ConversationId),
    userId: orNull(row.UserId),
    tenantId: orNull(row.TenantLabel),
  }
}

/** Several may begin in one millisecond. */
function sorted(tools: readonly Row[]): readonly Row[] {
  const key = (tool: Row): string => JSON.stringify([tool.name, tool.arguments, tool.callId])
  return tools.toSorted((a, b) => (key(a) < key(b) ? -1 : 1))
}

/** The files name a conversation that is random `*`, and explain themselves in notes. */
function expectedOf(name: string) {
  const expected = readJson(new URL(`expected/${name}.json`, fixtures)) as unknown as Readonly<
    Record<string, readonly Row[]>
  >
  const plain = ({ note: _note, ...row }: Row): Row =>
    row.conversationId === '*' ? { ...row, conversationId: expect.stringMatching(/./) as string } : row
  return {
    calls: (expected.calls ?? []).map(plain),
    toolCalls: sorted((expected.toolCalls ?? []).map(plain)),
    embeddings: expected.embeddings ?? [],
    healthChecks: expected.healthChecks ?? [],
  }
}

function traceIdsOf(name: string, way: Way): readonly string[] {
  const ids = recordingOf(name, way).flatMap(({ body }) => [
    ...JSON.stringify(body).matchAll(/"traceId":"([0-9a-f]{32})"/g),
  ])
  return [...new Set(ids.map(([, id]) => id ?? ''))]
}

test.each(names)(
  'genai: %s is the same rows at once, one by one, backwards, and with a kill in between',
  async (name) => {
    for (const way of ways) expect(await found(traceIdsOf(name, way)), way).toEqual(expectedOf(name))
  },
)

/** What the spans of one kind hold of messages, in their order. */
function heldIn(table: string, ids: readonly string[], join: string): Promise<readonly Row[]> {
  const list = ids.map((id) => `'${id}'`).join(', ')
  return collector.query<Row>(
    `SELECT SpanName AS span, arrayMap(message -> message.2, arraySort(groupArray(((Direction, Index), concat(Role, ' ', ContentType, ' ', Content))))) AS held
     FROM tallylight.${table} AS m JOIN tallylight.otel_traces AS t ON t.TraceId = m.TraceId AND t.SpanId = m.SpanId
     WHERE m.TraceId IN (${list}) ${join} GROUP BY m.TraceId, m.SpanId, SpanName ORDER BY min(t.Timestamp), SpanName`,
  )
}

const weather = 'user text What is the weather in Paris?'
const sunny = 'assistant text It is 18 degrees and sunny in Paris.'
const system = 'system text You are a geography assistant.'
const capital = 'user text What is the capital of France?'
const paris = 'assistant text Paris is the capital of France.'
const asks = 'assistant tool_call {"id":"call_fake_1","name":"get_weather","arguments":{"city":"Paris"}}'
const report = '{"temp_c":18,"sky":"sunny","city":"Paris"}'

test.each<[name: string, held: readonly (readonly string[])[]]>([
  ['langfuse-agent-tool', [[weather, sunny]]],
  ['openinference-tool-error', [[weather]]],
  ['openllmetry-openai-chat-cached-workflow', [['user json {"args":[],"kwargs":{}}', paris]]],
  [
    'pydantic-ai-v5-agent-tool',
    [
      [
        system,
        weather,
        'assistant tool_call {"id":"call_fake_1","name":"get_weather","arguments":"{\\"city\\":\\"Paris\\"}"}',
        `user tool_call_response {"id":"call_fake_1","name":"get_weather","response":${report}}`,
        sunny,
        sunny,
      ],
    ],
  ],
  [
    'strands-agent-tool',
    [
      [system, weather, sunny],
      [weather, asks, `tool tool_call_response {"id":"call_fake_1","response":[{"json":${report}}]}`],
    ],
  ],
  ['vercel-ai5-tool', [[weather, sunny]]],
  ['vercel-ai6-generate-cached', [[system, capital, paris]]],
  ['vercel-ai6-embed', [['user text hello', 'user text world']]],
  ['vercel-ai7-legacy-tool', [[weather, sunny, asks]]],
  ['vercel-ai7-otel-generate-cached', [[system, capital, paris]]],
])(
  'genai: what spans around the calls of %s hold is read from wrapper_messages, in every order',
  async (name, held) => {
    for (const way of ways) {
      const found = await heldIn('wrapper_messages', traceIdsOf(name, way), '')
      expect(
        found.map((row) => row.held),
        way,
      ).toEqual(held)
    }
  },
)

test.each(['langfuse-openai-embeddings', 'openinference-openai-embeddings', 'vercel-ai5-embed', 'vercel-ai6-embed'])(
  'genai: the texts that %s embedded are its messages',
  async (name) => {
    const ofEmbeddings = 'AND (m.TraceId, m.SpanId) IN (SELECT TraceId, SpanId FROM tallylight.embeddings)'
    for (const way of ways)
      expect((await heldIn('messages', traceIdsOf(name, way), ofEmbeddings)).map((row) => row.held)).toEqual([
        ['user text hello', 'user text world'],
      ])
  },
)

test('genai: of the content of spans and log records only what holds more than messages is left in them', async () => {
  const left = await collector.query<{ key: string }>(
    `SELECT DISTINCT key FROM (
       SELECT SpanAttributes AS attributes FROM tallylight.otel_traces UNION ALL
       SELECT arrayJoin(\`Events.Attributes\`) FROM tallylight.otel_traces UNION ALL
       SELECT LogAttributes FROM tallylight.otel_logs UNION ALL
       SELECT map('body', Body) FROM tallylight.otel_logs)
     ARRAY JOIN mapKeys(attributes) AS key, mapValues(attributes) AS value
     WHERE match(value, '(weather in Paris|capital of France|degrees and sunny|geography assistant)') ORDER BY key`,
  )
  // Requests and replies of calls as they were sent, with models, tools and parameters, parts with a signature, the request of a
  // stream, whose rows come from the record at its end, and a request that only counted tokens.
  expect(left.map(({ key }) => key)).toEqual([
    'gen_ai.completion',
    'gen_ai.input.messages',
    'gen_ai.prompt',
    'input.value',
    'langfuse.observation.input',
    'llm.anthropic.messages',
    'llm.input_messages.1.message.content',
    'llm.invocation_parameters',
    'llm.openai.messages',
    'llm.output_messages.0.message.contents.1.message_content.text',
    'model_request_parameters',
    'output.value',
    'raw_input',
    'request_data',
    'response_data',
    'traceloop.entity.input',
  ])
})

test('genai: what a trace cost is what its calls cost, and its turns say the same', async () => {
  const wrong = await collector.query(
    `SELECT TraceId, sum(CostNanoUsd) AS calls, any(turns) AS turns FROM tallylight.llm_calls
     LEFT JOIN (SELECT TraceId, sum(CostNanoUsd) AS turns FROM tallylight.turns GROUP BY TraceId) AS t USING TraceId
     GROUP BY TraceId HAVING calls != turns`,
  )
  expect(wrong).toEqual([])
  const [sums] = await collector.query<{ calls: number }>('SELECT toUInt32(count()) AS calls FROM tallylight.llm_calls')
  expect(sums?.calls).toBeGreaterThan(300)
})
