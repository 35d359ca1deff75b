// OpenAI's chat completions and the older completions, as OpenAI and the many who speak it send them: whole, or as chunks
// that each carry deltas. Usage comes in a last chunk without choices, at some in every chunk, at Groq under `x_groq`, at Moonshot in the
// choice that ends.
import { isJsonObject, type Json, numberOf, objectOf, objectsOf, textOf } from './json-fields.ts'
import type { Output } from './output.ts'
import { failureOf, openKnown, type ReplyReader, replyOf } from './reply-reader.ts'

export function openChatReply(provider: string, keepsContent: boolean): ReplyReader {
  const known = openKnown(keepsContent)
  const { output } = known
  let isFinished = false

  function accept(value: Json): void {
    if (isJsonObject(value.error) || typeof value.error === 'string') known.failure = failureOf(value, 'error')
    known.id = textOf(value.id) || known.id
    known.model = textOf(value.model) || known.model
    let usageOfChoice: unknown
    for (const choice of objectsOf(value.choices)) {
      usageOfChoice ??= choice.usage
      const index = numberOf(choice.index) ?? 0
      const said = isJsonObject(choice.delta) ? choice.delta : objectOf(choice.message)
      readSaid(output, index, said)
      output.text(index, 'text', textOf(choice.text))
      if (typeof choice.finish_reason === 'string') {
        output.finish(index, choice.finish_reason)
        isFinished = true
      }
      if (isJsonObject(choice.message) || isFinished) known.isComplete = true
    }
    const usage = isJsonObject(value.usage) ? value.usage : (objectOf(value.x_groq).usage ?? usageOfChoice)
    if (isJsonObject(usage)) {
      known.takeUsage(usage, provider)
      known.isUsageFinal = isFinished || known.isComplete
    }
  }

  function done(): void {
    known.isComplete = true
    known.isUsageFinal = known.usage !== undefined
  }

  return { said: known, accept, done, known: () => replyOf(known) }
}

/** A message or a delta: the same fields, the one whole and the other in pieces. */
function readSaid(output: Output, index: number, said: Json): void {
  // Three names for the same: DeepSeek and vLLM, OpenRouter, Ollama.
  const reasoning = textOf(said.reasoning_content) || textOf(said.reasoning) || textOf(said.thinking)
  output.text(index, 'reasoning', reasoning, 'reasoning')
  output.text(index, 'text', textOf(said.content))
  for (const part of objectsOf(said.content)) {
    const text = textOf(part.text)
    // Mistral thinks in parts of its own.
    const thinking = objectsOf(part.thinking).map((each) => textOf(each.text))
    output.text(index, 'reasoning', thinking.join(''), 'reasoning')
    output.text(index, 'text', text)
  }
  output.text(index, 'refusal', textOf(said.refusal))
  const audio = objectOf(said.audio)
  output.text(index, 'transcript', textOf(audio.transcript))
  objectsOf(said.tool_calls).forEach((call, at) => {
    const asked = isJsonObject(call.function) ? call.function : objectOf(call.custom)
    const place = `tool ${numberOf(call.index) ?? at}`
    output.toolCall(index, place, { id: textOf(call.id), name: textOf(asked.name) })
    output.toolArguments(index, place, argumentsOf(asked.arguments ?? asked.input))
  })
  if (isJsonObject(said.function_call)) {
    output.toolCall(index, 'function', { name: textOf(said.function_call.name) })
    output.toolArguments(index, 'function', argumentsOf(said.function_call.arguments))
  }
}

/** Ollama and some gateways send the object itself where OpenAI sends its text. */
function argumentsOf(value: unknown): string {
  return isJsonObject(value) ? JSON.stringify(value) : textOf(value)
}
