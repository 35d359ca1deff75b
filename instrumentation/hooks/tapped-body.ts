// The body of a Response, read by us as its owner reads it. Response and stream stay the platform's own; only the stream's
// ways of being read go through ours, which costs a promise for a piece where a second stream around it costs ten. Where
// the platform reads by itself (clone, pipe, a reader with its own buffer) it is given a stream of ours. Who takes a reader by
// `new ReadableStreamDefaultReader` is not seen: that body ends its call as one that nobody read.
import type { ReadableStreamReadResult, StreamPipeOptions } from 'node:stream/web'
import { type Ending, type Exchange, endingOf } from './exchange.ts'

type Bytes = ReadableStream<Uint8Array>
type Reader = ReadableStreamDefaultReader<Uint8Array>
type Result = ReadableStreamReadResult<Uint8Array>
type Signal = AbortSignal | null | undefined

/** Ends the exchange when the body does, whichever way. */
export type WatchBody = (response: Response, exchange: Exchange, signal: Signal) => void

type Held = { isReleased: boolean }

type Tap = {
  readonly body: Bytes
  readonly exchange: Exchange
  readonly signal: Signal
  readonly forgotten: FinalizationRegistry<Left>
  isBegun: boolean
  /** The reading under way. */
  held: Held | undefined
  /** What the platform reads, once it does. */
  front: Bytes | undefined
  end(ending: Ending, error?: unknown): void
}

/** Without a reader it is the Response that nobody has any more, else what was reading it. */
type Left = { readonly tap: Tap; readonly reader: Reader | undefined }

export function openBodyWatch(): WatchBody {
  const forgotten = new FinalizationRegistry<Left>(leave)
  return (response, exchange, signal) => {
    const body = response.body as Bytes
    const tap = openTap(body, exchange, signal, forgotten)
    forgotten.register(response, { tap, reader: undefined }, tap)
    Object.setPrototypeOf(body, tapped)
    Object.defineProperty(body, tapOf, { value: tap })
  }
}

function openTap(body: Bytes, exchange: Exchange, signal: Signal, forgotten: Tap['forgotten']): Tap {
  // Once somebody reads, the stream itself tells of it.
  const onAbort = (): void => {
    if (!tap.isBegun) tap.end('aborted', signal?.reason)
  }
  const tap: Tap = {
    body,
    exchange,
    signal,
    forgotten,
    isBegun: false,
    held: undefined,
    front: undefined,
    end(ending, error) {
      forgotten.unregister(tap)
      if (tap.held !== undefined) forgotten.unregister(tap.held)
      signal?.removeEventListener('abort', onAbort)
      exchange.end(ending, error)
    },
  }
  signal?.addEventListener('abort', onAbort, { once: true })
  return tap
}

/** A body that nobody can read any more ends its call, and gives the connection back, as the platform does for its own. */
function leave({ tap, reader }: Left): void {
  if (reader === undefined && tap.held !== undefined) return
  tap.end(endingOfLeft(tap))
  const cancelled = reader === undefined ? native.cancel.call(tap.body) : reader.cancel()
  // One that is locked, or has failed meanwhile, is somebody's who knows.
  cancelled.catch(() => undefined)
}

function endingOfLeft({ signal, isBegun }: Tap): Ending {
  if (signal?.aborted === true) return 'aborted'
  return isBegun ? 'left' : 'unread'
}

const tapOf = Symbol('tallylight.tap')
type TappedBytes = Bytes & { readonly [tapOf]: Tap }

const native = ReadableStream.prototype
const isLocked = Object.getOwnPropertyDescriptor(native, 'locked')?.get as () => boolean
type PipeTarget = ReadableWritablePair<unknown, Uint8Array>

/** The methods of a body under watch. What the platform would refuse, the platform refuses. */
const tapped = Object.create(native, {
  ...Object.getOwnPropertyDescriptors({
    getReader(this: TappedBytes, options?: { mode: 'byob' }) {
      const { front } = this[tapOf]
      if (front !== undefined) return front.getReader(options as { mode: 'byob' })
      return options?.mode === 'byob' ? frontOf(this[tapOf]).getReader(options) : readerOf(openReading(this[tapOf]))
    },
    values(this: TappedBytes, options?: { preventCancel?: boolean }) {
      const { front } = this[tapOf]
      return front === undefined ? iteratorOf(openReading(this[tapOf]), options) : front.values(options)
    },
    tee(this: TappedBytes) {
      const branches = frontOf(this[tapOf]).tee()
      // From here on the body is locked, as it would be, and only the branches hold what reads it.
      this[tapOf].front = undefined
      return branches
    },
    pipeTo(this: TappedBytes, target: WritableStream, options?: StreamPipeOptions) {
      return frontOf(this[tapOf]).pipeTo(target, options)
    },
    pipeThrough(this: TappedBytes, target: PipeTarget, options?: StreamPipeOptions) {
      return frontOf(this[tapOf]).pipeThrough(target, options)
    },
    cancel(this: TappedBytes, reason?: unknown) {
      const tap = this[tapOf]
      if (tap.front !== undefined) return tap.front.cancel(reason)
      if (!isLocked.call(this)) tap.end(endingOfLeft(tap), reason)
      return native.cancel.call(this, reason)
    },
  }),
  locked: {
    get(this: TappedBytes) {
      return this[tapOf].front?.locked ?? isLocked.call(this)
    },
  },
})
Object.defineProperty(tapped, Symbol.asyncIterator, { value: tapped.values })

/** The one way to the bytes. Whoever holds it is reading; when nobody does any more, the body is left. */
type Reading = {
  /** Called once nothing more comes. */
  onOver: (() => void) | undefined
  read(): Promise<Result>
  cancel(reason?: unknown): Promise<void>
  release(): void
  readonly closed: Promise<void>
}

function openReading(tap: Tap): Reading {
  const reader = native.getReader.call(tap.body) as Reader
  const held: Held = { isReleased: false }
  /** One after the other, for one read of the caller's may be several of the stream's where something is taken out. */
  let last: Promise<Result> | undefined
  let waiting = 0

  // Each of these holds `reading` until the stream answers: its owner may wait for that and have forgotten the reader.
  const accept = (result: Result): Result | Promise<Result> => {
    const given = take(tap, result)
    if (given === undefined) return readOne()
    if (given.done) reading.onOver?.()
    if (--waiting === 0) last = undefined
    return given
  }
  const fail = (error: unknown): never => {
    reading.onOver?.()
    if (--waiting === 0) last = undefined
    throw error
  }
  const readOne = (): Promise<Result> => reader.read().then(accept, fail)

  const reading: Reading = {
    onOver: undefined,
    closed: reader.closed,
    read() {
      waiting++
      last = last === undefined ? readOne() : last.then(readOne, readOne)
      return last
    },
    cancel(reason) {
      if (!held.isReleased) tap.end(endingOfLeft(tap), reason)
      return reader.cancel(reason)
    },
    release() {
      reader.releaseLock()
      held.isReleased = true
      tap.held = undefined
      tap.forgotten.unregister(held)
    },
  }
  tap.isBegun = true
  tap.held = held
  endWithReader(tap, reader, held)
  tap.forgotten.register(reading, { tap, reader }, held)
  return reading
}

/** Apart, so that what waits for the end of a stream does not hold what reads it. */
function endWithReader(tap: Tap, reader: Reader, held: Held): void {
  reader.closed.catch((error: unknown) => {
    if (!held.isReleased) tap.end(endingOf(error, tap.signal), error)
  })
}

/** What the caller gets of it; nothing where all of it was taken out. */
function take({ exchange, end }: Tap, result: Result): Result | undefined {
  if (result.done) {
    const rest = exchange.rest()
    if (rest.length > 0) return { done: false, value: joined(rest) }
    end('complete')
    return result
  }
  const pieces = exchange.pass(result.value)
  if (pieces.length === 1 && pieces[0] === result.value) return result
  return pieces.length === 0 ? undefined : { done: false, value: joined(pieces) }
}

/** A copy: its owner may give the memory away, and a part of it may still be held. */
function joined(pieces: readonly Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(pieces.reduce((sum, { length }) => sum + length, 0))
  let at = 0
  for (const piece of pieces) {
    whole.set(piece, at)
    at += piece.length
  }
  return whole
}

function readerOf(reading: Reading): Reader {
  const { read, cancel, release, closed } = reading
  const reader = Object.create(ReadableStreamDefaultReader.prototype, { closed: { value: closed } })
  return Object.assign(reader, { read, cancel, releaseLock: release })
}

const asyncGenerators: object = Object.getPrototypeOf(async function* () {}.prototype)
const asyncIterators: object = Object.getPrototypeOf(asyncGenerators)
const over = { done: true, value: undefined } as const

function iteratorOf(reading: Reading, options?: { readonly preventCancel?: boolean }): AsyncIterator<Uint8Array> {
  let isOver = false

  function finish(): void {
    if (isOver) return
    isOver = true
    reading.release()
  }

  async function leaveIt(value?: unknown): Promise<IteratorResult<Uint8Array, unknown>> {
    if (!isOver) {
      const cancelled = options?.preventCancel === true ? undefined : reading.cancel(value)
      finish()
      await cancelled
    }
    return { done: true, value }
  }

  reading.onOver = finish
  const next = (): Promise<Result> => (isOver ? Promise.resolve(over) : reading.read())
  return Object.assign(Object.create(asyncIterators), { next, return: leaveIt })
}

/** A byte stream that takes a piece from the body only when one is asked of it. */
function frontOf(tap: Tap): Bytes {
  if (tap.front !== undefined) return tap.front
  const reading = openReading(tap)
  tap.front = new ReadableStream({
    type: 'bytes',
    async pull(controller) {
      const { done, value } = await reading.read()
      if (!done) return controller.enqueue(value)
      controller.close()
      // A reader that brought its own buffer waits for an answer to it.
      controller.byobRequest?.respond(0)
    },
    cancel: reading.cancel,
  })
  return tap.front
}
