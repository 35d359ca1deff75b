// A tenant that only records name, sent with a key for many tenants: it is held and erased like one that was made, and to do
// so makes it none, which would lock out whoever runs without a key. A name that nothing has is a slip, and said to be one.
import { execFile } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { afterAll, beforeAll, expect, test, vi } from 'vitest'
import { type CollectorProcess, startCollector } from '../collector-process.ts'

const commandPath = fileURLToPath(new URL('../../collector/command-line.ts', import.meta.url))
type Ended = { readonly code: number; readonly out: string; readonly said: string }

let collector: CollectorProcess
let gateway: string

beforeAll(async () => {
  collector = await startCollector()
  const created = await tallylight('keys', 'create', '--tenant', 'default', '--roles', 'ingest', '--many-tenants')
  gateway = created.out
  expect(await send(gateway, 'beta')).toBe(200)
  await collector.drained()
})
afterAll(() => collector?.[Symbol.asyncDispose]())

function tallylight(...args: string[]): Promise<Ended> {
  const env = { PATH: process.env.PATH ?? '', TALLYLIGHT_DATA_DIR: collector.directory }
  const flags = ['--disable-warning=ExperimentalWarning', commandPath, ...args]
  return promisify(execFile)(process.execPath, flags, { env }).then(
    ({ stdout, stderr }) => ({ code: 0, out: stdout.trim(), said: stderr }),
    ({ code, stdout, stderr }) => ({ code, out: stdout.trim(), said: stderr }),
  )
}

async function send(key: string | undefined, tenant: string): Promise<number> {
  const attributes = [
    { key: 'tallylight.tenant.id', value: { stringValue: tenant } },
    { key: 'user.id', value: { stringValue: 'ada' } },
  ]
  const startTimeUnixNano = String(BigInt(Date.now()) * 1_000_000n)
  const span = { traceId: 'd'.repeat(32), spanId: 'e'.repeat(16), name: 'chat', startTimeUnixNano, attributes }
  const response = await fetch(`http://127.0.0.1:${collector.ports().otlpHttp}/v1/traces`, {
    method: 'POST',
    body: JSON.stringify({ resourceSpans: [{ scopeSpans: [{ spans: [span] }] }] }),
    headers: { 'Content-Type': 'application/json', ...(key === undefined ? {} : { Authorization: `Bearer ${key}` }) },
  })
  await response.arrayBuffer()
  return response.status
}

async function daysOf(tenant: string): Promise<readonly number[]> {
  const rows = await collector.query<{ days: number }>(
    `SELECT RetentionDays AS days FROM tallylight.otel_traces WHERE TenantId = '${tenant}'`,
  )
  return rows.map(({ days }) => days)
}

test('tenants: one that only records name can be held and let go, and stays without a row of its own', async () => {
  const [usual] = await daysOf('beta')
  const placed = await tallylight('hold', 'place', '--tenant', 'beta', '--reason', 'case 1')
  expect(placed).toMatchObject({ code: 0 })
  await vi.waitUntil(async () => (await daysOf('beta'))[0] !== usual, 20_000)
  const refused = await tallylight('erase', '--tenant', 'beta', '--user', 'ada')
  expect(refused).toMatchObject({ code: 1, said: expect.stringContaining('409: legal hold') })
  const { id } = JSON.parse(placed.out) as { readonly id: string }
  expect(await tallylight('hold', 'release', id)).toMatchObject({ code: 0 })
  await vi.waitUntil(async () => (await daysOf('beta'))[0] === usual, 20_000)
  expect((await tallylight('tenants', 'list')).out.split('\n')).toHaveLength(1)
  expect(await send(undefined, 'default')).toBe(200)
})

test('tenants: a name that is in neither store is answered 404, and neither held nor erased', async () => {
  for (const words of [
    ['hold', 'place', '--tenant', 'bteta', '--reason', 'case 1'],
    ['erase', '--tenant', 'bteta', '--user', 'ada'],
    ['erase', '--tenant', 'bteta', '--user', 'ada', '--dry-run'],
  ])
    expect(await tallylight(...words)).toMatchObject({
      code: 1,
      said: expect.stringContaining('404: there is no tenant bteta'),
    })
  expect(await tallylight('hold', 'list')).toMatchObject({ code: 0, out: '' })
})

test('tenants: an erasure that finds nothing says so in its proof and beside it, and one that finds something does not', async () => {
  const nothing = await tallylight('erase', '--tenant', 'beta', '--user', 'aad')
  expect(nothing).toMatchObject({
    code: 0,
    said: expect.stringContaining('nothing of this user was found, so nothing was erased'),
  })
  expect(JSON.parse(nothing.out)).toMatchObject({
    state: 'done',
    reason: 'nothing of this user was found, so nothing was erased',
    erased: {},
  })
  const { out, said } = await tallylight('erase', '--tenant', 'beta', '--user', 'ada')
  expect(JSON.parse(out)).toMatchObject({ state: 'done', erased: { otel_traces: 1 } })
  expect(`${out}${said}`).not.toContain('nothing')
  expect(await daysOf('beta')).toEqual([])
})
