import { expect, test } from 'vitest'
import { loggable, remedyOf } from './refusals.ts'

test('refusals: what speaks of the server is logged whole, what may quote a row by its name alone', () => {
  const refusal = (code: number) => loggable({ code, type: 'NAME', message: "column values: SpanName = 'private'" })
  for (const code of [252, 241, 60, 999])
    expect(refusal(code)).toBe(`NAME (${code}): column values: SpanName = 'private'`)
  for (const code of [469, 6, 117, 395, 12_345]) expect(refusal(code)).toBe(`NAME (${code})`)
})

test('refusals: a code that nobody has listed is tried again', () => {
  expect([252, 241, 469, 60, 12_345].map(remedyOf)).toEqual(['retry', 'halve', 'isolate', 'mend', 'retry'])
})
