import { expect, test } from 'vitest'
import type { Fact } from './fact.ts'
import { factsOf } from './lift.ts'
import { openPrices } from './price.ts'
import type { AnyValue, LiftedRecord } from './record.ts'
import { resolve } from './resolve/resolve.ts'
import { chatAttributes, type Random, readRecorded, seededRandom, sketchSpan } from './testing.ts'

const priceOf = openPrices([])

test('content: a tenant of metadata only keeps sizes, and nothing made of the text', () => {
  const { facts, texts } = factsOf(
    sketchSpan({
      attributes: { ...chatAttributes, 'gen_ai.input.messages': 'secret', 'gen_ai.usage.input_tokens': 1 },
    }),
    'metadata',
  )
  expect(texts.size).toBe(0)
  expect(facts[0]?.says).toMatchObject({ messages: [{ content: { hash: '', bytes: 6, preview: '' } }] })
})

test('unknown: a record that no dialect knows is left alone', () => {
  const lifted = factsOf(sketchSpan({ attributes: { 'gen_ai.something': 'new', 'http.method': 'GET' } }))
  expect(lifted).toMatchObject({ facts: [], malformed: 0, absurdUsage: 0, understood: { attributes: [] } })
})

test('clocks in disorder make no negative duration', () => {
  const { llmCalls, turns } = resolve(
    factsOf(sketchSpan({ startUnixNano: 9n, endUnixNano: 3n, attributes: chatAttributes })).facts,
    priceOf,
  )
  expect([llmCalls[0]?.DurationNano, turns[0]?.DurationNano]).toEqual([0n, 0n])
})

function anyValue(random: Random, depth = 0): AnyValue {
  const texts = [
    '',
    'null',
    '{',
    '[]',
    '[{}]',
    '{"messages":7}',
    '"',
    '\ud800',
    '9'.repeat(400),
    '__proto__',
    '[[[[{"role":3}]]]]',
    '{"usage":{"input_tokens":"x"}}',
  ]
  switch (random.below(depth > 2 ? 7 : 9)) {
    case 0:
      return null
    case 1:
      return random.pick([0, -1, 1e308, Number.NaN, Number.POSITIVE_INFINITY, 2 ** 53, 0.1])
    case 2:
      return random.pick([2n ** 63n - 1n, -(2n ** 63n)])
    case 3:
      return random.chance(0.5)
    case 4:
      return Buffer.from([random.below(256), 0, 255])
    case 5:
    case 6:
      return random.pick(texts)
    case 7:
      return Array.from({ length: random.below(4) }, () => anyValue(random, depth + 1))
    default:
      return new Map(
        Array.from({ length: random.below(4) }, () => [
          random.pick(['role', 'parts', 'content', 'type', 'message', '__proto__']),
          anyValue(random, depth + 1),
        ]),
      )
  }
}

test('bad input: whatever stands in the attributes of a record, nothing throws and every number is one', () => {
  const random = seededRandom(11)
  const recorded = readRecorded()
  const keys = [...new Set(recorded.flatMap((record) => [...record.attributes.keys()]))]
  const corrupt = (record: LiftedRecord): LiftedRecord => {
    const attributes = new Map(record.attributes)
    for (let count = 1 + random.below(6); count > 0; count--)
      attributes.set(
        random.chance(0.7) ? random.pick([...attributes.keys(), 'x']) : random.pick(keys),
        anyValue(random),
      )
    if (record.kind === 'log') return { ...record, attributes, body: anyValue(random) }
    const events = record.events.map((event) => ({
      ...event,
      attributes: new Map([...event.attributes.keys()].map((key) => [key, anyValue(random)])),
    }))
    return { ...record, attributes, events }
  }
  for (let round = 0; round < 12; round++) {
    const facts: Fact[] = []
    for (const record of recorded) {
      const lifted = factsOf(corrupt(record))
      expect(lifted.broken).toBeUndefined()
      facts.push(...lifted.facts)
    }
    for (const ofTrace of Map.groupBy(facts, (fact) => fact.traceId).values())
      for (const row of resolve(ofTrace, priceOf).llmCalls) {
        for (const count of [row.InputTokens, row.OutputTokens, row.CacheReadTokens, row.Attempt])
          expect(count === null || (Number.isSafeInteger(count) && count >= 0)).toBe(true)
        expect(row.DurationNano >= 0n).toBe(true)
      }
  }
})
