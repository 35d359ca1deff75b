// What the database tests share: a Postgres of their own, a schema each, and a process that runs one as a collector would.
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { text } from 'node:stream/consumers'
import type pg from 'pg'
import { openPool } from './connection.ts'
import { type EmbeddedPostgres, startEmbeddedPostgres } from './embedded.ts'

export type TestPostgres = {
  readonly engine: EmbeddedPostgres
  readonly directory: string
  /** Connections that see a schema of this name first; it is made. */
  open(schema: string, more?: pg.PoolConfig): Promise<pg.Pool>
  [Symbol.asyncDispose](): Promise<void>
}

export async function startTestPostgres(): Promise<TestPostgres> {
  const directory = await mkdtemp(join(tmpdir(), 'tallylight-postgres-'))
  const engine = await startEmbeddedPostgres({
    directory,
    port: 0,
    readerKeyPath: join(directory, 'reader.key'),
    log: () => undefined,
  })
  const pools: pg.Pool[] = []
  return {
    engine,
    directory,
    open: async (schema, more = {}) => {
      // A server that was killed ends idle connections; what asks next hears of it.
      const config = { connectionString: engine.url, max: 6, options: `-c search_path=${schema}`, ...more }
      const pool = openPool(config, () => undefined)
      pools.push(pool)
      await pool.query(`create schema ${schema}`)
      return pool
    },
    [Symbol.asyncDispose]: async () => {
      for (const pool of pools) await pool.end()
      await engine[Symbol.asyncDispose]()
      await rm(directory, { recursive: true })
    },
  }
}

export type Starter = {
  readonly child: ChildProcess
  /** Whatever it said, once it ended. */
  readonly ended: Promise<string>
  /** Of the server, when it is ready. Rejects with what was said when the process ends instead. */
  readonly ready: Promise<{ readonly pid: number; readonly url: string }>
}

/** A process that starts a Postgres and keeps it until it is killed or asked to end with SIGTERM. `embedded` is the module. */
export function spawnStarter(options: {
  readonly embedded: URL
  readonly directory: string
  readonly node?: string
  readonly prefix?: readonly string[]
  readonly account?: { readonly uid: number; readonly gid: number }
}): Starter {
  const script = `
    import { startEmbeddedPostgres } from ${JSON.stringify(options.embedded.href)}
    const directory = ${JSON.stringify(options.directory)}
    const engine = await startEmbeddedPostgres({
      directory, port: 0, readerKeyPath: directory + '/../reader.key', log: (...said) => console.error(...said) })
    process.once('SIGTERM', () => engine[Symbol.asyncDispose]().then(() => process.exit(0)))
    console.log(JSON.stringify({ pid: engine.pid(), url: engine.url }))`
  const node = options.node ?? process.execPath
  const [program, ...args] = [
    ...(options.prefix ?? []),
    node,
    '--disable-warning=ExperimentalWarning',
    '--input-type=module',
    '-e',
    script,
  ]
  const child = spawn(program as string, args, {
    cwd: '/',
    env: { PATH: '/usr/bin:/bin' },
    stdio: ['ignore', 'pipe', 'pipe'],
    ...options.account,
  })
  const said = text(child.stderr)
  const ended = once(child, 'close').then(() => said)
  const lines = createInterface(child.stdout)
  const ready = Promise.race([
    once(lines, 'line').then(([line]) => JSON.parse(line as string) as { pid: number; url: string }),
    ended.then((end) => Promise.reject(new Error(`it ended before Postgres was ready: ${end}`))),
  ])
  return { child, ended, ready }
}
