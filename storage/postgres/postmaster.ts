// A Postgres that outlives its collector, from both ends: a watchdog that stops it when the collector ends, however it ends,
// and the search for one that was left over all the same (the watchdog was killed too).
import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { errorCode, readIfPresent } from '../private-file.ts'

/** Who holds the data directory, as far as postmaster.pid and the process table say. */
export type Holder =
  | { readonly kind: 'none' }
  /** The number in the file is now that of another program: Postgres and the machine died together. */
  | { readonly kind: 'stranger'; readonly pid: number }
  | { readonly kind: 'orphan'; readonly pid: number }
  | { readonly kind: 'owned'; readonly pid: number; readonly collectorPid: number }

const pollMs = 25
/** A collector that was just killed is a process until its memory is given back. */
const ownedMsMax = 2_000
/** Fast shutdown writes a checkpoint; after that recovery at the next start is better than waiting. */
const escalation = [
  { afterMs: 0, signal: 'SIGINT' },
  { afterMs: 10_000, signal: 'SIGQUIT' },
  { afterMs: 15_000, signal: 'SIGKILL' },
] as const
const orphanMsMax = 20_000
/** Above the highest process number of Linux (2^22) and macOS. */
const impossiblePid = 2_147_483_647

/** What Postgres is told to call itself, so that its command line names the collector it belongs to. */
export function clusterName(collectorPid: number): string {
  return `tallylight-${collectorPid}`
}

/** Tells the process to stop (fast shutdown) when we end. The pipe closes with us, SIGKILL included. */
export function openWatchdog(pid: number): ChildProcess {
  const script = 'read -r _; kill -INT "$1"'
  const watchdog = spawn('/bin/sh', ['-c', script, 'tallylight-postgres-watchdog', String(pid)], {
    cwd: '/',
    env: {},
    // Out of the terminal's process group: Ctrl-C would end it, and leave Postgres alone.
    detached: true,
    stdio: ['pipe', 'ignore', 'ignore'],
  })
  watchdog.stdin?.on('error', () => watchdog.stdin?.destroy())
  return watchdog
}

/**
 * Frees the data directory of what an earlier collector left there. Throws when a collector that lives has it, or when
 * the leftover does not end.
 */
export async function stopOrphan(cluster: string, onFound: (pid: number) => void, signal?: AbortSignal): Promise<void> {
  const startedMs = performance.now()
  let step = 0
  for (;;) {
    signal?.throwIfAborted()
    const holder = await findHolder(cluster)
    const elapsedMs = performance.now() - startedMs
    switch (holder.kind) {
      case 'none':
        return
      case 'stranger':
        return disownPidFile(cluster, holder.pid)
      case 'owned':
        if (elapsedMs > ownedMsMax)
          throw new Error(
            `cannot start Postgres on ${cluster}: process ${holder.collectorPid} runs it already (as process ${holder.pid}); two collectors never share a data directory`,
          )
        break
      case 'orphan': {
        const next = escalation[step]
        if (next !== undefined && elapsedMs >= next.afterMs) {
          if (step === 0) onFound(holder.pid)
          step++
          signalIfAlive(holder.pid, next.signal)
        }
        if (elapsedMs > orphanMsMax)
          throw new Error(`cannot start Postgres on ${cluster}: process ${holder.pid}, left over there, does not end`)
        break
      }
      default:
        return holder satisfies never
    }
    // Not our child, so there is no event to wait for.
    await delay(pollMs)
  }
}

export async function findHolder(cluster: string): Promise<Holder> {
  const text = await readIfPresent(join(cluster, 'postmaster.pid'))
  const pid = Number(text?.split('\n')[0])
  if (!Number.isSafeInteger(pid) || pid <= 0) return { kind: 'none' }
  const found = await inspectProcess(pid)
  if (found === undefined) return { kind: 'none' }
  if (!found.command.includes(`postgres -D ${cluster} -c `)) return { kind: 'stranger', pid }
  const collectorPid = Number(/ -c cluster_name=tallylight-(\d+)( |$)/.exec(found.command)?.[1])
  // A process whose parent has ended gets another one.
  return collectorPid === found.parentPid ? { kind: 'owned', pid, collectorPid } : { kind: 'orphan', pid }
}

// Postgres would refuse to start while somebody else's process has the number in its file. The rest of the file must
// stay: by the shared memory it names, Postgres sees children of its predecessor that still write.
async function disownPidFile(cluster: string, pid: number): Promise<void> {
  const path = join(cluster, 'postmaster.pid')
  // A server that is just ending has no arguments any more, like a stranger, and takes its file with it.
  const text = await readIfPresent(path)
  if (text?.startsWith(`${pid}\n`)) await writeFile(path, text.replace(/^\d+/, String(impossiblePid)))
}

type Inspected = { readonly parentPid: number; readonly command: string }

async function inspectProcess(pid: number): Promise<Inspected | undefined> {
  if (process.platform !== 'linux') return inspectWithPs(pid)
  try {
    const [stat, command] = await Promise.all([
      readFile(`/proc/${pid}/stat`, 'utf8'),
      readFile(`/proc/${pid}/cmdline`, 'utf8'),
    ])
    // The name in brackets may hold anything, so the fields are counted from its end: state, then the parent.
    const parentPid = Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1])
    // One that has ended and was not reaped (by a container's first process, say) has no arguments, so it is a stranger;
    // Postgres would take its number for a server that runs.
    return { parentPid, command: command.replaceAll('\0', ' ') }
  } catch (cause) {
    if (errorCode(cause) === 'ENOENT' || errorCode(cause) === 'ESRCH') return undefined
    throw new Error(`cannot look at process ${pid}`, { cause })
  }
}

export function inspectWithPs(pid: number): Promise<Inspected | undefined> {
  return new Promise((resolve) => {
    execFile('/bin/ps', ['-ww', '-o', 'ppid=,command=', '-p', String(pid)], (error, stdout) => {
      const found = /^\s*(\d+)\s+(.*)$/.exec(stdout.trim())
      // ps ends with 1 when there is no such process.
      if (error !== null || found === null) return resolve(undefined)
      resolve({ parentPid: Number(found[1]), command: found[2] ?? '' })
    })
  })
}

function signalIfAlive(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal)
  } catch (cause) {
    if (errorCode(cause) !== 'ESRCH') throw new Error(`cannot stop process ${pid}`, { cause })
  }
}
