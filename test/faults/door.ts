// A door in front of a real ClickHouse: what passes it is the real engine's, and what it does to an insert is what networks
// and overloaded servers do. Everything else (queries, schema) passes as it is, unless the door is shut.
import { once } from 'node:events'
import { createServer, type IncomingMessage, request, type Server, type ServerResponse } from 'node:http'
import { setTimeout } from 'node:timers/promises'
import { freePort } from '@tallylight/storage/free-port.ts'

export type Fault =
  /** Refused by the server, in its words, without a row written. */
  | { readonly kind: 'refuse'; readonly status: number; readonly code: number; readonly text: string }
  /** The rows are written and the answer is lost. */
  | { readonly kind: 'lose_answer' }
  /** The connection breaks half way through the body. */
  | { readonly kind: 'cut_body' }
  | { readonly kind: 'delay'; readonly ms: number }

export type Door = {
  readonly port: number
  /** What happens to the inserts to come: the fault, or nothing. */
  onInsert(decide: (table: string) => Fault | undefined): void
  /** Inserts that reached the door so far. */
  inserts(): number
  /** Nobody listens: connections are refused, and those that are open end. */
  shut(): Promise<void>
  open(): Promise<void>
  [Symbol.asyncDispose](): Promise<void>
}

export async function openDoor(target: { readonly port: number }): Promise<Door> {
  let decide: (table: string) => Fault | undefined = () => undefined
  let server: Server | undefined
  const port = await freePort()
  let inserts = 0

  async function open(): Promise<void> {
    const opened = createServer((incoming, outgoing) => {
      pass(incoming, outgoing).catch((error: unknown) => outgoing.destroy(error as Error))
    })
    await new Promise<void>((resolve, reject) => {
      opened.once('error', reject)
      opened.listen(port, '127.0.0.1', resolve)
    })
    server = opened
  }

  async function pass(incoming: IncomingMessage, outgoing: ServerResponse): Promise<void> {
    const url = new URL(incoming.url ?? '/', 'http://door')
    const table = /^INSERT INTO (\S+)/.exec(url.searchParams.get('query') ?? '')?.[1]
    if (table !== undefined) inserts++
    const fault = table === undefined ? undefined : decide(table)
    if (fault?.kind === 'delay') await setTimeout(fault.ms)
    if (fault?.kind === 'refuse') {
      incoming.resume()
      await once(incoming, 'end')
      outgoing.writeHead(fault.status, { 'X-ClickHouse-Exception-Code': String(fault.code) })
      outgoing.end(`Code: ${fault.code}. DB::Exception: ${fault.text}`)
      return
    }
    const forwarded = request(
      { host: '127.0.0.1', port: target.port, method: incoming.method, path: incoming.url, headers: incoming.headers },
      (answer) => {
        if (fault?.kind === 'lose_answer') {
          answer.resume().on('end', () => outgoing.destroy())
          return
        }
        outgoing.writeHead(answer.statusCode ?? 502, answer.headers)
        answer.pipe(outgoing)
      },
    )
    forwarded.on('error', () => outgoing.destroy())
    outgoing.on('close', () => forwarded.destroy())
    if (fault?.kind !== 'cut_body') {
      incoming.pipe(forwarded)
      return
    }
    incoming.once('data', (chunk: Buffer) => {
      forwarded.write(chunk.subarray(0, chunk.length >> 1), () => {
        forwarded.destroy()
        incoming.destroy()
      })
    })
  }

  async function shut(): Promise<void> {
    const shutting = server
    server = undefined
    if (shutting === undefined) return
    const closed = new Promise<void>((resolve) => shutting.close(() => resolve()))
    shutting.closeAllConnections()
    await closed
  }

  await open()
  return {
    port,
    onInsert: (next) => {
      decide = next
    },
    inserts: () => inserts,
    shut,
    open,
    [Symbol.asyncDispose]: shut,
  }
}
