// The embedded ClickHouse: a child process that is started with the collector, started again when it dies, and reached over
// HTTP by `@clickhouse/client` exactly as a server would be. Nothing of the engine is loaded into this process.
//
// The child is: starting → running → starting again when it ends, at once if it had run for a while, else after a wait that
// doubles; stopped in the end. The port, once known, stays.
import { type ChildProcess, fork } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { writeFileSync } from 'node:fs'
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { waitUntilGone } from '../predecessor.ts'
import { readIfPresent } from '../private-file.ts'
import type { ChildMessage, ChildReport } from './embedded-child.ts'
import { embeddedLimits as limits } from './embedded-limits.ts'
import { ownerUser } from './http-access.ts'

export type EngineLog = (
  level: 'info' | 'warn' | 'error',
  message: string,
  fields?: Readonly<Record<string, unknown>>,
) => void

export type EngineExit = {
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
  readonly restarts: number
}

export type EmbeddedClickHouse = {
  readonly url: string
  readonly port: number
  readonly user: string
  /** The collector's own, new with each start of the collector unless it was given; it is in no file, argument or environment. */
  readonly password: string
  readonly version: string
  /** Undefined while the engine is not running. */
  pid(): number | undefined
  restarts(): number
  /** Called each time the engine ended without being told to. */
  onExit(listener: (exit: EngineExit) => void): void
  /** SHA-256 (hex) of the keys that may read as user `tallylight`. */
  setReaderKeys(keyHashes: readonly string[]): void
  [Symbol.asyncDispose](): Promise<void>
}

type State =
  | { readonly kind: 'starting'; readonly child: ChildProcess | undefined }
  | { readonly kind: 'running'; readonly child: ChildProcess; readonly sinceMs: number }
  | { readonly kind: 'waiting'; readonly timer: NodeJS.Timeout }
  | { readonly kind: 'stopped' }

type Ready = Extract<ChildReport, { kind: 'ready' }>

const childPath = fileURLToPath(new URL('./embedded-child.ts', import.meta.url))

export async function startEmbeddedClickHouse(options: {
  readonly directory: string
  readonly port: number
  readonly host?: string
  readonly memoryBytesMax?: number
  /** Random by default, and the collector leaves it at that. Given the same again, who knew the engine before still can use it. */
  readonly password?: string
  /** UTC, save in tests, where the engine stands for a server of somebody's own. */
  readonly timeZone?: string
  readonly log: EngineLog
  /** Breaks the start off. It throws the signal's reason, and nothing of it is left. */
  readonly signal?: AbortSignal
}): Promise<EmbeddedClickHouse> {
  const { directory, log, signal } = options
  const host = options.host ?? '127.0.0.1'
  const memoryBytesMax = options.memoryBytesMax ?? limits.memoryBytesMax
  if (memoryBytesMax < limits.memoryBytesMin) {
    throw new Error(
      `the embedded ClickHouse needs ${limits.memoryBytesMin} bytes of memory to take in a full segment; it was given ${memoryBytesMax}`,
    )
  }
  const password = options.password ?? randomBytes(24).toString('hex')
  await mkdir(directory, { recursive: true, mode: 0o700 })
  const listeners: ((exit: EngineExit) => void)[] = []
  let readerKeyHashes: readonly string[] = []
  let port = options.port
  let restarts = 0
  let waitMs: number = limits.restartMsMin
  let state: State = { kind: 'starting', child: undefined }

  async function start(): Promise<Ready> {
    await waitForPredecessor(directory, signal)
    const child = forkChild(log, options.timeZone)
    state = { kind: 'starting', child }
    noteHolder(directory, child)
    const ready = await readyOf(child, {
      kind: 'start',
      directory,
      host,
      port,
      memoryBytesMax,
      ownerPassword: password,
      readerKeyHashes,
    })
    port = ready.port
    state = { kind: 'running', child, sinceMs: performance.now() }
    // What was set since the start message.
    send(child, { kind: 'readers', keyHashes: readerKeyHashes })
    child.once('exit', onExit)
    return ready
  }

  function onExit(code: number | null, signal: NodeJS.Signals | null): void {
    if (state.kind !== 'running') return
    restarts++
    const exit = { code, signal, restarts }
    log('error', 'the embedded ClickHouse ended and is started again', exit)
    const wasSteady = performance.now() - state.sinceMs >= limits.steadyMs
    waitMs = wasSteady ? limits.restartMsMin : Math.min(waitMs * 2, limits.restartMsMax)
    restartAfter(wasSteady || restarts === 1 ? 0 : waitMs)
    for (const listener of listeners) listener(exit)
  }

  function restartAfter(delayMs: number): void {
    const timer = setTimeout(() => {
      state = { kind: 'starting', child: undefined }
      start().then(
        () => log('info', 'the embedded ClickHouse runs again', { port, restarts }),
        (error: unknown) => {
          if (state.kind === 'stopped') return
          log('error', 'the embedded ClickHouse could not be started again', { error: String(error) })
          waitMs = Math.min(waitMs * 2, limits.restartMsMax)
          restartAfter(waitMs)
        },
      )
    }, delayMs)
    state = { kind: 'waiting', timer }
  }

  // While the engine opens the directory it hears of nothing. Nothing is lost: see `end` of the child.
  const breakOff = (): void => {
    if (state.kind === 'starting') state.child?.kill('SIGKILL')
  }
  let version: string
  signal?.addEventListener('abort', breakOff)
  try {
    version = (await start()).version
  } catch (error) {
    signal?.throwIfAborted()
    throw error
  } finally {
    signal?.removeEventListener('abort', breakOff)
  }
  return {
    url: `http://${host.includes(':') ? `[${host}]` : host}:${port}`,
    port,
    user: ownerUser,
    password,
    version,
    pid: () => (state.kind === 'running' ? state.child.pid : undefined),
    restarts: () => restarts,
    onExit: (listener) => void listeners.push(listener),
    setReaderKeys: (keyHashes) => {
      readerKeyHashes = [...keyHashes]
      if (state.kind === 'running') send(state.child, { kind: 'readers', keyHashes: readerKeyHashes })
    },
    [Symbol.asyncDispose]: async () => {
      const last = state
      state = { kind: 'stopped' }
      if (last.kind === 'waiting') clearTimeout(last.timer)
      if (last.kind === 'running' || last.kind === 'starting') await stopChild(last.child)
    },
  }
}

/** The child of a collector that was killed may still be on its way out, or still on its way in: while the engine opens the
 *  directory it does not hear that its parent is gone, and its own note of who has the directory comes late. */
async function waitForPredecessor(directory: string, signal: AbortSignal | undefined): Promise<void> {
  // Collectors of before left no file, and the engine's own note tells.
  const holder =
    (await readIfPresent(holderPath(directory))) ??
    /PID: (\d+)/.exec((await readIfPresent(join(directory, 'store', 'status'))) ?? '')?.[1]
  if (holder) await waitUntilGone(Number(holder), 'embedded-child', limits.predecessorMsMax, signal)
}

/** Before the child is told to open the directory: whoever comes next waits for it, however far it came. */
function noteHolder(directory: string, child: ChildProcess): void {
  try {
    writeFileSync(holderPath(directory), String(child.pid ?? ''), { mode: 0o600 })
  } catch (error) {
    child.kill()
    throw error
  }
}

function holderPath(directory: string): string {
  return join(directory, 'engine.pid')
}

function forkChild(log: EngineLog, timeZone = 'UTC'): ChildProcess {
  const child = fork(childPath, {
    // Its own group, so that Ctrl-C reaches the collector first and the engine is still there for the last inserts.
    detached: true,
    stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
    // Nothing of our environment: it holds secrets, and the engine would read some of it.
    env: { PATH: '/usr/local/bin:/usr/bin:/bin', TZ: timeZone, UV_THREADPOOL_SIZE: String(limits.threadPoolSize) },
    execArgv: ['--disable-warning=ExperimentalWarning', '--max-old-space-size=256'],
  })
  child.stderr
    ?.setEncoding('utf8')
    .on('data', (text: string) => log('warn', 'the embedded ClickHouse says', { text: text.slice(0, 2000) }))
  return child
}

function readyOf(child: ChildProcess, message: ChildMessage): Promise<Ready> {
  return new Promise((resolve, reject) => {
    const onEnd = (code: number | null, signal: NodeJS.Signals | null): void => {
      reject(new Error(`the embedded ClickHouse ended while it started (${signal ?? code})`))
    }
    child.once('error', reject)
    child.once('exit', onEnd)
    child.once('message', (report: ChildReport) => {
      if (report.kind === 'failed')
        return reject(new Error(`the embedded ClickHouse could not start: ${report.message}`))
      child.off('exit', onEnd)
      resolve(report)
    })
    send(child, message)
  })
}

/** A child that has just died cannot be told anything; its exit says so. */
function send(child: ChildProcess, message: ChildMessage): void {
  if (child.connected) child.send(message, () => undefined)
}

async function stopChild(child: ChildProcess | undefined): Promise<void> {
  if (child === undefined || child.exitCode !== null || child.signalCode !== null) return
  const ended = new Promise<void>((resolve) => child.once('exit', () => resolve()))
  send(child, { kind: 'stop' })
  const timer = setTimeout(() => child.kill('SIGKILL'), limits.stopMs * 2)
  await ended
  clearTimeout(timer)
}
