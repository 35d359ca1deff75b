// Turns on a connection that stays open. The connection is one span, from its opening to its close; each turn is a trace of
// its own that links to it, since a trace of hours with every message in it helps nobody.
import { type Span, SpanKind, trace } from '@opentelemetry/api'
import { running } from '../instrument.ts'
import { attributesOf, inTexts, joinedFrom, type Scene } from './scene.ts'
import { openTurn, runTurn, type Turn, type TurnScene } from './turn.ts'

/** What `ws`, Socket.IO and the platform's sockets have in common with any emitter. */
export type ClosingSocket =
  | { once(event: 'close' | 'disconnect', listener: () => void): unknown }
  | { addEventListener(event: 'close', listener: () => void): unknown }

export type SocketTurns = {
  /** Runs `work` as one turn on this connection, in the scene of the connection and of the message. */
  turn<T>(scene: TurnScene, work: (turn: Turn) => T): T
  /** For a turn whose end is another event of the socket. */
  openTurn(scene: TurnScene): Turn
}

export function socketTurns(
  socket: ClosingSocket,
  scene: Scene = {},
  headers: Readonly<Record<string, unknown>> = {},
): SocketTurns {
  running()?.exporter.start()
  const joined = joinedFrom(headers, false)
  const connection = startConnection(joined, scene)
  const open = new Set<Turn>()
  let isOver = false
  const onClose = (): void => {
    isOver = true
    for (const turn of open) turn.end()
    connection.end()
  }
  if (!listen(socket, onClose)) {
    running()?.counters.warnOnce(
      'socketTurns',
      'a socket tells nothing of its close (`once` or `addEventListener` is needed; of Hono it is `raw`): its connection is told as over at once',
    )
    connection.end()
  }

  function begin(more: TurnScene): Turn {
    const turn = openTurn({ channel: 'websocket', ...scene, ...saidOf(more) }, { connection })
    open.add(turn)
    return {
      ...turn,
      end(status, error) {
        open.delete(turn)
        turn.end(status, error)
      },
    }
  }

  return {
    openTurn(more) {
      const turn = begin(more)
      if (isOver) turn.end()
      return turn
    },
    turn: (more, work) => runTurn(begin(more), work),
  }
}

/** False where nothing would ever tell. A service in JavaScript may hand over what is no emitter: that throws nothing into it. */
function listen(socket: ClosingSocket, onClose: () => void): boolean {
  const { addEventListener, once } = (socket ?? {}) as { readonly addEventListener?: unknown; readonly once?: unknown }
  if (typeof addEventListener !== 'function' && typeof once !== 'function') return false
  // It may have closed while its user was looked up, and nothing tells of it again.
  if (isClosed(socket)) onClose()
  else if ('addEventListener' in socket) socket.addEventListener('close', onClose)
  else {
    socket.once('close', onClose)
    socket.once('disconnect', onClose)
  }
  return true
}

/** What a message leaves open is as the connection has it. */
function saidOf(scene: TurnScene): TurnScene {
  return Object.fromEntries(Object.entries(scene ?? {}).filter(([, each]) => each !== undefined))
}

/** In the words of platform sockets and `ws`, and in those of Socket.IO. */
function isClosed(socket: ClosingSocket): boolean {
  const { readyState, disconnected } = socket as { readonly readyState?: unknown; readonly disconnected?: unknown }
  return readyState === 3 || disconnected === true
}

function startConnection({ parent }: ReturnType<typeof joinedFrom>, scene: Scene): Span {
  const tracer = running()?.exporter.tracer() ?? trace.getTracer('@tallylight/instrumentation')
  return tracer.startSpan(
    'websocket connection',
    { kind: SpanKind.SERVER, attributes: attributesOf(inTexts(scene)) },
    parent,
  )
}
