// How much a tenant may send per second, in bytes as received and in records. Bytes are taken before a body is read,
// so that a flood costs a header and an answer; records are known only after decoding, so they are charged afterwards,
// and until then a request under way counts as much as those before it turned out to hold: else a flood on many
// connections would be let in all at once, each time its balance is above zero, and the others wait for it in one go.
import type { TenantId } from './request.ts'

export type IngestRates = {
  readonly bytesPerSecond?: number | undefined
  readonly recordsPerSecond?: number | undefined
}

export type IngestLimitsConfig = {
  readonly default?: IngestRates | undefined
  readonly tenants?: { readonly [tenant: string]: IngestRates } | undefined
}

export type Taken =
  | { readonly kind: 'granted' }
  | { readonly kind: 'refused'; readonly reason: string; readonly retryAfterMs: number }

export type IngestLimits = {
  /** Takes `bytes` when both balances allow it; of a body whose length is not known yet, 0, and the rest with `chargeBytes`. */
  readonly take: (tenant: TenantId, bytes: number) => Taken
  readonly chargeBytes: (tenant: TenantId, bytes: number) => void
  /** What a request turned out to hold. */
  readonly charge: (tenant: TenantId, records: number) => void
  /** Called once for each request that was granted, when it is no longer under way. */
  readonly end: (tenant: TenantId) => void
}

type Bucket = { balance: number; readonly perSecond: number; readonly full: number; refilledMs: number }
type Account = {
  readonly bytes: Bucket | undefined
  readonly records: Bucket | undefined
  underWay: number
  /** Of its requests lately; undefined before the first was charged. */
  recordsPerRequest: number | undefined
}

const granted: Taken = { kind: 'granted' }
/** How much the last request weighs in the average. */
const newestShare = 1 / 8

/** `clockMs` is monotonic. Without rates nothing is counted and nothing is refused. */
export function openIngestLimits({
  config,
  clockMs,
  burstSeconds,
  tenantsMax,
}: {
  readonly config: IngestLimitsConfig
  readonly clockMs: () => number
  readonly burstSeconds: number
  readonly tenantsMax: number
}): IngestLimits {
  const ratesOf = new Map(Object.entries(config.tenants ?? {}))
  const isUnlimited = !isLimiting(config.default) && ![...ratesOf.values()].some(isLimiting)
  if (isUnlimited) return { take: () => granted, chargeBytes: () => {}, charge: () => {}, end: () => {} }
  const accounts = new Map<TenantId, Account>()

  function accountOf(tenant: TenantId): Account | undefined {
    const known = accounts.get(tenant)
    if (known !== undefined) return known
    const rates = ratesOf.get(tenant) ?? config.default
    if (rates === undefined || !isLimiting(rates)) return undefined
    if (accounts.size >= tenantsMax) forgetOne()
    const account: Account = {
      bytes: open(rates.bytesPerSecond),
      records: open(rates.recordsPerSecond),
      underWay: 0,
      recordsPerRequest: undefined,
    }
    accounts.set(tenant, account)
    return account
  }

  // A full account says nothing that a new one would not, so it goes first; else the oldest, whose owner gains a burst.
  function forgetOne(): void {
    let looked = 0
    for (const [tenant, account] of accounts) {
      if (looked++ === 16) break
      if (account.underWay > 0 || !isFull(account.bytes) || !isFull(account.records)) continue
      accounts.delete(tenant)
      return
    }
    const oldest = accounts.keys().next().value
    if (oldest !== undefined) accounts.delete(oldest)
  }

  function isFull(bucket: Bucket | undefined): boolean {
    return bucket === undefined || refill(bucket) >= bucket.full
  }

  function open(perSecond: number | undefined): Bucket | undefined {
    if (perSecond === undefined) return undefined
    const full = perSecond * burstSeconds
    return { balance: full, perSecond, full, refilledMs: clockMs() }
  }

  function refill(bucket: Bucket): number {
    const nowMs = clockMs()
    bucket.balance = Math.min(bucket.full, bucket.balance + ((nowMs - bucket.refilledMs) * bucket.perSecond) / 1000)
    bucket.refilledMs = nowMs
    return bucket.balance
  }

  function take(tenant: TenantId, bytes: number): Taken {
    const account = accountOf(tenant)
    if (account === undefined) return granted
    const { bytes: byteBucket, records } = account
    const expected = account.underWay * (account.recordsPerRequest ?? 0)
    if (records !== undefined && refill(records) < expected) return refused('records', records, expected)
    if (byteBucket !== undefined) {
      // A request larger than the burst would never fit: it passes when the balance is full, and leaves a debt.
      const needed = Math.min(bytes, byteBucket.full)
      if (refill(byteBucket) < needed) return refused('bytes', byteBucket, needed)
      byteBucket.balance -= bytes
    }
    account.underWay++
    return granted
  }

  return {
    take,
    chargeBytes(tenant, bytes) {
      const bucket = accountOf(tenant)?.bytes
      if (bucket !== undefined) bucket.balance = refill(bucket) - bytes
    },
    charge(tenant, records) {
      const account = accountOf(tenant)
      if (account?.records === undefined) return
      account.records.balance = refill(account.records) - records
      const before = account.recordsPerRequest ?? records
      account.recordsPerRequest = before + (records - before) * newestShare
    },
    end(tenant) {
      const account = accountOf(tenant)
      // One that was forgotten in between starts anew, with nothing under way.
      if (account !== undefined && account.underWay > 0) account.underWay--
    },
  }
}

function isLimiting(rates: IngestRates | undefined): boolean {
  return rates?.bytesPerSecond !== undefined || rates?.recordsPerSecond !== undefined
}

function refused(unit: 'bytes' | 'records', bucket: Bucket, needed: number): Taken {
  return {
    kind: 'refused',
    reason: `the tenant sends more than its ${bucket.perSecond} ${unit} per second`,
    retryAfterMs: Math.max(1, Math.ceil(((needed - bucket.balance) / bucket.perSecond) * 1000)),
  }
}
