// What the collector is told from outside: environment variables and a JSON file. One table holds every name, and anything
// with our prefix that is not in it is refused: a misspelt limit must not be a limit that is not there.
import { z } from 'zod'

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
  { name: 'ALLOW_PLAINTEXT', default: '', why: '1 lets another address than loopback go without TLS' },
]

/** Names that belong to instrumented services, which may run with the same environment. */
const serviceNames = ['URL', 'KEY', 'CONTENT', 'QUOTA']
const prefix = 'TALLYLIGHT_'

const days = z.int().min(1).max(3650)
const retention = z.strictObject({ traces: days.optional(), logs: days.optional(), metrics: days.optional() })
const rates = z.strictObject({
  bytesPerSecond: z.int().positive().optional(),
  recordsPerSecond: z.int().positive().optional(),
})
const fileSchema = z.strictObject({
  retention: z
    .strictObject({ default: retention.optional(), tenants: z.record(z.string(), retention).optional() })
    .optional(),
  ingestLimits: z
    .strictObject({ default: rates.optional(), tenants: z.record(z.string(), rates).optional() })
    .optional(),
  deduplicateRequests: z.boolean().optional(),
  journal: z
    .strictObject({ bytesMax: z.int().positive().optional(), reserveBytes: z.int().nonnegative().optional() })
    .optional(),
  clickhouse: z
    .strictObject({
      memoryBytesMax: z
        .int()
        .min(256 * 1024 * 1024)
        .optional(),
    })
    .optional(),
})

export type ConfigFile = z.infer<typeof fileSchema>

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
    if (name.startsWith(prefix) && !known.has(name.slice(prefix.length))) {
      reasons.push(
        `${name} is not known; the names are ${environmentNames.map((each) => prefix + each.name).join(', ')}`,
      )
    }
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
  const isLoopback = /^(127\.|::1$|localhost$)/.test(bind)
  const allowsPlaintext = flag('ALLOW_PLAINTEXT')
  if (!isLoopback && certPath === '' && !allowsPlaintext) {
    reasons.push(
      `${prefix}BIND=${bind} is reachable from elsewhere: set ${prefix}TLS_CERT and ${prefix}TLS_KEY, or ${prefix}ALLOW_PLAINTEXT=1`,
    )
  }
  const requireKeys = flag('REQUIRE_KEYS') || !isLoopback
  if (reasons.length > 0) return { kind: 'refused', reasons }
  return {
    kind: 'config',
    config: {
      dataDirectory: get('DATA_DIR'),
      configPath: get('CONFIG'),
      isConfigNamed: (environment[`${prefix}CONFIG`] ?? '') !== '',
      bind,
      ports,
      clickhouseUrl: get('CLICKHOUSE_URL') || undefined,
      postgresUrl: get('POSTGRES_URL') || undefined,
      requireKeys,
      tls: certPath === '' ? undefined : { certPath, keyPath, clientCaPath: clientCaPath || undefined },
    },
  }
}

export type ParsedFile =
  | { readonly kind: 'file'; readonly file: ConfigFile }
  | { readonly kind: 'refused'; readonly reasons: readonly string[] }

/** Reads the text of the configuration file. Unknown fields are refused with their path. */
export function parseConfigFile(text: string, path: string): ParsedFile {
  let json: unknown
  try {
    json = JSON.parse(text)
  } catch (error) {
    return { kind: 'refused', reasons: [`${path} is not JSON: ${String(error)}`] }
  }
  const parsed = fileSchema.safeParse(json)
  if (parsed.success) return { kind: 'file', file: parsed.data }
  const reasons = parsed.error.issues.map((issue) => `${path}: ${issue.path.join('.') || 'the file'}: ${issue.message}`)
  return { kind: 'refused', reasons }
}

const retentionDefaults = { traces: 30, logs: 30, metrics: 90 } as const

/** Days that a tenant's records of a class are kept. */
export function retentionDaysOf(file: ConfigFile, signal: 'traces' | 'logs' | 'metrics', tenant: string): number {
  return file.retention?.tenants?.[tenant]?.[signal] ?? file.retention?.default?.[signal] ?? retentionDefaults[signal]
}
