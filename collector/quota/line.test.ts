import { expect, test } from 'vitest'
import { openLine } from './line.ts'

test('line: a tenant alone has half of it, and whoever comes next finds room', () => {
  const line = openLine<string>(100)
  const pushed = (tenant: string, items: number): number =>
    Array.from({ length: items }, (_, at) => line.push(tenant, `${tenant} ${at}`)).filter(Boolean).length
  expect(pushed('flood', 200)).toBe(50)
  expect(pushed('other', 200)).toBe(25)
  expect(pushed('third', 1)).toBe(1)
  expect(line.count()).toBe(76)
})

test('line: tenants are taken in turn, each in its own order, and none is left out', () => {
  const line = openLine<string>(100)
  for (const item of ['a1', 'a2', 'a3', 'a4', 'a5', 'b1', 'c1', 'c2', 'c3']) line.push(item.slice(0, 1), item)
  expect(line.take(3)).toEqual(['a1', 'b1', 'c1'])
  expect(line.take(1)).toEqual(['a2'])
  expect(line.take(4)).toEqual(['c2', 'c3', 'a3', 'a4'])
  expect(line.take(4)).toEqual(['a5'])
  expect([line.take(4), line.count()]).toEqual([[], 0])
})
