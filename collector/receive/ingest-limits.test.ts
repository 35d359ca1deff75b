import { expect, test } from 'vitest'
import { tenantOf } from './fixtures/receiver.ts'
import { type IngestLimitsConfig, openIngestLimits } from './ingest-limits.ts'

const acme = tenantOf('acme')
const other = tenantOf('other')

function open(config: IngestLimitsConfig, tenantsMax = 100) {
  const clock = { ms: 0 }
  return { clock, limits: openIngestLimits({ config, clockMs: () => clock.ms, burstSeconds: 2, tenantsMax }) }
}

test('ingest limits: without rates nothing is refused', () => {
  const { limits } = open({})
  for (let i = 0; i < 100; i++) expect(limits.take(acme, 1e12).kind).toBe('granted')
})

test('ingest limits: a burst of two seconds passes, then the rate, and the refusal says when to come back', () => {
  const { limits, clock } = open({ default: { bytesPerSecond: 1000 } })
  expect(limits.take(acme, 1500).kind).toBe('granted')
  expect(limits.take(acme, 500).kind).toBe('granted')
  expect(limits.take(acme, 300)).toMatchObject({ kind: 'refused', retryAfterMs: 300 })
  clock.ms = 299
  expect(limits.take(acme, 300)).toMatchObject({ kind: 'refused', retryAfterMs: 1 })
  clock.ms = 300
  expect(limits.take(acme, 300).kind).toBe('granted')
})

test('ingest limits: over a minute of flood a tenant gets its rate and its burst, and no more', () => {
  const { limits, clock } = open({ default: { bytesPerSecond: 1000 } })
  let granted = 0
  for (; clock.ms <= 60_000; clock.ms += 5) if (limits.take(acme, 100).kind === 'granted') granted += 100
  expect(granted).toBe(62_000)
})

test('ingest limits: a request larger than the burst passes when the balance is full, and is paid off after it', () => {
  const { limits, clock } = open({ default: { bytesPerSecond: 1000 } })
  expect(limits.take(acme, 10_000).kind).toBe('granted')
  expect(limits.take(acme, 1)).toMatchObject({ kind: 'refused', retryAfterMs: 8001 })
  clock.ms = 8001
  expect(limits.take(acme, 1).kind).toBe('granted')
})

test('ingest limits: records are known after the request, so the next one is refused', () => {
  const { limits, clock } = open({ default: { recordsPerSecond: 100 } })
  expect(limits.take(acme, 1).kind).toBe('granted')
  limits.charge(acme, 300)
  expect(limits.take(acme, 1)).toMatchObject({ kind: 'refused', retryAfterMs: 1000 })
  clock.ms = 1000
  expect(limits.take(acme, 1).kind).toBe('granted')
})

test('ingest limits: bytes of unknown length are charged when they have come', () => {
  const { limits } = open({ default: { bytesPerSecond: 1000 } })
  expect(limits.take(acme, 0).kind).toBe('granted')
  limits.chargeBytes(acme, 5000)
  expect(limits.take(acme, 0)).toMatchObject({ kind: 'refused', retryAfterMs: 3000 })
})

test('ingest limits: a tenant has its own rate, or none where only others have one', () => {
  const { limits } = open({ tenants: { acme: { bytesPerSecond: 10 } } })
  expect(limits.take(acme, 1000).kind).toBe('granted')
  expect(limits.take(acme, 1000).kind).toBe('refused')
  for (let i = 0; i < 10; i++) expect(limits.take(other, 1e9).kind).toBe('granted')
})

test('ingest limits: one tenant in debt is not forgotten for ten thousand that are not', () => {
  const { limits } = open({ default: { bytesPerSecond: 10 } }, 10)
  limits.take(acme, 1000)
  for (let i = 0; i < 10_000; i++) limits.take(tenantOf(`t${i}`), 0)
  expect(limits.take(acme, 1).kind).toBe('refused')
})
