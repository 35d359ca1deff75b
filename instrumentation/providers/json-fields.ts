// Fields of JSON that somebody else wrote: of the wanted type, or the nothing of that type. Nothing here throws.
import { isJsonObject } from '../usage/provider-usage.ts'

export type Json = Readonly<Record<string, unknown>>

const none: Json = Object.freeze({})

export function objectOf(value: unknown): Json {
  return isJsonObject(value) ? value : none
}

export function listOf(value: unknown): readonly unknown[] {
  return Array.isArray(value) ? value : []
}

export function objectsOf(value: unknown): readonly Json[] {
  return listOf(value).filter(isJsonObject)
}

export function textOf(value: unknown): string {
  return typeof value === 'string' ? value : ''
}

export function textsOf(value: unknown): readonly string[] {
  if (typeof value === 'string') return [value]
  return listOf(value).filter((each) => typeof each === 'string')
}

export function numberOf(value: unknown): number | undefined {
  return typeof value === 'number' && Number.isFinite(value) ? value : undefined
}

/** Arguments of a tool call are JSON in a string at one provider and an object at the next. */
export function parsedOr(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    // A model may write arguments that are no JSON, and a cut stream half of them: the text is what there is.
    return text
  }
}

export { isJsonObject }
