// Records that speak of models, tools, messages or health, lifted out of the bytes into objects for the dialects, and what they
// say written as facts and texts beside their row. Which records speak is decided by their keys, once per key sequence; the
// others cost nothing more than that.
import { appendIndex } from '@tallylight/storage/clickhouse/block.ts'
import { appendUint16, appendUint64, appendWord, type Stream } from '@tallylight/storage/clickhouse/stream.ts'
import { contentsTable, factsTable } from '@tallylight/storage/clickhouse/tables.ts'
import type { AwaitedSpans } from '../genai/awaited-spans.ts'
import { isWholeInPreview } from '../genai/content.ts'
import { encodeFact, type Fact } from '../genai/fact.ts'
import { factOfPoint } from '../genai/health-points.ts'
import { ownerOfTexts, type TextNames } from '../genai/known-texts.ts'
import type { Lifted } from '../genai/lift.ts'
import type { AnyValue, Attributes, LiftedPoint, LiftedRecord, Scope } from '../genai/record.ts'
import { isContentKey, isErrorKey } from '../genai/speaks.ts'
import type { MaskedCounts } from '../masking/request-mask.ts'
import type { TenantId } from '../receive/request.ts'
import { valueAt, valueLiteral, visitStrings } from './any-value.ts'
import { type AttributeList, namesOf } from './attributes.ts'
import type { Envelope, Range } from './envelope.ts'
import { chargeRow, internTenant, type Walk } from './walk.ts'

/** How records are told apart and read, and what becomes of what they say. */
export type Lifting = {
  readonly read: (record: LiftedRecord) => Lifted
  /** Masks personal data in its place where the tenant's content is kept masked; undefined where it is not. */
  readonly maskOf: (tenant: TenantId) => Mask | undefined
  /** What of the content stays in the raw row: what is in no row of messages or tools, all of it, or nothing. */
  readonly rawContentOf: (tenant: TenantId) => RawContent
  /** Days that a fact of this tenant is kept. */
  readonly retentionDaysOf: (tenant: TenantId, fact: Fact) => number
  /** Days that a text is kept: as long as the last row that may show it. */
  readonly textRetentionDaysOf: (tenant: TenantId) => number
  /** Whether a text was written, and is on the disk, not long ago. */
  readonly isKnownText: (owner: string, textHash: string) => boolean
  /** Parents of what was lifted, which are lifted too when they come, whatever they say. */
  readonly awaited: AwaitedSpans
  /** Told of texts that are on the disk now. */
  readonly onTexts: (texts: TextNames) => void
}

export type RawContent = 'leftover' | 'all' | 'none'

/** What is to be left out of the raw row. */
export type LeftOut = {
  readonly attributes: readonly string[]
  readonly events: ReadonlySet<number>
  readonly body: boolean
}

/** Writes over what may not be kept of a text. */
export type Mask = (bytes: Buffer, start: number, end: number, counts: MaskedCounts) => void

/** For a record that becomes rows. */
export function maskOfRows(walk: Walk): Mask | undefined {
  return walk.lifting?.maskOf(walk.tenantNow as TenantId)
}

/** For a record that is set aside: it stays one piece, so what its tenant does not keep is written over, all of it. */
export function maskOfAside(walk: Walk): Mask | undefined {
  return walk.lifting?.rawContentOf(walk.tenantNow as TenantId) === 'none' ? hide : maskOfRows(walk)
}

const asterisk = 0x2a
const hide: Mask = (bytes, start, end) => bytes.fill(asterisk, start, end)

/** Masks what users and models said, and what errors say of it; ids and names stay what they are. */
export function maskAttributes(
  walk: Walk,
  mask: Mask | undefined,
  list: AttributeList,
  names: readonly string[],
  isAllContent: boolean,
): void {
  if (mask === undefined) return
  const { cursor, masked } = walk
  for (let at = 0; at < list.count; at++) {
    const kind = list.kinds[at] as number
    if (kind === valueLiteral) continue
    const key = names[at] as string
    if (!isAllContent && !isContentKey(key) && !isErrorKey(key)) continue
    visitStrings(cursor, kind, list.valueStarts[at] as number, list.valueEnds[at] as number, (start, end) =>
      mask(cursor.bytes, start, end, masked),
    )
  }
}

export function maskValue(walk: Walk, mask: Mask | undefined, kind: number, { start, end }: Range): void {
  if (mask === undefined) return
  const { cursor, masked } = walk
  visitStrings(cursor, kind, start, end, (from, to) => mask(cursor.bytes, from, to, masked))
}

/** `names` are those of the list, where they are known already. */
export function attributesOf(walk: Walk, list: AttributeList, names = namesOf(walk, list, undefined)): Attributes {
  const attributes = new Map<string, AnyValue>()
  const { cursor } = walk
  for (let at = 0; at < list.count; at++) {
    const kind = list.kinds[at] as number
    if (kind === valueLiteral) continue
    const key = names[at] as string
    attributes.set(key, valueAt(cursor, kind, list.valueStarts[at] as number, list.valueEnds[at] as number))
  }
  return attributes
}

export function textAt(walk: Walk, { start, end }: Range): string {
  return walk.cursor.bytes.toString('utf8', start, end)
}

/** An id in lower-case hex; all zeros, as absent, is ''. */
export function idAt(walk: Walk, { start, end }: Range): string {
  const text = walk.cursor.bytes.toString('hex', start, end)
  return /^0*$/.test(text) ? '' : text
}

export function unixNano(low: number, high: number): bigint {
  return (BigInt(high) << 32n) | BigInt(low)
}

/** The resource and scope of an envelope, made once for all of its records that are lifted. */
export function surroundingsOf(
  walk: Walk,
  envelope: Envelope,
): { readonly resource: Attributes; readonly scope: Scope } {
  envelope.surroundings ??= {
    resource: attributesOf(walk, walk.scratch.resource),
    scope: { name: textAt(walk, envelope.scopeName), version: textAt(walk, envelope.scopeVersion) },
  }
  return envelope.surroundings
}

/** Writes what a record says, under the record's own time: the block is that day's. Says what of the record is in rows now. */
export function appendLifted(walk: Walk, lifting: Lifting, record: LiftedRecord, low: number, high: number): LeftOut {
  const lifted = lifting.read(record)
  const { understood, leftover } = lifted
  walk.tally.lifted++
  walk.tally.leftoverContents += leftover.attributes.length + leftover.events.length + (leftover.body ? 1 : 0)
  walk.tally.malformedContents += lifted.malformed
  walk.tally.absurdUsages += lifted.absurdUsage
  if (lifted.broken !== undefined) walk.tally.brokenRecords++
  if (lifted.facts.length > 0) appendFacts(walk, lifting, lifted, low, high)
  switch (lifting.rawContentOf(record.tenantId)) {
    case 'all':
      return nothingLeftOut
    case 'leftover':
      return { attributes: understood.attributes, events: new Set(understood.events), body: understood.body }
    case 'none':
      return {
        attributes: [...understood.attributes, ...leftover.attributes],
        events: new Set([...understood.events, ...leftover.events]),
        body: understood.body || leftover.body,
      }
  }
}

const nothingLeftOut: LeftOut = { attributes: [], events: new Set(), body: false }

/** The same of a span that says nothing of models, and is the parent of one that does. */
export function appendLinkFact(walk: Walk, lifting: Lifting, fact: Fact, low: number, high: number): void {
  appendFacts(walk, lifting, { facts: [fact], texts: noTexts }, low, high)
}

const noTexts: ReadonlyMap<string, string> = new Map()

/** The same of a point of a prober's metrics, which holds no content. */
export function appendPointFact(walk: Walk, lifting: Lifting, point: LiftedPoint, low: number, high: number): void {
  walk.tally.lifted++
  const fact = factOfPoint(point)
  if (fact !== undefined) appendFacts(walk, lifting, { facts: [fact], texts: noTexts }, low, high)
}

type Said = Pick<Lifted, 'facts' | 'texts'>

function appendFacts(walk: Walk, lifting: Lifting, lifted: Said, low: number, high: number): void {
  const facts = walk.openBlock(factsTable, walk.day)
  const { columns } = facts
  for (const fact of lifted.facts) {
    if (fact.parentSpanId !== '') lifting.awaited.add(fact.parentSpanId)
    appendIndex(columns.TenantId, internTenant(walk, columns.TenantId))
    appendUint16(columns.RetentionDays.data, lifting.retentionDaysOf(fact.tenantId, fact))
    appendUint64(columns.Timestamp.data, low, high)
    appendWord(columns.TraceId.data, fact.traceId)
    appendWord(columns.SpanId.data, fact.spanId)
    appendWord(columns.FactId.data, fact.id)
    appendCharged(walk, columns.Fact.data, encodeFact(fact))
    facts.rows++
  }
  appendTexts(walk, lifting, lifted)
}

function appendTexts(walk: Walk, lifting: Lifting, { facts, texts }: Said): void {
  const [first] = facts
  if (first === undefined) return
  const user = first.scene.userId ?? ''
  const owner = ownerOfTexts(walk.tenantNow, user)
  let written = walk.texts.get(owner)
  for (const [hash, text] of texts) {
    if (isWholeInPreview(text) || written?.has(hash) === true || lifting.isKnownText(owner, hash)) continue
    if (written === undefined) {
      written = new Set()
      walk.texts.set(owner, written)
    }
    written.add(hash)
    const block = walk.openBlock(contentsTable, walk.receivedDay)
    const { columns } = block
    appendIndex(columns.TenantId, internTenant(walk, columns.TenantId))
    appendUint16(columns.RetentionDays.data, lifting.textRetentionDaysOf(first.tenantId))
    appendUint64(columns.Time.data, walk.receivedLow, walk.receivedHigh)
    appendWord(columns.UserId.data, user)
    appendWord(columns.Hash.data, hash)
    appendCharged(walk, columns.Text.data, text)
    block.rows++
  }
}

function appendCharged(walk: Walk, stream: Stream, text: string): void {
  const before = stream.length
  appendWord(stream, text)
  chargeRow(walk, stream.length - before)
}
