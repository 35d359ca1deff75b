// The embedded Postgres: the real server, a child process on a directory of ours, reached over loopback TCP like any other.
// Everything it keeps is inside the directory: no socket, no password file, no shared memory file elsewhere.
//
// It is: starting → running → waiting, when it ended by itself → starting again; stopped in the end. The wait doubles unless
// it had run for a while. The port, once known, stays, so pools that lost it find it again.
import type { ChildProcess } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as delay } from 'node:timers/promises'
import pg from 'pg'
import { exists } from '../exists.ts'
import { freePort } from '../free-port.ts'
import { takenPort } from '../port-owner.ts'
import { ensurePrivateFile, errorCode } from '../private-file.ts'
import { chooseRunner, giveFiles, spawnAs } from './account.ts'
import { findBinaries } from './binaries.ts'
import {
  databaseName,
  makeCluster,
  ownerName,
  type Passwords,
  readerName,
  resetPasswords,
  settingArguments,
} from './cluster.ts'
import { clusterName, openWatchdog, stopOrphan } from './postmaster.ts'

export type PostgresLog = (
  level: 'info' | 'warn' | 'error',
  message: string,
  fields?: Readonly<Record<string, unknown>>,
) => void

export type EmbeddedPostgres = {
  /** As the owner of the database, with its password: for the collector alone. */
  readonly url: string
  /** As the readers' role, which sees what migrations grant it. */
  readonly readUrl: string
  readonly port: number
  /** Undefined while it is not running. */
  pid(): number | undefined
  restarts(): number
  [Symbol.asyncDispose](): Promise<void>
}

type State =
  | { readonly kind: 'starting'; readonly child: ChildProcess | undefined }
  | { readonly kind: 'running'; readonly child: ChildProcess; readonly sinceMs: number }
  | { readonly kind: 'waiting'; readonly timer: NodeJS.Timeout }
  | { readonly kind: 'stopped' }

const restartMsMin = 250
const restartMsMax = 10_000
/** Having run this long, the next end is not the same fault once more. */
const settledMs = 60_000
const stopMsMax = 15_000
const freePortTries = 5
/** What it said last, for the message when it does not start. */
const saidLinesMax = 20
const saidLineLengthMax = 1_000
const passwordBytes = 24

/** Processes of a server that was killed go on until they notice, and it must not be started beside them. */
const leftoversMsMax = 20_000

class PortTaken extends Error {}
class StillUsed extends Error {}

export async function startEmbeddedPostgres(options: {
  /** Made when it is missing; may be in a private home, and its path as long as the system allows. */
  readonly directory: string
  /** 0 picks a free one. */
  readonly port: number
  /** Where the password of the readers' role is, a contract with Grafana. Made when it is missing. */
  readonly readerKeyPath: string
  readonly log: PostgresLog
  /** Breaks the start off, a recovery of minutes too. It throws the signal's reason, and nothing of it is left. */
  readonly signal?: AbortSignal
}): Promise<EmbeddedPostgres> {
  const { directory, log, signal } = options
  const cluster = join(directory, 'cluster')
  await mkdir(directory, { recursive: true, mode: 0o700 })
  const binaries = await findBinaries()
  const noteOrphan = (pid: number): void =>
    log('warn', 'a Postgres left over by an earlier collector is stopped', { pid })
  await stopOrphan(cluster, noteOrphan, signal)
  const runner = await chooseRunner(directory, cluster, binaries.postgres)
  const passwords: Passwords = {
    owner: await ensurePassword(join(directory, 'owner.key')),
    reader: await ensurePassword(options.readerKeyPath),
  }
  if (!(await exists(cluster))) await makeCluster(runner, binaries, cluster, passwords)
  await giveFiles(cluster, runner.owner)

  let port = options.port
  let restarts = 0
  let waitMs = restartMsMin
  let state: State = { kind: 'starting', child: undefined }

  async function start(): Promise<void> {
    const args = ['-D', cluster, ...settingArguments({ port: String(port), cluster_name: clusterName(process.pid) })]
    const child = spawnAs(runner, binaries.postgres, args, ['ignore', 'ignore', 'pipe'])
    // At once, and not when it is ready: recovery may take minutes, in which the collector may be killed.
    const watchdog = child.pid === undefined ? undefined : openWatchdog(child.pid)
    child.once('exit', () => watchdog?.kill('SIGKILL'))
    state = { kind: 'starting', child }
    await untilReady(child)
    if (isStopped()) return
    const sinceMs = performance.now()
    state = { kind: 'running', child, sinceMs }
    const onExit = (code: number | null, signal: NodeJS.Signals | null): void => {
      if (isStopped()) return
      restarts++
      log('error', 'the embedded Postgres ended and is started again', { code, signal, restarts })
      restartAfter(performance.now() - sinceMs > settledMs ? restartMsMin : waitMs)
    }
    if (child.exitCode === null && child.signalCode === null) child.once('exit', onExit)
    else onExit(child.exitCode, child.signalCode)
  }

  async function untilReady(child: ChildProcess): Promise<void> {
    const said: string[] = []
    await new Promise<void>((resolve, reject) => {
      child.once('error', reject)
      // Rejects in vain once it was ready.
      child.once('close', (code, signal) => reject(startFailure(said, signal ?? code, port)))
      createInterface({ input: child.stderr as NodeJS.ReadableStream }).on('line', (line) => {
        said.push(line.slice(0, saidLineLengthMax))
        if (said.length > saidLinesMax) said.shift()
        if (line.includes('ready to accept connections')) resolve()
        // A stop ends every connection, and each says so as FATAL.
        else if (!isStopped() && /^(FATAL|PANIC):/.test(line)) log('warn', 'embedded Postgres', { line })
      })
    })
  }

  function isStopped(): boolean {
    return state.kind === 'stopped'
  }

  function restartAfter(delayMs: number): void {
    waitMs = Math.min(restartMsMax, delayMs * 2)
    const timer = setTimeout(() => {
      state = { kind: 'starting', child: undefined }
      start().catch((error: unknown) => {
        if (isStopped()) return
        log('error', 'the embedded Postgres could not be started again', { error: String(error), delayMs: waitMs })
        restartAfter(waitMs)
      })
    }, delayMs)
    state = { kind: 'waiting', timer }
  }

  async function stop(): Promise<void> {
    const last = state
    state = { kind: 'stopped' }
    if (last.kind === 'waiting') clearTimeout(last.timer)
    const child = last.kind === 'running' || last.kind === 'starting' ? last.child : undefined
    if (child?.pid === undefined || child.exitCode !== null || child.signalCode !== null) return
    const ended = once(child, 'exit')
    child.kill('SIGINT')
    const escalate = setTimeout(() => child.kill('SIGQUIT'), stopMsMax)
    await ended
    clearTimeout(escalate)
  }

  async function startFirst(): Promise<void> {
    const startedMs = performance.now()
    for (let tries = 1; ; tries++) {
      if (options.port === 0) port = await freePort()
      signal?.throwIfAborted()
      try {
        await start()
        signal?.throwIfAborted()
        return
      } catch (error) {
        signal?.throwIfAborted()
        if (error instanceof StillUsed && performance.now() - startedMs < leftoversMsMax) {
          if (tries === 1) log('warn', 'processes of a Postgres that was killed are still ending', {})
          // They are nobody's children any more, so there is no event to wait for.
          await delay(restartMsMin)
          continue
        }
        if (!(error instanceof PortTaken)) throw error
        // Somebody else took the free one in the meantime.
        if (options.port === 0 && tries < freePortTries) continue
        const taken = await takenPort('127.0.0.1', port)
        throw new Error(
          `cannot start Postgres: ${taken}; TALLYLIGHT_POSTGRES_PORT names another (0 for any free one)`,
          { cause: error },
        )
      }
    }
  }

  const urlOf = (name: string, password: string): string =>
    `postgres://${name}:${password}@127.0.0.1:${port}/${databaseName}`
  let broken: Promise<void> | undefined
  const breakOff = (): void => {
    broken = stop()
  }
  signal?.addEventListener('abort', breakOff)
  try {
    await startFirst()
    const urls = (): readonly string[] => [urlOf(ownerName, passwords.owner), urlOf(readerName, passwords.reader)]
    if (!(await canLogIn(urls()))) {
      // A key file was lost or replaced. The files are the truth: who may write them may read the database anyway.
      log('warn', 'the passwords of Postgres are set again to those of the key files', {})
      await stop()
      await resetPasswords(runner, binaries.postgres, cluster, passwords)
      await startFirst()
    }
    signal?.throwIfAborted()
  } catch (error) {
    await (broken ?? stop())
    signal?.throwIfAborted()
    throw error
  } finally {
    signal?.removeEventListener('abort', breakOff)
  }
  return {
    url: urlOf(ownerName, passwords.owner),
    readUrl: urlOf(readerName, passwords.reader),
    port,
    pid: () => (state.kind === 'running' ? state.child.pid : undefined),
    restarts: () => restarts,
    [Symbol.asyncDispose]: stop,
  }
}

async function ensurePassword(path: string): Promise<string> {
  const password = (await ensurePrivateFile(path, `${randomBytes(passwordBytes).toString('hex')}\n`)).trim()
  if (!/^[0-9a-f]{16,}$/.test(password))
    throw new Error(
      `${path} does not hold a password of 16 or more hexadecimal digits; delete it to have a new one made`,
    )
  return password
}

async function canLogIn(urls: readonly string[]): Promise<boolean> {
  for (const connectionString of urls) {
    const client = new pg.Client({ connectionString })
    // Said by `connect`, too; a connection that is lost without a listener would end the process.
    client.on('error', () => undefined)
    try {
      await client.connect()
    } catch (cause) {
      if (errorCode(cause) === '28P01') return false
      throw new Error('the embedded Postgres runs and lets nobody in', { cause })
    } finally {
      await client.end()
    }
  }
  return true
}

function startFailure(said: readonly string[], how: string | number | null, port: number): Error {
  const text = said.join('\n')
  if (/could not bind.*Address already in use/.test(text)) return new PortTaken(`port ${port} is taken`)
  const message = `the embedded Postgres ended while it started (${how}): ${text.slice(-1000)}`
  return /pre-existing shared memory block .* is still in use/.test(text) ? new StillUsed(message) : new Error(message)
}
