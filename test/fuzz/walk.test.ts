import { test } from 'vitest'
import { makeCase } from './cases.ts'
import { openOracle } from './oracle.ts'
import { checkWalk } from './walk.ts'

test('walk: 1,500 requests and their broken forms become the rows, rejections and refusals of another decoder', () => {
  const oracle = openOracle()
  for (let seed = 0; seed < 1_500; seed += 1) checkWalk(oracle, makeCase(oracle, seed, false))
})
