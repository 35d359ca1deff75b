// Turns on a connection that stays open. The connection is one span, from its opening to its close; each turn is a trace of
// its own that links to it, since a trace of hours with every message in it helps nobody.
import { type Span, SpanKind, trace } from '@opentelemetry/api'
import { running } from '../instrument.ts'
import { attributesOf, joinedFrom, type Scene } from './scene.ts'
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
  const onClose = (): void => {
    for (const turn of open) turn.end()
    connection.end()
  }
  if ('addEventListener' in socket) socket.addEventListener('close', onClose)
  else {
    socket.once('close', onClose)
    socket.once('disconnect', onClose)
  }

  function begin(more: TurnScene): Turn {
    const turn = openTurn({ channel: 'websocket', ...scene, ...more }, { connection })
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
    openTurn: begin,
    turn: (more, work) => runTurn(begin(more), work),
  }
}

function startConnection({ parent }: ReturnType<typeof joinedFrom>, scene: Scene): Span {
  const tracer = running()?.exporter.tracer() ?? trace.getTracer('@tallylight/instrumentation')
  return tracer.startSpan('websocket connection', { kind: SpanKind.SERVER, attributes: attributesOf(scene) }, parent)
}
