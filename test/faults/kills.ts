// Kills a collector again and again while clients send, then counts by id: what was answered must be there exactly once.
// The clients behave as exporters do: what was not answered they send again, byte for byte.
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { type CollectorProcess, startCollector } from '../collector-process.ts'
import { seededRandom } from '../random.ts'
import { spansRequest } from '../spans.ts'
import { type FaultStep, writePlan } from './fault-plan.ts'

export type KillsResult = {
  readonly kills: number
  readonly answered: number
  readonly lost: number
  readonly doubled: number
  readonly accepted: number
  readonly stored: number
  readonly duplicate: number
  readonly quarantined: number
}

const clientCount = 4
const spansPerRequest = 20

/** `collector`: killed with SIGKILL at any time, and its engines with it. `point`: at a named step of its journal, one
 *  after the other. `clickhouse`, `postgres`: the embedded engine alone. */
export type Victim = 'collector' | 'point' | 'clickhouse' | 'postgres'

const points = ['create', 'write', 'rename', 'remove'] as const
/** Each step of the journal, before and after it, and the cut that follows a write that failed. */
export const namedPoints: readonly (readonly FaultStep[])[] = [
  ...points.flatMap((point) =>
    (['kill_before', 'kill_after'] as const).map((act): readonly FaultStep[] => [{ point, act, skip: 0 }]),
  ),
  ...(['kill_before', 'kill_after'] as const).map((act): readonly FaultStep[] => [
    { point: 'frame', act: 'EIO', skip: 0 },
    { point: 'truncate', act, skip: 0 },
  ]),
]
const pointMsMax = 60_000

export async function runKills(options: {
  readonly kills: number
  readonly seed: number
  readonly victims: readonly Victim[]
}): Promise<KillsResult> {
  const random = seededRandom(options.seed)
  const directory = await mkdtemp(join(tmpdir(), 'tallylight-kills-'))
  await using stack = new AsyncDisposableStack()
  stack.defer(() => rm(directory, { recursive: true }))
  const faultPlan = join(directory, 'plan')
  const collector = stack.use(await startCollector({}, { faultPlan }))
  const answered: string[] = []
  let isOver = false
  let point = 0
  const clients = Array.from({ length: clientCount }, async (_, client) => {
    for (let request = 0; !isOver; request++) {
      const ids = Array.from({ length: spansPerRequest }, (_, span) => spanId(client, request, span))
      await sendUntilAnswered(collector, requestOf(ids, request % 7 === 0))
      answered.push(...ids)
    }
  })
  for (let kill = 0; kill < options.kills; kill++) {
    await waitForAnswers(answered, answered.length + 1 + random.below(2000))
    const victim = random.pick(options.victims)
    if (kill > 0 && kill % 50 === 0) console.error(`${kill} kills, ${answered.length} spans answered`)
    switch (victim) {
      case 'collector':
        await collector.kill('SIGKILL')
        await collector.start()
        break
      case 'point': {
        const steps = namedPoints[point++ % namedPoints.length] ?? []
        writePlan(
          faultPlan,
          steps.map((step, at) => ({ ...step, skip: at === 0 ? random.below(3) : 0 })),
        )
        await diesAtPoint(collector, JSON.stringify(steps))
        await collector.start()
        break
      }
      case 'clickhouse':
        killClickHouse(collector)
        break
      case 'postgres':
        await killPostgres(collector)
        break
      default:
        victim satisfies never
    }
  }
  isOver = true
  await Promise.all(clients)
  // A clean stop seals the lane of late days, which would stay open for a minute.
  await collector.kill('SIGTERM')
  await collector.start()
  await collector.drained()
  // Awaited here: the collector is stopped when this function returns.
  return await count(collector, options.kills, answered)
}

async function count(collector: CollectorProcess, kills: number, answered: readonly string[]): Promise<KillsResult> {
  const rows = await collector.query<{ SpanId: string; rows: number }>(
    'SELECT SpanId, toUInt32(count()) AS rows FROM tallylight.otel_traces GROUP BY SpanId',
  )
  const stored = new Map(rows.map((row) => [row.SpanId, row.rows]))
  const lost = answered.filter((id) => !stored.has(id)).length
  const doubled = [...stored.values()].filter((copies) => copies > 1).length
  assert.equal(new Set(answered).size, answered.length)
  const total = (name: string): Promise<number> => collector.metric(`tallylight_${name}_records_total`)
  return {
    kills,
    answered: answered.length,
    lost,
    doubled,
    accepted: await total('accepted'),
    stored: await total('stored'),
    duplicate: await total('duplicate'),
    quarantined: await total('quarantined'),
  }
}

/** Resolves when so many spans were answered: the next kill then falls into work and not into a pause. */
async function waitForAnswers(answered: readonly string[], wanted: number): Promise<void> {
  while (answered.length < wanted) await setTimeout(5)
}

async function diesAtPoint(collector: CollectorProcess, steps: string): Promise<void> {
  const isInTime = await Promise.race([
    collector.ended().then(() => true),
    setTimeout(pointMsMax, false, { ref: false }),
  ])
  assert(isInTime, `the collector did not come to ${steps} in ${pointMsMax} ms`)
}

async function killPostgres(collector: CollectorProcess): Promise<void> {
  const path = join(collector.directory, 'postgres', 'cluster', 'postmaster.pid')
  try {
    process.kill(Number((await readFile(path, 'utf8')).split('\n')[0]), 'SIGKILL')
  } catch (error) {
    // The one killed before is being started again.
    if (!['ENOENT', 'ESRCH'].includes(String((error as NodeJS.ErrnoException).code))) throw error
  }
}

function killClickHouse(collector: CollectorProcess): void {
  const { stdout } = spawnSync('pgrep', ['-P', String(collector.pid()), '-f', 'embedded-child'], { encoding: 'utf8' })
  // None while the one killed before is being started again.
  if (stdout !== '') process.kill(Number(stdout.trim().split('\n')[0]), 'SIGKILL')
}

/** As an exporter: the same bytes until there is an answer. */
async function sendUntilAnswered(collector: CollectorProcess, body: Buffer): Promise<void> {
  for (;;) {
    try {
      const response = await fetch(`http://127.0.0.1:${collector.ports().otlpHttp}/v1/traces`, {
        method: 'POST',
        body: new Uint8Array(body),
        headers: { 'Content-Type': 'application/x-protobuf' },
      })
      const answer = Buffer.from(await response.arrayBuffer())
      if (response.status === 200) {
        assert.equal(answer.length, 0, 'every span of the request was accepted')
        return
      }
      assert.equal(response.status, 503, `answered ${response.status}: ${answer.toString()}`)
    } catch (error) {
      if (error instanceof assert.AssertionError) throw error
    }
    await setTimeout(20)
  }
}

function spanId(client: number, request: number, span: number): string {
  return (
    (client + 1).toString(16).padStart(4, '0') +
    request.toString(16).padStart(8, '0') +
    span.toString(16).padStart(4, '0')
  )
}

/** A late request holds spans of ten days ago too, so that both lanes of the journal are in play. */
function requestOf(ids: readonly string[], isLate: boolean): Buffer {
  const now = BigInt(Date.now()) * 1_000_000n
  return spansRequest(
    ids.map((id, at) => ({
      id,
      name: 'kill',
      startUnixNano: isLate && at % 2 === 0 ? now - 864_000_000_000_000n : now,
    })),
  )
}
