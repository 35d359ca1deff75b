// Requests that were answered in the last minutes, by the digest of their bytes. A client whose answer was lost sends the
// same bytes again; they are answered again and not stored again. The journal keeps the digests too, so a crash between
// storing and answering changes nothing.
//
// Two generations of a flat table: what is older than the window falls off in one piece, and a million requests cost 20
// bytes each and no objects.

export type AnsweredBefore = { readonly kept: number; readonly rejected: number; readonly message: string }

export type DuplicateWindow = {
  find(digest: Buffer): AnsweredBefore | undefined
  add(digest: Buffer, answer: AnsweredBefore): void
}

type Generation = {
  readonly slots: Uint32Array
  readonly partial: Map<string, AnsweredBefore>
  readonly openedMs: number
  count: number
}

/** Words per slot: 16 bytes of digest, and the records kept plus one, so that 0 is free. */
const slotWords = 5

export function openDuplicateWindow(options: {
  readonly windowMs: number
  readonly entriesMax: number
  /** Not the time of day: set back by an hour, it would make the window an hour longer. */
  readonly clockMs: () => number
}): DuplicateWindow {
  const { windowMs, entriesMax, clockMs } = options
  const slotCount = 2 ** Math.ceil(Math.log2(entriesMax))
  let newest = openGeneration()
  let older: Generation | undefined

  function openGeneration(): Generation {
    return { slots: new Uint32Array(slotCount * slotWords), partial: new Map(), openedMs: clockMs(), count: 0 }
  }

  function turn(): void {
    const age = clockMs() - newest.openedMs
    // Full before its time: the window is then shorter than asked, which is better than memory without end.
    if (age < windowMs && newest.count < slotCount / 2) return
    older = age < 2 * windowMs ? newest : undefined
    newest = openGeneration()
  }

  function look(generation: Generation, digest: Buffer): AnsweredBefore | undefined {
    const at = slotOf(generation.slots, digest)
    const kept = generation.slots[at + 4] as number
    if (kept === 0) return undefined
    return generation.partial.get(digest.toString('latin1')) ?? { kept: kept - 1, rejected: 0, message: '' }
  }

  return {
    find: (digest) => {
      turn()
      return look(newest, digest) ?? (older === undefined ? undefined : look(older, digest))
    },
    add: (digest, answer) => {
      turn()
      const at = slotOf(newest.slots, digest)
      if (newest.slots[at + 4] === 0) newest.count++
      for (let word = 0; word < 4; word++) newest.slots[at + word] = digest.readUInt32LE(word * 4)
      newest.slots[at + 4] = answer.kept + 1
      if (answer.rejected > 0 || answer.message !== '') newest.partial.set(digest.toString('latin1'), answer)
    },
  }

  function slotOf(slots: Uint32Array, digest: Buffer): number {
    const words = [0, 4, 8, 12].map((offset) => digest.readUInt32LE(offset))
    let slot = (words[0] as number) & (slotCount - 1)
    for (;;) {
      const at = slot * slotWords
      if (slots[at + 4] === 0) return at
      if (words.every((word, index) => slots[at + index] === word)) return at
      slot = (slot + 1) & (slotCount - 1)
    }
  }
}
