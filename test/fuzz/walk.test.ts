import { test } from 'vitest'
import { makeCase } from './cases.ts'
import { openOracle } from './oracle.ts'
import { checkWalk } from './walk.ts'

test('walk: 3,000 requests and their broken forms become the rows, rejections and refusals of another decoder', () => {
  const oracle = openOracle()
  for (let seed = 0; seed < 3_000; seed += 1) checkWalk(oracle, makeCase(oracle, seed, false))
})
