// Replies to embeddings: OpenAI's and Gemini's. The vectors are nobody's telemetry; usage, model and failure are.
import { isJsonObject, type Json, textOf } from './json-fields.ts'
import { failureOf, openKnown, type ReplyReader, replyOf } from './reply-reader.ts'

export function openEmbeddingsReply(provider: string, keepsContent: boolean): ReplyReader {
  const known = openKnown(keepsContent)

  function accept(value: Json): void {
    if (isJsonObject(value.error)) known.failure = failureOf(value, 'error')
    else known.isComplete = true
    known.model = textOf(value.model) || textOf(value.modelVersion)
    known.takeUsage(value.usage ?? value.usageMetadata, provider)
    known.isUsageFinal = known.usage !== undefined
  }

  return { accept, done: () => undefined, known: () => replyOf(known) }
}
