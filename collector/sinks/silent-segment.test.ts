// What becomes of the calls of a segment of which the resolver says nothing, or says it late.
import { afterEach, expect, test, vi } from 'vitest'
import { noneBySignal } from '../journal/frame.ts'
import type { SealedSegment } from '../journal/sealed-segments.ts'
import type { RecordCall } from '../quota/step.ts'
import type { UsageEvent } from '../quota/usage-event.ts'
import { defaultTenant } from '../receive/key-rules.ts'
import { openClickHouseSink, type SinkOptions } from './clickhouse.ts'
import { type LedgerSink, type LedgerSinkOptions, openLedgerSink } from './ledger.ts'
import { openRemovals } from './removal.ts'

const stop = { now: new AbortController() }
const running: Promise<void>[] = []
afterEach(async () => {
  stop.now.abort()
  await Promise.all(running.splice(0))
  stop.now = new AbortController()
})

const soon = (expected: () => void): Promise<void> => vi.waitFor(expected, { timeout: 20_000 })
const bounds = { retryMsMin: 2, retryMsMax: 20, graceMs: 0, refusedRowsMax: 1, awayMs: 50 }

function segmentOf(sequence: number, isFresh = true): SealedSegment {
  const name = `j-${sequence}`
  return { sequence, name, lane: 'live', bytes: 1, createdUnixMs: 1, records: noneBySignal(), isFresh, done: new Set() }
}

function eventOf(spanId: string, generation: number): UsageEvent {
  return {
    tenant: defaultTenant,
    traceId: 't',
    spanId,
    parentSpanId: '',
    generation,
    callId: undefined,
    user: '',
    conversation: '',
    model: 'gpt-4o',
    provider: 'openai',
    usage: { inputTokens: 1, outputTokens: 1 },
    isLowerBound: false,
    cost: { kind: 'unpriced', reason: '' },
    isMetered: true,
    endedUnixMs: 1,
  }
}

const journal: ReturnType<LedgerSinkOptions['journal']> & ReturnType<SinkOptions['journal']> = {
  id: 'j',
  load: async ({ sequence, lane, createdUnixMs }) => ({
    header: { journal: 'j', sequence, lane, createdUnixMs, tables: [], insertSettings: {} },
    parts: [],
    release: () => undefined,
  }),
  settle: () => undefined,
}

function openLedger(
  options: Pick<LedgerSinkOptions, 'ledger' | 'eventsOf' | 'isSilentAbout' | 'remove'> & Partial<LedgerSinkOptions>,
): LedgerSink {
  const sink = openLedgerSink({
    journal: () => journal,
    now: Date.now,
    clockMs: () => performance.now(),
    bounds,
    onProblem: () => undefined,
    onBooked: () => undefined,
    ...options,
  })
  running.push(sink.run(stop.now.signal))
  return sink
}

test.each([
  ['came in this run', true],
  ['were left by a run before', false],
])('a segment that cannot be resolved holds up none of those behind it, which %s', async (_, isFresh) => {
  const removed: number[] = []
  const booked: string[] = []
  const remove = async ({ sequence }: SealedSegment): Promise<void> => void removed.push(sequence)
  const removalOf = openRemovals(() => ({ remove }), ['clickhouse', 'ledger'])
  let isMended = false
  const sink = openClickHouseSink({
    journal: () => journal,
    remove: removalOf('clickhouse'),
    clickhouse: {} as SinkOptions['clickhouse'],
    targets: () => new Map(),
    derive: async (segment) => {
      if (segment.sequence === 1 && !isMended) throw new Error('it cannot be resolved')
      await ledger.deliver(segment, [eventOf(segment.name, 2)])
    },
    onBroughtAgain: async () => undefined,
    onMend: () => undefined,
    now: Date.now,
    clockMs: () => performance.now(),
    bounds,
    onProblem: () => undefined,
    onInsert: () => undefined,
  })
  const ledger = openLedger({
    ledger: {
      record: async (_source, records) => {
        booked.push(...records.map(({ eventKey, generation }) => `${eventKey} ${generation}`))
        return { kind: 'recorded', booked: records.length, repeated: 0, refused: 0 }
      },
    },
    // As far as it can be said without the resolver.
    eventsOf: () => [eventOf('j-1', 1)],
    isSilentAbout: sink.isSilentAbout,
    remove: removalOf('ledger'),
  })
  running.push(sink.run(stop.now.signal))
  const segments = Array.from({ length: 20 }, (_each, at) => segmentOf(at + 1, isFresh))
  for (const segment of segments) {
    ledger.enqueue(segment)
    sink.enqueue(segment)
  }
  const others = segments.slice(1)
  await soon(() => expect(removed).toHaveLength(others.length))
  expect(booked).toEqual(['span:t:j-1 1', ...others.map(({ name }) => `span:t:${name} 2`)])
  isMended = true
  await soon(() => expect(removed).toContain(1))
  expect(booked.at(-1)).toBe('span:t:j-1 2')
})

test('what is said better while the ledger is away, or busy with what could be said before, is booked', async () => {
  const booked: RecordCall[] = []
  let isAway = true
  let asked = 0
  const record: LedgerSinkOptions['ledger']['record'] = async (_source, records) => {
    asked++
    if (isAway) return { kind: 'unavailable' }
    booked.push(...records)
    return { kind: 'recorded', booked: records.length, repeated: 0, refused: 0 }
  }
  const ledger = openLedger({
    ledger: { record },
    eventsOf: () => [eventOf('s', 1)],
    isSilentAbout: () => true,
    remove: async () => undefined,
  })
  const segment = segmentOf(1)
  ledger.enqueue(segment)
  await soon(() => expect(asked).toBeGreaterThan(0))
  await expect(ledger.deliver(segment, [eventOf('s', 2)])).rejects.toThrow('cannot be reached')
  isAway = false
  // As who could not say it does.
  await ledger.deliver(segment, [eventOf('s', 2)])
  await soon(() => expect(booked.map(({ generation }) => generation).sort()).toEqual([1, 2]))
})

test('a clock that is set back while ClickHouse is away keeps no call from being booked', async () => {
  let setBackMs = 0
  let booked = 0
  const ledger = openLedger({
    ledger: {
      record: async (_source, records) => {
        booked += records.length
        return { kind: 'recorded', booked: records.length, repeated: 0, refused: 0 }
      },
    },
    eventsOf: () => [eventOf('s', 1)],
    isSilentAbout: () => true,
    remove: async () => undefined,
    now: () => Date.now() - setBackMs,
  })
  ledger.enqueue(segmentOf(1))
  setBackMs = 3_600_000
  await soon(() => expect(booked).toBe(1))
})
