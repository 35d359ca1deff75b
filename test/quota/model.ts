// The quota ledger beside a model of a few lines: random steps must have the outcomes and leave the books that it says.
import assert from 'node:assert/strict'
import type { Step, StepOutcome } from '@tallylight/collector/quota/step.ts'
import { balanceOf, idOf, openTestLedger, reserve, settle, tenant } from '@tallylight/collector/quota/testing.ts'
import type { TestPostgres } from '@tallylight/storage/postgres/testing.ts'
import pg from 'pg'
import { seededRandom } from '../random.ts'

type Model = {
  readonly reservations: Map<string, { id: string; cost: number; held: number; state: string; isDue: boolean }>
  held: number
  spent: number
  calls: number
}

/** Random steps beside a model of a few lines: one budget, one limit of calls at once. Connections are killed in between;
 *  what was not answered is asked again, as clients do. */
export async function compareWithModel(
  postgres: TestPostgres,
  schema: string,
  seed: number,
  steps: number,
): Promise<void> {
  const budget = 1_000
  const atOnce = 12
  const { ledger, pool } = await openTestLedger(postgres, schema, [
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

  /** As the ledger's own watch does: a connection that was lost is no reason to stop. */
  async function sweepAll(): Promise<void> {
    for (;;) {
      const swept = await ledger.sweep().catch(() => 1)
      if (swept === 0) return
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
      assert.equal(outcome.kind, fits ? 'done' : 'denied', `seed ${seed}, step ${step}`)
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
      assert.equal(outcome.kind, 'done', `seed ${seed}, step ${step}`)
      if (some.state === 'held') model.calls--
      model.held -= some.held
      model.spent += cost
      Object.assign(some, { state: 'settled', held: 0 })
    } else if (choice < 85) {
      await ask({ kind: 'release', tenant, id: some.id, bodyHash: '', amountsOf: undefined })
      if (some.state !== 'held') continue
      model.calls--
      model.held -= some.held
      Object.assign(some, { state: 'released', held: 0 })
    } else if (choice < 90) {
      await ask({ kind: 'extend', tenant, id: some.id, ttlMs: 600_000 })
      if (some.state === 'held') some.isDue = false
    } else if (choice < 97) {
      await sweepAll()
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
        'select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid() and usename = current_user',
      )
      await client.end()
      assert.equal((await dying).kind, 'denied', `seed ${seed}, step ${step}`)
    }
    if (known.length > 60)
      for (const each of known.slice(0, 30)) if (each.state !== 'held') model.reservations.delete(each.id)
    if (model.spent > budget * 3) break
  }
  const left = budget - model.spent - model.held
  assert.deepEqual(
    await balanceOf(pool, 'budget'),
    { granted: budget, held: model.held, spent: model.spent, free: Math.max(0, left), debt: Math.max(0, -left) },
    `seed ${seed}`,
  )
  assert.equal((await balanceOf(pool, 'at once')).held, model.calls, `seed ${seed}`)
  assert.deepEqual((await pool.query('select * from quota_drift')).rows, [], `seed ${seed}`)
}
