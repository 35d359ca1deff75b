// Tells when a file has changed. Asked for by its times and size, and not by events of the file system: those are not told
// over mounts of containers, and of a file that editors replace.
import { readFile, stat } from 'node:fs/promises'
import { setTimeout as delay } from 'node:timers/promises'

export type FileWatch = {
  readonly path: string
  readonly pollMs: number
  /** A file that cannot be read any more is told, too, once. */
  readonly onChange: (text: string | undefined) => Promise<void>
}

/** Watches until the signal, from what the file is now. */
export async function watchFile({ path, pollMs, onChange }: FileWatch, signal: AbortSignal): Promise<void> {
  let known = await stateOf(path)
  while (!signal.aborted) {
    await delay(pollMs, undefined, { signal }).catch(() => undefined)
    const state = await stateOf(path)
    if (signal.aborted || state === known) continue
    known = state
    await onChange(await readFile(path, 'utf8').catch(() => undefined))
  }
}

async function stateOf(path: string): Promise<string> {
  try {
    const { mtimeMs, ctimeMs, size, ino } = await stat(path)
    return `${mtimeMs} ${ctimeMs} ${size} ${ino}`
  } catch (error) {
    return (error as NodeJS.ErrnoException).code ?? 'unknown'
  }
}
