import { expect, test } from 'vitest'
import { openPrices, type PriceOf } from '../genai/price.ts'
import { type Identity, parseTenantId, type TenantId } from '../receive/request.ts'
import { openFailurePolicies } from './failure-policy.ts'
import { openQuotaHttp } from './http.ts'
import type { Ledger } from './ledger.ts'
import type { LimitBook } from './limit-book.ts'
import type { Step } from './step.ts'

const tenant = parseTenantId('acme') as TenantId
const identity: Identity = { tenant, keyId: 'k', roles: new Set(['quota']), manyTenants: false }

/** A quota service whose ledger is away, though it notes what it was asked. */
function openAway(options: { readonly priceOf?: PriceOf; readonly now?: () => number } = {}) {
  const verdicts: string[] = []
  const steps: Step[] = []
  const away = async (): Promise<never> => {
    throw new Error('nobody asks for it')
  }
  const ledger: Ledger = {
    run: async (step) => {
      steps.push(step)
      return { kind: 'unavailable', reason: 'the ledger did not answer' }
    },
    record: away,
    sweep: away,
    watch: away,
    forget: () => undefined,
    status: () => ({ waiting: 0, batches: 0, steps: 0, failures: 0 }),
  }
  const limitBook: LimitBook = {
    answer: away,
    usage: away,
    reservation: away,
    applyConfig: away,
    finishChanges: away,
    noteOutages: away,
  }
  const policyOf = () => ({ policy: 'bounded', costNanoUsd: 100n, requests: 2 }) as const
  const failure = openFailurePolicies({ policyOf, now: () => 0, tenantsMax: 10, callsMax: 10 })
  const quota = openQuotaHttp({
    ledger,
    limitBook,
    authenticate: () => ({ kind: 'identified', identity }),
    priceOf: () => ({ kind: 'unpriced', reason: '' }),
    failure,
    unpriced: 'tokens_only',
    now: () => 0,
    log: { error: () => undefined },
    onVerdict: ({ verdict }) => verdicts.push(verdict),
    onAnswer: () => undefined,
    ...options,
  })
  const post = (path: string, body: object) => quota.post(identity, path, { user: 'ada', model: 'm', ...body })
  return { post, failure, verdicts, steps }
}

test('quota: while the ledger is away, what is no call is told the policy and uses nothing of its bound up', async () => {
  const { post, failure, verdicts } = openAway()
  const estimate = { costNanoUsd: 40 }
  for (let asked = 0; asked < 3; asked++) {
    const checked = await post('check', { estimate })
    expect(checked).toMatchObject({ status: 503, body: { verdict: 'allow', left: { costNanoUsd: 60, requests: 1 } } })
    const leased = await post('leases', { callId: `lease ${asked}`, allowance: { costNanoUsd: 40, requests: 9 } })
    expect(leased).toMatchObject({ status: 503, body: { verdict: 'deny', left: { costNanoUsd: 100, requests: 2 } } })
  }
  expect(failure.status()).toEqual({ tenantsAway: 0, allowedNanoUsd: 0n })
  for (const verdict of ['allow', 'allow', 'deny']) {
    expect(await post('check', { estimate })).toMatchObject({ body: { verdict } })
    expect(await post('reservations', { callId: crypto.randomUUID(), estimate })).toMatchObject({ body: { verdict } })
  }
  expect(verdicts).toEqual(['allow', 'allow', 'deny'])
  expect(failure.takeOutages()).toMatchObject([{ allowed: 2, denied: 1, allowedNanoUsd: 80n }])
})

test('quota: the tokens of a charge cost what they cost when its call ended', async () => {
  const price = (from: string, inputNanoUsdPerMillion: bigint) =>
    ({ model: 'm', fromUnixMs: Date.parse(from), inputNanoUsdPerMillion, outputNanoUsdPerMillion: 0n }) as const
  const priceOf = openPrices([price('2026-01-01', 1_000_000n), price('2026-11-01', 3_000_000n)])
  const { post, steps } = openAway({ priceOf, now: () => Date.parse('2026-11-02') })
  const usage = { inputTokens: 10, outputTokens: 0 }
  await post('charges', { eventKey: 'october', usage, endedAt: '2026-10-31T23:59:59Z' })
  await post('charges', { eventKey: 'november', usage, endedAt: '2026-11-01T00:00:00Z' })
  await post('charges', { eventKey: 'now', usage })
  expect(steps.map((step) => 'amounts' in step && step.amounts.cost)).toEqual([10n, 30n, 30n])
})
