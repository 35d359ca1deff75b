// What the readers of all providers share: they take JSON values, the whole body or one event of a stream, and can tell at
// any moment what is known.
import { readProviderUsage } from '../usage/provider-usage.ts'
import type { Usage } from '../usage/usage.ts'
import type { CallFailure, CallReply } from './call.ts'
import { type Json, objectOf, textOf } from './json-fields.ts'
import { type Output, openOutput, type Piece } from './output.ts'

export type ReplyReader = {
  /** Where what an event does is told by the event alone: then the next that is like it need not be parsed. */
  readonly said?: Said
  /** `name` is what stands beside the value on the wire, '' where nothing does. */
  accept(value: Json, name: string): void
  /** The mark at the end of OpenAI's streams. */
  done(): void
  known(): Omit<CallReply, 'brokenEvents'>
}

/** What was said so far, to see whether an event said anything but a few more letters. */
export type Said = Pick<Known, 'output' | 'id' | 'model' | 'usage' | 'isUsageFinal' | 'isComplete' | 'failure'>

/** What a reader fills in. Usage that came before the end is a lower bound. */
export type Known = {
  readonly output: Output
  id: string
  model: string
  usage: Usage | undefined
  isUsageFinal: boolean
  isComplete: boolean
  failure: CallFailure | undefined
  /** Counts that were there and cannot be true. */
  takeUsage(usage: unknown, provider: string): void
}

export function openKnown(keepsContent: boolean): Known {
  return {
    output: openOutput(keepsContent),
    id: '',
    model: '',
    usage: undefined,
    isUsageFinal: false,
    isComplete: false,
    failure: undefined,
    takeUsage(usage, provider) {
      const read = readProviderUsage(usage, provider)
      if (read.kind === 'usage') this.usage = read.usage
      else if (read.kind === 'absurd') this.usage = undefined
    },
  }
}

/** The letters that `accept` added, where that is all it did. */
export function onlyPiece(said: Said, accept: () => void): Piece | undefined {
  const { id, model, usage, isUsageFinal, isComplete, failure, output } = said
  const changes = output.changes()
  accept()
  const isSame =
    said.id === id &&
    said.model === model &&
    said.usage === usage &&
    said.isUsageFinal === isUsageFinal &&
    said.isComplete === isComplete &&
    said.failure === failure
  return isSame && output.changes() === changes + 1 ? output.lastPiece() : undefined
}

export function replyOf(known: Known): Omit<CallReply, 'brokenEvents'> {
  const { id, model, usage, failure, isComplete, output } = known
  return {
    id,
    model,
    finishReasons: output.finishReasons(),
    messages: output.messages(),
    toolCalls: output.toolCalls(),
    usage,
    usageSource: usage === undefined ? 'none' : known.isUsageFinal ? 'provider' : 'partial',
    outputChars: output.chars(),
    failure,
    isComplete,
    isContentCut: output.isCut(),
  }
}

/** `{error: {code, type, message}}` at OpenAI, Anthropic and Google, `{message}` at Amazon; whoever sends only a text gets that. */
export function failureOf(value: Json, fallbackType: string): CallFailure {
  const error = objectOf(value.error)
  const code = textOf(error.code) || textOf(error.type) || textOf(error.status) || textOf(value.code) || fallbackType
  return { type: code, message: textOf(error.message) || textOf(value.error) || textOf(value.message) }
}
