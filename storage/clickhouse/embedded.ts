// The embedded ClickHouse: a child process that is started with the collector, started again when it dies, and reached
// over HTTP by `@clickhouse/client` exactly as a server would be. Nothing of the engine is loaded into this process.
import { type ChildProcess, fork } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { waitUntilGone } from '../predecessor.ts'
import { readIfPresent } from '../private-file.ts'
import type { ChildReaders, ChildReport, ChildStart } from './embedded-child.ts'

export type EngineLog = (
  level: 'info' | 'warn' | 'error',
  message: string,
  fields?: Readonly<Record<string, unknown>>,
) => void

export type EmbeddedClickHouse = {
  readonly url: string
  readonly port: number
  readonly user: string
  /** The collector's own, new with each start of the collector; it is in no file. */
  readonly password: string
  readonly version: string
  pid(): number | undefined
  restarts(): number
  /** SHA-256 (hex) of the keys that may read as user `tallylight`. */
  setReaderKeys(keyHashes: readonly string[]): void
  [Symbol.asyncDispose](): Promise<void>
}

/** A child that dies again and again is started at most this often, so that a broken directory does not burn a core. */
const restartDelayMs = 500
const predecessorMsMax = 15_000
const childUser = 'tallylight_collector'

export async function startEmbeddedClickHouse(options: {
  readonly directory: string
  readonly port: number
  readonly host?: string
  readonly memoryBytesMax?: number
  readonly log: EngineLog
}): Promise<EmbeddedClickHouse> {
  const { directory, log } = options
  const host = options.host ?? '127.0.0.1'
  const password = randomBytes(24).toString('hex')
  await mkdir(directory, { recursive: true, mode: 0o700 })
  let readers: ChildReaders = { kind: 'readers', keyHashes: [] }
  let port = options.port
  let child: ChildProcess | undefined
  let isStopping = false
  let restarts = 0
  let restarting: NodeJS.Timeout | undefined

  async function start(): Promise<Extract<ChildReport, { kind: 'ready' }>> {
    // The engine's own note of who has the directory.
    const holder = Number(/PID: (\d+)/.exec((await readIfPresent(join(directory, 'store', 'status'))) ?? '')?.[1] ?? 0)
    if (holder > 0) await waitUntilGone(holder, 'embedded-child', predecessorMsMax)
    const started = fork(fileURLToPath(new URL('./embedded-child.ts', import.meta.url)), {
      // Its own group, so that Ctrl-C reaches the collector first and the engine is still there for the last inserts.
      detached: true,
      stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
      env: { PATH: '/usr/bin:/bin', TZ: 'UTC' },
      execArgv: ['--disable-warning=ExperimentalWarning'],
    })
    child = started
    started.stderr
      ?.setEncoding('utf8')
      .on('data', (text: string) => log('warn', 'embedded ClickHouse', { text: text.slice(0, 2000) }))
    const ready = await new Promise<Extract<ChildReport, { kind: 'ready' }>>((resolve, reject) => {
      started.once('error', reject)
      started.once('exit', (code, signal) =>
        reject(new Error(`the embedded ClickHouse ended while it started (${signal ?? code})`)),
      )
      started.once('message', (report: ChildReport) => {
        if (report.kind === 'ready') resolve(report)
        else reject(new Error(startFailure(report, host, port)))
      })
      started.send({
        kind: 'start',
        directory,
        host,
        port,
        memoryBytesMax: options.memoryBytesMax ?? 1024 * 1024 * 1024,
        ownerPassword: password,
      } satisfies ChildStart)
    })
    started.removeAllListeners('exit')
    started.on('exit', onExit)
    port = ready.port
    started.send(readers)
    return ready
  }

  function onExit(code: number | null, signal: NodeJS.Signals | null): void {
    child = undefined
    if (isStopping) return
    restarts++
    log('error', 'the embedded ClickHouse ended and is started again', { code, signal, restarts })
    restartLater(0)
  }

  function restartLater(delayMs: number): void {
    restarting = setTimeout(() => {
      start().catch((error: unknown) => {
        if (isStopping) return
        log('error', 'the embedded ClickHouse could not be started again', { error: String(error) })
        restartLater(restartDelayMs)
      })
    }, delayMs)
  }

  const { version } = await start()
  return {
    url: `http://${host}:${port}`,
    port,
    user: childUser,
    password,
    version,
    pid: () => child?.pid,
    restarts: () => restarts,
    setReaderKeys: (keyHashes) => {
      readers = { kind: 'readers', keyHashes }
      child?.send(readers)
    },
    [Symbol.asyncDispose]: async () => {
      isStopping = true
      clearTimeout(restarting)
      const running = child
      if (running === undefined) return
      const ended = new Promise<void>((resolve) => running.once('exit', () => resolve()))
      running.disconnect()
      await ended
    },
  }
}

function startFailure(report: Extract<ChildReport, { kind: 'failed' }>, host: string, port: number): string {
  if (report.code === 'EADDRINUSE')
    return `port ${port} on ${host} is taken; TALLYLIGHT_CLICKHOUSE_PORT names another (0 for any free one)`
  return `the embedded ClickHouse could not start: ${report.message}`
}
