// Masking against another decoder: whatever is masked, nothing else of a request changes.
import assert from 'node:assert/strict'
import { openSecretMask } from '@tallylight/collector/masking/secrets.ts'
import { logRequest, secretExamples } from '@tallylight/collector/masking/testing.ts'
import type protobuf from 'protobufjs'
import { expect, test } from 'vitest'
import { seededRandom } from '../random.ts'
import { makeCase } from './cases.ts'
import { openOracle } from './oracle.ts'

const oracle = openOracle()
const mask = openSecretMask()
const examples = secretExamples()

/** The masked form of a text that stands alone. */
function maskAlone(text: string): string {
  const body = Buffer.from(text)
  const request = logRequest(body)
  mask('logs', request, new Map())
  return request.toString('utf8', request.length - body.length)
}

type Fields = Record<string, unknown>

/** Puts `change` of each string of a decoded message in its place. */
function changeStrings(type: protobuf.Type, message: Fields, change: (text: string) => string): void {
  for (const field of type.fieldsArray) {
    const value = message[field.name]
    if (value === undefined || value === null || !Object.hasOwn(message, field.name)) continue
    const inner = field.resolvedType
    const changed = (each: unknown): unknown => {
      if (field.type === 'string') return change(each as string)
      if (inner !== null && 'fieldsArray' in inner) changeStrings(inner, each as Fields, change)
      return each
    }
    message[field.name] = Array.isArray(value) ? value.map(changed) : changed(value)
  }
}

test('masking: of 500 requests with secrets here and there, another decoder reads all but the secrets as it was', () => {
  let planted = 0
  let masked = 0
  for (let seed = 0; seed < 500; seed++) {
    const random = seededRandom(seed)
    const { signal, wire } = makeCase(oracle, seed, true)
    const type = oracle.types[signal]
    const message = type.decode(wire)
    changeStrings(type, message as unknown as Fields, (text) => {
      if (!random.chance(0.3)) return text
      planted++
      const place = random.below(text.length + 1)
      return `${text.slice(0, place)} ${random.pick(examples).text} ${text.slice(place)}`
    })
    const request = Buffer.from(type.encode(message).finish())
    const expected = type.decode(request)
    changeStrings(type, expected as unknown as Fields, maskAlone)
    const counts = new Map<string, number>()
    mask(signal, request, counts)
    assert.deepStrictEqual(type.decode(request), expected, `seed ${seed}`)
    for (const count of counts.values()) masked += count
  }
  expect(planted).toBeGreaterThan(2_500)
  expect(masked).toBeGreaterThanOrEqual(planted)
})

test('masking: 1,500 requests without secrets, whole and broken, are the same bytes afterwards', () => {
  for (let seed = 0; seed < 1_500; seed++) {
    const { signal, wire, broken } = makeCase(oracle, seed, true)
    for (const bytes of [wire, broken]) {
      const before = Buffer.from(bytes)
      const counts = new Map<string, number>()
      mask(signal, bytes, counts)
      assert(bytes.equals(before) && counts.size === 0, `seed ${seed}: ${[...counts.keys()]}`)
    }
  }
})
