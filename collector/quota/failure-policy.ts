// What a client may do when the ledger does not answer, as each tenant has declared it: nothing (closed), everything (open),
// or so much and no more (bounded). Every answer is still 503: what is not in the ledger is not granted, and its verdict says
// what the tenant wants done. What is allowed beside the ledger is counted here, shown, and charged when its records come.
//
// The worst overspend of an outage is the bound of each tenant, once per collector. It begins anew when the ledger is back.
import type { TenantId } from '../receive/request.ts'
import type { Amounts } from './books.ts'

export type FailurePolicy =
  | { readonly policy: 'closed' }
  | { readonly policy: 'open' }
  | { readonly policy: 'bounded'; readonly costNanoUsd: bigint; readonly requests: number }

export type Verdict = {
  readonly policy: FailurePolicy['policy']
  readonly verdict: 'allow' | 'deny'
  /** Of a bounded policy, what is left for this collector. */
  readonly left?: { readonly costNanoUsd: bigint; readonly requests: number }
}

/** What was decided for a tenant while the ledger was away. */
export type Outage = {
  readonly tenant: TenantId
  readonly policy: FailurePolicy['policy']
  readonly sinceUnixMs: number
  allowed: number
  denied: number
  allowedNanoUsd: bigint
}

export type FailurePolicies = {
  readonly policyOf: (tenant: TenantId) => FailurePolicy
  /** Judges a call, and notes what was decided. Asking again with the same call id changes nothing. */
  judge(tenant: TenantId, callId: string, amounts: Amounts): Verdict
  /** What a call would be told now, for who only asks: nothing is noted, and nothing of a bound is used up. Undefined is many
   *  calls at once, which no bound allows, since each counts. */
  foresee(tenant: TenantId, amounts: Amounts | undefined): Verdict
  /** The ledger is back: what was decided meanwhile, which is forgotten here. */
  takeOutages(): readonly Outage[]
  /** What could still be allowed beside the ledger, were it away: of the bounded policies in use, each of them whole. */
  status(): { readonly tenantsAway: number; readonly allowedNanoUsd: bigint }
}

export type FailurePolicyOptions = {
  readonly policyOf: (tenant: TenantId) => FailurePolicy
  readonly now: () => number
  /** Tenants that are remembered during one outage; of others nothing is allowed that has a bound. */
  readonly tenantsMax: number
  /** Call ids that are remembered, of all tenants; beyond, one that comes again counts again. */
  readonly callsMax: number
}

export function openFailurePolicies(options: FailurePolicyOptions): FailurePolicies {
  const outages = new Map<TenantId, Outage & { readonly verdicts: Map<string, Verdict> }>()
  let calls = 0

  function judge(tenant: TenantId, callId: string, amounts: Amounts): Verdict {
    const policy = options.policyOf(tenant)
    let outage = outages.get(tenant)
    if (outage === undefined) {
      if (outages.size >= options.tenantsMax) return notRemembered(policy)
      const counted = { allowed: 0, denied: 0, allowedNanoUsd: 0n }
      outage = { tenant, policy: policy.policy, sinceUnixMs: options.now(), ...counted, verdicts: new Map() }
      outages.set(tenant, outage)
    }
    const before = outage.verdicts.get(callId)
    if (before !== undefined) return before
    const verdict = decide(policy, outage, amounts)
    if (verdict.verdict === 'allow') {
      outage.allowed++
      outage.allowedNanoUsd += amounts.cost ?? 0n
    } else outage.denied++
    if (callId === '' || calls >= options.callsMax) return verdict
    calls++
    outage.verdicts.set(callId, verdict)
    return verdict
  }

  function foresee(tenant: TenantId, amounts: Amounts | undefined): Verdict {
    const policy = options.policyOf(tenant)
    const outage = outages.get(tenant)
    if (outage === undefined && outages.size >= options.tenantsMax) return notRemembered(policy)
    return decide(policy, outage ?? { allowed: 0, allowedNanoUsd: 0n }, amounts)
  }

  return {
    policyOf: options.policyOf,
    judge,
    foresee,
    takeOutages: () => {
      const taken = [...outages.values()].map(({ verdicts: _verdicts, ...outage }) => outage)
      outages.clear()
      calls = 0
      return taken
    },
    status: () => ({
      tenantsAway: outages.size,
      allowedNanoUsd: [...outages.values()].reduce((sum, each) => sum + each.allowedNanoUsd, 0n),
    }),
  }
}

function notRemembered({ policy }: FailurePolicy): Verdict {
  return { policy, verdict: policy === 'open' ? 'allow' : 'deny' }
}

function decide(
  policy: FailurePolicy,
  outage: Pick<Outage, 'allowed' | 'allowedNanoUsd'>,
  amounts: Amounts | undefined,
): Verdict {
  if (policy.policy === 'closed') return { policy: 'closed', verdict: 'deny' }
  if (policy.policy === 'open') return { policy: 'open', verdict: 'allow' }
  const left = {
    costNanoUsd: policy.costNanoUsd - outage.allowedNanoUsd,
    requests: policy.requests - outage.allowed,
  }
  // What a call may cost must be known where its cost is what is bounded.
  const fits = amounts?.cost !== undefined && amounts.cost <= left.costNanoUsd && left.requests > 0
  if (!fits) return { policy: 'bounded', verdict: 'deny', left }
  return {
    policy: 'bounded',
    verdict: 'allow',
    left: { costNanoUsd: left.costNanoUsd - amounts.cost, requests: left.requests - 1 },
  }
}
