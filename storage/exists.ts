import { stat } from 'node:fs/promises'
import { errorCode } from './private-file.ts'

/** Throws where nobody can say, so that what cannot be looked at is not made anew. */
export async function exists(path: string): Promise<boolean> {
  try {
    await stat(path)
    return true
  } catch (cause) {
    if (errorCode(cause) === 'ENOENT') return false
    throw new Error(`cannot look at ${path}`, { cause })
  }
}
