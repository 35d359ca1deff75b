// A model as protobuf bytes, written to be obviously right and nothing else.
import protobuf from 'protobufjs'
import { type FieldModel, type MessageModel, type Value, varint } from './model.ts'

export function encodeWire(message: MessageModel): Buffer {
  return Buffer.concat(message.fields.flatMap(encodeField))
}

function encodeField(item: FieldModel): Buffer[] {
  if (item.kind === 'unknown') {
    const length = item.wireType === 2 ? varint(BigInt(item.content.length)) : Buffer.alloc(0)
    return [tag(item.number, item.wireType), length, item.content]
  }
  const { field, values } = item
  if (item.isPacked) {
    const content = Buffer.concat(values.map((value) => encodeScalar(field.type, value)))
    return [tag(field.id, 2), varint(BigInt(content.length)), content]
  }
  return values.flatMap((value) => encodeValue(field, value))
}

function encodeValue(field: protobuf.Field, value: Value): Buffer[] {
  if (Buffer.isBuffer(value)) return [tag(field.id, 2), varint(BigInt(value.length)), value]
  if (typeof value === 'object') {
    const content = encodeWire(value)
    return [tag(field.id, 2), varint(BigInt(content.length)), content]
  }
  if (field.resolvedType instanceof protobuf.Enum) return [tag(field.id, 0), varint(BigInt(value))]
  const wireType = field.type === 'fixed32' ? 5 : /^(s?fixed64|double)$/.test(field.type) ? 1 : 0
  return [tag(field.id, wireType), encodeScalar(field.type, value)]
}

function tag(number: number, wireType: number): Buffer {
  return varint((BigInt(number) << 3n) | BigInt(wireType))
}

function encodeScalar(type: string, value: Value): Buffer {
  const bytes = Buffer.alloc(8)
  switch (type) {
    case 'double':
      bytes.writeDoubleLE(Number(value))
      return bytes
    case 'fixed64':
    case 'sfixed64':
      bytes.writeBigUInt64LE(BigInt.asUintN(64, BigInt(value as bigint)))
      return bytes
    case 'fixed32':
      bytes.writeUInt32LE(Number(value))
      return bytes.subarray(0, 4)
    case 'sint32':
      return varint(BigInt(value as number) >= 0n ? BigInt(value as number) * 2n : BigInt(value as number) * -2n - 1n)
    default:
      return varint(BigInt(value as bigint))
  }
}
