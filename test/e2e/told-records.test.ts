// What a service tells by itself (`recordError` and its like), in a turn and outside of any, through its own exporter: each is a row
// of its table. And calls granted out of leases: their records settle them, and ledger and records agree.
import { randomUUID } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { startProvider } from '@tallylight/instrumentation/hooks/fixtures/provider.ts'
import {
  type Instrumentation,
  instrument,
  recordAudit,
  recordError,
  recordHealthCheck,
  recordToolCall,
  recordUsage,
  turn,
  withQuota,
} from '@tallylight/instrumentation/index.ts'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { type CollectorProcess, startCollector } from '../collector-process.ts'

const stack = new AsyncDisposableStack()
let collector: CollectorProcess
let instrumentation: Instrumentation
let providerUrl = ''

beforeAll(async () => {
  collector = stack.use(await startCollector())
  const usage = { prompt_tokens: 90, completion_tokens: 10 }
  const choices = [{ index: 0, message: { role: 'assistant', content: 'Hi' }, finish_reason: 'stop' }]
  const provider = stack.use(
    await startProvider(() => ({
      headers: { 'content-type': 'application/json' },
      pieces: [JSON.stringify({ id: randomUUID(), model: 'gpt-4o', choices, usage })],
    })),
  )
  providerUrl = `${provider.url}/v1`
  instrumentation = instrument({
    environment: {
      OTEL_EXPORTER_OTLP_ENDPOINT: `http://127.0.0.1:${collector.ports().otlpHttp}`,
      OTEL_SERVICE_NAME: 'teller',
      TALLYLIGHT_URL: `http://127.0.0.1:${collector.ports().api}`,
    },
    content: 'full',
    quota: 'enforce',
    baseUrls: [{ url: providerUrl, provider: 'openai' }],
    write: () => undefined,
  })
  stack.defer(() => instrumentation.shutdown())
}, 90_000)
afterAll(() => stack.disposeAsync())

/** What the table has in the end: a flush takes no longer than a second, whatever has been sent by then. */
function rowsOf(table: string, columns: string, order: string) {
  const read = async (): Promise<readonly object[]> => {
    await instrumentation.flush()
    await collector.drained()
    return collector.query(`SELECT ${columns} FROM tallylight.${table} ORDER BY ${order}`)
  }
  return expect.poll(read, { timeout: 30_000 })
}

function tell(place: string): void {
  recordError(new RangeError(`no room ${place}`))
  recordAudit({
    action: `rename ${place}`,
    resource: { type: 'chat', id: '7' },
    before: { name: 'a' },
    after: { name: 'b' },
  })
  recordToolCall({ name: `search ${place}`, id: 'call-1', arguments: { query: 'x' } }, () => ['found'])
  const usage = { inputTokens: 100, outputTokens: 20, cacheReadTokens: 40 }
  recordUsage({ provider: 'openai', model: 'gpt-4o', usage, responseId: `r ${place}` })
  recordHealthCheck({
    target: `mcp:${place}`,
    status: 'timeout',
    event: 'startup',
    responseTimeMs: 250,
    metadata: { tools: 3 },
  })
}

test('told: errors, audit events, tool calls, usage and health checks are rows, in a turn and outside of any', async () => {
  tell('outside')
  turn({ user: 'ada', conversation: 'c1' }, () => tell('inside'))
  const who = { UserId: 'ada', ConversationId: 'c1' }
  const nobody = { UserId: '', ConversationId: '' }
  await rowsOf('errors', "Type, Message, Stack LIKE '%at %' AS HasStack, UserId, ConversationId", 'Message').toEqual([
    { Type: 'RangeError', Message: 'no room inside', HasStack: 1, ...who },
    { Type: 'RangeError', Message: 'no room outside', HasStack: 1, ...nobody },
  ])
  const change = { ResourceType: 'chat', ResourceId: '7', Before: '{"name":"a"}', After: '{"name":"b"}' }
  await rowsOf('audit_events', 'Action, Actor, ResourceType, ResourceId, Before, After', 'Action').toEqual([
    { Action: 'rename inside', Actor: 'ada', ...change },
    { Action: 'rename outside', Actor: '', ...change },
  ])
  const tool = {
    CallId: 'call-1',
    Type: 'function',
    Arguments: '{"query":"x"}',
    Result: '["found"]',
    Status: 'success',
  }
  await rowsOf('tool_calls', 'Name, CallId, Type, Arguments, Result, Status, UserId, ConversationId', 'Name').toEqual([
    { Name: 'search inside', ...tool, ...who },
    { Name: 'search outside', ...tool, ...nobody },
  ])
  const used = {
    Provider: 'openai',
    Model: 'gpt-4o',
    Input: 100,
    Cached: 40,
    Output: 20,
    UsageSource: 'provider',
    Cost: 60 * 2_500 + 40 * 1_250 + 20 * 10_000,
  }
  const columns = `ResponseId, Provider, Model, toUInt32(InputTokens) AS Input, toUInt32(CacheReadTokens) AS Cached,
    toUInt32(OutputTokens) AS Output, UsageSource, toUInt32(CostNanoUsd) AS Cost, UserId, ConversationId`
  await rowsOf('llm_calls', columns, 'ResponseId').toEqual([
    { ResponseId: 'r inside', ...used, ...who },
    { ResponseId: 'r outside', ...used, ...nobody },
  ])
  const checked = { Status: 'timeout', EventType: 'startup', Ms: 250, Metadata: { tools: '3' } }
  await rowsOf(
    'health_checks',
    'Target, Status, EventType, toUInt32(ResponseTimeNano / 1e6) AS Ms, Metadata',
    'Target',
  ).toEqual([
    { Target: 'mcp:inside', ...checked },
    { Target: 'mcp:outside', ...checked },
  ])
})

test('told: calls out of leases are booked once, by their holder and by their records', async () => {
  const url = `http://127.0.0.1:${collector.ports().api}/v1/quota`
  const headers = { authorization: `Bearer ${collector.adminKey}` }
  const limit = { subject: { user: 'hal' }, measure: 'cost', amount: 10_000_000_000, window: 'day', action: 'block' }
  await fetch(`${url}/limits/hal`, { method: 'PUT', headers, body: JSON.stringify(limit) })
  const calls = 60
  const body = JSON.stringify({
    model: 'gpt-4o',
    max_tokens: 20,
    messages: [{ role: 'user', content: 'x'.repeat(200) }],
  })
  await turn({ user: 'hal' }, () =>
    withQuota({ lease: true }, async () => {
      for (let call = 0; call < calls; call++)
        await (await fetch(`${providerUrl}/chat/completions`, { method: 'POST', body })).text()
    }),
  )
  const costNanoUsd = calls * (90 * 2_500 + 10 * 10_000)
  // The first is reserved, and what comes while a lease is asked for.
  const columns = `toUInt32(count()) AS Calls, countIf(position(CallId, '/') > 0) > ${calls / 2} AS AreLeased,
    toUInt32(sum(CostNanoUsd)) AS Cost`
  await rowsOf("llm_calls WHERE UserId = 'hal'", columns, '1').toEqual([
    { Calls: calls, AreLeased: 1, Cost: costNanoUsd },
  ])
  await expect
    .poll(async () => {
      const reply = await fetch(`${url}/usage?limit=hal`)
      const { usage } = (await reply.json()) as { readonly usage: readonly object[] }
      return usage[0]
    })
    .toMatchObject({ held: 0, spent: costNanoUsd, debt: 0 })
})

test('told: the request of docs/otlp.md, which takes no SDK, is a call with its price', async () => {
  const page = readFileSync(new URL('../../docs/otlp.md', import.meta.url), 'utf8')
  const body = /-d '(\{.+?\})'\n```/s.exec(page)?.[1] ?? ''
  const seconds = String(Math.floor(Date.now() / 1000))
  const reply = await fetch(`http://127.0.0.1:${collector.ports().otlpHttp}/v1/traces`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: body.replaceAll(`'$(date +%s)'`, seconds),
  })
  expect(reply.status).toBe(200)
  const columns = `Provider, Model, toUInt32(InputTokens) AS Input, toUInt32(OutputTokens) AS Output,
    toUInt32(CostNanoUsd) AS Cost, UserId, ConversationId`
  await rowsOf("llm_calls WHERE ServiceName = 'batch'", columns, '1').toEqual([
    { Provider: 'openai', Model: 'gpt-4o', Input: 9, Output: 2, Cost: 42_500, UserId: 'ada', ConversationId: 'c1' },
  ])
})
