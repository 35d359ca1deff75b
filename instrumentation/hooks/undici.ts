// npm's undici, by its own diagnostics channels: whichever dispatcher, pool or version sends a request, they tell of its body,
// its head, its bytes and its end. Requests of global `fetch` pass here as well and are told to its hook. A channel cannot
// hold a request back, so the gate is not asked here; such a call is charged by its record and counted as not gated.
import { AsyncLocalStorage, AsyncResource } from 'node:async_hooks'
import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { context, ROOT_CONTEXT } from '@opentelemetry/api'
import { limits } from '../limits.ts'
import {
  type Exchange,
  type ExchangeStart,
  endingOf,
  guarded,
  isSeen,
  noteOther,
  openExchange,
  type Watch,
  wireAbove,
} from './exchange.ts'
import { type UndiciRequest, wireOf } from './fetch-wire.ts'
import { openIdleReplies } from './idle-replies.ts'
import { type Inflated, leftWhenIdle, openInflated } from './reply-tap.ts'

type TappedRequest = UndiciRequest & {
  /** Until version 8 the request is handed its reply in pieces; since 7.11 a channel tells of them, too. */
  onData?: (chunk: Uint8Array) => unknown
  onBodySent?: (chunk: Uint8Array | string) => unknown
}
/** Names and values by turns; over http2 an object, since version 8. */
type Headers = readonly unknown[] | Readonly<Record<string, unknown>>
type Message = {
  readonly request: TappedRequest
  readonly response?: { readonly statusCode: number; readonly headers: Headers }
  readonly chunk?: Uint8Array
  readonly error?: unknown
}

export function hookUndici(watch: Watch): () => void {
  const exchanges = new WeakMap<UndiciRequest, Exchange>()
  /** Of calls whose body is a stream, as that of npm's `fetch` is: they begin when it has been sent, and what they ask for is known. */
  const sending = new WeakMap<UndiciRequest, () => void>()
  const replies = new WeakMap<UndiciRequest, Inflated>()
  const idle = openIdleReplies()
  const listeners: Readonly<Record<string, (message: Message) => void>> = {
    'undici:request:create': ({ request }) => {
      if (request.method !== 'POST') return
      inContextOfMaker(request, () => {
        const wire = wireAbove()
        if (wire !== undefined) wire.claim(request)
        else create(request)
      })
    },
    'undici:request:bodySent': ({ request }) => sent(request),
    'undici:request:headers': ({ request, response }) => {
      if (response === undefined) return
      sent(request)
      const header = (name: string): string => headerIn(response.headers, name)
      request[wireOf]?.head(request, response.statusCode, header)
      const exchange = exchanges.get(request)
      // 103 and its like are no reply.
      if (exchange === undefined || response.statusCode < 200) return
      exchange.head(response.statusCode, header)
      // The platform itself gives up a reply that is waited for and does not come.
      replies.set(
        request,
        leftWhenIdle(openInflated(header, exchange), exchange, () => false, idle),
      )
    },
    'undici:request:trailers': ({ request }) => replies.get(request)?.end(),
    'undici:request:error': ({ request, error }) => {
      request[wireOf]?.failed(request, error)
      sent(request)
      const ending = endingOf(error, undefined)
      const reply = replies.get(request)
      if (reply === undefined) exchanges.get(request)?.end(ending, error)
      else reply.stop(ending, error)
    },
  }
  const offs = Object.entries(listeners).map(([name, listener]) => listen(watch, name, listener))
  let isToldOfPieces = false

  function create(request: TappedRequest): void {
    const call = callOf(watch, request)
    if (call === undefined) return
    const open = (body: string | Uint8Array): void => {
      const exchange = openExchange(watch, { ...call, body, transport: 'undici', mayAsk: false })
      if (exchange === undefined) return
      exchanges.set(request, exchange)
      exchange.admitted?.catch(() => undefined)
    }
    const { body } = request
    const isAtHand = typeof body === 'string' || body instanceof Uint8Array
    if (isAtHand || !body) open(isAtHand ? body : '')
    else {
      // The connection that sends it is nobody's turn.
      const inContext = AsyncLocalStorage.snapshot()
      const bodyOf = collectBody(watch, request)
      sending.set(request, () => inContext(() => open(bodyOf())))
    }
    tapReply(request)
  }

  function sent(request: TappedRequest): void {
    const open = sending.get(request)
    sending.delete(request)
    open?.()
  }

  function tapReply(request: TappedRequest): void {
    const isTapped = tapData(request, (chunk) => guarded(watch, () => replies.get(request)?.write(chunk), undefined))
    if (!isTapped) listenToPieces()
  }

  /** Not before somebody needs it: the channel tells of every piece of every request, those of global `fetch` as well. */
  function listenToPieces(): void {
    if (isToldOfPieces) return
    isToldOfPieces = true
    const listener = ({ request, chunk }: Message): void => {
      if (chunk !== undefined && !Object.hasOwn(request, 'onData')) replies.get(request)?.write(chunk)
    }
    offs.push(listen(watch, 'undici:request:bodyChunkReceived', listener))
  }

  return () => {
    idle[Symbol.dispose]()
    for (const off of offs) off()
  }
}

function listen(watch: Watch, name: string, listener: (message: Message) => void): () => void {
  const on = (message: unknown): void => guarded(watch, () => listener(message as Message), undefined)
  subscribe(name, on)
  return () => unsubscribe(name, on)
}

/** Until version 8 a pool whose connections are all taken makes what has waited in the context of the one that became free, so a call
 *  would be told as that of another user and tenant. `request`, `stream` and `pipeline` leave their caller's context with the request.
 *  `fetch` does not, nor does who dispatches by hand: whether such a request has waited cannot be seen, and none is better than a wrong
 *  turn. */
function inContextOfMaker(request: TappedRequest, work: () => void): void {
  const maker = makerOf(request)
  if (maker !== undefined) maker.runInAsyncScope(work)
  else if (request.onData === undefined) work()
  else context.with(ROOT_CONTEXT, work)
}

type Handler = { readonly handler?: unknown }

/** Handlers of redirects and of tries that are made again have the maker's inside. */
function makerOf(request: TappedRequest): AsyncResource | undefined {
  const key = Object.getOwnPropertySymbols(request).find(({ description }) => description === 'handler')
  let handler: unknown = key === undefined ? undefined : Reflect.get(request, key)
  for (let depth = 0; depth < 4 && typeof handler === 'object' && handler !== null; depth++) {
    if (handler instanceof AsyncResource) return handler
    handler = (handler as Handler).handler
  }
  return undefined
}

/** Gives whether the request is one that can be tapped. */
function tapData(request: TappedRequest, read: (chunk: Uint8Array) => void): boolean {
  const { onData } = request
  if (onData === undefined) return false
  request.onData = function (chunk) {
    read(chunk)
    return Reflect.apply(onData, this, [chunk])
  }
  return true
}

/** Gives what has been sent, once that is asked for; nothing where it was too long to keep. */
function collectBody(watch: Watch, request: TappedRequest): () => Uint8Array {
  const { onBodySent } = request
  const pieces: Buffer[] = []
  let bytes = 0
  request.onBodySent = function (chunk) {
    guarded(
      watch,
      () => {
        bytes += chunk.length
        if (bytes <= limits.requestHeldBytesMax) pieces.push(Buffer.from(chunk as Uint8Array))
      },
      undefined,
    )
    return onBodySent === undefined ? undefined : Reflect.apply(onBodySent, this, [chunk])
  }
  return () => (bytes > limits.requestHeldBytesMax ? new Uint8Array() : Buffer.concat(pieces))
}

type Call = Pick<ExchangeStart, 'endpoint' | 'url' | 'header'>

function callOf(watch: Watch, { method, path, origin, headers }: UndiciRequest): Call | undefined {
  if (method !== 'POST' || isSeen()) return undefined
  const url = URL.parse(String(path), String(origin))
  const endpoint = url === null ? undefined : watch.endpointOf('POST', url)
  if (url === null || endpoint === undefined) {
    noteOther(watch, url)
    return undefined
  }
  // Names and values by turns; before version 7 the text that goes on the wire.
  const header = (name: string): string =>
    Array.isArray(headers) ? headerIn(headers, name) : lineIn(String(headers), name)
  return { endpoint, url, header }
}

function lineIn(headers: string, name: string): string {
  return new RegExp(`^${name}: *(.*)$`, 'im').exec(headers)?.[1]?.trim() ?? ''
}

function headerIn(headers: Headers, name: string): string {
  if (!isList(headers)) return String(headers[name] ?? '')
  for (let at = 0; at + 1 < headers.length; at += 2) {
    // Most differ in their length already, and are not made into text.
    const each = headers[at] as string | Uint8Array
    if (each.length === name.length && String(each).toLowerCase() === name) return String(headers[at + 1])
  }
  return ''
}

const isList = (headers: Headers): headers is readonly unknown[] => Array.isArray(headers)
