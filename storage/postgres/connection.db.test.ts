import { afterAll, beforeAll, expect, test } from 'vitest'
import { openPool } from './connection.ts'
import { startTestPostgres, type TestPostgres } from './testing.ts'

let postgres: TestPostgres
beforeAll(async () => {
  postgres = await startTestPostgres()
})
afterAll(() => postgres[Symbol.asyncDispose]())

test('connection: one that is lost while idle is told with its cause alone, and the pool goes on', async () => {
  const lost = Promise.withResolvers<Error>()
  const pool = openPool({ connectionString: postgres.engine.url, max: 1 }, lost.resolve)
  const { rows } = await pool.query<{ pid: number }>('select pg_backend_pid() as pid')
  const other = openPool({ connectionString: postgres.engine.url, max: 1 }, () => undefined)
  await other.query('select pg_terminate_backend($1)', [rows[0]?.pid])
  const error = await lost.promise
  expect(error.message).toMatch(/terminat/)
  expect(error).not.toHaveProperty('client')
  expect((await pool.query('select 1 as one')).rows).toEqual([{ one: 1 }])
  await Promise.all([pool.end(), other.end()])
})
