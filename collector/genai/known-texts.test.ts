import { expect, test } from 'vitest'
import { hashOf } from './content.ts'
import { openKnownTexts, ownerOfTexts } from './known-texts.ts'

const owner = ownerOfTexts('default', 'ada')

test('known texts: while they are paused none is known, and afterwards only what came since the end', () => {
  const texts = openKnownTexts({ entriesMax: 10, windowMs: 1_000 }, () => 0)
  const add = (text: string) => texts.add(new Map([[owner, new Set([hashOf(text)])]]))
  const has = (text: string) => texts.has(owner, hashOf(text))
  add('before')
  expect(has('before')).toBe(true)
  const endOne = texts.pause()
  const endOther = texts.pause()
  add('meanwhile')
  expect([has('before'), has('meanwhile')]).toEqual([false, false])
  endOne()
  add('still')
  expect(has('still')).toBe(false)
  endOther()
  add('after')
  expect(['before', 'meanwhile', 'still', 'after'].map(has)).toEqual([false, false, false, true])
})

test('known texts: of a thousand, the newest are known up to the bound, each to its own user alone, and for the window', () => {
  let nowMs = 0
  const texts = openKnownTexts({ entriesMax: 100, windowMs: 1_000 }, () => nowMs)
  const hashes = Array.from({ length: 1_000 }, (_, at) => hashOf(`text ${at}`))
  for (const hash of hashes) texts.add(new Map([[owner, new Set([hash, hash])]]))
  const known = hashes.filter((hash) => texts.has(owner, hash))
  expect(known).toEqual(hashes.slice(-known.length))
  expect(known.length).toBeGreaterThanOrEqual(50)
  expect(known.length).toBeLessThanOrEqual(100)
  for (const other of [ownerOfTexts('default', 'bob'), ownerOfTexts('default', ''), ownerOfTexts('other', 'ada')])
    expect(hashes.filter((hash) => texts.has(other, hash))).toEqual([])
  nowMs = 999
  texts.add(new Map([[owner, new Set([hashOf('late')])]]))
  nowMs = 1_600
  expect([hashes[999] as string, hashOf('late')].map((hash) => texts.has(owner, hash))).toEqual([false, true])
  nowMs = 9_999
  expect(texts.has(owner, hashOf('late'))).toBe(false)
})
