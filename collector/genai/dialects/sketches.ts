// For tests: what the spans of several senders have in common, and the rows of a few.
import type { Says } from '../fact.ts'
import { factsOf } from '../lift.ts'
import { openPrices } from '../price.ts'
import type { AnyValue, LiftedEvent } from '../record.ts'
import { resolve } from '../resolve/resolve.ts'
import type { Resolved } from '../rows.ts'
import { type SpanSketch, sketchSpan } from '../testing.ts'

export const priceOf = openPrices([])
export const claude = 'claude-sonnet-4-5-20250929'

export function rowsOf(...sketches: readonly SpanSketch[]): Resolved {
  return resolve(
    sketches.flatMap((sketch) => factsOf(sketchSpan(sketch)).facts),
    priceOf,
  )
}

export function says(sketch: SpanSketch): Says | undefined {
  return factsOf(sketchSpan(sketch)).facts[0]?.says
}

/** A span inside the one of the sketch. */
export function inside(spanId: string, parentSpanId: string, sketch: SpanSketch): SpanSketch {
  return { ...sketch, spanId: spanId.padStart(16, '0'), parentSpanId: parentSpanId.padStart(16, '0') }
}

export function scopeOf(name: string, version = ''): Pick<SpanSketch, 'scope'> {
  return { scope: { name, version } }
}

export type Attributes = Readonly<Record<string, AnyValue>>

export const gpt: Attributes = {
  'gen_ai.provider.name': 'openai',
  'gen_ai.request.model': 'gpt-4o-mini',
  'gen_ai.usage.input_tokens': 1200,
  'gen_ai.usage.cache_read.input_tokens': 1024,
  'gen_ai.usage.output_tokens': 300,
}

export const beside: Attributes = {
  'gen_ai.operation.name': 'chat',
  'gen_ai.request.model': claude,
  'gen_ai.usage.output_tokens': 50,
  'gen_ai.usage.cache_read.input_tokens': 2000,
  'gen_ai.usage.cache_creation.input_tokens': 300,
}

export const thinking: Attributes = {
  'gen_ai.operation.name': 'generate_content',
  'gen_ai.provider.name': 'gcp.gen_ai',
  'gen_ai.request.model': 'gemini-2.5-flash',
  'gen_ai.usage.input_tokens': 1200,
  'gen_ai.usage.cache_read.input_tokens': 1024,
  'gen_ai.usage.output_tokens': 108,
  'gen_ai.usage.total_tokens': 1500,
}

export function eventOf(name: string, attributes: Attributes): LiftedEvent {
  return { name, timeUnixNano: 0n, attributes: new Map(Object.entries(attributes)) }
}
