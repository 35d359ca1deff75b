// Who has a port, as far as Linux tells: the socket's inode from /proc/net, then the process that has it open.
import { readdir, readFile, readlink } from 'node:fs/promises'
import { basename } from 'node:path'

async function portOwner(port: number): Promise<{ readonly pid: number; readonly name: string } | undefined> {
  if (process.platform !== 'linux') return undefined
  const tables = await Promise.all(
    ['/proc/net/tcp', '/proc/net/tcp6'].map((path) => readFile(path, 'utf8').catch(absent)),
  )
  const inode = tables
    .flatMap((table) => (table ?? '').split('\n').slice(1))
    .map((line) => line.trim().split(/\s+/))
    // Listening, on this port, whatever the address.
    .find((fields) => fields[3] === '0A' && Number.parseInt(fields[1]?.split(':')[1] ?? '', 16) === port)?.[9]
  if (inode === undefined) return undefined
  for (const pid of (await readdir('/proc')).filter((name) => /^\d+$/.test(name))) {
    for (const descriptor of (await readdir(`/proc/${pid}/fd`).catch(absent)) ?? []) {
      if ((await readlink(`/proc/${pid}/fd/${descriptor}`).catch(absent)) !== `socket:[${inode}]`) continue
      // Not its comm: Node calls its main thread MainThread.
      return { pid: Number(pid), name: basename((await readlink(`/proc/${pid}/exe`).catch(absent)) ?? 'unknown') }
    }
  }
  return undefined
}

/** Processes end while one looks, and those of others are closed to us: both are no answer, not a failure. */
function absent(error: NodeJS.ErrnoException): undefined {
  if (error.code === 'ENOENT' || error.code === 'EACCES' || error.code === 'EPERM' || error.code === 'ESRCH')
    return undefined
  throw error
}

/** The message for a port that cannot be had: `port 4318 on 127.0.0.1 is taken by process 812 (otelcol)`. */
export async function takenPort(host: string, port: number): Promise<string> {
  const owner = await portOwner(port)
  return `port ${port} on ${host} is taken${owner === undefined ? '' : ` by process ${owner.pid} (${owner.name})`}`
}
