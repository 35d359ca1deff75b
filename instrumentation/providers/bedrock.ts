// Bedrock's Converse, whole, and ConverseStream, whose events are named beside their payload. Usage comes in the event after
// the stop, so a stream cut before it has none.
import { isJsonObject, type Json, numberOf, objectOf, objectsOf, textOf } from './json-fields.ts'
import type { Output } from './output.ts'
import { failureOf, openKnown, type ReplyReader, replyOf } from './reply-reader.ts'

export function openConverseReply(keepsContent: boolean, requestId: string): ReplyReader {
  const known = openKnown(keepsContent)
  const { output } = known
  known.id = requestId

  function accept(value: Json, name: string): void {
    const index = numberOf(value.contentBlockIndex) ?? 0
    switch (name) {
      case 'messageStart':
      case 'contentBlockStop':
        break
      case 'contentBlockStart':
        readBlock(output, index, objectOf(value.start))
        break
      case 'contentBlockDelta':
        readBlock(output, index, objectOf(value.delta))
        break
      case 'messageStop':
        output.finish(0, textOf(value.stopReason))
        known.isComplete = true
        break
      case 'metadata':
        known.takeUsage(value.usage, 'aws.bedrock')
        known.isUsageFinal = true
        break
      case '':
        whole(value)
        break
      default:
        if (/exception$/i.test(name)) known.failure = failureOf(value, name)
    }
  }

  function whole(value: Json): void {
    if (!isJsonObject(value.output)) {
      known.failure = failureOf(value, textOf(value.__type) || 'error')
      return
    }
    const content = objectsOf(objectOf(value.output.message).content)
    for (const [index, block] of content.entries()) readBlock(output, index, block)
    output.finish(0, textOf(value.stopReason))
    known.takeUsage(value.usage, 'aws.bedrock')
    known.isUsageFinal = true
    known.isComplete = true
  }

  return { accept, done: () => undefined, known: () => replyOf(known) }
}

/** A block, its start or a delta of it: the same names in all three. */
function readBlock(output: Output, index: number, block: Json): void {
  const place = `block ${index}`
  if (typeof block.text === 'string') output.text(0, place, block.text)
  else if (isJsonObject(block.toolUse)) {
    const { toolUseId, name, input } = block.toolUse
    output.toolCall(0, place, { id: textOf(toolUseId), name: textOf(name) })
    output.toolArguments(0, place, isJsonObject(input) ? JSON.stringify(input) : textOf(input))
  } else if (isJsonObject(block.reasoningContent)) {
    const { text, reasoningText } = block.reasoningContent
    output.text(0, place, textOf(text) || textOf(objectOf(reasoningText).text), 'reasoning')
  } else {
    const kind = Object.keys(block)[0]
    if (kind !== undefined) output.whole(0, { type: 'generic', kind })
  }
}
