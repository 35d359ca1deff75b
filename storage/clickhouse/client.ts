// The one way to ClickHouse, embedded or not: `@clickhouse/client`, with the outcomes of an insert told apart. Whether an
// insert that got no answer was made is not known here; saying so is the point.
import { Readable } from 'node:stream'
import { ClickHouseError, ClickHouseLogLevel, createClient } from '@clickhouse/client'

export type ClickHouseAddress = {
  readonly url: string
  readonly user?: string | undefined
  readonly password?: string | undefined
  readonly database: string
}

export type Settings = Readonly<Record<string, string | number>>

export type InsertOutcome =
  | { readonly kind: 'inserted' }
  /** The server answered, and said no. */
  | { readonly kind: 'refused'; readonly code: number; readonly type: string; readonly message: string }
  /** Nothing was sent. */
  | { readonly kind: 'unreachable'; readonly message: string }
  /** It was sent and no whole answer came: it may have been made. */
  | { readonly kind: 'in_doubt'; readonly message: string }

export type ClickHouse = {
  readonly database: string
  query<Row>(sql: string, parameters?: Readonly<Record<string, unknown>>): Promise<readonly Row[]>
  command(sql: string, parameters?: Readonly<Record<string, unknown>>): Promise<void>
  /** `body` is one block in Native format. */
  insertNative(
    table: string,
    columns: readonly string[],
    settings: Settings,
    body: Iterable<Buffer>,
  ): Promise<InsertOutcome>
  [Symbol.asyncDispose](): Promise<void>
}

/** What every insert of a segment is sent with, kept in its header. The engine drops repeats by the block that it makes of
 *  an insert: with other settings it makes other blocks, and a retry doubles rows or loses them. */
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
  // A column that the table lacks is an error, not skipped.
  input_format_skip_unknown_fields: 0,
  input_format_native_allow_types_conversion: 1,
  max_execution_time: 120,
}

const requestTimeoutMs = 150_000

export function openClickHouse(address: ClickHouseAddress): ClickHouse {
  const client = createClient({
    url: address.url,
    ...(address.user === undefined ? {} : { username: address.user }),
    ...(address.password === undefined ? {} : { password: address.password }),
    request_timeout: requestTimeoutMs,
    max_open_connections: 8,
    keep_alive: { enabled: true, idle_socket_ttl: 2500 },
    log: { level: ClickHouseLogLevel.OFF },
  })

  return {
    database: address.database,
    query: async <Row>(sql: string, parameters: Readonly<Record<string, unknown>> = {}) => {
      const result = await client.query({ query: sql, query_params: { ...parameters }, format: 'JSONEachRow' })
      return result.json<Row>()
    },
    command: async (sql, parameters = {}) => {
      await client.command({ query: sql, query_params: { ...parameters } })
    },
    insertNative: async (table, columns, settings, body) => {
      const names = columns.map((name) => `\`${name}\``).join(', ')
      try {
        const result = await client.exec({
          query: `INSERT INTO ${table} (${names}) FORMAT Native`,
          values: Readable.from(body, { objectMode: false, highWaterMark: 1024 * 1024 }),
          clickhouse_settings: settings,
        })
        for await (const _ of result.stream);
        return { kind: 'inserted' }
      } catch (error) {
        return outcomeOf(error)
      }
    },
    [Symbol.asyncDispose]: () => client.close(),
  }
}

function outcomeOf(error: unknown): InsertOutcome {
  if (error instanceof ClickHouseError) {
    return { kind: 'refused', code: Number(error.code), type: error.type ?? '', message: error.message.slice(0, 1000) }
  }
  const { code, message } = error as NodeJS.ErrnoException
  if (code === 'ECONNREFUSED' || code === 'ENOTFOUND' || code === 'EAI_AGAIN' || code === 'EHOSTUNREACH') {
    return { kind: 'unreachable', message }
  }
  return { kind: 'in_doubt', message: message ?? String(error) }
}
