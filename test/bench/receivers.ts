// What a request costs before anybody looks into it: CPU per request of our HTTP and gRPC ports, beside a bare node:http
// server that reads and answers, and beside @grpc/grpc-js, whose place our own framing takes. Each server is a process of
// its own and only its CPU is counted; variants take turns, so that a slow minute of the machine hits all of them.
//
//   node test/bench/receivers.ts [requests per run] [rounds]
import { type ChildProcess, fork } from 'node:child_process'
import { createHash } from 'node:crypto'
import { createServer } from 'node:http'
import { type ClientHttp2Session, connect as connectHttp2 } from 'node:http2'
import { type AddressInfo, connect, type Socket } from 'node:net'
import { fileURLToPath } from 'node:url'
import { Server, ServerCredentials } from '@grpc/grpc-js'
import { openBodies } from '@tallylight/collector/receive/bodies.ts'
import { openIngestLimits } from '@tallylight/collector/receive/ingest-limits.ts'
import { openOtlpGrpc } from '@tallylight/collector/receive/otlp-grpc.ts'
import { openOtlpHttp } from '@tallylight/collector/receive/otlp-http.ts'
import { type ExportOutcome, type Identity, parseTenantId, type Role } from '@tallylight/collector/receive/request.ts'

const variants = ['node:http', 'otlp-http', 'otlp-grpc', 'grpc-js'] as const
type Variant = (typeof variants)[number]
type Case = {
  readonly variant: Variant
  readonly bytes: number
  readonly connections: number
  readonly inFlight: number
}
type Spent = { readonly cpuMicroseconds: number; readonly requests: number; readonly digest: string }

const cases: readonly Case[] = [
  ...(['node:http', 'otlp-http'] as const).flatMap((variant) => [
    { variant, bytes: 422, connections: 64, inFlight: 64 },
    { variant, bytes: 37_000, connections: 16, inFlight: 16 },
  ]),
  ...(['otlp-grpc', 'grpc-js'] as const).flatMap((variant) => [
    { variant, bytes: 4_000, connections: 4, inFlight: 64 },
    { variant, bytes: 200_000, connections: 4, inFlight: 16 },
  ]),
]
const exportPath = '/opentelemetry.proto.collector.trace.v1.TraceService/Export'
const programPath = fileURLToPath(import.meta.url)

export type Cost = Case & { readonly microsecondsPerRequest: number; readonly digest: string }

/** The cheapest round of each case: what the machine does beside us only ever adds. */
export async function measureReceivers(requests: number, rounds: number): Promise<readonly Cost[]> {
  const costs = cases.map(() => ({ microsecondsPerRequest: Number.POSITIVE_INFINITY, digest: '' }))
  for (let round = 0; round < rounds; round++) {
    for (const [at, one] of cases.entries()) {
      const { cpuMicroseconds, digest } = await measureOne(one, requests)
      const cost = costs[at] as { microsecondsPerRequest: number; digest: string }
      cost.microsecondsPerRequest = Math.min(cost.microsecondsPerRequest, cpuMicroseconds / requests)
      cost.digest = digest
    }
  }
  return cases.map((one, at) => ({ ...one, ...(costs[at] as { microsecondsPerRequest: number; digest: string }) }))
}

async function measureOne({ variant, bytes, connections, inFlight }: Case, requests: number): Promise<Spent> {
  const child = fork(programPath, ['serve', variant], { execArgv: ['--disable-warning=ExperimentalWarning'] })
  try {
    const port = Number(await told(child))
    const body = Buffer.alloc(bytes, 'tallylight')
    const send = variant.endsWith('http') ? sendHttp : sendGrpc
    const sending = await send(port, body, connections)
    await sending.run(Math.ceil(requests / 5), inFlight)
    const before = await ask(child)
    await sending.run(requests, inFlight)
    const after = await ask(child)
    sending.close()
    return {
      cpuMicroseconds: after.cpuMicroseconds - before.cpuMicroseconds,
      requests: after.requests - before.requests,
      digest: after.digest,
    }
  } finally {
    child.kill()
  }
}

type Sending = { readonly run: (requests: number, inFlight: number) => Promise<void>; readonly close: () => void }

/** Prebuilt bytes over sockets of our own, one request at a time on each. */
async function sendHttp(port: number, body: Buffer, connections: number): Promise<Sending> {
  const head =
    `POST /v1/traces HTTP/1.1\r\nHost: 127.0.0.1:${port}\r\nUser-Agent: bench\r\nAuthorization: Bearer tl_0\r\n` +
    `Content-Type: application/x-protobuf\r\nContent-Length: ${body.length}\r\n\r\n`
  const request = Buffer.concat([Buffer.from(head), body])
  const sockets = await Promise.all(Array.from({ length: connections }, () => opened(connect(port, '127.0.0.1'))))
  return {
    async run(requests) {
      let left = requests
      await Promise.all(
        sockets.map(
          (socket) =>
            new Promise<void>((resolve, reject) => {
              const next = () => {
                if (left-- > 0) socket.write(request)
                else {
                  socket.removeAllListeners('data')
                  resolve()
                }
              }
              socket.on('data', (answer: Buffer) => {
                if (answer.toString('latin1', 9, 12) === '200') next()
                else reject(new Error(`the server answered ${answer.toString('latin1', 0, 80)}`))
              })
              next()
            }),
        ),
      )
    },
    close() {
      for (const socket of sockets) socket.destroy()
    },
  }
}

async function sendGrpc(port: number, body: Buffer, connections: number): Promise<Sending> {
  const frame = Buffer.alloc(5 + body.length)
  frame.writeUInt32BE(body.length, 1)
  body.copy(frame, 5)
  const sessions = Array.from({ length: connections }, () =>
    connectHttp2(`http://127.0.0.1:${port}`, { settings: { initialWindowSize: 1 << 20 } }),
  )
  const headers = {
    ':method': 'POST',
    ':path': exportPath,
    'content-type': 'application/grpc',
    te: 'trailers',
    authorization: 'Bearer tl_0',
  }
  const call = (session: ClientHttp2Session) =>
    new Promise<void>((resolve, reject) => {
      const stream = session.request(headers)
      let status: unknown
      stream.on('trailers', (trailers) => {
        status = trailers['grpc-status']
      })
      stream.on('error', reject)
      stream.on('close', () => (status === '0' ? resolve() : reject(new Error(`grpc-status ${String(status)}`))))
      stream.resume()
      stream.end(frame)
    })
  return {
    async run(requests, inFlight) {
      let left = requests
      await Promise.all(
        Array.from({ length: inFlight }, async (_, lane) => {
          while (left-- > 0) await call(sessions[lane % connections] as ClientHttp2Session)
        }),
      )
    },
    close() {
      for (const session of sessions) session.destroy()
    },
  }
}

function opened(socket: Socket): Promise<Socket> {
  return new Promise((resolve, reject) => socket.once('connect', () => resolve(socket)).once('error', reject))
}

function told(child: ChildProcess): Promise<unknown> {
  return new Promise((resolve, reject) => {
    child.once('message', resolve)
    child.once('exit', (code) => reject(new Error(`the server ended with ${code}`)))
  })
}

function ask(child: ChildProcess): Promise<Spent> {
  const answer = told(child) as Promise<Spent>
  child.send('spent')
  return answer
}

// The side that is measured.

async function serve(variant: Variant): Promise<void> {
  let requests = 0
  let sum = 0
  // One byte of every body is looked at, so that no variant can skip reading it.
  const take = (body: Buffer) => {
    requests++
    sum += body.length + (body[body.length >> 1] ?? 0)
  }
  const port = await openVariant(variant, take)
  process.on('message', () => {
    const { user, system } = process.cpuUsage()
    const digest = createHash('sha256').update(`${requests}:${sum}`).digest('hex').slice(0, 16)
    process.send?.({ cpuMicroseconds: user + system, requests, digest })
  })
  process.send?.(port)
}

async function openVariant(variant: Variant, take: (body: Buffer) => void): Promise<number> {
  switch (variant) {
    case 'node:http':
      return openBare(take)
    case 'grpc-js':
      return openGrpcJs(take)
    case 'otlp-http':
      return (await openOtlpHttp(receiverOptions(take))).port
    case 'otlp-grpc':
      return (await openOtlpGrpc(receiverOptions(take))).port
    default:
      return variant satisfies never
  }
}

function openBare(take: (body: Buffer) => void): Promise<number> {
  const server = createServer((request, response) => {
    const chunks: Buffer[] = []
    request.on('data', (chunk: Buffer) => chunks.push(chunk))
    request.on('end', () => {
      take(chunks.length === 1 ? (chunks[0] as Buffer) : Buffer.concat(chunks))
      response.writeHead(200, { 'Content-Type': 'application/x-protobuf', 'Content-Length': '0' })
      response.end()
    })
  })
  return new Promise((resolve) => server.listen(0, '127.0.0.1', () => resolve((server.address() as AddressInfo).port)))
}

function openGrpcJs(take: (body: Buffer) => void): Promise<number> {
  const server = new Server({ 'grpc.max_receive_message_length': 64 << 20 })
  const asIs = (bytes: Buffer) => bytes
  const method = {
    path: exportPath,
    requestStream: false,
    responseStream: false,
    requestSerialize: asIs,
    requestDeserialize: asIs,
    responseSerialize: asIs,
    responseDeserialize: asIs,
  }
  const nothing = Buffer.alloc(0)
  server.addService(
    { export: method },
    {
      export: (call: { request: Buffer }, done: (error: null, answer: Buffer) => void) => {
        take(call.request)
        done(null, nothing)
      },
    },
  )
  return new Promise((resolve, reject) =>
    server.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (error, port) =>
      error ? reject(error) : resolve(port),
    ),
  )
}

function receiverOptions(take: (body: Buffer) => void): Parameters<typeof openOtlpHttp>[0] {
  const tenant = parseTenantId('bench')
  if (tenant === undefined) throw new Error('the tenant of the benchmark has no name')
  const identity: Identity = { tenant, roles: new Set<Role>(['ingest']), manyTenants: false, keyId: '' }
  const authentication = { kind: 'identified', identity } as const
  const accepted: ExportOutcome = { kind: 'accepted', rejected: 0, message: '' }
  const log = { info: () => {}, warn: console.warn, error: console.error }
  return {
    host: '127.0.0.1',
    port: 0,
    authenticate: () => authentication,
    accept: async ({ body }) => {
      take(body)
      return accepted
    },
    ingestLimits: openIngestLimits({
      config: { default: { bytesPerSecond: 1e12 } },
      clockMs: () => performance.now(),
      burstSeconds: 2,
      tenantsMax: 10,
    }),
    bodies: openBodies({ bytesMax: 128 << 20, bodyBytesMax: 64 << 20 }),
    log,
    count: (signal, reason) => console.error(`refused ${signal}: ${reason}`),
  }
}

if (process.argv[1] === programPath) {
  if (process.argv[2] === 'serve') await serve(process.argv[3] as Variant)
  else {
    const costs = await measureReceivers(Number(process.argv[2] ?? 30_000), Number(process.argv[3] ?? 3))
    for (const cost of costs) console.log(JSON.stringify(cost))
  }
}
