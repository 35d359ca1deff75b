// A ClickHouse of somebody's own in a time zone that has neither the days nor the hours of UTC.
import { appendIndex, type Block, openBlock } from '@tallylight/storage/clickhouse/block.ts'
import { type ClickHouse, insertSettings } from '@tallylight/storage/clickhouse/client.ts'
import { migrateClickHouse } from '@tallylight/storage/clickhouse/migrate.ts'
import { nativeBlock } from '@tallylight/storage/clickhouse/native.ts'
import { type TargetTable, verifySchema } from '@tallylight/storage/clickhouse/schema.ts'
import { sliceBlock } from '@tallylight/storage/clickhouse/slice.ts'
import { appendText, appendUint16, appendUint64 } from '@tallylight/storage/clickhouse/stream.ts'
import { quarantineTable } from '@tallylight/storage/clickhouse/tables.ts'
import { startTestEngine, type TestEngine } from '@tallylight/storage/clickhouse/testing.ts'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { Fact } from '../genai/fact.ts'
import { factsOf } from '../genai/lift.ts'
import { type SpanSketch, sketchSpan } from '../genai/testing.ts'
import { internBytes } from '../otlp/walk.ts'
import { bringPart } from './part.ts'
import { openTestResolver, storedOf, storeFacts } from './testing.ts'

let engine: TestEngine
let clickhouse: ClickHouse
let targets: ReadonlyMap<string, TargetTable>
beforeAll(async () => {
  engine = await startTestEngine('Asia/Kolkata')
  clickhouse = await engine.open('zone', false)
  await migrateClickHouse(clickhouse)
  const schema = await verifySchema(clickhouse)
  if (schema.kind !== 'verified') throw new Error(schema.problems.join('; '))
  targets = schema.targets
})
afterAll(() => engine[Symbol.asyncDispose]())

/** A row for each of the seconds of a day in UTC, with the second as its record. */
function blockOf(day: number, seconds: readonly number[]): Block<typeof quarantineTable> {
  const block = openBlock(quarantineTable, day)
  const { columns } = block
  for (const second of seconds) {
    const unixNano = BigInt(day * 86_400 + second) * 1_000_000_000n
    for (const word of ['TenantId', 'Signal', 'Reason', 'Format'] as const)
      appendIndex(columns[word], internBytes(columns[word], Buffer.from(word)))
    appendUint16(columns.RetentionDays.data, 30)
    appendUint64(columns.Time.data, Number(unixNano & 0xffff_ffffn), Number(unixNano >> 32n))
    appendText(columns.Message.data, Buffer.from('message'))
    appendText(columns.Record.data, Buffer.from(`${second}`))
    block.rows++
  }
  return block
}

const day = Math.floor(Date.now() / 86_400_000) - 2
// Midnight there is at 66,600 here.
const seconds = [66_000, 66_500, 66_700, 67_000]
const block = blockOf(day, seconds)

/** What was inserted of a segment before the answer was lost, and what is there when it was brought again. */
async function broughtAgain(segment: string, rows: number, lost: () => Promise<void>): Promise<readonly number[]> {
  const target = targets.get('quarantine') as TargetTable
  const names = target.columns.map(([name]) => name)
  const settings = { ...insertSettings, insert_deduplication_token: `${segment}:quarantine:${day}` }
  const before = nativeBlock(sliceBlock(block, 0, rows), target.columns, segment)
  expect(await clickhouse.insertNative(target.name, names, settings, before)).toMatchObject({ kind: 'inserted' })
  await lost()
  const options = {
    clickhouse,
    now: Date.now,
    clockMs: () => performance.now(),
    bounds: { retryMsMin: 1, retryMsMax: 1, refusedRowsMax: 10, graceMs: 0 },
    onProblem: ({ message }: { readonly message: string }) => expect.fail(message),
    onInsert: () => undefined,
    segment: { name: segment, createdUnixMs: Date.now() },
    part: { key: `7:${day}`, day, name: 'quarantine', block, signal: 'logs' as const },
    target,
    targets,
    settings: insertSettings,
  }
  expect(await bringPart(options, true)).toEqual({ kind: 'done', refusedRows: 0 })
  const there = await clickhouse.query<{ second: number }>(
    `SELECT toUInt32(Record) AS second FROM zone.quarantine WHERE Segment = '${segment}' ORDER BY second`,
  )
  return there.map(({ second }) => second)
}

test('zone: of a day that the server has as two, the insert that was cut between them is completed', async () => {
  expect(await broughtAgain('j-000000000001', 2, async () => undefined)).toEqual(seconds)
})

test('zone: rows that the server has lost, and still knows the insert of, are brought again', async () => {
  const lose = (): Promise<void> =>
    clickhouse.command(
      `ALTER TABLE zone.quarantine DELETE WHERE Segment = 'j-000000000002' SETTINGS mutations_sync = 2`,
    )
  expect(await broughtAgain('j-000000000002', 4, lose)).toEqual(seconds)
})

const chat = {
  'gen_ai.operation.name': 'chat',
  'gen_ai.provider.name': 'openai',
  'gen_ai.request.model': 'gpt-4o-mini',
  'gen_ai.usage.input_tokens': 100,
  'gen_ai.usage.output_tokens': 10,
}

const cases: readonly (readonly [minute: number, isRestarted: boolean])[] = [
  [10, false],
  [40, false],
  [10, true],
  [40, true],
]
test.each(cases)(
  'zone: a call at minute %i that another one supersedes is counted once, after a restart too: %s',
  async (minute, isRestarted) => {
    const traceId = `${minute}${isRestarted ? 1 : 0}`.padStart(32, '0')
    const hour = Math.floor(Date.now() / 3_600_000) - 3
    const startUnixNano = BigInt(hour * 3600 + minute * 60) * 1_000_000_000n
    const factsOfSpan = (sketch: SpanSketch): readonly Fact[] =>
      factsOf(sketchSpan({ traceId, startUnixNano, endUnixNano: startUnixNano + 1000n, attributes: chat, ...sketch }))
        .facts
    const outer = factsOfSpan({ spanId: '0000000000000001' })
    const inner = factsOfSpan({ spanId: '0000000000000002', parentSpanId: '0000000000000001' })
    const first = openTestResolver(clickhouse, targets)
    await storeFacts(clickhouse, outer)
    await first.resolve(storedOf(outer), () => undefined)
    await storeFacts(clickhouse, inner)
    await (isRestarted ? openTestResolver(clickhouse, targets) : first).resolve(storedOf(inner), () => undefined)
    const calls = await clickhouse.query(`SELECT SpanId FROM zone.llm_calls WHERE TraceId = '${traceId}'`)
    expect(calls).toEqual([{ SpanId: '0000000000000002' }])
  },
)
