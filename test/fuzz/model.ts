// Random OTLP requests, valid but nasty: what a fuzzer makes before it is bytes or JSON. A message is the list of its fields
// in the order in which they will be written, so that a field may come twice, out of order, or be none of the schema's.
import protobuf from 'protobufjs'
import type { Random } from '../random.ts'
import type { RequestTypes, Signal } from './otlp-proto.ts'

/** Strings are their bytes, which need not be UTF-8; 64-bit integers are bigint, all other numbers number. */
export type Value = Buffer | bigint | number | boolean | MessageModel

export type FieldModel =
  | {
      readonly kind: 'field'
      readonly field: protobuf.Field
      readonly values: readonly Value[]
      readonly isPacked: boolean
    }
  | { readonly kind: 'unknown'; readonly number: number; readonly wireType: number; readonly content: Buffer }

export type MessageModel = { readonly type: protobuf.Type; readonly fields: readonly FieldModel[] }

export type GeneratorOptions = {
  readonly random: Random
  readonly types: RequestTypes
  readonly nowUnixNano: bigint
  /** A singular message that comes twice is merged by protobuf, which few decoders written by hand do, and is replaced
   *  when it is one of a oneof that held another member in between, which protobufjs does not do. */
  readonly repeatsMessages: boolean
}

const deepest = 6

export function generateRequest(signal: Signal, options: GeneratorOptions): MessageModel {
  return generateMessage(options.types[signal], options, 0)
}

function generateMessage(type: protobuf.Type, options: GeneratorOptions, valueDepth: number): MessageModel {
  const { random } = options
  const depth = type.name === 'AnyValue' ? valueDepth + 1 : valueDepth
  if (type.name === 'AnyValue') return generateAnyValue(type, options, depth)
  const fields: FieldModel[] = []
  const density = random.pick([0, 0.3, 0.8, 1, 1])
  const seenOneofs = new Set<protobuf.OneOf>()
  for (const field of type.fieldsArray) {
    const oneof = field.partOf
    // An "optional" field is a oneof of its own to protobufjs; a real one usually has one member, rarely several or none.
    if (oneof && oneof.oneof.length > 1) {
      if (seenOneofs.has(oneof)) continue
      seenOneofs.add(oneof)
      if (random.chance(0.05)) continue
      const members = Array.from({ length: random.chance(0.05) ? 2 : 1 }, () => random.pick(oneof.fieldsArray))
      if (members[0] === members[1] && !options.repeatsMessages) members.pop()
      for (const member of members) fields.push(generateField(member, options, depth))
      continue
    }
    if (!random.chance(usuallyPresent.has(field.name) ? 0.9 : density)) continue
    fields.push(generateField(field, options, depth))
    const isSingularMessage = !field.repeated && field.resolvedType instanceof protobuf.Type
    if (random.chance(0.03) && (!isSingularMessage || options.repeatsMessages)) {
      fields.push(generateField(field, options, depth))
    }
  }
  if (random.chance(0.06)) fields.push(generateUnknown(type, random))
  if (random.chance(0.25)) shuffle(fields, random)
  return { type, fields }
}

const usuallyPresent = new Set([
  'resourceSpans',
  'resourceLogs',
  'resourceMetrics',
  'scopeSpans',
  'scopeLogs',
  'scopeMetrics',
  'spans',
  'logRecords',
  'metrics',
  'dataPoints',
  'traceId',
  'spanId',
  'startTimeUnixNano',
  'timeUnixNano',
  'key',
  'value',
  'values',
])

function generateAnyValue(type: protobuf.Type, options: GeneratorOptions, depth: number): MessageModel {
  const { random } = options
  if (random.chance(0.04)) return { type, fields: [] }
  const members =
    depth < deepest
      ? type.fieldsArray
      : type.fieldsArray.filter((field) => !(field.resolvedType instanceof protobuf.Type))
  const usual = members.filter((field) => /^(string|int|bool|double)Value$/.test(field.name))
  const count = random.chance(0.03) ? 2 : 1
  const chosen = new Set(Array.from({ length: count }, () => random.pick(random.chance(0.7) ? usual : members)))
  const fields = [...chosen].map((field) => generateField(field, options, depth))
  if (random.chance(0.02)) fields.push(generateUnknown(type, random))
  return { type, fields }
}

function generateField(field: protobuf.Field, options: GeneratorOptions, depth: number): FieldModel {
  const { random } = options
  const one = () => generateValue(field, options, depth)
  if (!field.repeated) return { kind: 'field', field, values: [one()], isPacked: false }
  const isNumbers = !(field.resolvedType instanceof protobuf.Type)
  const length = random.chance(0.1) ? 0 : random.between(1, isNumbers ? 20 : depth > 2 ? 2 : 4)
  return { kind: 'field', field, values: Array.from({ length }, one), isPacked: isNumbers && random.chance(0.7) }
}

function generateValue(field: protobuf.Field, options: GeneratorOptions, depth: number): Value {
  const { random } = options
  if (field.resolvedType instanceof protobuf.Type) return generateMessage(field.resolvedType, options, depth)
  if (field.resolvedType instanceof protobuf.Enum) return generateEnum(random)
  switch (field.type) {
    case 'string':
      return generateText(random, field.name)
    case 'bytes':
      return field.name === 'bytesValue' ? random.bytes(random.below(40)) : generateId(random, field.name)
    case 'bool':
      return random.chance(0.5)
    case 'double':
      return generateDouble(random)
    case 'fixed64':
      return /Nano$/.test(field.name) ? generateTime(random, field.name, options.nowUnixNano) : generateUnsigned(random)
    case 'uint64':
      return generateUnsigned(random)
    case 'int64':
    case 'sfixed64':
      return BigInt.asIntN(64, random.chance(0.5) ? -generateUnsigned(random) : generateUnsigned(random))
    case 'sint32':
      return random.chance(0.5) ? random.between(-20, 20) : random.bits() | 0
    case 'uint32':
    case 'fixed32':
      return random.chance(0.7) ? random.below(1_000) : random.bits()
    default:
      throw new Error(`no values for fields of type ${field.type} (${field.name})`)
  }
}

function generateEnum(random: Random): number {
  return random.chance(0.95) ? random.below(25) : random.pick([-1, 255, 256, 2 ** 31 - 1, -(2 ** 31)])
}

function generateId(random: Random, name: string): Buffer {
  const length = name === 'traceId' ? 16 : 8
  if (random.chance(0.03)) return Buffer.alloc(0)
  if (random.chance(0.01)) return Buffer.alloc(length)
  if (random.chance(0.01)) return random.bytes(random.below(40))
  return random.bytes(length)
}

function generateTime(random: Random, name: string, nowUnixNano: bigint): bigint {
  if (random.chance(0.05)) return 0n
  if (random.chance(0.02))
    return random.pick([1n, 2n ** 63n - 1n, 2n ** 63n, 2n ** 64n - 1n, 4_294_967_295_000_000_000n])
  return nowUnixNano - random.wide() / (name === 'endTimeUnixNano' ? 500_000_000n : 5_000_000n)
}

function generateUnsigned(random: Random): bigint {
  if (random.chance(0.1)) return random.pick([0n, 2n ** 53n, 2n ** 53n + 1n, 2n ** 63n - 1n, 2n ** 63n, 2n ** 64n - 1n])
  return random.wide() >> BigInt(random.below(64))
}

const oddDoubles = [
  0,
  -0,
  Number.NaN,
  Number.POSITIVE_INFINITY,
  Number.NEGATIVE_INFINITY,
  5e-324,
  1.7976931348623157e308,
  2 ** 53,
  1e21,
  1e-7,
  123456789012345680,
  0.1,
]

function generateDouble(random: Random): number {
  if (random.chance(0.25)) return random.pick(oddDoubles)
  if (random.chance(0.3)) return Math.round((random.bits() - 2 ** 31) / 1_000) / 100
  const value = random.bytes(8).readDoubleLE()
  // Only the usual NaN: others are not told apart by anything that reads OTLP.
  return Number.isNaN(value) ? Number.NaN : value
}

const keys = [
  'service.name',
  'http.route',
  'a',
  'b',
  'ä',
  'z',
  'gen_ai.system',
  'k8s.pod.name',
  '',
  'a.b',
  '\u{1f600}',
  'user id',
]
const oddTexts = [
  '',
  ' ',
  '"',
  '\\',
  '\\u0041',
  '\n\t\b\f\r',
  '\u0000',
  '\u001f\u007f',
  'äöü€',
  '\u{1f468}\u200d\u{1f469}',
  '\ufeffmark',
  '\u2028\u2029',
  '{"a":1}',
  'null',
  '\ufffd',
  '\ud7ff\ue000\uffff\u{10ffff}',
  '</script>',
]
const brokenTexts = [
  'ff',
  'c0af',
  'e28228',
  'f0908080',
  'eda080',
  'f4908080',
  'c3',
  'e282',
  'f09f98',
  '61ff62',
  '80',
  'e2e2e2',
]

const plainLetters = [...'abcdefghijklmnopqrstuvwxyz /.-_']
const oddLetters = [...'aä€\u{1f600}"\\\n']

function generateText(random: Random, name: string): Buffer {
  if (random.chance(0.04)) {
    const broken = Buffer.from(random.pick(brokenTexts), 'hex')
    return Buffer.concat([Buffer.from('x'.repeat(random.below(12))), broken, Buffer.from('y'.repeat(random.below(9)))])
  }
  if (name === 'key') return Buffer.from(random.chance(0.8) ? random.pick(keys) : `key-${random.below(1_000)}`)
  if (random.chance(0.2)) return Buffer.from(random.pick(oddTexts).repeat(random.between(1, 3)))
  const length = random.chance(0.02) ? random.between(100, 20_000) : random.below(40)
  const alphabet = random.chance(0.9) ? plainLetters : oddLetters
  return Buffer.from(Array.from({ length }, () => random.pick(alphabet)).join(''))
}

/** A field that the schema does not have, of every wire type that may be skipped. */
function generateUnknown(type: protobuf.Type, random: Random): FieldModel {
  const taken = new Set(type.fieldsArray.map((field) => field.id))
  let number = 0
  while (number === 0 || taken.has(number))
    number = random.chance(0.7) ? random.between(1, 40) : random.between(41, 2 ** 29 - 1)
  const wireType = random.pick([0, 1, 2, 5])
  const length = wireType === 1 ? 8 : wireType === 5 ? 4 : wireType === 2 ? random.below(30) : 0
  const content = wireType === 0 ? varint(random.wide() >> BigInt(random.below(64))) : random.bytes(length)
  return { kind: 'unknown', number, wireType, content }
}

function shuffle<Item>(items: Item[], random: Random): void {
  for (let index = items.length - 1; index > 0; index -= 1) {
    const other = random.below(index + 1)
    const held = items[index]!
    items[index] = items[other]!
    items[other] = held
  }
}

/** A varint of up to 64 bits, the plain way. */
export function varint(value: bigint): Buffer {
  const bytes: number[] = []
  let rest = BigInt.asUintN(64, value)
  for (; rest > 127n; rest >>= 7n) bytes.push(Number(rest & 127n) | 128)
  return Buffer.from([...bytes, Number(rest)])
}
