// The configuration file. The page and the messages are made from its schema; what is not in that is refused.
import { embeddedLimits } from '@tallylight/storage/clickhouse/embedded-limits.ts'
import { z } from 'zod'
import { instead } from './did-you-mean.ts'
import { limits } from './limits.ts'
import { judgeOwnPattern, type PersonalOptions, personalKinds } from './masking/personal.ts'
import { upstreamName, upstreamSchema } from './proxy/upstreams.ts'
import type { FailurePolicy } from './quota/failure-policy.ts'
import { amountSchema, limitId, limitSchema } from './quota/limits.ts'
import { parseTenantId } from './receive/request.ts'

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

/** `unset` is what holds when the field is left out; the page and the messages are made from this schema. JSON Schema's own
 *  `default` is left out of what is made into something else, as amounts are. */
function described<Schema extends z.ZodType>(schema: Schema, why: string, unset = ''): z.ZodOptional<Schema> {
  return schema.optional().meta({ description: why, unset })
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
        .record(tenantName, contentPolicies.meta({ description: contentWhy, unset: 'content.default' }))
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
        z
          .array(limitSchema.safeExtend({ id: limitId, tenant: tenantName.default('default') }))
          // Which of two would hold would change from one start to the next.
          .refine(
            (limits) => new Set(limits.map(({ tenant, id }) => `${tenant} ${id}`)).size === limits.length,
            'a tenant has an id once',
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
          tenants: z
            .record(
              tenantName,
              failurePolicy.meta({ description: 'the same for this tenant', unset: 'quota.failure.default' }),
            )
            .optional(),
        })
        .optional(),
      webhook: described(
        z.strictObject({
          url: z
            .url({ protocol: /^https?$/ })
            .meta({ description: 'is told of thresholds, at least once each, in order; goes with `secret`' }),
          secret: z
            .string()
            .min(16)
            .meta({ description: '16 characters or more; signs what is told (`Tallylight-Signature`)' }),
        }),
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
  readonly unset?: string
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

/** Days that a tenant's records of a class are kept. */
export function retentionDaysOf(file: ConfigFile, kept: RetentionClass, tenant: string): number {
  return ofTenant(file.retention?.tenants, tenant)?.[kept] ?? file.retention?.default?.[kept] ?? retentionDefaults[kept]
}

/** What a tenant's calls are told while the ledger does not answer. */
export function failurePolicyOf(file: ConfigFile, tenant: string): FailurePolicy {
  return ofTenant(file.quota?.failure?.tenants, tenant) ?? file.quota?.failure?.default ?? { policy: 'closed' }
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
    isEverywhere: (tenant) => ofTenant(masking.tenants, tenant)?.everywhere ?? masking.everywhere ?? false,
  }
}

export type ContentPolicy = z.infer<typeof contentPolicies>

/** What is kept of what users and models say. */
export function contentPolicyOf(file: ConfigFile, tenant: string): ContentPolicy {
  return ofTenant(file.content?.tenants, tenant) ?? file.content?.default ?? 'masked'
}

/** Senders choose names of tenants: one that is called `constructor` has what the file says of it, and not what every object
 *  of JavaScript has under that name. */
function ofTenant<Setting>(
  tenants: Readonly<Record<string, Setting>> | undefined,
  tenant: string,
): Setting | undefined {
  return tenants !== undefined && Object.hasOwn(tenants, tenant) ? tenants[tenant] : undefined
}
