// The hook on global `fetch`. A request that is no model call goes straight through. For one that is, the caller gets the
// platform's own Response. Its bytes are read where they come from the connection, or, where that cannot be seen, as the caller
// reads them: nothing is fetched ahead, nothing waits, and leaving, aborting and forgetting it reach the connection as they would have.

import { limits } from '../limits.ts'
import { endingOf, guarded, isSeen, openExchange, runSeen, type SeenBy, type Watch } from './exchange.ts'
import { type FetchWire, openFetchWire } from './fetch-wire.ts'
import { type IdleReplies, openIdleReplies } from './idle-replies.ts'
import { outgoingTraceHeaders } from './outgoing-trace.ts'
import { openBodyWatch, type WatchBody } from './tapped-body.ts'

type Fetch = typeof globalThis.fetch

/** Gives what undoes it. A fetch that somebody put over ours later stays. */
export function hookFetch(watch: Watch): () => void {
  const original = globalThis.fetch
  const known: Known = { watchBody: openBodyWatch(), unwilling: new Set(), idle: openIdleReplies() }
  const calls = openCalls(watch)
  const hooked: Fetch = function fetch(input, init) {
    if (isSeen()) return original(input, init)
    const found = guarded(watch, () => calls.of(input, init), undefined)
    if (found === undefined)
      return original(
        input,
        guarded(watch, () => traced(input, init), init),
      )
    return exchanged(watch, original, known, found, { input, init })
  }
  globalThis.fetch = hooked
  return () => {
    known.idle[Symbol.dispose]()
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

/** A service calls the same few addresses again and again: those that were calls are not parsed anew. */
function openCalls(watch: Watch) {
  const known = new Map<string, Call>()
  return {
    of(input: Parameters<Fetch>[0], init: RequestInit | undefined): Call | undefined {
      const isRequest = input instanceof Request
      const method = init?.method ?? (isRequest ? input.method : 'GET')
      if (method.length !== 4 || method.toUpperCase() !== 'POST') return undefined
      const address = isRequest ? input.url : String(input)
      const before = known.get(address)
      if (before !== undefined) return before
      const url = URL.parse(address)
      const endpoint = url === null ? undefined : watch.endpointOf(method, url)
      if (url === null || endpoint === undefined) return undefined
      const call = { url, endpoint }
      if (known.size < limits.knownAddressesMax) known.set(address, call)
      return call
    },
  }
}

type Known = {
  readonly watchBody: WatchBody
  readonly idle: IdleReplies
  /** Hosts that refused a request in which usage was asked for, and took the same one without. */
  readonly unwilling: Set<string>
}

type Given = { readonly input: Parameters<Fetch>[0]; readonly init: RequestInit | undefined }

async function exchanged(
  watch: Watch,
  original: Fetch,
  { watchBody, unwilling, idle }: Known,
  { url, endpoint }: Call,
  given: Given,
): Promise<Response> {
  // With a body that is a text all is sent at once, unless something below has it wait.
  const isText = typeof given.init?.body === 'string'
  let { input, init } = isText ? given : ownOf(given)
  const request = input instanceof Request ? input : undefined
  // Null says that there is none, also of a Request that has one.
  const signal = init?.signal === undefined ? request?.signal : init.signal
  const body = bodyAtHand(init?.body) ?? (await bodyOf(watch, request, init, signal))
  const exchange = openExchange(watch, {
    endpoint,
    url,
    transport: 'fetch',
    body: body ?? '',
    header: (name) => headerIn(init?.headers ?? request?.headers, name),
    // A Request's body was made by its owner, and cannot be changed without making another Request.
    mayAsk: !unwilling.has(url.host) && (typeof init?.body === 'string' || init?.body instanceof Uint8Array),
  })
  if (exchange === undefined) return original(input, init)
  if (isText && (exchange.admitted !== undefined || exchange.body !== undefined)) ({ input, init } = ownOf(given))
  try {
    if (exchange.admitted !== undefined) await admitted(exchange.admitted, signal)
  } catch (error) {
    exchange.end(signal?.aborted === true ? 'aborted' : 'denied', error)
    throw error
  }
  if (signal?.aborted === true) {
    // The platform refuses it in its own words, and sends nothing.
    exchange.holdBack()
    exchange.end('aborted', signal.reason)
    return original(input, init)
  }
  const send = async (
    what: RequestInit | undefined,
  ): Promise<{ readonly response: Response; readonly wire: FetchWire }> => {
    const wire = openFetchWire(exchange, `${url.pathname}${url.search}`, signal, idle)
    const seenBy: SeenBy = { wire }
    try {
      const response = await exchange.inContext(() => runSeen(() => original(input, what), seenBy))
      return { response, wire }
    } catch (error) {
      wire.leave()
      throw error
    } finally {
      seenBy.wire = undefined
    }
  }
  let sent: Awaited<ReturnType<typeof send>>
  try {
    sent = await send(exchange.body === undefined ? init : withBody(request, init, exchange.body))
    if (exchange.body !== undefined && sent.response.status === 400) {
      // It may be the option that we added: then the caller's own request is another one, and its answer the caller's.
      exchange.withdraw()
      sent.wire.leave()
      await sent.response.body?.cancel()
      sent = await send(init)
      // Refused without the option, too, or not answered by the model: the host has said nothing about the option.
      if (sent.response.status < 400) unwilling.add(url.host)
    }
  } catch (error) {
    // Of what was sent and lost the platform tells the cause; without one it has refused what it was given, and sent nothing.
    if (error instanceof TypeError && error.cause === undefined) exchange.holdBack()
    exchange.end(endingOf(error, signal), error)
    throw error
  }
  const { response, wire } = sent
  if (wire.answers(response.status)) return response
  exchange.head(response.status, (name) => response.headers.get(name) ?? '')
  if (response.body === null) {
    exchange.end('complete')
    return response
  }
  guarded(watch, () => watchBody(response, exchange, signal), undefined)
  return response
}

/** The platform reads all that it is given at once. We may send it later, when the gate has answered, and again; by then its owner may have
 *  made the next request of the same objects. */
function ownOf({ input, init }: Given): Given {
  return { input: input instanceof URL ? new URL(input) : input, init: ownInit(init) }
}

function ownInit(init: RequestInit | undefined): RequestInit | undefined {
  // Of any other kind of object, a Request for one, a copy would not have all.
  if (!init || Object.getPrototypeOf(init) !== Object.prototype) return init
  try {
    const own: RequestInit = { ...init }
    const { headers, body } = init
    if (headers !== undefined) own.headers = new Headers(headers)
    const bytes = typeof body === 'string' ? undefined : bodyAtHand(body)
    if (bytes !== undefined) own.body = bytes.slice()
    return own
  } catch {
    // Headers that are none: the platform says so in its own words.
    return init
  }
}

/** Waits for the gate no longer than the caller does. */
async function admitted(admission: Promise<void>, signal: AbortSignal | null | undefined): Promise<void> {
  if (!signal) return admission
  const { promise, reject } = Promise.withResolvers<never>()
  const onAbort = (): void => reject(signal.reason)
  if (signal.aborted) onAbort()
  else signal.addEventListener('abort', onAbort, { once: true })
  try {
    await Promise.race([admission, promise])
  } finally {
    signal.removeEventListener('abort', onAbort)
  }
}

/** A stream is the caller's to be read once, and a form is no model call we know. */
function bodyAtHand(body: RequestInit['body']): string | Uint8Array | undefined {
  if (typeof body === 'string') return body
  if (body instanceof ArrayBuffer) return new Uint8Array(body)
  return ArrayBuffer.isView(body) ? new Uint8Array(body.buffer, body.byteOffset, body.byteLength) : undefined
}

async function bodyOf(
  watch: Watch,
  request: Request | undefined,
  init: RequestInit | undefined,
  signal: AbortSignal | null | undefined,
): Promise<string | Uint8Array | undefined> {
  const body = init?.body
  try {
    if (body instanceof Blob) return await body.bytes()
    if (!body && request?.body && !request.bodyUsed) return await readAll(request.clone().body, signal)
  } catch (error) {
    // Broken in the caller's hands: its own fetch will say so.
    watch.failed(error)
  }
  return undefined
}

/** As far as it came where the caller gives up meanwhile, who is told so at once and not when the stream has ended. */
async function readAll(
  body: ReadableStream<Uint8Array> | null,
  signal: AbortSignal | null | undefined,
): Promise<Uint8Array | undefined> {
  const reader = body?.getReader()
  if (reader === undefined) return undefined
  // Its source ends when the platform has given up the other half, too: that is not ours to wait for.
  const leave = (): void => void reader.cancel(signal?.reason).catch(() => undefined)
  if (signal?.aborted === true) leave()
  signal?.addEventListener('abort', leave, { once: true })
  const pieces: Uint8Array[] = []
  try {
    for (let read = await reader.read(); !read.done; read = await reader.read()) pieces.push(read.value)
    return Buffer.concat(pieces)
  } finally {
    signal?.removeEventListener('abort', leave)
  }
}

/** In any of the forms that fetch takes, without making Headers of them for two names. */
function headerIn(headers: RequestInit['headers'], name: string): string {
  if (headers === undefined) return ''
  if (headers instanceof Headers) return headers.get(name) ?? ''
  const pairs: Iterable<readonly (string | undefined)[]> =
    Symbol.iterator in headers ? headers : Object.entries(headers)
  // One that can be read once is for fetch.
  if ('next' in pairs) return ''
  for (const [each = '', value = ''] of pairs)
    if (each.length === name.length && each.toLowerCase() === name) return value
  return ''
}

function withBody(request: Request | undefined, init: RequestInit | undefined, body: string): RequestInit {
  // Headers beside a Request stand for all of its own.
  const headers = new Headers(init?.headers ?? request?.headers)
  // A length that the caller counted is not that of this body; without one, fetch counts.
  headers.delete('content-length')
  return { ...init, headers, body }
}
