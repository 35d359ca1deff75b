// Gemini's generateContent, whole or in chunks of the same shape: each carries new parts and the usage so far, and the last
// one a finish reason. A prompt that is blocked has no candidates and a reason of its own.
import { isJsonObject, type Json, numberOf, objectOf, objectsOf, textOf } from './json-fields.ts'
import type { Output } from './output.ts'
import { failureOf, openKnown, type ReplyReader, replyOf } from './reply-reader.ts'

export function openGenerateReply(keepsContent: boolean): ReplyReader {
  const known = openKnown(keepsContent)
  const { output } = known
  /** Text continues the part before it where that was of the same kind. */
  const runs = new Map<number, { kind: string; count: number }>()

  function placeOf(index: number, kind: string, continues: boolean): string {
    const run = runs.get(index) ?? { kind: '', count: 0 }
    const count = continues && run.kind === kind ? run.count : run.count + 1
    runs.set(index, { kind, count })
    return `${kind} ${count}`
  }

  function part(index: number, value: Json): void {
    if (typeof value.text === 'string') {
      const type = value.thought === true ? 'reasoning' : 'text'
      output.text(index, placeOf(index, type, true), value.text, type)
    } else if (isJsonObject(value.functionCall)) {
      const place = placeOf(index, 'tool', false)
      const { id, name, args } = value.functionCall
      output.toolCall(index, place, { id: textOf(id), name: textOf(name) })
      output.toolArguments(index, place, JSON.stringify(args ?? {}))
    } else wholePart(output, index, value)
  }

  function accept(value: Json): void {
    if (isJsonObject(value.error)) known.failure = failureOf(value, 'error')
    known.id = textOf(value.responseId) || known.id
    known.model = textOf(value.modelVersion) || known.model
    for (const candidate of objectsOf(value.candidates)) {
      const index = numberOf(candidate.index) ?? 0
      for (const each of objectsOf(objectOf(candidate.content).parts)) part(index, each)
      const reason = textOf(candidate.finishReason)
      if (reason !== '') {
        output.finish(index, reason)
        known.isComplete = true
      }
    }
    if (typeof objectOf(value.promptFeedback).blockReason === 'string') {
      output.finish(0, 'content_filter')
      known.isComplete = true
    }
    if (isJsonObject(value.usageMetadata)) {
      known.takeUsage(value.usageMetadata, 'gcp.gemini')
      known.isUsageFinal = known.isComplete
    }
  }

  return { accept, done: () => undefined, known: () => replyOf(known) }
}

function wholePart(output: Output, index: number, value: Json): void {
  const media = objectOf(value.inlineData ?? value.fileData)
  const mimeType = textOf(media.mimeType)
  const modality = mimeType.split('/')[0] ?? ''
  if (isJsonObject(value.inlineData)) output.whole(index, { type: 'blob', modality, mime_type: mimeType })
  else if (isJsonObject(value.fileData)) output.whole(index, { type: 'uri', modality, uri: textOf(media.fileUri) })
  else {
    const kind = Object.keys(value).find((key) => key !== 'thoughtSignature')
    if (kind !== undefined) output.whole(index, { type: 'generic', kind })
  }
}
