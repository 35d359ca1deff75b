// The body of a Response, read by us as its owner reads it. The Response stays the platform's own. What reads the body inside of
// it (`text`, `json`, `clone`) comes by the methods of the stream there, which are ours; what `body` shows is a stream in front
// of that one, which holds nothing and takes a piece only when one is asked of it. Iterating it, as SDKs do, goes past it
// to the source: a promise for a piece, where a stream costs ten.
import type { ReadableStreamReadResult } from 'node:stream/web'
import { type Ending, type Exchange, endingOf } from './exchange.ts'

type Bytes = ReadableStream<Uint8Array>
type Reader = ReadableStreamDefaultReader<Uint8Array>
type Result = ReadableStreamReadResult<Uint8Array>
type Signal = AbortSignal | null | undefined

/** Ends the exchange when the body does, whichever way. */
export type WatchBody = (response: Response, exchange: Exchange, signal: Signal) => void

type Tap = {
  readonly body: Bytes
  readonly exchange: Exchange
  readonly signal: Signal
  readonly forgotten: FinalizationRegistry<Left>
  isBegun: boolean
  /** Weakly: the connection holds the body, and must not hold what its owner has forgotten. */
  front: WeakRef<Bytes> | undefined
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
    Object.defineProperties(body, inner)
    Object.defineProperty(body, tapOf, { value: tap })
    Object.defineProperty(response, shownOf, { value: { tap, front: undefined } })
    Object.defineProperties(response, outer)
  }
}

type Shown = { readonly tap: Tap; front: Bytes | undefined }
const shownOf = Symbol('tallylight.shown')
type TappedResponse = Response & { readonly [shownOf]: Shown }

/** What a Response under watch has of its own: the same functions for all, for those of one alone give each a shape of its own,
 *  which costs all code that touches it. */
const outer: PropertyDescriptorMap = {
  body: {
    configurable: true,
    get(this: TappedResponse) {
      const shown = this[shownOf]
      // While it is read inside, nobody else can.
      if (shown.front === undefined && isLocked.call(shown.tap.body)) return shown.tap.body
      shown.front ??= openFront(shown.tap, this)
      return shown.front
    },
  },
  clone: {
    configurable: true,
    value(this: Response) {
      // Refused as the platform refuses it, which by itself would read the body past us.
      if (this.bodyUsed || this.body === null || this.body.locked) return Response.prototype.clone.call(this)
      const [one, two] = this.body.tee()
      const copy = likened(two, this)
      standIn(this, likened(one, this))
      return copy
    },
  },
}

/** A Response like it around another body, with what the constructor cannot be told: where it came from. */
function likened(body: Bytes, original: Response): Response {
  const { status, statusText, headers, url, redirected, type } = original
  const alike = (copy: Response): Response =>
    Object.defineProperties(copy, {
      url: { value: url },
      redirected: { value: redirected },
      type: { value: type },
      clone: { value: () => alike(Response.prototype.clone.call(copy)) },
    })
  return alike(new Response(body, { status, statusText, headers }))
}

const methods = ['arrayBuffer', 'blob', 'bytes', 'clone', 'formData', 'json', 'text'] as const

/** From now on `original` is read by way of `branch`. */
function standIn(original: Response, branch: Response): void {
  Object.defineProperties(original, { body: { get: () => branch.body }, bodyUsed: { get: () => branch.bodyUsed } })
  for (const name of methods) Object.defineProperty(original, name, { value: () => branch[name]() })
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
    front: undefined,
    end(ending, error) {
      forgotten.unregister(tap)
      signal?.removeEventListener('abort', onAbort)
      exchange.end(ending, error)
    },
  }
  signal?.addEventListener('abort', onAbort, { once: true })
  return tap
}

/** A body that nobody can read any more ends its call, and gives the connection back, as the platform does for its own. */
function leave({ tap, reader }: Left): void {
  if (reader === undefined && tap.isBegun) return
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
const isLocked = Object.getOwnPropertyDescriptor(native, 'locked')?.get as (this: Bytes) => boolean

/** The methods of the body inside a Response, as `fetch` itself calls them; nobody else has it. */
const inner = {
  getReader: {
    value(this: TappedBytes) {
      const { read, cancel, closed } = openReading(this[tapOf])
      return { read, cancel, closed, releaseLock: () => undefined }
    },
  },
  cancel: {
    value(this: TappedBytes, reason?: unknown) {
      const tap = this[tapOf]
      if (!isLocked.call(this)) tap.end(endingOfLeft(tap), reason)
      return native.cancel.call(this, reason)
    },
  },
  locked: {
    get(this: TappedBytes) {
      return isLocked.call(this) || this[tapOf].front?.deref()?.locked === true
    },
  },
}

/** The one way to the bytes. Whoever holds it is reading; when nobody does any more, the body is left. */
type Reading = {
  /** Reads go one after the other, for one of the caller's may be several of the stream's where something is taken out. */
  last: Promise<Result> | undefined
  waiting: number
  read(): Promise<Result>
  cancel(reason?: unknown): Promise<void>
  readonly closed: Promise<void>
}

function openReading(tap: Tap): Reading {
  const reader = native.getReader.call(tap.body) as Reader
  // What waits for the stream holds `reading`: its owner may wait for a piece and have forgotten all else.
  const accept = (result: Result): Result | Promise<Result> => {
    const given = take(tap, result)
    if (given === undefined) return readOne()
    answered()
    return given
  }
  const fail = (error: unknown): never => {
    answered()
    throw error
  }
  const answered = (): void => {
    if (--reading.waiting === 0) reading.last = undefined
  }
  const readOne = (): Promise<Result> => reader.read().then(accept, fail)

  const reading: Reading = {
    last: undefined,
    waiting: 0,
    closed: reader.closed,
    read() {
      reading.waiting++
      reading.last = reading.last === undefined ? readOne() : reading.last.then(readOne, readOne)
      return reading.last
    },
    cancel(reason) {
      tap.end(endingOfLeft(tap), reason)
      return reader.cancel(reason)
    },
  }
  tap.isBegun = true
  endWithReader(tap, reader)
  tap.forgotten.register(reading, { tap, reader }, tap)
  return reading
}

/** Apart, so that what waits for the end of a stream does not hold what reads it. */
function endWithReader(tap: Tap, reader: Reader): void {
  reader.closed.catch((error: unknown) => tap.end(endingOf(error, tap.signal), error))
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

/** A byte stream that takes a piece from the body only when one is asked of it. It keeps the Response from being forgotten, for
 *  `fetch` gives up the body of one that is. */
function openFront(tap: Tap, response: Response | undefined): Bytes {
  let reading: Reading | undefined
  const source = {
    response,
    type: 'bytes' as const,
    async pull(controller: ReadableByteStreamController) {
      reading ??= openReading(tap)
      let { done, value } = await reading.read()
      // A `fetch` of the service's own may give what a byte stream does not take: nothing, or a part of Node's pool.
      while (!done && value?.length === 0) ({ done, value } = await reading.read())
      if (!done && value !== undefined)
        return controller.enqueue(value.length === value.buffer.byteLength ? value : new Uint8Array(value))
      controller.close()
      // A reader that brought its own buffer waits for an answer to it.
      controller.byobRequest?.respond(0)
    },
    cancel: (reason: unknown) => reading?.cancel(reason) ?? tap.body.cancel(reason),
  }
  const front = new ReadableStream(source)
  const values = (options?: { readonly preventCancel?: boolean }): AsyncIterator<Uint8Array> => {
    // Part of a piece may be in the front already.
    if (reading !== undefined) return native.values.call(front, options)
    const lock = front.getReader()
    reading = openReading(tap)
    return iteratorOf(reading, lock, options)
  }
  Object.defineProperty(front, 'values', { value: values })
  Object.defineProperty(front, Symbol.asyncIterator, { value: values })
  tap.front = new WeakRef(front)
  return front
}

const asyncGenerators: object = Object.getPrototypeOf(async function* () {}.prototype)
const asyncIterators: object = Object.getPrototypeOf(asyncGenerators)

function iteratorOf(
  reading: Reading,
  lock: Reader,
  options?: { readonly preventCancel?: boolean },
): AsyncIterator<Uint8Array> {
  let isOver = false

  function finish(): void {
    if (isOver) return
    isOver = true
    lock.releaseLock()
  }

  const accept = (result: Result): Result => {
    if (result.done) finish()
    return result
  }
  const fail = (error: unknown): never => {
    finish()
    throw error
  }
  const next = (): Promise<IteratorResult<Uint8Array, unknown>> =>
    isOver ? Promise.resolve({ done: true, value: undefined }) : reading.read().then(accept, fail)

  async function leaveIt(value?: unknown): Promise<IteratorResult<Uint8Array, unknown>> {
    if (!isOver) {
      const cancelled = options?.preventCancel === true ? undefined : reading.cancel(value)
      finish()
      await cancelled
    }
    return { done: true, value }
  }

  return Object.assign(Object.create(asyncIterators), { next, return: leaveIt })
}
