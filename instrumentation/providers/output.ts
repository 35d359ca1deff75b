// What a model writes, put together from pieces: text, reasoning and tool calls per choice, in the order in which they began.
// With no content wanted only names and lengths are kept.
import { limits } from '../limits.ts'
import { foldFinishReason } from '../usage/names.ts'
import type { AskedTool, OutputMessage, Part } from './call.ts'
import { parsedOr } from './json-fields.ts'

type OpenPart =
  | { readonly type: 'text' | 'reasoning'; content: string }
  | { readonly type: 'tool_call'; id: string; name: string; arguments: string }
  | { readonly type: 'whole'; readonly part: Part }

/** What one delta added, and where. */
export type Piece = {
  readonly kind: 'text' | 'reasoning' | 'arguments'
  readonly choice: number
  readonly place: string
  readonly content: string
}

export type Output = {
  /** `place` tells parts of one choice apart: a delta with a place seen before continues that part. */
  text(choice: number, place: string, delta: string, type?: 'text' | 'reasoning'): void
  toolCall(choice: number, place: string, call: { readonly id?: string; readonly name?: string }): void
  toolArguments(choice: number, place: string, delta: string): void
  /** A part that is no text: an image, a file, a result of the provider's own tools. */
  whole(choice: number, part: Part): void
  finish(choice: number, reason: string): void
  /** The same as `piece` did once, with other letters, which are asked for only where they are kept. */
  again(piece: Piece, chars: number, content: () => string): void
  /** Grows with whatever is added. */
  changes(): number
  /** What was added last, where that was letters. */
  lastPiece(): Piece | undefined
  chars(): number
  isCut(): boolean
  toolCalls(): readonly AskedTool[]
  finishReasons(): readonly string[]
  messages(): readonly OutputMessage[]
}

export function openOutput(keepsContent: boolean): Output {
  const choices = new Map<number, { readonly parts: Map<string, OpenPart>; reason: string }>()
  let chars = 0
  let keptChars = 0
  let partCount = 0
  let isCut = false
  let changes = 0
  let lastPiece: Piece | undefined

  function changed(piece?: Piece): void {
    changes++
    lastPiece = piece
  }

  function choiceOf(index: number) {
    let choice = choices.get(index)
    if (choice === undefined) {
      choice = { parts: new Map(), reason: '' }
      if (choices.size < limits.replyPartsMax) choices.set(index, choice)
    }
    return choice
  }

  function partOf(index: number, place: string, make: () => OpenPart): OpenPart {
    const { parts } = choiceOf(index)
    let part = parts.get(place)
    if (part === undefined) {
      part = make()
      if (partCount < limits.replyPartsMax) parts.set(place, part)
      else isCut = true
      partCount++
    }
    return part
  }

  /** As much of it as there is room for. */
  function kept(delta: string): string {
    chars += delta.length
    if (!keepsContent) return ''
    const room = limits.replyContentCharsMax - keptChars
    if (delta.length > room) isCut = true
    const text = delta.length > room ? delta.slice(0, room) : delta
    keptChars += text.length
    return text
  }

  const output: Output = {
    text(index, place, delta, type = 'text') {
      if (delta === '') return
      changed({ kind: type, choice: index, place, content: delta })
      const part = partOf(index, place, () => ({ type, content: '' }))
      const text = kept(delta)
      if (part.type === 'text' || part.type === 'reasoning') part.content += text
    },
    toolCall(index, place, call) {
      changed()
      const part = partOf(index, place, () => ({ type: 'tool_call', id: '', name: '', arguments: '' }))
      if (part.type !== 'tool_call') return
      // Some servers repeat id and name with every delta, or send them empty.
      if (call.id) part.id = call.id
      if (call.name) part.name = call.name
    },
    toolArguments(index, place, delta) {
      changed({ kind: 'arguments', choice: index, place, content: delta })
      const part = partOf(index, place, () => ({ type: 'tool_call', id: '', name: '', arguments: '' }))
      const text = kept(delta)
      if (part.type === 'tool_call') part.arguments += text
    },
    whole(index, part) {
      changed()
      partOf(index, `whole ${partCount}`, () => ({ type: 'whole', part }))
    },
    finish(index, reason) {
      if (reason === '') return
      changed()
      choiceOf(index).reason = foldFinishReason(reason)
    },
    again({ kind, choice, place }, count, content) {
      if (!keepsContent) chars += count
      else if (kind === 'arguments') output.toolArguments(choice, place, content())
      else output.text(choice, place, content(), kind)
    },
    changes: () => changes,
    lastPiece: () => lastPiece,
    chars: () => chars,
    isCut: () => isCut,
    toolCalls: () =>
      [...choices.values()].flatMap(({ parts }) =>
        [...parts.values()].flatMap((part) =>
          part.type === 'tool_call' && part.name !== '' ? [{ id: part.id, name: part.name }] : [],
        ),
      ),
    finishReasons: () => [...choices.values()].map(({ reason }) => reason).filter((reason) => reason !== ''),
    messages: () =>
      keepsContent
        ? [...choices.entries()]
            .sort(([a], [b]) => a - b)
            .map(([, { parts, reason }]) => ({
              role: 'assistant',
              parts: [...parts.values()].map(closed),
              finish_reason: reason,
            }))
        : [],
  }
  return output
}

function closed(part: OpenPart): Part {
  if (part.type === 'whole') return part.part
  if (part.type === 'tool_call')
    return { type: 'tool_call', id: part.id, name: part.name, arguments: parsedOr(part.arguments) }
  return { type: part.type, content: part.content }
}
