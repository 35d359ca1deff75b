// What is under way, in the order in which it came. A list through the things themselves, and no Set: a Set to which is
// added and from which is deleted all the time makes itself a new table every few dozen requests, and the engine keeps a
// pointer from each table to the next. Once one of them has grown old, all that come after it survive, each with the requests
// that were under way when it was left, and with all that hangs on them, until the next full collection. Measured with one
// span per request on 64 connections: 852 ms of minor collections became 274, and a peak of 350 MiB 252.

/** What is in one list at a time; nobody else writes these. */
type Listed<Item> = { before: Item | undefined; after: Item | undefined }

export type OpenList<Item> = {
  add(item: Item): void
  /** False when it is not in the list. */
  delete(item: Item): boolean
  size(): number
  /** The oldest first. */
  all(): readonly Item[]
}

export function openList<Item extends Listed<Item>>(): OpenList<Item> {
  let first: Item | undefined
  let last: Item | undefined
  let size = 0

  return {
    add(item) {
      item.before = last
      if (last === undefined) first = item
      else last.after = item
      last = item
      size++
    },
    delete(item) {
      const { before, after } = item
      if (before === undefined && first !== item) return false
      if (before === undefined) first = after
      else before.after = after
      if (after === undefined) last = before
      else after.before = before
      // One that has left must lead to no other.
      item.before = undefined
      item.after = undefined
      size--
      return true
    },
    size: () => size,
    all() {
      const items: Item[] = []
      for (let item = first; item !== undefined; item = item.after) items.push(item)
      return items
    },
  }
}
