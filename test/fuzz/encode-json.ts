// A model as OTLP/JSON, in every way that OTLP/JSON allows: white space, escapes, numbers as numbers or strings, null for
// absent, fields nobody knows, and the same name twice. What it decodes to is what the model's wire bytes decode to.
import { isUtf8 } from 'node:buffer'
import protobuf from 'protobufjs'
import type { Random } from '../random.ts'
import type { FieldModel, MessageModel, Value } from './model.ts'

/** `isPlain`: as exporters write it, without white space or escapes that need not be. */
export function encodeJson(message: MessageModel, random: Random, isPlain: boolean): Buffer {
  const parts: Buffer[] = []
  const put = (text: string): void => {
    parts.push(Buffer.from(text))
  }
  const space = () => (isPlain || random.chance(0.8) ? '' : random.pick([' ', '\n', '\t', '\r\n', '  ']))

  function putMessage(model: MessageModel): void {
    put(`{${space()}`)
    let isFirst = true
    const putName = (name: string) => {
      put(`${isFirst ? '' : `${space()},${space()}`}"${escapedName(name)}"${space()}:${space()}`)
      isFirst = false
    }
    for (const field of model.type.fieldsArray) {
      if (isPlain || !random.chance(0.02)) continue
      putName(field.name)
      put('null')
    }
    for (const item of mergedFields(model.fields, random)) {
      if (item.kind === 'unknown') {
        putName(random.pick(['newField', 'start_time_unix_nano', 'x', 'entityRefs', 'key_', '']))
        put(randomJson(random, 3))
        continue
      }
      putName(item.field.name)
      if (item.field.repeated) putArray(item.field, item.values)
      else putValue(item.field, item.values[0]!)
    }
    put(`${space()}}`)
  }

  function escapedName(name: string): string {
    if (isPlain || name === '' || !random.chance(0.01)) return name
    return `\\u00${name.charCodeAt(0).toString(16).padStart(2, '0')}${name.slice(1)}`
  }

  function putArray(field: protobuf.Field, values: readonly Value[]): void {
    put(`[${space()}`)
    values.forEach((value, index) => {
      if (index > 0) put(`${space()},${space()}`)
      putValue(field, value)
    })
    put(`${space()}]`)
  }

  function putValue(field: protobuf.Field, value: Value): void {
    if (Buffer.isBuffer(value)) {
      if (field.type === 'string') putText(value)
      else if (field.name === 'bytesValue') put(`"${base64(value, random)}"`)
      else put(`"${random.chance(0.5) ? value.toString('hex') : value.toString('hex').toUpperCase()}"`)
    } else if (typeof value === 'object') {
      putMessage(value)
    } else if (typeof value === 'boolean') {
      put(String(value))
    } else if (field.type === 'double') {
      put(doubleText(Number(value), random))
    } else if (field.resolvedType instanceof protobuf.Enum) {
      put(String(value))
    } else {
      put(integerText(BigInt(value), random, isPlain))
    }
  }

  function putText(bytes: Buffer): void {
    if (!isPlain && random.chance(0.1) && isUtf8(bytes)) {
      put(asciiText(bytes.toString()))
      return
    }
    put('"')
    let from = 0
    bytes.forEach((byte, index) => {
      const mustEscape = byte === 0x22 || byte === 0x5c || byte < 0x20
      if (!mustEscape && (isPlain || byte >= 0x80 || !random.chance(0.02))) return
      parts.push(bytes.subarray(from, index))
      put(escaped(byte, random))
      from = index + 1
    })
    parts.push(bytes.subarray(from))
    put('"')
  }

  putMessage(message)
  return Buffer.concat(parts)
}

/** Elements of one repeated field that stand apart in the model: one array, or the name again with another. */
function mergedFields(fields: readonly FieldModel[], random: Random): readonly FieldModel[] {
  if (random.chance(0.5)) return fields
  const merged: FieldModel[] = []
  for (const item of fields) {
    const index = merged.findIndex(
      (other) => other.kind === 'field' && item.kind === 'field' && other.field === item.field,
    )
    const other = merged[index]
    if (item.kind === 'field' && item.field.repeated && other?.kind === 'field') {
      merged[index] = { ...other, values: [...other.values, ...item.values] }
    } else {
      merged.push(item)
    }
  }
  return merged
}

/** As Python and Java write it: whatever is not ASCII as \\uXXXX, beyond 16 bits as two. */
function asciiText(text: string): string {
  return JSON.stringify(text).replaceAll(
    /[\u007f-\uffff]/g,
    (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`,
  )
}

const shortEscapes: Readonly<Record<number, string>> = {
  8: '\\b',
  9: '\\t',
  10: '\\n',
  12: '\\f',
  13: '\\r',
  34: '\\"',
  47: '\\/',
  92: '\\\\',
}

function escaped(byte: number, random: Random): string {
  const short = shortEscapes[byte]
  return short && random.chance(0.7) ? short : `\\u${byte.toString(16).padStart(4, '0')}`
}

function base64(bytes: Buffer, random: Random): string {
  const standard = bytes.toString('base64')
  const text = random.pick([standard, standard.replace(/=+$/, ''), bytes.toString('base64url')])
  return random.chance(0.2) ? text.replaceAll('/', '\\/') : text
}

function doubleText(value: number, random: Random): string {
  if (!Number.isFinite(value)) return `"${value}"`
  const text = Object.is(value, -0) ? '-0' : String(value)
  const other = random.chance(0.2) ? value.toExponential().replace('e', random.pick(['e', 'E'])) : text
  const exact = Object.is(Number(other), value) ? other : text
  return random.chance(0.2) ? `"${exact}"` : exact
}

function integerText(value: bigint, random: Random, isPlain: boolean): string {
  let text = String(value)
  if (!isPlain && random.chance(0.05)) text += random.pick(['.0', 'e0', '.000E+0'])
  if (!isPlain && value !== 0n && value % 100n === 0n) text = `${value / 100n}e2`
  return random.chance(0.5) ? `"${text}"` : text
}

function randomJson(random: Random, depth: number): string {
  const kind = random.below(depth > 0 ? 7 : 5)
  if (kind === 0) return random.pick(['true', 'false', 'null'])
  if (kind === 1) return random.pick(['0', '-1.5e-7', '12345678901234567890123', '-0', '3E5'])
  if (kind < 5) return random.pick(['""', '"a\\"b"', '"\\ud800"', '"{[}]"', '"äß"'])
  const items = Array.from({ length: random.below(4) }, () => randomJson(random, depth - 1))
  return kind === 5 ? `[${items.join(' , ')}]` : `{${items.map((item, index) => `"n${index}" : ${item}`).join(',')}}`
}
