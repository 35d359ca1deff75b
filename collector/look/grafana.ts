// `tallylight grafana provision DIR`: a provisioning folder for a Grafana on this machine, pointing at the collector that runs
// here. It reads with a key of its own, made once and kept in the folder: with the role query, for all tenants, and no more.
import { mkdir, writeFile } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { writeProvisioning } from '@tallylight/dashboards/provision.ts'
import { readIfPresent } from '@tallylight/storage/private-file.ts'
import { ledgerAddress, type Place } from './place.ts'

export async function provisionGrafana(
  place: Place,
  options: {
    readonly directory: string
    readonly pageUrl: string
    readonly ticketEmail: string
    readonly hasPolicies: boolean
  },
): Promise<readonly string[]> {
  const { run, config } = place
  const address = await ledgerAddress(place)
  if (run === undefined || address === undefined)
    throw new Error(place.whyNoRun || `the ledger of ${place.directory} cannot be read: there is no postgres.key`)
  const directory = resolve(options.directory)
  const clickhouse = config.clickhouseUrl === undefined ? undefined : new URL(config.clickhouseUrl)
  const ledger = new URL(address)
  return writeProvisioning(directory, {
    clickhouse:
      clickhouse === undefined
        ? {
            ...{ host: '127.0.0.1', port: String(run.ports.clickhouse), database: 'tallylight', isTls: false },
            ...{ user: 'tallylight', password: literal(await readerKey(place, directory)) },
          }
        : {
            host: clickhouse.hostname,
            port: clickhouse.port || (clickhouse.protocol === 'https:' ? '443' : '80'),
            database: decodeURIComponent(clickhouse.pathname.slice(1)) || 'tallylight',
            isTls: clickhouse.protocol === 'https:',
            user: decodeURIComponent(clickhouse.username),
            password: literal(decodeURIComponent(clickhouse.password)),
          },
    postgres: {
      host: ledger.hostname,
      port: ledger.port || '5432',
      database: decodeURIComponent(ledger.pathname.slice(1)),
      user: decodeURIComponent(ledger.username),
      password: literal(decodeURIComponent(ledger.password)),
    },
    runbooksUrl: `${place.url}/runbooks`,
    whom: { pageUrl: literal(options.pageUrl), ticketEmail: literal(options.ticketEmail) },
    hasPolicies: options.hasPolicies,
  })
}

/** Grafana takes what stands behind a dollar for the name of a variable. */
function literal(text: string): string {
  return text.replaceAll('$', '$$$$')
}

async function readerKey(place: Place, directory: string): Promise<string> {
  const path = join(directory, 'clickhouse.key')
  const kept = (await readIfPresent(path))?.trim()
  if (kept !== undefined) return kept
  const response = await fetch(`${place.url}/api/v1/keys`, {
    method: 'POST',
    headers: { Authorization: `Bearer ${place.adminKey}`, 'Content-Type': 'application/json' },
    body: JSON.stringify({ tenant: 'default', roles: ['query'], manyTenants: true, name: 'Grafana' }),
  })
  if (response.status !== 201) throw new Error(`no key was made for Grafana: the collector answered ${response.status}`)
  const { key } = (await response.json()) as { readonly key: string }
  await mkdir(directory, { recursive: true, mode: 0o700 })
  await writeFile(path, `${key}\n`, { mode: 0o600 })
  return key
}
