// One collector per journal. The lock is the kernel's, on a file, taken through SQLite, because Node has no call for it: it
// goes with the process that holds it, however that dies, so there is no stale lock to explain at three in the morning; a
// process that is only stopped keeps it; and it holds across containers that share a volume, where process numbers mean
// nothing. Who holds it stands in a file beside, for the message alone.
import { existsSync } from 'node:fs'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { readIfPresent } from '@tallylight/storage/private-file.ts'

/** Another collector has the directory. */
export class JournalLocked extends Error {
  override readonly name = 'JournalLocked'
}

/** SQLITE_BUSY */
const busyCode = 5

export async function lockDirectory(directory: string, owner: string): Promise<AsyncDisposable> {
  const ownerPath = join(directory, 'lock.owner')
  const file = take(directory)
  if (file === undefined)
    throw new JournalLocked(
      `${directory} is in use by ${(await readIfPresent(ownerPath)) || 'a collector that is starting'}; each collector needs a directory of its own`,
    )
  try {
    await writeFile(ownerPath, owner, { mode: 0o600 })
  } catch (error) {
    file.close()
    throw error
  }
  return {
    [Symbol.asyncDispose]: async () => {
      if (file.isOpen) file.close()
    },
  }
}

/** Whether a collector has the directory, as far as whoever asks may know: one that may not look is told so, too. */
export function isLocked(directory: string): boolean {
  if (!existsSync(join(directory, 'lock.db'))) return false
  try {
    const file = take(directory)
    file?.close()
    return file === undefined
  } catch {
    return true
  }
}

/** Undefined when another has it. */
function take(directory: string): DatabaseSync | undefined {
  let file: DatabaseSync | undefined
  try {
    file = new DatabaseSync(join(directory, 'lock.db'), { timeout: 0 })
    file.exec('BEGIN EXCLUSIVE')
    return file
  } catch (cause) {
    file?.close()
    if ((cause as { readonly errcode?: number }).errcode === busyCode) return undefined
    throw new Error(`cannot lock ${directory}`, { cause })
  }
}
