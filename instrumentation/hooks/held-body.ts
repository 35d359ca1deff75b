// The body of a request that its owner writes piece by piece: held until it is whole, so that it can be read and the gate be
// asked before any of it goes out, and then written exactly as it was. A body too long to hold goes out as it comes.
import type { Writable } from 'node:stream'
import { limits } from '../limits.ts'

export type HeldBody = {
  /** Writes what was held. `instead` stands for all of it, where the caller's body is replaced. */
  release(instead?: string): void
}

type Call = { readonly method: 'write' | 'end'; readonly args: readonly unknown[] }

/** `onWhole` gets the body, or nothing of one that was too long, and calls `release` when it may go. */
export function holdBody(target: Writable, onWhole: (body: Uint8Array, held: HeldBody) => void): void {
  const { write, end } = target
  const calls: Call[] = []
  const pieces: Buffer[] = []
  let bytes = 0
  let state: 'holding' | 'waiting' | 'open' = 'holding'

  function take(method: 'write' | 'end', given: readonly unknown[]): void {
    const args = method === 'write' && state === 'holding' ? own(given) : given
    const [chunk, encoding] = args
    if (typeof chunk === 'string')
      add(Buffer.from(chunk, typeof encoding === 'string' ? (encoding as BufferEncoding) : 'utf8'))
    else if (chunk instanceof Uint8Array) add(Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength))
    const isTooLong = bytes > limits.requestHeldBytesMax
    const isPart = state === 'holding' && method === 'write' && !isTooLong
    calls.push({ method, args: isPart ? answered(args) : args })
    if (state !== 'holding' || isPart) return
    state = 'waiting'
    onWhole(isTooLong ? new Uint8Array() : Buffer.concat(pieces, bytes), { release })
    pieces.length = 0
  }

  /** Whoever is told that a piece was taken may write the next one into the same memory. */
  function own(args: readonly unknown[]): readonly unknown[] {
    const [chunk, ...rest] = args
    const isTold = rest.some((each) => typeof each === 'function')
    return isTold && chunk instanceof Uint8Array ? [Buffer.from(chunk), ...rest] : args
  }

  /** A writer may give the next piece only when this one was taken, as one that follows a redirect does. */
  function answered(args: readonly unknown[]): readonly unknown[] {
    for (const each of args) if (typeof each === 'function') process.nextTick(each as () => void)
    return args.filter((each) => typeof each !== 'function')
  }

  function add(piece: Buffer): void {
    bytes += piece.length
    pieces.push(piece)
  }

  function release(instead?: string): void {
    if (state === 'open') return
    state = 'open'
    target.write = write
    target.end = end
    if (target.destroyed) return
    if (instead === undefined)
      for (const call of calls) Reflect.apply(call.method === 'write' ? write : end, target, call.args)
    else {
      target.end(instead)
      for (const { args } of calls)
        for (const each of args) if (typeof each === 'function') target.once('finish', () => each())
    }
    calls.length = 0
  }

  target.write = ((...args: unknown[]): boolean => {
    take('write', args)
    // Past the bound the writer is told to wait, as it would be by a slow connection.
    return bytes <= limits.requestHeldBytesMax
  }) as Writable['write']
  target.end = ((...args: unknown[]): Writable => {
    take('end', args)
    return target
  }) as Writable['end']
}
