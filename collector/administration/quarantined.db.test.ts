// Whose a record in quarantine is, in every form in which it may have come.
import { createHash } from 'node:crypto'
import { migrateClickHouse } from '@tallylight/storage/clickhouse/migrate.ts'
import { verifySchema } from '@tallylight/storage/clickhouse/schema.ts'
import { startTestEngine, type TestEngine } from '@tallylight/storage/clickhouse/testing.ts'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { wireFromJson } from '../otlp/json.ts'
import type { TenantId } from '../receive/request.ts'
import { findQuarantined } from './quarantined.ts'

let engine: TestEngine
beforeAll(async () => {
  engine = await startTestEngine()
})
afterAll(() => engine[Symbol.asyncDispose]())

const tenantId = 'acme' as TenantId
type Value = Readonly<Record<string, string | number | boolean>>

/** As the receiver makes it of OTLP/JSON. */
function fromJson(signal: 'traces' | 'logs', attribute: object): Buffer {
  const attributes = [{ key: 'note', value: { stringValue: 'x'.repeat(200) } }, attribute]
  const body =
    signal === 'traces'
      ? { resourceSpans: [{ scopeSpans: [{ spans: [{ name: 'x', attributes }] }] }] }
      : { resourceLogs: [{ scopeLogs: [{ logRecords: [{ body: { stringValue: 'x' }, attributes }] }] }] }
  const made = wireFromJson(signal, Buffer.from(JSON.stringify(body)))
  if (made.kind !== 'wire') throw new Error(made.kind)
  return made.bytes
}

/** As an SDK writes it. */
function fromProtobuf(name: string): Buffer {
  const text = (field: number, value: Buffer): Buffer => Buffer.concat([Buffer.from([field, value.length]), value])
  return Buffer.concat([text(0x0a, Buffer.from('user.id')), text(0x12, text(0x0a, Buffer.from(name)))])
}

test.each([
  ['ada', [{ stringValue: 'ada' }], [{ stringValue: 'adam' }, { stringValue: 'ad' }]],
  ['o"br\\ien é\n😀', [{ stringValue: 'o"br\\ien é\n😀' }], [{ stringValue: 'o"br\\ien é\n😀!' }]],
  [
    '4242424243',
    [{ intValue: '4242424243' }, { stringValue: '4242424243' }, { doubleValue: 4242424243 }],
    [{ intValue: '4242424244' }, { doubleValue: 4242424243.5 }],
  ],
  ['007', [{ stringValue: '007' }], [{ intValue: '7' }, { doubleValue: 7 }]],
  ['9999999999999999999', [{ stringValue: '9999999999999999999' }], [{ intValue: '-8446744073709551617' }]],
  ['true', [{ boolValue: true }], [{ boolValue: false }, { intValue: '1' }]],
])('quarantine: records of the user %j are found, however they were sent, and nobody else’s', async (...row) => {
  const [name, theirs, others] = row as [string, readonly Value[], readonly Value[]]
  const database = `found_${createHash('sha256').update(name).digest('hex').slice(0, 8)}`
  const clickhouse = await engine.open(database, false)
  await migrateClickHouse(clickhouse)
  const schema = await verifySchema(clickhouse)
  if (schema.kind !== 'verified') throw new Error(schema.problems.join('; '))
  const target = schema.targets.get('quarantine')
  if (target === undefined) throw new Error('there is no quarantine')
  const requestsOf = (value: Value): readonly Buffer[] => [
    fromJson('traces', { key: 'user.id', value }),
    fromJson('traces', { value, key: 'user.id' }),
    fromJson('logs', { key: 'user.id', value }),
  ]
  const metadataOf = (value: Value): readonly Buffer[] => {
    const [said] = Object.values(value)
    const json = JSON.stringify({ user_id: 'stringValue' in value ? said : Number(said), plan: 'free' })
    const inAscii = json.replace(/[\u0080-\uffff]/g, (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`)
    return [
      fromJson('traces', { key: 'metadata', value: { stringValue: json } }),
      fromJson('traces', { key: 'metadata', value: { stringValue: inAscii.replace(/([:,])"/g, '$1 "') } }),
      Buffer.from(JSON.stringify({ SpanAttributes: { metadata: json } })),
      fromJson('logs', { key: 'metadata', value: { kvlistValue: { values: [{ key: 'userId', value }] } } }),
    ]
  }
  // Numbers of metadata are those of JavaScript.
  const isText = (value: Value): boolean => 'stringValue' in value
  const wanted = [...theirs.flatMap(requestsOf), ...theirs.filter(isText).flatMap(metadataOf), fromProtobuf(name)]
  const rest = [
    ...others.flatMap(requestsOf),
    ...others.filter(isText).flatMap(metadataOf),
    ...theirs.map((value) => fromJson('logs', { key: 'note.id', value })),
    fromProtobuf(`${name}.`),
  ]
  for (const record of [...wanted, ...rest])
    await clickhouse.command(
      `INSERT INTO ${target.name} (TenantId, RetentionDays, Time, Record) SELECT 'acme', 30, now(), unhex('${record.toString('hex')}')`,
    )
  const selections = `${database}.record_selections`
  await findQuarantined({ clickhouse, target, selections }, 'one', { tenantId, kind: 'user', name })
  const found = await clickhouse.query<{ id: string }>(`SELECT Id AS id FROM ${selections} WHERE Kind = 'record'`)
  const hashOf = (record: Buffer): string => createHash('sha256').update(record).digest('hex').toUpperCase()
  expect(found.map(({ id }) => id).sort()).toEqual([...new Set(wanted.map(hashOf))].sort())
})
