// A limit: how much of what, for whom, in which window, and what happens beyond. The JSON form is the one of
// `/v1/quota/limits` and of the configuration file; `matchLimits` finds those that hold for a call.
import { hash } from 'node:crypto'
import { z } from 'zod'
import { parseTenantId, type TenantId } from '../receive/request.ts'

export const dimensions = ['user', 'key', 'model', 'provider', 'conversation'] as const
export type Dimension = (typeof dimensions)[number]

/** Who calls what. A dimension that is not known is '', which is a value like any other: nobody gets round a limit per user
 *  by not naming one. */
export type Subject = Readonly<Record<Dimension, string>>

export const measures = ['cost', 'tokens', 'input_tokens', 'output_tokens', 'requests', 'concurrency'] as const
export type Measure = (typeof measures)[number]
export type Overage =
  /** What does not fit is refused. */
  | 'refuse'
  /** What is left is held, and only a call that finds nothing is refused. */
  | 'allow_available'
  /** Never refused; what settles beyond is debt. */
  | 'allow_debt'

export type Limit = {
  readonly tenant: TenantId
  readonly id: string
  readonly subject: Partial<Subject>
  readonly each: Dimension | undefined
  readonly measure: Measure
  /** Nano-dollars, tokens or a count. */
  readonly amount: bigint
  /** Minute and hour slide; day and month are those of the time zone's calendar. */
  readonly window: 'minute' | 'hour' | 'day' | 'month' | 'ever'
  readonly timeZone: string
  readonly action: 'block' | 'warn' | 'observe'
  /** Percent of the amount, ascending; each is told once per window. */
  readonly thresholds: readonly number[]
  readonly overage: Overage
  readonly source: 'api' | 'config'
}

const int64Max = 2n ** 63n - 1n

/** An amount as a number that is exact, or as digits. */
export const amountSchema = z
  .union(
    [
      z.int().min(0).max(Number.MAX_SAFE_INTEGER),
      z.string().regex(/^\d{1,19}$/, 'an amount is a whole number, not negative'),
    ],
    'an amount is a whole number from 0, or its digits as text, which a number above 2^53 needs',
  )
  .transform((amount) => BigInt(amount))
  .refine((amount) => amount <= int64Max, 'an amount is below 2^63')

/** Text that Postgres can hold. */
export function storable(textMax: number): z.ZodString {
  return z
    .string()
    .max(textMax)
    .refine((text) => !text.includes('\0') && text.isWellFormed(), 'no NUL, and no half of a surrogate pair')
}

/** Stands in the RateLimit headers of every answer, whatever came in the body or the path. */
export const limitId = z.string().regex(/^[\w.:-]{1,200}$/, 'an id is 1–200 letters, digits and ._:-')

const name = storable(512).min(1)
const supportedTimeZones = new Set([...Intl.supportedValuesOf('timeZone'), 'UTC'])

export const limitSchema = z
  .strictObject({
    id: limitId.optional(),
    subject: z
      .strictObject({
        user: name.optional(),
        key: name.optional(),
        model: name.optional(),
        provider: name.optional(),
        conversation: name.optional(),
      })
      .default({}),
    each: z.enum(dimensions).optional(),
    measure: z.enum(measures),
    amount: amountSchema,
    window: z.enum(['minute', 'hour', 'day', 'month', 'ever']),
    timeZone: z.string().refine(isTimeZone, 'not a time zone of the IANA database').default('UTC'),
    action: z.enum(['block', 'warn', 'observe']),
    thresholds: z.array(z.int().min(1).max(1000)).max(20).default([50, 80, 100]),
    overage: z.enum(['refuse', 'allow_available', 'allow_debt']).default('refuse'),
  })
  .refine((limit) => limit.measure !== 'concurrency' || limit.window === 'ever', {
    path: ['window'],
    message: 'concurrency is counted now and in no window: use "ever"',
  })

/** `supportedValuesOf` has one name of each zone, often an older one: Asia/Calcutta, and no Asia/Kolkata. Of what Intl takes
 *  beyond it, Postgres does not know offsets and ICU's own names, and all of the others have a slash. */
function isTimeZone(zone: string): boolean {
  if (supportedTimeZones.has(zone)) return true
  if (!/^[A-Z][A-Za-z]+\//.test(zone) || zone.startsWith('SystemV/')) return false
  try {
    new Intl.DateTimeFormat('en', { timeZone: zone })
    return true
  } catch {
    return false
  }
}

export type LimitInput = z.output<typeof limitSchema>

export function limitOf(tenant: TenantId, id: string, input: LimitInput, source: Limit['source']): Limit {
  const { subject, each, measure, amount, window, timeZone, action, overage } = input
  const thresholds = [...new Set(input.thresholds)].sort((a, b) => a - b)
  return {
    tenant,
    id,
    subject: withoutUndefined(subject),
    each,
    measure,
    amount,
    window,
    timeZone,
    action,
    thresholds,
    overage,
    source,
  }
}

function withoutUndefined(subject: Readonly<Partial<Record<Dimension, string | undefined>>>): Partial<Subject> {
  return Object.fromEntries(Object.entries(subject).filter(([, value]) => value !== undefined))
}

/** The JSON form, amounts as digits where a number would not be exact. */
export function limitJson(limit: Limit): Readonly<Record<string, unknown>> {
  const { tenant: _tenant, each, amount, ...rest } = limit
  return { ...rest, ...(each === undefined ? {} : { each }), amount: amountJson(amount) }
}

export function amountJson(amount: bigint): number | string {
  return amount <= Number.MAX_SAFE_INTEGER && amount >= -Number.MAX_SAFE_INTEGER ? Number(amount) : String(amount)
}

/** Which account of the limit a call is counted in. */
export type Match = { readonly limit: Limit; readonly subject: string }

export type Limits = {
  readonly version: string
  find(tenant: TenantId, id: string): Limit | undefined
  match(tenant: TenantId, subject: Subject): readonly Match[]
}

export function openLimits(version: string, all: readonly Limit[]): Limits {
  const byId = new Map(all.map((limit) => [`${limit.tenant}\n${limit.id}`, limit]))
  const byName = Map.groupBy(
    all.map((limit, place) => ({ limit, place })),
    ({ limit }) => {
      const dimension = dimensions.find((each) => limit.subject[each] !== undefined)
      return nameOf(limit.tenant, dimension, dimension && limit.subject[dimension])
    },
  )
  return {
    version,
    find: (tenant, id) => byId.get(`${tenant}\n${id}`),
    match: (tenant, subject) =>
      [undefined, ...dimensions]
        .flatMap((dimension) => byName.get(nameOf(tenant, dimension, dimension && subject[dimension])) ?? [])
        .filter(({ limit }) =>
          dimensions.every((dimension) => (limit.subject[dimension] ?? subject[dimension]) === subject[dimension]),
        )
        .sort((a, b) => a.place - b.place)
        .map(({ limit }) => ({ limit, subject: limit.each === undefined ? '' : accountName(subject[limit.each]) })),
  }
}

/** Where a limit is looked for: under the first name of its subject, or under none. A tenant may have a limit for each of its users,
 *  of which a call must not look at all. */
function nameOf(tenant: TenantId, dimension: Dimension | undefined, name: string | undefined): string {
  return dimension === undefined ? tenant : `${tenant}\n${dimension}\n${name}`
}

/** An index of Postgres takes 2,704 bytes: of a longer name the beginning and its hash. */
const nameBytesMax = 1024

export function accountName(name: string): string {
  if (Buffer.byteLength(name) <= nameBytesMax) return name
  return `${name.slice(0, 100)}… sha256:${hash('sha256', name)}`
}

export function tenantOf(text: string): TenantId {
  const tenant = parseTenantId(text)
  if (tenant === undefined) throw new Error(`the database has a limit of a tenant with no tenant's name`)
  return tenant
}
