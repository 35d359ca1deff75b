// A line to Postgres that can be laid to another server, and fail in the ways that networks and servers do.
import { once } from 'node:events'
import { connect, createServer, type Socket } from 'node:net'

export type Line =
  /** Bytes go through, each piece so much later. */
  | { readonly kind: 'through'; readonly delayMs: number }
  /** Nobody listens, and what was open is cut. */
  | { readonly kind: 'cut' }
  /** Nothing arrives any more and nobody says so, as when a machine loses its power. What was open stays so for ever. */
  | { readonly kind: 'silent' }
  /** The server has no connection left for whoever comes. */
  | { readonly kind: 'full' }

export type Switchboard = {
  readonly port: number
  /** From now on, for new connections; open ones follow, save that a silent one never speaks again. */
  set(line: Line, targetPort?: number): void
  [Symbol.asyncDispose](): Promise<void>
}

export async function openSwitchboard(firstTarget: number): Promise<Switchboard> {
  let line: Line = { kind: 'through', delayMs: 0 }
  let target = firstTarget
  const open = new Set<Socket>()
  const server = createServer((socket) => {
    track(socket)
    if (line.kind === 'cut') socket.destroy()
    else if (line.kind === 'full') socket.once('data', () => socket.end(tooManyClients()))
    else if (line.kind === 'through') join(socket)
  })

  function join(socket: Socket): void {
    const upstream = connect(target, '127.0.0.1')
    track(upstream)
    forward(socket, upstream)
    forward(upstream, socket)
  }

  function forward(from: Socket, to: Socket): void {
    let isLost = false
    from.on('data', (bytes: Buffer) => {
      isLost ||= line.kind === 'silent'
      if (isLost) return
      if (line.kind === 'through' && line.delayMs > 0) setTimeout(() => to.write(bytes), line.delayMs)
      else to.write(bytes)
    })
    from.on('close', () => {
      if (!isLost) to.destroy()
    })
  }

  function track(socket: Socket): void {
    open.add(socket)
    socket.on('close', () => open.delete(socket))
    // The other side hears of it by `close`.
    socket.on('error', () => socket.destroy())
  }

  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  return {
    port: typeof address === 'object' && address !== null ? address.port : 0,
    set: (next, targetPort = target) => {
      line = next
      target = targetPort
      if (next.kind === 'cut') for (const socket of open) socket.destroy()
    },
    [Symbol.asyncDispose]: async () => {
      for (const socket of open) socket.destroy()
      server.close()
      await once(server, 'close')
    },
  }
}

/** ErrorResponse, as Postgres says it before it asks for a password. */
function tooManyClients(): Buffer {
  const fields = 'SFATAL\0VFATAL\0C53300\0Msorry, too many clients already\0\0'
  const message = Buffer.alloc(5 + fields.length)
  message.write('E')
  message.writeInt32BE(4 + fields.length, 1)
  message.write(fields, 5)
  return message
}
