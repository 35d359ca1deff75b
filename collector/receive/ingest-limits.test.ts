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
  limits.end(acme)
  expect(limits.take(acme, 1)).toMatchObject({ kind: 'refused', retryAfterMs: 1000 })
  clock.ms = 1000
  expect(limits.take(acme, 1).kind).toBe('granted')
})

test('ingest limits: requests under way count as much as those before turned out to hold, so a flood is not let in at once', () => {
  const { limits, clock } = open({ default: { recordsPerSecond: 1000 } })
  limits.take(acme, 1)
  limits.charge(acme, 500)
  limits.end(acme)
  // 1,500 are left of the burst: of a hundred that come together, those pass that fit, and one more.
  const together = Array.from({ length: 100 }, () => limits.take(acme, 1).kind)
  expect(together.filter((kind) => kind === 'granted')).toHaveLength(4)
  for (let at = 0; at < 4; at++) {
    limits.charge(acme, 500)
    limits.end(acme)
  }
  expect(limits.take(acme, 1)).toMatchObject({ kind: 'refused', retryAfterMs: 500 })
  clock.ms = 500
  const again = Array.from({ length: 100 }, () => limits.take(acme, 1).kind)
  expect(again.filter((kind) => kind === 'granted')).toHaveLength(1)
})

test('ingest limits: requests that end without being charged are no longer under way', () => {
  const { limits } = open({ default: { recordsPerSecond: 1000 } })
  limits.take(acme, 1)
  limits.charge(acme, 1000)
  limits.end(acme)
  for (let at = 0; at < 1000; at++) {
    expect(limits.take(acme, 1).kind).toBe('granted')
    limits.end(acme)
  }
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
  limits.end(acme)
  for (let i = 0; i < 10_000; i++) {
    limits.take(tenantOf(`t${i}`), 0)
    limits.end(tenantOf(`t${i}`))
  }
  expect(limits.take(acme, 1).kind).toBe('refused')
})
