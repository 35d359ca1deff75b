// Protobuf's grammar, the slow and strict way: what a decoder of OTLP must refuse although protobufjs lets it pass, and what
// protobuf leaves so unclear that two right decoders may differ. protobufjs (8.8) is laxer here:
// - a known field of another wire type is skipped as unknown, and so are groups;
// - a oneof's message keeps what it held before another member replaced it;
// and stricter here: lengths and tags padded beyond five bytes, which protobuf allows up to ten.
import protobuf from 'protobufjs'

export type WireVerdict =
  | { readonly kind: 'plain' }
  | { readonly kind: 'malformed'; readonly reason: string }
  | { readonly kind: 'unclear'; readonly reason: string }

class Malformed extends Error {}
class Unclear extends Error {}

/** Values inside each other: deeper is refused by some decoders and not by others, all with good reason. */
const valueDepthMax = 64

export function checkWire(type: protobuf.Type, bytes: Buffer): WireVerdict {
  const doubts: string[] = []
  try {
    checkMessage(type, bytes, 0, bytes.length, 0, doubts)
  } catch (error) {
    if (error instanceof Malformed) return { kind: 'malformed', reason: error.message }
    if (error instanceof Unclear) return { kind: 'unclear', reason: error.message }
    throw error
  }
  return doubts[0] === undefined ? { kind: 'plain' } : { kind: 'unclear', reason: doubts[0] }
}

function checkMessage(
  type: protobuf.Type,
  bytes: Buffer,
  start: number,
  end: number,
  valueDepth: number,
  doubts: string[],
): void {
  if (valueDepth > valueDepthMax) doubts.push(`values more than ${valueDepthMax} deep`)
  const seen = new Set<number>()
  let at = start
  while (at < end) {
    const tag = readVarint(bytes, at, end)
    if (tag.value >= 1n << 32n) throw new Unclear(`a tag of more than 32 bits at byte ${at}`)
    const number = Number(tag.value >> 3n)
    const wireType = Number(tag.value & 7n)
    if (number === 0) throw new Malformed(`field number 0 at byte ${at}`)
    const next = skipField(bytes, tag.at, end, wireType)
    const field = type.fieldsById[number]
    if (field) {
      checkWireType(field, wireType, at)
      if (field.resolvedType instanceof protobuf.Type) {
        if (!field.repeated && seen.has(number)) doubts.push(`the message ${field.name} twice`)
        seen.add(number)
        const isValue = field.resolvedType.name === 'AnyValue'
        checkMessage(field.resolvedType, bytes, next.contentAt, next.at, valueDepth + (isValue ? 1 : 0), doubts)
      } else if (field.repeated && wireType === 2) {
        checkPacked(field, bytes, next.contentAt, next.at)
      }
    }
    at = next.at
  }
}

function readVarint(bytes: Buffer, start: number, end: number): { readonly value: bigint; readonly at: number } {
  let value = 0n
  for (let index = 0; index < 10; index += 1) {
    if (start + index >= end) throw new Malformed(`a varint runs past the end at byte ${start}`)
    const byte = bytes[start + index]!
    value |= BigInt(byte & 127) << BigInt(7 * index)
    if (byte < 128) return { value: BigInt.asUintN(64, value), at: start + index + 1 }
  }
  throw new Malformed(`a varint of more than 10 bytes at byte ${start}`)
}

function skipField(bytes: Buffer, start: number, end: number, wireType: number): { contentAt: number; at: number } {
  let contentAt = start
  let length = 0n
  if (wireType === 0) contentAt = readVarint(bytes, start, end).at
  else if (wireType === 1) length = 8n
  else if (wireType === 5) length = 4n
  else if (wireType === 2) {
    const read = readVarint(bytes, start, end)
    contentAt = read.at
    length = read.value
  } else {
    throw new Malformed(`wire type ${wireType} at byte ${start}`)
  }
  if (BigInt(contentAt) + length > BigInt(end)) throw new Malformed(`a field runs past the end at byte ${start}`)
  return { contentAt, at: contentAt + Number(length) }
}

function scalarWireType(field: protobuf.Field): number {
  if (field.resolvedType instanceof protobuf.Type || field.type === 'string' || field.type === 'bytes') return 2
  if (/^(s?fixed64|double)$/.test(field.type)) return 1
  return field.type === 'fixed32' ? 5 : 0
}

function checkWireType(field: protobuf.Field, wireType: number, at: number): void {
  const own = scalarWireType(field)
  if (wireType !== own && !(field.repeated && wireType === 2)) {
    throw new Malformed(`${field.name} has wire type ${wireType}, not ${own}, at byte ${at}`)
  }
}

function checkPacked(field: protobuf.Field, bytes: Buffer, start: number, end: number): void {
  const wireType = scalarWireType(field)
  let at = start
  while (at < end) at = skipField(bytes, at, end, wireType).at
}
