// Requests of the Model Context Protocol as spans, by OpenTelemetry's conventions: a client span where one leaves, a server span
// where one arrives, in clients and servers alike, for either may ask the other. Both are seen at the transport, which is the
// same in every version of the SDK and for every kind of connection. The trace travels in `params._meta`, and in the headers of
// HTTP; one that arrives is the parent of what happens here, or is linked to.
import {
  type Attributes,
  type Context,
  context,
  type Link,
  propagation,
  type Span,
  SpanKind,
  SpanStatusCode,
  trace,
} from '@opentelemetry/api'
import { attributes } from '../attributes.ts'
import { guarded } from '../hooks/exchange.ts'
import { withOutgoingTrace } from '../hooks/outgoing-trace.ts'
import { type Instrumentation, running } from '../instrument.ts'
import { limits } from '../limits.ts'
import { isJsonObject, type Json, objectOf, textOf } from '../providers/json-fields.ts'
import { sceneAttributes } from '../turns/scene.ts'

type Send = (message: never, ...rest: never[]) => Promise<void>
type Receive = (message: never, ...rest: never[]) => void

/** What of the SDK's transports is needed here. */
export type McpTransport = {
  send: Send
  onmessage?: Receive | undefined
  onclose?: (() => void) | undefined
  sessionId?: string | undefined
}

/** A `Client`, `Server` or `McpServer` of either generation of the SDK. */
export type McpPeer<Transport extends McpTransport = McpTransport> = {
  connect(transport: Transport, ...rest: never[]): Promise<void>
}

export type McpOptions = {
  /** What a trace that comes with a request is to the server's span. A service that does not trust its clients links. */
  readonly incoming?: 'parent' | 'link'
}

/** Watches whatever the peer connects to from now on: for an SDK that a bundler took in, or that was loaded before us, and for a
 *  peer that treats what comes otherwise than the rest. Others are watched without it. */
export function observeMcp<Peer extends McpPeer<never>>(peer: Peer, options: McpOptions = {}): Peer {
  const connect = peer.connect
  peer.connect = function (this: Peer, ...args: Parameters<Peer['connect']>) {
    const instrumentation = running()
    if (instrumentation !== undefined) observeConnection(instrumentation, args[0] as McpTransport, options)
    return Reflect.apply(connect, peer, args)
  } as Peer['connect']
  return peer
}

/** By a symbol that all copies of this package share: a peer may be observed by hand and by itself. */
const watched = Symbol.for('tallylight.mcp.watched')

export function observeConnection(
  instrumentation: Pick<Instrumentation, 'watch' | 'exporter' | 'content'>,
  transport: McpTransport,
  options: McpOptions,
): void {
  guarded(
    instrumentation.watch,
    () => {
      if (watched in transport) return
      Object.defineProperty(transport, watched, { value: true })
      watchTransport(instrumentation, transport, options)
    },
    undefined,
  )
}

type Open = { readonly span: Span; readonly method: string }

function watchTransport(
  { watch, exporter, content }: Pick<Instrumentation, 'watch' | 'exporter' | 'content'>,
  transport: McpTransport,
  options: McpOptions,
): void {
  exporter.start()
  const sent = new Map<unknown, Open>()
  const received = new Map<unknown, Open>()
  const handled = new WeakSet<Json>()
  /** Messages that have our trace. A transport sends one again by itself when its token is renewed: that is the same request. */
  const carrying = new WeakSet<Json>()
  /** What `initialize` told of the connection. */
  let known: Attributes = connectionAttributes(transport)

  function start(kind: SpanKind, message: Json, parent: Context, links: Link[]): Open {
    const method = textOf(message.method)
    const described = describedBy(message)
    const target = described[attributes.toolName] ?? described[attributes.promptName]
    const span = exporter.tracer().startSpan(
      target === undefined ? method : `${method} ${target}`,
      {
        kind,
        links,
        attributes: {
          ...known,
          ...sessionOf(transport, known),
          ...sceneAttributes(),
          ...described,
          ...content.ofTool(objectOf(message.params).arguments, undefined),
        },
      },
      parent,
    )
    return { span, method }
  }

  function keep(open: Map<unknown, Open>, id: unknown, each: Open): void {
    // A peer that gives an id twice is answered once or twice: whose answer it is, nobody can tell.
    end(open, id, 'lost')
    open.set(id, each)
    const [oldest] = open
    if (open.size > limits.mcpRequestsMax && oldest !== undefined) end(open, oldest[0], 'lost')
  }

  function answered(open: Map<unknown, Open>, message: Json): void {
    const each = open.get(message.id)
    if (each === undefined) return
    open.delete(message.id)
    try {
      tellAnswer(each, message)
    } finally {
      each.span.end()
    }
  }

  function tellAnswer({ span, method }: Open, message: Json): void {
    const result = objectOf(message.result)
    if (method === 'initialize') known = { ...known, ...initialized(result) }
    if (method === 'tools/call') span.setAttributes(content.ofTool(undefined, message.result))
    if (isJsonObject(message.error)) {
      const code = String(message.error.code)
      span.setAttributes({ [attributes.errorType]: code, [attributes.rpcStatus]: code })
      span.setStatus({ code: SpanStatusCode.ERROR })
    } else if (result.isError === true) fail(span, 'tool_error')
  }

  function end(open: Map<unknown, Open>, id: unknown, errorType: string): void {
    const each = open.get(id)
    if (each === undefined) return
    open.delete(id)
    fail(each.span, errorType)
    each.span.end()
  }

  const { send } = transport
  transport.send = ((message: Json, ...rest: readonly unknown[]): Promise<void> => {
    const call = (what: Json): Promise<void> => Reflect.apply(send, transport, [what, ...rest])
    if (carrying.has(message)) return call(message)
    if (!isRequest(message)) {
      guarded(watch, () => saidTo(sent, received, message), undefined)
      return call(message)
    }
    const opened = guarded(watch, () => start(SpanKind.CLIENT, message, context.active(), []), undefined)
    if (opened === undefined) return call(message)
    keep(sent, message.id, opened)
    const inSpan = trace.setSpan(context.active(), opened.span)
    const carried = withTrace(message, inSpan)
    carrying.add(carried)
    const sending = context.with(withOutgoingTrace(inSpan), () => call(carried))
    // Its caller gets the error; here it only ends the span.
    sending.catch(() => end(sent, message.id, 'send_failed'))
    return sending
  }) as Send

  /** An answer that leaves ends what arrived; a cancellation that leaves ends what was sent. */
  function saidTo(asked: Map<unknown, Open>, toAnswer: Map<unknown, Open>, message: Json): void {
    if (message.method === 'notifications/cancelled') end(asked, objectOf(message.params).requestId, 'cancelled')
    else if ('id' in message) answered(toAnswer, message)
  }

  function receive(handler: Receive, args: readonly unknown[]): void {
    const message = objectOf(args[0])
    const handle = (): void => Reflect.apply(handler, transport, args)
    // A handler put around another one hands the same message on.
    if (handled.has(message)) {
      handle()
      return
    }
    handled.add(message)
    if (!isRequest(message)) {
      guarded(watch, () => saidTo(received, sent, message), undefined)
      handle()
      return
    }
    const from = guarded(watch, () => traceOf(message, args[1]), context.active())
    const remote = trace.getSpanContext(from)
    // A span of this process, that of the service's HTTP server for one, is no trace that came.
    const isLinked = options.incoming === 'link' && remote?.isRemote === true
    const links: Link[] = isLinked ? [{ context: remote }] : []
    // What else the service has in its context stays: whose turn it is, and who pays.
    const parent = isLinked ? trace.deleteSpan(from) : from
    const opened = guarded(watch, () => start(SpanKind.SERVER, message, parent, links), undefined)
    if (opened === undefined) {
      handle()
      return
    }
    keep(received, message.id, opened)
    context.with(trace.setSpan(parent, opened.span), handle)
  }

  wrapProperty<Receive>(transport, 'onmessage', (handler) => ((...args: never[]) => receive(handler, args)) as Receive)
  wrapProperty<() => void>(transport, 'onclose', (handler) => () => {
    for (const open of [sent, received]) for (const id of [...open.keys()]) end(open, id, 'connection_closed')
    handler()
  })
}

/** Handlers are set after us and before the first message: whatever is set is wrapped. A transport that hands its handlers on to
 *  another one inside it gets them wrapped as well. */
function wrapProperty<Handler>(
  target: object,
  name: 'onmessage' | 'onclose',
  wrap: (handler: Handler) => Handler,
): void {
  const inherited = inheritedAccessor(target, name)
  let own: Handler | undefined
  const read = (): Handler | undefined => (inherited?.get === undefined ? own : inherited.get.call(target))
  const write = (handler: Handler | undefined): void => {
    if (inherited?.set === undefined) own = handler
    else inherited.set.call(target, handler)
  }
  const before: Handler | undefined = Reflect.get(target, name)
  Object.defineProperty(target, name, {
    configurable: true,
    enumerable: true,
    get: read,
    set: (handler: Handler | undefined) => write(handler === undefined ? undefined : wrap(handler)),
  })
  if (before !== undefined) write(wrap(before))
}

function inheritedAccessor(target: object, name: string): PropertyDescriptor | undefined {
  for (let each: object | null = Object.getPrototypeOf(target); each !== null; each = Object.getPrototypeOf(each)) {
    const found = Object.getOwnPropertyDescriptor(each, name)
    if (found !== undefined) return found.set === undefined ? undefined : found
  }
  return undefined
}

function isRequest(message: Json): boolean {
  return typeof message.method === 'string' && message.id !== undefined
}

function describedBy(message: Json): Attributes {
  const method = textOf(message.method)
  const params = objectOf(message.params)
  const name = textOf(params.name)
  const uri = textOf(params.uri)
  return {
    [attributes.mcpMethod]: method,
    [attributes.jsonRpcId]: String(message.id),
    ...(method === 'tools/call' ? { [attributes.operation]: 'execute_tool', [attributes.toolName]: name } : {}),
    ...(method === 'prompts/get' ? { [attributes.promptName]: name } : {}),
    ...(uri === '' ? {} : { [attributes.mcpResource]: uri }),
  }
}

function connectionAttributes(transport: McpTransport): Attributes {
  const isPipe = /stdio/i.test(transport.constructor.name)
  const url: unknown = Reflect.get(transport, '_url')
  const port = url instanceof URL ? Number(url.port) || (url.protocol === 'https:' ? 443 : 80) : 0
  return {
    [attributes.networkTransport]: isPipe ? 'pipe' : 'tcp',
    ...(url instanceof URL ? { [attributes.serverAddress]: url.hostname, [attributes.serverPort]: port } : {}),
  }
}

function initialized(result: Json): Attributes {
  const version = textOf(result.protocolVersion)
  const name = textOf(objectOf(result.serverInfo).name)
  return {
    ...(version === '' ? {} : { [attributes.mcpProtocolVersion]: version }),
    ...(name === '' ? {} : { [attributes.mcpServer]: name }),
  }
}

/** From this version on there are no sessions, and the attribute must not be. */
const sessionlessVersion = '2026-07-28'

function sessionOf({ sessionId }: McpTransport, known: Attributes): Attributes {
  const version = String(known[attributes.mcpProtocolVersion] ?? '')
  return sessionId === undefined || version >= sessionlessVersion ? {} : { [attributes.mcpSession]: sessionId }
}

function withTrace(message: Json, from: Context): Json {
  const carrier: Record<string, string> = {}
  propagation.inject(from, carrier)
  const params = objectOf(message.params)
  return { ...message, params: { ...params, _meta: { ...objectOf(params._meta), ...carrier } } }
}

/** The message's own, else that of the HTTP request it came in. */
function traceOf(message: Json, extra: unknown): Context {
  const meta = objectOf(objectOf(message.params)._meta)
  const carrier = typeof meta.traceparent === 'string' ? meta : objectOf(objectOf(objectOf(extra).requestInfo).headers)
  return propagation.deleteBaggage(propagation.extract(context.active(), carrier))
}

function fail(span: Span, errorType: string): void {
  span.setAttribute(attributes.errorType, errorType)
  span.setStatus({ code: SpanStatusCode.ERROR })
}
