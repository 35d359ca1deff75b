// Log records that carry the content of a span: one per message (1.28 to 1.36: the name in an attribute, the message in the
// body), or one or two with everything in attributes (since 1.37). They repeat the span's numbers, which are not read here.
// AgentCore writes the payload of Strands' and LangChain's spans as `{input: {messages}, output: {messages}}` in the body.
import { foldFinishReason } from '@tallylight/instrumentation/usage/names.ts'
import { firstText, isObject, type Json, objectOf, toJson } from '../attributes.ts'
import type { MessageFact, MessagesSays } from '../fact.ts'
import { failureOfLog } from '../failure.ts'
import { type Reading, readSaid, readSaidJson, type Said } from '../reading.ts'
import type { LiftedLog } from '../record.ts'
import type { Read } from './dialect.ts'
import { detailsEvent, roleOfEvent } from './otel-messages.ts'

export function readLogOfEvents(reading: Reading, log: LiftedLog): Read | undefined {
  const name = eventNameOf(log)
  if (name === 'gen_ai.client.operation.exception')
    return { says: { kind: 'error', of: 'operation' }, failure: failureOfLog(log) }
  if (name === detailsEvent) return readDetails(reading, log)
  const role = roleOfEvent(name)
  if (role !== undefined || name === 'gen_ai.choice') return readOneMessage(reading, log, role)
  return readPayload(reading, log)
}

export function eventNameOf(log: LiftedLog): string {
  return log.eventName || firstText(log.attributes, 'event.name')
}

function readDetails(reading: Reading, log: LiftedLog): Read | undefined {
  const system = readAttribute(reading, 'gen_ai.system_instructions', 'input', 'system')
  const input = readAttribute(reading, 'gen_ai.input.messages', 'input', 'user')
  const output = readAttribute(reading, 'gen_ai.output.messages', 'output', 'assistant')
  return messagesOf(log, 'list', [...system.messages, ...input.messages, ...output.messages], output.finishReason)
}

function readAttribute(reading: Reading, key: string, direction: 'input' | 'output', role: string): Said {
  const said = readSaid(reading, reading.attributes.get(key), direction, role)
  if (said.messages.length > 0 && said.isWhole) reading.account.understood.add(key)
  return said
}

function readOneMessage(reading: Reading, log: LiftedLog, role: string | undefined): Read | undefined {
  // Semantic Kernel writes the body as the text of its JSON. Of all others a text is what was said, be it JSON or not.
  const isJson = log.scope.name.startsWith('semantic_kernel.')
  const body = (isJson ? objectOf(log.body) : undefined) ?? toJson(log.body)
  const message: Json = isObject(body)
    ? isObject(body.message)
      ? { finish_reason: body.finish_reason ?? null, ...withRole(body.message, 'assistant') }
      : withRole(withToolCallId(body), role ?? 'assistant')
    : { role: role ?? 'assistant', content: body }
  const said = readSaidJson(reading, message, role === undefined ? 'output' : 'input', role ?? 'assistant')
  if (said === undefined) return undefined
  reading.account.isBodyUnderstood = said.isWhole && !hasMoreThanMessage(body)
  return messagesOf(log, 'one', said.messages, said.finishReason)
}

function withRole(message: { readonly [key: string]: Json }, role: string): { readonly [key: string]: Json } {
  return { role, ...message }
}

function withToolCallId(body: { readonly [key: string]: Json }): { readonly [key: string]: Json } {
  return body.id === undefined ? body : { ...body, tool_call_id: body.id }
}

/** Of a choice the message is read, and why it ended. */
function hasMoreThanMessage(body: Json): boolean {
  return isObject(body) && isObject(body.message) && Object.keys(body).some((key) => !choiceKeys.has(key))
}

const choiceKeys = new Set(['message', 'finish_reason', 'index', 'id'])

function readPayload(reading: Reading, log: LiftedLog): Read | undefined {
  const body = toJson(log.body)
  if (!isObject(body)) return undefined
  const input = isObject(body.input) ? readSaidJson(reading, body.input, 'input', 'user') : undefined
  const output = isObject(body.output) ? readSaidJson(reading, body.output, 'output', 'assistant') : undefined
  const isAllRead = Object.entries(body).every(
    ([key, value]) => (key === 'input' || key === 'output') && (isObject(value) || value === null),
  )
  reading.account.isBodyUnderstood = isAllRead && (input?.isWhole ?? true) && (output?.isWhole ?? true)
  return messagesOf(log, 'list', [...(input?.messages ?? []), ...(output?.messages ?? [])], output?.finishReason ?? '')
}

function messagesOf(
  log: LiftedLog,
  extent: MessagesSays['extent'],
  messages: readonly MessageFact[],
  finishReason: string,
): Read | undefined {
  if (messages.length === 0 && finishReason === '') return undefined
  return {
    says: { kind: 'messages', extent, ordinal: log.ordinal, messages, finishReason: foldFinishReason(finishReason) },
  }
}
