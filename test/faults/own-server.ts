// What tests with a ClickHouse of the user's own need: the server, its tables in the database `books`, spans, and a count.
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type ClickHouse, openClickHouse } from '@tallylight/storage/clickhouse/client.ts'
import { type EmbeddedClickHouse, startEmbeddedClickHouse } from '@tallylight/storage/clickhouse/embedded.ts'
import type { CollectorProcess } from '../collector-process.ts'
import type { TestSpan } from '../spans.ts'

/** A server of the user's own: the embedded engine, started by the test and named by its URL. */
export type OwnServer = EmbeddedClickHouse & {
  /** The same tables, port and password, after the server was disposed of. */
  startAgain(): Promise<OwnServer>
}

export async function startServer(stack: AsyncDisposableStack): Promise<OwnServer> {
  const directory = await mkdtemp(join(tmpdir(), 'tallylight-clickhouse-'))
  stack.defer(() => rm(directory, { recursive: true, force: true }))
  async function start(as: { readonly port: number; readonly password?: string }): Promise<OwnServer> {
    const server = stack.use(await startEmbeddedClickHouse({ directory, ...as, log: () => undefined }))
    return { ...server, startAgain: () => start(server) }
  }
  return start({ port: 0 })
}

/** Reached through `port`, its own or that of a door before it. */
export function urlOf(server: EmbeddedClickHouse, port = server.port): string {
  return `http://${server.user}:${server.password}@127.0.0.1:${port}/books`
}

export function openOwner(server: EmbeddedClickHouse, stack: AsyncDisposableStack): ClickHouse {
  return stack.use(openClickHouse({ url: server.url, user: server.user, password: server.password, database: 'books' }))
}

export function spans(count: number, name: (at: number) => string): TestSpan[] {
  const startUnixNano = BigInt(Date.now()) * 1_000_000n
  return Array.from({ length: count }, (_, at) => ({
    id: (at + 1).toString(16).padStart(16, '0'),
    name: name(at),
    startUnixNano,
  }))
}

export async function send(collector: CollectorProcess, body: Buffer): Promise<number> {
  const response = await fetch(`http://127.0.0.1:${collector.ports().otlpHttp}/v1/traces`, {
    method: 'POST',
    body: new Uint8Array(body),
    headers: { 'Content-Type': 'application/x-protobuf' },
  })
  await response.arrayBuffer()
  return response.status
}

export async function countOf(owner: ClickHouse, table: string): Promise<{ rows: number; ids: number }> {
  const id = table === 'quarantine' ? 'Record' : 'SpanId'
  const [found] = await owner.query<{ rows: number; ids: number }>(
    `SELECT toUInt32(count()) AS rows, toUInt32(uniqExact(${id})) AS ids FROM books.${table}`,
  )
  return found ?? { rows: 0, ids: 0 }
}
