// The process that holds the embedded ClickHouse: chdb behind its HTTP endpoint. It is a process of its own because the engine
// has threads, memory and crashes of its own; it ends when its parent does, however that ends.
import type { Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { setPriority } from 'node:os'
import { takenPort } from '../port-owner.ts'
import { openEngine } from './embedded-engine.ts'
import { embeddedLimits as limits } from './embedded-limits.ts'
import { isLoopbackName, openAccess } from './http-access.ts'
import { createEndpoint } from './http-endpoint.ts'

/** Secrets come in these messages, and so are in no argument and no environment. */
export type ChildMessage =
  | {
      readonly kind: 'start'
      readonly directory: string
      readonly host: string
      readonly port: number
      readonly memoryBytesMax: number
      readonly ownerPassword: string
      readonly readerKeyHashes: readonly string[]
    }
  | { readonly kind: 'readers'; readonly keyHashes: readonly string[] }
  | { readonly kind: 'stop' }
export type ChildReport =
  | { readonly kind: 'ready'; readonly port: number; readonly version: string }
  | { readonly kind: 'failed'; readonly message: string }

type Running = { readonly server: Server; setReaderKeys(keyHashes: readonly string[]): void }

let running: Running | undefined

process.on('message', (message: ChildMessage) => {
  switch (message.kind) {
    case 'start':
      start(message).catch((error: unknown) => {
        report({ kind: 'failed', message: error instanceof Error ? error.message : String(error) }, () => end())
      })
      return
    case 'readers':
      running?.setReaderKeys(message.keyHashes)
      return
    case 'stop':
      stop()
      return
    default:
      message satisfies never
  }
})
// The channel closes when the parent is gone, also when it was killed.
process.once('disconnect', end)

async function start(message: Extract<ChildMessage, { kind: 'start' }>): Promise<void> {
  // Before the engine makes its threads, which inherit it: merges must not hold up the answers of the collector beside it.
  setPriority(limits.niceness)
  const engine = await openEngine(message.directory, message.memoryBytesMax)
  letCrashesEnd()
  const access = openAccess(message.ownerPassword)
  access.setReaderKeys(message.readerKeyHashes)
  const server = createEndpoint({
    engine,
    access,
    memoryBytesMax: message.memoryBytesMax,
    isLoopback: isLoopbackName(message.host),
  })
  await listen(server, message.host, message.port)
  running = { server, setReaderKeys: access.setReaderKeys }
  report({ kind: 'ready', port: (server.address() as AddressInfo).port, version: engine.version })
}

/** The engine takes the signals of a crash, tells where it was and then waits, up to five minutes, in which nobody is answered
 *  and nobody sees that it is dead. By default they end a process at once, and then it is started again: a signal that is no
 *  longer listened to has its default back. */
function letCrashesEnd(): void {
  const ignore = (): void => undefined
  for (const signal of ['SIGABRT', 'SIGBUS', 'SIGFPE', 'SIGILL', 'SIGSEGV', 'SIGSYS', 'SIGTRAP'] as const)
    process.on(signal, ignore).off(signal, ignore)
}

async function listen(server: Server, host: string, port: number): Promise<void> {
  try {
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject)
      server.listen(port, host, resolve)
    })
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EADDRINUSE') throw error
    throw new Error(`${await takenPort(host, port)}; TALLYLIGHT_CLICKHOUSE_PORT names another (0 for any free one)`)
  }
}

/** Statements under way are waited for, for a while; then it ends. */
function stop(): void {
  if (running === undefined) end()
  setTimeout(end, limits.stopMs)
  running?.server.close(() => end())
  running?.server.closeIdleConnections()
}

/** A kill, as the engine's own way out hangs when statements are under way. Nothing is lost by it: what was answered is in
 *  the files, and what was not is whole or absent. */
function end(): void {
  process.kill(process.pid, 'SIGKILL')
}

function report(message: ChildReport, sent: () => void = () => undefined): void {
  process.send?.(message, sent)
}
