import assert from 'node:assert/strict'
import { gunzipSync, zstdDecompressSync } from 'node:zlib'
import { wireFromJson } from '@tallylight/collector/otlp/json.ts'
import { expect, test } from 'vitest'
import { openOracle } from '../fuzz/oracle.ts'
import { buildCorpus, type Corpus, type CorpusName, type CorpusOptions, usualRecords } from './corpora.ts'

const oracle = openOracle()
const nowUnixNano = 1_790_000_000_000_000_000n
const build = (name: CorpusName, options: Partial<CorpusOptions> = {}) =>
  buildCorpus(name, {
    requests: 4,
    recordsPerRequest: usualRecords[name],
    seed: 1,
    encoding: 'protobuf',
    contentEncoding: 'identity',
    nowUnixNano,
    ...options,
  })

const shapes: readonly (readonly [name: CorpusName, bytes: number, gzipFrom: number, gzipTo: number])[] = [
  ['web', 422, 5, 8],
  ['llm', 3_500, 2.5, 4],
  ['logs-300', 300, 2.5, 5],
  ['logs-1k', 1_000, 2.3, 4],
  ['metrics', 215, 4, 7],
]

for (const [name, bytes, gzipFrom, gzipTo] of shapes) {
  test(`corpus ${name}: about ${bytes} B a record, gzip ${gzipFrom}–${gzipTo}x, as real telemetry`, () => {
    const corpus = build(name)
    expect(Math.abs(corpus.bytesPerRecord - bytes) / bytes).toBeLessThan(0.03)
    expect(corpus.gzipRatio).toBeGreaterThan(gzipFrom)
    expect(corpus.gzipRatio).toBeLessThan(gzipTo)
    expect(corpus.zstdRatio).toBeGreaterThan(gzipFrom * 0.8)
  })
}

function rowsOf(corpus: Corpus, body: Buffer) {
  const clock = {
    receivedUnixNano: nowUnixNano,
    oldestUnixNano: nowUnixNano - 60_000_000_000n,
    newestUnixNano: nowUnixNano + 60_000_000_000n,
  }
  const expected = oracle.expectedRows(corpus.signal, body, clock)
  assert(expected.kind === 'rows', expected.kind === 'rows' ? '' : expected.reason)
  expect(expected.left).toEqual({ badId: 0, tooOld: 0, tooNew: 0 })
  return Object.values(expected.tables).flat()
}

test('corpora: every record becomes a row, near the given time', () => {
  for (const name of Object.keys(usualRecords) as CorpusName[]) {
    const corpus = build(name, { requests: 2 })
    expect(corpus.bodies.flatMap((body) => rowsOf(corpus, body))).toHaveLength(corpus.records)
  }
})

test('corpora: span ids are unique and bodies are distinct', () => {
  const corpus = build('web', { requests: 20 })
  const ids = corpus.bodies.flatMap((body) => rowsOf(corpus, body).map((row) => row.SpanId))
  expect(new Set(ids).size).toBe(corpus.records)
  expect(new Set(corpus.bodies.map((body) => body.toString('latin1'))).size).toBe(20)
})

test('corpora: a web span has 10 attributes and 8 of its resource, an LLM span 12', () => {
  const [web] = rowsOf(build('web', { requests: 1 }), build('web', { requests: 1 }).bodies[0]!)
  const [llm] = rowsOf(build('llm', { requests: 1 }), build('llm', { requests: 1 }).bodies[0]!)
  expect(
    [web?.SpanAttributes, web?.ResourceAttributes, llm?.SpanAttributes].map((map) => Object.keys(map ?? {}).length),
  ).toEqual([10, 8, 12])
})

test('corpora: JSON and protobuf of one seed are the same records', () => {
  for (const name of ['web', 'llm', 'logs-1k', 'metrics'] as const) {
    const json = build(name, { requests: 1, encoding: 'json' })
    const wire = build(name, { requests: 1 })
    const converted = wireFromJson(json.signal, json.bodies[0]!)
    assert(converted.kind === 'wire', converted.kind === 'wire' ? '' : converted.reason)
    expect(rowsOf(wire, converted.bytes)).toEqual(rowsOf(wire, wire.bodies[0]!))
  }
})

test('corpora: the seed decides the bytes, and compression is of the same bytes', () => {
  const plain = build('tiny-10')
  const gzip = build('tiny-10', { contentEncoding: 'gzip' })
  const zstd = build('tiny-10', { contentEncoding: 'zstd' })
  expect(gzip.sha256).toBe(plain.sha256)
  expect(build('tiny-10', { seed: 2 }).sha256).not.toBe(plain.sha256)
  expect(gzip.bodies.map((body) => gunzipSync(body).equals(plain.bodies[gzip.bodies.indexOf(body)]!))).not.toContain(
    false,
  )
  expect(zstdDecompressSync(zstd.bodies[0]!).equals(plain.bodies[0]!)).toBe(true)
})
