// The clock of the gate, with a quota service that only remembers; what it decides is tested against the real one in test/e2e.
import { afterEach, expect, test, vi } from 'vitest'
import { openCounters } from '../counters.ts'
import { limits } from '../limits.ts'
import type { Endpoint } from '../providers/call.ts'
import { readRequest } from '../providers/request.ts'
import { openGate } from './gate.ts'
import type { QuotaClient } from './quota-client.ts'

afterEach(() => {
  vi.useRealTimers()
})

test('gate: an open call extends its hold in time, no longer than a stream may last, and a settled one never; what was not sent, or only redirected, costs nothing', async () => {
  vi.useFakeTimers()
  const extended: number[] = []
  const startedMs = Date.now()
  let reserved = 0
  const released: string[] = []
  const client: QuotaClient = {
    reserve: async () => ({
      kind: 'granted',
      id: `r${++reserved}`,
      expiresAtMs: Date.now() + limits.quotaHoldMs,
      forAbsence: undefined,
    }),
    settle: async () => ({ kind: 'done' }),
    release: async (id) => {
      released.push(id)
      return { kind: 'done' }
    },
    lease: async () => undefined,
    endLease: async () => ({ kind: 'done' }),
    extend: async (ids) => {
      expect(ids).toEqual(['r1'])
      extended.push(Date.now() - startedMs)
      return { kind: 'done' }
    },
  }
  const counters = openCounters(() => undefined)
  await using gate = openGate({
    mode: 'enforce',
    failurePolicy: 'open',
    leases: false,
    client,
    counters,
    nowMs: () => Date.now(),
  })
  const endpoint: Endpoint = {
    api: 'openai.chat',
    provider: 'openai',
    model: 'm',
    isStream: true,
    takesUsageOption: false,
  }
  const { request } = readRequest(endpoint, '{}')
  const start = {
    endpoint,
    request,
    url: new URL('http://x'),
    requestBytes: 2,
    attempt: 1,
    transport: 'fetch',
  } as const
  const open = gate.admit(start)
  const settled = gate.admit(start)
  await open?.admitted
  settled?.end({ ending: 'complete', status: 200, reply: undefined, error: undefined })
  gate.admit(start)?.end({ ending: 'complete', status: 307, reply: undefined, error: undefined })
  for (const code of ['DEPTH_ZERO_SELF_SIGNED_CERT', 'UND_ERR_CONNECT_TIMEOUT', 'ECONNRESET']) {
    const error = new TypeError('fetch failed', { cause: Object.assign(new Error('x'), { code }) })
    gate.admit(start)?.end({ ending: 'cut', status: 0, reply: undefined, error })
  }
  const cut = { ending: 'cut', reply: undefined } as const
  gate.admit(start)?.end({ ending: 'aborted', status: 0, reply: undefined, error: undefined, isHeldBack: true })
  for (const status of [0, 200])
    gate.admit(start)?.end({ ...cut, status, error: Object.assign(new Error('x'), { code: 'ECONNREFUSED' }) })
  for (const syscall of ['read', 'connect']) {
    const error = Object.assign(new Error('x'), { code: 'EHOSTUNREACH', syscall })
    gate.admit(start)?.end({ ...cut, status: 0, error: new TypeError('fetch failed', { cause: error }) })
  }
  await gate.idle()
  await gate.idle()
  // Not what failed when it had been sent: r6, a connection lost; r9, a reply whose reader could not go on; r10.
  expect(released).toEqual(['r3', 'r4', 'r5', 'r7', 'r8', 'r11'])
  await vi.advanceTimersByTimeAsync(2 * limits.quotaHoldMsMax)
  const gaps = extended.map((at, index) => at - (extended[index - 1] ?? 0))
  expect(Math.max(...gaps)).toBeLessThan(limits.quotaHoldMs)
  expect(extended.at(-1)).toBeLessThanOrEqual(limits.quotaHoldMsMax)
  expect(extended.at(-1)).toBeGreaterThan(limits.quotaHoldMsMax - limits.quotaHoldMs)
})
