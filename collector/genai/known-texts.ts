// Texts that were written not long ago: a history that is resent with every call is not stored with every call. Forgetting one
// costs a second copy, which ClickHouse drops; so this is small and in memory.
//
// A text is known by the hash of it, and whose it is: 16 bytes each, in two tables of which the older is emptied in turn.
import { hash } from 'node:crypto'

/** Whose texts, and their hashes. */
export type TextNames = ReadonlyMap<string, ReadonlySet<string>>

export type KnownTexts = {
  has(owner: string, textHash: string): boolean
  add(names: TextNames): void
  /** Nothing is known until the function that it answers is called, and then only what came since. */
  pause(): () => void
}

export type KnownTextsBounds = {
  readonly entriesMax: number
  /** Nobody relies on a text for longer: it may have been erased meanwhile, through another collector. */
  readonly windowMs: number
}

/** A text is kept once for each user of a tenant. */
export function ownerOfTexts(tenant: string, user: string): string {
  return `${tenant}\0${user}`
}

const nameWords = 4
const ownersMax = 1_024

export function openKnownTexts({ entriesMax, windowMs }: KnownTextsBounds, now: () => number): KnownTexts {
  const entriesOfTable = Math.ceil(entriesMax / 2)
  // At most half full.
  const slots = 2 ** Math.ceil(Math.log2(entriesOfTable * 2))
  const openTable = () => ({ words: new Uint32Array(slots * nameWords), count: 0 })
  type Table = ReturnType<typeof openTable>
  let young = openTable()
  let old = openTable()
  let youngSinceMs = now()
  let pauses = 0
  const words = new Uint32Array(nameWords)
  const owners = new Map<string, Uint32Array>()

  function turn(): void {
    if (young.count < entriesOfTable && now() - youngSinceMs < windowMs / 2) return
    // After a pause even the younger half is too old.
    const isOld = now() - youngSinceMs < windowMs
    const emptied = old
    old = isOld ? young : emptied
    young = isOld ? emptied : young
    empty(young)
    if (!isOld) empty(old)
    youngSinceMs = now()
  }

  /** Both are 128 bits of SHA-256: that they make the same name for two texts has to be searched for as long as for two texts
   *  of one hash. */
  function name(owner: string, textHash: string): void {
    const ofOwner = wordsOf(owner)
    for (let at = 0; at < nameWords; at++) words[at] = (ofOwner[at] as number) ^ wordOfHex(textHash, at * 8)
  }

  function wordsOf(owner: string): Uint32Array {
    const known = owners.get(owner)
    if (known !== undefined) return known
    if (owners.size >= ownersMax) owners.clear()
    const digest = hash('sha256', owner, 'hex')
    const found = Uint32Array.from({ length: nameWords }, (_, at) => wordOfHex(digest, at * 8))
    owners.set(owner, found)
    return found
  }

  /** The slot where `words` stand, or the free one where they would. */
  function slotOf(table: Table): number {
    let slot = (words[0] as number) & (slots - 1)
    while (!isFree(table, slot) && !isAt(table, slot)) slot = (slot + 1) & (slots - 1)
    return slot
  }

  function isAt({ words: taken }: Table, slot: number): boolean {
    for (let at = 0; at < nameWords; at++) if (taken[slot * nameWords + at] !== words[at]) return false
    return true
  }

  function isFree({ words: taken }: Table, slot: number): boolean {
    for (let at = 0; at < nameWords; at++) if (taken[slot * nameWords + at] !== 0) return false
    return true
  }

  function isIn(table: Table): boolean {
    return !isFree(table, slotOf(table))
  }

  function addTo(table: Table): void {
    const slot = slotOf(table)
    if (isFree(table, slot)) table.count++
    for (let at = 0; at < nameWords; at++) table.words[slot * nameWords + at] = words[at] as number
  }

  function empty(table: Table): void {
    if (table.count > 0) table.words.fill(0)
    table.count = 0
  }

  return {
    has: (owner, textHash) => {
      turn()
      if (pauses > 0) return false
      name(owner, textHash)
      return isIn(young) || isIn(old)
    },
    add: (names) => {
      for (const [owner, hashes] of names)
        for (const textHash of hashes) {
          turn()
          name(owner, textHash)
          addTo(young)
        }
    },
    pause: () => {
      pauses++
      return () => {
        pauses--
        empty(young)
        empty(old)
      }
    },
  }
}

/** Eight digits as 32 bits; a hash is all digits. */
function wordOfHex(text: string, from: number): number {
  let word = 0
  for (let at = from; at < from + 8; at++) {
    const code = text.charCodeAt(at)
    word = (word << 4) | (code <= 0x39 ? code & 0xf : (code & 0xf) + 9)
  }
  return word >>> 0
}
