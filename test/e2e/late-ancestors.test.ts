// Whose a call is stands on a span that says nothing of models, and that comes before it, with it, after it, or after a restart.
import { createHash } from 'node:crypto'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { type CollectorProcess, startCollector } from '../collector-process.ts'

let collector: CollectorProcess
beforeAll(async () => {
  collector = await startCollector()
}, 60_000)
afterAll(() => collector?.[Symbol.asyncDispose]())

type Span = { readonly id: string; readonly parent?: string; readonly attributes?: Readonly<Record<string, string>> }

const call: Span = {
  id: '3',
  parent: '2',
  attributes: { 'gen_ai.operation.name': 'chat', 'gen_ai.provider.name': 'openai', 'gen_ai.request.model': 'gpt' },
}
const between: Span = { id: '2', parent: '1', attributes: { 'http.route': '/chat' } }
const outermost: Span = { id: '1', attributes: { 'user.id': 'ada', 'session.id': 's1', 'client.address': '::1' } }
const beside: readonly Span[] = ['4', '5', '6', '7'].map((id) => ({ id, parent: '9' }))

async function send(trace: string, ...spans: readonly Span[]): Promise<void> {
  const traceId = createHash('sha256').update(trace).digest('hex').slice(0, 32)
  const startTimeUnixNano = `${BigInt(Date.now()) * 1_000_000n}`
  // Ids of different traces differ.
  const idOf = (id: string): string => createHash('sha256').update(`${trace} ${id}`).digest('hex').slice(0, 16)
  const sent = spans.map(({ id, parent, attributes = {} }) => ({
    ...{ traceId, spanId: idOf(id), name: id, startTimeUnixNano, endTimeUnixNano: startTimeUnixNano },
    ...(parent === undefined ? {} : { parentSpanId: idOf(parent) }),
    attributes: Object.entries(attributes).map(([key, stringValue]) => ({ key, value: { stringValue } })),
  }))
  const response = await fetch(`http://127.0.0.1:${collector.ports().otlpHttp}/v1/traces`, {
    method: 'POST',
    body: JSON.stringify({ resourceSpans: [{ scopeSpans: [{ spans: sent }] }] }),
    headers: { 'Content-Type': 'application/json' },
  })
  expect([response.status, await response.text()]).toEqual([200, '{}'])
}

async function owners(): Promise<readonly string[]> {
  const rows = await collector.query<{ owner: string }>(
    "SELECT concat(UserId, ' ', ConversationId) AS owner FROM tallylight.llm_calls ORDER BY Timestamp",
  )
  return rows.map(({ owner }) => owner)
}

test('late ancestors: a call is its user’s whenever the plain span comes that says so', async () => {
  const before = ['restart', 'restart between', 'restart beside']
  await send('before', between, outermost)
  await send('beside', ...beside)
  await send('restart beside', ...beside)
  await collector.drained()
  for (const trace of ['before', 'after', 'after, one by one', 'beside', ...before]) await send(trace, call)
  await send('together', outermost, between, call)
  await send('restart between', between)
  await send('at once', call)
  await send('at once', between, outermost)
  await collector.drained()
  const known = ['ada s1', ' ', ' ', ' ', ' ', ' ', ' ', 'ada s1', 'ada s1']
  expect(await owners()).toEqual(known)

  await send('after', between, outermost)
  await send('after, one by one', between)
  await collector.drained()
  await send('after, one by one', outermost)
  await send('beside', outermost, between)
  await collector.drained()
  expect(await owners()).toEqual(['ada s1', 'ada s1', 'ada s1', 'ada s1', ' ', ' ', ' ', 'ada s1', 'ada s1'])

  await collector.kill('SIGKILL')
  await collector.start()
  for (const trace of before) {
    await send(trace, between)
    await send(trace, outermost)
  }
  await collector.drained()
  expect(await owners()).toEqual(Array(9).fill('ada s1'))
  const [failures] = await collector.query('SELECT count() AS errors FROM tallylight.errors')
  expect(failures).toEqual({ errors: 0 })
}, 60_000)
