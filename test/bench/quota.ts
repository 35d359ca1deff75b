// `npm run bench:quota`: reserve and settle, each durable before it is answered, three limits each, all of one tenant.
// In process: the ledger on an embedded Postgres. Over HTTP: a collector of its own, and this process as its client. At a
// rate: reservations leave at their times, and latencies count from then. One JSON line.
import { Agent, request } from 'node:http'
import { loadavg } from 'node:os'
import { setTimeout } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { openTestLedger, type Rule, reserve, settle } from '@tallylight/collector/quota/testing.ts'
import { startTestPostgres } from '@tallylight/storage/postgres/testing.ts'
import { startCollector } from '../collector-process.ts'

const { values } = parseArgs({
  options: {
    pairs: { type: 'string' },
    parallel: { type: 'string' },
    rate: { type: 'string' },
    seconds: { type: 'string' },
  },
})
const pairs = Number(values.pairs ?? 20_000)
const parallel = Number(values.parallel ?? 256)
const rate = Number(values.rate ?? 2_000)
const seconds = Number(values.seconds ?? 10)
if (![pairs, parallel, rate, seconds].every((each) => Number.isSafeInteger(each) && each > 0)) {
  console.error('usage: npm run bench:quota -- [--pairs 20000] [--parallel 256] [--rate 2000] [--seconds 10]')
  process.exit(2)
}

const rules: readonly Rule[] = [
  { id: 'tenant', measure: 'cost', amount: 1e15 },
  { id: 'per-user', measure: 'tokens', amount: 1e12, each: 'user', window: 'day' },
  { id: 'calls', measure: 'requests', amount: 1e12, window: 'hour' },
]
const users = 100
const agent = new Agent({ keepAlive: true, maxSockets: 512 })

const inProcess = await measureInProcess()
await using collector = await startCollector()
for (const { id, ...rule } of rules)
  await call('PUT', `limits/${id}`, { window: 'ever', action: 'block', ...rule }, 200)
const overHttp = await measurePairs(parallel, (at) => pairOverHttp(`http ${at}`, at))
const latenciesMs = await measureAtRate()
latenciesMs.sort((a, b) => a - b)
console.log(
  JSON.stringify({
    pairs,
    parallel,
    limitsPerCall: rules.length,
    pairsPerSecondInProcess: Math.round(inProcess),
    pairsPerSecondOverHttp: Math.round(overHttp),
    ratePerSecond: rate,
    reserveP50Ms: round(latenciesMs[latenciesMs.length >> 1]),
    reserveP99Ms: round(latenciesMs[Math.floor(latenciesMs.length * 0.99)]),
    loadAverage: round(loadavg()[0]),
  }),
)
agent.destroy()

async function measureInProcess(): Promise<number> {
  await using postgres = await startTestPostgres()
  const { ledger } = await openTestLedger(postgres, 'bench', rules)
  return measurePairs(parallel, async (at) => {
    const subject = { user: `user ${at % users}`, key: '', model: '', provider: '', conversation: '' }
    const reserved = await ledger.run(reserve(`call ${at}`, 1_000, { subject }))
    if (reserved.kind !== 'done') throw new Error(`not reserved: ${JSON.stringify(reserved)}`)
    const settled = await ledger.run(settle((reserved.body as { readonly id: string }).id, 900))
    if (settled.kind !== 'done') throw new Error(`not settled: ${JSON.stringify(settled)}`)
  })
}

/** Pairs per second, after a tenth of them that does not count. */
async function measurePairs(width: number, pair: (at: number) => Promise<void>): Promise<number> {
  let next = 0
  const run = async (until: number): Promise<void> => {
    await Promise.all(
      Array.from({ length: width }, async () => {
        while (next < until) await pair(next++)
      }),
    )
  }
  await run(pairs / 10)
  const startedMs = performance.now()
  await run(pairs / 10 + pairs)
  return pairs / ((performance.now() - startedMs) / 1000)
}

async function measureAtRate(): Promise<number[]> {
  const latencies: number[] = []
  const underWay: Promise<void>[] = []
  const startMs = performance.now()
  for (let sent = 0; sent < rate * seconds; ) {
    for (; startMs + (sent / rate) * 1000 <= performance.now() && sent < rate * seconds; sent++) {
      const dueMs = startMs + (sent / rate) * 1000
      underWay.push(pairOverHttp(`rate ${sent}`, sent, () => latencies.push(performance.now() - dueMs)))
    }
    await setTimeout(1)
  }
  await Promise.all(underWay)
  return latencies
}

async function pairOverHttp(callId: string, at: number, onReserved: () => void = () => undefined): Promise<void> {
  const estimate = { inputTokens: 800, outputTokensMax: 200 }
  const body = { callId, user: `user ${at % users}`, model: 'gpt-4o', provider: 'openai', estimate }
  const reserved = await call('POST', 'reservations', body, 201)
  onReserved()
  await call('POST', `reservations/${reserved.id}/settle`, { usage: { inputTokens: 800, outputTokens: 150 } }, 200)
}

async function call(method: string, path: string, body: object, wanted: number): Promise<{ readonly id?: string }> {
  const bytes = Buffer.from(JSON.stringify(body))
  return new Promise((resolve, reject) => {
    const sent = request(
      {
        agent,
        host: '127.0.0.1',
        port: collector.ports().api,
        method,
        path: `/v1/quota/${path}`,
        headers: {
          'Content-Length': bytes.length,
          ...(method === 'PUT' ? { Authorization: `Bearer ${collector.adminKey}` } : {}),
        },
      },
      (response) => {
        const chunks: Buffer[] = []
        response.on('data', (chunk: Buffer) => chunks.push(chunk))
        response.on('end', () => {
          const text = Buffer.concat(chunks).toString()
          if (response.statusCode === wanted || response.statusCode === wanted + 1) resolve(JSON.parse(text))
          else reject(new Error(`${method} ${path}: ${response.statusCode} ${text}`))
        })
      },
    )
    sent.on('error', reject)
    sent.end(bytes)
  })
}

function round(value = 0): number {
  return Number(value.toFixed(2))
}
