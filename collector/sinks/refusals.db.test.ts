import type { ClickHouse } from '@tallylight/storage/clickhouse/client.ts'
import { startTestEngine, type TestEngine } from '@tallylight/storage/clickhouse/testing.ts'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { knownRefusals, remedyOf } from './refusals.ts'

let engine: TestEngine
let client: ClickHouse
beforeAll(async () => {
  engine = await startTestEngine()
  client = await engine.open('refusals')
})
afterAll(() => engine[Symbol.asyncDispose]())

test('refusals: every code has the name that the engine gives it, and stands once', async () => {
  const named = await client.query<{ code: number; name: string }>(
    'SELECT arrayJoin({codes:Array(UInt16)}) AS code, errorCodeToName(code) AS name',
    { codes: knownRefusals.map(({ code }) => code) },
  )
  expect(named).toEqual(knownRefusals.map(({ code, name }) => ({ code, name })))
  expect(new Set(named.map(({ code }) => code)).size).toBe(named.length)
})

/** What a user adds to a table, of the text `SpanName`, and a text that it does not take. */
const additions: readonly (readonly [addition: string, bad: string])[] = [
  ['x UUID MATERIALIZED toUUID(SpanName)', 'no uuid'],
  ['x IPv4 MATERIALIZED toIPv4(SpanName)', '1.2.3'],
  ['x IPv6 MATERIALIZED toIPv6(SpanName)', 'g::1'],
  ['x UInt8 MATERIALIZED toUInt8(SpanName)', 'seven'],
  ['x Bool MATERIALIZED toBool(SpanName)', 'perhaps'],
  ['x Date MATERIALIZED toDate(SpanName)', 'today'],
  ['x DateTime MATERIALIZED toDateTime(SpanName)', 'now'],
  ['x DateTime MATERIALIZED parseDateTimeBestEffort(SpanName)', 'soon'],
  ["x Enum8('a' = 1) MATERIALIZED CAST(SpanName, 'Enum8(\\'a\\' = 1)')", 'b'],
  ['x Decimal32(2) MATERIALIZED toDecimal32(SpanName, 2)', '1e30'],
  ["x Array(UInt8) MATERIALIZED CAST(SpanName, 'Array(UInt8)')", '[1,'],
  ["x JSON MATERIALIZED CAST(SpanName, 'JSON')", '{"a":'],
  ["x UInt8 MATERIALIZED throwIf(SpanName = 'bad', 'not this one')", 'bad'],
  ['x UInt64 MATERIALIZED intDiv(1, length(SpanName))', ''],
  ["CONSTRAINT polite CHECK SpanName != 'rude'", 'rude'],
]

test('refusals: rows that a column, default or constraint of the user’s does not take are isolated', async () => {
  for (const [at, [addition, bad]] of additions.entries()) {
    await client.command(`CREATE TABLE refusals.t${at} (SpanName String, ${addition}) ENGINE = MergeTree ORDER BY ()`)
    const body = await engine.native(`SELECT ${quoted(bad)} AS SpanName`)
    const outcome = await client.insertNative(`refusals.t${at}`, ['SpanName'], {}, [body])
    expect(outcome, addition).toMatchObject({ kind: 'refused' })
    if (outcome.kind === 'refused') expect(remedyOf(outcome.code), `${addition}: ${outcome.message}`).toBe('isolate')
  }
})

test('refusals: a table that is gone, or lacks a column, is for somebody to mend', async () => {
  await client.command('CREATE TABLE refusals.narrow (other String) ENGINE = MergeTree ORDER BY ()')
  const body = await engine.native("SELECT 'x' AS SpanName")
  for (const table of ['refusals.narrow', 'refusals.missing', 'nowhere.missing']) {
    const outcome = await client.insertNative(table, ['SpanName'], {}, [body])
    expect(outcome, table).toMatchObject({ kind: 'refused' })
    if (outcome.kind === 'refused') expect(remedyOf(outcome.code), outcome.message).toBe('mend')
  }
})

function quoted(text: string): string {
  return `'${text.replaceAll('\\', '\\\\').replaceAll("'", "\\'")}'`
}
