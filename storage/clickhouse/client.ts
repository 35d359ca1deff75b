// The one way to ClickHouse, embedded or not: `@clickhouse/client`, with the outcomes of an insert told apart. Whether an
// insert that got no answer was made is not known here; saying so is the point.
import { Readable } from 'node:stream'
import { ClickHouseError, ClickHouseLogLevel, createClient } from '@clickhouse/client'

/** What a server answered that it cannot do. */
export { ClickHouseError }

export type ClickHouseAddress = {
  readonly url: string
  readonly user?: string | undefined
  readonly password?: string | undefined
  readonly database: string
  /** How long a connection may be silent before it is given up; above the time that an insert may take on the server. */
  readonly requestTimeoutMs?: number | undefined
  /** Of what is sent. Worth its CPU only where the network is the narrow place. */
  readonly compression?: 'gzip' | 'zstd' | undefined
}

export type Settings = Readonly<Record<string, string | number>>

export type InsertOutcome =
  | { readonly kind: 'inserted'; readonly writtenRows: number | undefined }
  /** The server answered, and said no. */
  | { readonly kind: 'refused'; readonly code: number; readonly type: string; readonly message: string }
  /** Nothing was sent. */
  | { readonly kind: 'unreachable'; readonly message: string }
  /** It was sent and no whole answer came: it may have been made. */
  | { readonly kind: 'in_doubt'; readonly message: string }

export type InsertOptions = { readonly queryId?: string; readonly abort?: AbortSignal }

export type ClickHouse = {
  readonly database: string
  query<Row>(sql: string, parameters?: Readonly<Record<string, unknown>>): Promise<readonly Row[]>
  command(sql: string, parameters?: Readonly<Record<string, unknown>>): Promise<void>
  /** `table` is quoted, with its database; `body` is one block in Native format. */
  insertNative(
    table: string,
    columns: readonly string[],
    settings: Settings,
    body: Iterable<Buffer> | AsyncIterable<Buffer>,
    options?: InsertOptions,
  ): Promise<InsertOutcome>
  /** Rows as lines of JSON, for tables where a row that is written twice is one. */
  insertRows(table: string, columns: readonly string[], lines: string): Promise<InsertOutcome>
  [Symbol.asyncDispose](): Promise<void>
}

/** What every insert of a segment is sent with, kept in its header. The engine drops repeats by the block that it makes of
 *  an insert: with other settings it makes other blocks, and a retry doubles rows or loses them. All of them are known to
 *  servers of the last years; verifySchema asks the server before the first insert. */
export const insertSettings: Settings = {
  async_insert: 0,
  insert_deduplicate: 1,
  deduplicate_blocks_in_dependent_materialized_views: 1,
  // One block in, one block written: above any segment (1 M rows, 128 MiB).
  max_insert_block_size: 2_000_000,
  min_insert_block_size_rows: 2_000_000,
  min_insert_block_size_bytes: 2_000_000_000,
  max_block_size: 2_000_000,
  max_insert_threads: 1,
  max_partitions_per_insert_block: 100,
  // A Distributed table answers before its shards have the rows, unless told to wait.
  insert_distributed_sync: 1,
  // A column that the table lacks is an error, not skipped.
  input_format_skip_unknown_fields: 0,
  input_format_native_allow_types_conversion: 1,
  max_execution_time: 120,
}

/** For tables where a row that is written twice is one. A recording brings the days of weeks in one insert. A column that
 *  the table lacks is an error, not skipped. */
export const rowSettings: Settings = {
  async_insert: 0,
  max_partitions_per_insert_block: 0,
  input_format_skip_unknown_fields: 0,
  input_format_native_allow_types_conversion: 1,
}

const requestTimeoutMsUsual = 150_000
/** Below the 3 s after which older servers close an idle connection themselves: a request on one that is closing is lost. */
const connectionIdleMs = 2_500
const bodyBufferBytes = 1024 * 1024
const messageLengthMax = 1_000

export function openClickHouse(address: ClickHouseAddress): ClickHouse {
  const client = createClient({
    url: address.url,
    ...(address.user === undefined ? {} : { username: address.user }),
    ...(address.password === undefined ? {} : { password: address.password }),
    ...(address.compression === undefined ? {} : { compression: { request: { codec: address.compression } } }),
    request_timeout: address.requestTimeoutMs ?? requestTimeoutMsUsual,
    max_open_connections: 8,
    keep_alive: { enabled: true, idle_socket_ttl: connectionIdleMs },
    log: { level: ClickHouseLogLevel.OFF },
  })

  async function insert(
    table: string,
    columns: readonly string[],
    format: string,
    parameters: { readonly values: Readable; readonly clickhouse_settings: Settings },
    options: InsertOptions = {},
  ): Promise<InsertOutcome> {
    const names = columns.map((name) => `\`${name}\``).join(', ')
    try {
      const result = await client.exec({
        query: `INSERT INTO ${table} (${names}) FORMAT ${format}`,
        ...parameters,
        ...(options.queryId === undefined ? {} : { query_id: options.queryId }),
        ...(options.abort === undefined ? {} : { abort_signal: options.abort }),
      })
      return await answerOf(result.stream, result.summary?.written_rows)
    } catch (error) {
      return outcomeOf(error)
    }
  }

  return {
    database: address.database,
    query: async <Row>(sql: string, parameters: Readonly<Record<string, unknown>> = {}) => {
      const result = await client.query({ query: sql, query_params: { ...parameters }, format: 'JSONEachRow' })
      return result.json<Row>()
    },
    command: async (sql, parameters = {}) => {
      await client.command({ query: sql, query_params: { ...parameters } })
    },
    insertNative: (table, columns, settings, body, options) => {
      const values = Readable.from(body, { objectMode: false, highWaterMark: bodyBufferBytes })
      return insert(table, columns, 'Native', { values, clickhouse_settings: settings }, options)
    },
    insertRows: (table, columns, lines) =>
      insert(table, columns, 'JSONEachRow', { values: Readable.from([lines]), clickhouse_settings: rowSettings }),
    [Symbol.asyncDispose]: () => client.close(),
  }
}

/** An insert is answered with nothing. A body means that the server failed behind the status line, which it had sent already. */
async function answerOf(stream: Readable, writtenRows: string | undefined): Promise<InsertOutcome> {
  let text = ''
  for await (const chunk of stream) if (text.length < messageLengthMax) text += String(chunk)
  if (text.trim() !== '')
    return { kind: 'in_doubt', message: `the answer of the insert was not empty: ${text.slice(0, messageLengthMax)}` }
  return { kind: 'inserted', writtenRows: writtenRows === undefined ? undefined : Number(writtenRows) }
}

/** Errors of a connection that was never made. Anything else may have come after the last byte was sent. */
const unreachableCodes: ReadonlySet<string> = new Set([
  'ECONNREFUSED',
  'ENOTFOUND',
  'EAI_AGAIN',
  'EHOSTUNREACH',
  'ENETUNREACH',
])

function outcomeOf(error: unknown): InsertOutcome {
  if (error instanceof ClickHouseError) {
    return {
      kind: 'refused',
      code: Number(error.code),
      type: error.type ?? '',
      message: error.message.slice(0, messageLengthMax),
    }
  }
  const message = (error instanceof Error && error.message !== '' ? error.message : String(error)).slice(
    0,
    messageLengthMax,
  )
  const code = error instanceof Error && 'code' in error ? String(error.code) : ''
  return { kind: unreachableCodes.has(code) ? 'unreachable' : 'in_doubt', message: message === '' ? code : message }
}
