// What the ports that receive have in common: what they are opened with, how they are bound, and how they are stopped.
import { isIP, type Server } from 'node:net'
import { takenPort } from '@tallylight/storage/port-owner.ts'
import type { Authenticate, Log, RefusalCounter } from './admission.ts'
import type { Bodies } from './bodies.ts'
import type { IngestLimits } from './ingest-limits.ts'
import type { Accept } from './request.ts'
import type { TlsFiles } from './tls.ts'

export type Receiver = {
  readonly address: string
  readonly port: number
  /** Takes no more, lets what is under way be answered until the deadline, then answers it 503. Never rejects. */
  readonly stop: (deadlineMs: number) => Promise<void>
  readonly [Symbol.asyncDispose]: () => Promise<void>
}

export type ReceiverOptions = {
  readonly host: string
  readonly port: number
  readonly tls?: TlsFiles | undefined
  readonly authenticate: Authenticate
  readonly accept: Accept
  readonly ingestLimits: IngestLimits
  readonly bodies: Bodies
  readonly log: Log
  readonly count: RefusalCounter
  readonly bounds?: ReceiverBounds
}

/** The part of `limits` a port goes by. */
export type ReceiverBounds = {
  readonly requestBytesMax: number
  readonly requestHeadersMs: number
  readonly requestMs: number
  readonly connectionIdleMs: number
  readonly connectionsMax: number
  readonly refusedBodyBytesMax: number
  readonly refusedBodyMs: number
  readonly throttledAnswerMs: number
}

/** Rejects with a message that names the address; the cause says why. */
export async function listen(
  server: Pick<Server, 'listen' | 'once' | 'off'>,
  host: string,
  port: number,
): Promise<void> {
  const failure = await new Promise<NodeJS.ErrnoException | undefined>((resolve) => {
    server.once('error', resolve)
    server.listen(port, host, () => {
      server.off('error', resolve)
      resolve(undefined)
    })
  })
  if (failure?.code === 'EADDRINUSE') throw new Error(await takenPort(host, port), { cause: failure })
  if (failure !== undefined) throw new Error(`could not listen on ${host}:${port}`, { cause: failure })
}

/** Resolves late without keeping the process alive. */
export function after(milliseconds: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, milliseconds).unref())
}

/** A proxy on this machine brings requests from others, to whom the loopback rule does not apply. */
export function isForwarded(headers: { readonly [name: string]: string | string[] | undefined }): boolean {
  return (
    headers['x-forwarded-for'] !== undefined ||
    headers.forwarded !== undefined ||
    headers['x-real-ip'] !== undefined ||
    headers.via !== undefined
  )
}

/** Whether an address a server listens on is reachable from this machine only. */
export function isLoopback(address: string): boolean {
  if (isIP(address) === 4) return address.startsWith('127.')
  return address === '::1' || address.startsWith('::ffff:127.')
}

/** Once a second at most, with how many were left out: a broken disk fails every request, and its log must not fill another. */
export function openFailureLog({
  write,
  clockMs,
}: {
  readonly write: (fields: object, message: string) => void
  readonly clockMs: () => number
}): (error: unknown, message: string) => void {
  let lastMs = Number.NEGATIVE_INFINITY
  let leftOut = 0
  return (error, message) => {
    const nowMs = clockMs()
    if (nowMs - lastMs < 1000) {
      leftOut++
      return
    }
    write({ err: error, leftOut }, message)
    lastMs = nowMs
    leftOut = 0
  }
}
