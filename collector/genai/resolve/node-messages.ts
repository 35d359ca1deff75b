// What is said on one span: by the span itself, by log records that carry its content, one by one or as lists.
import type { MessageFact, MessagesSays } from '../fact.ts'
import { compare, type Node } from './trace.ts'

export type Messages = {
  readonly input: readonly MessageFact[]
  readonly output: readonly MessageFact[]
  /** Of the other lists, what these do not say. */
  readonly more: readonly MessageFact[]
  readonly finishReason: string
}

/** The span's own, the lists of its log records put together, or one record per message: the longest, so that a list never
 *  shrinks as facts come in. */
export function messagesOfNode(node: Node): Messages {
  const own = ownMessages(node)
  if (node.others.length === 0) {
    const of = (direction: MessageFact['direction']) => own.filter((message) => message.direction === direction)
    return { input: of('input'), output: of('output'), more: [], finishReason: '' }
  }
  const records = node.others.flatMap(({ startUnixNano, id, says }) =>
    says.kind === 'messages' ? [{ at: startUnixNano, id, says }] : [],
  )
  const inOrder = records.toSorted(
    (a, b) =>
      compare(a.at, b.at) ||
      a.says.ordinal - b.says.ordinal ||
      roleRank(a.says.messages) - roleRank(b.says.messages) ||
      compare(a.id, b.id),
  )
  const told = (extent: MessagesSays['extent']) =>
    inOrder.filter(({ says }) => says.extent === extent).map(({ says }) => says.messages)
  const lists = [own, ...told('list'), told('one').flat()]
  const of = (direction: MessageFact['direction']) => {
    const only = (list: readonly MessageFact[]) => list.filter((message) => message.direction === direction)
    return longest([only(own), putTogether(told('list').map(only)), only(told('one').flat())])
  }
  const [input, output] = [of('input'), of('output')]
  return {
    input,
    output,
    more: othersThan([...input, ...output], lists.flat()),
    finishReason: records.map(({ says }) => says.finishReason).find((reason) => reason !== '') ?? '',
  }
}

/** A streamed reply comes as one record per item, or as one record that repeats another: each message as often as the record
 *  has it that has it most, first those of the longest. */
function putTogether(lists: readonly (readonly MessageFact[])[]): readonly MessageFact[] {
  if (lists.length < 2) return lists[0] ?? []
  const base = longest(lists)
  const together = [...base]
  const countOf = countMessages(base)
  for (const list of lists) {
    const seen = new Map<string, number>()
    for (const message of list) {
      const { hash } = message.content
      const count = (seen.get(hash) ?? 0) + 1
      seen.set(hash, count)
      if (count <= (countOf.get(hash) ?? 0)) continue
      countOf.set(hash, count)
      together.push(message)
    }
  }
  return together
}

function countMessages(list: readonly MessageFact[]): Map<string, number> {
  const counts = new Map<string, number>()
  for (const { content } of list) counts.set(content.hash, (counts.get(content.hash) ?? 0) + 1)
  return counts
}

function othersThan(said: readonly MessageFact[], all: readonly MessageFact[]): readonly MessageFact[] {
  const known = new Set(said.map(({ direction, content }) => `${direction} ${content.hash}`))
  return all.filter(({ direction, content }) => {
    const key = `${direction} ${content.hash}`
    if (known.has(key)) return false
    known.add(key)
    return true
  })
}

export function ownMessages({ span }: Node): readonly MessageFact[] {
  const says = span?.says
  return says !== undefined && 'messages' in says ? (says.messages ?? []) : []
}

const roleRanks: ReadonlyMap<string, number> = new Map(
  Object.entries<number>({ system: 0, developer: 0, user: 1, assistant: 2, tool: 3 }),
)

function roleRank(messages: readonly MessageFact[]): number {
  return roleRanks.get(messages[0]?.role ?? '') ?? 4
}

export function longest<Item>(lists: readonly (readonly Item[])[]): readonly Item[] {
  return lists.reduce((best, list) => (list.length > best.length ? list : best), [] as readonly Item[])
}
