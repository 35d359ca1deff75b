// Limits as they are put and changed: what is said of them, and what no Postgres could count.
import { startTestPostgres, type TestPostgres } from '@tallylight/storage/postgres/testing.ts'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { openLimitBook } from './limit-book.ts'
import { limitOf, limitSchema } from './limits.ts'
import { idOf, openClock, openTestLedger, reserve, settle, tenant } from './testing.ts'

let postgres: TestPostgres

beforeAll(async () => {
  postgres = await startTestPostgres()
}, 60_000)
afterAll(() => postgres[Symbol.asyncDispose]())

test('limits: one that is put below what is spent says so each time, and one whose minute is over does not', async () => {
  const { ledger, pool } = await openTestLedger(postgres, 'overspent', [
    { id: 'ever', measure: 'cost', amount: 100 },
    { id: 'minute', measure: 'cost', amount: 100, window: 'minute' },
  ])
  const clock = await openClock(pool, Date.UTC(2026, 10, 21, 12))
  await ledger.run(settle(idOf(await ledger.run(reserve('a', 90))), 90))
  const book = openLimitBook({ database: pool })
  const identity = { tenant, roles: new Set(['admin'] as const), keyId: '', manyTenants: false }
  const warningOf = async (id: string, amount: number): Promise<unknown> => {
    const value = { measure: 'cost', window: id, action: 'block', amount }
    const { body } = await book.answer(identity, 'PUT', id, new URLSearchParams(), () => ({ kind: 'json', value }))
    return (body as { readonly warning?: unknown }).warning
  }
  for (const id of ['ever', 'minute', 'ever', 'minute']) expect(await warningOf(id, 50)).toContain('already')
  await clock.move(65_000)
  expect(await warningOf('minute', 40)).toBeUndefined()
  expect(await warningOf('ever', 40)).toContain('already')
})

test('limits: a time zone that Intl knows and Postgres does not is refused, also in the file, and then nothing of it is kept', async () => {
  const { pool } = await openTestLedger(postgres, 'zones', [])
  const book = openLimitBook({ database: pool })
  const limit = (id: string, timeZone: string) =>
    limitOf(
      tenant,
      id,
      limitSchema.parse({ measure: 'cost', amount: 100, window: 'day', timeZone, action: 'block' }),
      'config',
    )
  const applied = await book.applyConfig([limit('good', 'US/Pacific'), limit('bad', 'US/Pacific-New')])
  expect(applied).toEqual({
    kind: 'refused',
    reasons: [expect.stringMatching(/bad of acme: timeZone: US\/Pacific-New/)],
  })
  expect((await pool.query('select id from quota_limits')).rows).toEqual([])
})
