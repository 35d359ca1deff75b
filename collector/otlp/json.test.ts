import assert from 'node:assert/strict'
import { expect, test } from 'vitest'
import { limits } from '../limits.ts'
import type { Signal } from '../receive/request.ts'
import { wireFromJson } from './json.ts'

// Lengths of messages are padded on purpose, so bytes are compared after they were read: a message is its fields in order,
// each "number=value"; what has a length is read as the schema-less protobuf it may be, or as text or hex when it is none.
function fieldsOf(bytes: Buffer): string[] {
  const fields: string[] = []
  let at = 0
  const varint = () => {
    let value = 0n
    for (let shift = 0n; ; shift += 7n) {
      assert(at < bytes.length, 'the bytes end inside a varint')
      const byte = bytes[at++]!
      value |= BigInt(byte & 127) << shift
      if (byte < 128) return value
    }
  }
  while (at < bytes.length) {
    const tag = Number(varint())
    const number = tag >> 3
    const kind = tag & 7
    assert(number > 0 && [0, 1, 2, 5].includes(kind), `tag ${tag}`)
    if (kind === 0) fields.push(`${number}=${varint()}`)
    else {
      const length = kind === 1 ? 8 : kind === 5 ? 4 : Number(varint())
      assert(at + length <= bytes.length, 'a field runs past the end')
      fields.push(`${number}:${bytes.toString('hex', at, at + length)}`)
      at += length
    }
  }
  return fields
}

function wireOf(signal: Signal, json: string | Buffer): Buffer {
  const converted = wireFromJson(signal, Buffer.from(json))
  assert(converted.kind === 'wire', converted.kind === 'malformed' ? converted.reason : '')
  return converted.bytes
}

/** Follows field numbers down, the first of each, and returns the fields of the message there. */
function fieldsAt(bytes: Buffer, ...path: readonly number[]): string[] {
  let fields = fieldsOf(bytes)
  for (const number of path) {
    const found = fields.find((field) => field.startsWith(`${number}:`))
    assert(found, `no field ${number}`)
    fields = fieldsOf(Buffer.from(found.slice(found.indexOf(':') + 1), 'hex'))
  }
  return fields
}

const spanFields = (members: string) =>
  fieldsAt(wireOf('traces', `{"resourceSpans":[{"scopeSpans":[{"spans":[{${members}}]}]}]}`), 1, 2, 2)
const valueFields = (members: string) =>
  fieldsAt(wireOf('logs', `{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"body":{${members}}}]}]}]}`), 1, 2, 2, 5)
const pointFields = (kind: string, number: number, members: string) => {
  const json = `{"resourceMetrics":[{"scopeMetrics":[{"metrics":[{"${kind}":{"dataPoints":[{${members}}]}}]}]}]}`
  return fieldsAt(wireOf('metrics', json), 1, 2, 2, number, 1)
}
const hex = (text: string) => Buffer.from(text).toString('hex')
const double = (value: number) => {
  const bytes = Buffer.alloc(8)
  bytes.writeDoubleLE(value)
  return bytes.toString('hex')
}

const fixed64 = (value: bigint) => {
  const bytes = Buffer.alloc(8)
  bytes.writeBigUInt64LE(value)
  return bytes.toString('hex')
}

const taken: readonly (readonly [fact: string, fields: () => string[], expected: readonly string[]])[] = [
  [
    'a trace id in lower case',
    () => spanFields('"traceId":"5b8efff798038103d269b633813fc60c"'),
    ['1:5b8efff798038103d269b633813fc60c'],
  ],
  [
    'a trace id in mixed case',
    () => spanFields('"traceId":"5B8EFFF798038103D269b633813FC60C"'),
    ['1:5b8efff798038103d269b633813fc60c'],
  ],
  ['an id of a wrong length is passed on', () => spanFields('"traceId":"5b8e","spanId":""'), ['1:5b8e', '2:']],
  ['an id of 200 bytes is passed on', () => spanFields(`"spanId":"${'ab'.repeat(200)}"`), [`2:${'ab'.repeat(200)}`]],
  ['an escaped id', () => spanFields('"spanId":"\\u0061b"'), ['2:ab']],
  [
    'nanoseconds as a string',
    () => spanFields('"startTimeUnixNano":"1544712660000000123"'),
    [`7:${fixed64(1544712660000000123n)}`],
  ],
  [
    'nanoseconds as a number, exactly',
    () => spanFields('"startTimeUnixNano":1544712660000000123'),
    [`7:${fixed64(1544712660000000123n)}`],
  ],
  ['2^64-1', () => spanFields('"endTimeUnixNano":"18446744073709551615"'), ['8:ffffffffffffffff']],
  ['2^53+1 as a number', () => spanFields('"endTimeUnixNano":9007199254740993'), ['8:0100000000002000']],
  ['an integral exponent', () => spanFields('"kind":0.3e1,"startTimeUnixNano":"15e2"'), ['6=3', '7:dc05000000000000']],
  ['zero in every spelling', () => spanFields('"kind":-0,"flags":0.000e99999999999'), ['6=0', '16:00000000']],
  ['an enum from a later version', () => spanFields('"kind":99'), ['6=99']],
  ['a negative enum', () => spanFields('"kind":-1'), ['6=18446744073709551615']],
  ['a field number above 15', () => spanFields('"flags":257'), ['16:01010000']],
  ['null is absent', () => spanFields('"name":null,"attributes":null,"status":null,"kind":null,"traceId":null'), []],
  [
    'unknown fields hold anything',
    () => spanFields('"x":[{"y":[1,-2.5e+3,"\\"]",null,{}]},true],"name":"a","":{}'),
    [`5:${hex('a')}`],
  ],
  ['snake_case names are unknown', () => spanFields('"trace_id":"zz","name":"a"'), [`5:${hex('a')}`]],
  ['names differ by case', () => spanFields('"traceid":"zz","Name":1'), []],
  ['an escaped name is the name', () => spanFields('"n\\u0061me":"a"'), [`5:${hex('a')}`]],
  [
    'of a name that comes twice the later is behind',
    () => spanFields('"name":"a","name":"b"'),
    [`5:${hex('a')}`, `5:${hex('b')}`],
  ],
  ['white space everywhere', () => spanFields(' \n"name" \t:\r "a" , "kind" : 2 '), [`5:${hex('a')}`, '6=2']],
  ['any order', () => spanFields('"kind":2,"name":"a","traceId":"ab"'), ['6=2', `5:${hex('a')}`, '1:ab']],
  ['an empty string is a value', () => valueFields('"stringValue":""'), ['1:']],
  [
    'the escapes of JSON',
    () => valueFields('"stringValue":"\\"\\\\\\/\\b\\f\\n\\r\\t\\u00e9\\u20AC"'),
    [`1:${hex('"\\/\b\f\n\r\té€')}`],
  ],
  ['an escaped NUL', () => valueFields('"stringValue":"a\\u0000b"'), ['1:610062']],
  ['a surrogate pair', () => valueFields('"stringValue":"\\ud83d\\ude00"'), [`1:${hex('\u{1f600}')}`]],
  ['a lone high surrogate', () => valueFields('"stringValue":"\\ud83dx"'), [`1:${hex('\ufffdx')}`]],
  ['a lone low surrogate', () => valueFields('"stringValue":"\\ude00\\ud83d"'), [`1:${hex('\ufffd\ufffd')}`]],
  [
    'two high surrogates and a low',
    () => valueFields('"stringValue":"\\ud83d\\ud83d\\ude00"'),
    [`1:${hex('\ufffd\u{1f600}')}`],
  ],
  [
    'a high surrogate and another escape',
    () => valueFields('"stringValue":"\\ud83d\\u0041\\n"'),
    [`1:${hex('\ufffdA\n')}`],
  ],
  ['UTF-8 as it is', () => valueFields('"stringValue":"äöü€\u{1f600}"'), [`1:${hex('äöü€\u{1f600}')}`]],
  ['DEL is no control character to JSON', () => valueFields('"stringValue":"\x7f"'), ['1:7f']],
  ['booleans', () => valueFields('"boolValue":false'), ['2=0']],
  ['-2^63', () => valueFields('"intValue":"-9223372036854775808"'), [`3=${2n ** 63n}`]],
  ['-1 as a number', () => valueFields('"intValue":-1'), [`3=${2n ** 64n - 1n}`]],
  ['a double as a string', () => valueFields('"doubleValue":"1.5"'), [`4:${double(1.5)}`]],
  ['NaN', () => valueFields('"doubleValue":"NaN"'), [`4:${double(Number.NaN)}`]],
  ['infinity', () => valueFields('"doubleValue":"-Infinity"'), [`4:${double(Number.NEGATIVE_INFINITY)}`]],
  ['negative zero', () => valueFields('"doubleValue":-0'), [`4:${double(-0)}`]],
  ['a double of 17 digits', () => valueFields('"doubleValue":0.10000000000000001'), [`4:${double(0.1)}`]],
  ['the smallest double', () => valueFields('"doubleValue":5e-324'), [`4:${double(5e-324)}`]],
  ['a double too small for any', () => valueFields('"doubleValue":1e-999'), [`4:${double(0)}`]],
  [
    'an integer as a double',
    () => valueFields('"doubleValue":12345678901234567890'),
    [`4:${double(Number('12345678901234567890'))}`],
  ],
  ['base64', () => valueFields('"bytesValue":"+/8="'), ['7:fbff']],
  ['base64 for urls, unpadded', () => valueFields('"bytesValue":"-_8"'), ['7:fbff']],
  ['base64 with an escaped slash', () => valueFields('"bytesValue":"+\\/8="'), ['7:fbff']],
  ['no bytes', () => valueFields('"bytesValue":""'), ['7:']],
  ['an empty array', () => valueFields('"arrayValue":{"values":[]}'), ['5:']],
  ['an empty value', () => valueFields(''), []],
  [
    'integers are not doubles',
    () => pointFields('sum', 7, '"asInt":"-5","asDouble":0.5'),
    ['6:fbffffffffffffff', `4:${double(0.5)}`],
  ],
  ['a negative scale', () => pointFields('exponentialHistogram', 10, '"scale":-3'), ['6=5']],
  [
    'packed counts, strings and numbers',
    () => pointFields('histogram', 9, '"bucketCounts":["1",2,"0"],"explicitBounds":[]'),
    ['6:010000000000000002000000000000000000000000000000'],
  ],
  [
    'packed bounds',
    () => pointFields('histogram', 9, '"explicitBounds":[0.5,"Infinity"]'),
    [`7:${double(0.5)}${double(Number.POSITIVE_INFINITY)}`],
  ],
]

for (const [fact, fields, expected] of taken) {
  test(`json: ${fact}`, () => {
    expect(fields()).toEqual(expected)
  })
}

const inSpan = (members: string) => `{"resourceSpans":[{"scopeSpans":[{"spans":[{},{${members}}]}]}]}`
const inValue = (members: string) => inSpan(`"attributes":[{"key":"k","value":{${members}}}]`)

const refused: readonly (readonly [fact: string, json: string, reason: RegExp])[] = [
  ['an empty body', '', /expected an object with resourceSpans, found the end of the body, at byte 0/],
  ['an array', '[]', /expected an object with resourceSpans, found an array/],
  ['a string', '"resourceSpans"', /found a string/],
  ['null', 'null', /found null/],
  ['an object of something else', '{"batch":[]}', /expected resourceSpans, found only batch/],
  ['an object of something else with odd names', '{"se cret":1,"b":2}', /found only \?, b/],
  [
    'the wrong signal',
    '{"resourceLogs":[]}',
    /wrong signal: \/v1\/traces takes resourceSpans, the body has resourceLogs/,
  ],
  ['snake case at the top', '{"resource_spans":[]}', /expected resourceSpans, found only resource_spans/],
  ['text behind the end', '{"resourceSpans":[]} x', /expected the end of the body, found "x", at byte 21/],
  ['two documents', '{}{}', /expected the end of the body, found an object, at byte 2/],
  ['an unfinished object', '{"resourceSpans":[]', /expected "," or "}", found the end of the body/],
  ['an unfinished array', '{"resourceSpans":[', /resourceSpans\[0\]: expected an object, found the end/],
  ['an unfinished string', '{"resourceSp', /the body ends inside a string, at byte 12/],
  ['a comma behind the last field', '{"resourceSpans":[],}', /expected a field name in quotes, found "}"/],
  ['a comma behind the last element', '{"resourceSpans":[{},]}', /expected a value, found "]"/],
  ['elements without a comma', '{"resourceSpans":[{} {}]}', /expected "," or "]", found an object/],
  ['elements with a semicolon', '{"resourceSpans":[{};{}]}', /expected "," or "]", found ";"/],
  ['fields without a comma', inSpan('"name":"a" "kind":1'), /expected "," or "}", found a string/],
  ['a comma behind the last field inside', inSpan('"name":"a",'), /expected a field name in quotes/],
  ['a leading comma', '{,"resourceSpans":[]}', /expected a field name in quotes/],
  ['single quotes', "{'resourceSpans':[]}", /expected a field name in quotes/],
  ['a comment', '{/**/}', /expected a field name in quotes/],
  [
    'an array that is an object',
    '{"resourceSpans":{}}',
    /resourceSpans: expected an array, found an object, at byte 17/,
  ],
  ['an element that is null', '{"resourceSpans":[null]}', /resourceSpans\[0\]: expected an object, found null/],
  ['a name without a colon', inSpan('"name" "a"'), /expected ":", found a string/],
  [
    'a number for a string',
    inSpan('"name":7'),
    /resourceSpans\[0\]\.scopeSpans\[0\]\.spans\[1\]\.name: expected a string, found a number, at byte 54/,
  ],
  ['a string for a message', inSpan('"status":"ok"'), /status: expected an object, found a string/],
  ['a control character', inSpan('"name":"a\u0001"'), /the control character 0x01/],
  ['a raw line break', inSpan('"name":"long enough to be scanned\n"'), /the control character 0x0a/],
  ['a control character in a name', '{"\u0000":1}', /the control character 0x00/],
  [
    'a control character in what is skipped',
    inSpan('"x":{"y":"\t"}'),
    /x\.y: a string holds the control character 0x09/,
  ],
  ['an escape JSON does not have', inSpan('"name":"\\x41"'), /an escape that JSON does not have/],
  ['an unfinished \\u', inSpan('"name":"\\u12"'), /an escape that JSON does not have/],
  ['a wrong word', inSpan('"x":nul'), /expected a JSON value/],
  ['NaN', inValue('"doubleValue":NaN'), /value\.doubleValue: expected a number, found NaN/],
  ['Infinity without quotes', inValue('"doubleValue":-Infinity'), /expected a digit/],
  ['NaN in what is skipped', inSpan('"x":NaN'), /x: expected a JSON value, found NaN/],
  ['a leading zero', inSpan('"kind":01'), /kind: a number starts with 0/],
  ['a leading plus', inSpan('"kind":+1'), /kind: expected a decimal integer/],
  ['a bare dot', inValue('"doubleValue":1.'), /expected a digit/],
  ['a hex number', inSpan('"kind":0x10'), /expected "," or "}"/],
  ['a leading zero of a double', inValue('"doubleValue":00.5'), /expected "," or "}"/],
  ['a double beyond all doubles', inValue('"doubleValue":1e999'), /does not fit into a double/],
  ['a word for a double', inValue('"doubleValue":"fast"'), /expected a number, found another text/],
  ['an enum by name', inSpan('"kind":"SPAN_KIND_SERVER"'), /kind: expected an enum as an integer, found a string/],
  ['an enum in quotes', inSpan('"kind":"2"'), /expected an enum as an integer, found a string/],
  ['a fraction for an integer', inSpan('"kind":1.5'), /kind: the number is not an integer/],
  ['a fraction that hides in an exponent', inSpan('"kind":15e-1'), /the number is not an integer/],
  ['an enum of 33 bits', inSpan('"kind":2147483648'), /outside -2\^31 to 2\^31-1/],
  ['a negative count', inSpan('"droppedEventsCount":-1'), /outside 0 to 2\^32-1/],
  ['a count of 33 bits', inSpan('"droppedEventsCount":4294967296'), /outside 0 to 2\^32-1/],
  ['a time below 0', inSpan('"startTimeUnixNano":"-1"'), /startTimeUnixNano: the number is outside 0 to 2\^64-1/],
  ['2^64', inSpan('"startTimeUnixNano":"18446744073709551616"'), /does not fit into 64 bits/],
  ['10^30', inSpan('"startTimeUnixNano":1e30'), /does not fit into 64 bits/],
  ['21 digits', inSpan('"startTimeUnixNano":"100000000000000000000"'), /does not fit into 64 bits/],
  [
    'an exponent of a thousand digits',
    inSpan(`"kind":1e${'9'.repeat(1000)}`),
    /an integer of 1002 characters, at most 400 are read/,
  ],
  [
    '2^63 as an int64',
    inValue('"intValue":"9223372036854775808"'),
    /intValue: the number is outside -2\^63 to 2\^63-1/,
  ],
  ['-2^63-1', inValue('"intValue":"-9223372036854775809"'), /outside -2\^63 to 2\^63-1/],
  [
    'a Long as an object',
    inSpan('"startTimeUnixNano":{"low":1,"high":2,"unsigned":true}'),
    /expected a decimal integer, found an object/,
  ],
  ['an integer with a space', inSpan('"startTimeUnixNano":" 1"'), /expected a decimal integer/],
  ['an integer with a unit', inSpan('"startTimeUnixNano":"1ns"'), /something else behind it/],
  ['an empty integer', inSpan('"startTimeUnixNano":""'), /expected a decimal integer/],
  ['only a minus', inSpan('"startTimeUnixNano":"-"'), /expected a decimal integer/],
  ['true for a number', inSpan('"kind":true'), /expected a decimal integer, found true/],
  ['a number for a bool', inValue('"boolValue":1'), /expected true or false, found a number/],
  ['a string for a bool', inValue('"boolValue":"true"'), /expected true or false, found a string/],
  [
    'a trace id in base64',
    inSpan('"traceId":"W47/95gDgQPSabYzgT/GDA=="'),
    /traceId: the id looks like base64: OTLP\/JSON writes ids in hex/,
  ],
  ['a span id in base64', inSpan('"spanId":"7uXjyKfTzlE="'), /spanId: the id looks like base64/],
  ['an id of an odd length', inSpan('"spanId":"abc"'), /an id in hex has an even number of digits, this one has 3/],
  ['an id that is no hex', inSpan('"spanId":"xyz!"'), /something other than hex digits/],
  ['an id as a number', inSpan('"spanId":12'), /expected an id in hex, found a number/],
  ['an id with a quote in it', inSpan('"spanId":"ab\\"cd"'), /expected an id in hex/],
  ['bytes that are no base64', inValue('"bytesValue":"a*b="'), /bytes hold something other than base64/],
  ['bytes padded too much', inValue('"bytesValue":"A==="'), /bytes hold something other than base64/],
  ['bytes cut short', inValue('"bytesValue":"AAAAA"'), /base64 ends in the middle of a byte/],
  ['bytes as an array', inValue('"bytesValue":[1,2]'), /expected bytes in base64, found an array/],
  [
    'an attribute map instead of a list',
    inSpan('"attributes":{"k":"v"}'),
    /attributes: expected an array, found an object/,
  ],
  [
    'an attribute with a bare value',
    inSpan('"attributes":[{"key":"k","value":"v"}]'),
    /attributes\[0\]\.value: expected an object, found a string/,
  ],
  [
    'the second of two values',
    inValue('"stringValue":"a","intValue":"b"'),
    /attributes\[0\]\.value\.intValue: expected a decimal integer/,
  ],
]

for (const [fact, json, reason] of refused) {
  test(`json: refused, ${fact}`, () => {
    const converted = wireFromJson('traces', Buffer.from(json))
    assert(converted.kind === 'malformed', 'it was taken')
    expect(converted.reason).toMatch(reason)
    expect(converted.reason).toMatch(/^cannot read the JSON of traces: .*at byte \d+$/)
  })
}

test('json: an empty object, an empty list and null are empty requests of each signal', () => {
  for (const [signal, field] of [
    ['traces', 'resourceSpans'],
    ['metrics', 'resourceMetrics'],
    ['logs', 'resourceLogs'],
  ] as const) {
    for (const json of ['{}', ' { } ', `{"${field}":[]}`, `{"${field}":null}`, `{"x":1,"${field}":[]}`, '\ufeff{}']) {
      expect(wireOf(signal, json)).toHaveLength(0)
    }
  }
})

test('json: every signal says which field it wants and which signal came', () => {
  const logs = wireFromJson('logs', Buffer.from('{"resourceMetrics":[]}'))
  expect(logs).toMatchObject({
    kind: 'malformed',
    reason: expect.stringContaining('/v1/logs takes resourceLogs, the body has resourceMetrics'),
  })
})

test('json: bytes that are not UTF-8 are passed on as they are', () => {
  const broken = 'ab\xff\xc0\x80'
  const json = Buffer.from(`{"resourceSpans":[{"scopeSpans":[{"spans":[{"name":"${broken}"}]}]}]}`, 'latin1')
  expect(fieldsAt(wireOf('traces', json), 1, 2, 2)).toEqual(['5:6162ffc080'])
})

test('json: a request as the JS SDK writes it keeps every field, with and without white space', () => {
  const request = {
    resourceSpans: [
      {
        resource: { attributes: [{ key: 'service.name', value: { stringValue: 'shop' } }], droppedAttributesCount: 0 },
        scopeSpans: [
          {
            scope: { name: 'http', version: '1.0' },
            spans: [
              {
                traceId: '5b8efff798038103d269b633813fc60c',
                spanId: 'eee19b7ec3c1b174',
                name: 'GET /',
                kind: 2,
                startTimeUnixNano: '1544712660000000000',
                attributes: [
                  { key: 'http.status', value: { intValue: 200 } },
                  { key: 'big', value: { intValue: '1234567890123' } },
                  { key: 'list', value: { arrayValue: { values: [{ stringValue: 'a' }, { boolValue: true }, {}] } } },
                  { key: 'map', value: { kvlistValue: { values: [{ key: 'x', value: { doubleValue: 0.5 } }] } } },
                ],
                events: [{ timeUnixNano: '1544712660000000001', name: 'e', attributes: [] }],
                status: { code: 1 },
              },
            ],
          },
        ],
        schemaUrl: 'https://opentelemetry.io/schemas/1.37.0',
      },
    ],
  }
  const plain = wireOf('traces', JSON.stringify(request))
  const pretty = wireOf('traces', JSON.stringify(request, null, 2))
  // The quick way writes the shortest lengths and the general one padded ones, so the two are compared by what they say.
  expect(fieldsAt(plain, 1, 2, 2).map((field) => field.split(/[:=]/)[0])).toEqual([
    '1',
    '2',
    '5',
    '6',
    '7',
    '9',
    '9',
    '9',
    '9',
    '11',
    '15',
  ])
  expect(fieldsAt(plain, 1, 2, 2, 9)).toEqual(fieldsAt(pretty, 1, 2, 2, 9))
  expect(fieldsAt(pretty, 1, 2, 2, 9, 2)).toEqual(['3=200'])
  expect(fieldsAt(plain, 1, 2, 2, 9, 2)).toEqual(['3=200'])
  expect(fieldsAt(plain, 1, 1, 1, 2)).toEqual([`1:${hex('shop')}`])
  expect(fieldsAt(plain, 1, 2, 2, 11)).toEqual(fieldsAt(pretty, 1, 2, 2, 11))
})

test('json: texts of every length around the borders of words, varints and the native copy are whole', () => {
  const lengths = [...Array(40).keys(), 126, 127, 128, 129, 150, 159, 160, 161, 250, 16_383, 16_384, 70_000, 2_097_152]
  for (const length of lengths) {
    const text = 'abcdefg-'.repeat(length / 8 + 1).slice(0, length)
    expect(spanFields(`"name":"${text}"`)).toEqual([`5:${hex(text)}`])
    const attribute = `"attributes":[{"key":"${text}","value":{"stringValue":"${text}"}},{"key":"","value":{}}],"name":"after"`
    const request = `{"resourceSpans":[{"scopeSpans":[{"spans":[{${attribute}}]}]}]}`
    const quick = wireOf('traces', request)
    expect(fieldsAt(quick, 1, 2, 2).map((field) => field.charAt(0))).toEqual(['9', '9', '5'])
    expect(fieldsAt(quick, 1, 2, 2, 9)[0]).toBe(`1:${hex(text)}`)
    expect(fieldsAt(quick, 1, 2, 2, 9, 2)).toEqual([`1:${hex(text)}`])
    expect(valueFields(`"stringValue":"\\n${text}\\n${text}"`)).toEqual([`1:${hex(`\n${text}\n${text}`)}`])
  }
})

test('json: the bytes of one request do not change when the next is read', () => {
  const first = wireOf('traces', inSpan('"name":"first"'))
  const before = first.toString('hex')
  wireOf('traces', inSpan('"name":"other"'))
  expect(first.toString('hex')).toBe(before)
})

test('json: arrays of small numbers grow eightfold and are still whole', () => {
  const count = 700_000
  const counts = pointFields('histogram', 9, `"bucketCounts":[${'7,'.repeat(count - 1)}7]`)
  expect(counts).toHaveLength(1)
  expect(counts[0]).toBe(`6:${'0700000000000000'.repeat(count)}`)
})

test('json: what would be larger than a request may be is refused', () => {
  const count = limits.jsonWireBytesMax / 8 + 1
  const json = `{"resourceMetrics":[{"scopeMetrics":[{"metrics":[{"histogram":{"dataPoints":[{"bucketCounts":[${'0,'.repeat(count)}0]}]}}]}]}]}`
  const converted = wireFromJson('metrics', Buffer.from(json))
  assert(converted.kind === 'malformed', 'it was taken')
  expect(converted.reason).toMatch(`larger than ${limits.jsonWireBytesMax} bytes`)
})

const nestedArrays = (depth: number) => `${'{"arrayValue":{"values":['.repeat(depth)}{}${']}}'.repeat(depth)}`
const nestedMaps = (depth: number) =>
  `${'{"kvlistValue":{"values":[{"key":"k","value":'.repeat(depth)}{}${'}]}}'.repeat(depth)}`
const asBody = (value: string) => `{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"body":${value}}]}]}]}`

test('json: maps 64 deep are read', () => {
  expect(wireFromJson('logs', Buffer.from(asBody(nestedMaps(64)))).kind).toBe('wire')
  expect(wireFromJson('logs', Buffer.from(asBody(nestedArrays(100)))).kind).toBe('wire')
})

test('json: depth of 10,000 is refused with the bound, known, unknown or misplaced', () => {
  const bodies = [
    asBody(nestedMaps(10_000)),
    asBody(nestedArrays(10_000)),
    `{"x":${'['.repeat(10_000)}`,
    `{"x":${'{"y":'.repeat(10_000)}`,
    `{"resourceLogs":${'['.repeat(10_000)}`,
  ]
  for (const [index, body] of bodies.entries()) {
    const converted = wireFromJson('logs', Buffer.from(body))
    assert(converted.kind === 'malformed', `body ${index} was taken`)
    const expected =
      index === 4 ? /expected an object, found an array/ : /more than 512 objects and arrays inside each other/
    expect(converted.reason).toMatch(expected)
    expect(converted.reason.length).toBeLessThan(1_000)
  }
})

test('json: a text of 48 MiB inside 60 maps is not moved once per map', () => {
  const text = `{"stringValue":"${'x'.repeat(48 * 1024 * 1024)}"}`
  const secondsOf = (body: Buffer) => {
    const runs = [1, 2, 3].map(() => {
      const started = process.cpuUsage()
      expect(wireFromJson('logs', body).kind).toBe('wire')
      const { user, system } = process.cpuUsage(started)
      return (user + system) / 1e6
    })
    return Math.min(...runs)
  }
  const flat = secondsOf(Buffer.from(asBody(text)))
  const nested = secondsOf(Buffer.from(asBody(nestedMaps(60).replace('{}', text))))
  // Moved at each of the 180 messages around it, it would be 9 GiB of copies, about four times what reading it costs.
  expect(nested).toBeLessThan(flat * 2 + 0.02)
})

test('json: a reason holds neither texts nor odd names of the body', () => {
  for (const json of [
    inSpan('"name":"sk-secret\u0001"'),
    inSpan('"sk secret-1":[tru]'),
    '{"sk secret-2":1}',
    inSpan('"kind":"sk-secret"'),
  ]) {
    const converted = wireFromJson('traces', Buffer.from(json))
    assert(converted.kind === 'malformed')
    expect(converted.reason).not.toMatch(/secret/)
  }
})
