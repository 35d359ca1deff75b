// An HTTP/1.1 client that costs little, as programs that make load are: it shares the machine with what it measures, and
// `node:http` would take as much of it as the collector. Kept-open connections, one request at a time on each, answers with a
// Content-Length; whatever else comes fails the run.
import { once } from 'node:events'
import { connect, type Socket } from 'node:net'

export type Reply = { readonly status: number; readonly text: string }
export type HttpLoad = {
  /** On a connection that is free, or a new one; where there may be no more, in the order of asking. */
  post(path: string, body: string): Promise<Reply>
  close(): Promise<void>
}

const headEnd = '\r\n\r\n'

/** Connections are made when they are wanted: a server ends one that never asked. */
export function openHttpLoad(port: number, connectionsMax: number): HttpLoad {
  const waiting: ((connection: Connection) => void)[] = []
  const free: Connection[] = []
  const opened: Promise<Connection>[] = []

  function connection(): Connection | Promise<Connection> {
    const unused = free.pop()
    if (unused !== undefined) return unused
    if (opened.length === connectionsMax) return new Promise((resolve) => waiting.push(resolve))
    const made = openConnection(port)
    opened.push(made)
    return made
  }

  function giveBack(connection: Connection): void {
    const next = waiting.shift()
    if (next === undefined) free.push(connection)
    else next(connection)
  }

  return {
    post: async (path, body) => {
      const mine = await connection()
      try {
        return await mine.post(path, body)
      } finally {
        giveBack(mine)
      }
    },
    close: async () => {
      for (const { socket } of await Promise.all(opened)) socket.destroy()
    },
  }
}

type Connection = { readonly socket: Socket; post(path: string, body: string): Promise<Reply> }

async function openConnection(port: number): Promise<Connection> {
  const socket = connect({ host: '127.0.0.1', port, noDelay: true })
  await once(socket, 'connect')
  socket.setEncoding('utf8')
  let received = ''
  let asked: { readonly resolve: (reply: Reply) => void; readonly reject: (error: Error) => void } | undefined
  socket.on('data', (text: string) => {
    received += text
    const reply = parseReply(received)
    if (reply === undefined) return
    received = ''
    asked?.resolve(reply)
  })
  const fail = (error: Error): void => asked?.reject(error)
  socket.on('error', fail)
  socket.on('close', () => fail(new Error('the connection was closed')))
  return {
    socket,
    post: (path, body) =>
      new Promise((resolve, reject) => {
        if (socket.destroyed) return reject(new Error('the connection was closed'))
        asked = { resolve, reject }
        const length = Buffer.byteLength(body)
        socket.write(`POST ${path} HTTP/1.1\r\nHost: 127.0.0.1:${port}\r\nContent-Length: ${length}${headEnd}${body}`)
      }),
  }
}

/** Undefined while some of it is still to come. All of it is ASCII here, so characters are bytes. */
function parseReply(text: string): Reply | undefined {
  const head = text.indexOf(headEnd)
  if (head < 0) return undefined
  const length = /\r\ncontent-length: (\d+)/i.exec(text)?.[1]
  if (length === undefined) throw new Error(`an answer without a Content-Length: ${text.slice(0, 200)}`)
  const from = head + headEnd.length
  if (text.length < from + Number(length)) return undefined
  return { status: Number(text.slice(9, 12)), text: text.slice(from) }
}
