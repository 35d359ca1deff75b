// Two Postgres servers as people run them who cannot wait for one: a primary that answers a commit when its standby has it, and
// the standby, which is made primary when the other is dead.
import { once } from 'node:events'
import { appendFile, cp, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { chooseRunner, giveFiles, runAs, spawnAs } from '@tallylight/storage/postgres/account.ts'
import { findBinaries } from '@tallylight/storage/postgres/binaries.ts'
import { databaseName, makeCluster, ownerName, settingArguments } from '@tallylight/storage/postgres/cluster.ts'
import { openWatchdog } from '@tallylight/storage/postgres/postmaster.ts'

export type PostgresPair = {
  readonly primaryPort: number
  readonly standbyPort: number
  urlOf(port: number): string
  killPrimary(): Promise<void>
  /** Resolves when it takes writes. */
  promoteStandby(): Promise<void>
  [Symbol.asyncDispose](): Promise<void>
}

const password = '0123456789abcdef0123456789abcdef'
const standbyName = 'standby'
const replicated = { wal_level: 'replica', max_wal_senders: '4' }

export async function startPostgresPair(): Promise<PostgresPair> {
  await using made = new AsyncDisposableStack()
  const directory = await mkdtemp(join(tmpdir(), 'tallylight-pair-'))
  made.defer(() => rm(directory, { recursive: true }))
  const binaries = await findBinaries()
  const [primary, standby] = [join(directory, 'primary'), join(directory, 'standby')]
  await mkdir(primary)
  const cluster = join(primary, 'cluster')
  const runner = await chooseRunner(primary, cluster, binaries.postgres)
  await makeCluster(runner, binaries, cluster, { owner: password, reader: password })
  await appendFile(join(cluster, 'pg_hba.conf'), `host replication ${ownerName} 127.0.0.1/32 scram-sha-256\n`)
  const statement = `alter role ${ownerName} replication\n`
  const single = ['--single', '-D', cluster, ...settingArguments({ ...replicated, exit_on_error: 'on' }), 'postgres']
  const altered = await runAs(runner, binaries.postgres, single, statement)
  if (altered.code !== 0) throw new Error(`the role may not replicate: ${altered.stderr}`)
  // It was never started, so its files are a copy to begin from.
  await cp(primary, standby, { recursive: true, preserveTimestamps: true })
  const standbyCluster = join(standby, 'cluster')
  await writeFile(join(standbyCluster, 'standby.signal'), '')
  await giveFiles(standby, runner.owner)

  const start = async (directory: string, more: Readonly<Record<string, string>>) => {
    const port = await findFreePort()
    const child = spawnAs(
      runner,
      binaries.postgres,
      ['-D', directory, ...settingArguments({ ...replicated, port: String(port), ...more })],
      ['ignore', 'ignore', 'pipe'],
    )
    const watchdog = openWatchdog(child.pid ?? 0)
    const ended = once(child, 'exit').then(() => void watchdog.kill('SIGKILL'))
    const lines = createInterface({ input: child.stderr as NodeJS.ReadableStream })
    const all: string[] = []
    lines.on('line', (line) => all.push(line))
    const said = (text: string): Promise<void> =>
      new Promise((resolve, reject) => {
        lines.on('line', (line) => {
          if (line.includes(text)) resolve()
        })
        child.once('close', (code) => reject(new Error(`Postgres ended with ${code}: ${all.slice(-10).join('\n')}`)))
      })
    const stop = async (signal: NodeJS.Signals): Promise<void> => {
      child.kill(signal)
      await ended
    }
    made.defer(() => stop('SIGQUIT'))
    await said('ready to accept')
    return { port, said, stop, child }
  }
  const first = await start(cluster, { synchronous_standby_names: standbyName })
  const source = `host=127.0.0.1 port=${first.port} user=${ownerName} password=${password} application_name=${standbyName}`
  const second = await start(standbyCluster, { primary_conninfo: source })
  const servers = made.move()
  return {
    primaryPort: first.port,
    standbyPort: second.port,
    urlOf: (port) => `postgres://${ownerName}:${password}@127.0.0.1:${port}/${databaseName}`,
    killPrimary: () => first.stop('SIGKILL'),
    promoteStandby: async () => {
      const promoted = second.said('ready to accept connections')
      // As `pg_ctl promote` does.
      await writeFile(join(standbyCluster, 'promote'), '')
      second.child.kill('SIGUSR1')
      await promoted
    },
    [Symbol.asyncDispose]: () => servers.disposeAsync(),
  }
}

async function findFreePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  server.close()
  await once(server, 'close')
  return typeof address === 'object' && address !== null ? address.port : 0
}
