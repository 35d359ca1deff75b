// The clock of the gate, with a quota service that only remembers; what it decides is tested against the real one in test/e2e.
import { context } from '@opentelemetry/api'
import { AsyncLocalStorageContextManager } from '@opentelemetry/context-async-hooks'
import { afterEach, expect, test, vi } from 'vitest'
import { openCounters } from '../counters.ts'
import type { CallEnd, CallStart, Transport } from '../hooks/exchange.ts'
import { limits } from '../limits.ts'
import type { CallReply, Endpoint } from '../providers/call.ts'
import { readRequest } from '../providers/request.ts'
import { type Gate, type GateOptions, openGate, runWithQuota } from './gate.ts'
import { type QuotaClient, quotaClientOver, type ReservationRequest } from './quota-client.ts'

afterEach(() => {
  vi.useRealTimers()
})

/** A gate of a quota service that grants all and takes all, but for what `client` says. */
function gateOver(client: Partial<QuotaClient>, options: Partial<GateOptions> = {}): Gate {
  let reserved = 0
  return openGate({
    mode: 'enforce',
    failurePolicy: 'open',
    leases: false,
    counters: openCounters(() => undefined),
    nowMs: () => performance.now(),
    ...options,
    client: {
      reserve: async () => ({ kind: 'granted', id: `r${++reserved}`, forAbsence: undefined }),
      settle: async () => ({ kind: 'done' }),
      release: async () => ({ kind: 'done' }),
      lease: async () => undefined,
      endLease: async () => ({ kind: 'done' }),
      extend: async () => ({ kind: 'done' }),
      ...client,
    },
  })
}

function startOf(body: object = {}, transport: Transport = 'fetch'): CallStart {
  const endpoint: Endpoint = {
    api: 'openai.chat',
    provider: 'openai',
    model: 'm',
    isStream: true,
    takesUsageOption: false,
  }
  const text = JSON.stringify(body)
  const { request } = readRequest(endpoint, text)
  return { endpoint, request, url: new URL('http://x'), requestBytes: text.length, attempt: 1, transport }
}

const over: CallEnd = { ending: 'complete', status: 200, reply: undefined, error: undefined }

test('gate: an open call extends its hold in time, no longer than a stream may last, and a settled one never; what was not sent, or only redirected, costs nothing', async () => {
  vi.useFakeTimers()
  const extended: number[] = []
  const startedMs = performance.now()
  const released: string[] = []
  await using gate = gateOver({
    release: async (id) => {
      released.push(id)
      return { kind: 'done' }
    },
    extend: async (ids) => {
      expect(ids).toEqual(['r1'])
      extended.push(performance.now() - startedMs)
      return { kind: 'done' }
    },
  })
  const start = startOf()
  const open = gate.admit(start)
  const settled = gate.admit(start)
  await open?.admitted
  settled?.end(over)
  gate.admit(start)?.end({ ...over, status: 307 })
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

test('gate: a call that goes on when its gate has ended keeps what it holds, and the last of them leaves no timer', async () => {
  vi.useFakeTimers()
  let extended = 0
  const gate = gateOver({
    extend: async () => {
      extended++
      return { kind: 'done' }
    },
  })
  const open = gate.admit(startOf())
  await open?.admitted
  await gate[Symbol.asyncDispose]()
  await vi.advanceTimersByTimeAsync(2 * limits.quotaHoldMs)
  expect(extended).toBeGreaterThan(1)
  open?.end(over)
  await vi.advanceTimersByTimeAsync(limits.quotaHoldMs)
  expect(vi.getTimerCount()).toBe(0)
})

test('gate: a hold is extended in time also where the clock of the quota service is minutes away from ours', async () => {
  vi.useFakeTimers()
  const asked: string[] = []
  const client = quotaClientOver(async (path) => {
    asked.push(path)
    const expiresAt = new Date(Date.now() + 120_000 + limits.quotaHoldMs).toISOString()
    return { kind: 'answer', status: 201, body: { id: 'r1', expiresAt }, retryAfter: '', policy: '' }
  })
  await using gate = gateOver(client)
  await gate.admit(startOf())?.admitted
  await vi.advanceTimersByTimeAsync(limits.quotaHoldMs - 1)
  expect(asked).toEqual(['reservations', 'reservations/extend'])
})

test('gate: an extension that failed is asked for again while what it is for is still held, of a lease as of a call', async () => {
  vi.useFakeTimers()
  const asked: string[] = []
  await using gate = gateOver(
    {
      lease: async () => ({ id: 'lease', holds: [] }),
      extend: async (ids) => {
        asked.push(...ids)
        return { kind: asked.filter((id) => id === ids[0]).length === 1 ? 'unavailable' : 'done', reason: 'restart' }
      },
    },
    { leases: true },
  )
  await vi.advanceTimersByTimeAsync(1_000)
  await gate.admit(startOf())?.admitted
  const leased = gate.admit(startOf())
  await vi.advanceTimersByTimeAsync(limits.quotaLeaseMs - 1)
  expect(asked).toEqual(['lease', 'lease'])
  leased?.end(over)
  await vi.advanceTimersByTimeAsync(limits.quotaHoldMs - limits.quotaLeaseMs)
  expect(asked).toEqual(['lease', 'lease', 'r1', 'r1'])
})

test.each([
  ['enforce', true],
  ['observe', false],
] as const)('gate: in mode %s a call waits for its reservation: %s', async (mode, isWaitedFor) => {
  const asked: boolean[] = []
  await using gate = gateOver(
    {
      reserve: async (_request, isWaited) => {
        asked.push(isWaited)
        return { kind: 'granted', id: 'r', forAbsence: undefined }
      },
    },
    { mode },
  )
  expect(gate.admit(startOf())?.admitted !== undefined).toBe(isWaitedFor)
  expect(asked).toEqual([isWaitedFor])
})

test('gate: what a realtime model read was not in what asked for its response, and teaches nothing about text', async () => {
  const asked: number[] = []
  await using gate = gateOver({
    reserve: async ({ estimate }) => {
      asked.push(estimate.inputTokens)
      return { kind: 'granted', id: 'r', forAbsence: undefined }
    },
  })
  const body = { messages: [{ role: 'user', content: 'x'.repeat(3_000) }] }
  const reply = { usageSource: 'provider', usage: { inputTokens: 9_000, outputTokens: 10 }, model: '' } as CallReply
  for (const transport of ['websocket', 'fetch', 'fetch'] as const)
    gate.admit(startOf(body, transport))?.end({ ...over, reply })
  const [first = 0, second, third] = asked
  expect(second).toBe(first)
  expect(third).toBeGreaterThan(first)
})

test('gate: what an override leaves open is as the one around it says', async () => {
  context.setGlobalContextManager(new AsyncLocalStorageContextManager().enable())
  const asked: ReservationRequest[] = []
  await using gate = gateOver({
    reserve: async (request) => {
      asked.push(request)
      return { kind: 'granted', id: 'r', forAbsence: undefined }
    },
  })
  const admit = () => gate.admit(startOf())
  runWithQuota({ user: 'ada', estimate: { inputTokens: 9 } }, () => {
    runWithQuota({ estimate: { outputTokensMax: 5 } }, admit)?.end(over)
    runWithQuota({ user: 'bob' }, admit)?.end(over)
    expect(runWithQuota({ skip: true }, () => runWithQuota({ lease: false }, admit))).toBeUndefined()
  })
  expect(asked.map(({ user }) => user)).toEqual(['ada', 'bob'])
  expect(asked.map(({ estimate }) => estimate.inputTokens)).toEqual([1, 9])
  context.disable()
})
