import { expect, test } from 'vitest'
import { openAwaitedSpans } from './awaited-spans.ts'

test('awaited spans: an id is found by its bytes until two others have its place, and no other id is', () => {
  const awaited = openAwaitedSpans()
  const has = (id: string): boolean => {
    const bytes = Buffer.from(`ff${id}`, 'hex')
    return awaited.has(new DataView(bytes.buffer, bytes.byteOffset), 1)
  }
  const ids = ['0123456789abcdef', 'fedcba9800000001', '00000000ffffffff', 'ffffffff00000000']
  for (const id of ids) awaited.add(id)
  expect(ids.map(has)).toEqual([true, true, true, true])
  expect(has('0123456789abcdee')).toBe(false)
  expect(has('1123456789abcdef')).toBe(false)
  // The same slot: the last 17 bits are equal.
  awaited.add('aaaa000000020001')
  awaited.add('aaaa000000020001')
  expect(has('fedcba9800000001')).toBe(true)
  awaited.add('bbbb000000040001')
  expect(['fedcba9800000001', 'aaaa000000020001', 'bbbb000000040001'].map(has)).toEqual([false, true, true])
})
