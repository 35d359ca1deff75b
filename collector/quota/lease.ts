// A lease as its holder spends it: an allowance that the ledger granted ahead, out of which calls are granted without asking
// anybody. Nothing is granted beyond what the lease holds, nor after it may have expired. Each call has an id that names the
// lease, so that its record is booked to it; when the lease is lost with its holder, that is all that counts.
//
// One lease is spent at a time. The next is asked for when a quarter is left, of the amounts or of the time.

/** What `POST /v1/quota/leases` has granted. */
export type Lease = {
  readonly id: string
  readonly callId: string
  readonly holds: readonly { readonly measure: string; readonly amount: bigint }[]
}

export type Spend = { readonly costNanoUsd: bigint; readonly inputTokens: bigint; readonly outputTokens: bigint }

export type LeasedCall = {
  /** Names the call in its record (`tallylight.call.id`). */
  readonly callId: string
  /** Once. Gives back what was not used; what was used beyond is taken out of what is left. */
  settle(used: Spend): void
}

export type LeasedAllowance = {
  /** Undefined when the lease has not so much, or there is none: the ledger has to be asked. */
  reserve(wanted: Spend): LeasedCall | undefined
  /** Ends the lease, and tells what was spent. */
  close(): Promise<void>
}

export type LeaseOptions = {
  /** Asks the ledger for the next lease; undefined when it grants none now. */
  readonly ask: () => Promise<Lease | undefined>
  /** Ends one: what its settled calls have used, and how many they were. */
  readonly end: (lease: Lease, spent: Spend & { readonly requests: number }) => Promise<void>
  readonly ttlMs: number
  /** Monotonic. */
  readonly clockMs: () => number
  readonly onProblem: (error: unknown) => void
}

/** What is left of a lease, by measure; a measure that no limit has is not bounded. */
type Open = {
  readonly lease: Lease
  readonly endsMs: number
  readonly left: Map<string, bigint>
  readonly renewAt: ReadonlyMap<string, bigint>
  readonly spent: { costNanoUsd: bigint; inputTokens: bigint; outputTokens: bigint; requests: number }
  calls: number
  underWay: number
}

export function openLeasedAllowance(options: LeaseOptions): LeasedAllowance {
  const { clockMs, ttlMs } = options
  let open: Open | undefined
  let asking: Promise<void> | undefined
  let askedMs = Number.NEGATIVE_INFINITY

  function reserve(wanted: Spend): LeasedCall | undefined {
    const nowMs = clockMs()
    const from = open
    if (from === undefined || nowMs >= from.endsMs || !takeOut(from, wanted)) {
      askNext(nowMs)
      return undefined
    }
    if (nowMs >= from.endsMs - ttlMs / 4 || isLow(from)) askNext(nowMs)
    from.underWay++
    return { callId: `${from.lease.callId}/${++from.calls}`, settle: (used) => settle(from, wanted, used) }
  }

  function settle(from: Open, wanted: Spend, used: Spend): void {
    for (const [measure, left] of from.left) {
      from.left.set(measure, left + amountOf(measure, wanted) - amountOf(measure, used))
    }
    from.spent.costNanoUsd += used.costNanoUsd
    from.spent.inputTokens += used.inputTokens
    from.spent.outputTokens += used.outputTokens
    from.spent.requests++
    from.underWay--
    if (from !== open && from.underWay === 0) void end(from)
  }

  /** At most once in a sixteenth of a lease's time, so that one who is refused does not ask with every call. */
  function askNext(nowMs: number): void {
    if (asking !== undefined || nowMs - askedMs < ttlMs / 16) return
    askedMs = nowMs
    asking = options
      .ask()
      .then((lease) => {
        if (lease === undefined) return
        const before = open
        // From when it was asked for: that the ledger's clock began later is to its holder's disadvantage alone.
        open = openLease(lease, nowMs + ttlMs)
        if (before !== undefined && before.underWay === 0) void end(before)
      })
      .catch(options.onProblem)
      .finally(() => {
        asking = undefined
      })
  }

  async function end({ lease, spent }: Open): Promise<void> {
    await options.end(lease, spent).catch(options.onProblem)
  }

  return {
    reserve,
    close: async () => {
      await asking
      const last = open
      open = undefined
      if (last !== undefined && last.underWay === 0) await end(last)
    },
  }
}

function openLease(lease: Lease, endsMs: number): Open {
  const left = new Map<string, bigint>()
  for (const { measure, amount } of lease.holds) {
    const before = left.get(measure)
    // A call is one at a time to whoever limits calls at once: that the lease holds a place for.
    if (measure !== 'concurrency') left.set(measure, before === undefined || amount < before ? amount : before)
  }
  const renewAt = new Map([...left].map(([measure, amount]) => [measure, amount / 4n]))
  const spent = { costNanoUsd: 0n, inputTokens: 0n, outputTokens: 0n, requests: 0 }
  return { lease, endsMs, left, renewAt, spent, calls: 0, underWay: 0 }
}

function takeOut({ left }: Open, wanted: Spend): boolean {
  for (const [measure, amount] of left) if (amountOf(measure, wanted) > amount) return false
  for (const [measure, amount] of left) left.set(measure, amount - amountOf(measure, wanted))
  return true
}

function isLow({ left, renewAt }: Open): boolean {
  for (const [measure, amount] of left) if (amount < (renewAt.get(measure) ?? 0n)) return true
  return false
}

function amountOf(measure: string, { costNanoUsd, inputTokens, outputTokens }: Spend): bigint {
  switch (measure) {
    case 'cost':
      return costNanoUsd
    case 'tokens':
      return inputTokens + outputTokens
    case 'input_tokens':
      return inputTokens
    case 'output_tokens':
      return outputTokens
    default:
      return 1n
  }
}
