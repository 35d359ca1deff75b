// The command `tallylight`: speaks to the API of a running collector, here or elsewhere. An entry point, so it
// reads the environment: TALLYLIGHT_URL and TALLYLIGHT_KEY, or else the data directory of a collector on this machine.
import { readFile } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { look, lookUsage } from './look/look.ts'
import { roles } from './receive/key-rules.ts'

const usage = `usage:
${lookUsage}
  tallylight keys create --tenant NAME --roles ${roles.join(',')} [--name TEXT] [--many-tenants]
  tallylight keys list
  tallylight keys revoke ID

The collector is the one whose data directory is TALLYLIGHT_DATA_DIR (./data), or the one whose API port is at
TALLYLIGHT_URL, asked with the admin key TALLYLIGHT_KEY.`

type Api = { readonly url: string; readonly key: string }
/** The call's words are off: answered with the usage and exit code 2. */
class Misused extends Error {}

try {
  process.exitCode = await main(process.argv.slice(2))
} catch (error) {
  const isMisused =
    error instanceof Misused || (error as { readonly code?: string }).code?.startsWith('ERR_PARSE_ARGS') === true
  console.error(
    isMisused ? `tallylight: ${(error as Error).message}\n${usage}` : `tallylight: ${(error as Error).message}`,
  )
  process.exitCode = isMisused ? 2 : 1
}

async function main(args: readonly string[]): Promise<number> {
  const looked = await look(args, process.env)
  if (looked !== undefined) return looked
  const { values, positionals } = parseArgs({
    args: [...args],
    allowPositionals: true,
    options: {
      tenant: { type: 'string' },
      roles: { type: 'string' },
      name: { type: 'string' },
      'many-tenants': { type: 'boolean' },
      help: { type: 'boolean', short: 'h' },
    },
  })
  if (values.help === true) {
    console.log(usage)
    return 0
  }
  const [noun, verb, id] = positionals
  if (noun !== 'keys') throw new Misused(noun === undefined ? 'say what to do' : `there is no command ${noun}`)
  const api = await findApi()
  switch (verb) {
    case 'create': {
      if (values.tenant === undefined || values.roles === undefined)
        throw new Misused('keys create needs --tenant and --roles')
      const wanted = {
        tenant: values.tenant,
        roles: values.roles.split(','),
        name: values.name ?? '',
        manyTenants: values['many-tenants'] === true,
      }
      const made = (await call(api, 'POST', '/keys', wanted)) as { readonly id: string; readonly key: string }
      console.log(made.key)
      console.error(`tallylight: key ${made.id} of tenant ${wanted.tenant}; its text is shown only now`)
      return 0
    }
    case 'list': {
      const { keys } = (await call(api, 'GET', '/keys')) as {
        readonly keys: readonly Readonly<Record<string, unknown>>[]
      }
      for (const key of keys) console.log(JSON.stringify(key))
      return 0
    }
    case 'revoke':
      if (id === undefined) throw new Misused('keys revoke needs the id of a key')
      await call(api, 'DELETE', `/keys/${encodeURIComponent(id)}`)
      return 0
    default:
      throw new Misused(verb === undefined ? 'keys what?' : `there is no command keys ${verb}`)
  }
}

async function findApi(): Promise<Api> {
  const { TALLYLIGHT_URL: url, TALLYLIGHT_KEY: key, TALLYLIGHT_DATA_DIR: directory = './data' } = process.env
  if (url !== undefined) {
    if (key === undefined) throw new Misused('TALLYLIGHT_URL goes with TALLYLIGHT_KEY')
    return { url: url.replace(/\/$/, ''), key }
  }
  const path = join(resolve(directory), 'run.json')
  let run: { readonly ports: { readonly api: number } }
  try {
    run = JSON.parse(await readFile(path, 'utf8')) as typeof run
  } catch (cause) {
    throw new Error(
      `no collector runs on ${resolve(directory)} (${path} cannot be read); start one with npm start, or set TALLYLIGHT_URL`,
      { cause },
    )
  }
  return {
    url: `http://127.0.0.1:${run.ports.api}`,
    key: (await readFile(join(resolve(directory), 'admin.key'), 'utf8')).trim(),
  }
}

async function call(api: Api, method: string, path: string, body?: unknown): Promise<unknown> {
  const response = await fetch(`${api.url}/api/v1${path}`, {
    method,
    headers: { Authorization: `Bearer ${api.key}`, 'Content-Type': 'application/json' },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  })
  const text = await response.text()
  if (!response.ok) {
    const { detail } = JSON.parse(text || '{}') as { readonly detail?: string }
    throw new Error(`the collector answered ${response.status}: ${detail ?? text}`)
  }
  return text === '' ? undefined : JSON.parse(text)
}
