import { expect, test } from 'vitest'
import { type Lease, openLeasedAllowance, type Spend } from './lease.ts'

const spend = (costNanoUsd: bigint): Spend => ({ costNanoUsd, inputTokens: 1n, outputTokens: 1n })

type Ended = { readonly id: string; readonly costNanoUsd: bigint; readonly requests: number }

/** A ledger that grants leases of 100, and tells of their ends. */
function openLedger() {
  const state = { clock: 0, grants: true, asked: 0 }
  const ended: Ended[] = []
  const allowance = openLeasedAllowance({
    ask: async (): Promise<Lease | undefined> => {
      const id = `lease-${++state.asked}`
      const holds = [100n, 120n].map((amount) => ({ measure: 'cost', amount }))
      return state.grants ? { id, callId: id, holds } : undefined
    },
    end: async ({ id }, { costNanoUsd, requests }) => void ended.push({ id, costNanoUsd, requests }),
    ttlMs: 10_000,
    clockMs: () => state.clock,
    onProblem: (error) => {
      throw error
    },
  })
  // The grant is a promise of its own, and what follows it another.
  const settled = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))
  return { state, ended, allowance, settled }
}

test('lease: calls are granted out of it up to the smallest hold, and what they did not use is there again', async () => {
  const ledger = openLedger()
  expect(ledger.allowance.reserve(spend(60n))).toBeUndefined()
  await ledger.settled()
  const first = ledger.allowance.reserve(spend(60n))
  expect(first?.callId).toBe('lease-1/1')
  expect(ledger.allowance.reserve(spend(41n))).toBeUndefined()
  expect(ledger.allowance.reserve(spend(40n))?.callId).toBe('lease-1/2')
  first?.settle(spend(10n))
  expect(ledger.allowance.reserve(spend(50n))?.callId).toBe('lease-1/3')
  expect(ledger.allowance.reserve(spend(1n))).toBeUndefined()
})

test('lease: nothing is granted once it may have expired, counted from when it was asked for', async () => {
  const ledger = openLedger()
  ledger.allowance.reserve(spend(1n))
  await ledger.settled()
  ledger.state.grants = false
  ledger.state.clock = 9_999
  expect(ledger.allowance.reserve(spend(1n))?.callId).toBe('lease-1/1')
  await ledger.settled()
  ledger.state.clock = 10_000
  expect(ledger.allowance.reserve(spend(1n))).toBeUndefined()
})

test('lease: the next is asked for when a quarter is left, and the old one ends with its last call', async () => {
  const ledger = openLedger()
  ledger.allowance.reserve(spend(1n))
  await ledger.settled()
  ledger.state.clock = 1_000
  const last = ledger.allowance.reserve(spend(80n))
  await ledger.settled()
  expect(ledger.state.asked).toBe(2)
  expect(ledger.allowance.reserve(spend(70n))?.callId).toBe('lease-2/1')
  expect(ledger.ended).toEqual([])
  last?.settle(spend(75n))
  await ledger.settled()
  expect(ledger.ended).toEqual([{ id: 'lease-1', costNanoUsd: 75n, requests: 1 }])
})

test('lease: who is refused does not ask with every call', async () => {
  const ledger = openLedger()
  ledger.state.grants = false
  for (let calls = 0; calls < 100; calls++) {
    expect(ledger.allowance.reserve(spend(1n))).toBeUndefined()
    await ledger.settled()
  }
  expect(ledger.state.asked).toBe(1)
  ledger.state.clock = 1_000
  ledger.allowance.reserve(spend(1n))
  expect(ledger.state.asked).toBe(2)
})
