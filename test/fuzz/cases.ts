// One fuzz case from a seed: a request, its wire bytes, its JSON, and broken forms of both. A failure names its seed, which
// alone brings the case back: `npm run fuzz -- --cases 1 --seed N`.
import assert from 'node:assert/strict'
import { wireFromJson } from '@tallylight/collector/otlp/json.ts'
import { seededRandom } from '../random.ts'
import { encodeJson } from './encode-json.ts'
import { encodeWire } from './encode-wire.ts'
import { generateRequest } from './model.ts'
import { mutate } from './mutate.ts'
import type { Oracle } from './oracle.ts'
import type { Signal } from './otlp-proto.ts'

const signals = ['traces', 'metrics', 'logs'] as const
const nowUnixNano = 1_790_000_000_000_000_000n

export type FuzzCase = {
  readonly seed: number
  readonly signal: Signal
  /** A valid request. */
  readonly wire: Buffer
  /** The same request as OTLP/JSON. */
  readonly json: Buffer
  /** `wire` with one to four things wrong, which may still decode. */
  readonly broken: Buffer
}

/** `repeatsMessages`: see GeneratorOptions; off for comparisons with decoders that do not merge. */
export function makeCase(oracle: Oracle, seed: number, repeatsMessages: boolean): FuzzCase {
  const random = seededRandom(seed)
  const signal = random.pick(signals)
  const options = { random, types: oracle.types, nowUnixNano, repeatsMessages }
  const model = generateRequest(signal, options)
  const wire = encodeWire(model)
  const other = encodeWire(generateRequest(signal, options))
  const json = encodeJson(model, random, random.chance(0.4))
  return { seed, signal, wire, json, broken: mutate(wire, other, random) }
}

/** The JSON of a request becomes bytes that say the same as its own, and broken JSON is refused with a reason, in time. */
export function checkJson(oracle: Oracle, { seed, signal, wire, json }: FuzzCase): void {
  const random = seededRandom(seed + 2 ** 40)
  const converted = wireFromJson(signal, json)
  if (hasOwnField(oracle, signal, wire) && converted.kind === 'malformed')
    assert.fail(`seed ${seed}: ${converted.reason}`)
  if (converted.kind === 'wire') {
    const place = `seed ${seed}: the JSON of ${signal} says something else than its wire bytes`
    assert.deepStrictEqual(oracle.plainObject(signal, converted.bytes), oracle.plainObject(signal, wire), place)
  }
  checkBrokenJson(oracle, seed, signal, mutate(json, json, random))
}

/** A request of nothing but unknown fields is a valid message, and a JSON body of nothing but unknown names is not OTLP. */
function hasOwnField(oracle: Oracle, signal: Signal, wire: Buffer): boolean {
  return Object.keys(oracle.plainObject(signal, wire) as object).length > 0
}

function checkBrokenJson(oracle: Oracle, seed: number, signal: Signal, json: Buffer): void {
  const converted = wireFromJson(signal, json)
  if (converted.kind === 'malformed') {
    assert.match(
      converted.reason,
      /^cannot read the JSON of \w+: .+, at byte \d+$/s,
      `seed ${seed}: a reason without a place`,
    )
    return
  }
  // Whatever was accepted must be JSON to others as well, and its bytes a message.
  const text = json.toString('utf8').replace(/^\ufeff/, '')
  assert.doesNotThrow(() => JSON.parse(text), `seed ${seed}: accepted, but it is not JSON`)
  assert.doesNotThrow(
    () => oracle.plainObject(signal, converted.bytes),
    `seed ${seed}: accepted, but the bytes do not decode`,
  )
}
