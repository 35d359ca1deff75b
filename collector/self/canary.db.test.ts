// What the canary says when the road is broken; that it comes back when all is well is seen by test/e2e/look.test.ts.
import { migrateClickHouse } from '@tallylight/storage/clickhouse/migrate.ts'
import { startTestEngine, type TestEngine } from '@tallylight/storage/clickhouse/testing.ts'
import { startTestPostgres, type TestPostgres } from '@tallylight/storage/postgres/testing.ts'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { openTestLedger } from '../quota/testing.ts'
import { openCanary, type Send } from './canary.ts'

const waitMsMax = 400
const quiet = (): void => undefined
let engine: TestEngine
let postgres: TestPostgres
beforeAll(async () => {
  ;[engine, postgres] = await Promise.all([startTestEngine(), startTestPostgres()])
})
afterAll(async () => {
  await Promise.all([engine?.[Symbol.asyncDispose](), postgres?.[Symbol.asyncDispose]()])
})

async function openBroken(name: string, send: Send, hasTables = true) {
  const clickhouse = await engine.open(name)
  if (hasTables) await migrateClickHouse(clickhouse)
  const { ledger, pool } = await openTestLedger(postgres, name, [])
  const misses: string[] = []
  const canary = openCanary({
    ...{ send, ledger, clickhouse, database: pool, now: Date.now, log: { info: quiet, warn: quiet, error: quiet } },
    metrics: { add: (metric, { step = '' }) => void misses.push(`${metric} ${step}`) },
    bounds: { waitMsMax, pollMs: 50 },
  })
  return { canary, misses }
}

const gaugeOf = (canary: Awaited<ReturnType<typeof openBroken>>['canary'], name: string): unknown =>
  canary.samples().find((sample) => sample.name === name)?.value

test('canary: a turn that is refused on its way is missing at every step behind, counted, and no success', async () => {
  const { canary, misses } = await openBroken('refused', async () => false)
  const steps = ['call', 'health', 'send', 'settle', 'tool', 'turn']
  const probed = await canary.probe(new AbortController().signal)
  expect(probed?.missing.toSorted()).toEqual(steps)
  expect(probed?.reasons).toEqual([])
  expect(misses.toSorted()).toEqual(steps.map((step) => `tallylight_canary_misses_total ${step}`))
  expect(gaugeOf(canary, 'tallylight_canary_success')).toBe(0)
  expect(gaugeOf(canary, 'tallylight_canary_delay_seconds')).toBeGreaterThanOrEqual(waitMsMax / 1000)
})

test('canary: a store that cannot say is named with its reason', async () => {
  const { canary } = await openBroken('bare', async () => true, false)
  const probed = await canary.probe(new AbortController().signal)
  expect(probed?.missing.toSorted()).toEqual(['call', 'health', 'settle', 'tool', 'turn'])
  expect(probed?.reasons.join()).toMatch(/bare\.(turns|llm_calls|tool_calls|health_checks)/)
})

test('canary: a probe that the end of the collector cuts short says nothing', async () => {
  const stopping = new AbortController()
  const { canary, misses } = await openBroken('stopping', async () => {
    stopping.abort()
    return true
  })
  expect(await canary.probe(stopping.signal)).toBeUndefined()
  expect([misses, canary.samples()]).toEqual([[], []])
})
