// An engine of a collector that was killed may still be on its way out. Two engines on one directory would be the end of
// it, so the next one waits until the process that the directory names is gone.
import { readFile } from 'node:fs/promises'
import { setTimeout as delay } from 'node:timers/promises'
import { errorCode } from './private-file.ts'

const pollMs = 25

/** Waits for process `pid`, if it is alive and `marker` is in its command line: after a restart of the machine or the
 *  container the number may be anybody's. Throws when it does not end in time. */
export async function waitUntilGone(pid: number, marker: string, msMax: number, signal?: AbortSignal): Promise<void> {
  const deadline = Date.now() + msMax
  while (await isRunning(pid, marker)) {
    signal?.throwIfAborted()
    if (Date.now() > deadline)
      throw new Error(`process ${pid} (${marker}) still runs; another collector uses this directory`)
    await delay(pollMs)
  }
}

export async function isRunning(pid: number, marker: string): Promise<boolean> {
  if (process.platform !== 'linux') return isAlive(pid)
  try {
    return (await readFile(`/proc/${pid}/cmdline`, 'utf8')).includes(marker)
  } catch (error) {
    if (errorCode(error) === 'ENOENT' || errorCode(error) === 'ESRCH') return false
    throw error
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    return errorCode(error) === 'EPERM'
  }
}
