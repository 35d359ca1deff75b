// Connections to the upstreams, kept open, by undici. What is read ahead of a client that does not read is bounded here: Node
// reads a socket in pieces of 64 KiB and undici puts back what it could not hand on, which were 128 KiB for each slow client.
// So pieces are of our own size, read into one buffer and copied out of it.
import type { Socket } from 'node:net'
import { Agent } from 'undici'
import { limits } from '../limits.ts'

export function openUpstreamAgent(): Agent {
  const buffer = Buffer.allocUnsafeSlow(limits.proxyStreamBytesMax)
  const connect = {
    timeout: limits.upstreamConnectMs,
    // Not among undici's types; it hands the rest to the socket.
    highWaterMark: limits.proxyStreamBytesMax,
    onread: {
      // One for all: the bytes are copied before another socket is read.
      buffer,
      callback(this: Socket, bytes: number, from: Uint8Array): boolean {
        // Not out of Node's pool: a piece that waits would keep 64 KiB with it.
        const piece = Buffer.allocUnsafeSlow(bytes)
        piece.set(from.subarray(0, bytes))
        return this.push(piece)
      },
    },
  }
  return new Agent({
    allowH2: false,
    connect,
    headersTimeout: limits.upstreamHeadersMs,
    bodyTimeout: limits.upstreamSilentMs,
    keepAliveTimeout: limits.upstreamIdleMs,
  })
}
