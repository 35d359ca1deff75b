// The pages that say what to do when an alert fires, as the collector's API serves them.
import { readFile } from 'node:fs/promises'

/** A page of runbooks/, as it stands; undefined is none of that name. */
export async function readRunbook(name: string): Promise<string | undefined> {
  if (!/^[a-z0-9-]{1,64}$/.test(name)) return undefined
  return readFile(new URL(`./runbooks/${name}.md`, import.meta.url), 'utf8').catch(() => undefined)
}
