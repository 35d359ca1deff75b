// From one span or log record to what it says: facts, the texts of its content, and an account of which content in the raw
// record they cover. Pure, and it never throws: a record that breaks a reader is left as it came, and said to be so.

import { firstText, textOfValue } from './attributes.ts'
import { type ContentPolicy, hashOf, openContents } from './content.ts'
import { type Dialect, link, type Read } from './dialects/dialect.ts'
import { dialects } from './dialects/list.ts'
import type { Content, Fact, Says } from './fact.ts'
import { failureOf } from './failure.ts'
import { openReading, type Reading } from './reading.ts'
import type { LiftedLog, LiftedRecord, LiftedSpan } from './record.ts'
import { sceneOf } from './scene.ts'
import { isContentEvent, isContentKey } from './speaks.ts'

export type Lifted = {
  /** Empty: no dialect knows the record. */
  readonly facts: readonly Fact[]
  /** Hash → text, each to be kept once. */
  readonly texts: ReadonlyMap<string, string>
  /** Content of which everything is in facts: may be taken out of the raw record. Events by their position. */
  readonly understood: ContentPlaces
  /** Content of which something is in no fact: stays in the raw record, unless the tenant keeps metadata only. */
  readonly leftover: ContentPlaces
  /** For metrics: texts that should have been JSON, usage that cannot be, and why the record could not be read at all. */
  readonly malformed: number
  readonly absurdUsage: number
  readonly broken?: string
}

export type ContentPlaces = {
  readonly attributes: readonly string[]
  readonly events: readonly number[]
  readonly body: boolean
}

export const nowhere: ContentPlaces = { attributes: [], events: [], body: false }

export function factsOf(record: LiftedRecord, policy: ContentPolicy = 'full'): Lifted {
  const contents = openContents(policy)
  const reading = openReading(record, contents)
  try {
    const facts = record.kind === 'span' ? factsOfSpan(reading, record) : factsOfLog(reading, record)
    return { facts, texts: textsOf(facts, contents.texts), ...accountOf(reading, record, facts.length > 0) }
  } catch (error) {
    return {
      facts: [],
      texts: new Map(),
      understood: nowhere,
      leftover: leftoverOf(record, nowhere),
      malformed: 0,
      absurdUsage: 0,
      broken: error instanceof Error ? error.message : String(error),
    }
  }
}

/** The fact of a span that says nothing of its own: an ancestor that may carry a conversation, a user, an address. */
export function linkOf(span: LiftedSpan): Fact {
  return spanFact(span, '', { says: link, failure: failureOf(span) })
}

function factsOfSpan(reading: Reading, span: LiftedSpan): readonly Fact[] {
  // Logfire writes one when a span begins, whoever begins it, under an id of its own.
  if (span.attributes.get('logfire.span_type') === 'pending_span') return []
  const dialect = dialects.find((one) => one.knows(span))
  const read = dialect?.readSpan(reading, span)
  if (dialect === undefined || read === undefined) return []
  const main = spanFact(span, dialect.name, read)
  const besides = (read.besides ?? []).map((says, at): Fact => ({ ...withoutFailure(main), id: `span.${at}`, says }))
  return [main, ...besides]
}

function withoutFailure({ failure: _failure, ...fact }: Fact): Fact {
  return fact
}

function spanFact(span: LiftedSpan, dialect: Fact['dialect'], { says, failure, startUnixNano }: Read): Fact {
  const start = startUnixNano ?? span.startUnixNano
  // Clocks are set back while spans are open.
  const endsBefore = span.endUnixNano < start
  return {
    id: 'span',
    tenantId: span.tenantId,
    traceId: span.traceId,
    spanId: span.spanId,
    parentSpanId: span.parentSpanId === span.spanId ? '' : span.parentSpanId,
    serviceName: firstText(span.resource, 'service.name'),
    dialect,
    startUnixNano: start,
    endUnixNano: endsBefore ? start : span.endUnixNano,
    scene: sceneOf(span.attributes, span.resource),
    ...(failure === undefined ? {} : { failure }),
    says,
  }
}

function factsOfLog(reading: Reading, log: LiftedLog): readonly Fact[] {
  const dialect = dialectOfLog(log)
  const read = dialect?.readLog?.(reading, log)
  if (dialect === undefined || read === undefined) return []
  const { says, failure } = read
  return [
    {
      id: idOfLog(log),
      tenantId: log.tenantId,
      traceId: log.traceId,
      spanId: log.spanId,
      parentSpanId: '',
      serviceName: firstText(log.resource, 'service.name'),
      dialect: dialect.name,
      startUnixNano: log.timeUnixNano,
      endUnixNano: log.timeUnixNano,
      scene: sceneOf(log.attributes, log.resource),
      ...(failure === undefined ? {} : { failure }),
      says,
    },
  ]
}

function dialectOfLog(log: LiftedLog): Dialect | undefined {
  return dialects.find((one) => one.knowsLog?.(log) === true)
}

/** A record that is delivered twice is one fact; so are two that are equal in everything. */
function idOfLog(log: LiftedLog): string {
  const attributes = [...log.attributes].map(([key, value]) => [key, textOfValue(value)]).sort()
  return `log.${hashOf(JSON.stringify([log.eventName, String(log.timeUnixNano), textOfValue(log.body), attributes]))}`
}

function accountOf(
  reading: Reading,
  record: LiftedRecord,
  isRead: boolean,
): Pick<Lifted, 'understood' | 'leftover' | 'malformed' | 'absurdUsage'> {
  const { account } = reading
  // Messages become rows of the span that they belong to: a log record of none keeps its own.
  const understood: ContentPlaces =
    isRead && record.spanId !== ''
      ? {
          attributes: [...account.understood].filter((key) => !account.leftover.has(key)),
          events: [...account.understoodEvents],
          body: account.isBodyUnderstood,
        }
      : nowhere
  return {
    understood,
    leftover: leftoverOf(record, understood),
    malformed: account.malformed,
    absurdUsage: account.absurdUsage,
  }
}

/** Texts that were only looked at are not kept. */
function textsOf(facts: readonly Fact[], texts: ReadonlyMap<string, string>): ReadonlyMap<string, string> {
  const kept = new Map<string, string>()
  for (const fact of facts)
    for (const { hash } of contentsOf(fact.says)) {
      const text = texts.get(hash)
      if (text !== undefined) kept.set(hash, text)
    }
  return kept
}

function contentsOf(says: Says): readonly Content[] {
  if ('messages' in says) return says.messages?.map((message) => message.content) ?? []
  if (says.kind === 'tool') return [says.arguments, says.result].filter((content) => content !== undefined)
  return []
}

function leftoverOf(record: LiftedRecord, understood: ContentPlaces): ContentPlaces {
  const attributes = [...record.attributes.keys()].filter(
    (key) =>
      isContentKey(key) && !understood.attributes.includes(key) && textOfValue(record.attributes.get(key)) !== '',
  )
  if (record.kind === 'log') return { attributes, events: [], body: !understood.body && hasBody(record) }
  const events = record.events.flatMap((event, at) =>
    isContentEvent(event.name) && !understood.events.includes(at) ? [at] : [],
  )
  return { attributes, events, body: false }
}

/** The name of the event, repeated as the body, is no content. */
function hasBody(log: LiftedLog): boolean {
  const text = textOfValue(log.body)
  return text !== '' && text !== log.eventName && text !== firstText(log.attributes, 'event.name')
}
