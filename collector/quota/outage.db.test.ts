// What the log says of a ledger that is away: each reason once, and the end.
import { startTestPostgres, type TestPostgres } from '@tallylight/storage/postgres/testing.ts'
import type pg from 'pg'
import { afterAll, beforeAll, expect, test, vi } from 'vitest'
import { openLedger } from './ledger.ts'
import { openTestLedger, reserve } from './testing.ts'

let postgres: TestPostgres
beforeAll(async () => {
  postgres = await startTestPostgres()
})
afterAll(() => postgres[Symbol.asyncDispose]())

test('outage: each reason is logged once, however many steps it refuses, and its end with how many those were', async () => {
  const { pool } = await openTestLedger(postgres, 'outage', [{ id: 'month', measure: 'cost', amount: 100 }])
  let away: string | undefined
  const connect = (): Promise<pg.PoolClient> => {
    if (away === undefined) return pool.connect()
    return Promise.reject(Object.assign(new Error(`refused by ${Math.random()}`), { code: away }))
  }
  const database = Object.assign(Object.create(pool), { connect }) as pg.Pool
  const said: string[] = []
  const log = {
    warn: (fields: object, message: string): void => {
      const { unavailable } = fields as { readonly unavailable?: number }
      said.push(unavailable === undefined ? message : `${message}: ${unavailable}`)
    },
  }
  const ledger = openLedger({ database, log })
  let calls = 0
  const kinds = async (steps: number): Promise<ReadonlySet<string>> => {
    const of = new Set<string>()
    for (let step = 0; step < steps; step++) of.add((await ledger.run(reserve(`call ${calls++}`, 1))).kind)
    return of
  }
  const refused = 'a batch of quota steps could not be booked; said once for each reason, until they are booked again'
  for (let outage = 0; outage < 2; outage++) {
    said.length = 0
    away = '53300'
    expect(await kinds(5)).toEqual(new Set(['unavailable']))
    away = '3D000'
    expect(await kinds(3)).toEqual(new Set(['unavailable']))
    away = '53300'
    expect(await kinds(2)).toEqual(new Set(['unavailable']))
    expect(said).toEqual([refused, refused])
    away = undefined
    expect(await kinds(2)).toEqual(new Set(['done']))
    expect(said).toEqual([refused, refused, 'quota steps are booked again: 10'])
  }
})

test('outage: that holds cannot be ended meanwhile is logged once', async () => {
  const { pool } = await openTestLedger(postgres, 'sweeps', [])
  let tries = 0
  const connect = (): Promise<pg.PoolClient> => {
    tries++
    return Promise.reject(Object.assign(new Error('refused'), { code: '53300' }))
  }
  const said: string[] = []
  const log = { warn: (_fields: object, message: string): void => void said.push(message) }
  const ledger = openLedger({ database: Object.assign(Object.create(pool), { connect }) as pg.Pool, log })
  const stop = new AbortController()
  const watching = ledger.watch(stop.signal, () => undefined)
  await vi.waitFor(() => expect(tries).toBeGreaterThanOrEqual(3), { timeout: 20_000 })
  stop.abort()
  await watching
  expect(said).toEqual(['holds whose time is over cannot be looked for yet'])
})
