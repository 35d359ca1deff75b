// Records in quarantine that are a user's or a conversation's. They are OTLP requests of one record, or the JSON of a row, and
// never became columns: so the name is looked for as it is written there, under the attributes that say whose a record is,
// and the ids of traces where they stand. What is found is told by its hash.
import type { ClickHouse } from '@tallylight/storage/clickhouse/client.ts'
import { quoteText, type TargetTable } from '@tallylight/storage/clickhouse/schema.ts'
import { attributeNames } from '../genai/scene.ts'
import { idsOf, isOfTenant } from './places.ts'
import type { Subject } from './subject.ts'

const factFields = { user: ['userId', 'actor'], conversation: ['conversationId', 'sessionId'] } as const

export async function findQuarantined(
  {
    clickhouse,
    target,
    selections,
  }: {
    readonly clickhouse: ClickHouse
    readonly target: TargetTable
    readonly selections: string
  },
  selection: string,
  subject: Subject,
): Promise<void> {
  const needles = [
    ...attributeNames[subject.kind].flatMap((key) => [wireOf(key, subject.name), jsonOf(key, subject.name)]),
    ...factFields[subject.kind].map((field) => jsonInJsonOf(field, subject.name)),
  ].map((needle) => `unhex('${needle.toString('hex')}')`)
  // `trace_id` is field 1 of a span and 9 of a log record, each 16 bytes long.
  const ids = `arrayConcat(
      arrayMap(id -> lower(hex(id)), extractAll(Record, '[\\\\x0a\\\\x4a]\\\\x10(\\\\C{16})')),
      extractAll(Record, '"TraceId":"([0-9a-f]{32})"'))`
  await clickhouse.command(
    `INSERT INTO ${selections} (Selection, Kind, Id, SpanId)
     SELECT DISTINCT ${quoteText(selection)}, 'record', hex(SHA256(Record)), '' FROM ${target.name}
     WHERE ${isOfTenant(target, subject.tenantId)} AND (multiSearchAny(Record, [${needles.join(', ')}])
       OR arrayExists(id -> id IN ${idsOf(selections, selection, 'trace')}, ${ids}))`,
  )
}

/** An OTLP KeyValue with a string, without its own length in front: a key, and an AnyValue. */
function wireOf(key: string, value: string): Buffer {
  const name = Buffer.from(key)
  const text = Buffer.from(value)
  const any = Buffer.concat([Buffer.from([0x0a]), varint(text.length), text])
  return Buffer.concat([Buffer.from([0x0a]), varint(name.length), name, Buffer.from([0x12]), varint(any.length), any])
}

function varint(value: number): Buffer {
  const bytes: number[] = []
  let rest = value
  for (; rest > 0x7f; rest >>>= 7) bytes.push((rest & 0x7f) | 0x80)
  bytes.push(rest)
  return Buffer.from(bytes)
}

function jsonOf(key: string, value: string): Buffer {
  return Buffer.from(`${JSON.stringify(key)}:${JSON.stringify(value)}`)
}

/** A fact is JSON, and stands in the JSON of its row. */
function jsonInJsonOf(key: string, value: string): Buffer {
  return Buffer.from(JSON.stringify(jsonOf(key, value).toString()).slice(1, -1))
}
