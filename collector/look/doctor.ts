// `tallylight doctor`: looks at one thing after the other and says what is wrong and how it is mended. It changes nothing but
// by the one probe that it sends through a running collector. What cannot be looked at because something before is wrong is
// not judged.
import { access, constants, readFile, stat, statfs } from 'node:fs/promises'
import { join } from 'node:path'
import { checkProvisioning } from '@tallylight/dashboards/provision.ts'
import type { ClickHouse } from '@tallylight/storage/clickhouse/client.ts'
import { quoteName } from '@tallylight/storage/clickhouse/schema.ts'
import { schemaDifferences } from '@tallylight/storage/clickhouse/schema-dump.ts'
import { isFreePort } from '@tallylight/storage/free-port.ts'
import { takenPort } from '@tallylight/storage/port-owner.ts'
import { columnDifferences } from '@tallylight/storage/postgres/schema-dump.ts'
import { readIfPresent } from '@tallylight/storage/private-file.ts'
import pg from 'pg'
import { parseConfigFile } from '../config.ts'
import { limits } from '../limits.ts'
import { type Environment, findPlace, ledgerAddress, openTables, type Place } from './place.ts'
import { readMetrics, refusalsIn } from './tail.ts'

export type Finding = {
  readonly about: string
  readonly is: 'good' | 'wrong' | 'unknown'
  readonly what: string
  /** The command or setting that mends it. */
  readonly mend?: string
}

const nodeMajorMin = 24
/** Of compose.yaml. */
const clickhouseMin = [26, 3] as const
const postgresMin = [18, 0] as const
const clockSecondsMax = 2
const differencesShownMax = 10
const filesShownMax = 3
/** As it is called in a checkout. */
const command = 'npm run --silent tallylight --'
const answerMsMax = 5_000

const good = (about: string, what: string): Finding => ({ about, is: 'good', what })
const wrong = (about: string, what: string, mend: string): Finding => ({ about, is: 'wrong', what, mend })
const unknown = (about: string, what: string, mend: string): Finding => ({ about, is: 'unknown', what, mend })

export async function examine(options: {
  readonly environment: Environment
  readonly version: string
  /** A provisioning folder of a Grafana. */
  readonly grafana: string | undefined
  readonly now: () => number
}): Promise<readonly Finding[]> {
  const findings: Finding[] = [checkNode(process.versions.node)]
  const place = await findPlace(options.environment)
  if ('reasons' in place)
    return [...findings, ...place.reasons.map((reason) => wrong('settings', reason, 'correct the environment'))]
  findings.push(await checkFile(place), ...(await checkDirectory(place)))
  // A probe waits half a minute for stores that do not answer, so they are asked first.
  const stores = [await checkTables(place, options.now), await checkLedger(place, options.now)]
  const silent = stores.flatMap(({ silent: name }) => name ?? [])
  const isAsked = place.run !== undefined || place.isNamed
  findings.push(...(isAsked ? await checkRunning(place, { ...options, silent }) : await checkPorts(place)))
  findings.push(...stores.flatMap((store) => store.findings))
  if (options.grafana !== undefined) findings.push(...(await checkGrafana(options.grafana, place)))
  return findings
}

function checkNode(version: string): Finding {
  if (Number(version.split('.')[0]) >= nodeMajorMin) return good('node', `version ${version}`)
  return wrong('node', `version ${version}; ${nodeMajorMin} or newer is needed`, `run it with ${command} doctor`)
}

async function checkFile({ config }: Place): Promise<Finding> {
  const text = await readIfPresent(config.configPath)
  if (text === undefined) {
    return config.isConfigNamed
      ? wrong('configuration', `${config.configPath} is not there`, 'make it, or unset TALLYLIGHT_CONFIG')
      : good('configuration', 'none, so everything is as it is by default')
  }
  const parsed = parseConfigFile(text, config.configPath)
  if (parsed.kind === 'file') return good('configuration', `${config.configPath} is understood`)
  return wrong(
    'configuration',
    parsed.reasons.join('; '),
    `edit ${config.configPath}; collector/CONFIG.md lists the settings`,
  )
}

async function checkDirectory({ directory }: Place): Promise<readonly Finding[]> {
  const about = 'data directory'
  try {
    await access(directory, constants.R_OK | constants.W_OK)
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'ENOENT'
      ? [unknown(about, `${directory} is not there yet`, 'npm start makes it, or set TALLYLIGHT_DATA_DIR')]
      : [wrong(about, `${directory} cannot be written`, `chown -R $(id -u) ${directory}`)]
  }
  const findings: Finding[] = []
  for (const name of ['admin.key', 'postgres.key']) {
    const found = await stat(join(directory, name)).catch(() => undefined)
    if (found !== undefined && (found.mode & 0o077) !== 0)
      findings.push(wrong(about, `${name} can be read by others`, `chmod 600 ${join(directory, name)}`))
  }
  const { bavail, bsize, blocks } = await statfs(directory)
  const [free, reserve] = [
    bavail * bsize,
    Math.max(limits.volumeReserveBytes, blocks * bsize * limits.volumeReserveShare),
  ]
  findings.push(
    free > reserve * 2
      ? good('disk', `${gibibytes(free)} free, ${gibibytes(reserve)} kept in reserve`)
      : wrong(
          'disk',
          `${gibibytes(free)} free, and at ${gibibytes(reserve)} senders are refused`,
          'make room on the volume, or shorten retention in tallylight.json',
        ),
  )
  return findings
}

function gibibytes(bytes: number): string {
  return `${(bytes / 2 ** 30).toFixed(1)} GiB`
}

/** No collector runs: whether one could. */
async function checkPorts({ config }: Place): Promise<readonly Finding[]> {
  const { ports, bind, clickhouseUrl, postgresUrl } = config
  const wanted = Object.entries(ports).filter(
    ([name, port]) =>
      port !== 0 &&
      name !== 'proxy' &&
      !(name === 'clickhouse' && clickhouseUrl !== undefined) &&
      !(name === 'postgres' && postgresUrl !== undefined),
  )
  const findings: Finding[] = [wrong('collector', 'does not run here', 'npm start')]
  for (const [name, port] of wanted) {
    const host = name === 'clickhouse' || name === 'postgres' ? '127.0.0.1' : bind
    if (!(await isFreePort(host, port)))
      findings.push(
        wrong(
          'ports',
          await takenPort(host, port),
          `end that process, or set TALLYLIGHT_${environmentName(name)}_PORT`,
        ),
      )
  }
  return findings
}

function environmentName(port: string): string {
  return port.replaceAll(/[A-Z]/g, (letter) => `_${letter}`).toUpperCase()
}

async function checkRunning(
  place: Place,
  {
    version,
    now,
    silent,
  }: { readonly version: string; readonly now: () => number; readonly silent: readonly string[] },
): Promise<readonly Finding[]> {
  const api = place.url
  const findings: Finding[] = []
  const running = place.run?.versions.tallylight
  if (running !== undefined && running !== version)
    findings.push(wrong('versions', `the collector runs ${running}, this is ${version}`, 'restart the collector'))
  let ready: Response
  let missing: readonly string[]
  try {
    ready = await fetch(`${api}/readyz`, { signal: AbortSignal.timeout(answerMsMax) })
    missing = ((await ready.json()) as { readonly missing: readonly string[] }).missing
  } catch {
    return [
      ...findings,
      place.run === undefined
        ? wrong('collector', `none answers at ${api}`, 'look at TALLYLIGHT_URL, and at the log of the collector')
        : wrong(
            'collector',
            `process ${place.run.pid} does not answer at ${api}`,
            `look at its log; if it is gone: rm ${join(place.directory, 'run.json')} && npm start`,
          ),
    ]
  }
  findings.push(
    ready.ok
      ? good('collector', `ready at ${api}`)
      : wrong('collector', missing.join('; '), 'wait, then look at its log'),
  )
  findings.push(checkClock('the collector', Date.parse(ready.headers.get('date') ?? ''), now()))
  findings.push(...(await checkKeyAndProbe(place, silent)), ...(await checkMetrics(place)))
  return findings
}

async function checkMetrics(place: Place): Promise<readonly Finding[]> {
  const metrics = await readMetrics(place, AbortSignal.timeout(answerMsMax)).catch(() => undefined)
  if (metrics === undefined)
    return [wrong('senders', `${place.url}/metrics was not answered`, 'look at the log of the collector')]
  return [...checkInForce(metrics, place), checkSenders(metrics)]
}

/** A file that is understood may still hold limits that cannot be, of which only the collector knows. */
function checkInForce(metrics: string, { config }: Place): readonly Finding[] {
  if (!/^tallylight_config_refused 1$/m.test(metrics)) return []
  const what = `the collector cannot use what ${config.configPath} says; limits and probes are those from before`
  return [wrong('configuration', what, `its log says why; edit ${config.configPath}`)]
}

/** Most exporters do not say why they were refused. When it was is not known, so it may be over. */
function checkSenders(metrics: string): Finding {
  const refused = [...refusalsIn(metrics)].filter(([, count]) => count > 0)
  if (refused.length === 0) return good('senders', 'none was refused since the start')
  const what = refused.map(([reason, count]) => `${count} × ${reason}`).join(', ')
  return unknown(
    'senders',
    `refused since the start: ${what}`,
    `${command} tail, and docs/otlp.md, When nothing arrives`,
  )
}

function checkClock(whose: string, unixMs: number, nowUnixMs: number): Finding {
  const seconds = Math.abs(unixMs - nowUnixMs) / 1000
  // Seconds are cut off by whoever says the time.
  return seconds <= clockSecondsMax
    ? good('clocks', `that of ${whose} is this machine’s`)
    : wrong(
        'clocks',
        `that of ${whose} is off by ${Math.round(seconds)} s`,
        'let both follow NTP (timedatectl set-ntp true)',
      )
}

async function checkKeyAndProbe(place: Place, silent: readonly string[]): Promise<readonly Finding[]> {
  const key = await checkKey(place)
  if (key.is !== 'good') return [key]
  if (silent.length === 0) return [key, await checkProbe(place)]
  const what = `not tried, because ${silent.join(' and ')} ${silent.length === 1 ? 'does' : 'do'} not answer`
  return [key, unknown('write and read back', what, 'mend that first')]
}

async function checkKey(place: Place): Promise<Finding> {
  const anotherKey = 'set TALLYLIGHT_KEY to a key with the role admin that is not revoked'
  if (place.adminKey === undefined)
    return unknown('keys', `there is no ${join(place.directory, 'admin.key')}`, anotherKey)
  // Who may ask for a probe is told that it is asked for with POST.
  const status = await askProbe(place, 'GET', answerMsMax).then(
    (response) => response.status,
    () => undefined,
  )
  if (status === 405) return good('keys', 'the admin key is taken')
  if (status !== 401 && status !== 403)
    return wrong(
      'keys',
      status === undefined ? 'whether the admin key is taken was not answered' : `the admin key is answered ${status}`,
      'look at the log of the collector',
    )
  const another =
    status === 401 && place.adminKeyPath !== undefined
      ? `; with none left, rm ${place.adminKeyPath}, and restart the collector, which makes one`
      : ''
  return wrong('keys', `the admin key is answered ${status}`, `${anotherKey}${another}`)
}

function askProbe({ url, adminKey }: Place, method: 'GET' | 'POST', msMax: number): Promise<Response> {
  return fetch(`${url}/api/v1/probe`, {
    method,
    headers: { Authorization: `Bearer ${adminKey}` },
    signal: AbortSignal.timeout(msMax),
  })
}

async function checkProbe(place: Place): Promise<Finding> {
  const about = 'write and read back'
  const msMax = limits.canaryWaitMsMax + answerMsMax
  let answer: Response
  let probed: { readonly missing: readonly string[]; readonly reasons?: readonly string[]; readonly seconds?: number }
  try {
    answer = await askProbe(place, 'POST', msMax)
    probed = (await answer.json()) as typeof probed
  } catch (error) {
    return wrong(about, `the probe was not answered: ${shortly(error)}`, 'look at the log of the collector')
  }
  if (!answer.ok) return wrong(about, `the probe is answered ${answer.status}`, 'look at the log of the collector')
  const { missing, reasons = [], seconds } = probed
  if (missing.length === 0) return good(about, `a turn came back from both stores in ${seconds?.toFixed(1)} s`)
  const why = reasons.length > 0 ? ` (${reasons.join('; ')})` : ''
  return wrong(about, `not read back: ${missing.join(', ')}${why}`, 'dashboards/runbooks/canary-missing.md')
}

/** What is found of a store, and its name when it did not answer. */
type Store = { readonly findings: readonly Finding[]; readonly silent?: string }

/** There is no way to a store from here. */
function notReached(store: string, setting: string, place: Place, isInside: boolean): Store {
  if (place.run === undefined && !place.isNamed)
    return { findings: [unknown(store, 'is inside of the collector, which does not run', 'npm start')] }
  const mend = `set ${setting} as the collector has it`
  if (place.run === undefined)
    return { findings: [unknown(store, `is not looked at from here: ${setting} is not set`, mend)] }
  if (isInside)
    return {
      findings: [unknown(store, `is read with a key that is not in ${place.directory}`, 'set TALLYLIGHT_DATA_DIR')],
    }
  return {
    findings: [wrong(store, `is not inside of the collector that runs here, and ${setting} is not set here`, mend)],
  }
}

async function checkTables(place: Place, now: () => number): Promise<Store> {
  await using tables = openTables(place, answerMsMax)
  if (tables === undefined)
    return notReached('ClickHouse', 'TALLYLIGHT_CLICKHOUSE_URL', place, typeof place.run?.ports.clickhouse === 'number')
  try {
    const [said] = await tables.query<{ unixMs: string; version: string }>(
      'SELECT toUnixTimestamp64Milli(now64(3)) AS unixMs, version() AS version',
    )
    return {
      findings: [
        checkVersion('ClickHouse', said?.version ?? '', clickhouseMin),
        checkClock('ClickHouse', Number(said?.unixMs), now()),
        ...(await checkSchema(tables)),
      ],
    }
  } catch (error) {
    return silentStore('ClickHouse', 'TALLYLIGHT_CLICKHOUSE_URL', error)
  }
}

function silentStore(name: string, setting: string, error: unknown): Store {
  const mend = `look at the log of the collector, or at ${setting}`
  return { silent: name, findings: [wrong(name, `does not answer: ${shortly(error)}`, mend)] }
}

async function checkSchema(tables: ClickHouse): Promise<readonly Finding[]> {
  const differences = await schemaDifferences(tables)
  if (differences.length === 0) return [good('tables', 'all in ClickHouse are as this version makes them')]
  // A user's own tables are left as they are, on purpose; these differ by design.
  const [leftAlone] = await tables.query<{ names: readonly string[] }>(
    `SELECT groupUniqArrayArray(left_alone) AS names FROM ${quoteName(tables.database)}.schema_migrations WHERE number = 0`,
  )
  const own = new Set(leftAlone?.names ?? [])
  const foreign = differences.filter(({ table }) => !own.has(table))
  if (foreign.length === 0)
    return [good('tables', `ours are as this version makes them; ${[...own].join(', ')} are your own`)]
  return shown('tables', foreign)
}

async function checkLedger(place: Place, now: () => number): Promise<Store> {
  const address = await ledgerAddress(place)
  if (address === undefined)
    return notReached('Postgres', 'TALLYLIGHT_POSTGRES_URL', place, typeof place.run?.ports.postgres === 'number')
  const client = new pg.Client({ connectionString: address, connectionTimeoutMillis: answerMsMax })
  try {
    await client.connect()
    const { rows } = await client.query<{ ms: string; version: string }>(
      `select extract(epoch from now()) * 1000 as ms, current_setting('server_version') as version`,
    )
    const differences = await columnDifferences(client)
    return {
      findings: [
        checkVersion('Postgres', rows[0]?.version ?? '', postgresMin),
        checkClock('Postgres', Number(rows[0]?.ms), now()),
        ...(differences.length === 0
          ? [good('ledger', 'all in Postgres is as this version makes it')]
          : shown('ledger', differences)),
      ],
    }
  } catch (error) {
    return silentStore('Postgres', 'TALLYLIGHT_POSTGRES_URL', error)
  } finally {
    await client.end()
  }
}

async function checkGrafana(directory: string, place: Place): Promise<readonly Finding[]> {
  const differences = await checkProvisioning(directory, `${place.url}/runbooks`)
  if (differences.length === 0) return [good('grafana', `${directory} is what this version writes`)]
  const rest = differences.length - filesShownMax
  const what = [...differences.slice(0, filesShownMax), ...(rest > 0 ? [`and ${rest} more`] : [])].join('; ')
  return [wrong('grafana', what, `${command} grafana provision ${directory}`)]
}

function shown(
  about: string,
  differences: readonly { readonly what: string; readonly mend: string }[],
): readonly Finding[] {
  const rest = differences.length - differencesShownMax
  return [
    ...differences.slice(0, differencesShownMax).map(({ what, mend }) => wrong(about, what, mend)),
    ...(rest > 0 ? [wrong(about, `and ${rest} more`, 'mend these, and look again')] : []),
  ]
}

/** Older ones may do; nobody has tried. */
function checkVersion(of: string, version: string, least: readonly [major: number, minor: number]): Finding {
  const [major = 0, minor = 0] = version.split('.').map(Number)
  const isTried = major > least[0] || (major === least[0] && minor >= least[1])
  if (isTried) return good('versions', `${of} ${version}`)
  const what = `${of} is ${version}, and nothing older than ${least.join('.')} was tried`
  return unknown('versions', what, 'update it; compose.yaml names versions that do')
}

/** Without what an address may hold. */
function shortly(error: unknown): string {
  const { message, code } = error as { readonly message?: string; readonly code?: unknown }
  return (message || String(code ?? 'no reason given')).slice(0, 200)
}

export async function versionOf(): Promise<string> {
  const text = await readFile(new URL('../package.json', import.meta.url), 'utf8')
  return (JSON.parse(text) as { readonly version: string }).version
}
