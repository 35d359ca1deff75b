// Calls through the proxy, made by the SDKs of their providers: what ClickHouse and the ledger have of them is compared with what
// was served, and what the callers got with what the provider sent.
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import Anthropic, { RateLimitError as AnthropicRateLimit } from '@anthropic-ai/sdk'
import { openPool } from '@tallylight/storage/postgres/connection.ts'
import OpenAI, { RateLimitError } from 'openai'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { providerKey, recorded, startWorld, type World } from './proxied.ts'

let world: World
beforeAll(async () => {
  world = await startWorld()
}, 60_000)
afterAll(() => world[Symbol.asyncDispose]())

const openai = (upstream: string, user: string, headers: Record<string, string> = {}): OpenAI =>
  new OpenAI({
    apiKey: providerKey,
    baseURL: world.url(upstream),
    maxRetries: 0,
    defaultHeaders: { 'x-tallylight-user': user, ...headers },
  })
const anthropic = (upstream: string, user: string): Anthropic =>
  new Anthropic({
    apiKey: providerKey,
    baseURL: world.url(upstream),
    maxRetries: 0,
    defaultHeaders: { 'x-tallylight-user': user },
  })
const ask = (content: string) => ({ model: 'gpt-4o', max_tokens: 400, messages: [{ role: 'user', content }] as const })
const turnOf = (content: string) => ({ ...ask(content), messages: [{ role: 'user' as const, content }] })

type Call = {
  readonly TenantId: string
  readonly Model: string
  readonly Provider: string
  readonly InputTokens: number
  readonly CacheReadTokens: number | null
  readonly OutputTokens: number
  readonly UsageSource: string
  readonly ConversationId: string
  readonly ServiceName: string
  readonly TraceId: string
  readonly ErrorType: string
  readonly Streaming: boolean
}

async function callsOf(user: string): Promise<readonly Call[]> {
  await world.collector.drained()
  return world.collector.query<Call>(
    `SELECT * FROM tallylight.llm_calls WHERE UserId = '${user}' ORDER BY Timestamp SETTINGS output_format_json_quote_64bit_integers = 0`,
  )
}

test('OpenAI’s SDK, streamed and not: rows and ledger are what was served, to the token, in the caller’s trace', async () => {
  await world.limitOf('ada', 100_000)
  const traceId = '0af7651916cd43dd8448eb211c80319c'
  const client = openai('chat', 'ada', {
    traceparent: `00-${traceId}-b7ad6b7169203331-00`,
    baggage: 'gen_ai.conversation.id=chat%20one,user.id=nobody',
    'x-tallylight-service': 'shop%20%F0%9F%9A%A6',
  })
  const whole = await client.chat.completions.create(turnOf('how are you'))
  expect(whole.choices[0]?.message.content).toBe('You asked: how are you')
  const stream = await client.chat.completions.create({ ...turnOf('and in pieces'), stream: true })
  const events = await Array.fromAsync(stream)
  expect(events.map(({ choices }) => choices[0]?.delta.content ?? '').join('')).toBe('You asked: and in pieces')
  expect(events.every(({ choices, usage }) => choices.length === 1 && usage == null)).toBe(true)

  const served = world.chat.served()
  const calls = await callsOf('ada')
  expect(calls).toMatchObject([{ Streaming: false }, { Streaming: true }])
  for (const call of calls)
    expect(call).toMatchObject({
      Provider: 'openai',
      UsageSource: 'provider',
      ConversationId: 'chat one',
      ServiceName: 'shop 🚦',
      TraceId: traceId,
    })
  const sum = (of: (call: Call) => number): number => calls.reduce((total, call) => total + of(call), 0)
  expect([sum((call) => call.InputTokens), sum((call) => call.OutputTokens)]).toEqual([
    served.inputTokens,
    served.outputTokens,
  ])
  expect((await world.settledAccountOf('ada')).spent).toBe(served.inputTokens + served.outputTokens)
})

test('Anthropic’s SDK, OpenAI’s responses, Gemini and Bedrock: bytes as they came, usage as it was told', async () => {
  const message = await anthropic('anthropic', 'bea').messages.create({ ...turnOf('hi'), model: 'claude-sonnet-4-5' })
  expect(message.content).toEqual([{ type: 'text', text: 'Hi' }])
  const overTls = await anthropic('trusted', 'bea').messages.create({ ...turnOf('hi'), model: 'claude-sonnet-4-5' })
  expect(overTls.usage).toMatchObject({ input_tokens: 9, output_tokens: 2 })
  const streamed = anthropic('anthropic', 'bea').messages.stream({ ...turnOf('hi'), model: 'claude-sonnet-4-5' })
  expect((await streamed.finalMessage()).usage.output_tokens).toBeGreaterThan(1)
  const responses = await openai('openai', 'bea').responses.create({ model: 'gpt-4o', input: 'hi', stream: true })
  expect((await Array.fromAsync(responses)).at(-1)?.type).toBe('response.completed')
  const headers = { 'x-tallylight-user': 'bea', 'x-goog-api-key': providerKey, 'content-type': 'application/json' }
  const gemini = await fetch(`${world.url('gemini')}/v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse`, {
    method: 'POST',
    headers,
    body: '{"contents":[{"role":"user","parts":[{"text":"hi"}]}]}',
  })
  expect(Buffer.from(await gemini.arrayBuffer())).toEqual(recorded('gemini-generate.sse'))
  const profile = 'arn%3Aaws%3Abedrock%3Aeu-central-1%3A1%3Ainference-profile%2Feu.claude'
  const bedrock = await fetch(`${world.url('bedrock')}/model/${profile}/converse-stream`, {
    method: 'POST',
    headers: { 'x-tallylight-user': 'bea', authorization: `Bearer ${providerKey}` },
    body: '{"messages":[{"role":"user","content":[{"text":"hi"}]}]}',
  })
  await bedrock.arrayBuffer()
  expect(world.told.at(-1)?.url).toBe(`/model/${profile}/converse-stream`)
  const calls = await callsOf('bea')
  expect(calls.map(({ Provider, InputTokens, CacheReadTokens }) => [Provider, InputTokens, CacheReadTokens])).toEqual([
    ['anthropic', 9, null],
    ['anthropic', 9, null],
    ['anthropic', 2_400, 2_000],
    ['openai', 1_200, 1_024],
    ['gcp.gemini', expect.any(Number), expect.anything()],
    ['aws.bedrock', 7, null],
  ])
  expect(calls.every(({ UsageSource }) => UsageSource === 'provider')).toBe(true)
})

test('a denied call never reaches the provider, and its SDK throws its own error with the limit’s numbers', async () => {
  await world.limitOf('cid', 300)
  const before = world.told.length
  const denied = await openai('openai', 'cid')
    .chat.completions.create(turnOf('hello'))
    .catch((error: unknown) => error)
  expect(denied).toBeInstanceOf(RateLimitError)
  const { status, code, type, headers } = denied as RateLimitError
  expect({ status, code, type }).toEqual({ status: 429, code: 'quota_exceeded', type: 'insufficient_quota' })
  expect(headers.get('ratelimit')).toMatch(/^"cid";r=300;t=\d+$/)
  expect(headers.get('ratelimit-policy')).toBe('"cid";q=300;w=86400')
  expect(Number(headers.get('retry-after'))).toBeGreaterThan(0)
  // Its SDK would wait a minute and ask again, twice.
  expect(headers.get('x-should-retry')).toBe('false')
  const also = await anthropic('anthropic', 'cid')
    .messages.create({ ...turnOf('hello'), model: 'claude-sonnet-4-5' })
    .catch((error: unknown) => error)
  expect(also).toBeInstanceOf(AnthropicRateLimit)
  expect((also as AnthropicRateLimit).error).toMatchObject({
    type: 'error',
    error: { type: 'rate_limit_error', message: expect.stringContaining('300 free of 300') },
    tallylight: { reason: 'quota_exceeded', limitId: 'cid', measure: 'tokens', limit: 300, free: 300 },
  })
  expect(world.told).toHaveLength(before)
  expect(await world.settledAccountOf('cid')).toMatchObject({ held: 0, spent: 0 })
  expect(await callsOf('cid')).toMatchObject([{ ErrorType: 'QuotaExceededError' }, { ErrorType: 'QuotaExceededError' }])
})

test('a stream that its client leaves, and one that its provider breaks off, end their spans and holds', async () => {
  await world.limitOf('dan', 1_000_000)
  const left = await openai('openai', 'dan').chat.completions.create({ ...turnOf('[wait]'), stream: true })
  for await (const _ of left) break
  await world.told.at(-1)?.closed
  expect((await world.settledAccountOf('dan')).spent).toBeGreaterThan(0)
  const cut = await openai('openai', 'dan').chat.completions.create({ ...turnOf('[cut]'), stream: true })
  await expect(Array.fromAsync(cut)).rejects.toThrow()
  await world.settledAccountOf('dan')
  expect(await callsOf('dan')).toMatchObject([
    { ErrorType: '', UsageSource: expect.stringMatching(/estimated|partial/) },
    { ErrorType: 'UND_ERR_SOCKET' },
  ])
  const endings = await world.collector.query<{ readonly ending: string }>(
    `SELECT SpanAttributes['tallylight.ending'] AS ending FROM tallylight.otel_traces WHERE SpanAttributes['user.id'] = 'dan' ORDER BY Timestamp`,
  )
  expect(endings.map(({ ending }) => ending)).toEqual(['aborted', 'cut'])
})

test('an upstream that is not there, not trusted, or a page is 502 with its reason, and what a provider says itself passes', async () => {
  await world.limitOf('eve', 1_000_000)
  const refused = await openai('gone', 'eve')
    .chat.completions.create(turnOf('hello'))
    .catch((error: unknown) => error)
  expect(refused).toMatchObject({ status: 502, code: 'upstream_failed' })
  expect(String(refused)).toContain('the upstream gone could not be connected to (ECONNREFUSED)')
  const untrusted = await anthropic('untrusted', 'eve')
    .messages.create({ ...turnOf('hello'), model: 'claude-sonnet-4-5' })
    .catch((error: unknown) => error)
  expect(untrusted).toMatchObject({ status: 502, error: { type: 'error', tallylight: { kind: 'tls' } } })
  expect((await world.settledAccountOf('eve')).spent).toBe(0)
  await expect(openai('openai', 'eve').chat.completions.create(turnOf('[html]'))).rejects.toMatchObject({
    status: 502,
    code: 'upstream_failed',
  })
  await expect(openai('openai', 'eve').chat.completions.create(turnOf('[html 503]'))).rejects.toMatchObject({
    status: 503,
    message: expect.stringContaining('<p>busy'),
  })
  const kinds = { gone: 'refused', untrusted: 'tls', openai: 'html' }
  for (const [upstream, kind] of Object.entries(kinds))
    expect(
      await world.collector.metric('tallylight_proxy_upstream_errors_total', { upstream, kind }),
      upstream,
    ).toBeGreaterThan(0)
})

test('a provider that refuses the option we added gets the caller’s own request, and is not asked again', async () => {
  const stream = (content: string) =>
    openai('openai', 'fay').chat.completions.create({ ...turnOf(content), stream: true })
  const before = world.told.length
  const open = (await stream('[unwilling] [wait]'))[Symbol.asyncIterator]()
  expect((await open.next()).done).toBe(false)
  expect((await Array.fromAsync(await stream('hello'))).length).toBeGreaterThan(1)
  await open.return?.()
  const asked = world.told.slice(before).map(({ body }) => body.includes('include_usage'))
  expect(asked).toEqual([true, false, false])
  // The record of a stream that was left follows its client's leave.
  const recorded = [{ UsageSource: expect.stringMatching(/estimated|partial/) }, { UsageSource: 'estimated' }]
  await expect.poll(() => callsOf('fay'), { timeout: 20_000 }).toMatchObject(recorded)
})

test('bounds that are none and names that cannot be kept are no absence of the quota service: their calls are asked for, and all others', async () => {
  await world.limitOf('gus', 1_000_000)
  for (const max_tokens of [-1, 1.5, 1e15])
    await openai('chat', 'gus')
      .chat.completions.create({ ...turnOf('hello'), max_tokens })
      .catch((error: unknown) => expect(error).toBeInstanceOf(RateLimitError))
  for (const odd of ['gus%00', '%ED%A0%80gus', 'g\u00fcs'])
    await openai('chat', odd).chat.completions.create({ ...turnOf('hello'), model: `gpt-4o${'o'.repeat(600)}` })
  await openai('chat', 'gus').chat.completions.create(turnOf('hello'))
  expect((await callsOf('gus')).map(({ ErrorType }) => ErrorType).toSorted()).toEqual([
    '',
    '',
    '',
    'QuotaExceededError',
  ])
  expect(world.collector.log()).not.toContain('the quota service is not available')
})

test('with the ledger away the tenant’s policy decides, in the words of the provider', async () => {
  // A second tenant ends requests without a key, also for the test after this one.
  const careful = { 'x-tallylight-key': await world.keyOf(['ingest', 'quota']) }
  const trusting = { 'x-tallylight-key': await world.keyOf(['ingest', 'quota'], 'trusting') }
  const password = readFileSync(join(world.collector.directory, 'postgres', 'owner.key'), 'utf8').trim()
  const connectionString = `postgres://tallylight:${password}@127.0.0.1:${world.collector.ports().postgres}/tallylight`
  const owner = openPool({ connectionString, max: 1, application_name: 'test' }, () => undefined)
  await owner.query('alter database tallylight connection limit 0')
  await owner.query(
    "select pg_terminate_backend(pid) from pg_stat_activity where usename = 'tallylight' and application_name <> 'test'",
  )
  const before = world.told.length
  await expect(openai('openai', 'hal', careful).chat.completions.create(turnOf('hello'))).rejects.toMatchObject({
    status: 503,
    code: 'quota_unavailable',
    type: 'server_error',
  })
  expect(world.told).toHaveLength(before)
  const passed = await openai('chat', 'ida', trusting).chat.completions.create({ ...turnOf('hello'), stream: true })
  expect((await Array.fromAsync(passed)).length).toBeGreaterThan(1)
  await owner.query('alter database tallylight connection limit -1')
  await owner.end()
  expect(await callsOf('hal')).toMatchObject([{ ErrorType: 'QuotaExceededError' }])
  expect(await callsOf('ida')).toMatchObject([{ OutputTokens: 3, UsageSource: 'provider' }])
})

test('an upstream that does not take the option we added: calls at once are answered all the same, other tenants are asked for usage on, and so is who was refused for another reason', async () => {
  const before = world.told.length
  const asking = async (tenant: string) => {
    const client = openai('openai', tenant, { 'x-tallylight-key': await world.keyOf(['ingest', 'quota'], tenant) })
    return async (content: string) =>
      Array.fromAsync(await client.chat.completions.create({ ...turnOf(content), stream: true }))
  }
  const [kim, lea] = await Promise.all([asking('kim'), asking('lea')])
  const atOnce = await Promise.all(['a', 'b', 'c'].map((each) => kim(`[unwilling] ${each}`)))
  for (const events of atOnce) expect(events.length).toBeGreaterThan(1)
  await expect(lea('[refused]')).rejects.toMatchObject({ status: 400 })
  await lea('hello')
  await kim('hello')
  const askedFor = world.told.slice(before).map(({ body }) => body.includes('include_usage'))
  expect(askedFor.slice(-4)).toEqual([true, false, true, false])
  expect(await callsOf('lea')).toMatchObject([{ UsageSource: 'none' }, { UsageSource: 'provider', OutputTokens: 300 }])
})

test('a key for many tenants: the limits are those of the tenant that is named, as the record is; a name that is none is refused', async () => {
  const key = await world.keyOf(['ingest', 'quota'], 'default', true)
  const named = (user: string, tenant: string) =>
    openai('chat', user, { 'x-tallylight-key': key, 'x-tallylight-tenant': tenant }).chat.completions
  await Promise.all([world.limitOf('max', 1, 'acme'), world.limitOf('nia', 1)])
  await expect(named('max', 'acme').create(turnOf('hello'))).rejects.toThrow(RateLimitError)
  await named('nia', 'acme').create(turnOf('hello'))
  await expect(named('nia', 'default').create(turnOf('hello'))).rejects.toThrow(RateLimitError)
  await expect(named('max', 'no name').create(turnOf('hello'))).rejects.toMatchObject({ status: 400 })
  const tenants = (await callsOf('nia')).map(({ TenantId, ErrorType }) => [TenantId, ErrorType])
  expect(tenants).toEqual([
    ['acme', ''],
    ['default', 'QuotaExceededError'],
  ])
})

test('a collector that stops breaks off what it may not wait for, and has the record of it', async () => {
  const key = { 'x-tallylight-key': await world.keyOf(['ingest', 'quota']) }
  const open = await openai('openai', 'jon', key).chat.completions.create({ ...turnOf('[wait]'), stream: true })
  const events = open[Symbol.asyncIterator]()
  expect((await events.next()).done).toBe(false)
  const rest = Array.fromAsync({ [Symbol.asyncIterator]: () => events })
  await Promise.all([expect(rest).rejects.toThrow(), world.collector.kill('SIGTERM')])
  await world.collector.start()
  expect(await callsOf('jon')).toMatchObject([{ UsageSource: expect.stringMatching(/estimated|partial/) }])
})
