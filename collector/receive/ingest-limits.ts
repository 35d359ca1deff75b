// How much a tenant may send per second, in bytes as received and in records. Bytes are taken before a body is read,
// so that a flood costs a header and an answer; records are known only after decoding, so they are charged afterwards
// and the request that follows is the one refused. Both balances may go below zero by one request, and no further.
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
}

type Bucket = { balance: number; readonly perSecond: number; readonly full: number; refilledMs: number }
type Account = { readonly bytes: Bucket | undefined; readonly records: Bucket | undefined }

const granted: Taken = { kind: 'granted' }

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
  if (isUnlimited) return { take: () => granted, chargeBytes: () => {}, charge: () => {} }
  const accounts = new Map<TenantId, Account>()

  function accountOf(tenant: TenantId): Account | undefined {
    const known = accounts.get(tenant)
    if (known !== undefined) return known
    const rates = ratesOf.get(tenant) ?? config.default
    if (rates === undefined || !isLimiting(rates)) return undefined
    if (accounts.size >= tenantsMax) forgetOne()
    const account = { bytes: open(rates.bytesPerSecond), records: open(rates.recordsPerSecond) }
    accounts.set(tenant, account)
    return account
  }

  // A full account says nothing that a new one would not, so it goes first; else the oldest, whose owner gains a burst.
  function forgetOne(): void {
    let looked = 0
    for (const [tenant, account] of accounts) {
      if (looked++ === 16) break
      if (!isFull(account.bytes) || !isFull(account.records)) continue
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
    if (records !== undefined && refill(records) < 0) return refused('records', records, 0)
    if (byteBucket === undefined) return granted
    // A request larger than the burst would never fit: it passes when the balance is full, and leaves a debt.
    const needed = Math.min(bytes, byteBucket.full)
    if (refill(byteBucket) < needed) return refused('bytes', byteBucket, needed)
    byteBucket.balance -= bytes
    return granted
  }

  return {
    take,
    chargeBytes(tenant, bytes) {
      const bucket = accountOf(tenant)?.bytes
      if (bucket !== undefined) bucket.balance = refill(bucket) - bytes
    },
    charge(tenant, records) {
      const bucket = accountOf(tenant)?.records
      if (bucket !== undefined) bucket.balance = refill(bucket) - records
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
