// A lease as its holder spends it: an allowance that the ledger granted ahead, out of which calls are granted without asking
// anybody. Nothing is granted beyond what the lease holds, nor after it may have expired. Each call has an id that names the
// lease, so that its record is booked to it; when the lease is lost with its holder, that is all that counts.
//
// One lease is spent at a time. The next is asked for when a quarter is left, of the amounts or of the time; until it is there, and
// where none is granted, calls are reserved one by one. A lease ends when it was replaced, and its last call with it.

/** What `POST /v1/quota/leases` has granted: of each measure that a limit has, how much. */
export type Lease = {
  readonly id: string
  readonly callId: string
  readonly holds: readonly { readonly measure: string; readonly amount: number }[]
}

export type Spend = {
  readonly inputTokens: number
  readonly outputTokens: number
  readonly cacheReadTokens?: number
  readonly cacheWriteTokens?: number
}

export type SpentLease = { readonly calls: number; readonly usage: Required<Spend> }

/** What the ledger holds, and how long for sure. Whoever extends it says so here. */
export type HeldOn = { readonly id: string; untilMs: number }

export type LeasedCall = {
  /** Names the call in its record (`tallylight.call.id`). */
  readonly callId: string
  /** Once. Gives back what was not used; what was used beyond is taken out of what is left. Undefined: nothing was spent. */
  settle(used: Spend | undefined): void
}

export type LeasedAllowance = {
  /** Undefined when the lease has not so much, or there is none: the ledger has to be asked. */
  reserve(wanted: Spend): LeasedCall | undefined
  /** The leases with calls under way, which have to be held on. */
  inUse(): readonly HeldOn[]
  /** Whether nothing of it is under way, and it may not last until `beforeMs`. */
  isIdle(beforeMs: number): boolean
  /** Ends the lease because what it holds is missing elsewhere, and asks for no other for a while. False: there was none. */
  giveBack(): Promise<boolean>
  /** Ends the lease, and tells what was spent; one with calls under way ends with the last of them. */
  close(): Promise<void>
}

export type LeaseOptions = {
  /** Asks the ledger for the next lease, for calls like the one that is wanted; undefined when it grants none now. */
  readonly ask: (wanted: Spend) => Promise<Lease | undefined>
  /** Ends one. Never rejects. */
  readonly end: (lease: Lease, spent: SpentLease) => Promise<void>
  readonly ttlMs: number
  /** Monotonic. */
  readonly clockMs: () => number
}

type Open = {
  readonly lease: Lease
  /** Nothing is granted out of it any more. */
  readonly endsMs: number
  readonly held: HeldOn
  /** By measure; one that no limit has is not bounded. */
  readonly left: Map<string, number>
  readonly renewAt: ReadonlyMap<string, number>
  readonly spent: { inputTokens: number; outputTokens: number; cacheReadTokens: number; cacheWriteTokens: number }
  calls: number
  settledCalls: number
}

export function openLeasedAllowance(options: LeaseOptions): LeasedAllowance {
  const { clockMs, ttlMs } = options
  let open: Open | undefined
  /** Replaced, with calls still under way. */
  const leaving = new Set<Open>()
  const ending = new Set<Promise<void>>()
  let asking: Promise<void> | undefined
  let refusedMs = Number.NEGATIVE_INFINITY

  function reserve(wanted: Spend): LeasedCall | undefined {
    const nowMs = clockMs()
    const from = open
    if (from === undefined || nowMs >= from.endsMs) {
      askNext(nowMs, wanted)
      return undefined
    }
    const isTaken = takeOut(from, wanted)
    if (nowMs >= from.endsMs - ttlMs / 4 || isLow(from)) askNext(nowMs, wanted)
    if (!isTaken) return undefined
    return { callId: `${from.lease.callId}/${++from.calls}`, settle: (used) => settle(from, wanted, used) }
  }

  function settle(from: Open, wanted: Spend, used: Spend | undefined): void {
    for (const [measure, left] of from.left)
      from.left.set(measure, left + amountOf(measure, wanted) - (measure === 'concurrency' ? 0 : usedOf(measure, used)))
    from.spent.inputTokens += used?.inputTokens ?? 0
    from.spent.outputTokens += used?.outputTokens ?? 0
    from.spent.cacheReadTokens += used?.cacheReadTokens ?? 0
    from.spent.cacheWriteTokens += used?.cacheWriteTokens ?? 0
    from.settledCalls++
    if (from !== open && from.calls === from.settledCalls) end(from)
  }

  /** At most once in a sixteenth of a lease's time after a refusal, so that one who is refused does not ask with every call. */
  function askNext(nowMs: number, wanted: Spend): void {
    if (asking !== undefined || nowMs - refusedMs < ttlMs / 16) return
    asking = options.ask(wanted).then((lease) => {
      asking = undefined
      if (lease === undefined) refusedMs = nowMs
      // From when it was asked for: that the ledger's clock began later is to its holder's disadvantage alone.
      else replace(openLease(lease, nowMs + ttlMs))
    })
  }

  function replace(next: Open | undefined): void {
    const before = open
    open = next
    if (before === undefined) return
    if (before.calls === before.settledCalls) end(before)
    else leaving.add(before)
  }

  function end(over: Open): void {
    leaving.delete(over)
    const telling = options.end(over.lease, { calls: over.settledCalls, usage: over.spent })
    ending.add(telling)
    telling.finally(() => ending.delete(telling))
  }

  return {
    reserve,
    inUse: () => {
      const all = open === undefined ? [...leaving] : [...leaving, open]
      return all.filter(({ calls, settledCalls }) => calls > settledCalls).map(({ held }) => held)
    },
    isIdle: (beforeMs) =>
      asking === undefined &&
      leaving.size === 0 &&
      (open === undefined || (open.calls === open.settledCalls && open.endsMs < beforeMs)),
    giveBack: async () => {
      const had = open !== undefined
      refusedMs = clockMs()
      replace(undefined)
      await Promise.all(ending)
      return had
    },
    close: async () => {
      await asking
      replace(undefined)
      await Promise.all(ending)
    },
  }
}

function openLease(lease: Lease, endsMs: number): Open {
  const left = new Map<string, number>()
  for (const { measure, amount } of lease.holds) {
    // What may be spent in money is what these tokens cost: the ledger priced them when it granted the lease.
    if (measure !== 'cost') left.set(measure, Math.min(amount, left.get(measure) ?? amount))
  }
  // Places are taken and given back all the time: that none is free is no reason for another lease.
  const renewable = [...left].filter(([measure]) => measure !== 'concurrency')
  const renewAt = new Map(renewable.map(([measure, amount]) => [measure, amount / 4]))
  const spent = { inputTokens: 0, outputTokens: 0, cacheReadTokens: 0, cacheWriteTokens: 0 }
  const held = { id: lease.id, untilMs: endsMs }
  return { lease, endsMs, held, left, renewAt, spent, calls: 0, settledCalls: 0 }
}

function takeOut({ left }: Open, wanted: Spend): boolean {
  for (const [measure, amount] of left) if (amountOf(measure, wanted) > amount) return false
  for (const [measure, amount] of left) left.set(measure, amount - amountOf(measure, wanted))
  return true
}

function isLow({ left, renewAt }: Open): boolean {
  for (const [measure, amount] of renewAt) if ((left.get(measure) ?? 0) < amount) return true
  return false
}

function usedOf(measure: string, used: Spend | undefined): number {
  return used === undefined ? 0 : amountOf(measure, used)
}

function amountOf(measure: string, { inputTokens, outputTokens }: Spend): number {
  switch (measure) {
    case 'tokens':
      return inputTokens + outputTokens
    case 'input_tokens':
      return inputTokens
    case 'output_tokens':
      return outputTokens
    default:
      return 1
  }
}
