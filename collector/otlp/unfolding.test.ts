// What a few bytes may unfold to: a request is refused before it takes the memory, and the time of everybody.
import { openBlock } from '@tallylight/storage/clickhouse/block.ts'
import { SegmentFull } from '@tallylight/storage/clickhouse/dictionary.ts'
import { openStream } from '@tallylight/storage/clickhouse/stream.ts'
import { expect, test } from 'vitest'
import type { Signal } from '../receive/request.ts'
import { appendValue, placeValue, valueEmpty } from './any-value.ts'
import { walkLogs } from './logs.ts'
import { walkMetrics } from './metrics.ts'
import { walkTraces } from './traces.ts'
import { openWalk, openWalkScratch } from './walk.ts'
import { openCursor } from './wire.ts'

const walks = { traces: walkTraces, metrics: walkMetrics, logs: walkLogs }
const MiB = 1024 * 1024
const many = 3 * MiB

function field(number: number, content: Buffer): Buffer {
  const size: number[] = []
  let rest = content.length
  for (; rest >= 128; rest = Math.floor(rest / 128)) size.push((rest % 128) + 128)
  return Buffer.concat([Buffer.from([number * 8 + 2, ...size, rest]), content])
}
const repeated = (bytes: readonly number[], times: number): Buffer =>
  Buffer.alloc(bytes.length * times, Buffer.from(bytes))
const inRequest = (record: Buffer): Buffer => field(1, field(2, field(2, record)))
const span = (fields: Buffer): Buffer =>
  inRequest(Buffer.concat([field(1, Buffer.alloc(16, 1)), field(2, Buffer.alloc(8, 1)), fields]))
const metric = (kind: number, point: Buffer): Buffer => inRequest(field(kind, field(1, point)))

function walk(signal: Signal, bytes: Buffer): number {
  let rows = 0
  const request = {
    bytes,
    tenant: 'default',
    manyTenants: false,
    receivedUnixMs: Date.now(),
    retentionDaysOf: () => 30,
    openBlock: ((table, day) => {
      rows++
      return openBlock(table, day)
    }) as Parameters<typeof openWalk>[1]['openBlock'],
    rowBytesMax: 128 * MiB,
    lifting: undefined,
    masked: new Map<string, number>(),
  }
  walks[signal](openWalk(signal, request, openWalkScratch()))
  return rows
}

test.each<readonly [string, Signal, (times: number) => Buffer]>([
  ['events', 'traces', (times) => span(repeated([0x5a, 0], times))],
  ['links', 'traces', (times) => span(repeated([0x6a, 0], times))],
  ['exemplars', 'metrics', (times) => metric(5, repeated([0x2a, 0], times))],
  ['quantiles', 'metrics', (times) => metric(11, repeated([0x32, 0], times))],
  ['buckets', 'metrics', (times) => metric(10, field(8, field(2, Buffer.alloc(times * 4))))],
  ['items of an array', 'logs', (times) => inRequest(field(5, field(5, repeated([0x0a, 0], times))))],
  ['keys of a map', 'logs', (times) => inRequest(field(5, field(6, repeated([0x0a, 0], times))))],
])(
  'walk: a record of nothing but %s is refused above what a segment holds, and stored below',
  (_, signal, requestOf) => {
    expect(() => walk(signal, requestOf(many))).toThrow(SegmentFull)
    expect(walk(signal, requestOf(1000))).toBe(1)
  },
)

test('values: keys of a map are in the order of their bytes, whatever letters they are of', () => {
  const keys = ['', 'a', 'aa', 'b', 'é', '日', '\ue000', '\uffff', '😀', '😀a', '🤖']
  const shuffled = keys.toReversed()
  const cursor = openCursor(field(6, Buffer.concat(shuffled.map((key) => field(1, field(1, Buffer.from(key)))))))
  const place = { kind: valueEmpty, start: 0, end: 0 }
  placeValue(cursor, cursor.bytes.length, place)
  const text = openStream()
  appendValue(text, cursor, place.kind, place.start, place.end)
  const json = text.bytes.subarray(0, text.length).toString()
  expect(Object.keys(JSON.parse(json.slice(json.indexOf('{'))))).toEqual(
    keys.toSorted((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b))),
  )
})
