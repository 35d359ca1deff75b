// What tests of the ledger share: a ledger with limits, and the steps of a client.
import { createHash } from 'node:crypto'
import { migratePostgres } from '@tallylight/storage/postgres/migrate.ts'
import { putRule } from '@tallylight/storage/postgres/quota/statements.ts'
import type { TestPostgres } from '@tallylight/storage/postgres/testing.ts'
import type pg from 'pg'
import { limits } from '../limits.ts'
import { parseTenantId, type TenantId } from '../receive/request.ts'
import { type Ledger, openLedger } from './ledger.ts'
import type { Subject } from './limits.ts'
import type { Reserve, Step, StepOutcome } from './step.ts'

export const tenant = parseTenantId('acme') as TenantId

export type Rule = { readonly id: string; readonly measure: string; readonly amount: number } & Partial<{
  readonly each: string
  readonly action: string
  readonly overage: string
  readonly window: string
  readonly time_zone: string
  readonly thresholds: readonly number[]
}>

/** A ledger in a schema of its own with these limits of the tenant `acme`. */
export async function openTestLedger(
  postgres: TestPostgres,
  schema: string,
  rules: readonly Rule[],
  isDurable = true,
): Promise<{ readonly ledger: Ledger; readonly pool: pg.Pool }> {
  const options = `-c search_path=${schema} -c synchronous_commit=${isDurable ? 'on' : 'off'}`
  const pool = await postgres.open(schema, { pipeline: true, options, application_name: schema })
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
  const { quotaEventsKeptMs: eventsKeptMs } = limits
  return { ledger: openLedger({ database: pool, log: { warn: () => undefined }, eventsKeptMs }), pool }
}

export const nobody: Subject = { user: '', key: '', model: '', provider: '', conversation: '' }

export function reserve(callId: string, cost: number, more: Partial<Reserve> = {}): Reserve {
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
    isLease: false,
    ...more,
  }
}

export function settle(id: string, cost: number): Step {
  return {
    kind: 'settle',
    tenant,
    id,
    bodyHash: `s${cost}`,
    amountsOf: () => ({ cost: BigInt(cost), tokens: BigInt(cost) }),
  }
}

export function idOf(outcome: StepOutcome): string {
  if (outcome.kind !== 'done') throw new Error(`not done: ${outcome.kind}`)
  return (outcome.body as { readonly id: string }).id
}

/** An account as numbers. */
export async function balanceOf(
  pool: pg.Pool,
  limitId: string,
  subject = '',
): Promise<Readonly<Record<string, number>>> {
  const { rows } = await pool.query(
    'select granted::int, held::int, spent::int, free::int, debt::int from quota_balances where limit_id = $1 and subject = $2',
    [limitId, subject],
  )
  return rows[0]
}

/** Gives the ledger of this schema a clock of its own, which stands at `startMs` until it is moved, forward or back. */
export async function openClock(pool: pg.Pool, startMs: number): Promise<{ move(ms: number): Promise<void> }> {
  await pool.query(`create table clock (at timestamptz not null)`)
  await pool.query('insert into clock values (to_timestamp($1::float8 / 1000))', [startMs])
  await pool.query(
    "create or replace function quota_now() returns timestamptz language sql stable as 'select at from clock'",
  )
  return {
    move: async (ms) => {
      await pool.query("update clock set at = at + $1::float8 * interval '1 ms'", [ms])
    },
  }
}
