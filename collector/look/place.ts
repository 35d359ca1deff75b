// Where a collector is and how it is asked: by its data directory on this machine, or by its address and a key. For the
// commands that look at it.
import { join, resolve } from 'node:path'
import { type ClickHouse, openClickHouse } from '@tallylight/storage/clickhouse/client.ts'
import { readIfPresent } from '@tallylight/storage/private-file.ts'
import { type Config, readConfig } from '../environment.ts'
import { findRun, type Run } from './run-file.ts'

export type Environment = Readonly<Record<string, string | undefined>>

export type Place = {
  readonly config: Config
  readonly directory: string
  /** Of its API. */
  readonly url: string
  /** Undefined while no collector runs on the directory. */
  readonly run: Run | undefined
  /** Why there is none. */
  readonly whyNoRun: string
  /** It is asked for by its address, and need not be on this machine. */
  readonly isNamed: boolean
  readonly adminKey: string | undefined
  /** The file that the admin key is from; undefined when it was named. */
  readonly adminKeyPath: string | undefined
}

/** Reads the environment as the collector does. Settings that it would refuse are `reasons`. */
export async function findPlace(environment: Environment): Promise<Place | { readonly reasons: readonly string[] }> {
  const read = readConfig(environment)
  if (read.kind === 'refused') return { reasons: read.reasons }
  const { config } = read
  const directory = resolve(config.dataDirectory)
  const found = await findRun(directory)
  const run = found.kind === 'running' ? found.run : undefined
  const { TALLYLIGHT_URL: named = '', TALLYLIGHT_KEY: namedKey } = environment
  const keyPath = join(directory, 'admin.key')
  const here = `http${config.tls === undefined ? '' : 's'}://127.0.0.1:${run?.ports.api ?? config.ports.api}`
  return {
    config,
    directory,
    url: named.replace(/\/$/, '') || here,
    run,
    whyNoRun: found.kind === 'none' ? found.why : '',
    isNamed: named !== '',
    adminKey: namedKey ?? (await readIfPresent(keyPath))?.trim(),
    adminKeyPath: namedKey === undefined ? keyPath : undefined,
  }
}

/** The tables, as the embedded engine's reader or with the login of the URL; undefined when there is no way to them. */
export function openTables({ config, run, adminKey }: Place, requestTimeoutMs?: number): ClickHouse | undefined {
  if (config.clickhouseUrl !== undefined) {
    const url = new URL(config.clickhouseUrl)
    return openClickHouse({
      url: url.origin,
      user: decodeURIComponent(url.username) || undefined,
      password: decodeURIComponent(url.password) || undefined,
      database: decodeURIComponent(url.pathname.slice(1)) || 'tallylight',
      requestTimeoutMs,
    })
  }
  const port = run?.ports.clickhouse
  if (typeof port !== 'number' || adminKey === undefined) return undefined
  return openClickHouse({
    url: `http://127.0.0.1:${port}`,
    user: 'tallylight',
    password: adminKey,
    database: 'tallylight',
    requestTimeoutMs,
  })
}

/** How Postgres is reached by a reader; undefined when there is no way to it. */
export async function ledgerAddress({ config, run, directory }: Place): Promise<string | undefined> {
  if (config.postgresUrl !== undefined) return config.postgresUrl
  const password = await readIfPresent(join(directory, 'postgres.key'))
  const port = run?.ports.postgres
  if (typeof port !== 'number' || password === undefined) return undefined
  return `postgresql://tallylight_read:${encodeURIComponent(password.trim())}@127.0.0.1:${port}/tallylight`
}
