// The hook on `node:http2`, over which Amazon's SDK speaks to Bedrock. The head of a request leaves when the stream is made and
// names only the model; its body, without which no model runs, is held until the gate has answered.
import { AsyncLocalStorage } from 'node:async_hooks'
import http2 from 'node:http2'
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
import { holdBody } from './held-body.ts'
import { type IdleReplies, openIdleReplies } from './idle-replies.ts'
import { tapReply } from './reply-tap.ts'

type Call = { readonly url: URL; readonly endpoint: NonNullable<ReturnType<Watch['endpointOf']>> }

export function hookHttp2(watch: Watch): () => void {
  const original = http2.connect
  const idle = openIdleReplies()
  const hooked = function connect(...args: unknown[]): http2.ClientHttp2Session {
    const session: http2.ClientHttp2Session = Reflect.apply(original, http2, args)
    const origin = guarded(watch, () => new URL(String(args[0])).origin, '')
    const { request } = session
    let isUndicis: boolean | undefined
    session.request = (headers, options) => {
      const stream = request.call(session, headers, options)
      isUndicis ??= isOfUndici(session)
      if (!isUndicis) guarded(watch, () => lookAt(watch, origin, stream, idle), undefined)
      return stream
    }
    return session
  } as typeof http2.connect
  http2.connect = hooked
  syncBuiltinESMExports()
  return () => {
    idle[Symbol.dispose]()
    if (http2.connect === hooked) http2.connect = original
    syncBuiltinESMExports()
  }
}

/** undici speaks http2 by this module, and its requests are seen where it makes them. It counts its streams on its sessions. */
function isOfUndici(session: http2.ClientHttp2Session): boolean {
  return Object.getOwnPropertySymbols(session).some(({ description }) => description === 'open streams')
}

function lookAt(watch: Watch, origin: string, stream: http2.ClientHttp2Stream, idle: IdleReplies): void {
  const headers = stream.sentHeaders ?? {}
  if (headers[':method'] !== 'POST' || isSeen()) return
  const url = URL.parse(String(headers[':path'] ?? ''), origin)
  const endpoint = url === null ? undefined : watch.endpointOf('POST', url)
  if (url !== null && endpoint !== undefined) watchStream(watch, stream, { url, endpoint }, idle)
  else noteOther(watch, url)
}

function isOpen(session: http2.Http2Session | undefined): boolean {
  return session?.closed === false && !session.destroyed && !session.socket.destroyed
}

function watchStream(watch: Watch, stream: http2.ClientHttp2Stream, call: Call, idle: IdleReplies): void {
  let exchange: Exchange | undefined
  let hasReply = false
  let isLeft = false
  let isGivenUp = false
  const { close, session } = stream
  stream.close = (code, callback) => {
    isLeft = true
    // A connection that goes closes its streams by the same function as their owners, who may end the connection right behind.
    isGivenUp ||= guarded(watch, () => isOpen(session), false)
    close.call(stream, code, callback)
  }
  const sent = stream.sentHeaders ?? {}
  // As over http: whoever writes its end may stand elsewhere.
  const inContext = AsyncLocalStorage.snapshot()
  holdBody(stream, (body, held) => {
    if (isLeft || stream.destroyed) {
      // Closing it writes its end; no body went out, and a call that begins now would never get an end.
      held.release()
      return
    }
    const start: ExchangeStart = {
      ...call,
      transport: 'http2',
      body,
      header: (name) => String(sent[name] ?? ''),
      mayAsk: false,
    }
    exchange = inContext(() => openExchange(watch, start))
    if (exchange?.admitted === undefined) {
      held.release()
      return
    }
    const asked = exchange
    const refuse = (refusal: Error): void => {
      asked.end('denied', refusal)
      // Of a body that has no end the platform says 'aborted' before it says why, and Amazon's SDK fails with that.
      const { emit } = stream
      stream.emit = (event: string | symbol, ...args: unknown[]) =>
        event !== 'aborted' && Reflect.apply(emit, stream, [event, ...args])
      stream.destroy(refusal)
    }
    exchange.admitted.then(() => held.release(), refuse).catch((error: Error) => stream.destroy(error))
  })
  stream.once('response', (headers) => {
    if (exchange === undefined) return
    hasReply = true
    const reply = {
      status: headers[':status'] ?? 0,
      header: (name: string) => String(headers[name] ?? ''),
      isCutShort: () => stream.closed || stream.destroyed,
      // A session that ends takes its streams with it, and tells them no reason.
      error: () => stream.errored ?? (isLeft || stream.rstCode === 0 ? undefined : new Error('the session has ended')),
    }
    const watched = exchange
    guarded(watch, () => tapReply(stream, watched, reply, idle), undefined)
  })
  stream.once('close', () => {
    const error = stream.errored ?? undefined
    if (!hasReply) exchange?.end(isGivenUp && error === undefined ? 'aborted' : endingOf(error, undefined), error)
  })
}
