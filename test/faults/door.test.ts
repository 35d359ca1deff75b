// What lies between the collector and its engines breaks, in every way that was seen in the field: answered spans are in
// ClickHouse once each afterwards, and the books balance.
import { execFileSync } from 'node:child_process'
import { setTimeout } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type CollectorProcess, startCollector } from '../collector-process.ts'
import { spansRequest } from '../spans.ts'
import { type Door, type Fault, openDoor } from './door.ts'
import { countOf, openOwner, send, spans, startServer, urlOf } from './own-server.ts'

const requests = 20
const spansPerRequest = 50

type Scene = {
  readonly name: string
  /** `attempt` counts the inserts of each table from 1. */
  readonly fault: (attempt: number) => Fault | undefined
  /** Makes the table forget the tokens of inserts at once, as after its window has passed. */
  readonly forgets?: true
}

const refuse = (code: number, status: number, text: string): Fault => ({ kind: 'refuse', status, code, text })

const scenes: readonly Scene[] = [
  {
    name: 'answers are lost after the rows were written',
    fault: (attempt) => (attempt <= 3 ? { kind: 'lose_answer' } : undefined),
  },
  {
    name: 'connections break in the middle of an insert',
    fault: (attempt) => (attempt <= 3 ? { kind: 'cut_body' } : undefined),
  },
  {
    name: 'too many parts',
    fault: (attempt) => (attempt <= 3 ? refuse(252, 500, 'Too many parts (3001). (TOO_MANY_PARTS)') : undefined),
  },
  {
    name: 'the table is read-only',
    fault: (attempt) =>
      attempt <= 3 ? refuse(242, 500, 'Table is in readonly mode. (TABLE_IS_READ_ONLY)') : undefined,
  },
  {
    name: 'the memory limit is exceeded',
    fault: (attempt) => (attempt <= 3 ? refuse(241, 500, 'Memory limit exceeded. (MEMORY_LIMIT_EXCEEDED)') : undefined),
  },
  {
    name: 'the disk of the server is full',
    fault: (attempt) => (attempt <= 3 ? refuse(243, 500, 'Cannot reserve space. (NOT_ENOUGH_SPACE)') : undefined),
  },
  { name: 'inserts take a second each', fault: () => ({ kind: 'delay', ms: 1000 }) },
  {
    name: 'answers are lost, and the server no longer knows the tokens of its inserts',
    fault: (attempt) => (attempt <= 3 ? { kind: 'lose_answer' } : undefined),
    forgets: true,
  },
]

describe('one collector, one ClickHouse, and a door between them', () => {
  const stack = new AsyncDisposableStack()
  let behind: Awaited<ReturnType<typeof startBehindDoor>>
  let stored = 0
  beforeAll(async () => {
    behind = await startBehindDoor(stack)
  })
  afterAll(() => stack.disposeAsync())

  for (const scene of scenes) {
    test(`faults: ${scene.name}: every answered span is stored once`, async () => {
      const { door, collector, owner } = behind
      if (scene.forgets) {
        for (const table of ['otel_traces', 'otel_traces_trace_id_ts']) {
          await owner.command(`ALTER TABLE books.${table} MODIFY SETTING non_replicated_deduplication_window = 0`)
        }
      }
      const attempts = new Map<string, number>()
      let faults = 0
      door.onInsert((table) => {
        attempts.set(table, (attempts.get(table) ?? 0) + 1)
        const fault = scene.fault(attempts.get(table) ?? 0)
        if (fault !== undefined) faults++
        return fault
      })
      await sendAll(collector, requests)
      await collector.drained()
      stored += requests
      expect(faults).toBeGreaterThan(0)
      expect(await countOf(owner, 'otel_traces')).toEqual(once(stored))
      await expectBalanced(collector)
    })
  }
})

test('faults: ClickHouse goes away and comes back: requests are answered all the while, and all of it is stored once', async () => {
  await using stack = new AsyncDisposableStack()
  const { door, collector, owner } = await startBehindDoor(stack)
  await sendAll(collector, 5)
  await door.shut()
  await sendAll(collector, requests)
  expect(await collector.metric('tallylight_journal_records')).toBeGreaterThanOrEqual(requests * spansPerRequest)
  // The backlog is carried over a crash, too.
  await collector.kill('SIGKILL')
  await collector.start()
  await sendAll(collector, 5)
  await door.open()
  await collector.drained()
  expect(await countOf(owner, 'otel_traces')).toEqual(once(requests + 10))
  await expectBalanced(collector)
})

test('faults: Postgres is killed: requests are answered all the while, and it is there again afterwards', async () => {
  await using stack = new AsyncDisposableStack()
  const collector = stack.use(await startCollector())
  await sendAll(collector, 2)
  const postgres = postmasterOf(collector)
  process.kill(postgres, 'SIGKILL')
  await sendAll(collector, requests)
  // The collector starts it again by itself.
  while ([postgres, 0].includes(postmasterOf(collector))) await setTimeout(50)
  await collector.drained()
  const rows = await collector.query(
    'SELECT toUInt32(count()) AS rows, toUInt32(uniqExact(SpanId)) AS ids FROM tallylight.otel_traces',
  )
  expect(rows).toEqual([once(requests + 2)])
  await expectBalanced(collector)
})

test('faults: SIGTERM under load: what was answered is stored after the next start, once', async () => {
  await using stack = new AsyncDisposableStack()
  const collector = stack.use(await startCollector())
  let answered = 0
  let ended: Promise<void> | undefined
  const loading = (async () => {
    for (let at = 0; at < 10_000; at++) {
      const isAnswered = await sendOne(collector).catch(() => false)
      if (!isAnswered) return
      answered++
      if (answered === requests) ended = collector.kill('SIGTERM')
    }
  })()
  await loading
  await ended
  await collector.start()
  await collector.drained()
  const [row] = await collector.query<{ rows: number; ids: number }>(
    'SELECT toUInt32(count()) AS rows, toUInt32(uniqExact(SpanId)) AS ids FROM tallylight.otel_traces',
  )
  expect(row?.rows).toBe(row?.ids)
  // A request that was cut off by the stop may be stored without an answer, never the other way round.
  expect(row?.rows).toBeGreaterThanOrEqual(answered * spansPerRequest)
  expect(row?.rows).toBeLessThanOrEqual((answered + 1) * spansPerRequest)
  await expectBalanced(collector)
})

async function startBehindDoor(stack: AsyncDisposableStack) {
  const server = await startServer(stack)
  const door: Door = stack.use(await openDoor({ port: server.port }))
  const collector = stack.use(await startCollector({ TALLYLIGHT_CLICKHOUSE_URL: urlOf(server, door.port) }))
  return { door, collector, owner: openOwner(server, stack) }
}

let sent = 0

async function sendOne(collector: CollectorProcess): Promise<boolean> {
  const first = sent
  sent += spansPerRequest
  const fresh = spans(spansPerRequest, () => 'fault').map((span, at) => ({
    ...span,
    id: (first + at + 1).toString(16).padStart(16, '0'),
  }))
  return (await send(collector, spansRequest(fresh))) === 200
}

async function sendAll(collector: CollectorProcess, count: number): Promise<void> {
  for (let at = 0; at < count; at++) expect(await sendOne(collector)).toBe(true)
}

function once(count: number): { readonly rows: number; readonly ids: number } {
  return { rows: count * spansPerRequest, ids: count * spansPerRequest }
}

async function expectBalanced(collector: CollectorProcess): Promise<void> {
  const total = (name: string): Promise<number> => collector.metric(`tallylight_${name}_records_total`)
  const stored = (await total('stored')) + (await total('quarantined')) + (await total('duplicate'))
  expect(await total('accepted')).toBe(stored + (await collector.metric('tallylight_journal_records')))
  expect(await total('quarantined')).toBe(0)
}

/** The process that Postgres itself names in its data directory, 0 while it names none. */
function postmasterOf(collector: CollectorProcess): number {
  const found = execFileSync('find', [
    collector.directory,
    '-name',
    'postmaster.pid',
    '-exec',
    'head',
    '-n',
    '1',
    '{}',
    ';',
  ])
  return Number(found.toString().trim())
}
