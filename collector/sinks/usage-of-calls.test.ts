import { expect, test } from 'vitest'
import { factsOf } from '../genai/lift.ts'
import { openPrices } from '../genai/price.ts'
import type { AnyValue } from '../genai/record.ts'
import { resolve } from '../genai/resolve/resolve.ts'
import { type SpanSketch, sketchSpan } from '../genai/testing.ts'
import type { UsageEvent } from '../quota/usage-event.ts'
import { usageEventsOf } from './usage-of-calls.ts'

function eventOf(attributes: Readonly<Record<string, AnyValue>>, more: SpanSketch = {}): UsageEvent | undefined {
  const span = sketchSpan({
    ...more,
    attributes: {
      'gen_ai.provider.name': 'openai',
      'gen_ai.request.model': 'text-embedding-3-small',
      'tallylight.call.id': 'call',
      ...attributes,
    },
  })
  const resolved = resolve(factsOf(span).facts, openPrices([]))
  return usageEventsOf({ tenantId: span.tenantId, traceId: span.traceId, resolved })[0]
}

test.each(['chat', 'embeddings'])('usage: a record of %s settles the reservation that it names', (operation) => {
  const named = { 'gen_ai.operation.name': operation }
  expect(eventOf({ ...named, 'gen_ai.usage.input_tokens': 7 })).toMatchObject({
    callId: 'call',
    model: 'text-embedding-3-small',
    usage: { inputTokens: 7, outputTokens: 0 },
  })
  // Nothing is known of it, which is not nothing; one that failed was not billed.
  expect(eventOf(named)).toMatchObject({ callId: 'call', usage: undefined, cost: { kind: 'unpriced' } })
  const failed = eventOf({ ...named, 'error.type': '500' }, { status: 'error' })
  expect(failed).toMatchObject({ callId: 'call', usage: { inputTokens: 0 }, cost: { kind: 'priced', costNanoUsd: 0n } })
})
