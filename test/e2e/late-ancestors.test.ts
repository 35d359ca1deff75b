// Whose a call is stands on a span that says nothing of models, and that comes before it, with it, after it, or after a restart.
import { afterAll, beforeAll, expect, test } from 'vitest'
import { type CollectorProcess, startCollector } from '../collector-process.ts'
import { between, call, type FamilySpan, outermost, sendFamily } from './family.ts'

let collector: CollectorProcess
beforeAll(async () => {
  collector = await startCollector()
}, 60_000)
afterAll(() => collector?.[Symbol.asyncDispose]())

const beside = ['4', '5', '6', '7'].map((id): FamilySpan => ({ id, parent: '9' }))
const send = (trace: string, ...spans: readonly FamilySpan[]): Promise<void> => sendFamily(collector, trace, ...spans)

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
