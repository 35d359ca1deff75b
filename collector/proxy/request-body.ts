// The bodies of calls, each read whole before anything of it goes out. They stay counted until their call is over, for that
// long they are in memory: the request to the upstream has them, and what was read of them.
import type { IncomingMessage } from 'node:http'

export type ReadBody =
  | { readonly kind: 'whole'; readonly bytes: Buffer; readonly release: () => void }
  | { readonly kind: 'too_large' | 'no_room' | 'left' }

export type BodyRoom = { read(request: IncomingMessage): Promise<ReadBody> }

export function openBodyRoom(bounds: { readonly bodyBytesMax: number; readonly bytesMax: number }): BodyRoom {
  let heldBytes = 0

  async function read(request: IncomingMessage): Promise<ReadBody> {
    // It says neither its end nor its close again.
    if (request.destroyed) return { kind: 'left' }
    const { promise, resolve } = Promise.withResolvers<ReadBody>()
    const chunks: Buffer[] = []
    let bytes = 0
    let isHeld = true
    const release = (): void => {
      if (isHeld) heldBytes -= bytes
      isHeld = false
    }
    const giveUp = (kind: 'too_large' | 'no_room' | 'left'): void => {
      request.off('data', onData)
      release()
      resolve({ kind })
    }
    const onData = (chunk: Buffer): void => {
      bytes += chunk.length
      heldBytes += chunk.length
      if (bytes > bounds.bodyBytesMax) giveUp('too_large')
      else if (heldBytes > bounds.bytesMax) giveUp('no_room')
      else chunks.push(chunk)
    }
    request.on('data', onData)
    request.once('end', () => resolve({ kind: 'whole', bytes: joined(chunks, bytes), release }))
    // A body that has come whole may be closed before it was handed over to its end.
    request.once('close', () => {
      if (!request.readableEnded) giveUp('left')
    })
    return promise
  }

  return { read }
}

/** In memory of its own: out of Node's pool, a body of a few bytes would keep 64 KiB for as long as its stream goes. */
function joined(chunks: readonly Buffer[], bytes: number): Buffer {
  const [only] = chunks
  if (chunks.length === 1 && only !== undefined) return only
  const whole = Buffer.allocUnsafeSlow(bytes)
  let at = 0
  for (const chunk of chunks) at += chunk.copy(whole, at)
  return whole
}
