// The ledger on a real Postgres: races, repeats, expiry, and random steps beside a reference that is as simple as can be.
import { createHash } from 'node:crypto'
import { migratePostgres } from '@tallylight/storage/postgres/migrate.ts'
import { putRule } from '@tallylight/storage/postgres/quota/statements.ts'
import { startTestPostgres, type TestPostgres } from '@tallylight/storage/postgres/testing.ts'
import pg from 'pg'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { seededRandom } from '../../test/random.ts'
import { parseTenantId, type TenantId } from '../receive/request.ts'
import { type Ledger, openLedger, type Reserve, type Step, type StepOutcome } from './ledger.ts'
import type { Subject } from './limits.ts'

const tenant = parseTenantId('acme') as TenantId
let postgres: TestPostgres

beforeAll(async () => {
  postgres = await startTestPostgres()
}, 60_000)
afterAll(() => postgres[Symbol.asyncDispose]())

type Rule = { readonly id: string; readonly measure: string; readonly amount: number } & Partial<{
  readonly each: string
  readonly action: string
  readonly overage: string
  readonly window: string
  readonly thresholds: readonly number[]
}>

async function open(
  schema: string,
  rules: readonly Rule[],
): Promise<{ readonly ledger: Ledger; readonly pool: pg.Pool }> {
  const pool = await postgres.open(schema)
  const client = await pool.connect()
  await migratePostgres(client)
  for (const rule of rules) {
    await putRule(client, {
      tenant,
      subject: {},
      each: '',
      action: 'block',
      overage: 'refuse',
      window: 'ever',
      time_zone: 'UTC',
      thresholds: [50, 80, 100],
      source: 'api',
      ...rule,
      amount: String(rule.amount),
    })
  }
  client.release()
  return { ledger: openLedger({ database: pool, log: { warn: () => undefined } }), pool }
}

const nobody: Subject = { user: '', key: '', model: '', provider: '', conversation: '' }

function reserve(callId: string, cost: number, more: Partial<Reserve> = {}): Reserve {
  return {
    kind: 'reserve',
    tenant,
    callId,
    bodyHash: createHash('sha256').update(`${callId} ${cost}`).digest('hex'),
    subject: { ...nobody, ...more.subject },
    amounts: { cost: BigInt(cost), tokens: BigInt(cost) },
    ttlMs: 600_000,
    unpriced: undefined,
    isDry: false,
    ...more,
  }
}

function settle(id: string, cost: number): Step {
  return { kind: 'settle', tenant, id, bodyHash: `s${cost}`, amounts: { cost: BigInt(cost), tokens: BigInt(cost) } }
}

function idOf(outcome: StepOutcome): string {
  if (outcome.kind !== 'done') throw new Error(`not done: ${JSON.stringify(outcome)}`)
  return (outcome.body as { readonly id: string }).id
}

async function balance(pool: pg.Pool, limitId: string, subject = ''): Promise<Readonly<Record<string, number>>> {
  const { rows } = await pool.query(
    'select granted::int, held::int, spent::int, free::int, debt::int from quota_balances where limit_id = $1 and subject = $2',
    [limitId, subject],
  )
  return rows[0]
}

async function expectNoDrift(pool: pg.Pool): Promise<void> {
  expect((await pool.query('select * from quota_drift')).rows).toEqual([])
}

test('quota: of 20 parallel reservations of 75 against 500, exactly 6 are granted', async () => {
  const { ledger, pool } = await open('parallel', [{ id: 'budget', measure: 'cost', amount: 500 }])
  const outcomes = await Promise.all(Array.from({ length: 20 }, (_, at) => ledger.run(reserve(`call ${at}`, 75))))
  expect(Map.groupBy(outcomes, (outcome) => outcome.kind).get('done')).toHaveLength(6)
  expect(Map.groupBy(outcomes, (outcome) => outcome.kind).get('denied')).toHaveLength(14)
  expect(await balance(pool, 'budget')).toEqual({ granted: 500, held: 450, spent: 0, free: 50, debt: 0 })
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
  expect(await balance(pool, 'wide')).toMatchObject({ held: 80 })
})

test('quota: the same call id gets the same answer, and another body is a conflict', async () => {
  const { ledger, pool } = await open('repeats', [{ id: 'budget', measure: 'cost', amount: 100 }])
  const first = await ledger.run(reserve('a', 60))
  expect(await ledger.run(reserve('a', 60))).toEqual({ ...first, isRepeat: true })
  expect(await ledger.run(reserve('a', 61))).toMatchObject({
    kind: 'conflict',
    first: { id: idOf(first), state: 'held' },
  })
  expect(await balance(pool, 'budget')).toMatchObject({ held: 60, free: 40 })
})

test('quota: a settlement above its hold is debt, and only once; a release after it names it', async () => {
  const { ledger, pool } = await open('settling', [{ id: 'budget', measure: 'cost', amount: 100 }])
  const id = idOf(await ledger.run(reserve('a', 60)))
  const settled = await ledger.run(settle(id, 150))
  expect(await balance(pool, 'budget')).toEqual({ granted: 100, held: 0, spent: 150, free: 0, debt: 50 })
  expect(await ledger.run(settle(id, 150))).toEqual({ ...settled, isRepeat: true })
  expect(await ledger.run(settle(id, 10))).toMatchObject({ kind: 'conflict', first: { state: 'settled' } })
  expect(await ledger.run({ kind: 'release', tenant, id, bodyHash: '', amounts: undefined })).toMatchObject({
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
  expect(await balance(pool, 'budget')).toMatchObject({ held: 0, free: 100 })
  expect(await ledger.run({ kind: 'extend', tenant, id, ttlMs: 1000 })).toMatchObject({ kind: 'conflict' })
  expect(await ledger.run(settle(id, 70))).toMatchObject({ kind: 'done' })
  expect(await balance(pool, 'budget')).toMatchObject({ held: 0, spent: 70, free: 30 })
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
  expect(await balance(pool, 'debt')).toMatchObject({ spent: 20, debt: 15, free: 0 })
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
  const event = { kind: 'charge', tenant, subject: nobody, amounts: { cost: 7n, tokens: undefined } } as const
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

test('quota: a step of another tenant is as unknown as one that never was', async () => {
  const { ledger } = await open('tenants', [{ id: 'budget', measure: 'cost', amount: 100 }])
  const id = idOf(await ledger.run(reserve('a', 60)))
  const other = parseTenantId('rival') as TenantId
  expect(await ledger.run({ kind: 'settle', tenant: other, id, bodyHash: '', amounts: undefined })).toEqual({
    kind: 'unknown',
  })
})

type Model = {
  readonly reservations: Map<string, { id: string; cost: number; held: number; state: string; isDue: boolean }>
  held: number
  spent: number
  calls: number
}

/** Random steps beside a model of a few lines: one budget, one limit of calls at once. Connections are killed in between;
 *  what was not answered is asked again, as clients do. */
async function compareWithModel(schema: string, seed: number, steps: number): Promise<void> {
  const budget = 1_000
  const atOnce = 12
  const { ledger, pool } = await open(schema, [
    { id: 'budget', measure: 'cost', amount: budget },
    { id: 'at once', measure: 'concurrency', amount: atOnce },
  ])
  const random = seededRandom(seed)
  const model: Model = { reservations: new Map(), held: 0, spent: 0, calls: 0 }
  let opened = 0

  async function ask(step: Step): Promise<StepOutcome> {
    for (;;) {
      const outcome = await ledger.run(step)
      if (outcome.kind !== 'unavailable') return outcome
    }
  }

  for (let step = 0; step < steps; step++) {
    const choice = random.below(100)
    const known = [...model.reservations.values()]
    const some = known.length === 0 ? undefined : random.pick(known)
    if (choice < 40 || some === undefined) {
      const cost = random.below(120)
      const isDue = random.below(4) === 0
      const outcome = await ask(reserve(`call ${opened++}`, cost, { ttlMs: isDue ? 0 : 600_000 }))
      const fits = cost <= Math.max(0, budget - model.spent - model.held) && model.calls < atOnce
      expect(outcome.kind, `seed ${seed}, step ${step}`).toBe(fits ? 'done' : 'denied')
      if (outcome.kind !== 'done') continue
      model.held += cost
      model.calls++
      const id = idOf(outcome)
      model.reservations.set(id, { id, cost, held: cost, state: 'held', isDue })
    } else if (choice < 70) {
      const cost = random.below(140)
      const outcome = await ask(settle(some.id, cost))
      const isFirst = some.state === 'held' || some.state === 'expired'
      if (!isFirst) continue
      expect(outcome.kind, `seed ${seed}, step ${step}`).toBe('done')
      if (some.state === 'held') model.calls--
      model.held -= some.held
      model.spent += cost
      Object.assign(some, { state: 'settled', held: 0 })
    } else if (choice < 85) {
      await ask({ kind: 'release', tenant, id: some.id, bodyHash: '', amounts: undefined })
      if (some.state !== 'held') continue
      model.calls--
      model.held -= some.held
      Object.assign(some, { state: 'released', held: 0 })
    } else if (choice < 90) {
      await ask({ kind: 'extend', tenant, id: some.id, ttlMs: 600_000 })
      if (some.state === 'held') some.isDue = false
    } else if (choice < 97) {
      await ledger.sweep()
      for (const each of known.filter(({ state, isDue }) => state === 'held' && isDue)) {
        model.calls--
        model.held -= each.held
        Object.assign(each, { state: 'expired', held: 0 })
      }
    } else {
      // Every connection of this schema dies, wherever it is.
      const client = new pg.Client({ connectionString: postgres.engine.url })
      await client.connect()
      const dying = ask(reserve(`call ${opened++}`, 0, { amounts: { cost: 2_000_000n, tokens: 0n } }))
      await client.query(
        'select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid() and datname = current_database()',
      )
      await client.end()
      expect((await dying).kind, `seed ${seed}, step ${step}`).toBe('denied')
    }
    if (known.length > 60)
      for (const each of known.slice(0, 30)) if (each.state !== 'held') model.reservations.delete(each.id)
    if (model.spent > budget * 3) break
  }
  const left = budget - model.spent - model.held
  expect(await balance(pool, 'budget'), `seed ${seed}`).toEqual({
    granted: budget,
    held: model.held,
    spent: model.spent,
    free: Math.max(0, left),
    debt: Math.max(0, -left),
  })
  expect(await balance(pool, 'at once')).toMatchObject({ held: model.calls })
  await expectNoDrift(pool)
}

test('quota: random steps, repeats and lost connections leave the books that a simple model has', async () => {
  for (let round = 0; round < 20; round++) await compareWithModel(`model_${round}`, 20261121 + round, 500)
}, 180_000)
