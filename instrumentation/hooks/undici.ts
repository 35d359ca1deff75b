// npm's undici, by its own diagnostics channels: whichever dispatcher, pool or version sends a request, they tell of its body,
// its head, its bytes and its end. Requests of global `fetch` pass here as well and are known already. A channel cannot
// hold a request back, so the gate is not asked here; such a call is charged by its record and counted as not gated.
import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { type Exchange, endingOf, guarded, isSeen, noteOther, openExchange, type Watch } from './exchange.ts'
import { type Inflated, openInflated } from './reply-tap.ts'

type UndiciRequest = {
  readonly origin?: unknown
  readonly path?: unknown
  readonly method?: unknown
  readonly body?: unknown
  readonly headers?: unknown
  /** Until version 8 the request is handed its reply in pieces; since 7.11 a channel tells of them, too. */
  onData?: (chunk: Uint8Array) => unknown
}
type Message = {
  readonly request: UndiciRequest
  readonly response?: { readonly statusCode: number; readonly headers: readonly Uint8Array[] }
  readonly chunk?: Uint8Array
  readonly error?: unknown
}

export function hookUndici(watch: Watch): () => void {
  const exchanges = new WeakMap<UndiciRequest, Exchange>()
  const replies = new WeakMap<UndiciRequest, Inflated>()
  const listeners: Readonly<Record<string, (message: Message) => void>> = {
    'undici:request:create': ({ request }) => {
      if (create(watch, exchanges, request))
        tapData(request, (chunk) => guarded(watch, () => replies.get(request)?.write(copied(chunk)), undefined))
    },
    'undici:request:headers': ({ request, response }) => {
      const exchange = exchanges.get(request)
      if (exchange === undefined || response === undefined) return
      const header = (name: string): string => headerIn(response.headers, name)
      exchange.head(response.statusCode, header)
      replies.set(request, openInflated(header('content-encoding'), exchange))
    },
    'undici:request:bodyChunkReceived': ({ request, chunk }) => {
      if (chunk !== undefined && !Object.hasOwn(request, 'onData')) replies.get(request)?.write(copied(chunk))
    },
    'undici:request:trailers': ({ request }) => replies.get(request)?.end(),
    'undici:request:error': ({ request, error }) => {
      const ending = endingOf(error, undefined)
      const reply = replies.get(request)
      if (reply === undefined) exchanges.get(request)?.end(ending, error)
      else reply.stop(ending, error)
    },
  }
  const guardedListeners = Object.entries(listeners).map(([name, listener]) => {
    const on = (message: unknown): void => guarded(watch, () => listener(message as Message), undefined)
    subscribe(name, on)
    return () => unsubscribe(name, on)
  })
  return () => {
    for (const off of guardedListeners) off()
  }
}

/** Since what undici hands on may be taken over by the stream it goes into. */
const copied = (chunk: Uint8Array): Uint8Array => Uint8Array.prototype.slice.call(chunk)

function tapData(request: UndiciRequest, read: (chunk: Uint8Array) => void): void {
  const { onData } = request
  if (onData === undefined) return
  request.onData = function (chunk) {
    read(chunk)
    return Reflect.apply(onData, this, [chunk])
  }
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

function headerIn(headers: readonly unknown[], name: string): string {
  for (let at = 0; at + 1 < headers.length; at += 2)
    if (String(headers[at]).toLowerCase() === name) return String(headers[at + 1])
  return ''
}
