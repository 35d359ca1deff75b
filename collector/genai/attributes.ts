// Reading attribute values. Of several names for one thing the first that is present and not empty wins, so lists of names
// go from the newest to the oldest.
import type { AnyValue, Attributes } from './record.ts'

/** What JSON can hold. */
export type Json = null | boolean | number | string | readonly Json[] | { readonly [key: string]: Json }
export type JsonObject = { readonly [key: string]: Json }

export function isObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

export function firstText(attributes: Attributes, ...keys: readonly string[]): string {
  for (const key of keys) {
    const text = scalarText(attributes.get(key))
    if (text !== '') return text
  }
  return ''
}

/** Ids and names are sent as numbers and booleans, too. */
export function scalarText(value: unknown): string {
  if (typeof value === 'string') return value
  if (typeof value === 'number' || typeof value === 'bigint' || typeof value === 'boolean') return String(value)
  return ''
}

/** The first value that is there at all; whether it is a count is judged where it is read as usage. */
export function firstValue(attributes: Attributes, ...keys: readonly string[]): AnyValue | undefined {
  for (const key of keys) {
    const value = attributes.get(key)
    if (value !== undefined && value !== null) return value
  }
  return undefined
}

export function isTrue(value: AnyValue | undefined): boolean {
  return value === true || value === 'true' || value === 'True' || value === 1
}

/** Finite and not negative, times `nanosPerUnit`, whole; undefined for everything else. */
export function durationNano(value: AnyValue | undefined, nanosPerUnit: number): number | undefined {
  const units = typeof value === 'string' ? Number(value || Number.NaN) : value
  if (typeof units !== 'number' || !(units >= 0)) return undefined
  const nanos = Math.round(units * nanosPerUnit)
  return Number.isSafeInteger(nanos) ? nanos : undefined
}

/** JSON in a string, or structured values as they came. Undefined: it is neither. */
export function jsonOf(value: AnyValue | undefined): Json | undefined {
  if (typeof value !== 'string') return value === undefined ? undefined : toJson(value)
  return parseJson(value)
}

export function parseJson(text: string): Json | undefined {
  try {
    return JSON.parse(text) as Json
  } catch {
    return undefined
  }
}

export function objectOf(value: AnyValue | undefined): JsonObject | undefined {
  const json = looksLikeObject(value) ? jsonOf(value) : undefined
  return isObject(json) ? json : undefined
}

function looksLikeObject(value: AnyValue | undefined): boolean {
  return typeof value === 'string' ? /^\s*\{/.test(value) : value instanceof Map
}

/** Numbers that JSON cannot write become texts, bytes become base64. */
export function toJson(value: AnyValue): Json {
  if (value === null || typeof value === 'string' || typeof value === 'boolean') return value
  if (typeof value === 'number') return Number.isFinite(value) ? value : String(value)
  if (typeof value === 'bigint') return String(value)
  if (value instanceof Uint8Array) return Buffer.from(value).toString('base64')
  if (Array.isArray(value)) return (value as readonly AnyValue[]).map(toJson)
  return Object.fromEntries([...(value as ReadonlyMap<string, AnyValue>)].map(([key, inner]) => [key, toJson(inner)]))
}

/** A value as the text to keep: strings byte for byte, everything else as JSON. */
export function textOfValue(value: AnyValue | undefined): string {
  if (value === undefined || value === null) return ''
  return typeof value === 'string' ? value : JSON.stringify(toJson(value))
}

export function textOfJson(value: Json | undefined): string {
  if (value === undefined || value === null) return ''
  return typeof value === 'string' ? value : JSON.stringify(value)
}

/** `prefix.0.role`, `prefix.0.tool_calls.1.name`, … as objects in a list of objects, without the steps to be skipped; `found`
 *  is given every key that was read. Keys of lists are ordered as numbers, whatever the order on the wire; gaps close. What is
 *  null is not there: OpenInference writes every key of a part, of what it is not with no value, and a text would be a call of
 *  a tool that has no name. */
export function nestIndexed(
  attributes: Attributes,
  prefix: string,
  skippedSteps: ReadonlySet<string>,
  found: (key: string) => void,
): readonly Json[] | undefined {
  const root = new Map<string, Nested>()
  for (const [key, value] of attributes) {
    if (value === null || !key.startsWith(prefix) || !isDigit(key.charCodeAt(prefix.length))) continue
    const path = key.slice(prefix.length).split('.')
    if (!/^\d+$/.test(path[0] as string)) continue
    place(root, [path[0] as string, ...path.slice(1).filter((step) => !skippedSteps.has(step))], toJson(value))
    found(key)
  }
  return root.size === 0 ? undefined : (unnest(root) as readonly Json[])
}

type Nested = Json | Map<string, Nested>

function place(root: Map<string, Nested>, path: readonly string[], value: Json): void {
  let at = root
  for (const step of path.slice(0, -1)) {
    let next = at.get(step)
    // A leaf and a branch under one name: the branch says more.
    if (!(next instanceof Map)) {
      next = new Map<string, Nested>()
      at.set(step, next)
    }
    at = next
  }
  const last = path.at(-1) as string
  if (!(at.get(last) instanceof Map)) at.set(last, value)
}

function unnest(nested: Nested): Json {
  if (!(nested instanceof Map)) return nested
  const keys = [...nested.keys()]
  if (keys.every((key) => /^\d+$/.test(key)))
    return keys.sort((a, b) => Number(a) - Number(b)).map((key) => unnest(nested.get(key) as Nested))
  return Object.fromEntries(keys.map((key) => [key, unnest(nested.get(key) as Nested)]))
}

function isDigit(unit: number): boolean {
  return unit >= 48 && unit <= 57
}
