// What the collector is told by environment variables. One table holds every name, and anything with our prefix that is not in it
// is refused: a misspelt limit must not be a limit that is not there.
import { isIP } from 'node:net'
import { instead } from './did-you-mean.ts'
import { isLoopback as isLoopbackAddress } from './receive/receiver.ts'

export type EnvironmentName = {
  readonly name: string
  readonly default: string
  readonly why: string
}

export const environmentNames: readonly EnvironmentName[] = [
  { name: 'DATA_DIR', default: './data', why: 'where the journal, the embedded engines and the keys are' },
  { name: 'CONFIG', default: './tallylight.json', why: 'the configuration file; it may be missing unless it is named' },
  {
    name: 'BIND',
    default: '127.0.0.1',
    why: 'the address of the OTLP and API ports; another than loopback needs keys and TLS',
  },
  { name: 'OTLP_GRPC_PORT', default: '4317', why: 'OTLP/gRPC; 0 picks a free one' },
  { name: 'OTLP_HTTP_PORT', default: '4318', why: 'OTLP/HTTP; 0 picks a free one' },
  { name: 'API_PORT', default: '4319', why: 'health, metrics, keys; 0 picks a free one' },
  { name: 'PROXY_PORT', default: '4320', why: 'the provider proxy; 0 picks a free one' },
  {
    name: 'CLICKHOUSE_PORT',
    default: '8123',
    why: 'HTTP of the embedded ClickHouse, loopback only; 0 picks a free one',
  },
  { name: 'POSTGRES_PORT', default: '5433', why: 'the embedded Postgres, loopback only; 0 picks a free one' },
  {
    name: 'CLICKHOUSE_URL',
    default: '',
    why: 'a ClickHouse of your own, http(s)://user:password@host:port/database; nothing is embedded then',
  },
  { name: 'POSTGRES_URL', default: '', why: 'a Postgres of your own; nothing is embedded then' },
  { name: 'REQUIRE_KEYS', default: '', why: '1 asks for a key on loopback too' },
  { name: 'TLS_CERT', default: '', why: 'PEM file of the certificate, for every port' },
  { name: 'TLS_KEY', default: '', why: 'PEM file of its key' },
  { name: 'TLS_CLIENT_CA', default: '', why: 'PEM file of the authority whose clients are let in' },
  {
    name: 'SELF_CHECK_MS',
    default: '60000',
    why: 'how often the collector probes itself and writes its own numbers into its tables, as tenant `tallylight`; 0 is never',
  },
  { name: 'ALLOW_PLAINTEXT', default: '', why: '1 lets another address than loopback go without TLS' },
]

/** Names that belong to instrumented services, which may run with the same environment. */
const serviceNames = ['URL', 'KEY', 'CONTENT', 'QUOTA', 'MCP']
const prefix = 'TALLYLIGHT_'

export type Config = {
  readonly dataDirectory: string
  readonly configPath: string
  readonly isConfigNamed: boolean
  readonly bind: string
  readonly ports: {
    readonly otlpGrpc: number
    readonly otlpHttp: number
    readonly api: number
    readonly proxy: number
    readonly clickhouse: number
    readonly postgres: number
  }
  readonly clickhouseUrl: string | undefined
  readonly postgresUrl: string | undefined
  readonly requireKeys: boolean
  /** 0 is never. */
  readonly selfCheckMs: number
  readonly tls:
    | { readonly certPath: string; readonly keyPath: string; readonly clientCaPath: string | undefined }
    | undefined
}

export type ReadConfig =
  | { readonly kind: 'config'; readonly config: Config }
  | { readonly kind: 'refused'; readonly reasons: readonly string[] }

/** Reads the environment. Every reason is told at once, not one per start. */
export function readConfig(environment: Readonly<Record<string, string | undefined>>): ReadConfig {
  const reasons: string[] = []
  const known = new Set([...environmentNames.map(({ name }) => name), ...serviceNames])
  for (const name of Object.keys(environment)) {
    if (name.startsWith(prefix) && !known.has(name.slice(prefix.length)))
      reasons.push(
        `${name} is not known${instead(
          name,
          environmentNames.map((each) => prefix + each.name),
        )}`,
      )
  }
  const get = (name: string): string =>
    environment[prefix + name]?.trim() || (environmentNames.find((each) => each.name === name)?.default ?? '')
  const port = (name: string): number => {
    const text = get(name)
    const value = Number(text)
    if (/^\d{1,5}$/.test(text) && value <= 65_535) return value
    reasons.push(`${prefix}${name} is a port from 0 to 65535, not ${JSON.stringify(text)}`)
    return 0
  }
  const flag = (name: string): boolean => {
    const text = get(name)
    if (text !== '' && text !== '0' && text !== '1')
      reasons.push(`${prefix}${name} is 1 or 0, not ${JSON.stringify(text)}`)
    return text === '1'
  }
  const selfCheck = get('SELF_CHECK_MS')
  if (!/^\d{1,9}$/.test(selfCheck))
    reasons.push(`${prefix}SELF_CHECK_MS is whole milliseconds, not ${JSON.stringify(selfCheck)}`)
  const ports = {
    otlpGrpc: port('OTLP_GRPC_PORT'),
    otlpHttp: port('OTLP_HTTP_PORT'),
    api: port('API_PORT'),
    proxy: port('PROXY_PORT'),
    clickhouse: port('CLICKHOUSE_PORT'),
    postgres: port('POSTGRES_PORT'),
  }
  const certPath = get('TLS_CERT')
  const keyPath = get('TLS_KEY')
  const clientCaPath = get('TLS_CLIENT_CA')
  if ((certPath === '') !== (keyPath === '')) reasons.push(`${prefix}TLS_CERT and ${prefix}TLS_KEY go together`)
  if (clientCaPath !== '' && certPath === '')
    reasons.push(`${prefix}TLS_CLIENT_CA needs ${prefix}TLS_CERT and ${prefix}TLS_KEY`)
  const bind = get('BIND')
  // A name may lead anywhere, and elsewhere tomorrow; whether keys and TLS are needed must be known now.
  if (isIP(bind) === 0 && bind !== 'localhost')
    reasons.push(`${prefix}BIND is an IP address or localhost, not ${JSON.stringify(bind)}`)
  const isLoopback = bind === 'localhost' || isLoopbackAddress(bind)
  const allowsPlaintext = flag('ALLOW_PLAINTEXT')
  if (isIP(bind) !== 0 && !isLoopback && certPath === '' && !allowsPlaintext) {
    reasons.push(
      `${prefix}BIND=${bind} is reachable from elsewhere: set ${prefix}TLS_CERT and ${prefix}TLS_KEY, or ${prefix}ALLOW_PLAINTEXT=1`,
    )
  }
  const requireKeys = flag('REQUIRE_KEYS') || !isLoopback
  const url = (name: string, protocols: readonly string[]): string | undefined => {
    const text = get(name)
    // Never shown: it holds a password.
    if (text !== '' && !protocols.includes(URL.parse(text)?.protocol ?? ''))
      reasons.push(
        `${prefix}${name} is not a URL that begins with ${protocols.map((each) => `${each}//`).join(' or ')}`,
      )
    return text || undefined
  }
  const clickhouseUrl = url('CLICKHOUSE_URL', ['http:', 'https:'])
  // That of Postgres is decoded by `pg`, which takes such a % for itself.
  if (!isDecodable(clickhouseUrl ?? ''))
    reasons.push(`${prefix}CLICKHOUSE_URL has a % that begins no escape: in a name or password it is written %25`)
  const postgresUrl = url('POSTGRES_URL', ['postgres:', 'postgresql:'])
  if (reasons.length > 0) return { kind: 'refused', reasons }
  return {
    kind: 'config',
    config: {
      dataDirectory: get('DATA_DIR'),
      configPath: get('CONFIG'),
      isConfigNamed: (environment[`${prefix}CONFIG`] ?? '') !== '',
      bind,
      ports,
      clickhouseUrl,
      postgresUrl,
      requireKeys,
      selfCheckMs: Number(selfCheck),
      tls: certPath === '' ? undefined : { certPath, keyPath, clientCaPath: clientCaPath || undefined },
    },
  }
}

function isDecodable(text: string): boolean {
  try {
    decodeURIComponent(text)
    return true
  } catch {
    return false
  }
}
