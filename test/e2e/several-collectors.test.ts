// Two collectors that share a ClickHouse and each see a part of a trace: they come to the same rows within a minute, whichever
// part came first, and wherever the span stands that says whose a call is.
import { afterAll, beforeAll, expect, test, vi } from 'vitest'
import { type CollectorProcess, startCollector } from '../collector-process.ts'
import { openOwner, startServer, urlOf } from '../faults/own-server.ts'
import { between, call, type FamilySpan, outermost, sendFamily, traceIdOf } from './family.ts'

const stack = new AsyncDisposableStack()
let one: CollectorProcess
let other: CollectorProcess
let owner: ReturnType<typeof openOwner>

beforeAll(async () => {
  const server = await startServer(stack)
  owner = openOwner(server, stack)
  const environment = { TALLYLIGHT_CLICKHOUSE_URL: urlOf(server) }
  const started = await Promise.all([startCollector(environment), startCollector(environment)])
  for (const collector of started) stack.use(collector)
  ;[one, other] = started
}, 60_000)
afterAll(() => stack.disposeAsync())

const agent: FamilySpan = {
  id: '2',
  parent: '1',
  attributes: { 'gen_ai.operation.name': 'invoke_agent', 'user.id': 'ada' },
}

/** By name of the trace. */
async function owners(traces: readonly string[]): Promise<Readonly<Record<string, string>>> {
  const rows = await owner.query<{ id: string; owner: string }>(
    "SELECT TraceId AS id, concat(UserId, ' ', ConversationId) AS owner FROM books.llm_calls",
  )
  const ownerOf = new Map(rows.map(({ id, owner: name }) => [id, name]))
  return Object.fromEntries(traces.map((trace) => [trace, ownerOf.get(traceIdOf(trace)) ?? 'no call']))
}

async function drained(): Promise<void> {
  await Promise.all([one.drained(), other.drained()])
}

function allOf(traces: readonly string[], name: string): Readonly<Record<string, string>> {
  return Object.fromEntries(traces.map((trace) => [trace, name]))
}

/** Until the one lifts a span because the other waits for it: all that was waited for before is known to it then. */
async function hears(listener: CollectorProcess, teller: CollectorProcess, trace: string): Promise<void> {
  await sendFamily(teller, trace, call)
  await teller.drained()
  await vi.waitFor(
    async () => {
      await sendFamily(listener, trace, between)
      await listener.drained()
      const lifted = `SELECT FactId FROM books.genai_facts WHERE TraceId = '${traceIdOf(trace)}'`
      expect(await owner.query(lifted)).toHaveLength(2)
    },
    { timeout: 20_000, interval: 500 },
  )
}

test('several collectors: a call is its user’s whichever of them gets the plain span that says so, before it, at once or later', async () => {
  const late = ['late', 'in two steps', 'by turns']
  for (const trace of late) await sendFamily(one, trace, call)
  await hears(other, one, 'heard')
  await sendFamily(other, 'late', between, outermost)
  await sendFamily(other, 'in two steps', between)
  await sendFamily(other, 'by turns', between)
  await drained()
  expect(await owners(late)).toEqual({ ...allOf(late, ' '), late: 'ada s1' })
  await hears(one, other, 'heard back')
  await sendFamily(other, 'in two steps', outermost)
  await sendFamily(one, 'by turns', outermost)
  await drained()
  expect(await owners(late)).toEqual(allOf(late, 'ada s1'))

  const soon = ['before', 'at once', 'an agent, before', 'an agent, at once']
  await sendFamily(other, 'before', between, outermost)
  await sendFamily(other, 'an agent, before', agent, outermost)
  await drained()
  await sendFamily(one, 'before', call)
  await sendFamily(one, 'an agent, before', call)
  await sendFamily(one, 'at once', call)
  await sendFamily(other, 'at once', between, outermost)
  await sendFamily(other, 'an agent, at once', agent, outermost)
  await sendFamily(one, 'an agent, at once', call)
  await vi.waitFor(async () => expect(await owners(soon)).toEqual(allOf(soon, 'ada s1')), {
    timeout: 60_000,
    interval: 500,
  })
  const [rows] = await owner.query(
    'SELECT toUInt32(count()) AS rows, toUInt32(uniqExact(TraceId)) AS traces FROM books.llm_calls',
  )
  expect(rows).toEqual({ rows: 9, traces: 9 })
}, 120_000)
