// Tokens of a stream that told none, counted from its texts. Importing this loads a tokenizer (75 MB, a third of a second), so
// it belongs into a worker. An estimate is one: vendors have tokenizers of their own, and reasoning leaves no text.
import { countTokens } from 'gpt-tokenizer/encoding/o200k_base'
import { limits } from '../limits.ts'
import type { Estimate } from './fact.ts'

export type Texts = { readonly input: readonly string[]; readonly output: readonly string[] }

/** What OpenAI's chat format adds per message and before the reply. */
const perMessageTokens = 3
const replyTokens = 3

export function estimateUsage({ input, output }: Texts): Estimate {
  const sum = (texts: readonly string[]) => texts.reduce((total, text) => total + estimateTokens(text), 0)
  const inputTextTokens = sum(input)
  const inputTokens = inputTextTokens + input.length * perMessageTokens + replyTokens
  return { usage: { inputTokens, outputTokens: sum(output) }, inputTextTokens }
}

export function estimateTokens(text: string): number {
  const read = text.slice(0, limits.estimatedCharsMax)
  let tokens = 0
  for (let from = 0; from < read.length; ) {
    const to = cutBefore(read, from + sliceChars)
    tokens += countTokens(read.slice(from, to), { disallowedSpecial: noneDisallowed })
    from = to
  }
  return read.length === text.length ? tokens : Math.round(tokens * (text.length / read.length))
}

/** Merging takes time that grows with the square of a word, and Chinese writes no spaces: 64 Ki characters of it as one word
 *  take 14 s. A cut costs a token at most. */
const sliceChars = 256
const wordChars = 32
/** A text may contain `<|endoftext|>`, which is then six tokens of text and no reason to throw. */
const noneDisallowed: Set<string> = new Set()

/** Before a word, where one begins near the end of the slice. */
function cutBefore(text: string, end: number): number {
  if (end >= text.length) return text.length
  const space = text.lastIndexOf(' ', end)
  return space > end - wordChars ? space : end
}
