// What is told of thresholds: when a limit is changed under what is spent, in which order, and to a receiver that hangs.
import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { startTestPostgres, type TestPostgres } from '@tallylight/storage/postgres/testing.ts'
import type pg from 'pg'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { Ledger } from './ledger.ts'
import { type LimitBook, openLimitBook } from './limit-book.ts'
import type { RecordCall } from './step.ts'
import { nobody, openTestLedger, tenant } from './testing.ts'
import { runWebhook } from './webhook.ts'

let postgres: TestPostgres

beforeAll(async () => {
  postgres = await startTestPostgres()
}, 60_000)
afterAll(() => postgres[Symbol.asyncDispose]())

async function charge(ledger: Ledger, cost: bigint): Promise<void> {
  const amounts = { cost, tokens: undefined }
  const event = { kind: 'charge', tenant, bodyHash: '', subject: nobody, amounts, endedAt: undefined } as const
  expect(await ledger.run({ ...event, eventKey: crypto.randomUUID() })).toMatchObject({ kind: 'done' })
}

async function change(book: LimitBook, amount: number, window = 'ever'): Promise<void> {
  const identity = { tenant, roles: new Set(['admin'] as const), keyId: '', manyTenants: false }
  const json = { kind: 'json', value: { measure: 'cost', window, action: 'block', amount } } as const
  expect(await book.answer(identity, 'PUT', 'budget', new URLSearchParams(), () => json)).toMatchObject({ status: 200 })
}

/** What was told since it was asked last, as percent, spent and granted. */
async function told(pool: pg.Pool): Promise<readonly unknown[]> {
  const { rows } = await pool.query(
    `with told as (delete from quota_outbox returning body)
     select concat_ws(' ', body ->> 'percent', body ->> 'spent', body ->> 'granted') as text from told
     order by (body ->> 'percent')::int`,
  )
  return rows.map(({ text }: { readonly text: string }) => text)
}

test('quota: a threshold that a raised limit takes back is told anew when it is passed; one that a lowered limit passes is told then', async () => {
  const { ledger, pool } = await openTestLedger(postgres, 'moved', [{ id: 'budget', measure: 'cost', amount: 100 }])
  const book = openLimitBook({ database: pool })
  await charge(ledger, 85n)
  expect(await told(pool)).toEqual(['50 85 100', '80 85 100'])
  await change(book, 1000)
  await charge(ledger, 1n)
  expect(await told(pool)).toEqual([])
  await charge(ledger, 499n)
  expect(await told(pool)).toEqual(['50 585 1000'])
  await change(book, 600)
  expect(await told(pool)).toEqual(['80 585 600'])
  await change(book, 500)
  expect(await told(pool)).toEqual(['100 585 500'])
  await change(book, 0)
  await change(book, 500)
  expect(await told(pool)).toEqual([])
  expect((await pool.query("select count(*)::int from quota_audit where action = 'quota.threshold'")).rows).toEqual([
    { count: 5 },
  ])
  expect((await pool.query('select * from quota_drift')).rows).toEqual([])
})

test('quota: of a window that slides, what may have left it passes nothing', async () => {
  const rules = [{ id: 'budget', measure: 'cost', amount: 1000, window: 'minute' }]
  const { ledger, pool } = await openTestLedger(postgres, 'sliding', rules)
  const book = openLimitBook({ database: pool })
  await charge(ledger, 90n)
  await change(book, 100, 'minute')
  expect(await told(pool)).toEqual([])
  await charge(ledger, 1n)
  expect(await told(pool)).toEqual(['50 91 100', '80 91 100'])
})

test('quota: calls whose records come late, of many minutes, pass no threshold of one', async () => {
  const rules = [{ id: 'budget', measure: 'cost', amount: 100, window: 'minute' }]
  const { ledger, pool } = await openTestLedger(postgres, 'late', rules)
  const ofMinutesAgo = (minutes: number): RecordCall => ({
    kind: 'record',
    tenant,
    eventKey: `${minutes}`,
    generation: 1,
    callId: undefined,
    subject: nobody,
    amounts: { cost: 40n, tokens: undefined },
    isLowerBound: false,
    isMetered: true,
    endedAt: new Date(Date.now() - minutes * 60_000),
  })
  const source = { journal: 'j', lane: 'live', segment: 1, createdUnixMs: 1, name: 'j-1' }
  expect(await ledger.record(source, [10, 20, 30, 40].map(ofMinutesAgo))).toMatchObject({ booked: 4 })
  expect(await told(pool)).toEqual([])
  expect((await pool.query('select * from quota_drift')).rows).toEqual([])
})

type Receiver = AsyncDisposable & { readonly url: string }

/** Answers each event with a status; without one it hangs. */
async function receive(answer: (percent: number) => number | undefined | Promise<number>): Promise<Receiver> {
  const server = createServer(async (request, response) => {
    let body = ''
    for await (const chunk of request) body += String(chunk)
    const status = await answer((JSON.parse(body) as { readonly percent: number }).percent)
    if (status !== undefined) response.writeHead(status).end()
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/`,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections()
      server.close()
      await once(server, 'close')
    },
  }
}

function webhookTo(url: string, database: pg.Pool): Parameters<typeof runWebhook>[0] {
  const log = { warn: () => undefined }
  return { database, url, secret: 'sixteen or more …', now: Date.now, log, onDelivery: () => undefined }
}

const thresholds = [10, 20, 30, 40, 50, 60, 70, 80, 90, 100]

test('webhook: thresholds that one call has passed are told as they were passed, and a receiver that hangs holds up no end', async () => {
  const rules = [{ id: 'budget', measure: 'cost', amount: 100, thresholds }]
  const { ledger, pool } = await openTestLedger(postgres, 'hangs', rules)
  await charge(ledger, 150n)
  const percents: number[] = []
  const hangs = Promise.withResolvers<void>()
  await using receiver = await receive((percent) => {
    percents.push(percent)
    if (percents.length < thresholds.length) return 204
    hangs.resolve()
    return undefined
  })
  const stop = new AbortController()
  const running = runWebhook(webhookTo(receiver.url, pool), stop.signal)
  await hangs.promise
  expect(percents).toEqual(thresholds)
  const stoppedMs = performance.now()
  stop.abort()
  await running
  // A receiver is waited for ten seconds.
  expect(performance.now() - stoppedMs).toBeLessThan(5_000)
  const { rows } = await pool.query('select delivered_at is not null as delivered from quota_outbox order by 1')
  expect(rows.map(({ delivered }: { readonly delivered: boolean }) => delivered)).toEqual([
    false,
    ...Array(9).fill(true),
  ])
})

test('webhook: of two collectors one tells at a time, and no transaction is open while its receiver is waited for', async () => {
  const rules = [{ id: 'budget', measure: 'cost', amount: 100, thresholds }]
  const { ledger, pool } = await openTestLedger(postgres, 'waits', rules)
  await charge(ledger, 150n)
  const percents: number[] = []
  const open: unknown[] = []
  const stop = new AbortController()
  await using receiver = await receive(async (percent) => {
    percents.push(percent)
    const { rows } = await pool.query(`select query from pg_stat_activity where state like 'idle in transaction%'`)
    open.push(...rows)
    if (percents.length === thresholds.length) stop.abort()
    return 204
  })
  await Promise.all([1, 2].map(() => runWebhook(webhookTo(receiver.url, pool), stop.signal)))
  expect(percents).toEqual(thresholds)
  expect(open).toEqual([])
})

test('webhook: an event that is never taken holds up the others no longer than twenty times', async () => {
  const rules = [{ id: 'budget', measure: 'cost', amount: 100, thresholds }]
  const { ledger, pool } = await openTestLedger(postgres, 'refuses', rules)
  await charge(ledger, 150n)
  await pool.query("update quota_outbox set attempts = 19 where body ->> 'percent' = '10'")
  // Of an absence of the receiver.
  await pool.query("update quota_outbox set attempts = 20 where body ->> 'percent' = '20'")
  const percents: number[] = []
  const stop = new AbortController()
  await using receiver = await receive((percent) => {
    percents.push(percent)
    if (percents.length > thresholds.length) stop.abort()
    return percent === 10 ? 400 : 204
  })
  await runWebhook(webhookTo(receiver.url, pool), stop.signal)
  const [, , ...others] = thresholds
  expect(percents).toEqual([10, ...others, 10, 20])
})
