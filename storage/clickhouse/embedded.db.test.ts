import { execFile, spawn, spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { type AddressInfo, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { promisify } from 'node:util'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { isRunning, waitUntilGone } from '../predecessor.ts'
import { openClickHouse } from './client.ts'
import { type EmbeddedClickHouse, type EngineExit, startEmbeddedClickHouse } from './embedded.ts'

let directory: string
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'tallylight-clickhouse-'))
})
afterEach(() => rm(directory, { recursive: true, force: true }))

const start = (port = 0): Promise<EmbeddedClickHouse> =>
  startEmbeddedClickHouse({ directory, port, log: () => undefined })
const clientOf = (engine: EmbeddedClickHouse) =>
  openClickHouse({ url: engine.url, user: engine.user, password: engine.password, database: 'default' })

/** A process that starts an engine here, runs `then`, and stays. */
function startParent(then: string) {
  const script = `
    import { startEmbeddedClickHouse } from ${JSON.stringify(new URL('./embedded.ts', import.meta.url).href)}
    const engine = await startEmbeddedClickHouse({ directory: ${JSON.stringify(directory)}, port: 0, log: () => undefined })
    ${then}
    setInterval(() => undefined, 1000)`
  const args = ['--disable-warning=ExperimentalWarning', '--input-type=module', '-e', script]
  return spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit'] })
}

/** The engine of this process, as soon as it loads its library: it opens the directory next. */
async function loadingEngineOf(pid: number): Promise<number> {
  for (;;) {
    await new Promise(setImmediate)
    const child = spawnSync('pgrep', ['-P', String(pid), '-f', 'embedded-child'], { encoding: 'utf8' }).stdout.trim()
    if (child !== '' && (await readFile(`/proc/${child}/maps`, 'utf8')).includes('chdb')) return Number(child)
  }
}

/** Asks until the engine answers: after a kill it is away for a moment. */
async function untilAnswered<Row>(client: ReturnType<typeof clientOf>, sql: string): Promise<readonly Row[]> {
  for (let tries = 0; ; tries++) {
    try {
      return await client.query<Row>(sql)
    } catch (error) {
      const { code } = error as { readonly code?: string }
      if (!/^E(CONNREFUSED|CONNRESET|PIPE)$/.test(String(code)) || tries > 2000) throw error
      await new Promise(setImmediate)
    }
  }
}

describe('embedded ClickHouse', () => {
  it('keeps its tables over a stop, those of `default` too, and takes no table name for a file', async () => {
    {
      await using engine = await start()
      await using client = clientOf(engine)
      await client.command('CREATE TABLE t (a UInt8) ENGINE = MergeTree ORDER BY a')
      await client.command('CREATE DATABASE other')
      await client.command('CREATE TABLE other.t (a UInt8) ENGINE = MergeTree ORDER BY a')
      await client.command('INSERT INTO t SELECT 1')
      await client.command('INSERT INTO other.t SELECT 2')
    }
    await using engine = await start()
    await using client = clientOf(engine)
    expect(await client.query('SELECT a FROM t UNION ALL SELECT a FROM other.t ORDER BY a')).toEqual([
      { a: 1 },
      { a: 2 },
    ])
    await expect(client.query(`SELECT * FROM \`${join(directory, 'config.xml')}\``)).rejects.toMatchObject({
      code: '60',
    })
  })

  it('loads nothing of the engine into this process, and puts no secret where ps shows it', async () => {
    await using engine = await start()
    expect(await readFile('/proc/self/maps', 'utf8')).not.toContain('chdb')
    const shown = await Promise.all(
      ['cmdline', 'environ'].map((name) => readFile(`/proc/${engine.pid()}/${name}`, 'utf8')),
    )
    expect(shown.join()).toContain('embedded-child.ts')
    expect(shown.join()).not.toContain(engine.password)
    expect(shown.join()).not.toContain('HOME=')
  })

  it('killed in use, it comes back on its port with all that was answered, and readers still have their keys', async () => {
    await using engine = await start()
    await using client = clientOf(engine)
    engine.setReaderKeys([createHash('sha256').update('key').digest('hex')])
    await client.command('CREATE TABLE t (a UInt32) ENGINE = MergeTree ORDER BY a')
    const exits: EngineExit[] = []
    engine.onExit((exit) => exits.push(exit))
    let inserted = 0
    for (let kill = 1; kill <= 3; kill++) {
      for (let count = 0; count < 5; count++) {
        await client.command(`INSERT INTO t SELECT ${inserted}`)
        inserted++
      }
      const pid = engine.pid() as number
      const lost = client.command('INSERT INTO t SELECT 1000000 + number FROM numbers(3) WHERE sleepEachRow(1) = 0')
      const outcome = lost.then(
        () => 'answered',
        () => 'lost',
      )
      process.kill(pid, 'SIGKILL')
      expect(await outcome).toBe('lost')
      const [row] = await untilAnswered<{ known: number; all: number }>(
        client,
        'SELECT toUInt32(countIf(a < 1000000)) AS known, toUInt32(count()) AS all FROM t',
      )
      expect(row?.known).toBe(inserted)
      expect(row?.all).toBe(inserted)
      expect(engine.pid()).not.toBe(pid)
    }
    expect(exits).toEqual([1, 2, 3].map((restarts) => ({ code: null, signal: 'SIGKILL', restarts })))
    expect(engine.restarts()).toBe(3)
    const answer = await fetch(engine.url, {
      method: 'POST',
      body: 'SELECT count() FROM t',
      headers: { 'X-ClickHouse-User': 'tallylight', 'X-ClickHouse-Key': 'key' },
    })
    expect(await answer.text()).toBe(`${inserted}\n`)
  })

  it.each(['SIGSEGV', 'SIGABRT'] as const)('is started again at once when it crashes (%s)', async (signal) => {
    await using engine = await start()
    await using client = clientOf(engine)
    const exited = new Promise<EngineExit>((resolve) => engine.onExit(resolve))
    process.kill(engine.pid() as number, signal)
    expect(await exited).toEqual({ code: null, signal, restarts: 1 })
    expect(await untilAnswered(client, 'SELECT 1 AS one')).toEqual([{ one: 1 }])
  })

  it('ends with its parent, also when that is killed in the middle of a statement, and leaves the directory to the next', async () => {
    using parent = startParent(`
      fetch(engine.url, { method: 'POST', body: 'SELECT sleepEachRow(1) FROM numbers(30) SETTINGS max_block_size = 1', headers: { 'X-ClickHouse-User': engine.user, 'X-ClickHouse-Key': engine.password } })
      console.log(engine.pid())`)
    const [line] = (await once(createInterface(parent.stdout), 'line')) as [string]
    const pid = Number(line)
    expect(await isRunning(pid, 'embedded-child')).toBe(true)
    parent.kill('SIGKILL')
    await using engine = await start()
    expect(await isRunning(pid, 'embedded-child')).toBe(false)
    expect(engine.pid()).not.toBe(pid)
  })

  it('is waited for when its parent was killed before it had opened the directory', async () => {
    {
      await using _ = await start()
    }
    using parent = startParent('')
    const pid = await loadingEngineOf(parent.pid as number)
    parent.kill('SIGKILL')
    // It takes its time, longer than the next one needs to open the directory itself.
    process.kill(pid, 'SIGSTOP')
    setTimeout(() => process.kill(pid, 'SIGKILL'), 3000)
    await using engine = await start()
    expect(await isRunning(pid, 'embedded-child')).toBe(false)
    expect(engine.restarts()).toBe(0)
  })

  it('stopped, it leaves no process behind, and waits for a statement under way', async () => {
    const engine = await start()
    const pid = engine.pid() as number
    await using client = clientOf(engine)
    const asked = client.query<{ a: number }>('SELECT sleep(1) AS a')
    // Its turn has come when a later question is answered.
    await client.query(
      "SELECT 1 WHERE throwIf((SELECT count() FROM system.processes WHERE query LIKE 'SELECT sleep%') > 1) = 0",
    )
    await engine[Symbol.asyncDispose]()
    expect(await asked).toEqual([{ a: 0 }])
    await waitUntilGone(pid, 'embedded-child', 0)
    expect(engine.pid()).toBeUndefined()
    await engine[Symbol.asyncDispose]()
  })

  it('given its port and password again, it is the same server to a client from before, and else it has a new password', async () => {
    const first = await start()
    const { port, password } = first
    await using client = clientOf(first)
    await client.command('CREATE TABLE t (a UInt8) ENGINE = MergeTree ORDER BY a')
    await first[Symbol.asyncDispose]()
    await expect(client.query('SELECT 1')).rejects.toMatchObject({ code: 'ECONNREFUSED' })
    {
      await using again = await startEmbeddedClickHouse({ directory, port, password, log: () => undefined })
      expect([again.port, again.password]).toEqual([port, password])
      expect(await client.query('SELECT name FROM system.tables WHERE database = currentDatabase()')).toEqual([
        { name: 't' },
      ])
    }
    await using other = await start(port)
    expect(other.password).not.toBe(password)
    await expect(client.query('SELECT 1')).rejects.toMatchObject({ code: '516' })
  })

  it('names a port that is taken, and who has it', async () => {
    const server = createServer().listen(0, '127.0.0.1')
    await once(server, 'listening')
    const { port } = server.address() as AddressInfo
    await expect(start(port)).rejects.toThrow(
      new RegExp(`port ${port} on 127.0.0.1 is taken by process ${process.pid} `),
    )
    server.close()
    // The child that failed let go of the directory.
    await using engine = await start()
    expect(engine.port).toBeGreaterThan(0)
  })

  it('refuses a memory in which a full segment does not fit', async () => {
    await expect(
      startEmbeddedClickHouse({ directory, port: 0, memoryBytesMax: 1000, log: () => undefined }),
    ).rejects.toThrow(/it was given 1000$/)
  })

  it('works in a directory whose name reads like a pattern, and is open to its owner alone', async () => {
    const odd = join(directory, "it's {a,b} *?[c] ü")
    await using engine = await startEmbeddedClickHouse({ directory: odd, port: 0, log: () => undefined })
    await using client = clientOf(engine)
    await client.command('CREATE TABLE t (a UInt8) ENGINE = MergeTree ORDER BY a')
    const body = await fetch(`${engine.url}/?query=INSERT+INTO+t+FORMAT+CSV`, {
      method: 'POST',
      body: '1\n2\n',
      headers: { 'X-ClickHouse-User': engine.user, 'X-ClickHouse-Key': engine.password },
    })
    expect(await body.text()).toBe('')
    expect(await client.query('SELECT toUInt8(sum(a)) AS sum FROM t')).toEqual([{ sum: 3 }])
    const { stdout } = await promisify(execFile)('find', [odd, '-maxdepth', '1', '-perm', '/077'])
    expect(stdout).toBe('')
  })
})
