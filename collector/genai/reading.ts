// One record while its dialect is read: what is asked of it again and again, and an account of which of its content became
// part of facts. What is accounted for may be taken out of the raw record; what is content and was not understood stays.
import { isEmpty, type Usage, type UsageRead, type UsageSource } from '@tallylight/instrumentation/usage/usage.ts'
import { type Json, jsonOf, parseJson, textOfJson, textOfValue, toJson } from './attributes.ts'
import type { Contents } from './content.ts'
import type { Content, ContentType, MessageFact, TurnSays } from './fact.ts'
import { readMessages } from './messages.ts'
import type { AnyValue, Attributes, LiftedRecord } from './record.ts'

export type Direction = 'input' | 'output'

/** Where in the raw record a content stands: an attribute, an attribute of the n-th span event, or a log's body. */
export type Place = string | { readonly event: number; readonly key: string } | 'body'

export type Account = {
  /** Attributes whose content is in rows, all of it. */
  readonly understood: Set<string>
  /** Span events, by position, whose content is in rows, all of it. */
  readonly understoodEvents: Set<number>
  isBodyUnderstood: boolean
  /** Attributes that hold content of which not everything is in rows. */
  readonly leftover: Set<string>
  malformed: number
  absurdUsage: number
}

export type Reading = {
  readonly record: LiftedRecord
  readonly attributes: Attributes
  readonly contents: Contents
  readonly account: Account
}

export function openReading(record: LiftedRecord, contents: Contents): Reading {
  const account: Account = {
    understood: new Set(),
    understoodEvents: new Set(),
    isBodyUnderstood: false,
    leftover: new Set(),
    malformed: 0,
    absurdUsage: 0,
  }
  return { record, attributes: record.attributes, contents, account }
}

export type Said = { readonly messages: readonly MessageFact[]; readonly finishReason: string }
export const nothingSaid: Said = { messages: [], finishReason: '' }

/** A value that should hold messages: as JSON, structured, or a plain text of `role`. Text that looks like JSON and is none is
 *  kept as it came, and marked. */
export function readSaid(
  reading: Reading,
  value: AnyValue | undefined,
  direction: Direction,
  role: string,
): Said & { readonly isWhole: boolean } {
  const text = typeof value === 'string' ? value : undefined
  if (value === undefined || value === null || text === '') return { ...nothingSaid, isWhole: true }
  const json = text === undefined ? toJson(value) : /^\s*[[{"]/.test(text) ? parseJson(text) : text
  if (json === undefined) return readMalformed(reading, text as string, direction, role)
  return readSaidJson(reading, json, direction, role) ?? readMalformed(reading, textOfValue(value), direction, role)
}

function readMalformed(
  reading: Reading,
  text: string,
  direction: Direction,
  role: string,
): Said & { readonly isWhole: true } {
  reading.account.malformed++
  return { messages: [messageOf(reading, direction, role, 'malformed', text)], finishReason: '', isWhole: true }
}

/** Undefined: it is nested too deep for anyone. */
export function readSaidJson(
  reading: Reading,
  json: Json,
  direction: Direction,
  role: string,
): (Said & { readonly isWhole: boolean }) | undefined {
  try {
    const { parts, finishReason, isWhole } = readMessages(json, role)
    return {
      messages: parts.map((part) => messageOf(reading, direction, part.role, part.type, part.text, part.toolName)),
      finishReason,
      isWhole,
    }
  } catch (error) {
    // Recursion is the only thing here that depends on what was sent.
    if (error instanceof RangeError) return undefined
    throw error
  }
}

export function messageOf(
  reading: Reading,
  direction: Direction,
  role: string,
  type: ContentType,
  text: string,
  toolName?: string,
): MessageFact {
  const content = reading.contents.keep(text)
  return { direction, role, type, content, ...(toolName ? { toolName } : {}) }
}

/** Reads an attribute as messages and accounts for it. */
export function saidIn(reading: Reading, key: string, direction: Direction, role: string): Said {
  const said = readSaid(reading, reading.attributes.get(key), direction, role)
  if (said.messages.length > 0) accountFor(reading, key, said.isWhole)
  return said
}

export function accountFor(reading: Reading, key: string, isWhole: boolean): void {
  if (isWhole) reading.account.understood.add(key)
  else reading.account.leftover.add(key)
}

/** Content that is known to be one and goes into no row. */
export function leaveOver(reading: Reading, ...keys: readonly string[]): void {
  for (const key of keys) if (reading.attributes.has(key)) reading.account.leftover.add(key)
}

/** The first of the attributes that is there, whole, as arguments or a result. */
export function contentIn(reading: Reading, ...keys: readonly string[]): Content | undefined {
  for (const key of keys) {
    const text = textOfValue(reading.attributes.get(key))
    if (text === '') continue
    reading.account.understood.add(key)
    return reading.contents.keep(text)
  }
  return undefined
}

/** Part of an attribute's JSON as content; the attribute itself stays where it is unless `isWhole`. */
export function contentOfJson(reading: Reading, json: Json | undefined): Content | undefined {
  const text = textOfJson(json)
  return text === '' ? undefined : reading.contents.keep(text)
}

/** What a span around calls holds, in whatever form its framework has: as messages if all of it is messages, else as the text
 *  that it is. Either way it may be taken out of the raw record. */
export function wholeIn(reading: Reading, key: string, direction: Direction, role: string): readonly MessageFact[] {
  const value = reading.attributes.get(key)
  if (value !== undefined) reading.account.understood.add(key)
  return saidWhole(reading, value, direction, role)
}

export function saidWhole(
  reading: Reading,
  value: AnyValue | undefined,
  direction: Direction,
  role: string,
): readonly MessageFact[] {
  const { messages, isWhole } = readSaid(reading, value, direction, role)
  if (isWhole && messages.some(({ type }) => type !== 'json')) return messages
  // Not as it was parsed: numbers may be longer than JavaScript's.
  const text = textOfValue(value)
  return text === '' ? [] : [messageOf(reading, direction, role, 'json', text)]
}

/** A turn, or what may be one, of the messages that stand on its span: it shows the last text of the user, and of the answer. */
export function turnSays(kind: TurnSays['kind'], name: string, messages: readonly MessageFact[]): TurnSays {
  const question = lastText(messages, 'input', 'user')
  const answer = lastText(messages, 'output', 'assistant')
  return {
    kind,
    name,
    ...(question === undefined ? {} : { question }),
    ...(answer === undefined ? {} : { answer }),
    ...(messages.length === 0 ? {} : { messages }),
  }
}

function lastText(messages: readonly MessageFact[], direction: Direction, role: string): Content | undefined {
  return messages.findLast(
    (message) => message.direction === direction && message.role === role && message.type === 'text',
  )?.content
}

/** Of an attribute with the dialect's own JSON. */
export function jsonIn(reading: Reading, key: string): Json | undefined {
  return jsonOf(reading.attributes.get(key))
}

export type Counted = { readonly usage: Usage; readonly usageSource: UsageSource }

/** What was reported, completed by what the provider's own JSON on the record says, which is never wrong about itself. */
export function settleUsage(
  reading: Reading,
  reported: UsageRead,
  raw: UsageRead,
  source: UsageSource = 'provider',
): Counted {
  if (reported.kind === 'absurd' || raw.kind === 'absurd') {
    reading.account.absurdUsage++
    return { usage: {}, usageSource: 'none' }
  }
  const said = reported.kind === 'usage' ? reported.usage : {}
  if (raw.kind === 'usage' && !isNothing(raw.usage)) {
    const usage = { ...said, ...raw.usage }
    const isSame = mainKinds.every((kind) => usage[kind] === said[kind])
    return { usage, usageSource: isSame ? source : 'recovered' }
  }
  return isNothing(said) ? { usage: {}, usageSource: 'none' } : { usage: said, usageSource: source }
}

const mainKinds = ['inputTokens', 'cacheReadTokens', 'cacheWriteTokens', 'outputTokens', 'reasoningTokens'] as const

/** Nobody calls a model with no tokens at all: two zeros are how some senders write that they do not know. */
function isNothing(usage: Usage): boolean {
  return isEmpty(usage) || ((usage.inputTokens ?? 0) === 0 && (usage.outputTokens ?? 0) === 0)
}
