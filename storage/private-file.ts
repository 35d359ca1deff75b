// Small files with secrets or state that must survive a power cut: whole or absent, never half, readable by us alone.
import { randomBytes } from 'node:crypto'
import { link, open, readFile, rename, unlink } from 'node:fs/promises'
import { dirname } from 'node:path'

/** Replaces the file. */
export async function writePrivateFile(path: string, text: string): Promise<void> {
  const temporary = await writeTemporary(path, text)
  await rename(temporary, path)
  await syncDirectory(dirname(path))
}

/** Makes the file unless there is one; answers what the file holds afterwards, whoever wrote it. */
export async function ensurePrivateFile(path: string, text: string): Promise<string> {
  const present = await readIfPresent(path)
  if (present !== undefined) return present
  const temporary = await writeTemporary(path, text)
  try {
    // A link, unlike a rename, fails when somebody else was first: a secret is never overwritten.
    await link(temporary, path)
  } catch (cause) {
    if (errorCode(cause) !== 'EEXIST') throw new Error(`cannot create ${path}`, { cause })
  } finally {
    await unlink(temporary)
  }
  await syncDirectory(dirname(path))
  return readFile(path, 'utf8')
}

/** The file's text, or undefined when there is none. Any other failure throws. */
export async function readIfPresent(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, 'utf8')
  } catch (cause) {
    if (errorCode(cause) === 'ENOENT') return undefined
    throw new Error(`cannot read ${path}`, { cause })
  }
}

export function errorCode(error: unknown): string | undefined {
  return error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : undefined
}

async function writeTemporary(path: string, text: string): Promise<string> {
  const temporary = `${path}.${process.pid}.${randomBytes(4).toString('hex')}.tmp`
  const file = await open(temporary, 'wx', 0o600)
  try {
    await file.writeFile(text)
    await file.sync()
  } catch (cause) {
    await unlink(temporary)
    throw new Error(`cannot write ${path}`, { cause })
  } finally {
    await file.close()
  }
  return temporary
}

// Without it the rename itself may be lost in a power cut, and with it a key that was already handed out.
async function syncDirectory(directory: string): Promise<void> {
  const handle = await open(directory, 'r')
  try {
    await handle.sync()
  } finally {
    await handle.close()
  }
}
