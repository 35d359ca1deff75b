// Two collectors with the same configuration on one Postgres.
import { startTestPostgres, type TestPostgres } from '@tallylight/storage/postgres/testing.ts'
import { pino } from 'pino'
import { afterAll, beforeAll, expect, test, vi } from 'vitest'
import { openTurns, type Turns } from './turns.ts'

let postgres: TestPostgres
beforeAll(async () => {
  postgres = await startTestPostgres()
})
afterAll(() => postgres[Symbol.asyncDispose]())

function until(is: () => void | Promise<void>): Promise<void> {
  return vi.waitFor(is, { timeout: 20_000, interval: 10 })
}

type Collector = {
  readonly turns: Turns
  readonly events: string[]
  readonly want: (name: string) => () => void
  readonly stop: () => Promise<void>
}

async function startCollector(schema: string, held: Set<string>): Promise<Collector> {
  const database = await postgres.open(schema)
  const turns = openTurns({ database, pollMs: 20, idleMsMax: 30_000, log: pino({ level: 'silent' }) })
  const stopping = new AbortController()
  const events: string[] = []
  const running = turns.run(stopping.signal)
  return {
    turns,
    events,
    want: (name) =>
      turns.want(
        name,
        () => {
          events.push(`took ${name}`)
          expect(held.has(name), `${name} is held twice`).toBe(false)
          held.add(name)
        },
        () => {
          events.push(`lost ${name}`)
          held.delete(name)
        },
      ),
    stop: async () => {
      held.clear()
      stopping.abort()
      await running
    },
  }
}

test('turns: of two collectors one holds a name, and the other takes over when it ends or no longer wants it', async () => {
  const held = new Set<string>()
  const one = await startCollector('turns_one', held)
  const giveUp = one.want('a')
  one.want('b')
  await until(() => expect(one.events).toEqual(['took a', 'took b']))
  const other = await startCollector('turns_other', held)
  other.want('a')
  other.want('b')
  other.want('c')
  await until(() => expect(other.events).toEqual(['took c']))
  held.delete('a')
  giveUp()
  await until(() => expect(other.events).toEqual(['took c', 'took a']))
  await one.stop()
  await until(() => expect(other.events).toEqual(['took c', 'took a', 'took b']))
  await other.stop()
})

test('turns: a name that is given up and wanted anew at once, as by a probe whose interval was changed, is taken anew', async () => {
  const held = new Set<string>()
  const one = await startCollector('turns_anew', held)
  const giveUp = one.want('changed')
  await until(() => expect(one.events).toEqual(['took changed']))
  held.delete('changed')
  giveUp()
  one.want('changed')
  await until(() => expect(one.events).toEqual(['took changed', 'took changed']))
  await one.stop()
})

test('turns: who loses the connection goes on, and stops when another has taken its place', async () => {
  const held = new Set<string>()
  const one = await startCollector('turns_lost', held)
  one.want('lost a')
  await until(() => expect(one.events).toEqual(['took lost a']))
  const database = await postgres.open('turns_admin')
  // pg_terminate_backend answers before the connection and its locks are gone.
  const holder = async (): Promise<unknown> => {
    const { rows } = await database.query(`select pid from pg_locks where locktype = 'advisory' and granted`)
    expect(rows).toHaveLength(1)
    return rows[0].pid
  }
  const first = await holder()
  await database.query('select pg_terminate_backend($1)', [first])
  // Asked for again on a new connection.
  await until(async () => expect(await holder()).not.toBe(first))
  expect(one.events).toEqual(['took lost a'])
  // The other asks first: on a connection that waits for the lock.
  const waiting = await database.connect()
  const taken = waiting.query(`select pg_advisory_lock(hashtextextended('lost a', 0))`)
  await until(async () => {
    const { rows } = await database.query(`select 1 from pg_locks where locktype = 'advisory' and not granted`)
    expect(rows).toHaveLength(1)
  })
  await database.query('select pg_terminate_backend($1)', [await holder()])
  await taken
  await until(() => expect(one.events).toEqual(['took lost a', 'lost lost a']))
  waiting.release()
  await one.stop()
})
