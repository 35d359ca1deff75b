// The standard health check of gRPC (grpc.health.v1.Health/Check), which load balancers and Kubernetes ask on the port they
// send to. It needs no key and says nothing that an open port does not.
import type { OutgoingHttpHeaders, ServerHttp2Stream } from 'node:http2'
import { grpcStatus } from './answer.ts'
import { encodeFrame, grpcContentType } from './grpc-message.ts'

export const healthCheckPath = '/grpc.health.v1.Health/Check'

const requestBytesMax = 1024
// HealthCheckResponse { status = 1 }: SERVING is 1, NOT_SERVING 2.
const serving = encodeFrame(Buffer.from([0x08, 1]))
const notServing = encodeFrame(Buffer.from([0x08, 2]))

/** Knows the server as a whole (no service named) and our three services, which are served or not together. */
export function answerHealth(stream: ServerHttp2Stream, isServing: () => boolean): void {
  const chunks: Buffer[] = []
  let length = 0
  const fail = (code: number) => {
    stream.respond(trailersOf(code), { endStream: true })
    stream.close()
  }
  // A cancelled check needs no answer.
  stream.on('error', () => stream.close())
  stream.on('data', (chunk: Buffer) => {
    length += chunk.length
    if (length <= requestBytesMax) chunks.push(chunk)
    else if (!stream.headersSent) fail(grpcStatus.resourceExhausted)
  })
  stream.on('end', () => {
    if (stream.headersSent || stream.destroyed) return
    // HealthCheckRequest { service = 1 }: behind the frame head a tag and a length of one byte.
    const service = Buffer.concat(chunks).subarray(7).toString()
    if (service !== '' && !/^opentelemetry\.proto\.collector\.(trace|metrics|logs)\.v1\.\w+$/.test(service)) {
      fail(grpcStatus.notFound)
      return
    }
    stream.respond({ ':status': 200, 'content-type': grpcContentType }, { waitForTrailers: true })
    stream.on('wantTrailers', () => stream.sendTrailers({ 'grpc-status': String(grpcStatus.ok) }))
    stream.end(isServing() ? serving : notServing)
  })
}

function trailersOf(code: number): OutgoingHttpHeaders {
  return { ':status': 200, 'content-type': grpcContentType, 'grpc-status': String(code) }
}
