// Whether the journal may grow: its own budget, and what its volume must keep free for the engines.
import type { JournalFiles } from './files.ts'

export type Room = {
  /** Why nothing can be taken; undefined while there is room. As the last look saw it. */
  missing(): string | undefined
  /** Never fails: of a volume that cannot be asked nothing is known, so there is no room. */
  look(): Promise<void>
  /** Unless it has just been looked. */
  lookWhenDue(): Promise<void>
}

export type RoomBounds = {
  readonly journalBytesMax: number
  /** Room that is left to the engines on the same volume. */
  readonly reserveBytes: (totalBytes: number) => number
  readonly spaceCheckMs: number
}

export function openRoom(options: {
  readonly directory: string
  readonly files: Pick<JournalFiles, 'space'>
  readonly now: () => number
  readonly bounds: RoomBounds
  /** What the journal holds. */
  readonly bytes: () => number
  /** Once each time that room begins to be missing. */
  readonly onFull: (reason: string) => void
}): Room {
  const { now, bounds } = options
  let missing: string | undefined
  let lookedMs = 0
  let looking: Promise<void> | undefined

  async function lookNow(): Promise<void> {
    const before = missing
    missing = await whatIsMissing()
    if (missing !== undefined && before === undefined) options.onFull(missing)
    lookedMs = now()
    looking = undefined
  }

  async function whatIsMissing(): Promise<string | undefined> {
    try {
      const { freeBytes, totalBytes } = await options.files.space(options.directory)
      const bytes = options.bytes()
      const reserve = bounds.reserveBytes(totalBytes)
      if (bytes >= bounds.journalBytesMax) return `the journal holds ${bytes} bytes of ${bounds.journalBytesMax}`
      if (freeBytes >= reserve) return undefined
      return `the journal's volume has ${freeBytes} bytes free and ${reserve} are kept for the engines`
    } catch (error) {
      return `the journal's volume does not say how much room it has: ${String(error)}`
    }
  }

  function look(): Promise<void> {
    looking ??= lookNow()
    return looking
  }

  return {
    missing: () => missing,
    look,
    lookWhenDue: async () => {
      // A clock that was set back is no reason not to look until it has come so far again.
      if (Math.abs(now() - lookedMs) >= bounds.spaceCheckMs) await look()
    },
  }
}
