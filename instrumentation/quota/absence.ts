// What becomes of calls while nobody answers for the quota. The tenant's own policy decides, as the last answer told it; a quota
// service that is there, and only its ledger is not, has judged itself and is obeyed. Within a bound, calls go until it is
// used up, in this process and outage: what one may cost is taken from what calls of its model were said to cost.
import { limits } from '../limits.ts'
import type { Estimate } from './estimates.ts'
import type { ForAbsence, TenantPolicy } from './quota-client.ts'

export type AbsencePolicy = TenantPolicy['policy']

export type Absence = {
  /** The quota service has answered: what is spent without it is over, and this is what holds the next time. */
  answered(told: ForAbsence | undefined, model: string, estimate: Estimate): void
  judge(model: string, estimate: Estimate): { readonly policy: AbsencePolicy; readonly verdict: 'allow' | 'deny' }
}

/** `initial` holds until an answer has told the tenant's own. */
export function openAbsence(initial: 'open' | 'closed'): Absence {
  let tenant: TenantPolicy = { policy: initial }
  const spent = { costNanoUsd: 0, requests: 0 }
  /** The most that a token of a model was said to cost, in the order of use. */
  const nanoUsdPerToken = new Map<string, number>()

  function learn(model: string, seen: number): void {
    const most = Math.max(seen, nanoUsdPerToken.get(model) ?? 0)
    nanoUsdPerToken.delete(model)
    nanoUsdPerToken.set(model, most)
    const [oldest] = nanoUsdPerToken.keys()
    if (nanoUsdPerToken.size > limits.estimatedModelsMax && oldest !== undefined) nanoUsdPerToken.delete(oldest)
  }

  return {
    answered(told, model, estimate) {
      if (told === undefined) return
      tenant = told.tenant
      spent.costNanoUsd = 0
      spent.requests = 0
      if (told.callNanoUsd !== undefined) learn(model, told.callNanoUsd / Math.max(1, tokensOf(estimate)))
    },
    judge(model, estimate) {
      if (tenant.policy !== 'bounded')
        return { policy: tenant.policy, verdict: tenant.policy === 'open' ? 'allow' : 'deny' }
      const perToken = nanoUsdPerToken.get(model)
      // What a call may cost must be known where its cost is what is bounded.
      const costNanoUsd = perToken === undefined ? Number.POSITIVE_INFINITY : perToken * tokensOf(estimate)
      if (spent.requests >= tenant.requests || spent.costNanoUsd + costNanoUsd > tenant.costNanoUsd)
        return { policy: 'bounded', verdict: 'deny' }
      spent.requests++
      spent.costNanoUsd += costNanoUsd
      return { policy: 'bounded', verdict: 'allow' }
    },
  }
}

function tokensOf({ inputTokens, outputTokensMax }: Estimate): number {
  return inputTokens + outputTokensMax
}
