// The command `tallylight`: speaks to the API of a running collector, here or elsewhere. An entry point, so it reads the
// environment: TALLYLIGHT_URL and TALLYLIGHT_KEY, or else the data directory of a collector on this machine. What it was asked
// for goes to standard output, as JSON a line, and what is said about it to standard error.
import { chown, readFile, stat } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { readIfPresent, writePrivateFile } from '@tallylight/storage/private-file.ts'
import { look, lookUsage } from './look/look.ts'
import { Misused } from './look/misused.ts'
import { findRun } from './look/run-file.ts'
import { parseKeyId, roles } from './receive/key-rules.ts'

const usage = `usage: tallylight COMMAND, which looks at a collector or does what only its operator may.

See what it does
${lookUsage}

Tenants and keys
  tallylight tenants create NAME
  tallylight tenants list
  tallylight keys create --tenant NAME --roles ROLES [--name TEXT] [--many-tenants]
      prints the key, this once; roles with commas between them: ${roles.join(', ')}; --many-tenants: whoever
      holds it may name the tenant of each record
  tallylight keys list
  tallylight keys rotate ID [--grace-seconds N]
      prints a key that takes its place; the old one stays valid for the grace
  tallylight keys revoke ID

Records
  tallylight erase --tenant NAME --user ID | --conversation ID [--dry-run]
      deletes all there is of them, in both databases and the journals, and prints the proof; --dry-run counts
  tallylight erase list | show ID
  tallylight hold place --tenant NAME [--user ID | --conversation ID] --reason TEXT
      keeps their records past their retention, until it is released
  tallylight hold list [--all]
  tallylight hold release ID
  tallylight retention apply [--dry-run]
      gives what is stored already the retention of tallylight.json, after a restart of the collector with it
  tallylight reprice [--from TIME] [--to TIME] [--tenant NAME]
      gives calls that had no price the one that is known by now; one of tallylight.json after a restart

Examples
  tallylight doctor --grafana /etc/grafana/provisioning
  tallylight keys create --tenant acme --roles ingest,quota --name 'chat in production'
  tallylight erase --tenant acme --user ada --dry-run

In a checkout it is called as npm run --silent tallylight -- doctor.

Which collector: the one on this machine whose data directory is TALLYLIGHT_DATA_DIR (./data), or the one whose API port is at
TALLYLIGHT_URL, asked with the admin key TALLYLIGHT_KEY. Lists are JSON, a line each.
Exit codes: 0 done; 1 it could not be done, or the doctor found something; 2 the words are off.`

const options = {
  tenant: { type: 'string' },
  roles: { type: 'string' },
  name: { type: 'string' },
  'many-tenants': { type: 'boolean' },
  'grace-seconds': { type: 'string' },
  user: { type: 'string' },
  conversation: { type: 'string' },
  reason: { type: 'string' },
  from: { type: 'string' },
  to: { type: 'string' },
  all: { type: 'boolean' },
  'dry-run': { type: 'boolean' },
} as const

type Api = {
  readonly url: string
  readonly key: string
  /** The file that the key is from. */
  readonly keyPath?: string
}
type Json = Readonly<Record<string, unknown>>
type Asked = {
  readonly values: ReturnType<typeof readArguments>['values']
  readonly id: string | undefined
}
type Command = (api: Api, asked: Asked) => Promise<number>
const pollMs = 250

const commands: Readonly<Record<string, Command>> = {
  'tenants create': async (api, { id }) => {
    const tenant = needed(id, 'tenants create needs a name')
    const before = await tenantsOf(api)
    print(await call(api, 'POST', '/tenants', { tenant }))
    sayWhenSecond(before, tenant)
    return 0
  },
  'tenants list': (api) => printList(api, '/tenants', 'tenants'),
  'keys create': createKey,
  'keys list': (api) => printList(api, '/keys', 'keys'),
  'keys rotate': rotateKey,
  'keys revoke': async (api, { id }) => {
    await call(api, 'DELETE', `/keys/${encodeURIComponent(needed(id, 'keys revoke needs the id of a key'))}`)
    return 0
  },
  erase,
  'erase list': (api) => printList(api, '/erasures', 'erasures'),
  'erase show': async (api, { id }) => {
    print(
      await call(api, 'GET', `/erasures/${encodeURIComponent(needed(id, 'erase show needs the id of an erasure'))}`),
    )
    return 0
  },
  'hold place': async (api, { values }) => {
    const { tenant, reason } = values
    if (tenant === undefined || reason === undefined) throw new Misused('hold place needs --tenant and --reason')
    print(await call(api, 'POST', '/holds', { tenant, reason, ...whose(values) }))
    return 0
  },
  'hold list': (api, { values }) => printList(api, values.all === true ? '/holds?all=1' : '/holds', 'holds'),
  'hold release': async (api, { id }) => {
    print(await call(api, 'DELETE', `/holds/${encodeURIComponent(needed(id, 'hold release needs the id of a hold'))}`))
    return 0
  },
  'retention apply': async (api, { values }) => {
    if (values['dry-run'] !== true) return finish(api, '/retention/apply', {})
    print(await call(api, 'POST', '/retention/apply', { dryRun: true }))
    return 0
  },
  reprice: (api, { values: { from, to, tenant } }) =>
    finish(api, '/reprice', {
      ...(from === undefined ? {} : { from }),
      ...(to === undefined ? {} : { to }),
      ...(tenant === undefined ? {} : { tenant }),
    }),
}

/** The options that a command reads, and `ID` where it takes one. Anything else would be ignored: `keys revoke A B` would
 *  leave B valid, and `reprice --dry-run` would write. */
const taken: Readonly<Record<string, readonly (keyof typeof options | 'ID')[]>> = {
  'tenants create': ['ID'],
  'keys create': ['tenant', 'roles', 'name', 'many-tenants'],
  'keys rotate': ['ID', 'grace-seconds'],
  'keys revoke': ['ID'],
  erase: ['tenant', 'user', 'conversation', 'dry-run'],
  'erase show': ['ID'],
  'hold place': ['tenant', 'user', 'conversation', 'reason'],
  'hold list': ['all'],
  'hold release': ['ID'],
  'retention apply': ['dry-run'],
  reprice: ['from', 'to', 'tenant'],
}

try {
  process.exitCode = await main(process.argv.slice(2))
} catch (error) {
  const isMisused =
    // Of a TimeoutError the code is a number.
    error instanceof Misused || String((error as { readonly code?: unknown }).code).startsWith('ERR_PARSE_ARGS')
  console.error(
    isMisused ? `tallylight: ${(error as Error).message}\n${usage}` : `tallylight: ${(error as Error).message}`,
  )
  process.exitCode = isMisused ? 2 : 1
}

function readArguments(args: readonly string[]) {
  return parseArgs({ args: [...args], allowPositionals: true, options })
}

async function main(args: readonly string[]): Promise<number> {
  if (args.includes('--help') || args.includes('-h')) {
    console.log(usage)
    return 0
  }
  const looked = await look(args, process.env)
  if (looked !== undefined) return looked
  const { values, positionals } = readArguments(args)
  const [noun, verb, id, more] = positionals
  if (noun === undefined) throw new Misused('say what to do')
  const name = verb === undefined ? noun : `${noun} ${verb}`
  const command = Object.hasOwn(commands, name) ? commands[name] : undefined
  if (command === undefined) throw new Misused(`there is no command ${name}`)
  const takes = taken[name] ?? []
  const surplus = takes.includes('ID') ? more : id
  if (surplus !== undefined) throw new Misused(`${name} does not take the word ${surplus}`)
  const unread = Object.keys(values).find((option) => !takes.some((each) => each === option))
  if (unread !== undefined) throw new Misused(`${name} does not take --${unread}`)
  return command(await findApi(), { values, id })
}

async function createKey(api: Api, { values }: Asked): Promise<number> {
  if (values.tenant === undefined || values.roles === undefined)
    throw new Misused('keys create needs --tenant and --roles')
  const wanted = {
    tenant: values.tenant,
    roles: values.roles.split(','),
    name: values.name ?? '',
    manyTenants: values['many-tenants'] === true,
  }
  const before = await tenantsOf(api)
  const made = (await call(api, 'POST', '/keys', wanted)) as { readonly id: string; readonly key: string }
  console.log(made.key)
  sayWhenSecond(before, wanted.tenant)
  console.error(`tallylight: key ${made.id} of tenant ${wanted.tenant}; its text is shown only now`)
  return 0
}

async function tenantsOf(api: Api): Promise<readonly string[]> {
  const { tenants } = (await call(api, 'GET', '/tenants')) as {
    readonly tenants: readonly { readonly tenant: string }[]
  }
  return tenants.map(({ tenant }) => tenant)
}

/** Services that ran without a key are refused from then on: better said here than found in their logs. */
function sayWhenSecond(before: readonly string[], tenant: string | undefined): void {
  if (before.length === 1 && before[0] !== tenant)
    console.error(`tallylight: ${tenant} is the second tenant: from now on no request without a key is let in`)
}

async function rotateKey(api: Api, { values, id }: Asked): Promise<number> {
  const path = `/keys/${encodeURIComponent(needed(id, 'keys rotate needs the id of a key'))}/rotate`
  const grace = values['grace-seconds']
  // An empty text is what a variable says that was never set, and 0 would end the old key now.
  if (grace !== undefined && !/^\d+$/.test(grace)) throw new Misused('--grace-seconds takes a whole number')
  const made = (await call(api, 'POST', path, grace === undefined ? {} : { graceSeconds: Number(grace) })) as {
    readonly id: string
    readonly key: string
    readonly oldKeyExpiresAt: string
  }
  console.log(made.key)
  console.error(`tallylight: key ${made.id} takes the place of ${id}, which is valid until ${made.oldKeyExpiresAt}`)
  await keepOwn(id, made.key)
  return 0
}

/** The key that the commands on this machine ask with must not be over before it is replaced in its file. */
async function keepOwn(id: string | undefined, key: string): Promise<void> {
  const path = ownKeyPath()
  try {
    const present = await readIfPresent(path)
    if (present === undefined || parseKeyId(present.trim()) !== id) return
    const { uid, gid } = await stat(path)
    await writePrivateFile(path, key)
    // Written by root, it would be unreadable to the collector at its next start.
    if (uid !== process.getuid?.()) await chown(path, uid, gid)
    console.error(`tallylight: it was written to ${path}, where the old one was`)
  } catch (error) {
    throw new Error(`the new key could not be written to ${path}: write it there by hand`, { cause: error })
  }
}

/** Of a collector on this machine. */
function ownDirectory(): string {
  return resolve(process.env.TALLYLIGHT_DATA_DIR ?? './data')
}

function ownKeyPath(): string {
  return join(ownDirectory(), 'admin.key')
}

/** Waits for the end, and prints the proof. */
async function erase(api: Api, { values }: Asked): Promise<number> {
  const { tenant } = values
  if (tenant === undefined) throw new Misused('erase needs --tenant')
  const wanted = { tenant, ...whose(values) }
  if (values['dry-run'] === true) {
    const counted = (await call(api, 'POST', '/erasures', { ...wanted, dryRun: true })) as { readonly rows: Json }
    print(counted)
    if (Object.keys(counted.rows).length === 0) console.error('tallylight: nothing was found that would be erased')
    return 0
  }
  const { id } = (await call(api, 'POST', '/erasures', wanted)) as { readonly id: string }
  console.error(
    `tallylight: erasure ${id} has begun; it goes on when this command is ended (tallylight erase show ${id})`,
  )
  for (;;) {
    const erasure = (await call(api, 'GET', `/erasures/${id}`)) as Json
    if (erasure.finishedAt !== undefined) {
      print(erasure)
      if (erasure.reason !== undefined) console.error(`tallylight: ${String(erasure.reason)}`)
      return erasure.state === 'done' ? 0 : 1
    }
    await delay(pollMs)
  }
}

/** Begins what takes its time, and waits for its end. */
async function finish(api: Api, path: string, body: Json): Promise<number> {
  await call(api, 'POST', path, body)
  for (;;) {
    const { state, result, reason } = (await call(api, 'GET', path)) as Json
    if (state === 'failed') throw new Error(`the collector could not finish: ${String(reason)}`)
    if (state === 'done') {
      print(result)
      return 0
    }
    // Of several collectors behind one address the one that was asked may be another; one that was restarted has no memory of it.
    if (state !== 'running')
      throw new Error(`the collector at ${api.url} knows nothing of it: it was restarted, or is another than was asked`)
    await delay(pollMs)
  }
}

function whose({ user, conversation }: Asked['values']): Json {
  return { ...(user === undefined ? {} : { user }), ...(conversation === undefined ? {} : { conversation }) }
}

function needed(id: string | undefined, message: string): string {
  if (id === undefined) throw new Misused(message)
  return id
}

async function printList(api: Api, path: string, field: string): Promise<number> {
  const answer = (await call(api, 'GET', path)) as Readonly<Record<string, readonly unknown[]>>
  for (const each of answer[field] ?? []) print(each)
  return 0
}

function print(value: unknown): void {
  console.log(JSON.stringify(value))
}

async function findApi(): Promise<Api> {
  const { TALLYLIGHT_URL: url, TALLYLIGHT_KEY: key } = process.env
  if (url !== undefined) {
    if (key === undefined) throw new Misused('TALLYLIGHT_URL goes with TALLYLIGHT_KEY')
    return { url: url.replace(/\/$/, ''), key }
  }
  const found = await findRun(ownDirectory())
  if (found.kind === 'none') throw new Error(found.why)
  return {
    url: `http://127.0.0.1:${found.run.ports.api}`,
    key: (await readFile(ownKeyPath(), 'utf8')).trim(),
    keyPath: ownKeyPath(),
  }
}

async function call(api: Api, method: string, path: string, body?: unknown): Promise<unknown> {
  const response = await fetch(`${api.url}/api/v1${path}`, {
    method,
    headers: { Authorization: `Bearer ${api.key}`, 'Content-Type': 'application/json' },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  }).catch((cause: Error) => {
    const { code, message } = (cause.cause ?? cause) as { readonly code?: string; readonly message?: string }
    throw new Error(`the collector at ${api.url} does not answer (${code ?? message})`, { cause })
  })
  const text = await response.text()
  if (!response.ok) {
    const detail = detailIn(text)
    const wayOut =
      response.status === 401 && api.keyPath !== undefined
        ? `; it is that of ${api.keyPath}: with no other key left, rm ${api.keyPath}, and restart the collector, which makes one`
        : ''
    throw new Error(`the collector answered ${response.status}: ${detail}${wayOut}`)
  }
  try {
    return text === '' ? undefined : JSON.parse(text)
  } catch (cause) {
    throw new Error(`there is no collector's API at ${api.url}: it answers ${response.status} and no JSON`, { cause })
  }
}

/** What stands in front of a collector answers with pages. */
function detailIn(text: string): string {
  try {
    const { detail } = JSON.parse(text) as { readonly detail?: unknown }
    return typeof detail === 'string' ? detail : text
  } catch {
    return text.slice(0, 200)
  }
}
