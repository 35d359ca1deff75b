// The two engines, embedded or the user's own, and what must be in them before records can be.
import { join } from 'node:path'
import { type ClickHouse, openClickHouse } from '@tallylight/storage/clickhouse/client.ts'
import { type EmbeddedClickHouse, startEmbeddedClickHouse } from '@tallylight/storage/clickhouse/embedded.ts'
import type { Login } from '@tallylight/storage/clickhouse/migrate.ts'
import { openPool, withConnection } from '@tallylight/storage/postgres/connection.ts'
import { type EmbeddedPostgres, startEmbeddedPostgres } from '@tallylight/storage/postgres/embedded.ts'
import { migratePostgres } from '@tallylight/storage/postgres/migrate.ts'
import { ensurePrivateFile, readIfPresent } from '@tallylight/storage/private-file.ts'
import type pg from 'pg'
import type { Config } from '../environment.ts'
import { limits } from '../limits.ts'
import { defaultTenant, parseKeyId } from '../receive/key-rules.ts'
import { type Keyring, makeKey, openKeyring, registerKey } from '../receive/keys.ts'
import { noteLife, refuseToBeginAnew } from './earlier-life.ts'
import type { Start } from './start.ts'
import { openTables, type Tables } from './tables.ts'
import { untilDone } from './until-done.ts'

export type Engines = {
  readonly clickhouse: ClickHouse
  readonly database: pg.Pool
  readonly postgresUrl: string | undefined
  readonly keyring: Keyring
  readonly tables: Tables
  readonly keysPrepared: Promise<void>
  readonly embedded: {
    readonly clickhouse: EmbeddedClickHouse | undefined
    readonly postgres: EmbeddedPostgres | undefined
  }
}

/** Waits for the schemas of embedded engines, which are there at once, and not for those of others. */
export async function openEngines(start: Start): Promise<Engines> {
  const { config, dataDirectory, log, stack, loops } = start
  await refuseForeignAdminKey(adminKeyPath(dataDirectory))
  const embedded = await startEmbedded(start)
  const clickhouse = stack.use(openClickHouse(clickhouseAddress(config, embedded.clickhouse)))
  const postgresUrl = config.postgresUrl ?? embedded.postgres?.url
  const database = openPool(
    {
      connectionString: postgresUrl,
      max: limits.postgresConnectionsMax,
      connectionTimeoutMillis: limits.postgresConnectMsMax,
    },
    (error) => log.warn({ err: error }, 'a connection to Postgres was lost'),
  )
  stack.defer(() => database.end())
  // What fails after this must not leave a loop that keeps the process alive.
  stack.defer(loops.end)

  const keyring = await openKeyring({
    database,
    cachePath: join(dataDirectory, 'keys.cache'),
    requireKeys: config.requireKeys,
    pollMs: limits.keysPollMs,
    readMsMax: limits.keysReadMsMax,
    usesFlushMs: limits.keyUsesFlushMs,
    log,
  })
  keyring.onChange(() => embedded.clickhouse?.setReaderKeys(keyring.readerKeyHashes()))
  embedded.clickhouse?.setReaderKeys(keyring.readerKeyHashes())
  const keysPrepared = prepareKeys(start, database, keyring)
  if (config.postgresUrl === undefined) await keysPrepared
  loops.signal.throwIfAborted()
  loops.add(keysPrepared.then(() => keyring.run(loops.signal)))

  const tables = openTables(start, clickhouse, loginOf(config))
  if (config.clickhouseUrl === undefined) await tables.prepared
  loops.signal.throwIfAborted()
  loops.add(tables.prepared)
  return { clickhouse, database, postgresUrl, keyring, tables, keysPrepared, embedded }
}

async function startEmbedded({ config, file, dataDirectory, log, stack, loops }: Start): Promise<Engines['embedded']> {
  const engineLog = (level: 'info' | 'warn' | 'error', message: string, fields?: object): void =>
    log[level](fields ?? {}, message)
  const startClickHouse = async (): Promise<EmbeddedClickHouse | undefined> => {
    if (config.clickhouseUrl !== undefined) return undefined
    const memoryBytesMax = file.clickhouse?.memoryBytesMax
    const directory = join(dataDirectory, 'clickhouse')
    const life = { engine: 'ClickHouse', proof: join(directory, 'store'), note: join(dataDirectory, 'clickhouse.made') }
    await refuseToBeginAnew(life)
    const engine = stack.use(
      await startEmbeddedClickHouse({
        directory,
        port: config.ports.clickhouse,
        ...(memoryBytesMax === undefined ? {} : { memoryBytesMax }),
        log: engineLog,
        signal: loops.signal,
      }),
    )
    await noteLife(life)
    return engine
  }
  const startPostgres = async (): Promise<EmbeddedPostgres | undefined> => {
    if (config.postgresUrl !== undefined) return undefined
    const directory = join(dataDirectory, 'postgres')
    const life = { engine: 'Postgres', proof: join(directory, 'cluster'), note: join(dataDirectory, 'postgres.made') }
    await refuseToBeginAnew(life)
    const engine = stack.use(
      await startEmbeddedPostgres({
        directory,
        port: config.ports.postgres,
        readerKeyPath: join(dataDirectory, 'postgres.key'),
        log: engineLog,
        signal: loops.signal,
      }),
    )
    await noteLife(life)
    return engine
  }
  // Both to their end: one that came up after the other had failed would keep the process alive for nothing.
  const [clickhouse, postgres] = await Promise.allSettled([startClickHouse(), startPostgres()])
  if (clickhouse.status === 'rejected') throw clickhouse.reason
  if (postgres.status === 'rejected') throw postgres.reason
  return { clickhouse: clickhouse.value, postgres: postgres.value }
}

function clickhouseAddress(
  config: Config,
  engine: EmbeddedClickHouse | undefined,
): Parameters<typeof openClickHouse>[0] {
  if (engine !== undefined)
    return { url: engine.url, user: engine.user, password: engine.password, database: 'tallylight' }
  const url = new URL(config.clickhouseUrl ?? '')
  const database = decodeURIComponent(url.pathname.slice(1)) || 'tallylight'
  const user = decodeURIComponent(url.username) || undefined
  const password = decodeURIComponent(url.password) || undefined
  return { url: url.origin, user, password, database }
}

/** With a ClickHouse of one's own, and a user with a password. */
function loginOf({ clickhouseUrl }: Config): Login | undefined {
  const url = clickhouseUrl === undefined ? undefined : new URL(clickhouseUrl)
  if (url === undefined || url.password === '') return undefined
  return { user: decodeURIComponent(url.username), password: decodeURIComponent(url.password) }
}

function adminKeyPath(dataDirectory: string): string {
  return join(dataDirectory, 'admin.key')
}

/** Before anything is started: no waiting makes a key of it. */
async function refuseForeignAdminKey(path: string): Promise<void> {
  const text = await readIfPresent(path)
  if (text !== undefined && parseKeyId(text.trim()) === undefined)
    throw new Error(`${path} does not hold a key (tl_…): put the admin key back, or delete the file to have one made`)
}

/** The schema of Postgres and the first keys. One that is away is waited for: meanwhile the cached keys go on. */
async function prepareKeys(start: Start, database: pg.Pool, keyring: Keyring): Promise<void> {
  await untilDone(start, { name: 'Postgres', isAwaited: start.config.postgresUrl === undefined }, async () => {
    const applied = await withConnection(database, migratePostgres)
    if (applied.length > 0) start.log.info({ migrations: applied }, 'Postgres was migrated')
    const path = adminKeyPath(start.dataDirectory)
    const adminKey = await ensurePrivateFile(path, makeKey().key)
    const registered = await registerKey(database, adminKey.trim(), {
      tenant: defaultTenant,
      roles: ['admin'],
      manyTenants: true,
      name: 'admin of the first start',
    })
    if (registered === 'over')
      start.log.warn({}, `the key in ${path} is revoked or over; without that file the next start makes another`)
    await keyring.refresh()
  })
}
