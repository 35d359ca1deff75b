// One collector per journal. The lock is a listening Unix socket in the directory: the kernel gives it up with the process
// that holds it, however that dies, so there is no stale lock to explain at three in the morning, and it holds across
// containers that share a volume, where process numbers mean nothing.
import { randomBytes } from 'node:crypto'
import { link, open, rename, stat, unlink } from 'node:fs/promises'
import { connect, createServer, type Server } from 'node:net'
import { join } from 'node:path'

/** Another collector has the directory. */
export class JournalLocked extends Error {
  override readonly name = 'JournalLocked'
}

/** Longer paths do not fit into a socket's address; on Linux the directory is then reached through its open handle. */
const addressBytesMax = 100

export async function lockDirectory(directory: string, owner: string): Promise<AsyncDisposable> {
  const handle = await open(directory, 'r')
  const base = Buffer.byteLength(directory) > addressBytesMax - 20 ? `/proc/self/fd/${handle.fd}` : directory
  const path = join(base, 'lock')
  const own = join(base, `.lock-${randomBytes(4).toString('hex')}`)
  const server = createServer((socket) => socket.end(owner))
  try {
    await listen(server, own)
    // Two collectors that start at once both end here: `link` lets one of them through.
    for (let attempt = 0; !(await linked(own, path)); attempt++) {
      const held = await askOwner(path)
      if (held.kind === 'owned' || attempt === 3) {
        throw new JournalLocked(
          `${directory} is in use by ${held.kind === 'owned' ? held.owner : 'a collector that is starting'}; each collector needs a directory of its own`,
        )
      }
      if (held.kind === 'stale') await removeStale(path, held.inode)
    }
  } catch (error) {
    server.close()
    await handle.close()
    throw error
  } finally {
    // The socket stays reachable by its second name; on failure there is nothing left of it.
    await unlink(own).catch(ignoreMissing)
  }
  server.unref()
  return {
    [Symbol.asyncDispose]: async () => {
      await unlink(path).catch(ignoreMissing)
      await new Promise<void>((resolve) => server.close(() => resolve()))
      await handle.close()
    },
  }
}

function listen(server: Server, path: string): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject)
    server.listen(path, () => resolve())
  })
}

async function linked(from: string, to: string): Promise<boolean> {
  try {
    await link(from, to)
    return true
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') return false
    throw error
  }
}

type Holder =
  | { readonly kind: 'owned'; readonly owner: string }
  | { readonly kind: 'stale'; readonly inode: number }
  | { readonly kind: 'gone' }

async function askOwner(path: string): Promise<Holder> {
  const inode = await stat(path).then(
    (found) => found.ino,
    () => undefined,
  )
  if (inode === undefined) return { kind: 'gone' }
  return new Promise((resolve) => {
    const socket = connect(path)
    let answer = ''
    socket.setEncoding('utf8')
    socket.on('data', (text: string) => {
      answer += text
    })
    socket.on('error', (error: NodeJS.ErrnoException) =>
      resolve(error.code === 'ENOENT' ? { kind: 'gone' } : { kind: 'stale', inode }),
    )
    socket.on('end', () => resolve({ kind: 'owned', owner: answer || 'another collector' }))
  })
}

/** Takes a dead lock away; if it is another's fresh one by now, puts that back. */
async function removeStale(path: string, inode: number): Promise<void> {
  const aside = `${path}-stale-${randomBytes(4).toString('hex')}`
  try {
    await rename(path, aside)
  } catch (error) {
    ignoreMissing(error)
    return
  }
  const { ino } = await stat(aside)
  if (ino !== inode) await linked(aside, path)
  await unlink(aside)
}

function ignoreMissing(error: unknown): void {
  if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error
}
