// What the collector is told from outside: environment variables and a JSON file. One table holds every name, and anything
// with our prefix that is not in it is refused: a misspelt limit must not be a limit that is not there.
import { isIP } from 'node:net'
import { embeddedLimits } from '@tallylight/storage/clickhouse/embedded-limits.ts'
import { z } from 'zod'
import { limits } from './limits.ts'
import { judgeOwnPattern, type PersonalOptions, personalKinds } from './masking/personal.ts'
import { upstreamName, upstreamSchema } from './proxy/upstreams.ts'
import type { FailurePolicy } from './quota/failure-policy.ts'
import { amountSchema, limitSchema } from './quota/limits.ts'
import { isLoopback as isLoopbackAddress } from './receive/receiver.ts'
import { parseTenantId } from './receive/request.ts'

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
const suggestionDistanceMax = 3

export const retentionDefaults = {
  traces: 30,
  logs: 30,
  metrics: 90,
  chat: 90,
  tools: 90,
  errors: 90,
  audit: 365,
} as const
/** What is kept for a time of its own: the three signals as they came, and what was made of them. */
export type RetentionClass = keyof typeof retentionDefaults

/** `default` is what holds when the field is left out; the page and the messages are made from this schema. */
function described<Schema extends z.ZodType>(schema: Schema, why: string, unset = ''): z.ZodOptional<Schema> {
  return schema.optional().meta({ description: why, default: unset })
}

const days = z.int().min(1).max(3650)
const retention = (unset: (kept: RetentionClass) => string) =>
  z.strictObject({
    traces: described(days, 'days that spans are kept', unset('traces')),
    logs: described(days, 'days that log records are kept', unset('logs')),
    metrics: described(days, 'days that metric points are kept', unset('metrics')),
    chat: described(days, 'days that turns, model calls, messages and health checks are kept', unset('chat')),
    tools: described(days, 'days that tool calls are kept', unset('tools')),
    errors: described(days, 'days that errors are kept', unset('errors')),
    audit: described(days, 'days that audit events are kept', unset('audit')),
  })
const rates = z.strictObject({
  bytesPerSecond: described(z.int().min(1), 'bytes of request bodies as received, 429 beyond', 'no limit'),
  recordsPerSecond: described(z.int().min(1), 'spans, log records and metric points, 429 beyond', 'no limit'),
})
const failurePolicy = z.discriminatedUnion('policy', [
  z.strictObject({ policy: z.literal('closed') }),
  z.strictObject({ policy: z.literal('open') }),
  z.strictObject({ policy: z.literal('bounded'), costNanoUsd: amountSchema, requests: z.int().min(1) }),
])
const tenantName = z
  .string()
  .refine((text) => parseTenantId(text) !== undefined, 'a tenant is 1–128 letters, digits and ._:@/-')
const ownPattern = z
  .strictObject({
    name: z
      .string()
      .regex(/^[a-z][a-z0-9_]{0,39}$/, 'a name is 1–40 small letters, digits and _, and begins with a letter')
      .refine((name) => !personalKinds.some((kind) => kind === name), 'the name is that of a built-in kind'),
    pattern: z.string().min(1),
  })
  .superRefine((own, context) => {
    const reason = judgeOwnPattern(own)
    if (reason !== undefined)
      context.addIssue({ code: 'custom', path: ['pattern'], message: `of ${own.name}: ${reason}` })
  })
const probeShared = {
  tenant: tenantName.default('default'),
  target: z.string().min(1).max(200),
  intervalMs: z.int().min(100).max(86_400_000).optional(),
  timeoutMs: z.int().min(1).max(60_000).optional(),
  headers: z
    .record(
      z.string().regex(/^[\w!#$%&'*+.^`|~-]+$/, 'this is not the name of a header'),
      z.union([
        z.strictObject({ file: z.string().min(1) }),
        z.strictObject({ environment: z.string().regex(/^[A-Za-z_]\w*$/) }),
      ]),
    )
    .optional(),
}
const probeUrl = z
  .url({ protocol: /^https?$/ })
  .refine((text) => URL.parse(text)?.username === '', 'a URL holds no credentials here: name them in `headers`')
const probeSetting = z.discriminatedUnion('kind', [
  z.strictObject({ kind: z.literal('http'), url: probeUrl, ...probeShared }),
  z
    .strictObject({
      kind: z.literal('mcp'),
      url: probeUrl.optional(),
      command: z.array(z.string()).min(1).optional(),
      ...probeShared,
    })
    .refine((probe) => (probe.url === undefined) !== (probe.command === undefined), 'either `url` or `command`')
    .refine((probe) => probe.url !== undefined || probe.headers === undefined, '`headers` go with a `url`'),
])
const contentPolicies = z.enum(['full', 'masked', 'metadata'])
const contentWhy =
  'prompts, answers, tool arguments and results: as they are, without personal data, or not at all; secrets never'
const fileSchema = z.strictObject({
  retention: z
    .strictObject({
      default: retention((signal) => `${retentionDefaults[signal]}`).optional(),
      tenants: z
        .record(
          tenantName,
          retention((signal) => `retention.default.${signal}`),
        )
        .optional(),
    })
    .optional(),
  ingestLimits: z
    .strictObject({ default: rates.optional(), tenants: z.record(tenantName, rates).optional() })
    .optional(),
  masking: z
    .strictObject({
      secrets: described(
        z.boolean(),
        'keys, tokens and private keys are masked in every string of every signal, before the journal',
        'true',
      ),
      personal: described(
        z.array(z.enum(personalKinds)),
        'kinds of personal data that are masked, in GenAI content and where `everywhere` says',
        personalKinds.join(', '),
      ),
      patterns: described(
        z.array(ownPattern).max(limits.ownPatternsMax),
        'patterns of your own (RE2 syntax) that are masked with them, each `{name, pattern}`',
        '[]',
      ),
      everywhere: described(z.boolean(), 'personal data is masked in every string of every signal', 'false'),
      tenants: z
        .record(
          tenantName,
          z.strictObject({
            everywhere: described(z.boolean(), 'the same for the records of this tenant', 'masking.everywhere'),
          }),
        )
        .optional(),
    })
    .optional(),
  content: z
    .strictObject({
      default: described(contentPolicies, contentWhy, 'masked'),
      tenants: z
        .record(tenantName, contentPolicies.meta({ description: contentWhy, default: 'content.default' }))
        .optional(),
      keepRaw: described(
        z.boolean(),
        'what became rows of messages and tools stays in the spans and log records, too (`metadata`: never)',
        'false',
      ),
    })
    .optional(),
  deduplicateRequests: described(
    z.boolean(),
    'a request whose bytes were answered within 5 minutes is answered again and not stored again',
    'true',
  ),
  journal: z
    .strictObject({
      bytesMax: described(z.int().min(1), 'what may wait for ClickHouse; 503 beyond', `${limits.journalBytesMax}`),
      reserveBytes: described(z.int().min(0), 'left free on the volume; 503 beyond', '1 GiB or 5 %, whichever is more'),
    })
    .optional(),
  quota: z
    .strictObject({
      limits: described(
        z.array(
          limitSchema.safeExtend({ id: z.string().regex(/^[\w.:-]{1,200}$/), tenant: tenantName.default('default') }),
        ),
        'limits as code: made, changed and removed at start and when the file changes; those made through the API stay',
        '[]',
      ),
      unpriced: described(
        z.enum(['refuse', 'tokens_only']),
        'a call of a model without a price, where a limit on cost blocks: refused, or held by its tokens alone',
        'refuse',
      ),
      failure: z
        .strictObject({
          default: described(
            failurePolicy,
            'what a service is told while the ledger does not answer: `closed` (do not call), `open` (call), or `bounded` (call, within so much per collector and outage)',
            '{"policy": "closed"}',
          ),
          tenants: z.record(tenantName, failurePolicy).optional(),
        })
        .optional(),
      webhook: described(
        z.strictObject({ url: z.url({ protocol: /^https?$/ }), secret: z.string().min(16) }),
        'is told of thresholds, at least once each, signed with the secret (`Tallylight-Signature`)',
      ),
      prices: described(
        z.array(
          z.strictObject({
            provider: z.string().optional(),
            model: z.string().min(1),
            from: z.iso.date().default('1970-01-01'),
            inputNanoUsdPerMillion: amountSchema,
            outputNanoUsdPerMillion: amountSchema,
            cacheReadNanoUsdPerMillion: amountSchema.optional(),
            cacheWriteNanoUsdPerMillion: amountSchema.optional(),
          }),
        ),
        'prices of your own, in nano-dollars per million tokens; they win over the list',
        '[]',
      ),
    })
    .optional(),
  proxy: z
    .strictObject({
      knownProviders: described(
        z.boolean(),
        'the known providers are upstreams by their names: openai, anthropic, gemini, mistral, groq and others',
        'true',
      ),
      upstreams: z.record(upstreamName, upstreamSchema).optional(),
      unmetered: described(
        z.enum(['pass', 'refuse']),
        'requests that change something and are no model call we read (batches, files, pictures): passed and counted, or refused',
        'pass',
      ),
    })
    .optional(),
  probes: described(
    z
      .array(probeSetting)
      .max(limits.probesMax)
      .refine(
        (probes) => new Set(probes.map(({ tenant, target }) => `${tenant} ${target}`)).size === probes.length,
        'a tenant has a target once',
      ),
    'servers that are looked at (`docs/health-checks.md`); applied when the file changes',
    '[]',
  ),
  clickhouse: z
    .strictObject({
      memoryBytesMax: described(
        z.int().min(embeddedLimits.memoryBytesMin),
        'memory of the embedded ClickHouse',
        `${embeddedLimits.memoryBytesMax}`,
      ),
    })
    .optional(),
})

export type ConfigFile = z.infer<typeof fileSchema>
/** A server that is looked at. */
export type ProbeSetting = z.infer<typeof probeSetting>

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

export type ParsedFile =
  | { readonly kind: 'file'; readonly file: ConfigFile }
  | { readonly kind: 'refused'; readonly reasons: readonly string[] }

/** Reads the text of the configuration file. Unknown fields are refused with their path. */
export function parseConfigFile(text: string, path: string): ParsedFile {
  let json: unknown
  try {
    json = JSON.parse(text)
  } catch (error) {
    // What follows the comma would be a piece of the file.
    const [what] = (error as Error).message.split(/, (?:\.\.\.)?"/)
    return { kind: 'refused', reasons: [`${path} is not JSON: ${what}`] }
  }
  const parsed = fileSchema.safeParse(json)
  if (parsed.success) return { kind: 'file', file: parsed.data }
  return { kind: 'refused', reasons: parsed.error.issues.flatMap((issue) => explain(issue, json, path)) }
}

/** As JSON Schema, for the page and for what a message says is allowed. */
export function fileJsonSchema(): FileSchema {
  return z.toJSONSchema(fileSchema, { io: 'input' }) as FileSchema
}

/** The part of JSON Schema that ours needs. */
export type FileSchema = {
  readonly type?: string
  readonly description?: string
  readonly default?: string
  readonly minimum?: number
  readonly maximum?: number
  readonly enum?: readonly string[]
  readonly items?: FileSchema
  readonly properties?: Readonly<Record<string, FileSchema>>
  readonly additionalProperties?: FileSchema | false
}

function explain(issue: z.core.$ZodIssue, json: unknown, path: string): readonly string[] {
  const place = issue.path.map(String)
  if (issue.code === 'unrecognized_keys') {
    const fields = Object.keys(schemaAt(place)?.properties ?? {})
    return issue.keys.map((key) => {
      const name = [...place, key].join('.')
      return `${path}: ${name} is not known${instead(
        name,
        fields.map((field) => [...place, field].join('.')),
      )}`
    })
  }
  const message = issue.code === 'invalid_key' ? (issue.issues[0]?.message ?? issue.message) : issue.message
  return [`${path}: ${place.join('.') || 'the file'}: ${message}${came(json, place)}`]
}

function schemaAt(place: readonly string[]): FileSchema | undefined {
  let schema: FileSchema | undefined = fileJsonSchema()
  for (const name of place) schema = schema?.properties?.[name] ?? (schema?.additionalProperties || undefined)
  return schema
}

// Numbers only: what else stands in a file may be a secret at the wrong place.
function came(json: unknown, place: readonly string[]): string {
  let value = json
  for (const name of place) value = (value as Readonly<Record<string, unknown>> | undefined)?.[name]
  return typeof value === 'number' ? `; it is ${value}` : ''
}

/** What was probably meant, or everything that could be. */
function instead(name: string, known: readonly string[]): string {
  const [nearest] = known
    .map((each) => ({ each, distance: distance(name, each) }))
    .sort((a, b) => a.distance - b.distance)
  if (nearest !== undefined && nearest.distance <= suggestionDistanceMax) return `; did you mean ${nearest.each}?`
  return `; known are ${known.join(', ')}`
}

/** Letters to add, take away or exchange (Levenshtein). */
function distance(one: string, other: string): number {
  let row = Array.from({ length: other.length + 1 }, (_, at) => at)
  for (const [down, letter] of [...one].entries()) {
    let left = down + 1
    const next = [left]
    for (let at = 0; at < other.length; at++) {
      left = Math.min(left + 1, (row[at + 1] ?? 0) + 1, (row[at] ?? 0) + (letter === other[at] ? 0 : 1))
      next.push(left)
    }
    row = next
  }
  return row[other.length] ?? 0
}

/** Days that a tenant's records of a class are kept. */
export function retentionDaysOf(file: ConfigFile, kept: RetentionClass, tenant: string): number {
  return file.retention?.tenants?.[tenant]?.[kept] ?? file.retention?.default?.[kept] ?? retentionDefaults[kept]
}

/** What a tenant's calls are told while the ledger does not answer. */
export function failurePolicyOf(file: ConfigFile, tenant: string): FailurePolicy {
  return file.quota?.failure?.tenants?.[tenant] ?? file.quota?.failure?.default ?? { policy: 'closed' }
}

export type Masking = {
  readonly secrets: boolean
  readonly personal: PersonalOptions
  /** Whether personal data of this tenant is masked outside of GenAI content too. */
  readonly isEverywhere: (tenant: string) => boolean
}

export function maskingOf({ masking = {} }: ConfigFile): Masking {
  return {
    secrets: masking.secrets ?? true,
    personal: { kinds: masking.personal ?? personalKinds, patterns: masking.patterns ?? [] },
    isEverywhere: (tenant) => masking.tenants?.[tenant]?.everywhere ?? masking.everywhere ?? false,
  }
}

export type ContentPolicy = z.infer<typeof contentPolicies>

/** What is kept of what users and models say. */
export function contentPolicyOf(file: ConfigFile, tenant: string): ContentPolicy {
  return file.content?.tenants?.[tenant] ?? file.content?.default ?? 'masked'
}
