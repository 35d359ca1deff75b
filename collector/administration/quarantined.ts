// Records in quarantine that are a user's or a conversation's. They are OTLP requests of one record, or the JSON of a row, and
// never became columns: so the name is looked for in every way in which it may be written there, under the attributes that say
// whose a record is, and the ids of traces where they stand. What is found is told by its hash.
import type { ClickHouse } from '@tallylight/storage/clickhouse/client.ts'
import { quoteText, type TargetTable } from '@tallylight/storage/clickhouse/schema.ts'
import { attributeNames, namesInMetadata } from '../genai/scene.ts'
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
    ...attributeNames[subject.kind].map((key) => jsonOf(key, subject.name)),
    ...factFields[subject.kind].map((field) => jsonInJsonOf(field, subject.name)),
  ].map((needle) => `unhex('${needle.toString('hex')}')`)
  const keys = keysOf(subject).map((key) => `unhex('${Buffer.from(key).toString('hex')}')`)
  // `trace_id` is field 1 of a span and 9 of a log record, each 16 bytes long.
  const ids = `arrayConcat(
      arrayMap(id -> lower(hex(id)), extractAll(Record, '[\\\\x0a\\\\x4a]\\\\x10(\\\\C{16})')),
      extractAll(Record, '"TraceId":"([0-9a-f]{32})"'))`
  await clickhouse.command(
    `INSERT INTO ${selections} (Selection, Kind, Id, SpanId)
     SELECT DISTINCT ${quoteText(selection)}, 'record', hex(SHA256(Record)), '' FROM ${target.name}
     WHERE ${isOfTenant(target, subject.tenantId)} AND (multiSearchAny(Record, [${needles.join(', ')}])
       OR (multiSearchAny(Record, [${keys.join(', ')}]) AND match(lower(hex(Record)), '${wirePattern(subject)}|${metadataPattern(subject)}'))
       OR arrayExists(id -> id IN ${idsOf(selections, selection, 'trace')}, ${ids}))`,
  )
}

/** Finds, in the hex of a request, an OTLP KeyValue of the subject: a key and an AnyValue, in either order, of which that is a
 *  string, or the number or boolean that reads as the name. Lengths may be padded: those of what came as JSON are. */
function wirePattern(subject: Subject): string {
  const { name } = subject
  const keys = keysOf(subject)
    .map((key) => textPattern(key))
    .join('|')
  const anyLength = '(?:[89a-f][0-9a-f]){0,4}[0-7][0-9a-f]'
  const key = `0a(?:${keys})`
  const value = `12${anyLength}(?:${valuePatterns(name).join('|')})`
  return `${key}${value}|${value}${key}`
}

/** Attributes, and what they are called in metadata that is a map. */
function keysOf({ kind }: Subject): readonly string[] {
  return [...attributeNames[kind], ...namesInMetadata[kind]]
}

/** Finds it in metadata that is JSON in a text, with the spaces, escapes and backslashes of whoever wrote it. */
function metadataPattern({ kind, name }: Subject): string {
  const hex = (text: string): string => Buffer.from(text).toString('hex')
  const quote = '(?:5c)*22'
  const keys = namesInMetadata[kind].map(hex).join('|')
  const spell = (text: string): string => JSON.stringify(text).slice(1, -1)
  const written = spell(name)
  const inAscii = written.replace(
    /[\u0080-\uffff]/g,
    (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`,
  )
  // The second time in the JSON of a row.
  const spelled = new Set([written, inAscii, spell(written), spell(inAscii)])
  const values = [...spelled].map((text) => `${quote}${hex(text)}${quote}`)
  if (name === String(Number(name)) || name === 'true' || name === 'false') values.push(`${hex(name)}(?:20)*(?:2c|7d)`)
  return `${quote}(?:${keys})${quote}(?:20)*3a(?:20)*(?:${values.join('|')})`
}

/** Fields of an AnyValue: 1 is a string, 2 a boolean, 3 an integer, 4 a double. */
function valuePatterns(name: string): readonly string[] {
  const patterns = [`0a${textPattern(name)}`]
  if (name === 'true') patterns.push('1001')
  if (name === 'false') patterns.push('1000')
  // Not what BigInt reads as another's: 007, or more than an integer holds.
  if (/^-?\d{1,19}$/.test(name) && String(BigInt.asIntN(64, BigInt(name))) === name)
    patterns.push(`18${varint(BigInt.asUintN(64, BigInt(name)))}`)
  if (name === String(Number(name))) {
    const double = Buffer.alloc(8)
    double.writeDoubleLE(Number(name))
    patterns.push(`21${double.toString('hex')}`)
  }
  return patterns
}

function textPattern(text: string): string {
  const bytes = Buffer.from(text)
  const length = varint(BigInt(bytes.length))
  const padded = [1, 2, 3].map((more) => padVarint(length, more))
  return `(?:${[length, ...padded].join('|')})${bytes.toString('hex')}`
}

function varint(value: bigint): string {
  const bytes: number[] = []
  let rest = value
  for (; rest > 0x7fn; rest >>= 7n) bytes.push(Number(rest & 0x7fn) | 0x80)
  bytes.push(Number(rest))
  return Buffer.from(bytes).toString('hex')
}

/** The same number in more bytes than it needs. */
function padVarint(hex: string, more: number): string {
  const bytes = Buffer.concat([Buffer.from(hex, 'hex'), Buffer.alloc(more)])
  for (let at = 0; at < bytes.length - 1; at++) bytes[at] = (bytes[at] ?? 0) | 0x80
  return bytes.toString('hex')
}

function jsonOf(key: string, value: string): Buffer {
  return Buffer.from(`${JSON.stringify(key)}:${JSON.stringify(value)}`)
}

/** A fact is JSON, and stands in the JSON of its row. */
function jsonInJsonOf(key: string, value: string): Buffer {
  return Buffer.from(JSON.stringify(jsonOf(key, value).toString()).slice(1, -1))
}
