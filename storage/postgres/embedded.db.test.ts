import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdir, mkdtemp, readdir, readFile, readlink, rm, stat, unlink, writeFile } from 'node:fs/promises'
import { type AddressInfo, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import pg from 'pg'
import { afterAll, beforeAll, beforeEach, expect, test, vi } from 'vitest'
import { isRunning, waitUntilGone } from '../predecessor.ts'
import { type EmbeddedPostgres, startEmbeddedPostgres } from './embedded.ts'
import { inspectWithPs } from './postmaster.ts'
import { spawnStarter } from './testing.ts'

/** One data directory for all: making one takes a second, and each test leaves it as a stop or a kill would. */
let home: string
let directory: string
let said: string[]
beforeAll(async () => {
  home = await mkdtemp(join(tmpdir(), 'tallylight-postgres-'))
  directory = join(home, `it's "a" $(b) *?[c] ü -c ${'long'.repeat(30)}`)
})
beforeEach(() => {
  said = []
})
afterAll(() => rm(home, { recursive: true, force: true }))

const embedded = new URL('./embedded.ts', import.meta.url)
const endMsMax = 10_000

function start(port = 0): Promise<EmbeddedPostgres> {
  return startEmbeddedPostgres({
    directory,
    port,
    readerKeyPath: join(home, 'reader.key'),
    log: (_level, message) => said.push(message),
  })
}

async function ask<Row extends pg.QueryResultRow>(url: string, sql: string): Promise<readonly Row[]> {
  const client = new pg.Client(url)
  client.on('error', () => undefined)
  try {
    await client.connect()
    return (await client.query<Row>(sql)).rows
  } finally {
    await client.end()
  }
}

/** Asks until the server answers: after a kill it is away for a moment. */
async function askUntilAnswered(url: string, sql: string): Promise<readonly pg.QueryResultRow[]> {
  for (;;) {
    try {
      return await ask(url, sql)
    } catch (error) {
      // 57P03: it is starting. 57P01 and 57P02: it is ending.
      const { code, message } = error as { readonly code?: string; readonly message: string }
      if (!/^(ECONNREFUSED|ECONNRESET|EPIPE|57P0[123])$/.test(String(code)) && !/terminated/.test(message)) throw error
    }
  }
}

test('postgres: what was written is there after a stop, in a directory whose name is odd and longer than a socket may be, begun anew after a start that was cut off', async () => {
  await mkdir(join(directory, 'cluster.new', 'base'), { recursive: true, mode: 0o700 })
  await writeFile(join(directory, 'cluster.new', 'PG_VERSION'), '18\n')
  const first = await start()
  expect((await readdir(directory)).sort()).toEqual(['cluster', 'owner.key'])
  await ask(first.url, 'create table kept (a integer); insert into kept values (1)')
  const pid = first.pid() as number
  expect(await isRunning(pid, home)).toBe(true)
  await first[Symbol.asyncDispose]()
  expect(await isRunning(pid, home)).toBe(false)
  expect(first.pid()).toBeUndefined()
  await first[Symbol.asyncDispose]()
  await using engine = await start()
  expect(await ask(engine.url, 'select a from kept')).toEqual([{ a: 1 }])
  expect(await ask(engine.url, 'show fsync')).toEqual([{ fsync: 'on' }])
  expect(said).toEqual([])
})

test('postgres: killed in use, it comes back by itself on the same port, with all that was answered', async () => {
  await using engine = await start()
  await ask(engine.url, 'create table killed (a integer)')
  for (let kill = 1; kill <= 2; kill++) {
    await ask(engine.url, `insert into killed values (${kill})`)
    const pid = engine.pid() as number
    process.kill(pid, 'SIGKILL')
    await waitUntilGone(pid, home, endMsMax)
    expect(await askUntilAnswered(engine.url, 'select count(*)::integer as rows from killed')).toEqual([{ rows: kill }])
    expect(engine.pid()).not.toBe(pid)
  }
  expect(engine.restarts()).toBe(2)
  expect(said.filter((line) => line === 'the embedded Postgres ended and is started again')).toHaveLength(2)
})

test('postgres: it ends with a collector that is killed, and the next one starts on its data', async () => {
  const first = spawnStarter({ embedded, directory })
  const { pid, url } = await first.ready
  await ask(url, 'create table orphaned (a integer); insert into orphaned values (7)')
  first.child.kill('SIGKILL')
  await waitUntilGone(pid, home, endMsMax)
  await using engine = await start()
  expect(await ask(engine.url, 'select a from orphaned')).toEqual([{ a: 7 }])
})

test('postgres: a collector killed while Postgres starts leaves none behind either', async () => {
  const pidPath = join(directory, 'cluster', 'postmaster.pid')
  for (let round = 0; round < 2; round++) {
    const starter = spawnStarter({ embedded, directory })
    starter.ready.catch(() => undefined)
    // The file is the first thing it makes, long before it is ready.
    let pid: number | undefined
    while (pid === undefined) {
      pid = Number((await readFile(pidPath, 'utf8').catch(() => '')).split('\n')[0]) || undefined
    }
    starter.child.kill('SIGKILL')
    await waitUntilGone(pid, home, endMsMax)
  }
})

test('postgres: one that outlived its collector and its watchdog is stopped by the next, which says so', async () => {
  const first = spawnStarter({ embedded, directory })
  const { pid, url } = await first.ready
  const watchdog = (await childrenOf(first.child.pid as number)).find(({ command }) => command.includes('watchdog'))
  process.kill(watchdog?.pid ?? 0, 'SIGKILL')
  first.child.kill('SIGKILL')
  await first.ended
  expect(await ask(url, 'select 1 as a')).toEqual([{ a: 1 }])
  await using engine = await start()
  expect(await isRunning(pid, home)).toBe(false)
  expect(said).toEqual(['a Postgres left over by an earlier collector is stopped'])
  expect(await ask(engine.url, 'select 1 as a')).toEqual([{ a: 1 }])
})

test('postgres: killed with its collector while a process of it hangs, the next start waits for that one', async () => {
  const first = await start()
  const client = new pg.Client(first.url)
  client.on('error', () => undefined)
  await client.connect()
  const { rows } = await client.query<{ pid: number }>('select pg_backend_pid() as pid')
  const backend = rows[0]?.pid as number
  process.kill(backend, 'SIGSTOP')
  process.kill(first.pid() as number, 'SIGKILL')
  await first[Symbol.asyncDispose]()
  const starting = start()
  await vi.waitUntil(() => said.includes('processes of a Postgres that was killed are still ending'), {
    timeout: 20_000,
  })
  process.kill(backend, 'SIGCONT')
  await using engine = await starting
  expect(await ask(engine.url, 'select 1 as a')).toEqual([{ a: 1 }])
  await client.end()
})

test('postgres: a directory that a living collector has is refused, with both processes named', async () => {
  const first = spawnStarter({ embedded, directory })
  const { pid, url } = await first.ready
  await expect(start()).rejects.toThrow(
    `process ${first.child.pid} runs it already (as process ${pid}); two collectors never share a data directory`,
  )
  expect(await ask(url, 'select 1 as a')).toEqual([{ a: 1 }])
  first.child.kill('SIGTERM')
  await first.ended
})

test('postgres: the number of its predecessor may be anybody’s by now', async () => {
  const engine = await start()
  const owner = engine.pid() === undefined ? '' : await readFile(`/proc/${engine.pid()}/status`, 'utf8')
  await engine[Symbol.asyncDispose]()
  // A stranger with the uid of Postgres: of any other uid Postgres itself would not mind.
  const [uid, gid] = [idOf(owner, 'Uid'), idOf(owner, 'Gid')]
  const stranger = spawn('/bin/sleep', ['1000'], { uid, gid, cwd: '/', stdio: 'ignore' })
  await once(stranger, 'spawn')
  const cluster = join(directory, 'cluster')
  await writeFile(
    join(cluster, 'postmaster.pid'),
    `${stranger.pid}\n${cluster}\n1\n5433\n\n127.0.0.1\n       0         0\nready   \n`,
  )
  await using again = await start()
  expect(await ask(again.url, 'select 1 as a')).toEqual([{ a: 1 }])
  expect(stranger.exitCode ?? stranger.signalCode).toBeNull()
  stranger.kill('SIGKILL')
  await once(stranger, 'exit')
})

test('postgres: a port that is taken is named with its owner, and how to choose another', async () => {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  await expect(start(port)).rejects.toThrow(
    new RegExp(`port ${port} on 127.0.0.1 is taken by process ${process.pid} .*TALLYLIGHT_POSTGRES_PORT`),
  )
  server.close()
  await once(server, 'close')
  await using engine = await start(port)
  expect(engine.port).toBe(port)
})

test('postgres: a password file that was lost or replaced is what counts at the next start', async () => {
  const before = await start()
  await before[Symbol.asyncDispose]()
  await unlink(join(directory, 'owner.key'))
  await writeFile(join(home, 'reader.key'), `${'ab'.repeat(20)}\n`)
  await using engine = await start()
  expect(engine.url).not.toBe(before.url)
  expect(new URL(engine.readUrl).password).toBe('ab'.repeat(20))
  expect(await ask(engine.url, 'select 1 as a')).toEqual([{ a: 1 }])
  expect(await ask(engine.readUrl, 'select 1 as a')).toEqual([{ a: 1 }])
  await writeFile(join(home, 'reader.key'), 'x; drop table keys\n')
  await engine[Symbol.asyncDispose]()
  await expect(start()).rejects.toThrow(/does not hold a password of 16 or more hexadecimal digits/)
  await unlink(join(home, 'reader.key'))
})

test('postgres: readers cannot write, and nobody gets in as the superuser, without the password, or elsewhere', async () => {
  await using engine = await start()
  await ask(engine.url, 'create table readable (a integer)')
  await expect(ask(engine.readUrl, 'select a from readable')).rejects.toThrow(/permission denied/)
  await ask(engine.url, 'grant select on readable to tallylight_read')
  expect(await ask(engine.readUrl, 'select a from readable')).toEqual([])
  await expect(ask(engine.readUrl, 'create temporary table u (a integer)')).rejects.toThrow(
    /permission denied|read-only/,
  )
  const altered = (change: (url: URL) => void): string => {
    const url = new URL(engine.url)
    change(url)
    return url.href
  }
  for (const url of [
    altered((url) => {
      url.username = 'postgres'
    }),
    altered((url) => {
      url.password = 'wrong'
    }),
    altered((url) => {
      url.pathname = '/postgres'
    }),
  ])
    await expect(ask(url, 'select 1')).rejects.toThrow(/pg_hba|authentication failed/)
})

test('postgres: it keeps nothing open outside of its directory, is open to its owner alone, and gets no environment of ours', async () => {
  process.env.TALLYLIGHT_TEST_SECRET = 'not for Postgres'
  await using engine = await start()
  delete process.env.TALLYLIGHT_TEST_SECRET
  const pid = engine.pid() as number
  // For systems that have only ps: it tells what /proc does.
  expect(await inspectWithPs(pid)).toEqual({
    parentPid: process.pid,
    // Without a locale ps writes ? for what is not ASCII.
    command: expect.stringContaining(`postgres -D ${directory.split('ü')[0]}`),
  })
  expect(await inspectWithPs(2_147_483_647)).toBeUndefined()
  const all = [{ pid }, ...(await childrenOf(pid))]
  expect(all.length).toBeGreaterThan(2)
  for (const { pid } of all) {
    // A worker of autovacuum ends when it likes, and then holds nothing.
    const mapped = await readFile(`/proc/${pid}/maps`, 'utf8').catch(ended)
    if (mapped === undefined) continue
    const maps = mapped.split('\n').map((line) => line.slice(73).trim())
    const shared = maps.filter((path) => path.startsWith('/') && !/\/(lib|lib64|native)\//.test(path))
    const open = await Promise.all(
      (await readdir(`/proc/${pid}/fd`)).map((name) => readlink(`/proc/${pid}/fd/${name}`).catch(() => '')),
    )
    const outside = [...shared, ...open].filter(
      (path) =>
        !path.startsWith(directory) &&
        // Shared memory without a file, devices, and what has no name.
        !/^(|\/SYSV\w+ \(deleted\)|\/dev\/zero \(deleted\)|\/dev\/(null|u?random)|(pipe|socket|anon_inode):.*)$/.test(
          path,
        ) &&
        !path.endsWith('/native/bin/postgres'),
    )
    expect(outside).toEqual([])
    expect(await readFile(`/proc/${pid}/environ`, 'utf8')).not.toContain('SECRET')
    expect(await readFile(`/proc/${pid}/cmdline`, 'utf8')).not.toContain(new URL(engine.url).password)
  }
  for (const path of ['', 'cluster', 'owner.key', '../reader.key'])
    expect((await stat(join(directory, path))).mode & 0o077).toBe(0)
})

async function childrenOf(parent: number): Promise<readonly { readonly pid: number; readonly command: string }[]> {
  const found: { pid: number; command: string }[] = []
  for (const pid of (await readdir('/proc')).filter((name) => /^\d+$/.test(name))) {
    const [status, command] = await Promise.all(
      ['status', 'cmdline'].map((name) => readFile(`/proc/${pid}/${name}`, 'utf8').catch(() => '')),
    )
    if (idOf(status ?? '', 'PPid') === parent) found.push({ pid: Number(pid), command: command ?? '' })
  }
  return found
}

function idOf(status: string, name: string): number {
  return Number(new RegExp(`^${name}:\\s+(\\d+)`, 'm').exec(status)?.[1])
}

function ended(error: NodeJS.ErrnoException): undefined {
  if (error.code !== 'ENOENT' && error.code !== 'ESRCH') throw error
}
