// The disk under a collector is full, fails, or gives back other bytes than it took.
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { frameMagic } from '@tallylight/collector/journal/frame.ts'
import { expect, test } from 'vitest'
import { type CollectorProcess, startCollector } from '../collector-process.ts'
import { spansRequest } from '../spans.ts'
import { openDoor } from './door.ts'
import { writePlan } from './fault-plan.ts'
import { countOf, openOwner, send, spans, startServer, urlOf } from './own-server.ts'
import { openVolume } from './volume.ts'

const spansPerRequest = 50
const MiB = 1024 * 1024

/** A client that sends one request after the other, and knows which spans were answered. */
function openLoad(collector: CollectorProcess) {
  let sent = 0
  let answered = 0
  return {
    answered: () => answered,
    /** The status of the next request; those that were refused are not sent again, so that what is stored tells. */
    next: async (): Promise<number> => {
      const first = sent
      sent += spansPerRequest
      const fresh = spans(spansPerRequest, () => 'disk').map((span, at) => ({
        ...span,
        id: (first + at + 1).toString(16).padStart(16, '0'),
      }))
      const status = await send(collector, spansRequest(fresh))
      if (status === 200) answered += spansPerRequest
      return status
    },
  }
}

async function books(collector: CollectorProcess): Promise<Readonly<Record<string, number>>> {
  const total = (name: string): Promise<number> => collector.metric(`tallylight_${name}_records_total`)
  const found = {
    accepted: await total('accepted'),
    stored: await total('stored'),
    quarantined: await total('quarantined'),
    duplicate: await total('duplicate'),
  }
  expect(found.accepted).toBe(found.stored + found.quarantined + found.duplicate)
  return found
}

async function storedOnce(collector: CollectorProcess): Promise<number> {
  const [row] = await collector.query<{ rows: number; ids: number }>(
    'SELECT toUInt32(count()) AS rows, toUInt32(uniqExact(SpanId)) AS ids FROM tallylight.otel_traces',
  )
  expect(row?.rows).toBe(row?.ids)
  return row?.rows ?? 0
}

test('disk: full for the collector and both engines: 503 within a second, nobody ends, and it goes on within 5 s of space', async () => {
  await using stack = new AsyncDisposableStack()
  const volume = stack.use(openVolume(700 * MiB))
  const directory = await mkdtemp(join(tmpdir(), 'tallylight-disk-'))
  stack.defer(() => rm(directory, { recursive: true }))
  const configPath = join(directory, 'config.json')
  await writeFile(configPath, JSON.stringify({ journal: { reserveBytes: 16 * MiB } }))
  const collector = stack.use(
    await startCollector({ TALLYLIGHT_CONFIG: configPath }, { volume: volume.directory, faultPlan: volume.faultPlan }),
  )
  const pid = collector.pid()
  const load = openLoad(collector)
  for (let at = 0; at < 10; at++) expect(await load.next()).toBe(200)
  await volume.fill()
  const fullMs = performance.now()
  let status = 200
  while (status === 200) status = await load.next()
  expect(status).toBe(503)
  expect(performance.now() - fullMs).toBeLessThan(1000)
  for (const until = performance.now() + 3000; performance.now() < until; await setTimeout(50)) {
    expect(await load.next()).toBe(503)
  }
  await volume.free()
  const freedMs = performance.now()
  while ((await load.next()) !== 200) await setTimeout(50)
  expect(performance.now() - freedMs).toBeLessThan(5000)
  await collector.drained()
  expect(collector.pid()).toBe(pid)
  expect(await storedOnce(collector)).toBe(load.answered())
  expect(await books(collector)).toMatchObject({ accepted: load.answered(), quarantined: 0 })
})

test('disk: syncs that fail are answered 503, and what was answered is stored once, nothing else', async () => {
  await using stack = new AsyncDisposableStack()
  const directory = await mkdtemp(join(tmpdir(), 'tallylight-disk-'))
  stack.defer(() => rm(directory, { recursive: true }))
  const faultPlan = join(directory, 'plan')
  const collector = stack.use(await startCollector({}, { faultPlan }))
  const load = openLoad(collector)
  let refused = 0
  for (let round = 0; round < 10; round++) {
    writePlan(faultPlan, [
      { point: 'write', act: 'EIO', skip: round % 3 },
      // The cut of what the failed write may have left fails as well.
      ...(round % 2 === 0 ? [{ point: 'truncate', act: 'EIO', skip: 0 } as const] : []),
    ])
    for (let at = 0; at < 8; at++) {
      const status = await load.next()
      if (status !== 200) expect(status).toBe(503)
      if (status === 503) refused++
    }
  }
  expect(refused).toBeGreaterThanOrEqual(10)
  await collector.kill('SIGKILL')
  await collector.start()
  await collector.drained()
  expect(await storedOnce(collector)).toBe(load.answered())
  expect(await books(collector)).toMatchObject({ accepted: load.answered(), quarantined: 0 })
})

/** Where the frames of a segment begin. */
function framesOf(segment: Buffer): readonly number[] {
  const found: number[] = []
  for (let at = segment.indexOf(frameMagic); at >= 0; at = segment.indexOf(frameMagic, at + 1)) found.push(at)
  return found
}

const flip = (bytes: Buffer, at: number): Buffer => {
  const flipped = Buffer.from(bytes)
  flipped[at] = (flipped[at] as number) ^ 0x10
  return flipped
}

/** What a disk does to a segment of three frames, and how many of them are lost with it. */
const damages: readonly {
  readonly what: string
  readonly damage: (segment: Buffer, frames: readonly number[]) => Buffer
  readonly lost: number
}[] = [
  { what: 'rows of a frame', damage: (bytes, [, , third = 0]) => flip(bytes, third - 3), lost: 1 },
  { what: 'head of a frame', damage: (bytes, [, second = 0]) => flip(bytes, second + 40), lost: 1 },
  { what: 'length of a frame', damage: (bytes, [, second = 0]) => flip(bytes, second + 9), lost: 1 },
  { what: 'end', damage: (bytes) => bytes.subarray(0, bytes.length - 10), lost: 1 },
  { what: 'header', damage: (bytes) => flip(bytes, 100), lost: 0 },
  { what: 'first bytes', damage: (bytes) => flip(bytes, 2), lost: 0 },
  { what: 'everything', damage: (bytes) => bytes.subarray(0, 0), lost: 3 },
  // What a crash leaves behind the last frame.
  { what: 'nothing', damage: (bytes) => Buffer.concat([bytes, Buffer.alloc(5000)]), lost: 0 },
]

test('disk: a journal of broken segments starts, stores every frame that can be read, and counts the records of the others', async () => {
  await using stack = new AsyncDisposableStack()
  const server = await startServer(stack)
  const door = stack.use(await openDoor({ port: server.port }))
  const collector = stack.use(await startCollector({ TALLYLIGHT_CLICKHOUSE_URL: urlOf(server, door.port) }))
  await door.shut()
  const load = openLoad(collector)
  for (const [at] of damages.entries()) {
    for (let frame = 0; frame < 3; frame++) expect(await load.next()).toBe(200)
    while ((await collector.metric('tallylight_journal_segments')) <= at) await setTimeout(20)
  }
  await collector.kill('SIGKILL')
  const journal = join(collector.directory, 'journal')
  const segments = (await readdir(journal)).filter((name) => name.endsWith('.segment')).sort()
  expect(segments).toHaveLength(damages.length)
  for (const [at, name] of segments.entries()) {
    const bytes = await readFile(join(journal, name))
    const frames = framesOf(bytes)
    expect(frames).toHaveLength(3)
    await writeFile(join(journal, name), damages[at]?.damage(bytes, frames) ?? bytes)
  }
  await collector.start()
  await door.open()
  await collector.drained()
  const lost = damages.reduce((sum, damage) => sum + damage.lost, 0)
  const stored = load.answered() - lost * spansPerRequest
  const owner = openOwner(server, stack)
  expect(await countOf(owner, 'otel_traces')).toEqual({ rows: stored, ids: stored })
  const found = { accepted: load.answered(), stored, quarantined: lost * spansPerRequest, duplicate: 0 }
  expect(await books(collector)).toEqual(found)
  const kept = (await readdir(journal)).filter((name) => name.endsWith('.corrupt'))
  expect(await collector.metric('tallylight_journal_corrupt_frames')).toBe(kept.length)
  expect(collector.log()).toMatch(/corrupt_header/)
  await collector.kill('SIGTERM')
  await collector.start()
  expect(await books(collector)).toEqual(found)
})
