// npm's undici, by its own diagnostics channels: whichever dispatcher, pool or version sends a request, they tell of its body,
// its head, its bytes and its end. Requests of global `fetch` pass here as well and are told to its hook. A channel cannot
// hold a request back, so the gate is not asked here; such a call is charged by its record and counted as not gated.
import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { type Exchange, endingOf, guarded, isSeen, noteOther, openExchange, type Watch, wireAbove } from './exchange.ts'
import { type UndiciRequest, wireOf } from './fetch-wire.ts'
import { type Inflated, openInflated } from './reply-tap.ts'

type TappedRequest = UndiciRequest & {
  /** Until version 8 the request is handed its reply in pieces; since 7.11 a channel tells of them, too. */
  onData?: (chunk: Uint8Array) => unknown
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
  const replies = new WeakMap<UndiciRequest, Inflated>()
  const listeners: Readonly<Record<string, (message: Message) => void>> = {
    'undici:request:create': ({ request }) => {
      const wire = wireAbove()
      if (wire !== undefined) wire.claim(request)
      else if (create(watch, exchanges, request)) tapReply(request)
    },
    'undici:request:headers': ({ request, response }) => {
      if (response === undefined) return
      const header = (name: string): string => headerIn(response.headers, name)
      request[wireOf]?.head(request, response.statusCode, header)
      const exchange = exchanges.get(request)
      if (exchange === undefined) return
      exchange.head(response.statusCode, header)
      replies.set(request, openInflated(header, exchange))
    },
    'undici:request:trailers': ({ request }) => replies.get(request)?.end(),
    'undici:request:error': ({ request, error }) => {
      request[wireOf]?.failed(request, error)
      const ending = endingOf(error, undefined)
      const reply = replies.get(request)
      if (reply === undefined) exchanges.get(request)?.end(ending, error)
      else reply.stop(ending, error)
    },
  }
  const offs = Object.entries(listeners).map(([name, listener]) => listen(watch, name, listener))
  let isToldOfPieces = false

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
    for (const off of offs) off()
  }
}

function listen(watch: Watch, name: string, listener: (message: Message) => void): () => void {
  const on = (message: unknown): void => guarded(watch, () => listener(message as Message), undefined)
  subscribe(name, on)
  return () => unsubscribe(name, on)
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

/** Whether a call began. */
function create(watch: Watch, exchanges: WeakMap<UndiciRequest, Exchange>, request: UndiciRequest): boolean {
  if (request.method !== 'POST' || isSeen()) return false
  const url = URL.parse(String(request.path), String(request.origin))
  const endpoint = url === null ? undefined : watch.endpointOf('POST', url)
  if (url === null || endpoint === undefined) {
    noteOther(watch, url)
    return false
  }
  const { body } = request
  const { headers } = request
  const exchange = openExchange(watch, {
    endpoint,
    url,
    transport: 'undici',
    body: typeof body === 'string' || body instanceof Uint8Array ? body : '',
    // Names and values by turns; before version 7 the text that goes on the wire.
    header: (name) => (Array.isArray(headers) ? headerIn(headers, name) : lineIn(String(headers), name)),
    mayAsk: false,
  })
  if (exchange === undefined) return false
  exchanges.set(request, exchange)
  exchange.admitted?.catch(() => undefined)
  return true
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
