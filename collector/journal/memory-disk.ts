// A disk in memory for the journal's tests: what is not synced is gone after a power cut, names included, and any operation
// can be made to fail.
import type { JournalFile, JournalFiles } from './files.ts'

type Node = { current: Buffer; durable: Buffer }
type Operation = 'open' | 'write' | 'sync'

export type MemoryDisk = {
  readonly files: JournalFiles
  /** What a machine finds that lost its power now: synced bytes under synced names. */
  powerCut(): MemoryDisk
  failNext(operation: Operation, error: Error): void
  /** After so many changes more, every change fails: the power is about to go. */
  stopAfter(changes: number): void
  hasStopped(): boolean
  /** Flips a bit of these bytes in the file of this name. */
  corrupt(name: RegExp, bytes: Buffer): void
  append(name: RegExp, bytes: Buffer): void
  /** Keeps so many bytes, or all but so many. */
  cut(name: RegExp, bytes: number): void
  overwrite(name: RegExp, at: number, bytes: Buffer): void
  listing(): readonly (readonly [name: string, text: string])[]
}

export function openMemoryDisk(initial: ReadonlyMap<string, Node> = new Map()): MemoryDisk {
  const names = new Map(initial)
  const durableNames = new Map(initial)
  const failures = new Map<Operation, Error>()
  let changesLeft = Number.POSITIVE_INFINITY
  let stopped = false

  function change(operation?: Operation): void {
    const failure = operation === undefined ? undefined : failures.get(operation)
    if (operation !== undefined && failure !== undefined) {
      failures.delete(operation)
      throw failure
    }
    if (changesLeft-- <= 0) {
      stopped = true
      throw new Error('the disk has stopped')
    }
  }

  function nodeOf(path: string): Node {
    const node = names.get(path)
    if (node === undefined) throw Object.assign(new Error(`no file ${path}`), { code: 'ENOENT' })
    return node
  }

  function find(name: RegExp): Node {
    const path = [...names.keys()].find((each) => name.test(each))
    if (path === undefined) throw new Error(`no file like ${name}`)
    return nodeOf(path)
  }

  function openNode(node: Node): JournalFile {
    return {
      write: async (buffers, at) => {
        const bytes = Buffer.concat(buffers)
        const failure = failures.get('write')
        // A disk that fills up has taken a part.
        const taken = failure === undefined ? bytes : bytes.subarray(0, bytes.length >> 1)
        node.current = Buffer.concat([padded(node.current, at), taken])
        change('write')
        change('sync')
        node.durable = node.current
      },
      read: async (target, at) => node.current.copy(target, 0, Math.min(at, node.current.length)),
      truncate: async (bytes) => {
        change()
        node.current = node.current.subarray(0, bytes)
        change('sync')
        node.durable = node.current
      },
      size: async () => node.current.length,
      close: async () => undefined,
    }
  }

  const files: JournalFiles = {
    makeDirectory: async () => undefined,
    list: async (directory) =>
      [...names.keys()]
        .filter((path) => path.startsWith(`${directory}/`))
        .map((path) => path.slice(directory.length + 1)),
    open: async (path, mode) => {
      if (mode !== 'create') return openNode(nodeOf(path))
      change('open')
      const node: Node = { current: Buffer.alloc(0), durable: Buffer.alloc(0) }
      names.set(path, node)
      return openNode(node)
    },
    rename: async (from, to) => {
      change()
      names.set(to, nodeOf(from))
      names.delete(from)
    },
    remove: async (path) => {
      change()
      nodeOf(path)
      names.delete(path)
    },
    syncDirectory: async () => {
      change()
      durableNames.clear()
      for (const [path, node] of names) durableNames.set(path, node)
    },
    space: async () => ({ freeBytes: 1e12, totalBytes: 1e12 }),
  }

  return {
    files,
    powerCut: () =>
      openMemoryDisk(
        new Map([...durableNames].map(([path, node]) => [path, { current: node.durable, durable: node.durable }])),
      ),
    failNext: (operation, error) => failures.set(operation, error),
    stopAfter: (changes) => {
      changesLeft = changes
    },
    hasStopped: () => stopped,
    corrupt: (name, bytes) => {
      const node = find(name)
      const at = node.current.lastIndexOf(bytes)
      if (at < 0) throw new Error('these bytes are not in the file')
      node.current = Buffer.from(node.current)
      node.current[at] = (node.current[at] as number) ^ 1
      node.durable = node.current
    },
    append: (name, bytes) => {
      const node = find(name)
      node.current = Buffer.concat([node.current, bytes])
      node.durable = node.current
    },
    cut: (name, bytes) => {
      const node = find(name)
      node.current = node.current.subarray(0, bytes)
      node.durable = node.current
    },
    overwrite: (name, at, bytes) => {
      const node = find(name)
      node.current = Buffer.from(node.current)
      bytes.copy(node.current, at)
      node.durable = node.current
    },
    listing: () => [...names].map(([path, node]) => [path, node.current.toString('latin1')]),
  }
}

function padded(bytes: Buffer, length: number): Buffer {
  return bytes.length >= length
    ? bytes.subarray(0, length)
    : Buffer.concat([bytes, Buffer.alloc(length - bytes.length)])
}
