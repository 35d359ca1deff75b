// The journal's own id, made with its directory: rows carry it, so two journals never take each other's for theirs.
import { randomBytes } from 'node:crypto'
import { join } from 'node:path'
import { openBooks, readBooks, readWhole, writeBooks, writeWhole } from './books.ts'
import type { JournalFiles } from './files.ts'
import { sequenceOfFile } from './segment.ts'

const idFileName = 'id'

/** Makes the journal when there is none: its first books, then its id. So a journal with an id has books, and where they are not
 *  there they are lost. */
export async function readJournalId(files: JournalFiles, directory: string): Promise<string> {
  const path = join(directory, idFileName)
  const text = await readWhole(files, directory, idFileName)
  if (text === undefined) return makeJournal(files, directory, path)
  const id = text.trim()
  if (!/^[0-9a-f]{10}$/.test(id))
    throw new Error(
      `${path} does not hold the id of a journal, 10 hexadecimal digits: restore it; the rows in ClickHouse, and each segment's header, name it`,
    )
  return id
}

/** Under another id, what waits here and may be in ClickHouse already would be stored again. */
async function makeJournal(files: JournalFiles, directory: string, path: string): Promise<string> {
  const hasSegments = (await files.list(directory)).some((name) => sequenceOfFile(name) !== undefined)
  if (hasSegments)
    throw new Error(`${path} is gone, and segments were written under it: restore it; each segment's header names it`)
  // There are some when a run was killed while it made the journal, or an id is gone under which nothing waits: they go on.
  if ((await readBooks(files, directory)) === undefined) await writeBooks(files, directory, openBooks())
  const id = randomBytes(5).toString('hex')
  await writeWhole(files, directory, idFileName, Buffer.from(id))
  return id
}
