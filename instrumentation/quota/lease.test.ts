import { expect, test } from 'vitest'
import { type Lease, openLeasedAllowance, type Spend } from './lease.ts'

const spend = (outputTokens: number): Spend => ({ inputTokens: 0, outputTokens })

type Ended = { readonly id: string; readonly outputTokens: number; readonly calls: number }

/** A ledger that grants leases of 100, and tells of their ends. */
function openLedger(more: Lease['holds'] = []) {
  const state = { clock: 0, grants: true, asked: 0 }
  const ended: Ended[] = []
  const allowance = openLeasedAllowance({
    ask: async (): Promise<Lease | undefined> => {
      const id = `lease-${++state.asked}`
      const holds = [100, 120].map((amount) => ({ measure: 'tokens', amount }))
      return state.grants ? { id, callId: id, holds: [...holds, ...more] } : undefined
    },
    end: async ({ id }, { calls, usage }) => void ended.push({ id, outputTokens: usage.outputTokens, calls }),
    ttlMs: 10_000,
    clockMs: () => state.clock,
  })
  // The grant is a promise of its own, and what follows it another.
  const settled = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))
  return { state, ended, allowance, settled }
}

test('lease: calls are granted out of it up to the smallest hold, and what they did not use is there again', async () => {
  const ledger = openLedger()
  expect(ledger.allowance.reserve(spend(60))).toBeUndefined()
  await ledger.settled()
  const first = ledger.allowance.reserve(spend(60))
  expect(first?.callId).toBe('lease-1/1')
  expect(ledger.allowance.reserve(spend(41))).toBeUndefined()
  expect(ledger.allowance.reserve(spend(40))?.callId).toBe('lease-1/2')
  first?.settle(spend(10))
  expect(ledger.allowance.reserve(spend(50))?.callId).toBe('lease-1/3')
  expect(ledger.allowance.reserve(spend(1))).toBeUndefined()
})

test('lease: nothing is granted once it may have expired, counted from when it was asked for', async () => {
  const ledger = openLedger()
  ledger.allowance.reserve(spend(1))
  await ledger.settled()
  ledger.state.grants = false
  ledger.state.clock = 9_999
  expect(ledger.allowance.reserve(spend(1))?.callId).toBe('lease-1/1')
  await ledger.settled()
  ledger.state.clock = 10_000
  expect(ledger.allowance.reserve(spend(1))).toBeUndefined()
})

test('lease: the next is asked for when a quarter is left, and the old one ends with its last call', async () => {
  const ledger = openLedger()
  ledger.allowance.reserve(spend(1))
  await ledger.settled()
  ledger.state.clock = 1_000
  const last = ledger.allowance.reserve(spend(80))
  await ledger.settled()
  expect(ledger.state.asked).toBe(2)
  expect(ledger.allowance.reserve(spend(70))?.callId).toBe('lease-2/1')
  expect(ledger.ended).toEqual([])
  last?.settle(spend(75))
  expect(ledger.ended).toEqual([{ id: 'lease-1', outputTokens: 75, calls: 1 }])
})

test('lease: one whose calls outlive it is held on until the last of them, and an idle one is not', async () => {
  const ledger = openLedger()
  ledger.allowance.reserve(spend(1))
  await ledger.settled()
  expect(ledger.allowance.inUse()).toEqual([])
  expect(ledger.allowance.isIdle(20_000)).toBe(true)
  const long = ledger.allowance.reserve(spend(1))
  expect(ledger.allowance.isIdle(20_000)).toBe(false)
  expect(ledger.allowance.inUse()).toEqual([{ id: 'lease-1', untilMs: 10_000 }])
  await ledger.allowance.close()
  expect(ledger.ended).toEqual([])
  for (const held of ledger.allowance.inUse()) held.untilMs = 50_000
  expect(ledger.allowance.inUse()).toEqual([{ id: 'lease-1', untilMs: 50_000 }])
  long?.settle(undefined)
  expect(ledger.allowance.inUse()).toEqual([])
  expect(ledger.ended).toEqual([{ id: 'lease-1', outputTokens: 0, calls: 1 }])
})

test('lease: of calls at once no more are granted than it has places, and each gives its place back', async () => {
  const ledger = openLedger([{ measure: 'concurrency', amount: 1 }])
  ledger.allowance.reserve(spend(1))
  await ledger.settled()
  const first = ledger.allowance.reserve(spend(1))
  expect(first).toBeDefined()
  expect(ledger.allowance.reserve(spend(1))).toBeUndefined()
  first?.settle(spend(1))
  expect(ledger.allowance.reserve(spend(1))).toBeDefined()
  expect(ledger.state.asked).toBe(1)
})

test('lease: one that is given back tells what it spent, and none is asked for in its place at once', async () => {
  const ledger = openLedger()
  expect(await ledger.allowance.giveBack()).toBe(false)
  ledger.state.clock = 1_000
  ledger.allowance.reserve(spend(1))
  await ledger.settled()
  ledger.allowance.reserve(spend(30))?.settle(spend(30))
  expect(await ledger.allowance.giveBack()).toBe(true)
  expect(ledger.ended).toEqual([{ id: 'lease-1', outputTokens: 30, calls: 1 }])
  expect(ledger.allowance.reserve(spend(1))).toBeUndefined()
  expect(ledger.state.asked).toBe(1)
})

test('lease: who is refused does not ask with every call', async () => {
  const ledger = openLedger()
  ledger.state.grants = false
  for (let calls = 0; calls < 100; calls++) {
    expect(ledger.allowance.reserve(spend(1))).toBeUndefined()
    await ledger.settled()
  }
  expect(ledger.state.asked).toBe(1)
  ledger.state.clock = 1_000
  ledger.allowance.reserve(spend(1))
  expect(ledger.state.asked).toBe(2)
})
