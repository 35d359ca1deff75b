// What reaches a service of a denial: an error of its SDK, with ours somewhere inside.
import { RetryError } from 'ai'
import { expect, test } from 'vitest'
import { quotaExceededIn, refusedWhileAway } from './quota-exceeded.ts'

const denied = refusedWhileAway('answered 503')
const busy = new Error('503 of the provider')

test.each([
  ['as it is', denied],
  ['as the cause of a cause', new Error('a', { cause: new Error('b', { cause: denied }) })],
  [
    'as the last of several tries',
    new RetryError({ message: 'failed', reason: 'errorNotRetryable', errors: [busy, denied] }),
  ],
  ['as what all ways ended with', new Error('a', { cause: new AggregateError([busy, denied]) })],
])('a denial is found %s', (_, error) => {
  expect(quotaExceededIn(error)).toBe(denied)
})

test('where none is, none is found', () => {
  const own = new Error('of its own')
  own.cause = own
  for (const error of [undefined, 'denied', busy, own, new AggregateError([denied, busy]), new AggregateError([])])
    expect(quotaExceededIn(error)).toBeUndefined()
})
