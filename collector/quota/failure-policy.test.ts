import { expect, test } from 'vitest'
import { parseTenantId, type TenantId } from '../receive/request.ts'
import { type FailurePolicy, openFailurePolicies } from './failure-policy.ts'

const [one, other] = ['one', 'other'].map((name) => parseTenantId(name) as TenantId) as [TenantId, TenantId]
const cost = (amount: bigint | undefined) => ({ cost: amount, tokens: undefined })

function open(policy: FailurePolicy, more: { readonly tenantsMax?: number; readonly callsMax?: number } = {}) {
  return openFailurePolicies({ policyOf: () => policy, now: () => 0, tenantsMax: 10, callsMax: 10, ...more })
}

test('failure policy: a bound is each tenant’s own, holds for cost and for calls, and begins anew after the outage', () => {
  const policies = open({ policy: 'bounded', costNanoUsd: 100n, requests: 2 })
  expect(policies.judge(one, 'a', cost(60n))).toMatchObject({
    verdict: 'allow',
    left: { costNanoUsd: 40n, requests: 1 },
  })
  expect(policies.judge(one, 'b', cost(41n))).toMatchObject({
    verdict: 'deny',
    left: { costNanoUsd: 40n, requests: 1 },
  })
  expect(policies.judge(one, 'c', cost(1n))).toMatchObject({ verdict: 'allow' })
  expect(policies.judge(one, 'd', cost(1n))).toMatchObject({ verdict: 'deny', left: { requests: 0 } })
  expect(policies.judge(other, 'a', cost(100n))).toMatchObject({ verdict: 'allow' })
  expect(policies.status()).toEqual({ tenantsAway: 2, allowedNanoUsd: 161n })
  expect(policies.takeOutages()).toMatchObject([
    { tenant: 'one', allowed: 2, denied: 2, allowedNanoUsd: 61n },
    { tenant: 'other', allowed: 1, denied: 0, allowedNanoUsd: 100n },
  ])
  expect(policies.judge(one, 'd', cost(100n))).toMatchObject({ verdict: 'allow' })
})

test('failure policy: asking again with a call id changes nothing', () => {
  const policies = open({ policy: 'bounded', costNanoUsd: 100n, requests: 9 })
  const first = policies.judge(one, 'a', cost(60n))
  expect(policies.judge(one, 'a', cost(60n))).toBe(first)
  expect(policies.status().allowedNanoUsd).toBe(60n)
})

test('failure policy: what a call may cost must be known where cost is bounded', () => {
  expect(open({ policy: 'bounded', costNanoUsd: 100n, requests: 9 }).judge(one, 'a', cost(undefined)).verdict).toBe(
    'deny',
  )
})

test('failure policy: of more tenants than are remembered, nothing is allowed that has a bound', () => {
  const bounded = open({ policy: 'bounded', costNanoUsd: 100n, requests: 9 }, { tenantsMax: 1 })
  expect([one, other].map((tenant) => bounded.judge(tenant, 'a', cost(1n)).verdict)).toEqual(['allow', 'deny'])
  const allowing = open({ policy: 'open' }, { tenantsMax: 1 })
  expect([one, other].map((tenant) => allowing.judge(tenant, 'a', cost(1n)).verdict)).toEqual(['allow', 'allow'])
})
