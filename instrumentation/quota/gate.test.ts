// The clock of the gate, with a quota service that only remembers; what it decides is tested against the real one in test/e2e.
import { afterEach, expect, test, vi } from 'vitest'
import { openCounters } from '../counters.ts'
import type { CallStart } from '../hooks/exchange.ts'
import { limits } from '../limits.ts'
import type { Endpoint } from '../providers/call.ts'
import { readRequest } from '../providers/request.ts'
import { openGate } from './gate.ts'
import { type QuotaClient, quotaClientOver } from './quota-client.ts'

const endpoint: Endpoint = {
  api: 'openai.chat',
  provider: 'openai',
  model: 'm',
  isStream: true,
  takesUsageOption: false,
}
const start: CallStart = {
  endpoint,
  request: readRequest(endpoint, '{}').request,
  url: new URL('http://x'),
  requestBytes: 2,
  attempt: 1,
  transport: 'fetch',
}

afterEach(() => {
  vi.useRealTimers()
})

test('gate: an open call extends its hold in time, no longer than a stream may last, and a settled one never', async () => {
  vi.useFakeTimers()
  const extended: number[] = []
  const startedMs = Date.now()
  let reserved = 0
  const client: QuotaClient = {
    reserve: async () => ({ kind: 'granted', id: `r${++reserved}`, expiresAtMs: Date.now() + limits.quotaHoldMs }),
    settle: async () => ({ kind: 'done' }),
    release: async () => ({ kind: 'done' }),
    extend: async (ids) => {
      expect(ids).toEqual(['r1'])
      extended.push(Date.now() - startedMs)
      return { kind: 'done' }
    },
  }
  const counters = openCounters(() => undefined)
  await using gate = openGate({ mode: 'enforce', failurePolicy: 'open', client, counters, nowMs: () => Date.now() })
  const open = gate.admit(start)
  const settled = gate.admit(start)
  await open?.admitted
  settled?.end({ ending: 'complete', status: 200, reply: undefined, error: undefined })
  await gate.idle()
  await vi.advanceTimersByTimeAsync(2 * limits.quotaHoldMsMax)
  const gaps = extended.map((at, index) => at - (extended[index - 1] ?? 0))
  expect(Math.max(...gaps)).toBeLessThan(limits.quotaHoldMs)
  expect(extended.at(-1)).toBeLessThanOrEqual(limits.quotaHoldMsMax)
  expect(extended.at(-1)).toBeGreaterThan(limits.quotaHoldMsMax - limits.quotaHoldMs)
})

test('gate: with the ledger away the tenant’s own verdict decides for each call, whatever the service was told', async () => {
  const verdicts = ['allow', 'deny', 'allow', 'deny', 'allow']
  let asked = 0
  const client = quotaClientOver(async () => {
    const body = { detail: 'the ledger did not answer', policy: 'bounded', verdict: verdicts[asked++] }
    return { kind: 'answer', status: 503, body, retryAfter: '1' }
  })
  const counters = openCounters(() => undefined)
  await using gate = openGate({ mode: 'enforce', failurePolicy: 'closed', client, counters, nowMs: () => Date.now() })
  for (const verdict of verdicts) {
    const admitted = gate.admit(start)?.admitted
    if (verdict === 'allow') await expect(admitted).resolves.toBe(undefined)
    else await expect(admitted).rejects.toThrow('the ledger did not answer')
  }
  expect(asked).toBe(verdicts.length)
})
