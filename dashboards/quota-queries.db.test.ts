import { withConnection } from '@tallylight/storage/postgres/connection.ts'
import { migratePostgres } from '@tallylight/storage/postgres/migrate.ts'
import { startTestPostgres, type TestPostgres } from '@tallylight/storage/postgres/testing.ts'
import type pg from 'pg'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { burnSql, everyTenant, limitsSql, slowerPaceSql, usedSql } from './quota-queries.ts'

let postgres: TestPostgres
let pool: pg.Pool
beforeAll(async () => {
  postgres = await startTestPostgres()
  pool = await postgres.open('boards')
  await withConnection(pool, migratePostgres)
  await pool.query(`insert into tenants (id) values ('acme')`)
  await rule('each', 'cost')
  await rule('steady', 'cost')
  await rule('day', 'tokens')
  await rule('gone', 'tokens')
  await pool.query(`update quota_limit_rules set removed_at = now() where id = 'gone'`)
  // A month of 720 hours that is to last: a dollar an hour.
  await account('steady', '', 720_000_000_000, 0)
  await pool.query(`insert into quota_spent_hours (hour, account, spent)
    select date_trunc('hour', now()) - n * interval '1 hour', id,
      case n when 0 then extract(epoch from now() - date_trunc('hour', now())) / 3600 else 1 end * 1500000000
    from quota_accounts cross join generate_series(0, 80) n where limit_id = 'steady'`)
  // More than a board shows, all of them too fast, but for the last.
  await pool.query(`insert into quota_accounts (tenant, limit_id, subject, window_start, window_end, granted, free)
    select 'acme', 'each', 'user ' || n, now() - interval '400 hours', now() + interval '320 hours', 720000000000, 720000000000
    from generate_series(0, 509) n`)
  await pool.query(`insert into quota_spent_hours (hour, account, spent)
    select date_trunc('hour', now()) - n * interval '1 hour', id, case subject when 'user 509' then 1 else 20000000000 end
    from quota_accounts cross join generate_series(0, 71) n where limit_id = 'each'`)
  await account('day', 'nearly', 1000, 950)
  await account('day', 'well', 1000, 500)
  await account('day', 'empty', 1000, 1000)
  await account('gone', 'empty', 1000, 2000)
})
afterAll(() => postgres[Symbol.asyncDispose]())

async function rule(id: string, measure: string): Promise<void> {
  await pool.query(
    `insert into quota_limit_rules (tenant, id, measure, amount, span, action, overage) values ('acme', $1, $2, 1000, 'month', 'block', 'refuse')`,
    [id, measure],
  )
}

async function account(limit: string, subject: string, granted: number, spent: number): Promise<void> {
  await pool.query(
    `insert into quota_accounts (tenant, limit_id, subject, window_start, window_end, granted, spent, free, debt)
     values ('acme', $1, $2, now() - interval '400 hours', now() + interval '320 hours', $3, $4, greatest($3::bigint - $4::bigint, 0), greatest($4::bigint - $3::bigint, 0))`,
    [limit, subject, granted, spent],
  )
}

async function ask<Row>(sql: string): Promise<readonly Row[]> {
  return (await pool.query(sql)).rows as Row[]
}

test('alerts on limits: told are the accounts beyond the bound, and none of a limit that was removed', async () => {
  const used = (above: number, most: string) =>
    ask<{ readonly subject: string; readonly value: number }>(usedSql(above, most))
  expect(await used(0.9, '0.999')).toEqual([{ tenant: 'acme', limit: 'day', subject: 'nearly', value: 0.95 }])
  expect(await used(0.999, `'infinity'`)).toEqual([{ tenant: 'acme', limit: 'day', subject: 'empty', value: 1 }])
})

test('boards on limits: one that was removed is on none', async () => {
  const limits = await ask<{ readonly limit: string }>(limitsSql(everyTenant))
  expect(limits.map(({ limit }) => limit)).toContain('day')
  expect(limits.map(({ limit }) => limit)).not.toContain('gone')
})

test('paces: whoever spends steadily has the same one, however young the hour is', async () => {
  const rows = await ask<Record<string, unknown>>(burnSql(`tenant = 'acme' AND limit_id = 'steady'`))
  expect(rows).toHaveLength(1)
  expect(rows[0]?.['6 h']).toBeCloseTo(1.5, 2)
  expect(rows[0]?.['3 d']).toBeCloseTo(1.5, 2)
})

test('alerts on paces: everybody who is too fast is told, also where a board shows only the fastest', async () => {
  const fast = await ask<{ readonly limit: string; readonly subject: string }>(slowerPaceSql('6 h', '3 d', 6))
  expect(fast).toHaveLength(509)
  expect(fast.map(({ subject }) => subject)).not.toContain('user 509')
})
