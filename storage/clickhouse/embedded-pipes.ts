// Named pipes through which rows leave the engine. Node makes none itself, so they are made once, and used again.
import { execFile } from 'node:child_process'
import { closeSync, constants, openSync } from 'node:fs'
import { Socket } from 'node:net'
import { join } from 'node:path'
import { promisify } from 'node:util'

export type OpenPipe = {
  readonly path: string
  readonly rows: Socket
  /** Nobody writes any more: the rows end behind what is in the pipe. */
  finish(): void
  /** When the pipe can be used again. Its next user must not find bytes of this one. */
  readonly released: Promise<void>
}

export type Pipes = { open(onAbandoned: () => void): OpenPipe }

export async function makePipes(directory: string, count: number): Promise<Pipes> {
  const free = Array.from({ length: count }, (_, at) => `pipe${at}`)
  await promisify(execFile)('mkfifo', ['-m', '600', ...free], { cwd: directory })

  return {
    open: (onAbandoned) => {
      const name = free.pop()
      if (name === undefined) throw new Error(`all ${count} pipes of the embedded ClickHouse are taken`)
      const path = join(directory, name)
      const rows = readerOf(path)
      // Without a writer a pipe would end before the engine has opened it.
      const writer = openSync(path, constants.O_WRONLY | constants.O_NONBLOCK)
      const isFinished = Promise.withResolvers<void>()
      const isRead = Promise.withResolvers<void>()
      let finished = false
      let drained: Socket | undefined
      rows.once('close', () => {
        if (finished) return isRead.resolve()
        // Whoever read has gone. The engine would wait for ever to open a pipe that nobody reads, so the rest is thrown away.
        drained = readerOf(path)
        drained.once('close', isRead.resolve)
        drained.resume()
        onAbandoned()
      })
      const released = Promise.all([isFinished.promise, isRead.promise]).then(() => {
        free.push(name)
      })
      return {
        path,
        rows,
        finish: () => {
          finished = true
          closeSync(writer)
          isFinished.resolve()
        },
        released,
      }
    },
  }
}

function readerOf(path: string): Socket {
  const reader = new Socket({
    fd: openSync(path, constants.O_RDONLY | constants.O_NONBLOCK),
    readable: true,
    writable: false,
  })
  // What reading a pipe of our own could fail with says nothing to the client; that it closes does.
  reader.on('error', () => reader.destroy())
  return reader
}
