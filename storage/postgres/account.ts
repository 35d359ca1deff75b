// As whom Postgres runs. It refuses uid 0, and no system account may be added for it. So root runs it as an account that
// every system has, with the fewest rights that still reach the programs and the data directory, also when both lie in
// a private home (mode 0700) that this account cannot pass. Each way is tried for real, with a program started and a
// file written, because containers forbid now this, now that:
//   1. the account with no rights at all: enough wherever the parents are passable, as in most containers;
//   2. the account with the right to pass and read directories (CAP_DAC_READ_SEARCH), nothing else;
//   3. the account with CAP_DAC_OVERRIDE: Docker's default set has this one and not the former;
//   4. a user namespace in which we are that account: where uids cannot be changed or files not be given away.
// An ordinary user runs it as itself.
import { type ChildProcess, type StdioOptions, spawn } from 'node:child_process'
import { once } from 'node:events'
import { chown, lstat, mkdtemp, readdir, readFile, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { errorCode } from '../private-file.ts'

export type Account = { readonly uid: number; readonly gid: number }

/** How a Postgres program is started. `owner` is who must own its files; undefined means whoever we are. */
export type Runner = {
  readonly name: string
  readonly owner: Account | undefined
  readonly dropTo: Account | undefined
  readonly prefix: readonly string[]
}

/** Postgres gets no environment of ours: it would carry keys into a process that has no use for them. */
const environment = {
  PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/run/current-system/sw/bin',
  LC_ALL: 'C',
  TZ: 'UTC',
}

export const asOurselves: Runner = { name: 'as ourselves', owner: undefined, dropTo: undefined, prefix: [] }

/** Starts a program. A session of its own keeps a terminal's Ctrl-C from stopping it before what depends on it. */
export function spawnAs(runner: Runner, program: string, args: readonly string[], stdio: StdioOptions): ChildProcess {
  const [file, ...rest] = [...runner.prefix, program, ...args]
  if (file === undefined) throw new Error('cannot start a program without a name')
  return spawn(file, rest, { cwd: '/', env: environment, detached: true, stdio, ...(runner.dropTo ?? {}) })
}

/** Runs a program to its end; a program that cannot be started at all is code -1. */
export async function runAs(
  runner: Runner,
  program: string,
  args: readonly string[],
  input = '',
): Promise<{ readonly code: number; readonly stdout: string; readonly stderr: string }> {
  const child = spawnAs(runner, program, args, ['pipe', 'pipe', 'pipe'])
  const { stdin, stdout, stderr } = child
  if (!stdin || !stdout || !stderr) throw new Error(`cannot start ${program}: no pipes`)
  // A program that ends before it has read its input breaks the pipe; its exit code tells the story.
  stdin.on('error', () => stdin.destroy())
  stdin.end(input)
  const ended = once(child, 'close').then(
    ([code]) => (typeof code === 'number' ? code : -1),
    (cause: unknown) => ({ cause }),
  )
  const [code, out, err] = await Promise.all([ended, text(stdout), text(stderr)])
  return typeof code === 'number'
    ? { code, stdout: out, stderr: err }
    : { code: -1, stdout: out, stderr: String(code.cause) }
}

/** Chooses the way for `cluster`, an existing data directory of Postgres or one to be made inside `directory`. */
export async function chooseRunner(directory: string, cluster: string, postgres: string): Promise<Runner> {
  const owner = await ownerOf(cluster)
  const ourUid = process.getuid?.()
  if (ourUid === undefined || ourUid !== 0) {
    if (owner !== undefined && ourUid !== undefined && owner.uid !== ourUid) {
      throw new Error(
        `cannot start the embedded Postgres: its files in ${cluster} belong to uid ${owner.uid}, this process runs as uid ${ourUid}; start it as root or as that user, or give it the files with chown -R`,
      )
    }
    return asOurselves
  }
  const account = owner !== undefined && owner.uid !== 0 ? owner : await findUnprivilegedAccount()
  const tried: string[] = []
  for (const runner of rootRunners(account)) {
    if (runner.owner === undefined && owner !== undefined && owner.uid !== 0) continue
    const failure = await tryRunner(runner, directory, postgres)
    if (failure === undefined) return runner
    tried.push(`${runner.name}: ${failure}`)
  }
  throw new Error(
    `cannot start the embedded Postgres as root: it refuses uid 0, and no way was found to run ${postgres} on ${directory} as uid ${account.uid}; tried ${tried.join('; ')}. Start Tallylight as an ordinary user, or name a server in TALLYLIGHT_POSTGRES_URL`,
  )
}

/** Gives the files to the account that must own them. The top last, so that an interrupted change is seen and redone. */
export async function giveFiles(path: string, owner: Account | undefined): Promise<void> {
  if (owner === undefined) return
  const { uid, gid } = await stat(path)
  if (uid === owner.uid && gid === owner.gid) return
  for (const entry of await readdir(path, { recursive: true, withFileTypes: true })) {
    const file = join(entry.parentPath, entry.name)
    if (!(await lstat(file)).isSymbolicLink()) await chown(file, owner.uid, owner.gid)
  }
  await chown(path, owner.uid, owner.gid)
}

/**
 * A user namespace in which we appear as an account with a name: initdb asks for the name of its uid, and containers
 * run as uids that have none. Undefined where there are no such namespaces.
 */
export async function namedInNamespace(): Promise<Runner | undefined> {
  if (process.platform !== 'linux') return undefined
  const runner = namespaceRunner(await findUnprivilegedAccount())
  return (await runAs(runner, 'true', [])).code === 0 ? runner : undefined
}

function rootRunners(account: Account): readonly Runner[] {
  const plain: Runner = { name: `uid ${account.uid}`, owner: account, dropTo: account, prefix: [] }
  if (process.platform !== 'linux') return [plain]
  const withCapability = (capability: string): Runner => ({
    name: `uid ${account.uid} with CAP_${capability.toUpperCase()}`,
    owner: account,
    dropTo: undefined,
    prefix: [
      'setpriv',
      ...[`--reuid=${account.uid}`, `--regid=${account.gid}`, '--clear-groups', '--no-new-privs'],
      // access(2) forgets the capabilities of any uid but 0 unless this bit is set, and Postgres asks access(2) whether
      // its own programs can be read.
      '--securebits=+no_setuid_fixup',
      ...[`--inh-caps=-all,+${capability}`, `--ambient-caps=-all,+${capability}`, `--bounding-set=-all,+${capability}`],
    ],
  })
  return [plain, withCapability('dac_read_search'), withCapability('dac_override'), namespaceRunner(account)]
}

function namespaceRunner(account: Account): Runner {
  return {
    name: 'a user namespace',
    owner: undefined,
    dropTo: undefined,
    prefix: ['unshare', '--user', `--map-user=${account.uid}`, `--map-group=${account.gid}`],
  }
}

// The reason why it does not work, undefined when it does.
async function tryRunner(runner: Runner, directory: string, postgres: string): Promise<string | undefined> {
  const scratch = await mkdtemp(join(directory, 'postgres-probe-'))
  try {
    if (runner.owner !== undefined) await chown(scratch, runner.owner.uid, runner.owner.gid)
    const script = ': > "$1/written" && exec "$2" --version'
    const probe = await runAs(runner, '/bin/sh', ['-c', script, 'sh', scratch, postgres])
    // Asked for its version, Postgres only complains about a program it may not read; as a server it would end.
    return probe.code === 0 && !probe.stderr.includes('invalid binary')
      ? undefined
      : probe.stderr.trim().split('\n').at(-1) || `exit code ${probe.code}`
  } catch (cause) {
    return String(cause)
  } finally {
    await rm(scratch, { recursive: true })
  }
}

async function ownerOf(path: string): Promise<Account | undefined> {
  try {
    const { uid, gid } = await stat(path)
    return { uid, gid }
  } catch (cause) {
    if (errorCode(cause) === 'ENOENT') return undefined
    throw new Error(`cannot look at ${path}`, { cause })
  }
}

// Not the account postgres, where there is one: that is another server, and each could read the other's files.
async function findUnprivilegedAccount(): Promise<Account> {
  const accounts = (await readFile('/etc/passwd', 'utf8')).split('\n').map((line) => line.split(':'))
  for (const name of ['nobody', 'daemon']) {
    const found = accounts.find((fields) => fields[0] === name)
    // macOS writes the uid of nobody as -2, which the kernel means as an unsigned number.
    if (found) return { uid: Number(found[2]) >>> 0, gid: Number(found[3]) >>> 0 }
  }
  throw new Error('cannot find an unprivileged account: /etc/passwd names neither nobody nor daemon')
}
