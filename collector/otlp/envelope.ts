// What surrounds the records of every signal: resources with their attributes, scopes, schema URLs. Fields may come in any
// order, so a resource's envelope is looked over first and its records are walked after.
import type { LowCardinalityColumn } from '@tallylight/storage/clickhouse/block.ts'
import type { Attributes, Scope } from '../genai/record.ts'
import { clearAttributes, judgeAttributes, type RepeatedMap, readAttribute, repeatMap } from './attributes.ts'
import { constant, internConstant, internText, internValue, type RejectReason, type Walk } from './walk.ts'
import { fieldBits, readEnd, readTag, readVarint32, skip } from './wire.ts'

/** A place in the request. */
export type Range = { start: number; end: number }

export function openRange(): Range {
  return { start: 0, end: 0 }
}

export function clearRange(range: Range): void {
  range.start = 0
  range.end = 0
}

/** Reads a field of bytes as a place. */
export function readRange(walk: Walk, end: number, range: Range): void {
  const { cursor } = walk
  range.end = readEnd(cursor, end)
  range.start = cursor.at
  cursor.at = range.end
}

/** Text that every row of a resource or scope repeats, and its entry in the block that is written. */
export type RepeatedText = Range & { column: LowCardinalityColumn | undefined; entry: number }

export type Envelope = {
  /** The whole message, for a record that is set aside alone. */
  readonly resource: Range
  readonly resourceSchema: RepeatedText
  readonly resourceAttributes: RepeatedMap
  readonly scope: Range
  readonly scopeName: RepeatedText
  readonly scopeVersion: RepeatedText
  readonly scopeSchema: RepeatedText
  readonly scopeAttributes: RepeatedMap
  scopeDroppedAttributes: number
  serviceColumn: LowCardinalityColumn | undefined
  serviceEntry: number
  /** Why no record of this resource or scope can be stored. */
  refusal: RejectReason | null
  resourceRefusal: RejectReason | null
  /** Of the records that are lifted; undefined until the first. */
  surroundings: { readonly resource: Attributes; readonly scope: Scope } | undefined
}

function repeatText(): RepeatedText {
  return { start: 0, end: 0, column: undefined, entry: 0 }
}

function clearText(text: RepeatedText): void {
  clearRange(text)
  text.column = undefined
}

export function internRepeated(walk: Walk, column: LowCardinalityColumn, text: RepeatedText): number {
  if (text.column !== column) {
    text.column = column
    text.entry = internText(walk, column, text.start, text.end)
  }
  return text.entry
}

const noName = constant('')

/** The entry of `service.name`, or of the empty string: never that of the resource before. */
export function internService(walk: Walk, column: LowCardinalityColumn, envelope: Envelope): number {
  if (envelope.serviceColumn !== column) {
    envelope.serviceColumn = column
    const { resource } = walk.scratch
    const at = resource.serviceAt
    envelope.serviceEntry =
      at < 0
        ? internConstant(column, noName)
        : internValue(
            walk,
            column,
            resource.kinds[at] as number,
            resource.valueStarts[at] as number,
            resource.valueEnds[at] as number,
          )
  }
  return envelope.serviceEntry
}

const knownInRequest = fieldBits(1)
const knownInResourceRecords = fieldBits(1, 2, 3)
const knownInScopeRecords = fieldBits(1, 2, 3)
const knownInResource = fieldBits(1, 2)
const knownInScope = fieldBits(1, 2, 3, 4)

/** Walks `Export…ServiceRequest` → `Resource…` → `Scope…` and calls `walkRecord` for each record, with the cursor at its
 *  first byte and `end` behind its last. */
export function walkEnvelopes(walk: Walk, walkRecord: (envelope: Envelope, end: number) => void): void {
  const { cursor, scratch } = walk
  const end = cursor.bytes.length
  const envelope: Envelope = {
    resource: openRange(),
    resourceSchema: repeatText(),
    resourceAttributes: repeatMap(scratch.resource),
    scope: openRange(),
    scopeName: repeatText(),
    scopeVersion: repeatText(),
    scopeSchema: repeatText(),
    scopeAttributes: repeatMap(scratch.scope),
    scopeDroppedAttributes: 0,
    serviceColumn: undefined,
    serviceEntry: 0,
    refusal: null,
    resourceRefusal: null,
    surroundings: undefined,
  }
  while (cursor.at < end) {
    const tag = readTag(cursor, end)
    if (tag !== 0x0a) {
      skip(cursor, tag, end, 'the request', knownInRequest)
      continue
    }
    const resourceEnd = readEnd(cursor, end)
    walkResource(walk, envelope, resourceEnd, walkRecord)
    cursor.at = resourceEnd
  }
}

function walkResource(
  walk: Walk,
  envelope: Envelope,
  end: number,
  walkRecord: (envelope: Envelope, end: number) => void,
): void {
  const { cursor, scratch } = walk
  const start = cursor.at
  clearAttributes(scratch.resource)
  clearText(envelope.resourceSchema)
  clearRange(envelope.resource)
  envelope.resourceAttributes.column = undefined
  envelope.serviceColumn = undefined
  while (cursor.at < end) {
    const tag = readTag(cursor, end)
    if (tag === 0x0a) {
      const resourceEnd = readEnd(cursor, end)
      envelope.resource.start = cursor.at
      envelope.resource.end = resourceEnd
      // The last of several wins, so what an earlier one said is forgotten.
      clearAttributes(scratch.resource)
      readResource(walk, resourceEnd)
    } else if (tag === 0x12) {
      cursor.at = readEnd(cursor, end)
    } else if (tag === 0x1a) {
      readRange(walk, end, envelope.resourceSchema)
    } else {
      skip(cursor, tag, end, 'ResourceSpans, ResourceLogs or ResourceMetrics', knownInResourceRecords)
    }
  }
  envelope.resourceRefusal = judgeAttributes(scratch.resource)
  cursor.at = start
  while (cursor.at < end) {
    const tag = readTag(cursor, end)
    if (tag === 0x12) {
      const scopeEnd = readEnd(cursor, end)
      walkScope(walk, envelope, scopeEnd, walkRecord)
      cursor.at = scopeEnd
    } else {
      skip(cursor, tag, end, '', 0)
    }
  }
}

function readResource(walk: Walk, end: number): void {
  const { cursor, scratch } = walk
  while (cursor.at < end) {
    const tag = readTag(cursor, end)
    if (tag === 0x0a) readAttribute(walk, end, scratch.resource)
    else if (tag === 0x10) readVarint32(cursor, end)
    else skip(cursor, tag, end, 'Resource', knownInResource)
  }
}

function walkScope(
  walk: Walk,
  envelope: Envelope,
  end: number,
  walkRecord: (envelope: Envelope, end: number) => void,
): void {
  const { cursor, scratch } = walk
  const start = cursor.at
  clearScope(walk, envelope)
  clearText(envelope.scopeSchema)
  clearRange(envelope.scope)
  while (cursor.at < end) {
    const tag = readTag(cursor, end)
    if (tag === 0x0a) {
      const scopeEnd = readEnd(cursor, end)
      envelope.scope.start = cursor.at
      envelope.scope.end = scopeEnd
      clearScope(walk, envelope)
      readScope(walk, envelope, scopeEnd)
    } else if (tag === 0x12) {
      cursor.at = readEnd(cursor, end)
    } else if (tag === 0x1a) {
      readRange(walk, end, envelope.scopeSchema)
    } else {
      skip(cursor, tag, end, 'ScopeSpans, ScopeLogs or ScopeMetrics', knownInScopeRecords)
    }
  }
  envelope.refusal = envelope.resourceRefusal ?? judgeAttributes(scratch.scope)
  envelope.surroundings = undefined
  cursor.at = start
  while (cursor.at < end) {
    const tag = readTag(cursor, end)
    if (tag === 0x12) {
      const recordEnd = readEnd(cursor, end)
      walkRecord(envelope, recordEnd)
      cursor.at = recordEnd
    } else {
      skip(cursor, tag, end, '', 0)
    }
  }
}

function clearScope(walk: Walk, envelope: Envelope): void {
  clearAttributes(walk.scratch.scope)
  clearText(envelope.scopeName)
  clearText(envelope.scopeVersion)
  envelope.scopeAttributes.column = undefined
  envelope.scopeDroppedAttributes = 0
}

function readScope(walk: Walk, envelope: Envelope, end: number): void {
  const { cursor, scratch } = walk
  while (cursor.at < end) {
    const tag = readTag(cursor, end)
    if (tag === 0x0a || tag === 0x12) {
      readRange(walk, end, tag === 0x0a ? envelope.scopeName : envelope.scopeVersion)
    } else if (tag === 0x1a) readAttribute(walk, end, scratch.scope)
    else if (tag === 0x20) envelope.scopeDroppedAttributes = readVarint32(cursor, end)
    else skip(cursor, tag, end, 'InstrumentationScope', knownInScope)
  }
}

/** A request that holds one record alone: what the quarantine keeps, so that it can be sent again. */
export function requestOf(walk: Walk, envelope: Envelope, record: Buffer): Buffer {
  const { bytes } = walk.cursor
  const slice = (range: Range): Buffer => bytes.subarray(range.start, range.end)
  const scopeRecords = Buffer.concat([
    field(1, slice(envelope.scope)),
    field(2, record),
    field(3, slice(envelope.scopeSchema)),
  ])
  const resourceRecords = Buffer.concat([
    field(1, slice(envelope.resource)),
    field(2, scopeRecords),
    field(3, slice(envelope.resourceSchema)),
  ])
  return field(1, resourceRecords)
}

/** A field of bytes with its tag and length. */
export function field(number: number, content: Buffer): Buffer {
  const head: number[] = [(number << 3) | 2]
  let length = content.length
  while (length >= 0x80) {
    head.push((length & 0x7f) | 0x80)
    length >>>= 7
  }
  head.push(length)
  return Buffer.concat([Buffer.from(head), content])
}
