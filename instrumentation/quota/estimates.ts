// What a call may need, before it is made: input from the bytes of its request, output from its own bound or from what the model
// wrote before. Learnt from settled calls, per model; a tokenizer in a service would cost more than the call's own overhead.
import { limits } from '../limits.ts'
import { type CallRequest, isMedia, type Part } from '../providers/call.ts'
import { objectsOf } from '../providers/json-fields.ts'
import type { Usage } from '../usage/usage.ts'

export type Estimate = { readonly inputTokens: number; readonly outputTokensMax: number }

export type Estimates = {
  of(request: CallRequest, requestBytes: number): Estimate
  /** What a settled call teaches. */
  learn(request: CallRequest, requestBytes: number, usage: Usage): void
  /** Of a text that passed and was not counted. */
  tokensOf(model: string, chars: number): number
}

type Learnt = { bytesPerToken: number; readonly outputs: number[] }

export function openEstimates(): Estimates {
  /** In the order of use: the first is forgotten first. */
  const models = new Map<string, Learnt>()

  function learntOf(model: string): Learnt {
    const learnt = models.get(model) ?? { bytesPerToken: limits.bytesPerTokenUsual, outputs: [] }
    models.delete(model)
    models.set(model, learnt)
    const [oldest] = models.keys()
    if (models.size > limits.estimatedModelsMax && oldest !== undefined) models.delete(oldest)
    return learnt
  }

  return {
    of(request, requestBytes) {
      const { bytesPerToken, outputs } = learntOf(request.model)
      const { chars, mediaCount } = sizeOf(request, requestBytes)
      return {
        inputTokens: Math.ceil(chars / bytesPerToken) + mediaCount * limits.mediaTokensUsual,
        outputTokensMax: countOr(request.outputTokensMax, usualOutput(outputs)),
      }
    },
    learn(request, requestBytes, { inputTokens, outputTokens }) {
      const learnt = learntOf(request.model)
      if (inputTokens !== undefined && inputTokens > 0 && isAllText(request, requestBytes)) {
        const seen = Math.min(Math.max(requestBytes / inputTokens, limits.bytesPerTokenMin), limits.bytesPerTokenMax)
        learnt.bytesPerToken += (seen - learnt.bytesPerToken) / 8
      }
      if (outputTokens === undefined) return
      learnt.outputs.push(outputTokens)
      if (learnt.outputs.length > limits.estimatedOutputsMax) learnt.outputs.shift()
    },
    tokensOf: (model, chars) => Math.ceil(chars / learntOf(model).bytesPerToken),
  }
}

/** What a caller says, where it is a count: -1 stands for no bound at some servers, and others have it from their users. */
export function countOr(said: number | undefined, otherwise: number): number {
  return typeof said === 'number' && said >= 0 ? Math.min(Math.ceil(said), limits.estimatedTokensMax) : otherwise
}

/** The 95th of a hundred: of few the largest. */
function usualOutput(outputs: readonly number[]): number {
  if (outputs.length < limits.estimatedOutputsMin) return limits.outputTokensUsual
  const sorted = outputs.toSorted((a, b) => a - b)
  return sorted[Math.ceil(sorted.length * 0.95) - 1] ?? limits.outputTokensUsual
}

/** Whether the tokens that were counted are those of the bytes that were seen. Not of a body that passed unseen (0), nor where the
 *  provider keeps a part; and media are billed by their size in pixels or seconds. */
function isAllText(request: CallRequest, requestBytes: number): boolean {
  return requestBytes > 0 && request.isAllSaid && mediaCountOf(partsOf(request)) === 0
}

/** A request of text is what it weighs. Of pictures neither the bytes are tokens, nor is the address of one its size. */
function sizeOf(request: CallRequest, requestBytes: number): { readonly chars: number; readonly mediaCount: number } {
  const parts = partsOf(request)
  const mediaCount = mediaCountOf(parts)
  if (mediaCount === 0) return { chars: requestBytes, mediaCount }
  let chars = 0
  // Arguments that are too deep for JSON are too deep for it here, and the call has to be asked for all the same.
  const jsonLengthOf = (value: unknown): number => {
    try {
      return JSON.stringify(value).length
    } catch {
      return requestBytes
    }
  }
  for (const part of parts) {
    if (part.type === 'text' || part.type === 'reasoning') chars += part.content.length
    else if (!isMedia(part)) chars += jsonLengthOf(part)
  }
  for (const tool of request.tools()) chars += jsonLengthOf(tool)
  return { chars, mediaCount }
}

function partsOf(request: CallRequest): readonly Part[] {
  const { system, messages } = request.content()
  return [...system, ...messages.flatMap(({ parts }) => parts)]
}

/** Those in the results of tools, too: agents look at a screen that way. */
function mediaCountOf(parts: readonly Part[]): number {
  let count = 0
  for (const part of parts) {
    if (isMedia(part)) count++
    else if (part.type === 'tool_call_response') count += objectsOf(part.response).filter(isMedia).length
  }
  return count
}
