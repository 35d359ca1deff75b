// The pieces of a stream are as small as a word, and come one at a time among all that a service does meanwhile. Read each by itself,
// the code that reads them and all it knows have to come back into the caches for every one: that costs several times what the
// same pieces cost together. So they are copied, which is cheap, and read a dozen at once.
import { limits } from '../limits.ts'

export type PieceBatch = {
  /** Keeps a copy: its owner may give the memory away. */
  write(bytes: Uint8Array): void
  /** Reads what has been kept. */
  flush(): void
}

export function openPieceBatch(read: (bytes: Uint8Array) => void): PieceBatch {
  let kept: Uint8Array | undefined
  let length = 0

  function flush(): void {
    if (kept === undefined || length === 0) return
    const all = kept.subarray(0, length)
    length = 0
    read(all)
  }

  return {
    write(bytes) {
      if (length + bytes.length > limits.pieceBatchBytes) flush()
      if (bytes.length >= limits.pieceBatchBytes) return read(bytes)
      kept ??= new Uint8Array(limits.pieceBatchBytes)
      kept.set(bytes, length)
      length += bytes.length
    },
    flush,
  }
}
