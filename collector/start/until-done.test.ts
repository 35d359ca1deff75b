import { ClickHouseError } from '@tallylight/storage/clickhouse/client.ts'
import { pino } from 'pino'
import { expect, test } from 'vitest'
import { openLoops } from './start.ts'
import { isAway, untilDone } from './until-done.ts'

const withCode = (code: string, message = 'of Postgres'): Error => Object.assign(new Error(message), { code })
const ofClickHouse = (code: string): Error => new ClickHouseError({ message: 'of ClickHouse', code, type: '' })

test('until done: an engine is away when it cannot be reached, starts, stops or lacks room; all else it has answered', () => {
  for (const away of [
    withCode('ECONNREFUSED'),
    withCode('57P03', 'the database system is starting up'),
    withCode('53300', 'sorry, too many clients already'),
    withCode('55P03', 'canceling statement due to lock timeout'),
    new Error('Connection terminated unexpectedly'),
    new Error('cannot migrate Postgres: 0001_keys.sql failed, and changed nothing', { cause: withCode('57P01') }),
    ofClickHouse('241'),
  ])
    expect(isAway(away), away.message).toBe(true)
  for (const answered of [
    new Error('cannot use this Postgres database: migration 0001_keys.sql has checksum a, and the database got b'),
    new Error('cannot migrate Postgres: 0001_keys.sql failed, and changed nothing', { cause: withCode('42P07') }),
    withCode('28P01', 'password authentication failed'),
    ofClickHouse('47'),
    'a text',
  ])
    expect(isAway(answered), String(answered)).toBe(false)
})

test('until done: where the start waits, an answer ends it; one that is away is waited for, until the start is broken off', async () => {
  const said: string[] = []
  const log = pino({}, { write: (line: string) => void said.push((JSON.parse(line) as { msg: string }).msg) })
  const loops = openLoops(1_000)
  const answered = (): Promise<void> => Promise.reject(new Error('of a newer version'))
  await expect(untilDone({ log, loops }, { name: 'Postgres', isAwaited: true }, answered)).rejects.toThrow('newer')
  let tries = 0
  const away = async (): Promise<void> => {
    if (++tries === 2) loops.breakOff(new Error('told to stop'))
    throw withCode('ECONNREFUSED')
  }
  await untilDone({ log, loops }, { name: 'Postgres', isAwaited: true }, away)
  expect([tries, said]).toEqual([2, ['Postgres cannot be used yet; the collector starts when it can']])
  expect(() => loops.signal.throwIfAborted()).toThrow('told to stop')
})
