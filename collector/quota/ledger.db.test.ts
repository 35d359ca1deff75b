// The ledger on a real Postgres: races, repeats, expiry.
import { inTransaction } from '@tallylight/storage/postgres/connection.ts'
import { prune } from '@tallylight/storage/postgres/quota/reconcile.ts'
import { putRule, selectRule } from '@tallylight/storage/postgres/quota/statements.ts'
import { startTestPostgres, type TestPostgres } from '@tallylight/storage/postgres/testing.ts'
import type pg from 'pg'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { limits } from '../limits.ts'
import { parseTenantId, type TenantId } from '../receive/request.ts'
import { type Ledger, openLedger } from './ledger.ts'
import type { Reserve, Step, StepOutcome } from './step.ts'
import { balanceOf, idOf, nobody, openClock, openTestLedger, type Rule, reserve, settle, tenant } from './testing.ts'

let postgres: TestPostgres

beforeAll(async () => {
  postgres = await startTestPostgres()
}, 60_000)
afterAll(() => postgres[Symbol.asyncDispose]())

const open = (schema: string, rules: readonly Rule[]) => openTestLedger(postgres, schema, rules)

async function expectNoDrift(pool: pg.Pool): Promise<void> {
  expect((await pool.query('select * from quota_drift')).rows).toEqual([])
}

test('quota: of 20 parallel reservations of 75 against 500, exactly 6 are granted', async () => {
  const { ledger, pool } = await open('parallel', [{ id: 'budget', measure: 'cost', amount: 500 }])
  const outcomes = await Promise.all(Array.from({ length: 20 }, (_, at) => ledger.run(reserve(`call ${at}`, 75))))
  expect(Map.groupBy(outcomes, (outcome) => outcome.kind).get('done')).toHaveLength(6)
  expect(Map.groupBy(outcomes, (outcome) => outcome.kind).get('denied')).toHaveLength(14)
  expect(await balanceOf(pool, 'budget')).toEqual({ granted: 500, held: 450, spent: 0, free: 50, debt: 0 })
  await expectNoDrift(pool)
})

test('quota: of 1,000 parallel reservations over four collectors with room for 10, exactly 10 are granted', async () => {
  const { ledger, pool } = await open('collectors', [{ id: 'budget', measure: 'requests', amount: 10 }])
  const ledgers = [ledger, ...[1, 2, 3].map(() => openLedger({ database: pool, log: { warn: () => undefined } }))]
  const outcomes = await Promise.all(
    Array.from({ length: 1000 }, (_, at) => (ledgers[at % 4] as Ledger).run(reserve(`call ${at}`, 1))),
  )
  expect(outcomes.filter((outcome) => outcome.kind === 'done')).toHaveLength(10)
  expect(outcomes.filter((outcome) => outcome.kind === 'denied')).toHaveLength(990)
  await expectNoDrift(pool)
})

test('quota: two collectors that wait for the same accounts find all of them, and no batch is run again', async () => {
  const rules = [
    { id: 'budget', measure: 'cost', amount: 1e9 },
    { id: 'per-user', measure: 'tokens', amount: 1e9, each: 'user' },
  ]
  const { ledger, pool } = await open('waiting', rules)
  const ledgers = [ledger, openLedger({ database: pool, log: { warn: () => undefined } })]
  const pair = async (own: Ledger, callId: string, user: string): Promise<void> => {
    const reserved = await own.run(reserve(callId, 10, { subject: { ...nobody, user } }))
    expect(await own.run(settle(idOf(reserved), 7))).toMatchObject({ kind: 'done' })
  }
  for (let user = 0; user < 20; user++) await pair(ledger, `first ${user}`, `user ${user}`)
  // A connection whose transaction failed is not kept.
  let failed = 0
  pool.on('remove', () => failed++)
  const users = Array.from({ length: 20 }, (_, user) => `user ${user}`)
  const all = ledgers.flatMap((own, at) =>
    users.map(async (user) => {
      for (let round = 0; round < 10; round++) await pair(own, `${at} ${user} ${round}`, user)
    }),
  )
  await Promise.all(all)
  expect(failed).toBe(0)
  expect(await balanceOf(pool, 'budget')).toMatchObject({ held: 0, spent: 420 * 7 })
  await expectNoDrift(pool)
})

test('quota: a call that two collectors are asked for at once is granted by both, though there is room for one', async () => {
  const { ledger, pool } = await open('twice', [{ id: 'budget', measure: 'cost', amount: 100, each: 'user' }])
  const other = openLedger({ database: pool, log: { warn: () => undefined } })
  for (let round = 0; round < 40; round++) {
    const asked = reserve(`call ${round}`, 60, { subject: { ...nobody, user: `user ${round % 20}` } })
    const [first, second] = await Promise.all([ledger.run(asked), other.run(asked)])
    expect(idOf(second)).toBe(idOf(first))
    expect(await ledger.run(settle(idOf(first), 0))).toMatchObject({ kind: 'done' })
  }
  await expectNoDrift(pool)
})

test('quota: all limits of a call are held or none', async () => {
  const { ledger, pool } = await open('several', [
    { id: 'narrow', measure: 'cost', amount: 100 },
    { id: 'wide', measure: 'cost', amount: 1000 },
  ])
  expect(await ledger.run(reserve('a', 80))).toMatchObject({ kind: 'done' })
  expect(await ledger.run(reserve('b', 80))).toMatchObject({
    kind: 'denied',
    denial: { limitId: 'narrow', requested: 80n, limit: 100n, used: 0n, held: 80n, free: 20n },
  })
  expect(await balanceOf(pool, 'wide')).toMatchObject({ held: 80 })
})

test('quota: the same call id gets the same answer, and another body is a conflict', async () => {
  const { ledger, pool } = await open('repeats', [{ id: 'budget', measure: 'cost', amount: 100 }])
  const first = await ledger.run(reserve('a', 60))
  expect(await ledger.run(reserve('a', 60))).toEqual({ ...first, isRepeat: true })
  expect(await ledger.run(reserve('a', 61))).toMatchObject({
    kind: 'conflict',
    first: { id: idOf(first), state: 'held' },
  })
  expect(await balanceOf(pool, 'budget')).toMatchObject({ held: 60, free: 40 })
})

test('quota: a settlement above its hold is debt, and only once; a release after it names it', async () => {
  const { ledger, pool } = await open('settling', [{ id: 'budget', measure: 'cost', amount: 100 }])
  const id = idOf(await ledger.run(reserve('a', 60)))
  const settled = await ledger.run(settle(id, 150))
  expect(await balanceOf(pool, 'budget')).toEqual({ granted: 100, held: 0, spent: 150, free: 0, debt: 50 })
  expect(await ledger.run(settle(id, 150))).toEqual({ ...settled, isRepeat: true })
  expect(await ledger.run(settle(id, 10))).toMatchObject({ kind: 'conflict', first: { state: 'settled' } })
  expect(await ledger.run({ kind: 'release', tenant, id, bodyHash: '', amountsOf: undefined })).toMatchObject({
    kind: 'conflict',
    first: { state: 'settled' },
  })
  expect(await ledger.run(reserve('b', 1))).toMatchObject({ kind: 'denied' })
  await expectNoDrift(pool)
})

test('quota: a hold expires by the sweep, frees what it held, and a late settlement still books', async () => {
  const { ledger, pool } = await open('expiry', [
    { id: 'budget', measure: 'cost', amount: 100 },
    { id: 'at once', measure: 'concurrency', amount: 1 },
  ])
  const id = idOf(await ledger.run(reserve('a', 60, { ttlMs: 0 })))
  expect(await ledger.run(reserve('b', 10))).toMatchObject({ kind: 'denied', denial: { limitId: 'at once' } })
  expect(await ledger.sweep()).toBe(1)
  expect(await ledger.sweep()).toBe(0)
  expect(await balanceOf(pool, 'budget')).toMatchObject({ held: 0, free: 100 })
  expect(await ledger.run({ kind: 'extend', tenant, id, ttlMs: 1000 })).toMatchObject({ kind: 'conflict' })
  expect(await ledger.run(settle(id, 70))).toMatchObject({ kind: 'done' })
  expect(await balanceOf(pool, 'budget')).toMatchObject({ held: 0, spent: 70, free: 30 })
  expect(await ledger.run(reserve('b', 10))).toMatchObject({ kind: 'done' })
  await expectNoDrift(pool)
})

test('quota: a limit of each user has an account per user, and who names none shares one', async () => {
  const { ledger, pool } = await open('each', [{ id: 'per user', measure: 'cost', amount: 10, each: 'user' }])
  const of = (callId: string, user: string): Reserve => reserve(callId, 10, { subject: { ...nobody, user } })
  expect(await ledger.run(of('1', 'ada'))).toMatchObject({ kind: 'done' })
  expect(await ledger.run(of('2', 'ada'))).toMatchObject({ kind: 'denied', denial: { subject: 'ada' } })
  expect(await ledger.run(of('3', 'bob'))).toMatchObject({ kind: 'done' })
  expect(await ledger.run(of('4', ''))).toMatchObject({ kind: 'done' })
  expect(await ledger.run(of('5', ''))).toMatchObject({ kind: 'denied' })
  await expectNoDrift(pool)
})

test('quota: an account whose user was renamed is not found by the old name, though its number is remembered', async () => {
  const { ledger, pool } = await open('renamed', [{ id: 'per user', measure: 'cost', amount: 10, each: 'user' }])
  const of = (callId: string): Reserve => reserve(callId, 6, { subject: { ...nobody, user: 'ada' } })
  const before = idOf(await ledger.run(of('1')))
  await pool.query("update quota_accounts set subject = 'pseudonym'")
  expect(await ledger.run(of('2'))).toMatchObject({ kind: 'done' })
  expect(await balanceOf(pool, 'per user', 'ada')).toMatchObject({ held: 6 })
  expect(await ledger.run(settle(before, 5))).toMatchObject({ kind: 'done' })
  expect(await balanceOf(pool, 'per user', 'pseudonym')).toMatchObject({ held: 0, spent: 5 })
  await expectNoDrift(pool)
})

test('quota: a limit that warns never refuses, one that allows what is left holds that, one with debt holds nothing more', async () => {
  const { ledger, pool } = await open('overage', [
    { id: 'warns', measure: 'cost', amount: 10, action: 'warn' },
    { id: 'left', measure: 'cost', amount: 15, overage: 'allow_available' },
    { id: 'debt', measure: 'cost', amount: 5, overage: 'allow_debt' },
  ])
  const answer = await ledger.run(reserve('a', 20))
  expect(answer).toMatchObject({
    kind: 'done',
    body: {
      holds: [
        { limitId: 'debt', amount: 5 },
        { limitId: 'left', amount: 15 },
        { limitId: 'warns', amount: 10 },
      ],
    },
  })
  expect(await ledger.run(reserve('b', 1))).toMatchObject({ kind: 'denied', denial: { limitId: 'left' } })
  await ledger.run(settle(idOf(answer), 20))
  expect(await balanceOf(pool, 'debt')).toMatchObject({ spent: 20, debt: 15, free: 0 })
})

test('quota: each threshold is told once, in the transaction that passed it', async () => {
  const { ledger, pool } = await open('thresholds', [{ id: 'budget', measure: 'cost', amount: 100 }])
  for (const [at, cost] of [30, 30, 30, 30].entries()) {
    const outcome = await ledger.run(reserve(`c${at}`, 1))
    if (outcome.kind === 'done') await ledger.run(settle(idOf(outcome), cost))
  }
  const { rows } = await pool.query("select body ->> 'percent' as percent from quota_outbox order by created_at, 1")
  expect(rows.map((row) => Number(row.percent)).sort((a, b) => a - b)).toEqual([50, 80, 100])
  expect((await pool.query('select count(*)::int as count from quota_audit')).rows).toEqual([{ count: 3 }])
})

test('quota: a charge is booked once per event, and where its window is', async () => {
  const { ledger, pool } = await open('charges', [{ id: 'daily', measure: 'cost', amount: 100, window: 'day' }])
  const yesterday = new Date(Date.now() - 86_400_000)
  const event = {
    kind: 'charge',
    tenant,
    bodyHash: '',
    subject: nobody,
    amounts: { cost: 7n, tokens: undefined },
  } as const
  const steps: Step[] = [
    { ...event, eventKey: 'a', endedAt: yesterday },
    { ...event, eventKey: 'a', endedAt: yesterday },
    { ...event, eventKey: 'b', endedAt: undefined },
  ]
  const outcomes = await Promise.all(steps.map((step) => ledger.run(step)))
  expect(outcomes.map((outcome) => outcome.kind === 'done' && outcome.isRepeat)).toEqual([false, true, false])
  const { rows } = await pool.query('select spent::int from quota_balances order by window_start')
  expect(rows).toEqual([{ spent: 7 }, { spent: 7 }])
})

test('quota: of a service whose clock is hours ahead, calls count now: in the day that is, and in the minute until it has passed', async () => {
  const { ledger, pool } = await open('ahead', [
    { id: 'day', measure: 'cost', amount: 1_000, window: 'day' },
    { id: 'rate', measure: 'cost', amount: 100, window: 'minute' },
  ])
  const clock = await openClock(pool, Date.UTC(2026, 10, 21, 22))
  const event = {
    tenant,
    subject: nobody,
    amounts: { cost: 60n, tokens: undefined },
    endedAt: new Date(Date.UTC(2026, 10, 22, 3)),
  } as const
  await ledger.run({ ...event, kind: 'charge', eventKey: 'a', bodyHash: '' })
  const record = {
    ...event,
    kind: 'record',
    eventKey: 'b',
    callId: undefined,
    isMetered: true,
    isLowerBound: false,
  } as const
  await ledger.run({ ...record, generation: 1, amounts: { cost: 40n, tokens: undefined } })
  await clock.move(10_000)
  // What is corrected later leaves the stretch of the minute in which it was counted.
  await ledger.run({ ...record, generation: 2, amounts: { cost: 10n, tokens: undefined } })
  expect(await balanceOf(pool, 'day')).toMatchObject({ spent: 70, free: 930 })
  expect(await balanceOf(pool, 'rate')).toMatchObject({ spent: 70, free: 30 })
  const { rows } = await pool.query('select count(*)::int as days from quota_balances where limit_id = $1', ['day'])
  expect(rows).toEqual([{ days: 1 }])

  await clock.move(56_000)
  expect(await ledger.run(reserve('c', 91))).toMatchObject({ kind: 'denied', denial: { limitId: 'rate', used: 10n } })
  await clock.move(70_000)
  expect(await ledger.run(reserve('d', 30))).toMatchObject({ kind: 'done' })
  expect(await balanceOf(pool, 'rate')).toMatchObject({ spent: 0, held: 30 })
  await expectNoDrift(pool)
})

/** Changes the amount of `each` to 10, while the ledger books these calls: it waits for the change, which then goes on. */
async function lowerWhile(pool: pg.Pool, book: () => Promise<readonly StepOutcome[]>): Promise<readonly StepOutcome[]> {
  const waiting = `select count(*)::int as count from pg_stat_activity
    where application_name = current_setting('application_name') and wait_event_type = 'Lock'`
  let booked: Promise<readonly StepOutcome[]> = Promise.resolve([])
  await inTransaction(pool, async (client) => {
    const rule = await selectRule(client, tenant, 'each')
    if (rule === undefined) throw new Error('there is no such limit')
    booked = book()
    await expect.poll(async () => (await pool.query(waiting)).rows, { timeout: 5_000 }).toEqual([{ count: 1 }])
    await putRule(client, { ...rule, amount: '10' })
  })
  return booked
}

test('quota: an account that is made while its limit is changed has the new amount', async () => {
  const { ledger, pool } = await open('made_while', [{ id: 'each', measure: 'cost', amount: 1_000, each: 'user' }])
  const first = reserve('first', 500, { subject: { ...nobody, user: 'new' } })
  const [outcome] = await lowerWhile(pool, async () => [await ledger.run(first)])
  expect(outcome).toMatchObject({ kind: 'denied', denial: { limit: 10n } })
  expect(await balanceOf(pool, 'each', 'new')).toMatchObject({ granted: 10, held: 0, free: 10 })
  await expectNoDrift(pool)
})

test('quota: a change of a limit and the first call of a user never wait for each other', async () => {
  const { ledger, pool } = await open('no_deadlock', [{ id: 'each', measure: 'cost', amount: 1_000, each: 'user' }])
  const of = (callId: string, user: string): Reserve => reserve(callId, 4, { subject: { ...nobody, user } })
  await ledger.run(of('a', 'old'))
  // A connection whose transaction failed is not kept.
  let failed = 0
  pool.on('remove', () => failed++)
  // In one batch: it holds an account that the change needs, and needs one that waits for the change.
  const outcomes = await lowerWhile(pool, () => Promise.all([ledger.run(of('b', 'old')), ledger.run(of('c', 'new'))]))
  expect(outcomes).toMatchObject([{ kind: 'done' }, { kind: 'done' }])
  expect(failed).toBe(0)
  expect(await balanceOf(pool, 'each', 'old')).toMatchObject({ granted: 10, held: 8, free: 2 })
  expect(await balanceOf(pool, 'each', 'new')).toMatchObject({ granted: 10, held: 4, free: 6 })
  await expectNoDrift(pool)
})

test('quota: a step of another tenant is as unknown as one that never was', async () => {
  const { ledger } = await open('tenants', [{ id: 'budget', measure: 'cost', amount: 100 }])
  const id = idOf(await ledger.run(reserve('a', 60)))
  const other = parseTenantId('rival') as TenantId
  expect(await ledger.run({ kind: 'settle', tenant: other, id, bodyHash: '', amountsOf: undefined })).toEqual({
    kind: 'unknown',
  })
})

test('quota: a minute slides: no 60 seconds ever hold more than was granted, and a refusal says when enough is free', async () => {
  const { ledger, pool } = await open('sliding', [{ id: 'rate', measure: 'requests', amount: 3, window: 'minute' }])
  // 55 s into a calendar's minute.
  const clock = await openClock(pool, Date.UTC(2026, 10, 21, 12, 0, 55))
  for (const callId of ['a', 'b', 'c']) await ledger.run(settle(idOf(await ledger.run(reserve(callId, 0))), 0))
  await clock.move(10_000)
  // The calendar's next minute, in which a fixed window would grant three more.
  expect(await ledger.run(reserve('d', 0))).toMatchObject({
    kind: 'denied',
    denial: { used: 3n, freesUnixMs: Date.UTC(2026, 10, 21, 12, 2, 0) },
  })
  await clock.move(54_999)
  expect(await ledger.run(reserve('d', 0))).toMatchObject({ kind: 'denied' })
  await clock.move(1)
  expect(await balanceOf(pool, 'rate')).toMatchObject({ spent: 0, free: 3 })
  expect(await ledger.run(reserve('d', 0))).toMatchObject({ kind: 'done' })
  expect(await balanceOf(pool, 'rate')).toMatchObject({ held: 1, spent: 0, free: 2 })
  await expectNoDrift(pool)
})

test('quota: reservations are forgotten 40 days after their end, those that are held are not, and the books stay', async () => {
  const { ledger, pool } = await open('forgotten_calls', [{ id: 'budget', measure: 'cost', amount: 100 }])
  const clock = await openClock(pool, Date.now())
  const prunedAfter = async (days: number) => {
    await clock.move(days * 86_400_000)
    await prune(pool, limits.quotaEventsKeptMs)
    const { rows } = await pool.query<{ call_id: string }>('select call_id from quota_reservations order by call_id')
    return rows.map((row) => row.call_id)
  }
  await ledger.run(settle(idOf(await ledger.run(reserve('a', 10))), 30))
  await ledger.run(reserve('b', 5))
  expect(await prunedAfter(39)).toEqual(['a', 'b'])
  expect(await ledger.run(reserve('a', 10))).toMatchObject({ kind: 'done', isRepeat: true })
  expect(await prunedAfter(2)).toEqual(['b'])
  expect(await balanceOf(pool, 'budget')).toMatchObject({ spent: 30, held: 5 })
  await ledger.sweep()
  expect(await balanceOf(pool, 'budget')).toMatchObject({ spent: 30, held: 0 })
  expect(await ledger.run(reserve('a', 10))).toMatchObject({ kind: 'done', isRepeat: false })
  await expectNoDrift(pool)
})

test('quota: of several limits that refuse a call, the one that does so longest is told', async () => {
  const { ledger, pool } = await open('longest', [
    { id: 'a minute', measure: 'requests', amount: 1, window: 'minute' },
    { id: 'at once', measure: 'concurrency', amount: 1 },
    { id: 'day', measure: 'cost', amount: 30, window: 'day' },
    { id: 'ever', measure: 'cost', amount: 50 },
  ])
  const clock = await openClock(pool, Date.UTC(2026, 10, 21, 12))
  const first = idOf(await ledger.run(reserve('a', 20)))
  const freesUnixMs = Date.UTC(2026, 10, 22)
  expect(await ledger.run(reserve('b', 20))).toMatchObject({ denial: { limitId: 'day', freesUnixMs } })
  // What is held for ever may be free in a moment.
  expect(await ledger.run(reserve('c', 40))).toMatchObject({ denial: { limitId: 'day', freesUnixMs } })
  await ledger.run(settle(first, 20))
  expect(await ledger.run(reserve('c', 40))).toMatchObject({ denial: { limitId: 'ever', freesUnixMs: undefined } })
  await clock.move(12 * 3_600_000)
  const second = idOf(await ledger.run(reserve('d', 1)))
  expect(await ledger.run(reserve('e', 1))).toMatchObject({ denial: { limitId: 'a minute' } })
  await ledger.run(settle(second, 1))
  expect(await ledger.run(reserve('e', 1))).toMatchObject({
    denial: { limitId: 'a minute', freesUnixMs: freesUnixMs + 65_000 },
  })
})

test('quota: who may hold what is left is told when something is, and not when all that was wanted', async () => {
  const rule = { id: 'rate', measure: 'cost', amount: 100, window: 'minute', overage: 'allow_available' }
  const { ledger, pool } = await open('what_is_left', [rule])
  const startMs = Date.UTC(2026, 10, 21, 12)
  const clock = await openClock(pool, startMs)
  for (const callId of ['a', 'b', 'c', 'd']) {
    await ledger.run(settle(idOf(await ledger.run(reserve(callId, 25))), 25))
    await clock.move(10_000)
  }
  // More than the limit ever has.
  const denied = await ledger.run(reserve('e', 150))
  expect(denied).toMatchObject({ kind: 'denied', denial: { freesUnixMs: startMs + 65_000 } })
  await clock.move(25_000)
  expect(await ledger.run(reserve('e', 150))).toMatchObject({ kind: 'done', body: { holds: [{ amount: 25 }] } })
})

test('quota: a call that settles when the minute of its hold is over stands in the way of none that comes with it', async () => {
  const { ledger, pool } = await open('settled_late', [{ id: 'rate', measure: 'cost', amount: 100, window: 'minute' }])
  const clock = await openClock(pool, Date.UTC(2026, 10, 21, 12))
  const id = idOf(await ledger.run(reserve('long', 100)))
  await clock.move(300_000)
  const together = await Promise.all([ledger.run(settle(id, 100)), ledger.run(reserve('next', 100))])
  expect(together).toMatchObject([{ kind: 'done' }, { kind: 'done' }])
  expect(await balanceOf(pool, 'rate')).toEqual({ granted: 100, held: 100, spent: 0, free: 0, debt: 0 })
  await expectNoDrift(pool)
})

test('quota: a clock that is stepped back frees nothing, and a day begins where its time zone says', async () => {
  const { ledger, pool } = await open('clock', [
    { id: 'day', measure: 'requests', amount: 1, window: 'day', time_zone: 'Europe/Berlin' },
  ])
  const clock = await openClock(pool, Date.UTC(2026, 10, 21, 22, 59, 59))
  expect(await ledger.run(reserve('a', 0))).toMatchObject({ kind: 'done' })
  await clock.move(-7_200_000)
  expect(await ledger.run(reserve('b', 0))).toMatchObject({
    kind: 'denied',
    denial: { freesUnixMs: Date.UTC(2026, 10, 21, 23) },
  })
  await clock.move(7_201_000)
  expect(await ledger.run(reserve('b', 0))).toMatchObject({ kind: 'done' })
})

test('quota: limits on tokens read and written are counted apart', async () => {
  const { ledger, pool } = await open('kinds', [
    { id: 'in', measure: 'input_tokens', amount: 100 },
    { id: 'out', measure: 'output_tokens', amount: 10 },
  ])
  const amounts = { cost: 0n, tokens: 48n, inputTokens: 40n, outputTokens: 8n }
  const id = idOf(await ledger.run(reserve('a', 0, { amounts })))
  expect(await ledger.run(reserve('b', 0, { amounts }))).toMatchObject({ kind: 'denied', denial: { limitId: 'out' } })
  const used = { cost: 0n, tokens: 45n, inputTokens: 40n, outputTokens: 5n }
  await ledger.run({ kind: 'settle', tenant, id, bodyHash: '', amountsOf: () => used })
  expect(await balanceOf(pool, 'in')).toMatchObject({ held: 0, spent: 40 })
  expect(await balanceOf(pool, 'out')).toMatchObject({ held: 0, spent: 5 })
})

test('quota: statements planned while the tables were small do not read all of them once they have grown', async () => {
  const { ledger, pool } = await open('grown', [{ id: 'calls', measure: 'requests', amount: 1_000_000 }])
  const rowsRead = async (): Promise<number> => {
    await pool.query('select pg_stat_force_next_flush()')
    const { rows } = await pool.query(
      `select sum(coalesce(idx_tup_fetch, 0) + seq_tup_read)::int as count from pg_stat_user_tables
       where schemaname = current_schema() and relname = 'quota_reservation_rows'`,
    )
    return rows[0].count
  }
  const pairs = async (from: number, count: number): Promise<void> => {
    const calls = Array.from({ length: count }, (_, at) => ledger.run(reserve(`call ${from + at}`, 1)))
    const ids = (await Promise.all(calls)).map(idOf)
    await Promise.all(ids.map((id) => ledger.run(settle(id, 1))))
  }
  await pairs(0, 1)
  // As autovacuum does, whenever it comes by.
  await pool.query('analyze')
  for (let round = 1; round <= 20; round++) await pairs(round * 50, 50)
  const before = await rowsRead()
  await pairs(2_000, 50)
  // Each is looked up by its id a few times, of about a thousand.
  expect((await rowsRead()) - before).toBeLessThan(50 * 8)
})

test('quota: of a line that was full it is told once that it is over, when one batch takes all who wait', async () => {
  const { pool } = await open('overload', [{ id: 'budget', measure: 'cost', amount: 100 }])
  const waitingThen: number[] = []
  const onRecovered = (): void => void waitingThen.push(ledger.status().waiting)
  const ledger: Ledger = openLedger({ database: pool, log: { warn: () => undefined }, onRecovered })
  const asked = Array.from({ length: 10_003 }, (_, at) => ledger.run(reserve(`call ${at}`, 1, { isDry: true })))
  const kinds = Map.groupBy(await Promise.all(asked), ({ kind }) => kind)
  expect([kinds.get('done')?.length, kinds.get('unavailable')?.length]).toEqual([10_000, 3])
  expect(waitingThen).toEqual([0])
  await ledger.run(reserve('later', 1))
  expect(waitingThen).toEqual([0])
})

test('quota: a tenant that fills the line keeps no other from being booked, nor waiting behind it', async () => {
  const { ledger } = await open('flood', [{ id: 'budget', measure: 'cost', amount: 100 }])
  let isOtherBooked = false
  const flood = Array.from({ length: 10_003 }, async (_, at) => {
    const outcome = await ledger.run(reserve(`call ${at}`, 1, { isDry: true }))
    return { kind: outcome.kind, isBehind: isOtherBooked }
  })
  const other = await ledger.run(reserve('call', 1, { tenant: parseTenantId('globex') as TenantId, isDry: true }))
  isOtherBooked = true
  expect(other.kind).toBe('done')
  const outcomes = await Promise.all(flood)
  expect(outcomes.filter(({ kind }) => kind === 'unavailable')).toHaveLength(3)
  expect(outcomes.filter(({ isBehind }) => isBehind).length).toBeGreaterThan(9_000)
})

test('quota: an amount that no account can hold is refused alone, not with the steps beside it', async () => {
  const { ledger, pool } = await open('huge', [{ id: 'budget', measure: 'cost', amount: 100, overage: 'allow_debt' }])
  const ids = await Promise.all(['a', 'b', 'c'].map(async (callId) => idOf(await ledger.run(reserve(callId, 10)))))
  const huge: Step = {
    kind: 'settle',
    tenant,
    id: ids[1] ?? '',
    bodyHash: '',
    amountsOf: () => ({ cost: 2n ** 63n, tokens: undefined }),
  }
  const outcomes = await Promise.all([
    ledger.run(settle(ids[0] ?? '', 1)),
    ledger.run(huge),
    ledger.run(settle(ids[2] ?? '', 2)),
  ])
  expect(outcomes.map(({ kind }) => kind)).toEqual(['done', 'refused', 'done'])
  expect(await balanceOf(pool, 'budget')).toMatchObject({ held: 10, spent: 3 })
})
