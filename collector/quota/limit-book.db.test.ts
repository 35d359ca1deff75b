// Limits as they are put and changed: what is said of them, and what no Postgres could count.
import { startTestPostgres, type TestPostgres } from '@tallylight/storage/postgres/testing.ts'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { openLimitBook } from './limit-book.ts'
import { limitOf, limitSchema } from './limits.ts'
import { balanceOf, idOf, nobody, openClock, openTestLedger, reserve, settle, tenant } from './testing.ts'

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

test('limits: a call waits for a change of few accounts of its limit, not of all; a change that was cut short is finished, once', async () => {
  const { ledger, pool } = await openTestLedger(postgres, 'stretches', [
    { id: 'each', measure: 'cost', amount: 1_000, each: 'user' },
  ])
  const of = (callId: string, user: string, cost: number) =>
    ledger.run(reserve(callId, cost, { subject: { ...nobody, user } }))
  await of('first', 'first', 1)
  await pool.query(
    `with made as (
       insert into quota_accounts (tenant, limit_id, subject, window_start, granted, free)
       select $1, 'each', 'u' || n, '-infinity', 1000, 1000 from generate_series(1, 6000) n returning id
     ) insert into quota_bookings (at, tenant, kind, account_ids, granted, held, spent)
     select now(), $1, 'grant', array[id], '{1000}', '{0}', '{0}' from made`,
    [tenant],
  )
  await ledger.run(settle(idOf(await of('last', 'last', 90)), 90))
  const identity = { tenant, roles: new Set(['admin'] as const), keyId: '', manyTenants: false }
  const value = { measure: 'cost', window: 'ever', action: 'block', each: 'user', amount: 100 }
  const waiting = `from pg_stat_activity
    where application_name = current_setting('application_name') and wait_event_type = 'Lock'`
  const holder = await pool.connect()
  await holder.query("begin; select from quota_accounts where subject = 'last' for update")
  const changing = openLimitBook({ database: pool }).answer(identity, 'PUT', 'each', new URLSearchParams(), () => ({
    kind: 'json',
    value,
  }))
  const cut = expect(changing).rejects.toThrow()
  await expect
    .poll(async () => (await pool.query(`select count(*)::int ${waiting}`)).rows, { timeout: 10_000 })
    .toEqual([{ count: 1 }])
  expect(await of('second', 'first', 2)).toMatchObject({ kind: 'done', body: { remaining: [{ amount: 97 }] } })
  await pool.query(`select pg_terminate_backend(pid) ${waiting}`)
  await cut
  await holder.query('rollback')
  holder.release()
  expect(await balanceOf(pool, 'each', 'last')).toMatchObject({ granted: 1_000 })

  const told = "select (body ->> 'percent')::int as percent from quota_outbox order by 1"
  expect((await pool.query(told)).rows).toEqual([])
  for (const book of [openLimitBook({ database: pool }), openLimitBook({ database: pool })]) {
    await book.finishChanges(AbortSignal.timeout(30_000))
    expect(await balanceOf(pool, 'each', 'last')).toEqual({ granted: 100, held: 0, spent: 90, free: 10, debt: 0 })
    expect((await pool.query(told)).rows).toEqual([{ percent: 50 }, { percent: 80 }])
  }
  expect((await pool.query('select count(*)::int from quota_balances where granted <> 100')).rows).toEqual([
    { count: 0 },
  ])
  expect((await pool.query('select * from quota_drift')).rows).toEqual([])
})
