// `npm run bench:queries`: the three lists that people wait for (the 50 latest turns of a tenant, one conversation, one user's
// day) over a week of ten million calls of a hundred tenants, on the embedded ClickHouse, through its port. Each round asks
// for another tenant, conversation, user and day. A line per list; `--calls`, `--tenants`, `--rounds`.
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { openClickHouse } from '@tallylight/storage/clickhouse/client.ts'
import { startEmbeddedClickHouse } from '@tallylight/storage/clickhouse/embedded.ts'
import { migrateClickHouse } from '@tallylight/storage/clickhouse/migrate.ts'
import { seededRandom } from '../random.ts'
import { conversationOf, seedTables, userOf } from './dashboards-seed.ts'
import { quantile } from './load.ts'

const { values } = parseArgs({
  options: {
    calls: { type: 'string', default: '10000000' },
    tenants: { type: 'string', default: '100' },
    rounds: { type: 'string', default: '40' },
  },
})
const calls = Number(values.calls)
const tenants = Number(values.tenants)
const nowUnixSeconds = Math.floor(Date.now() / 1000)
const daySeconds = 86_400

/** Of a call: each list is asked for what the seed made it of. */
type Place = { readonly tenant: string; readonly conversation: string; readonly user: string; readonly day: number }

const lists: Readonly<Record<string, (place: Place) => string>> = {
  'latest turns': ({ tenant }) =>
    `SELECT * FROM tallylight.turns WHERE TenantId = '${tenant}' ORDER BY Timestamp DESC LIMIT 50`,
  'latest turns of a day': ({ tenant }) =>
    `SELECT * FROM tallylight.turns WHERE TenantId = '${tenant}' AND Timestamp >= now() - ${daySeconds} ORDER BY Timestamp DESC LIMIT 50`,
  'turns of a conversation': ({ tenant, conversation }) =>
    `SELECT * FROM tallylight.turns WHERE TenantId = '${tenant}' AND ConversationId = '${conversation}' ORDER BY Timestamp`,
  'messages of a conversation': ({ tenant, conversation }) =>
    `SELECT * FROM tallylight.messages WHERE TenantId = '${tenant}' AND ConversationId = '${conversation}' ORDER BY Timestamp, SpanId, Direction, Index`,
  "a user's day": ({ tenant, user, day }) =>
    `SELECT * FROM tallylight.llm_calls WHERE TenantId = '${tenant}' AND UserId = '${user}'
       AND Timestamp >= fromUnixTimestamp(${nowUnixSeconds - (day + 1) * daySeconds})
       AND Timestamp < fromUnixTimestamp(${nowUnixSeconds - day * daySeconds}) ORDER BY Timestamp`,
}

await using stack = new AsyncDisposableStack()
const directory = await mkdtemp(join(tmpdir(), 'tallylight-bench-'))
stack.defer(() => rm(directory, { recursive: true, force: true }))
const engine = stack.use(await startEmbeddedClickHouse({ directory, port: 0, log: () => undefined }))
const { url, user, password } = engine
const clickhouse = stack.use(openClickHouse({ url, user, password, database: 'tallylight' }))
await migrateClickHouse(clickhouse)
console.error(`seeding ${calls} calls of ${tenants} tenants`)
await seedTables(
  clickhouse,
  { calls, tenants, nowUnixSeconds },
  new Set(['llm_call_rows', 'turn_rows', 'message_rows']),
)
const random = seededRandom(1)
for (const [list, statementOf] of Object.entries(lists)) {
  const times: number[] = []
  let rows = 0
  for (let round = 0; round < Number(values.rounds); round++) {
    // Turns and messages were made of every other call.
    const call = 2 * random.below(calls / 2)
    const place = {
      tenant: `tenant-${call % tenants}`,
      conversation: conversationOf(call, tenants),
      user: userOf(call),
      day: random.below(7),
    }
    const startedMs = performance.now()
    rows += (await clickhouse.query(statementOf(place))).length
    times.push(performance.now() - startedMs)
  }
  times.sort((a, b) => a - b)
  const at = (share: number): number => Number(quantile(times, share).toFixed(1))
  console.log(JSON.stringify({ list, rows, p50Ms: at(0.5), p95Ms: at(0.95), maxMs: at(1) }))
}
