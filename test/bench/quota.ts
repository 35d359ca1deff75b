// `npm run bench:quota`: reserve and settle, each durable before it is answered, three limits each, all of one tenant.
// In process: the ledger on an embedded Postgres. Over HTTP: a collector of its own, and this process as its client. At a
// rate: reservations leave at their times, and latencies count from then; of several runs the median. From a lease: in this
// process, without the ledger. With `--subjects` and `--entries` the ledger holds so many accounts and entries before it is
// measured, and with `--active` the calls are of so many of the subjects: the same work on a small ledger and on a large one.
// One JSON line.
import { readFile } from 'node:fs/promises'
import { loadavg } from 'node:os'
import { join } from 'node:path'
import { setImmediate, setTimeout } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { openTestLedger, type Rule, reserve, settle } from '@tallylight/collector/quota/testing.ts'
import { openLeasedAllowance } from '@tallylight/instrumentation/quota/lease.ts'
import { openPool } from '@tallylight/storage/postgres/connection.ts'
import { startTestPostgres } from '@tallylight/storage/postgres/testing.ts'
import type pg from 'pg'
import { startCollector } from '../collector-process.ts'
import { openHttpLoad } from './http-load.ts'
import { childrenOf, cpuSeconds } from './machine.ts'

const { values } = parseArgs({
  options: {
    pairs: { type: 'string' },
    parallel: { type: 'string' },
    rate: { type: 'string' },
    seconds: { type: 'string' },
    runs: { type: 'string' },
    subjects: { type: 'string' },
    entries: { type: 'string' },
    active: { type: 'string' },
  },
})
const pairs = Number(values.pairs ?? 20_000)
const parallel = Number(values.parallel ?? 256)
const rate = Number(values.rate ?? 2_000)
const seconds = Number(values.seconds ?? 5)
const runs = Number(values.runs ?? 5)
const users = Number(values.subjects ?? 100)
const entries = Number(values.entries ?? 0)
const active = Number(values.active ?? users)
if (
  ![pairs, parallel, rate, seconds, runs, users].every((each) => Number.isSafeInteger(each) && each > 0) ||
  !Number.isSafeInteger(entries) ||
  entries < 0 ||
  !(active >= 1 && active <= users)
) {
  console.error(
    'usage: npm run bench:quota -- [--pairs 20000] [--parallel 256] [--rate 2000] [--seconds 5] [--runs 5] [--subjects 100] [--entries 0] [--active SUBJECTS]',
  )
  process.exit(2)
}

const rules: readonly Rule[] = [
  { id: 'tenant', measure: 'cost', amount: 1e15 },
  { id: 'per-user', measure: 'tokens', amount: 1e12, each: 'user', window: 'day' },
  { id: 'calls', measure: 'requests', amount: 1e12, window: 'hour' },
]
const leasedCalls = 200_000

const inProcess = await measureInProcess()
await using collector = await startCollector()
for (const { id, ...rule } of rules) await putLimit(id, { window: 'ever', action: 'block', ...rule })
await fillCollector()
const load = openHttpLoad(collector.ports().api, 512)
const overHttp = await measurePairs(
  parallel,
  (at) => pairOverHttp(`http ${at}`, at),
  collector.pid(),
  await postmasterOf(collector.directory),
)
const atRate: (readonly number[])[] = []
for (let run = 0; run < runs; run++) atRate.push((await measureAtRate(run)).sort((a, b) => a - b))
await load.close()
const leasedMs = await measureLeased()
console.log(
  JSON.stringify({
    pairs,
    parallel,
    limitsPerCall: rules.length,
    subjects: users,
    active,
    entries,
    pairsPerSecondInProcess: inProcess.perSecond,
    cpuMicrosecondsInProcess: inProcess.cpuMicroseconds,
    pairsPerSecondOverHttp: overHttp.perSecond,
    cpuMicrosecondsOverHttp: overHttp.cpuMicroseconds,
    ratePerSecond: rate,
    reserveP50Ms: round(median(atRate.map((run) => shareOf(run, 0.5)))),
    reserveP99Ms: round(median(atRate.map((run) => shareOf(run, 0.99)))),
    leasedReserveP50Us: round(shareOf(leasedMs, 0.5) * 1000),
    leasedReserveP99Us: round(shareOf(leasedMs, 0.99) * 1000),
    loadAverage: round(loadavg()[0]),
  }),
)

/** Spread over all of them, as busy users are. */
function userOf(at: number): string {
  return `user ${(at % active) * Math.floor(users / active)}`
}

async function measureInProcess(): Promise<Measured> {
  await using postgres = await startTestPostgres()
  const { ledger, pool } = await openTestLedger(postgres, 'bench', rules)
  await fill(pool, 'acme')
  // Awaited here: Postgres is stopped when this function returns.
  const pair = async (at: number): Promise<void> => {
    const subject = { user: userOf(at), key: '', model: '', provider: '', conversation: '' }
    const reserved = await ledger.run(reserve(`call ${at}`, 1_000, { subject }))
    if (reserved.kind !== 'done') throw new Error(`not reserved: ${JSON.stringify(reserved)}`)
    const settled = await ledger.run(settle((reserved.body as { readonly id: string }).id, 900))
    if (settled.kind !== 'done') throw new Error(`not settled: ${JSON.stringify(settled)}`)
  }
  return await measurePairs(parallel, pair, undefined, postgres.engine.pid() ?? 0)
}

async function postmasterOf(directory: string): Promise<number> {
  const file = await readFile(join(directory, 'postgres', 'cluster', 'postmaster.pid'), 'utf8')
  return Number(file.split('\n')[0])
}

async function fillCollector(): Promise<void> {
  const password = (await readFile(join(collector.directory, 'postgres', 'owner.key'), 'utf8')).trim()
  const connectionString = `postgres://tallylight:${password}@127.0.0.1:${collector.ports().postgres}/tallylight`
  const pool = openPool({ connectionString, max: 1 }, () => undefined)
  await fill(pool, 'default')
  await pool.end()
}

/** Accounts of all users, and calls that were reserved and settled before: six entries each, of amounts that add up to 0. */
async function fill(pool: pg.Pool, tenant: string): Promise<void> {
  if (entries === 0) return
  await pool.query(
    `insert into quota_accounts (tenant, limit_id, subject, window_start, window_end, granted, free)
     select $1, 'per-user', 'user ' || n, date_trunc('day', now()), date_trunc('day', now()) + interval '1 day', 1e12, 1e12
     from generate_series(0, $2::int - 1) n`,
    [tenant, users],
  )
  await pool.query(
    `insert into quota_bookings (at, tenant, kind, account_ids, granted, held, spent)
     select now(), $1, 'grant', array_agg(id), array_agg(granted), array_agg(0), array_agg(0)
     from quota_accounts where tenant = $1 and limit_id = 'per-user' group by id / 1000`,
    [tenant],
  )
  await pool.query(
    `with calls as (
       select uuidv7(make_interval(secs => (n - $2) / 100.0)) as id, n, a.id as account
       from generate_series(1, $2::int) n
       join quota_accounts a on a.tenant = $1 and a.limit_id = 'per-user' and a.subject = 'user ' || n % $3
     ), made as (
       insert into quota_reservation_rows (id, tenant, call_id, body_hash, state, subject, is_lease, account_ids, measures,
         amounts, recorded, answer, outcome, created_at, expires_at, ended_at)
       select id, $1, 'before ' || n, repeat('0', 64), 'settled', '{}', false, array[account], array['tokens'], array[0], array[0],
         json_build_object('id', id, 'text', repeat('x', 500)), json_build_object('text', repeat('x', 200)),
         now(), now(), now()
       from calls
     )
     insert into quota_bookings (at, tenant, kind, reservation, account_ids, granted, held, spent)
     select now(), $1, kind, id, array[account, account, account], array[0, 0, 0], array[0, 0, 0], array[0, 0, 0]
     from calls cross join unnest(array['reserve', 'settle']) kind`,
    [tenant, Math.ceil(entries / 6), users],
  )
  // As autovacuum and the check of each minute will have, by the time that a ledger is this large.
  await pool.query('vacuum analyze')
  await pool.query('select quota_check()')
}

/** What reservations out of a lease take, ascending. */
async function measureLeased(): Promise<readonly number[]> {
  const holds = rules.map(({ measure }) => ({ measure, amount: 1e15 }))
  const allowance = openLeasedAllowance({
    ask: async () => ({ id: 'lease', callId: 'lease', holds }),
    end: async () => undefined,
    ttlMs: 600_000,
    clockMs: () => performance.now(),
  })
  const wanted = { inputTokens: 800, outputTokens: 200 }
  allowance.reserve(wanted)
  // Until the lease is there.
  await setImmediate()
  const times: number[] = []
  for (let calls = 0; calls < leasedCalls; calls++) {
    const startedMs = performance.now()
    const call = allowance.reserve(wanted)
    times.push(performance.now() - startedMs)
    if (call === undefined) throw new Error('the lease granted nothing')
    call.settle({ ...wanted, outputTokens: 150 })
  }
  return times.slice(leasedCalls / 10).sort((a, b) => a - b)
}

type Measured = {
  readonly perSecond: number
  /** Of each pair: this process (the client, and in process the ledger), the collector, and all of Postgres. */
  readonly cpuMicroseconds: { readonly client: number; readonly collector?: number; readonly postgres: number }
}

/** After a tenth of the pairs that does not count. */
async function measurePairs(
  width: number,
  pair: (at: number) => Promise<void>,
  collectorPid: number | undefined,
  postgresPid: number,
): Promise<Measured> {
  let next = 0
  const run = async (until: number): Promise<void> => {
    await Promise.all(
      Array.from({ length: width }, async () => {
        while (next < until) await pair(next++)
      }),
    )
  }
  const used = (): { readonly client: number; readonly collector?: number; readonly postgres: number } => ({
    client: cpuSeconds(process.pid),
    ...(collectorPid === undefined ? {} : { collector: cpuSeconds(collectorPid) }),
    postgres: childrenOf(postgresPid).reduce((sum, pid) => sum + cpuSeconds(pid), 0),
  })
  await run(pairs / 10)
  const startedMs = performance.now()
  const before = used()
  await run(pairs / 10 + pairs)
  const perSecond = Math.round(pairs / ((performance.now() - startedMs) / 1000))
  const after = used()
  const each = (seconds = 0): number => Math.round((seconds / pairs) * 1e6)
  return {
    perSecond,
    cpuMicroseconds: {
      client: each(after.client - before.client),
      ...(collectorPid === undefined ? {} : { collector: each((after.collector ?? 0) - (before.collector ?? 0)) }),
      postgres: each(after.postgres - before.postgres),
    },
  }
}

async function measureAtRate(run: number): Promise<number[]> {
  const latencies: number[] = []
  const underWay: Promise<void>[] = []
  const startMs = performance.now()
  for (let sent = 0; sent < rate * seconds; ) {
    for (; startMs + (sent / rate) * 1000 <= performance.now() && sent < rate * seconds; sent++) {
      const dueMs = startMs + (sent / rate) * 1000
      underWay.push(
        reserveOverHttp(`rate ${run} ${sent}`, sent).then(() => void latencies.push(performance.now() - dueMs)),
      )
    }
    await setTimeout(1)
  }
  await Promise.all(underWay)
  return latencies
}

async function reserveOverHttp(callId: string, at: number): Promise<{ readonly id?: string }> {
  const estimate = { inputTokens: 800, outputTokensMax: 200 }
  const body = { callId, user: userOf(at), model: 'gpt-4o', provider: 'openai', estimate }
  return post('reservations', body, 201)
}

async function pairOverHttp(callId: string, at: number): Promise<void> {
  const reserved = await reserveOverHttp(callId, at)
  await post(`reservations/${reserved.id}/settle`, { usage: { inputTokens: 800, outputTokens: 150 } }, 200)
}

async function post(path: string, body: object, wanted: number): Promise<{ readonly id?: string }> {
  const { status, text } = await load.post(`/v1/quota/${path}`, JSON.stringify(body))
  if (status !== wanted) throw new Error(`POST ${path}: ${status} ${text}`)
  return JSON.parse(text)
}

async function putLimit(id: string, limit: object): Promise<void> {
  const response = await fetch(`http://127.0.0.1:${collector.ports().api}/v1/quota/limits/${id}`, {
    method: 'PUT',
    headers: { Authorization: `Bearer ${collector.adminKey}` },
    body: JSON.stringify(limit),
  })
  if (response.status !== 201) throw new Error(`PUT ${id}: ${response.status} ${await response.text()}`)
}

function shareOf(ascending: readonly number[], share: number): number {
  return ascending[Math.floor(ascending.length * share)] ?? 0
}

function median(values: readonly number[]): number {
  return shareOf(
    [...values].sort((a, b) => a - b),
    0.5,
  )
}

function round(value = 0): number {
  return Number(value.toFixed(2))
}
