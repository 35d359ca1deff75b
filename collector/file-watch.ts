// Tells when a file has changed. Asked for by its times and size, and not by events of the file system: those are not told
// over mounts of containers, and of a file that editors replace.
import { readFile, stat } from 'node:fs/promises'
import { setTimeout as delay } from 'node:timers/promises'

export type FileWatch = {
  readonly path: string
  readonly pollMs: number
  /** What was read of it last: what it says now may be another thing already. Undefined when there was none. */
  readonly text: string | undefined
  /** A file that cannot be read any more is told, too, once. */
  readonly onChange: (text: string | undefined) => Promise<void>
}

/** Watches until the signal. */
export async function watchFile({ path, pollMs, text, onChange }: FileWatch, signal: AbortSignal): Promise<void> {
  let known: string | undefined
  let told = text
  while (!signal.aborted) {
    await delay(pollMs, undefined, { signal }).catch(() => undefined)
    const state = await stateOf(path)
    if (signal.aborted || state === known) continue
    known = state
    const read = await readFile(path, 'utf8').catch(() => undefined)
    if (read === told) continue
    told = read
    await onChange(read)
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
