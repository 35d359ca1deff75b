import { expect, test } from 'vitest'
import { openList } from './open-list.ts'

type Item = { readonly name: string; before: Item | undefined; after: Item | undefined }

function itemOf(name: string): Item {
  return { name, before: undefined, after: undefined }
}

test('open list: items leave from anywhere, once, and the others keep their order', () => {
  const list = openList<Item>()
  const items = ['a', 'b', 'c', 'd'].map(itemOf)
  const [a, b, c, d] = items as [Item, Item, Item, Item]
  for (const item of items) list.add(item)
  const names = (): string => list.all().reduce((text, { name }) => text + name, '')
  expect(names()).toBe('abcd')
  expect(list.delete(b)).toBe(true)
  expect(list.delete(b)).toBe(false)
  expect(names()).toBe('acd')
  expect(list.delete(a)).toBe(true)
  expect(list.delete(d)).toBe(true)
  expect(names()).toBe('c')
  list.add(b)
  expect(names()).toBe('cb')
  expect(list.delete(c)).toBe(true)
  expect(list.delete(b)).toBe(true)
  expect([names(), list.size()]).toEqual(['', 0])
  expect(list.delete(itemOf('e'))).toBe(false)
})

test('open list: one that has left leads to no other, so that the dead keep nothing alive', () => {
  const list = openList<Item>()
  const [a, b, c] = ['a', 'b', 'c'].map(itemOf) as [Item, Item, Item]
  for (const item of [a, b, c]) list.add(item)
  list.delete(b)
  expect(b).toMatchObject({ before: undefined, after: undefined })
  list.delete(a)
  expect(a.after).toBeUndefined()
  expect(c.before).toBeUndefined()
})
