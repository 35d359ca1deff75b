import { expect, test } from 'vitest'
import { boundText, encodeAccepted, encodeGrpcMessage, encodeStatus, retryAfterSeconds, statusOf } from './answer.ts'

test('answer: full success is an empty message in protobuf and {} in JSON', () => {
  expect(encodeAccepted('traces', 0, '', 'protobuf')).toHaveLength(0)
  expect(encodeAccepted('logs', 0, '', 'json').toString()).toBe('{}')
})

for (const [signal, field] of [
  ['traces', 'rejectedSpans'],
  ['metrics', 'rejectedDataPoints'],
  ['logs', 'rejectedLogRecords'],
] as const) {
  test(`answer: ${signal} name what was rejected ${field}, as a string, as JSON of int64 is`, () => {
    expect(JSON.parse(encodeAccepted(signal, 5, 'old', 'json').toString())).toEqual({
      partialSuccess: { [field]: '5', errorMessage: 'old' },
    })
  })
}

test('answer: a count beyond 32 bits is whole in protobuf', () => {
  const count = 5_000_000_000
  expect(encodeAccepted('traces', count, '', 'protobuf').toString('hex')).toBe('0a060880e497d012')
})

test('answer: google.rpc.Status with RetryInfo in protobuf', () => {
  const status = encodeStatus({ reason: 'unavailable', message: 'm', retryAfterMs: 1500 }, 14, 'protobuf')
  const type = Buffer.from('type.googleapis.com/google.rpc.RetryInfo')
  const delay = '0a08' + '0801' + '1080cab5ee01'
  const any = `0a${type.length.toString(16)}${type.toString('hex')}120a${delay}`
  expect(status.toString('hex')).toBe(`080e12016d1a${(any.length / 2).toString(16)}${any}`)
})

test('answer: Retry-After is whole seconds, at least one', () => {
  expect([0, 1, 999, 1000, 1001, 59_001].map(retryAfterSeconds)).toEqual([1, 1, 1, 1, 2, 60])
})

test('answer: grpc-message is printable ASCII, and says the same when it is decoded', () => {
  for (const text of ['plain', '100 %', 'ünï – 🦜\n\0', '%41']) {
    const encoded = encodeGrpcMessage(text)
    expect(encoded).toMatch(/^[ -~]*$/)
    expect(decodeURIComponent(encoded)).toBe(text)
  }
})

test('answer: half a surrogate pair becomes a replacement character', () => {
  expect(boundText('a\ud83e')).toBe('a\ufffd')
})

test('answer: no refusal is 500, and only those to be sent again are 429 or 503', () => {
  const retried = Object.entries(statusOf).filter(([, { http }]) => http === 429 || http >= 500)
  expect(Object.fromEntries(retried.map(([reason, { http, grpc }]) => [reason, [http, grpc]]))).toEqual({
    throttled: [429, 14],
    unavailable: [503, 14],
    timed_out: [503, 14],
  })
})
