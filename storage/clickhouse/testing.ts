// What the database tests of this folder share: an engine of their own, a database each, and Native blocks that the engine
// itself has written, so that no encoder of ours stands between a test and the answer.
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type ClickHouse, type InsertOutcome, insertSettings, openClickHouse, type Settings } from './client.ts'
import { startEmbeddedClickHouse } from './embedded.ts'
import type { TargetTable } from './schema.ts'
import type { ColumnDefinition } from './tables.ts'

export type TestEngine = {
  /** A database of this name; it is made only when `isMade`. */
  open(database: string, isMade?: boolean): Promise<ClickHouse>
  native(select: string): Promise<Buffer>
  [Symbol.asyncDispose](): Promise<void>
}

export async function startTestEngine(timeZone = 'UTC'): Promise<TestEngine> {
  const directory = await mkdtemp(join(tmpdir(), 'tallylight-clickhouse-'))
  const engine = await startEmbeddedClickHouse({ directory, port: 0, timeZone, log: () => undefined })
  const clients: ClickHouse[] = []
  return {
    open: async (database, isMade = true) => {
      const client = openClickHouse({ url: engine.url, user: engine.user, password: engine.password, database })
      clients.push(client)
      if (isMade) await client.command(`CREATE DATABASE ${database}`)
      return client
    },
    native: async (select) => {
      const response = await fetch(`${engine.url}/?max_block_size=2000000&max_threads=1`, {
        method: 'POST',
        body: `${select} FORMAT Native`,
        headers: { 'X-ClickHouse-User': engine.user, 'X-ClickHouse-Key': engine.password },
      })
      const body = Buffer.from(await response.arrayBuffer())
      if (!response.ok) throw new Error(body.toString())
      return body
    },
    [Symbol.asyncDispose]: async () => {
      for (const client of clients) await client[Symbol.asyncDispose]()
      await engine[Symbol.asyncDispose]()
      await rm(directory, { recursive: true })
    },
  }
}

/** One value per canonical type, as SQL. Times have all nine digits; maps have a dotted key. */
const samples: Readonly<Record<string, string>> = {
  String: "'text'",
  'LowCardinality(String)': "'word'",
  'Map(LowCardinality(String), String)': "map('a.b', '1', 'c', '2')",
  'DateTime64(9)': "'2026-11-20 12:00:00.123456789'",
  DateTime: "'2026-11-20 12:00:00'",
  Bool: 'true',
  Float64: '1.5',
  UInt8: '200',
  UInt16: '3650',
  UInt32: '4000000000',
  UInt64: '9000000000000000000',
  Int32: '-7',
  'Nullable(Int64)': '-7',
  'Nullable(UInt64)': '9000000000000000000',
}

export function sampleOf(type: string): string {
  const element = /^Array\((.*)\)$/.exec(type)?.[1]
  const sample = element === undefined ? samples[type] : `[${sampleOf(element)}]`
  if (sample === undefined) throw new Error(`no sample of ${type}`)
  return sample
}

export function selectSamples(columns: readonly ColumnDefinition[], from = 'numbers(1)'): string {
  return `SELECT ${columns.map(([name, type]) => `CAST(${sampleOf(type)} AS ${type}) AS \`${name}\``).join(', ')} FROM ${from}`
}

export async function insertSamples(
  engine: TestEngine,
  client: ClickHouse,
  target: TargetTable,
  settings: Settings = {},
): Promise<InsertOutcome> {
  const body = await engine.native(selectSamples(target.columns))
  return client.insertNative(
    target.name,
    target.columns.map(([name]) => name),
    { ...insertSettings, ...settings },
    [body],
  )
}
