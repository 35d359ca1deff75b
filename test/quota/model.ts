// The quota ledger beside a model that adds up what calls say: random steps, in random order, with a clock that is stepped
// forward over the edges of windows and back, with connections that are lost, collectors that another takes over from in the
// middle of a step, and on request a Postgres that is killed; what was not answered is asked again, as clients do. Every outcome and, at the end, every balance must be the model's.
import assert from 'node:assert/strict'
import { setTimeout } from 'node:timers/promises'
import { openLedger, type RecordSource } from '@tallylight/collector/quota/ledger.ts'
import type { RecordCall, Step, StepOutcome } from '@tallylight/collector/quota/step.ts'
import { idOf, nobody, openClock, openTestLedger, reserve, tenant } from '@tallylight/collector/quota/testing.ts'
import type { TestPostgres } from '@tallylight/storage/postgres/testing.ts'
import pg from 'pg'
import { type Random, seededRandom } from '../random.ts'

const limits = [
  { id: 'budget', measure: 'cost', amount: 2_000 },
  { id: 'at once', measure: 'concurrency', amount: 12 },
  { id: 'daily', measure: 'requests', amount: 60, window: 'day' },
  { id: 'rate', measure: 'tokens', amount: 600, window: 'minute' },
] as const
type LimitId = (typeof limits)[number]['id']

type Used = { readonly cost: number; readonly tokens: number }
type Said = Used & { readonly generation: number; readonly isMetered: boolean }
type Call = {
  readonly id: string
  readonly callId: string
  readonly held: Used
  readonly heldMs: number
  expiresMs: number
  state: 'held' | 'settled' | 'released' | 'expired'
  /** How its client ended it: said again with the same words it is the same end, with others a conflict. */
  ended: string | undefined
  claimed: Used | undefined
  readonly records: Map<string, Said>
}

const minuteMs = 60_000
const dayMs = 86_400_000
const bucketMs = minuteMs / 12

/** What the books must say: the calls, and what they add up to. */
function openModel(startMs: number) {
  const calls = new Map<string, Call>()
  const unreserved = new Map<string, Said & { readonly endedMs: number }>()
  /** Tokens spent per bucket of the minute; what has left it is gone, also for a clock that goes back. */
  const buckets = new Map<number, number>()
  const model = { nowMs: startMs, calls, unreserved }

  function slide(): void {
    for (const at of buckets.keys()) if (at + bucketMs + minuteMs <= model.nowMs) buckets.delete(at)
  }

  const booked = (call: Call): Used & { readonly requests: number } => {
    const counted = [...call.records.values()].filter((record) => record.isMetered)
    if (counted.length > 0) return { ...sumOf(counted), requests: counted.length }
    return call.claimed === undefined ? { cost: 0, tokens: 0, requests: 0 } : { ...call.claimed, requests: 1 }
  }

  /** Changes a call, and what that makes of its minute. */
  function change(call: Call, alter: () => void): void {
    slide()
    const before = booked(call).tokens
    alter()
    spendTokens(call.heldMs, booked(call).tokens - before)
  }

  function spendTokens(atMs: number, tokens: number): void {
    const bucket = Math.floor(atMs / bucketMs) * bucketMs
    if (tokens !== 0) buckets.set(bucket, (buckets.get(bucket) ?? 0) + tokens)
    slide()
  }

  function balance(limit: LimitId, day: number): { held: number; spent: number } {
    const held = [...calls.values()].filter((call) => call.state === 'held')
    const ofDay = (ms: number): boolean => Math.floor(ms / dayMs) === day
    const free = [...unreserved.values()].filter((record) => record.isMetered)
    switch (limit) {
      case 'budget':
        return {
          held: sumOf(held.map((call) => call.held)).cost,
          spent: sumOf([...[...calls.values()].map(booked), ...free]).cost,
        }
      case 'at once':
        return { held: held.length, spent: 0 }
      case 'daily': {
        const requests = [...calls.values()].filter((call) => ofDay(call.heldMs)).map((call) => booked(call).requests)
        const spent =
          requests.reduce((sum, each) => sum + each, 0) + free.filter((record) => ofDay(record.endedMs)).length
        return { held: held.filter((call) => ofDay(call.heldMs)).length, spent }
      }
      case 'rate':
        return {
          held: sumOf(held.map((call) => call.held)).tokens,
          spent: [...buckets.values()].reduce((sum, each) => sum + each, 0),
        }
      default:
        return limit satisfies never
    }
  }

  function fits(wanted: Used): boolean {
    slide()
    const asked: Readonly<Record<LimitId, number>> = {
      budget: wanted.cost,
      'at once': 1,
      daily: 1,
      rate: wanted.tokens,
    }
    return limits.every(({ id, amount }) => {
      const { held, spent } = balance(id, Math.floor(model.nowMs / dayMs))
      return asked[id] <= Math.max(0, amount - held - spent)
    })
  }

  return Object.assign(model, { slide, change, spendTokens, balance, fits })
}

function sumOf(all: readonly Used[]): Used {
  return all.reduce((sum, each) => ({ cost: sum.cost + each.cost, tokens: sum.tokens + each.tokens }), {
    cost: 0,
    tokens: 0,
  })
}

/** As many steps in rounds of 500, each with a seed of its own, one after the other on each server. */
export async function compareRounds(
  servers: readonly TestPostgres[],
  seed: number,
  steps: number,
  options: RoundOptions,
): Promise<void> {
  let next = 0
  const differences: unknown[] = []
  const runRounds = async (postgres: TestPostgres): Promise<void> => {
    while (next < steps && differences.length === 0) {
      const done = next
      next += stepsPerRound
      const round = compareWithModel(
        postgres,
        `round_${done}`,
        seed + done,
        Math.min(stepsPerRound, steps - done),
        options,
      )
      // The others end their rounds: a server that is taken from them would never answer.
      await round.catch((error: unknown) => differences.push(error))
      options.onRound?.(done + stepsPerRound)
    }
  }
  await Promise.all(servers.map(runRounds))
  if (differences.length > 0) throw differences[0]
}
const stepsPerRound = 500

export type RoundOptions = {
  /** Of so many reservations one is made while the server is killed; 0 for none. Nothing else may use the server then. */
  readonly killEvery: number
  readonly onRound?: (steps: number) => void
}

async function compareWithModel(
  postgres: TestPostgres,
  schema: string,
  seed: number,
  steps: number,
  { killEvery }: RoundOptions,
): Promise<void> {
  // Where nobody kills it, a sync per step is most of what a test of many steps would wait for.
  const { ledger: first, pool } = await openTestLedger(postgres, schema, limits, killEvery > 0)
  let ledger = first
  const random = seededRandom(seed)
  // Just before midnight.
  const model = openModel(Date.UTC(2026, 10, 21, 23, 50))
  const clock = await openClock(pool, model.nowMs)
  let made = 0
  let segments = 0

  async function ask(step: Step): Promise<StepOutcome> {
    for (;;) {
      const outcome = await ledger.run(step)
      if (outcome.kind !== 'unavailable') return outcome
    }
  }

  async function record(records: readonly RecordCall[]): Promise<void> {
    const segment = ++segments
    const source: RecordSource = { journal: 'j', lane: 'live', segment, createdUnixMs: segment, name: 'j' }
    // Twice, now and then: as after a crash between booking and removing a segment.
    for (let times = random.below(4) === 0 ? 2 : 1; times > 0; times--) {
      while ((await ledger.record(source, records)).kind === 'unavailable');
    }
  }

  async function sweep(): Promise<void> {
    // As the ledger's own watch does: a connection that was lost is no reason to stop.
    while ((await ledger.sweep().catch(() => 1)) > 0);
    for (const call of model.calls.values()) {
      if (call.state === 'held' && call.expiresMs <= model.nowMs)
        model.change(call, () => {
          call.state = 'expired'
        })
    }
  }

  async function reserveOne(): Promise<void> {
    const held = usedBelow(random, 120)
    const callId = `call ${made++}`
    const ttlMs = 1_000 * (1 + random.below(120))
    const step = reserve(callId, held.cost, { ttlMs, amounts: amountsOf(held) })
    const isExpected = model.fits(held)
    if (random.below(20) === 0) await loseConnections(postgres, schema, ask(step))
    if (killEvery > 0 && random.below(killEvery) === 0) await killServer(postgres, pool, ledger.run(step))
    const leftBehind = random.below(20) === 0 ? ledger.run(step) : undefined
    if (leftBehind !== undefined) ledger = openLedger({ database: pool, log: { warn: () => undefined } })
    const outcome = await ask(step)
    // Whoever was first, both say the same.
    const said = await leftBehind
    if (said?.kind === 'done' && outcome.kind === 'done') assert.equal(idOf(said), idOf(outcome))
    assert.equal(outcome.kind, isExpected ? 'done' : 'denied')
    if (outcome.kind !== 'done') return
    const more = { state: 'held', ended: undefined, claimed: undefined, records: new Map() } as const
    const id = idOf(outcome)
    model.calls.set(id, { id, callId, held, heldMs: model.nowMs, expiresMs: model.nowMs + ttlMs, ...more })
  }

  async function endOne(call: Call): Promise<void> {
    const isRelease = random.below(4) === 0
    const used = usedBelow(random, 140)
    const kind = isRelease ? 'release' : 'settle'
    const bodyHash = JSON.stringify(used)
    const outcome = await ask({
      kind,
      tenant,
      id: call.id,
      bodyHash,
      amountsOf: isRelease ? undefined : () => amountsOf(used),
    })
    model.slide()
    const end = `${kind} ${bodyHash}`
    if (call.ended !== undefined) return assert.equal(outcome.kind, call.ended === end ? 'done' : 'conflict')
    assert.equal(outcome.kind, 'done')
    if (isRelease && call.state !== 'held') return
    model.change(call, () => {
      if (!isRelease) call.claimed = used
      call.state = isRelease ? 'released' : 'settled'
      call.ended = end
    })
  }

  async function recordSome(call: Call | undefined): Promise<void> {
    const isOfCall = call !== undefined && random.below(4) > 0
    const said: Said = { ...usedBelow(random, 60), generation: random.below(3), isMetered: random.below(8) > 0 }
    const known = isOfCall ? [...call.records.keys()] : [...model.unreserved.keys()]
    const eventKey = known.length > 0 && random.below(3) === 0 ? random.pick(known) : `span ${made++}`
    const before = isOfCall ? call.records.get(eventKey) : model.unreserved.get(eventKey)
    // Some clocks are ahead: no call has ended later than now.
    const toldMs = model.nowMs + (random.below(8) === 0 ? 1 : -random.below(2)) * random.below(dayMs)
    const endedMs = Math.min(toldMs, model.nowMs)
    await record([
      {
        kind: 'record',
        tenant,
        eventKey,
        generation: said.generation,
        callId: isOfCall ? call.callId : undefined,
        subject: nobody,
        amounts: amountsOf(said),
        isMetered: said.isMetered,
        isLowerBound: false,
        endedAt: new Date(toldMs),
      },
    ])
    model.slide()
    if (before !== undefined && before.generation >= said.generation) return
    if (isOfCall) {
      model.change(call, () => {
        call.records.set(eventKey, said)
        if (said.isMetered || before?.isMetered) call.state = 'settled'
      })
      return
    }
    const old = model.unreserved.get(eventKey)
    if (old?.isMetered) model.spendTokens(old.endedMs, -old.tokens)
    if (said.isMetered) model.spendTokens(endedMs, said.tokens)
    model.unreserved.set(eventKey, { ...said, endedMs })
  }

  async function moveClock(): Promise<void> {
    const ms =
      random.below(10) === 0 ? -random.below(3_600_000) : random.below(random.below(4) === 0 ? 3_600_000 : 20_000)
    await clock.move(ms)
    model.nowMs += ms
  }

  for (let step = 0; step < steps; step++) {
    const choice = random.below(100)
    const some = model.calls.size === 0 ? undefined : random.pick([...model.calls.values()])
    try {
      if (choice < 40 || some === undefined) await reserveOne()
      else if (choice < 60) await endOne(some)
      else if (choice < 78) await recordSome(some)
      else if (choice < 84) {
        await ask({ kind: 'extend', tenant, id: some.id, ttlMs: 60_000 })
        model.slide()
        if (some.state === 'held') some.expiresMs = Math.max(some.expiresMs, model.nowMs + 60_000)
      } else if (choice < 90) await sweep()
      else await moveClock()
    } catch (cause) {
      throw new Error(`seed ${seed}, step ${step}`, { cause })
    }
  }

  const { rows } = await pool.query<Record<string, number> & { limit_id: LimitId; window_start: Date | number }>(
    'select limit_id, window_start, granted::int, held::int, spent::int, free::int, debt::int from quota_balances',
  )
  model.slide()
  for (const { limit_id, window_start, ...balance } of rows) {
    const day = window_start instanceof Date ? Math.floor(window_start.getTime() / dayMs) : 0
    const { held, spent } = model.balance(limit_id, day)
    const granted = limits.find(({ id }) => id === limit_id)?.amount ?? 0
    const left = granted - held - spent
    const expected = { granted, held, spent, free: Math.max(0, left), debt: Math.max(0, -left) }
    assert.deepEqual(balance, expected, `seed ${seed}: ${limit_id} of day ${day}`)
  }
  assert.deepEqual((await pool.query('select * from quota_drift')).rows, [], `seed ${seed}`)
  assert.equal((await pool.query('select wrong::int from quota_check()')).rows[0].wrong, 0, `seed ${seed}`)
  await expectNoLeak(pool, seed, async () => {
    await clock.move(dayMs)
    await sweep()
  })
}

/** After the sweep nothing is held, and every threshold was told at most once. */
async function expectNoLeak(pool: pg.Pool, seed: number, sweepAll: () => Promise<void>): Promise<void> {
  await sweepAll()
  const { rows } = await pool.query('select limit_id, held from quota_balances where held <> 0')
  assert.deepEqual(rows, [], `seed ${seed}: held after the sweep`)
  const told = await pool.query(
    `select body ->> 'limitId' as id, body ->> 'percent' as percent, body ->> 'windowEnd' as ends from quota_outbox
     where body ->> 'limitId' <> 'rate' group by 1, 2, 3 having count(*) > 1`,
  )
  assert.deepEqual(told.rows, [], `seed ${seed}: told twice`)
}

function usedBelow(random: Random, below: number): Used {
  return { cost: random.below(below), tokens: random.below(below) }
}

function amountsOf({ cost, tokens }: Used): { readonly cost: bigint; readonly tokens: bigint } {
  return { cost: BigInt(cost), tokens: BigInt(tokens) }
}

/** Every connection of the ledger dies, wherever it is, while something is under way. */
async function loseConnections(postgres: TestPostgres, schema: string, underWay: Promise<unknown>): Promise<void> {
  const client = new pg.Client({ connectionString: postgres.engine.url })
  await client.connect()
  await client.query('select pg_terminate_backend(pid) from pg_stat_activity where application_name = $1', [schema])
  await client.end()
  await underWay
}

/** The server dies, wherever it is, and is started again by its keeper. */
async function killServer(postgres: TestPostgres, pool: pg.Pool, underWay: Promise<unknown>): Promise<void> {
  const { restarts, pid } = postgres.engine
  const before = restarts()
  process.kill(pid() ?? 0, 'SIGKILL')
  await underWay
  // Another process starts, recovers and listens: there is nothing of ours to wait for but its answer.
  while (restarts() === before || !(await canAnswer(pool))) await setTimeout(20)
}

async function canAnswer(pool: pg.Pool): Promise<boolean> {
  try {
    await pool.query('select 1')
    return true
  } catch {
    return false
  }
}
