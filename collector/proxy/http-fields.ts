// Which headers go on, in which direction. What belongs to one connection stays there (RFC 9110, 7.6.1); what speaks of us,
// of the tenant or of the caller's trace and whereabouts is not the provider's to know.
import type { IncomingHttpHeaders } from 'node:http'
import { parseKeyId } from '../receive/key-rules.ts'

/** Names and values by turns, as they came. */
export type RawFields = readonly string[]

export const keyHeader = 'x-tallylight-key'

const ofConnection = new Set([
  'connection',
  'keep-alive',
  'proxy-authenticate',
  'proxy-authorization',
  'proxy-connection',
  'te',
  'trailer',
  'transfer-encoding',
  'upgrade',
  'http2-settings',
])
/** `Content-Length` is counted anew, since the body may be another. */
const ofRequest = new Set(['host', 'content-length', 'expect', 'forwarded', 'via', 'x-real-ip'])
const ofTraces = new Set([
  'traceparent',
  'tracestate',
  'baggage',
  'b3',
  'sentry-trace',
  'uber-trace-id',
  'x-amzn-trace-id',
  'x-cloud-trace-context',
])
const privatePrefixes = ['x-tallylight-', 'x-forwarded-', 'x-b3-', 'x-datadog-', 'ot-tracer-']

/** Where SDKs put the key of a provider. One of ours may stand there, for an upstream that wants none. */
const keyFields = [keyHeader, 'authorization', 'x-api-key', 'api-key', 'x-goog-api-key'] as const

/** The tenant's key among the headers, and nothing where there is none: a provider's key is not looked at any further. */
export function keyIn(headers: IncomingHttpHeaders): string | undefined {
  const named = headers[keyHeader]
  if (typeof named === 'string') return named.trim()
  for (const name of keyFields) {
    const value = ownKeyOf(headers[name])
    if (value !== undefined) return value
  }
  return undefined
}

function ownKeyOf(value: string | readonly string[] | undefined): string | undefined {
  const text = typeof value === 'string' ? value.replace(/^Bearer +/i, '').trim() : ''
  return parseKeyId(text) === undefined ? undefined : text
}

export function fieldsForUpstream(
  raw: RawFields,
  options: { readonly isCall: boolean; readonly added: Readonly<Record<string, string>> },
): string[] {
  const named = namedIn(raw)
  const fields: string[] = []
  for (let at = 0; at + 1 < raw.length; at += 2) {
    const [name, value] = [raw[at] as string, raw[at + 1] as string]
    const lower = name.toLowerCase()
    const isOurs = ofConnection.has(lower) || ofRequest.has(lower) || ofTraces.has(lower) || named.has(lower)
    if (isOurs || privatePrefixes.some((prefix) => lower.startsWith(prefix))) continue
    // A key of ours that stands where the provider's should would be told to the provider.
    if (ownKeyOf(value) !== undefined) continue
    // What is read as it passes comes plain; SDKs ask for compression that events hardly gain from.
    if (options.isCall && lower === 'accept-encoding') continue
    fields.push(name, value)
  }
  if (options.isCall) fields.push('accept-encoding', 'identity')
  for (const [name, value] of Object.entries(options.added)) fields.push(name, value)
  return fields
}

export function fieldsForClient(raw: RawFields, isLengthKept: boolean): string[] {
  const named = namedIn(raw)
  const fields: string[] = []
  for (let at = 0; at + 1 < raw.length; at += 2) {
    const [name, value] = [raw[at] as string, raw[at + 1] as string]
    const lower = name.toLowerCase()
    if (ofConnection.has(lower) || named.has(lower)) continue
    if (lower === 'content-length' && !isLengthKept) continue
    fields.push(name, value)
  }
  return fields
}

/** Headers that `Connection` says are its own. */
function namedIn(raw: RawFields): ReadonlySet<string> {
  const named = new Set<string>()
  for (let at = 0; at + 1 < raw.length; at += 2) {
    if (raw[at]?.toLowerCase() !== 'connection') continue
    for (const name of raw[at + 1]?.split(',') ?? []) named.add(name.trim().toLowerCase())
  }
  return named
}
