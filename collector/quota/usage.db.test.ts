// What readers of usage are shown.
import { startTestPostgres, type TestPostgres } from '@tallylight/storage/postgres/testing.ts'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { openLimitBook } from './limit-book.ts'
import { limitOf, limitSchema } from './limits.ts'
import { nobody, openTestLedger, reserve, tenant } from './testing.ts'

let postgres: TestPostgres

beforeAll(async () => {
  postgres = await startTestPostgres()
}, 60_000)
afterAll(() => postgres[Symbol.asyncDispose]())

type Usage = {
  readonly usage: readonly { readonly limitId: string; readonly subject: string }[]
  readonly isCut: boolean
}

test('usage: of a user are the accounts in which calls of that user alone count, whichever limits they are of', async () => {
  const { ledger, pool } = await openTestLedger(postgres, 'of_user', [])
  const book = openLimitBook({ database: pool })
  const limit = (id: string, more: object) =>
    limitOf(
      tenant,
      id,
      limitSchema.parse({ measure: 'cost', amount: 100, window: 'day', action: 'block', ...more }),
      'config',
    )
  await book.applyConfig([
    limit('all', {}),
    limit('each', { each: 'user' }),
    limit('ada', { subject: { user: 'ada' } }),
    limit('ada-models', { subject: { user: 'ada' }, each: 'model' }),
    limit('models', { each: 'model' }),
  ])
  const long = 'long '.repeat(100) + 'é'.repeat(500)
  // A model may be called as a user is.
  for (const [user, model] of [
    ['ada', 'm'],
    ['bob', 'ada'],
    [long, 'm'],
  ] as const)
    await ledger.run(reserve(`of ${user}`, 1, { subject: { ...nobody, user, model } }))
  const identity = { tenant, roles: new Set(['quota'] as const), keyId: '', manyTenants: false }
  const asked = async (query: Readonly<Record<string, string>>): Promise<readonly string[]> => {
    const { usage } = (await book.usage(identity, new URLSearchParams(query))).body as Usage
    return usage.map(({ limitId, subject }) => `${limitId} ${subject}`.trim().slice(0, 16))
  }
  expect(await asked({ user: 'ada' })).toEqual(['ada', 'ada-models m', 'each ada'])
  expect(await asked({ user: 'ada', limit: 'each' })).toEqual(['each ada'])
  expect(await asked({ user: 'bob' })).toEqual(['each bob'])
  expect(await asked({ user: long })).toEqual(['each long long l'])
  expect(await asked({ limit: 'models', subject: 'ada' })).toEqual(['models ada'])
})

test('usage: of more accounts than one answer has, it says that there are more', async () => {
  const { pool } = await openTestLedger(postgres, 'many', [{ id: 'each', measure: 'cost', amount: 100, each: 'user' }])
  const book = openLimitBook({ database: pool })
  const identity = { tenant, roles: new Set(['quota'] as const), keyId: '', manyTenants: false }
  const make = (from: number, until: number) =>
    pool.query(
      `insert into quota_accounts (tenant, limit_id, subject, window_start, granted, free)
       select $1, 'each', 'u' || n, '-infinity', 100, 100 from generate_series($2::int, $3::int) n`,
      [tenant, from, until],
    )
  const usage = async (): Promise<Usage> => (await book.usage(identity, new URLSearchParams())).body as Usage
  await make(1, 1000)
  expect(await usage()).toMatchObject({ usage: { length: 1000 }, isCut: false })
  await make(1001, 1001)
  expect(await usage()).toMatchObject({ usage: { length: 1000 }, isCut: true })
})
