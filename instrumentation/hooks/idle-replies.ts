// Replies under way, looked at from time to time: one that was begun and forgotten, or never read, has no end. Behind a full buffer
// the platform waits for ever, and so would the record of the call and what the gate holds for it.
import { limits } from '../limits.ts'

export type IdleReply = {
  /** Grows with each that comes. */
  pieces: number
  /** Whether its reader has taken all that came: then it is the provider that takes its time. */
  isWaitedFor(): boolean
  /** Ends the call, and leaves the reply as it is: whoever comes back to it reads on. */
  leave(): void
}

export type IdleReplies = Disposable & {
  add(reply: IdleReply): void
  delete(reply: IdleReply): void
}

/** Leaves the replies that have brought nothing since two looks ago. */
export function openIdleReplies(): IdleReplies {
  const piecesBefore = new Map<IdleReply, number>()
  const timer = setInterval(() => {
    for (const [reply, before] of piecesBefore) {
      if (reply.pieces !== before || reply.isWaitedFor()) piecesBefore.set(reply, reply.pieces)
      else {
        piecesBefore.delete(reply)
        reply.leave()
      }
    }
  }, limits.replyIdleMs).unref()
  return {
    add: (reply) => void piecesBefore.set(reply, -1),
    delete: (reply) => void piecesBefore.delete(reply),
    [Symbol.dispose]: () => clearInterval(timer),
  }
}
