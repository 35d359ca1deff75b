import { expect, test } from 'vitest'
import { limits } from '../limits.ts'
import { openPieceBatch } from './piece-batch.ts'

const max = limits.pieceBatchBytes

function open() {
  const reads: Buffer[] = []
  return { reads, batch: openPieceBatch((bytes) => reads.push(Buffer.from(bytes))) }
}

test('piece batch: pieces of any size come out as they went in, though their owner gives the memory away', () => {
  const { reads, batch } = open()
  const sizes = [1, 7, max - 8, 1, max, 3, max + 1, 20 * max, 5, max - 5, 2 * max, 1]
  const expected: Buffer[] = []
  for (const [at, size] of sizes.entries()) {
    const piece = Buffer.alloc(size, at + 1)
    expected.push(Buffer.from(piece))
    batch.write(piece)
    piece.fill(0)
  }
  batch.flush()
  batch.flush()
  expect(Buffer.concat(reads).equals(Buffer.concat(expected))).toBe(true)
})

test('piece batch: small pieces wait for company, and a large one is read at once behind them', () => {
  const { reads, batch } = open()
  for (let at = 0; at < 10; at++) batch.write(Buffer.from('word'))
  expect(reads).toEqual([])
  batch.write(Buffer.alloc(max, 'a'))
  expect(reads.map(({ length }) => length)).toEqual([40, max])
})
