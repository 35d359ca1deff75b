// Reads a reply of `node:http` or http2 where its bytes enter the stream, decompressed where they are not plain. The stream
// itself is untouched: no listener for data, no piece earlier or later than without us.
import type { Readable, Transform } from 'node:stream'
import zlib from 'node:zlib'
import { limits } from '../limits.ts'
import { type Ending, type Exchange, endingOf } from './exchange.ts'
import type { IdleReplies, IdleReply } from './idle-replies.ts'

export type TappedReply = {
  readonly status: number
  readonly header: (name: string) => string
  /** Asked when no more bytes come: an end that is not the provider's. */
  readonly isCutShort: () => boolean
  /** Why the stream was destroyed, undefined where it was without a reason. */
  readonly error: () => unknown
}

/** Ends the exchange when the reply ends, whichever way, or nobody has read on for long. */
export function tapReply(stream: Readable, exchange: Exchange, reply: TappedReply, idle: IdleReplies): void {
  exchange.head(reply.status, reply.header)
  const { push } = stream
  // There is no time-out for a body here, so a model may be silent for as long as its reader waits for it.
  const isWaitedFor = (): boolean => stream.readableFlowing !== null && stream.readableLength === 0
  const inflated = leftWhenIdle(openInflated(reply.header, exchange), exchange, isWaitedFor, idle)
  let isWhole = false

  stream.push = (chunk: unknown, chunkEncoding?: BufferEncoding): boolean => {
    if (chunk === null) {
      for (const piece of exchange.rest()) push.call(stream, piece)
      isWhole = !reply.isCutShort()
      if (isWhole) inflated.end()
      return push.call(stream, null)
    }
    if (!(chunk instanceof Uint8Array)) return push.call(stream, chunk, chunkEncoding)
    let hasRoom = true
    for (const piece of inflated.write(chunk)) hasRoom = push.call(stream, piece)
    return hasRoom
  }

  stream.once('close', () => {
    if (isWhole) return
    const error = reply.error()
    inflated.stop(error === undefined ? 'left' : endingOf(error, undefined), error)
  })
}

export type Inflated = {
  /** Gives what the caller may have of these bytes. */
  write(bytes: Uint8Array): readonly Uint8Array[]
  /** All came; the exchange is complete when all has been read. */
  end(): void
  stop(ending: Ending, error: unknown): void
}

/** The same, in the watch over replies that nobody reads on. */
export function leftWhenIdle(
  inflated: Inflated,
  exchange: Reading,
  isWaitedFor: IdleReply['isWaitedFor'],
  idle: IdleReplies,
): Inflated {
  // Not by `stop`: its reader may come back, and whatever inflates must still take what comes then.
  const watched: IdleReply = { pieces: 0, isWaitedFor, leave: () => exchange.end('left') }
  idle.add(watched)
  return {
    write(bytes) {
      watched.pieces++
      return inflated.write(bytes)
    },
    end() {
      idle.delete(watched)
      inflated.end()
    },
    stop(ending, error) {
      idle.delete(watched)
      inflated.stop(ending, error)
    },
  }
}

type Inflater = {
  readonly stream: () => Transform
  readonly whole: (bytes: Uint8Array, options: { readonly maxOutputLength: number }) => Uint8Array
}

const gzip: Inflater = { stream: zlib.createGunzip, whole: zlib.gunzipSync }
const inflaters: Readonly<Record<string, Inflater>> = {
  gzip,
  'x-gzip': gzip,
  deflate: { stream: zlib.createInflate, whole: zlib.inflateSync },
  br: { stream: zlib.createBrotliDecompress, whole: zlib.brotliDecompressSync },
  zstd: { stream: zlib.createZstdDecompress, whole: zlib.zstdDecompressSync },
}

type Reading = Pick<Exchange, 'pass' | 'end'>

/** Reads bytes as they are on the wire. Compressed ones pass on untouched, and a copy is inflated for us. */
export function openInflated(header: (name: string) => string, exchange: Reading): Inflated {
  const inflater = inflaters[header('content-encoding').trim().toLowerCase()]
  if (inflater === undefined) return { write: exchange.pass, end: () => exchange.end('complete'), stop: exchange.end }
  const isJson = header('content-type').toLowerCase().includes('json')
  return isJson ? inflatedWhole(inflater, exchange) : inflatedAsItComes(inflater, exchange)
}

/** JSON says nothing before its end. A short one is inflated there at once: that costs a fifth of what a stream does. */
function inflatedWhole(inflater: Inflater, exchange: Reading): Inflated {
  const pieces: Uint8Array[] = []
  let bytes = 0
  let flowing: Inflated | undefined

  function flow(): Inflated {
    if (flowing !== undefined) return flowing
    flowing = inflatedAsItComes(inflater, exchange)
    for (const piece of pieces.splice(0)) flowing.write(piece)
    return flowing
  }

  function end(): void {
    let whole: Uint8Array
    try {
      whole = inflater.whole(Buffer.concat(pieces, bytes), { maxOutputLength: limits.inflatedAtOnceBytesMax })
    } catch {
      // Too long for that, or broken: what can be had of it comes piece by piece.
      flow().end()
      return
    }
    exchange.pass(whole)
    exchange.end('complete')
  }

  return {
    write(piece) {
      if (flowing !== undefined) return flowing.write(piece)
      pieces.push(Buffer.from(piece))
      bytes += piece.length
      if (bytes > limits.inflatedAtOncePackedBytesMax) flow()
      return [piece]
    },
    end: () => (flowing === undefined ? end() : flowing.end()),
    stop: (ending, error) => flow().stop(ending, error),
  }
}

function inflatedAsItComes(inflater: Inflater, exchange: Reading): Inflated {
  const inflate = inflater.stream()
  let ending: Ending = 'complete'
  let error: unknown
  inflate.on('data', (bytes: Uint8Array) => exchange.pass(bytes))
  // An error is bytes that are not what their header says, or half of them: what was read before is what is known.
  inflate.once('error', () => exchange.end(ending, error))
  inflate.once('end', () => exchange.end(ending, error))
  return {
    write(bytes) {
      // A copy: it is read later than whoever the bytes are meant for may give their memory away.
      inflate.write(Buffer.from(bytes))
      return [bytes]
    },
    end: () => inflate.end(),
    stop(why, reason) {
      ending = why
      error = reason
      inflate.end()
    },
  }
}
