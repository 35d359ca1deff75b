// What the journal asks of a file system, so that tests can stand in a disk that is full, broken, or loses power.
import {
  close as closeFile,
  constants,
  fdatasync,
  ftruncate,
  open as openFile,
  read as readFile,
  writev,
} from 'node:fs'
import { mkdir, open, readdir, rename, rm, stat, statfs } from 'node:fs/promises'

export type JournalFile = {
  /** Writes all of `buffers` at the byte `at` and returns when they are on the disk, or throws; a part may be written then.
   *  Only for a file that was opened to `create` it. */
  write(buffers: readonly Buffer[], at: number): Promise<void>
  /** Fills `target` from the byte `at`; returns how many bytes there were. */
  read(target: Buffer, at: number): Promise<number>
  /** Cuts the file, and returns when the disk knows. */
  truncate(bytes: number): Promise<void>
  size(): Promise<number>
  close(): Promise<void>
}

export type JournalFiles = {
  makeDirectory(path: string): Promise<void>
  list(directory: string): Promise<readonly string[]>
  /** `create` fails when the file is there. */
  open(path: string, mode: 'create' | 'read' | 'change'): Promise<JournalFile>
  rename(from: string, to: string): Promise<void>
  remove(path: string): Promise<void>
  /** Makes creations, renames and removals in the directory durable. */
  syncDirectory(path: string): Promise<void>
  space(directory: string): Promise<{ readonly freeBytes: number; readonly totalBytes: number }>
}

// O_DSYNC: a write returns when it is durable, which is one trip to the thread pool where a write and an fdatasync are two.
const flags = {
  create: constants.O_RDWR | constants.O_CREAT | constants.O_EXCL | constants.O_DSYNC,
  read: constants.O_RDONLY,
  change: constants.O_RDWR,
} as const

export const diskFiles: JournalFiles = {
  makeDirectory: async (path) => {
    await mkdir(path, { recursive: true, mode: 0o700 })
  },
  list: (directory) => readdir(directory),
  open: openDiskFile,
  rename: (from, to) => rename(from, to),
  remove: (path) => rm(path),
  syncDirectory: async (path) => {
    const handle = await open(path, 'r')
    try {
      await handle.sync()
    } finally {
      await handle.close()
    }
  },
  space: async (directory) => {
    const { bavail, blocks, bsize } = await statfs(directory)
    return { freeBytes: bavail * bsize, totalBytes: blocks * bsize }
  },
}

// Callbacks rather than FileHandle where it is hot: thousands of commits a second.
async function openDiskFile(path: string, mode: 'create' | 'read' | 'change'): Promise<JournalFile> {
  const fd = await new Promise<number>((resolve, reject) =>
    openFile(path, flags[mode], 0o600, (error, opened) => (error ? reject(error) : resolve(opened))),
  )
  const writeAll = async (buffers: readonly Buffer[], at: number): Promise<void> => {
    let rest = buffers
    let from = at
    while (rest.length > 0) {
      const written = await new Promise<number>((resolve, reject) =>
        writev(fd, rest, from, (error, count) => (error ? reject(error) : resolve(count))),
      )
      from += written
      rest = behind(rest, written)
    }
  }
  return {
    write: writeAll,
    read: async (target, at) => {
      let filled = 0
      while (filled < target.length) {
        const count = await new Promise<number>((resolve, reject) =>
          readFile(fd, target, filled, target.length - filled, at + filled, (error, bytes) =>
            error ? reject(error) : resolve(bytes),
          ),
        )
        if (count === 0) break
        filled += count
      }
      return filled
    },
    truncate: async (bytes) => {
      await new Promise<void>((resolve, reject) => ftruncate(fd, bytes, (error) => (error ? reject(error) : resolve())))
      await new Promise<void>((resolve, reject) => fdatasync(fd, (error) => (error ? reject(error) : resolve())))
    },
    size: async () => (await stat(path)).size,
    close: () => new Promise((resolve, reject) => closeFile(fd, (error) => (error ? reject(error) : resolve()))),
  }
}

/** What is left of `buffers` behind the first `written` bytes: a short write is no error, and neither is it the end. */
function behind(buffers: readonly Buffer[], written: number): readonly Buffer[] {
  let skipped = written
  for (const [index, buffer] of buffers.entries()) {
    if (skipped < buffer.length) return [buffer.subarray(skipped), ...buffers.slice(index + 1)]
    skipped -= buffer.length
  }
  return []
}
