// The connection below one fetch. undici tells of each request that it makes, and a request hands its reply over piece by piece:
// there the bytes are read, and what the caller shall not have is taken out, before `fetch` sees them. So the Response that the
// caller gets is the platform's own, untouched: one that is watched itself costs a hundred microseconds. Where no request of
// undici answers for a fetch, or a stream is compressed, the Response is watched after all (`tapped-body.ts`).
import { type Ending, type Exchange, endingOf } from './exchange.ts'
import type { IdleReplies, IdleReply } from './idle-replies.ts'
import { type Inflated, openInflated } from './reply-tap.ts'

export type UndiciRequest = {
  readonly origin?: unknown
  readonly path?: unknown
  readonly method?: unknown
  readonly body?: unknown
  readonly headers?: unknown
  readonly aborted?: unknown
  [wireOf]?: FetchWire
}

export const wireOf = Symbol('tallylight.wire')

export type FetchWire = {
  /** A request was made in the course of the fetch. Only the first is surely its own: the connections that are opened for it make
   *  requests of others in it, when they become free. What another one of its own brings, behind a redirect or by a dispatcher
   *  that tries again, is read at its Response. */
  claim(request: UndiciRequest): void
  head(request: UndiciRequest, status: number, header: (name: string) => string): void
  /** It ended, and not well. */
  failed(request: UndiciRequest, error: unknown): void
  /** Whether the Response that the fetch gave is what is read here, and will end by itself. */
  answers(status: number): boolean
  /** What was read is not what the caller gets. */
  leave(): void
}

/** By the names of undici's methods, until version 7 and since version 8. Others are not claimed. */
const generations = [
  { start: 'onConnect', data: 'onData', end: 'onComplete' },
  { start: 'onRequestStart', data: 'onResponseData', end: 'onResponseEnd' },
] as const

type Method = (this: UndiciRequest, ...args: readonly unknown[]) => unknown
type Methods = { [name in (typeof generations)[number]['start' | 'data' | 'end']]?: Method }

/** `fetch` follows them, or gives them out as what they are: no model answers so. */
const redirects = new Set([301, 302, 303, 307, 308])

/** What `fetch` says when it gives up the body of a Response that nobody has any more. */
const forgotten = 'Response object has been garbage collected'

export function openFetchWire(
  exchange: Exchange,
  path: string,
  signal: AbortSignal | null | undefined,
  idle: IdleReplies,
): FetchWire {
  let isClaimed = false
  /** The one that was claimed, as long as it may be the one that answers. */
  let current: UndiciRequest | undefined
  let reading: Inflated | undefined
  let headStatus = 0
  let isAnswer = false
  /** By whoever holds the Response or the signal, and not by the connection. */
  let isStopped = false
  let stopReason: unknown
  let ended: { readonly ending: Ending; readonly error: unknown } | undefined
  // The platform itself gives up a reply that is waited for and does not come.
  const watched: IdleReply = { pieces: 0, isWaitedFor: () => false, leave: () => exchange.end('left') }

  function tap(request: UndiciRequest & Methods): boolean {
    const names = generations.find((each) => each.data in request && each.start in request && each.end in request)
    if (names === undefined) return false
    const { [names.start]: onStart, [names.data]: onData, [names.end]: onEnd } = request as Required<Methods>
    request[names.start] = function (abort, ...more) {
      const stop = (reason: unknown): void => {
        isStopped = true
        stopReason = reason
        ;(abort as (reason: unknown) => void)(reason)
      }
      return onStart.call(this, stop, ...more)
    }
    request[names.data] = function (bytes, ...more) {
      if (request !== current || reading === undefined) return onData.call(this, bytes, ...more)
      watched.pieces++
      let hasRoom: unknown = true
      for (const piece of reading.write(bytes as Uint8Array)) {
        hasRoom = onData.call(this, piece, ...more)
        // Who gets the pieces may stop at any of them, and is then given none.
        if (this.aborted) break
      }
      return hasRoom
    }
    request[names.end] = function (...args) {
      if (request === current && reading !== undefined) {
        for (const piece of exchange.rest()) if (!this.aborted) onData.call(this, piece)
        if (this.aborted) return undefined
        over(({ end }) => end())
      }
      return onEnd.call(this, ...args)
    }
    return true
  }

  /** No more bytes of it will come. */
  function over(tell: (reading: Inflated) => void): void {
    current = undefined
    idle.delete(watched)
    if (reading !== undefined) tell(reading)
  }

  /** All has been read; not before the fetch has given its Response, for it may still send the request again. */
  function end(ending: Ending, error: unknown): void {
    if (isAnswer) exchange.end(ending, error)
    else ended = { ending, error }
  }

  function endingOfFailure(error: unknown): Ending {
    if (signal?.aborted === true) return 'aborted'
    if (!isStopped) return endingOf(error, signal)
    return stopReason === forgotten ? 'unread' : 'left'
  }

  const wire: FetchWire = {
    claim(request) {
      if (isClaimed || request.method !== 'POST' || request.path !== path || !tap(request)) return
      isClaimed = true
      request[wireOf] = wire
      current = request
    },
    head(request, status, header) {
      if (request !== current || status < 200) return
      const isPlain = ['', 'identity'].includes(header('content-encoding').trim())
      if (redirects.has(status) || !(isPlain || header('content-type').includes('json'))) {
        current = undefined
        return
      }
      headStatus = status
      exchange.head(status, header)
      const opened = openInflated(header, {
        pass: (bytes) => (reading === opened ? exchange.pass(bytes) : [bytes]),
        end: (ending, error) => (reading === opened ? end(ending, error) : undefined),
      })
      reading = opened
      idle.add(watched)
    },
    failed(request, error) {
      if (request === current) over(({ stop }) => stop(endingOfFailure(error), error))
    },
    answers(status) {
      isAnswer = reading !== undefined && headStatus === status
      if (!isAnswer) wire.leave()
      if (isAnswer && ended !== undefined) exchange.end(ended.ending, ended.error)
      return isAnswer
    },
    leave() {
      idle.delete(watched)
      current = undefined
      reading = undefined
    },
  }
  return wire
}
