// Turns around the routes of Express, Fastify and Hono, for replies at once and for streams alike: the turn ends when the reply
// has been sent or its reader has gone. Each declares only the little it needs of its framework.
import { guarded } from '../hooks/exchange.ts'
import { running } from '../instrument.ts'
import { joinedFrom } from './scene.ts'
import { openTurn, type Turn, type TurnScene } from './turn.ts'

/** Undefined: this request is no turn. */
export type SceneOf<Request> = (request: Request) => TurnScene | undefined

export type TurnOptions = {
  /** Whether requests come from services of one's own, whose turn is joined: then user and tenant in their baggage count. */
  readonly joinsTurns?: boolean
}

type Headers = Readonly<Record<string, unknown>>
type NodeReply = {
  readonly statusCode: number
  readonly closed: boolean
  once(event: 'close', listener: () => void): unknown
}

/** `app.post('/chat', expressTurn((request) => ({ conversation: request.body.chat, user: request.user.id })), …)` */
export function expressTurn<Request extends { readonly headers: Headers }>(
  sceneOf: SceneOf<Request>,
  options: TurnOptions = {},
) {
  return (request: Request, reply: NodeReply, next: () => void): void => {
    const turn = openedFor(() => sceneOf(request), request.headers, options)
    if (turn === undefined) {
      next()
      return
    }
    endWith(turn, reply)
    turn.run(next)
  }
}

/** `app.addHook('preHandler', fastifyTurn((request) => …))`, or as the `preHandler` of a route. */
export function fastifyTurn<Request extends { readonly headers: Headers }>(
  sceneOf: SceneOf<Request>,
  options: TurnOptions = {},
) {
  return (request: Request, reply: { readonly raw: NodeReply }, done: () => void): void => {
    const turn = openedFor(() => sceneOf(request), request.headers, options)
    if (turn === undefined) {
      done()
      return
    }
    endWith(turn, reply.raw)
    turn.run(done)
  }
}

type HonoContext = {
  readonly req: { readonly method: string; header(): Record<string, string> }
  res: Response
  readonly error?: unknown
}

/** `app.use('/chat/*', honoTurn((context) => …))` */
export function honoTurn<Context extends HonoContext>(sceneOf: SceneOf<Context>, options: TurnOptions = {}) {
  return async (context: Context, next: () => Promise<void>): Promise<void> => {
    const turn = openedFor(() => sceneOf(context), context.req.header(), options)
    if (turn === undefined) return next()
    try {
      await turn.run(next)
    } catch (error) {
      turn.end(undefined, error)
      throw error
    }
    // Headers first: who looks at the body before them does not see the type that the adapter for Node gives a reply without one.
    const { headers, status, statusText, body } = context.res
    const isFailed = status >= 500 || context.error !== undefined
    // Of an answer to HEAD nobody reads the body, and nobody gives it up.
    if (body === null || isFailed || context.req.method === 'HEAD')
      turn.end(isFailed ? 'failure' : undefined, context.error)
    else context.res = new Response(endedWith(turn, body), { status, statusText, headers })
  }
}

/** What the handler says, and has checked, wins over what the headers say. Where it throws, it is a turn of nobody: the request
 *  goes on as it would without us. */
function openedFor(
  sceneOf: () => TurnScene | undefined,
  headers: Headers,
  options: TurnOptions | null,
): Turn | undefined {
  const instrumentation = running()
  if (instrumentation === undefined) return undefined
  const scene = guarded(instrumentation.watch, sceneOf, {})
  if (scene === undefined || scene === null) return undefined
  instrumentation.exporter.start()
  if (scene instanceof Promise) {
    // What it fails with is the service's to see where it waits for it: here nobody does.
    scene.catch(() => undefined)
    instrumentation.counters.warnOnce(
      'sceneOf',
      'what tells whose turn a request is must not be asynchronous: the turns of this route have neither user nor conversation',
    )
  }
  return openTurn(scene instanceof Promise ? {} : scene, { joined: joinedFrom(headers, options?.joinsTurns === true) })
}

/** Who closes a stream before its end has read enough; only the server's own failures are failures of the turn. */
function endWith(turn: Turn, reply: NodeReply): void {
  const end = (): void => turn.end(reply.statusCode >= 500 ? 'failure' : undefined)
  // Its reader may have gone while whatever stands before us was at work, and nothing tells of it again.
  if (reply.closed) end()
  else reply.once('close', end)
}

/** No byte stream, though its pieces are bytes: that one takes their memory away from the handler, which may send a piece again or
 *  have it out of Node's pool, and takes no piece that is empty. Nothing is read ahead of whoever reads. */
function endedWith(turn: Turn, body: ReadableStream<Uint8Array>): ReadableStream<Uint8Array> {
  const reader = body.getReader()
  const source = {
    async pull(controller: ReadableStreamDefaultController<Uint8Array>) {
      try {
        const { done, value } = await reader.read()
        if (!done) {
          controller.enqueue(value)
          return
        }
        turn.end()
        controller.close()
      } catch (error) {
        turn.end(undefined, error)
        throw error
      }
    },
    cancel(reason: unknown) {
      turn.end()
      return reader.cancel(reason)
    },
  }
  return new ReadableStream(source, { highWaterMark: 0 })
}
