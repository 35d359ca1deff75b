// How the quota service answers: outcomes as statuses, errors as problem details (RFC 9457), and the RateLimit headers of
// draft-ietf-httpapi-ratelimit-headers.
import type { z } from 'zod'
import { amountJson } from './limits.ts'
import type { Rate, StepOutcome } from './step.ts'

export type Answer = {
  readonly status: number
  readonly body: object | undefined
  readonly headers?: Readonly<Record<string, string>>
}

const titles: Readonly<Record<number, string>> = {
  400: 'Bad request',
  401: 'No valid key',
  403: 'Not allowed',
  404: 'Not found',
  405: 'Method not allowed',
  409: 'Conflict',
  413: 'Too large',
  429: 'Quota exceeded',
  503: 'Not available',
}

export function answerOf(outcome: StepOutcome, status: number): Answer {
  switch (outcome.kind) {
    case 'done':
      return outcome.rates === undefined || outcome.rates.length === 0
        ? { status, body: outcome.body }
        : { status, body: outcome.body, headers: rateHeaders(outcome.rates) }
    case 'denied':
      return deniedAnswer(outcome)
    case 'unpriced':
      return problem(400, `model: ${outcome.reason}; say what it may cost with estimate.costNanoUsd`)
    case 'unknown':
      return unknownReservation
    case 'conflict':
      return { ...problem(409, outcome.detail, {}, outcome.first === undefined ? {} : { first: outcome.first }) }
    case 'refused':
      return problem(400, outcome.reason)
    case 'unavailable':
      return problem(503, outcome.reason, { 'Retry-After': '1' })
    default:
      return outcome satisfies never
  }
}

const windowSeconds = { minute: 60, hour: 3_600, day: 86_400, month: 2_592_000, ever: undefined } as const
/** The largest integer of a structured field (RFC 9651). */
const fieldIntegerMax = 999_999_999_999_999n

function rateHeaders(rates: readonly Rate[]): Readonly<Record<string, string>> {
  const integer = (value: bigint): bigint => (value > fieldIntegerMax ? fieldIntegerMax : value)
  const policies = rates.map(({ limitId, granted, window }) => {
    const seconds = windowSeconds[window]
    return `"${limitId}";q=${integer(granted)}${seconds === undefined ? '' : `;w=${seconds}`}`
  })
  const states = rates.map(({ limitId, free, freesInMs }) => {
    return `"${limitId}";r=${integer(free)}${freesInMs === undefined ? '' : `;t=${wholeSeconds(freesInMs)}`}`
  })
  return { 'RateLimit-Policy': policies.join(', '), RateLimit: states.join(', ') }
}

function wholeSeconds(ms: number): number {
  return Math.max(1, Math.ceil(ms / 1000))
}

function deniedAnswer({ denial, nowMs, rates }: Extract<StepOutcome, { kind: 'denied' }>): Answer {
  const { limitId, measure, subject, requested, limit, used, held, free } = denial
  const freesInMs = denial.freesUnixMs === undefined ? undefined : denial.freesUnixMs - nowMs
  const headers = {
    ...rateHeaders(rates),
    // Where no window ends, only a settlement or an expiry makes room, which may be soon.
    'Retry-After': String(freesInMs !== undefined ? wholeSeconds(freesInMs) : measure === 'concurrency' ? 1 : 60),
  }
  return problem(429, `${limitId}: ${requested} of ${measure} wanted, ${free} free of ${limit}`, headers, {
    limitId,
    measure,
    subject,
    requested: amountJson(requested),
    limit: amountJson(limit),
    used: amountJson(used),
    held: amountJson(held),
    free: amountJson(free),
    frees: denial.freesUnixMs === undefined ? null : new Date(denial.freesUnixMs).toISOString(),
  })
}

export function unknownPath(path: string): Answer {
  return problem(404, `there is nothing at ${path.slice(0, 100)}`)
}

export function notAllowed(methods: string): Answer {
  return problem(405, `takes ${methods}`, { Allow: methods })
}

export function invalid(error: z.ZodError): Answer {
  const wrong = error.issues.map((issue) => `${issue.path.join('.') || 'body'}: ${issue.message}`)
  return problem(400, wrong.join('; '))
}

/** RFC 9457. */
export function problem(
  status: number,
  detail: string,
  headers: Readonly<Record<string, string>> = {},
  more: object = {},
): Answer {
  return {
    status,
    headers: { ...headers, 'Content-Type': 'application/problem+json' },
    body: { type: 'about:blank', title: titles[status] ?? '', status, detail, ...more },
  }
}

export type ParsedJson =
  | { readonly kind: 'json'; readonly value: unknown }
  | { readonly kind: 'malformed'; readonly reason: string }

export function parseJson(body: Buffer): ParsedJson {
  try {
    return { kind: 'json', value: JSON.parse(body.toString()) }
  } catch (error) {
    return { kind: 'malformed', reason: `the body is not JSON: ${(error as Error).message.slice(0, 100)}` }
  }
}

export function isUuid(id: string): boolean {
  return /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/.test(id)
}

export const unknownReservation: Answer = problem(404, 'there is no such reservation')
