// OpenAI's responses: whole, or as named events whose last one carries the whole response again. The text is taken from
// the deltas, so that a stream cut in the middle has what was written; the last event gives usage and outcome.
import { isJsonObject, type Json, numberOf, objectOf, objectsOf, textOf } from './json-fields.ts'
import type { Output } from './output.ts'
import { failureOf, openKnown, type ReplyReader, replyOf } from './reply-reader.ts'

export function openResponsesReply(provider: string, keepsContent: boolean): ReplyReader {
  const known = openKnown(keepsContent)
  const { output } = known
  let hasOutput = false

  function accept(value: Json): void {
    const type = textOf(value.type)
    if (value.object === 'response' || type === '') response(value)
    else if (isJsonObject(value.response)) response(value.response)
    else if (type === 'error') known.failure = failureOf(value, 'error')
    else delta(type, value)
  }

  function delta(type: string, value: Json): void {
    const item = numberOf(value.output_index) ?? 0
    const place = `${item} ${numberOf(value.content_index) ?? numberOf(value.summary_index) ?? 0}`
    switch (type) {
      case 'response.output_item.added':
        if (readItemHead(output, item, objectOf(value.item))) hasOutput = true
        break
      case 'response.output_text.delta':
      case 'response.refusal.delta':
      // Realtime: the second name of each is that of its beta.
      case 'response.text.delta':
      case 'response.output_audio_transcript.delta':
      case 'response.audio_transcript.delta':
        hasOutput = true
        output.text(0, `text ${place}`, textOf(value.delta))
        break
      case 'response.reasoning_summary_text.delta':
      case 'response.reasoning_text.delta':
        hasOutput = true
        output.text(0, `reasoning ${place}`, textOf(value.delta), 'reasoning')
        break
      case 'response.function_call_arguments.delta':
      case 'response.custom_tool_call_input.delta':
        output.toolArguments(0, `tool ${item}`, textOf(value.delta))
        break
      default:
    }
  }

  function response(value: Json): void {
    known.id = textOf(value.id) || known.id
    known.model = textOf(value.model) || known.model
    if (isJsonObject(value.error)) known.failure = failureOf(value, 'error')
    const status = textOf(value.status)
    if (isJsonObject(value.usage)) known.takeUsage(value.usage, provider)
    if (status === 'queued' || status === 'in_progress' || status === '') return
    known.isComplete = true
    known.isUsageFinal = known.usage !== undefined
    if (!hasOutput) for (const [at, item] of objectsOf(value.output).entries()) readItem(output, at, item)
    const reason = textOf(objectOf(value.incomplete_details).reason)
    if (status === 'failed' && known.failure === undefined) known.failure = { type: 'failed', message: '' }
    const finish = status === 'completed' && output.toolCalls().length > 0 ? 'tool_call' : reason || status
    output.finish(0, status === 'failed' ? 'error' : finish)
  }

  return { said: known, accept, done: () => undefined, known: () => replyOf(known) }
}

/** The id and name of a call, which its deltas do not repeat. Gives whether the item was one. */
function readItemHead(output: Output, at: number, item: Json): boolean {
  const type = textOf(item.type)
  if (type !== 'function_call' && type !== 'custom_tool_call') return false
  output.toolCall(0, `tool ${at}`, { id: textOf(item.call_id), name: textOf(item.name) })
  return true
}

function readItem(output: Output, at: number, item: Json): void {
  const type = textOf(item.type)
  if (readItemHead(output, at, item)) {
    output.toolArguments(0, `tool ${at}`, textOf(item.arguments) || textOf(item.input))
    return
  }
  const isReasoning = type === 'reasoning'
  if (!isReasoning && type !== 'message') {
    if (type !== '') output.whole(0, { type: 'generic', kind: type })
    return
  }
  const texts = isReasoning ? [...objectsOf(item.summary), ...objectsOf(item.content)] : objectsOf(item.content)
  for (const [index, part] of texts.entries()) {
    const text = textOf(part.text) || textOf(part.refusal)
    output.text(0, `${type} ${at} ${index}`, text, isReasoning ? 'reasoning' : 'text')
  }
}
