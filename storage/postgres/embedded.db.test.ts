import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdir, mkdtemp, readdir, readFile, readlink, rename, rm, stat, unlink, writeFile } from 'node:fs/promises'
import { type AddressInfo, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import pg from 'pg'
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest'
import { isRunning, waitUntilGone } from '../predecessor.ts'
import { type EmbeddedPostgres, startEmbeddedPostgres } from './embedded.ts'
import { inspectWithPs } from './postmaster.ts'
import { spawnStarter } from './testing.ts'

let made: string
let home: string
let said: string[]
// Making a data directory takes a second; most tests begin with a copy of one.
beforeAll(async () => {
  home = await mkdtemp(join(tmpdir(), 'tallylight-postgres-'))
  made = home
  await (await start(join(made, 'data')))[Symbol.asyncDispose]()
})
beforeEach(async () => {
  home = await mkdtemp(join(tmpdir(), 'tallylight-postgres-'))
  said = []
})
afterEach(() => rm(home, { recursive: true, force: true }))
afterAll(() => rm(made, { recursive: true, force: true }))

const embedded = new URL('./embedded.ts', import.meta.url)
const endMsMax = 10_000

function start(directory: string, port = 0): Promise<EmbeddedPostgres> {
  return startEmbeddedPostgres({
    directory,
    port,
    readerKeyPath: join(home, 'reader.key'),
    log: (_level, message) => said.push(message),
  })
}

async function copyMade(): Promise<string> {
  await promisify(execFile)('cp', ['-a', `${made}/.`, home])
  return join(home, 'data')
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

test('postgres: what was written is there after a stop, in a directory whose name is odd and longer than a socket may be', async () => {
  const odd = join(home, `it's "a" $(b) *?[c] ü -c ${'long'.repeat(30)}`)
  {
    await using engine = await start(odd)
    await ask(engine.url, 'create table t (a integer); insert into t values (1)')
  }
  await using engine = await start(odd)
  expect(await ask(engine.url, 'select a from t')).toEqual([{ a: 1 }])
  expect(await ask(engine.url, 'show fsync')).toEqual([{ fsync: 'on' }])
  expect(said).toEqual([])
})

test('postgres: stopped twice, it leaves no process behind', async () => {
  const engine = await start(await copyMade())
  const pid = engine.pid() as number
  expect(await isRunning(pid, home)).toBe(true)
  await engine[Symbol.asyncDispose]()
  expect(await isRunning(pid, home)).toBe(false)
  expect(engine.pid()).toBeUndefined()
  await engine[Symbol.asyncDispose]()
})

test('postgres: killed in use, it comes back by itself on the same port, with all that was answered', async () => {
  await using engine = await start(await copyMade())
  await ask(engine.url, 'create table t (a integer)')
  for (let kill = 1; kill <= 3; kill++) {
    await ask(engine.url, `insert into t values (${kill})`)
    const pid = engine.pid() as number
    process.kill(pid, 'SIGKILL')
    await waitUntilGone(pid, home, endMsMax)
    expect(await askUntilAnswered(engine.url, 'select count(*)::integer as rows from t')).toEqual([{ rows: kill }])
    expect(engine.pid()).not.toBe(pid)
  }
  expect(engine.restarts()).toBe(3)
  expect(said.filter((line) => line === 'the embedded Postgres ended and is started again')).toHaveLength(3)
})

test('postgres: it ends with a collector that is killed, and the next one starts on its data', async () => {
  const directory = await copyMade()
  const first = spawnStarter({ embedded, directory })
  const { pid, url } = await first.ready
  await ask(url, 'create table t (a integer); insert into t values (7)')
  first.child.kill('SIGKILL')
  await waitUntilGone(pid, home, endMsMax)
  await using engine = await start(directory)
  expect(await ask(engine.url, 'select a from t')).toEqual([{ a: 7 }])
})

test('postgres: a collector killed while Postgres starts leaves none behind either', async () => {
  const directory = await copyMade()
  const pidPath = join(directory, 'cluster', 'postmaster.pid')
  for (let round = 0; round < 3; round++) {
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
  const directory = await copyMade()
  const first = spawnStarter({ embedded, directory })
  const { pid, url } = await first.ready
  const watchdog = (await childrenOf(first.child.pid as number)).find(({ command }) => command.includes('watchdog'))
  process.kill(watchdog?.pid ?? 0, 'SIGKILL')
  first.child.kill('SIGKILL')
  await first.ended
  expect(await ask(url, 'select 1 as a')).toEqual([{ a: 1 }])
  await using engine = await start(directory)
  expect(await isRunning(pid, home)).toBe(false)
  expect(said).toEqual(['a Postgres left over by an earlier collector is stopped'])
  expect(await ask(engine.url, 'select 1 as a')).toEqual([{ a: 1 }])
})

test('postgres: a directory that a living collector has is refused, with both processes named', async () => {
  const directory = await copyMade()
  const first = spawnStarter({ embedded, directory })
  const { pid, url } = await first.ready
  await expect(start(directory)).rejects.toThrow(
    `process ${first.child.pid} runs it already (as process ${pid}); two collectors never share a data directory`,
  )
  expect(await ask(url, 'select 1 as a')).toEqual([{ a: 1 }])
  first.child.kill('SIGTERM')
  await first.ended
})

test('postgres: the number of its predecessor may be anybody’s by now', async () => {
  const directory = await copyMade()
  const engine = await start(directory)
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
  await using again = await start(directory)
  expect(await ask(again.url, 'select 1 as a')).toEqual([{ a: 1 }])
  expect(stranger.exitCode ?? stranger.signalCode).toBeNull()
  stranger.kill('SIGKILL')
  await once(stranger, 'exit')
})

test('postgres: a port that is taken is named with its owner, and how to choose another', async () => {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  const directory = await copyMade()
  await expect(start(directory, port)).rejects.toThrow(
    new RegExp(`port ${port} on 127.0.0.1 is taken by process ${process.pid} .*TALLYLIGHT_POSTGRES_PORT`),
  )
  server.close()
  await once(server, 'close')
  await using engine = await start(directory, port)
  expect(engine.port).toBe(port)
})

test('postgres: a password file that was lost or replaced is what counts at the next start', async () => {
  const directory = await copyMade()
  const before = await start(directory)
  await before[Symbol.asyncDispose]()
  await unlink(join(directory, 'owner.key'))
  await writeFile(join(home, 'reader.key'), `${'ab'.repeat(20)}\n`)
  await using engine = await start(directory)
  expect(engine.url).not.toBe(before.url)
  expect(new URL(engine.readUrl).password).toBe('ab'.repeat(20))
  expect(await ask(engine.url, 'select 1 as a')).toEqual([{ a: 1 }])
  expect(await ask(engine.readUrl, 'select 1 as a')).toEqual([{ a: 1 }])
  await writeFile(join(home, 'reader.key'), 'x; drop table keys\n')
  await engine[Symbol.asyncDispose]()
  await expect(start(directory)).rejects.toThrow(/does not hold a password of 16 or more hexadecimal digits/)
})

test('postgres: readers cannot write, and nobody gets in as the superuser, without the password, or elsewhere', async () => {
  await using engine = await start(await copyMade())
  await ask(engine.url, 'create table t (a integer)')
  await expect(ask(engine.readUrl, 'select a from t')).rejects.toThrow(/permission denied/)
  await ask(engine.url, 'grant select on t to tallylight_read')
  expect(await ask(engine.readUrl, 'select a from t')).toEqual([])
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
  const directory = await copyMade()
  process.env.TALLYLIGHT_TEST_SECRET = 'not for Postgres'
  await using engine = await start(directory)
  delete process.env.TALLYLIGHT_TEST_SECRET
  const pid = engine.pid() as number
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

test('postgres: a start that was cut off half way is begun anew', async () => {
  const directory = join(home, 'data')
  await mkdir(join(directory, 'cluster.new', 'base'), { recursive: true })
  await writeFile(join(directory, 'cluster.new', 'PG_VERSION'), '18\n')
  await using engine = await start(directory)
  expect(await ask(engine.url, 'select 1 as a')).toEqual([{ a: 1 }])
  expect((await readdir(directory)).sort()).toEqual(['cluster', 'owner.key'])
})

test('postgres: ps tells of a process what /proc does, for systems that have only ps', async () => {
  await rename(await copyMade(), join(home, 'a b'))
  await using engine = await start(join(home, 'a b'))
  const found = await inspectWithPs(engine.pid() as number)
  expect(found?.parentPid).toBe(process.pid)
  expect(found?.command).toContain(`postgres -D ${join(home, 'a b', 'cluster')} -c `)
  expect(await inspectWithPs(2_147_483_647)).toBeUndefined()
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
