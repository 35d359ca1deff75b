import { randomBytes } from 'node:crypto'
import { join } from 'node:path'
import { writeWhole } from './books.ts'
import type { JournalFiles } from './files.ts'

const idFileName = 'id'

/** The journal's own id, made with its directory: rows carry it, so two journals never take each other's for theirs. */
export async function readJournalId(files: JournalFiles, directory: string): Promise<string> {
  if (!(await files.list(directory)).includes(idFileName)) {
    await writeWhole(files, directory, idFileName, Buffer.from(randomBytes(5).toString('hex')))
  }
  const file = await files.open(join(directory, idFileName), 'read')
  try {
    const bytes = Buffer.alloc(await file.size())
    await file.read(bytes, 0)
    return bytes.toString()
  } finally {
    await file.close()
  }
}
