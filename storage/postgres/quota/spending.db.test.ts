import type pg from 'pg'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { withConnection } from '../connection.ts'
import { migratePostgres } from '../migrate.ts'
import { startTestPostgres, type TestPostgres } from '../testing.ts'

let postgres: TestPostgres
let pool: pg.Pool
beforeAll(async () => {
  postgres = await startTestPostgres()
  pool = await postgres.open('spending')
  await withConnection(pool, migratePostgres)
  await pool.query(`insert into tenants (id) values ('a')`)
  await pool.query(
    `insert into quota_limit_rules (tenant, id, measure, amount, span, action, overage) values ('a', 'm', 'cost', 1000, 'month', 'block', 'refuse')`,
  )
  await pool.query(
    `insert into quota_accounts (tenant, limit_id, subject, window_start, granted, free) values ('a', 'm', '', now(), 1000, 1000)`,
  )
})
afterAll(() => postgres[Symbol.asyncDispose]())

/** Spends without the account: only what the bookings say is looked at. */
async function book(kind: string, spent: number, hoursAgo: number): Promise<void> {
  await pool.query(
    `insert into quota_bookings (at, tenant, kind, account_ids, granted, held, spent)
     select now() - $3 * interval '1 hour', 'a', $1, array[max(id)], '{0}', '{0}', array[$2::bigint] from quota_accounts`,
    [kind, spent, hoursAgo],
  )
}

async function spending(): Promise<readonly number[]> {
  const { rows } = await pool.query<{ spent: string }>(
    'select sum(spent) as spent from quota_spending group by hour order by hour desc',
  )
  return rows.map(({ spent }) => Number(spent))
}

test('spending: hours are the sum of their bookings, before a check has read them, after it, and in between', async () => {
  await book('record', 5, 0)
  await book('settle', 7, 2)
  await book('slide', -100, 2)
  expect(await spending()).toEqual([5, 7])
  await pool.query('select quota_check()')
  expect(await spending()).toEqual([5, 7])
  await book('record', 1, 0)
  await book('record', -2, 2)
  expect(await spending()).toEqual([6, 5])
  await pool.query('select quota_check()')
  await pool.query('select quota_check()')
  expect(await spending()).toEqual([6, 5])
})

test('spending: a booking that is not committed when the check reads is counted once it is', async () => {
  await withConnection(pool, async (client) => {
    await client.query('begin')
    await client.query(
      `insert into quota_bookings (at, tenant, kind, account_ids, granted, held, spent)
       select now() - interval '5 hours', 'a', 'record', array[max(id)], '{0}', '{0}', '{3}' from quota_accounts`,
    )
    await book('record', 4, 5)
    await pool.query('select quota_check()')
    expect(await spending()).toEqual([6, 5, 4])
    await client.query('commit')
  })
  expect(await spending()).toEqual([6, 5, 7])
  await pool.query('select quota_check()')
  expect(await spending()).toEqual([6, 5, 7])
})
