// When a commit begins. A commit costs about the same for one request as for fifty: a frame, a trip to the thread pool, a
// write that the disk confirms. Many small requests are therefore gathered: clients that were answered by the commit before
// send their next ones within a moment, and share the next commit if it waits for them. Few are not waited for, since nobody
// would come.

export type Gathering = {
  /** Resolves when the next commit may begin. */
  gather(): Promise<void>
  /** Another request waits. */
  arrived(): void
  /** A commit takes all that wait. */
  taken(): void
}

export type GatheringBounds = {
  /** The most that a request waits for others. */
  readonly waitMsMax: number
  /** After a commit of fewer, the next begins at once. */
  readonly requestsMin: number
}

export function openGathering({ waitMsMax, requestsMin }: GatheringBounds): Gathering {
  let waiting = 0
  let expected = 0
  let onGathered: (() => void) | undefined

  return {
    async gather() {
      // Requests whose bytes arrived in the same turn of the event loop share the commit in any case.
      await new Promise<void>((resolve) => setImmediate(resolve))
      if (expected < requestsMin || waiting >= expected) return
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, waitMsMax)
        onGathered = () => {
          clearTimeout(timer)
          resolve()
        }
      })
      onGathered = undefined
    },
    arrived() {
      waiting++
      if (waiting >= expected) onGathered?.()
    },
    taken() {
      expected = waiting
      waiting = 0
    },
  }
}
