// The hook on `node:http` and `node:https`, which axios, got, node-fetch and older SDKs use. What the caller writes is held
// until it has written all of it, so that the gate can be asked before the first byte.
import { AsyncLocalStorage } from 'node:async_hooks'
import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import http from 'node:http'
import https from 'node:https'
import { syncBuiltinESMExports } from 'node:module'
import {
  type Exchange,
  type ExchangeStart,
  endingOf,
  guarded,
  isSeen,
  noteOther,
  openExchange,
  type Watch,
} from './exchange.ts'
import { type HeldBody, holdBody } from './held-body.ts'
import { type IdleReplies, openIdleReplies } from './idle-replies.ts'
import { tapReply } from './reply-tap.ts'
import { isWatchedSocket } from './websocket.ts'

type Call = { readonly url: URL; readonly endpoint: NonNullable<ReturnType<Watch['endpointOf']>> }

export function hookNodeHttp(watch: Watch): () => void {
  const known: Known = { watched: new WeakSet(), idle: openIdleReplies() }
  const undo = [hookModule(watch, known, http, 'http:'), hookModule(watch, known, https, 'https:')]
  // Named imports of a built-in are bindings of their own, and follow only when told.
  syncBuiltinESMExports()
  const onStart = (message: unknown): void =>
    guarded(watch, () => lookForUnmetered(watch, known.watched, message), undefined)
  subscribe('http.client.request.start', onStart)
  return () => {
    known.idle[Symbol.dispose]()
    for (const each of undo) each()
    syncBuiltinESMExports()
    unsubscribe('http.client.request.start', onStart)
  }
}

type Known = { readonly watched: WeakSet<http.ClientRequest>; readonly idle: IdleReplies }

function hookModule(
  watch: Watch,
  { watched, idle }: Known,
  module: Pick<typeof http, 'request'>,
  protocol: string,
): () => void {
  const original = module.request
  const hooked = function request(...args: unknown[]): http.ClientRequest {
    const made: http.ClientRequest = Reflect.apply(original, module, args)
    if (made.method !== 'POST' || isSeen()) return made
    guarded(
      watch,
      () => {
        const call = callOf(watch, protocol, made)
        if (call === undefined) return
        watched.add(made)
        watchRequest(watch, made, call, idle)
      },
      undefined,
    )
    return made
  } as typeof http.request
  module.request = hooked
  return () => {
    if (module.request === hooked) module.request = original
  }
}

/** From the request as it was made, whose options came in five shapes. What is asked of a proxy has its whole address as its path. */
function urlOf(protocol: string, request: http.ClientRequest): URL | null {
  if (/^https?:\/\//i.test(request.path)) return URL.parse(request.path)
  const host = request.getHeader('host')
  return URL.parse(`${protocol}//${typeof host === 'string' ? host : request.host}${request.path}`)
}

function callOf(watch: Watch, protocol: string, request: http.ClientRequest): Call | undefined {
  const url = urlOf(protocol, request)
  const endpoint = url === null ? undefined : watch.endpointOf('POST', url)
  return url === null || endpoint === undefined ? undefined : { url, endpoint }
}

function watchRequest(watch: Watch, request: http.ClientRequest, call: Call, idle: IdleReplies): void {
  let exchange: Exchange | undefined
  let reply: http.IncomingMessage | undefined
  let isLeft = false
  let error: unknown
  const emit = request.emit.bind(request)
  const destroy = request.destroy.bind(request)
  // The reply of an aborted request only tells that its connection is gone; why is said here. Whoever gives no reason has had
  // enough: so ends a loop over a reply that is left; but not whoever cleans up behind a reply that was cut.
  request.destroy = (reason) => {
    if (!reason && error === undefined && !reply?.errored) isLeft = true
    error ??= reason
    return destroy(reason)
  }
  // Not a listener: one for 'response' keeps an unread reply from being thrown away, one for 'error' hides it.
  request.emit = (event: string | symbol, ...args: unknown[]): boolean => {
    if (event === 'response' && exchange !== undefined) {
      const answer = args[0] as http.IncomingMessage
      reply = answer
      // Without a listener the platform throws the bytes away before anybody can see them.
      if (request.listenerCount('response') === 0) exchange.end('unread')
      else tap(watch, exchange, answer, (errored) => (isLeft ? undefined : (error ?? errored)), idle)
    }
    if (event === 'error' && !isLeft) error = args[0]
    // With a reply, that one's end is the end; this is for a request that never got one.
    if (event === 'close' && reply === undefined) exchange?.end(isLeft ? 'aborted' : endingOf(error, undefined), error)
    return emit(event, ...args)
  }
  // Its end may be written by whoever it is piped from, the connection of another request, which is nobody's turn.
  const inContext = AsyncLocalStorage.snapshot()
  holdBody(request, (body, held) => {
    if (request.destroyed) {
      // Its end may have been told already, and a call that begins now would never get one.
      held.release()
      return
    }
    const start: ExchangeStart = {
      ...call,
      transport: 'http',
      body,
      header: (name) => String(request.getHeader(name) ?? ''),
      mayAsk: !request.headersSent && isPlain(request.getHeader('accept-encoding')),
    }
    exchange = inContext(() => openExchange(watch, start))
    if (exchange === undefined) held.release()
    else admit(request, exchange, held)
  })
}

/** A compressed reply passes as it is, so nothing can be taken out of it. */
function isPlain(acceptEncoding: unknown): boolean {
  return acceptEncoding === undefined || acceptEncoding === '' || acceptEncoding === 'identity'
}

function admit(request: http.ClientRequest, exchange: Exchange, held: HeldBody): void {
  const send = (): void => {
    // Its length is on the way already.
    if (request.headersSent) exchange.withdraw()
    else if (exchange.body !== undefined && request.hasHeader('content-length'))
      request.setHeader('content-length', Buffer.byteLength(exchange.body))
    held.release(exchange.body)
  }
  if (exchange.admitted === undefined) {
    send()
    return
  }
  const refuse = (refusal: Error): void => {
    exchange.end('denied', refusal)
    request.destroy(refusal)
  }
  // What the platform throws of what was written was the writer's to catch, who is gone on by now.
  exchange.admitted.then(send, refuse).catch((error: Error) => request.destroy(error))
}

function tap(
  watch: Watch,
  exchange: Exchange,
  response: http.IncomingMessage,
  errorOf: (errored: unknown) => unknown,
  idle: IdleReplies,
): void {
  const reply = {
    status: response.statusCode ?? 0,
    header: (name: string) => String(response.headers[name] ?? ''),
    isCutShort: () => !response.complete,
    error: () => errorOf(response.errored ?? undefined),
  }
  guarded(watch, () => tapReply(response, exchange, reply, idle), undefined)
}

/** Who kept `http.request` from before us, or made a ClientRequest itself, reaches providers past the hook. */
function lookForUnmetered(watch: Watch, watched: WeakSet<http.ClientRequest>, message: unknown): void {
  const { request } = message as { readonly request: http.ClientRequest }
  if (request.hasHeader('upgrade')) lookForSocket(watch, request)
  if (watched.has(request) || request.method !== 'POST' || isSeen()) return
  const url = urlOf(request.protocol, request)
  if (url !== null && watch.endpointOf('POST', url) !== undefined) watch.unmetered('transport', url.hostname)
  else noteOther(watch, url)
}

/** A WebSocket of the package `ws`. Whether somebody watches it is known when it is open. */
function lookForSocket(watch: Watch, request: http.ClientRequest): void {
  const url = urlOf(request.protocol, request)
  if (url === null || !watch.mayCost(url)) return
  const emit = request.emit.bind(request)
  const look = (): void => {
    if (!isWatchedSocket(url.href.replace(/^http/, 'ws'))) watch.unmetered('transport', url.hostname)
  }
  request.emit = (event: string | symbol, ...args: unknown[]): boolean => {
    if (event === 'upgrade') setImmediate(() => guarded(watch, look, undefined))
    return emit(event, ...args)
  }
}
