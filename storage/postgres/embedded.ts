// The embedded Postgres: the real server, started on a directory of ours and reached over loopback TCP like any other. No
// socket and no password file outside the directory. A shell between it and us watches a pipe: when the collector ends,
// however it ends, the pipe closes and Postgres is told to stop.
import { randomBytes } from 'node:crypto'
import { chown, mkdir, rm, stat, writeFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { join } from 'node:path'
import pg from 'pg'
import { isRunning, waitUntilGone } from '../predecessor.ts'
import { ensurePrivateFile, errorCode, readIfPresent } from '../private-file.ts'
import { chooseRunner, giveFiles, type Runner, runAs, spawnAs } from './account.ts'
import { findBinaries } from './binaries.ts'

export type PostgresLog = (
  level: 'info' | 'warn' | 'error',
  message: string,
  fields?: Readonly<Record<string, unknown>>,
) => void

export type EmbeddedPostgres = {
  /** As the owner, with its password: for the collector alone. */
  readonly url: string
  readonly port: number
  pid(): Promise<number | undefined>
  restarts(): number
  [Symbol.asyncDispose](): Promise<void>
}

export const databaseName = 'tallylight'
const ownerName = 'tallylight'
const readerName = 'tallylight_read'
const predecessorMsMax = 15_000
const restartDelayMs = 500

/** Runs Postgres ($@) until it ends by itself or the pipe on standard input does. */
const watcher =
  'exec 3<&0; "$@" </dev/null 3<&- & child=$!; { cat <&3 >/dev/null; kill -INT $child 2>/dev/null; } & watch=$!; exec 3<&-; wait $child; code=$?; kill $watch 2>/dev/null; exit $code'

const settings: Readonly<Record<string, string>> = {
  listen_addresses: '127.0.0.1',
  unix_socket_directories: '',
  shared_buffers: '32MB',
  max_connections: '50',
  max_wal_size: '256MB',
  wal_level: 'minimal',
  max_wal_senders: '0',
  autovacuum_naptime: '60s',
  jit: 'off',
  timezone: 'UTC',
  log_timezone: 'UTC',
  password_encryption: 'scram-sha-256',
}

export async function startEmbeddedPostgres(options: {
  readonly directory: string
  readonly port: number
  /** Where the password of the readers' role goes, a contract with Grafana. */
  readonly readerKeyPath: string
  readonly log: PostgresLog
}): Promise<EmbeddedPostgres> {
  const { directory, log } = options
  await mkdir(directory, { recursive: true, mode: 0o700 })
  const cluster = join(directory, 'cluster')
  const binaries = await findBinaries()
  await waitForPredecessor(cluster)
  const runner = await chooseRunner(directory, cluster, binaries.postgres)
  const password = await ensurePrivateFile(join(directory, 'owner.key'), randomBytes(24).toString('hex'))
  const readerPassword = await ensurePrivateFile(options.readerKeyPath, randomBytes(24).toString('hex'))
  if (!(await exists(join(cluster, 'PG_VERSION'))))
    await makeCluster(runner, cluster, directory, binaries.initdb, password)
  await giveFiles(cluster, runner.owner)
  const port = options.port === 0 ? await findFreePort() : options.port
  let child: ReturnType<typeof spawnAs> | undefined
  let isStopping = false
  let restarts = 0
  let restarting: NodeJS.Timeout | undefined

  async function start(): Promise<void> {
    const args = Object.entries({ ...settings, port: String(port) }).flatMap(([name, value]) => [
      '-c',
      `${name}=${value}`,
    ])
    const started = spawnAs(
      runner,
      '/bin/sh',
      ['-c', watcher, 'sh', binaries.postgres, '-D', cluster, ...args],
      ['pipe', 'ignore', 'pipe'],
    )
    child = started
    started.stdin?.on('error', () => started.stdin?.destroy())
    let said = ''
    await new Promise<void>((resolve, reject) => {
      started.once('error', reject)
      started.once('exit', (code) =>
        reject(new Error(`the embedded Postgres ended while it started (${code}): ${startFailure(said, port)}`)),
      )
      started.stderr?.setEncoding('utf8').on('data', (text: string) => {
        said = (said + text).slice(-4000)
        if (/ready to accept connections/.test(said)) resolve()
        for (const line of text.split('\n'))
          if (/FATAL|PANIC|ERROR/.test(line)) log('warn', 'embedded Postgres', { text: line.slice(0, 500) })
      })
    })
    started.removeAllListeners('exit')
    started.on('exit', (code, signal) => {
      child = undefined
      if (isStopping) return
      restarts++
      log('error', 'the embedded Postgres ended and is started again', { code, signal, restarts })
      restartLater(0)
    })
  }

  function restartLater(delayMs: number): void {
    restarting = setTimeout(() => {
      waitForPredecessor(cluster)
        .then(start)
        .catch((error: unknown) => {
          if (isStopping) return
          log('error', 'the embedded Postgres could not be started again', { error: String(error) })
          restartLater(restartDelayMs)
        })
    }, delayMs)
  }

  async function stop(): Promise<void> {
    isStopping = true
    clearTimeout(restarting)
    const running = child
    if (running === undefined) return
    const ended = new Promise<void>((resolve) => running.once('exit', () => resolve()))
    running.stdin?.end()
    await ended
  }

  await start()
  const url = (database: string): string => `postgres://${ownerName}:${password}@127.0.0.1:${port}/${database}`
  try {
    await prepareDatabase(url('postgres'), url(databaseName), readerPassword)
  } catch (error) {
    await stop()
    throw error
  }
  return {
    url: url(databaseName),
    port,
    pid: () => postmasterOf(cluster),
    restarts: () => restarts,
    [Symbol.asyncDispose]: stop,
  }
}

async function makeCluster(
  runner: Runner,
  cluster: string,
  directory: string,
  initdb: string,
  password: string,
): Promise<void> {
  await rm(cluster, { recursive: true, force: true })
  await mkdir(cluster, { mode: 0o700 })
  await giveFiles(cluster, runner.owner)
  const passwordPath = join(directory, 'initdb.password')
  await writeFile(passwordPath, password, { mode: 0o600 })
  try {
    if (runner.owner !== undefined) await chown(passwordPath, runner.owner.uid, runner.owner.gid)
    const args = [
      '-D',
      cluster,
      '-U',
      ownerName,
      `--pwfile=${passwordPath}`,
      '-A',
      'scram-sha-256',
      '-E',
      'UTF8',
      '--locale=C',
      '--no-instructions',
    ]
    const made = await runAs(runner, initdb, args)
    if (made.code !== 0)
      throw new Error(
        `initdb could not make ${cluster}: ${made.stderr.trim().slice(-1000) || `exit code ${made.code}`}`,
      )
  } finally {
    await rm(passwordPath, { force: true })
  }
}

async function prepareDatabase(adminUrl: string, url: string, readerPassword: string): Promise<void> {
  const admin = new pg.Client({ connectionString: adminUrl })
  await admin.connect()
  try {
    const { rowCount } = await admin.query('select 1 from pg_database where datname = $1', [databaseName])
    if (rowCount === 0) await admin.query(`create database ${databaseName}`)
    const { rowCount: roles } = await admin.query('select 1 from pg_roles where rolname = $1', [readerName])
    if (roles === 0) await admin.query(`create role ${readerName} login`)
    await admin.query(`alter role ${readerName} password ${admin.escapeLiteral(readerPassword)}`)
  } finally {
    await admin.end()
  }
  const client = new pg.Client({ connectionString: url })
  await client.connect()
  try {
    await client.query(`grant usage on schema public to ${readerName}`)
  } finally {
    await client.end()
  }
}

async function waitForPredecessor(cluster: string): Promise<void> {
  const pid = await postmasterOf(cluster)
  if (pid !== undefined) await waitUntilGone(pid, cluster, predecessorMsMax)
}

/** The process that the directory names, if it runs. */
async function postmasterOf(cluster: string): Promise<number | undefined> {
  const text = await readIfPresent(join(cluster, 'postmaster.pid'))
  const pid = Number(text?.split('\n')[0])
  return text !== undefined && (await isRunning(pid, cluster)) ? pid : undefined
}

async function exists(path: string): Promise<boolean> {
  try {
    await stat(path)
    return true
  } catch (error) {
    if (errorCode(error) === 'ENOENT') return false
    throw error
  }
}

function findFreePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer()
    server.once('error', reject)
    server.listen(0, '127.0.0.1', () => {
      const address = server.address()
      server.close(() => resolve(typeof address === 'object' && address !== null ? address.port : 0))
    })
  })
}

function startFailure(said: string, port: number): string {
  if (/Address already in use/.test(said))
    return `port ${port} is taken; TALLYLIGHT_POSTGRES_PORT names another (0 for any free one)`
  return said.trim().slice(-1000)
}
