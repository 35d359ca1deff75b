import assert from 'node:assert/strict'
import { expect, test } from 'vitest'
import { checkJson, makeCase } from './cases.ts'
import { encodeWire } from './encode-wire.ts'
import { varint } from './model.ts'
import { openOracle } from './oracle.ts'
import type { Clock } from './rows.ts'

const oracle = openOracle()
const now = 1_790_000_000_000_000_000n
const day = 86_400_000_000_000n
const clock: Clock = { receivedUnixNano: now, oldestUnixNano: now - 30n * day, newestUnixNano: now + day }

test('fuzz: the JSON of 1,000 requests says what their wire bytes say, and 1,000 broken bodies end in an outcome', () => {
  for (let seed = 0; seed < 1_000; seed += 1) checkJson(oracle, makeCase(oracle, seed, seed % 2 === 0))
})

test('fuzz: a seed gives the same case again', () => {
  for (const seed of [7, 2 ** 40 + 7]) expect(makeCase(oracle, seed, true)).toEqual(makeCase(oracle, seed, true))
  expect(makeCase(oracle, 7, true).wire).not.toEqual(makeCase(oracle, 2 ** 40 + 7, true).wire)
})

test('oracle: every valid request has rows when messages are not repeated, and all seven tables are reached', () => {
  const tables = new Map<string, number>()
  const left = { badId: 0, tooOld: 0, tooNew: 0 }
  let clamped = 0
  for (let seed = 0; seed < 600; seed += 1) {
    const { signal, wire } = makeCase(oracle, seed, false)
    const expected = oracle.expectedRows(signal, wire, clock)
    assert(expected.kind === 'rows', `seed ${seed}: ${expected.kind === 'rows' ? '' : expected.reason}`)
    for (const [table, rows] of Object.entries(expected.tables))
      tables.set(table, (tables.get(table) ?? 0) + rows.length)
    left.badId += expected.left.badId
    left.tooOld += expected.left.tooOld
    left.tooNew += expected.left.tooNew
    clamped += expected.durationsClamped
  }
  expect([...tables.keys()].sort()).toEqual([
    'otel_logs',
    'otel_metrics_exp_histogram',
    'otel_metrics_gauge',
    'otel_metrics_histogram',
    'otel_metrics_sum',
    'otel_metrics_summary',
    'otel_traces',
  ])
  expect(Math.min(...tables.values(), left.badId, left.tooOld, left.tooNew, clamped)).toBeGreaterThan(0)
})

/** Wire bytes by hand: a varint field is a number or bigint, one of fixed size or length is a Buffer or a text. */
type Part = readonly [number: number, value: number | bigint | string | Buffer | readonly Part[], wireType?: number]

function wire(...parts: readonly Part[]): Buffer {
  return Buffer.concat(
    parts.map(([number, value, wireType]) => {
      if (typeof value === 'number' || typeof value === 'bigint') {
        return Buffer.concat([varint(BigInt((number << 3) | (wireType ?? 0))), varint(BigInt(value))])
      }
      const content = Array.isArray(value) ? wire(...value) : Buffer.from(value as string | Buffer)
      const tag = varint(BigInt((number << 3) | (wireType ?? 2)))
      return wireType === 1 || wireType === 5
        ? Buffer.concat([tag, content])
        : Buffer.concat([tag, varint(BigInt(content.length)), content])
    }),
  )
}

const fixed64 = (value: bigint) => {
  const bytes = Buffer.alloc(8)
  bytes.writeBigUInt64LE(value)
  return bytes
}
const double = (value: number) => {
  const bytes = Buffer.alloc(8)
  bytes.writeDoubleLE(value)
  return bytes
}
const attribute = (number: number, key: string, ...value: readonly Part[]): Part => [
  number,
  [
    [1, key],
    [2, value],
  ],
]

test('oracle: a span worked out by hand', () => {
  const span: readonly Part[] = [
    [1, Buffer.from('5b8efff798038103d269b633813fc60c', 'hex')],
    [2, Buffer.from('eee19b7ec3c1b174', 'hex')],
    [4, Buffer.alloc(8)],
    [5, Buffer.from('bad \xff', 'latin1')],
    [6, 2],
    [7, fixed64(now), 1],
    [8, fixed64(now - 1n), 1],
    attribute(9, 'z', [1, 'last']),
    attribute(9, 'b', [4, double(-0), 1]),
    attribute(9, 'a', [3, -5n]),
    attribute(9, 'b', [7, Buffer.from([1, 2])]),
    attribute(9, 'm', [
      6,
      [
        attribute(1, 'y', [2, 1]),
        attribute(1, 'x', [
          5,
          [
            [1, []],
            [1, [[4, double(Number.NaN), 1]]],
          ],
        ]),
      ],
    ]),
    attribute(9, 'n'),
    [
      15,
      [
        [3, 2],
        [2, 'no'],
      ],
    ],
  ]
  const request = wire([
    1,
    [
      [1, [attribute(1, 'service.name', [1, 'shop'])]],
      [
        2,
        [
          [
            1,
            [
              [1, 'lib'],
              [2, '1'],
            ],
          ],
          [2, span],
        ],
      ],
    ],
  ])
  const expected = oracle.expectedRows('traces', request, clock)
  assert(expected.kind === 'rows')
  expect(expected.left).toEqual({ badId: 0, tooOld: 0, tooNew: 0 })
  expect(expected.durationsClamped).toBe(1)
  expect(expected.tables.otel_traces).toEqual([
    {
      Timestamp: now,
      TraceId: '5b8efff798038103d269b633813fc60c',
      SpanId: 'eee19b7ec3c1b174',
      ParentSpanId: '',
      TraceState: '',
      SpanName: 'bad \ufffd',
      SpanKind: 'Server',
      ServiceName: 'shop',
      ResourceAttributes: [['service.name', 'shop']],
      ScopeName: 'lib',
      ScopeVersion: '1',
      SpanAttributes: [
        ['a', '-5'],
        ['b', '-0'],
        ['b', 'AQI='],
        ['m', '{"x":[null,"NaN"],"y":true}'],
        ['n', ''],
        ['z', 'last'],
      ],
      Duration: 0n,
      StatusCode: 'Error',
      StatusMessage: 'no',
      'Events.Timestamp': [],
      'Events.Name': [],
      'Events.Attributes': [],
      'Links.TraceId': [],
      'Links.SpanId': [],
      'Links.TraceState': [],
      'Links.Attributes': [],
    },
  ])
})

const inSpan = (...parts: readonly Part[]) => wire([1, [[2, [[2, parts]]]]])
const verdicts: readonly (readonly [fact: string, bytes: Buffer, kind: 'rows' | 'malformed' | 'unclear'])[] = [
  ['no bytes', Buffer.alloc(0), 'rows'],
  [
    'an unknown field of each wire type',
    wire([99, 1], [98, 'x'], [97, fixed64(1n), 1], [96, Buffer.alloc(4), 5]),
    'rows',
  ],
  ['a known field of another wire type', inSpan([5, 7]), 'malformed'],
  ['a group', Buffer.from([0x0b, 0x0c]), 'malformed'],
  ['an unknown group', Buffer.from([0x7b, 0x7c]), 'malformed'],
  ['wire type 6', Buffer.from([0x7e]), 'malformed'],
  ['field number 0', Buffer.from([0x02, 0x00]), 'malformed'],
  ['a length past the end', Buffer.from([0x0a, 0x05, 0x00]), 'malformed'],
  ['a length past the end of its message', Buffer.from([0x0a, 0x02, 0x12, 0x05, 0, 0, 0, 0, 0]), 'malformed'],
  ['a varint of eleven bytes', Buffer.from([0x0a, ...Array(10).fill(0x80), 0]), 'malformed'],
  ['a cut varint', Buffer.from([0x0a, 0x80]), 'malformed'],
  ['a tag alone', Buffer.from([0x0a]), 'malformed'],
  ['a padded length', Buffer.from([0x0a, 0x80, 0x80, 0x80, 0x00]), 'rows'],
  ['a length padded to ten bytes, which protobufjs refuses', Buffer.from([0x0a, ...Array(9).fill(0x80), 0]), 'unclear'],
  ['a message twice', inSpan([15, []], [15, []]), 'unclear'],
]

for (const [fact, bytes, kind] of verdicts) {
  test(`oracle: ${kind}, ${fact}`, () => {
    const expected = oracle.expectedRows('traces', bytes, clock)
    expect(expected.kind, 'reason' in expected ? expected.reason : '').toBe(kind)
  })
}

test('oracle: the model of a request is encoded as protobufjs encodes what it decodes', () => {
  // A model without oddities: the simple encoder and protobufjs must agree byte for byte.
  const type = oracle.types.traces
  const spans = type.fields.resourceSpans!
  const schemaUrl = spans.resolvedType
  assert(schemaUrl && 'fields' in schemaUrl)
  const field = schemaUrl.fields.schemaUrl!
  const inner = {
    type: schemaUrl,
    fields: [{ kind: 'field' as const, field, values: [Buffer.from('url')], isPacked: false }],
  }
  const model = { type, fields: [{ kind: 'field' as const, field: spans, values: [inner], isPacked: false }] }
  const bytes = encodeWire(model)
  expect(bytes.equals(Buffer.from(type.encode(type.decode(bytes)).finish()))).toBe(true)
  expect(oracle.plainObject('traces', bytes)).toEqual({ resourceSpans: [{ schemaUrl: 'url' }] })
})
