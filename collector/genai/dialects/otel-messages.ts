// The content of a span in OpenTelemetry's forms: attributes (newest), span events (1.28 to 1.36, Strands, Azure), one JSON
// of everything (1.27, LangSmith), or indexed attributes (OpenLLMetry). Per direction the first form that has something counts,
// since senders write the same content in several.
import {
  isObject,
  type Json,
  jsonOf,
  nestIndexed,
  parseJson,
  scalarText,
  textOfJson,
  textOfValue,
} from '../attributes.ts'
import type { Content, MessageFact } from '../fact.ts'
import { accountFor, nothingSaid, type Reading, readSaid, readSaidJson, type Said, saidIn } from '../reading.ts'
import type { LiftedEvent, LiftedSpan } from '../record.ts'

export function saidOnSpan(reading: Reading, span: LiftedSpan): Said {
  const events = saidByEvents(reading, span)
  const ofEvents = joined(events)
  const input = inputSaid(reading, ofEvents)
  const output = firstSaid(
    () => saidIn(reading, 'gen_ai.output.messages', 'output', 'assistant'),
    () => only(ofEvents, 'output'),
    () => saidIndexed(reading, 'gen_ai.completion.', 'output', 'assistant'),
    () => saidIn(reading, 'gen_ai.completion', 'output', 'assistant'),
  )
  const messages = [...input.messages, ...output.messages]
  accountForEvents(reading, events, messages)
  return { messages, finishReason: output.finishReason || ofEvents.finishReason }
}

/** What is embedded; the reply is vectors. */
export function embeddedOnSpan(reading: Reading, span: LiftedSpan): Said {
  const events = saidByEvents(reading, span)
  const input = inputSaid(reading, joined(events))
  accountForEvents(reading, events, input.messages)
  return input
}

function inputSaid(reading: Reading, ofEvents: Said): Said {
  const system = systemOfAttributes(reading)
  const said = firstSaid(
    () => saidIn(reading, 'gen_ai.input.messages', 'input', 'user'),
    () => only(ofEvents, 'input'),
    () => saidIndexed(reading, 'gen_ai.prompt.', 'input', 'user'),
    () => saidIn(reading, 'gen_ai.prompt', 'input', 'user'),
  ).messages
  // The system's instructions stand among the messages as well, at times.
  const fresh = system.filter(
    (one) => !said.some((message) => message.role === 'system' && isSameContent(message.content, one.content)),
  )
  return { messages: [...fresh, ...said], finishReason: '' }
}

/** An event may go when all that it says is told: where another form has told more, it may say something else. */
function accountForEvents(reading: Reading, events: readonly SaidByEvent[], told: readonly MessageFact[]): void {
  for (const { at, messages, isWhole } of events) {
    const isTold = messages.every(({ direction, content }) =>
      told.some((message) => message.direction === direction && isSameContent(message.content, content)),
    )
    if (isWhole && isTold) reading.account.understoodEvents.add(at)
  }
}

function firstSaid(...sources: readonly (() => Said)[]): Said {
  for (const source of sources) {
    const said = source()
    if (said.messages.length > 0) return said
  }
  return nothingSaid
}

function only({ messages, finishReason }: Said, direction: MessageFact['direction']): Said {
  return { messages: messages.filter((message) => message.direction === direction), finishReason }
}

/** The system's instructions have an attribute of their own. */
function systemOfAttributes(reading: Reading): readonly MessageFact[] {
  return saidIn(reading, 'gen_ai.system_instructions', 'input', 'system').messages.map((message) => ({
    ...message,
    role: 'system',
  }))
}

function isSameContent(one: Content, other: Content): boolean {
  return one.hash === other.hash && one.bytes === other.bytes
}

/** `prefix.0.role`, `prefix.0.content`, `prefix.0.tool_calls.0.name`, … */
export function saidIndexed(
  reading: Reading,
  prefix: string,
  direction: MessageFact['direction'],
  role: string,
  skippedSteps: ReadonlySet<string> = noSteps,
): Said {
  const keys: string[] = []
  const nested = nestIndexed(reading.attributes, prefix, skippedSteps, (key) => keys.push(key))
  if (nested === undefined) return nothingSaid
  const read = readSaidJson(reading, nested.map(withParsedContent), direction, role)
  if (read === undefined) return nothingSaid
  for (const key of keys) accountFor(reading, key, read.isWhole)
  return read
}

const noSteps: ReadonlySet<string> = new Set()

/** Parts come as JSON in the content; `null` in it is how JavaScript writes that there is none. OpenInference's of AutoGen writes
 *  each answer of a tool as JSON. */
function withParsedContent(message: Json): Json {
  if (!isObject(message)) return message
  const answers = Array.isArray(message.function) ? (message.function as readonly Json[]).map(answerOf) : []
  if (answers.length > 0 && answers.every(isObject)) {
    const { function: _answers, ...rest } = message
    return { ...rest, content: answers }
  }
  if (typeof message.content !== 'string') return message
  if (message.content === 'null') return { ...message, content: null }
  const parts = /^\[\s*\{\s*"/.test(message.content) ? parseJson(message.content) : undefined
  return Array.isArray(parts) && parts.every((part) => isObject(part) && part.type !== undefined)
    ? { ...message, content: parts }
    : message
}

function answerOf(text: Json): Json {
  const answer = typeof text === 'string' ? parseJson(text) : undefined
  return isObject(answer) ? { type: 'tool_call_response', ...answer } : null
}

const rolesOfEvents: ReadonlyMap<string, string> = new Map(
  Object.entries<string>({
    'gen_ai.system.message': 'system',
    'gen_ai.user.message': 'user',
    'gen_ai.assistant.message': 'assistant',
    'gen_ai.tool.message': 'tool',
  }),
)

export const detailsEvent = 'gen_ai.client.inference.operation.details'

export function roleOfEvent(name: string): string | undefined {
  return rolesOfEvents.get(name)
}

type SaidByEvent = Said & { readonly at: number; readonly isWhole: boolean }

function saidByEvents(reading: Reading, span: LiftedSpan): readonly SaidByEvent[] {
  return span.events.flatMap((event, at) => {
    const said = saidInEvent(reading, event)
    return said === undefined ? [] : [{ ...said, isWhole: said.isWhole && !saysMore(reading, event), at }]
  })
}

/** Of an event that is taken out all attributes go: one that is not read, and that the span does not repeat, keeps it. */
function saysMore({ attributes }: Reading, event: LiftedEvent): boolean {
  const contentKey = contentKeyOf(event)
  return [...event.attributes].some(([key, value]) => {
    const isRead =
      key === contentKey || readBesideContent.has(key) || (key === 'tool_calls' && Array.isArray(jsonOf(value)))
    const text = isRead ? '' : textOfValue(value)
    return text !== '' && text !== textOfValue(attributes.get(key))
  })
}

const readBesideContent = new Set([
  'tool.result',
  'role',
  'id',
  'index',
  'finish_reason',
  'event.name',
  'gen_ai.system',
  'gen_ai.provider.name',
  'gen_ai.prompt',
  'gen_ai.completion',
  'gen_ai.system_instructions',
  'gen_ai.input.messages',
  'gen_ai.output.messages',
])

/** Events come in the order in which they were added, and in it are the conversation. */
function joined(events: readonly SaidByEvent[]): Said {
  return {
    messages: events.flatMap(({ messages }) => messages),
    finishReason: events.map(({ finishReason }) => finishReason).find((reason) => reason !== '') ?? '',
  }
}

function saidInEvent(reading: Reading, event: LiftedEvent): (Said & { readonly isWhole: boolean }) | undefined {
  const { attributes } = event
  if (event.name === detailsEvent) {
    const system = readSaid(reading, attributes.get('gen_ai.system_instructions'), 'input', 'system')
    const input = readSaid(reading, attributes.get('gen_ai.input.messages'), 'input', 'user')
    const output = readSaid(reading, attributes.get('gen_ai.output.messages'), 'output', 'assistant')
    return {
      messages: [...system.messages, ...input.messages, ...output.messages],
      finishReason: output.finishReason,
      isWhole: system.isWhole && input.isWhole && output.isWhole,
    }
  }
  if (event.name === 'gen_ai.content.prompt') return readSaid(reading, attributes.get('gen_ai.prompt'), 'input', 'user')
  if (event.name === 'gen_ai.content.completion')
    return readSaid(reading, attributes.get('gen_ai.completion'), 'output', 'assistant')
  const role = rolesOfEvents.get(event.name)
  if (event.name !== 'gen_ai.choice' && role === undefined) return undefined
  const direction = role === undefined ? 'output' : 'input'
  const message = messageOfEvent(event, role ?? 'assistant')
  const said = readSaidJson(reading, message, direction, role ?? 'assistant')
  // What a cycle of Strands asked of tools, and what they gave back, stand in one event.
  const returned = readSaid(reading, attributes.get('tool.result'), direction, 'tool')
  if (said === undefined) return undefined
  return {
    messages: [...said.messages, ...returned.messages],
    finishReason: scalarText(attributes.get('finish_reason')) || said.finishReason,
    isWhole: said.isWhole && returned.isWhole,
  }
}

/** Azure puts the whole message into the first as JSON, and Logfire, of Google's SDK, into the second; the others hold parts as
 *  JSON, or a text. */
const contentKeysOfEvents = ['gen_ai.event.content', 'event_body', 'message', 'content'] as const

function contentKeyOf({ attributes }: LiftedEvent): (typeof contentKeysOfEvents)[number] | undefined {
  return contentKeysOfEvents.find((key) => textOfValue(attributes.get(key)) !== '')
}

function messageOfEvent(event: LiftedEvent, role: string): Json {
  const { attributes } = event
  const key = contentKeyOf(event)
  const text = key === undefined ? '' : textOfValue(attributes.get(key))
  const parsed = /^\s*[[{]/.test(text) ? parseJson(text) : undefined
  if (isObject(parsed) && (key === 'gen_ai.event.content' || key === 'event_body')) {
    if (isObject(parsed.message)) return parsed
    return { role, ...parsed, ...(role === 'tool' && parsed.id !== undefined ? { tool_call_id: parsed.id } : {}) }
  }
  const id = scalarText(attributes.get('id'))
  const toolCalls = jsonOf(attributes.get('tool_calls'))
  return {
    role,
    content: parsed ?? text,
    ...(role === 'tool' && id !== '' ? { tool_call_id: id } : {}),
    ...(Array.isArray(toolCalls) ? { tool_calls: toolCalls } : {}),
  }
}

/** On the span of a tool the same events hold its arguments and its result. */
export function toolContentOfEvents(
  reading: Reading,
  span: LiftedSpan,
): { readonly arguments?: Content; readonly result?: Content } {
  const found: { arguments?: Content; result?: Content } = {}
  span.events.forEach((event, at) => {
    const { name, attributes } = event
    const given =
      name === 'gen_ai.tool.message'
        ? textOfValue(attributes.get('content'))
        : requestedInDetails(attributes.get('gen_ai.input.messages'))
    const returned =
      name === 'gen_ai.choice'
        ? textOfValue(attributes.get('message'))
        : returnedInDetails(attributes.get('gen_ai.output.messages'))
    if (given !== '') found.arguments ??= reading.contents.keep(given)
    if (returned !== '') found.result ??= reading.contents.keep(returned)
    if ((given !== '' || returned !== '') && !saysMore(reading, event)) reading.account.understoodEvents.add(at)
  })
  return found
}

function requestedInDetails(value: Parameters<typeof jsonOf>[0]): string {
  return textOfJson(partOfDetails(value, 'tool_call')?.arguments)
}

function returnedInDetails(value: Parameters<typeof jsonOf>[0]): string {
  const part = partOfDetails(value, 'tool_call_response')
  return textOfJson(part?.response ?? part?.result)
}

function partOfDetails(
  value: Parameters<typeof jsonOf>[0],
  type: string,
): { readonly [key: string]: Json } | undefined {
  const messages = value === undefined ? undefined : jsonOf(value)
  if (!Array.isArray(messages)) return undefined
  for (const message of messages as readonly Json[]) {
    const parts = isObject(message) && Array.isArray(message.parts) ? (message.parts as readonly Json[]) : []
    for (const part of parts) if (isObject(part) && part.type === type) return part
  }
  return undefined
}
