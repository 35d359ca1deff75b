import { expect, test } from 'vitest'
import { openKnownTexts } from './known-texts.ts'

test('known texts: while they are paused none is known, and afterwards only what came since the end', () => {
  const texts = openKnownTexts({ entriesMax: 10, windowMs: 1_000 }, () => 0)
  texts.add(new Set(['before']))
  expect(texts.has('before')).toBe(true)
  const endOne = texts.pause()
  const endOther = texts.pause()
  texts.add(new Set(['meanwhile']))
  expect([texts.has('before'), texts.has('meanwhile')]).toEqual([false, false])
  endOne()
  texts.add(new Set(['still']))
  expect(texts.has('still')).toBe(false)
  endOther()
  texts.add(new Set(['after']))
  expect(['before', 'meanwhile', 'still', 'after'].map(texts.has)).toEqual([false, false, false, true])
})
