// The hook on global `fetch`. A request that is no model call goes straight through. For one that is, the caller gets a
// Response that is the platform's own but for its body, which is read as the caller reads: nothing is fetched ahead, nothing
// waits, and leaving, aborting and forgetting it reach the connection as they would have.

import { type Exchange, endingOf, guarded, isSeen, openExchange, runSeen, type Watch } from './exchange.ts'
import { outgoingTraceHeaders } from './outgoing-trace.ts'

type Fetch = typeof globalThis.fetch

/** Gives what undoes it. A fetch that somebody put over ours later stays. */
export function hookFetch(watch: Watch): () => void {
  const original = globalThis.fetch
  const forgotten = openForgotten()
  /** Hosts that refused a request in which usage was asked for. */
  const unwilling = new Set<string>()
  const hooked: Fetch = function fetch(input, init) {
    if (isSeen()) return original(input, init)
    const found = guarded(watch, () => callOf(watch, input, init), undefined)
    if (found === undefined)
      return original(
        input,
        guarded(watch, () => traced(input, init), init),
      )
    return exchanged(watch, original, { forgotten, unwilling }, found, input, init)
  }
  globalThis.fetch = hooked
  return () => {
    if (globalThis.fetch === hooked) globalThis.fetch = original
  }
}

/** The request of a tool server, which belongs to the trace; one that brings its own trace keeps it. */
function traced(input: Parameters<Fetch>[0], init: RequestInit | undefined): RequestInit | undefined {
  const trace = input instanceof Request ? undefined : outgoingTraceHeaders()
  if (trace === undefined) return init
  const headers = new Headers(init?.headers)
  for (const [name, value] of Object.entries(trace)) if (!headers.has(name)) headers.set(name, value)
  return { ...init, headers }
}

type Call = { readonly url: URL; readonly endpoint: NonNullable<ReturnType<Watch['endpointOf']>> }

function callOf(watch: Watch, input: Parameters<Fetch>[0], init: RequestInit | undefined): Call | undefined {
  const isRequest = input instanceof Request
  const method = init?.method ?? (isRequest ? input.method : 'GET')
  if (method.length !== 4 || method.toUpperCase() !== 'POST') return undefined
  const url = URL.parse(isRequest ? input.url : String(input))
  const endpoint = url === null ? undefined : watch.endpointOf(method, url)
  return url === null || endpoint === undefined ? undefined : { url, endpoint }
}

type Known = { readonly forgotten: Forgotten; readonly unwilling: Set<string> }

async function exchanged(
  watch: Watch,
  original: Fetch,
  { forgotten, unwilling }: Known,
  { url, endpoint }: Call,
  input: Parameters<Fetch>[0],
  init: RequestInit | undefined,
): Promise<Response> {
  const request = input instanceof Request ? input : undefined
  const signal = init?.signal ?? request?.signal
  const body = await bodyOf(watch, request, init)
  const headers = guarded(watch, () => new Headers(init?.headers ?? request?.headers), new Headers())
  const exchange = openExchange(watch, {
    endpoint,
    url,
    transport: 'fetch',
    body: body ?? '',
    header: (name) => headers.get(name) ?? '',
    // A Request's body was made by its owner, and cannot be changed without making another Request.
    mayAsk: !unwilling.has(url.host) && (typeof init?.body === 'string' || init?.body instanceof Uint8Array),
  })
  if (exchange === undefined) return original(input, init)
  try {
    await admitted(exchange, signal)
  } catch (error) {
    exchange.end(signal?.aborted === true ? 'aborted' : 'denied', error)
    throw error
  }
  let response: Response
  try {
    const sent = exchange.body === undefined ? init : withBody(init, headers, exchange.body)
    const send = (what: RequestInit | undefined): Promise<Response> =>
      exchange.inContext(() => runSeen(() => original(input, what)))
    response = await send(sent)
    if (exchange.body !== undefined && response.status === 400) {
      // It may be the option that we added: then the caller's own request is another one, and its answer the caller's.
      unwilling.add(url.host)
      exchange.withdraw()
      await response.body?.cancel()
      response = await send(init)
    }
  } catch (error) {
    exchange.end(endingOf(error, signal), error)
    throw error
  }
  exchange.head(response.status, (name) => response.headers.get(name) ?? '')
  if (response.body === null) {
    exchange.end('complete')
    return response
  }
  return guarded(watch, () => watched(response, exchange, signal, forgotten), response)
}

/** Waits for the gate no longer than the caller does. */
async function admitted(exchange: Exchange, signal: AbortSignal | null | undefined): Promise<void> {
  if (exchange.admitted === undefined) return
  if (!signal) return exchange.admitted
  const { promise, reject } = Promise.withResolvers<never>()
  const onAbort = (): void => reject(signal.reason)
  if (signal.aborted) onAbort()
  else signal.addEventListener('abort', onAbort, { once: true })
  try {
    await Promise.race([exchange.admitted, promise])
  } finally {
    signal.removeEventListener('abort', onAbort)
  }
}

/** Bodies that are there already. A stream is the caller's to be read once, and a form is no model call we know. */
async function bodyOf(
  watch: Watch,
  request: Request | undefined,
  init: RequestInit | undefined,
): Promise<string | Uint8Array | undefined> {
  const body = init?.body
  if (typeof body === 'string') return body
  if (body instanceof ArrayBuffer) return new Uint8Array(body)
  if (ArrayBuffer.isView(body)) return new Uint8Array(body.buffer, body.byteOffset, body.byteLength)
  try {
    if (body instanceof Blob) return await body.bytes()
    if (!body && request?.body && !request.bodyUsed) return await request.clone().bytes()
  } catch (error) {
    // Broken in the caller's hands: its own fetch will say so.
    watch.failed(error)
  }
  return undefined
}

function withBody(init: RequestInit | undefined, headers: Headers, body: string): RequestInit {
  // A length that the caller counted is not that of this body; without one, fetch counts.
  headers.delete('content-length')
  return { ...init, headers, body }
}

function watched(
  response: Response,
  exchange: Exchange,
  signal: AbortSignal | null | undefined,
  forgotten: Forgotten,
): Response {
  const source = response.body as ReadableStream<Uint8Array>
  const reader = source.getReader()
  const body = tapped(reader, exchange, signal)
  forgotten.watch(body, { exchange, reader })
  const { status, statusText, headers } = response
  return likened(new Response(body, { status, statusText, headers }), response)
}

/** What a constructed Response cannot be told: where it came from. */
function likened(copy: Response, original: Response): Response {
  const { url, redirected, type } = original
  const clone = (): Response => likened(Response.prototype.clone.call(copy), original)
  return Object.defineProperties(copy, {
    url: { value: url },
    redirected: { value: redirected },
    type: { value: type },
    clone: { value: clone },
  })
}

/** A byte stream like the one it stands for, which takes a piece from it only when one is asked of it. */
function tapped(
  reader: ReadableStreamDefaultReader<Uint8Array>,
  exchange: Exchange,
  signal: AbortSignal | null | undefined,
): ReadableStream<Uint8Array> {
  let isCancelled = false

  async function pull(controller: ReadableByteStreamController): Promise<void> {
    let isEmpty = true
    while (isEmpty && !isCancelled) {
      const { done, value } = await reader.read()
      // A copy is read, for the stream takes the memory of what it is given from whoever holds it.
      const pieces = done ? exchange.rest() : exchange.pass(value.slice())
      if (isCancelled) return
      for (const piece of exchange.isFiltering() || done ? pieces : [value as Uint8Array]) {
        if (piece.length === 0) continue
        isEmpty = false
        controller.enqueue(exchange.isFiltering() ? piece.slice() : piece)
      }
      if (done) return close(controller)
    }
  }

  function close(controller: ReadableByteStreamController): void {
    exchange.end('complete')
    controller.close()
    // A reader that brought its own buffer waits for an answer to it.
    controller.byobRequest?.respond(0)
  }

  return new ReadableStream({
    type: 'bytes',
    start(controller) {
      // An abort while nobody reads is an end as well, and the caller's next read fails as it would have. Held weakly: the
      // reader is kept for the day when this stream is forgotten, and must not be what keeps it.
      const weakController = new WeakRef(controller)
      reader.closed.catch((error: unknown) => {
        exchange.end(endingOf(error, signal), error)
        if (!isCancelled) weakController.deref()?.error(error)
      })
    },
    pull,
    cancel(reason) {
      isCancelled = true
      exchange.end(signal?.aborted === true ? 'aborted' : 'left', reason)
      return reader.cancel(reason)
    },
  })
}

type Left = { readonly exchange: Exchange; readonly reader: ReadableStreamDefaultReader<Uint8Array> }
type Forgotten = { watch(body: ReadableStream, left: Left): void }

/** A body that nobody can read any more ends its call, and gives the connection back, as the platform does for its own. */
function openForgotten(): Forgotten {
  const registry = new FinalizationRegistry<Left>(({ exchange, reader }) => {
    exchange.end('unread')
    reader.cancel().catch(() => undefined)
  })
  return { watch: (body, left) => registry.register(body, left) }
}
