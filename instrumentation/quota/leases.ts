// Leases of the gate, one allowance for each subject that calls: a limit may hold for any part of a subject, so nothing is spent
// for another one than the ledger granted it to. How much is asked for follows how many calls came; near a limit none is granted, and
// calls are reserved one by one, which is exact.
import type { Counters } from '../counters.ts'
import { limits } from '../limits.ts'
import { type HeldOn, type LeasedAllowance, type LeasedCall, openLeasedAllowance, type Spend } from './lease.ts'
import type { CallSubject, QuotaClient } from './quota-client.ts'

export type Leases = {
  /** Undefined: the ledger has to be asked. */
  reserve(subject: CallSubject, wanted: Spend): LeasedCall | undefined
  /** For a call that was denied while a lease of the same subject has something left. False: there is none. */
  giveBack(subject: CallSubject): Promise<boolean>
  /** What has to be held on as long as calls are under way; allowances that nobody spends are given back. */
  sweep(): readonly HeldOn[]
  /** Gives back what is not in use now, and the rest with its last call. */
  close(): Promise<void>
}

export type LeasesOptions = {
  readonly client: Pick<QuotaClient, 'lease' | 'endLease'>
  readonly counters: Pick<Counters, 'add'>
  /** Monotonic. */
  readonly nowMs: () => number
}

type Known = { readonly allowance: LeasedAllowance; calls: number }

export function openLeases({ client, counters, nowMs }: LeasesOptions): Leases {
  /** In the order of use. */
  const known = new Map<string, Known>()
  /** Given back; of some, calls are still under way. */
  const given = new Set<LeasedAllowance>()
  const closing = new Set<Promise<void>>()

  function knownOf(subject: CallSubject): Known {
    const key = keyOf(subject)
    const each = known.get(key) ?? open(subject)
    known.delete(key)
    known.set(key, each)
    const [oldest] = known
    if (known.size > limits.quotaLeasesMax && oldest !== undefined) give(oldest[0], oldest[1])
    return each
  }

  function open(subject: CallSubject): Known {
    const opened: Known = {
      calls: 0,
      allowance: openLeasedAllowance({
        ttlMs: limits.quotaLeaseMs,
        clockMs: nowMs,
        ask: async (wanted) => {
          const calls = Math.min(Math.max(2 * opened.calls, limits.quotaLeaseCallsMin), limits.quotaLeaseCallsMax)
          opened.calls = 0
          const [inputTokens, outputTokens] = [calls * wanted.inputTokens, calls * wanted.outputTokens]
          const callId = crypto.randomUUID()
          const granted = await client.lease({
            callId,
            ...subject,
            allowance: { inputTokens, outputTokens, requests: calls },
            ttlMs: limits.quotaLeaseMs,
          })
          if (granted === undefined) return undefined
          // What was asked for is a bound, too, also where no limit is: the hold of a limit on cost is the price of that.
          const own = { input_tokens: inputTokens, output_tokens: outputTokens, requests: calls }
          const holds = Object.entries(own).map(([measure, amount]) => ({ measure, amount }))
          return { id: granted.id, callId, holds: [...granted.holds, ...holds] }
        },
        end: async ({ id }, { calls, usage }) => {
          const step = await client.endLease(id, { usage, requests: calls, ...ofCall(subject) })
          if (step.kind !== 'done') counters.add('settlementsFailed')
        },
      }),
    }
    return opened
  }

  function give(key: string, { allowance }: Known): void {
    known.delete(key)
    given.add(allowance)
    const closed = allowance.close()
    closing.add(closed)
    closed.finally(() => closing.delete(closed))
  }

  return {
    reserve(subject, wanted) {
      const each = knownOf(subject)
      each.calls++
      return each.allowance.reserve(wanted)
    },
    giveBack: async (subject) => (await known.get(keyOf(subject))?.allowance.giveBack()) ?? false,
    sweep() {
      const now = nowMs()
      for (const [key, each] of known) if (each.allowance.isIdle(now + limits.quotaLeaseMs / 2)) give(key, each)
      const all = [...[...known.values()].map(({ allowance }) => allowance), ...given]
      for (const allowance of given) if (allowance.isIdle(now)) given.delete(allowance)
      return all.flatMap((each) => each.inUse())
    },
    async close() {
      for (const [key, each] of known) give(key, each)
      await Promise.all(closing)
    },
  }
}

function keyOf({ user, conversation, model, provider }: CallSubject): string {
  return JSON.stringify([user, conversation, model, provider])
}

function ofCall({ model, provider }: CallSubject): { readonly model: string; readonly provider: string } {
  return { model, provider }
}
