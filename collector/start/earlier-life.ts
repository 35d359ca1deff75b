// Whether an embedded engine had files before. Engines make what is missing, so a volume that is not mounted, or a directory
// that was deleted, would be replaced by an empty one without a word: limits would be gone and calls granted, rows would seem
// never to have been. A note beside the directory says that there was one; the directory is not made anew while it stands.
//
// The note is written after the files are there: a first start that is killed before leaves no note, and begins again.
import { open } from 'node:fs/promises'
import { dirname } from 'node:path'
import { exists } from '@tallylight/storage/exists.ts'
import { ensurePrivateFile, readIfPresent } from '@tallylight/storage/private-file.ts'

export type EngineFiles = {
  readonly engine: string
  /** Part of what the engine makes once, and never removes. */
  readonly proof: string
  /** The path of the note: not in the engine's directory, which may be a volume of its own. */
  readonly note: string
}

export async function refuseToBeginAnew({ engine, proof, note }: EngineFiles): Promise<void> {
  if ((await exists(proof)) || (await readIfPresent(note)) === undefined) return
  throw new Error(
    `${proof} is gone, and ${note} says that it was there: mount its volume or restore it; to begin with an empty ${engine}, which forgets all that was in it, remove ${note}`,
  )
}

export async function noteLife({ engine, proof, note }: EngineFiles): Promise<void> {
  // A power cut must not keep the note and lose what it speaks of.
  const directory = await open(dirname(proof), 'r')
  try {
    await directory.sync()
  } finally {
    await directory.close()
  }
  await ensurePrivateFile(
    note,
    `${engine} keeps its files at ${proof} since ${new Date().toISOString()}.\nWhile this note is here, they are not made anew when they are gone.\n`,
  )
}
