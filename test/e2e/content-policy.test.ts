// What is kept of what users and models say, by tenant: as it is, without personal data, or not at all. Texts come back byte for
// byte, are stored once however often they are sent, and what was taken out of the raw span is in the rows.
import { once } from 'node:events'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { type CollectorProcess, startCollector } from '../collector-process.ts'
import { spansRequest } from '../spans.ts'

const stack = new AsyncDisposableStack()
let collector: CollectorProcess
let key = ''
let configPath = ''
let sent = 0

beforeAll(async () => {
  const directory = await mkdtemp(join(tmpdir(), 'tallylight-content-'))
  stack.defer(() => rm(directory, { recursive: true }))
  configPath = join(directory, 'tallylight.json')
  await writeFile(
    configPath,
    JSON.stringify({
      content: { tenants: { open: 'full', strict: 'metadata', severe: 'metadata', gateway: 'metadata' } },
      proxy: { upstreams: { house: { url: await startUpstream(), provider: 'openai' } } },
    }),
  )
  collector = stack.use(await startCollector({ TALLYLIGHT_CONFIG: configPath }))
  const made = await fetch(`http://127.0.0.1:${collector.ports().api}/api/v1/keys`, {
    method: 'POST',
    headers: { Authorization: `Bearer ${collector.adminKey}`, 'Content-Type': 'application/json' },
    body: JSON.stringify({ tenant: 'default', roles: ['ingest'], manyTenants: true }),
  })
  key = ((await made.json()) as { readonly key: string }).key
}, 60_000)
afterAll(() => stack.disposeAsync())

/** Answers every call of a model. */
async function startUpstream(): Promise<string> {
  const server = createServer((request, response) => {
    const choice = { index: 0, finish_reason: 'stop', message: { role: 'assistant', content: 'a proxied answer' } }
    const usage = { prompt_tokens: 4, completion_tokens: 3, total_tokens: 7 }
    request.resume().on('end', () => {
      response.setHeader('Content-Type', 'application/json')
      response.end(JSON.stringify({ id: 'c', object: 'chat.completion', model: 'gpt-4o', choices: [choice], usage }))
    })
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  stack.defer(() => {
    server.closeAllConnections()
    server.close()
  })
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`
}

type Row = Readonly<Record<string, unknown>>

async function send(
  tenant: string,
  attributes: Readonly<Record<string, string | number>>,
  aheadDays = 0,
): Promise<string> {
  const id = `${++sent}`.padStart(16, '0')
  const startUnixNano = BigInt(Date.now() + aheadDays * 86_400_000) * 1_000_000n
  const times = { startUnixNano, endUnixNano: startUnixNano + 1_000_000_000n }
  const span = { id, name: 'span', ...times, attributes: { 'tallylight.tenant.id': tenant, ...attributes } }
  const response = await fetch(`http://127.0.0.1:${collector.ports().otlpHttp}/v1/traces`, {
    method: 'POST',
    headers: { 'Content-Type': 'application/x-protobuf', Authorization: `Bearer ${key}` },
    body: new Uint8Array(spansRequest([span])),
  })
  expect(response.status).toBe(200)
  return id
}

async function chat(
  tenant: string,
  input: readonly string[],
  output: string,
  usage: Readonly<Record<string, string | number>> = {
    'gen_ai.usage.input_tokens': 10,
    'gen_ai.usage.output_tokens': 5,
  },
): Promise<string> {
  const messages = (role: string, texts: readonly string[]): string =>
    JSON.stringify(texts.map((text) => ({ role, parts: [{ type: 'text', content: text }] })))
  return send(tenant, {
    'gen_ai.operation.name': 'chat',
    'gen_ai.provider.name': 'openai',
    'gen_ai.request.model': 'gpt-4o',
    ...usage,
    'user.id': 'ann@example.com',
    'gen_ai.input.messages': messages('user', input),
    'gen_ai.output.messages': messages('assistant', [output]),
  })
}

function rowsOf(table: string, tenant: string, columns: string): Promise<readonly Row[]> {
  return collector.query<Row>(`SELECT ${columns} FROM tallylight.${table} WHERE TenantId = '${tenant}' ORDER BY SpanId`)
}

test('content: 2 MiB come back byte for byte, and a history that is sent again is stored once', async () => {
  const long = `${'ä€𝄞 "quoted" \\ \n'.repeat(110_000)}end`
  expect(Buffer.byteLength(long)).toBeGreaterThan(2 * 1024 * 1024)
  await chat('open', [long], 'short')
  await chat('open', [long, 'mail to bob@example.com'], 'short')
  await chat('open', [long, 'mail to bob@example.com', 'and?'], 'short')
  await collector.drained()
  const found = await collector.query<{ Content: string }>(
    "SELECT Content FROM tallylight.messages WHERE TenantId = 'open' AND Direction = 'input' AND Index = 0",
  )
  expect(found.map(({ Content }) => Content === long)).toEqual([true, true, true])
  expect(
    await collector.query("SELECT Content FROM tallylight.messages WHERE TenantId = 'open' AND Index = 1"),
  ).toEqual([{ Content: 'mail to bob@example.com' }, { Content: 'mail to bob@example.com' }])
  const [texts] = await collector.query(
    "SELECT toUInt32(count()) AS texts FROM tallylight.genai_contents WHERE TenantId = 'open'",
  )
  expect(texts).toEqual({ texts: 1 })
  expect(await rowsOf('otel_traces', 'open', "mapContains(SpanAttributes, 'gen_ai.input.messages') AS has")).toEqual([
    { has: 0 },
    { has: 0 },
    { has: 0 },
  ])
}, 60_000)

test('content: personal data is masked in what is said, in rows and in the raw span, and a user is still known by name', async () => {
  await chat('usual', ['call +49 30 901820 or write to bob@example.com'], 'I wrote to bob@example.com')
  await collector.drained()
  const said = await collector.query<{ Content: string }>(
    "SELECT Content FROM tallylight.messages WHERE TenantId = 'usual' ORDER BY Direction",
  )
  expect(said[0]?.Content).toBe('call ************* or write to [masked:email]*')
  expect(said[1]?.Content).toMatch(/^I wrote to \[masked:email\]\**$/)
  expect(await rowsOf('llm_calls', 'usual', 'UserId, InputTokens')).toEqual([
    { UserId: 'ann@example.com', InputTokens: 10 },
  ])
  const everything =
    "SELECT toUInt32(count()) AS found FROM tallylight.genai_facts WHERE TenantId = 'usual' AND Fact LIKE '%bob@%'"
  expect(await collector.query(everything)).toEqual([{ found: 0 }])
  expect(await collector.metric('tallylight_masked_total', { kind: 'email' })).toBeGreaterThanOrEqual(2)
}, 60_000)

test('content: what is said in lines is masked at the beginning of each, and stays messages', async () => {
  await chat('lines', ['Contacts:\nbob@example.com\n\t+49 30 901820'], '<bob@example.com>')
  await collector.drained()
  expect(
    await collector.query("SELECT Content, ContentType FROM tallylight.messages WHERE TenantId = 'lines'"),
  ).toEqual([
    { Content: 'Contacts:\n[masked:email]*\n\t*************', ContentType: 'text' },
    { Content: '<[masked:email]*>', ContentType: 'text' },
  ])
}, 60_000)

test('content: what errors say is masked wherever they say it, and so are the arguments of tools', async () => {
  const text = 'no mailbox bob@example.com here'
  const call = { 'gen_ai.operation.name': 'chat', 'gen_ai.provider.name': 'openai', 'error.type': 'refused' }
  await send('failing', { ...call, 'error.message': text })
  await send('failing', { 'mcp.method.name': 'tools/call', 'mcp.error.type': 'refused', 'mcp.error.message': text })
  await send('failing', {
    'langfuse.observation.type': 'generation',
    'langfuse.observation.level': 'ERROR',
    'langfuse.observation.status_message': text,
  })
  await send('failing', { 'openinference.span.kind': 'TOOL', 'tool_call.function.arguments': text })
  await collector.drained()
  const masked = text.replace('bob@example.com', '[masked:email]*')
  expect(await rowsOf('errors', 'failing', 'Message')).toEqual(Array(3).fill({ Message: masked }))
  expect(await rowsOf('tool_calls', 'failing', 'Arguments')).toEqual([{ Arguments: '' }, { Arguments: masked }])
  expect(await rawWith('failing', 'bob@')).toBe(0)

  await send('severe', { ...call, 'error.message': text })
  await collector.drained()
  expect(await rowsOf('errors', 'severe', 'Message')).toEqual([{ Message: masked }])
  expect(await rawWith('severe', 'bob@')).toBe(0)
}, 60_000)

test('content: what is set aside is kept by the same policies', async () => {
  const text = 'mail to bob@example.com'
  const call = { 'gen_ai.operation.name': 'chat', 'gen_ai.input.messages': text, 'error.message': text }
  const log = (tenant: string) => ({
    timeUnixNano: String(BigInt(Date.now() + 3 * 86_400_000) * 1_000_000n),
    eventName: 'gen_ai.user.message',
    body: { kvlistValue: { values: [{ key: 'content', value: { stringValue: text } }] } },
    attributes: [{ key: 'tallylight.tenant.id', value: { stringValue: tenant } }],
  })
  const tenants = ['open', 'aside', 'strict']
  for (const tenant of tenants) await send(tenant, call, 3)
  const response = await fetch(`http://127.0.0.1:${collector.ports().otlpHttp}/v1/logs`, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json', Authorization: `Bearer ${key}` },
    body: JSON.stringify({ resourceLogs: [{ scopeLogs: [{ logRecords: tenants.map(log) }] }] }),
  })
  expect(response.status).toBe(200)
  await collector.drained()
  const counted = ['mail to', 'bob@example.com', '[masked:email]'].map((part) => `countSubstrings(Record, '${part}')`)
  expect(
    await collector.query(
      `SELECT TenantId AS tenant, Signal AS signal, [${counted.join(', ')}] AS found FROM tallylight.quarantine ORDER BY signal, tenant`,
    ),
  ).toEqual([
    { tenant: 'aside', signal: 'logs', found: [1, 0, 1] },
    { tenant: 'open', signal: 'logs', found: [1, 1, 0] },
    { tenant: 'strict', signal: 'logs', found: [0, 0, 0] },
    { tenant: 'aside', signal: 'traces', found: [2, 0, 2] },
    { tenant: 'open', signal: 'traces', found: [2, 2, 0] },
    { tenant: 'strict', signal: 'traces', found: [0, 0, 0] },
  ])
}, 60_000)

test('content: metadata only keeps sizes and counts, and no text anywhere', async () => {
  await chat('strict', ['an unmistakable question '.repeat(50)], 'an unmistakable answer')
  await collector.drained()
  expect(await rowsOf('messages', 'strict', 'Content, ContentBytes, ContentHash, ContentPreview')).toEqual([
    { Content: '', ContentBytes: 1250, ContentHash: '', ContentPreview: '' },
    { Content: '', ContentBytes: 22, ContentHash: '', ContentPreview: '' },
  ])
  expect(await rowsOf('llm_calls', 'strict', 'InputTokens')).toEqual([{ InputTokens: 10 }])
  for (const [table, column] of [
    ['otel_traces', 'toString(SpanAttributes)'],
    ['genai_facts', 'Fact'],
    ['genai_contents', 'Text'],
    ['turns', 'concat(QuestionPreview, AnswerPreview)'],
  ]) {
    const [row] = await collector.query(
      `SELECT toUInt32(countIf(${column} LIKE '%unmistakable%')) AS found FROM tallylight.${table}`,
    )
    expect(row, table).toEqual({ found: 0 })
  }
}, 60_000)

test('content: a call through the proxy is kept by the policy of the tenant that a key for many names', async () => {
  const made = await fetch(`http://127.0.0.1:${collector.ports().api}/api/v1/keys`, {
    method: 'POST',
    headers: { Authorization: `Bearer ${collector.adminKey}` },
    body: JSON.stringify({ tenant: 'gateway', roles: ['ingest', 'quota'], manyTenants: true }),
  })
  const gateway = ((await made.json()) as { readonly key: string }).key
  for (const named of ['open', 'strict', '']) {
    const answer = await fetch(`http://127.0.0.1:${collector.ports().proxy}/house/v1/chat/completions`, {
      method: 'POST',
      headers: { 'Content-Type': 'application/json', 'X-Tallylight-Key': gateway, 'X-Tallylight-Tenant': named },
      body: JSON.stringify({ model: 'gpt-4o', messages: [{ role: 'user', content: 'a proxied question' }] }),
    })
    expect(await answer.text()).toContain('a proxied answer')
    expect(answer.status).toBe(200)
  }
  await collector.drained()
  expect(
    await collector.query(
      `SELECT TenantId AS tenant, Content AS content FROM tallylight.messages
       WHERE TraceId IN (SELECT TraceId FROM tallylight.llm_calls WHERE ServiceName = 'tallylight-proxy') ORDER BY tenant, content`,
    ),
  ).toEqual([
    { tenant: 'open', content: 'a proxied answer' },
    { tenant: 'open', content: 'a proxied question' },
  ])
}, 60_000)

test('content: a stream that told no usage is counted from its texts, long ones too, and said to be an estimate', async () => {
  const long = 'The quick brown fox jumps over the lazy dog. '.repeat(100)
  await chat('counted', [long], 'and so on', { 'gen_ai.request.stream': 'true' })
  await chat('counted', ['short'], 'no stream and no usage', {})
  await collector.drained()
  const columns =
    'UsageSource, toUInt32(InputTokens) AS input, toUInt32(OutputTokens) AS output, CostNanoUsd > 0 AS costs'
  const [counted, untold] = await rowsOf('llm_calls', 'counted', columns)
  expect(counted).toMatchObject({ UsageSource: 'estimated', output: 3, costs: 1 })
  // Ten tokens a sentence, and what the format of a chat adds.
  expect(counted?.input).toBeGreaterThan(990)
  expect(counted?.input).toBeLessThan(1020)
  expect(untold).toMatchObject({ UsageSource: 'none', input: null, costs: null })
}, 60_000)

/** An agent and an embedding, with what each holds of a text. */
async function around(tenant: string, text: string): Promise<void> {
  await send(tenant, { 'openinference.span.kind': 'CHAIN', 'input.value': JSON.stringify({ state: text }) })
  await send(tenant, { 'langfuse.observation.type': 'agent', 'langfuse.observation.output': text })
  await send(tenant, { 'openinference.span.kind': 'EMBEDDING', 'embedding.embeddings.0.embedding.text': text })
  await collector.drained()
}

/** What is shown of contents that stand around calls: of chain, agent and embedding. */
async function shownOf(tenant: string, text: string): Promise<readonly unknown[]> {
  const condition = `TenantId = '${tenant}' AND (Content = '' OR Content LIKE '%${text}%')`
  const views = ['wrapper_messages', 'messages'].map(
    (view) => `SELECT SpanId, Content FROM tallylight.${view} WHERE ${condition}`,
  )
  const rows = await collector.query<Row>(
    `SELECT Content FROM (${views.join(' UNION ALL ')}) ORDER BY SpanId DESC LIMIT 3`,
  )
  return rows.map(({ Content }) => Content).toReversed()
}

/** Spans whose attributes hold it. */
async function rawWith(tenant: string, text: string): Promise<number> {
  const rows = await rowsOf('otel_traces', tenant, `toString(SpanAttributes) LIKE '%${text}%' AS has`)
  return rows.filter(({ has }) => has === 1).length
}

test('content: what chains, agents and embeddings hold is kept by the same policies as the calls’ own, and only once', async () => {
  const text = `write to bob@example.com ${'and so on '.repeat(50)}`
  const masked = text.replace('bob@example.com', '[masked:email]*')
  for (const tenant of ['open', 'usual', 'strict']) await around(tenant, `${text}${tenant}`)
  expect(await shownOf('open', 'so on')).toEqual([`{"state":"${text}open"}`, `${text}open`, `${text}open`])
  expect(await shownOf('usual', 'so on')).toEqual([`{"state":"${masked}usual"}`, `${masked}usual`, `${masked}usual`])
  expect(await shownOf('strict', 'so on')).toEqual(['', '', ''])
  for (const tenant of ['open', 'usual', 'strict']) expect(await rawWith(tenant, 'so on')).toBe(0)
  const [texts] = await collector.query(
    "SELECT toUInt32(count()) AS texts FROM tallylight.genai_contents WHERE TenantId IN ('open', 'strict') AND Text LIKE '%so on%'",
  )
  expect(texts).toEqual({ texts: 2 })
}, 60_000)

test('content: what became rows stays in spans too where it is asked for, but not with a tenant of metadata only', async () => {
  await collector.kill('SIGTERM')
  await writeFile(
    configPath,
    JSON.stringify({ content: { tenants: { open: 'full', strict: 'metadata' }, keepRaw: true } }),
  )
  await collector.start()
  for (const tenant of ['open', 'strict']) await around(tenant, `kept twice by ${tenant}`)
  expect([await rawWith('open', 'kept twice'), await rawWith('strict', 'kept twice')]).toEqual([3, 0])
  const text = 'kept twice by open'
  expect(await shownOf('open', 'kept twice')).toEqual([`{"state":"${text}"}`, text, text])
}, 60_000)
