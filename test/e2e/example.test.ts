// The example against a collector as users start both: the same turn over three transports, tools, MCP, a denied call, faults, an
// abort, a health check. What is in ClickHouse and in the ledger is compared with what the provider served, to the token.
import { startService } from '@tallylight/examples/chat-service/process.ts'
import { type StandIn, startStandIn } from '@tallylight/examples/stand-in.ts'
import { askRest, askSocket, askStream } from '@tallylight/examples/visitor.ts'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { type CollectorProcess, startCollector } from '../collector-process.ts'

const stack = new AsyncDisposableStack()
let collector: CollectorProcess
let standIn: StandIn
let service: Awaited<ReturnType<typeof startService>>

beforeAll(async () => {
  collector = stack.use(await startCollector())
  standIn = stack.use(await startStandIn())
  service = stack.use(
    await startService({
      OPENAI_BASE_URL: standIn.url,
      OPENAI_API_KEY: 'none',
      TALLYLIGHT_URL: `http://127.0.0.1:${collector.ports().api}`,
      TALLYLIGHT_QUOTA: 'enforce',
      TALLYLIGHT_CONTENT: 'full',
      OTEL_EXPORTER_OTLP_ENDPOINT: `http://127.0.0.1:${collector.ports().otlpHttp}`,
      OTEL_SERVICE_NAME: 'chat-service',
    }),
  )
}, 90_000)
afterAll(() => stack.disposeAsync())

async function limitOf(user: string, amount: number): Promise<void> {
  const put = await fetch(`http://127.0.0.1:${collector.ports().api}/v1/quota/limits/${user}`, {
    method: 'PUT',
    headers: { authorization: `Bearer ${collector.adminKey}` },
    body: JSON.stringify({ subject: { user }, measure: 'tokens', amount, window: 'day', action: 'block' }),
  })
  expect(put.status).toBe(201)
}

type Account = { readonly held: number; readonly spent: number }

/** When nothing is held any more: settlements follow the answer. */
async function settledAccountOf(user: string): Promise<Account> {
  for (;;) {
    const reply = await fetch(`http://127.0.0.1:${collector.ports().api}/v1/quota/usage?limit=${user}`)
    const { usage } = (await reply.json()) as { readonly usage: readonly Account[] }
    if (usage[0]?.held === 0) return usage[0]
  }
}

type Row = {
  readonly SpanName: string
  readonly SpanAttributes: Readonly<Record<string, string>>
  readonly ServiceName: string
  readonly TraceId: string
}

/** The spans of a conversation, when there are that many. */
async function spansOf(user: string, count: number): Promise<readonly Row[]> {
  for (;;) {
    await collector.drained()
    const rows = await collector.query<Row>(
      `SELECT SpanName, SpanAttributes, ServiceName, TraceId FROM tallylight.otel_traces WHERE SpanAttributes['user.id'] = '${user}' ORDER BY Timestamp`,
    )
    if (rows.length >= count) return rows
  }
}

const tokens = (rows: readonly Row[], name: string): number =>
  rows.reduce((sum, { SpanAttributes }) => sum + Number(SpanAttributes[name] ?? 0), 0)

test('example: the same turn over REST, SSE and WebSocket is the same in ClickHouse and in the ledger, to the token', async () => {
  const seen: unknown[] = []
  for (const [name, ask] of Object.entries({ rest: askRest, sse: askStream, websocket: askSocket })) {
    const user = `ada-${name}`
    await limitOf(user, 1_000_000)
    const before = standIn.served()
    const asked = { user, conversation: 'c1', question: 'What is the forecast for Zürich?' }
    expect(await ask(service.url, asked)).toBe('You asked: What is the forecast for Zürich? It is rain in Zürich.')
    const served = standIn.served()
    const { spent } = await settledAccountOf(user)
    // A turn, two calls, a tool call, and the MCP request in it.
    const rows = await spansOf(user, 5)
    const input = tokens(rows, 'gen_ai.usage.input_tokens')
    const output = tokens(rows, 'gen_ai.usage.output_tokens')
    expect(input).toBe(served.inputTokens - before.inputTokens)
    expect(output).toBe(served.outputTokens - before.outputTokens)
    expect(spent).toBe(input + output)
    const turns = await collector.query(
      `SELECT Channel, Status, ConversationId, QuestionPreview, AnswerPreview, Calls, ToolCalls, ToolsUsed,
         toUInt32(InputTokens) AS InputTokens, toUInt32(OutputTokens) AS OutputTokens
       FROM tallylight.turns WHERE UserId = '${user}'`,
    )
    expect(turns).toEqual([
      {
        Channel: name,
        Status: 'success',
        ConversationId: 'c1',
        QuestionPreview: asked.question,
        AnswerPreview: 'You asked: What is the forecast for Zürich? It is rain in Zürich.',
        Calls: 2,
        ToolCalls: 1,
        ToolsUsed: ['get_forecast'],
        InputTokens: input,
        OutputTokens: output,
      },
    ])
    seen.push([served.calls - before.calls, input, output, rows.map(({ SpanName }) => SpanName).toSorted()])
  }
  expect(seen[0]).toEqual([
    2,
    expect.any(Number),
    expect.any(Number),
    ['chat gpt-4o-mini', 'chat gpt-4o-mini', 'execute_tool get_forecast', 'tools/call forecast', 'turn'],
  ])
  expect(seen[1]).toEqual(seen[0])
  expect(seen[2]).toEqual(seen[0])
})

test('example: the MCP server’s own span is in the trace of the turn', async () => {
  const rows = await collector.query<{ readonly kinds: string }>(
    `SELECT toString(arraySort(groupArray(toString(SpanKind)))) AS kinds FROM tallylight.otel_traces WHERE SpanName = 'tools/call forecast' GROUP BY TraceId`,
  )
  expect(rows.map(({ kinds }) => kinds)).toEqual(Array(3).fill("['Client','Server']"))
})

test('example: a denied call is told so on every transport, and never reaches the provider', async () => {
  await limitOf('bob', 10)
  const before = standIn.served()
  const asked = { user: 'bob', conversation: 'c2', question: 'Who are you?' }
  for (const ask of [askRest, askStream, askSocket])
    expect(await ask(service.url, asked)).toBe('429 Quota exceeded: bob')
  expect(standIn.served()).toEqual(before)
  expect((await settledAccountOf('bob')).spent).toBe(0)
  const turns = (await spansOf('bob', 6)).filter(({ SpanName }) => SpanName === 'turn')
  for (const { SpanAttributes } of turns)
    expect(SpanAttributes).toMatchObject({
      'tallylight.turn.status': 'blocked',
      'tallylight.turn.block_reason': 'quota bob',
    })
})

test('example: faults and an abort end their spans, and leave nothing held', async () => {
  await limitOf('eve', 1_000_000)
  const ask = (fault: string, signal?: AbortSignal): Promise<string> =>
    askStream(service.url, { user: 'eve', conversation: 'c3', question: `Tell me [fault:${fault}]` }, signal)
  expect(await ask('500')).toBe('502 The model did not answer')
  expect(await ask('html')).toBe('502 The model did not answer')
  expect(await ask('cut')).toContain('502')
  await expect(ask('hang', AbortSignal.timeout(500))).rejects.toThrow('aborted')
  const rows = await spansOf('eve', 8)
  const calls = rows.filter(({ SpanName }) => SpanName.startsWith('chat'))
  expect(
    calls.map(({ SpanAttributes }) => [SpanAttributes['error.type'], SpanAttributes['tallylight.ending']]),
  ).toEqual([
    ['server_error', undefined],
    [undefined, undefined],
    [expect.any(String), 'cut'],
    [undefined, 'aborted'],
  ])
  // Each began with a status of 200; who leaves has read enough.
  const turns = rows.filter(({ SpanName }) => SpanName === 'turn')
  expect(turns.map(({ SpanAttributes }) => SpanAttributes['tallylight.turn.status'])).toEqual([
    'failure',
    'failure',
    'failure',
    'success',
  ])
  await settledAccountOf('eve')
})

test('example: the health of the MCP server was looked at, as nobody’s turn', async () => {
  const rows = await collector.query<{ readonly status: string; readonly user: string }>(
    `SELECT SpanAttributes['tallylight.health.status'] AS status, SpanAttributes['user.id'] AS user FROM tallylight.otel_traces WHERE SpanAttributes['tallylight.health.target'] = 'mcp:weather'`,
  )
  expect(rows[0]).toEqual({ status: 'healthy', user: '' })
})
