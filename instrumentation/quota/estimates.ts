// What a call may need, before it is made: input from the bytes of its request, output from its own bound or from what the model
// wrote before. Learnt from settled calls, per model; a tokenizer in a service would cost more than the call's own overhead.
import { limits } from '../limits.ts'
import type { CallRequest } from '../providers/call.ts'
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
      const { chars, mediaCount } = sizeOf(request, requestBytes)
      // Media are billed by their size in pixels or seconds, and would teach nothing about text.
      if (inputTokens !== undefined && inputTokens > 0 && mediaCount === 0) {
        const seen = Math.min(Math.max(chars / inputTokens, limits.bytesPerTokenMin), limits.bytesPerTokenMax)
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

/** A short request is what it weighs. A long one may be long because of pictures, whose bytes are no tokens. */
function sizeOf(request: CallRequest, requestBytes: number): { readonly chars: number; readonly mediaCount: number } {
  if (requestBytes < limits.requestWithoutMediaBytesMax) return { chars: requestBytes, mediaCount: 0 }
  const { system, messages } = request.content()
  let chars = 0
  let mediaCount = 0
  // Arguments that are too deep for JSON are too deep for it here, and the call has to be asked for all the same.
  const textLengthOf = (part: object): number => {
    try {
      return JSON.stringify(part).length
    } catch {
      return requestBytes
    }
  }
  for (const part of [...system, ...messages.flatMap(({ parts }) => parts)]) {
    if (part.type === 'text' || part.type === 'reasoning') chars += part.content.length
    else if (part.type === 'blob' || part.type === 'uri' || part.type === 'file') mediaCount++
    else chars += textLengthOf(part)
  }
  return mediaCount === 0 ? { chars: requestBytes, mediaCount } : { chars, mediaCount }
}
