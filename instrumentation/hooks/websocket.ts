// OpenAI's realtime API over a WebSocket: the global one by itself, one of the package `ws` when it is handed to
// `watchRealtime`. A response is a call, from `response.created` to `response.done`, where its usage is. The gate is asked
// before `response.create` leaves; what is sent after it waits in order. A response that the server begins by itself, because
// it heard the user pause, was not asked for and cannot be refused: it is metered.
import type { Endpoint } from '../providers/call.ts'
import { isJsonObject, type Json, objectOf, textOf } from '../providers/json-fields.ts'
import { type Exchange, guarded, noteOther, openExchange, type Watch } from './exchange.ts'

/** What the platform's WebSocket and that of `ws` have in common. */
export type RealtimeSocket = {
  readonly url: string
  readonly readyState: number
  send(...args: never[]): unknown
  addEventListener(type: 'message' | 'close', listener: (event: object) => void): void
}

export type RealtimeWatch = Watch & { readonly realtimeEndpointOf: (url: URL) => Endpoint | undefined }

export function hookWebSocket(watch: RealtimeWatch): () => void {
  const Original = globalThis.WebSocket
  if (Original === undefined) return () => undefined
  const Hooked = class WebSocket extends Original {
    constructor(...args: ConstructorParameters<typeof Original>) {
      super(...args)
      guarded(watch, () => watchPlatforms(watch, this), undefined)
    }
  }
  globalThis.WebSocket = Hooked
  return () => {
    if (globalThis.WebSocket === Hooked) globalThis.WebSocket = Original
  }
}

/** No request of `node:http` tells of the platform's, so that one that cannot be read is told of here. */
function watchPlatforms(watch: RealtimeWatch, socket: RealtimeSocket): void {
  const url = URL.parse(socket.url)
  if (url !== null && watch.realtimeEndpointOf(url) !== undefined) watchRealtime(watch, socket)
  else noteOther(watch, URL.parse(socket.url.replace(/^ws/, 'http')))
}

const slot = Symbol.for('tallylight.realtime.watched')
type Global = { [slot]?: Set<RealtimeSocket> }

/** Not closed, and watched. Of all copies of this package: one may watch what is opened under the hooks of the other. */
function watchedSockets(): Set<RealtimeSocket> {
  const shared = globalThis as Global
  shared[slot] ??= new Set()
  return shared[slot]
}

/** Whether a socket to this address is watched, so that one that is not can be told of. */
export function isWatchedSocket(url: string): boolean {
  dropClosed()
  return [...watchedSockets()].some((socket) => socket.url === url)
}

const open = 1
const closed = 3

/** Whoever takes all listeners off a socket takes ours, too, and its end is not told. */
function dropClosed(): void {
  const watched = watchedSockets()
  for (const socket of watched) if (socket.readyState === closed) watched.delete(socket)
}

/** Events that are long and say nothing: sound. */
const sound = /^.{0,80}"type"\s*:\s*"response\.(output_)?audio\.delta"/

/** A response that is asked for; `eventId` is '' where its event has none. */
type Asked = { readonly response: Json; readonly eventId: string }

/** A refusal reaches the owner of the socket as the API's own errors do, in a message of type `error`. */
export function watchRealtime(watch: RealtimeWatch, socket: RealtimeSocket): void {
  const url = URL.parse(socket.url)
  const endpoint = url === null ? undefined : watch.realtimeEndpointOf(url)
  const watched = watchedSockets()
  if (url === null || endpoint === undefined || watched.has(socket)) return
  dropClosed()
  watched.add(socket)
  const calls = new Map<string, Exchange>()
  /** The gate has not answered yet. */
  const waiting = new Set<Exchange>()
  /** The gate has let it pass, and the server has not begun it yet. */
  const admitted: (Pick<Asked, 'eventId'> & { readonly exchange: Exchange })[] = []
  let session: Json = {}
  let sending: Promise<void> | undefined

  function begin(asked: Json): Exchange | undefined {
    const { model = session.model, instructions = session.instructions, tools = session.tools } = asked
    const { max_output_tokens = session.max_output_tokens, input } = asked
    const max = typeof max_output_tokens === 'number' ? { max_output_tokens } : {}
    const body = JSON.stringify({ model: textOf(model) || endpoint?.model, instructions, tools, input, ...max })
    return openExchange(watch, {
      endpoint: endpoint as Endpoint,
      url: url as URL,
      transport: 'websocket',
      body,
      header: () => '',
      mayAsk: false,
    })
  }

  function received(text: string): void {
    const event = parsed(text)
    const type = textOf(event.type)
    if (type === 'session.created' || type === 'session.updated') session = objectOf(event.session)
    const id = textOf(objectOf(event.response).id) || textOf(event.response_id)
    if (type === 'response.created') {
      const exchange = admitted.shift()?.exchange ?? begin({})
      exchange?.head(200, (name) => (name === 'content-type' ? 'text/event-stream' : ''))
      if (exchange !== undefined) calls.set(id, exchange)
    }
    if (type === 'error') {
      const refused = takeRefused(objectOf(event.error))
      refused?.head(400, (name) => (name === 'content-type' ? 'application/json' : ''))
      refused?.pass(new TextEncoder().encode(text))
      refused?.end('complete')
    }
    const exchange = calls.get(id)
    exchange?.pass(new TextEncoder().encode(`data: ${text}\n\n`))
    if (type !== 'response.done') return
    calls.delete(id)
    exchange?.end('complete')
  }

  /** The one that an error refuses; left there it would stand for the next response. An error names the event that it is about by
   *  the id that the caller gave that. Where none was given it is the first, since the server answers in order, as long as the error
   *  is about a response: other events are refused, too. We give no ids, since what is sent would not be the caller's text any more. */
  function takeRefused(error: Json): Exchange | undefined {
    const eventId = textOf(error.event_id)
    const named = eventId === '' ? -1 : admitted.findIndex((each) => each.eventId === eventId)
    if (named >= 0) return admitted.splice(named, 1)[0]?.exchange
    return isOfResponse(error) ? admitted.shift()?.exchange : undefined
  }

  const { send } = socket
  socket.send = (...args: never[]): unknown => {
    // Thrown, or dropped in silence: nothing leaves.
    if (socket.readyState !== open) return Reflect.apply(send, socket, args)
    const asked = guarded(watch, () => askedBy(args[0]), undefined)
    const exchange = asked === undefined ? undefined : begin(asked.response)
    const eventId = asked?.eventId ?? ''
    if (exchange !== undefined && exchange.admitted === undefined) admitted.push({ exchange, eventId })
    if (exchange?.admitted === undefined && sending === undefined) return Reflect.apply(send, socket, args)
    if (exchange !== undefined) waiting.add(exchange)
    const turn = (sending ?? Promise.resolve()).then(() => sendAdmitted(exchange, eventId, args))
    sending = turn
    turn.finally(() => {
      if (sending === turn) sending = undefined
    })
    return undefined
  }

  async function sendAdmitted(exchange: Exchange | undefined, eventId: string, args: never[]): Promise<void> {
    try {
      await exchange?.admitted
    } catch (refusal) {
      exchange?.end('denied', refusal)
      guarded(watch, () => refuse(socket, refusal), undefined)
      tellSender(args, refusal)
      return
    } finally {
      if (exchange !== undefined) waiting.delete(exchange)
    }
    if (exchange?.admitted !== undefined) admitted.push({ exchange, eventId })
    // What it throws of a closed socket would have reached the caller, who is gone on by now.
    guarded(watch, () => Reflect.apply(send, socket, args), undefined)
  }

  socket.addEventListener('message', (event) => {
    const { data } = event as { readonly data?: unknown }
    if (typeof data === 'string' && !sound.test(data)) guarded(watch, () => received(data), undefined)
  })
  socket.addEventListener('close', () => {
    watched.delete(socket)
    for (const exchange of [...waiting, ...calls.values()]) exchange.end('cut')
    for (const { exchange } of admitted) exchange.end('cut')
    calls.clear()
  })
}

/** Undefined: it is another event. */
function askedBy(data: unknown): Asked | undefined {
  if (typeof data !== 'string' || !data.includes('response.create')) return undefined
  const event = parsed(data)
  if (event.type !== 'response.create') return undefined
  return { response: objectOf(event.response), eventId: textOf(event.event_id) }
}

/** Whether what was refused is a `response.create`, by the error's own words: `response.tools[0].name`, but not `response_id`. */
function isOfResponse({ code, param }: Json): boolean {
  return code === 'conversation_already_has_active_response' || /^response\b/.test(textOf(param))
}

function parsed(text: string): Json {
  try {
    const value: unknown = JSON.parse(text)
    return isJsonObject(value) ? value : {}
  } catch {
    // Whatever is no JSON is between the two ends.
    return {}
  }
}

/** Who waits for a `send` of `ws` is told as `ws` itself tells: what that throws is the service's own. */
function tellSender(args: readonly unknown[], refusal: unknown): void {
  const told = args.at(-1)
  if (typeof told === 'function') process.nextTick(told as (error: unknown) => void, refusal)
}

function refuse(socket: RealtimeSocket, refusal: unknown): void {
  const message = refusal instanceof Error ? refusal.message : String(refusal)
  const data = JSON.stringify({ type: 'error', error: { type: 'quota_exceeded', code: 'quota_exceeded', message } })
  if (socket instanceof EventTarget) socket.dispatchEvent(new MessageEvent('message', { data }))
  else if ('emit' in socket && typeof socket.emit === 'function') socket.emit('message', Buffer.from(data), false)
}
