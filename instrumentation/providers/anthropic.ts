// Anthropic's messages: whole, or as events. Usage begins in `message_start` (all of the input, next to none of the output) and
// becomes true with `message_delta`, whose counts are cumulative and replace the first ones.
import { isJsonObject, type Json, numberOf, objectOf, objectsOf, textOf } from './json-fields.ts'
import type { Output } from './output.ts'
import { failureOf, openKnown, type ReplyReader, replyOf } from './reply-reader.ts'

export function openMessagesReply(keepsContent: boolean): ReplyReader {
  const known = openKnown(keepsContent)
  const { output } = known
  let usage: Json = {}

  function takeUsage(more: unknown): void {
    if (!isJsonObject(more)) return
    // A null in a delta is a count that did not change.
    usage = { ...usage, ...Object.fromEntries(Object.entries(more).filter(([, count]) => count !== null)) }
    known.takeUsage(usage, 'anthropic')
  }

  function message(value: Json): void {
    known.id = textOf(value.id)
    known.model = textOf(value.model)
    for (const [index, block] of objectsOf(value.content).entries()) readBlock(output, index, block)
    output.finish(0, textOf(value.stop_reason))
    takeUsage(value.usage)
  }

  function accept(value: Json, name: string): void {
    const index = numberOf(value.index) ?? 0
    switch (textOf(value.type) || name) {
      case 'message':
        message(value)
        known.isComplete = true
        known.isUsageFinal = true
        break
      case 'message_start':
        message(objectOf(value.message))
        break
      case 'content_block_start':
        readBlock(output, index, objectOf(value.content_block))
        break
      case 'content_block_delta':
        readDelta(output, index, objectOf(value.delta))
        break
      case 'message_delta':
        output.finish(0, textOf(objectOf(value.delta).stop_reason))
        takeUsage(value.usage)
        known.isUsageFinal = isJsonObject(value.usage)
        break
      case 'message_stop':
        known.isComplete = true
        break
      case 'error':
        known.failure = failureOf(value, 'error')
        break
      default:
        if (isJsonObject(value.error)) known.failure = failureOf(value, 'error')
    }
  }

  return { said: known, accept, done: () => undefined, known: () => replyOf(known) }
}

function readBlock(output: Output, index: number, block: Json): void {
  const type = textOf(block.type)
  if (type === 'text') output.text(0, `block ${index}`, textOf(block.text))
  else if (type === 'thinking') output.text(0, `block ${index}`, textOf(block.thinking), 'reasoning')
  else if (type === 'tool_use') {
    output.toolCall(0, `block ${index}`, { id: textOf(block.id), name: textOf(block.name) })
    // A stream begins with an empty object and sends the text of the real one in deltas.
    if (Object.keys(objectOf(block.input)).length > 0)
      output.toolArguments(0, `block ${index}`, JSON.stringify(block.input))
  } else if (type !== '') output.whole(0, { type: 'generic', kind: type })
}

function readDelta(output: Output, index: number, delta: Json): void {
  if (delta.type === 'text_delta') output.text(0, `block ${index}`, textOf(delta.text))
  else if (delta.type === 'thinking_delta') output.text(0, `block ${index}`, textOf(delta.thinking), 'reasoning')
  else if (delta.type === 'input_json_delta') output.toolArguments(0, `block ${index}`, textOf(delta.partial_json))
}
